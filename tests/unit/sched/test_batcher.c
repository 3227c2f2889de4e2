/* The rules of the batcher one by one; test_simulation plays them all together. Times are in
 * milliseconds from 0. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/attr.h"
#include "base/clock.h"
#include "infer/reason.h"
#include "sched/batcher.h"

#define MS(n) ((uint64_t)(n)*NS_PER_MS)

static void on_complete(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    (void)sink, (void)response, (void)flags;
}

static void on_done(struct sink *sink, struct tis_request *request)
{
    (void)sink, (void)request;
}

static const struct sink_ops ops = { .complete = on_complete, .done = on_done };

static struct tis_request *request_of(uint32_t batch_size)
{
    struct tis_request *req = request_create(&ops, NULL);
    req->batch_size = batch_size;
    return req;
}

static struct tis_request *put_request(struct scheduler *s, struct tis_request *req,
                                       uint64_t now_ns)
{
    struct tis_request *given = req;
    assert_null(s->ops->put(s, &given, now_ns));
    assert_null(given);
    assert_int_equal(atomic_load(&req->state), REQUEST_QUEUED);
    return req;
}

static struct tis_request *put(struct scheduler *s, uint32_t batch_size, uint64_t now_ns)
{
    return put_request(s, request_of(batch_size), now_ns);
}

static struct tis_request *put_priority(struct scheduler *s, uint64_t priority, uint64_t now_ns)
{
    struct tis_request *req = request_of(1);
    req->priority = priority;
    return put_request(s, req, now_ns);
}

/* A request that was given back is ours again. */
static void drop(struct tis_request *req)
{
    assert_true(request_move(req, REQUEST_QUEUED, REQUEST_NEW));
    request_free(&req);
}

/* take() gives exactly requests of these batch sizes; 0 ends the list. */
#define TAKES(s, now_ns, ...) takes((s), (now_ns), (const uint32_t[]){ __VA_ARGS__, 0 })

static void takes(struct scheduler *s, uint64_t now_ns, const uint32_t *sizes)
{
    struct tis_request *out[64];
    uint32_t count = s->ops->take(s, 0, out, 64, now_ns);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(out[i]->batch_size, sizes[i]);
        drop(out[i]);
    }
    assert_int_equal(sizes[count], 0);
}

static void takes_request(struct scheduler *s, uint64_t now_ns, struct tis_request *expected)
{
    struct tis_request *out[64];
    assert_int_equal(s->ops->take(s, 0, out, 64, now_ns), 1);
    assert_ptr_equal(out[0], expected);
    drop(out[0]);
}

#define NOTHING 0

static struct scheduler *create(const struct batcher_options *options)
{
    static const struct queue_policy none = { 0 };
    struct batcher_options o = *options;
    struct scheduler *s;
    if (!o.policies) {
        o.policies = &none;
        o.level_count = 1;
    }
    assert_null(batcher_create(&o, &s));
    return s;
}

static struct scheduler *create_fifo(void)
{
    return create(&(struct batcher_options){ .requests_max = 1, .batch_size_max = 1 });
}

/* The batcher of the QA suite of 0.9: preferred 2 and 6, at most 8, 10 s of delay. */
static struct scheduler *create_qa(void)
{
    static const int32_t preferred[] = { 6, 2 };
    return create(&(struct batcher_options){ .requests_max = 8,
                                             .batch_size_max = 8,
                                             .preferred = preferred,
                                             .preferred_count = 2,
                                             .delay_ns = MS(10000) });
}

static void test_fifo(void **state)
{
    (void)state;
    struct scheduler *s = create_fifo();
    struct tis_request *in[5];
    TAKES(s, 0, NOTHING);
    for (int i = 0; i < 5; i++)
        in[i] = put(s, 1, 0);
    assert_int_equal(s->waiting, 5);
    for (uint32_t i = 0; i < 5; i++) {
        takes_request(s, 0, in[i]);
        assert_int_equal(s->waiting, 4 - i);
    }
    assert_true(s->ops->ready_ns(s, 0) == SCHEDULER_NEVER);
    s->ops->destroy(s);
}

static void test_cancel(void **state)
{
    (void)state;
    struct scheduler *s = create_fifo();
    struct tis_request *in[3];
    for (int i = 0; i < 3; i++)
        in[i] = put(s, 1, 0);
    assert_true(s->ops->cancel(s, in[1]));
    assert_false(s->ops->cancel(s, in[1])); /* does not wait here any more */
    assert_int_equal(s->waiting, 2);
    drop(in[1]);
    takes_request(s, 0, in[0]);
    assert_true(s->ops->cancel(s, in[2]));
    drop(in[2]);
    TAKES(s, 0, NOTHING);
    s->ops->destroy(s);
}

/* Told to hurry, the batcher delays nothing, and takes more all the same. */
static void test_hurry(void **state)
{
    (void)state;
    struct scheduler *s = create_qa();
    put(s, 1, 0);
    TAKES(s, MS(1), NOTHING);
    s->ops->hurry(s);
    assert_true(s->ops->ready_ns(s, MS(1)) == MS(1));
    TAKES(s, MS(1), 1);
    put(s, 3, MS(2));
    TAKES(s, MS(2), 3);
    s->ops->destroy(s);
}

static void test_qa_single(void **state)
{
    (void)state;
    struct scheduler *s = create_qa();
    static const uint32_t at_once[] = { 2, 6, 7, 8 };
    static const uint32_t delayed[] = { 1, 3, 4, 5 };
    for (size_t i = 0; i < ARRAY_LEN(at_once); i++) {
        put(s, at_once[i], 0);
        TAKES(s, 0, at_once[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(delayed); i++) {
        put(s, delayed[i], 0);
        assert_true(s->ops->ready_ns(s, 0) == MS(10000));
        TAKES(s, MS(9999), NOTHING);
        TAKES(s, MS(10000), delayed[i]);
    }
    s->ops->destroy(s);
}

static void test_qa_pairs(void **state)
{
    (void)state;
    struct scheduler *s = create_qa();

    put(s, 1, 0);
    TAKES(s, 0, NOTHING);
    put(s, 3, MS(1000));
    TAKES(s, MS(1000), NOTHING);
    TAKES(s, MS(10000), 1, 3);

    put(s, 3, 0);
    TAKES(s, 0, NOTHING);
    put(s, 7, MS(1000));
    TAKES(s, MS(1000), 3);
    TAKES(s, MS(1000), 7);

    put(s, 3, 0);
    put(s, 4, MS(1000));
    TAKES(s, MS(1000), 3);
    TAKES(s, MS(10999), NOTHING);
    TAKES(s, MS(11000), 4);

    put(s, 1, 0);
    TAKES(s, 0, NOTHING);
    put(s, 1, 0);
    TAKES(s, 0, 1, 1);
    s->ops->destroy(s);
}

/* Where 0.9 counts the first request twice and runs the 3 alone at the next look. */
static void test_looking_again_runs_nothing_early(void **state)
{
    (void)state;
    struct scheduler *s = create_qa();
    put(s, 3, 0);
    TAKES(s, MS(1), NOTHING);
    TAKES(s, MS(2), NOTHING);
    put(s, 3, MS(3));
    TAKES(s, MS(3), 3, 3);
    s->ops->destroy(s);
}

static void test_full_under_load(void **state)
{
    (void)state;
    struct scheduler *s = create_qa();
    for (int i = 0; i < 14; i++)
        put(s, 1, 0);
    TAKES(s, 0, 1, 1, 1, 1, 1, 1);
    TAKES(s, MS(20000), 1, 1, 1, 1, 1, 1, 1, 1); /* late: up to the largest batch */
    s->ops->destroy(s);

    s = create(&(struct batcher_options){ .requests_max = 4, .batch_size_max = 4 });
    put(s, 1, 0);
    TAKES(s, 0, 1); /* no delay: what is there */
    for (int i = 0; i < 6; i++)
        put(s, 1, 0);
    TAKES(s, 0, 1, 1, 1, 1);
    TAKES(s, 0, 1, 1);
    s->ops->destroy(s);
}

static void test_priorities(void **state)
{
    (void)state;
    static const struct queue_policy levels[3] = { { 0 } };
    struct scheduler *s = create(&(struct batcher_options){ .policies = levels,
                                                            .level_count = 3,
                                                            .level_default = 1,
                                                            .requests_max = 1,
                                                            .batch_size_max = 1 });
    struct tis_request *low = put_priority(s, 3, 0);
    struct tis_request *by_default = put_priority(s, 0, 1);
    struct tis_request *unknown = put_priority(s, 9, 2);
    struct tis_request *high = put_priority(s, 1, 3);
    struct tis_request *high_later = put_priority(s, 1, 4);
    takes_request(s, 5, high);
    takes_request(s, 5, high_later);
    takes_request(s, 5, by_default);
    takes_request(s, 5, unknown);
    takes_request(s, 5, low);
    s->ops->destroy(s);
}

/* A stream of high priority lets one of low priority through after PASSES_MAX of its own. */
static void test_starvation_is_bounded(void **state)
{
    (void)state;
    static const struct queue_policy levels[2] = { { 0 } };
    struct scheduler *s = create(&(struct batcher_options){
        .policies = levels, .level_count = 2, .requests_max = 1, .batch_size_max = 1 });
    struct tis_request *low = put_priority(s, 2, 0);
    struct tis_request *low_later = put_priority(s, 2, 1);
    for (uint32_t i = 0; i < PASSES_MAX; i++)
        takes_request(s, 10 + i, put_priority(s, 1, 10 + i));
    struct tis_request *high = put_priority(s, 1, 100);
    takes_request(s, 100, low);
    for (uint32_t i = 1; i < PASSES_MAX; i++) { /* the low one passed the other over, too */
        takes_request(s, 110 + i, high);
        high = put_priority(s, 1, 110 + i);
    }
    takes_request(s, 200, low_later);
    takes_request(s, 200, high);
    s->ops->destroy(s);
}

static void test_queue_size(void **state)
{
    (void)state;
    static const struct queue_policy policy = { .requests_max = 2 };
    struct scheduler *s = create(&(struct batcher_options){
        .policies = &policy, .level_count = 1, .requests_max = 1, .batch_size_max = 1 });
    put(s, 1, 0);
    put(s, 1, 0);
    struct tis_request *third = request_of(1);
    tis_error *err = s->ops->put(s, &third, 0);
    assert_int_equal(error_reason(err), REASON_QUEUE_FULL);
    error_free(err);
    TAKES(s, 0, 1);
    assert_null(s->ops->put(s, &third, 0));
    TAKES(s, 0, 1);
    TAKES(s, 0, 1);
    s->ops->destroy(s);
}

static void test_timeout_rejects(void **state)
{
    (void)state;
    static const struct queue_policy policy = { .timeout_ns = MS(5), .timeout_override = true };
    struct scheduler *s = create(&(struct batcher_options){
        .policies = &policy, .level_count = 1, .requests_max = 1, .batch_size_max = 1 });
    struct tis_request *out[4];
    struct tis_request *in = put(s, 1, 0);
    struct tis_request *longer = request_of(1); /* than allowed: 5 ms holds */
    longer->timeout_us = 9000;
    put_request(s, longer, MS(1));
    struct tis_request *shorter = request_of(1);
    shorter->timeout_us = 1000;
    put_request(s, shorter, MS(1));

    assert_true(s->expiry_ns == MS(2));
    assert_int_equal(s->ops->expire(s, MS(2) - 1, out, 4), 0);
    assert_int_equal(s->ops->expire(s, MS(2), out, 4), 1);
    assert_ptr_equal(out[0], shorter);
    drop(shorter);
    assert_true(s->expiry_ns == MS(5));
    assert_int_equal(s->ops->expire(s, MS(6), out, 4), 2);
    assert_ptr_equal(out[0], in);
    assert_ptr_equal(out[1], longer);
    drop(in);
    drop(longer);
    assert_true(s->expiry_ns == SCHEDULER_NEVER);
    TAKES(s, MS(6), NOTHING);
    s->ops->destroy(s);
}

static void test_timeout_delays(void **state)
{
    (void)state;
    static const struct queue_policy policy = { .action = TIMEOUT_DELAY, .timeout_ns = MS(5) };
    struct scheduler *s = create(&(struct batcher_options){
        .policies = &policy, .level_count = 1, .requests_max = 1, .batch_size_max = 1 });
    struct tis_request *out[4];
    struct tis_request *late = put(s, 1, 0);
    struct tis_request *fresh = put(s, 1, MS(3));
    assert_int_equal(s->ops->expire(s, MS(5), out, 4), 0);
    takes_request(s, MS(5), fresh);
    takes_request(s, MS(5), late);
    s->ops->destroy(s);
}

/* A custom strategy refused the last two of three: they are first again, in their order. */
static void test_put_back(void **state)
{
    (void)state;
    struct scheduler *s =
        create(&(struct batcher_options){ .requests_max = 4, .batch_size_max = 4 });
    struct tis_request *in[4], *out[4];
    for (int i = 0; i < 3; i++)
        in[i] = put(s, 1, 0);
    assert_int_equal(s->ops->take(s, 0, out, 4, 0), 3);
    in[3] = put(s, 1, 1);
    s->ops->put_back(s, out + 1, 2);
    assert_int_equal(s->waiting, 3);
    drop(out[0]);
    assert_int_equal(s->ops->take(s, 0, out, 4, 0), 3);
    for (int i = 0; i < 3; i++) {
        assert_ptr_equal(out[i], in[i + 1]);
        drop(out[i]);
    }
    s->ops->destroy(s);
}

/* Unlike requests end a batch: other shapes, other optional inputs. */
static void test_unlike(void **state)
{
    (void)state;
    static const int64_t short_shape[] = { 1, 2 };
    static const int64_t long_shape[] = { 1, 3 };
    static const int64_t *const shapes[] = { short_shape, short_shape, long_shape, long_shape };
    struct scheduler *s = create(&(struct batcher_options){
        .requests_max = 8, .batch_size_max = 8, .delay_ns = MS(10), .compares_inputs = true });
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct tis_request *req = request_of((uint32_t)i + 1);
        assert_null(request_reserve_inputs(req, 2));
        request_add_input(req, "A", TRITONSERVER_TYPE_FP32, shapes[i], 2);
        if (i == 3)
            request_add_input(req, "B", TRITONSERVER_TYPE_FP32, short_shape, 2);
        put_request(s, req, 0);
    }
    TAKES(s, 0, 1, 2); /* cannot grow: no need to wait */
    TAKES(s, 0, 3);
    TAKES(s, 0, NOTHING);
    TAKES(s, MS(10), 4);
    s->ops->destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fifo),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_hurry),
        cmocka_unit_test(test_qa_single),
        cmocka_unit_test(test_qa_pairs),
        cmocka_unit_test(test_looking_again_runs_nothing_early),
        cmocka_unit_test(test_full_under_load),
        cmocka_unit_test(test_priorities),
        cmocka_unit_test(test_starvation_is_bounded),
        cmocka_unit_test(test_queue_size),
        cmocka_unit_test(test_timeout_rejects),
        cmocka_unit_test(test_timeout_delays),
        cmocka_unit_test(test_put_back),
        cmocka_unit_test(test_unlike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
