/* base/slab.h - fixed-size objects that are recycled and never change type.
 *
 * Memory of a slab is returned to it, never to malloc, while the process runs: a stale pointer to a
 * freed object still points to an object of that type, whose state can be looked at. So a broken
 * plug-in that answers a request twice meets a state check instead of foreign memory.
 *
 * Each thread keeps a few free objects of its own; surplus and shortage go through the shared list
 * in batches, so an object may be freed on another thread than it was allocated on.
 *
 * Threads: any.
 */
#ifndef TIS_BASE_SLAB_H
#define TIS_BASE_SLAB_H

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"

enum {
    SLAB_KINDS_MAX = 8
};

/* Static description of one kind of object; all fields constant. */
struct slab {
    uint32_t kind; /* index, unique: 0 <= kind < SLAB_KINDS_MAX */
    uint32_t bytes;
};

/* An object; uninitialised memory the first time, the freed object's content afterwards (so that
 * a generation counter in it can go on). Aligned to 64. *ret_is_new says which. NULL when out of
 * memory. */
MUST_USE void *slab_alloc(const struct slab *s, int *ret_is_new);
void slab_free(const struct slab *s, void *object);

#endif
