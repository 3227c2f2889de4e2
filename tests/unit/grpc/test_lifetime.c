/* How long a gRPC connection lives: keepalive, policing of pings, resets and headers, age, floods.
 *
 * One loop on the test's own thread and a socket pair; the client is nghttp2's. Times are a few
 * milliseconds, and every wait is for an event with a deadline of ten seconds. That something does
 * not come is seen at the connection's timer: nothing is armed for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "grpc/conn.h"

#define NS_SHORT (20 * NS_PER_MS)

enum {
    HELD_MAX = 8,
    GOAWAYS_MAX = 4
};

struct goaway {
    int32_t last;
    uint32_t error;
    char why[40];
};

struct fixture {
    struct loop *loop;
    struct grpc_server *server;
    struct grpc_exchange *held;
    struct loop_message answer;
    unsigned cancels;
    /* the client */
    int fd;
    nghttp2_session *session;
    unsigned pings;  /* from the server */
    unsigned pongs;  /* answers to ours */
    unsigned closes; /* streams */
    unsigned goaway_count;
    struct goaway goaways[GOAWAYS_MAX];
    char status[8];
    char text[128];
    bool is_eof;
};

/* ---- the handler: /echo answers with nothing, /hold keeps the call ---- */

static void on_head(struct grpc_exchange *ex, void *arg)
{
    (void)ex;
    (void)arg;
}

static tis_error *on_message(struct grpc_exchange *ex, size_t bytes,
                             struct http_body_memory *ret_memory, void *arg)
{
    (void)ex;
    (void)arg;
    char *base = malloc(bytes);
    *ret_memory =
        (struct http_body_memory){ .base = base, .bytes = bytes, .owner = base, .release = free };
    return base ? NULL : error_no_memory();
}

static void on_request(struct grpc_exchange *ex, void *arg)
{
    struct fixture *f = arg;
    if (strcmp(ex->path, "/hold") == 0)
        f->held = ex;
    else
        grpc_respond(ex, NULL, 0);
}

static void on_cancel(struct grpc_exchange *ex, void *arg)
{
    struct fixture *f = arg;
    f->cancels++;
    f->held = NULL;
    grpc_fail(ex, GRPC_CANCELLED, "");
}

/* ---- the client ---- */

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct fixture *f = user;
    (void)session;
    if (frame->hd.type == NGHTTP2_PING) {
        if (frame->hd.flags & NGHTTP2_FLAG_ACK)
            f->pongs++;
        else
            f->pings++;
    }
    if (frame->hd.type == NGHTTP2_GOAWAY && f->goaway_count < GOAWAYS_MAX) {
        struct goaway *g = &f->goaways[f->goaway_count++];
        g->last = frame->goaway.last_stream_id;
        g->error = frame->goaway.error_code;
        snprintf(g->why, sizeof(g->why), "%.*s", (int)frame->goaway.opaque_data_len,
                 (const char *)frame->goaway.opaque_data);
    }
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *user)
{
    struct fixture *f = user;
    (void)session;
    (void)frame;
    (void)name_len;
    (void)flags;
    if (strcmp((const char *)name, "grpc-status") == 0)
        snprintf(f->status, sizeof(f->status), "%.*s", (int)value_len, value);
    if (strcmp((const char *)name, "grpc-message") == 0)
        snprintf(f->text, sizeof(f->text), "%.*s", (int)value_len, value);
    return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
    (void)session;
    (void)id;
    (void)error;
    ((struct fixture *)user)->closes++;
    return 0;
}

static void client_send(struct fixture *f)
{
    const uint8_t *data;
    for (ssize_t n; (n = nghttp2_session_mem_send(f->session, &data)) > 0;) {
        while (n > 0) {
            ssize_t k = send(f->fd, data, (size_t)n, MSG_NOSIGNAL);
            if (k < 0 && errno == EAGAIN) {
                loop_run_once(f->loop, 0); /* the server takes it */
                continue;
            }
            if (k < 0)
                return; /* the test sees what is missing */
            data += k;
            n -= k;
        }
    }
}

static void client_receive(struct fixture *f)
{
    static uint8_t buf[65536];
    ssize_t n;
    while ((n = recv(f->fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
        assert_int_equal(nghttp2_session_mem_recv(f->session, buf, (size_t)n), n);
    if (n == 0 || (errno != EAGAIN && errno != EINTR))
        f->is_eof = true;
}

static void step(struct fixture *f)
{
    client_send(f);
    loop_run_once(f->loop, NS_PER_MS);
    client_receive(f);
}

#define WAIT_FOR(f, condition)                                  \
    do {                                                        \
        uint64_t limit_ns = clock_ns() + 10 * NS_PER_SEC;       \
        while (!(condition)) {                                  \
            if (clock_ns() > limit_ns)                          \
                fail_msg("waited in vain for: %s", #condition); \
            step(f);                                            \
        }                                                       \
    } while (0)

static struct grpc_conn *conn_of(const struct fixture *f)
{
    struct list *conns = &f->server->acceptor.shards[0]->conns;
    assert_false(list_is_empty(conns));
    return LIST_ENTRY(conns->next, struct grpc_conn, base.in_shard);
}

static ssize_t read_message(nghttp2_session *session, int32_t id, uint8_t *buf, size_t len,
                            uint32_t *flags, nghttp2_data_source *source, void *user)
{
    (void)session;
    (void)id;
    (void)source;
    (void)user;
    assert_true(len >= 5);
    memset(buf, 0, 5); /* an empty message */
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    return 5;
}

static nghttp2_nv header(const char *name, const char *value)
{
    return (nghttp2_nv){ .name = (uint8_t *)(uintptr_t)name,
                         .namelen = strlen(name),
                         .value = (uint8_t *)(uintptr_t)value,
                         .valuelen = strlen(value) };
}

/* extra: a further header, `times` times. */
static int32_t submit_with(struct fixture *f, const char *path, const char *extra, size_t times)
{
    size_t n = 0;
    nghttp2_nv *headers = calloc(6 + times, sizeof(*headers));
    headers[n++] = header(":method", "POST");
    headers[n++] = header(":scheme", "http");
    headers[n++] = header(":path", path);
    headers[n++] = header(":authority", "test");
    headers[n++] = header("te", "trailers");
    headers[n++] = header("content-type", "application/grpc");
    for (size_t i = 0; i < times; i++)
        headers[n++] = header("extra", extra);
    nghttp2_data_provider body = { .read_callback = read_message };
    f->status[0] = f->text[0] = '\0';
    int32_t id = nghttp2_submit_request(f->session, NULL, headers, n, &body, NULL);
    free(headers);
    assert_true(id > 0);
    return id;
}

static int32_t submit(struct fixture *f, const char *path)
{
    return submit_with(f, path, NULL, 0);
}

static void hold_call(struct fixture *f)
{
    submit(f, "/hold");
    WAIT_FOR(f, f->held != NULL);
}

static void echo(struct fixture *f)
{
    unsigned before = f->closes;
    submit(f, "/echo");
    WAIT_FOR(f, f->closes > before);
    assert_string_equal(f->status, "0");
}

static void answer_run(struct loop_message *m)
{
    grpc_respond(CONTAINER_OF(m, struct fixture, answer)->held, NULL, 0);
}

/* Ends the held call. */
static void answer(struct fixture *f)
{
    f->answer.run = answer_run;
    loop_post(f->loop, &f->answer);
}

static void send_ping(struct fixture *f)
{
    nghttp2_submit_ping(f->session, NGHTTP2_FLAG_NONE, NULL);
    step(f);
}

static void open_fixture(struct fixture *f, const struct grpc_lifetime *lifetime, bool is_mute)
{
    struct grpc_handler handler = { .arg = f,
                                    .on_head = on_head,
                                    .on_message = on_message,
                                    .on_request = on_request,
                                    .on_cancel = on_cancel };
    struct grpc_server_options options = {
        .address = "127.0.0.1",
        .message_bytes_max = 1 << 20,
        .message_bytes_flag = "--flag",
        .budget_flag = "--budget",
        .streams_max = 100,
        .header_bytes_max = 8192,
        .lifetime = *lifetime,
    };
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    int fds[2];
    *f = (struct fixture){ 0 };
    assert_null(loop_create("test", &f->loop));
    assert_null(grpc_server_create(&options, &handler, &f->loop, 1, &f->server));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    f->fd = fds[1];
    grpc_server_adopt(f->server, fds[0]);

    assert_int_equal(nghttp2_session_callbacks_new(&callbacks), 0);
    assert_int_equal(nghttp2_option_new(&option), 0);
    nghttp2_option_set_no_auto_ping_ack(option, is_mute);
    nghttp2_option_set_max_send_header_block_length(option, 16 << 20);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    assert_int_equal(nghttp2_session_client_new2(&f->session, callbacks, f, option), 0);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
    nghttp2_submit_settings(f->session, 0, NULL, 0);
    WAIT_FOR(f, !list_is_empty(&f->server->acceptor.shards[0]->conns) && conn_of(f)->is_begun);
}

static void close_fixture(struct fixture *f)
{
    close(f->fd);
    nghttp2_session_del(f->session);
    for (int i = 0; atomic_load(&f->server->acceptor.conn_count) > 0; i++) {
        assert_true(i < 1000);
        loop_run_once(f->loop, NS_PER_MS);
    }
    grpc_server_destroy(f->server);
    loop_destroy(f->loop);
}

/* ---- keepalive ---- */

/* A client that answers is pinged again and again and stays; one that does not is left. */
static void test_keepalive(void **state)
{
    struct fixture f;
    (void)state;
    struct grpc_lifetime lifetime = { .keepalive_ns = NS_SHORT,
                                      .keepalive_timeout_ns = 10 * NS_PER_SEC,
                                      .keepalive_without_calls = true };
    open_fixture(&f, &lifetime, false);
    WAIT_FOR(&f, f.pings >= 3);
    assert_int_equal(f.goaway_count, 0);
    close_fixture(&f);

    lifetime.keepalive_timeout_ns = NS_SHORT;
    open_fixture(&f, &lifetime, true);
    WAIT_FOR(&f, f.is_eof);
    assert_int_equal(f.pings, 1);
    assert_int_equal(f.goaway_count, 1);
    assert_string_equal(f.goaways[0].why, "keepalive_timeout");
    close_fixture(&f);
}

/* Without a call nothing is armed; with one the client is pinged, twice at most without data. */
static void test_keepalive_needs_calls(void **state)
{
    struct fixture f;
    (void)state;
    struct grpc_lifetime lifetime = { .keepalive_ns = NS_SHORT,
                                      .keepalive_timeout_ns = 10 * NS_SHORT,
                                      .pings_without_data_max = 2 };
    open_fixture(&f, &lifetime, false);
    assert_int_equal(conn_of(&f)->timer.heap_index, 0);
    hold_call(&f);
    assert_int_not_equal(conn_of(&f)->timer.heap_index, 0);
    WAIT_FOR(&f, f.pings == 2 && conn_of(&f)->ping_ns == 0);
    /* What is still armed finds nothing to do. */
    WAIT_FOR(&f, conn_of(&f)->timer.heap_index == 0);
    assert_int_equal(f.pings, 2);
    echo(&f); /* data: two more */
    WAIT_FOR(&f, f.pings == 4);
    answer(&f);
    WAIT_FOR(&f, f.closes == 2);
    close_fixture(&f);
}

/* ---- policing ---- */

static void test_ping_strikes(void **state)
{
    struct fixture f;
    (void)state;
    struct grpc_lifetime lifetime = { .ping_interval_ns_min = 3600 * NS_PER_SEC,
                                      .ping_strikes_max = 2 };
    open_fixture(&f, &lifetime, false);
    for (int i = 0; i < 4; i++) {
        echo(&f); /* data forgives */
        for (unsigned k = 0; k < 3; k++)
            send_ping(&f);
    }
    WAIT_FOR(&f, f.pongs == 12);
    assert_int_equal(f.goaway_count, 0);
    send_ping(&f);
    WAIT_FOR(&f, f.is_eof);
    assert_int_equal(f.goaway_count, 1);
    assert_int_equal(f.goaways[0].error, NGHTTP2_ENHANCE_YOUR_CALM);
    assert_string_equal(f.goaways[0].why, "too_many_pings");
    close_fixture(&f);
}

/* An interval of nothing: with a call open, or when it is permitted without, any number is right;
 * else the limit is two hours. A held call is cut off with the connection. */
static void test_ping_without_calls(void **state)
{
    struct fixture f;
    (void)state;
    struct grpc_lifetime lifetime = { .ping_strikes_max = 1 };
    open_fixture(&f, &lifetime, false);
    hold_call(&f);
    for (int i = 0; i < 10; i++)
        send_ping(&f);
    WAIT_FOR(&f, f.pongs == 10);
    answer(&f);
    WAIT_FOR(&f, f.closes == 1);
    for (int i = 0; i < 3; i++)
        send_ping(&f);
    WAIT_FOR(&f, f.is_eof);
    assert_string_equal(f.goaways[0].why, "too_many_pings");
    close_fixture(&f);

    lifetime.keepalive_without_calls = true;
    open_fixture(&f, &lifetime, false);
    for (int i = 0; i < 10; i++)
        send_ping(&f);
    WAIT_FOR(&f, f.pongs == 10);
    assert_int_equal(f.goaway_count, 0);
    close_fixture(&f);

    lifetime.keepalive_without_calls = false;
    lifetime.ping_interval_ns_min = 3600 * NS_PER_SEC;
    open_fixture(&f, &lifetime, false);
    hold_call(&f);
    for (int i = 0; i < 3; i++)
        send_ping(&f);
    WAIT_FOR(&f, f.is_eof);
    assert_int_equal(f.cancels, 1);
    close_fixture(&f);
}

static void reset_call(struct fixture *f, uint32_t error)
{
    int32_t id = submit(f, "/echo");
    client_send(f); /* else nghttp2 would forget it unsent */
    nghttp2_submit_rst_stream(f->session, NGHTTP2_FLAG_NONE, id, error);
}

/* Calls that are cancelled as fast as they are made, and calls that nghttp2 has to reset. */
static void test_resets(void **state)
{
    struct fixture f;
    (void)state;
    struct grpc_lifetime lifetime = { 0 };
    open_fixture(&f, &lifetime, false);
    for (int i = 0; i < 1000; i++) {
        reset_call(&f, NGHTTP2_NO_ERROR);
        client_send(&f);
    }
    WAIT_FOR(&f, f.closes == 1000);
    assert_int_equal(f.goaway_count, 0);
    for (int i = 0; i < 5000 && !f.is_eof; i++) {
        reset_call(&f, NGHTTP2_CANCEL);
        step(&f);
    }
    WAIT_FOR(&f, f.is_eof);
    assert_int_equal(f.goaways[0].error, NGHTTP2_ENHANCE_YOUR_CALM);
    assert_string_equal(f.goaways[0].why, "too_many_resets");
    close_fixture(&f);
}

/* Headers over the limit fail the call, far over it the connection. */
static void test_headers(void **state)
{
    struct fixture f;
    (void)state;
    struct grpc_lifetime lifetime = { 0 };
    open_fixture(&f, &lifetime, false);
    submit_with(&f, "/echo", "0123456789", 250);
    WAIT_FOR(&f, f.closes == 1);
    assert_string_equal(f.status, "8");
    assert_non_null(strstr(f.text, "metadata size exceeds hard limit ("));
    assert_non_null(strstr(f.text, " vs. 8192)"));
    echo(&f);
    submit_with(&f, "/echo", "0123456789", 4000);
    WAIT_FOR(&f, f.is_eof);
    assert_int_equal(f.goaways[0].error, NGHTTP2_ENHANCE_YOUR_CALM);
    assert_string_equal(f.goaways[0].why, "too_many_headers");
    close_fixture(&f);
}

/* Frames that make the server answer, from a client that does not read: they are not taken any more
 * before much is kept, or the connection ends. */
static void test_floods(void **state)
{
    static const struct {
        const char *name;
        uint8_t frame[24];
        size_t len;
    } floods[] = {
        { "ping", { 0, 0, 8, 6, 0, 0, 0, 0, 0 }, 17 },
        { "settings", { 0, 0, 0, 4, 0, 0, 0, 0, 0 }, 9 },
        { "window of nothing", { 0, 0, 4, 8, 0, 0, 0, 0, 1 }, 13 },
        { "priority", { 0, 0, 5, 2, 0, 0, 0, 0, 1 }, 14 },
        { "unknown", { 0, 0, 0, 0xee, 0, 0, 0, 0, 0 }, 9 },
        { "continuation of nothing", { 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 1 }, 18 },
    };
    static uint8_t burst[24 * 1000];
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(floods); i++) {
        struct fixture f;
        struct grpc_lifetime lifetime = { 0 };
        open_fixture(&f, &lifetime, false);
        for (size_t k = 0; k < 1000; k++)
            memcpy(burst + k * floods[i].len, floods[i].frame, floods[i].len);
        for (int k = 0; k < 2000; k++) {
            ssize_t n = send(f.fd, burst, 1000 * floods[i].len, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (n < 0 && errno != EAGAIN)
                break;
            loop_run_once(f.loop, 0);
            if (list_is_empty(&f.server->acceptor.shards[0]->conns))
                break;
            struct grpc_conn *c = conn_of(&f);
            if (nghttp2_session_get_outbound_queue_size(c->session) > 2 * OUTBOUND_FRAMES_MAX ||
                output_queued(c) > sizeof(struct output))
                fail_msg("%s: the output grows", floods[i].name);
        }
        close_fixture(&f);
    }
}

/* ---- age ---- */

/* An old connection names no last stream first, then the one it has; its call ends in peace. */
static void test_age(void **state)
{
    struct fixture f;
    (void)state;
    struct grpc_lifetime lifetime = { .age_ns_max = NS_SHORT };
    open_fixture(&f, &lifetime, false);
    hold_call(&f);
    WAIT_FOR(&f, f.goaway_count == 2);
    assert_int_equal(f.goaways[0].last, INT32_MAX);
    assert_int_equal(f.goaways[1].last, 1);
    assert_int_equal(f.goaways[1].error, NGHTTP2_NO_ERROR);
    assert_int_equal(conn_of(&f)->grace_ns, 0);
    assert_false(f.is_eof);
    answer(&f);
    WAIT_FOR(&f, f.is_eof);
    assert_string_equal(f.status, "0");
    assert_int_equal(f.cancels, 0);
    close_fixture(&f);
}

/* After the grace what is left is cut off; so it goes with a client that does not answer the ping. */
static void test_age_grace(void **state)
{
    struct fixture f;
    (void)state;
    struct grpc_lifetime lifetime = { .age_ns_max = NS_SHORT, .age_grace_ns = NS_SHORT };
    for (int is_mute = 0; is_mute < 2; is_mute++) {
        open_fixture(&f, &lifetime, is_mute);
        hold_call(&f);
        WAIT_FOR(&f, f.is_eof);
        assert_int_equal(f.goaway_count, is_mute ? 2 : 3);
        assert_string_equal(f.goaways[f.goaway_count - 1].why, "max_age");
        assert_int_equal(f.cancels, 1);
        close_fixture(&f);
    }
}

/* An idle one ends at once, within a tenth of its time; a drain goes the same way. */
static void test_age_idle(void **state)
{
    struct fixture f;
    (void)state;
    struct grpc_lifetime lifetime = { .age_ns_max = 10 * NS_SHORT };
    open_fixture(&f, &lifetime, false);
    uint64_t age = conn_of(&f)->age_ns - conn_of(&f)->born_ns;
    assert_true(age >= 9 * NS_SHORT && age <= 11 * NS_SHORT);
    WAIT_FOR(&f, f.is_eof);
    close_fixture(&f);

    lifetime.age_ns_max = 0;
    open_fixture(&f, &lifetime, false);
    grpc_conn_drain(&conn_of(&f)->base);
    WAIT_FOR(&f, f.is_eof);
    assert_int_equal(f.goaways[0].last, INT32_MAX); /* nghttp2's client reads no second one */
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keepalive),    cmocka_unit_test(test_keepalive_needs_calls),
        cmocka_unit_test(test_ping_strikes), cmocka_unit_test(test_ping_without_calls),
        cmocka_unit_test(test_resets),       cmocka_unit_test(test_headers),
        cmocka_unit_test(test_floods),       cmocka_unit_test(test_age),
        cmocka_unit_test(test_age_grace),    cmocka_unit_test(test_age_idle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
