/* Event loop: timers, messages, file descriptors. Where time matters the loop is driven by hand with
 * loop_run_once(); threads appear where threads are the point. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <assert.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/loop.h"

static struct loop *new_loop(void)
{
    struct loop *loop = NULL;
    assert_null(loop_create("test", &loop));
    return loop;
}

/* ---- timers ---- */

enum {
    TIMERS = 200
};

struct timed {
    struct loop_timer timer;
    uint64_t *last_deadline;
    int *fired;
};

static void timed_fire(struct loop_timer *t, uint64_t now)
{
    struct timed *timed = CONTAINER_OF(t, struct timed, timer);
    assert_true(now >= t->due.key);
    assert_true(t->due.key >= *timed->last_deadline);
    *timed->last_deadline = t->due.key;
    (*timed->fired)++;
}

/* Timers armed, moved and cancelled in a pseudo-random order fire in order of their deadlines, each
 * once, and the cancelled ones never. */
static void test_timers(void **state)
{
    (void)state;
    struct loop *loop = new_loop();
    struct timed timers[TIMERS] = { 0 };
    uint64_t last = 0, seed = 1;
    int fired = 0, expected = TIMERS;
    uint64_t base = clock_ns();
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < TIMERS; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            timers[i].timer.fire = timed_fire;
            timers[i].last_deadline = &last;
            timers[i].fired = &fired;
            loop_timer_arm(loop, &timers[i].timer, base + (seed >> 40));
        }
    }
    for (int i = 0; i < TIMERS; i += 3) {
        loop_timer_cancel(loop, &timers[i].timer);
        loop_timer_cancel(loop, &timers[i].timer); /* twice does no harm */
        expected--;
    }
    while (fired < expected && clock_ns() < base + 10 * NS_PER_SEC)
        loop_run_once(loop, NS_PER_SEC);
    assert_int_equal(fired, expected);
    loop_run_once(loop, 0);
    assert_int_equal(fired, expected);
    loop_destroy(loop);
}

struct rearming {
    struct loop_timer timer;
    struct loop *loop;
    int fired;
};

static void rearm_fire(struct loop_timer *t, uint64_t now)
{
    struct rearming *r = CONTAINER_OF(t, struct rearming, timer);
    if (++r->fired < 5)
        loop_timer_arm(r->loop, t, now + 100 * NS_PER_US);
}

/* A timer may arm itself again, and sub-millisecond deadlines are kept: five of 100 us take less
 * than five milliseconds more than they should (epoll_wait alone would round each up to one). */
static void test_timer_rearms(void **state)
{
    (void)state;
    struct rearming r = { .loop = new_loop(), .timer.fire = rearm_fire };
    loop_timer_arm(r.loop, &r.timer, clock_ns() + 100 * NS_PER_US);
    uint64_t deadline = clock_ns() + 10 * NS_PER_SEC;
    while (r.fired < 5 && clock_ns() < deadline)
        loop_run_once(r.loop, NS_PER_SEC);
    assert_int_equal(r.fired, 5);
    loop_destroy(r.loop);
}

/* ---- messages ---- */

enum {
    PRODUCERS = 3,
    MESSAGES = 20000
};

struct counted {
    struct loop_message message;
    struct producer *from;
    int number;
};

struct producer {
    struct loop *loop;
    pthread_t thread;
    int next; /* loop thread only */
    _Atomic int *seen;
    struct counted messages[MESSAGES];
};

static void counted_run(struct loop_message *m)
{
    struct counted *c = CONTAINER_OF(m, struct counted, message);
    assert(c->number == c->from->next);
    assert(loop_is_current(c->from->loop));
    c->from->next++;
    atomic_fetch_add(c->from->seen, 1);
}

static void *produce(void *arg)
{
    struct producer *p = arg;
    for (int i = 0; i < MESSAGES; i++) {
        p->messages[i].message.run = counted_run;
        p->messages[i].from = p;
        p->messages[i].number = i;
        loop_post(p->loop, &p->messages[i].message);
    }
    return NULL;
}

/* Several threads post at once; every message runs once, in its thread's order, and loop_stop()
 * returns only after all of them. */
static void test_messages(void **state)
{
    (void)state;
    struct loop *loop = new_loop();
    assert_null(loop_start(loop));
    _Atomic int seen = 0;
    struct producer *producers = test_calloc(PRODUCERS, sizeof(*producers));
    for (int i = 0; i < PRODUCERS; i++) {
        producers[i].loop = loop;
        producers[i].seen = &seen;
        assert_int_equal(pthread_create(&producers[i].thread, NULL, produce, &producers[i]), 0);
    }
    for (int i = 0; i < PRODUCERS; i++)
        pthread_join(producers[i].thread, NULL);
    loop_stop(loop);
    assert_int_equal(atomic_load(&seen), PRODUCERS * MESSAGES);
    loop_stop(loop); /* again does nothing */
    loop_destroy(loop);
    test_free(producers);
}

struct ping {
    struct loop_message message;
    struct loop *to;
    struct ping *other;
    int left;
    _Atomic bool done;
};

static void ping_run(struct loop_message *m)
{
    struct ping *p = CONTAINER_OF(m, struct ping, message);
    if (--p->left == 0) {
        atomic_store(&p->done, true);
        return;
    }
    loop_post(p->other->to, &p->other->message);
}

/* Two loops that both sleep between messages never miss a wake-up: a ball goes to and fro 20000
 * times. A lost wake-up would end in the deadline. */
static void test_no_lost_wakeup(void **state)
{
    (void)state;
    struct loop *a = new_loop(), *b = new_loop();
    struct ping pa = { .message.run = ping_run, .to = a, .left = 20000 };
    struct ping pb = { .message.run = ping_run, .to = b, .left = 20001, .other = &pa };
    pa.other = &pb;
    assert_null(loop_start(a));
    assert_null(loop_start(b));
    loop_post(a, &pa.message);
    uint64_t deadline = clock_ns() + 60 * NS_PER_SEC;
    while (!atomic_load(&pa.done) && clock_ns() < deadline)
        sched_yield();
    assert_true(atomic_load(&pa.done));
    loop_stop(a);
    loop_stop(b);
    loop_destroy(a);
    loop_destroy(b);
}

struct chained {
    struct loop_message message;
    struct loop *loop;
    int left;
};

static void chained_run(struct loop_message *m)
{
    struct chained *c = CONTAINER_OF(m, struct chained, message);
    if (--c->left)
        loop_post(c->loop, m);
}

/* A message may post itself from its own run(). */
static void test_message_posts_itself(void **state)
{
    (void)state;
    struct chained c = { .message.run = chained_run, .loop = new_loop(), .left = 3 };
    loop_post(c.loop, &c.message);
    for (int i = 0; i < 3; i++)
        loop_run_once(c.loop, 0);
    assert_int_equal(c.left, 0);
    loop_destroy(c.loop);
}

/* ---- file descriptors ---- */

struct watched {
    struct loop_watch watch;
    struct loop *loop;
    struct watched *victim; /* removed when this one is told */
    unsigned events;
    int told;
};

static void watched_ready(struct loop_watch *w, unsigned events)
{
    struct watched *self = CONTAINER_OF(w, struct watched, watch);
    self->told++;
    self->events |= events;
    if (self->victim)
        loop_watch_remove(self->loop, &self->victim->watch);
}

/* Two descriptors are ready in the same round and each removes the other: exactly one is told. */
static void test_remove_in_round(void **state)
{
    (void)state;
    struct loop *loop = new_loop();
    int a[2], b[2];
    assert_int_equal(pipe2(a, O_CLOEXEC), 0);
    assert_int_equal(pipe2(b, O_CLOEXEC), 0);
    struct watched wa = { .watch = { .fd = a[0], .ready = watched_ready }, .loop = loop };
    struct watched wb = { .watch = { .fd = b[0], .ready = watched_ready }, .loop = loop };
    wa.victim = &wb;
    wb.victim = &wa;
    assert_null(loop_watch_add(loop, &wa.watch, LOOP_READ));
    assert_null(loop_watch_add(loop, &wb.watch, LOOP_READ));
    assert_int_equal(write(a[1], "x", 1), 1);
    assert_int_equal(write(b[1], "x", 1), 1);
    loop_run_once(loop, NS_PER_SEC);
    assert_int_equal(wa.told + wb.told, 1);
    loop_watch_remove(loop, &wa.watch);
    loop_watch_remove(loop, &wb.watch);
    for (int i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
    }
    loop_destroy(loop);
}

/* Reading, writing, changing what is asked for; a peer that half-closes is READ, one that closes in
 * both directions is HANGUP even when nothing was asked for. */
static void test_events(void **state)
{
    (void)state;
    struct loop *loop = new_loop();
    int s[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
    struct watched w = { .watch = { .fd = s[0], .ready = watched_ready }, .loop = loop };
    assert_null(loop_watch_add(loop, &w.watch, LOOP_READ));
    loop_run_once(loop, 0);
    assert_int_equal(w.told, 0);

    loop_watch_change(loop, &w.watch, LOOP_WRITE);
    loop_run_once(loop, 0);
    assert_int_equal(w.events, LOOP_WRITE);

    w.events = 0;
    loop_watch_change(loop, &w.watch, LOOP_READ);
    shutdown(s[1], SHUT_WR);
    loop_run_once(loop, NS_PER_SEC);
    assert_int_equal(w.events, LOOP_READ);

    w.events = 0;
    loop_watch_change(loop, &w.watch, 0);
    loop_run_once(loop, 0);
    assert_int_equal(w.events, 0);
    close(s[1]);
    loop_run_once(loop, NS_PER_SEC);
    assert_int_equal(w.events, LOOP_HANGUP);

    loop_watch_remove(loop, &w.watch);
    loop_watch_remove(loop, &w.watch);
    assert_null(loop_watch_add(loop, &w.watch, LOOP_READ));
    loop_watch_remove(loop, &w.watch);
    close(s[0]);
    struct watched bad = { .watch = { .fd = s[0], .ready = watched_ready } };
    tis_error *err = loop_watch_add(loop, &bad.watch, LOOP_READ);
    assert_non_null(err);
    error_free(err);
    loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timers),
        cmocka_unit_test(test_timer_rearms),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_no_lost_wakeup),
        cmocka_unit_test(test_message_posts_itself),
        cmocka_unit_test(test_remove_in_round),
        cmocka_unit_test(test_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
