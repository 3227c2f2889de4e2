/* grpc/stream.c - one exchange: its headers, its messages in, its deadline, its end.
 *
 * A unary call has one message, handed over when the client has ended its side, so that a second one
 * is found. In a stream each message is handed over at once, and its bytes count as held until the
 * handler releases it; while too many are held, the stream's window is not given back. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/conn.h"

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
    unzip_drop(s);
    wait_give(s->conn->shard, s->budget_bytes);
    s->budget_bytes = 0;
}

void stream_settle(struct stream *s)
{
    if (s->is_open || s->message_count > 0 || (s->is_asked && !s->is_answered) ||
        s->unzip.is_on_worker)
        return;
    struct grpc_shard *shard = s->conn->shard;
    list_remove(&s->in_conn);
    s->conn->stream_count--;
    loop_timer_cancel(shard->loop, &s->deadline);
    release_memory(s);
    if (s->is_seen && handler_of(s)->on_end)
        handler_of(s)->on_end(&s->pub, handler_of(s)->arg);
    if (s->own_parts != s->own_inline)
        free(s->own_parts);
    free(s->final_text);
    if (s->has_metadata)
        arena_fini(&s->arena);
    if (shard->free_stream_count == FREE_MAX) {
        free(s);
        return;
    }
    s->next_free = shard->free_streams;
    shard->free_streams = s;
    shard->free_stream_count++;
}

void stream_cancel(struct stream *s)
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
    stream_cancel(s);     /* may answer, and must not end s under our hands */
    s->is_open = false;
    wait_stop(s);
    reply_drop(s);
    stream_settle(s);
}

void stream_drain(struct stream *s)
{
    if (s->pub.is_stream && s->is_asked && !s->is_answered && handler_of(s)->on_drain)
        handler_of(s)->on_drain(&s->pub, handler_of(s)->arg);
}

static void deadline_fired(struct loop_timer *t, uint64_t now)
{
    struct stream *s = CONTAINER_OF(t, struct stream, deadline);
    (void)now;
    reply_error(s, GRPC_DEADLINE_EXCEEDED, "Deadline Exceeded");
    if (s->unsent > 0 &&
        nghttp2_submit_rst_stream(s->conn->session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL))
        s->conn->is_failed = true; /* half a message is out: do not wait for the reader */
    stream_cancel(s);
}

/* ---- Headers ---- */

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
    memset(s, 0, offsetof(struct stream, own_inline));
    s->conn = c;
    s->id = id;
    s->is_open = true;
    s->own_parts = s->own_inline;
    s->path[0] = '\0';
    s->pub.path = s->path;
    s->pub.metadata = s->metadata;
    s->pub.message_bytes_max = shard->server->options.message_bytes_max;
    s->pub.recv_start_ns = loop_now_ns(shard->loop);
    s->deadline.fire = deadline_fired;
    list_init(&s->messages);
    list_init(&s->zipping);
    list_append(&c->streams, &s->in_conn);
    c->stream_count++;
    return s;
}

static bool equals(const uint8_t *at, size_t len, const char *text)
{
    return len == strlen(text) && memcmp(at, text, len) == 0;
}

static void add_metadata(struct stream *s, const uint8_t *name, size_t name_len,
                         const uint8_t *value, size_t value_len)
{
    if (!s->has_metadata)
        arena_init(&s->arena, s->metadata_first, sizeof(s->metadata_first), METADATA_BYTES_MAX);
    s->has_metadata = true;
    char *name_copy = arena_strndup(&s->arena, (const char *)name, name_len);
    char *value_copy = arena_strndup(&s->arena, (const char *)value, value_len);
    if (!name_copy || !value_copy || s->pub.metadata_count == METADATA_MAX) {
        s->is_head_long = true;
        return;
    }
    s->metadata[s->pub.metadata_count++] = (struct http_header){
        .name = name_copy,
        .value = value_copy,
        .name_len = (uint32_t)name_len,
        .value_len = (uint32_t)value_len,
    };
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
    } else if (equals(name, name_len, "grpc-encoding")) {
        s->encoding = compress_format_of((const char *)value, value_len);
    } else if (equals(name, name_len, "grpc-accept-encoding")) {
        s->zip_accepted |= compress_formats_in((const char *)value, value_len);
    } else if (equals(name, name_len, "te")) {
        s->te = equals(value, value_len, "trailers") ? TE_TRAILERS : TE_OTHER;
    } else if (name[0] != ':' && (name_len < 5 || memcmp(name, "grpc-", 5) != 0)) {
        add_metadata(s, name, name_len, value, value_len);
    }
}

void stream_head(struct stream *s)
{
    if (!s->is_grpc || !s->is_post) {
        reply_http(s, s->is_post ? "415" : "405");
        return;
    }
    if (s->te != TE_TRAILERS) {
        /* As grpc-core has it: whoever drops this may drop trailers too. */
        reply_error(s, GRPC_UNKNOWN, s->te == TE_OTHER ? "Bad te header" : "Missing te header");
        return;
    }
    if (s->encoding == COMPRESS_UNKNOWN) {
        reply_error(
            s, GRPC_UNIMPLEMENTED,
            "Compression algorithm of grpc-encoding is not supported; supported are " COMPRESS_ACCEPTED);
        return;
    }
    if (s->is_head_long) {
        reply_errorf(s, GRPC_RESOURCE_EXHAUSTED,
                     "the call's metadata is more than %d entries or %d bytes", METADATA_MAX,
                     METADATA_BYTES_MAX);
        return;
    }
    if (s->has_timeout) {
        s->pub.deadline_ns = s->pub.recv_start_ns + s->timeout_ns;
        loop_timer_arm(s->conn->shard->loop, &s->deadline, s->pub.deadline_ns);
    }
    s->is_seen = true;
    handler_of(s)->on_head(&s->pub, handler_of(s)->arg);
    s->is_asked = s->pub.is_stream;
    s->zip_format = compress_choose(s->pub.compression, s->zip_accepted);
}

/* ---- Messages ---- */

/* The client sends what cannot be: the call ends, for a stream's handler too. */
#define REFUSE(s, ...)                  \
    do {                                \
        reply_errorf((s), __VA_ARGS__); \
        stream_cancel(s);               \
    } while (0)

size_t stream_cost(const struct stream *s, size_t message_len)
{
    bool is_short = s->pub.is_stream && message_len < MESSAGE_HELD_BYTES_MIN;
    return is_short ? MESSAGE_HELD_BYTES_MIN : message_len;
}

void stream_watch(struct stream *s, uint64_t *ret_since)
{
    uint64_t stall = options_of(s)->stall_ns_max;
    *ret_since = now_ns(s);
    if (stall && !s->conn->check_ns)
        s->conn->check_ns = *ret_since + stall;
}

bool stream_get_memory(struct stream *s)
{
    if (s->message_len == 0)
        return true;
    tis_error *err =
        handler_of(s)->on_message(&s->pub, s->message_len, &s->memory, handler_of(s)->arg);
    assert(!s->pub.is_stream || !s->memory.release);
    if (!err)
        return true;
    REFUSE(s, GRPC_UNAVAILABLE, "%s", error_text(err));
    error_free(err);
    return false;
}

/* The message may come. */
static void begin_input(struct stream *s)
{
    tis_error *err = s->is_zipped ? unzip_memory(s) : NULL;
    if (err)
        REFUSE(s, GRPC_UNAVAILABLE, "%s", error_text(err));
    else if (!s->is_zipped)
        stream_get_memory(s);
    error_free(err);
    stream_watch(s, &s->data_ns);
}

/* The prefix of the message is complete. */
static void begin_message(struct stream *s)
{
    const struct grpc_server_options *o = options_of(s);
    s->message_len = frame_prefix_bytes(s->prefix);
    s->received = 0;
    if (s->prefix[0] > 1) {
        REFUSE(s, GRPC_INTERNAL, "Bad GRPC frame type 0x%02x", s->prefix[0]);
        return;
    }
    s->is_zipped = s->prefix[0] == 1;
    if (s->is_zipped && s->encoding == COMPRESS_IDENTITY) {
        REFUSE(s, GRPC_INTERNAL, "a compressed message without grpc-encoding");
        return;
    }
    if (s->message_len > s->pub.message_bytes_max) {
        REFUSE(s, GRPC_RESOURCE_EXHAUSTED,
               "message of %zu bytes is larger than the limit of %llu bytes. Use %s to "
               "increase the limit.",
               s->message_len, (unsigned long long)s->pub.message_bytes_max, o->message_bytes_flag);
        return;
    }
    size_t cost = stream_cost(s, s->message_len);
    if (cost > 0 && wait_charge(s, cost) && s->message_len > 0)
        begin_input(s);
}

bool stream_is_waiting(const struct stream *s)
{
    return (s->is_in_queue || s->unzip.step != UNZIP_IDLE) && !s->is_replied;
}

/* The message is the handler's. */
static void ask(struct stream *s)
{
    s->pub.message = s->memory.base;
    s->pub.message_len = s->message_len;
    s->pub.recv_end_ns = now_ns(s);
    if (s->pub.is_stream) {
        s->held += stream_cost(s, s->message_len);
        memset(&s->memory, 0, sizeof(s->memory));
        s->prefix_len = 0;
    }
    s->is_asked = true;
    handler_of(s)->on_request(&s->pub, handler_of(s)->arg);
}

/* The whole message has come. */
static void complete(struct stream *s)
{
    if (!s->is_zipped)
        ask(s);
    else
        unzip_start(s);
}

void stream_charged(struct stream *s, bool is_granted)
{
    if (!is_granted) {
        REFUSE(s, GRPC_UNAVAILABLE,
               "too many request bytes are in flight. Use %s to increase the limit.",
               options_of(s)->budget_flag);
    } else if (s->unzip.step != UNZIP_IDLE) {
        unzip_charged(s);
    } else if (s->message_len > 0) {
        begin_input(s);
    } else {
        complete(s);
        if (s->is_end_due)
            stream_end(s);
    }
}

void stream_unzipped(struct stream *s)
{
    ask(s);
    if (s->is_end_due)
        stream_end(s);
}

/* Takes what it can of the bytes; returns how many. */
static size_t take_data(struct stream *s, const uint8_t *data, size_t len)
{
    if (s->prefix_len < FRAME_PREFIX_BYTES) {
        if (s->prefix_len == 0 && s->pub.is_stream)
            s->pub.recv_start_ns = now_ns(s);
        s->prefix[s->prefix_len++] = *data;
        if (s->prefix_len == FRAME_PREFIX_BYTES)
            begin_message(s);
        len = 1;
    } else {
        if (len > s->message_len - s->received)
            len = s->message_len - s->received;
        char *place = s->memory.base + s->received;
        if (len > 0 && data != (const uint8_t *)place) /* input.c reads large messages in place */
            memcpy(place, data, len);
        s->received += len;
    }
    bool is_complete =
        s->prefix_len == FRAME_PREFIX_BYTES && s->received == s->message_len && !s->is_in_queue;
    if (is_complete && s->pub.is_stream && !s->is_replied)
        complete(s);
    return len;
}

size_t stream_data(struct stream *s, const uint8_t *data, size_t len)
{
    size_t taken = 0;
    while (taken < len && !s->is_replied && !stream_is_waiting(s)) {
        size_t n = take_data(s, data + taken, len - taken);
        if (n == 0)
            REFUSE(s, GRPC_INTERNAL, "more than one message in a unary call");
        taken += n;
    }
    s->data_ns = now_ns(s);
    return s->is_replied ? len : taken; /* what comes after an answer is dropped */
}

/* A message has begun, and nothing but the client keeps it from getting on. */
static bool is_coming(const struct stream *s)
{
    return !s->is_replied && !stream_is_waiting(s) && s->prefix_len == FRAME_PREFIX_BYTES &&
           s->received < s->message_len && s->unconsumed == 0;
}

/* When s has waited too long for its client; UINT64_MAX: it does not wait. */
static uint64_t stalled_due(const struct stream *s)
{
    const struct grpc_conn *c = s->conn;
    uint64_t stall = c->shard->server->options.stall_ns_max;
    uint64_t due = UINT64_MAX;
    if (s->is_open && s->unsent > 0) /* unless all of c waits, which stall_due() sees */
        due = (c->out ? now_ns(s) : s->sent_ns) + stall;
    if (is_coming(s)) {
        /* While we do not read, it may lie in front of us. */
        uint64_t coming = (c->held.bytes ? now_ns(s) : s->data_ns) + stall;
        due = coming < due ? coming : due;
    }
    return due;
}

/* The client neither sends nor takes what it should. */
static void give_up(struct stream *s)
{
    if (is_coming(s)) {
        REFUSE(s, GRPC_UNAVAILABLE, "the message came too slowly");
    } else if (nghttp2_submit_rst_stream(s->conn->session, NGHTTP2_FLAG_NONE, s->id,
                                         NGHTTP2_CANCEL)) {
        s->conn->is_failed = true;
    }
}

void stream_check_all(struct grpc_conn *c)
{
    uint64_t now = loop_now_ns(c->shard->loop);
    struct list *next;
    c->check_ns = 0;
    for (struct list *it = c->streams.next; it != &c->streams; it = next) {
        struct stream *s = LIST_ENTRY(it, struct stream, in_conn);
        next = it->next;
        uint64_t due = stalled_due(s);
        /* Twice: what it sends is refused, and what it does not take is dropped. */
        for (int i = 0; i < 2 && due <= now; i++) {
            give_up(s);
            due = stalled_due(s);
        }
        if (due > now && due != UINT64_MAX && (!c->check_ns || due < c->check_ns))
            c->check_ns = due;
    }
}

int stream_consume(struct stream *s, size_t len)
{
    nghttp2_session *session = s->conn->session;
    if (s->held < STREAM_HELD_BYTES_MAX)
        return nghttp2_session_consume(session, s->id, len);
    s->unconsumed += len;
    return nghttp2_session_consume_connection(session, len);
}

void grpc_message_release(struct grpc_exchange *ex, size_t message_len)
{
    struct stream *s = stream_of(ex);
    size_t cost = stream_cost(s, message_len);
    assert(s->pub.is_stream && s->held >= cost);
    s->held -= cost;
    if (options_of(s)->budget && !s->pub.budget_exempt) {
        wait_give(s->conn->shard, cost);
        s->budget_bytes -= cost;
    }
    if (s->is_open && s->unconsumed > 0 && s->held < STREAM_HELD_BYTES_MAX) {
        if (nghttp2_session_consume_stream(s->conn->session, s->id, s->unconsumed))
            s->conn->is_failed = true;
        s->unconsumed = 0;
        grpc_conn_run_soon(s->conn);
    }
}

void stream_end(struct stream *s)
{
    if (s->is_replied)
        return;
    s->is_end_due = s->unzip.step != UNZIP_IDLE || (s->is_in_queue && s->message_len == 0);
    if (s->is_end_due)
        return;
    if (s->pub.is_stream && s->prefix_len == 0) {
        handler_of(s)->on_half_close(&s->pub, handler_of(s)->arg);
    } else if (s->prefix_len < FRAME_PREFIX_BYTES || s->received < s->message_len) {
        REFUSE(s, GRPC_INTERNAL, "%s",
               s->prefix_len == 0 ? "a unary call without a message" : "the message is cut short");
    } else {
        complete(s);
    }
}
