/* grpc/conn.c - a connection: bytes into nghttp2, and when it lives and ends.
 *
 * input.c feeds what comes to nghttp2, whose callbacks drive the streams. What they and the handlers
 * answer is only queued in nghttp2; grpc_conn_run() moves it on, at once after reading, else at the
 * end of the loop's round, so that the answers of one round share a system call. Only
 * grpc_conn_run() ends a connection.
 *
 * Flow control: windows of 8 MiB a stream and 64 MiB a connection, and both are given back as the
 * bytes are copied into their message, a stream's not while its handler holds too much. What a connection can make us hold is bounded by the byte
 * budget, which a message takes from before its first byte is kept. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/conn.h"

enum {
    HEADER_OWN_BYTES = 32,  /* of each, as SETTINGS_MAX_HEADER_LIST_SIZE counts */
    HEADER_EXCESS_MAX = 16, /* times the limit */
};

static bool is_lost(const struct grpc_conn *c)
{
    return !transport_is_open(&c->base.transport);
}

/* ---- nghttp2's callbacks ---- */

static bool has_too_long_head(const struct grpc_conn *c)
{
    size_t max = c->shard->server->options.header_bytes_max;
    return max && c->header_bytes > max;
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *head, void *user)
{
    (void)session;
    input_frame_begins(user, head);
    return 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct grpc_conn *c = user;
    c->header_bytes = 0;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    if (c->is_leaving)
        return 0;
    /* A call that is cancelled makes room for another at once, but its handler may still work on it. */
    if (c->stream_count >= 2 * c->shard->server->options.streams_max)
        return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                         NGHTTP2_REFUSED_STREAM)
                   ? NGHTTP2_ERR_CALLBACK_FAILURE
                   : 0;
    struct stream *s = stream_create(c, frame->hd.stream_id);
    if (!s)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    nghttp2_session_set_stream_user_data(session, s->id, s);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *user)
{
    (void)flags;
    struct grpc_conn *c = user;
    c->header_bytes += name_len + value_len + HEADER_OWN_BYTES;
    if (has_too_long_head(c)) {
        /* A few bytes can name a long header again and again: what goes on and on is no mistake. */
        if (c->header_bytes / HEADER_EXCESS_MAX > c->shard->server->options.header_bytes_max)
            conn_leave(c, NGHTTP2_ENHANCE_YOUR_CALM, "too_many_headers");
        /* Decoding the rest of the block costs little; checking each header again does not. */
        return c->is_leaving ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE : 0;
    }
    struct stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (s && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        stream_header(s, name, name_len, value, value_len);
    return 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                         size_t len, void *user)
{
    (void)session;
    (void)flags;
    input_data(user, data, len);
    return wait_chunk(user, id, data, len);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct grpc_conn *c = user;
    conn_judge_received(c, frame);
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    struct stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!s)
        return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        if (has_too_long_head(c))
            reply_errorf(s, GRPC_RESOURCE_EXHAUSTED,
                         "received metadata size exceeds hard limit (%zu vs. %zu)", c->header_bytes,
                         c->shard->server->options.header_bytes_max);
        else
            stream_head(s);
    }
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
        stream_end(s);
    return 0;
}

/* An answer is complete before its request: the client need not send the rest. */
static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    conn_judge_sent(user, frame);
    bool has_end = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
    if (has_end && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) &&
        nghttp2_session_get_stream_remote_close(session, frame->hd.stream_id) == 0)
        return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                         NGHTTP2_NO_ERROR) == NGHTTP2_ERR_NOMEM
                   ? NGHTTP2_ERR_CALLBACK_FAILURE
                   : 0;
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
    (void)error;
    (void)user;
    struct stream *s = nghttp2_session_get_stream_user_data(session, id);
    if (s)
        stream_closed(s);
    return 0;
}

static ssize_t data_frame_bytes(nghttp2_session *session, uint8_t type, int32_t id,
                                int32_t session_window, int32_t stream_window, uint32_t frame_max,
                                void *user)
{
    (void)session;
    (void)type;
    (void)id;
    (void)user;
    int64_t n = session_window < stream_window ? session_window : stream_window;
    if (n > frame_max)
        n = frame_max;
    return n > DATA_FRAME_BYTES_MAX ? DATA_FRAME_BYTES_MAX : (ssize_t)n;
}

void conn_callbacks_set(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, data_frame_bytes);
    nghttp2_session_callbacks_set_send_callback(callbacks, output_send);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, output_send_data);
}

/* ---- The end ---- */

/* Nothing goes in or out any more, but c stays until its streams' answers have come. Not from inside
 * nghttp2. */
static void end_session(struct grpc_conn *c)
{
    output_drop(c);
    wait_drop(c);
    nghttp2_session_del(c->session);
    c->session = NULL;

    /* Ending one may end others. */
    struct list waiting;
    list_init(&waiting);
    for (struct list *item; (item = list_pop(&c->streams));)
        list_append(&waiting, item);
    for (struct list *item; (item = list_pop(&waiting));) {
        list_append(&c->streams, item);
        stream_closed(LIST_ENTRY(item, struct stream, in_conn));
    }
    reply_run_done(c);
}

/* The peer is gone, or not worth more. */
static void lose(struct grpc_conn *c)
{
    loop_timer_cancel(c->shard->loop, &c->timer);
    transport_close(&c->base.transport);
    if (!c->is_lingering)
        end_session(c);
}

/* All is written. Unread bytes in our socket would turn its closing into a reset, which throws away
 * what the peer has not received yet; and while it receives it sends WINDOW_UPDATE. So end our side,
 * and read on until the peer has ended its own. */
static void linger(struct grpc_conn *c)
{
    if (!transport_end_sending(&c->base.transport)) {
        lose(c);
        return;
    }
    c->is_lingering = true;
    c->is_leaving = true;
    c->leave_ns = loop_now_ns(c->shard->loop);
    end_session(c);
}

static void discard_input(struct grpc_conn *c)
{
    ssize_t n = transport_recv(&c->base.transport, c->shard->scratch, RECV_BYTES);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
        c->is_failed = true;
}

/* ---- Moving on ---- */

/* Takes from nghttp2 and writes, until one of them has no more; false: the connection is to be lost. */
static bool flush(struct grpc_conn *c)
{
    for (;;) {
        if (nghttp2_session_send(c->session) || c->is_failed)
            return false;
        bool has_written = c->out != NULL;
        if (c->out && !output_write(c))
            return false;
        bool has_done = !list_is_empty(&c->done_messages);
        reply_run_done(c); /* may have more to send */
        if (c->out || (!has_written && !has_done))
            return true; /* the socket is full, or there is no more */
    }
}

static bool is_over(const struct grpc_conn *c)
{
    return !c->out && (c->is_leaving || (!nghttp2_session_want_read(c->session) &&
                                         !nghttp2_session_want_write(c->session)));
}

static bool wants_read(const struct grpc_conn *c)
{
    if (c->is_leaving)
        return c->is_lingering;
    return !c->held.bytes && output_queued(c) < OUTPUT_QUEUED_MAX &&
           nghttp2_session_get_outbound_queue_size(c->session) < OUTBOUND_FRAMES_MAX;
}

static void watch(struct grpc_conn *c)
{
    unsigned events =
        (wants_read(c) ? (unsigned)LOOP_READ : 0u) | (c->out ? (unsigned)LOOP_WRITE : 0u);
    if (events & ~transport_wanted(&c->base.transport) & LOOP_READ)
        conn_heard(c); /* whatever waited for a sign of life could not see one */
    transport_want(&c->base.transport, events);
    conn_arm_timer(c);
}

void grpc_conn_run(struct grpc_conn *c)
{
    if (c->is_running)
        return;
    c->is_running = true;
    if (is_lost(c) || c->is_lingering) {
        reply_run_done(c);
        if (c->is_failed && !is_lost(c))
            lose(c);
    } else {
        if (!c->out)
            c->progress_ns = loop_now_ns(c->shard->loop); /* nothing has waited so far */
        wait_go_on(c);
        if (c->is_failed || !flush(c))
            lose(c);
        else if (is_over(c))
            linger(c);
    }
    wait_charge_replies(c);
    c->is_running = false;
    if (!is_lost(c)) {
        watch(c);
    } else if (list_is_empty(&c->streams) && !c->is_flush_posted) {
        acceptor_conn_ended(&c->base);
        free(c);
    }
}

static void flush_run(struct loop_message *m)
{
    struct grpc_conn *c = CONTAINER_OF(m, struct grpc_conn, flush);
    c->is_flush_posted = false;
    grpc_conn_run(c);
}

void grpc_conn_run_soon(struct grpc_conn *c)
{
    if (c->is_running || c->is_flush_posted)
        return;
    c->is_flush_posted = true;
    loop_post(c->shard->loop, &c->flush);
}

void grpc_conn_ready(struct transport *t, unsigned events)
{
    struct grpc_conn *c = CONTAINER_OF(t, struct grpc_conn, base.transport);
    if (events & LOOP_HANGUP)
        c->is_failed = true;
    if ((events & LOOP_READ) && !c->is_failed) {
        c->is_running = true;
        if (c->is_lingering)
            discard_input(c);
        else
            input_receive(c);
        c->is_running = false;
    }
    grpc_conn_run(c);
}

void grpc_conn_close(struct acceptor_conn *base)
{
    struct grpc_conn *c = CONTAINER_OF(base, struct grpc_conn, base);
    if (!is_lost(c)) {
        c->is_running = true;
        lose(c);
        c->is_running = false;
    }
    grpc_conn_run(c);
}

/* ---- Birth ---- */

static bool begin_session(struct grpc_conn *c)
{
    struct grpc_server *server = c->shard->server;
    const nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, server->options.streams_max },
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES },
        { NGHTTP2_SETTINGS_MAX_FRAME_SIZE, 1 << 20 },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)server->options.header_bytes_max },
    };
    size_t count = ARRAY_LEN(settings) - (server->options.header_bytes_max == 0);
    return !nghttp2_session_server_new3(&c->session, server->callbacks, c, server->session_options,
                                        &c->shard->memory.functions) &&
           !nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, count) &&
           !nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0,
                                                  CONN_WINDOW_BYTES);
}

struct acceptor_conn *grpc_conn_create(struct acceptor_shard *s)
{
    struct grpc_conn *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->shard = CONTAINER_OF(s, struct grpc_shard, base);
    c->flush.run = flush_run;
    list_init(&c->streams);
    list_init(&c->done_messages);
    return &c->base;
}

void grpc_conn_open(struct acceptor_conn *base)
{
    struct grpc_conn *c = CONTAINER_OF(base, struct grpc_conn, base);
    conn_begin_life(c);
    if (!is_lost(c) && !begin_session(c))
        c->is_failed = true;
    grpc_conn_run(c);
}

void grpc_conn_adopt(struct grpc_shard *shard, struct transport *from, const uint8_t *bytes,
                     size_t len)
{
    struct acceptor_conn *base = grpc_conn_create(&shard->base);
    if (!base) {
        transport_close(from);
        return;
    }
    struct grpc_conn *c = CONTAINER_OF(base, struct grpc_conn, base);
    acceptor_adopt_transport(&shard->base, base, from);
    c->is_running = true; /* c is not to be freed by what the bytes set off */
    grpc_conn_open(base);
    if (!is_lost(c))
        input_feed(c, bytes, len);
    c->is_running = false;
    grpc_conn_run(c);
}
