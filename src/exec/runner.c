#include "exec/runner.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "exec/warmup.h"

enum {
    SIGNAL_STACK_BYTES = 64 << 10
};

tis_error *runner_create(struct tis_version *v, struct tis_instance **instances, uint32_t count,
                         struct tis_runner **ret_runner)
{
    struct tis_runner *r = calloc(1, sizeof(*r));
    if (!r)
        return error_no_memory();
    uint32_t max = v->scheduler->requests_max;
    r->version = v;
    r->instances = instances;
    r->instance_count = count;
    r->requests = calloc(max, sizeof(struct tis_request *));
    r->given = calloc(max, sizeof(*r->given));
    if (!r->requests || !r->given) {
        runner_destroy(r);
        return error_no_memory();
    }
    *ret_runner = r;
    return NULL;
}

void runner_destroy(struct tis_runner *r)
{
    if (!r)
        return;
    error_free(r->error);
    free(r->requests);
    free(r->given);
    free(r);
}

/* ---- The thread ---- */

/* A plug-in that overflows its stack can be reported only from another one. */
static void *signal_stack_begin(void)
{
    stack_t stack = { .ss_sp = malloc(SIGNAL_STACK_BYTES), .ss_size = SIGNAL_STACK_BYTES };
    if (stack.ss_sp)
        sigaltstack(&stack, NULL);
    return stack.ss_sp;
}

static void signal_stack_end(void *memory)
{
    stack_t none = { .ss_flags = SS_DISABLE };
    sigaltstack(&none, NULL);
    free(memory);
}

/* False when they cannot be used. */
static bool make_ready(struct tis_runner *r)
{
    struct tis_version *v = r->version;
    tis_error *err = NULL;
    for (uint32_t i = 0; i < r->instance_count && !err; i++) {
        err = instance_initialize(r->instances[i]);
        if (!err && v->config->message->n_model_warmup > 0)
            err = warmup_run(r->instances[i]);
    }
    bool is_good = err == NULL;

    lock_take(&v->lock);
    r->error = err;
    r->is_ready = true;
    cond_broadcast(&v->runner_ready);
    lock_release(&v->lock);
    return is_good;
}

/* Under the version's lock, which is free while the batch runs. False when there is none. */
static bool run_next(struct tis_runner *r)
{
    struct tis_version *v = r->version;
    struct scheduler *s = v->scheduler;
    struct tis_instance *i = r->instances[r->turn];
    if (version_is_held(v))
        return false;
    uint32_t count = s->ops->take(s, i->index, r->requests, s->requests_max, clock_ns());
    if (count == 0)
        return false;

    r->turn = (r->turn + 1) % r->instance_count;
    struct tis_runner *other = version_take_idle(v);
    lock_release(&v->lock);
    if (other) /* there is more than this one can run now */
        park_wake(&other->park);
    instance_execute(i, r->requests, count, r->given);
    lock_take(&v->lock);
    return true;
}

static void run_all(struct tis_runner *r)
{
    struct tis_version *v = r->version;
    lock_take(&v->lock);
    for (;;) {
        if (run_next(r))
            continue;
        if (v->closing)
            break;
        park_prepare(&r->park);
        r->idle_next = v->idle;
        v->idle = r;
        version_set_alarm(v);
        lock_release(&v->lock);
        park_wait(&r->park);
        lock_take(&v->lock);
        v->waking--;
    }
    lock_release(&v->lock);
}

static void *runner_run(void *arg)
{
    struct tis_runner *r = arg;
    void *signal_stack = signal_stack_begin();
    if (make_ready(r))
        run_all(r);
    signal_stack_end(signal_stack);
    return NULL;
}

tis_error *runner_start(struct tis_runner *r)
{
    const char *name = r->instances[0]->name;
    int rc = pthread_create(&r->thread, NULL, runner_run, r);
    if (rc != 0)
        return error_new(TRITONSERVER_ERROR_UNAVAILABLE,
                         "cannot start the thread of instance '%s': %s", name, strerror(rc));
    r->thread_started = true;

    char thread_name[16];
    snprintf(thread_name, sizeof(thread_name), "run:%s", name);
    pthread_setname_np(r->thread, thread_name);
    return NULL;
}

tis_error *runner_wait_ready(struct tis_runner *r)
{
    struct tis_version *v = r->version;
    lock_take(&v->lock);
    while (!r->is_ready)
        cond_wait(&v->runner_ready, &v->lock);
    tis_error *err = r->error;
    r->error = NULL;
    lock_release(&v->lock);
    return err;
}

void runner_join(struct tis_runner *r)
{
    if (r->thread_started)
        pthread_join(r->thread, NULL);
    r->thread_started = false;
}
