/* The default scheduler: order, one request an execution, cancelling, closing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/attr.h"
#include "infer/reason.h"
#include "sched/scheduler.h"

static void on_complete(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    (void)sink, (void)response, (void)flags;
}

static void on_done(struct sink *sink, struct tis_request *request)
{
    (void)sink, (void)request;
}

static const struct sink_ops ops = { .complete = on_complete, .done = on_done };

static struct tis_request *put(struct scheduler *s)
{
    struct tis_request *req = request_create(&ops, NULL);
    struct tis_request *given = req;
    assert_null(s->ops->put(s, &given, 0));
    assert_null(given);
    assert_int_equal(atomic_load(&req->state), REQUEST_QUEUED);
    return req;
}

/* A request taken or cancelled is ours again. */
static void drop(struct tis_request *req)
{
    assert_true(request_move(req, REQUEST_QUEUED, REQUEST_NEW));
    request_free(&req);
}

static void test_order(void **state)
{
    (void)state;
    struct scheduler *s;
    struct tis_request *in[5], *out[8];
    assert_null(fifo_create(&s));
    assert_int_equal(s->ops->take(s, 0, out, 8, 0), 0);
    for (int i = 0; i < 5; i++)
        in[i] = put(s);
    assert_int_equal(s->waiting, 5);
    assert_int_equal(s->ops->take(s, 0, out, 0, 0), 0);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(s->ops->take(s, i, out, 8, 0), 1); /* any instance, one at a time */
        assert_ptr_equal(out[0], in[i]);
        assert_int_equal(s->waiting, 4 - i);
        drop(out[0]);
    }
    s->ops->destroy(s);
}

static void test_cancel(void **state)
{
    (void)state;
    struct scheduler *s;
    struct tis_request *in[3], *out[1];
    assert_null(fifo_create(&s));
    for (int i = 0; i < 3; i++)
        in[i] = put(s);
    assert_true(s->ops->cancel(s, in[1]));
    assert_false(s->ops->cancel(s, in[1])); /* does not wait here any more */
    assert_int_equal(s->waiting, 2);
    drop(in[1]);
    assert_int_equal(s->ops->take(s, 0, out, 1, 0), 1);
    assert_ptr_equal(out[0], in[0]);
    assert_false(s->ops->cancel(s, in[0]));
    drop(in[0]);
    assert_true(s->ops->cancel(s, in[2]));
    drop(in[2]);
    assert_int_equal(s->ops->take(s, 0, out, 1, 0), 0);
    s->ops->destroy(s);
}

/* After close nothing comes in, the caller keeps what it brought; what waits goes out. */
static void test_close(void **state)
{
    (void)state;
    struct scheduler *s;
    struct tis_request *out[1];
    assert_null(fifo_create(&s));
    struct tis_request *in = put(s);
    s->ops->close(s);
    struct tis_request *late = request_create(&ops, NULL);
    tis_error *err = s->ops->put(s, &late, 0);
    assert_int_equal(error_reason(err), REASON_QUEUE_CLOSED);
    assert_int_equal(error_code(err), TRITONSERVER_ERROR_UNAVAILABLE);
    error_free(err);
    assert_non_null(late);
    assert_int_equal(atomic_load(&late->state), REQUEST_NEW);
    request_free(&late);
    assert_int_equal(s->ops->take(s, 0, out, 1, 0), 1);
    assert_ptr_equal(out[0], in);
    drop(in);
    s->ops->destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_order), cmocka_unit_test(test_cancel),
                                        cmocka_unit_test(test_close) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
