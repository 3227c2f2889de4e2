#include "base/alarm.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/clock.h"
#include "base/lock.h"

enum {
    TIMER_SLACK_NS = 1000 /* the kernel's default, 50 us, would add to every delay */
};

struct alarms {
    struct lock lock;
    struct cond changed;
    struct heap due;
    bool ending;
    pthread_t thread;
};

/* Under the lock, which is free while the alarm rings. */
static void ring_first(struct alarms *alarms, uint64_t now_ns)
{
    struct alarm *a = HEAP_ENTRY(heap_first(&alarms->due), struct alarm, due);
    heap_remove(&alarms->due, &a->due);
    a->is_ringing = true;
    lock_release(&alarms->lock);
    a->ring(a, now_ns);
    lock_take(&alarms->lock);
    a->is_ringing = false;
    cond_broadcast(&alarms->changed);
}

static void *alarms_run(void *arg)
{
    struct alarms *alarms = arg;
    prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS);
    lock_take(&alarms->lock);
    while (!alarms->ending) {
        struct heap_node *first = heap_first(&alarms->due);
        uint64_t now_ns = clock_ns();
        if (!first)
            cond_wait(&alarms->changed, &alarms->lock);
        else if (first->key <= now_ns)
            ring_first(alarms, now_ns);
        else
            cond_wait_until(&alarms->changed, &alarms->lock, first->key);
    }
    lock_release(&alarms->lock);
    return NULL;
}

tis_error *alarms_create(struct alarms **ret_alarms)
{
    struct alarms *alarms = calloc(1, sizeof(*alarms));
    if (!alarms)
        return error_no_memory();
    lock_init(&alarms->lock, LOCK_ALARMS);
    cond_init(&alarms->changed);
    int rc = pthread_create(&alarms->thread, NULL, alarms_run, alarms);
    if (rc != 0) {
        cond_fini(&alarms->changed);
        lock_fini(&alarms->lock);
        free(alarms);
        return error_new(TRITONSERVER_ERROR_UNAVAILABLE, "cannot start the alarm thread: %s",
                         strerror(rc));
    }
    pthread_setname_np(alarms->thread, "alarm");
    *ret_alarms = alarms;
    return NULL;
}

void alarms_destroy(struct alarms *alarms)
{
    if (!alarms)
        return;
    assert(!heap_first(&alarms->due));
    lock_take(&alarms->lock);
    alarms->ending = true;
    cond_broadcast(&alarms->changed);
    lock_release(&alarms->lock);
    pthread_join(alarms->thread, NULL);
    cond_fini(&alarms->changed);
    lock_fini(&alarms->lock);
    free(alarms);
}

void alarm_init(struct alarm *a, struct alarms *alarms, void (*ring)(struct alarm *, uint64_t))
{
    *a = (struct alarm){ .alarms = alarms, .ring = ring };
}

void alarm_set(struct alarm *a, uint64_t due_ns)
{
    struct alarms *alarms = a->alarms;
    lock_take(&alarms->lock);
    heap_remove(&alarms->due, &a->due);
    a->due.key = due_ns;
    heap_insert(&alarms->due, &a->due);
    bool is_first = heap_first(&alarms->due) == &a->due;
    if (is_first)
        cond_broadcast(&alarms->changed);
    lock_release(&alarms->lock);
}

void alarm_stop(struct alarm *a)
{
    struct alarms *alarms = a->alarms;
    if (!alarms)
        return;
    lock_take(&alarms->lock);
    /* It may set itself again while it rings. */
    while (a->is_ringing || a->due.is_in_heap) {
        heap_remove(&alarms->due, &a->due);
        if (a->is_ringing)
            cond_wait(&alarms->changed, &alarms->lock);
    }
    lock_release(&alarms->lock);
}
