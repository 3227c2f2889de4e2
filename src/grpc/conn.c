/* grpc/conn.c - a connection: bytes into nghttp2, and when it lives and ends.
 *
 * Bytes are read into a buffer that a loop's connections share and fed to nghttp2, whose callbacks
 * drive the streams. What they and the handlers answer is only queued in nghttp2; grpc_conn_run()
 * moves it on, at once after reading, else at the end of the loop's round, so that the answers of
 * one round share a system call. Only grpc_conn_run() ends a connection.
 *
 * Flow control: windows of 8 MiB a stream and 64 MiB a connection, and both are given back as the
 * bytes are copied into their message. What a connection can make us hold is bounded by the byte
 * budget, which a message takes from before its first byte is kept. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "grpc/conn.h"

#define NOTICE_NS_MAX NS_PER_SEC

static bool is_lost(const struct grpc_conn *c)
{
    return !transport_is_open(&c->base.transport);
}

/* ---- nghttp2's callbacks ---- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct stream *s = stream_create(user, frame->hd.stream_id);
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
    (void)user;
    struct stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (s && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        stream_header(s, name, name_len, value, value_len);
    return 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                         size_t len, void *user)
{
    (void)flags;
    (void)user;
    struct stream *s = nghttp2_session_get_stream_user_data(session, id);
    if (s)
        stream_data(s, data, len);
    int rc = s ? stream_consume(s, len) : nghttp2_session_consume(session, id, len);
    return rc == NGHTTP2_ERR_NOMEM ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* The last GOAWAY: no stream above the last one we have seen. */
static void go_away(struct grpc_conn *c)
{
    if (c->is_going)
        return;
    c->is_going = true;
    int32_t last = nghttp2_session_get_last_proc_stream_id(c->session);
    if (nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0))
        c->is_failed = true;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct grpc_conn *c = user;
    c->is_begun = true;
    if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK) && c->is_noticed) {
        go_away(c);
        return 0;
    }
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    struct stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!s)
        return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        stream_head(s);
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
        stream_end(s);
    return 0;
}

/* An answer is complete before its request: the client need not send the rest. */
static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)user;
    if (frame->hd.type == NGHTTP2_HEADERS && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) &&
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

/* The peer is gone, or not worth more: everything ends, but c stays until its streams' answers have
 * come. Not from inside nghttp2. */
static void lose(struct grpc_conn *c)
{
    loop_timer_cancel(c->shard->loop, &c->timer);
    transport_close(&c->base.transport);
    output_drop(c);
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
    return !c->out && !nghttp2_session_want_read(c->session) &&
           !nghttp2_session_want_write(c->session);
}

static void arm_timer(struct grpc_conn *c)
{
    uint64_t stall = c->shard->server->options.stall_ns_max;
    uint64_t deadline = 0;
    if (c->is_noticed && !c->is_going)
        deadline = c->progress_ns + NOTICE_NS_MAX;
    else if (stall && (c->out || !c->is_begun))
        deadline = c->progress_ns + stall;
    /* One that fires too early finds the real deadline; an idle connection has none. */
    if (deadline && (!c->timer.heap_index || c->timer.deadline_ns > deadline))
        error_free(loop_timer_arm(c->shard->loop, &c->timer, deadline));
}

void grpc_conn_run(struct grpc_conn *c)
{
    if (c->is_running)
        return;
    c->is_running = true;
    if (is_lost(c))
        reply_run_done(c);
    else if (c->is_failed || !flush(c) || is_over(c))
        lose(c);
    c->is_running = false;
    if (!is_lost(c)) {
        bool is_full = output_queued(c) >= OUTPUT_QUEUED_MAX;
        transport_want(&c->base.transport,
                       (is_full ? 0u : (unsigned)LOOP_READ) | (c->out ? (unsigned)LOOP_WRITE : 0u));
        arm_timer(c);
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

static void timer_fired(struct loop_timer *t, uint64_t now)
{
    struct grpc_conn *c = CONTAINER_OF(t, struct grpc_conn, timer);
    uint64_t stall = c->shard->server->options.stall_ns_max;
    if (c->is_noticed && !c->is_going) {
        if (now >= c->progress_ns + NOTICE_NS_MAX)
            go_away(c); /* no answer to the ping */
    } else if (stall && (c->out || !c->is_begun) && now >= c->progress_ns + stall) {
        c->is_failed = true;
    }
    grpc_conn_run(c);
}

static void feed(struct grpc_conn *c, const uint8_t *bytes, size_t len)
{
    if (nghttp2_session_mem_recv(c->session, bytes, len) != (ssize_t)len)
        c->is_failed = true;
}

/* One recv(). */
static void receive(struct grpc_conn *c)
{
    ssize_t n = transport_recv(&c->base.transport, c->shard->scratch, RECV_BYTES);
    if (n > 0) {
        feed(c, c->shard->scratch, (size_t)n);
    } else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
        c->is_failed = true;
    }
}

void grpc_conn_ready(struct transport *t, unsigned events)
{
    struct grpc_conn *c = CONTAINER_OF(t, struct grpc_conn, base.transport);
    if (events & LOOP_HANGUP)
        c->is_failed = true;
    if ((events & LOOP_READ) && !c->is_failed) {
        c->is_running = true;
        receive(c);
        c->is_running = false;
    }
    grpc_conn_run(c);
}

void grpc_conn_drain(struct acceptor_conn *base)
{
    struct grpc_conn *c = CONTAINER_OF(base, struct grpc_conn, base);
    if (transport_is_handshaking(&c->base.transport)) {
        grpc_conn_close(base); /* there is nobody yet who could be told */
        return;
    }
    if (is_lost(c) || c->is_noticed)
        return;
    c->is_noticed = true;
    c->progress_ns = loop_now_ns(c->shard->loop);
    if (nghttp2_submit_shutdown_notice(c->session) ||
        nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL))
        c->is_failed = true;
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
    };
    return !nghttp2_session_server_new2(&c->session, server->callbacks, c,
                                        server->session_options) &&
           !nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings)) &&
           !nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0,
                                                  CONN_WINDOW_BYTES);
}

struct acceptor_conn *grpc_conn_create(struct acceptor_shard *s)
{
    struct grpc_conn *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->shard = CONTAINER_OF(s, struct grpc_shard, base);
    c->timer.fire = timer_fired;
    c->flush.run = flush_run;
    list_init(&c->streams);
    list_init(&c->done_messages);
    return &c->base;
}

void grpc_conn_open(struct acceptor_conn *base)
{
    struct grpc_conn *c = CONTAINER_OF(base, struct grpc_conn, base);
    c->progress_ns = loop_now_ns(c->shard->loop);
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
    if (!is_lost(c) && !c->is_failed)
        feed(c, bytes, len);
    c->is_running = false;
    grpc_conn_run(c);
}
