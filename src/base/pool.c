#include "base/pool.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/lock.h"

struct pool {
    /* set at creation, then constant */
    pthread_t *threads;
    uint32_t thread_count;
    /* under lock */
    struct lock lock;
    struct cond work;
    struct cond idle;
    struct list jobs;
    uint32_t running;
    bool closing;
};

static void *pool_run(void *arg)
{
    struct pool *p = arg;
    lock_take(&p->lock);
    for (;;) {
        struct list *item = p->closing ? NULL : list_pop(&p->jobs);
        if (item) {
            struct pool_job *job = LIST_ENTRY(item, struct pool_job, link);
            p->running++;
            lock_release(&p->lock);
            job->run(job);
            lock_take(&p->lock);
            p->running--;
            if (p->running == 0 && list_is_empty(&p->jobs))
                cond_broadcast(&p->idle);
            continue;
        }
        if (p->closing)
            break;
        cond_wait(&p->work, &p->lock);
    }
    lock_release(&p->lock);
    return NULL;
}

tis_error *pool_create(const char *name, uint32_t thread_count, struct pool **ret_pool)
{
    struct pool *p = calloc(1, sizeof(*p));
    if (!p)
        return error_no_memory();
    lock_init(&p->lock, LOCK_POOL);
    cond_init(&p->work);
    cond_init(&p->idle);
    list_init(&p->jobs);
    p->threads = calloc(thread_count, sizeof(*p->threads));
    tis_error *err = p->threads ? NULL : error_no_memory();
    for (uint32_t i = 0; i < thread_count && !err; i++) {
        int rc = pthread_create(&p->threads[i], NULL, pool_run, p);
        if (rc != 0) {
            err = error_new(TRITONSERVER_ERROR_UNAVAILABLE, "cannot start thread '%s': %s", name,
                            strerror(rc));
        } else {
            pthread_setname_np(p->threads[i], name);
            p->thread_count++;
        }
    }
    if (err) {
        pool_destroy(p);
        return err;
    }
    *ret_pool = p;
    return NULL;
}

void pool_post(struct pool *p, struct pool_job *job)
{
    lock_take(&p->lock);
    list_init(&job->link);
    list_append(&p->jobs, &job->link);
    cond_signal(&p->work);
    lock_release(&p->lock);
}

bool pool_wait_idle(struct pool *p, uint64_t deadline_ns)
{
    lock_take(&p->lock);
    while ((p->running > 0 || !list_is_empty(&p->jobs)) && clock_ns() < deadline_ns)
        cond_wait_until(&p->idle, &p->lock, deadline_ns);
    bool idle = p->running == 0 && list_is_empty(&p->jobs);
    lock_release(&p->lock);
    return idle;
}

void pool_destroy(struct pool *p)
{
    if (!p)
        return;
    lock_take(&p->lock);
    p->closing = true;
    cond_broadcast(&p->work);
    lock_release(&p->lock);
    for (uint32_t i = 0; i < p->thread_count; i++)
        pthread_join(p->threads[i], NULL);
    cond_fini(&p->idle);
    cond_fini(&p->work);
    lock_fini(&p->lock);
    free(p->threads);
    free(p);
}
