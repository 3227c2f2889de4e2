#include "api/status.h"

#include "grpc/server.h"
#include "infer/reason.h"

#define E(code) TRITONSERVER_ERROR_##code

/* Texts of TRTIS 1.x and 0.9 where they differ from today's. A reason without a text here is
 * worded as in infer/reason.c. */
static const struct reason_text v1_texts[REASON_COUNT] = {
    [REASON_MODEL_UNKNOWN] = { E(UNAVAILABLE), "Inference request for unknown model '{0}'" },
    [REASON_VERSION_UNKNOWN] = { E(UNAVAILABLE), "Inference request for unknown model '{0}'" },
    [REASON_MODEL_NO_VERSION] = { E(UNAVAILABLE), "Inference request for unknown model '{0}'" },
    [REASON_VERSION_NOT_READY] = { E(UNAVAILABLE), "Inference request for unknown model '{0}'" },
    [REASON_INPUT_COUNT] = { E(INVALID_ARG), "expected {1} inputs but got {2} inputs for model "
                                             "'{0}'" },
    [REASON_INPUT_SHAPE] = { E(INVALID_ARG), "unexpected shape for input '{1}' for model '{0}'. "
                                             "Expected {2}, got {3}" },
    [REASON_INPUT_BYTES] = { E(INVALID_ARG), "specific batch-byte-size for input '{1}' does not "
                                             "match expected byte-size calculated from shape and "
                                             "datatype for model '{0}'" },
    [REASON_BODY_SHORT] = { E(INVALID_ARG), "unexpected size for input '{1}', expecting {2} bytes "
                                            "for model '{0}'" },
};

static const struct reason_text v0_texts[REASON_COUNT] = {
    [REASON_INPUT_COUNT] = { E(INVALID_ARG), "expected {1} inputs but got {2}" },
    [REASON_INPUT_UNKNOWN] = { E(INVALID_ARG), "unexpected inference input '{1}'" },
    [REASON_INPUT_BYTES] = { E(INVALID_ARG), "unexpected size {3} for inference input '{1}', "
                                             "expecting {2}" },
    [REASON_BATCH_ZERO] = { E(INVALID_ARG),
                            "inference request batch-size must be >= 1 for models that support "
                            "batching, and must be 1 for models that don't support batching" },
    [REASON_BATCH_TOO_LARGE] = { E(INVALID_ARG),
                                 "unexpected batch size {2} for '{3}', max allowed is {1}" },
    [REASON_BODY_SHORT] = { E(INTERNAL), "expected {3} of data for inference input '{1}', got "
                                         "{4}" },
    [REASON_RAW_MISSING] = { E(INTERNAL), "unexpected input index {1}" },
    [REASON_RAW_BYTES] = { E(INTERNAL), "expected {2} of data for inference input '{1}', got {3}" },
};

TRITONSERVER_Error_Code status_describe(enum dialect dialect, const tis_error *err,
                                        struct bytes *out)
{
    uint16_t reason = error_reason(err);
    const struct reason_text *found = NULL;
    if (reason != REASON_NONE && reason < REASON_COUNT) {
        if (dialect == DIALECT_V0 && v0_texts[reason].text)
            found = &v0_texts[reason];
        else if (dialect != DIALECT_V2 && v1_texts[reason].text)
            found = &v1_texts[reason];
    }
    if (!found) {
        bytes_append_str(out, error_text(err));
        return error_code(err);
    }
    reason_expand(out, found->text, err);
    return found->code;
}

static const struct {
    int http;
    int grpc;
    int v1;
    const char *v1_name;
} codes[] = {
    [E(UNKNOWN)] = { 400, GRPC_UNKNOWN, 2, "UNKNOWN" },
    [E(INTERNAL)] = { 500, GRPC_INTERNAL, 3, "INTERNAL" },
    [E(NOT_FOUND)] = { 404, GRPC_NOT_FOUND, 4, "NOT_FOUND" },
    [E(INVALID_ARG)] = { 400, GRPC_INVALID_ARGUMENT, 5, "INVALID_ARG" },
    [E(UNAVAILABLE)] = { 503, GRPC_UNAVAILABLE, 6, "UNAVAILABLE" },
    [E(UNSUPPORTED)] = { 501, GRPC_UNIMPLEMENTED, 7, "UNSUPPORTED" },
    [E(ALREADY_EXISTS)] = { 400, GRPC_ALREADY_EXISTS, 8, "ALREADY_EXISTS" },
    [E(CANCELLED)] = { 400, GRPC_CANCELLED, 2, "UNKNOWN" }, /* v1 has no such code */
};

static size_t code_index(TRITONSERVER_Error_Code code)
{
    return (size_t)code < ARRAY_LEN(codes) ? (size_t)code : E(UNKNOWN);
}

int status_http(TRITONSERVER_Error_Code code)
{
    return codes[code_index(code)].http;
}

int status_grpc(TRITONSERVER_Error_Code code)
{
    return codes[code_index(code)].grpc;
}

int status_v1_code(TRITONSERVER_Error_Code code)
{
    return codes[code_index(code)].v1;
}

const char *status_v1_name(TRITONSERVER_Error_Code code)
{
    return codes[code_index(code)].v1_name;
}

bool status_has_request_prefix(const tis_error *err)
{
    switch (error_reason(err)) {
    case REASON_INPUT_COUNT:
    case REASON_INPUT_TWICE:
    case REASON_INPUT_TYPE:
    case REASON_INPUT_SHAPE:
    case REASON_INPUT_DIMS:
    case REASON_INPUT_BYTES:
    case REASON_BATCH_ZERO:
    case REASON_BATCH_TOO_LARGE:
    case REASON_BATCH_MISMATCH:
    case REASON_BATCH_MISSING:
    case REASON_STRING_COUNT:
    case REASON_STRING_LENGTH:
    case REASON_STRING_DATA:
    case REASON_QUEUE_FULL:
        return true;
    default:
        return false;
    }
}
