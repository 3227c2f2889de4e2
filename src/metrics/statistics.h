/* metrics/statistics.h - what one model version did: the source of the v1 status, the v2 statistics
 * and the metrics page.
 *
 * Backends report through the ABI; counters only grow, from the load of the version on. Each instance
 * adds to a shard of its own, so that instances do not share cache lines; what no instance ran
 * (refused, cancelled while it waited) and what is known after the instance's turn (the first
 * response of a decoupled request) goes to the version's own shard. Adding takes no lock and, but
 * for the first time a batch size or response number is seen, no memory. Readers add up the shards.
 *
 * Ownership: the version embeds `struct statistics`, which owns its shards until statistics_fini().
 *            An instance that goes closes its shard: what it counted stays, and the next instance
 *            goes on with it.
 * Threads:   any.
 */
#ifndef TIS_METRICS_STATISTICS_H
#define TIS_METRICS_STATISTICS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/error.h"
#include "base/lock.h"
#include "base/prefetch.h"
#include "metrics/counter.h"
#include "tis/backend.h"

/* ---- What readers get ---- */

struct duration {
    uint64_t count;
    uint64_t ns;
};

/* Why a request failed, in the words of the label `reason` of nv_inference_request_failure. */
enum failure_kind {
    FAILURE_REJECTED, /* by the scheduler: its queue was full, or the wait too long */
    FAILURE_CANCELED, /* by the client */
    FAILURE_BACKEND,  /* the backend failed it, or the execution that it was part of */
    FAILURE_OTHER,    /* refused before it was queued */
    FAILURE_COUNT,
};

extern const char *const failure_names[FAILURE_COUNT]; /* "REJECTED" ... */

/* Of successful requests, but for BATCH_SIZE, which is of executions. */
enum statistics_histogram {
    HISTOGRAM_REQUEST,        /* seconds, from accepted to computed */
    HISTOGRAM_QUEUE,          /* seconds */
    HISTOGRAM_COMPUTE,        /* seconds: input, infer and output together */
    HISTOGRAM_FIRST_RESPONSE, /* seconds, from accepted to the first response. Requests that have one
                                 response have it at their end: theirs is HISTOGRAM_REQUEST */
    HISTOGRAM_BATCH_SIZE,     /* entries of an execution */
    HISTOGRAM_LOAD_RATIO,     /* request / compute: nv_inference_load_ratio */
    HISTOGRAM_COUNT,
};

enum {
    HISTOGRAM_BOUNDS_MAX = 16
};

/* The same for every version and server, so that replicas add up. */
struct histogram_bounds {
    uint32_t count;
    double upper[HISTOGRAM_BOUNDS_MAX]; /* ascending, in the histogram's unit, without +Inf */
};

extern const struct histogram_bounds histogram_bounds[HISTOGRAM_COUNT];

struct histogram {
    uint64_t cumulative[HISTOGRAM_BOUNDS_MAX]; /* observations not above bounds.upper[i] */
    uint64_t count;                            /* of all observations: the bucket +Inf */
    double sum;                                /* in the histogram's unit */
};

struct statistics_totals {
    uint64_t last_inference_ms; /* since the epoch; 0: never */
    uint64_t inference_count;   /* batch entries of successful requests */
    uint64_t execution_count;
    struct duration success;
    struct duration fail; /* of every kind */
    struct duration queue;
    struct duration compute_input;
    struct duration compute_infer;
    struct duration compute_output;
    uint64_t failures[FAILURE_COUNT];
    struct histogram histograms[HISTOGRAM_COUNT];
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

/* What backends say they use of one memory. */
struct memory_usage {
    TRITONSERVER_MemoryType type;
    int64_t id;
    uint64_t bytes;
};

/* statistics_snapshot_fini() frees it. */
struct statistics_snapshot {
    struct statistics_totals totals;
    struct batch_statistics *batches; /* by batch_size, ascending */
    uint32_t batch_count;
    struct response_statistics *responses; /* by number in their request */
    uint32_t response_count;
    struct memory_usage *memory; /* by type and id */
    uint32_t memory_count;
};

/* ---- Shards ---- */

enum {
    /* Batch sizes below the first number have a row for certain; larger ones have one as long as
     * there are not too many: clients choose the sizes of requests that fail. */
    STATISTICS_BATCH_SIZES_SURE = 1024,
    STATISTICS_RESPONSES_MAX = 1024, /* later responses of a request are not kept */
    BATCH_PAGE_ROWS = 32,
    BATCH_PAGES = 128,
    MEMORY_USAGES_MAX = 16, /* of a shard */
    RESPONSE_PAGE_ROWS = 16,
    RESPONSE_PAGES = STATISTICS_RESPONSES_MAX / RESPONSE_PAGE_ROWS,
};

struct batch_page;
struct response_page;

/* The fields are for metrics/statistics.c. */
struct statistics_shard {
    /* set when it is made, then constant */
    struct statistics *owner;
    struct statistics_shard *next;
    /* atomic */
    _Atomic bool is_open;
    _Atomic uint64_t last_inference_ms;
    _Atomic uint64_t touched_ns; /* end of the execution that last_inference_ms is of */
    _Atomic uint64_t inference_count;
    _Atomic uint64_t execution_count;
    _Atomic uint64_t success_ns;
    _Atomic uint64_t queue_ns;
    _Atomic uint64_t compute_input_ns;
    _Atomic uint64_t compute_infer_ns;
    _Atomic uint64_t compute_output_ns;
    _Atomic uint64_t execution_entries;
    _Atomic uint64_t first_response_ns;
    _Atomic double load_ratio_sum;
    _Atomic uint64_t fail_ns;
    _Atomic uint64_t failures[FAILURE_COUNT];
    _Atomic uint64_t
        buckets[HISTOGRAM_COUNT][HISTOGRAM_BOUNDS_MAX + 1]; /* not cumulative; last: +Inf */
    struct batch_page *_Atomic batches[BATCH_PAGES];
    struct response_page *_Atomic responses[RESPONSE_PAGES];
    /* any thread, under the owner's memory_lock */
    struct memory_usage memory[MEMORY_USAGES_MAX];
    uint32_t memory_count;
};

enum {
    FIRST_RESPONSE_BOUNDS_MAX = 32
};

struct statistics {
    /* set by the version before its first request, then constant */
    bool is_decoupled; /* requests may have many responses: their first one is reported by itself */
    uint32_t first_response_bound_count; /* statistics_set_first_response_bounds() */
    double first_response_bounds_ms[FIRST_RESPONSE_BOUNDS_MAX];
    /* atomic */
    struct statistics_shard *_Atomic shards; /* ends with `own` */
    /* any thread */
    struct lock memory_lock; /* a leaf; not for requests */
    _Atomic bool has_memory; /* some shard has said something: most versions never do */
    struct statistics_shard own;
    _Atomic uint64_t first_response_buckets[FIRST_RESPONSE_BOUNDS_MAX + 1]; /* as in a shard */
};

/* Bounds of nv_inference_first_response_histogram_ms, ascending; at first they are Triton's. Before
 * the first request. */
void statistics_set_first_response_bounds(struct statistics *s, const double *upper_ms,
                                          uint32_t count);

void statistics_init(struct statistics *s);
void statistics_fini(struct statistics *s);

/* A shard for an instance; NULL when out of memory. */
MUST_USE struct statistics_shard *statistics_shard_open(struct statistics *s);
/* The instance is gone. NULL is fine. */
void statistics_shard_close(struct statistics_shard *shard);

/* ---- Adding ---- */

/* One successful request, as a backend reports it: all times monotonic ns. */
struct statistics_request {
    uint32_t batch_size;
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

/* The shard is the instance's, or &version->statistics.own. */
void statistics_add_success(struct statistics_shard *shard, const struct statistics_request *r);
void statistics_add_failure(struct statistics_shard *shard, enum failure_kind kind,
                            uint32_t batch_size, uint64_t duration_ns);
/* One execution over batch_size entries; times as in statistics_request. */
void statistics_add_execution(struct statistics_shard *shard, uint64_t batch_size,
                              uint64_t exec_start_ns, uint64_t compute_start_ns,
                              uint64_t compute_end_ns, uint64_t exec_end_ns);
/* Response number `index` of its request; those from STATISTICS_RESPONSES_MAX on are not kept. */
void statistics_add_response(struct statistics_shard *shard, uint32_t index,
                             const struct statistics_response *r);
/* Requests that may have many responses: the first one went out after duration_ns. */
void statistics_add_first_response(struct statistics *s, uint64_t duration_ns);

/* Replaces what was said for this shard: an instance's, or the model's own. Of two entries for one memory
 * the later one counts. Errors: UNSUPPORTED  more than MEMORY_USAGES_MAX. */
MUST_USE tis_error *statistics_set_memory(struct statistics_shard *shard,
                                          const struct memory_usage *usages, uint32_t count);

/* ---- Reading ---- */

/* Allocates nothing: for the metrics page. */
void statistics_get_totals(const struct statistics *s, struct statistics_totals *ret_totals);
/* Readers of many versions ask for the memory that statistics_get_totals() looks at, some versions
 * ahead: first for what is in s itself, then, when that has come, for what it points to. */
static inline void statistics_prefetch(const struct statistics *s)
{
    prefetch(&s->is_decoupled, 1);
    prefetch(&s->shards, sizeof(s->shards));
    prefetch(&s->own, offsetof(struct statistics_shard, buckets));
}

static inline void statistics_prefetch_shards(const struct statistics *s)
{
    prefetch(atomic_load(&s->shards), offsetof(struct statistics_shard, batches));
}

/* The first responses of a decoupled model's requests, with the bounds that the model has. */
struct first_response_histogram {
    uint32_t bound_count;
    double upper_ms[FIRST_RESPONSE_BOUNDS_MAX];
    uint64_t cumulative[FIRST_RESPONSE_BOUNDS_MAX];
    uint64_t count;
    double sum_ms;
};
void statistics_get_first_response(const struct statistics *s,
                                   struct first_response_histogram *ret_histogram);
/* What backends say they use, by type and id; to be freed, NULL when there is nothing or no memory for
 * it. */
void statistics_get_memory(struct statistics *s, struct memory_usage **ret_memory,
                           uint32_t *ret_count);
/* The totals and the tables. A table for which there is no memory is left out. */
void statistics_get(struct statistics *s, struct statistics_snapshot *ret_snapshot);
void statistics_snapshot_fini(struct statistics_snapshot *snapshot);

#endif
