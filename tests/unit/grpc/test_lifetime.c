/* How long a gRPC connection lives: keepalive, policing of pings, resets and headers, age, floods.
 *
 * Times are a few milliseconds. That something does not come is seen at the connection's timer: nothing
 * is armed for it. */
#include "one_loop.h"

#define NS_SHORT (20 * NS_PER_MS)
#define NS_AGE (500 * NS_PER_MS) /* long enough for a call to begin */

/* A server with these times, one client, and its only call at a time. */
struct test {
    struct fixture fixture;
    struct client client;
    struct call call;
};

static void open_test(struct test *t, const struct grpc_lifetime *lifetime, bool is_mute)
{
    struct grpc_server_options options = { .header_bytes_max = 8192, .lifetime = *lifetime };
    memset(t, 0, sizeof(*t));
    fixture_open(&t->fixture, &options);
    client_open(&t->client, &t->fixture, is_mute);
    WAIT_FOR(&t->client, conn_of(&t->fixture)->is_begun);
}

static void close_test(struct test *t)
{
    client_close(&t->client);
    fixture_close(&t->fixture);
    call_fini(&t->call);
}

static void start(struct test *t, const char *path)
{
    call_fini(&t->call);
    t->call = (struct call){ 0 };
    call_add(&t->call, 0, "", 0);
    call_start(&t->client, &t->call, path);
}

static void hold_call(struct test *t)
{
    start(t, "/hold");
    WAIT_FOR(&t->client, t->fixture.held_count == 1);
}

static void echo(struct test *t)
{
    struct call call = { 0 };
    call_add(&call, 0, "", 0);
    call_start(&t->client, &call, "/echo");
    WAIT_FOR(&t->client, call.is_closed);
    assert_string_equal(call.status, "0");
    call_fini(&call);
}

/* ---- keepalive ---- */

/* A client that answers is pinged again and again and stays; one that does not is left. */
static void test_keepalive(void **state)
{
    struct test t;
    (void)state;
    struct grpc_lifetime lifetime = { .keepalive_ns = NS_SHORT,
                                      .keepalive_timeout_ns = 10 * NS_PER_SEC,
                                      .keepalive_without_calls = true };
    open_test(&t, &lifetime, false);
    WAIT_FOR(&t.client, t.client.pings >= 3);
    assert_int_equal(t.client.goaway_count, 0);
    close_test(&t);

    lifetime.keepalive_timeout_ns = NS_SHORT;
    open_test(&t, &lifetime, true);
    WAIT_FOR(&t.client, t.client.is_eof);
    assert_int_equal(t.client.pings, 1);
    assert_int_equal(t.client.goaway_count, 1);
    assert_string_equal(t.client.goaways[0].why, "keepalive_timeout");
    close_test(&t);
}

/* Without a call nothing is armed; with one the client is pinged, twice at most without data. */
static void test_keepalive_needs_calls(void **state)
{
    struct test t;
    (void)state;
    struct grpc_lifetime lifetime = { .keepalive_ns = NS_SHORT,
                                      .keepalive_timeout_ns = NS_PER_SEC,
                                      .pings_without_data_max = 2 };
    open_test(&t, &lifetime, false);
    assert_false(loop_timer_is_armed(&conn_of(&t.fixture)->timer));
    hold_call(&t);
    assert_true(loop_timer_is_armed(&conn_of(&t.fixture)->timer));
    WAIT_FOR(&t.client, t.client.pings == 2 && conn_of(&t.fixture)->ping_ns == 0);
    /* What is still armed finds nothing to do. */
    WAIT_FOR(&t.client, !loop_timer_is_armed(&conn_of(&t.fixture)->timer));
    assert_int_equal(t.client.pings, 2);
    echo(&t); /* data: two more */
    WAIT_FOR(&t.client, t.client.pings == 4);
    answer(&t.fixture);
    WAIT_FOR(&t.client, t.call.is_closed);
    close_test(&t);
}

/* ---- policing ---- */

static void test_ping_strikes(void **state)
{
    struct test t;
    (void)state;
    struct grpc_lifetime lifetime = { .ping_interval_ns_min = 3600 * NS_PER_SEC,
                                      .ping_strikes_max = 2 };
    open_test(&t, &lifetime, false);
    for (int i = 0; i < 4; i++) {
        echo(&t); /* data forgives */
        for (unsigned k = 0; k < 3; k++)
            send_ping(&t.client);
    }
    WAIT_FOR(&t.client, t.client.pongs == 12);
    assert_int_equal(t.client.goaway_count, 0);
    send_ping(&t.client);
    WAIT_FOR(&t.client, t.client.is_eof);
    assert_int_equal(t.client.goaway_count, 1);
    assert_int_equal(t.client.goaways[0].error, NGHTTP2_ENHANCE_YOUR_CALM);
    assert_string_equal(t.client.goaways[0].why, "too_many_pings");
    close_test(&t);
}

/* An interval of nothing: with a call open, or when it is permitted without, any number is right;
 * else the limit is two hours. A held call is cut off with the connection. */
static void test_ping_without_calls(void **state)
{
    struct test t;
    (void)state;
    struct grpc_lifetime lifetime = { .ping_strikes_max = 1 };
    open_test(&t, &lifetime, false);
    hold_call(&t);
    for (int i = 0; i < 10; i++)
        send_ping(&t.client);
    WAIT_FOR(&t.client, t.client.pongs == 10);
    answer(&t.fixture);
    WAIT_FOR(&t.client, t.call.is_closed);
    for (int i = 0; i < 3; i++)
        send_ping(&t.client);
    WAIT_FOR(&t.client, t.client.is_eof);
    assert_string_equal(t.client.goaways[0].why, "too_many_pings");
    close_test(&t);

    lifetime.keepalive_without_calls = true;
    open_test(&t, &lifetime, false);
    for (int i = 0; i < 10; i++)
        send_ping(&t.client);
    WAIT_FOR(&t.client, t.client.pongs == 10);
    assert_int_equal(t.client.goaway_count, 0);
    close_test(&t);

    lifetime.keepalive_without_calls = false;
    lifetime.ping_interval_ns_min = 3600 * NS_PER_SEC;
    open_test(&t, &lifetime, false);
    hold_call(&t);
    for (int i = 0; i < 3; i++)
        send_ping(&t.client);
    WAIT_FOR(&t.client, t.client.is_eof);
    assert_int_equal(t.fixture.cancels, 1);
    close_test(&t);
}

static void reset_call(struct test *t, uint32_t error)
{
    start(t, "/echo");
    client_send(&t->client); /* else nghttp2 would forget it unsent */
    nghttp2_submit_rst_stream(t->client.session, NGHTTP2_FLAG_NONE, t->call.id, error);
    step(&t->client);
}

/* Cancelled calls that their handler still works on are not made without end. */
static void test_stubborn(void **state)
{
    struct test t;
    (void)state;
    struct grpc_server_options options = { .streams_max = HELD_MAX / 2 };
    memset(&t, 0, sizeof(t));
    fixture_open(&t.fixture, &options);
    client_open(&t.client, &t.fixture, false);
    for (unsigned i = 0; i < HELD_MAX; i++) {
        start(&t, "/stubborn");
        WAIT_FOR(&t.client, t.fixture.held_count == i + 1);
        nghttp2_submit_rst_stream(t.client.session, NGHTTP2_FLAG_NONE, t.call.id, NGHTTP2_CANCEL);
        WAIT_FOR(&t.client, t.call.is_closed && t.fixture.cancels == i + 1);
    }
    start(&t, "/echo");
    WAIT_FOR(&t.client, t.call.is_closed);
    assert_string_equal(t.call.status, "");
    assert_int_equal(t.call.error, NGHTTP2_REFUSED_STREAM);
    while (t.fixture.held_count > 0)
        answer(&t.fixture);
    echo(&t);
    close_test(&t);
}

/* The only call, with `count` further headers. */
static void start_with_headers(struct test *t, size_t count)
{
    nghttp2_nv *headers = calloc(count, sizeof(*headers));
    for (size_t i = 0; i < count; i++)
        headers[i] = header("extra", "0123456789");
    call_fini(&t->call);
    t->call = (struct call){ .headers = headers, .header_count = count };
    call_add(&t->call, 0, "", 0);
    call_start(&t->client, &t->call, "/echo");
    free(headers);
}

/* Calls that are cancelled as fast as they are made, and calls that nghttp2 has to reset. */
static void test_resets(void **state)
{
    struct test t;
    (void)state;
    struct grpc_lifetime lifetime = { 0 };
    open_test(&t, &lifetime, false);
    for (int i = 0; i < 1000; i++) {
        reset_call(&t, NGHTTP2_NO_ERROR);
        WAIT_FOR(&t.client, t.call.is_closed);
    }
    assert_int_equal(t.client.goaway_count, 0);
    for (int i = 0; i < 5000 && !t.client.is_eof; i++) {
        reset_call(&t, NGHTTP2_CANCEL);
        WAIT_FOR(&t.client, t.call.is_closed || t.client.is_eof);
    }
    WAIT_FOR(&t.client, t.client.is_eof);
    assert_int_equal(t.client.goaways[0].error, NGHTTP2_ENHANCE_YOUR_CALM);
    assert_string_equal(t.client.goaways[0].why, "too_many_resets");
    close_test(&t);
}

/* Headers over the limit fail the call, far over it the connection. */
static void test_headers(void **state)
{
    struct test t;
    (void)state;
    struct grpc_lifetime lifetime = { 0 };
    open_test(&t, &lifetime, false);
    start_with_headers(&t, 250);
    WAIT_FOR(&t.client, t.call.is_closed);
    assert_string_equal(t.call.status, "8");
    assert_non_null(strstr(t.call.text, "metadata size exceeds hard limit ("));
    assert_non_null(strstr(t.call.text, " vs. 8192)"));
    echo(&t);
    start_with_headers(&t, 4000);
    WAIT_FOR(&t.client, t.client.is_eof);
    assert_int_equal(t.client.goaways[0].error, NGHTTP2_ENHANCE_YOUR_CALM);
    assert_string_equal(t.client.goaways[0].why, "too_many_headers");
    close_test(&t);
}

/* One byte names a long header, a hundred thousand times. What stands behind the one that was too much
 * is not looked at. */
static void test_header_bomb(void **state)
{
    enum {
        VALUE_BYTES = 3900,
        COUNT = 100000,
        EXCESS_BYTES_MAX = 16 * 8192 + 2 * 4096,
    };
    struct test t;
    struct bytes block = { 0 };
    (void)state;
    struct grpc_lifetime lifetime = { 0 };
    open_test(&t, &lifetime, false);
    bytes_append(&block, "\x83\x86\x84\x40\x01x\x7f\xbd\x1d", 9); /* POST, http, /, x: 3900 bytes */
    for (int i = 0; i < VALUE_BYTES; i++)
        bytes_append_char(&block, 'v');
    for (int i = 0; i < COUNT; i++)
        bytes_append_char(&block, '\xbe'); /* the table's newest */
    const char head[] = {
        (char)(block.len >> 16), (char)(block.len >> 8), (char)block.len, 1, 4, 0, 0, 0, 1
    };
    struct grpc_conn *c = conn_of(&t.fixture);
    c->is_running = true; /* it stays for us to see */
    input_feed(c, head, sizeof(head));
    input_feed(c, block.data, block.len);
    assert_true(c->header_bytes > 0 && c->header_bytes < EXCESS_BYTES_MAX);
    c->is_running = false;
    grpc_conn_run(c);
    WAIT_FOR(&t.client, t.client.is_eof);
    assert_string_equal(t.client.goaways[0].why, "too_many_headers");
    bytes_fini(&block);
    close_test(&t);
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
        struct test t;
        struct grpc_lifetime lifetime = { 0 };
        open_test(&t, &lifetime, false);
        for (size_t k = 0; k < 1000; k++)
            memcpy(burst + k * floods[i].len, floods[i].frame, floods[i].len);
        for (int k = 0; k < 2000; k++) {
            ssize_t n = send(t.client.fd, burst, 1000 * floods[i].len, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (n < 0 && errno != EAGAIN)
                break;
            loop_run_once(t.fixture.loop, 0);
            if (list_is_empty(&t.fixture.server->acceptor.shards[0]->conns))
                break;
            struct grpc_conn *c = conn_of(&t.fixture);
            if (c->is_lingering)
                break;
            if (nghttp2_session_get_outbound_queue_size(c->session) > 2 * OUTBOUND_FRAMES_MAX ||
                output_queued(c) > sizeof(struct output))
                fail_msg("%s: the output grows", floods[i].name);
        }
        close_test(&t);
    }
}

/* ---- age ---- */

/* An old connection names no last stream first, then the one it has; its call ends in peace. */
static void test_age(void **state)
{
    struct test t;
    (void)state;
    struct grpc_lifetime lifetime = { .age_ns_max = NS_AGE };
    open_test(&t, &lifetime, false);
    hold_call(&t);
    WAIT_FOR(&t.client, t.client.goaway_count == 2);
    assert_int_equal(t.client.goaways[0].last, INT32_MAX);
    assert_int_equal(t.client.goaways[1].last, 1);
    assert_int_equal(t.client.goaways[1].error, NGHTTP2_NO_ERROR);
    assert_int_equal(conn_of(&t.fixture)->grace_ns, 0);
    assert_false(t.client.is_eof);
    answer(&t.fixture);
    WAIT_FOR(&t.client, t.client.is_eof);
    assert_string_equal(t.call.status, "0");
    assert_int_equal(t.fixture.cancels, 0);
    close_test(&t);
}

/* After the grace what is left is cut off; so it goes with a client that does not answer the ping. */
static void test_age_grace(void **state)
{
    struct test t;
    (void)state;
    struct grpc_lifetime lifetime = { .age_ns_max = NS_AGE, .age_grace_ns = 10 * NS_SHORT };
    for (int is_mute = 0; is_mute < 2; is_mute++) {
        open_test(&t, &lifetime, is_mute);
        hold_call(&t);
        WAIT_FOR(&t.client, t.client.is_eof);
        assert_int_equal(t.client.goaway_count, is_mute ? 2 : 3);
        assert_string_equal(t.client.goaways[t.client.goaway_count - 1].why, "max_age");
        assert_int_equal(t.fixture.cancels, 1);
        close_test(&t);
    }
}

/* An idle one ends at once, within a tenth of its time; a drain goes the same way. */
static void test_age_idle(void **state)
{
    struct test t;
    (void)state;
    struct grpc_lifetime lifetime = { .age_ns_max = 10 * NS_SHORT };
    open_test(&t, &lifetime, false);
    uint64_t age = conn_of(&t.fixture)->age_ns - conn_of(&t.fixture)->born_ns;
    assert_true(age >= 9 * NS_SHORT && age <= 11 * NS_SHORT);
    WAIT_FOR(&t.client, t.client.is_eof);
    close_test(&t);

    lifetime.age_ns_max = 0;
    open_test(&t, &lifetime, false);
    grpc_conn_drain(&conn_of(&t.fixture)->base);
    WAIT_FOR(&t.client, t.client.is_eof);
    assert_int_equal(t.client.goaways[0].last,
                     INT32_MAX); /* nghttp2's client reads no second one */
    close_test(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keepalive),    cmocka_unit_test(test_keepalive_needs_calls),
        cmocka_unit_test(test_ping_strikes), cmocka_unit_test(test_ping_without_calls),
        cmocka_unit_test(test_resets),       cmocka_unit_test(test_stubborn),
        cmocka_unit_test(test_headers),      cmocka_unit_test(test_header_bomb),
        cmocka_unit_test(test_floods),       cmocka_unit_test(test_age),
        cmocka_unit_test(test_age_grace),    cmocka_unit_test(test_age_idle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
