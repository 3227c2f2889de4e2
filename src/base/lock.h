/* base/lock.h - mutexes with a rank.
 *
 * A thread may take a lock only while every lock it holds has a smaller rank, so no two threads
 * can wait for each other. Builds with TIS_DEBUG (those under a sanitizer) check this and abort with
 * both names; the enum is the whole lock order of the server (explained in docs/threads.md).
 */
#ifndef TIS_BASE_LOCK_H
#define TIS_BASE_LOCK_H

#include <pthread.h>
#include <stdint.h>

enum lock_rank {
    LOCK_REGISTRY = 1, /* model/registry: names, versions, states */
    LOCK_POOL,         /* base/pool: a pool's list of jobs */
    LOCK_BACKENDS,     /* exec/backend: opened plug-ins (held across dlopen and Initialize) */
    LOCK_VERSION,      /* exec/version: queue and idle instances */
    LOCK_LIMITER,      /* sched/limiter: resources and who waits for them */
    LOCK_ALARMS,       /* base/alarm: what is due when */
    LOCK_ORDER,        /* infer/order: answers that wait for their turn */
    LOCK_STATISTICS,   /* metrics: metrics and memory of plug-ins; api: counters of v1 */
    LOCK_LOOP,         /* net/acceptor: what is still open, for the drain */
    LOCK_TLS,          /* net/tls: which context new connections get */
    LOCK_SLAB,         /* base/slab, infer/buffer: free memory; leaf */
};

struct lock {
    pthread_mutex_t mutex;
    enum lock_rank rank;
};

void lock_init(struct lock *l, enum lock_rank rank);
void lock_fini(struct lock *l);
void lock_take(struct lock *l);
void lock_release(struct lock *l);

/* Condition variable on the monotonic clock. */
struct cond {
    pthread_cond_t cond;
};

void cond_init(struct cond *c);
void cond_fini(struct cond *c);
void cond_wait(struct cond *c, struct lock *l);
/* Returns when signalled or at deadline_ns (monotonic), whichever is first; the caller checks. */
void cond_wait_until(struct cond *c, struct lock *l, uint64_t deadline_ns);
void cond_signal(struct cond *c);
void cond_broadcast(struct cond *c);

#endif
