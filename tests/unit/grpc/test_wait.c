/* Messages that wait for the byte budget, and what their connection does meanwhile. */
#include "one_loop.h"

enum {
    BUDGET = 1 << 20, /* the fixture's */
};

static char zeros[4 << 20];

/* One byte of content tells the messages apart. */
static void add(struct call *call, char content, size_t len)
{
    memset(zeros, content, len);
    call_add(call, 0, zeros, len);
    memset(zeros, 0, len);
}

static void assert_echoed(const struct call *call)
{
    assert_string_equal(call->status, "0");
    assert_int_equal(call->in.len, call->out.len);
    assert_memory_equal(call->in.data, call->out.data, call->in.len);
}

static bool is_waiting(const struct fixture *f)
{
    struct acceptor_shard *shard = f->server->acceptor.shards[0];
    return !list_is_empty(&CONTAINER_OF(shard, struct grpc_shard, base)->budget_queue);
}

static void open_server(struct fixture *f, uint64_t wait_ns)
{
    struct grpc_server_options options = { .budget_wait_ns_max = wait_ns };
    fixture_open(f, &options);
}

/* The first call holds the whole budget. The second, and what its client sends behind it, waits; so
 * does a third client; a health check of a fourth does not. When the first ends they all go on. */
static void test_wait(void **state)
{
    struct fixture f;
    struct client clients[4];
    struct call calls[6] = { 0 };
    (void)state;
    open_server(&f, 10 * NS_PER_SEC);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++)
        client_open(&clients[i], &f, false);

    add(&calls[0], 1, BUDGET - 10);
    call_start(&clients[0], &calls[0], "/hold");
    WAIT_FOR(&clients[0], f.held_count == 1);
    add(&calls[1], 2, 500 << 10);
    add(&calls[2], 3, 10);
    add(&calls[3], 4, 0);
    call_start(&clients[1], &calls[1], "/echo");
    call_start(&clients[1], &calls[2], "/echo");
    call_start(&clients[1], &calls[3], "/echo");
    WAIT_FOR(&clients[1], is_waiting(&f));
    assert_non_null(
        LIST_ENTRY(conn_of(&f)->base.in_shard.next, struct grpc_conn, base.in_shard)->held.bytes);
    add(&calls[4], 5, 20);
    call_start(&clients[2], &calls[4], "/echo");
    add(&calls[5], 6, 100);
    call_start(&clients[3], &calls[5], "/health");
    WAIT_FOR(&clients[3], calls[5].is_closed);
    assert_echoed(&calls[5]);
    for (int i = 0; i < 20; i++)
        step(&clients[2]);
    for (int i = 1; i <= 4; i++)
        assert_false(calls[i].is_closed);

    answer(&f);
    for (int i = 0; i <= 4; i++) {
        WAIT_FOR(&clients[i < 1 ? 0 : i < 4 ? 1 : 2], calls[i].is_closed);
        assert_echoed(&calls[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(clients); i++)
        client_close(&clients[i]);
    fixture_close(&f);
    for (size_t i = 0; i < ARRAY_LEN(calls); i++)
        call_fini(&calls[i]);
}

/* Who has waited long enough is refused; what stands behind it on its connection goes on. */
static void test_refuse(void **state)
{
    struct fixture f;
    struct client first, second;
    struct call held = { 0 }, refused = { 0 }, stream = { 0 };
    (void)state;
    open_server(&f, 30 * NS_PER_MS);
    client_open(&first, &f, false);
    client_open(&second, &f, false);
    add(&held, 1, BUDGET - 10000);
    call_start(&first, &held, "/hold");
    WAIT_FOR(&first, f.held_count == 1);

    add(&refused, 2, 20000);
    add(&stream, 3, 0);
    add(&stream, 4, 10);
    call_start(&second, &refused, "/echo");
    call_start(&second, &stream, "/stream");
    WAIT_FOR(&second, refused.is_closed);
    assert_string_equal(refused.status, "14");
    assert_string_equal(refused.text, "too many request bytes are in flight. Use --budget to "
                                      "increase the limit.");
    WAIT_FOR(&second, stream.is_closed);
    assert_echoed(&stream);
    answer(&f);
    WAIT_FOR(&first, held.is_closed);
    client_close(&first);
    client_close(&second);
    fixture_close(&f);
    call_fini(&held);
    call_fini(&refused);
    call_fini(&stream);
}

/* Who waits may be cancelled, miss its deadline, or lose its connection. */
static void test_give_up(void **state)
{
    struct fixture f;
    struct client first, second;
    struct call held = { 0 };
    (void)state;
    open_server(&f, 10 * NS_PER_SEC);
    client_open(&first, &f, false);
    add(&held, 1, BUDGET);
    call_start(&first, &held, "/hold");
    WAIT_FOR(&first, f.held_count == 1);

    client_open(&second, &f, false);
    struct call late = { 0 }, next = { 0 };
    add(&late, 2, 50000);
    call_header(&late, "grpc-timeout", "50m");
    call_start(&second, &late, "/echo");
    add(&next, 2, 0);
    call_start(&second, &next, "/echo");
    WAIT_FOR(&second, late.is_closed && next.is_closed);
    assert_string_equal(late.status, "4");
    assert_echoed(&next);

    struct call lost = { 0 };
    add(&lost, 2, 50000);
    call_start(&second, &lost, "/stream");
    WAIT_FOR(&second, is_waiting(&f));
    client_close(&second);
    WAIT_FOR(&first, !is_waiting(&f) && f.server->acceptor.conn_count == 1);
    answer(&f);
    WAIT_FOR(&first, held.is_closed);
    client_close(&first);
    fixture_close(&f);
    call_fini(&held);
    call_fini(&late);
    call_fini(&next);
    call_fini(&lost);
}

/* Many messages of a stream, cut into many frames, through a budget that holds one of them. */
static void test_stream(void **state)
{
    struct fixture f;
    struct client client;
    struct call call = { 0 };
    (void)state;
    open_server(&f, 10 * NS_PER_SEC);
    f.budget.bytes_max = 3000;
    client_open(&client, &f, false);
    for (int i = 0; i < 300; i++)
        add(&call, (char)i, (size_t)(i * 7919 % 2900));
    add(&call, 1, 200000); /* more than the budget: it passes alone */
    add(&call, 2, 5);
    call_start(&client, &call, "/stream");
    WAIT_FOR(&client, call.is_closed);
    assert_echoed(&call);
    client_close(&client);
    fixture_close(&f);
    call_fini(&call);
}

/* An answer that nobody reads counts until it is read, and keeps others out. */
static void test_unread(void **state)
{
    struct fixture f;
    struct client deaf, other;
    struct call answered = { 0 }, waiting = { 0 };
    (void)state;
    open_server(&f, 10 * NS_PER_SEC);
    f.budget.bytes_max = 4 << 20;
    client_open(&deaf, &f, false);
    client_open(&other, &f, false);
    add(&answered, 1, 3 << 20);
    call_start(&deaf, &answered, "/hold");
    WAIT_FOR(&deaf, f.held_count == 1);
    size_t before = f.budget.bytes;
    deaf.is_deaf = true;
    answer(&f);
    WAIT_FOR(&deaf, f.budget.bytes > before);
    assert_true(f.budget.bytes >= 2 * (3 << 20));
    add(&waiting, 2, 10);
    call_start(&other, &waiting, "/echo");
    WAIT_FOR(&other, is_waiting(&f));
    deaf.is_deaf = false;
    WAIT_FOR(&deaf, answered.is_closed);
    assert_echoed(&answered);
    WAIT_FOR(&other, waiting.is_closed);
    assert_echoed(&waiting);
    assert_int_equal(f.budget.bytes, 0);
    client_close(&deaf);
    client_close(&other);
    fixture_close(&f);
    call_fini(&answered);
    call_fini(&waiting);
}

/* A message that stops half-way is refused, whatever else the client sends. */
static void test_stall(void **state)
{
    struct fixture f;
    struct client client;
    struct call half = { .is_kept_open = true };
    (void)state;
    struct grpc_server_options options = { .stall_ns_max = 100 * NS_PER_MS };
    fixture_open(&f, &options);
    client_open(&client, &f, false);
    add(&half, 1, 1000);
    half.out.len -= 1;
    call_start(&client, &half, "/echo");
    while (!half.is_closed) {
        struct call whole = { 0 };
        add(&whole, 2, 100);
        call_start(&client, &whole, "/echo");
        WAIT_FOR(&client, whole.is_closed);
        assert_echoed(&whole);
        call_fini(&whole);
    }
    assert_string_equal(half.status, "14");
    assert_string_equal(half.text, "the message came too slowly");
    client_close(&client);
    fixture_close(&f);
    call_fini(&half);
}

/* An answer whose stream gets no window is given up. */
static void test_closed_window(void **state)
{
    struct fixture f;
    struct client client;
    struct call shut = { 0 };
    (void)state;
    struct grpc_server_options options = { .stall_ns_max = 100 * NS_PER_MS };
    fixture_open(&f, &options);
    client_open(&client, &f, false);
    const nghttp2_settings_entry window = { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0 };
    nghttp2_submit_settings(client.session, NGHTTP2_FLAG_NONE, &window, 1);
    add(&shut, 1, 1000);
    call_start(&client, &shut, "/echo");
    WAIT_FOR(&client, shut.is_closed);
    assert_string_equal(shut.status, "");
    assert_int_equal(shut.in.len, 0);
    client_close(&client);
    fixture_close(&f);
    call_fini(&shut);
}

/* The deadline's status does not wait for a window that stays closed. */
static void test_deadline_closed_window(void **state)
{
    struct fixture f;
    struct client client;
    struct call late = { 0 };
    (void)state;
    struct grpc_server_options options = { 0 };
    fixture_open(&f, &options);
    client_open(&client, &f, false);
    const nghttp2_settings_entry window = { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0 };
    nghttp2_submit_settings(client.session, NGHTTP2_FLAG_NONE, &window, 1);
    add(&late, 1, 1000);
    late.is_kept_open = true;
    call_header(&late, "grpc-timeout", "50m");
    call_start(&client, &late, "/stream");
    WAIT_FOR(&client, late.is_closed);
    assert_string_equal(late.status, "4");
    assert_int_equal(late.in.len, 0);
    client_close(&client);
    fixture_close(&f);
    call_fini(&late);
}

/* Each message of a stream becomes a request, however short it is, and counts as one. */
static void test_short_messages(void **state)
{
    struct fixture f;
    struct client first, second;
    struct call held = { 0 }, late = { 0 }, many = { 0 };
    (void)state;
    open_server(&f, 10 * NS_PER_SEC);
    client_open(&first, &f, false);
    client_open(&second, &f, false);
    add(&held, 1, BUDGET - 10);
    call_start(&first, &held, "/hold");
    WAIT_FOR(&first, f.held_count == 1);
    add(&late, 2, 0); /* and the end of the stream behind it */
    call_start(&second, &late, "/stream");
    WAIT_FOR(&second, is_waiting(&f));
    answer(&f);
    WAIT_FOR(&first, held.is_closed);
    WAIT_FOR(&second, late.is_closed);
    assert_echoed(&late);

    const nghttp2_settings_entry window = { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0 };
    nghttp2_submit_settings(second.session, NGHTTP2_FLAG_NONE, &window, 1);
    for (int i = 0; i < 1000; i++)
        add(&many, 3, (size_t)i % 3);
    call_start(&second, &many, "/stream");
    WAIT_FOR(&second, is_waiting(&f));
    assert_true(f.budget.bytes <= BUDGET + many.out.len);
    client_close(&second);
    client_close(&first);
    fixture_close(&f);
    call_fini(&held);
    call_fini(&late);
    call_fini(&many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wait),
        cmocka_unit_test(test_refuse),
        cmocka_unit_test(test_give_up),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_unread),
        cmocka_unit_test(test_stall),
        cmocka_unit_test(test_closed_window),
        cmocka_unit_test(test_short_messages),
        cmocka_unit_test(test_deadline_closed_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
