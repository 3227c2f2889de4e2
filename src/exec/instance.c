#include "exec/instance.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "exec/plugin_call.h"

/* The name of the group's host policy. */
static tis_error *policy_name(const Inference__ModelInstanceGroup *group,
                              TRITONSERVER_InstanceGroupKind kind, int32_t device_id,
                              struct bytes *out)
{
    if (*group->host_policy)
        bytes_append_str(out, group->host_policy);
    else if (kind == TRITONSERVER_INSTANCEGROUPKIND_GPU)
        bytes_printf(out, "gpu_%d", device_id);
    else
        bytes_append_str(out, kind == TRITONSERVER_INSTANCEGROUPKIND_MODEL ? "model" : "cpu");
    return out->failed ? error_no_memory() : NULL;
}

tis_error *instance_create(struct tis_version *v, struct model_config *config,
                           const Inference__ModelInstanceGroup *group, const char *name,
                           uint32_t index, TRITONSERVER_InstanceGroupKind kind, int32_t device_id,
                           struct tis_instance **ret_instance)
{
    struct tis_instance *i = calloc(1, sizeof(*i));
    struct bytes policy = { 0 }, json = { 0 };
    if (!i)
        return error_no_memory();
    i->version = v;
    i->config = config == v->config ? NULL : config_ref(config);
    atomic_init(&i->open, 1);
    i->group = group;
    i->index = index;
    i->kind = kind;
    i->device_id = device_id;
    i->name = strdup(name);
    tis_error *err = policy_name(group, kind, device_id, &policy);
    if (err)
        goto out;
    i->host_policy = host_policies_find(v->host_policies, bytes_str(&policy));
    host_policy_append_json(&json, bytes_str(&policy), i->host_policy);
    i->host_policy_json.len = json.len;
    i->host_policy_json.text = bytes_steal(&json);
    i->statistics = statistics_shard_open(&v->statistics);
    if (!i->name || !i->host_policy_json.text || !i->statistics) {
        err = error_no_memory();
        goto out;
    }

    if (v->limiter)
        err = error_wrap(limiter_join(v->limiter, &i->limits, group->rate_limiter, device_id),
                         "model '%s' instance '%s'", v->model_name, name);
    if (err)
        goto out;

    *ret_instance = i;
    i = NULL;
out:
    bytes_fini(&policy);
    bytes_fini(&json);
    instance_destroy(i);
    return err;
}

static void log_creation(const struct tis_instance *i)
{
    static const char *const devices[] = {
        [TRITONSERVER_INSTANCEGROUPKIND_AUTO] = "CPU",
        [TRITONSERVER_INSTANCEGROUPKIND_CPU] = "CPU",
        [TRITONSERVER_INSTANCEGROUPKIND_GPU] = "GPU",
        [TRITONSERVER_INSTANCEGROUPKIND_MODEL] = "devices of the model's choice",
    };
    const char *file = i->version->config->message->default_model_filename;
    char device[16] = "";
    if (i->kind == TRITONSERVER_INSTANCEGROUPKIND_GPU)
        snprintf(device, sizeof(device), " %d", i->device_id);
    log_info("Creating instance %s on %s%s%s%s model=%s version=%" PRId64, i->name,
             devices[i->kind], device, *file ? " using " : "", file, i->version->model_name,
             i->version->number);
}

tis_error *instance_initialize(struct tis_instance *i)
{
    struct tis_backend *b = i->version->backend;
    /* A failed initialize is still followed by finalize, as Triton does. */
    i->initialized = true;
    log_creation(i);
    if (!b->entries.instance_initialize)
        return NULL;
    plugin_call_begin("TRITONBACKEND_ModelInstanceInitialize", b->name, i->version->model_name,
                      i->version->number);
    tis_error *err = b->entries.instance_initialize(i);
    plugin_call_end();
    return err;
}

void instance_destroy(struct tis_instance *i)
{
    if (!i)
        return;
    struct tis_backend *b = i->version->backend;
    if (i->initialized && b->entries.instance_finalize) {
        plugin_call_begin("TRITONBACKEND_ModelInstanceFinalize", b->name, i->version->model_name,
                          i->version->number);
        tis_error *err = b->entries.instance_finalize(i);
        plugin_call_end();
        if (err)
            log_warning("instance finalize failed instance=%s error=\"%s\"", i->name,
                        error_text(err));
        error_free(err);
    }
    if (i->version->limiter)
        limiter_leave(i->version->limiter, &i->limits);
    statistics_shard_close(i->statistics);
    free(i->host_policy_json.text);
    config_unref(i->config);
    free(i->name);
    free(i);
}

/* Execute returned an error: the requests stayed with us, each is answered with it. A plug-in that
 * has released one before has broken its contract; that memory may have another use by now. */
static void fail_batch(struct tis_instance *i, const struct given *given, uint32_t count,
                       tis_error *err)
{
    uint64_t now = clock_ns();
    log_verbose("execute failed instance=%s requests=%u error=\"%s\"", i->name, count,
                error_text(err));
    for (uint32_t k = 0; k < count; k++) {
        struct tis_request *req = given[k].request;
        if (req->generation != given[k].generation ||
            !request_move(req, REQUEST_RUNNING, REQUEST_FAILING)) {
            log_error("backend misuse backend=%s model=%s: execute returned an error for a request "
                      "that it had released: %s",
                      i->version->backend->name, i->version->model_name, error_text(err));
            continue;
        }
        if (!atomic_load(&i->warming))
            statistics_add_failure(i->statistics, FAILURE_BACKEND, req->batch_size,
                                   now - req->stamps[STAMP_REQUEST_START]);
        request_fail(req, REQUEST_FAILING, error_copy(err));
    }
    error_free(err);
}

/* The last request of an instance that waits for its end is done. */
static void close_one(struct tis_instance *i)
{
    if (LIKELY(atomic_fetch_sub(&i->open, 1) > 1))
        return;
    struct tis_version *v = i->version;
    lock_take(&v->lock);
    i->is_unused = true;
    cond_broadcast(&v->changed);
    lock_release(&v->lock);
}

static void instance_done(struct sink *sink)
{
    close_one(sink->instance);
}

void instance_wait_unused(struct tis_instance *i)
{
    struct tis_version *v = i->version;
    close_one(i);
    lock_take(&v->lock);
    while (!i->is_unused)
        cond_wait(&v->changed, &v->lock);
    lock_release(&v->lock);
}

void instance_execute(struct tis_instance *i, struct tis_request **requests, uint32_t count,
                      struct given *given)
{
    struct tis_version *v = i->version;
    uint64_t now = clock_ns();
    for (uint32_t k = 0; k < count; k++) {
        given[k] = (struct given){ requests[k], requests[k]->generation };
        requests[k]->stamps[STAMP_COMPUTE_START] = now;
        requests[k]->sink->instance = i;
        requests[k]->sink->instance_done = instance_done;
        bool moved = request_move(requests[k], REQUEST_QUEUED, REQUEST_RUNNING);
        assert(moved);
    }
    atomic_fetch_add(&i->open, count);

    plugin_call_begin("TRITONBACKEND_ModelInstanceExecute", v->backend->name, v->model_name,
                      v->number);
    tis_error *err = v->backend->entries.execute(i, requests, count);
    plugin_call_end();
    if (err)
        fail_batch(i, given, count, err);
}
