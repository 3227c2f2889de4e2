/* base/alarm.h - one thread that calls functions at points in time.
 *
 * For what must happen on time although nobody is awake for it: a batch's delay has passed, a request has
 * waited too long. Loops have timers of their own (net/loop.h).
 *
 * All alarms of a server share one thread, and while one rings the others wait. So ring() takes some
 * microseconds: it waits for nothing but locks that are held as shortly, makes no call that can block, and
 * posts what is long to a pool (base/pool.h). The one that takes longer is a queue's whose requests all time out
 * at once: about a microsecond each (exec/version.c).
 *
 * Ownership: an alarm is embedded by whoever is called; its memory must outlive alarm_stop().
 * Threads:   any. alarm_set() may be called under locks below LOCK_ALARMS, and in ring(). alarm_stop() waits
 *            for ring(), so under no lock that ring() takes. ring() runs on the alarms' thread, without a lock.
 */
#ifndef TIS_BASE_ALARM_H
#define TIS_BASE_ALARM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/heap.h"

struct alarms;

struct alarm {
    struct alarms *alarms;
    void (*ring)(struct alarm *a, uint64_t now_ns);
    /* under the alarms' lock */
    struct heap_node due;
    bool is_ringing;
};

MUST_USE tis_error *alarms_create(struct alarms **ret_alarms);
/* Every alarm must have been stopped. NULL is fine. */
void alarms_destroy(struct alarms *alarms);

void alarm_init(struct alarm *a, struct alarms *alarms, void (*ring)(struct alarm *, uint64_t));
/* ring() is called at due_ns (monotonic), or as soon as possible, once. Replaces an earlier setting. */
void alarm_set(struct alarm *a, uint64_t due_ns);
/* ring() is not called any more, and does not run, when this returns. Not inside ring(). */
void alarm_stop(struct alarm *a);

#endif
