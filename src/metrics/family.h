/* metrics/family.h - the families of the server's own metrics: names, types, help.
 *
 * The table is the whole list; docs/metrics.md has a section for each, which a test checks. Names of
 * TRTIS 0.9 and Triton (nv_) stay as they are; ours carry units, and histograms of ours have the same
 * bounds on every server, so that replicas add up.
 *
 * Threads: any.
 */
#ifndef TIS_METRICS_FAMILY_H
#define TIS_METRICS_FAMILY_H

#include "metrics/exposition.h"

enum family {
    /* of one version of a model */
    FAMILY_REQUEST_SUCCESS,
    FAMILY_REQUEST_FAILURE,
    FAMILY_INFERENCE_COUNT,
    FAMILY_EXEC_COUNT,
    FAMILY_REQUEST_US,
    FAMILY_QUEUE_US,
    FAMILY_COMPUTE_US,
    FAMILY_COMPUTE_INPUT_US,
    FAMILY_COMPUTE_INFER_US,
    FAMILY_COMPUTE_OUTPUT_US,
    FAMILY_LOAD_RATIO,
    FAMILY_FIRST_RESPONSE_MS,
    FAMILY_PENDING,
    FAMILY_LOAD_SECS,
    FAMILY_MODEL_READY,
    FAMILY_MODEL_MEMORY,
    FAMILY_REQUEST_SECONDS,
    FAMILY_QUEUE_SECONDS,
    FAMILY_COMPUTE_SECONDS,
    FAMILY_FIRST_RESPONSE_SECONDS,
    FAMILY_BATCH_SIZE,
    /* of the server */
    FAMILY_BUILD_INFO,
    FAMILY_READY,
    FAMILY_UPTIME,
    FAMILY_REQUESTS_INFLIGHT,
    FAMILY_BYTES_INFLIGHT,
    FAMILY_BYTES_INFLIGHT_LIMIT,
    FAMILY_CONNECTIONS,
    FAMILY_CONNECTIONS_ACCEPTED,
    FAMILY_PAGE_CPU,
    /* of the process and the machine; metrics/process.h */
    FAMILY_CPU_UTILIZATION,
    FAMILY_CPU_MEMORY_TOTAL,
    FAMILY_CPU_MEMORY_USED,
    FAMILY_PROCESS_CPU,
    FAMILY_PROCESS_RESIDENT,
    FAMILY_PROCESS_VIRTUAL,
    FAMILY_PROCESS_OPEN_FDS,
    FAMILY_PROCESS_MAX_FDS,
    FAMILY_PROCESS_THREADS,
    FAMILY_PROCESS_START,
    FAMILY_COUNT,
};

extern const struct metric_info families[FAMILY_COUNT];

/* Could a reader take series of the one for those of the other? So it is when the names are the
 * same, also with the endings that a type adds (_total, _bucket, _count, _sum, _created). */
bool family_names_clash(const char *a, enum metric_type a_type, const char *b,
                        enum metric_type b_type);
/* The family of the server's own that a name clashes with, also one that only servers with GPUs or a
 * cache have; NULL: none. Names that begin with trtserver_ are all ours. */
const char *family_clash(const char *name, enum metric_type type);

#endif
