/* exec/resources.h - runners and the rate limiter (for exec/version and exec/runner only).
 *
 * With a limiter a runner takes a batch only while its instance holds its resources (sched/limiter.h). It asks
 * when a batch is ready, its own thread after the last execution, or whoever finds it in the version's idle
 * list. Refused, it waits in the limiter instead of that list, asleep on its park as before; whoever
 * gives back what it needs wakes it.
 *
 *     in v->idle                   waits for a batch
 *     r->waits                     waits for resources, or was granted them and is being woken
 *
 * Threads: all but resources_wake() under the version's lock. v->limiter is not NULL.
 */
#ifndef TIS_EXEC_RESOURCES_H
#define TIS_EXEC_RESOURCES_H

#include <stdbool.h>

#include "exec/runner.h"

/* Gives back what r's last execution held and, when a batch is ready, asks for the next one. True: r holds
 * what it needs. False: it has nothing, and waits for it when r->waits says so. Its thread. */
bool resources_get(struct tis_runner *r);
/* r has taken a batch. When nothing is left in the queue, no other runner of the version waits any more. */
void resources_use(struct tis_runner *r);
/* There was nothing to take, or it may not. r may also hold nothing; it does not wait. */
void resources_give_back(struct tis_runner *r);

/* Makes the first of v->idle one that holds its resources; those that are refused leave it and wait. NULL:
 * none is left. */
struct tis_runner *resources_find_idle(struct tis_version *v);
/* If r waits for resources, it is idle again, asleep as before. `granted`: as of limiter_step(). */
void resources_recall(struct tis_runner *r, struct list *granted);

/* Wakes those that a step has granted. Not under a lock. */
void resources_wake(struct list *granted);

#endif
