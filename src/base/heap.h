/* base/heap.h - intrusive binary min-heap: which of many things is due first.
 *
 * An element embeds a `struct heap_node`. Nothing is allocated, so inserting cannot fail; insert and
 * remove take at most log2(count) steps whatever the order of the keys.
 *
 * Threads: one at a time.
 */
#ifndef TIS_BASE_HEAP_H
#define TIS_BASE_HEAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"

struct heap_node {
    uint64_t key; /* smallest first; constant while the node is in a heap */
    /* heap's */
    struct heap_node *parent;
    struct heap_node *child[2];
    bool is_in_heap;
};

struct heap {
    struct heap_node *root;
    uint32_t count;
};

/* node must not be in a heap; node->key is set. */
void heap_insert(struct heap *h, struct heap_node *node);
/* Does nothing when node is in no heap. */
void heap_remove(struct heap *h, struct heap_node *node);

/* The smallest; NULL when empty. */
static inline struct heap_node *heap_first(const struct heap *h)
{
    return h->root;
}

#define HEAP_ENTRY(ptr, type, member) CONTAINER_OF(ptr, type, member)

#endif
