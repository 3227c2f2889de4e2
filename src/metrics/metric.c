/* metrics/metric.c - families of counters, gauges and histograms that plug-ins make.
 *
 * What a plug-in holds are handles. Behind them stand the families and series of the page, one for
 * each name and, in a family, one for each set of labels: two models whose backends make the same
 * family, or the same metric, share what lies behind. Changing a value is atomic and takes no lock;
 * the registry's lock is for making, deleting and writing.
 */
#include "metrics/metric.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/lock.h"
#include "metrics/counter.h"
#include "metrics/family.h"

/* One line of the page, or those of one histogram. */
struct series {
    /* set at creation, then constant */
    char *labels; /* as on the page, sorted by name */
    double *bounds;
    uint32_t bound_count;
    /* atomic */
    _Atomic double value;       /* histogram: sum */
    _Atomic uint64_t *observed; /* not cumulative; the last one is +Inf */
    /* any thread, under the registry's lock */
    struct list in_family;
    uint32_t refs;
};

struct shared_family {
    /* set at creation, then constant */
    TRITONSERVER_MetricKind kind;
    char *name;
    char *help;
    struct metric_info info;
    /* any thread, under the registry's lock */
    struct list in_registry;
    struct list series;
    uint32_t refs;
};

struct tis_metric {
    struct tis_metric_family *family;
    struct series *series; /* a reference */
};

struct tis_metric_family {
    struct shared_family *shared; /* a reference */
    /* any thread, under the registry's lock */
    size_t metric_count;
};

/* The process's, as plug-ins do not say for which server a family is. */
static struct lock registry_lock = { .mutex = PTHREAD_MUTEX_INITIALIZER, .rank = LOCK_STATISTICS };
static struct list registry = { &registry, &registry };

static const struct {
    const char *name;
    enum metric_type type;
} kinds[] = {
    [TRITONSERVER_METRIC_KIND_COUNTER] = { "counter", METRIC_COUNTER },
    [TRITONSERVER_METRIC_KIND_GAUGE] = { "gauge", METRIC_GAUGE },
    [TRITONSERVER_METRIC_KIND_HISTOGRAM] = { "histogram", METRIC_HISTOGRAM },
};

/* ---- Families ---- */

static void shared_destroy(struct shared_family *s)
{
    if (!s)
        return;
    free(s->name);
    free(s->help);
    free(s);
}

static struct shared_family *shared_create(TRITONSERVER_MetricKind kind, const char *name,
                                           const char *help)
{
    struct shared_family *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->kind = kind;
    s->name = strdup(name);
    s->help = strdup(help);
    s->info = (struct metric_info){ s->name, kinds[kind].type, NULL, s->help };
    list_init(&s->series);
    if (s->name && s->help)
        return s;
    shared_destroy(s);
    return NULL;
}

/* Under the lock. The family called so, or NULL when there is none. Errors: another one is in the
 * way. */
static tis_error *find_shared(TRITONSERVER_MetricKind kind, const char *name,
                              struct shared_family **ret_shared)
{
    *ret_shared = NULL;
    LIST_FOREACH(it, &registry)
    {
        struct shared_family *s = LIST_ENTRY(it, struct shared_family, in_registry);
        if (strcmp(s->name, name) == 0 && s->kind == kind) {
            *ret_shared = s;
            return NULL;
        }
        if (family_names_clash(s->name, kinds[s->kind].type, name, kinds[kind].type))
            return error_new(
                TRITONSERVER_ERROR_ALREADY_EXISTS,
                "metric '%s' cannot be a %s: there is a %s '%s', and a name belongs to "
                "one family",
                name, kinds[kind].name, kinds[s->kind].name, s->name);
    }
    return NULL;
}

static tis_error *check_family(TRITONSERVER_MetricKind kind, const char *name)
{
    if ((unsigned)kind >= ARRAY_LEN(kinds))
        return error_new(TRITONSERVER_ERROR_INVALID_ARG, "metric '%s' has unknown kind %d", name,
                         (int)kind);
    if (!metric_name_is_legal(name))
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "metric name '%s': expected letters, digits, '_' and ':'", name);
    const char *ours = family_clash(name, kinds[kind].type);
    if (ours)
        return error_new(TRITONSERVER_ERROR_ALREADY_EXISTS,
                         "metric name '%s' is the server's own ('%s'), choose another one", name,
                         ours);
    return NULL;
}

tis_error *metric_family_create(TRITONSERVER_MetricKind kind, const char *name, const char *help,
                                struct tis_metric_family **ret_family)
{
    tis_error *err = check_family(kind, name);
    if (err)
        return err;
    struct tis_metric_family *f = calloc(1, sizeof(*f));
    struct shared_family *made = shared_create(kind, name, help);
    struct shared_family *found = NULL;
    if (!f || !made)
        err = error_no_memory();

    lock_take(&registry_lock);
    if (!err)
        err = find_shared(kind, name, &found);
    if (!err && !found) {
        list_append(&registry, &made->in_registry);
        found = made;
        made = NULL;
    }
    if (!err)
        found->refs++;
    lock_release(&registry_lock);

    shared_destroy(made);
    if (err) {
        free(f);
        return err;
    }
    f->shared = found;
    *ret_family = f;
    return NULL;
}

tis_error *metric_family_destroy(struct tis_metric_family *f)
{
    struct shared_family *s = f->shared;
    lock_take(&registry_lock);
    size_t left = f->metric_count;
    bool is_last = left == 0 && --s->refs == 0;
    if (is_last)
        list_remove(&s->in_registry);
    lock_release(&registry_lock);
    if (left > 0)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "metric family '%s' cannot be deleted: %zu metrics of it are left",
                         s->name, left);
    if (is_last)
        shared_destroy(s);
    free(f);
    return NULL;
}

TRITONSERVER_MetricKind metric_family_kind(const struct tis_metric_family *f)
{
    return f->shared->kind;
}

/* ---- Metrics ---- */

static void series_destroy(struct series *s)
{
    if (!s)
        return;
    free(s->labels);
    free(s->bounds);
    free(s->observed);
    free(s);
}

static int compare_labels(const void *a, const void *b)
{
    return strcmp(((const struct metric_label *)a)->name, ((const struct metric_label *)b)->name);
}

/* The labels as on the page, sorted, so that sets can be compared. */
static tis_error *render_labels(const struct shared_family *f, const struct metric_label *labels,
                                size_t count, char **ret_text)
{
    struct metric_label *sorted = calloc(count + 1, sizeof(*sorted));
    if (!sorted)
        return error_no_memory();
    if (count > 0)
        memcpy(sorted, labels, count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), compare_labels);

    tis_error *err = NULL;
    struct bytes text = { 0 };
    for (size_t i = 0; i < count && !err; i++) {
        const char *name = sorted[i].name;
        bool is_bound = f->kind == TRITONSERVER_METRIC_KIND_HISTOGRAM && strcmp(name, "le") == 0;
        if (!label_name_is_legal(name) || is_bound)
            err = error_new(TRITONSERVER_ERROR_INVALID_ARG,
                            "metric '%s': label '%s' is not legal, expected letters, digits and "
                            "'_', not '__' or a digit first%s",
                            f->name, name, is_bound ? ", and not 'le' of a histogram" : "");
        else if (i > 0 && strcmp(sorted[i - 1].name, name) == 0)
            err = error_new(TRITONSERVER_ERROR_INVALID_ARG,
                            "metric '%s': label '%s' is given twice", f->name, name);
        else
            labels_append(&text, 0, name, sorted[i].value, strlen(sorted[i].value));
    }
    free(sorted);
    if (!err && !(*ret_text = bytes_steal(&text)))
        err = error_no_memory();
    bytes_fini(&text);
    return err;
}

static tis_error *check_buckets(const struct shared_family *f, const double *buckets, size_t count)
{
    if ((f->kind == TRITONSERVER_METRIC_KIND_HISTOGRAM) != (count > 0) || count > BUCKETS_MAX)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "metric '%s' is a %s: %zu buckets were given, expected %s", f->name,
                         kinds[f->kind].name, count,
                         f->kind == TRITONSERVER_METRIC_KIND_HISTOGRAM ? "1 to 64" : "none");
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(buckets[i]) || (i > 0 && !(buckets[i - 1] < buckets[i])))
            return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                             "metric '%s': bucket bounds must be finite and ascend, found %g",
                             f->name, buckets[i]);
    }
    return NULL;
}

static tis_error *series_create(const struct shared_family *f, const struct metric_label *labels,
                                size_t label_count, const double *buckets, size_t bucket_count,
                                struct series **ret_series)
{
    struct series *s = calloc(1, sizeof(*s));
    tis_error *err = s ? render_labels(f, labels, label_count, &s->labels) : error_no_memory();
    if (!err) {
        s->bound_count = (uint32_t)bucket_count;
        s->bounds = calloc(bucket_count + 1, sizeof(*s->bounds));
        s->observed = calloc(bucket_count + 1, sizeof(*s->observed));
        if (!s->bounds || !s->observed)
            err = error_no_memory();
    }
    if (err) {
        series_destroy(s);
        return err;
    }
    if (bucket_count > 0)
        memcpy(s->bounds, buckets, bucket_count * sizeof(*buckets));
    *ret_series = s;
    return NULL;
}

/* Under the lock. The family's series with these labels, or NULL. Errors: its bounds differ. */
static tis_error *find_series(const struct shared_family *f, const struct series *wanted,
                              struct series **ret_series)
{
    *ret_series = NULL;
    LIST_FOREACH(it, &f->series)
    {
        struct series *s = LIST_ENTRY(it, struct series, in_family);
        if (strcmp(s->labels, wanted->labels) != 0)
            continue;
        if (s->bound_count != wanted->bound_count ||
            memcmp(s->bounds, wanted->bounds, s->bound_count * sizeof(*s->bounds)) != 0)
            return error_new(TRITONSERVER_ERROR_ALREADY_EXISTS,
                             "metric '%s' with labels {%s} exists with other buckets", f->name,
                             s->labels);
        *ret_series = s;
        return NULL;
    }
    return NULL;
}

tis_error *metric_create(struct tis_metric_family *f, const struct metric_label *labels,
                         size_t label_count, const double *buckets, size_t bucket_count,
                         struct tis_metric **ret_metric)
{
    struct shared_family *shared = f->shared;
    tis_error *err = check_buckets(shared, buckets, bucket_count);
    struct series *made = NULL;
    if (!err)
        err = series_create(shared, labels, label_count, buckets, bucket_count, &made);
    if (err)
        return err;
    struct tis_metric *m = calloc(1, sizeof(*m));
    struct series *found = NULL;
    if (!m)
        err = error_no_memory();

    lock_take(&registry_lock);
    if (!err)
        err = find_series(shared, made, &found);
    if (!err && !found) {
        list_append(&shared->series, &made->in_family);
        found = made;
        made = NULL;
    }
    if (!err) {
        found->refs++;
        f->metric_count++;
    }
    lock_release(&registry_lock);

    series_destroy(made);
    if (err) {
        free(m);
        return err;
    }
    *m = (struct tis_metric){ .family = f, .series = found };
    *ret_metric = m;
    return NULL;
}

void metric_destroy(struct tis_metric *m)
{
    struct series *s = m->series;
    lock_take(&registry_lock);
    m->family->metric_count--;
    bool is_last = --s->refs == 0;
    if (is_last)
        list_remove(&s->in_family);
    lock_release(&registry_lock);
    if (is_last)
        series_destroy(s);
    free(m);
}

/* ---- Values ---- */

static const struct shared_family *family_of(const struct tis_metric *m)
{
    return m->family->shared;
}

static tis_error *wrong_kind(const struct tis_metric *m, const char *what)
{
    return error_new(TRITONSERVER_ERROR_UNSUPPORTED, "metric '%s' is a %s and cannot be %s",
                     family_of(m)->name, kinds[family_of(m)->kind].name, what);
}

tis_error *metric_increment(struct tis_metric *m, double by)
{
    if (family_of(m)->kind == TRITONSERVER_METRIC_KIND_HISTOGRAM)
        return wrong_kind(m, "incremented");
    if (family_of(m)->kind == TRITONSERVER_METRIC_KIND_COUNTER && !(by >= 0))
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "metric '%s' is a counter: it cannot change by %g, expected 0 or more",
                         family_of(m)->name, by);
    sum_add(&m->series->value, by);
    return NULL;
}

tis_error *metric_set(struct tis_metric *m, double value)
{
    if (family_of(m)->kind != TRITONSERVER_METRIC_KIND_GAUGE)
        return wrong_kind(m, "set");
    atomic_store_explicit(&m->series->value, value, memory_order_relaxed);
    return NULL;
}

tis_error *metric_observe(struct tis_metric *m, double value)
{
    struct series *s = m->series;
    if (family_of(m)->kind != TRITONSERVER_METRIC_KIND_HISTOGRAM)
        return wrong_kind(m, "observed");
    uint32_t bucket = 0;
    while (bucket < s->bound_count && !(value <= s->bounds[bucket]))
        bucket++;
    atomic_fetch_add_explicit(&s->observed[bucket], 1, memory_order_relaxed);
    sum_add(&s->value, value);
    return NULL;
}

tis_error *metric_value(struct tis_metric *m, double *ret_value)
{
    if (family_of(m)->kind == TRITONSERVER_METRIC_KIND_HISTOGRAM)
        return wrong_kind(m, "read as one value");
    *ret_value = atomic_load_explicit(&m->series->value, memory_order_relaxed);
    return NULL;
}

/* ---- The page ---- */

static void write_histogram(struct exposition *e, struct label_text labels, const struct series *s)
{
    struct bucket_texts texts;
    uint64_t cumulative[BUCKETS_MAX + 1];
    uint64_t count = 0;
    bucket_texts_init(&texts, s->bounds, s->bound_count);
    for (uint32_t i = 0; i <= s->bound_count; i++) {
        count += atomic_load_explicit(&s->observed[i], memory_order_relaxed);
        cumulative[i] = count;
    }
    exposition_histogram(e, labels, &texts, cumulative, count,
                         atomic_load_explicit(&s->value, memory_order_relaxed));
}

void metric_families_write(struct exposition *e)
{
    lock_take(&registry_lock);
    LIST_FOREACH(at, &registry)
    {
        const struct shared_family *f = LIST_ENTRY(at, struct shared_family, in_registry);
        exposition_family(e, &f->info);
        LIST_FOREACH(it, &f->series)
        {
            const struct series *s = LIST_ENTRY(it, struct series, in_family);
            struct label_text labels = { s->labels, strlen(s->labels) };
            if (f->kind == TRITONSERVER_METRIC_KIND_HISTOGRAM)
                write_histogram(e, labels, s);
            else
                exposition_double(e, labels, NULL,
                                  atomic_load_explicit(&s->value, memory_order_relaxed));
        }
    }
    lock_release(&registry_lock);
}
