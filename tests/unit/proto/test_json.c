/* JSON: the message writer's exact bytes, what the message reader accepts, and the number and string
 * writers of the HTTP API, by tables. */
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
#include "proto/json.h"
#include "proto/model_config.pb-c.h"
#include "proto/text.h"

struct json_case {
    const char *json;
    const char *expected; /* as one line of text format, or "! " and the error */
};

static void test_read(void **state)
{
    static const struct json_case cases[] = {
        { "{}", "" },
        { "{\"name\":\"a\",\"maxBatchSize\":4,\"input\":[{\"dims\":[1,\"-1\",3.0],\"data_type\":"
          "\"TYPE_FP32\",\"format\":2}]}",
          "name: \"a\" max_batch_size: 4 input { data_type: TYPE_FP32 format: FORMAT_NCHW dims: 1 "
          "dims: -1 dims: 3 }" },
        { "{\"name\":null,\"parameters\":{\"b\":{\"string_value\":\"2\"},\"a\":{}}}",
          "parameters { key: \"a\" value { } } parameters { key: \"b\" value { string_value: \"2\" } }" },
        { "{\"dynamic_batching\":{\"priority_queue_policy\":{\"7\":{\"max_queue_size\":1}},"
          "\"max_queue_delay_microseconds\":\"18446744073709551615\"}}",
          "dynamic_batching { max_queue_delay_microseconds: 18446744073709551615 "
          "priority_queue_policy { key: 7 value { max_queue_size: 1 } } }" },
        { "{\"model_warmup\":[{\"inputs\":{\"x\":{\"zero_data\":true}}}]}",
          "model_warmup { inputs { key: \"x\" value { zero_data: true } } }" },
        { "{\"nam\":1}", "! ModelConfig has no field named 'nam'; did you mean 'name'?" },
        { "{\"input\":[{},{\"dimz\":1}]}",
          "! input[1]: ModelInput has no field named 'dimz'; did you mean 'dims'?" },
        { "{\"input\":[{\"dims\":[1,1.5]}]}",
          "! input[0].dims[1]: found a number that does not fit, expected a whole number of 64 "
          "bits" },
        { "{\"input\":[{\"dims\":[9223372036854775808]}]}",
          "! input[0].dims[0]: found a number that does not fit, expected a whole number of 64 "
          "bits" },
        { "{\"input\":{}}", "! input: found object, expected an array" },
        { "{\"input\":[{\"data_type\":\"TYPE_FP31\"}]}",
          "! input[0].data_type: DataType has no value 'TYPE_FP31'; did you mean 'TYPE_FP32'?" },
        { "{\"name\":\"a\",\"name\":\"b\"}", "! name: is given twice" },
        { "{\"name\":\"a\\u0000b\"}", "! name: the string contains a NUL byte" },
        { "{\"dynamic_batching\":{},\"ensemble_scheduling\":{}}",
          "! ensemble_scheduling: cannot be given together with 'dynamic_batching'" },
        { "{\"parameters\":{\"k\":{\"string_value\":1}}}",
          "! parameters.k.string_value: found uint, expected a string" },
        { "[]", "! found array, expected an object" },
        { "{\"a\"", "! not valid JSON at byte 4: unexpected end of data" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a;
        struct bytes b = { 0 };
        ProtobufCMessage *m = NULL;

        arena_init(&a, NULL, 0, 1 << 20);
        tis_error *err = json_parse_message(&inference__model_config__descriptor, cases[i].json,
                                            strlen(cases[i].json), &a, &m);
        if (err)
            bytes_printf(&b, "! %s", error_text(err));
        else
            text_append(&b, m, TEXT_ONE_LINE);
        assert_string_equal(bytes_str(&b), cases[i].expected);
        error_free(err);
        bytes_fini(&b);
        arena_fini(&a);
    }
}

/* What is written reads back as the same message. */
static void test_write(void **state)
{
    static const char text[] =
        "name: 'a\\n\\xc3\\xa9' max_batch_size: 4 input { name: 'x' dims: 9007199254740993 } "
        "version_policy { latest { num_versions: 1 } } parameters { key: 'k' } "
        "model_metrics { metric_control { histogram_options { buckets: [1, 0.1] } } } "
        "dynamic_batching { priority_queue_policy { key: 2 } }";
    static const char expected[] =
        "{\"name\":\"a\\n\303\251\",\"platform\":\"\",\"version_policy\":{\"latest\":{\"num_versions\":1}"
        "},\"max_batch_size\":4,\"input\":[{\"name\":\"x\",\"data_type\":\"TYPE_INVALID\",\"format\":"
        "\"FORMAT_NONE\",\"dims\":[9007199254740993],\"is_shape_tensor\":false,"
        "\"allow_ragged_batch\":false,\"optional\":false,\"is_non_linear_format_io\":false}],"
        "\"output\":[],\"instance_group\":[],\"default_model_filename\":\"\",\"cc_model_filenames\":{}"
        ",\"metric_tags\":{},\"dynamic_batching\":{\"preferred_batch_size\":[],"
        "\"max_queue_delay_microseconds\":0,\"preserve_ordering\":false,\"priority_levels\":0,"
        "\"default_priority_level\":0,\"priority_queue_policy\":{\"2\":{\"timeout_action\":\"REJECT\","
        "\"default_timeout_microseconds\":0,\"allow_timeout_override\":false,\"max_queue_size\":0}}},"
        "\"parameters\":{\"k\":{\"string_value\":\"\"}},\"model_warmup\":[],\"backend\":\"\","
        "\"batch_input\":[],\"batch_output\":[],\"runtime\":\"\",\"model_metrics\":{\"metric_control\":["
        "{\"histogram_options\":{\"buckets\":[1.0,0.1]}}]}}";
    struct arena a;
    struct bytes b = { 0 };
    struct bytes again = { 0 };
    ProtobufCMessage *m = NULL;

    arena_init(&a, NULL, 0, 1 << 20);
    assert_null(text_parse(&inference__model_config__descriptor, text, strlen(text), NULL, &a, &m));
    json_append_message(&b, m);
    assert_string_equal(bytes_str(&b), expected);
    assert_null(json_parse_message(&inference__model_config__descriptor, b.data, b.len, &a, &m));
    json_append_message(&again, m);
    assert_string_equal(bytes_str(&again), expected);
    bytes_fini(&b);
    bytes_fini(&again);
    arena_fini(&a);
}

static void test_strings(void **state)
{
    static const struct {
        const char *s;
        const char *expected;
    } cases[] = {
        { "", "\"\"" },
        { "plain text of more than eight bytes", "\"plain text of more than eight bytes\"" },
        { "12345678\"", "\"12345678\\\"\"" },
        { "1234\\5678", "\"1234\\\\5678\"" },
        { "\b\t\n\f\r\x01\x1f\x7f", "\"\\b\\t\\n\\f\\r\\u0001\\u001f\x7f\"" },
        { "\303\251 \342\202\254 \360\237\230\200", "\"\303\251 \342\202\254 \360\237\230\200\"" },
        { "a\377b\303", "\"a\357\277\275b\357\277\275\"" },
        { "\355\240\200", "\"\357\277\275\357\277\275\357\277\275\"" }, /* a surrogate */
        { "\300\200", "\"\357\277\275\357\277\275\"" },                 /* overlong */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct bytes b = { 0 };
        json_append_string(&b, cases[i].s, strlen(cases[i].s));
        assert_string_equal(bytes_str(&b), cases[i].expected);
        bytes_fini(&b);
    }
    /* Every byte at every place of a word. */
    for (int c = 0; c < 256; c++)
        for (size_t at = 0; at < 17; at++) {
            char s[17], expected[64];
            struct bytes b = { 0 };
            memset(s, 'x', sizeof(s));
            s[at] = (char)c;
            json_append_string(&b, s, sizeof(s));
            bool plain = c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
            snprintf(expected, sizeof(expected), "\"%.17s\"", s);
            assert_int_equal(plain, strcmp(bytes_str(&b), expected) == 0);
            assert_true(b.len >= 19);
            bytes_fini(&b);
        }
}

static void test_numbers(void **state)
{
    static const struct {
        double value;
        const char *as_double;
        const char *as_float;
    } cases[] = {
        { 0, "0.0", "0.0" },
        { -0.0, "-0.0", "-0.0" },
        { 2, "2.0", "2.0" },
        { 0.1, "0.1", "0.1" },
        { 1.0 / 3, "0.3333333333333333", "0.33333334" },
        { 16777217, "16777217.0", "16777216.0" },
        { 1e300, "1e300", "Infinity" },
        { -1.5e-10, "-1.5e-10", "-1.5e-10" },
        { (double)INFINITY, "Infinity", "Infinity" },
        { -(double)INFINITY, "-Infinity", "-Infinity" },
        { (double)NAN, "NaN", "NaN" },
        { -1.7976931348623157e308, "-1.7976931348623157e308", "-Infinity" },
        { -1.1754943508222875e-38, "-1.1754943508222875e-38", "-1.1754944e-38" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct bytes b = { 0 };
        json_append_double(&b, cases[i].value);
        assert_string_equal(bytes_str(&b), cases[i].as_double);
        bytes_clear(&b);
        json_append_float(&b, (float)cases[i].value);
        assert_string_equal(bytes_str(&b), cases[i].as_float);
        bytes_fini(&b);
    }
}

/* Any float read back is the same float; arrays equal one by one; any alignment. */
static void test_number_arrays(void **state)
{
    enum {
        COUNT = 1000
    };
    static char raw[COUNT * 8 + 1];
    struct bytes one = { 0 }, all = { 0 };
    uint32_t seed = 12345;

    for (size_t i = 1; i < sizeof(raw); i++) {
        seed = seed * 1664525u + 1013904223u;
        raw[i] = (char)(seed >> 24);
    }
    for (size_t i = 0; i < COUNT; i++) {
        float f;
        memcpy(&f, raw + 1 + i * 4, 4);
        if (i)
            bytes_append_char(&one, ',');
        size_t start = one.len;
        json_append_float(&one, f);
        if (isfinite(f))
            assert_true(strtof(one.data + start, NULL) == f);
    }
    json_append_floats(&all, raw + 1, COUNT);
    assert_string_equal(bytes_str(&all), bytes_str(&one));

    bytes_clear(&one);
    bytes_clear(&all);
    for (size_t i = 0; i < COUNT; i++) {
        double d;
        memcpy(&d, raw + 1 + i * 8, 8);
        if (i)
            bytes_append_char(&one, ',');
        size_t start = one.len;
        json_append_double(&one, d);
        if (isfinite(d))
            assert_true(strtod(one.data + start, NULL) == d);
    }
    json_append_doubles(&all, raw + 1, COUNT);
    assert_string_equal(bytes_str(&all), bytes_str(&one));
    json_append_floats(&all, raw, 0);
    bytes_fini(&one);
    bytes_fini(&all);

    struct bytes small = { .len_max = 100 };
    json_append_floats(&small, raw, COUNT);
    assert_true(small.failed);
    bytes_fini(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),          cmocka_unit_test(test_write),
        cmocka_unit_test(test_strings),       cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_number_arrays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
