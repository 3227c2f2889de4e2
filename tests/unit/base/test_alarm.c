/* Alarms ring in the order of their times, not before them, and not after they were stopped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <semaphore.h>

#include "base/alarm.h"
#include "base/clock.h"
#include "base/lock.h"

enum {
    ALARMS = 50
};

#define DEADLINE_NS (20 * NS_PER_SEC)

/* Its own rank is free for the test: the alarm rings without a lock. */
static struct lock lock;
static struct cond rung;

struct test_alarm {
    struct alarm alarm;
    uint64_t due_ns;
    uint64_t rung_ns;
    uint32_t rings;
    uint32_t rings_more; /* it sets itself again */
};

static struct test_alarm alarms_of_test[ALARMS];
static uint64_t last_due_ns;

static void ring(struct alarm *a, uint64_t now_ns)
{
    struct test_alarm *t = CONTAINER_OF(a, struct test_alarm, alarm);
    lock_take(&lock);
    t->rings++;
    t->rung_ns = now_ns;
    last_due_ns = t->due_ns;
    bool again = t->rings_more > 0;
    t->rings_more -= again;
    cond_broadcast(&rung);
    lock_release(&lock);
    if (again)
        alarm_set(a, now_ns + 1);
}

static void wait_for(const uint32_t *rings, uint32_t count)
{
    lock_take(&lock);
    while (*rings < count) {
        assert_true(clock_ns() < last_due_ns + DEADLINE_NS);
        cond_wait_until(&rung, &lock, clock_ns() + NS_PER_SEC);
    }
    lock_release(&lock);
}

static void set(struct alarms *alarms, struct test_alarm *t, uint64_t due_ns)
{
    *t = (struct test_alarm){ .due_ns = due_ns };
    alarm_init(&t->alarm, alarms, ring);
    alarm_set(&t->alarm, due_ns);
}

static sem_t gate;

static void ring_gate(struct alarm *a, uint64_t now_ns)
{
    (void)a, (void)now_ns;
    while (sem_wait(&gate) != 0)
        continue;
}

static void test_order(void **state)
{
    struct alarms *alarms = *state;
    struct alarm first; /* nothing else rings until all are set */
    sem_init(&gate, 0, 0);
    alarm_init(&first, alarms, ring_gate);
    alarm_set(&first, 0);
    uint64_t start_ns = clock_ns() + 20 * NS_PER_MS;
    last_due_ns = start_ns;
    for (uint64_t i = 0; i < ALARMS; i++)
        set(alarms, &alarms_of_test[i], start_ns + (i * 7 % ALARMS) * (NS_PER_MS / 10));
    sem_post(&gate);
    alarm_stop(&first);
    for (uint32_t i = 0; i < ALARMS; i++) {
        wait_for(&alarms_of_test[i].rings, 1);
        alarm_stop(&alarms_of_test[i].alarm);
        assert_int_equal(alarms_of_test[i].rings, 1);
        assert_true(alarms_of_test[i].rung_ns >= alarms_of_test[i].due_ns);
    }
    assert_true(last_due_ns == start_ns + (ALARMS - 1) * (NS_PER_MS / 10));
}

static void test_set_again_and_stop(void **state)
{
    struct alarms *alarms = *state;
    struct test_alarm *t = &alarms_of_test[0];
    last_due_ns = clock_ns();
    set(alarms, t, clock_ns() + DEADLINE_NS * 10);
    alarm_set(&t->alarm, clock_ns()); /* instead of the far one */
    wait_for(&t->rings, 1);
    alarm_stop(&t->alarm);
    assert_int_equal(t->rings, 1);

    set(alarms, t, clock_ns() + DEADLINE_NS * 10);
    alarm_stop(&t->alarm);
    assert_int_equal(t->rings, 0);
    alarm_stop(&t->alarm); /* twice is fine */

    *t = (struct test_alarm){ .due_ns = clock_ns(), .rings_more = 1000 };
    alarm_init(&t->alarm, alarms, ring);
    alarm_set(&t->alarm, 0);
    wait_for(&t->rings, 5);
    alarm_stop(&t->alarm); /* while it rings and sets itself again */
    uint32_t rings = t->rings;
    set(alarms, &alarms_of_test[1], clock_ns());
    wait_for(&alarms_of_test[1].rings, 1);
    alarm_stop(&alarms_of_test[1].alarm);
    assert_int_equal(t->rings, rings);
}

static int create(void **state)
{
    struct alarms *alarms;
    lock_init(&lock, LOCK_SLAB);
    cond_init(&rung);
    assert_null(alarms_create(&alarms));
    *state = alarms;
    return 0;
}

static int destroy(void **state)
{
    alarms_destroy(*state);
    cond_fini(&rung);
    lock_fini(&lock);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order, create, destroy),
        cmocka_unit_test_setup_teardown(test_set_again_and_stop, create, destroy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
