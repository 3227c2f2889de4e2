#include "exec/version.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "exec/instance.h"
#include "exec/plugin_call.h"
#include "infer/reason.h"

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

/* The configuration and the plug-in API number the kinds differently. A normalised configuration has
 * no KIND_AUTO. */
static TRITONSERVER_InstanceGroupKind instance_kind(Inference__ModelInstanceGroup__Kind kind)
{
    switch (kind) {
    case INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_GPU:
        return TRITONSERVER_INSTANCEGROUPKIND_GPU;
    case INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_MODEL:
        return TRITONSERVER_INSTANCEGROUPKIND_MODEL;
    default:
        return TRITONSERVER_INSTANCEGROUPKIND_CPU;
    }
}

/* Group by group, one instance after the other: count instances, on each listed GPU for KIND_GPU. */
static tis_error *instances_create(struct tis_version *v)
{
    const Inference__ModelConfig *pb = v->config->message;
    size_t total = 0;
    for (size_t g = 0; g < pb->n_instance_group; g++) {
        const Inference__ModelInstanceGroup *group = pb->instance_group[g];
        size_t devices = group->n_gpus > 0 ? group->n_gpus : 1;
        total += (size_t)group->count * devices;
    }
    v->instances = calloc(total, sizeof(*v->instances));
    if (!v->instances)
        return error_no_memory();

    for (size_t g = 0; g < pb->n_instance_group; g++) {
        const Inference__ModelInstanceGroup *group = pb->instance_group[g];
        size_t devices = group->n_gpus > 0 ? group->n_gpus : 1;
        TRITONSERVER_InstanceGroupKind kind = instance_kind(group->kind);
        for (size_t d = 0; d < devices; d++) {
            for (int32_t c = 0; c < group->count; c++) {
                struct bytes name = { 0 };
                bytes_printf(&name, "%s_%d", group->name, c);
                tis_error *err = instance_create(v, group, bytes_str(&name), v->instance_count,
                                                 kind, group->n_gpus > 0 ? group->gpus[d] : 0,
                                                 &v->instances[v->instance_count]);
                bytes_fini(&name);
                if (err)
                    return err;
                v->instance_count++;
            }
        }
    }
    return NULL;
}

static tis_error *version_start(struct tis_version *v, const struct tis_version_options *options)
{
    const Inference__ModelConfig *pb = v->config->message;
    struct bytes version_directory = { 0 };
    bytes_printf(&version_directory, "%s/%" PRId64, v->directory, v->number);
    tis_error *err = backends_open(options->backends, pb->backend, pb->runtime, v->directory,
                                   bytes_str(&version_directory), &v->backend);
    bytes_fini(&version_directory);
    if (err)
        return err;

    err = model_initialize(v);
    if (!err && v->auto_complete_config) {
        static const struct config_context context = { .gpu_count = 0 };
        err = config_check(v->config, &context);
    }
    if (!err)
        err = instances_create(v);
    if (!err)
        err = fifo_create(&v->scheduler);
    for (uint32_t i = 0; i < v->instance_count && !err; i++)
        err = instance_start(v->instances[i]);
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
    statistics_init(&v->statistics);
    v->number = options->number;
    v->server = options->server;
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
    lock_take(&v->lock);
    v->closing = true;
    if (v->scheduler)
        v->scheduler->ops->close(v->scheduler);
    struct tis_instance *idle = v->idle;
    v->idle = NULL;
    lock_release(&v->lock);
    for (struct tis_instance *next; idle; idle = next) {
        next = idle->idle_next; /* the instance may be idle, and linked, no longer once woken */
        park_wake(&idle->park);
    }

    for (uint32_t i = 0; i < v->instance_count; i++)
        instance_join(v->instances[i]);
    for (uint32_t i = 0; i < v->instance_count; i++)
        instance_destroy(v->instances[i]);
    free(v->instances);
    model_finalize(v);

    if (v->scheduler)
        v->scheduler->ops->destroy(v->scheduler);
    statistics_fini(&v->statistics);
    lock_fini(&v->lock);
    config_unref(v->config);
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

tis_error *version_submit(struct tis_version *v, struct tis_request **req)
{
    struct sink *sink = (*req)->sink;
    uint64_t now = clock_ns();
    (*req)->stamps[STAMP_QUEUE_START] = now;
    sink->version = version_ref(v);
    sink->version_unref = version_unref;

    lock_take(&v->lock);
    tis_error *err = v->scheduler->ops->put(v->scheduler, req, now);
    lock_release(&v->lock);
    if (err) { /* the caller may try elsewhere */
        sink->version = NULL;
        version_unref(v);
    }
    return err;
}

void version_wake(struct tis_version *v)
{
    struct tis_instance *idle = NULL;
    lock_take(&v->lock);
    if (v->scheduler->waiting > 0 && v->idle) {
        idle = v->idle;
        v->idle = idle->idle_next;
    }
    lock_release(&v->lock);
    if (idle)
        park_wake(&idle->park);
}

void version_cancel(struct tis_version *v, struct tis_request *req)
{
    atomic_store(&req->sink->cancelled, true);
    lock_take(&v->lock);
    bool waiting = v->scheduler->ops->cancel(v->scheduler, req);
    lock_release(&v->lock);
    if (!waiting)
        return;
    statistics_add_failure(&v->statistics, req->batch_size,
                           clock_ns() - req->stamps[STAMP_REQUEST_START]);
    request_fail(req, REQUEST_QUEUED, reason_error_args(REASON_CANCELLED, NULL, 0));
}

bool version_is_ready(struct tis_version *v)
{
    struct tis_backend *b = v->backend;
    bool ready = true;
    for (uint32_t i = 0; b->entries.instance_ready && i < v->instance_count && ready; i++) {
        plugin_call_begin("TRITONBACKEND_ModelInstanceReady", b->name, v->model_name, v->number);
        tis_error *err = b->entries.instance_ready(v->instances[i]);
        plugin_call_end();
        ready = err == NULL;
        error_free(err);
    }
    return ready;
}
