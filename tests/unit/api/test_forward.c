/* Forwarded headers, by tables: which names a pattern takes, what values become, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "api/forward.h"
#include "base/attr.h"
#include "base/bytes.h"

#define HEADER(n, v)                                                                      \
    {                                                                                     \
        .name = (n), .value = (v), .name_len = sizeof(n) - 1, .value_len = sizeof(v) - 1, \
    }

static void complete(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    (void)sink;
    (void)response;
    (void)flags;
}

static const struct sink_ops ops = { .complete = complete };

static struct forward *compile(const char *pattern)
{
    struct forward *f = NULL;
    assert_null(forward_create("--flag", pattern, &f));
    return f;
}

/* "name=value;" for each parameter. */
static void assert_forwards(const char *pattern, bool is_grpc, const struct http_header *headers,
                            uint32_t count, const char *expected)
{
    struct forward *f = compile(pattern);
    struct tis_request *req = request_create(&ops, NULL);
    struct bytes text = { 0 };
    tis_error *err = forward_headers(f, headers, count, is_grpc, req);
    if (err) {
        bytes_append_str(&text, error_text(err));
        assert_int_equal(error_code(err), TRITONSERVER_ERROR_INVALID_ARG);
    }
    for (uint32_t i = 0; i < req->parameter_count && !err; i++) {
        assert_int_equal(req->parameters[i].type, TRITONSERVER_PARAMETER_STRING);
        bytes_printf(&text, "%s=%s;", req->parameters[i].name, req->parameters[i].value.string);
    }
    assert_string_equal(bytes_str(&text), expected);
    bytes_fini(&text);
    error_free(err);
    request_free(&req);
    forward_destroy(f);
}

static void test_names(void **state)
{
    static const struct http_header headers[] = {
        HEADER("X-Request", "1"),
        HEADER("host", "h"),
        HEADER("my-x-tag", "2"),
        HEADER("X-Request", "again"),
    };
    static const struct {
        const char *pattern;
        const char *forwarded;
    } cases[] = {
        { NULL, "" },
        { "", "" },
        { "^x-", "X-Request=1;X-Request=again;" },
        { "x-", "X-Request=1;my-x-tag=2;X-Request=again;" },
        { "(?-i)x-", "my-x-tag=2;" },
        { "^(host|my-.*)$", "host=h;my-x-tag=2;" },
        { "(?i:HOST)", "host=h;" },
        { "none", "" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_forwards(cases[i].pattern, false, headers, 4, cases[i].forwarded);
}

/* Base64 only in names that end with -bin, and only over gRPC; what is no text stays out. */
static void test_values(void **state)
{
    static const struct http_header headers[] = {
        HEADER("a-bin", "aGVsbG8="),
        HEADER("b-bin", "aGVsbG8"),
        HEADER("c-bin", ""),
        HEADER("d-bin", "aAA="), /* h, NUL */
        HEADER("e-bin", "/w=="), /* 0xff */
        HEADER("f-bin", "!"),
        HEADER("g-bin", "aGVsb"),
        HEADER("h", "\xff"),
        HEADER("i", "gr\xc3\xb6\xc3\x9f"
                    "e"),
        HEADER("-bin", "aA=="),
    };
    (void)state;
    assert_forwards(".", true, headers, ARRAY_LEN(headers),
                    "a-bin=hello;b-bin=hello;c-bin=;i=gr\xc3\xb6\xc3\x9f"
                    "e;-bin=aA==;");
    assert_forwards("^[ai]", false, headers, ARRAY_LEN(headers),
                    "a-bin=aGVsbG8=;i=gr\xc3\xb6\xc3\x9f"
                    "e;");
}

static void test_refused(void **state)
{
    static const struct http_header reserved[] = {
        HEADER("sequence_id", "1"),  HEADER("sequence_start", "1"),
        HEADER("sequence_end", "1"), HEADER("priority", "1"),
        HEADER("timeout", "1"),      HEADER("headers", "1"),
        HEADER("triton_x", "1"),     HEADER("binary_data_output", "1"),
    };
    char expected[128];
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(reserved); i++) {
        snprintf(expected, sizeof(expected),
                 "Header '%s' is reserved for Triton usage and cannot be forwarded.",
                 reserved[i].name);
        assert_forwards(".*", false, &reserved[i], 1, expected);
        assert_forwards("^x-", false, &reserved[i], 1, "");
    }
    static const struct http_header other = HEADER("Priority", "u=1");
    assert_forwards(".*", false, &other, 1, "Priority=u=1;");
}

/* A pattern with endless ways to match takes bounded time. */
static void test_hard(void **state)
{
    static const struct http_header header =
        HEADER("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", "1");
    (void)state;
    assert_forwards("^(a|aa|a+)*$", false, &header, 1,
                    "header 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!' is too hard to compare with "
                    "--flag");
}

/* What the request has already stays before. */
static void test_append(void **state)
{
    static const struct http_header header = HEADER("x", "2");
    struct tis_parameter first = { .name = "p",
                                   .type = TRITONSERVER_PARAMETER_INT,
                                   .value.integer = 1 };
    struct tis_request *req = request_create(&ops, NULL);
    struct forward *f = compile("x");
    (void)state;
    req->parameters = &first;
    req->parameter_count = 1;
    assert_null(forward_headers(f, &header, 1, false, req));
    assert_int_equal(req->parameter_count, 2);
    assert_string_equal(req->parameters[0].name, "p");
    assert_int_equal(req->parameters[0].value.integer, 1);
    assert_string_equal(req->parameters[1].value.string, "2");
    request_free(&req);
    forward_destroy(f);
}

static void test_bad_patterns(void **state)
{
    static const struct {
        const char *pattern;
        const char *text;
    } cases[] = {
        { "x(", "--flag=x(: the pattern is wrong at character 3: missing closing parenthesis" },
        { "*", "--flag=*: the pattern is wrong at character 1: quantifier does not follow" },
        { "[b-a]", "--flag=[b-a]: the pattern is wrong at character 4: range out of order" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct forward *f = NULL;
        tis_error *err = forward_create("--flag", cases[i].pattern, &f);
        assert_null(f);
        assert_int_equal(error_code(err), TRITONSERVER_ERROR_INVALID_ARG);
        if (!strstr(error_text(err), cases[i].text))
            fail_msg("%s", error_text(err));
        error_free(err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),   cmocka_unit_test(test_values),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_hard),
        cmocka_unit_test(test_append),  cmocka_unit_test(test_bad_patterns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
