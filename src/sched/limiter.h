/* sched/limiter.h - which instances may run at the same time, over all models.
 *
 * An instance may need resources: so many of a pool with a name, which is of one device or of the whole
 * server. It gets all that it needs at once, for one execution, or none and waits, so no two can wait for
 * each other. When resources come free, those that wait get theirs in the order of their turns:
 *
 *     An instance that runs has its turn moved by its priority, so one of priority n has 1/n of the turns
 *     of one of priority 1. Turns count where instances meet: nobody is further from the last turn of a pool
 *     it needs than its own priority. Who was idle has not saved up turns, who ran alone has not
 *     used any up.
 *
 *     One that needs more than is free is passed over by those behind it. An instance has `rivals`: for
 *     each pool it needs, the others that need it. Once rivals were granted (priority + 1) * rivals times
 *     while it waited, which is about twice what their turns allow, what it needs is kept for
 *     it: nobody behind it takes any, so it runs when those that run at that moment have ended, after
 *     those whose resources were kept before. So the wait is bounded for any needs and priorities.
 *
 * An instance without resources never waits; the priority then only says which idle instance of a
 * version is the first to run (limiter_is_before()).
 *
 * A limiter is passive: it starts no thread, reads no clock and wakes nobody, it says who is to be woken.
 *
 * Ownership: members are embedded by whoever runs them, and are in the limiter from join to leave.
 * Threads:   any; l->lock is a leaf. One thread at a time speaks for one member.
 */
#ifndef TIS_SCHED_LIMITER_H
#define TIS_SCHED_LIMITER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/list.h"
#include "config/config.h"

struct limiter;

#define LIMITER_EVERY_DEVICE (-1)

/* So many of a resource there are, on a device or on every one; of a global resource: in all. */
struct limiter_amount {
    const char *name;
    uint32_t count;
    int32_t device;
};

enum limiter_state {
    LIMITER_OUT, /* not joined */
    LIMITER_IDLE,
    LIMITER_WAITS,
    LIMITER_IS_KEPT_FOR, /* waits, and what it needs is kept for it */
    LIMITER_HOLDS,
};

/* An instance. Zero before it joins. */
struct limiter_member {
    /* set by limiter_join(), then constant */
    struct limiter_need *needs;
    uint32_t need_count;
    uint32_t priority; /* 1: the most turns */
    /* whoever speaks for it, while it holds */
    bool has_run; /* it has used what it holds: set it, the limiter clears it */
    /* under the limiter's lock */
    enum limiter_state state;
    uint64_t turn;
    uint64_t passes;    /* grants of rivals while it waits */
    struct list link;   /* waits; or in the list of those to be woken */
    struct list joined; /* in the limiter */
};

/* amounts: borrowed for the call. None: there is as much of each resource as the member that needs most
 * of it needs. Some: there is nothing of what is not among them. */
MUST_USE tis_error *limiter_create(const struct limiter_amount *amounts, size_t count,
                                   struct limiter **ret_limiter);
/* Every member has left. NULL is fine. */
void limiter_destroy(struct limiter *l);

/* m, on a device, is going to need what `config` (valid; NULL: nothing) says. Errors: INVALID_ARG, there is less
 * of a resource, or it is global for one member and of a device for another; UNAVAILABLE, no memory. */
MUST_USE tis_error *limiter_join(struct limiter *l, struct limiter_member *m,
                                 const Inference__ModelRateLimiter *config, int32_t device);
/* It must not wait or hold. One that has not joined is fine. */
void limiter_leave(struct limiter *l, struct limiter_member *m);

/* One step: `done` gives back what it holds, if it does, and `next` asks for what it needs; NULL: nobody.
 * They may be the same: then it asks in the moment in which others are chosen too. True: `next` holds. False:
 * it waits, and will be granted by a step of another. Appends to `granted` those, other than
 * next, that were granted because something came free: wake them. NULL is fine when done is NULL. */
bool limiter_step(struct limiter *l, struct limiter_member *done, struct limiter_member *next,
                  struct list *granted);
/* m no longer waits: true. It did not, or was granted by now: false. `granted` as above. */
bool limiter_withdraw(struct limiter *l, struct limiter_member *m, struct list *granted);

/* Of two idle members whose steps the caller keeps off: does `a` have its turn before `b`? */
bool limiter_is_before(const struct limiter_member *a, const struct limiter_member *b);

#endif
