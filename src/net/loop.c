/* net/loop.c
 *
 * One round: sleep in epoll, run the file descriptors that are ready, the timers that are due, then
 * the messages.
 *
 * Sleeping and waking. The mailbox is a stack that producers push onto with compare-and-swap and
 * the loop takes as a whole, so there is no ABA problem; the loop reverses what it took, which
 * restores each producer's order. A producer must wake the loop only when it sleeps, and a message
 * must never lie unseen in front of a sleeping loop:
 *
 *     loop                                producer
 *     sleeping = 1                        push the message
 *     is the mailbox empty?               was sleeping = 1? then set it to 0 and write the eventfd
 *     yes: epoll_wait                     
 *
 * Both sides write first and then read what the other wrote, all sequentially consistent, so at
 * least one of them sees the other. The eventfd is edge-triggered: each write is one event, and
 * nobody ever has to read it.
 */
#include "net/loop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/clock.h"

enum {
    EVENTS_MAX = 128,
    NAME_BYTES = 16
};

struct loop {
    /* set by loop_create(), then constant */
    int epoll_fd;
    int wake_fd;
    char name[NAME_BYTES];
    pthread_t thread;
    bool started;
    struct loop_message stop_message;

    /* loop thread only */
    bool stopping;
    bool has_pwait2;
    uint64_t now_ns;
    struct epoll_event events[EVENTS_MAX]; /* of this round; data.ptr NULL: removed meanwhile */
    int event_index;
    int event_count;
    struct heap timers;

    /* atomic; on a cache line of its own, producers write here */
    _Alignas(64) _Atomic(struct loop_message *) mailbox;
    _Atomic int sleeping;
};

static _Thread_local struct loop *current;

struct loop *loop_current(void)
{
    return current;
}

bool loop_is_current(const struct loop *loop)
{
    return current == loop;
}

uint64_t loop_now_ns(const struct loop *loop)
{
    return loop->now_ns;
}

/* ---- timers ---- */

static uint64_t first_deadline_ns(const struct loop *loop)
{
    struct heap_node *first = heap_first(&loop->timers);
    return first ? first->key : UINT64_MAX;
}

void loop_timer_arm(struct loop *loop, struct loop_timer *t, uint64_t deadline_ns)
{
    heap_remove(&loop->timers, &t->due);
    t->due.key = deadline_ns;
    heap_insert(&loop->timers, &t->due);
}

void loop_timer_cancel(struct loop *loop, struct loop_timer *t)
{
    heap_remove(&loop->timers, &t->due);
}

static void run_timers(struct loop *loop)
{
    while (first_deadline_ns(loop) <= loop->now_ns) {
        struct loop_timer *t = HEAP_ENTRY(heap_first(&loop->timers), struct loop_timer, due);
        loop_timer_cancel(loop, t);
        t->fire(t, loop->now_ns);
    }
}

/* ---- messages ---- */

static void wake(struct loop *loop)
{
    uint64_t one = 1;
    ssize_t n = write(loop->wake_fd, &one, sizeof(one));
    (void)n; /* it fails only when the counter is full, and then the loop is awake anyway */
}

void loop_post(struct loop *loop, struct loop_message *m)
{
    struct loop_message *head = atomic_load_explicit(&loop->mailbox, memory_order_relaxed);
    do {
        m->next = head;
    } while (!atomic_compare_exchange_weak(&loop->mailbox, &head, m));

    if (atomic_load(&loop->sleeping) && atomic_exchange(&loop->sleeping, 0))
        wake(loop);
}

static void run_messages(struct loop *loop)
{
    if (!atomic_load_explicit(&loop->mailbox, memory_order_relaxed))
        return;
    struct loop_message *m = atomic_exchange(&loop->mailbox, NULL);
    struct loop_message *in_order = NULL;
    while (m) {
        struct loop_message *next = m->next;
        m->next = in_order;
        in_order = m;
        m = next;
    }
    while (in_order) {
        m = in_order;
        in_order = m->next; /* before run(): it may post or free the message */
        m->run(m);
    }
}

/* ---- file descriptors ---- */

static uint32_t to_epoll(unsigned events)
{
    return ((events & LOOP_READ) ? (uint32_t)EPOLLIN : 0u) |
           ((events & LOOP_WRITE) ? (uint32_t)EPOLLOUT : 0u) |
           ((events & LOOP_EXCLUSIVE) ? (uint32_t)EPOLLEXCLUSIVE : 0u);
}

static unsigned from_epoll(uint32_t events)
{
    return ((events & EPOLLIN) ? (unsigned)LOOP_READ : 0u) |
           ((events & EPOLLOUT) ? (unsigned)LOOP_WRITE : 0u) |
           ((events & (EPOLLERR | EPOLLHUP)) ? (unsigned)LOOP_HANGUP : 0u);
}

tis_error *loop_watch_add(struct loop *loop, struct loop_watch *w, unsigned events)
{
    assert(!w->added);
    struct epoll_event ev = { .events = to_epoll(events), .data.ptr = w };
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, w->fd, &ev) < 0)
        return error_new(TRITONSERVER_ERROR_INTERNAL, "watching file descriptor %d: %s", w->fd,
                         strerror(errno));
    w->added = true;
    w->events = events;
    return NULL;
}

void loop_watch_change(struct loop *loop, struct loop_watch *w, unsigned events)
{
    assert(w->added && !((events | w->events) & LOOP_EXCLUSIVE));
    if (events == w->events)
        return;
    struct epoll_event ev = { .events = to_epoll(events), .data.ptr = w };
    /* It can fail only for a descriptor that is not registered: our own bug. */
    int rc = epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev);
    assert(rc == 0);
    (void)rc;
    w->events = events;
}

void loop_watch_remove(struct loop *loop, struct loop_watch *w)
{
    if (!w->added)
        return;
    struct epoll_event unused = { 0 };
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, w->fd, &unused);
    w->added = false;
    for (int i = loop->event_index; i < loop->event_count; i++) {
        if (loop->events[i].data.ptr == w)
            loop->events[i].data.ptr = NULL;
    }
}

/* ---- the round ---- */

/* Waits at most until deadline_ns; UINT64_MAX: for ever, 0: not at all. Nanoseconds matter: a queue
 * delay of 100 us is a timer here. */
static int wait_events(struct loop *loop, uint64_t deadline_ns)
{
    uint64_t now = deadline_ns && deadline_ns != UINT64_MAX ? clock_ns() : 0;
    uint64_t left = deadline_ns > now ? deadline_ns - now : 0;

    if (loop->has_pwait2 && left && deadline_ns != UINT64_MAX) {
        struct timespec ts = {
            .tv_sec = (time_t)(left / NS_PER_SEC),
            .tv_nsec = (long)(left % NS_PER_SEC),
        };
        int n = epoll_pwait2(loop->epoll_fd, loop->events, EVENTS_MAX, &ts, NULL);
        if (n >= 0 || errno != ENOSYS)
            return n;
        loop->has_pwait2 = false; /* a kernel before 5.11: milliseconds, rounded up */
    }

    int timeout_ms = -1;
    if (deadline_ns != UINT64_MAX) {
        uint64_t ms = (left + NS_PER_MS - 1) / NS_PER_MS;
        timeout_ms = ms > 60000 ? 60000 : (int)ms;
    }
    return epoll_wait(loop->epoll_fd, loop->events, EVENTS_MAX, timeout_ms);
}

static void run_round(struct loop *loop, uint64_t deadline_ns)
{
    if (first_deadline_ns(loop) < deadline_ns)
        deadline_ns = first_deadline_ns(loop);

    atomic_store(&loop->sleeping, 1);
    if (atomic_load(&loop->mailbox))
        deadline_ns = 0;
    int n = wait_events(loop, deadline_ns);
    atomic_store_explicit(&loop->sleeping, 0, memory_order_relaxed);

    assert(n >= 0 || errno == EINTR);
    loop->now_ns = clock_ns();
    loop->event_count = n > 0 ? n : 0;
    for (loop->event_index = 0; loop->event_index < loop->event_count;) {
        const struct epoll_event *ev = &loop->events[loop->event_index++];
        struct loop_watch *w = ev->data.ptr;
        if (w)
            w->ready(w, from_epoll(ev->events));
    }
    loop->event_count = 0;
    run_timers(loop);
    run_messages(loop);
}

void loop_run_once(struct loop *loop, uint64_t timeout_ns)
{
    struct loop *outer = current;
    current = loop;
    run_round(loop, timeout_ns ? clock_ns() + timeout_ns : 0);
    current = outer;
}

static void *thread_main(void *arg)
{
    struct loop *loop = arg;
    current = loop;
    prctl(PR_SET_NAME, loop->name);
    /* The default slack of 50 us would double a queue delay of 50 us. */
    prctl(PR_SET_TIMERSLACK, 1000UL);
    loop->now_ns = clock_ns();
    while (!loop->stopping)
        run_round(loop, UINT64_MAX);
    return NULL;
}

static void woken(struct loop_watch *w, unsigned events)
{
    /* Nothing to do: the wake-up itself was the point. */
    (void)w;
    (void)events;
}

static void stop_run(struct loop_message *m)
{
    CONTAINER_OF(m, struct loop, stop_message)->stopping = true;
}

/* The eventfd's watch carries no state, so all loops share it. */
static struct loop_watch wake_watch = { .fd = -1, .ready = woken };

tis_error *loop_create(const char *name, struct loop **ret_loop)
{
    struct loop *loop = aligned_alloc(_Alignof(struct loop), sizeof(*loop));
    if (!loop)
        return error_no_memory();
    memset(loop, 0, sizeof(*loop));
    snprintf(loop->name, sizeof(loop->name), "%s", name);
    loop->has_pwait2 = true;
    loop->stop_message.run = stop_run;
    loop->now_ns = clock_ns();
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    struct epoll_event ev = { .events = EPOLLIN | EPOLLET, .data.ptr = &wake_watch };
    if (loop->epoll_fd < 0 || loop->wake_fd < 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &ev) < 0) {
        tis_error *err = error_new(TRITONSERVER_ERROR_INTERNAL, "creating event loop '%s': %s",
                                   name, strerror(errno));
        loop_destroy(loop);
        return err;
    }
    *ret_loop = loop;
    return NULL;
}

void loop_destroy(struct loop *loop)
{
    if (!loop)
        return;
    assert(!loop->started);
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    free(loop);
}

tis_error *loop_start(struct loop *loop)
{
    assert(!loop->started && !loop->stopping);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&loop->thread, NULL, thread_main, loop);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0)
        return error_new(TRITONSERVER_ERROR_INTERNAL, "starting event loop '%s': %s", loop->name,
                         strerror(rc));
    loop->started = true;
    return NULL;
}

void loop_stop(struct loop *loop)
{
    if (!loop || !loop->started)
        return;
    assert(!loop_is_current(loop));
    loop_post(loop, &loop->stop_message);
    pthread_join(loop->thread, NULL);
    loop->started = false;
}
