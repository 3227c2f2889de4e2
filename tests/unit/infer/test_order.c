/* Answers that are sent in any order, by several threads, leave in the order of the turns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/attr.h"
#include "infer/order.h"
#include "infer/request.h"
#include "infer/response.h"

enum {
    THREADS = 4,
    REQUESTS = 4000, /* in all */
    RESPONSES = 2,   /* of a request, then the end */
};

struct made {
    struct tis_request *request;
    uint32_t number;
    uint32_t received;
    bool is_done;
};

static struct made made[REQUESTS];
static uint32_t next_number; /* whose answers may come; one thread at a time delivers */

static void on_complete(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    struct made *m = sink->user;
    assert_int_equal(m->number, next_number);
    m->received += response != NULL;
    if (flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        next_number++;
    response_destroy(&response);
}

static void on_done(struct sink *sink, struct tis_request *request)
{
    (void)request;
    struct made *m = sink->user;
    m->is_done = true;
}

static const struct sink_ops ops = { .complete = on_complete, .done = on_done };

static void make(struct order *o, uint32_t count)
{
    next_number = 0;
    for (uint32_t i = 0; i < count; i++) {
        made[i] = (struct made){ .number = i };
        made[i].request = request_create(&ops, &made[i]);
        assert_non_null(made[i].request);
        order_join(o, made[i].request->sink);
        assert_true(request_move(made[i].request, REQUEST_NEW, REQUEST_RUNNING));
    }
}

static void send_one(struct made *m, uint32_t flags)
{
    struct tis_response *response = response_create(m->request->sink);
    assert_non_null(response);
    assert_true(sink_send(m->request->sink, response, flags));
}

static void answer(struct made *m)
{
    for (int i = 0; i < RESPONSES; i++)
        send_one(m, 0);
    assert_true(sink_send(m->request->sink, NULL, TRITONSERVER_RESPONSE_COMPLETE_FINAL));
    assert_true(request_release(m->request, REQUEST_RUNNING));
}

static void check_all(uint32_t count)
{
    assert_int_equal(next_number, count);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(made[i].is_done);
        assert_int_equal(made[i].received, RESPONSES);
        request_free(&made[i].request);
    }
}

static void test_backwards(void **state)
{
    (void)state;
    struct order o;
    order_init(&o);
    make(&o, 3);
    answer(&made[2]);
    send_one(&made[1], 0);
    assert_int_equal(made[2].received, 0);
    assert_false(made[2].is_done); /* released and sent, but not handed over */
    send_one(&made[0], 0);
    assert_int_equal(made[0].received, 1); /* its turn: at once */
    assert_int_equal(made[1].received, 0);
    send_one(&made[0], TRITONSERVER_RESPONSE_COMPLETE_FINAL);
    assert_int_equal(made[1].received, 1);
    assert_true(request_release(made[0].request, REQUEST_RUNNING));
    send_one(&made[1], TRITONSERVER_RESPONSE_COMPLETE_FINAL);
    assert_true(request_release(made[1].request, REQUEST_RUNNING));
    check_all(3);
    order_fini(&o);
}

/* A request that could not be queued holds nobody up. */
static void test_leave(void **state)
{
    (void)state;
    struct order o;
    order_init(&o);
    make(&o, 2);
    order_leave(made[0].request->sink);
    next_number = 1;
    answer(&made[1]);
    assert_true(made[1].is_done);
    request_free(&made[1].request);
    next_number = 0;
    answer(&made[0]); /* without a turn: at once */
    request_free(&made[0].request);
    order_fini(&o);
}

static void *answer_some(void *arg)
{
    /* Each thread backwards, so that nearly every answer waits. */
    uint32_t thread = *(uint32_t *)arg;
    for (uint32_t i = REQUESTS; i > 0; i--) {
        if ((i - 1) % THREADS == thread)
            answer(&made[i - 1]);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct order o;
    pthread_t threads[THREADS];
    uint32_t numbers[THREADS];
    order_init(&o);
    make(&o, REQUESTS);
    for (uint32_t i = 0; i < THREADS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, answer_some, &numbers[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    check_all(REQUESTS);
    order_fini(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backwards),
        cmocka_unit_test(test_leave),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
