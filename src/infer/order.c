#include "infer/order.h"

#include <assert.h>

#include "infer/response.h"
#include "infer/sink.h"

void order_init(struct order *o)
{
    lock_init(&o->lock, LOCK_ORDER);
    list_init(&o->turns);
    o->delivering = false;
}

void order_fini(struct order *o)
{
    assert(list_is_empty(&o->turns));
    lock_fini(&o->lock);
}

void order_join(struct order *o, struct sink *sink)
{
    struct turn *t = &sink->turn;
    *t = (struct turn){ .order = o };
    t->end = &t->first;
    lock_take(&o->lock);
    list_append(&o->turns, &t->link);
    lock_release(&o->lock);
}

void order_leave(struct sink *sink)
{
    struct order *o = sink->turn.order;
    lock_take(&o->lock);
    list_remove(&sink->turn.link);
    lock_release(&o->lock);
    sink->turn.order = NULL;
}

static void put(struct turn *t, struct tis_response *response, uint32_t flags)
{
    if (!response) {
        t->ends_empty = true;
        return;
    }
    response->flags = flags;
    response->next = NULL;
    *t->end = response;
    t->end = &response->next;
}

/* The next answer of the one whose turn it is; false when it has none yet. A turn ends with its final
 * answer. */
static bool take(struct order *o, struct sink **ret_sink, struct tis_response **ret_response,
                 uint32_t *ret_flags)
{
    if (list_is_empty(&o->turns))
        return false;
    struct turn *t = LIST_ENTRY(o->turns.next, struct turn, link);
    struct tis_response *response = t->first;
    if (!response && !t->ends_empty)
        return false;

    *ret_sink = CONTAINER_OF(t, struct sink, turn);
    *ret_response = response;
    *ret_flags = response ? response->flags : (uint32_t)TRITONSERVER_RESPONSE_COMPLETE_FINAL;
    if (response) {
        t->first = response->next;
        if (!t->first)
            t->end = &t->first;
    }
    if (*ret_flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        list_remove(&t->link);
    return true;
}

void order_deliver(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    struct order *o = sink->turn.order;
    lock_take(&o->lock);
    put(&sink->turn, response, flags);
    /* Whoever delivers finds what was put meanwhile. */
    bool delivers = !o->delivering;
    o->delivering = true;
    while (delivers && take(o, &sink, &response, &flags)) {
        lock_release(&o->lock);
        sink_deliver(sink, response, flags);
        lock_take(&o->lock);
    }
    if (delivers)
        o->delivering = false;
    lock_release(&o->lock);
}
