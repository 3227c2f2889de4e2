#include "exec/version.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/processors.h"
#include "exec/batch_strategy.h"
#include "exec/groups.h"
#include "exec/instance.h"
#include "exec/plugin_call.h"
#include "exec/resources.h"
#include "exec/runner.h"
#include "infer/reason.h"
#include "infer/response.h"

static tis_error *model_initialize(struct tis_version *v)
{
    struct tis_backend *b = v->backend;
    if (!b->entries.model_initialize)
        return NULL;
    plugin_call_begin("TRITONBACKEND_ModelInitialize", b->name, v->model_name, v->number);
    v->initializing = true;
    tis_error *err = b->entries.model_initialize(v);
    v->initializing = false;
    plugin_call_end();
    return err;
}

static void model_finalize(struct tis_version *v)
{
    struct tis_backend *b = v->backend;
    if (!b || !b->entries.model_finalize)
        return;
    plugin_call_begin("TRITONBACKEND_ModelFinalize", b->name, v->model_name, v->number);
    tis_error *err = b->entries.model_finalize(v);
    plugin_call_end();
    if (err)
        log_warning("model finalize failed model=%s version=%" PRId64 " error=\"%s\"",
                    v->model_name, v->number, error_text(err));
    error_free(err);
}

struct config_context version_config_context(const struct tis_version *v)
{
    const struct tis_backend_attribute *attribute = &v->backend->attribute;
    return (struct config_context){
        .gpu_count = v->gpu_count,
        .processor_count = processors_usable(),
        .preferences = attribute->preferences,
        .preference_count = attribute->preference_count,
    };
}

/* A configuration without an instance group takes the one that its backend prefers, which is known only
 * now. */
static tis_error *set_preferred_groups(struct tis_version *v)
{
    const struct config_context context = version_config_context(v);
    struct config_builder *none = NULL, *builder = NULL;
    struct model_config *replaced = NULL;
    if (!v->config->instances_by_default || context.preference_count == 0)
        return NULL;
    tis_error *err = config_create_empty(&none);
    if (!err)
        err = config_edit_groups(v->config, none, &builder);
    if (!err)
        err = config_normalize(builder, &context);
    if (!err)
        err = config_finish(&builder, &replaced);
    config_builder_destroy(none);
    config_builder_destroy(builder);
    if (err)
        return err;
    config_unref(v->config);
    v->config = replaced;
    return NULL;
}

static tis_error *order_create(struct tis_version *v)
{
    const Inference__ModelConfig *pb = v->config->message;
    if (pb->scheduling_choice_case != INFERENCE__MODEL_CONFIG__SCHEDULING_CHOICE_DYNAMIC_BATCHING ||
        !pb->dynamic_batching->preserve_ordering)
        return NULL;
    v->order = calloc(1, sizeof(*v->order));
    if (!v->order)
        return error_no_memory();
    order_init(v->order);
    return NULL;
}

_Static_assert((int)CONFIG_METRIC_BUCKETS_MAX == (int)FIRST_RESPONSE_BOUNDS_MAX, "");

static void prepare_statistics(struct tis_version *v)
{
    const Inference__ModelMetrics *m = v->config->message->model_metrics;
    v->statistics.is_decoupled = v->config->decoupled;
    /* There is one family whose bounds can be set, and the configuration was checked. */
    for (size_t i = 0; m && i < m->n_metric_control; i++)
        statistics_set_first_response_bounds(
            &v->statistics, m->metric_control[i]->histogram_options->buckets,
            (uint32_t)m->metric_control[i]->histogram_options->n_buckets);
}

static tis_error *version_start(struct tis_version *v, const struct tis_version_options *options)
{
    const Inference__ModelConfig *pb = v->config->message;
    struct bytes version_directory = { 0 };
    bytes_printf(&version_directory, "%s/%" PRId64, v->directory, v->number);
    tis_error *err = backends_open(options->backends, pb->backend, pb->runtime, v->directory,
                                   bytes_str(&version_directory), &v->backend);
    if (err)
        goto out;

    err = set_preferred_groups(v);
    if (!err)
        err = model_initialize(v);
    prepare_statistics(v);
    if (!err) { /* what the backend has completed, and the groups that it prefers */
        const struct config_context context = version_config_context(v);
        err = config_check(v->config, &context);
    }
    if (!err)
        err = batch_strategy_create(v, options->backends, bytes_str(&version_directory),
                                    &v->strategy);
    if (!err)
        err = scheduler_create(v->config, &v->scheduler);
    if (!err)
        err = order_create(v);
    if (!err)
        err = groups_apply(v, v->config);
out:
    bytes_fini(&version_directory);
    return err;
}

tis_error *version_create(const struct tis_version_options *options,
                          struct tis_version **ret_version)
{
    struct tis_version *v = calloc(1, sizeof(*v));
    if (!v)
        return error_no_memory();
    atomic_init(&v->refs, 1);
    lock_init(&v->lock, LOCK_VERSION);
    cond_init(&v->changed);
    alarm_init(&v->alarm, options->alarms, version_ring);
    v->alarm_ns = SCHEDULER_NEVER;
    v->held_until = options->held_until;
    statistics_init(&v->statistics);
    v->number = options->number;
    v->server = options->server;
    v->hooks = options->hooks;
    v->host_policies = options->host_policies;
    v->gpu_count = options->gpu_count;
    v->limiter = options->limiter;
    v->auto_complete_config = options->auto_complete_config;
    v->on_unused = options->on_unused;
    v->on_unused_arg = options->on_unused_arg;
    v->config = config_ref(options->config);
    v->model_name = strdup(options->model_name);
    v->directory = strdup(options->directory);

    tis_error *err = v->model_name && v->directory ? version_start(v, options) : error_no_memory();
    if (err) {
        version_destroy(v);
        return err;
    }
    *ret_version = v;
    return NULL;
}

void version_destroy(struct tis_version *v)
{
    if (!v)
        return;
    groups_end(v);
    alarm_stop(&v->alarm);
    batch_strategy_destroy(v->strategy);
    model_finalize(v);

    if (v->scheduler)
        v->scheduler->ops->destroy(v->scheduler);
    if (v->order)
        order_fini(v->order);
    free(v->order);
    statistics_fini(&v->statistics);
    cond_fini(&v->changed);
    lock_fini(&v->lock);
    config_unref(v->config);
    config_unref(v->config_shown);
    free(v->model_name);
    free(v->directory);
    free(v);
}

struct tis_version *version_ref(struct tis_version *v)
{
    atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
    return v;
}

void version_unref(struct tis_version *v)
{
    if (v && atomic_fetch_sub(&v->refs, 1) == 1)
        v->on_unused(v, v->on_unused_arg);
}

/* A request that the scheduler gave back, or did not take, will not run. */
static void count_failure(struct tis_version *v, const struct tis_request *req,
                          enum failure_kind kind)
{
    statistics_add_failure(&v->statistics.own, kind, req->batch_size,
                           clock_ns() - req->stamps[STAMP_REQUEST_START]);
}

static void first_response(struct sink *sink, const struct tis_response *response)
{
    if (!response->error)
        statistics_add_first_response(&sink->version->statistics, clock_ns() - sink->start_ns);
}

/* Is there more than the runners that were woken will see to? Each takes as much as it can; then it, or
 * the one that finds nothing, looks what is left. */
static bool has_work_for_idle(struct tis_version *v)
{
    return v->idle && !version_is_held(v) &&
           v->scheduler->waiting > (uint64_t)v->waking * v->scheduler->requests_max;
}

/* One that rings early looks again: cheaper than setting it for each batch. */
static void ring_until(struct tis_version *v, uint64_t latest_ns)
{
    if (latest_ns >= v->alarm_ns)
        return;
    v->alarm_ns = latest_ns;
    alarm_set(&v->alarm, latest_ns);
}

tis_error *version_submit(struct tis_version *v, struct tis_request **req)
{
    struct sink *sink = (*req)->sink;
    uint64_t now_ns = clock_ns();
    sink->version = version_ref(v);
    sink->version_unref = version_unref;
    sink->start_ns = (*req)->stamps[STAMP_REQUEST_START];
    sink->first_response = v->config->decoupled ? first_response : NULL;

    lock_take(&v->lock);
    if (v->order) /* before anybody can take it */
        order_join(v->order, sink);
    tis_error *err = v->scheduler->ops->put(v->scheduler, req, now_ns);
    if (err && v->order)
        order_leave(sink);
    ring_until(v, v->scheduler->expiry_ns);
    lock_release(&v->lock);
    if (err) { /* the caller may try elsewhere */
        sink->version = NULL;
        count_failure(v, *req, FAILURE_REJECTED);
        version_unref(v);
    }
    return err;
}

bool version_is_held(struct tis_version *v)
{
    if (v->scheduler->waiting >= v->held_until)
        v->held_until = 0;
    return v->held_until > 0 || v->choosing;
}

struct tis_runner *version_take_idle(struct tis_version *v)
{
    struct scheduler *s = v->scheduler;
    struct tis_runner *idle = v->idle;
    if (!has_work_for_idle(v))
        return NULL;
    uint64_t now_ns = clock_ns();
    uint64_t ready_ns = s->ops->ready_ns(s, now_ns);
    if (ready_ns > now_ns) {
        ring_until(v, ready_ns);
        return NULL;
    }
    if (v->limiter)
        idle = resources_find_idle(v);
    if (!idle)
        return NULL;
    v->idle = idle->idle_next;
    v->waking++;
    return idle;
}

void version_set_alarm(struct tis_version *v)
{
    struct scheduler *s = v->scheduler;
    ring_until(v, s->expiry_ns);
    if (has_work_for_idle(v))
        ring_until(v, s->ops->ready_ns(s, clock_ns()));
}

void version_wake(struct tis_version *v)
{
    lock_take(&v->lock);
    struct tis_runner *idle = version_take_idle(v);
    lock_release(&v->lock);
    if (idle)
        park_wake(&idle->park);
}

void version_hurry(struct tis_version *v)
{
    lock_take(&v->lock);
    v->held_until = 0;
    v->scheduler->ops->hurry(v->scheduler);
    struct tis_runner *idle = version_take_idle(v);
    lock_release(&v->lock);
    if (idle)
        park_wake(&idle->park);
}

/* Refuses what has waited too long, all of it before an idle instance is woken for the rest; one that ends a
 * batch meanwhile may still take some. An answer is a message to a loop: about a microsecond. */
static void expire(struct tis_version *v, uint64_t now_ns)
{
    enum {
        AT_ONCE = 64
    };
    struct tis_request *expired[AT_ONCE];
    uint32_t count = AT_ONCE;
    while (count == AT_ONCE) {
        lock_take(&v->lock);
        count = v->scheduler->ops->expire(v->scheduler, now_ns, expired, AT_ONCE);
        lock_release(&v->lock);
        for (uint32_t i = 0; i < count; i++) {
            count_failure(v, expired[i], FAILURE_REJECTED);
            request_fail(expired[i], REQUEST_QUEUED,
                         reason_error_args(REASON_QUEUE_TIMEOUT, NULL, 0));
        }
    }
}

void version_ring(struct alarm *a, uint64_t now_ns)
{
    struct tis_version *v = CONTAINER_OF(a, struct tis_version, alarm);
    expire(v, now_ns);
    lock_take(&v->lock);
    v->alarm_ns = SCHEDULER_NEVER;
    struct tis_runner *idle = version_take_idle(v);
    ring_until(v, v->scheduler->expiry_ns);
    lock_release(&v->lock);
    if (idle)
        park_wake(&idle->park);
}

void version_answer_cancelled(struct tis_version *v, struct tis_request *req)
{
    count_failure(v, req, FAILURE_CANCELED);
    request_fail(req, REQUEST_QUEUED, reason_error_args(REASON_CANCELLED, NULL, 0));
}

void version_cancel(struct tis_version *v, struct tis_request *req)
{
    atomic_store(&req->sink->cancelled, true);
    lock_take(&v->lock);
    bool waiting = v->scheduler->ops->cancel(v->scheduler, req);
    /* Without it the others may be a batch. */
    struct tis_runner *idle = waiting ? version_take_idle(v) : NULL;
    lock_release(&v->lock);
    if (idle)
        park_wake(&idle->park);
    if (!waiting)
        return;
    version_answer_cancelled(v, req);
}

uint32_t version_pending(struct tis_version *v)
{
    lock_take(&v->lock);
    uint32_t waiting = v->scheduler->waiting;
    lock_release(&v->lock);
    return waiting;
}

tis_error *version_set_groups(struct tis_version *v, struct model_config *config)
{
    tis_error *err = groups_apply(v, config);
    if (err)
        return err;
    lock_take(&v->lock);
    struct model_config *before = v->config_shown;
    v->config_shown = config_ref(config);
    uint32_t runners = v->runner_count;
    lock_release(&v->lock);
    config_unref(before);
    log_info("instances changed model=%s version=%" PRId64 " threads=%u", v->model_name, v->number,
             runners);
    return NULL;
}

struct model_config *version_config(struct tis_version *v)
{
    lock_take(&v->lock);
    struct model_config *config = config_ref(v->config_shown ? v->config_shown : v->config);
    lock_release(&v->lock);
    return config;
}

void version_name_instance(struct tis_version *v, char *out, size_t out_bytes)
{
    lock_take(&v->lock);
    snprintf(out, out_bytes, "%s",
             v->runner_count > 0 ? v->runners[0]->instances[0]->name : v->model_name);
    lock_release(&v->lock);
}

/* While v->asking[] counts the caller. */
static bool instance_is_ready(struct tis_instance *i)
{
    struct tis_version *v = i->version;
    plugin_call_begin("TRITONBACKEND_ModelInstanceReady", v->backend->name, v->model_name,
                      v->number);
    tis_error *err = v->backend->entries.instance_ready(i);
    plugin_call_end();
    bool ready = err == NULL;
    error_free(err);
    return ready;
}

bool version_is_ready(struct tis_version *v)
{
    bool ready = true;
    if (!v->backend->entries.instance_ready)
        return true;
    /* The instances may change meanwhile; these stay until nobody asks them any more. */
    lock_take(&v->lock);
    uint32_t *asking = &v->asking[v->list_number % 2];
    (*asking)++;
    struct tis_runner *const *runners = v->runners;
    uint32_t count = v->runner_count;
    lock_release(&v->lock);
    for (uint32_t r = 0; r < count && ready; r++)
        for (uint32_t i = 0; i < runners[r]->instance_count && ready; i++)
            ready = instance_is_ready(runners[r]->instances[i]);
    lock_take(&v->lock);
    if (--*asking == 0)
        cond_broadcast(&v->changed);
    lock_release(&v->lock);
    return ready;
}
