/* The counters of one version: what a request, an execution and a response add, histograms, the tables
 * by batch size and response number, times out of order, shards, threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

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

/* Every duration falls into the first bucket whose bound is not below it, and the figures of one
 * histogram agree; the bounds themselves, one less and one more are tried. */
static void test_duration_buckets(void **state)
{
    (void)state;
    const struct histogram_bounds *bounds = &histogram_bounds[HISTOGRAM_REQUEST];
    for (uint32_t i = 0; i < bounds->count; i++) {
        for (int64_t difference = -1; difference <= 1; difference++) {
            struct statistics s;
            struct statistics_totals got;
            uint64_t ns = (uint64_t)((int64_t)llround(bounds->upper[i] * 1e9) + difference);
            statistics_init(&s);
            statistics_add_success(&s.own, &(struct statistics_request){ .batch_size = 1,
                                                                         .request_start_ns = 5,
                                                                         .queue_start_ns = 5,
                                                                         .exec_start_ns = 5 + ns,
                                                                         .compute_start_ns = 5 + ns,
                                                                         .compute_end_ns = 5 + ns,
                                                                         .exec_end_ns = 5 + ns });
            statistics_get_totals(&s, &got);
            for (uint32_t k = 0; k < bounds->count; k++) {
                uint64_t expected = (double)ns <= bounds->upper[k] * 1e9;
                assert_int_equal(got.histograms[HISTOGRAM_REQUEST].cumulative[k], expected);
                assert_int_equal(got.histograms[HISTOGRAM_QUEUE].cumulative[k], expected);
                assert_int_equal(got.histograms[HISTOGRAM_COMPUTE].cumulative[k], 1);
            }
            assert_int_equal(got.histograms[HISTOGRAM_REQUEST].count, 1);
            assert_true(got.histograms[HISTOGRAM_REQUEST].sum == (double)ns / 1e9);
            assert_true(got.histograms[HISTOGRAM_COMPUTE].sum == 0);
            statistics_fini(&s);
        }
    }
}

static void test_value_buckets(void **state)
{
    (void)state;
    struct statistics s;
    struct statistics_totals got;
    statistics_init(&s);
    for (uint32_t size = 1; size <= 4096; size *= 2)
        statistics_add_execution(&s.own, size, 0, 0, 0, 0);
    statistics_add_execution(&s.own, 3, 0, 0, 0, 0);
    statistics_add_execution(&s.own, UINT64_MAX, 0, 0, 0, 0);         /* no such size */
    static const uint64_t totals_ns[] = { 104, 105, 106, 200, 5001 }; /* compute takes 100 */
    for (size_t i = 0; i < sizeof(totals_ns) / sizeof(totals_ns[0]); i++)
        statistics_add_success(
            &s.own, &(struct statistics_request){ .batch_size = 1,
                                                  .request_start_ns = 10000 - totals_ns[i],
                                                  .exec_start_ns = 10000 - 100,
                                                  .exec_end_ns = 10000 });

    statistics_get_totals(&s, &got);
    assert_int_equal(got.execution_count, 15);
    const struct histogram *h = &got.histograms[HISTOGRAM_BATCH_SIZE];
    for (uint32_t i = 0; i < histogram_bounds[HISTOGRAM_BATCH_SIZE].count; i++)
        assert_int_equal(h->cumulative[i], i < 2 ? i + 1 : i + 2);
    assert_int_equal(h->count, 14);
    assert_true(h->sum == 8191 + 3);

    static const uint64_t expected[] = { 2, 3, 3, 3, 4, 4, 4 };
    h = &got.histograms[HISTOGRAM_LOAD_RATIO];
    for (uint32_t i = 0; i < histogram_bounds[HISTOGRAM_LOAD_RATIO].count; i++)
        assert_int_equal(h->cumulative[i], expected[i]);
    assert_int_equal(h->count, 5);
    assert_true(fabs(h->sum - (1.04 + 1.05 + 1.06 + 2 + 50.01)) < 1e-9);
    statistics_fini(&s);
}

/* A request with one response has its first one at its end; with several they are apart. */
static void test_first_response(void **state)
{
    (void)state;
    for (int is_decoupled = 0; is_decoupled <= 1; is_decoupled++) {
        struct statistics s;
        struct statistics_totals got;
        struct statistics_request r = request(1);
        statistics_init(&s);
        s.is_decoupled = is_decoupled;
        statistics_add_success(&s.own, &r);
        if (is_decoupled)
            statistics_add_first_response(&s, 60000);
        statistics_get_totals(&s, &got);
        const struct histogram *h = &got.histograms[HISTOGRAM_FIRST_RESPONSE];
        assert_int_equal(h->count, 1);
        assert_int_equal(h->cumulative[0], !is_decoupled);
        assert_true(h->sum == (is_decoupled ? 60e-6 : 95e-9));
        assert_int_equal(got.histograms[HISTOGRAM_REQUEST].cumulative[0], 1);
        statistics_fini(&s);
    }
}

/* Triton's histogram of first responses: its own bounds, and those that a model sets. */
static void test_first_response_ms(void **state)
{
    (void)state;
    static const double bounds_ms[] = { 0.5, 1 };
    struct statistics s;
    struct first_response_histogram got;
    statistics_init(&s);
    statistics_get_first_response(&s, &got);
    assert_int_equal(got.bound_count, 4);
    assert_true(got.upper_ms[0] == 100 && got.upper_ms[3] == 5000 && got.count == 0);
    statistics_set_first_response_bounds(&s, bounds_ms, ARRAY_LEN(bounds_ms));
    statistics_add_first_response(&s, 500000); /* a bound belongs to the bucket below it */
    statistics_add_first_response(&s, 500001);
    statistics_add_first_response(&s, 3000000);
    statistics_get_first_response(&s, &got);
    assert_int_equal(got.bound_count, 2);
    assert_int_equal(got.cumulative[0], 1);
    assert_int_equal(got.cumulative[1], 2);
    assert_int_equal(got.count, 3);
    assert_true(got.sum_ms > 4 && got.sum_ms < 4.0001);
    statistics_fini(&s);
}

/* Shards add up; one that was closed keeps its counts and is used again. */
static void test_shards(void **state)
{
    (void)state;
    struct statistics s;
    struct statistics_snapshot got;
    struct statistics_totals totals;
    struct statistics_request r = request(2);
    statistics_init(&s);

    struct statistics_shard *first = statistics_shard_open(&s);
    struct statistics_shard *second = statistics_shard_open(&s);
    struct statistics_shard *third = statistics_shard_open(&s);
    assert_ptr_not_equal(first, second);
    statistics_add_success(first, &r);
    statistics_add_success(second, &r);
    statistics_add_success(third, &r);
    statistics_add_execution(second, 1, 140, 150, 190, 195);
    statistics_add_failure(&s.own, FAILURE_CANCELED, 5, 7);
    statistics_shard_close(second);
    assert_ptr_equal(statistics_shard_open(&s), second);
    statistics_add_success(second, &r);

    statistics_get_totals(&s, &totals);
    assert_duration(totals.success, 4, 4 * 95);
    assert_int_equal(totals.fail.count, 1);
    assert_int_equal(totals.execution_count, 1);

    statistics_get(&s, &got);
    assert_int_equal(got.batch_count, 3);
    assert_int_equal(got.batches[0].batch_size, 1);
    assert_duration(got.batches[0].compute_infer, 1, 40);
    assert_int_equal(got.batches[1].batch_size, 2);
    assert_duration(got.batches[1].success, 4, 4 * 95);
    assert_int_equal(got.batches[2].batch_size, 5);
    assert_duration(got.batches[2].failed, 1, 7);
    statistics_snapshot_fini(&got);
    statistics_fini(&s);
}

/* The last report of each counts, shards add up, and what has gone takes none. */
static void test_memory(void **state)
{
    (void)state;
    static const struct memory_usage old[] = { { TRITONSERVER_MEMORY_GPU, 9, 9 } };
    static const struct memory_usage model[] = { { TRITONSERVER_MEMORY_GPU, 1, 50 },
                                                 { TRITONSERVER_MEMORY_CPU, 0, 4 },
                                                 { TRITONSERVER_MEMORY_CPU, 0, 5 } };
    static const struct memory_usage instance[] = { { TRITONSERVER_MEMORY_CPU, 0, 100 },
                                                    { TRITONSERVER_MEMORY_GPU, 0, 7 } };
    struct statistics s;
    struct statistics_snapshot got;
    struct memory_usage many[MEMORY_USAGES_MAX + 1] = { 0 };
    statistics_init(&s);
    struct statistics_shard *shard = statistics_shard_open(&s);
    assert_null(statistics_set_memory(&s.own, old, 1));
    assert_null(statistics_set_memory(&s.own, model, 3));
    assert_null(statistics_set_memory(shard, instance, 2));
    tis_error *err = statistics_set_memory(shard, many, MEMORY_USAGES_MAX + 1);
    assert_int_equal(error_code(err), TRITONSERVER_ERROR_UNSUPPORTED);
    error_free(err);
    statistics_get(&s, &got);
    assert_int_equal(got.memory_count, 3);
    assert_int_equal(got.memory[0].type, TRITONSERVER_MEMORY_CPU);
    assert_int_equal(got.memory[0].bytes, 105);
    assert_int_equal(got.memory[1].id, 0);
    assert_int_equal(got.memory[1].bytes, 7);
    assert_int_equal(got.memory[2].id, 1);
    assert_int_equal(got.memory[2].bytes, 50);
    statistics_snapshot_fini(&got);

    statistics_shard_close(shard);
    statistics_get(&s, &got);
    assert_int_equal(got.memory_count, 2);
    assert_int_equal(got.memory[0].bytes, 5);
    statistics_snapshot_fini(&got);
    statistics_fini(&s);
}

enum {
    THREADS = 4,
    ROUNDS = 3000
};

/* What one thread adds, to a shard that it opens and closes, and to the one that all share; the
 * tables' pages are made by whoever comes first. */
static void *add(void *arg)
{
    struct statistics *s = arg;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct statistics_shard *shard = statistics_shard_open(s);
        struct statistics_request r = request(1 + i % 100);
        struct statistics_response response = { .start_ns = 1, .end_ns = 4 };
        statistics_add_success(shard, &r);
        statistics_add_success(&s->own, &r);
        statistics_add_execution(&s->own, STATISTICS_BATCH_SIZES_SURE + i % 500, 1, 2, 3, 4);
        statistics_add_failure(&s->own, i % FAILURE_COUNT, 1, 2);
        statistics_add_response(&s->own, i % STATISTICS_RESPONSES_MAX, &response);
        statistics_shard_close(shard);
    }
    return NULL;
}

/* Reads until the writers have ended. What it sees only grows. */
static void *read_all(void *arg)
{
    struct statistics *s = arg;
    uint64_t seen = 0;
    do {
        struct statistics_snapshot got;
        statistics_get(s, &got);
        if (got.totals.success.count < seen)
            return arg;
        seen = got.totals.success.count;
        statistics_snapshot_fini(&got);
    } while (seen < 2 * THREADS * ROUNDS);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct statistics s;
    struct statistics_snapshot got;
    pthread_t threads[THREADS];
    pthread_t reader;
    void *problem = NULL;
    const uint64_t count = THREADS * ROUNDS;
    statistics_init(&s);
    assert_int_equal(pthread_create(&reader, NULL, read_all, &s), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add, &s), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_join(reader, &problem);
    assert_null(problem);

    statistics_get(&s, &got);
    assert_duration(got.totals.success, 2 * count, 2 * count * 95);
    assert_duration(got.totals.fail, count, count * 2);
    for (int i = 0; i < FAILURE_COUNT; i++)
        assert_int_equal(got.totals.failures[i], count / FAILURE_COUNT);
    assert_int_equal(got.totals.inference_count, 2 * THREADS * 50.5 * ROUNDS);
    assert_int_equal(got.totals.execution_count, count);
    assert_int_equal(got.batch_count, 600);
    uint64_t requests = 0, executions = 0, responses = 0;
    for (uint32_t i = 0; i < got.batch_count; i++) {
        requests += got.batches[i].success.count;
        executions += got.batches[i].compute_infer.count;
    }
    for (uint32_t i = 0; i < got.response_count; i++)
        responses += got.responses[i].empty.count;
    assert_int_equal(requests, 2 * count);
    assert_int_equal(executions, count);
    assert_int_equal(responses, count);
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
        cmocka_unit_test(test_success),
        cmocka_unit_test(test_responses),
        cmocka_unit_test(test_failure),
        cmocka_unit_test(test_times_out_of_order),
        cmocka_unit_test(test_batch_sizes),
        cmocka_unit_test(test_duration_buckets),
        cmocka_unit_test(test_value_buckets),
        cmocka_unit_test(test_first_response),
        cmocka_unit_test(test_first_response_ms),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
