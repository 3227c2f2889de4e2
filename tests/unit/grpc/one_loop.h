/* A gRPC server on one loop that the test runs itself, and nghttp2's client at the other end of a socket
 * pair: nothing happens but in step(). Every wait is for an event, with a deadline of ten seconds. */
#ifndef TIS_TESTS_GRPC_ONE_LOOP_H
#define TIS_TESTS_GRPC_ONE_LOOP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "grpc/conn.h"

enum {
    HELD_MAX = 8,
    GOAWAYS_MAX = 4,
    HEADERS_MAX = 4,
};

/* A call of the client. */
struct call {
    /* set by the test before call_start() */
    const nghttp2_nv *headers; /* further ones; NULL: own_headers */
    nghttp2_nv own_headers[HEADERS_MAX];
    size_t header_count;
    struct bytes out; /* framed messages */
    bool is_kept_open;
    /* the rest */
    int32_t id;
    size_t sent;
    struct bytes in; /* framed messages */
    char http_status[8];
    char status[8];
    char text[256];
    char encoding[16];
    char accepted[64];
    bool is_closed;
    uint32_t error; /* of RST_STREAM */
};

struct goaway {
    int32_t last;
    uint32_t error;
    char why[40];
};

/* One client and its connection. */
struct client {
    struct fixture *fixture;
    int fd;
    nghttp2_session *session;
    unsigned pings; /* from the server */
    unsigned pongs; /* answers to ours */
    unsigned goaway_count;
    struct goaway goaways[GOAWAYS_MAX];
    bool is_eof;
    bool is_deaf; /* reads nothing */
};

struct fixture {
    struct pool *workers; /* or NULL */
    struct loop *loop;
    struct grpc_server *server;
    struct grpc_server_options options;
    struct budget budget;
    struct grpc_exchange *held[HELD_MAX]; /* by /hold, oldest first */
    unsigned held_count;
    struct loop_message answer;
    unsigned cancels;
    unsigned ends;
    enum compress_level compression;
};

#define UNUSED __attribute__((unused))

/* ---- The handler: /echo sends the message back, /hold keeps the call until answer(), /stubborn also when
 * it is cancelled, /health is
 * exempt from the budget, /stream is a stream that sends back what comes ---- */

struct echo {
    struct grpc_message message;
    struct iovec part;
    struct grpc_exchange *ex;
};

static void on_head(struct grpc_exchange *ex, void *arg)
{
    ex->user = NULL;
    ex->is_stream = strcmp(ex->path, "/stream") == 0;
    ex->budget_exempt = strcmp(ex->path, "/health") == 0;
    ex->compression = ((struct fixture *)arg)->compression;
}

static tis_error *on_message(struct grpc_exchange *ex, size_t bytes,
                             struct http_body_memory *ret_memory, void *arg)
{
    (void)arg;
    char *base = malloc(bytes);
    assert_null(ex->user);
    ex->user = base;
    *ret_memory = (struct http_body_memory){ .base = base, .bytes = bytes };
    return base ? NULL : error_no_memory();
}

static void respond(struct grpc_exchange *ex)
{
    struct iovec part = { .iov_base = ex->user, .iov_len = ex->message_len };
    grpc_respond(ex, &part, ex->message_len > 0);
}

static void echo_done(struct grpc_message *m)
{
    struct echo *e = CONTAINER_OF(m, struct echo, message);
    grpc_message_release(e->ex, e->part.iov_len);
    free(e->part.iov_base);
    free(e);
}

static void on_request(struct grpc_exchange *ex, void *arg)
{
    struct fixture *f = arg;
    if (ex->is_stream) {
        struct echo *e = calloc(1, sizeof(*e));
        e->part = (struct iovec){ .iov_base = ex->user, .iov_len = ex->message_len };
        e->ex = ex;
        e->message.parts = &e->part;
        e->message.part_count = ex->message_len > 0;
        e->message.done = echo_done;
        ex->user = NULL;
        grpc_send(ex, &e->message);
    } else if (strcmp(ex->path, "/hold") == 0 || strcmp(ex->path, "/stubborn") == 0) {
        assert_true(f->held_count < HELD_MAX);
        f->held[f->held_count++] = ex;
    } else {
        respond(ex);
    }
}

static void on_half_close(struct grpc_exchange *ex, void *arg)
{
    (void)arg;
    grpc_finish(ex);
}

static void on_cancel(struct grpc_exchange *ex, void *arg)
{
    struct fixture *f = arg;
    f->cancels++;
    if (strcmp(ex->path, "/stubborn") == 0)
        return;
    unsigned kept = 0;
    for (unsigned i = 0; i < f->held_count; i++) {
        if (f->held[i] != ex)
            f->held[kept++] = f->held[i];
    }
    f->held_count = kept;
    grpc_fail(ex, GRPC_CANCELLED, "");
}

static void on_end(struct grpc_exchange *ex, void *arg)
{
    struct fixture *f = arg;
    f->ends++;
    free(ex->user);
}

static void answer_run(struct loop_message *m)
{
    struct fixture *f = CONTAINER_OF(m, struct fixture, answer);
    struct grpc_exchange *ex = f->held[0];
    memmove(f->held, f->held + 1, --f->held_count * sizeof(f->held[0]));
    respond(ex);
}

/* Ends the oldest held call. */
UNUSED static void answer(struct fixture *f)
{
    assert_true(f->held_count > 0);
    f->answer.run = answer_run;
    loop_post(f->loop, &f->answer);
    loop_run_once(f->loop, 0);
}

/* ---- The client ---- */

static struct call *call_of(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

static int client_on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct client *c = user;
    (void)session;
    if (frame->hd.type == NGHTTP2_PING) {
        if (frame->hd.flags & NGHTTP2_FLAG_ACK)
            c->pongs++;
        else
            c->pings++;
    }
    if (frame->hd.type == NGHTTP2_GOAWAY && c->goaway_count < GOAWAYS_MAX) {
        struct goaway *g = &c->goaways[c->goaway_count++];
        g->last = frame->goaway.last_stream_id;
        g->error = frame->goaway.error_code;
        snprintf(g->why, sizeof(g->why), "%.*s", (int)frame->goaway.opaque_data_len,
                 (const char *)frame->goaway.opaque_data);
    }
    return 0;
}

static int client_on_header(nghttp2_session *session, const nghttp2_frame *frame,
                            const uint8_t *name, size_t name_len, const uint8_t *value,
                            size_t value_len, uint8_t flags, void *user)
{
    struct call *call = call_of(session, frame->hd.stream_id);
    const struct {
        const char *name;
        char *out;
        size_t bytes;
    } kept[] = {
        { ":status", call->http_status, sizeof(call->http_status) },
        { "grpc-status", call->status, sizeof(call->status) },
        { "grpc-message", call->text, sizeof(call->text) },
        { "grpc-encoding", call->encoding, sizeof(call->encoding) },
        { "grpc-accept-encoding", call->accepted, sizeof(call->accepted) },
    };
    (void)name_len;
    (void)flags;
    (void)user;
    for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
        if (strcmp((const char *)name, kept[i].name) == 0)
            snprintf(kept[i].out, kept[i].bytes, "%.*s", (int)value_len, value);
    }
    return 0;
}

static int client_on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                          size_t len, void *user)
{
    (void)flags;
    (void)user;
    bytes_append(&call_of(session, id)->in, data, len);
    return 0;
}

static int client_on_close(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
    (void)user;
    struct call *call = call_of(session, id);
    if (call) {
        call->is_closed = true;
        call->error = error;
    }
    return 0;
}

static ssize_t client_on_send(nghttp2_session *session, const uint8_t *data, size_t len, int flags,
                              void *user)
{
    (void)session;
    (void)flags;
    ssize_t n = send(((struct client *)user)->fd, data, len, MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN ? NGHTTP2_ERR_WOULDBLOCK : NGHTTP2_ERR_CALLBACK_FAILURE;
    return n;
}

/* Whether the server has gone is seen by what comes. */
static void client_send(struct client *c)
{
    int rc = nghttp2_session_send(c->session);
    assert_true(rc == 0 || rc == NGHTTP2_ERR_CALLBACK_FAILURE);
}

static void client_receive(struct client *c)
{
    static uint8_t buf[65536];
    ssize_t n;
    if (c->is_deaf)
        return;
    while ((n = recv(c->fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
        assert_int_equal(nghttp2_session_mem_recv(c->session, buf, (size_t)n), n);
    if (n == 0 || (errno != EAGAIN && errno != EINTR))
        c->is_eof = true;
}

static void step(struct client *c)
{
    client_send(c);
    loop_run_once(c->fixture->loop, NS_PER_MS);
    client_receive(c);
}

#define WAIT_FOR(c, condition)                                  \
    do {                                                        \
        uint64_t limit_ns = clock_ns() + 10 * NS_PER_SEC;       \
        while (!(condition)) {                                  \
            if (clock_ns() > limit_ns)                          \
                fail_msg("waited in vain for: %s", #condition); \
            step(c);                                            \
        }                                                       \
    } while (0)

static ssize_t read_messages(nghttp2_session *session, int32_t id, uint8_t *buf, size_t len,
                             uint32_t *flags, nghttp2_data_source *source, void *user)
{
    (void)session;
    (void)id;
    (void)user;
    struct call *call = source->ptr;
    size_t n = call->out.len - call->sent;
    if (n == 0 && call->is_kept_open)
        return NGHTTP2_ERR_DEFERRED;
    n = n < len ? n : len;
    if (n > 0)
        memcpy(buf, call->out.data + call->sent, n);
    call->sent += n;
    if (call->sent == call->out.len && !call->is_kept_open)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

static nghttp2_nv header(const char *name, const char *value)
{
    return (nghttp2_nv){ .name = (uint8_t *)(uintptr_t)name,
                         .namelen = strlen(name),
                         .value = (uint8_t *)(uintptr_t)value,
                         .valuelen = strlen(value) };
}

UNUSED static void call_header(struct call *call, const char *name, const char *value)
{
    assert_true(call->header_count < HEADERS_MAX);
    call->own_headers[call->header_count++] = header(name, value);
}

/* A message behind those there are. */
UNUSED static void call_add(struct call *call, char flag, const void *data, size_t len)
{
    char prefix[5] = { flag, (char)(len >> 24), (char)(len >> 16), (char)(len >> 8), (char)len };
    bytes_append(&call->out, prefix, 5);
    bytes_append(&call->out, data, len);
}

/* Sends nothing yet. */
UNUSED static void call_start(struct client *c, struct call *call, const char *path)
{
    const nghttp2_nv first[] = {
        header(":method", "POST"), header(":scheme", "http"),
        header(":path", path),     header(":authority", "test"),
        header("te", "trailers"),  header("content-type", "application/grpc"),
    };
    size_t count = ARRAY_LEN(first) + call->header_count;
    nghttp2_nv *headers = calloc(count, sizeof(*headers));
    memcpy(headers, first, sizeof(first));
    memcpy(headers + ARRAY_LEN(first), call->headers ? call->headers : call->own_headers,
           call->header_count * sizeof(*headers));
    nghttp2_data_provider body = { .source.ptr = call, .read_callback = read_messages };
    call->id = nghttp2_submit_request(c->session, NULL, headers, count, &body, call);
    free(headers);
    assert_true(call->id > 0);
}

UNUSED static void call_fini(struct call *call)
{
    bytes_fini(&call->out);
    bytes_fini(&call->in);
}

UNUSED static void send_ping(struct client *c)
{
    nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL);
    step(c);
}

/* is_mute: does not answer pings. */
static void client_open(struct client *c, struct fixture *f, bool is_mute)
{
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    int fds[2];
    *c = (struct client){ .fixture = f };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    c->fd = fds[1];
    grpc_server_adopt(f->server, fds[0]);

    assert_int_equal(nghttp2_session_callbacks_new(&callbacks), 0);
    assert_int_equal(nghttp2_option_new(&option), 0);
    nghttp2_option_set_no_auto_ping_ack(option, is_mute);
    nghttp2_option_set_max_send_header_block_length(option, 16 << 20);
    nghttp2_session_callbacks_set_send_callback(callbacks, client_on_send);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, client_on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, client_on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, client_on_close);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, client_on_frame);
    assert_int_equal(nghttp2_session_client_new2(&c->session, callbacks, c, option), 0);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
    const nghttp2_settings_entry window = { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 64 << 20 };
    nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, &window, 1);
    nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, 64 << 20);
    for (int i = 0; i < 3; i++)
        step(c);
}

static void client_close(struct client *c)
{
    close(c->fd);
    nghttp2_session_del(c->session);
}

/* What is zero in options is filled in. */
static void fixture_open(struct fixture *f, const struct grpc_server_options *options)
{
    struct grpc_handler handler = { .arg = f,
                                    .on_head = on_head,
                                    .on_message = on_message,
                                    .on_request = on_request,
                                    .on_half_close = on_half_close,
                                    .on_cancel = on_cancel,
                                    .on_end = on_end };
    *f = (struct fixture){ .options = *options };
    budget_init(&f->budget, 1 << 20);
    f->options.address = "127.0.0.1";
    f->options.message_bytes_flag = "--flag";
    f->options.budget_flag = "--budget";
    f->options.budget = &f->budget;
    if (!f->options.message_bytes_max)
        f->options.message_bytes_max = 8 << 20;
    if (!f->options.streams_max)
        f->options.streams_max = 100;
    assert_null(loop_create("test", &f->loop));
    assert_null(grpc_server_create(&f->options, &handler, &f->loop, 1, &f->server));
}

/* Its clients are closed. */
static void fixture_close(struct fixture *f)
{
    for (int i = 0; atomic_load(&f->server->acceptor.conn_count) > 0; i++) {
        assert_true(i < 1000);
        loop_run_once(f->loop, NS_PER_MS);
    }
    assert_int_equal(f->budget.bytes, 0);
    grpc_server_destroy(f->server);
    pool_destroy(f->workers); /* they post to the loop */
    loop_destroy(f->loop);
}

/* The server's connection of the only client. */
UNUSED static struct grpc_conn *conn_of(const struct fixture *f)
{
    struct list *conns = &f->server->acceptor.shards[0]->conns;
    assert_false(list_is_empty(conns));
    return LIST_ENTRY(conns->next, struct grpc_conn, base.in_shard);
}

#endif
