/* Reflection by tables: which file answers for a symbol, what is not found, and messages that are none.
 * The descriptors are those of the program. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "api/reflection.h"
#include "base/attr.h"
#include "proto/wire.h"

enum {
    FILE_BY_NAME = 3,
    FILE_BY_SYMBOL = 4,
    FILE_BY_EXTENSION = 5,
    EXTENSION_NUMBERS = 6,
    SERVICES = 7,
};

#define HEALTH "grpc/health/v1/health.proto;"
#define V1 "grpc/reflection/v1/reflection.proto;"
#define ALPHA "grpc/reflection/v1alpha/reflection.proto;"
#define V2 "grpc_service.proto;model_config.proto;"
#define CONFIG "model_config.proto;"

/* The names of the files, "error CODE: TEXT", or "numbers of TYPE". */
static void describe(struct bytes *out, const struct wire_field *body)
{
    uint64_t code = 0;
    struct wire w = wire_open(body->data, body->len);
    for (struct wire_field f, name; wire_next(&w, &f);) {
        struct wire file = wire_open(f.data, f.len);
        if (body->number == 4 && wire_next(&file, &name))
            bytes_printf(out, "%.*s;", (int)name.len, name.data);
        else if (body->number == 5)
            bytes_printf(out, "numbers of %.*s", (int)f.len, f.data);
        else if (body->number == 6 && wire_next(&file, &name))
            bytes_printf(out, "%.*s;", (int)name.len, name.data);
        else if (body->number == 7 && f.number == 1)
            code = f.value;
        else if (body->number == 7)
            bytes_printf(out, "error %d: %.*s", (int)code, (int)f.len, f.data);
    }
    assert_false(w.is_bad);
}

/* The answer to a request, and that it repeats the request. */
static void ask(const struct bytes *request, struct bytes *out)
{
    struct bytes answer = { 0 };
    assert_null(reflection_answer(request->data, request->len, &answer));
    struct wire w = wire_open(answer.data, answer.len);
    bool is_repeated = false;
    for (struct wire_field f; wire_next(&w, &f);) {
        if (f.number == 1) {
            assert_memory_equal(f.data, "me", 2);
        } else if (f.number == 2) {
            is_repeated = f.len == request->len && memcmp(f.data, request->data, f.len) == 0;
        } else {
            describe(out, &f);
        }
    }
    assert_false(w.is_bad);
    assert_true(is_repeated);
    bytes_fini(&answer);
}

static void test_answers(void **state)
{
    static const struct {
        uint32_t number;
        const char *text;
        const char *answer;
    } cases[] = {
        { FILE_BY_NAME, "grpc/health/v1/health.proto", HEALTH },
        { FILE_BY_NAME, "model_config.proto", CONFIG },
        { FILE_BY_NAME, "grpc_service.proto", V2 },
        { FILE_BY_NAME, "health.proto", "error 5: file not found: health.proto" },
        { FILE_BY_NAME, "", "error 5: file not found: " },
        { FILE_BY_SYMBOL, "grpc.health.v1.Health", HEALTH },
        { FILE_BY_SYMBOL, "grpc.health.v1.Health.Watch", HEALTH },
        { FILE_BY_SYMBOL, "grpc.health.v1.HealthCheckResponse.ServingStatus", HEALTH },
        { FILE_BY_SYMBOL, "grpc.health.v1.HealthCheckResponse.NOT_SERVING", HEALTH },
        { FILE_BY_SYMBOL, "grpc.reflection.v1.ServerReflection", V1 },
        { FILE_BY_SYMBOL, "grpc.reflection.v1alpha.ServerReflection", ALPHA },
        { FILE_BY_SYMBOL, "grpc.reflection.v1.ServerReflectionRequest.message_request", V1 },
        { FILE_BY_SYMBOL, "inference.GRPCInferenceService", V2 },
        { FILE_BY_SYMBOL, "inference.GRPCInferenceService.ModelInfer", V2 },
        { FILE_BY_SYMBOL, "inference.ModelInferRequest.InferInputTensor.shape", V2 },
        { FILE_BY_SYMBOL, "inference.ModelConfig", CONFIG },
        { FILE_BY_SYMBOL, "inference.TYPE_FP32", CONFIG },
        { FILE_BY_SYMBOL, "inference.DataType", CONFIG },
        { FILE_BY_SYMBOL, "nvidia.inferenceserver.ModelConfig", "v1/model_config.proto;" },
        { FILE_BY_SYMBOL, "inference.ModelConfi",
          "error 5: symbol not found: inference.ModelConfi" },
        { FILE_BY_SYMBOL, "inference.DataType.TYPE_FP32.x",
          "error 5: symbol not found: inference.DataType.TYPE_FP32.x" },
        { FILE_BY_SYMBOL, ".inference.ModelConfig",
          "error 5: symbol not found: .inference.ModelConfig" },
        { FILE_BY_SYMBOL, "inference", "error 5: symbol not found: inference" },
        { FILE_BY_SYMBOL, "", "error 5: symbol not found: " },
        { FILE_BY_EXTENSION, "\n\1M\20\2", "error 5: extension of message type not found: M" },
        { FILE_BY_EXTENSION, "", "error 5: extension of message type not found: " },
        { EXTENSION_NUMBERS, "inference.ModelConfig", "numbers of inference.ModelConfig" },
        { EXTENSION_NUMBERS, "inference.ModelInferRequest.InferInputTensor",
          "numbers of inference.ModelInferRequest.InferInputTensor" },
        { EXTENSION_NUMBERS, "inference.DataType",
          "error 5: message type not found: inference.DataType" },
        { EXTENSION_NUMBERS, "inference.None", "error 5: message type not found: inference.None" },
        { 9, "unknown fields are skipped", "error 3: the request asks for nothing" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct bytes request = { 0 }, answer = { 0 };
        wire_append_bytes(&request, 1, "me", 2);
        wire_append_bytes(&request, cases[i].number, cases[i].text, strlen(cases[i].text));
        ask(&request, &answer);
        assert_string_equal(bytes_str(&answer), cases[i].answer);
        bytes_fini(&request);
        bytes_fini(&answer);
    }
}

static void test_services(void **state)
{
    static const char *const services[] = {
        "grpc.health.v1.Health;",
        "grpc.reflection.v1.ServerReflection;",
        "grpc.reflection.v1alpha.ServerReflection;",
        "inference.GRPCInferenceService;",
        "nvidia.inferenceserver.GRPCService;",
    };
    struct bytes request = { 0 }, answer = { 0 };
    (void)state;
    wire_append_bytes(&request, FILE_BY_NAME, "x", 1); /* the last question counts */
    wire_append_bytes(&request, SERVICES, "", 0);
    ask(&request, &answer);
    for (size_t i = 0; i < ARRAY_LEN(services); i++)
        assert_non_null(strstr(bytes_str(&answer), services[i]));
    bytes_fini(&request);
    bytes_fini(&answer);
}

static void test_bad(void **state)
{
    static const struct {
        const char *data;
        size_t len;
    } cases[] = {
        { "\x0a", 1 },             /* cut */
        { "\x22\5ab", 4 },         /* longer than the message */
        { "\x20\1", 2 },           /* a symbol that is a number */
        { "\x22\1\xff", 3 },       /* not UTF-8 */
        { "\x0a\1\xc0", 3 },       /* the host neither */
        { "\x2a\3\x0a\1\xff", 5 }, /* nor the type of an extension */
        { "\x2a\2\x12\1", 4 },     /* an extension's number that is a text */
        { "\x2a\1\x0a", 3 },       /* an extension request that is cut */
        { "\x23", 1 },             /* a group */
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct bytes out = { 0 };
        tis_error *err = reflection_answer(cases[i].data, cases[i].len, &out);
        assert_non_null(err);
        assert_int_equal(error_code(err), TRITONSERVER_ERROR_INVALID_ARG);
        assert_int_equal(out.len, 0);
        error_free(err);
    }
    struct bytes out = { 0 };
    assert_null(reflection_answer(NULL, 0, &out));
    assert_true(out.len > 0);
    bytes_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_services),
        cmocka_unit_test(test_bad),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
