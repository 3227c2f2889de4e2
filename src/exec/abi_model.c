/* The TRITONBACKEND_ functions about backends, models and instances. The contracts stand in
 * include/tis/backend.h. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "exec/backend.h"
#include "exec/plugin_call.h"
#include "exec/version.h"
#include "infer/response.h"
#include "tis/backend.h"

enum {
    API_MAJOR = 1,
    API_MINOR = 19,
    CONFIG_VERSION = 1,
};

TRITONSERVER_Error *TRITONBACKEND_ApiVersion(uint32_t *major, uint32_t *minor)
{
    *major = API_MAJOR;
    *minor = API_MINOR;
    return NULL;
}

/* ---- Memory ---- */

struct tis_memory_manager {
    char unused; /* one object a process: CPU memory needs no state */
};

static struct tis_memory_manager memory_manager;

TRITONSERVER_Error *TRITONBACKEND_MemoryManagerAllocate(TRITONBACKEND_MemoryManager *manager,
                                                        void **buffer,
                                                        TRITONSERVER_MemoryType memory_type,
                                                        int64_t memory_type_id, uint64_t byte_size)
{
    (void)manager;
    if (memory_type != TRITONSERVER_MEMORY_CPU)
        return error_new(TRITONSERVER_ERROR_UNSUPPORTED,
                         "memory of type %s (device %" PRId64 ") is not available on this server, "
                         "only CPU",
                         TRITONSERVER_MemoryTypeString(memory_type), memory_type_id);
    void *memory = malloc(byte_size ? byte_size : 1);
    if (!memory)
        return error_no_memory();
    *buffer = memory;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_MemoryManagerFree(TRITONBACKEND_MemoryManager *manager,
                                                    void *buffer,
                                                    TRITONSERVER_MemoryType memory_type,
                                                    int64_t memory_type_id)
{
    (void)manager;
    (void)memory_type;
    (void)memory_type_id;
    free(buffer);
    return NULL;
}

/* ---- Backend ---- */

TRITONSERVER_Error *TRITONBACKEND_BackendName(TRITONBACKEND_Backend *backend, const char **name)
{
    *name = backend->name;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_BackendConfig(TRITONBACKEND_Backend *backend,
                                                TRITONSERVER_Message **backend_config)
{
    *backend_config = &backend->config;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_BackendExecutionPolicy(TRITONBACKEND_Backend *backend,
                                                         TRITONBACKEND_ExecutionPolicy *policy)
{
    *policy = backend->execution_policy;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_BackendSetExecutionPolicy(TRITONBACKEND_Backend *backend,
                                                            TRITONBACKEND_ExecutionPolicy policy)
{
    backend->execution_policy = policy;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_BackendArtifacts(TRITONBACKEND_Backend *backend,
                                                   TRITONBACKEND_ArtifactType *artifact_type,
                                                   const char **location)
{
    *artifact_type = TRITONBACKEND_ARTIFACT_FILESYSTEM;
    *location = backend->directory;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_BackendMemoryManager(TRITONBACKEND_Backend *backend,
                                                       TRITONBACKEND_MemoryManager **manager)
{
    (void)backend;
    *manager = &memory_manager;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_BackendState(TRITONBACKEND_Backend *backend, void **state)
{
    *state = backend->state;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_BackendSetState(TRITONBACKEND_Backend *backend, void *state)
{
    backend->state = state;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_BackendAttributeSetParallelModelInstanceLoading(
    TRITONBACKEND_BackendAttribute *backend_attributes, bool enabled)
{
    backend_attributes->parallel_instance_loading = enabled;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_BackendAttributeAddPreferredInstanceGroup(
    TRITONBACKEND_BackendAttribute *backend_attributes, const TRITONSERVER_InstanceGroupKind kind,
    const uint64_t count, const uint64_t *device_ids, const uint64_t id_count)
{
    static const Inference__ModelInstanceGroup__Kind kinds[] = {
        [TRITONSERVER_INSTANCEGROUPKIND_AUTO] = INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_AUTO,
        [TRITONSERVER_INSTANCEGROUPKIND_CPU] = INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_CPU,
        [TRITONSERVER_INSTANCEGROUPKIND_GPU] = INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_GPU,
        [TRITONSERVER_INSTANCEGROUPKIND_MODEL] = INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_MODEL,
    };
    uint32_t at = backend_attributes->preference_count;
    if ((uint32_t)kind >= ARRAY_LEN(kinds) || count > INT32_MAX || id_count > CONFIG_GPUS_MAX ||
        at == GROUP_PREFERENCES_MAX)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "preferred instance group %" PRIu32 ": found kind %d, count %" PRIu64
                         " and %" PRIu64
                         " devices, expected a known kind, %d devices and %d groups "
                         "at most",
                         at, (int)kind, count, id_count, CONFIG_GPUS_MAX, GROUP_PREFERENCES_MAX);
    struct group_preference *p = &backend_attributes->preferences[at];
    *p = (struct group_preference){ .kind = kinds[kind], .count = (int32_t)count };
    for (uint64_t i = 0; i < id_count; i++)
        p->gpus[p->gpu_count++] = (uint32_t)device_ids[i];
    backend_attributes->preference_count++;
    return NULL;
}

/* ---- Model ---- */

TRITONSERVER_Error *TRITONBACKEND_ModelName(TRITONBACKEND_Model *model, const char **name)
{
    *name = model->model_name;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelVersion(TRITONBACKEND_Model *model, uint64_t *version)
{
    *version = (uint64_t)model->number;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelRepository(TRITONBACKEND_Model *model,
                                                  TRITONBACKEND_ArtifactType *artifact_type,
                                                  const char **location)
{
    *artifact_type = TRITONBACKEND_ARTIFACT_FILESYSTEM;
    *location = model->directory;
    return NULL;
}

static tis_error *check_config_version(uint32_t config_version)
{
    if (config_version != CONFIG_VERSION)
        return error_new(TRITONSERVER_ERROR_UNSUPPORTED,
                         "model configuration version %" PRIu32 " asked for, only %d is known",
                         config_version, CONFIG_VERSION);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelConfig(TRITONBACKEND_Model *model, uint32_t config_version,
                                              TRITONSERVER_Message **model_config)
{
    tis_error *err = check_config_version(config_version);
    if (err)
        return err;
    struct model_config *shown = version_config(model);
    err = TRITONSERVER_MessageNewFromSerializedJson(model_config, shown->json, shown->json_len);
    config_unref(shown);
    return err;
}

TRITONSERVER_Error *TRITONBACKEND_ModelAutoCompleteConfig(TRITONBACKEND_Model *model,
                                                          bool *auto_complete_config)
{
    *auto_complete_config = model->auto_complete_config;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelSetConfig(TRITONBACKEND_Model *model,
                                                 uint32_t config_version,
                                                 TRITONSERVER_Message *model_config)
{
    tis_error *err = check_config_version(config_version);
    if (err)
        return err;
    if (!model->initializing)
        return error_new(TRITONSERVER_ERROR_UNSUPPORTED,
                         "model '%s': TRITONBACKEND_ModelSetConfig is allowed only inside "
                         "TRITONBACKEND_ModelInitialize",
                         model->model_name);

    const struct config_context context = version_config_context(model);
    struct config_builder *builder = NULL;
    struct model_config *replaced = NULL;
    err = config_update(model->config, model_config->text, model_config->len, &builder);
    if (!err)
        err = config_normalize(builder, &context);
    if (!err)
        err = config_validate(builder, &context);
    if (!err)
        err = config_finish(&builder, &replaced);
    config_builder_destroy(builder);
    if (err)
        return error_wrap(err, "backend '%s' set the configuration of model '%s'",
                          model->backend->name, model->model_name);
    config_unref(model->config);
    model->config = replaced;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelServer(TRITONBACKEND_Model *model,
                                              TRITONSERVER_Server **server)
{
    *server = model->server;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelBackend(TRITONBACKEND_Model *model,
                                               TRITONBACKEND_Backend **backend)
{
    *backend = model->backend;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelState(TRITONBACKEND_Model *model, void **state)
{
    *state = model->state;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelSetState(TRITONBACKEND_Model *model, void *state)
{
    model->state = state;
    return NULL;
}

/* Memory a backend says it uses goes to the statistics, and to the log at verbose level. */
static tis_error *set_memory_usage(struct statistics_shard *statistics, const char *name,
                                   TRITONSERVER_BufferAttributes **usage, uint32_t usage_size)
{
    struct memory_usage usages[MEMORY_USAGES_MAX];
    for (uint32_t i = 0; i < usage_size; i++) {
        log_verbose("memory usage of=%s kind=%s device=%" PRId64 " bytes=%zu", name,
                    TRITONSERVER_MemoryTypeString(usage[i]->memory_type), usage[i]->memory_id,
                    usage[i]->bytes);
        if (i < MEMORY_USAGES_MAX)
            usages[i] = (struct memory_usage){ usage[i]->memory_type, usage[i]->memory_id,
                                               usage[i]->bytes };
    }
    return statistics_set_memory(statistics, usages, usage_size);
}

TRITONSERVER_Error *TRITONBACKEND_ModelReportMemoryUsage(TRITONBACKEND_Model *model,
                                                         TRITONSERVER_BufferAttributes **usage,
                                                         uint32_t usage_size)
{
    return set_memory_usage(&model->statistics.own, model->model_name, usage, usage_size);
}

/* ---- Instance ---- */

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceName(TRITONBACKEND_ModelInstance *instance,
                                                    const char **name)
{
    *name = instance->name;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceKind(TRITONBACKEND_ModelInstance *instance,
                                                    TRITONSERVER_InstanceGroupKind *kind)
{
    *kind = instance->kind;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceDeviceId(TRITONBACKEND_ModelInstance *instance,
                                                        int32_t *device_id)
{
    *device_id = instance->device_id;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceHostPolicy(TRITONBACKEND_ModelInstance *instance,
                                                          TRITONSERVER_Message **host_policy)
{
    *host_policy = &instance->host_policy_json;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceProfileCount(TRITONBACKEND_ModelInstance *instance,
                                                            uint32_t *count)
{
    *count = (uint32_t)instance->group->n_profile;
    return NULL;
}

static tis_error *index_error(const struct tis_instance *i, const char *what, uint32_t index,
                              size_t count)
{
    return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                     "out of bounds index %" PRIu32 ": instance '%s' has %zu %s", index, i->name,
                     count, what);
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceProfileName(TRITONBACKEND_ModelInstance *instance,
                                                           const uint32_t index,
                                                           const char **profile_name)
{
    if (index >= instance->group->n_profile)
        return index_error(instance, "profiles", index, instance->group->n_profile);
    *profile_name = instance->group->profile[index];
    return NULL;
}

TRITONSERVER_Error *
TRITONBACKEND_ModelInstanceSecondaryDeviceCount(TRITONBACKEND_ModelInstance *instance,
                                                uint32_t *count)
{
    *count = (uint32_t)instance->group->n_secondary_devices;
    return NULL;
}

TRITONSERVER_Error *
TRITONBACKEND_ModelInstanceSecondaryDeviceProperties(TRITONBACKEND_ModelInstance *instance,
                                                     uint32_t index, const char **kind, int64_t *id)
{
    const Inference__ModelInstanceGroup *group = instance->group;
    if (index >= group->n_secondary_devices)
        return index_error(instance, "secondary devices", index, group->n_secondary_devices);
    *kind = "KIND_NVDLA"; /* the only one there is */
    *id = group->secondary_devices[index]->device_id;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceModel(TRITONBACKEND_ModelInstance *instance,
                                                     TRITONBACKEND_Model **model)
{
    *model = instance->version;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceState(TRITONBACKEND_ModelInstance *instance,
                                                     void **state)
{
    *state = instance->state;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceSetState(TRITONBACKEND_ModelInstance *instance,
                                                        void *state)
{
    instance->state = state;
    return NULL;
}

TRITONSERVER_Error *
TRITONBACKEND_ModelInstanceReportMemoryUsage(TRITONBACKEND_ModelInstance *instance,
                                             TRITONSERVER_BufferAttributes **usage,
                                             uint32_t usage_size)
{
    return set_memory_usage(instance->statistics, instance->name, usage, usage_size);
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceReportStatistics(
    TRITONBACKEND_ModelInstance *instance, TRITONBACKEND_Request *request, const bool success,
    const uint64_t exec_start_ns, const uint64_t compute_start_ns, const uint64_t compute_end_ns,
    const uint64_t exec_end_ns)
{
    if (atomic_load(&request->state) != REQUEST_RUNNING)
        return misuse("statistics were reported for a request that the backend does not own "
                      "(released?)");
    request->stamps[STAMP_COMPUTE_INPUT_END] = compute_start_ns;
    request->stamps[STAMP_COMPUTE_OUTPUT_START] = compute_end_ns;
    request->stamps[STAMP_COMPUTE_END] = exec_end_ns;
    if (atomic_load(&instance->warming))
        return NULL;
    if (!success) {
        enum failure_kind kind =
            atomic_load(&request->sink->cancelled) ? FAILURE_CANCELED : FAILURE_BACKEND;
        uint64_t start_ns = request->stamps[STAMP_REQUEST_START];
        statistics_add_failure(instance->statistics, kind, request->batch_size,
                               exec_end_ns > start_ns ? exec_end_ns - start_ns : 0);
        return NULL;
    }
    statistics_add_success(instance->statistics,
                           &(struct statistics_request){
                               .batch_size = request->batch_size,
                               .request_start_ns = request->stamps[STAMP_REQUEST_START],
                               .queue_start_ns = request->stamps[STAMP_QUEUE_START],
                               .exec_start_ns = exec_start_ns,
                               .compute_start_ns = compute_start_ns,
                               .compute_end_ns = compute_end_ns,
                               .exec_end_ns = exec_end_ns,
                           });
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceReportBatchStatistics(
    TRITONBACKEND_ModelInstance *instance, const uint64_t batch_size, const uint64_t exec_start_ns,
    const uint64_t compute_start_ns, const uint64_t compute_end_ns, const uint64_t exec_end_ns)
{
    if (atomic_load(&instance->warming))
        return NULL;
    statistics_add_execution(instance->statistics, batch_size, exec_start_ns, compute_start_ns,
                             compute_end_ns, exec_end_ns);
    return NULL;
}
