#include "base/heap.h"

#include <assert.h>
#include <stddef.h>

/* The tree is complete: node n (from 1, level by level) has the children 2n and 2n + 1, so the bits
 * of n below its highest one are the way from the root: 0 left, 1 right. */
static struct heap_node **slot_of(struct heap *h, uint32_t n, struct heap_node **ret_parent)
{
    struct heap_node **slot = &h->root;
    *ret_parent = NULL;
    for (int bit = 31 - __builtin_clz(n); bit > 0; bit--) {
        *ret_parent = *slot;
        slot = &(*slot)->child[n >> (bit - 1) & 1];
    }
    return slot;
}

/* Lets what pointed to `from` as its child point to `to`. */
static void replace_child(struct heap *h, struct heap_node *parent, const struct heap_node *from,
                          struct heap_node *to)
{
    if (!parent)
        h->root = to;
    else
        parent->child[parent->child[1] == from] = to;
}

static void adopt_children(struct heap_node *node)
{
    for (int side = 0; side < 2; side++) {
        if (node->child[side])
            node->child[side]->parent = node;
    }
}

/* A child and its parent change places. */
static void swap_with_parent(struct heap *h, struct heap_node *node)
{
    struct heap_node *parent = node->parent;
    int side = parent->child[1] == node;
    struct heap_node *sibling = parent->child[!side];

    replace_child(h, parent->parent, parent, node);
    node->parent = parent->parent;
    parent->child[0] = node->child[0];
    parent->child[1] = node->child[1];
    node->child[side] = parent;
    node->child[!side] = sibling;
    adopt_children(parent);
    adopt_children(node);
}

static void sift_up(struct heap *h, struct heap_node *node)
{
    while (node->parent && node->key < node->parent->key)
        swap_with_parent(h, node);
}

static void sift_down(struct heap *h, struct heap_node *node)
{
    for (;;) {
        struct heap_node *least = node->child[0];
        if (least && node->child[1] && node->child[1]->key < least->key)
            least = node->child[1];
        if (!least || least->key >= node->key)
            return;
        swap_with_parent(h, least);
    }
}

void heap_insert(struct heap *h, struct heap_node *node)
{
    struct heap_node *parent;
    assert(!node->is_in_heap);
    node->is_in_heap = true;
    node->child[0] = node->child[1] = NULL;
    *slot_of(h, ++h->count, &parent) = node;
    node->parent = parent;
    sift_up(h, node);
}

void heap_remove(struct heap *h, struct heap_node *node)
{
    struct heap_node *parent;
    if (!node->is_in_heap)
        return;
    node->is_in_heap = false;

    struct heap_node **slot = slot_of(h, h->count--, &parent);
    struct heap_node *last = *slot;
    *slot = NULL;
    if (last == node)
        return;
    last->parent = node->parent;
    last->child[0] = node->child[0];
    last->child[1] = node->child[1];
    replace_child(h, node->parent, node, last);
    adopt_children(last);
    sift_down(h, last);
    sift_up(h, last);
}
