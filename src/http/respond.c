/* http/respond.c - the answer's head, and writing. */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/put.h"
#include "http/conn.h"

enum {
    HEAD_OWN_BYTES_MAX = 160
}; /* the lines that are ours, at their longest */

static const struct {
    int status;
    const char *text;
} reasons[] = {
    { 200, "OK" },
    { 201, "Created" },
    { 202, "Accepted" },
    { 204, "No Content" },
    { 206, "Partial Content" },
    { 301, "Moved Permanently" },
    { 302, "Found" },
    { 303, "See Other" },
    { 304, "Not Modified" },
    { 307, "Temporary Redirect" },
    { 308, "Permanent Redirect" },
    { 400, "Bad Request" },
    { 401, "Unauthorized" },
    { 403, "Forbidden" },
    { 404, "Not Found" },
    { 405, "Method Not Allowed" },
    { 406, "Not Acceptable" },
    { 408, "Request Timeout" },
    { 409, "Conflict" },
    { 411, "Length Required" },
    { 412, "Precondition Failed" },
    { 413, "Payload Too Large" },
    { 414, "URI Too Long" },
    { 415, "Unsupported Media Type" },
    { 417, "Expectation Failed" },
    { 422, "Unprocessable Entity" },
    { 429, "Too Many Requests" },
    { 431, "Request Header Fields Too Large" },
    { 499, "Client Closed Request" },
    { 500, "Internal Server Error" },
    { 501, "Not Implemented" },
    { 502, "Bad Gateway" },
    { 503, "Service Unavailable" },
    { 504, "Gateway Timeout" },
    { 505, "HTTP Version Not Supported" },
};

static const char *reason_text(int status)
{
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++) {
        if (reasons[i].status == status)
            return reasons[i].text;
    }
    return "Unknown";
}

/* ---- head ---- */

#define PUT_TEXT(at, text) put((at), (text), sizeof(text) - 1)

static bool status_has_body(int status)
{
    return status >= 200 && status != 204 && status != 304;
}

/* Writes the head to `at`, which has room for headers_len + HEAD_OWN_BYTES_MAX; returns its end. */
static char *put_head(const struct conn *c, char *at, int status, const char *headers,
                      size_t headers_len, uint64_t body_bytes)
{
    if (LIKELY(status == 200)) {
        at = PUT_TEXT(at, "HTTP/1.1 200 OK\r\n");
    } else {
        const char *text = reason_text(status);
        at = PUT_TEXT(at, "HTTP/1.1 ");
        at = put_u64(at, (uint64_t)status);
        *at++ = ' ';
        at = put(at, text, strlen(text));
        at = PUT_TEXT(at, "\r\n");
        if (status == 503) /* every cause of it passes: a full queue, loading, too many bytes */
            at = PUT_TEXT(at, "Retry-After: 1\r\n");
    }
    if (headers_len)
        at = put(at, headers, headers_len);
    if (status_has_body(status)) {
        at = PUT_TEXT(at, "Content-Length: ");
        at = put_u64(at, body_bytes);
        at = PUT_TEXT(at, "\r\n");
    }
    if (c->is_last)
        at = PUT_TEXT(at, "Connection: close\r\n");
    else if (c->x->parser.is_http10)
        at = PUT_TEXT(at, "Connection: keep-alive\r\n");
    return PUT_TEXT(at, "\r\n");
}

/* ---- writing ---- */

static void let_go(struct exchange *x)
{
    void (*done)(void *) = x->done;
    x->out = OUT_WRITTEN;
    x->done = NULL;
    if (done)
        done(x->done_arg);
}

void respond_drop(struct exchange *x)
{
    if (x->out == OUT_WRITING)
        let_go(x);
}

static void advance(struct exchange *x, size_t n)
{
    while (x->iov_at < x->iov_count && n >= x->iov[x->iov_at].iov_len)
        n -= x->iov[x->iov_at++].iov_len;
    if (n) {
        x->iov[x->iov_at].iov_base = (char *)x->iov[x->iov_at].iov_base + n;
        x->iov[x->iov_at].iov_len -= n;
    }
}

void respond_write(struct conn *c)
{
    struct exchange *x = c->x;
    assert(x && x->out == OUT_WRITING);
    bool is_full = false;
    while (x->iov_at < x->iov_count && !is_full) {
        size_t count = x->iov_count - x->iov_at;
        if (count > IOV_MAX)
            count = IOV_MAX;
        ssize_t n = transport_send(&c->base.transport, x->iov + x->iov_at, count);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK)
                return;
            conn_lose(c);
            return;
        }
        c->progress_ns = loop_now_ns(c->shard->loop);
        uint32_t at_before = x->iov_at;
        advance(x, (size_t)n);
        is_full = x->iov_at - at_before < count;
    }
    if (x->iov_at == x->iov_count)
        let_go(x);
}

/* ---- the answer ---- */

/* Whether the connection can carry another request after this answer. When the body is still on its
 * way it must be read to find the next head; that is worth it only for a short one that is sure to
 * come. */
static bool can_keep_alive(const struct conn *c)
{
    const struct exchange *x = c->x;
    if (c->is_last || !x->parser.keep_alive || server_is_draining(c->shard))
        return false;
    if (c->in == IN_DONE)
        return true;
    if (c->in != IN_HEAD || x->parser.is_chunked)
        return false;
    uint64_t length = x->pub.content_length;
    return length == 0 || (!x->expects_continue && length <= DROP_BYTES_MAX);
}

/* Room for `bytes` of head (and short body); NULL when out of memory. */
static char *out_room(struct exchange *x, size_t bytes)
{
    if (bytes <= sizeof(x->out_buf))
        return x->out_buf;
    x->out_big = malloc(bytes);
    return x->out_big;
}

static bool iov_room(struct exchange *x, size_t count)
{
    if (count > OUT_PARTS_INLINE)
        x->iov = malloc(count * sizeof(struct iovec));
    if (x->iov)
        return true;
    x->iov = x->iov_inline;
    return false;
}

/* What a slow reader makes us hold counts against everybody's bound. */
static void charge_rest(const struct conn *c)
{
    struct exchange *x = c->x;
    if (!c->shard->budget || x->pub.budget_exempt)
        return;
    size_t bytes = 0;
    for (uint32_t i = x->iov_at; i < x->iov_count; i++)
        bytes += x->iov[i].iov_len;
    budget_force(c->shard->budget, bytes);
    x->budget_bytes += bytes;
}

/* body: copied behind the head; or parts, not copied. */
static void respond(struct exchange *x, int status, const char *headers, size_t headers_len,
                    const void *body, size_t body_len, const struct iovec *parts,
                    uint32_t part_count)
{
    struct conn *c = x->conn;
    assert(loop_is_current(c->shard->loop));
    assert(!x->is_answered); /* exactly once */
    x->is_answered = true;
    x->out = OUT_WRITING;
    if (!transport_is_open(&c->base.transport)) {
        let_go(x); /* the client is gone */
        conn_run(c);
        return;
    }

    c->is_last = !can_keep_alive(c);
    uint64_t body_bytes = body_len;
    for (uint32_t i = 0; i < part_count; i++)
        body_bytes += parts[i].iov_len;
    bool has_body = status_has_body(status) && x->pub.method != HTTP_HEAD;
    if (!has_body) {
        body_len = 0;
        part_count = 0;
    }

    char *at = out_room(x, HEAD_OWN_BYTES_MAX + headers_len + body_len);
    if (!at || !iov_room(x, (size_t)part_count + 1)) {
        conn_lose(c);
        conn_run(c);
        return;
    }
    char *end = put_head(c, at, status, headers, headers_len, body_bytes);
    if (body_len)
        end = put(end, body, body_len);
    x->iov[0] = (struct iovec){ .iov_base = at, .iov_len = (size_t)(end - at) };
    if (part_count)
        memcpy(x->iov + 1, parts, part_count * sizeof(*parts));
    x->iov_at = 0;
    x->iov_count = part_count + 1;

    c->progress_ns = loop_now_ns(c->shard->loop);
    respond_write(c);
    if (x->out == OUT_WRITING)
        charge_rest(c);
    conn_run(c);
}

void http_respond(struct http_exchange *ex, int status, const char *headers, size_t headers_len,
                  const struct iovec *parts, uint32_t part_count, void (*done)(void *arg),
                  void *arg)
{
    struct exchange *x = exchange_of(ex);
    x->done = done;
    x->done_arg = arg;
    respond(x, status, headers, headers_len, NULL, 0, parts, part_count);
}

void http_respond_copy(struct http_exchange *ex, int status, const char *headers, const void *body,
                       size_t body_len)
{
    respond(exchange_of(ex), status, headers ? headers : "", headers ? strlen(headers) : 0, body,
            body_len, NULL, 0);
}
