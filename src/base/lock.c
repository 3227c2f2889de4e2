#include "base/lock.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"

#ifdef TIS_DEBUG

enum {
    HELD_MAX = 16
};
static _Thread_local const struct lock *held[HELD_MAX];
static _Thread_local unsigned held_count;

static const char *const names[] = {
    [LOCK_REGISTRY] = "registry", [LOCK_POOL] = "pool",       [LOCK_BACKENDS] = "backends",
    [LOCK_VERSION] = "version",   [LOCK_LIMITER] = "limiter", [LOCK_TLS] = "tls",
    [LOCK_ALARMS] = "alarms",     [LOCK_ORDER] = "order",     [LOCK_STATISTICS] = "statistics",
    [LOCK_LOOP] = "loop",         [LOCK_SLAB] = "slab",
};

static void rank_check(const struct lock *l)
{
    if (held_count && held[held_count - 1]->rank >= l->rank) {
        fprintf(stderr, "lock order: '%s' taken while '%s' is held\n", names[l->rank],
                names[held[held_count - 1]->rank]);
        abort();
    }
}

static void rank_push(const struct lock *l)
{
    assert(held_count < HELD_MAX);
    held[held_count++] = l;
}

static void rank_pop(const struct lock *l)
{
    unsigned i = held_count;
    while (i > 0 && held[i - 1] != l)
        i--;
    assert(i > 0);
    for (; i < held_count; i++)
        held[i - 1] = held[i];
    held_count--;
}

#else

static void rank_check(const struct lock *l)
{
    (void)l;
}
static void rank_push(const struct lock *l)
{
    (void)l;
}
static void rank_pop(const struct lock *l)
{
    (void)l;
}

#endif

/* A pthread call that fails here is a bug of ours, never a condition to handle. */
static void must(int rc)
{
    if (rc != 0) {
        fprintf(stderr, "pthread call failed: %d\n", rc);
        abort();
    }
}

void lock_init(struct lock *l, enum lock_rank rank)
{
    l->rank = rank;
    /* Critical sections are shorter than putting a thread to sleep: spin a little first. */
    pthread_mutexattr_t attr;
    must(pthread_mutexattr_init(&attr));
    must(pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP));
    must(pthread_mutex_init(&l->mutex, &attr));
    pthread_mutexattr_destroy(&attr);
}

void lock_fini(struct lock *l)
{
    must(pthread_mutex_destroy(&l->mutex));
}

void lock_take(struct lock *l)
{
    rank_check(l);
    must(pthread_mutex_lock(&l->mutex));
    rank_push(l);
}

void lock_release(struct lock *l)
{
    rank_pop(l);
    must(pthread_mutex_unlock(&l->mutex));
}

void cond_init(struct cond *c)
{
    pthread_condattr_t attr;
    must(pthread_condattr_init(&attr));
    must(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC));
    must(pthread_cond_init(&c->cond, &attr));
    pthread_condattr_destroy(&attr);
}

void cond_fini(struct cond *c)
{
    must(pthread_cond_destroy(&c->cond));
}

void cond_wait(struct cond *c, struct lock *l)
{
    must(pthread_cond_wait(&c->cond, &l->mutex));
}

void cond_wait_until(struct cond *c, struct lock *l, uint64_t deadline_ns)
{
    struct timespec ts = {
        .tv_sec = (time_t)(deadline_ns / NS_PER_SEC),
        .tv_nsec = (long)(deadline_ns % NS_PER_SEC),
    };
    pthread_cond_timedwait(&c->cond, &l->mutex, &ts);
}

void cond_signal(struct cond *c)
{
    must(pthread_cond_signal(&c->cond));
}

void cond_broadcast(struct cond *c)
{
    must(pthread_cond_broadcast(&c->cond));
}
