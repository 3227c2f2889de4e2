/* unit/exec/fixture.h - what tests of loaded versions share: a backend directory with the plug-in
 * tests/backends/bad/bad.c in it, called "unit", and requests that are waited for, with a deadline.
 */
#ifndef TIS_UNIT_EXEC_FIXTURE_H
#define TIS_UNIT_EXEC_FIXTURE_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "exec/version.h"
#include "infer/response.h"
#include "model/validate.h"
#include "unit/folder.h"

enum {
    SECONDS_MAX = 30
};

/* Makes the directory of the template `root`. */
static inline bool make_backends(char *root)
{
    const char *backend = getenv("TIS_TEST_BACKEND");
    char path[300];
    if (!backend || !mkdtemp(root))
        return false;
    snprintf(path, sizeof(path), "%s/unit", root);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/unit/libtriton_unit.so", root);
    return symlink(backend, path) == 0;
}

static inline struct timespec give_up_at(void)
{
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_sec += SECONDS_MAX;
    return at;
}

static inline void wait_for(sem_t *event)
{
    struct timespec at = give_up_at();
    assert_int_equal(sem_timedwait(event, &at), 0);
}

/* ---- A request, and its answer ---- */

struct ticket {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    struct tis_request *request;
    _Atomic(struct tis_response *) response; /* the last one */
    bool done;
};

static inline void ticket_complete(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    struct ticket *t = sink->user;
    (void)flags;
    if (!response)
        return;
    struct tis_response *before = atomic_exchange(&t->response, response);
    if (before)
        response_destroy(&before);
}

static inline void ticket_done(struct sink *sink, struct tis_request *request)
{
    struct ticket *t = sink->user;
    assert_ptr_equal(request, t->request);
    pthread_mutex_lock(&t->mutex);
    assert_false(t->done);
    t->done = true;
    pthread_cond_signal(&t->cond);
    pthread_mutex_unlock(&t->mutex);
}

/* Gives v a request whose INPUT0 is numbers[0..4), which must stay. */
static inline tis_error *ticket_try_submit(struct ticket *t, struct tis_version *v,
                                           const int32_t *numbers)
{
    static const struct sink_ops ops = { .complete = ticket_complete, .done = ticket_done };
    static const int64_t shape[] = { 1, 4 };
    uint32_t rank = v->config->max_batch_size > 0 ? 2 : 1;
    *t = (struct ticket){ .mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
    struct tis_request *req = request_create(&ops, t);
    t->request = req;
    assert_null(request_reserve_inputs(req, 1));
    struct tis_input *in =
        request_add_input(req, "INPUT0", TRITONSERVER_TYPE_INT32, shape + 2 - rank, rank);
    assert_null(request_add_chunk(req, in, numbers, 4 * sizeof(*numbers), TRITONSERVER_MEMORY_CPU,
                                  0, NULL));
    req->stamps[STAMP_REQUEST_START] = clock_ns();
    assert_null(request_validate(req, v->config, v->model_name));
    tis_error *err = version_submit(v, &req);
    if (err) {
        assert_ptr_equal(req, t->request);
        request_free(&req);
        return err;
    }
    assert_null(req);
    version_wake(v);
    return NULL;
}

/* Waits for the end; the answer is the ticket's until ticket_end(). */
static inline struct tis_response *ticket_wait(struct ticket *t)
{
    struct timespec at = give_up_at();
    pthread_mutex_lock(&t->mutex);
    while (!t->done)
        assert_int_equal(pthread_cond_timedwait(&t->cond, &t->mutex, &at), 0);
    pthread_mutex_unlock(&t->mutex);
    struct tis_response *r = atomic_load(&t->response);
    assert_non_null(r);
    return r;
}

static inline void ticket_end(struct ticket *t)
{
    struct tis_response *r = atomic_load(&t->response);
    response_destroy(&r);
    request_free(&t->request);
}

#endif
