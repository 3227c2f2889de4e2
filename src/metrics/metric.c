#include "metrics/metric.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"

struct tis_metric {
    struct tis_metric_family *family;
    struct metric_label *labels;
    size_t label_count;
    /* under the family's lock */
    double value; /* counter, gauge; histogram: sum */
    uint64_t count;
    double *bucket_bounds;
    uint64_t *bucket_counts; /* not cumulative; the last one is +Inf */
    size_t bucket_count;
};

struct tis_metric_family {
    TRITONSERVER_MetricKind kind;
    char *name;
    char *help;
    struct lock lock;
    size_t metric_count;
};

static const char *kind_name(TRITONSERVER_MetricKind kind)
{
    static const char *const names[] = {
        [TRITONSERVER_METRIC_KIND_COUNTER] = "counter",
        [TRITONSERVER_METRIC_KIND_GAUGE] = "gauge",
        [TRITONSERVER_METRIC_KIND_HISTOGRAM] = "histogram",
    };
    return names[kind];
}

static bool is_metric_name(const char *name)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_:0123456789";
    size_t len = strlen(name);
    bool starts_well = len > 0 && (name[0] < '0' || name[0] > '9');
    return starts_well && strspn(name, letters) == len;
}

tis_error *metric_family_create(TRITONSERVER_MetricKind kind, const char *name, const char *help,
                                struct tis_metric_family **ret_family)
{
    if (kind > TRITONSERVER_METRIC_KIND_HISTOGRAM)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG, "metric '%s' has unknown kind %d", name,
                         (int)kind);
    if (!is_metric_name(name))
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "metric name '%s': expected letters, digits, '_' and ':'", name);
    struct tis_metric_family *f = calloc(1, sizeof(*f));
    if (!f)
        return error_no_memory();
    f->kind = kind;
    f->name = strdup(name);
    f->help = strdup(help);
    lock_init(&f->lock, LOCK_STATISTICS);
    if (!f->name || !f->help) {
        error_free(metric_family_destroy(f));
        return error_no_memory();
    }
    *ret_family = f;
    return NULL;
}

tis_error *metric_family_destroy(struct tis_metric_family *f)
{
    lock_take(&f->lock);
    size_t left = f->metric_count;
    lock_release(&f->lock);
    if (left > 0)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "metric family '%s' cannot be deleted: %zu metrics of it are left",
                         f->name, left);
    lock_fini(&f->lock);
    free(f->name);
    free(f->help);
    free(f);
    return NULL;
}

TRITONSERVER_MetricKind metric_family_kind(const struct tis_metric_family *f)
{
    return f->kind;
}

static void metric_free(struct tis_metric *m)
{
    for (size_t i = 0; i < m->label_count; i++) {
        free((char *)(uintptr_t)m->labels[i].name);
        free((char *)(uintptr_t)m->labels[i].value);
    }
    free(m->labels);
    free(m->bucket_bounds);
    free(m->bucket_counts);
    free(m);
}

static bool copy_labels(struct tis_metric *m, const struct metric_label *labels, size_t count)
{
    m->labels = calloc(count + 1, sizeof(*m->labels));
    bool ok = m->labels != NULL;
    for (size_t i = 0; i < count && ok; i++) {
        m->labels[i].name = strdup(labels[i].name);
        m->labels[i].value = strdup(labels[i].value);
        m->label_count++;
        ok = m->labels[i].name && m->labels[i].value;
    }
    return ok;
}

static tis_error *check_buckets(const struct tis_metric_family *f, const double *buckets,
                                size_t count)
{
    if ((f->kind == TRITONSERVER_METRIC_KIND_HISTOGRAM) != (count > 0))
        return error_new(
            TRITONSERVER_ERROR_INVALID_ARG, "metric '%s' is a %s: %zu buckets were given, %s",
            f->name, kind_name(f->kind), count, count ? "expected none" : "expected at least one");
    for (size_t i = 1; i < count; i++) {
        if (!(buckets[i - 1] < buckets[i]))
            return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                             "metric '%s': bucket bounds must ascend, found %g before %g", f->name,
                             buckets[i - 1], buckets[i]);
    }
    return NULL;
}

tis_error *metric_create(struct tis_metric_family *f, const struct metric_label *labels,
                         size_t label_count, const double *buckets, size_t bucket_count,
                         struct tis_metric **ret_metric)
{
    tis_error *err = check_buckets(f, buckets, bucket_count);
    if (err)
        return err;
    struct tis_metric *m = calloc(1, sizeof(*m));
    if (!m)
        return error_no_memory();
    m->family = f;
    m->bucket_count = bucket_count;
    m->bucket_bounds = calloc(bucket_count + 1, sizeof(*m->bucket_bounds));
    m->bucket_counts = calloc(bucket_count + 1, sizeof(*m->bucket_counts));
    if (!m->bucket_bounds || !m->bucket_counts || !copy_labels(m, labels, label_count)) {
        metric_free(m);
        return error_no_memory();
    }
    if (bucket_count > 0)
        memcpy(m->bucket_bounds, buckets, bucket_count * sizeof(*buckets));

    lock_take(&f->lock);
    f->metric_count++;
    lock_release(&f->lock);
    *ret_metric = m;
    return NULL;
}

void metric_destroy(struct tis_metric *m)
{
    struct tis_metric_family *f = m->family;
    lock_take(&f->lock);
    f->metric_count--;
    lock_release(&f->lock);
    metric_free(m);
}

static tis_error *wrong_kind(const struct tis_metric *m, const char *what)
{
    return error_new(TRITONSERVER_ERROR_UNSUPPORTED, "metric '%s' is a %s and cannot be %s",
                     m->family->name, kind_name(m->family->kind), what);
}

tis_error *metric_increment(struct tis_metric *m, double by)
{
    if (m->family->kind == TRITONSERVER_METRIC_KIND_HISTOGRAM)
        return wrong_kind(m, "incremented");
    if (m->family->kind == TRITONSERVER_METRIC_KIND_COUNTER && !(by >= 0))
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "metric '%s' is a counter: it cannot change by %g, expected 0 or more",
                         m->family->name, by);
    lock_take(&m->family->lock);
    m->value += by;
    lock_release(&m->family->lock);
    return NULL;
}

tis_error *metric_set(struct tis_metric *m, double value)
{
    if (m->family->kind != TRITONSERVER_METRIC_KIND_GAUGE)
        return wrong_kind(m, "set");
    lock_take(&m->family->lock);
    m->value = value;
    lock_release(&m->family->lock);
    return NULL;
}

tis_error *metric_observe(struct tis_metric *m, double value)
{
    if (m->family->kind != TRITONSERVER_METRIC_KIND_HISTOGRAM)
        return wrong_kind(m, "observed");
    size_t bucket = 0;
    while (bucket < m->bucket_count && !(value <= m->bucket_bounds[bucket]))
        bucket++;
    lock_take(&m->family->lock);
    m->bucket_counts[bucket]++;
    m->count++;
    m->value += value;
    lock_release(&m->family->lock);
    return NULL;
}

tis_error *metric_value(struct tis_metric *m, double *ret_value)
{
    if (m->family->kind == TRITONSERVER_METRIC_KIND_HISTOGRAM)
        return wrong_kind(m, "read as one value");
    lock_take(&m->family->lock);
    *ret_value = m->value;
    lock_release(&m->family->lock);
    return NULL;
}
