/* The v2 protocol over gRPC but for inference: health, metadata, configuration, index. Statistics are in
 * grpc_statistics.c.
 *
 * Answers are protobuf-c messages in an arena of the call's time, packed into call->out. */
#include <inttypes.h>
#include <string.h>

#include "api/status.h"
#include "api/v2/log_settings.h"
#include "api/v2/v2.h"
#include "infer/datatype.h"
#include "infer/reason.h"
#include "proto/grpc_service.pb-c.h"
#include "proto/message.h"
#include "proto/wire.h"

enum {
    ARENA_BYTES_FIRST = 4096,
    ARENA_BYTES_MAX = 64 << 20,
};

TRITONSERVER_Error_Code v2_describe(const struct call *call, const tis_error *err,
                                    struct bytes *ret_text)
{
    if (status_has_request_prefix(err) && call->request)
        bytes_printf(ret_text, "[request id: %s] ",
                     call->request->id[0] ? call->request->id : "<id_unknown>");
    return status_describe(DIALECT_V2, err, ret_text);
}

void v2_rpc_fail(struct call *call, tis_error *err)
{
    struct bytes text = { 0 };
    TRITONSERVER_Error_Code code = v2_describe(call, err, &text);
    call_fail(call, (enum grpc_code)status_grpc(code), bytes_str(&text));
    bytes_fini(&text);
    error_free(err);
}

void v2_rpc_respond(struct call *call)
{
    if (call->out.failed) {
        call_fail(call, GRPC_UNAVAILABLE, "out of memory");
        return;
    }
    struct iovec part = { .iov_base = call->out.data, .iov_len = call->out.len };
    call_reply(call, &part, 1);
}

void v2_rpc_respond_message(struct call *call, tis_error *err, const ProtobufCMessage *m)
{
    if (err) {
        v2_rpc_fail(call, err);
        return;
    }
    message_append(&call->out, m);
    v2_rpc_respond(call);
}

/* ---- Requests: a name, a version ---- */

tis_error *v2_rpc_read_target(struct call *call)
{
    struct wire w = wire_open(call->message, call->message_len);
    bool is_text = true;
    for (struct wire_field f; wire_next(&w, &f);) {
        if (f.number > 2 || f.type != WIRE_BYTES)
            continue;
        is_text &= utf8_is_valid(f.data, f.len);
        *(f.number == 1 ? &call->model : &call->version) = (struct part){ f.data, f.len };
    }
    if (w.is_bad || !is_text)
        return wire_error();
    return NULL;
}

/* The version that the message names, in call->target. */
static tis_error *acquire(struct call *call)
{
    tis_error *err = v2_rpc_read_target(call);
    return err ? err : call_acquire(call);
}

/* ---- Health ---- */

static void respond_yes_no(struct call *call, bool yes)
{
    api_count(call->api, COUNTER_HEALTH, call->start_ns);
    if (api_state(call->api) == SERVER_EXITING) {
        v2_rpc_fail(call, reason_error_args(REASON_SERVER_EXITING, NULL, 0));
        return;
    }
    Inference__ServerLiveResponse m = INFERENCE__SERVER_LIVE_RESPONSE__INIT;
    m.live = yes;
    v2_rpc_respond_message(call, NULL, &m.base);
}

void v2_rpc_server_live(struct call *call)
{
    respond_yes_no(call, api_is_live(call->api));
}

/* ServerReadyResponse has the same form. */
void v2_rpc_server_ready(struct call *call)
{
    respond_yes_no(call, api_is_ready(call->api));
}

void v2_rpc_model_ready(struct call *call)
{
    Inference__ModelReadyResponse m = INFERENCE__MODEL_READY_RESPONSE__INIT;
    tis_error *err = acquire(call);
    m.ready = !err && version_is_ready(call->target);
    bool is_wrong = err && error_reason(err) != REASON_MODEL_UNKNOWN &&
                    error_code(err) == TRITONSERVER_ERROR_INVALID_ARG;
    if (err && !is_wrong) {
        error_free(err);
        err = NULL;
    }
    v2_rpc_respond_message(call, err, &m.base);
}

/* Of grpc.health.v1.HealthCheckResponse, whatever service the client asks for. */
enum health {
    SERVING = 1,
    NOT_SERVING = 2
};

static enum health health_of(const struct api *api)
{
    return api_is_ready(api) ? SERVING : NOT_SERVING;
}

static void respond_health(struct call *call, enum health health)
{
    wire_append_tag(&call->out, 1, WIRE_VARINT);
    wire_append_varint(&call->out, health);
    v2_rpc_respond(call);
}

void v2_rpc_health_check(struct call *call)
{
    respond_health(call, health_of(call->api));
}

void v2_rpc_health_look(struct call *call)
{
    enum health health = health_of(call->api);
    if (call->watched == (uint32_t)health)
        return;
    call->watched = health;
    respond_health(call, health);
}

/* ---- Metadata ---- */

void v2_rpc_server_metadata(struct call *call)
{
    Inference__ServerMetadataResponse m = INFERENCE__SERVER_METADATA_RESPONSE__INIT;
    m.name = (char *)(uintptr_t)v2_server_name(call->api);
    m.version = (char *)(uintptr_t)v2_server_version(call->api);
    m.n_extensions = V2_EXTENSION_COUNT;
    m.extensions = (char **)(uintptr_t)v2_extensions;
    v2_rpc_respond_message(call, NULL, &m.base);
}

typedef Inference__ModelMetadataResponse__TensorMetadata tensor_message;

static tensor_message **make_tensors(struct arena *a, const struct tensor_spec *specs,
                                     uint32_t count, bool batches)
{
    tensor_message **list = arena_alloc(a, count * sizeof(*list));
    for (uint32_t i = 0; list && i < count; i++) {
        tensor_message *t = arena_alloc(a, sizeof(*t));
        int64_t *shape = arena_alloc(a, (specs[i].rank + 1) * sizeof(*shape));
        if (!t || !shape)
            return NULL;
        *t = (tensor_message)INFERENCE__MODEL_METADATA_RESPONSE__TENSOR_METADATA__INIT;
        t->name = (char *)(uintptr_t)specs[i].name;
        t->datatype = (char *)(uintptr_t)datatype_name(specs[i].data_type);
        t->shape = shape;
        if (batches)
            shape[t->n_shape++] = -1;
        for (uint32_t k = 0; k < specs[i].rank; k++)
            shape[t->n_shape++] = specs[i].dims[k];
        list[i] = t;
    }
    return list;
}

/* The ready versions of the call's model. */
static tis_error *add_versions(struct call *call, struct arena *a,
                               Inference__ModelMetadataResponse *m)
{
    struct model_info *models;
    uint32_t count;
    tis_error *err =
        registry_info(call->api->registry, call->model.at, call->model.len, &models, &count);
    if (err)
        return err;
    m->versions = arena_alloc(a, models[0].version_count * sizeof(*m->versions));
    if (!m->versions)
        err = error_no_memory();
    for (uint32_t i = 0; i < models[0].version_count && !err; i++) {
        if (models[0].versions[i].state != VERSION_READY)
            continue;
        char *text = arena_printf(a, "%" PRId64, models[0].versions[i].number);
        if (text)
            m->versions[m->n_versions++] = text;
        else
            err = error_no_memory();
    }
    registry_info_free(models, count);
    return err;
}

static tis_error *make_metadata(struct call *call, struct arena *a,
                                Inference__ModelMetadataResponse *m)
{
    const struct model_config *config = call->target->config;
    bool batches = config->max_batch_size > 0;
    m->name = (char *)(uintptr_t)call->target->model_name;
    m->platform =
        config->message->platform[0] ? config->message->platform : config->message->backend;
    m->inputs = make_tensors(a, config->inputs, config->input_count, batches);
    m->outputs = make_tensors(a, config->outputs, config->output_count, batches);
    if (!m->inputs || !m->outputs)
        return error_no_memory();
    m->n_inputs = config->input_count;
    m->n_outputs = config->output_count;
    return add_versions(call, a, m);
}

void v2_rpc_model_metadata(struct call *call)
{
    char first[ARENA_BYTES_FIRST];
    struct arena a;
    Inference__ModelMetadataResponse m = INFERENCE__MODEL_METADATA_RESPONSE__INIT;
    arena_init(&a, first, sizeof(first), ARENA_BYTES_MAX);
    tis_error *err = acquire(call);
    if (!err)
        err = make_metadata(call, &a, &m);
    v2_rpc_respond_message(call, err, &m.base);
    arena_fini(&a);
}

void v2_rpc_model_config(struct call *call)
{
    Inference__ModelConfigResponse m = INFERENCE__MODEL_CONFIG_RESPONSE__INIT;
    struct model_config *config = NULL;
    tis_error *err = acquire(call);
    if (!err) {
        config = version_config(call->target);
        m.config = (Inference__ModelConfig *)(uintptr_t)config->message;
    }
    v2_rpc_respond_message(call, err, &m.base);
    config_unref(config);
}

/* ---- Repository index ---- */

typedef Inference__RepositoryIndexResponse__ModelIndex index_message;

static tis_error *add_entry(struct arena *a, Inference__RepositoryIndexResponse *m,
                            const char *name, int64_t version, enum version_state state,
                            const char *reason)
{
    index_message *entry = arena_alloc(a, sizeof(*entry));
    if (!entry)
        return error_no_memory();
    *entry = (index_message)INFERENCE__REPOSITORY_INDEX_RESPONSE__MODEL_INDEX__INIT;
    entry->name = (char *)(uintptr_t)name;
    if (version >= 0)
        entry->version = arena_printf(a, "%" PRId64, version);
    entry->state = (char *)(uintptr_t)version_state_name(state);
    entry->reason = (char *)(uintptr_t)reason;
    m->models[m->n_models++] = entry;
    return entry->version ? NULL : error_no_memory();
}

static tis_error *add_entries(const struct model_info *models, uint32_t count, bool only_ready,
                              struct arena *a, Inference__RepositoryIndexResponse *m)
{
    size_t entry_count = count;
    for (uint32_t i = 0; i < count; i++)
        entry_count += models[i].version_count;
    m->models = arena_alloc(a, entry_count * sizeof(*m->models));
    tis_error *err = m->models ? NULL : error_no_memory();
    for (uint32_t i = 0; i < count && !err; i++) {
        const struct model_info *info = &models[i];
        if (info->reason[0] && !only_ready)
            err = add_entry(a, m, info->name, -1, VERSION_UNAVAILABLE, info->reason);
        for (uint32_t k = 0; k < info->version_count && !err; k++) {
            const struct version_info *v = &info->versions[k];
            if (!only_ready || v->state == VERSION_READY)
                err = add_entry(a, m, info->name, v->number, v->state, v->reason);
        }
    }
    return err;
}

void v2_rpc_repository_index(struct call *call)
{
    char first[ARENA_BYTES_FIRST];
    struct arena a;
    bool only_ready = false;
    struct model_info *models = NULL;
    uint32_t count = 0;
    bool has_repository = false;
    Inference__RepositoryIndexResponse m = INFERENCE__REPOSITORY_INDEX_RESPONSE__INIT;
    struct wire w = wire_open(call->message, call->message_len);
    for (struct wire_field f; wire_next(&w, &f);) {
        if (f.number == 2 && f.type == WIRE_VARINT)
            only_ready = f.value != 0;
        else if (f.number == 1)
            has_repository = f.len > 0;
    }
    arena_init(&a, first, sizeof(first), ARENA_BYTES_MAX);
    tis_error *err = NULL;
    if (w.is_bad)
        err = wire_error();
    else if (has_repository)
        err = error_new(TRITONSERVER_ERROR_UNSUPPORTED,
                        "'repository_name' specification is not supported");
    if (!err)
        err = registry_info(call->api->registry, NULL, 0, &models, &count);
    if (!err)
        err = add_entries(models, count, only_ready, &a, &m);
    v2_rpc_respond_message(call, err, &m.base);
    registry_info_free(models, count);
    arena_fini(&a);
}

/* ---- Log settings ---- */

void v2_rpc_log_settings(struct call *call)
{
    tis_error *err = log_settings_change_message(call->message, call->message_len);
    if (err) {
        v2_rpc_fail(call, err);
        return;
    }
    log_settings_append_message(&call->out);
    v2_rpc_respond(call);
}

/* ---- What there is not ---- */

void v2_rpc_model_control(struct call *call)
{
    v2_rpc_fail(call, reason_error_args(REASON_CONTROL_OFF, NULL, 0));
}

void v2_rpc_no_trace(struct call *call)
{
    v2_rpc_fail(
        call, error_new(TRITONSERVER_ERROR_UNSUPPORTED, "tracing is not supported by this server"));
}

void v2_rpc_no_shared_memory(struct call *call)
{
    v2_rpc_fail(call, error_new(TRITONSERVER_ERROR_UNSUPPORTED,
                                "shared memory is not supported by this server"));
}
