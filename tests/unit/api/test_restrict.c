/* Restricted operations, by tables: what a flag may say, and which headers open which categories. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "api/restrict.h"
#include "base/attr.h"

static tis_error *add(struct restrictions *r, const char *text, char *storage)
{
    snprintf(storage, 128, "%s", text);
    return restrictions_add(r, storage);
}

/* Each text alone or behind the first; an error leaves the restrictions as they were, and never
 * holds the secret. */
static void test_flags(void **state)
{
    static const struct {
        const char *text;
        const char *error; /* NULL: right */
        uint32_t restricted;
    } cases[] = {
        { "health:k=v", NULL, CATEGORY_HEALTH },
        { "health,inference:k=v", NULL, CATEGORY_HEALTH | CATEGORY_INFERENCE },
        { "logging,trace,model-config:x-key=a:b=c", NULL,
          CATEGORY_LOGGING | CATEGORY_TRACE | CATEGORY_MODEL_CONFIG },
        { "", "expected <category>[,<category>]...:<key>=<value>", 0 },
        { "health", "expected <category>", 0 },
        { "health:k", "expected <category>", 0 },
        { "health:=secret", "expected <category>", 0 },
        { ":k=secret", "expected <category>", 0 },
        { "health:k=", "expected <category>", 0 },
        { "health=secret", "expected <category>", 0 },
        { "health,:k=secret", "unknown category ''", 0 },
        { "health,infer:k=secret",
          "unknown category 'infer', expected of health, metadata, inference, shared-memory, "
          "model-config, model-repository, statistics, trace, logging",
          0 },
        { "Health:k=secret", "unknown category 'Health'", 0 },
        { "health,health:k=secret", "category 'health' is restricted twice", 0 },
        { "statistics:j=secret", "'statistics' is restricted twice, by key 'first' and by key 'j'",
          0 },
        { "health:a b=secret", "key 'a b' cannot be the name of a header: it holds ' '", 0 },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct restrictions r = { 0 };
        char first[128], storage[128];
        assert_null(add(&r, "statistics:first=1", first));
        tis_error *err = add(&r, cases[i].text, storage);
        assert_int_equal(r.restricted, cases[i].restricted | CATEGORY_STATISTICS);
        if (cases[i].error) {
            assert_non_null(err);
            assert_int_equal(error_code(err), TRITONSERVER_ERROR_INVALID_ARG);
            if (!strstr(error_text(err), cases[i].error))
                fail_msg("%s: %s", cases[i].text, error_text(err));
            assert_null(strstr(error_text(err), "secret"));
        } else {
            assert_null(err);
        }
        error_free(err);
    }
}

#define HEADER(n, v)                                                                      \
    {                                                                                     \
        .name = (n), .value = (v), .name_len = sizeof(n) - 1, .value_len = sizeof(v) - 1, \
    }

static void test_check(void **state)
{
    static const struct http_header headers[] = {
        HEADER("Host", "x"),    HEADER("ADMIN-key", "abc"),
        HEADER("other", "abd"), HEADER("triton-grpc-protocol-admin-key", "abc"),
        HEADER("short", "ab"),  HEADER("long", "abcabc"),
        HEADER("none", ""),
    };
    static const struct {
        const char *flags[2];
        uint32_t categories; /* of the operation */
        const char *error;   /* over HTTP */
    } cases[] = {
        { { "health:admin-key=abc" }, CATEGORY_HEALTH, NULL },
        { { "health:admin-key=abc" }, CATEGORY_INFERENCE, NULL },
        { { "inference:missing=abc" }, CATEGORY_HEALTH, NULL },
        { { "inference:missing=abc" },
          CATEGORY_INFERENCE,
          "This API is restricted, expecting header 'missing'" },
        { { "inference:other=abc" },
          CATEGORY_INFERENCE,
          "This API is restricted, expecting header 'other'" },
        { { "inference:short=abc" }, CATEGORY_INFERENCE, "header 'short'" },
        { { "inference:long=abc" }, CATEGORY_INFERENCE, "header 'long'" },
        { { "inference:none=abc" }, CATEGORY_INFERENCE, "header 'none'" },
        { { "inference:Admin-Key=ABC" }, CATEGORY_INFERENCE, "header 'Admin-Key'" },
        { { "metadata:admin-key=abc", "statistics:other=abd" },
          CATEGORY_METADATA | CATEGORY_MODEL_CONFIG | CATEGORY_STATISTICS,
          NULL },
        { { "metadata:admin-key=abc", "statistics:other=abc" },
          CATEGORY_METADATA | CATEGORY_MODEL_CONFIG | CATEGORY_STATISTICS,
          "header 'other'" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct restrictions r = { 0 };
        char storage[2][128];
        for (size_t k = 0; k < 2 && cases[i].flags[k]; k++)
            assert_null(add(&r, cases[i].flags[k], storage[k]));
        tis_error *err = restrictions_check(&r, &restriction_http, cases[i].categories, headers,
                                            ARRAY_LEN(headers));
        if (cases[i].error) {
            assert_int_equal(error_code(err), TRITONSERVER_ERROR_UNAVAILABLE);
            if (!strstr(error_text(err), cases[i].error))
                fail_msg("case %zu: %s", i, error_text(err));
        } else {
            assert_null(err);
        }
        error_free(err);
    }
}

/* gRPC's headers have a prefix, and nothing else opens. */
static void test_prefix(void **state)
{
    static const struct http_header headers[] = {
        HEADER("k", "v"),
        HEADER("triton-grpc-protocol-k", "v"),
    };
    struct restrictions r = { 0 };
    char storage[128];
    (void)state;
    assert_null(add(&r, "health:k=v", storage));
    assert_null(restrictions_check(&r, &restriction_grpc, CATEGORY_HEALTH, headers, 2));
    tis_error *err = restrictions_check(&r, &restriction_grpc, CATEGORY_HEALTH, headers, 1);
    assert_string_equal(error_text(err), "This protocol is restricted, expecting header "
                                         "'triton-grpc-protocol-k'");
    error_free(err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
