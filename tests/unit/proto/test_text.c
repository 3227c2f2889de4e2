/* The text format: what the reader accepts and how it words its errors, byte-exact writer output
 * (the expected texts of the writer tests were produced by google.protobuf), by tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "proto/message.h"
#include "proto/model_config.pb-c.h"
#include "proto/text.h"
#include "proto/v0/api.pb-c.h"
#include "proto/v1/api.pb-c.h"
#include "proto/v1/request_status.pb-c.h"
#include "proto/v1/server_status.pb-c.h"

static const struct text_alias aliases[] = { { "inference.ModelConfig", "tags", "metric_tags" } };
static const struct text_options options = { .file_name = "f",
                                             .aliases = aliases,
                                             .alias_count = 1 };

/* Reads text and returns it as one line, or "! " and the error. The caller frees. */
static char *through(const ProtobufCMessageDescriptor *desc, const char *text, size_t len)
{
    struct arena a;
    struct bytes b = { 0 };
    ProtobufCMessage *m = NULL;

    arena_init(&a, NULL, 0, 1 << 20);
    tis_error *err = text_parse(desc, text, len, &options, &a, &m);
    if (err) {
        bytes_printf(&b, "! %s", error_text(err));
        error_free(err);
    } else {
        text_append(&b, m, TEXT_ONE_LINE);
    }
    arena_fini(&a);
    return bytes_steal(&b);
}

struct text_case {
    const char *text;
    const char *expected;
};

static void run_table(const ProtobufCMessageDescriptor *desc, const struct text_case *cases,
                      size_t count)
{
    for (size_t i = 0; i < count; i++) {
        /* An exact-size copy, so that the sanitizer sees a read behind the text. */
        size_t len = strlen(cases[i].text);
        char *copy = malloc(len ? len : 1);
        memcpy(copy, cases[i].text, len);
        char *got = through(desc, copy, len);
        assert_string_equal(got, cases[i].expected);
        free(got);
        free(copy);
    }
}

static void test_accepted(void **state)
{
    static const struct text_case cases[] = {
        { "", "" },
        { "# only a comment", "" },
        { "\xef\xbb\xbfname: 'x'", "name: \"x\"" },
        { "name: \"a\" # c\n max_batch_size: 8", "name: \"a\" max_batch_size: 8" },
        { "name:'it''s' \"!\"", "name: \"its!\"" },
        { "name: 'a\\n\\t\\\\\\'\\\"\\101\\x42\\u00e9\\U0001f600\\ud83d\\ude00\\?'",
          "name: \"a\\n\\t\\\\\\'\\\"AB\\303\\251\\360\\237\\230\\200\\360\\237\\230\\200?\"" },
        { "max_batch_size: 0x10, name: \"a\"; platform: \"p\"",
          "name: \"a\" platform: \"p\" max_batch_size: 16" },
        { "max_batch_size: 010", "max_batch_size: 8" },
        { "max_batch_size: -2147483648", "max_batch_size: -2147483648" },
        { "max_batch_size: - 5", "max_batch_size: -5" },
        { "max_batch_size: 0 max_batch_size: 1", "max_batch_size: 1" },
        { "input { name: 'a' dims: 1 dims: [2, -1] data_type: 11 } input: <data_type: TYPE_BF16>",
          "input { name: \"a\" data_type: TYPE_FP32 dims: 1 dims: 2 dims: -1 } "
          "input { data_type: TYPE_BF16 }" },
        { "input [ { name: 'a' }, < name: 'b' > ]", "input { name: \"a\" } input { name: \"b\" }" },
        { "input: [] input { dims: [] }", "input { }" },
        { "input { data_type: 77 optional: t } input { optional: 1 } input { optional: False }",
          "input { data_type: 77 optional: true } input { optional: true } input { }" },
        { "version_policy: { all {} }", "version_policy { all { } }" },
        { "tags { key: 'b' value: '2' } tags: [{ key: 'a' value: '1' }, {key: 'b' value: '3'}]",
          "metric_tags { key: \"a\" value: \"1\" } metric_tags { key: \"b\" value: \"3\" }" },
        { "parameters { key: 'k' } parameters { value { string_value: 'v' } }",
          "parameters { key: \"\" value { string_value: \"v\" } } "
          "parameters { key: \"k\" value { } }" },
        { "sequence_batching { control_input { control { fp32_false_true: [0, 1.5f, -inf, nan, "
          "1e10, .5, 2.] } } }",
          "sequence_batching { control_input { control { fp32_false_true: 0 "
          "fp32_false_true: 1.5 fp32_false_true: -inf fp32_false_true: nan fp32_false_true: 1e+10 "
          "fp32_false_true: 0.5 fp32_false_true: 2 } } }" },
        { "dynamic_batching { priority_queue_policy { key: 2 value { max_queue_size: 1 } } "
          "priority_queue_policy { key: 1 } max_queue_delay_microseconds: 18446744073709551615 }",
          "dynamic_batching { max_queue_delay_microseconds: 18446744073709551615 "
          "priority_queue_policy { key: 1 value { } } "
          "priority_queue_policy { key: 2 value { max_queue_size: 1 } } }" },
    };
    run_table(&inference__model_config__descriptor, cases, ARRAY_LEN(cases));
}

static const struct text_case refused_cases[] = {
    { "max_batchsize: 8", "! f:1:1: ModelConfig has no field named 'max_batchsize'; did you "
                          "mean 'max_batch_size'?" },
    { "zzzzzzzz { a: [1, {b: 'x'}] }\nname: 'ok' mame: 3",
      "! f:1:1: ModelConfig has no field named 'zzzzzzzz'; f:2:12: ModelConfig has no field "
      "named 'mame'; did you mean 'name'?" },
    { "input {\n  data_type: TYPE_FLOAT32\n}",
      "! f:2:14: field 'data_type' has 'TYPE_FLOAT32', expected one of TYPE_INVALID, TYPE_BOOL, "
      "TYPE_UINT8, TYPE_UINT16, TYPE_UINT32, TYPE_UINT64, TYPE_INT8, TYPE_INT16, TYPE_INT32, "
      "TYPE_INT64, TYPE_FP16, TYPE_FP32, TYPE_FP64, TYPE_STRING, TYPE_BF16" },
    { "input { data_type: TYPE_FP23 format: 'x' }",
      "! f:1:20: field 'data_type' has 'TYPE_FP23', expected one of TYPE_INVALID, TYPE_BOOL, "
      "TYPE_UINT8, TYPE_UINT16, TYPE_UINT32, TYPE_UINT64, TYPE_INT8, TYPE_INT16, TYPE_INT32, "
      "TYPE_INT64, TYPE_FP16, TYPE_FP32, TYPE_FP64, TYPE_STRING, TYPE_BF16; did you mean "
      "'TYPE_FP32'?; f:1:38: field 'format' has ''x'', expected one of FORMAT_NONE, "
      "FORMAT_NHWC, FORMAT_NCHW" },
    { "max_batch_size: 2147483648",
      "! f:1:17: field 'max_batch_size' has '2147483648', expected a whole number from "
      "-2147483648 to 2147483647" },
    { "max_batch_size: 1.0 name: 3",
      "! f:1:17: field 'max_batch_size' has '1.0', expected a whole number from -2147483648 to "
      "2147483647; f:1:27: field 'name' has '3', expected a string in quotes" },
    { "input { optional: 2 }", "! f:1:19: field 'optional' has '2', expected true or false" },
    { "input { optional: yes }", "! f:1:19: field 'optional' has 'yes', expected true or false" },
    { "name: 'a' name: 'b'", "! f:1:11: field 'name' is given twice, but can have one value only" },
    { "dynamic_batching {} sequence_batching {}",
      "! f:1:21: 'sequence_batching' cannot be given together with 'dynamic_batching'" },
    { "name 'a'", "! f:1:6: found ''a'', expected ':' after 'name'" },
    { "name: 'a", "! f:1:7: found ''a': a string is not closed before the end of its line" },
    { "name: 'a\n'", "! f:1:7: found ''a': a string is not closed before the end of its line" },
    { "name: 'a\\q'", "! f:1:9: unknown escape sequence" },
    { "name: '\\777'", "! f:1:8: an octal escape goes up to \\377" },
    { "name: '\\ud800'", "! f:1:8: not a Unicode character" },
    { "name: '\\xff'", "! f:1:7: the string of field 'name' is not valid UTF-8" },
    { "name: 'a\\000b'", "! f:1:7: the string of field 'name' contains a NUL byte" },
    { "input { name: 'a'", "! f:1:18: found end of text, expected '}'" },
    { "input { name: 'a' >", "! f:1:19: found '>', expected the name of a field" },
    { "}", "! f:1:1: found '}', expected the name of a field" },
    { "[a.b.c]: 1", "! f:1:1: extensions and Any values in brackets are not supported" },
    { "name: 'x'\n@", "! f:2:1: found '@', expected the name of a field" },
    { "name: 'x' \x01",
      "! f:1:11: found '\\001': this character is only allowed in strings and comments" },
    { "max_batch_size: 08",
      "! f:1:17: found '08': a number that starts with 0 is octal and has the digits 0 to 7 "
      "only" },
    { "max_batch_size: 0x", "! f:1:17: found '0x': '0x' must be followed by hexadecimal digits" },
    { "max_batch_size: 1name: 'x'",
      "! f:1:17: found '1': a space is needed between a number and a name" },
    { "max_batch_size: [1]", "! f:1:17: field 'max_batch_size' has '[', expected a whole number "
                             "from -2147483648 to 2147483647" },
    { "input: 3", "! f:1:8: field 'input' is a message: found '3', expected '{'" },
    { "input { dims: [1 2] }", "! f:1:18: found '2', expected ',' or ']' in the list" },
    { "input { dims: [1,] }",
      "! f:1:18: field 'dims' has ']', expected a whole number from -9223372036854775808 to "
      "9223372036854775807; f:1:18: found ']', expected a value" },
    { "name: 'a',, platform: 'b'", "! f:1:11: found ',', expected the name of a field" },
    { "dynamic_batching { max_queue_delay_microseconds: -1 }",
      "! f:1:50: field 'max_queue_delay_microseconds' has -'1', expected a whole number from 0 "
      "to 18446744073709551615" },
    { "dynamic_batching { max_queue_delay_microseconds: 18446744073709551616 }",
      "! f:1:50: field 'max_queue_delay_microseconds' has '18446744073709551616', expected a "
      "whole number from 0 to 18446744073709551615" },
};

static void test_refused(void **state)
{
    run_table(&inference__model_config__descriptor, refused_cases, ARRAY_LEN(refused_cases));
}

/* Nesting, the number of errors and memory are bounded. */
static void test_bounds(void **state)
{
    struct bytes b = { 0 };
    for (int i = 0; i < 100000; i++)
        bytes_append_str(&b, "x{");
    char *got = through(&inference__model_config__descriptor, b.data, b.len);
    assert_non_null(strstr(got, "nested deeper than 64"));
    free(got);

    bytes_clear(&b);
    for (int i = 0; i < 100; i++)
        bytes_append_str(&b, "x: 1\n");
    got = through(&inference__model_config__descriptor, b.data, b.len);
    assert_non_null(strstr(got, "f:20:1: "));
    assert_null(strstr(got, "f:21:1: "));
    assert_non_null(strstr(got, "reading stopped"));
    free(got);

    bytes_clear(&b);
    for (int i = 0; i < 100000; i++)
        bytes_append_str(&b, "input{}");
    got = through(&inference__model_config__descriptor, b.data, b.len);
    assert_non_null(strstr(got, "needs more than 1048576 bytes"));
    free(got);
    bytes_fini(&b);
}

/* NV-* headers of both generations, byte for byte. */
static void test_v1_forms(void **state)
{
    static const struct text_case requests[] = {
        { "batch_size: 2 input { name: \"INPUT0\" dims: 4 } input { name: \"INPUT1\" dims: 4 } output "
          "{ name: \"OUTPUT0\" } output { name: \"OUTPUT1\" cls { count: 2 } }",
          "batch_size: 2 input { name: \"INPUT0\" dims: 4 } input { name: \"INPUT1\" dims: 4 } output "
          "{ name: \"OUTPUT0\" } output { name: \"OUTPUT1\" cls { count: 2 } }" },
        { "input { byte_size: 4 }", "! f:1:9: Input has no field named 'byte_size'; did you mean "
                                    "'batch_byte_size'?" },
    };
    static const struct text_case old_requests[] = {
        { "batch_size: 1 input { name: \"a\" byte_size: 64 } output { name: \"b\" byte_size: 64 }",
          "batch_size: 1 input { name: \"a\" byte_size: 64 } output { name: \"b\" byte_size: 64 }" },
    };
    static const struct text_case statuses[] = {
        { "code: SUCCESS server_id: \"inference:0\" request_id: 7",
          "code: SUCCESS server_id: \"inference:0\" request_id: 7" },
        { "code: INVALID request_id: 0", "" },
        { "code: 5 msg: \"it's\\n\\\"x\\\" \303\251\"",
          "code: INVALID_ARG msg: \"it\\'s\\n\\\"x\\\" \\303\\251\"" },
    };
    run_table(&nvidia__inferenceserver__infer_request_header__descriptor, requests,
              ARRAY_LEN(requests));
    run_table(&nvidia__inferenceserver__v0__infer_request_header__descriptor, old_requests,
              ARRAY_LEN(old_requests));
    run_table(&nvidia__inferenceserver__request_status__descriptor, statuses, ARRAY_LEN(statuses));
}

static void test_lines(void **state)
{
    static const char text[] = "id: \"inference:0\"\n"
                               "uptime_ns: 5\n"
                               "model_status {\n"
                               "  key: \"simple\"\n"
                               "  value {\n"
                               "    version_status {\n"
                               "      key: 0\n"
                               "      value {\n"
                               "        ready_state: MODEL_READY\n"
                               "      }\n"
                               "    }\n"
                               "    version_status {\n"
                               "      key: 10\n"
                               "      value {\n"
                               "      }\n"
                               "    }\n"
                               "  }\n"
                               "}\n"
                               "ready_state: SERVER_READY\n";
    struct arena a;
    struct bytes b = { 0 };
    ProtobufCMessage *m = NULL;

    arena_init(&a, NULL, 0, 1 << 20);
    assert_null(text_parse(&nvidia__inferenceserver__server_status__descriptor, text, strlen(text),
                           NULL, &a, &m));
    text_append(&b, m, TEXT_LINES);
    assert_string_equal(bytes_str(&b), text);
    bytes_fini(&b);
    arena_fini(&a);
}

static void test_numbers(void **state)
{
    static const struct {
        double value;
        const char *as_double;
        const char *as_float;
    } cases[] = {
        { 0.1, "0.1", "0.1" },
        { 1.0 / 3, "0.33333333333333331", "0.333333343" },
        { 1e10, "10000000000", "1e+10" },
        { 1e22, "1e+22", "1e+22" },
        { 16777216, "16777216", "16777216" },
        { 123456.7, "123456.7", "123456.703" },
        { -2.5, "-2.5", "-2.5" },
        { 5e-324, "4.94065645841247e-324", "0" },
        { (double)INFINITY, "inf", "inf" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct bytes b = { 0 };
        text_append_double(&b, cases[i].value);
        assert_string_equal(bytes_str(&b), cases[i].as_double);
        bytes_clear(&b);
        text_append_float(&b, (float)cases[i].value);
        assert_string_equal(bytes_str(&b), cases[i].as_float);
        bytes_fini(&b);
    }
}

/* One byte or sequence at every place of texts of every length around a word. */
static void test_utf8(void **state)
{
    static const struct {
        const char *text;
        bool is_valid;
    } cases[] = {
        { "\x7f", true },
        { "\xc2\x80", true },
        { "\xe0\xa0\x80", true },
        { "\xf4\x8f\xbf\xbf", true },
        { "\x80", false },
        { "\xff", false },
        { "\xc1\xbf", false },
        { "\xc3", false },
        { "\xe0\x9f\xbf", false },
        { "\xed\xa0\x80", false },
        { "\xf4\x90\x80\x80", false },
        { "\xf0\x80\x80\x80", false },
    };
    char text[32];
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t len = strlen(cases[i].text);
        for (size_t before = 0; before < 18; before++) {
            for (size_t after = 0; after < 10; after++) {
                memset(text, 'a', sizeof(text));
                memcpy(text + before, cases[i].text, len);
                assert_int_equal(utf8_is_valid(text, before + len + after), cases[i].is_valid);
            }
        }
    }
    assert_true(utf8_is_valid("", 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8),     cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_v1_forms), cmocka_unit_test(test_lines),
        cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
