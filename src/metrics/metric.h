/* metrics/metric.h - families of counters, gauges and histograms that plug-ins make.
 *
 * A family has a name, a help text and a kind; a metric of it has a set of labels and a value. Both
 * are handles: families of the same name and kind are one on the page (the first help text counts),
 * and metrics of the same family with the same labels are one series with one value. All servers of
 * the process show them.
 *
 * Ownership: counted in one direction: a family cannot be deleted while it has metrics.
 * Threads:   any. Values change without a lock; the rest takes a leaf lock.
 */
#ifndef TIS_METRICS_METRIC_H
#define TIS_METRICS_METRIC_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "metrics/exposition.h"
#include "tis/backend.h"

struct tis_metric_family;
struct tis_metric;

struct metric_label {
    const char *name;
    const char *value;
};

/* Copies name and help.
 * Errors: INVALID_ARG     the name is not [a-zA-Z_:][a-zA-Z0-9_:]*
 *         ALREADY_EXISTS  it is one of the server's own, or of a family of another kind */
MUST_USE tis_error *metric_family_create(TRITONSERVER_MetricKind kind, const char *name,
                                         const char *help, struct tis_metric_family **ret_family);
/* Errors: INVALID_ARG  metrics of the family are left. */
MUST_USE tis_error *metric_family_destroy(struct tis_metric_family *f);
TRITONSERVER_MetricKind metric_family_kind(const struct tis_metric_family *f);

/* Copies the labels. buckets[0..bucket_count): upper bounds of a histogram, strictly ascending,
 * without +Inf, at most BUCKETS_MAX; other kinds have none.
 * Errors: INVALID_ARG     buckets, or a label's name
 *         ALREADY_EXISTS  the labels exist with other buckets */
MUST_USE tis_error *metric_create(struct tis_metric_family *f, const struct metric_label *labels,
                                  size_t label_count, const double *buckets, size_t bucket_count,
                                  struct tis_metric **ret_metric);
void metric_destroy(struct tis_metric *m);

/* Counter or gauge; a counter only grows. Errors: INVALID_ARG negative; UNSUPPORTED other kind. */
MUST_USE tis_error *metric_increment(struct tis_metric *m, double by);
/* Gauge only. */
MUST_USE tis_error *metric_set(struct tis_metric *m, double value);
/* Histogram only. */
MUST_USE tis_error *metric_observe(struct tis_metric *m, double value);
/* Counter or gauge. */
MUST_USE tis_error *metric_value(struct tis_metric *m, double *ret_value);

/* All families with their series. */
void metric_families_write(struct exposition *e);

#endif
