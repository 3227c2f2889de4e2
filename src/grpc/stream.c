/* grpc/stream.c - one exchange: headers, one message in, one answer out, a deadline. */
#include <assert.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/conn.h"

#define NV(name_text, value_text, value_bytes)                                                  \
    {                                                                                           \
        .name = (uint8_t *)(uintptr_t)(name_text), .value = (uint8_t *)(uintptr_t)(value_text), \
        .namelen = sizeof(name_text) - 1, .valuelen = (value_bytes),                            \
        .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME,                                                  \
    }
#define NV_CONST(name_text, value_text) NV(name_text, value_text, sizeof(value_text) - 1)

static struct stream *stream_of(struct grpc_exchange *ex)
{
    return CONTAINER_OF(ex, struct stream, pub);
}

static const struct grpc_handler *handler_of(const struct stream *s)
{
    return &s->conn->shard->server->handler;
}

static const struct grpc_server_options *options_of(const struct stream *s)
{
    return &s->conn->shard->server->options;
}

static uint64_t now_ns(const struct stream *s)
{
    return loop_now_ns(s->conn->shard->loop);
}

struct loop *grpc_exchange_loop(const struct grpc_exchange *ex)
{
    return CONTAINER_OF(ex, const struct stream, pub)->conn->shard->loop;
}

bool grpc_exchange_is_cancelled(const struct grpc_exchange *ex)
{
    return CONTAINER_OF(ex, const struct stream, pub)->is_cancelled;
}

/* ---- The end ---- */

static void release_memory(struct stream *s)
{
    if (s->memory.release)
        s->memory.release(s->memory.owner);
    memset(&s->memory, 0, sizeof(s->memory));
    if (options_of(s)->budget)
        budget_give(options_of(s)->budget, s->budget_bytes);
    s->budget_bytes = 0;
}

/* Ends the exchange when nobody needs it any more. May free s. */
static void settle(struct stream *s)
{
    if (s->is_open || s->slices > 0 || (s->is_asked && !s->is_answered))
        return;
    struct grpc_shard *shard = s->conn->shard;
    list_remove(&s->in_conn);
    loop_timer_cancel(shard->loop, &s->deadline);
    release_memory(s);
    if (s->is_seen && handler_of(s)->on_end)
        handler_of(s)->on_end(&s->pub, handler_of(s)->arg);
    if (s->parts != s->inline_parts)
        free(s->parts);
    if (shard->free_stream_count == FREE_MAX) {
        free(s);
        return;
    }
    s->next_free = shard->free_streams;
    shard->free_streams = s;
    shard->free_stream_count++;
}

/* The client does not wait for the handler's answer any more. */
static void cancel(struct stream *s)
{
    if (!s->is_asked || s->is_answered || s->is_cancelled)
        return;
    s->is_cancelled = true;
    if (handler_of(s)->on_cancel)
        handler_of(s)->on_cancel(&s->pub, handler_of(s)->arg);
}

void stream_closed(struct stream *s)
{
    s->is_replied = true; /* nobody would read it */
    cancel(s);            /* may answer, and must not end s under our hands */
    s->is_open = false;
    settle(s);
}

void stream_slices_gone(struct stream *s, uint32_t count)
{
    assert(s->slices >= count);
    s->slices -= count;
    settle(s);
}

/* ---- Answers ---- */

/* An answer without a message: everything stands in one header block. */
static void reply_error(struct stream *s, enum grpc_code code, const char *text)
{
    char encoded[3 * FRAME_TEXT_BYTES_MAX];
    char number[12];
    if (!s->is_open || s->is_replied)
        return;
    s->is_replied = true;
    size_t text_len = frame_encode_text(text, encoded);
    size_t number_len = (size_t)snprintf(number, sizeof(number), "%d", (int)code);
    const nghttp2_nv headers[] = {
        NV_CONST(":status", "200"),
        NV_CONST("content-type", "application/grpc"),
        NV_CONST("grpc-accept-encoding", "identity"),
        NV("grpc-status", number, number_len),
        NV("grpc-message", encoded, text_len),
    };
    size_t count = ARRAY_LEN(headers) - (text_len == 0);
    if (nghttp2_submit_response(s->conn->session, s->id, headers, count, NULL))
        s->conn->is_failed = true; /* out of memory */
    loop_timer_cancel(s->conn->shard->loop, &s->deadline);
    grpc_conn_run_soon(s->conn);
}

PRINTF(3, 4) static void reply_errorf(struct stream *s, enum grpc_code code, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    reply_error(s, code, text);
}

/* To a client that does not speak gRPC. */
static void reply_http(struct stream *s, const char *status)
{
    const nghttp2_nv headers[] = { NV(":status", status, 3) };
    s->is_replied = true;
    if (nghttp2_submit_response(s->conn->session, s->id, headers, 1, NULL))
        s->conn->is_failed = true;
    grpc_conn_run_soon(s->conn);
}

/* nghttp2 asks how much the next DATA frame carries; output_send_data() brings it. */
static ssize_t read_reply(nghttp2_session *session, int32_t id, uint8_t *buf, size_t len,
                          uint32_t *flags, nghttp2_data_source *source, void *user)
{
    static const nghttp2_nv trailers[] = { NV_CONST("grpc-status", "0") };
    (void)buf;
    (void)user;
    struct stream *s = source->ptr;
    size_t n = 0;
    uint32_t end = s->part_at + FRAME_SLICES_MAX;
    for (uint32_t i = s->part_at; i < end && i < s->part_count; i++)
        n += s->parts[i].iov_len - (i == s->part_at ? s->part_offset : 0);
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (n > len)
        n = len;
    if (n == s->left) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        if (nghttp2_submit_trailer(session, id, trailers, ARRAY_LEN(trailers)))
            return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return (ssize_t)n;
}

static void reply_message(struct stream *s, const struct iovec *parts, uint32_t part_count)
{
    static const nghttp2_nv headers[] = {
        NV_CONST(":status", "200"),
        NV_CONST("content-type", "application/grpc"),
        NV_CONST("grpc-accept-encoding", "identity"),
    };
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < part_count; i++)
        bytes += parts[i].iov_len;
    if (bytes > INT32_MAX) {
        reply_errorf(s, GRPC_RESOURCE_EXHAUSTED,
                     "the answer of %llu bytes is larger than a message may be (%d bytes)",
                     (unsigned long long)bytes, INT32_MAX);
        return;
    }
    if (part_count >= PARTS_INLINE) {
        struct iovec *room = malloc((part_count + 1) * sizeof(*room));
        if (!room) {
            reply_error(s, GRPC_UNAVAILABLE, "out of memory");
            return;
        }
        s->parts = room;
    }
    frame_put_prefix(s->out_prefix, (uint32_t)bytes);
    s->parts[0] = (struct iovec){ .iov_base = s->out_prefix, .iov_len = FRAME_PREFIX_BYTES };
    if (part_count > 0)
        memcpy(s->parts + 1, parts, part_count * sizeof(*parts));
    s->part_count = part_count + 1;
    s->left = bytes + FRAME_PREFIX_BYTES;

    nghttp2_data_provider provider = { .source.ptr = s, .read_callback = read_reply };
    s->is_replied = true;
    if (nghttp2_submit_response(s->conn->session, s->id, headers, ARRAY_LEN(headers), &provider))
        s->conn->is_failed = true;
    loop_timer_cancel(s->conn->shard->loop, &s->deadline);
    grpc_conn_run_soon(s->conn);
}

void grpc_respond(struct grpc_exchange *ex, const struct iovec *parts, uint32_t part_count)
{
    struct stream *s = stream_of(ex);
    assert(loop_is_current(s->conn->shard->loop));
    assert(!s->is_answered); /* exactly once */
    s->is_answered = true;
    if (s->is_open && !s->is_replied)
        reply_message(s, parts, part_count);
    struct grpc_conn *c = s->conn;
    settle(s);
    grpc_conn_run_soon(c);
}

void grpc_fail(struct grpc_exchange *ex, enum grpc_code code, const char *text)
{
    struct stream *s = stream_of(ex);
    assert(loop_is_current(s->conn->shard->loop));
    assert(!s->is_answered && code != GRPC_OK);
    s->is_answered = true;
    reply_error(s, code, text);
    struct grpc_conn *c = s->conn;
    settle(s);
    grpc_conn_run_soon(c);
}

static void deadline_fired(struct loop_timer *t, uint64_t now)
{
    struct stream *s = CONTAINER_OF(t, struct stream, deadline);
    (void)now;
    reply_error(s, GRPC_DEADLINE_EXCEEDED, "Deadline Exceeded");
    cancel(s);
}

/* ---- The request ---- */

struct stream *stream_create(struct grpc_conn *c, int32_t id)
{
    struct grpc_shard *shard = c->shard;
    struct stream *s = shard->free_streams;
    if (s) {
        shard->free_streams = s->next_free;
        shard->free_stream_count--;
    } else {
        s = malloc(sizeof(*s));
        if (!s)
            return NULL;
    }
    memset(s, 0, offsetof(struct stream, inline_parts));
    s->conn = c;
    s->id = id;
    s->is_open = true;
    s->parts = s->inline_parts;
    s->path[0] = '\0';
    s->pub.path = s->path;
    s->pub.message_bytes_max = shard->server->options.message_bytes_max;
    s->pub.recv_start_ns = loop_now_ns(shard->loop);
    s->deadline.fire = deadline_fired;
    list_append(&c->streams, &s->in_conn);
    return s;
}

static bool equals(const uint8_t *at, size_t len, const char *text)
{
    return len == strlen(text) && memcmp(at, text, len) == 0;
}

void stream_header(struct stream *s, const uint8_t *name, size_t name_len, const uint8_t *value,
                   size_t value_len)
{
    if (equals(name, name_len, ":path")) {
        if (value_len < sizeof(s->path)) {
            memcpy(s->path, value, value_len);
            s->path[value_len] = '\0';
        }
    } else if (equals(name, name_len, ":method")) {
        s->is_post = equals(value, value_len, "POST");
    } else if (equals(name, name_len, "content-type")) {
        s->is_grpc = frame_is_grpc_type((const char *)value, value_len);
    } else if (equals(name, name_len, "grpc-timeout")) {
        s->has_timeout = frame_parse_timeout((const char *)value, value_len, &s->timeout_ns);
    }
}

void stream_head(struct stream *s)
{
    if (!s->is_grpc || !s->is_post) {
        reply_http(s, s->is_post ? "415" : "405");
        return;
    }
    if (s->has_timeout) {
        s->pub.deadline_ns = s->pub.recv_start_ns + s->timeout_ns;
        tis_error *err = loop_timer_arm(s->conn->shard->loop, &s->deadline, s->pub.deadline_ns);
        if (err) {
            error_free(err);
            reply_error(s, GRPC_UNAVAILABLE, "out of memory");
            return;
        }
    }
    s->is_seen = true;
    handler_of(s)->on_head(&s->pub, handler_of(s)->arg);
}

/* The prefix of the message is complete. */
static void begin_message(struct stream *s)
{
    const struct grpc_server_options *o = options_of(s);
    s->message_len = frame_prefix_bytes(s->prefix);
    if (s->prefix[0] != 0) {
        reply_error(s, GRPC_UNIMPLEMENTED,
                    "compressed messages are not supported; grpc-accept-encoding is identity");
        return;
    }
    if (s->message_len > s->pub.message_bytes_max) {
        reply_errorf(s, GRPC_RESOURCE_EXHAUSTED,
                     "message of %zu bytes is larger than the limit of %llu bytes. Use %s to "
                     "increase the limit.",
                     s->message_len, (unsigned long long)s->pub.message_bytes_max,
                     o->message_bytes_flag);
        return;
    }
    if (s->message_len == 0)
        return;
    if (o->budget && !s->pub.budget_exempt) {
        if (!budget_take(o->budget, s->message_len)) {
            reply_errorf(s, GRPC_UNAVAILABLE,
                         "too many request bytes are in flight. Use %s to increase the limit.",
                         o->budget_flag);
            return;
        }
        s->budget_bytes = s->message_len;
    }
    tis_error *err =
        handler_of(s)->on_message(&s->pub, s->message_len, &s->memory, handler_of(s)->arg);
    if (err)
        reply_error(s, GRPC_UNAVAILABLE, error_text(err));
    error_free(err);
}

void stream_data(struct stream *s, const uint8_t *data, size_t len)
{
    if (s->is_replied)
        return; /* dropped */
    while (len > 0 && s->prefix_len < FRAME_PREFIX_BYTES) {
        s->prefix[s->prefix_len++] = *data++;
        len--;
        if (s->prefix_len == FRAME_PREFIX_BYTES)
            begin_message(s);
    }
    if (len == 0 || s->is_replied)
        return;
    if (len > s->message_len - s->received) {
        reply_error(s, GRPC_INTERNAL, "more than one message in a unary call");
        return;
    }
    memcpy(s->memory.base + s->received, data, len);
    s->received += len;
}

void stream_end(struct stream *s)
{
    if (s->is_replied)
        return;
    if (s->prefix_len < FRAME_PREFIX_BYTES || s->received < s->message_len) {
        reply_error(s, GRPC_INTERNAL,
                    s->prefix_len == 0 ? "a unary call without a message"
                                       : "the message is cut short");
        return;
    }
    s->pub.message = s->memory.base;
    s->pub.message_len = s->message_len;
    s->pub.recv_end_ns = now_ns(s);
    s->is_asked = true;
    handler_of(s)->on_request(&s->pub, handler_of(s)->arg);
}
