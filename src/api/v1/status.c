/* Health, status, profile, repository index and model control of the v1 protocol. */
#include <inttypes.h>
#include <string.h>

#include "api/v1/v1.h"
#include "base/clock.h"
#include "infer/reason.h"
#include "proto/json.h"
#include "proto/message.h"
#include "proto/text.h"
#include "v1/server_status.pb-c.h"

enum {
    STATUS_ARENA_BYTES_MAX = 256 << 20
};

uint64_t v1_next_request_id(struct api *api)
{
    return atomic_fetch_add_explicit(&api->v1_request_id, 1, memory_order_relaxed) + 1;
}

const char *v1_server_id(const struct api *api)
{
    return api->options.id ? api->options.id : "inference:0";
}

void v1_append_status(struct bytes *headers, const struct api *api, enum dialect dialect,
                      const tis_error *err, uint64_t request_id)
{
    struct bytes text = { 0 };
    const char *code = "SUCCESS";
    if (err)
        code = status_v1_name(status_describe(dialect, err, &text));
    bytes_printf(headers, "NV-Status: code: %s", code);
    if (text.len > 0) {
        bytes_append_str(headers, " msg: \"");
        text_append_escaped(headers, text.data, text.len);
        bytes_append_char(headers, '"');
    }
    bytes_append_str(headers, " server_id: \"");
    text_append_escaped(headers, v1_server_id(api), strlen(v1_server_id(api)));
    bytes_append_char(headers, '"');
    if (request_id != 0)
        bytes_printf(headers, " request_id: %" PRIu64, request_id);
    bytes_append_str(headers, "\r\n");
    bytes_fini(&text);
}

void v1_answer(struct call *call, tis_error *err, uint64_t request_id)
{
    bytes_clear(&call->out);
    v1_append_status(&call->out, call->api, DIALECT_V1, err, request_id);
    call_respond(call, err ? 400 : 200, bytes_str(&call->out));
    error_free(err);
}

enum v1_format v1_format(const struct call *call)
{
    char format[16];
    if (http_query_get(call->ex, "format", format, sizeof(format))) {
        if (strcmp(format, "binary") == 0)
            return V1_BINARY;
        return strcmp(format, "json") == 0 ? V1_JSON : V1_TEXT;
    }
    static const char json[] = "application/json";
    const struct http_header *accept = http_header_find(call->ex, "Accept");
    bool wants_json = accept && memmem(accept->value, accept->value_len, json, sizeof(json) - 1);
    return wants_json ? V1_JSON : V1_TEXT;
}

void v1_append_message(struct bytes *out, const ProtobufCMessage *m, enum v1_format format)
{
    switch (format) {
    case V1_TEXT:
        text_append(out, m, TEXT_LINES);
        break;
    case V1_JSON:
        json_append_message(out, m);
        break;
    case V1_BINARY: {
        char *at = bytes_reserve(out, protobuf_c_message_get_packed_size(m));
        if (at)
            out->len += protobuf_c_message_pack(m, (uint8_t *)at);
        break;
    }
    }
}

/* ---- Outside of the operations ---- */

/* As the original's expression /api/(health|profile|infer|status)(.*): the method is judged before
 * the rest of the path. */
void v1_no_route(struct call *call)
{
    static const struct {
        const char *name;
        enum http_method method;
    } endpoints[] = {
        { "health", HTTP_GET },
        { "profile", HTTP_GET },
        { "infer", HTTP_POST },
        { "status", HTTP_GET },
    };
    int status = 400;
    for (size_t i = 0; i < ARRAY_LEN(endpoints); i++) {
        const char *name = endpoints[i].name;
        if (strncmp(call->ex->path, "/api/", 5) == 0 &&
            strncmp(call->ex->path + 5, name, strlen(name)) == 0 &&
            call->ex->method != endpoints[i].method)
            status = 405;
    }
    call_respond(call, status, "");
}

/* 400 for all of them: v1 has no other code, the kind of failure is in NV-Status. */
void v1_refuse(struct http_exchange *ex, const struct api *api, int status, const char *text)
{
    bool is_late = status == 408 || status == 503;
    tis_error *err = error_new(
        is_late ? TRITONSERVER_ERROR_UNAVAILABLE : TRITONSERVER_ERROR_INVALID_ARG, "%s", text);
    struct bytes headers = { 0 };
    v1_append_status(&headers, api, DIALECT_V1, err, 0);
    http_respond_copy(ex, 400, bytes_str(&headers), NULL, 0);
    bytes_fini(&headers);
    error_free(err);
}

/* ---- Health ---- */

/* A valid question has NV-Status SUCCESS even when the answer, the HTTP status, is no. */
static void answer_yes_no(struct call *call, bool yes)
{
    api_count(call->api, COUNTER_HEALTH, call->start_ns);
    if (api_state(call->api) == SERVER_EXITING) {
        v1_answer(call, reason_error_args(REASON_SERVER_EXITING, NULL, 0), 0);
        return;
    }
    bytes_clear(&call->out);
    v1_append_status(&call->out, call->api, DIALECT_V1, NULL, v1_next_request_id(call->api));
    call_respond(call, yes ? 200 : 400, bytes_str(&call->out));
}

void v1_live(struct call *call)
{
    answer_yes_no(call, api_is_live(call->api));
}

void v1_ready(struct call *call)
{
    answer_yes_no(call, api_is_ready(call->api));
}

void v1_health_without_mode(struct call *call)
{
    api_count(call->api, COUNTER_HEALTH, call->start_ns);
    v1_answer(call, error_new(TRITONSERVER_ERROR_UNKNOWN, "unknown health mode ''"),
              v1_next_request_id(call->api));
}

/* ---- Profile ---- */

void v1_profile(struct call *call)
{
    char command[32] = "";
    tis_error *err = NULL;
    api_count(call->api, COUNTER_PROFILE, call->start_ns);
    if (api_state(call->api) != SERVER_READY) {
        v1_answer(call, reason_error_args(REASON_SERVER_NOT_READY, NULL, 0), 0);
        return;
    }
    http_query_get(call->ex, "cmd", command, sizeof(command));
    if (!call->api->options.allow_profiling)
        err = error_new(TRITONSERVER_ERROR_UNSUPPORTED, "Profile API not enabled");
    else if (strcmp(command, "start") != 0 && strcmp(command, "stop") != 0)
        err = error_new(TRITONSERVER_ERROR_INVALID_ARG, "Unknown profile command '%s'", command);
    /* The CUDA profiler of every GPU would start or stop: there is none. */
    v1_answer(call, err, v1_next_request_id(call->api));
}

/* ---- Status ---- */

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

static bool fill_statistics(struct arena *a, struct tis_version *v, PB(ModelVersionStatus) * m)
{
    struct statistics_snapshot s;
    statistics_get(&v->statistics, &s);
    m->model_execution_count = s.totals.execution_count;
    m->model_inference_count = s.totals.inference_count;
    m->last_inference_timestamp_milliseconds = s.totals.last_inference_ms;
    m->infer_stats = arena_calloc(a, s.batch_count, sizeof(*m->infer_stats));
    bool ok = m->infer_stats != NULL;
    for (uint32_t i = 0; i < s.batch_count && ok; i++) {
        const struct batch_statistics *b = &s.batches[i];
        if (b->success.count + b->failed.count == 0)
            continue; /* only executions had this size */
        ok = fill_batch(a, b, &m->infer_stats[m->n_infer_stats]);
        m->n_infer_stats += ok;
    }
    statistics_snapshot_fini(&s);
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

static bool fill_version(struct arena *a, const struct version_info *v,
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
    return !v->version || fill_statistics(a, v->version, m);
}

static bool fill_model(struct arena *a, const struct model_info *info,
                       PB(ServerStatus__ModelStatusEntry) * *ret_entry)
{
    PB(ServerStatus__ModelStatusEntry) *entry =
        NEW(a, ServerStatus__ModelStatusEntry, SERVER_STATUS__MODEL_STATUS_ENTRY);
    PB(ModelStatus) *m = NEW(a, ModelStatus, MODEL_STATUS);
    char *name = arena_strdup(a, info->name);
    if (!entry || !m || !name)
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
    m->version_status = arena_calloc(a, info->version_count, sizeof(*m->version_status));
    bool ok = m->version_status != NULL;
    for (uint32_t i = 0; i < info->version_count && ok; i++)
        ok = fill_version(a, &info->versions[i], &m->version_status[m->n_version_status++]);
    return ok;
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
static tis_error *get_models(struct call *call, const char *name, struct model_info **ret_models,
                             uint32_t *ret_count)
{
    tis_error *err = NULL;
    struct model_info *models = NULL;
    uint32_t count = 0;
    bool has_models = api_state(call->api) != SERVER_FAILED_TO_INITIALIZE;
    if (has_models)
        err = registry_info(call->api->registry, name, call->rest.len, &models, &count);
    bool is_unknown = err ? error_reason(err) == REASON_MODEL_UNKNOWN : !has_models;
    if (name && is_unknown) {
        error_free(err);
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "no status available for unknown model '%.*s'", (int)call->rest.len, name);
    }
    if (err)
        return err;
    *ret_models = models;
    *ret_count = count;
    return NULL;
}

static tis_error *make_status(struct call *call, struct arena *a, PB(ServerStatus) * *ret_status)
{
    const char *name = call->rest.len > 0 ? call->rest.at : NULL;
    struct model_info *models;
    uint32_t count;
    tis_error *err = get_models(call, name, &models, &count);
    if (err)
        return err;

    PB(ServerStatus) *m = NEW(a, ServerStatus, SERVER_STATUS);
    bool ok = m && fill_server(a, call->api, m);
    if (ok)
        m->model_status = arena_calloc(a, count, sizeof(*m->model_status));
    ok = ok && m->model_status;
    for (uint32_t i = 0; i < count && ok; i++)
        ok = fill_model(a, &models[i], &m->model_status[m->n_model_status++]);
    registry_info_free(models, count);
    if (!ok)
        return error_no_memory();
    *ret_status = m;
    return NULL;
}

/* 200 with a message as the body; its format is the client's choice. */
static void answer_message(struct call *call, const ProtobufCMessage *m)
{
    static const char *const types[] = {
        [V1_TEXT] = "text/plain",
        [V1_BINARY] = "application/octet-stream",
        [V1_JSON] = "application/json",
    };
    enum v1_format format = v1_format(call);
    struct bytes body = { 0 };
    v1_append_message(&body, m, format);
    if (body.failed) {
        v1_answer(call, error_no_memory(), v1_next_request_id(call->api));
        bytes_fini(&body);
        return;
    }
    bytes_clear(&call->out);
    v1_append_status(&call->out, call->api, DIALECT_V1, NULL, v1_next_request_id(call->api));
    bytes_printf(&call->out, "Content-Type: %s\r\n", types[format]);
    http_respond_copy(call->ex, 200, bytes_str(&call->out), body.data, body.len);
    bytes_fini(&body);
}

void v1_status(struct call *call)
{
    struct arena arena;
    PB(ServerStatus) *status = NULL;
    api_count(call->api, COUNTER_STATUS, call->start_ns);
    if (api_state(call->api) == SERVER_EXITING) {
        v1_answer(call, reason_error_args(REASON_SERVER_EXITING, NULL, 0), 0);
        return;
    }
    arena_init(&arena, NULL, 0, STATUS_ARENA_BYTES_MAX);
    tis_error *err = make_status(call, &arena, &status);
    if (err)
        v1_answer(call, err, v1_next_request_id(call->api));
    else
        answer_message(call, &status->base);
    arena_fini(&arena);
}

/* ---- Repository index and model control (1.x) ---- */

static tis_error *make_index(struct call *call, struct arena *a,
                             PB(ModelRepositoryIndex) * *ret_index)
{
    struct model_info *models;
    uint32_t count;
    tis_error *err = get_models(call, NULL, &models, &count);
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

void v1_repository_index(struct call *call)
{
    struct arena arena;
    PB(ModelRepositoryIndex) *index = NULL;
    arena_init(&arena, NULL, 0, STATUS_ARENA_BYTES_MAX);
    tis_error *err = make_index(call, &arena, &index);
    if (err)
        v1_answer(call, err, v1_next_request_id(call->api));
    else
        answer_message(call, &index->base);
    arena_fini(&arena);
}

void v1_model_control(struct call *call)
{
    v1_answer(call, reason_error_args(REASON_CONTROL_OFF, NULL, 0), v1_next_request_id(call->api));
}
