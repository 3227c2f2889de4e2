/* metrics/statistics.h - what one model version did, for the status and statistics APIs.
 *
 * Backends report through the ABI; the counters are cumulative since the version was loaded (or
 * since the status of the model was reset). Durations are sums of ns.
 *
 * Threads: any; a leaf lock.
 */
#ifndef TIS_METRICS_STATISTICS_H
#define TIS_METRICS_STATISTICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/lock.h"

struct duration {
    uint64_t count;
    uint64_t ns;
};

/* Requests of one batch size (v1 status), executions of one batch size (v2 statistics). */
struct batch_statistics {
    uint32_t batch_size;
    /* requests */
    struct duration success; /* end to end */
    struct duration failed;
    struct duration compute; /* in the backend, per request */
    struct duration queue;
    /* executions */
    struct duration compute_input;
    struct duration compute_infer;
    struct duration compute_output;
};

/* The n-th responses of decoupled models' requests. */
struct response_statistics {
    struct duration compute_infer;
    struct duration compute_output;
    struct duration success;
    struct duration fail;
    struct duration empty; /* ended without a response */
    struct duration cancel;
};

struct statistics_totals {
    uint64_t last_inference_ms; /* since the epoch; 0: never */
    uint64_t inference_count;   /* batch entries of successful requests */
    uint64_t execution_count;
    struct duration success;
    struct duration fail;
    struct duration queue;
    struct duration compute_input;
    struct duration compute_infer;
    struct duration compute_output;
};

struct statistics {
    struct lock lock;
    struct statistics_totals totals;
    struct batch_statistics *batches; /* sorted by batch_size */
    uint32_t batch_count;
    uint32_t batch_capacity;
    struct response_statistics *responses; /* by number in their request */
    uint32_t response_count;
};

/* A copy to read at leisure; statistics_snapshot_fini() frees it. */
struct statistics_snapshot {
    struct statistics_totals totals;
    struct batch_statistics *batches;
    uint32_t batch_count;
    struct response_statistics *responses;
    uint32_t response_count;
};

/* One request, as a backend reports it: all times monotonic ns. */
struct statistics_request {
    uint32_t batch_size;
    bool success;
    uint64_t request_start_ns;
    uint64_t queue_start_ns;
    uint64_t exec_start_ns;
    uint64_t compute_start_ns;
    uint64_t compute_end_ns;
    uint64_t exec_end_ns;
};

enum response_end_kind {
    RESPONSE_END_SUCCESS, /* with outputs, or empty */
    RESPONSE_END_FAIL,
    RESPONSE_END_CANCEL,
};

/* One response, as a backend reports it: monotonic ns. */
struct statistics_response {
    enum response_end_kind end;
    uint64_t start_ns;
    uint64_t output_start_ns; /* 0: it had no outputs */
    uint64_t end_ns;
};

void statistics_init(struct statistics *s);
void statistics_fini(struct statistics *s);

void statistics_add_request(struct statistics *s, const struct statistics_request *r);
/* A request that failed before or without the backend. */
void statistics_add_failure(struct statistics *s, uint32_t batch_size, uint64_t duration_ns);
/* One execution over batch_size entries; times as in statistics_request. */
void statistics_add_execution(struct statistics *s, uint64_t batch_size, uint64_t exec_start_ns,
                              uint64_t compute_start_ns, uint64_t compute_end_ns,
                              uint64_t exec_end_ns);

/* Response number `index` of its request; those beyond a bound are not kept. */
void statistics_add_response(struct statistics *s, uint32_t index,
                             const struct statistics_response *r);

/* Without memory for the batches, or for the responses, the snapshot has none. */
void statistics_get(struct statistics *s, struct statistics_snapshot *ret_snapshot);
void statistics_snapshot_fini(struct statistics_snapshot *snapshot);

#endif
