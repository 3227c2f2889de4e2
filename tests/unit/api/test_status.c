/* How each dialect says the same refusal: code and text for every reason, by a table; and the
 * numbers of the codes in HTTP and v1. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "api/status.h"
#include "base/attr.h"
#include "infer/reason.h"

#define E(code) TRITONSERVER_ERROR_##code

struct said {
    TRITONSERVER_Error_Code code;
    const char *text; /* NULL: as the dialect after this one */
};

/* Arguments are "m" (the model), "i" (the tensor), then 1, 2, 3. */
static const struct {
    enum reason reason;
    struct said v0, v1, v2;
} cases[] = {
    { REASON_MODEL_UNKNOWN,
      { 0 },
      { E(UNAVAILABLE), "Inference request for unknown model 'm'" },
      { E(NOT_FOUND), "Request for unknown model: 'm' is not found" } },
    { REASON_VERSION_UNKNOWN,
      { 0 },
      { E(UNAVAILABLE), "Inference request for unknown model 'm'" },
      { E(NOT_FOUND), "Request for unknown model: 'm' version i is not found" } },
    { REASON_MODEL_NO_VERSION,
      { 0 },
      { E(UNAVAILABLE), "Inference request for unknown model 'm'" },
      { E(NOT_FOUND), "Request for unknown model: 'm' has no available versions" } },
    { REASON_VERSION_NOT_READY,
      { 0 },
      { E(UNAVAILABLE), "Inference request for unknown model 'm'" },
      { E(UNAVAILABLE), "Request for unknown model: 'm' version i is not at ready state" } },
    { REASON_SERVER_EXITING, { 0 }, { 0 }, { E(UNAVAILABLE), "Server exiting" } },
    { REASON_SERVER_NOT_READY, { 0 }, { 0 }, { E(UNAVAILABLE), "Server not ready" } },
    { REASON_INPUT_COUNT,
      { E(INVALID_ARG), "expected i inputs but got 1" },
      { E(INVALID_ARG), "expected i inputs but got 1 inputs for model 'm'" },
      { E(INVALID_ARG), "expected i inputs but got 1 inputs for model 'm'. Got input(s) [2], but "
                        "missing required input(s) [3]. Please provide all required input(s)." } },
    { REASON_INPUT_UNKNOWN,
      { E(INVALID_ARG), "unexpected inference input 'i'" },
      { 0 },
      { E(INVALID_ARG), "unexpected inference input 'i' for model 'm'" } },
    { REASON_OUTPUT_UNKNOWN,
      { 0 },
      { 0 },
      { E(INVALID_ARG), "unexpected inference output 'i' for model 'm'" } },
    { REASON_INPUT_SHAPE,
      { 0 },
      { E(INVALID_ARG), "unexpected shape for input 'i' for model 'm'. Expected 1, got 2" },
      { E(INVALID_ARG), "unexpected shape for input 'i' for model 'm'. Expected 1, got 2. 3" } },
    { REASON_INPUT_SHAPE_MISSING,
      { 0 },
      { 0 },
      { E(INVALID_ARG), "model supports variable-size for input 'i', request must specify input "
                        "shape for model 'm'" } },
    { REASON_INPUT_BYTES,
      { E(INVALID_ARG), "unexpected size 2 for inference input 'i', expecting 1" },
      { E(INVALID_ARG), "specific batch-byte-size for input 'i' does not match expected byte-size "
                        "calculated from shape and datatype for model 'm'" },
      { E(INVALID_ARG), "input byte size mismatch for input 'i' for model 'm'. Expected 1, got "
                        "2" } },
    { REASON_BATCH_ZERO,
      { E(INVALID_ARG), "inference request batch-size must be >= 1 for models that support "
                        "batching, and must be 1 for models that don't support batching" },
      { 0 },
      { E(INVALID_ARG), "inference request batch-size must be >= 1 for 'm'" } },
    { REASON_BATCH_TOO_LARGE, /* model, max, got, instance */
      { E(INVALID_ARG), "unexpected batch size 1 for '2', max allowed is i" },
      { 0 },
      { E(INVALID_ARG), "inference request batch-size must be <= i for 'm'" } },
    { REASON_BODY_SHORT,
      { E(INTERNAL), "expected 2 of data for inference input 'i', got 3" },
      { E(INVALID_ARG), "unexpected size for input 'i', expecting 1 bytes for model 'm'" },
      { E(INVALID_ARG), "unexpected size for input 'i', expecting 1 additional bytes for model "
                        "'m'" } },
    { REASON_BODY_LONG,
      { 0 },
      { 0 },
      { E(INVALID_ARG), "unexpected additional input data for model 'm'" } },
    { REASON_CLASS_TYPE,
      { 0 },
      { 0 },
      { E(INVALID_ARG), "class result not available for output 'm' due to unsupported type "
                        "'i'" } },
};

static void check(enum dialect dialect, const tis_error *err, const struct said *said)
{
    struct bytes text = { 0 };
    TRITONSERVER_Error_Code code = status_describe(dialect, err, &text);
    assert_string_equal(bytes_str(&text), said->text);
    assert_int_equal(code, said->code);
    bytes_fini(&text);
}

static void test_reasons(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        tis_error *err = reason_error(cases[i].reason, "m", "i", "1", "2", "3");
        const struct said *v2 = &cases[i].v2;
        const struct said *v1 = cases[i].v1.text ? &cases[i].v1 : v2;
        const struct said *v0 = cases[i].v0.text ? &cases[i].v0 : v1;
        check(DIALECT_V2, err, v2);
        check(DIALECT_V1, err, v1);
        check(DIALECT_V0, err, v0);
        assert_string_equal(error_text(err), v2->text); /* for whoever knows no dialect */
        error_free(err);
    }
}

/* Every reason has a text in every dialect, with arguments that exist. */
static void test_every_reason_speaks(void **state)
{
    (void)state;
    for (enum reason r = REASON_NONE; r < REASON_COUNT; r++) {
        assert_non_null(reason_texts[r].text);
        tis_error *err = reason_error(r, "", "", "", "", "");
        for (enum dialect d = DIALECT_V0; d <= DIALECT_V2; d++) {
            struct bytes text = { 0 };
            (void)status_describe(d, err, &text);
            assert_true(text.len > 0);
            assert_null(strchr(bytes_str(&text), '{'));
            bytes_fini(&text);
        }
        error_free(err);
    }
}

/* Without a reason, and from a plug-in: the error's own code and text, in every dialect. */
static void test_plain_errors(void **state)
{
    (void)state;
    tis_error *err = error_new(E(UNSUPPORTED), "no {0}");
    for (enum dialect d = DIALECT_V0; d <= DIALECT_V2; d++)
        check(d, err, &(struct said){ E(UNSUPPORTED), "no {0}" });
    error_free(err);
    check(DIALECT_V1, error_no_memory(),
          &(struct said){ E(UNAVAILABLE), error_text(error_no_memory()) });
}

/* Names and numbers of v1's RequestStatusCode, HTTP's of v2; an unknown code is UNKNOWN. */
static void test_codes(void **state)
{
    (void)state;
    static const struct {
        TRITONSERVER_Error_Code code;
        int v1, http;
        const char *name;
    } codes[] = {
        { E(UNKNOWN), 2, 400, "UNKNOWN" },
        { E(INTERNAL), 3, 500, "INTERNAL" },
        { E(NOT_FOUND), 4, 404, "NOT_FOUND" },
        { E(INVALID_ARG), 5, 400, "INVALID_ARG" },
        { E(UNAVAILABLE), 6, 503, "UNAVAILABLE" },
        { E(UNSUPPORTED), 7, 501, "UNSUPPORTED" },
        { E(ALREADY_EXISTS), 8, 400, "ALREADY_EXISTS" },
        { E(CANCELLED), 2, 400, "UNKNOWN" },
        { (TRITONSERVER_Error_Code)99, 2, 400, "UNKNOWN" },
        { (TRITONSERVER_Error_Code)-1, 2, 400, "UNKNOWN" },
    };
    for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
        assert_int_equal(status_v1_code(codes[i].code), codes[i].v1);
        assert_string_equal(status_v1_name(codes[i].code), codes[i].name);
        assert_int_equal(status_http(codes[i].code), codes[i].http);
    }
}

static void test_request_prefix(void **state)
{
    (void)state;
    static const struct {
        enum reason reason;
        bool expected;
    } reasons[] = {
        { REASON_INPUT_COUNT, true },    { REASON_INPUT_SHAPE, true },
        { REASON_BATCH_ZERO, true },     { REASON_STRING_COUNT, true },
        { REASON_MODEL_UNKNOWN, false }, { REASON_OUTPUT_UNKNOWN, false },
        { REASON_CANCELLED, false },     { REASON_NONE, false },
        { REASON_QUEUE_FULL, true },     { REASON_QUEUE_TIMEOUT, false },
    };
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++) {
        tis_error *err = reason_error(reasons[i].reason, "m", "i", "1", "2", "3");
        assert_int_equal(status_has_request_prefix(err), reasons[i].expected);
        error_free(err);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reasons),        cmocka_unit_test(test_every_reason_speaks),
        cmocka_unit_test(test_plain_errors),   cmocka_unit_test(test_codes),
        cmocka_unit_test(test_request_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
