/* base/list.h - intrusive doubly linked list with a sentinel.
 *
 * An element embeds a `struct list`; the list's head is one too. A removed element points to
 * itself, so removing twice does no harm and list_is_linked() answers whether it waits somewhere.
 */
#ifndef TIS_BASE_LIST_H
#define TIS_BASE_LIST_H

#include <stdbool.h>

#include "base/attr.h"

struct list {
    struct list *prev;
    struct list *next;
};

static inline void list_init(struct list *l)
{
    l->prev = l->next = l;
}

static inline bool list_is_empty(const struct list *l)
{
    return l->next == l;
}

static inline bool list_is_linked(const struct list *l)
{
    return l->next != l;
}

static inline void list_append(struct list *head, struct list *item)
{
    item->prev = head->prev;
    item->next = head;
    head->prev->next = item;
    head->prev = item;
}

static inline void list_remove(struct list *item)
{
    item->prev->next = item->next;
    item->next->prev = item->prev;
    list_init(item);
}

/* First element, unlinked; NULL when empty. */
static inline struct list *list_pop(struct list *head)
{
    struct list *item = head->next;
    if (item == head)
        return NULL;
    list_remove(item);
    return item;
}

#define LIST_ENTRY(ptr, type, member) CONTAINER_OF(ptr, type, member)
#define LIST_FOREACH(it, head) for (struct list *it = (head)->next; it != (head); it = it->next)

#endif
