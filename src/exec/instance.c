#include "exec/instance.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "exec/plugin_call.h"

tis_error *instance_create(struct tis_version *v, const Inference__ModelInstanceGroup *group,
                           const char *name, uint32_t index, TRITONSERVER_InstanceGroupKind kind,
                           int32_t device_id, struct tis_instance **ret_instance)
{
    static const char *const policies[] = {
        [TRITONSERVER_INSTANCEGROUPKIND_AUTO] = "cpu",
        [TRITONSERVER_INSTANCEGROUPKIND_CPU] = "cpu",
        [TRITONSERVER_INSTANCEGROUPKIND_GPU] = "gpu",
        [TRITONSERVER_INSTANCEGROUPKIND_MODEL] = "model",
    };
    tis_error *err = NULL;
    struct tis_instance *i = calloc(1, sizeof(*i));
    struct bytes policy = { 0 };
    if (!i)
        return error_no_memory();
    i->version = v;
    i->group = group;
    i->index = index;
    i->kind = kind;
    i->device_id = device_id;
    i->name = strdup(name);
    bytes_printf(&policy, "{\"%s", policies[kind]);
    if (kind == TRITONSERVER_INSTANCEGROUPKIND_GPU)
        bytes_printf(&policy, "_%d", device_id);
    bytes_append_str(&policy, "\":{}}");
    i->host_policy.len = policy.len;
    i->host_policy.text = bytes_steal(&policy);
    i->statistics = statistics_shard_open(
        &v->statistics, kind == TRITONSERVER_INSTANCEGROUPKIND_GPU ? device_id : DEVICE_CPU);
    if (!i->name || !i->host_policy.text || !i->statistics) {
        err = error_no_memory();
        goto out;
    }

    *ret_instance = i;
    i = NULL;
out:
    instance_destroy(i);
    return err;
}

tis_error *instance_initialize(struct tis_instance *i)
{
    struct tis_backend *b = i->version->backend;
    /* A failed initialize is still followed by finalize, as Triton does. */
    i->initialized = true;
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
    statistics_shard_close(i->statistics);
    free(i->host_policy.text);
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

void instance_execute(struct tis_instance *i, struct tis_request **requests, uint32_t count,
                      struct given *given)
{
    struct tis_version *v = i->version;
    uint64_t now = clock_ns();
    for (uint32_t k = 0; k < count; k++) {
        given[k] = (struct given){ requests[k], requests[k]->generation };
        requests[k]->stamps[STAMP_COMPUTE_START] = now;
        bool moved = request_move(requests[k], REQUEST_QUEUED, REQUEST_RUNNING);
        assert(moved);
    }

    plugin_call_begin("TRITONBACKEND_ModelInstanceExecute", v->backend->name, v->model_name,
                      v->number);
    tis_error *err = v->backend->entries.execute(i, requests, count);
    plugin_call_end();
    if (err)
        fail_batch(i, given, count, err);
}
