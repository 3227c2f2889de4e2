/* Health, status, profile, repository index and model control of the v1 protocol over HTTP. */
#include <inttypes.h>
#include <string.h>

#include "api/v1/v1.h"
#include "proto/json.h"
#include "proto/message.h"
#include "proto/text.h"

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

void v1_answer(struct call *call, tis_error *err)
{
    bytes_clear(&call->out);
    v1_append_status(&call->out, call->api, DIALECT_V1, err, v1_request_id(call->api, err));
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
    case V1_BINARY:
        message_append(out, m);
        break;
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
static void answer_health(struct call *call, const char *mode)
{
    bool yes = false;
    tis_error *err = v1_ask_health(call, (struct part){ mode, strlen(mode) }, &yes);
    bytes_clear(&call->out);
    v1_append_status(&call->out, call->api, DIALECT_V1, err, v1_request_id(call->api, err));
    call_respond(call, yes ? 200 : 400, bytes_str(&call->out));
    error_free(err);
}

void v1_live(struct call *call)
{
    answer_health(call, "live");
}

void v1_ready(struct call *call)
{
    answer_health(call, "ready");
}

void v1_health_without_mode(struct call *call)
{
    answer_health(call, "");
}

/* ---- Profile ---- */

void v1_profile(struct call *call)
{
    char command[32] = "";
    http_query_get(call->ex, "cmd", command, sizeof(command));
    v1_answer(call, v1_run_profile(call, (struct part){ command, strlen(command) }));
}

/* ---- Status ---- */

/* Takes err; without one 200 with the message as the body, in the format of the client's choice. */
static void answer_message(struct call *call, tis_error *err, const ProtobufCMessage *m)
{
    static const char *const types[] = {
        [V1_TEXT] = "text/plain",
        [V1_BINARY] = "application/octet-stream",
        [V1_JSON] = "application/json",
    };
    enum v1_format format = v1_format(call);
    struct bytes body = { 0 };
    if (!err)
        v1_append_message(&body, m, format);
    if (body.failed)
        err = error_no_memory();
    if (err) {
        v1_answer(call, err);
        bytes_fini(&body);
        return;
    }
    bytes_clear(&call->out);
    v1_append_status(&call->out, call->api, DIALECT_V1, NULL, v1_request_id(call->api, NULL));
    bytes_printf(&call->out, "Content-Type: %s\r\n", types[format]);
    http_respond_copy(call->ex, 200, bytes_str(&call->out), body.data, body.len);
    bytes_fini(&body);
}

void v1_status(struct call *call)
{
    struct arena arena;
    Nvidia__Inferenceserver__ServerStatus *status = NULL;
    arena_init(&arena, NULL, 0, V1_STATUS_ARENA_BYTES_MAX);
    tis_error *err = v1_get_status(call, call->rest, &arena, &status);
    answer_message(call, err, err ? NULL : &status->base);
    arena_fini(&arena);
}

/* ---- Repository index and model control (1.x) ---- */

void v1_repository_index(struct call *call)
{
    struct arena arena;
    Nvidia__Inferenceserver__ModelRepositoryIndex *index = NULL;
    arena_init(&arena, NULL, 0, V1_STATUS_ARENA_BYTES_MAX);
    tis_error *err = v1_get_index(call, &arena, &index);
    answer_message(call, err, err ? NULL : &index->base);
    arena_fini(&arena);
}

void v1_model_control(struct call *call)
{
    v1_answer(call, v1_control_model(call));
}
