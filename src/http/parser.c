#include "http/parser.h"

#include <assert.h>
#include <llhttp.h>
#include <string.h>

_Static_assert(sizeof(llhttp_t) <= sizeof(((struct http_parser *)0)->llhttp), "room for llhttp_t");
_Static_assert(_Alignof(llhttp_t) <= 8, "alignment of llhttp_t");

static const char wrong_version[] = "only HTTP/1.0 and HTTP/1.1 are spoken here";

static llhttp_t *engine(struct http_parser *p)
{
    return (llhttp_t *)(void *)p->llhttp;
}

static struct http_parser *self(llhttp_t *l)
{
    return l->data;
}

/* Ends the parse with an answer of ours instead of llhttp's. */
static int refuse(struct http_parser *p, int status, const char *reason)
{
    p->status = status;
    p->reason = reason;
    return HPE_USER;
}

/* ---- head ---- */

static int on_url(llhttp_t *l, const char *at, size_t len)
{
    struct http_parser *p = self(l);
    if (!p->url_seen) {
        p->url = at;
        p->url_seen = true;
    }
    p->url_len += len;
    return 0;
}

static int on_protocol(llhttp_t *l, const char *at, size_t len)
{
    struct http_parser *p = self(l);
    /* llhttp also reads RTSP and ICE, whose versions look like ours. */
    if (!p->protocol_first && len)
        p->protocol_first = *at;
    return 0;
}

/* A name or value that arrives in pieces comes as several adjoining spans. */
static int on_header_field(llhttp_t *l, const char *at, size_t len)
{
    struct http_parser *p = self(l);
    if (p->in_body)
        return 0; /* a trailer: parsed, counted, ignored */
    if (p->header_count == PARSER_HEADERS_MAX)
        return refuse(p, 431, "too many headers, at most 100 are allowed");
    struct http_header *h = &p->headers[p->header_count];
    if (!h->name)
        h->name = at;
    h->name_len += (uint32_t)len;
    return 0;
}

static int on_header_value(llhttp_t *l, const char *at, size_t len)
{
    struct http_parser *p = self(l);
    if (p->in_body)
        return 0;
    struct http_header *h = &p->headers[p->header_count];
    if (!h->value)
        h->value = at;
    h->value_len += (uint32_t)len;
    return 0;
}

static int on_header_value_complete(llhttp_t *l)
{
    struct http_parser *p = self(l);
    if (p->in_body)
        return 0;
    struct http_header *h = &p->headers[p->header_count];
    if (!h->value) {
        h->value = h->name + h->name_len; /* empty */
        h->value_len = 0;
    }
    while (h->value_len &&
           (h->value[h->value_len - 1] == ' ' || h->value[h->value_len - 1] == '\t'))
        h->value_len--;
    if (++p->header_count < PARSER_HEADERS_MAX)
        memset(&p->headers[p->header_count], 0, sizeof(struct http_header));
    return 0;
}

/* Codings other than chunked are for hops that understand them; we are none. */
static int check_coding(struct http_parser *p)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < p->header_count; i++) {
        const struct http_header *h = &p->headers[i];
        if (h->name_len != 17 || strncasecmp(h->name, "transfer-encoding", 17) != 0)
            continue;
        count++;
        if (h->value_len != 7 || strncasecmp(h->value, "chunked", 7) != 0)
            return refuse(p, 501, "the only transfer coding understood here is chunked");
    }
    return count == 1 ? 0 : refuse(p, 400, "more than one Transfer-Encoding");
}

static int on_headers_complete(llhttp_t *l)
{
    struct http_parser *p = self(l);
    if (p->protocol_first != 'H' || l->http_major != 1 || l->http_minor > 1)
        return refuse(p, 505, wrong_version);

    bool has_coding = (l->flags & F_TRANSFER_ENCODING) != 0;
    p->is_chunked = (l->flags & F_CHUNKED) != 0;
    p->has_content_length = (l->flags & F_CONTENT_LENGTH) != 0;
    p->content_length = p->has_content_length ? l->content_length : 0;
    p->is_http10 = l->http_minor == 0;
    p->keep_alive = llhttp_should_keep_alive(l) != 0;
    p->method_name = llhttp_method_name((llhttp_method_t)l->method);
    /* We pause before llhttp compares these, so we do: each is a way to make two servers see
     * different requests in the same bytes. */
    if ((has_coding || p->is_chunked) && p->has_content_length)
        return refuse(p, 400, "both Transfer-Encoding and Content-Length");
    if (has_coding && !p->is_chunked)
        return refuse(p, 400, "Transfer-Encoding does not end in chunked");
    if (p->is_chunked && p->is_http10)
        return refuse(p, 400, "Transfer-Encoding in an HTTP/1.0 request");

    if (has_coding && check_coding(p) != 0)
        return HPE_USER;

    l->upgrade = 0; /* no other protocol is offered: the body is a body */
    return HPE_PAUSED;
}

/* ---- chunked body ---- */

static int on_chunk_header(llhttp_t *l)
{
    struct http_parser *p = self(l);
    p->chunk_left = l->content_length;
    return p->chunk_left ? HPE_PAUSED : 0;
}

static int on_body(llhttp_t *l, const char *at, size_t len)
{
    struct http_parser *p = self(l);
    assert(len <= p->chunk_left);
    if (at != p->out)
        memmove(p->out, at, len);
    p->out += len;
    p->chunk_left -= len;
    return 0;
}

static int on_message_complete(llhttp_t *l)
{
    (void)l;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_protocol = on_protocol,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_header_value_complete = on_header_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_chunk_header = on_chunk_header,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

void parser_reset(struct http_parser *p)
{
    llhttp_init(engine(p), HTTP_REQUEST, &settings);
    engine(p)->data = p;
    p->in_body = false;
    p->url_seen = false;
    p->protocol_first = 0;
    p->url_len = 0;
    p->header_count = 0;
    memset(&p->headers[0], 0, sizeof(p->headers[0]));
    p->chunk_left = 0;
    p->overhead_bytes = 0;
    p->status = 0;
    p->reason = NULL;
}

static enum parser_result fail(struct http_parser *p, llhttp_errno_t rc)
{
    if (p->status)
        return PARSER_ERROR;
    const char *reason = llhttp_get_error_reason(engine(p));
    /* llhttp gives the same number for a version it does not speak and for a malformed one. */
    bool is_other_version =
        rc == HPE_PAUSED_H2_UPGRADE ||
        (rc == HPE_INVALID_VERSION && reason && strcmp(reason, "Invalid HTTP version") == 0);
    p->status = is_other_version ? 505 : 400;
    p->reason = is_other_version ? wrong_version : reason ? reason : "malformed request";
    return PARSER_ERROR;
}

enum parser_result parser_head(struct http_parser *p, const char *data, size_t len,
                               size_t *ret_consumed)
{
    llhttp_errno_t rc = llhttp_execute(engine(p), data, len);
    if (rc == HPE_OK) {
        *ret_consumed = len;
        return PARSER_MORE;
    }
    if (rc != HPE_PAUSED)
        return fail(p, rc);
    *ret_consumed = (size_t)(llhttp_get_error_pos(engine(p)) - data);
    p->in_body = true;
    return PARSER_HEAD;
}

void parser_rebase(struct http_parser *p, ptrdiff_t delta)
{
    if (p->url_seen)
        p->url += delta;
    /* One more than header_count: the header that is being parsed. */
    for (uint32_t i = 0; i <= p->header_count && i < PARSER_HEADERS_MAX; i++) {
        struct http_header *h = &p->headers[i];
        if (h->name)
            h->name += delta;
        if (h->value)
            h->value += delta;
    }
}

enum parser_result parser_body(struct http_parser *p, const char *data, size_t len,
                               size_t *ret_consumed)
{
    llhttp_t *l = engine(p);
    const char *out_before = p->out;
    llhttp_resume(l);
    llhttp_errno_t rc = llhttp_execute(l, data, len);

    size_t consumed = len;
    if (rc == HPE_PAUSED)
        consumed = (size_t)(llhttp_get_error_pos(l) - data);
    else if (rc != HPE_OK)
        return fail(p, rc);

    p->overhead_bytes += consumed - (size_t)(p->out - out_before);
    if (p->overhead_bytes > PARSER_CHUNK_OVERHEAD_BYTES_MAX) {
        refuse(p, 431, "chunk extensions or trailers are too long");
        return PARSER_ERROR;
    }
    *ret_consumed = consumed;
    if (rc == HPE_OK)
        return PARSER_MORE;
    if (p->chunk_left == 0)
        return PARSER_DONE;
    p->overhead_bytes = 0;
    return PARSER_CHUNK;
}
