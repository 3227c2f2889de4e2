/* sched/queue.h - waiting requests in the order in which they shall run.
 *
 * The order is that of the lists
 *
 *     first            requests that go before all others: put back, or promoted
 *     level 1 fresh    highest priority, in the order of arrival
 *     level 1 delayed  those of level 1 whose time-out passed (time-out action DELAY)
 *     level 2 fresh    ...
 *
 * so finding the first, the next, adding and removing take the same time for any number of waiting
 * requests and of levels; only a time-out costs log2 of those waiting with one.
 *
 * Ownership: the queue holds what was put and neither removed nor expired.
 * Threads:   one at a time.
 */
#ifndef TIS_SCHED_QUEUE_H
#define TIS_SCHED_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/error.h"
#include "base/heap.h"
#include "base/list.h"
#include "config/config.h"
#include "infer/request.h"

enum {
    QUEUE_LEVELS_MAX = CONFIG_PRIORITY_LEVELS_MAX,
    QUEUE_LISTS_MAX = 1 + 2 * QUEUE_LEVELS_MAX,
};

enum timeout_action {
    TIMEOUT_REJECT, /* the request is refused */
    TIMEOUT_DELAY,  /* it runs after the fresh ones of its level */
};

/* What holds for the requests of one priority level. */
struct queue_policy {
    enum timeout_action action;
    uint64_t timeout_ns;   /* 0: none */
    bool timeout_override; /* a request may bring a shorter time-out of its own */
    uint32_t requests_max; /* that wait at this level; 0: any number */
};

/* Waiting requests of one list; a level has two. */
struct queue_level {
    struct queue_policy policy;
    uint32_t waiting;
};

struct queue {
    /* set at creation, then constant */
    uint32_t level_count;
    uint32_t level_default; /* from 0: of requests that name none, or one that does not exist */
    /* under the owner's lock */
    struct queue_level *levels;
    struct list *lists;
    uint64_t filled[QUEUE_LISTS_MAX / 64 + 1]; /* bit i: lists[i] is not empty */
    struct heap deadlines;
    uint32_t waiting;
};

/* level_count policies, at least one, the highest priority first. */
MUST_USE tis_error *queue_init(struct queue *q, const struct queue_policy *policies,
                               uint32_t level_count, uint32_t level_default);
/* Must be empty; half-initialised is fine. */
void queue_fini(struct queue *q);

/* Takes *req as the last of its priority level and sets it NULL. On error the caller keeps it.
 * Errors: UNAVAILABLE (QUEUE_FULL)  as many as may wait at that level */
MUST_USE tis_error *queue_put(struct queue *q, struct tis_request **req, uint64_t now_ns);
/* A request that was removed goes before all others, with the time-out that it had. */
void queue_put_first(struct queue *q, struct tis_request *req);
/* The one that has waited longest goes before all others. */
void queue_promote_oldest(struct queue *q);
void queue_remove(struct queue *q, struct tis_request *req);

/* In the order to run; NULL at the end. */
struct tis_request *queue_first(const struct queue *q);
struct tis_request *queue_next(const struct queue *q, const struct tis_request *req);
/* Does anything wait in a list after list `list`? */
bool queue_has_behind(const struct queue *q, uint32_t list);
/* Is `a`, the last that was put, before `b` in the order? */
bool queue_is_before(const struct tis_request *a, const struct tis_request *b);

/* The earliest time-out; UINT64_MAX: none. */
uint64_t queue_expiry_ns(const struct queue *q);
/* Acts on time-outs up to now_ns: gives up to `max` requests to refuse, delays others.
 * *ret_is_changed: the order is not what it was. */
uint32_t queue_expire(struct queue *q, uint64_t now_ns, struct tis_request **ret_requests,
                      uint32_t max, bool *ret_is_changed);

#endif
