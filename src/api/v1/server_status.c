/* The messages that status and repository index answer, made from what the registry knows. */
#include <string.h>

#include "api/v1/v1.h"
#include "base/clock.h"
#include "infer/reason.h"

#define PB(type) Nvidia__Inferenceserver__##type
#define NEW(arena, type, INIT)                                         \
    ({                                                                 \
        PB(type) *new_ = arena_alloc((arena), sizeof(*new_));          \
        if (new_)                                                      \
            *new_ = (PB(type))NVIDIA__INFERENCESERVER__##INIT##__INIT; \
        new_;                                                          \
    })

static PB(StatDuration) * new_duration(struct arena *a, const struct duration *d)
{
    PB(StatDuration) *m = NEW(a, StatDuration, STAT_DURATION);
    if (m) {
        m->count = d->count;
        m->total_time_ns = d->ns;
    }
    return m;
}

static bool fill_batch(struct arena *a, const struct batch_statistics *b,
                       PB(ModelVersionStatus__InferStatsEntry) * *ret_entry)
{
    PB(ModelVersionStatus__InferStatsEntry) *entry =
        NEW(a, ModelVersionStatus__InferStatsEntry, MODEL_VERSION_STATUS__INFER_STATS_ENTRY);
    PB(InferRequestStats) *stats = NEW(a, InferRequestStats, INFER_REQUEST_STATS);
    if (!entry || !stats)
        return false;
    stats->success = new_duration(a, &b->success);
    stats->failed = new_duration(a, &b->failed);
    stats->compute = new_duration(a, &b->compute);
    stats->queue = new_duration(a, &b->queue);
    entry->key = b->batch_size;
    entry->value = stats;
    *ret_entry = entry;
    return stats->success && stats->failed && stats->compute && stats->queue;
}

/* The failed requests for a model's versions that were not there when they came. */
struct absent {
    struct absent_failures *rows;
    uint32_t count;
};

static bool has_batch(const struct statistics_snapshot *s, uint32_t batch_size)
{
    for (uint32_t i = 0; i < s->batch_count; i++) {
        if (s->batches[i].batch_size == batch_size)
            return true;
    }
    return false;
}

/* The counts of version `number`, with the failures from before it was there. */
static bool fill_statistics(struct arena *a, const struct statistics_snapshot *s, int64_t number,
                            const struct absent *absent, PB(ModelVersionStatus) * m)
{
    m->model_execution_count = s->totals.execution_count;
    m->model_inference_count = s->totals.inference_count;
    m->last_inference_timestamp_milliseconds = s->totals.last_inference_ms;
    m->infer_stats = arena_calloc(a, s->batch_count + absent->count, sizeof(*m->infer_stats));
    bool ok = m->infer_stats != NULL;
    for (uint32_t i = 0; i < s->batch_count && ok; i++) {
        struct batch_statistics b = s->batches[i];
        for (uint32_t k = 0; k < absent->count; k++) {
            const struct absent_failures *row = &absent->rows[k];
            if (row->version == number && row->batch_size == b.batch_size) {
                b.failed.count += row->failed.count;
                b.failed.ns += row->failed.ns;
            }
        }
        if (b.success.count + b.failed.count == 0)
            continue; /* only executions had this size */
        ok = fill_batch(a, &b, &m->infer_stats[m->n_infer_stats]);
        m->n_infer_stats += ok;
    }
    for (uint32_t k = 0; k < absent->count && ok; k++) {
        const struct absent_failures *row = &absent->rows[k];
        if (row->version != number || has_batch(s, row->batch_size))
            continue;
        const struct batch_statistics b = { row->batch_size, .failed = row->failed };
        ok = fill_batch(a, &b, &m->infer_stats[m->n_infer_stats]);
        m->n_infer_stats += ok;
    }
    return ok;
}

static PB(ModelReadyState) ready_state(enum version_state state)
{
    static const PB(ModelReadyState) states[] = {
        [VERSION_UNKNOWN] = NVIDIA__INFERENCESERVER__MODEL_READY_STATE__MODEL_UNKNOWN,
        [VERSION_LOADING] = NVIDIA__INFERENCESERVER__MODEL_READY_STATE__MODEL_LOADING,
        [VERSION_READY] = NVIDIA__INFERENCESERVER__MODEL_READY_STATE__MODEL_READY,
        [VERSION_UNLOADING] = NVIDIA__INFERENCESERVER__MODEL_READY_STATE__MODEL_UNLOADING,
        [VERSION_UNAVAILABLE] = NVIDIA__INFERENCESERVER__MODEL_READY_STATE__MODEL_UNAVAILABLE,
    };
    return states[state];
}

static bool fill_version(struct arena *a, const struct version_info *v, const struct absent *absent,
                         PB(ModelStatus__VersionStatusEntry) * *ret_entry)
{
    PB(ModelStatus__VersionStatusEntry) *entry =
        NEW(a, ModelStatus__VersionStatusEntry, MODEL_STATUS__VERSION_STATUS_ENTRY);
    PB(ModelVersionStatus) *m = NEW(a, ModelVersionStatus, MODEL_VERSION_STATUS);
    if (!entry || !m)
        return false;
    m->ready_state = ready_state(v->state);
    if (v->reason[0]) {
        m->ready_state_reason = NEW(a, ModelReadyStateReason, MODEL_READY_STATE_REASON);
        char *message = arena_strdup(a, v->reason);
        if (!m->ready_state_reason || !message)
            return false;
        m->ready_state_reason->message = message;
    }
    entry->key = v->number;
    entry->value = m;
    *ret_entry = entry;

    struct statistics_snapshot s = { 0 };
    if (v->version)
        statistics_get(&v->version->statistics, &s);
    bool ok = fill_statistics(a, &s, entry->key, absent, m);
    statistics_snapshot_fini(&s);
    return ok;
}

static bool has_version(const PB(ModelStatus) * m, int64_t number)
{
    for (size_t i = 0; i < m->n_version_status; i++) {
        if (m->version_status[i]->key == number)
            return true;
    }
    return false;
}

/* The versions that are there, then those that requests have asked for in vain. */
static bool fill_versions(struct arena *a, const struct model_info *info,
                          const struct absent *absent, PB(ModelStatus) * m)
{
    m->version_status =
        arena_calloc(a, info->version_count + absent->count, sizeof(*m->version_status));
    bool ok = m->version_status != NULL;
    for (uint32_t i = 0; i < info->version_count && ok; i++)
        ok = fill_version(a, &info->versions[i], absent, &m->version_status[m->n_version_status++]);
    for (uint32_t i = 0; i < absent->count && ok; i++) {
        char none[] = "";
        const struct version_info unknown = { .number = absent->rows[i].version,
                                              .state = VERSION_UNKNOWN,
                                              .reason = none };
        if (!has_version(m, absent->rows[i].version))
            ok = fill_version(a, &unknown, absent, &m->version_status[m->n_version_status++]);
    }
    return ok;
}

static bool fill_model(struct api *api, struct arena *a, const struct model_info *info,
                       PB(ServerStatus__ModelStatusEntry) * *ret_entry)
{
    PB(ServerStatus__ModelStatusEntry) *entry =
        NEW(a, ServerStatus__ModelStatusEntry, SERVER_STATUS__MODEL_STATUS_ENTRY);
    PB(ModelStatus) *m = NEW(a, ModelStatus, MODEL_STATUS);
    char *name = arena_strdup(a, info->name);
    struct absent absent;
    if (!entry || !m || !name || !v1_get_absent(api, name, a, &absent.rows, &absent.count))
        return false;
    entry->key = name;
    entry->value = m;
    *ret_entry = entry;
    if (info->config) {
        tis_error *err = config_to_v1(info->config, a, &m->config);
        if (err) {
            error_free(err);
            return false;
        }
    }
    return fill_versions(a, info, &absent, m);
}

static bool fill_server(struct arena *a, struct api *api, PB(ServerStatus) * m)
{
    static const int states[] = {
        [SERVER_INVALID] = NVIDIA__INFERENCESERVER__SERVER_READY_STATE__SERVER_INVALID,
        [SERVER_INITIALIZING] = NVIDIA__INFERENCESERVER__SERVER_READY_STATE__SERVER_INITIALIZING,
        [SERVER_READY] = NVIDIA__INFERENCESERVER__SERVER_READY_STATE__SERVER_READY,
        [SERVER_EXITING] = NVIDIA__INFERENCESERVER__SERVER_READY_STATE__SERVER_EXITING,
        [SERVER_FAILED_TO_INITIALIZE] =
            NVIDIA__INFERENCESERVER__SERVER_READY_STATE__SERVER_FAILED_TO_INITIALIZE,
    };
    struct duration counters[COUNTER_COUNT];
    lock_take(&api->lock);
    memcpy(counters, api->counters, sizeof(counters));
    lock_release(&api->lock);

    m->id = (char *)(uintptr_t)v1_server_id(api);
    m->version = (char *)(uintptr_t)(api->options.version ? api->options.version : TIS_VERSION);
    m->ready_state = (PB(ServerReadyState))states[api_state(api)];
    m->uptime_ns = clock_ns() - api->options.start_ns;
    m->status_stats = NEW(a, StatusRequestStats, STATUS_REQUEST_STATS);
    m->health_stats = NEW(a, HealthRequestStats, HEALTH_REQUEST_STATS);
    if (!m->status_stats || !m->health_stats)
        return false;
    m->status_stats->success = new_duration(a, &counters[COUNTER_STATUS]);
    m->health_stats->success = new_duration(a, &counters[COUNTER_HEALTH]);
    if (counters[COUNTER_PROFILE].count > 0) {
        m->profile_stats = NEW(a, ProfileRequestStats, PROFILE_REQUEST_STATS);
        if (!m->profile_stats)
            return false;
        m->profile_stats->success = new_duration(a, &counters[COUNTER_PROFILE]);
        if (!m->profile_stats->success)
            return false;
    }
    return m->status_stats->success && m->health_stats->success;
}

/* A server that could not be initialised has no models, whatever it had begun to list. */
static tis_error *get_models(struct api *api, struct part name, struct model_info **ret_models,
                             uint32_t *ret_count)
{
    tis_error *err = NULL;
    struct model_info *models = NULL;
    uint32_t count = 0;
    bool has_models = api_state(api) != SERVER_FAILED_TO_INITIALIZE;
    if (has_models)
        err =
            registry_info(api->registry, name.len > 0 ? name.at : NULL, name.len, &models, &count);
    bool is_unknown = err ? error_reason(err) == REASON_MODEL_UNKNOWN : !has_models;
    if (name.len > 0 && is_unknown) {
        error_free(err);
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "no status available for unknown model '%.*s'", (int)name.len, name.at);
    }
    if (err)
        return err;
    *ret_models = models;
    *ret_count = count;
    return NULL;
}

tis_error *v1_make_status(struct api *api, struct part model, struct arena *a,
                          PB(ServerStatus) * *ret_status)
{
    struct model_info *models;
    uint32_t count;
    tis_error *err = get_models(api, model, &models, &count);
    if (err)
        return err;

    PB(ServerStatus) *m = NEW(a, ServerStatus, SERVER_STATUS);
    bool ok = m && fill_server(a, api, m);
    if (ok)
        m->model_status = arena_calloc(a, count, sizeof(*m->model_status));
    ok = ok && m->model_status;
    for (uint32_t i = 0; i < count && ok; i++)
        ok = fill_model(api, a, &models[i], &m->model_status[m->n_model_status++]);
    registry_info_free(models, count);
    if (!ok)
        return error_no_memory();
    *ret_status = m;
    return NULL;
}

tis_error *v1_make_index(struct api *api, struct arena *a, PB(ModelRepositoryIndex) * *ret_index)
{
    struct model_info *models;
    uint32_t count;
    tis_error *err = get_models(api, (struct part){ 0 }, &models, &count);
    if (err)
        return err;
    PB(ModelRepositoryIndex) *m = NEW(a, ModelRepositoryIndex, MODEL_REPOSITORY_INDEX);
    bool ok = m != NULL;
    if (ok)
        m->models = arena_calloc(a, count, sizeof(*m->models));
    ok = ok && m->models;
    for (uint32_t i = 0; i < count && ok; i++) {
        PB(ModelRepositoryIndex__ModelEntry) *entry =
            NEW(a, ModelRepositoryIndex__ModelEntry, MODEL_REPOSITORY_INDEX__MODEL_ENTRY);
        ok = entry && (entry->name = arena_strdup(a, models[i].name)) != NULL;
        if (ok)
            m->models[m->n_models++] = entry;
    }
    registry_info_free(models, count);
    if (!ok)
        return error_no_memory();
    *ret_index = m;
    return NULL;
}
