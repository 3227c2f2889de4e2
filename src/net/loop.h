/* net/loop.h - one thread that waits for sockets, timers and messages.
 *
 * A loop runs callbacks; none of them may block. Everything that belongs to a connection happens on
 * its loop's thread, so connections need no lock. Other threads reach a loop only by posting a
 * message to its mailbox; the loop is woken by a system call only when it sleeps.
 *
 * Threads: loop_post() and loop_stop(): any. Everything else: the loop's own thread, or before
 *          loop_start().
 */
#ifndef TIS_NET_LOOP_H
#define TIS_NET_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/error.h"
#include "base/heap.h"

struct loop;

/* What a file descriptor's callback is told; a set of these is also what one asks for. Events are
 * told again as long as their cause lasts (level-triggered). */
enum loop_events {
    LOOP_READ = 1 << 0, /* bytes, or the end of the peer's stream, can be read */
    LOOP_WRITE = 1 << 1,
    LOOP_HANGUP = 1 << 2,    /* reset, or closed in both directions; told without being asked for. A
                           * half-closing peer is only LOOP_READ and a recv() of 0, so that whoever
                           * goes on writing to it is not told again and again. */
    LOOP_EXCLUSIVE = 1 << 3, /* a listener shared by several loops: wake one. Cannot be changed,
                              * only removed and added again. */
};

/* Embedded by whoever watches a file descriptor. The descriptor stays the embedder's. */
struct loop_watch {
    int fd;
    void (*ready)(struct loop_watch *w, unsigned events);
    /* loop's */
    unsigned events;
    bool added;
};

/* Embedded. Fires once, at or after its deadline. */
struct loop_timer {
    void (*fire)(struct loop_timer *t, uint64_t now_ns);
    /* loop's */
    struct heap_node due;
};

/* Embedded; runs once on the loop's thread. Not posted again before it ran. */
struct loop_message {
    void (*run)(struct loop_message *m);
    /* loop's */
    struct loop_message *next;
};

/* name: the thread's, at most 15 bytes of it are kept. */
MUST_USE tis_error *loop_create(const char *name, struct loop **ret_loop);
/* The loop must have been stopped and joined, or never started. */
void loop_destroy(struct loop *loop);

/* Starts the thread, with every signal blocked. Once per loop. */
MUST_USE tis_error *loop_start(struct loop *loop);
/* Asks the thread to end after the messages posted so far, and waits for it. Does nothing when the
 * loop was never started or has been stopped. */
void loop_stop(struct loop *loop);
/* One round on the calling thread, for tests that drive a loop themselves (never started with
 * loop_start()): waits at most timeout_ns, runs what is due. */
void loop_run_once(struct loop *loop, uint64_t timeout_ns);

bool loop_is_current(const struct loop *loop);
/* The loop whose thread this is, or NULL. */
struct loop *loop_current(void);

MUST_USE tis_error *loop_watch_add(struct loop *loop, struct loop_watch *w, unsigned events);
void loop_watch_change(struct loop *loop, struct loop_watch *w, unsigned events);
/* No callback comes after this returns, not even one already collected. */
void loop_watch_remove(struct loop *loop, struct loop_watch *w);

/* (Re-)arms the timer for deadline_ns (monotonic). */
void loop_timer_arm(struct loop *loop, struct loop_timer *t, uint64_t deadline_ns);
void loop_timer_cancel(struct loop *loop, struct loop_timer *t);
static inline bool loop_timer_is_armed(const struct loop_timer *t)
{
    return t->due.is_in_heap;
}
/* When it fires; UINT64_MAX when it is not armed. */
static inline uint64_t loop_timer_deadline_ns(const struct loop_timer *t)
{
    return t->due.is_in_heap ? t->due.key : UINT64_MAX;
}

/* Threads: any. Messages of one thread run in order. */
void loop_post(struct loop *loop, struct loop_message *m);

/* The time when this round of callbacks began (monotonic); saves a clock call. */
uint64_t loop_now_ns(const struct loop *loop);

#endif
