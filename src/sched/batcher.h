/* sched/batcher.h - puts waiting requests together so that one execution runs many.
 *
 * Looking at the requests in the order of the queue, never skipping one, the batcher gathers them
 * while their batches add up to at most the largest preferred size. It gives
 *
 *     a preferred size as soon as it is reached, the largest that the waiting requests make;
 *     else all it gathered, when no more can come: the next one does not fit, or may not be in the same
 *         batch (other shapes, other optional inputs);
 *     else all it gathered, when batches shall not be delayed;
 *     else nothing until the oldest has waited for the delay; from then on all, up to the largest batch.
 *
 * When PASSES_MAX executions in a row passed over lower priority levels, or delayed requests, the request
 * that has waited longest goes first: with n older ones waiting it runs after (n + 1) * (PASSES_MAX + 1)
 * executions at the latest. For a delayed request, n is the number of those that wait when its time-out
 * passes. Where a custom strategy puts requests back, those it puts back go first.
 */
#ifndef TIS_SCHED_BATCHER_H
#define TIS_SCHED_BATCHER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "sched/queue.h"
#include "sched/scheduler.h"

enum {
    PASSES_MAX = 15,
    BATCH_REQUESTS_MAX = 8192, /* in one execution */
};

struct batcher_options {
    const struct queue_policy *policies; /* one for each priority level, the highest first */
    uint32_t level_count;
    uint32_t level_default; /* from 0 */
    uint32_t requests_max;  /* in an execution: 1 for models that do not batch dynamically */
    uint32_t batch_size_max;
    const int32_t *preferred; /* sizes, positive, any order */
    size_t preferred_count;   /* 0: batch_size_max is the only one */
    uint64_t delay_ns;
    bool compares_inputs; /* requests of this model may be unlike (request_is_alike()) */
};

MUST_USE tis_error *batcher_create(const struct batcher_options *options,
                                   struct scheduler **ret_scheduler);

#endif
