/* metrics/statistics_internal.h - the rows of the tables by batch size and by response number, which
 * metrics/statistics.c adds to and metrics/statistics_snapshot.c reads. */
#ifndef TIS_METRICS_STATISTICS_INTERNAL_H
#define TIS_METRICS_STATISTICS_INTERNAL_H

#include "metrics/statistics.h"

/* The counts of parts that are always counted together are kept once. */
struct batch_row {
    _Atomic uint64_t success_count;
    _Atomic uint64_t success_ns;
    _Atomic uint64_t compute_ns;
    _Atomic uint64_t queue_ns;
    _Atomic uint64_t failed_count;
    _Atomic uint64_t failed_ns;
    _Atomic uint64_t execution_count;
    _Atomic uint64_t compute_input_ns;
    _Atomic uint64_t compute_infer_ns;
    _Atomic uint64_t compute_output_ns;
};

struct batch_page {
    uint32_t number; /* its first row is of batch size number * BATCH_PAGE_ROWS */
    struct batch_row rows[BATCH_PAGE_ROWS];
};

struct atomic_duration {
    _Atomic uint64_t count;
    _Atomic uint64_t ns;
};

struct response_row {
    struct atomic_duration compute_infer;
    struct atomic_duration compute_output;
    struct atomic_duration success;
    struct atomic_duration fail;
    struct atomic_duration empty;
    struct atomic_duration cancel;
};

struct response_page {
    struct response_row rows[RESPONSE_PAGE_ROWS];
};

#endif
