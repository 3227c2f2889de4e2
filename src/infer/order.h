/* infer/order.h - lets answers leave in the order in which their requests came.
 *
 * For models with preserve_ordering, whose instances finish batches in any order. A request takes its turn
 * when it is queued; an answer that comes before its turn waits here, and is handed over by the thread that
 * ends the turn before it.
 *
 * Ownership: belongs to a version; each sink with a turn holds a reference on that version.
 * Threads:   any. No lock is held while an answer is handed over; one thread does it at a time.
 */
#ifndef TIS_INFER_ORDER_H
#define TIS_INFER_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/lock.h"

struct sink;
struct tis_response;

struct order {
    struct lock lock;
    struct list turns; /* the next first */
    bool delivering;
};

/* A sink's place in it; zero: it has none. */
struct turn {
    struct order *order;
    /* under the order's lock */
    struct list link;
    struct tis_response *first; /* that wait, by their `next` */
    struct tis_response **end;
    bool ends_empty; /* after them the end without a response */
};

void order_init(struct order *o);
void order_fini(struct order *o);

/* The sink's answers shall come after those of all that joined before. */
void order_join(struct order *o, struct sink *sink);
/* It will have no answer. */
void order_leave(struct sink *sink);
/* Hands a response (or NULL, the end without one) over when it is the sink's turn; the sink is told by
 * sink_deliver(). */
void order_deliver(struct sink *sink, struct tis_response *response, uint32_t flags);

#endif
