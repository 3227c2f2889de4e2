/* Requests, responses and their sink: "done" comes once, when a request was both released and
 * finally answered, in either order and from any threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "infer/request.h"
#include "infer/response.h"

/* What the maker of a request saw. */
struct seen {
    _Atomic int responses;
    _Atomic int ends; /* without a response */
    _Atomic int done;
    TRITONSERVER_Error_Code code; /* of the last response; 0 also when it had no error */
};

static void on_complete(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    struct seen *seen = sink->user;
    (void)flags;
    assert_int_equal(atomic_load(&seen->done), 0);
    if (!response) {
        seen->ends++;
        return;
    }
    seen->responses++;
    seen->code = response->error ? error_code(response->error) : 0;
    response_destroy(&response);
}

static void on_done(struct sink *sink, struct tis_request *request)
{
    struct seen *seen = sink->user;
    assert_int_equal(seen->done++, 0);
    request_free(&request);
}

static const struct sink_ops ops = { .complete = on_complete, .done = on_done };
static const uint32_t FINAL = TRITONSERVER_RESPONSE_COMPLETE_FINAL;

static struct tis_request *running(struct seen *seen)
{
    *seen = (struct seen){ 0 };
    struct tis_request *req = request_create(&ops, seen);
    assert_non_null(req);
    assert_true(request_move(req, REQUEST_NEW, REQUEST_QUEUED));
    assert_true(request_move(req, REQUEST_QUEUED, REQUEST_RUNNING));
    return req;
}

static void send(struct sink *sink, uint32_t flags)
{
    assert_true(sink_send(sink, response_create(sink), flags));
}

/* Every order of sending, releasing and ending in which a backend may do it. */
static void test_orders(void **state)
{
    (void)state;
    /* s: a response, S: the final one, E: the end without a response, r: release */
    static const struct {
        const char *steps;
        int responses;
        int ends;
    } cases[] = {
        { "Sr", 1, 0 },  { "rS", 1, 0 },  { "Er", 0, 1 },    { "rE", 0, 1 },   { "ssSr", 3, 0 },
        { "srS", 2, 0 }, { "rsS", 2, 0 }, { "rsssE", 3, 1 }, { "ssEr", 2, 1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct seen seen;
        struct tis_request *req = running(&seen);
        struct sink *sink = sink_ref(req->sink);
        for (const char *step = cases[i].steps; *step; step++) {
            assert_int_equal(seen.done, 0);
            if (*step == 'r')
                assert_true(request_release(req, REQUEST_RUNNING));
            else if (*step == 'E')
                assert_true(sink_send(sink, NULL, FINAL));
            else
                send(sink, *step == 'S' ? FINAL : 0);
        }
        assert_int_equal(seen.done, 1);
        assert_int_equal(seen.responses, cases[i].responses);
        assert_int_equal(seen.ends, cases[i].ends);
        /* Too late for everything. */
        struct tis_response *late = response_create(sink);
        assert_false(sink_send(sink, late, 0));
        assert_false(sink_send(sink, late, FINAL));
        response_destroy(&late);
        assert_int_equal(atomic_load(&req->state), REQUEST_FREE);
        assert_false(request_release(req, REQUEST_RUNNING));
        sink_unref(sink);
    }
}

/* After the final response nothing is sent, although the request is still there. */
static void test_send_after_final(void **state)
{
    (void)state;
    struct seen seen;
    struct tis_request *req = running(&seen);
    send(req->sink, FINAL);
    struct tis_response *late = response_create(req->sink);
    assert_false(sink_send(req->sink, late, 0));
    assert_false(sink_send(req->sink, late, FINAL));
    assert_false(sink_send(req->sink, NULL, FINAL));
    response_destroy(&late);
    assert_int_equal(seen.responses, 1);
    assert_int_equal(seen.done, 0);
    assert_true(request_release(req, REQUEST_RUNNING));
    assert_int_equal(seen.done, 1);
}

/* Only the owner's state can be left, once. */
static void test_states(void **state)
{
    (void)state;
    struct seen seen = { 0 };
    struct tis_request *req = request_create(&ops, &seen);
    assert_false(request_release(req, REQUEST_RUNNING));
    assert_false(request_move(req, REQUEST_QUEUED, REQUEST_RUNNING));
    request_free(&req); /* never submitted: the maker frees it */
    assert_null(req);
    request_free(&req);
    assert_int_equal(seen.done, 0);

    req = running(&seen);
    uint32_t generation = req->generation;
    assert_true(request_release(req, REQUEST_RUNNING));
    assert_false(request_release(req, REQUEST_RUNNING));
    struct tis_request *same = req;
    send(req->sink, FINAL);
    assert_int_equal(seen.done, 1);

    /* The memory's next user is another generation. */
    struct tis_request *again[256];
    uint32_t found = 0;
    for (size_t i = 0; i < ARRAY_LEN(again); i++) {
        again[i] = request_create(&ops, &seen);
        found += again[i] == same && again[i]->generation == generation + 1;
    }
    for (size_t i = 0; i < ARRAY_LEN(again); i++)
        request_free(&again[i]);
    assert_int_equal(found, 1);
}

static void test_fail(void **state)
{
    (void)state;
    struct seen seen;
    struct tis_request *req = running(&seen);
    request_fail(req, REQUEST_RUNNING, error_new(TRITONSERVER_ERROR_UNAVAILABLE, "no"));
    assert_int_equal(seen.responses, 1);
    assert_int_equal(seen.code, TRITONSERVER_ERROR_UNAVAILABLE);
    assert_int_equal(seen.done, 1);

    /* The final response was sent already: the error goes nowhere, the request still ends. */
    req = running(&seen);
    send(req->sink, FINAL);
    assert_true(request_move(req, REQUEST_RUNNING, REQUEST_FAILING));
    request_fail(req, REQUEST_FAILING, error_new(TRITONSERVER_ERROR_UNAVAILABLE, "no"));
    assert_int_equal(seen.responses, 1);
    assert_int_equal(seen.code, 0);
    assert_int_equal(seen.done, 1);
}

/* Inputs, chunks beyond the first, their references. */
static void test_inputs(void **state)
{
    (void)state;
    struct seen seen = { 0 };
    struct tis_request *req = request_create(&ops, &seen);
    struct buffer *b = buffer_create(100, 0);
    static const int64_t shape[] = { 2, 3 };
    assert_null(request_reserve_inputs(req, 2));
    struct tis_input *x = request_add_input(req, "x", TRITONSERVER_TYPE_UINT8, shape, 2);
    struct tis_input *y = request_add_input(req, "y", TRITONSERVER_TYPE_UINT8, shape, 2);
    for (uintptr_t i = 0; i < 30; i++)
        assert_null(request_add_chunk(req, x, (char *)b->base + i, i, TRITONSERVER_MEMORY_CPU, 0,
                                      i % 2 ? b : NULL));
    assert_int_equal(x->chunk_count, 30);
    assert_int_equal(x->bytes, 29 * 30 / 2);
    for (uintptr_t i = 0; i < 30; i++) {
        assert_ptr_equal(x->chunks[i].base, (char *)b->base + i);
        assert_int_equal(x->chunks[i].attributes.bytes, i);
    }
    assert_int_equal(atomic_load(&b->refs), 1 + 15);
    assert_ptr_equal(request_find_input(req, "y"), y);
    assert_null(request_find_input(req, "z"));
    req->body = buffer_ref(b);
    request_free(&req);
    assert_int_equal(atomic_load(&b->refs), 1);
    buffer_unref(b);
}

static struct buffer *lent;

static tis_error *allocate(struct sink *sink, const struct tis_output *output, uint64_t bytes,
                           struct buffer **ret_buffer)
{
    (void)sink;
    if (strcmp(output->name, "refused") == 0)
        return error_new(TRITONSERVER_ERROR_UNAVAILABLE, "refused");
    assert_true(bytes <= lent->capacity);
    *ret_buffer = buffer_ref(lent);
    return NULL;
}

/* Outputs keep their address, their memory comes from the sink's maker, twice is refused. */
static void test_outputs(void **state)
{
    (void)state;
    static const struct sink_ops lending = { .allocate = allocate,
                                             .complete = on_complete,
                                             .done = on_done };
    enum {
        COUNT = 200
    };
    struct seen seen = { 0 };
    struct tis_request *req = request_create(&lending, &seen);
    struct tis_response *r = response_create(req->sink);
    static const int64_t shape[] = { 1, 4 };
    char names[COUNT][16];
    struct tis_output *outputs[COUNT];
    lent = buffer_create(64, 0);
    for (int i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof(names[i]), "o%d", i);
        assert_null(
            response_add_output(r, names[i], TRITONSERVER_TYPE_FP32, shape, 2, &outputs[i]));
        assert_null(response_output_memory(outputs[i], 16));
    }
    for (int i = 0; i < COUNT; i++) {
        assert_ptr_equal(response_find_output(r, names[i]), outputs[i]);
        assert_int_equal(outputs[i]->shape[1], 4);
    }
    assert_int_equal(atomic_load(&lent->refs), 1 + COUNT);

    struct tis_output *o = NULL;
    tis_error *err = response_add_output(r, "o7", TRITONSERVER_TYPE_FP32, shape, 2, &o);
    assert_int_equal(error_code(err), TRITONSERVER_ERROR_ALREADY_EXISTS);
    error_free(err);
    err = response_output_memory(outputs[0], 16);
    assert_int_equal(error_code(err), TRITONSERVER_ERROR_ALREADY_EXISTS);
    error_free(err);
    assert_null(response_add_output(r, "refused", TRITONSERVER_TYPE_FP32, NULL, 0, &o));
    err = response_output_memory(o, 16);
    assert_string_equal(error_text(err), "refused");
    error_free(err);
    assert_null(o->buffer);

    response_destroy(&r);
    assert_int_equal(atomic_load(&lent->refs), 1);
    buffer_unref(lent);
    request_free(&req);
}

static void test_parameters(void **state)
{
    (void)state;
    struct seen seen = { 0 };
    struct tis_request *req = request_create(&ops, &seen);
    struct tis_response *r = response_create(req->sink);
    char name[] = "key", value[] = "value";
    assert_null(response_add_parameter(
        r, &(struct tis_parameter){
               .name = name, .type = TRITONSERVER_PARAMETER_STRING, .value.string = value }));
    assert_null(response_add_parameter(
        r, &(struct tis_parameter){
               .name = "n", .type = TRITONSERVER_PARAMETER_INT, .value.integer = -5 }));
    name[0] = value[0] = '?';
    assert_int_equal(r->parameter_count, 2);
    assert_string_equal(r->parameters->parameter.name, "key");
    assert_string_equal(r->parameters->parameter.value.string, "value");
    assert_int_equal(r->parameters->next->parameter.value.integer, -5);
    response_destroy(&r);
    request_free(&req);
}

/* ---- Threads ---- */

enum {
    ROUNDS = 3000,
    SENDERS = 3
};

struct race {
    pthread_barrier_t start;
    struct tis_request *req;
    struct sink *sink;
};

/* Three threads send (one of them the final response), the main thread releases, all at once. */
static void *send_one(void *arg)
{
    struct race *race = arg;
    static _Atomic int turn;
    for (int i = 0; i < ROUNDS; i++) {
        pthread_barrier_wait(&race->start);
        uint32_t flags = turn++ % SENDERS == 0 ? FINAL : 0;
        struct tis_response *r = response_create(race->sink);
        if (!sink_send(race->sink, r, flags))
            response_destroy(&r);
        pthread_barrier_wait(&race->start);
    }
    return NULL;
}

/* The maker's callbacks of responses may run at once here: they only count. */
static void count_complete(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    struct seen *seen = sink->user;
    (void)flags;
    assert_int_equal(atomic_load(&seen->done), 0); /* never after done */
    seen->responses++;
    response_destroy(&response);
}

static void test_races(void **state)
{
    (void)state;
    static const struct sink_ops counting = { .complete = count_complete, .done = on_done };
    struct race race = { 0 };
    struct seen seen;
    pthread_t threads[SENDERS];
    pthread_barrier_init(&race.start, NULL, SENDERS + 1);
    for (int i = 0; i < SENDERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, send_one, &race), 0);
    for (int i = 0; i < ROUNDS; i++) {
        seen = (struct seen){ 0 };
        race.req = request_create(&counting, &seen);
        race.sink = sink_ref(race.req->sink);
        assert_true(request_move(race.req, REQUEST_NEW, REQUEST_RUNNING));
        pthread_barrier_wait(&race.start);
        assert_true(request_release(race.req, REQUEST_RUNNING));
        pthread_barrier_wait(&race.start);
        assert_int_equal(seen.done, 1);
        assert_in_range(seen.responses, 1, SENDERS);
        assert_int_equal(seen.responses, atomic_load(&race.sink->response_count));
        sink_unref(race.sink);
    }
    for (int i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&race.start);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orders),     cmocka_unit_test(test_send_after_final),
        cmocka_unit_test(test_states),     cmocka_unit_test(test_fail),
        cmocka_unit_test(test_inputs),     cmocka_unit_test(test_outputs),
        cmocka_unit_test(test_parameters), cmocka_unit_test(test_races),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
