/* Families that plug-ins make: one on the page for each name, shared series, what is refused, and
 * values changed by threads while pages are written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/attr.h"
#include "metrics/metric.h"

#define COUNTER TRITONSERVER_METRIC_KIND_COUNTER
#define GAUGE TRITONSERVER_METRIC_KIND_GAUGE
#define HISTOGRAM TRITONSERVER_METRIC_KIND_HISTOGRAM

static struct tis_metric_family *family(TRITONSERVER_MetricKind kind, const char *name)
{
    struct tis_metric_family *f;
    assert_null(metric_family_create(kind, name, "help", &f));
    return f;
}

static void assert_page(const char *expected)
{
    struct bytes out = { 0 };
    struct exposition e;
    exposition_init(&e, EXPOSITION_TEXT, &out);
    metric_families_write(&e);
    assert_string_equal(bytes_str(&out), expected);
    bytes_fini(&out);
}

static void assert_error(tis_error *err, TRITONSERVER_Error_Code code, const char *text)
{
    assert_non_null(err);
    assert_int_equal(error_code(err), code);
    if (!strstr(error_text(err), text))
        fail_msg("'%s' is not in '%s'", text, error_text(err));
    error_free(err);
}

/* Two plug-ins make the same metric: one line, with what both have counted, until both are gone. */
static void test_shared(void **state)
{
    (void)state;
    static const struct metric_label ab[] = { { "a", "1" }, { "b", "x\"y" } };
    static const struct metric_label ba[] = { { "b", "x\"y" }, { "a", "1" } };
    struct tis_metric *m[3];
    double value;
    assert_page("");
    struct tis_metric_family *one = family(COUNTER, "plug_count");
    struct tis_metric_family *two = family(COUNTER, "plug_count");
    assert_page(""); /* no series yet */
    assert_null(metric_create(one, ab, 2, NULL, 0, &m[0]));
    assert_null(metric_create(two, ba, 2, NULL, 0, &m[1]));
    assert_null(metric_create(two, NULL, 0, NULL, 0, &m[2]));
    assert_null(metric_increment(m[0], 2));
    assert_null(metric_increment(m[1], 0.5));
    assert_null(metric_value(m[0], &value));
    assert_true(value == 2.5);
    assert_page("# HELP plug_count help\n# TYPE plug_count counter\n"
                "plug_count{a=\"1\",b=\"x\\\"y\"} 2.5\nplug_count 0\n");
    metric_destroy(m[0]);
    assert_null(metric_family_destroy(one));
    assert_error(metric_family_destroy(two), TRITONSERVER_ERROR_INVALID_ARG, "2 metrics");
    metric_destroy(m[2]);
    assert_page("# HELP plug_count help\n# TYPE plug_count counter\n"
                "plug_count{a=\"1\",b=\"x\\\"y\"} 2.5\n");
    metric_destroy(m[1]);
    assert_null(metric_family_destroy(two));
    assert_page("");
}

static void test_histogram(void **state)
{
    (void)state;
    static const double bounds[] = { 0.1, 1, 10 };
    static const double values[] = { 0.05, 0.1, 5, 99 };
    struct tis_metric_family *f = family(HISTOGRAM, "plug_h");
    struct tis_metric *m, *other;
    double value;
    assert_null(metric_create(f, NULL, 0, bounds, 3, &m));
    for (size_t i = 0; i < ARRAY_LEN(values); i++)
        assert_null(metric_observe(m, values[i]));
    assert_page("# HELP plug_h help\n# TYPE plug_h histogram\n"
                "plug_h_bucket{le=\"0.1\"} 2\nplug_h_bucket{le=\"1.0\"} 2\n"
                "plug_h_bucket{le=\"10.0\"} 3\nplug_h_bucket{le=\"+Inf\"} 4\n"
                "plug_h_sum 104.15\nplug_h_count 4\n");
    assert_error(metric_increment(m, 1), TRITONSERVER_ERROR_UNSUPPORTED, "cannot be incremented");
    assert_error(metric_value(m, &value), TRITONSERVER_ERROR_UNSUPPORTED, "one value");
    assert_error(metric_create(f, NULL, 0, bounds, 2, &other), TRITONSERVER_ERROR_ALREADY_EXISTS,
                 "other buckets");
    metric_destroy(m);
    assert_null(metric_family_destroy(f));
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        TRITONSERVER_MetricKind kind;
        const char *name;
        TRITONSERVER_Error_Code code;
        const char *text;
    } cases[] = {
        { GAUGE, "a-b", TRITONSERVER_ERROR_INVALID_ARG, "expected letters" },
        { GAUGE, "", TRITONSERVER_ERROR_INVALID_ARG, "expected letters" },
        { (TRITONSERVER_MetricKind)7, "x", TRITONSERVER_ERROR_INVALID_ARG, "unknown kind 7" },
        { COUNTER, "nv_inference_count", TRITONSERVER_ERROR_ALREADY_EXISTS, "the server's own" },
        { GAUGE, "trtserver_mine", TRITONSERVER_ERROR_ALREADY_EXISTS, "the server's own" },
        { GAUGE, "plug_total", TRITONSERVER_ERROR_ALREADY_EXISTS, "there is a counter" },
        { GAUGE, "plug", TRITONSERVER_ERROR_ALREADY_EXISTS, "there is a counter" },
        { HISTOGRAM, "plug", TRITONSERVER_ERROR_ALREADY_EXISTS, "there is a counter" },
    };
    struct tis_metric_family *f = family(COUNTER, "plug_total"), *other = NULL;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_error(metric_family_create(cases[i].kind, cases[i].name, "h", &other), cases[i].code,
                     cases[i].text);
    assert_null(other);
    assert_int_equal(metric_family_kind(f), COUNTER);
    struct tis_metric *m;
    assert_null(metric_create(f, NULL, 0, NULL, 0, &m));
    assert_error(metric_increment(m, -1), TRITONSERVER_ERROR_INVALID_ARG, "is a counter");
    assert_error(metric_set(m, 1), TRITONSERVER_ERROR_UNSUPPORTED, "cannot be set");
    assert_error(metric_observe(m, 1), TRITONSERVER_ERROR_UNSUPPORTED, "cannot be observed");
    metric_destroy(m);
    assert_null(metric_family_destroy(f));
}

static void test_labels_and_buckets_refused(void **state)
{
    (void)state;
    static const struct metric_label twice[] = { { "a", "1" }, { "a", "2" } };
    static const struct metric_label bad[] = { { "a-b", "1" } };
    static const struct metric_label le[] = { { "le", "1" } };
    static const double falling[] = { 2, 1 }, infinite[] = { 1, 1.0 / 0.0 };
    static const double many[BUCKETS_MAX + 1];
    struct tis_metric *m;
    struct tis_metric_family *g = family(GAUGE, "plug_g"), *h = family(HISTOGRAM, "plug_h");
    assert_error(metric_create(g, twice, 2, NULL, 0, &m), TRITONSERVER_ERROR_INVALID_ARG, "twice");
    assert_error(metric_create(g, bad, 1, NULL, 0, &m), TRITONSERVER_ERROR_INVALID_ARG, "'a-b'");
    assert_error(metric_create(g, NULL, 0, many, 1, &m), TRITONSERVER_ERROR_INVALID_ARG,
                 "expected none");
    assert_error(metric_create(h, NULL, 0, NULL, 0, &m), TRITONSERVER_ERROR_INVALID_ARG,
                 "expected 1 to 64");
    assert_error(metric_create(h, NULL, 0, many, BUCKETS_MAX + 1, &m),
                 TRITONSERVER_ERROR_INVALID_ARG, "expected 1 to 64");
    assert_error(metric_create(h, NULL, 0, falling, 2, &m), TRITONSERVER_ERROR_INVALID_ARG,
                 "ascend");
    assert_error(metric_create(h, NULL, 0, infinite, 2, &m), TRITONSERVER_ERROR_INVALID_ARG,
                 "finite");
    assert_error(metric_create(h, le, 1, falling, 1, &m), TRITONSERVER_ERROR_INVALID_ARG, "'le'");
    assert_null(metric_create(g, le, 1, NULL, 0, &m)); /* le means nothing there */
    metric_destroy(m);
    assert_null(metric_family_destroy(g));
    assert_null(metric_family_destroy(h));
}

enum {
    THREADS = 4,
    ROUNDS = 3000
};

static _Atomic uint32_t running;

/* Makes its own handles of the shared metrics, counts, lets go. */
static void *count_up(void *arg)
{
    static const double bound = 1;
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct tis_metric *c, *h;
        struct tis_metric_family *cf = family(COUNTER, "plug_c"), *hf = family(HISTOGRAM, "plug_h");
        assert_null(metric_create(cf, NULL, 0, NULL, 0, &c));
        assert_null(metric_create(hf, NULL, 0, &bound, 1, &h));
        assert_null(metric_increment(c, 1));
        assert_null(metric_observe(h, i % 2 + 0.5));
        metric_destroy(c);
        metric_destroy(h);
        assert_null(metric_family_destroy(cf));
        assert_null(metric_family_destroy(hf));
    }
    atomic_fetch_sub(&running, 1);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    static const double bound = 1;
    struct tis_metric_family *cf = family(COUNTER, "plug_c"), *hf = family(HISTOGRAM, "plug_h");
    struct tis_metric *c, *h;
    pthread_t threads[THREADS];
    assert_null(metric_create(cf, NULL, 0, NULL, 0, &c));
    assert_null(metric_create(hf, NULL, 0, &bound, 1, &h));
    atomic_store(&running, THREADS);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_up, NULL), 0);
    while (atomic_load(&running) > 0) {
        struct bytes out = { 0 };
        struct exposition e;
        exposition_init(&e, EXPOSITION_OPENMETRICS, &out);
        metric_families_write(&e);
        assert_false(out.failed);
        bytes_fini(&out);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_page("# HELP plug_c help\n# TYPE plug_c counter\nplug_c 12000\n"
                "# HELP plug_h help\n# TYPE plug_h histogram\n"
                "plug_h_bucket{le=\"1.0\"} 6000\nplug_h_bucket{le=\"+Inf\"} 12000\n"
                "plug_h_sum 12000\nplug_h_count 12000\n");
    metric_destroy(c);
    metric_destroy(h);
    assert_null(metric_family_destroy(cf));
    assert_null(metric_family_destroy(hf));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared),  cmocka_unit_test(test_histogram),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_labels_and_buckets_refused),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
