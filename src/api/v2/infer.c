#include "api/status.h"
#include "api/v2/v2.h"
#include "infer/reason.h"
#include "proto/json.h"

void v2_append_error(struct bytes *out, const char *text)
{
    bytes_append_str(out, "{\"error\":");
    json_append_string(out, text, strlen(text));
    bytes_append_char(out, '}');
}

void v2_fail(struct call *call, tis_error *err)
{
    struct bytes text = { 0 };
    if (status_has_request_prefix(err) && call->request)
        bytes_printf(&text, "[request id: %s] ",
                     call->request->id[0] ? call->request->id : "<id_unknown>");
    TRITONSERVER_Error_Code code = status_describe(DIALECT_V2, err, &text);

    bytes_clear(&call->out);
    v2_append_error(&call->out, bytes_str(&text));
    call_respond_json(call, status_http(code), &call->out);
    bytes_fini(&text);
    error_free(err);
}

static const struct infer_dialect v2_dialect = {
    .name = "HTTP end point",
    .encode = v2_encode,
    .fail = v2_fail,
};

/* On the loop: the request is filled, or err says why not. */
static void decoded(struct call *call, tis_error *err)
{
    if (!err)
        err = call_infer(call);
    if (err)
        v2_fail(call, err);
}

void v2_infer(struct call *call)
{
    int64_t version;
    tis_error *err = NULL;
    if (api_state(call->api) == SERVER_EXITING)
        err = reason_error_args(REASON_SERVER_EXITING, NULL, 0);
    if (!err)
        err = call_version_number(call, &version);
    if (!err)
        err = call_open_request(call, version, &v2_dialect);
    if (!err && v2_json_bytes(call) > V2_JSON_INLINE_BYTES_MAX)
        call_offload(call, v2_decode, decoded);
    else
        decoded(call, err ? err : v2_decode(call));
}
