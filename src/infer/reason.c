#include "infer/reason.h"

#include <inttypes.h>
#include <stdio.h>

#define E(code) TRITONSERVER_ERROR_##code

const struct reason_text reason_texts[REASON_COUNT] = {
    [REASON_NONE] = { E(UNKNOWN), "unknown reason" },
    [REASON_MODEL_UNKNOWN] = { E(NOT_FOUND), "Request for unknown model: '{0}' is not found" },
    [REASON_VERSION_UNKNOWN] = { E(NOT_FOUND),
                                 "Request for unknown model: '{0}' version {1} is not found" },
    [REASON_MODEL_NO_VERSION] = { E(NOT_FOUND),
                                  "Request for unknown model: '{0}' has no available versions" },
    [REASON_VERSION_NOT_READY] = { E(UNAVAILABLE), "Request for unknown model: '{0}' version {1} "
                                                   "is not at ready state" },
    [REASON_VERSION_INVALID] = { E(INVALID_ARG),
                                 "failed to get model version from specified version string "
                                 "'{0}', version should be an integral value > 0" },
    [REASON_SERVER_EXITING] = { E(UNAVAILABLE), "Server exiting" },
    [REASON_CONTROL_OFF] = { E(UNAVAILABLE), "explicit model load / unload is not allowed if "
                                             "polling is enabled" },
    [REASON_SERVER_NOT_READY] = { E(UNAVAILABLE), "Server not ready" },
    [REASON_INPUT_COUNT] = { E(INVALID_ARG),
                             "expected {1} inputs but got {2} inputs for model '{0}'. Got "
                             "input(s) [{3}], but missing required input(s) [{4}]. Please provide "
                             "all required input(s)." },
    [REASON_INPUT_UNKNOWN] = { E(INVALID_ARG), "unexpected inference input '{1}' for model '{0}'" },
    [REASON_INPUT_TWICE] = { E(INVALID_ARG), "input '{1}' already exists in request" },
    [REASON_OUTPUT_UNKNOWN] = { E(INVALID_ARG),
                                "unexpected inference output '{1}' for model '{0}'" },
    [REASON_INPUT_TYPE] = { E(INVALID_ARG), "inference input '{1}' data-type is '{2}', but model "
                                            "'{0}' expects '{3}'" },
    [REASON_INPUT_SHAPE] = { E(INVALID_ARG), "unexpected shape for input '{1}' for model '{0}'. "
                                             "Expected {2}, got {3}. {4}" },
    [REASON_INPUT_SHAPE_MISSING] = { E(INVALID_ARG),
                                     "model supports variable-size for input '{1}', request must "
                                     "specify input shape for model '{0}'" },
    [REASON_INPUT_DIMS] = { E(INVALID_ARG), "invalid shape for input '{1}' for model '{0}': shape "
                                            "{2} contains one or more invalid dimensions" },
    [REASON_INPUT_BYTES] = { E(INVALID_ARG), "input byte size mismatch for input '{1}' for model "
                                             "'{0}'. Expected {2}, got {3}" },
    [REASON_BATCH_ZERO] = { E(INVALID_ARG), "inference request batch-size must be >= 1 for '{0}'" },
    [REASON_BATCH_TOO_LARGE] = { E(INVALID_ARG),
                                 "inference request batch-size must be <= {1} for '{0}'" },
    [REASON_BATCH_MISMATCH] = { E(INVALID_ARG),
                                "input '{1}' batch size does not match other inputs for '{0}'" },
    [REASON_BATCH_MISSING] = { E(INVALID_ARG), "input '{1}' has no shape but model requires batch "
                                               "dimension for '{0}'" },
    [REASON_BODY_SHORT] = { E(INVALID_ARG), "unexpected size for input '{1}', expecting {2} "
                                            "additional bytes for model '{0}'" },
    [REASON_BODY_LONG] = { E(INVALID_ARG), "unexpected additional input data for model '{0}'" },
    [REASON_RAW_MISSING] = { E(INVALID_ARG), "expected tensor data for at least {1} inputs but got "
                                             "only {1} sets of data for model '{0}'" },
    [REASON_RAW_BYTES] = { E(INVALID_ARG), "unexpected size {3} for input '{1}', expecting {2} for "
                                           "model '{0}'" },
    [REASON_STRING_COUNT] = { E(INVALID_ARG), "expected {2} string elements for inference input "
                                              "'{1}' for model '{0}', got {3}" },
    [REASON_STRING_LENGTH] = { E(INVALID_ARG), "incomplete string length indicator for inference "
                                               "input '{1}' for model '{0}', expecting {2} bytes "
                                               "but only {3} bytes available" },
    [REASON_STRING_DATA] = { E(INVALID_ARG), "incomplete string data for inference input '{1}' "
                                             "for model '{0}', expecting string of length {2} but "
                                             "only {3} bytes available" },
    [REASON_CANCELLED] = { E(CANCELLED), "request was cancelled" },
    [REASON_QUEUE_FULL] = { E(UNAVAILABLE), "Exceeds maximum queue size" },
    [REASON_QUEUE_TIMEOUT] = { E(UNAVAILABLE), "Request timeout expired" },
    [REASON_CLASS_TYPE] = { E(INVALID_ARG), "class result not available for output '{0}' due to "
                                            "unsupported type '{1}'" },
};

void reason_expand(struct bytes *out, const char *text, const tis_error *err)
{
    for (const char *p = text; *p; p++) {
        if (p[0] == '{' && p[1] >= '0' && p[1] <= '9' && p[2] == '}') {
            bytes_append_str(out, error_arg(err, (uint32_t)(p[1] - '0')));
            p += 2;
        } else {
            bytes_append_char(out, *p);
        }
    }
}

tis_error *reason_error_args(enum reason reason, const char *const *args, uint32_t count)
{
    const struct reason_text *t = &reason_texts[reason];
    tis_error *bare = error_new_reason(t->code, (uint16_t)reason, "", args, count);
    struct bytes text = { 0 };
    reason_expand(&text, t->text, bare);
    error_free(bare);
    tis_error *err = error_new_reason(t->code, (uint16_t)reason, bytes_str(&text), args, count);
    bytes_fini(&text);
    return err;
}

const char *reason_number(char *storage24, uint64_t value)
{
    snprintf(storage24, 24, "%" PRIu64, value);
    return storage24;
}
