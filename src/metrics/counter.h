/* metrics/counter.h - numbers that any thread adds to, without a lock.
 *
 * Relaxed: a reader may see two of them at slightly different moments, but who has an answer sees all
 * that was added before the answer was handed over.
 */
#ifndef TIS_METRICS_COUNTER_H
#define TIS_METRICS_COUNTER_H

#include <stdatomic.h>
#include <stdint.h>

static inline void counter_add(_Atomic uint64_t *c, uint64_t by)
{
    atomic_fetch_add_explicit(c, by, memory_order_relaxed);
}

static inline uint64_t counter_get(const _Atomic uint64_t *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

static inline void sum_add(_Atomic double *s, double by)
{
    double old = atomic_load_explicit(s, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(s, &old, old + by, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
}

static inline double sum_get(const _Atomic double *s)
{
    return atomic_load_explicit(s, memory_order_relaxed);
}

#endif
