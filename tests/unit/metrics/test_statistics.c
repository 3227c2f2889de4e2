/* The counters of one version: what a request and an execution add, the table of batch sizes, times
 * out of order, threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "metrics/statistics.h"

static struct statistics_request request(uint32_t batch_size)
{
    return (struct statistics_request){
        .batch_size = batch_size,
        .request_start_ns = 100,
        .queue_start_ns = 110,
        .exec_start_ns = 140,
        .compute_start_ns = 150,
        .compute_end_ns = 190,
        .exec_end_ns = 195,
    };
}

static void assert_duration(struct duration d, uint64_t count, uint64_t ns)
{
    assert_int_equal(d.count, count);
    assert_int_equal(d.ns, ns);
}

static void test_success(void **state)
{
    (void)state;
    struct statistics s;
    struct statistics_snapshot got;
    statistics_init(&s);
    statistics_get(&s, &got);
    assert_int_equal(got.batch_count, 0);
    assert_int_equal(got.totals.last_inference_ms, 0);
    statistics_snapshot_fini(&got);

    struct statistics_request r = request(4);
    statistics_add_success(&s.own, &r);
    statistics_add_success(&s.own, &r);
    statistics_add_execution(&s.own, 8, 140, 150, 190, 195);
    statistics_get(&s, &got);
    assert_int_equal(got.totals.inference_count, 8);
    assert_int_equal(got.totals.execution_count, 1);
    assert_true(got.totals.last_inference_ms > 0);
    assert_duration(got.totals.success, 2, 190);
    assert_duration(got.totals.fail, 0, 0);
    assert_duration(got.totals.queue, 2, 60);
    assert_duration(got.totals.compute_input, 2, 20);
    assert_duration(got.totals.compute_infer, 2, 80);
    assert_duration(got.totals.compute_output, 2, 10);
    assert_int_equal(got.batch_count, 2);
    assert_int_equal(got.batches[0].batch_size, 4);
    assert_duration(got.batches[0].success, 2, 190);
    assert_duration(got.batches[0].compute, 2, 110);
    assert_duration(got.batches[0].compute_infer, 0, 0);
    assert_int_equal(got.batches[1].batch_size, 8);
    assert_duration(got.batches[1].success, 0, 0);
    assert_duration(got.batches[1].compute_input, 1, 10);
    assert_duration(got.batches[1].compute_infer, 1, 40);
    assert_duration(got.batches[1].compute_output, 1, 5);
    statistics_snapshot_fini(&got);
    statistics_fini(&s);
}

static void test_failure(void **state)
{
    (void)state;
    struct statistics s;
    struct statistics_snapshot got;
    statistics_init(&s);
    statistics_add_failure(&s.own, FAILURE_BACKEND, 2, 95);
    statistics_add_failure(&s.own, FAILURE_OTHER, 2, 5);
    statistics_get(&s, &got);
    assert_duration(got.totals.fail, 2, 100);
    assert_int_equal(got.totals.failures[FAILURE_BACKEND], 1);
    assert_int_equal(got.totals.failures[FAILURE_OTHER], 1);
    assert_int_equal(got.totals.failures[FAILURE_REJECTED], 0);
    assert_duration(got.totals.success, 0, 0);
    assert_int_equal(got.totals.inference_count, 0);
    assert_duration(got.batches[0].failed, 2, 100);
    statistics_snapshot_fini(&got);
    statistics_fini(&s);
}

/* A backend whose clock runs backwards adds nothing, instead of 584 years. */
static void test_times_out_of_order(void **state)
{
    (void)state;
    struct statistics s;
    struct statistics_snapshot got;
    statistics_init(&s);
    struct statistics_request r = {
        .batch_size = 1,
        .request_start_ns = 100,
        .queue_start_ns = 90,
        .exec_start_ns = 80,
        .compute_start_ns = 70,
        .compute_end_ns = 60,
        .exec_end_ns = 50,
    };
    statistics_add_success(&s.own, &r);
    statistics_add_execution(&s.own, 1, 80, 70, 60, 50);
    statistics_add_execution(&s.own, UINT64_MAX, 0, 0, 0,
                             0); /* no such batch: only the total counts */
    statistics_get(&s, &got);
    assert_duration(got.totals.success, 1, 0);
    assert_duration(got.totals.queue, 1, 0);
    assert_duration(got.totals.compute_infer, 1, 0);
    assert_int_equal(got.totals.execution_count, 2);
    assert_int_equal(got.batch_count, 1);
    assert_duration(got.batches[0].compute_infer, 1, 0);
    statistics_snapshot_fini(&got);
    statistics_fini(&s);
}

/* Sizes come in any order, the table is sorted; small sizes have a row whatever came before, of the
 * larger ones there is a bound. */
static void test_batch_sizes(void **state)
{
    (void)state;
    enum {
        PRIME = 1000003,
        ROWS_SHARED_MAX = (BATCH_PAGES * BATCH_PAGE_ROWS) - STATISTICS_BATCH_SIZES_SURE
    };
    struct statistics s;
    struct statistics_snapshot got;
    statistics_init(&s);
    for (uint32_t i = 0; i < 20000; i++)
        statistics_add_failure(&s.own, FAILURE_OTHER,
                               STATISTICS_BATCH_SIZES_SURE + (uint32_t)(i * UINT64_C(7919) % PRIME),
                               1);
    for (uint32_t i = STATISTICS_BATCH_SIZES_SURE; i-- > 0;)
        statistics_add_failure(&s.own, FAILURE_OTHER, i, 1);
    statistics_get(&s, &got);
    assert_duration(got.totals.fail, 20000 + STATISTICS_BATCH_SIZES_SURE,
                    20000 + STATISTICS_BATCH_SIZES_SURE);
    assert_in_range(got.batch_count, STATISTICS_BATCH_SIZES_SURE + BATCH_PAGE_ROWS,
                    STATISTICS_BATCH_SIZES_SURE + ROWS_SHARED_MAX);
    for (uint32_t i = 0; i < got.batch_count; i++) {
        if (i < STATISTICS_BATCH_SIZES_SURE)
            assert_int_equal(got.batches[i].batch_size, i);
        else
            assert_true(got.batches[i - 1].batch_size < got.batches[i].batch_size);
        assert_duration(got.batches[i].failed, 1, 1);
    }
    statistics_snapshot_fini(&got);
    statistics_fini(&s);
}

enum {
    THREADS = 4,
    ROUNDS = 2000
};

static void *add(void *arg)
{
    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct statistics_request r = request(1 + i % 8);
        struct statistics_snapshot got;
        statistics_add_success(&((struct statistics *)arg)->own, &r);
        statistics_get(arg, &got);
        statistics_snapshot_fini(&got);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct statistics s;
    struct statistics_snapshot got;
    pthread_t threads[THREADS];
    statistics_init(&s);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add, &s), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    statistics_get(&s, &got);
    assert_int_equal(got.totals.success.count, THREADS * ROUNDS);
    assert_int_equal(got.batch_count, 8);
    statistics_snapshot_fini(&got);
    statistics_fini(&s);
}

/* Each way a response can end, by its number; one far out is not kept. */
static void test_responses(void **state)
{
    (void)state;
    struct statistics s;
    struct statistics_snapshot got;
    struct statistics_response r = { .start_ns = 100, .output_start_ns = 130, .end_ns = 135 };
    statistics_init(&s);
    statistics_add_response(&s.own, 2, &r);
    statistics_add_response(&s.own, 0, &r);
    r.end = RESPONSE_END_FAIL;
    statistics_add_response(&s.own, 0, &r);
    r.output_start_ns = 0;
    statistics_add_response(&s.own, 0, &r);
    r.end = RESPONSE_END_SUCCESS;
    statistics_add_response(&s.own, 1, &r);
    r.end = RESPONSE_END_CANCEL;
    statistics_add_response(&s.own, 1, &r);
    statistics_add_response(&s.own, UINT32_MAX, &r);

    statistics_get(&s, &got);
    assert_int_equal(got.response_count, 3);
    assert_duration(got.responses[0].success, 1, 35);
    assert_duration(got.responses[0].fail, 2, 70);
    assert_duration(got.responses[0].compute_infer, 3, 30 + 30 + 35);
    assert_duration(got.responses[0].compute_output, 2, 10);
    assert_duration(got.responses[1].empty, 1, 35);
    assert_duration(got.responses[1].compute_infer, 1, 35);
    assert_duration(got.responses[1].cancel, 1, 35);
    assert_duration(got.responses[1].success, 0, 0);
    assert_duration(got.responses[2].success, 1, 35);
    statistics_snapshot_fini(&got);
    statistics_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_success),     cmocka_unit_test(test_responses),
        cmocka_unit_test(test_failure),     cmocka_unit_test(test_times_out_of_order),
        cmocka_unit_test(test_batch_sizes), cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
