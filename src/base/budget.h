/* base/budget.h - one bound on what all clients together can make the server hold.
 *
 * Request bodies, queued requests and replies are counted in bytes while they live.
 *
 * Threads: any; lock free.
 */
#ifndef TIS_BASE_BUDGET_H
#define TIS_BASE_BUDGET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/attr.h"

struct budget {
    size_t bytes_max; /* constant */
    _Atomic size_t bytes;
};

static inline void budget_init(struct budget *b, size_t bytes_max)
{
    b->bytes_max = bytes_max;
    atomic_init(&b->bytes, 0);
}

/* Takes `bytes`, or nothing when that would pass the limit. A request larger than the whole
 * budget is let through alone, so that a small budget delays but never blocks for ever. */
MUST_USE static inline bool budget_take(struct budget *b, size_t bytes)
{
    size_t used = atomic_load_explicit(&b->bytes, memory_order_relaxed);
    do {
        if (used != 0 && (bytes > b->bytes_max || used > b->bytes_max - bytes))
            return false;
    } while (!atomic_compare_exchange_weak(&b->bytes, &used, used + bytes));
    return true;
}

/* Takes `bytes` that exist already and cannot be refused (a reply). */
static inline void budget_force(struct budget *b, size_t bytes)
{
    atomic_fetch_add_explicit(&b->bytes, bytes, memory_order_relaxed);
}

static inline void budget_give(struct budget *b, size_t bytes)
{
    atomic_fetch_sub_explicit(&b->bytes, bytes, memory_order_relaxed);
}

#endif
