/* What the v1 protocol can ask but for inference, however it is carried. */
#include <string.h>

#include "api/v1/v1.h"
#include "infer/reason.h"

const char *v1_server_id(const struct api *api)
{
    return api->options.id ? api->options.id : "inference:0";
}

uint64_t v1_next_request_id(struct api *api)
{
    return atomic_fetch_add_explicit(&api->v1_request_id, 1, memory_order_relaxed) + 1;
}

uint64_t v1_request_id(struct api *api, const tis_error *err)
{
    uint16_t reason = err ? error_reason(err) : REASON_NONE;
    if (reason == REASON_SERVER_EXITING || reason == REASON_SERVER_NOT_READY)
        return 0;
    return v1_next_request_id(api);
}

static bool part_is(struct part part, const char *text)
{
    return part.len == strlen(text) && memcmp(part.at, text, part.len) == 0;
}

static tis_error *refuse_while_exiting(const struct call *call)
{
    bool is_exiting = api_state(call->api) == SERVER_EXITING;
    return is_exiting ? reason_error_args(REASON_SERVER_EXITING, NULL, 0) : NULL;
}

tis_error *v1_ask_health(struct call *call, struct part mode, bool *ret_yes)
{
    bool asks_ready = part_is(mode, "ready");
    api_count(call->api, COUNTER_HEALTH, call->start_ns);
    if (!asks_ready && !part_is(mode, "live"))
        return error_new(TRITONSERVER_ERROR_UNKNOWN, "unknown health mode '%.*s'", (int)mode.len,
                         mode.at);
    tis_error *err = refuse_while_exiting(call);
    if (!err)
        *ret_yes = asks_ready ? api_is_ready(call->api) : api_is_live(call->api);
    return err;
}

tis_error *v1_run_profile(struct call *call, struct part command)
{
    api_count(call->api, COUNTER_PROFILE, call->start_ns);
    if (api_state(call->api) != SERVER_READY)
        return reason_error_args(REASON_SERVER_NOT_READY, NULL, 0);
    if (!call->api->options.allow_profiling)
        return error_new(TRITONSERVER_ERROR_UNSUPPORTED, "Profile API not enabled");
    if (!part_is(command, "start") && !part_is(command, "stop"))
        return error_new(TRITONSERVER_ERROR_INVALID_ARG, "Unknown profile command '%.*s'",
                         (int)command.len, command.at);
    return NULL; /* the CUDA profiler of every GPU would start or stop: there is none */
}

tis_error *v1_get_status(struct call *call, struct part model, struct arena *a,
                         Nvidia__Inferenceserver__ServerStatus **ret_status)
{
    api_count(call->api, COUNTER_STATUS, call->start_ns);
    tis_error *err = refuse_while_exiting(call);
    return err ? err : v1_make_status(call->api, model, a, ret_status);
}

tis_error *v1_get_index(struct call *call, struct arena *a,
                        Nvidia__Inferenceserver__ModelRepositoryIndex **ret_index)
{
    return v1_make_index(call->api, a, ret_index);
}

tis_error *v1_control_model(struct call *call)
{
    (void)call;
    return reason_error_args(REASON_CONTROL_OFF, NULL, 0);
}
