/* grpc/reply.c - messages and the end of an answer on their way to nghttp2.
 *
 * A stream's messages wait in a list. nghttp2 asks how much its next DATA frame shall carry
 * (read_messages), then for the frame (output_send_data), which takes the bytes from the messages in
 * turn. The answer to a unary call is one message of the stream's own, and OK behind it.
 *
 * A message is done when it is wholly in the output and its last slice has left that, or when it is
 * dropped; done() is called by reply_run_done(), outside of nghttp2. */
#include <assert.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/conn.h"

#define NV_FLAGS(name_text, value_text, value_bytes, flag_bits)                                 \
    {                                                                                           \
        .name = (uint8_t *)(uintptr_t)(name_text), .value = (uint8_t *)(uintptr_t)(value_text), \
        .namelen = sizeof(name_text) - 1, .valuelen = (value_bytes), .flags = (flag_bits),      \
    }
#define NV(name_text, value_text, value_bytes) \
    NV_FLAGS(name_text, value_text, value_bytes, NGHTTP2_NV_FLAG_NO_COPY_NAME)
#define NV_CONST(name_text, value_text)                     \
    NV_FLAGS(name_text, value_text, sizeof(value_text) - 1, \
             NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE)

static struct stream *stream_of(struct grpc_exchange *ex)
{
    return CONTAINER_OF(ex, struct stream, pub);
}

/* ---- Messages ---- */

static void message_done(struct grpc_message *m)
{
    list_append(&m->stream->conn->done_messages, &m->link);
}

void reply_run_done(struct grpc_conn *c)
{
    for (struct list *item; (item = list_pop(&c->done_messages));) {
        struct grpc_message *m = LIST_ENTRY(item, struct grpc_message, link);
        struct stream *s = m->stream;
        c->unsent -= m->bytes;
        zip_free(m);
        if (m->done)
            m->done(m); /* may end the exchange; s stays until its messages are done */
        s->message_count--;
        stream_settle(s);
    }
}

void reply_taken(struct grpc_message *m)
{
    list_remove(&m->link);
    if (m->slices == 0)
        message_done(m);
}

void reply_slices_gone(struct grpc_message *m, uint32_t count)
{
    assert(m->slices >= count);
    m->slices -= count;
    if (m->left == 0 && m->slices == 0)
        message_done(m);
}

/* Drops the messages of which nothing is on its way, or all of them. */
static void drop_messages(struct stream *s, bool all)
{
    size_t promised = s->promised;
    struct list *next;
    for (struct list *it = s->messages.next; it != &s->messages; it = next) {
        struct grpc_message *m = LIST_ENTRY(it, struct grpc_message, link);
        next = it->next;
        if (!all && (m->prefix_at > 0 || promised > 0)) {
            promised -= promised < m->left ? promised : m->left;
            continue;
        }
        s->unsent -= m->left;
        m->left = 0;
        reply_taken(m);
    }
}

void reply_drop(struct stream *s)
{
    drop_messages(s, true);
}

/* ---- To nghttp2 ---- */

static int submit_trailers(struct stream *s)
{
    static const nghttp2_nv ok[] = { NV_CONST("grpc-status", "0") };
    if (s->final_code == GRPC_OK)
        return nghttp2_submit_trailer(s->conn->session, s->id, ok, ARRAY_LEN(ok));
    char encoded[3 * FRAME_TEXT_BYTES_MAX];
    char number[12];
    size_t text_len = frame_encode_text(s->final_text ? s->final_text : "", encoded);
    size_t number_len = (size_t)snprintf(number, sizeof(number), "%d", s->final_code);
    const nghttp2_nv failed[] = {
        NV("grpc-status", number, number_len),
        NV("grpc-message", encoded, text_len),
    };
    return nghttp2_submit_trailer(s->conn->session, s->id, failed, 1 + (text_len > 0));
}

/* Bytes of m that a frame with room for *parts further parts can carry. */
static uint64_t frame_share(const struct grpc_message *m, uint32_t *parts)
{
    uint64_t n = sizeof(m->prefix) - m->prefix_at;
    uint32_t at = m->part_at;
    for (; *parts > 0 && at < m->part_count; at++, --*parts)
        n += m->parts[at].iov_len - (at == m->part_at ? m->part_offset : 0);
    if (m->part_count == 0)
        --*parts; /* its prefix takes room too */
    return n;
}

/* nghttp2 asks how much the next DATA frame carries; output_send_data() brings it. */
static ssize_t read_messages(nghttp2_session *session, int32_t id, uint8_t *buf, size_t len,
                             uint32_t *flags, nghttp2_data_source *source, void *user)
{
    (void)session;
    (void)id;
    (void)buf;
    (void)user;
    struct stream *s = source->ptr;
    uint32_t parts = FRAME_PARTS_MAX;
    uint64_t n = 0;
    if (s->is_ended)
        return NGHTTP2_ERR_DEFERRED;
    for (struct list *it = s->messages.next; it != &s->messages && parts > 0 && n < len;
         it = it->next)
        n += frame_share(LIST_ENTRY(it, struct grpc_message, link), &parts);
    if (n > len)
        n = len;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (s->is_replied && n == s->unsent) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        if (submit_trailers(s))
            return NGHTTP2_ERR_CALLBACK_FAILURE;
    } else if (n == 0) {
        s->is_deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    s->promised = n;
    return (ssize_t)n;
}

/* There is something to send, or the end: makes nghttp2 ask. */
static void wake(struct stream *s)
{
    const char *format = compress_name(s->zip_format);
    const nghttp2_nv headers[] = {
        NV_CONST(":status", "200"),
        NV_CONST("content-type", "application/grpc"),
        NV_CONST("grpc-accept-encoding", COMPRESS_ACCEPTED),
        NV("grpc-encoding", format, strlen(format)),
    };
    size_t header_count = ARRAY_LEN(headers) - (s->zip_format == COMPRESS_IDENTITY);
    int rc = 0;
    if (!s->is_begun) {
        nghttp2_data_provider provider = { .source.ptr = s, .read_callback = read_messages };
        rc = nghttp2_submit_response(s->conn->session, s->id, headers, header_count, &provider);
        s->is_begun = true;
    } else if (s->is_replied && s->unsent == 0) {
        rc = submit_trailers(s); /* needs no window, which nghttp2 may wait for */
        s->is_ended = true;
    } else if (s->is_deferred) {
        rc = nghttp2_session_resume_data(s->conn->session, s->id);
        s->is_deferred = false;
    }
    if (rc)
        s->conn->is_failed = true;
    grpc_conn_run_soon(s->conn);
}

/* ---- Errors ---- */

/* An answer without a message: everything stands in one header block. */
static void submit_error(struct stream *s, enum grpc_code code, const char *text)
{
    char encoded[3 * FRAME_TEXT_BYTES_MAX];
    char number[12];
    size_t text_len = frame_encode_text(text, encoded);
    size_t number_len = (size_t)snprintf(number, sizeof(number), "%d", (int)code);
    const nghttp2_nv headers[] = {
        NV_CONST(":status", "200"),
        NV_CONST("content-type", "application/grpc"),
        NV_CONST("grpc-accept-encoding", COMPRESS_ACCEPTED),
        NV("grpc-status", number, number_len),
        NV("grpc-message", encoded, text_len),
    };
    size_t count = ARRAY_LEN(headers) - (text_len == 0);
    if (nghttp2_submit_response(s->conn->session, s->id, headers, count, NULL))
        s->conn->is_failed = true; /* out of memory */
    s->is_begun = true;
    grpc_conn_run_soon(s->conn);
}

void reply_error(struct stream *s, enum grpc_code code, const char *text)
{
    if (!s->is_open || s->is_replied)
        return;
    s->is_replied = true;
    loop_timer_cancel(s->conn->shard->loop, &s->deadline);
    drop_messages(s, false);
    if (!s->is_begun) {
        submit_error(s, code, text);
        return;
    }
    s->final_code = code;
    s->final_text = strdup(text); /* without memory the code goes alone */
    wake(s);
}

void reply_errorf(struct stream *s, enum grpc_code code, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    reply_error(s, code, text);
}

/* source->ptr is the rest of a constant text; nghttp2 keeps what is written to it. */
static ssize_t read_text(nghttp2_session *session, int32_t id, uint8_t *buf, size_t len,
                         uint32_t *flags, nghttp2_data_source *source, void *user)
{
    (void)session;
    (void)id;
    (void)user;
    const char *rest = source->ptr;
    size_t n = strlen(rest);
    if (n <= len)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    else
        n = len;
    memcpy(buf, rest, n);
    source->ptr = (void *)(uintptr_t)(rest + n);
    return (ssize_t)n;
}

void reply_http(struct stream *s, const char *status)
{
    static const char text[] = "HTTP/2 is for gRPC here: POST, content-type application/grpc.\n";
    const nghttp2_nv headers[] = {
        NV(":status", status, 3),
        NV_CONST("content-type", "text/plain"),
        NV_CONST("allow", "POST"),
    };
    const nghttp2_data_provider body = {
        .source.ptr = (void *)(uintptr_t)text,
        .read_callback = read_text,
    };
    s->is_replied = true;
    s->is_begun = true;
    if (nghttp2_submit_response(s->conn->session, s->id, headers, ARRAY_LEN(headers), &body))
        s->conn->is_failed = true;
    grpc_conn_run_soon(s->conn);
}

/* ---- The handler's answers ---- */

static void answered(struct stream *s)
{
    assert(loop_is_current(s->conn->shard->loop));
    assert(!s->is_answered); /* exactly once */
    s->is_answered = true;
}

/* Nothing may touch s afterwards. */
static void leave(struct stream *s)
{
    struct grpc_conn *c = s->conn;
    stream_settle(s);
    grpc_conn_run_soon(c);
}

/* From here on m counts. */
static void admit(struct stream *s, struct grpc_message *m)
{
    m->stream = s;
    m->bytes = sizeof(m->prefix);
    for (uint32_t i = 0; i < m->part_count; i++)
        m->bytes += m->parts[i].iov_len;
    s->conn->unsent += m->bytes;
    s->message_count++;
}

/* False, with an answer given, when the message is longer than its prefix can say. */
static bool queue(struct stream *s, struct grpc_message *m)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < m->part_count; i++)
        bytes += m->parts[i].iov_len;
    m->left = sizeof(m->prefix) + bytes;
    m->part_at = 0;
    m->part_offset = 0;
    m->slices = 0;
    m->prefix_at = 0;
    if (bytes > INT32_MAX || !s->is_open || s->is_replied) {
        if (bytes > INT32_MAX)
            reply_errorf(s, GRPC_RESOURCE_EXHAUSTED,
                         "the answer of %llu bytes is larger than a message may be (%d bytes)",
                         (unsigned long long)bytes, INT32_MAX);
        m->left = 0;
        message_done(m);
        return false;
    }
    frame_put_prefix(m->prefix, (uint32_t)bytes);
    m->prefix[0] = m->is_zipped;
    list_append(&s->messages, &m->link);
    if (s->unsent == 0)
        stream_watch(s, &s->sent_ns);
    s->unsent += m->left;
    return true;
}

void reply_deliver(struct grpc_message *m)
{
    struct stream *s = m->stream;
    if (queue(s, m))
        wake(s);
    else
        grpc_conn_run_soon(s->conn); /* calls done() */
}

void grpc_send(struct grpc_exchange *ex, struct grpc_message *m)
{
    struct stream *s = stream_of(ex);
    assert(s->pub.is_stream && !s->is_answered && loop_is_current(s->conn->shard->loop));
    admit(s, m);
    if (!zip_put(m))
        reply_deliver(m);
}

void reply_finish(struct stream *s)
{
    if (!s->is_open || s->is_replied)
        return;
    s->is_finish_due = !list_is_empty(&s->zipping);
    if (s->is_finish_due)
        return;
    s->is_replied = true;
    loop_timer_cancel(s->conn->shard->loop, &s->deadline);
    wake(s);
}

void grpc_finish(struct grpc_exchange *ex)
{
    struct stream *s = stream_of(ex);
    answered(s);
    reply_finish(s);
    leave(s);
}

size_t grpc_unsent_bytes(const struct grpc_exchange *ex)
{
    const struct stream *s = CONTAINER_OF(ex, const struct stream, pub);
    return s->unsent + s->zipping_bytes + (size_t)s->message_count * MESSAGE_UNSENT_BYTES;
}

bool grpc_is_overdrawn(const struct grpc_exchange *ex)
{
    const struct stream *s = CONTAINER_OF(ex, const struct stream, pub);
    const struct budget *budget = s->conn->shard->server->options.budget;
    return budget &&
           atomic_load_explicit(&budget->bytes, memory_order_relaxed) / 2 > budget->bytes_max;
}

static void respond(struct stream *s, const struct iovec *parts, uint32_t part_count)
{
    if (part_count > PARTS_INLINE) {
        struct iovec *room = malloc(part_count * sizeof(*room));
        if (!room) {
            reply_error(s, GRPC_UNAVAILABLE, "out of memory");
            return;
        }
        s->own_parts = room;
    }
    if (part_count > 0)
        memcpy(s->own_parts, parts, part_count * sizeof(*parts));
    s->own.parts = s->own_parts;
    s->own.part_count = part_count;
    admit(s, &s->own);
    if (zip_put(&s->own) || queue(s, &s->own))
        reply_finish(s);
}

void grpc_respond(struct grpc_exchange *ex, const struct iovec *parts, uint32_t part_count)
{
    struct stream *s = stream_of(ex);
    answered(s);
    if (s->is_open && !s->is_replied)
        respond(s, parts, part_count);
    leave(s);
}

void grpc_fail(struct grpc_exchange *ex, enum grpc_code code, const char *text)
{
    struct stream *s = stream_of(ex);
    assert(code != GRPC_OK);
    answered(s);
    reply_error(s, code, text);
    leave(s);
}
