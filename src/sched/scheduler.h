/* sched/scheduler.h - which requests run next: policy only.
 *
 * A scheduler holds the waiting requests of one model version and decides which of them an idle
 * instance runs together. It starts no thread, reads no clock and takes no lock: exec/version calls
 * it under its own lock and passes the time, so a test can play an hour of traffic in a millisecond.
 *
 * Ownership: a request is in exactly one place. put() and put_back() take it (state QUEUED); take(),
 *            cancel() and expire() give it back.
 * Threads:   one at a time, by the caller's lock.
 */
#ifndef TIS_SCHED_SCHEDULER_H
#define TIS_SCHED_SCHEDULER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "config/config.h"
#include "infer/request.h"

#define SCHEDULER_NEVER UINT64_MAX

struct scheduler;

struct scheduler_ops {
    /* Takes *req, which begins to wait now, and sets it NULL; on error the caller keeps it. Errors:
     * UNAVAILABLE when as many wait as may (reason QUEUE_FULL). */
    tis_error *(*put)(struct scheduler *s, struct tis_request **req, uint64_t now_ns);
    /* Gives the requests, up to `max`, that one execution of instance `instance` shall run now, in
     * their order; 0 when there is nothing for it yet. */
    uint32_t (*take)(struct scheduler *s, uint32_t instance, struct tis_request **ret_requests,
                     uint32_t max, uint64_t now_ns);
    /* When will take() have something if nothing else happens? At or before now_ns: at once.
     * SCHEDULER_NEVER: nothing waits. */
    uint64_t (*ready_ns)(struct scheduler *s, uint64_t now_ns);
    /* Requests that were taken and not run wait again, first of all, in the order of the array. They
     * keep the time when they began to wait. */
    void (*put_back)(struct scheduler *s, struct tis_request *const *requests, uint32_t count);
    /* Gives a waiting request back; false when it does not wait here. */
    bool (*cancel)(struct scheduler *s, struct tis_request *req);
    /* To be called at s->expiry_ns: gives up to `max` of the requests whose time to wait is over and
     * that shall be refused. When it gives `max`, there may be more. */
    uint32_t (*expire)(struct scheduler *s, uint64_t now_ns, struct tis_request **ret_requests,
                       uint32_t max);
    /* The server ends: few requests will still come, so batches are not delayed for them any more. */
    void (*hurry)(struct scheduler *s);
    /* Nothing waits. */
    void (*destroy)(struct scheduler *s);
};

struct scheduler {
    const struct scheduler_ops *ops;
    uint32_t waiting;      /* requests held */
    uint32_t requests_max; /* that one take() may give */
    uint64_t expiry_ns;    /* the earliest time-out of what waits; SCHEDULER_NEVER: none */
};

/* The scheduler that a configuration asks for. */
MUST_USE tis_error *scheduler_create(const struct model_config *config,
                                     struct scheduler **ret_scheduler);

#endif
