#include "exec/runner.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "exec/batch_strategy.h"
#include "exec/resources.h"
#include "exec/warmup.h"

enum {
    SIGNAL_STACK_BYTES = 64 << 10
};

tis_error *runner_create(struct tis_version *v, uint32_t count, struct tis_runner **ret_runner)
{
    struct tis_runner *r = calloc(1, sizeof(*r));
    if (!r)
        return error_no_memory();
    uint32_t max = v->scheduler->requests_max;
    r->version = v;
    r->instances = calloc(count, sizeof(struct tis_instance *));
    list_init(&r->granted);
    r->requests = calloc(max, sizeof(struct tis_request *));
    r->given = calloc(max, sizeof(*r->given));
    if (!r->instances || !r->requests || !r->given) {
        runner_destroy(r);
        return error_no_memory();
    }
    *ret_runner = r;
    return NULL;
}

void runner_add(struct tis_runner *r, struct tis_instance *instance)
{
    r->instances[r->instance_count++] = instance;
    instance->runner = r;
}

void runner_destroy(struct tis_runner *r)
{
    if (!r)
        return;
    for (uint32_t i = 0; i < r->instance_count; i++)
        instance_destroy(r->instances[i]);
    free(r->instances);
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

/* The nice values of 0.9. A child of a thread inherits its nice, so the threads that an engine makes for
 * an instance have it too. */
static int nice_of(const struct model_config *config)
{
    const Inference__ModelOptimizationPolicy *o = config->message->optimization;
    if (o && o->priority == INFERENCE__MODEL_OPTIMIZATION_POLICY__MODEL_PRIORITY__PRIORITY_MAX)
        return 0;
    if (o && o->priority == INFERENCE__MODEL_OPTIMIZATION_POLICY__MODEL_PRIORITY__PRIORITY_MIN)
        return 19;
    return 5;
}

/* A server that was started with a higher nice value may not go below it without privileges: its models
 * then run as it does. */
static void set_nice(int nice)
{
    static _Atomic bool was_refused; /* by the process's rights: once is enough */
    id_t thread = (id_t)gettid();
    if (setpriority(PRIO_PROCESS, thread, nice) == 0)
        return;
    int reason = errno;
    if (!atomic_exchange(&was_refused, true))
        log_warning("cannot run a model at nice %d: %s; it stays at %d, and so do others whose "
                    "optimization.priority asks for more than this process may have",
                    nice, strerror(reason), getpriority(PRIO_PROCESS, thread));
}

/* Before the plug-in hears of the instances: what it makes for them shall be in the same place. */
static void take_place(struct tis_runner *r)
{
    struct tis_version *v = r->version;
    const struct tis_instance *first = r->instances[0];
    struct bytes place = { 0 };

    set_nice(nice_of(v->config));
    tis_error *err = host_policy_apply(first->host_policy);
    if (err)
        log_warning("instance %s runs where the server does: %s", first->name, error_text(err));
    else
        host_policy_describe(&place, first->host_policy);
    error_free(err);
    log_info("Starting runner thread %" PRIu32 " at nice %d... model=%s version=%" PRId64 "%s",
             first->index, getpriority(PRIO_PROCESS, (id_t)gettid()), v->model_name, v->number,
             bytes_str(&place));
    bytes_fini(&place);
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
    cond_broadcast(&v->changed);
    lock_release(&v->lock);
    return is_good;
}

/* Under the version's lock, which is free while the model's strategy looks at the requests that were
 * taken. Nobody takes others meanwhile: those it refuses are again the first. */
static uint32_t choose(struct tis_runner *r, uint32_t count)
{
    struct tis_version *v = r->version;
    v->choosing = true;
    lock_release(&v->lock);
    uint32_t chosen = batch_strategy_choose(v->strategy, r->requests, count);
    lock_take(&v->lock);
    v->choosing = false;
    uint32_t left = chosen;
    uint32_t cancelled = 0;
    for (uint32_t i = chosen; i < count; i++) {
        /* version_cancel() did not find it waiting. From here on it will. */
        if (atomic_load(&r->requests[i]->sink->cancelled))
            r->given[cancelled++].request = r->requests[i];
        else
            r->requests[left++] = r->requests[i];
    }
    if (left > chosen)
        v->scheduler->ops->put_back(v->scheduler, r->requests + chosen, left - chosen);
    if (cancelled == 0)
        return chosen;
    lock_release(&v->lock);
    for (uint32_t i = 0; i < cancelled; i++)
        version_answer_cancelled(v, r->given[i].request);
    lock_take(&v->lock);
    return chosen;
}

/* Under the version's lock, which is free while the batch runs. False when there is none. */
static bool run_next(struct tis_runner *r)
{
    struct tis_version *v = r->version;
    struct scheduler *s = v->scheduler;
    struct tis_instance *i = r->instances[r->turn];
    uint32_t count = 0;
    if (!version_is_held(v) && (!v->limiter || resources_get(r)))
        count = s->ops->take(s, i->index, r->requests, s->requests_max, clock_ns());
    if (count == 0) {
        if (v->limiter && !r->waits)
            resources_give_back(r);
        return false;
    }
    if (v->strategy)
        count = choose(r, count);

    if (v->limiter)
        resources_use(r);
    r->turn = (r->turn + 1) % r->instance_count;
    struct tis_runner *other = version_take_idle(v);
    if (v->strategy && !other) /* what was put back is ready later */
        version_set_alarm(v);
    lock_release(&v->lock);
    resources_wake(&r->granted);
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
    while (!r->is_leaving) {
        if (run_next(r))
            continue;
        if (!r->waits) {
            park_prepare(&r->park);
            r->idle_next = v->idle;
            v->idle = r;
        }
        version_set_alarm(v);
        lock_release(&v->lock);
        resources_wake(&r->granted);
        park_wait(&r->park);
        lock_take(&v->lock);
        if (r->waits)
            r->waits = false;
        else
            v->waking--;
    }
    if (v->limiter)
        resources_give_back(r);
    /* What it may have been woken for is for another. */
    struct tis_runner *other = version_take_idle(v);
    version_set_alarm(v);
    lock_release(&v->lock);
    resources_wake(&r->granted);
    if (other)
        park_wake(&other->park);
}

static void *runner_run(void *arg)
{
    struct tis_runner *r = arg;
    void *signal_stack = signal_stack_begin();
    char name[16];
    snprintf(name, sizeof(name), "run:%s", r->instances[0]->name);
    pthread_setname_np(pthread_self(), name); /* the engine's threads inherit this too */
    take_place(r);
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
    return NULL;
}

tis_error *runner_wait_ready(struct tis_runner *r)
{
    struct tis_version *v = r->version;
    lock_take(&v->lock);
    while (!r->is_ready)
        cond_wait(&v->changed, &v->lock);
    tis_error *err = r->error;
    r->error = NULL;
    lock_release(&v->lock);
    return err;
}

void runner_leave(struct tis_runner *r)
{
    struct tis_version *v = r->version;
    struct list granted;
    list_init(&granted);
    lock_take(&v->lock);
    r->is_leaving = true;
    if (v->limiter)
        resources_recall(r, &granted);
    struct tis_runner **at = &v->idle;
    while (*at && *at != r)
        at = &(*at)->idle_next;
    bool was_idle = *at == r;
    if (was_idle) {
        *at = r->idle_next;
        v->waking++;
    }
    lock_release(&v->lock);
    resources_wake(&granted);
    if (was_idle)
        park_wake(&r->park);
}

void runner_join(struct tis_runner *r)
{
    if (!r->thread_started)
        return;
    pthread_join(r->thread, NULL);
    r->thread_started = false;
    for (uint32_t i = 0; i < r->instance_count; i++)
        instance_wait_unused(r->instances[i]);
}
