/* The v1 protocol over gRPC but for inference.
 *
 * An answer is request_status, which all have as field 1, and the fields that the operation fills. */
#include "api/v1/v1.h"
#include "proto/message.h"
#include "proto/wire.h"
#include "v1/grpc_service.pb-c.h"

#define PB(type) Nvidia__Inferenceserver__##type

void v1_append_request_status(struct bytes *out, const struct api *api, enum dialect dialect,
                              const tis_error *err, uint64_t request_id)
{
    struct bytes text = { 0 };
    PB(RequestStatus) m = NVIDIA__INFERENCESERVER__REQUEST_STATUS__INIT;
    m.code = NVIDIA__INFERENCESERVER__REQUEST_STATUS_CODE__SUCCESS;
    if (err)
        m.code = (PB(RequestStatusCode))status_v1_code(status_describe(dialect, err, &text));
    m.msg = (char *)(uintptr_t)bytes_str(&text);
    m.server_id = (char *)(uintptr_t)v1_server_id(api);
    m.request_id = request_id;
    wire_append_head(out, 1, protobuf_c_message_get_packed_size(&m.base));
    message_append(out, &m.base);
    bytes_fini(&text);
}

void v1_rpc_respond(struct call *call)
{
    if (call->out.failed) {
        call_fail(call, GRPC_UNAVAILABLE, "out of memory");
        return;
    }
    struct iovec part = { .iov_base = call->out.data, .iov_len = call->out.len };
    call_reply(call, &part, 1);
}

/* Takes err. m: the answer without request_status; after an error what is left of it. */
static void answer(struct call *call, tis_error *err, const ProtobufCMessage *m)
{
    struct bytes *out = &call->out;
    bytes_clear(out);
    v1_append_request_status(out, call->api, DIALECT_V1, err, v1_request_id(call->api, err));
    message_append(out, m);
    error_free(err);
    v1_rpc_respond(call);
}

/* The field 1 of requests that have no other: a text. */
static tis_error *read_text(const struct call *call, struct part *ret_text)
{
    struct part text = { "", 0 };
    struct wire w = wire_open(call->message, call->message_len);
    for (struct wire_field f; wire_next(&w, &f);) {
        if (f.number != 1)
            continue;
        if (f.type != WIRE_BYTES || !utf8_is_valid(f.data, f.len))
            return wire_error();
        text = (struct part){ f.data, f.len };
    }
    if (w.is_bad)
        return wire_error();
    *ret_text = text;
    return NULL;
}

void v1_rpc_health(struct call *call)
{
    PB(HealthResponse) m = NVIDIA__INFERENCESERVER__HEALTH_RESPONSE__INIT;
    struct part mode;
    bool yes = false;
    tis_error *err = read_text(call, &mode);
    if (!err)
        err = v1_ask_health(call, mode, &yes);
    m.health = yes;
    answer(call, err, &m.base);
}

void v1_rpc_profile(struct call *call)
{
    PB(ProfileResponse) m = NVIDIA__INFERENCESERVER__PROFILE_RESPONSE__INIT;
    struct part command;
    tis_error *err = read_text(call, &command);
    if (!err)
        err = v1_run_profile(call, command);
    answer(call, err, &m.base);
}

void v1_rpc_status(struct call *call)
{
    PB(StatusResponse) m = NVIDIA__INFERENCESERVER__STATUS_RESPONSE__INIT;
    struct part model;
    struct arena arena;
    arena_init(&arena, NULL, 0, V1_STATUS_ARENA_BYTES_MAX);
    tis_error *err = read_text(call, &model);
    if (!err)
        err = v1_get_status(call, model, &arena, &m.server_status);
    answer(call, err, &m.base);
    arena_fini(&arena);
}

/* Whatever the request asks for: there is nothing to control. */
void v1_rpc_model_control(struct call *call)
{
    PB(ModelControlResponse) m = NVIDIA__INFERENCESERVER__MODEL_CONTROL_RESPONSE__INIT;
    answer(call, v1_control_model(call), &m.base);
}

void v1_rpc_shared_memory_control(struct call *call)
{
    PB(SharedMemoryControlResponse)
    m = NVIDIA__INFERENCESERVER__SHARED_MEMORY_CONTROL_RESPONSE__INIT;
    answer(
        call,
        error_new(TRITONSERVER_ERROR_UNSUPPORTED, "shared memory is not supported by this server"),
        &m.base);
}

/* Does the request ask for the index, the one thing that can be asked for? */
static tis_error *read_repository_request(const struct call *call)
{
    bool has_type = false;
    struct wire w = wire_open(call->message, call->message_len);
    for (struct wire_field f; wire_next(&w, &f);) {
        if (f.number == 1 && f.type != WIRE_VARINT)
            return wire_error();
        has_type |= f.number == 1; /* of a oneof: given, whatever its value */
    }
    if (w.is_bad)
        return wire_error();
    return has_type ? NULL : error_new(TRITONSERVER_ERROR_UNKNOWN, "request type is not specified");
}

void v1_rpc_repository(struct call *call)
{
    PB(RepositoryResponse) m = NVIDIA__INFERENCESERVER__REPOSITORY_RESPONSE__INIT;
    struct arena arena;
    arena_init(&arena, NULL, 0, V1_STATUS_ARENA_BYTES_MAX);
    tis_error *err = read_repository_request(call);
    if (!err)
        err = v1_get_index(call, &arena, &m.index);
    if (!err)
        m.response_type_case = NVIDIA__INFERENCESERVER__REPOSITORY_RESPONSE__RESPONSE_TYPE_INDEX;
    answer(call, err, &m.base);
    arena_fini(&arena);
}
