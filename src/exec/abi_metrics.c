/* The TRITONSERVER_ functions about metrics that plug-ins make. The contracts stand in
 * include/tis/server.h. */
#include <stdlib.h>
#include <string.h>

#include "infer/request.h"
#include "metrics/metric.h"
#include "tis/backend.h"

enum {
    LABELS_MAX = 64
};

struct tis_metric_args {
    double *buckets;
    size_t bucket_count;
};

TRITONSERVER_Error *TRITONSERVER_MetricFamilyNew(TRITONSERVER_MetricFamily **family,
                                                 TRITONSERVER_MetricKind kind, const char *name,
                                                 const char *description)
{
    return metric_family_create(kind, name, description, family);
}

TRITONSERVER_Error *TRITONSERVER_MetricFamilyDelete(TRITONSERVER_MetricFamily *family)
{
    return family ? metric_family_destroy(family) : NULL;
}

TRITONSERVER_Error *TRITONSERVER_GetMetricFamilyKind(TRITONSERVER_MetricFamily *family,
                                                     TRITONSERVER_MetricKind *kind)
{
    *kind = metric_family_kind(family);
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_MetricArgsNew(TRITONSERVER_MetricArgs **args)
{
    struct tis_metric_args *a = calloc(1, sizeof(*a));
    if (!a)
        return error_no_memory();
    *args = a;
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_MetricArgsSetHistogram(TRITONSERVER_MetricArgs *args,
                                                        const double *buckets,
                                                        const uint64_t buckets_count)
{
    double *copy = calloc(buckets_count, sizeof(*copy));
    if (!copy)
        return error_no_memory();
    memcpy(copy, buckets, buckets_count * sizeof(*copy));
    free(args->buckets);
    args->buckets = copy;
    args->bucket_count = buckets_count;
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_MetricArgsDelete(TRITONSERVER_MetricArgs *args)
{
    if (args) {
        free(args->buckets);
        free(args);
    }
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_MetricNewWithArgs(TRITONSERVER_Metric **metric,
                                                   TRITONSERVER_MetricFamily *family,
                                                   const TRITONSERVER_Parameter **labels,
                                                   const uint64_t label_count,
                                                   const TRITONSERVER_MetricArgs *args)
{
    struct metric_label own[LABELS_MAX];
    if (label_count > LABELS_MAX)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG, "a metric has at most %d labels, got %llu",
                         LABELS_MAX, (unsigned long long)label_count);
    for (uint64_t i = 0; i < label_count; i++) {
        if (labels[i]->type != TRITONSERVER_PARAMETER_STRING)
            return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                             "label '%s' of a metric must be a string", labels[i]->name);
        own[i] = (struct metric_label){ labels[i]->name, labels[i]->value.string };
    }
    return metric_create(family, own, label_count, args ? args->buckets : NULL,
                         args ? args->bucket_count : 0, metric);
}

TRITONSERVER_Error *TRITONSERVER_MetricNew(TRITONSERVER_Metric **metric,
                                           TRITONSERVER_MetricFamily *family,
                                           const TRITONSERVER_Parameter **labels,
                                           const uint64_t label_count)
{
    return TRITONSERVER_MetricNewWithArgs(metric, family, labels, label_count, NULL);
}

TRITONSERVER_Error *TRITONSERVER_MetricDelete(TRITONSERVER_Metric *metric)
{
    if (metric)
        metric_destroy(metric);
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_MetricValue(TRITONSERVER_Metric *metric, double *value)
{
    return metric_value(metric, value);
}

TRITONSERVER_Error *TRITONSERVER_MetricIncrement(TRITONSERVER_Metric *metric, double value)
{
    return metric_increment(metric, value);
}

TRITONSERVER_Error *TRITONSERVER_MetricSet(TRITONSERVER_Metric *metric, double value)
{
    return metric_set(metric, value);
}

TRITONSERVER_Error *TRITONSERVER_MetricObserve(TRITONSERVER_Metric *metric, double value)
{
    return metric_observe(metric, value);
}
