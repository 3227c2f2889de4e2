/* The text of a page in both forms: lines before a family, numbers, escapes, histograms. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "base/attr.h"
#include "metrics/exposition.h"
#include "metrics/family.h"

static const struct metric_info old_counter = { "nv_old", METRIC_COUNTER, NULL,
                                                "Help \\ \"x\"\nb" };
static const struct metric_info own_counter = { "own_seconds_total", METRIC_COUNTER, "seconds",
                                                "H" };
static const struct metric_info gauge = { "gauge", METRIC_GAUGE, NULL, "G" };
static const struct metric_info histogram = { "hist", METRIC_HISTOGRAM, NULL, "H" };
static const struct label_text none;

static struct label_text text(const char *s)
{
    return (struct label_text){ s, strlen(s) };
}

static void write_page(enum exposition_format format, struct bytes *out)
{
    static const double upper[] = { 0.5, 1, 1e6 };
    static const uint64_t cumulative[] = { 1, 2, 2 };
    struct bucket_texts buckets;
    struct exposition e;
    bucket_texts_init(&buckets, upper, ARRAY_LEN(upper));
    exposition_init(&e, format, out);
    exposition_family(&e, &old_counter);
    exposition_u64(&e, text("a=\"b\""), "reason=\"R\"", UINT64_MAX);
    exposition_u64(&e, text("a=\"c\""), NULL, 0);
    exposition_family(&e, &own_counter);
    exposition_double(&e, none, NULL, 0.25);
    exposition_family(&e, &gauge); /* without a series: nothing */
    exposition_family(&e, &gauge);
    exposition_double(&e, none, "x=\"y\"", 1e6);
    exposition_family(&e, &histogram);
    exposition_histogram(&e, none, &buckets, cumulative, 3, 1.5);
    exposition_histogram(&e, text("a=\"b\""), &buckets, cumulative, 3, 0);
    exposition_finish(&e);
    assert_false(out->failed);
}

static void test_text(void **state)
{
    (void)state;
    struct bytes out = { 0 };
    write_page(EXPOSITION_TEXT, &out);
    assert_string_equal(out.data, "# HELP nv_old Help \\\\ \"x\"\\nb\n"
                                  "# TYPE nv_old counter\n"
                                  "nv_old{a=\"b\",reason=\"R\"} 18446744073709551615\n"
                                  "nv_old{a=\"c\"} 0\n"
                                  "# HELP own_seconds_total H\n"
                                  "# TYPE own_seconds_total counter\n"
                                  "own_seconds_total 0.25\n"
                                  "# HELP gauge G\n"
                                  "# TYPE gauge gauge\n"
                                  "gauge{x=\"y\"} 1000000\n"
                                  "# HELP hist H\n"
                                  "# TYPE hist histogram\n"
                                  "hist_bucket{le=\"0.5\"} 1\n"
                                  "hist_bucket{le=\"1.0\"} 2\n"
                                  "hist_bucket{le=\"1e+06\"} 2\n"
                                  "hist_bucket{le=\"+Inf\"} 3\n"
                                  "hist_sum 1.5\n"
                                  "hist_count 3\n"
                                  "hist_bucket{a=\"b\",le=\"0.5\"} 1\n"
                                  "hist_bucket{a=\"b\",le=\"1.0\"} 2\n"
                                  "hist_bucket{a=\"b\",le=\"1e+06\"} 2\n"
                                  "hist_bucket{a=\"b\",le=\"+Inf\"} 3\n"
                                  "hist_sum{a=\"b\"} 0\n"
                                  "hist_count{a=\"b\"} 3\n");
    bytes_fini(&out);
}

static void test_openmetrics(void **state)
{
    (void)state;
    struct bytes out = { 0 };
    write_page(EXPOSITION_OPENMETRICS, &out);
    static const char begin[] = "# HELP nv_old Help \\\\ \\\"x\\\"\\nb\n"
                                "# TYPE nv_old unknown\n"
                                "nv_old{a=\"b\",reason=\"R\"} 18446744073709551615\n"
                                "nv_old{a=\"c\"} 0\n"
                                "# HELP own_seconds H\n"
                                "# TYPE own_seconds counter\n"
                                "# UNIT own_seconds seconds\n"
                                "own_seconds_total 0.25\n"
                                "# HELP gauge G\n";
    assert_memory_equal(out.data, begin, strlen(begin));
    assert_string_equal(out.data + out.len - strlen("_count{a=\"b\"} 3\n# EOF\n"),
                        "_count{a=\"b\"} 3\n# EOF\n");
    bytes_fini(&out);
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
        const char *pointed;
    } cases[] = {
        { 0, "0", "0.0" },
        { -0.0, "0", "0.0" },
        { 1, "1", "1.0" },
        { 10, "10", "10.0" },
        { -12.5, "-12.5", "-12.5" },
        { 0.1, "0.1", "0.1" },
        { 1.05, "1.05", "1.05" },
        { 0.005, "0.005", "0.005" },
        { 0.0001, "0.0001", "0.0001" },
        { 0.00001, "0.00001", "1e-05" },
        { 0.000060241, "0.000060241", "6.0241e-05" },
        { 1e-9, "0.000000001", "1e-09" },
        { 1e-10, "1e-10", "1e-10" },
        { 12.000000001, "12.000000001", "12.000000001" },
        { 999999.999999999, "999999.999999999", "999999.999999999" },
        { 1234567.5, "1.2345675e+06", "1.2345675e+06" },
        { 123456, "123456", "123456.0" },
        { 1e6, "1e+06", "1e+06" },
        { 999999.5, "999999.5", "999999.5" },
        { 1e21, "1e+21", "1e+21" },
        { 1.7976931348623157e308, "1.7976931348623157e+308", "1.7976931348623157e+308" },
        { 0.1 + 0.2, "0.30000000000000004", "0.30000000000000004" },
        { INFINITY, "+Inf", "+Inf" },
        { -INFINITY, "-Inf", "-Inf" },
        { NAN, "NaN", "NaN" },
    };
    char out[NUMBER_TEXT_BYTES];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(double_text(out, cases[i].value, false), strlen(cases[i].text));
        assert_string_equal(out, cases[i].text);
        assert_int_equal(double_text(out, cases[i].value, true), strlen(cases[i].pointed));
        assert_string_equal(out, cases[i].pointed);
    }
    srand48(1); /* every number reads back as it was */
    for (int i = 0; i < 20000; i++) {
        double value = ldexp(mrand48(), (int)(lrand48() % 200) - 100);
        double_text(out, value, i % 2);
        assert_true(strtod(out, NULL) == value);
    }
}

static void test_labels(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        const char *text;
    } cases[] = {
        { "plain", "plain" },
        { "", "" },
        { "a\"b\\c\nd\te", "a\\\"b\\\\c\\nd\te" },
        { "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80" },
        { "\xff", "\xef\xbf\xbd" },
        { "a\xc3", "a\xef\xbf\xbd" },
        { "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd" },                                 /* overlong */
        { "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },                 /* surrogate */
        { "\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" }, /* too large */
        { "\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct bytes out = { 0 };
        char expected[128];
        labels_append(&out, 0, "n", cases[i].value, strlen(cases[i].value));
        labels_append(&out, 0, "m", "1", 1);
        snprintf(expected, sizeof(expected), "n=\"%s\",m=\"1\"", cases[i].text);
        assert_string_equal(bytes_str(&out), expected);
        bytes_fini(&out);
    }
    assert_true(metric_name_is_legal("a:b_1") && label_name_is_legal("_a1"));
    assert_false(metric_name_is_legal("") || metric_name_is_legal("1a") ||
                 metric_name_is_legal("a-b") || metric_name_is_legal("\xc3\xa4"));
    assert_false(label_name_is_legal("a:b") || label_name_is_legal("__a") ||
                 label_name_is_legal("") || label_name_is_legal("9"));
}

/* Lines as printf writes them, whatever the lengths of names, labels and numbers: they are copied in
 * blocks that go past their ends. */
static void test_lengths(void **state)
{
    (void)state;
    char name[72], labels[72];
    double upper[BUCKETS_MAX];
    uint64_t cumulative[BUCKETS_MAX];
    struct bucket_texts buckets;
    for (uint32_t i = 0; i < BUCKETS_MAX; i++) {
        upper[i] = i;
        cumulative[i] = i == 0       ? 0
                        : i % 3 == 0 ? cumulative[i - 1]
                                     : UINT64_MAX >> (BUCKETS_MAX - i);
    }
    bucket_texts_init(&buckets, upper, BUCKETS_MAX);
    for (size_t len = 1; len < sizeof(name); len++) {
        struct bytes out = { 0 }, expected = { 0 };
        struct exposition e;
        snprintf(name, sizeof(name), "%0*d", (int)len, 0);
        snprintf(labels, sizeof(labels), "%0*d", (int)len - 1, 0);
        labels[len - 1] = '\0'; /* for len == 1: none */
        struct metric_info family = { name, METRIC_HISTOGRAM, NULL, "H" };
        exposition_init(&e, EXPOSITION_TEXT, &out);
        exposition_family(&e, &family);
        exposition_histogram(&e, text(labels), &buckets, cumulative, UINT64_MAX, 0.5);

        bytes_printf(&expected, "# HELP %s H\n# TYPE %s histogram\n", name, name);
        for (uint32_t i = 0; i < BUCKETS_MAX; i++)
            bytes_printf(&expected, "%s_bucket{%s%sle=\"%u.0\"} %" PRIu64 "\n", name, labels,
                         len > 1 ? "," : "", i, cumulative[i]);
        bytes_printf(&expected, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, labels,
                     len > 1 ? "," : "", UINT64_MAX);
        const char *open = len > 1 ? "{" : "", *close = len > 1 ? "}" : "";
        bytes_printf(&expected, "%s_sum%s%s%s 0.5\n", name, open, labels, close);
        bytes_printf(&expected, "%s_count%s%s%s %" PRIu64 "\n", name, open, labels, close,
                     UINT64_MAX);
        assert_string_equal(out.data, expected.data);
        bytes_fini(&out);
        bytes_fini(&expected);
    }
}

/* A page that must not grow says so, and no line is cut. */
static void test_no_room(void **state)
{
    (void)state;
    struct bytes out = { .len_max = 400 };
    struct exposition e;
    exposition_init(&e, EXPOSITION_TEXT, &out);
    exposition_family(&e, &gauge);
    for (int i = 0; i < 100; i++)
        exposition_u64(&e, none, NULL, 7);
    exposition_finish(&e);
    assert_true(out.failed && out.len <= 400 && out.data[out.len - 1] == '\n');
    bytes_fini(&out);
}

/* Each name is a legal one and belongs to one family; counters of ours end in _total, and a unit is
 * what the name ends in. */
static void test_families(void **state)
{
    (void)state;
    for (size_t i = 0; i < FAMILY_COUNT; i++) {
        const struct metric_info *f = &families[i];
        assert_non_null(f->name);
        assert_true(metric_name_is_legal(f->name) && *f->help);
        size_t len = strlen(f->name);
        bool is_total = len > 6 && strcmp(f->name + len - 6, "_total") == 0;
        if (strncmp(f->name, "nv_", 3) != 0)
            assert_int_equal(is_total, f->type == METRIC_COUNTER);
        if (f->unit) {
            len -= is_total ? 6 : 0;
            assert_memory_equal(f->name + len - strlen(f->unit), f->unit, strlen(f->unit));
            assert_int_equal(f->name[len - strlen(f->unit) - 1], '_');
        }
        for (size_t k = 0; k < i; k++)
            assert_false(family_names_clash(f->name, f->type, families[k].name, families[k].type));
    }
    assert_string_equal(family_clash("nv_inference_count", METRIC_GAUGE), "nv_inference_count");
    assert_string_equal(family_clash("nv_inference", METRIC_HISTOGRAM), "nv_inference_count");
    assert_string_equal(family_clash("nv_inference_load_ratio_sum", METRIC_GAUGE),
                        "nv_inference_load_ratio");
    assert_string_equal(family_clash("process_cpu_seconds", METRIC_GAUGE),
                        "process_cpu_seconds_total");
    assert_string_equal(family_clash("nv_gpu_utilization", METRIC_GAUGE), "nv_gpu_utilization");
    assert_string_equal(family_clash("trtserver_x", METRIC_GAUGE), "trtserver_");
    assert_null(family_clash("nv_trt_llm_request_metrics", METRIC_GAUGE));
    assert_null(family_clash("input_byte_size_counter", METRIC_COUNTER));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),     cmocka_unit_test(test_openmetrics),
        cmocka_unit_test(test_numbers),  cmocka_unit_test(test_labels),
        cmocka_unit_test(test_no_room),  cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_families),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
