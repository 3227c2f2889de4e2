/* Health, metadata, configuration and the repository index of the v2 protocol. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <yyjson.h>

#include "api/v2/log_settings.h"
#include "api/v2/v2.h"
#include "infer/datatype.h"
#include "infer/reason.h"
#include "infer/shape.h"
#include "proto/json.h"

#define V2_NAME "triton"
#define V2_VERSION TIS_VERSION

void v2_no_route(struct call *call, int status)
{
    bytes_clear(&call->out);
    v2_append_error(&call->out, status == 405 ? "Method Not Allowed" : "Not Found");
    call_respond_json(call, status, &call->out);
}

static void answer_yes_no(struct call *call, bool yes)
{
    if (api_state(call->api) == SERVER_EXITING) {
        v2_fail(call, reason_error_args(REASON_SERVER_EXITING, NULL, 0));
        return;
    }
    call_respond(call, yes ? 200 : 400, "");
}

void v2_live(struct call *call)
{
    api_count(call->api, COUNTER_HEALTH, call->start_ns);
    answer_yes_no(call, api_is_live(call->api));
}

void v2_ready(struct call *call)
{
    api_count(call->api, COUNTER_HEALTH, call->start_ns);
    answer_yes_no(call, api_is_ready(call->api));
}

const char *const v2_extensions[V2_EXTENSION_COUNT] = {
    "classification", "model_repository", "model_configuration", "binary_tensor_data", "parameters",
    "statistics",     "logging",
};

const char *v2_server_name(const struct api *api)
{
    return api->options.id ? api->options.id : V2_NAME;
}

const char *v2_server_version(const struct api *api)
{
    return api->options.version ? api->options.version : V2_VERSION;
}

void v2_server_metadata(struct call *call)
{
    const char *name = v2_server_name(call->api);
    const char *version = v2_server_version(call->api);
    struct bytes *out = &call->out;
    bytes_append_str(out, "{\"name\":");
    json_append_string(out, name, strlen(name));
    bytes_append_str(out, ",\"version\":");
    json_append_string(out, version, strlen(version));
    bytes_append_str(out, ",\"extensions\":[");
    for (size_t i = 0; i < V2_EXTENSION_COUNT; i++)
        bytes_printf(out, "%s\"%s\"", i > 0 ? "," : "", v2_extensions[i]);
    bytes_append_str(out, "]}");
    call_respond_json(call, 200, out);
}

/* ---- One model ---- */

void v2_model_ready(struct call *call)
{
    tis_error *err = call_acquire(call);
    if (!err && version_is_ready(call->target)) {
        call_respond(call, 200, "");
        return;
    }
    error_free(err);
    bytes_clear(&call->out);
    v2_append_error(&call->out, "Model version not ready");
    call_respond_json(call, 400, &call->out);
}

static void append_tensors(struct bytes *out, const struct tensor_spec *specs, uint32_t count,
                           bool batches)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct tensor_spec *s = &specs[i];
        if (i > 0)
            bytes_append_char(out, ',');
        bytes_append_str(out, "{\"name\":");
        json_append_string(out, s->name, strlen(s->name));
        bytes_printf(out, ",\"datatype\":\"%s\",\"shape\":", datatype_name(s->data_type));
        struct bytes shape = { 0 };
        shape_append(&shape, s->dims, s->rank);
        if (batches) /* the batch dimension comes first */
            bytes_printf(out, "[-1%s%s", s->rank ? "," : "", bytes_str(&shape) + 1);
        else
            bytes_append_str(out, bytes_str(&shape));
        bytes_fini(&shape);
        bytes_append_char(out, '}');
    }
}

/* The ready versions, as strings. */
static tis_error *append_versions(struct call *call, struct bytes *out)
{
    struct model_info *models;
    uint32_t count;
    tis_error *err =
        registry_info(call->api->registry, call->model.at, call->model.len, &models, &count);
    if (err)
        return err;
    bool first = true;
    for (uint32_t i = 0; i < models[0].version_count; i++) {
        if (models[0].versions[i].state != VERSION_READY)
            continue;
        bytes_printf(out, "%s\"%" PRId64 "\"", first ? "" : ",", models[0].versions[i].number);
        first = false;
    }
    registry_info_free(models, count);
    return NULL;
}

static tis_error *append_metadata(struct call *call, struct bytes *out)
{
    const struct model_config *config = call->target->config;
    const char *platform =
        config->message->platform[0] ? config->message->platform : config->message->backend;
    bool batches = config->max_batch_size > 0;

    bytes_append_str(out, "{\"name\":");
    json_append_string(out, call->target->model_name, strlen(call->target->model_name));
    bytes_append_str(out, ",\"versions\":[");
    tis_error *err = append_versions(call, out);
    if (err)
        return err;
    bytes_append_str(out, "],\"platform\":");
    json_append_string(out, platform, strlen(platform));
    bytes_append_str(out, ",\"inputs\":[");
    append_tensors(out, config->inputs, config->input_count, batches);
    bytes_append_str(out, "],\"outputs\":[");
    append_tensors(out, config->outputs, config->output_count, batches);
    bytes_append_str(out, "]}");
    return NULL;
}

void v2_model_metadata(struct call *call)
{
    tis_error *err = call_acquire(call);
    if (!err)
        err = append_metadata(call, &call->out);
    if (err)
        v2_fail(call, err);
    else
        call_respond_json(call, 200, &call->out);
}

void v2_model_config(struct call *call)
{
    tis_error *err = call_acquire(call);
    if (err) {
        v2_fail(call, err);
        return;
    }
    struct model_config *config = version_config(call->target);
    bytes_append(&call->out, config->json, config->json_len);
    config_unref(config);
    call_respond_json(call, 200, &call->out);
}

/* ---- Repository index ---- */

static void append_index_entry(struct bytes *out, const char *name, int64_t version,
                               enum version_state state, const char *reason)
{
    if (out->data[out->len - 1] == '}')
        bytes_append_char(out, ',');
    bytes_append_str(out, "{\"name\":");
    json_append_string(out, name, strlen(name));
    if (version >= 0)
        bytes_printf(out, ",\"version\":\"%" PRId64 "\"", version);
    bytes_printf(out, ",\"state\":\"%s\"", version_state_name(state));
    if (reason[0]) {
        bytes_append_str(out, ",\"reason\":");
        json_append_string(out, reason, strlen(reason));
    }
    bytes_append_char(out, '}');
}

/* The optional body: {"ready": bool}. */
static tis_error *index_only_ready(struct call *call, bool *ret_only_ready)
{
    *ret_only_ready = false;
    if (call->ex->body_len == 0)
        return NULL;
    yyjson_doc *doc = yyjson_read(call->ex->body, call->ex->body_len, 0);
    yyjson_val *root = yyjson_doc_get_root(doc);
    yyjson_val *ready = yyjson_obj_get(root, "ready");
    tis_error *err = NULL;
    if (!yyjson_is_obj(root) || (ready && !yyjson_is_bool(ready)))
        err = error_new(TRITONSERVER_ERROR_INVALID_ARG,
                        "failed to parse the request JSON buffer: expected an object like "
                        "{\"ready\":true}");
    else
        *ret_only_ready = yyjson_get_bool(ready);
    yyjson_doc_free(doc);
    return err;
}

void v2_repository_index(struct call *call)
{
    bool only_ready;
    struct model_info *models;
    uint32_t count;
    tis_error *err = index_only_ready(call, &only_ready);
    if (!err)
        err = registry_info(call->api->registry, NULL, 0, &models, &count);
    if (err) {
        v2_fail(call, err);
        return;
    }

    struct bytes *out = &call->out;
    bytes_append_char(out, '[');
    for (uint32_t i = 0; i < count; i++) {
        const struct model_info *m = &models[i];
        if (m->reason[0] && !only_ready)
            append_index_entry(out, m->name, -1, VERSION_UNAVAILABLE, m->reason);
        for (uint32_t k = 0; k < m->version_count; k++) {
            const struct version_info *v = &m->versions[k];
            if (!only_ready || v->state == VERSION_READY)
                append_index_entry(out, m->name, v->number, v->state, v->reason);
        }
    }
    bytes_append_char(out, ']');
    registry_info_free(models, count);
    call_respond_json(call, 200, out);
}

void v2_model_control(struct call *call)
{
    v2_fail(call, reason_error_args(REASON_CONTROL_OFF, NULL, 0));
}

/* ---- Log settings ---- */

void v2_logging(struct call *call)
{
    tis_error *err = NULL;
    if (call->ex->method == HTTP_POST)
        err = log_settings_change_json(call->ex->body, call->ex->body_len);
    if (err) {
        v2_fail(call, err);
        return;
    }
    log_settings_append_json(&call->out);
    call_respond_json(call, 200, &call->out);
}
