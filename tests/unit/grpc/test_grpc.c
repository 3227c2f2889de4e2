/* The gRPC server over real sockets on the loopback address, with its loops in threads.
 *
 * The client is nghttp2's, over a blocking socket with a deadline of ten seconds. What the handler
 * does is chosen by the path; every wait is for bytes or for a counter of the handler. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/lock.h"
#include "grpc/server.h"

enum {
    LOOPS = 2,
    HELD_MAX = 8,
    BODY_BYTES_MAX = 64 << 20
};

enum counter {
    HEADS,
    REQUESTS,
    CANCELS,
    HALF_CLOSES,
    ENDS,
    COUNTERS
};

struct fixture {
    struct loop *loops[LOOPS];
    struct grpc_server *server;
    struct budget budget;
    struct lock lock;
    struct cond changed;
    unsigned counters[COUNTERS];
};

static void count(struct fixture *f, enum counter which)
{
    lock_take(&f->lock);
    f->counters[which]++;
    cond_broadcast(&f->changed);
    lock_release(&f->lock);
}

static void wait_counter(struct fixture *f, enum counter which, unsigned value)
{
    uint64_t deadline = clock_ns() + 10 * NS_PER_SEC;
    lock_take(&f->lock);
    while (f->counters[which] < value && clock_ns() < deadline)
        cond_wait_until(&f->changed, &f->lock, deadline);
    unsigned seen = f->counters[which];
    lock_release(&f->lock);
    if (seen < value)
        fail_msg("counter %d is %u, waited for %u", (int)which, seen, value);
}

/* ---- the handler ----
 * /echo /error; /hold answers when cancelled; /stream sends each message back and ends with the client;
 * /keep is a stream that releases nothing before its end, /twice sends all twice and then fails. */

static bool is_stream(const struct grpc_exchange *ex)
{
    return strcmp(ex->path, "/stream") == 0 || strcmp(ex->path, "/keep") == 0 ||
           strcmp(ex->path, "/twice") == 0;
}

/* What came, on its way back. */
struct echo {
    struct grpc_message message;
    struct iovec part;
    struct grpc_exchange *ex;
    bool releases; /* the message it came in */
};

static void on_head(struct grpc_exchange *ex, void *arg)
{
    count(arg, HEADS);
    ex->is_stream = is_stream(ex);
    ex->user = NULL;
    if (strcmp(ex->path, "/none") == 0)
        grpc_fail(ex, GRPC_UNIMPLEMENTED, "");
}

static tis_error *on_message(struct grpc_exchange *ex, size_t bytes,
                             struct http_body_memory *ret_memory, void *arg)
{
    (void)ex;
    (void)arg;
    char *base = malloc(bytes);
    *ret_memory = (struct http_body_memory){ .base = base, .bytes = bytes };
    if (ex->is_stream) {
        ex->user = base; /* until the message is complete */
    } else {
        ret_memory->owner = base;
        ret_memory->release = free;
    }
    return base ? NULL : error_no_memory();
}

static void echo_done(struct grpc_message *m)
{
    struct echo *e = CONTAINER_OF(m, struct echo, message);
    if (e->releases)
        grpc_message_release(e->ex, e->part.iov_len);
    free(e->part.iov_base);
    free(e);
}

static void echo(struct grpc_exchange *ex, void *base, size_t len, bool releases)
{
    struct echo *e = calloc(1, sizeof(*e));
    e->part = (struct iovec){ .iov_base = base, .iov_len = len };
    e->ex = ex;
    e->releases = releases;
    e->message.parts = &e->part;
    e->message.part_count = 1;
    e->message.done = echo_done;
    grpc_send(ex, &e->message);
}

static void on_half_close(struct grpc_exchange *ex, void *arg)
{
    count(arg, HALF_CLOSES);
    if (strcmp(ex->path, "/twice") == 0)
        grpc_fail(ex, GRPC_NOT_FOUND, "no more");
    else
        grpc_finish(ex);
}

static void on_request(struct grpc_exchange *ex, void *arg)
{
    count(arg, REQUESTS);
    size_t half = ex->message_len / 2;
    struct iovec parts[] = {
        { .iov_base = (void *)(uintptr_t)ex->message, .iov_len = half },
        { .iov_base = (void *)(uintptr_t)(ex->message ? ex->message + half : NULL),
          .iov_len = ex->message_len - half },
    };
    if (strcmp(ex->path, "/echo") == 0)
        grpc_respond(ex, parts, ex->message_len ? 2 : 0);
    else if (strcmp(ex->path, "/error") == 0)
        grpc_fail(ex, GRPC_INVALID_ARGUMENT, "50% w\xc3\xb6rse\n");
    if (!ex->is_stream)
        return;
    void *base = ex->user;
    ex->user = NULL;
    if (strcmp(ex->path, "/twice") == 0) {
        void *copy = malloc(ex->message_len);
        memcpy(copy, base, ex->message_len);
        echo(ex, copy, ex->message_len, false);
    }
    echo(ex, base, ex->message_len, strcmp(ex->path, "/keep") != 0);
}

static void on_cancel(struct grpc_exchange *ex, void *arg)
{
    assert_true(grpc_exchange_is_cancelled(ex));
    count(arg, CANCELS);
    grpc_fail(ex, GRPC_CANCELLED, "");
}

static void on_end(struct grpc_exchange *ex, void *arg)
{
    if (ex->is_stream)
        free(ex->user);
    count(arg, ENDS);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct grpc_handler handler = {
        .arg = f,
        .on_head = on_head,
        .on_message = on_message,
        .on_request = on_request,
        .on_half_close = on_half_close,
        .on_cancel = on_cancel,
        .on_end = on_end,
    };
    lock_init(&f->lock, LOCK_STATISTICS);
    cond_init(&f->changed);
    budget_init(&f->budget, 16 << 20);
    for (int i = 0; i < LOOPS; i++) {
        assert_null(loop_create("test", &f->loops[i]));
        assert_null(loop_start(f->loops[i]));
    }
    struct grpc_server_options options = {
        .address = "127.0.0.1",
        .message_bytes_max = 8 << 20,
        .message_bytes_flag = "--flag",
        .budget_flag = "--budget",
        .streams_max = 100,
        .budget = &f->budget,
    };
    assert_null(grpc_server_create(&options, &handler, f->loops, LOOPS, &f->server));
    grpc_server_start(f->server);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    grpc_server_destroy(f->server);
    assert_int_equal(f->counters[HEADS], f->counters[ENDS]);
    assert_int_equal(f->budget.bytes, 0);
    for (int i = 0; i < LOOPS; i++)
        loop_stop(f->loops[i]);
    for (int i = 0; i < LOOPS; i++)
        loop_destroy(f->loops[i]);
    cond_fini(&f->changed);
    lock_fini(&f->lock);
    free(f);
    return 0;
}

/* ---- the client ---- */

struct client {
    int fd;
    nghttp2_session *session;
    struct bytes to_send; /* of the only request at a time */
    size_t sent;
    bool keep_open; /* the request does not end */
    /* the answer */
    char http_status[8];
    char status[8];
    char text[128];
    struct bytes body;
    bool is_closed;
    bool is_going;
};

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *buf, size_t len,
                         uint32_t *flags, nghttp2_data_source *source, void *user)
{
    struct client *c = user;
    (void)session;
    (void)id;
    (void)source;
    size_t n = c->to_send.len - c->sent;
    if (n > len)
        n = len;
    if (n == 0 && c->keep_open)
        return NGHTTP2_ERR_DEFERRED;
    if (n > 0)
        memcpy(buf, c->to_send.data + c->sent, n);
    c->sent += n;
    if (c->sent == c->to_send.len && !c->keep_open)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *user)
{
    struct client *c = user;
    (void)session;
    (void)frame;
    (void)name_len;
    (void)flags;
    if (strcmp((const char *)name, ":status") == 0)
        snprintf(c->http_status, sizeof(c->http_status), "%.*s", (int)value_len, value);
    if (strcmp((const char *)name, "grpc-status") == 0)
        snprintf(c->status, sizeof(c->status), "%.*s", (int)value_len, value);
    if (strcmp((const char *)name, "grpc-message") == 0)
        snprintf(c->text, sizeof(c->text), "%.*s", (int)value_len, value);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                   size_t len, void *user)
{
    (void)session;
    (void)flags;
    (void)id;
    bytes_append(&((struct client *)user)->body, data, len);
    return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
    (void)session;
    (void)id;
    (void)error;
    ((struct client *)user)->is_closed = true;
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    if (frame->hd.type == NGHTTP2_GOAWAY)
        ((struct client *)user)->is_going = true;
    return 0;
}

static void client_open(struct client *c, struct fixture *f)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons(grpc_server_port(f->server)) };
    struct timeval limit = { .tv_sec = 10 };
    nghttp2_session_callbacks *callbacks;
    *c = (struct client){ 0 };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(c->fd, (struct sockaddr *)&a, sizeof(a)), 0);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    assert_int_equal(nghttp2_session_callbacks_new(&callbacks), 0);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    assert_int_equal(nghttp2_session_client_new(&c->session, callbacks, c), 0);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_submit_settings(c->session, 0, NULL, 0);
}

static void client_close(struct client *c)
{
    close(c->fd);
    nghttp2_session_del(c->session);
    bytes_fini(&c->to_send);
    bytes_fini(&c->body);
}

static void client_write(struct client *c)
{
    const uint8_t *data;
    for (ssize_t n; (n = nghttp2_session_mem_send(c->session, &data)) > 0;) {
        for (ssize_t at = 0, k; at < n; at += k) {
            k = send(c->fd, data + at, (size_t)(n - at), MSG_NOSIGNAL);
            if (k < 0)
                return; /* the test sees what is missing */
        }
    }
}

/* One recv(); false at the end. */
static bool client_read(struct client *c)
{
    static uint8_t buf[65536];
    client_write(c);
    ssize_t n = recv(c->fd, buf, sizeof(buf), 0);
    return n > 0 && nghttp2_session_mem_recv(c->session, buf, (size_t)n) == n;
}

static nghttp2_nv header(const char *name, const char *value)
{
    return (nghttp2_nv){ .name = (uint8_t *)(uintptr_t)name,
                         .namelen = strlen(name),
                         .value = (uint8_t *)(uintptr_t)value,
                         .valuelen = strlen(value) };
}

/* Sends `to_send`; type and timeout may be NULL. */
static int32_t client_submit(struct client *c, const char *path, const char *type,
                             const char *timeout)
{
    nghttp2_nv headers[8] = { header(":method", "POST"), header(":scheme", "http"),
                              header(":path", path), header(":authority", "test"),
                              header("te", "trailers") };
    size_t n = 5;
    if (type)
        headers[n++] = header("content-type", type);
    if (timeout)
        headers[n++] = header("grpc-timeout", timeout);
    nghttp2_data_provider body = { .read_callback = read_body };
    c->is_closed = false;
    c->sent = 0;
    c->http_status[0] = c->status[0] = c->text[0] = '\0';
    bytes_clear(&c->body);
    int32_t id = nghttp2_submit_request(c->session, NULL, headers, n, &body, NULL);
    assert_true(id > 0);
    client_write(c);
    return id;
}

static void client_call(struct client *c, const char *path, const char *timeout)
{
    client_submit(c, path, "application/grpc", timeout);
    while (!c->is_closed)
        assert_true(client_read(c));
}

static void set_message(struct client *c, char flag, size_t bytes)
{
    char prefix[5] = { flag, (char)(bytes >> 24), (char)(bytes >> 16), (char)(bytes >> 8),
                       (char)bytes };
    bytes_clear(&c->to_send);
    bytes_append(&c->to_send, prefix, 5);
    for (size_t i = 0; i < bytes; i++)
        bytes_append_char(&c->to_send, (char)(i * 7));
}

/* ---- tests ---- */

/* Messages from empty to far beyond a window come back as they went, on one connection. */
static void test_echo(void **state)
{
    static const size_t sizes[] = { 0, 1, 100, 16384, 70000, 5 << 20, 3 };
    struct client c;
    client_open(&c, *state);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        set_message(&c, 0, sizes[i]);
        client_call(&c, "/echo", "10S");
        assert_string_equal(c.http_status, "200");
        assert_string_equal(c.status, "0");
        assert_int_equal(c.body.len, sizes[i] + 5);
        assert_memory_equal(c.body.data, c.to_send.data, c.body.len);
    }
    client_close(&c);
}

/* Errors of the handler and of the server itself; the connection serves on after each. */
static void test_errors(void **state)
{
    struct client c;
    client_open(&c, *state);
    set_message(&c, 0, 10);
    client_call(&c, "/error", NULL);
    assert_string_equal(c.status, "3");
    assert_string_equal(c.text, "50%25 w%C3%B6rse%0A");
    client_call(&c, "/none", NULL);
    assert_string_equal(c.status, "12");
    assert_string_equal(c.text, "");
    bytes_append_char(&c.to_send, 'x');
    client_call(&c, "/echo", NULL);
    assert_string_equal(c.status, "13");
    c.to_send.len -= 4;
    client_call(&c, "/echo", NULL);
    assert_string_equal(c.status, "13");
    bytes_clear(&c.to_send);
    client_call(&c, "/echo", NULL);
    assert_string_equal(c.status, "13");
    set_message(&c, 1, 10);
    client_call(&c, "/echo", NULL);
    assert_string_equal(c.status, "13"); /* compressed, and no grpc-encoding */
    set_message(&c, 0, (8 << 20) + 1);
    client_call(&c, "/echo", NULL);
    assert_string_equal(c.status, "8");
    assert_non_null(strstr(c.text, "Use --flag"));

    set_message(&c, 0, 1);
    client_submit(&c, "/echo", "text/plain", NULL);
    while (!c.is_closed)
        assert_true(client_read(&c));
    assert_string_equal(c.http_status, "415");
    client_call(&c, "/echo", NULL);
    assert_string_equal(c.status, "0");
    client_close(&c);
}

/* A deadline ends the call and tells the handler, before and after the message is complete. */
static void test_deadline(void **state)
{
    struct fixture *f = *state;
    struct client c;
    client_open(&c, f);
    set_message(&c, 0, 10);
    /* Long enough for the message to reach the handler first, also on a busy machine: a deadline that
     * passes before is answered without asking it. */
    client_call(&c, "/hold", "1S");
    assert_string_equal(c.status, "4");
    wait_counter(f, CANCELS, 1);
    c.keep_open = true;
    client_call(&c, "/hold", "1S");
    assert_string_equal(c.status, "4");
    wait_counter(f, ENDS, 2);
    client_close(&c);
}

/* RST_STREAM and a lost connection reach the handler, which is left alone afterwards. */
static void test_cancel(void **state)
{
    struct fixture *f = *state;
    struct client c;
    client_open(&c, f);
    set_message(&c, 0, 10);
    int32_t id = client_submit(&c, "/hold", "application/grpc", NULL);
    wait_counter(f, REQUESTS, 1);
    nghttp2_submit_rst_stream(c.session, 0, id, NGHTTP2_CANCEL);
    client_write(&c);
    wait_counter(f, CANCELS, 1);
    client_call(&c, "/echo", NULL);
    client_submit(&c, "/hold", "application/grpc", NULL);
    wait_counter(f, REQUESTS, 3);
    client_close(&c);
    wait_counter(f, CANCELS, 2);
    wait_counter(f, ENDS, 3);
}

/* The server is destroyed while a call waits: it is cancelled. */
static void test_destroy(void **state)
{
    struct fixture *f = *state;
    struct client c;
    client_open(&c, f);
    set_message(&c, 0, 10);
    client_submit(&c, "/hold", "application/grpc", NULL);
    wait_counter(f, REQUESTS, 1);
    grpc_server_destroy(f->server);
    f->server = NULL;
    assert_int_equal(f->counters[CANCELS], 1);
    client_close(&c);
}

static void append_message(struct client *c, size_t bytes)
{
    char prefix[5] = { 0, (char)(bytes >> 24), (char)(bytes >> 16), (char)(bytes >> 8),
                       (char)bytes };
    bytes_append(&c->to_send, prefix, 5);
    for (size_t i = 0; i < bytes; i++)
        bytes_append_char(&c->to_send, (char)(i * 13 + bytes));
}

/* Messages of all sizes in one stream come back in their order, then OK. */
static void test_stream(void **state)
{
    static const size_t sizes[] = { 10, 0, 1, 1024, 1025, 70000, 3 << 20, 5, 0 };
    struct fixture *f = *state;
    struct client c;
    client_open(&c, f);
    for (int i = 0; i < 200; i++)
        append_message(&c, sizes[(size_t)i % ARRAY_LEN(sizes)] % (i < 20 ? SIZE_MAX : 5000));
    client_call(&c, "/stream", NULL);
    assert_string_equal(c.status, "0");
    assert_int_equal(c.body.len, c.to_send.len);
    assert_memory_equal(c.body.data, c.to_send.data, c.body.len);
    assert_int_equal(f->counters[REQUESTS], 200);
    bytes_clear(&c.to_send);
    client_call(&c, "/stream", NULL); /* not a single message */
    assert_string_equal(c.status, "0");
    assert_int_equal(c.body.len, 0);
    client_close(&c);
}

/* A stream may end with an error behind its messages, by its deadline, by the client, or by a message
 * that cannot be; each time the handler hears of it and the connection serves on. */
static void test_stream_errors(void **state)
{
    struct fixture *f = *state;
    struct client c;
    client_open(&c, f);
    set_message(&c, 0, 10);
    client_call(&c, "/twice", NULL);
    assert_string_equal(c.status, "5");
    assert_string_equal(c.text, "no more");
    c.keep_open = true;
    client_call(&c, "/stream", "500m");
    assert_string_equal(c.status, "4");
    wait_counter(f, CANCELS, 1);
    int32_t id = client_submit(&c, "/stream", "application/grpc", NULL);
    wait_counter(f, REQUESTS, 3);
    nghttp2_submit_rst_stream(c.session, 0, id, NGHTTP2_CANCEL);
    client_write(&c);
    wait_counter(f, CANCELS, 2);
    c.keep_open = false;
    append_message(&c, 3);
    c.to_send.len--;
    client_call(&c, "/stream", NULL);
    assert_string_equal(c.status, "13");
    wait_counter(f, CANCELS, 3);
    wait_counter(f, ENDS, 4);
    client_close(&c);
}

/* A handler that keeps its messages closes the window of its stream and of no other. */
static void test_stream_window(void **state)
{
    struct fixture *f = *state;
    struct client c;
    f->budget.bytes_max = 64 << 20; /* answers count for it too */
    client_open(&c, f);
    for (int i = 0; i < 40; i++)
        append_message(&c, 1 << 20);
    c.keep_open = true;
    client_submit(&c, "/keep", "application/grpc", NULL);
    /* 8 MiB are held, and one window more is under way. */
    while (c.body.len < (size_t)8 << 20)
        assert_true(client_read(&c));
    struct client other;
    client_open(&other, f);
    set_message(&other, 0, 100);
    client_call(&other, "/echo", NULL);
    assert_string_equal(other.status, "0");
    client_close(&other);
    assert_true(c.sent <= (size_t)17 << 20);
    client_close(&c);
    wait_counter(f, ENDS, 2);
}

/* A drain tells the client by GOAWAY; when nothing runs the connection ends. */
static void test_drain(void **state)
{
    struct fixture *f = *state;
    struct client c;
    client_open(&c, f);
    set_message(&c, 0, 10);
    client_call(&c, "/echo", NULL);
    assert_false(grpc_server_drain(f->server, 0));
    while (client_read(&c))
        ;
    assert_true(c.is_going);
    assert_true(grpc_server_drain(f->server, clock_ns() + 10 * NS_PER_SEC));
    client_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_echo, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_errors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_deadline, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cancel, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_destroy, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stream, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stream_errors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stream_window, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_drain, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
