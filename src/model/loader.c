#include "model/loader.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/lock.h"

struct loader {
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

static void *loader_run(void *arg)
{
    struct loader *l = arg;
    lock_take(&l->lock);
    for (;;) {
        struct list *item = l->closing ? NULL : list_pop(&l->jobs);
        if (item) {
            struct loader_job *job = LIST_ENTRY(item, struct loader_job, link);
            l->running++;
            lock_release(&l->lock);
            job->run(job);
            lock_take(&l->lock);
            l->running--;
            if (l->running == 0 && list_is_empty(&l->jobs))
                cond_broadcast(&l->idle);
            continue;
        }
        if (l->closing)
            break;
        cond_wait(&l->work, &l->lock);
    }
    lock_release(&l->lock);
    return NULL;
}

tis_error *loader_create(uint32_t thread_count, struct loader **ret_loader)
{
    struct loader *l = calloc(1, sizeof(*l));
    if (!l)
        return error_no_memory();
    lock_init(&l->lock, LOCK_LOADER);
    cond_init(&l->work);
    cond_init(&l->idle);
    list_init(&l->jobs);
    l->threads = calloc(thread_count, sizeof(*l->threads));
    tis_error *err = l->threads ? NULL : error_no_memory();
    for (uint32_t i = 0; i < thread_count && !err; i++) {
        int rc = pthread_create(&l->threads[i], NULL, loader_run, l);
        if (rc != 0) {
            err = error_new(TRITONSERVER_ERROR_UNAVAILABLE, "cannot start a loading thread: %s",
                            strerror(rc));
        } else {
            pthread_setname_np(l->threads[i], "loader");
            l->thread_count++;
        }
    }
    if (err) {
        loader_destroy(l);
        return err;
    }
    *ret_loader = l;
    return NULL;
}

void loader_post(struct loader *l, struct loader_job *job)
{
    lock_take(&l->lock);
    list_init(&job->link);
    list_append(&l->jobs, &job->link);
    cond_signal(&l->work);
    lock_release(&l->lock);
}

bool loader_wait_idle(struct loader *l, uint64_t deadline_ns)
{
    lock_take(&l->lock);
    while ((l->running > 0 || !list_is_empty(&l->jobs)) && clock_ns() < deadline_ns)
        cond_wait_until(&l->idle, &l->lock, deadline_ns);
    bool idle = l->running == 0 && list_is_empty(&l->jobs);
    lock_release(&l->lock);
    return idle;
}

void loader_destroy(struct loader *l)
{
    if (!l)
        return;
    lock_take(&l->lock);
    l->closing = true;
    cond_broadcast(&l->work);
    lock_release(&l->lock);
    for (uint32_t i = 0; i < l->thread_count; i++)
        pthread_join(l->threads[i], NULL);
    cond_fini(&l->idle);
    cond_fini(&l->work);
    lock_fini(&l->lock);
    free(l->threads);
    free(l);
}
