/* sched/scheduler.h - which request runs next: policy only.
 *
 * A scheduler holds the waiting requests of one model version and decides which of them an idle
 * instance runs. It starts no thread, reads no clock and takes no lock: exec/version calls it under
 * its own lock and passes the time, so a test can play an hour of traffic in a millisecond.
 *
 * Ownership: a request is in exactly one place. put() takes it (state QUEUED), take() and cancel()
 *            give it back.
 * Threads:   one at a time, by the caller's lock.
 */
#ifndef TIS_SCHED_SCHEDULER_H
#define TIS_SCHED_SCHEDULER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "infer/request.h"

struct scheduler;

struct scheduler_ops {
    /* Takes *req and sets it NULL; on error the caller keeps it. Errors: UNAVAILABLE after close. */
    tis_error *(*put)(struct scheduler *s, struct tis_request **req, uint64_t now_ns);
    /* Gives up to `max` requests that one execution of instance `instance` shall run now; 0 when
     * there is nothing for it. */
    uint32_t (*take)(struct scheduler *s, uint32_t instance, struct tis_request **ret_requests,
                     uint32_t max, uint64_t now_ns);
    /* Gives a waiting request back; false when it does not wait here. */
    bool (*cancel)(struct scheduler *s, struct tis_request *req);
    /* No further put; what waits is still given out. */
    void (*close)(struct scheduler *s);
    void (*destroy)(struct scheduler *s);
};

struct scheduler {
    const struct scheduler_ops *ops;
    uint32_t waiting; /* requests held */
};

/* First in, first out, one request an execution: the default. */
MUST_USE tis_error *fifo_create(struct scheduler **ret_scheduler);

#endif
