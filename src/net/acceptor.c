/* net/acceptor.c - listening sockets, and the connections that come in by them.
 *
 * Sharing the listeners. Every loop watches the listening sockets, exclusively, so that one
 * connection wakes one loop. The kernel wakes the same loop again and again while the others sleep,
 * and keeps no balance; so whoever accepts looks at the counts, and when another loop has clearly
 * fewer connections it gets the new one through its mailbox. Sixteen connections over two loops end
 * as eight and eight, and a server with one busy loop pays nothing. (SO_REUSEPORT would spread by
 * hash, which leaves few long connections unbalanced, and would hide that a port is taken.)
 *
 * Lack of descriptors. accept() fails and the listener stays readable: the loop stops watching it
 * and comes back after a while; connections wait in the backlog meanwhile.
 */
#include "net/acceptor.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)

enum {
    ACCEPTS_PER_ROUND = 16
};

bool acceptor_is_draining(const struct acceptor *a)
{
    return atomic_load_explicit(&a->is_draining, memory_order_relaxed);
}

struct acceptor_counts acceptor_counts(const struct acceptor *a)
{
    return (struct acceptor_counts){
        .open = atomic_load_explicit(&a->conn_count, memory_order_relaxed),
        .accepted = atomic_load_explicit(&a->accepted_count, memory_order_relaxed),
    };
}

/* ---- connections ---- */

static bool is_full(const struct acceptor *a)
{
    return a->connections_max && atomic_load(&a->conn_count) >= a->connections_max;
}

static void join(struct acceptor_shard *s, struct acceptor_conn *c)
{
    c->shard = s;
    list_init(&c->in_shard);
    atomic_fetch_add(&s->conn_count, 1);
    atomic_fetch_add(&s->acceptor->conn_count, 1);
}

/* Puts c where it belongs, on its loop; closes it when it comes too late. True when it is open. */
static bool enter(struct acceptor_conn *c)
{
    struct acceptor_shard *s = c->shard;
    list_append(&s->conns, &c->in_shard);
    if (s->is_closing || acceptor_is_draining(s->acceptor))
        transport_close(&c->transport);
    return transport_is_open(&c->transport);
}

static void open_run(struct loop_message *m)
{
    struct acceptor_conn *c = CONTAINER_OF(m, struct acceptor_conn, adopt);
    struct acceptor *a = c->shard->acceptor;
    tis_error *err = enter(c) ? transport_start(&c->transport, a->tls, LOOP_READ) : NULL;
    if (err)
        transport_close(&c->transport);
    error_free(err);
    a->handler->open(c);
}

static void hand_over(struct acceptor_shard *s, int fd)
{
    struct acceptor *a = s->acceptor;
    struct acceptor_conn *c = is_full(a) ? NULL : a->handler->create(s);
    atomic_fetch_add_explicit(&a->accepted_count, 1, memory_order_relaxed);
    if (!c) {
        close(fd);
        return;
    }
    join(s, c);
    transport_init(&c->transport, s->loop, fd, a->handler->ready);
    c->adopt.run = open_run;
    if (loop_is_current(s->loop))
        open_run(&c->adopt);
    else
        loop_post(s->loop, &c->adopt);
}

void acceptor_conn_ended(struct acceptor_conn *c)
{
    struct acceptor_shard *s = c->shard;
    struct acceptor *a = s->acceptor;
    assert(!transport_is_open(&c->transport));
    list_remove(&c->in_shard);
    atomic_fetch_sub(&s->conn_count, 1);
    /* Only the end waits for zero, so only then is the lock worth it. */
    if (atomic_fetch_sub(&a->conn_count, 1) == 1 && acceptor_is_draining(a)) {
        lock_take(&a->lock);
        cond_broadcast(&a->changed);
        lock_release(&a->lock);
    }
}

/* The shard that a new connection accepted by s should go to. */
static struct acceptor_shard *shard_for_conn(struct acceptor_shard *s)
{
    struct acceptor *a = s->acceptor;
    struct acceptor_shard *least = s;
    uint32_t own_count = atomic_load_explicit(&s->conn_count, memory_order_relaxed);
    uint32_t least_count = own_count;
    for (uint32_t i = 0; i < a->shard_count; i++) {
        uint32_t count = atomic_load_explicit(&a->shards[i]->conn_count, memory_order_relaxed);
        if (count < least_count) {
            least = a->shards[i];
            least_count = count;
        }
    }
    /* A small imbalance among many is cheaper than crossing over. */
    return own_count - least_count > least_count / 8 ? least : s;
}

void acceptor_adopt(struct acceptor *a, int fd)
{
    hand_over(shard_for_conn(a->shards[0]), fd);
}

void acceptor_adopt_transport(struct acceptor_shard *s, struct acceptor_conn *c,
                              struct transport *from)
{
    assert(loop_is_current(s->loop) && from->loop == s->loop);
    bool is_one_too_many = is_full(s->acceptor);
    join(s, c);
    transport_init(&c->transport, s->loop, -1, s->acceptor->handler->ready);
    tis_error *err = transport_move(&c->transport, from, LOOP_READ);
    if (err || is_one_too_many)
        transport_close(&c->transport);
    error_free(err);
    enter(c);
}

struct acceptor_shard *acceptor_shard_here(struct acceptor *a)
{
    for (uint32_t i = 0; i < a->shard_count; i++) {
        if (loop_is_current(a->shards[i]->loop))
            return a->shards[i];
    }
    return NULL;
}

/* ---- accepting ---- */

static void unwatch(struct acceptor_shard *s)
{
    for (uint32_t i = 0; i < s->acceptor->socket_count; i++)
        loop_watch_remove(s->loop, &s->listeners[i].watch);
}

static void watch(struct acceptor_shard *s)
{
    struct acceptor *a = s->acceptor;
    if (acceptor_is_draining(a))
        return;
    for (uint32_t i = 0; i < a->socket_count; i++) {
        struct loop_watch *w = &s->listeners[i].watch;
        tis_error *err = w->added ? NULL : loop_watch_add(s->loop, w, LOOP_READ | LOOP_EXCLUSIVE);
        if (err)
            log_error("%s: %s; this loop accepts no connections", a->handler->name,
                      error_text(err));
        error_free(err);
    }
}

static void pause_accepting(struct acceptor_shard *s, int error)
{
    struct acceptor *a = s->acceptor;
    if (!s->is_accept_failing)
        log_warning("%s: accepting on '%s' port %u fails: %s; clients wait, trying every %d ms",
                    a->handler->name, a->address, (unsigned)acceptor_port(a), strerror(error),
                    (int)(ACCEPT_PAUSE_NS / NS_PER_MS));
    s->is_accept_failing = true;
    loop_timer_arm(s->loop, &s->accept_timer, loop_now_ns(s->loop) + ACCEPT_PAUSE_NS);
    unwatch(s);
}

static void accept_ready(struct loop_watch *w, unsigned events)
{
    struct acceptor_shard *s = CONTAINER_OF(w, struct acceptor_listener, watch)->shard;
    (void)events;
    for (int i = 0; i < ACCEPTS_PER_ROUND; i++) {
        int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                pause_accepting(s, errno);
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            return;
        }
        s->is_accept_failing = false;
        hand_over(shard_for_conn(s), fd);
    }
}

static void accept_timer_fired(struct loop_timer *t, uint64_t now)
{
    (void)now;
    watch(CONTAINER_OF(t, struct acceptor_shard, accept_timer));
}

static void start_run(struct loop_message *m)
{
    watch(CONTAINER_OF(m, struct acceptor_shard, start_message));
}

void acceptor_start(struct acceptor *a)
{
    assert(!a->is_started);
    a->is_started = true;
    for (uint32_t i = 0; i < a->shard_count; i++)
        loop_post(a->shards[i]->loop, &a->shards[i]->start_message);
}

uint16_t acceptor_port(const struct acceptor *a)
{
    for (uint32_t i = 0; i < a->socket_count; i++) {
        if (a->sockets[i].port)
            return a->sockets[i].port;
    }
    return 0;
}

/* ---- one controller tells all shards something and waits ---- */

static void control_run(struct loop_message *m)
{
    struct acceptor_shard *s = CONTAINER_OF(m, struct acceptor_shard, control_message);
    struct acceptor *a = s->acceptor;
    s->control(s);
    /* s and a may be gone when the lock is given back. */
    lock_take(&a->lock);
    a->acks_missing--;
    cond_broadcast(&a->changed);
    lock_release(&a->lock);
}

static void control_shards(struct acceptor *a, void (*control)(struct acceptor_shard *s))
{
    a->acks_missing = a->shard_count;
    for (uint32_t i = 0; i < a->shard_count; i++) {
        struct acceptor_shard *s = a->shards[i];
        s->control = control;
        loop_post(s->loop, &s->control_message);
    }
    lock_take(&a->lock);
    while (a->acks_missing)
        cond_wait(&a->changed, &a->lock);
    lock_release(&a->lock);
}

static void stop_listening(struct acceptor_shard *s)
{
    unwatch(s);
    loop_timer_cancel(s->loop, &s->accept_timer);
}

/* Calls visit for every connection. What a visit sets off may end any of them, so they are taken
 * from a list of those still to visit, which each leaves by itself when it ends. */
static void for_each_conn(struct acceptor_shard *s, void (*visit)(struct acceptor_conn *c))
{
    struct list waiting;
    list_init(&waiting);
    for (struct list *item; (item = list_pop(&s->conns));)
        list_append(&waiting, item);
    for (struct list *item; (item = list_pop(&waiting));) {
        list_append(&s->conns, item);
        visit(LIST_ENTRY(item, struct acceptor_conn, in_shard));
    }
}

static void drain_shard(struct acceptor_shard *s)
{
    stop_listening(s);
    for_each_conn(s, s->acceptor->handler->drain);
}

static void close_shard(struct acceptor_shard *s)
{
    s->is_closing = true;
    stop_listening(s);
    for_each_conn(s, s->acceptor->handler->close);
}

static void end_shard(struct acceptor_shard *s)
{
    assert(list_is_empty(&s->conns));
    if (s->acceptor->handler->end)
        s->acceptor->handler->end(s);
}

static void close_sockets(struct acceptor *a)
{
    for (uint32_t i = 0; i < a->socket_count; i++)
        socket_listener_close(&a->sockets[i]);
}

/* Waits until no connection is left, or deadline_ns (UINT64_MAX: for ever). */
static bool wait_no_conns(struct acceptor *a, uint64_t deadline_ns)
{
    lock_take(&a->lock);
    while (atomic_load(&a->conn_count)) {
        if (deadline_ns == UINT64_MAX)
            cond_wait(&a->changed, &a->lock);
        else if (clock_ns() >= deadline_ns)
            break;
        else
            cond_wait_until(&a->changed, &a->lock, deadline_ns);
    }
    bool none_left = atomic_load(&a->conn_count) == 0;
    lock_release(&a->lock);
    return none_left;
}

bool acceptor_drain(struct acceptor *a, uint64_t deadline_ns)
{
    assert(!loop_current());
    atomic_store(&a->is_draining, true);
    if (a->is_started)
        control_shards(a, drain_shard);
    close_sockets(a);
    return wait_no_conns(a, deadline_ns);
}

void acceptor_close(struct acceptor *a)
{
    assert(!loop_current());
    atomic_store(&a->is_draining, true);
    if (!a->is_started)
        return;
    control_shards(a, close_shard);
    wait_no_conns(a, UINT64_MAX);
    /* Whatever the loops were still doing with the shards is over when they answer this. */
    control_shards(a, end_shard);
}

/* ---- creation and destruction ---- */

static tis_error *listen_on(struct acceptor *a, const char *address, uint16_t port, bool reuse_port)
{
    if (a->socket_count == ACCEPTOR_SOCKETS_MAX)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG, "address '%s': more than %d addresses",
                         a->address, (int)ACCEPTOR_SOCKETS_MAX);
    tis_error *err = socket_listen(address, port, reuse_port, &a->sockets[a->socket_count]);
    if (!err)
        a->socket_count++;
    return err;
}

static tis_error *listen_all(struct acceptor *a, const struct acceptor_options *options)
{
    char *addresses = strdup(a->address);
    if (!addresses)
        return error_no_memory();
    tis_error *err = NULL;
    char *rest = addresses;
    for (char *one; !err && (one = strsep(&rest, ","));) {
        /* A free port is the same one on all addresses. */
        uint16_t port = options->port ? options->port : acceptor_port(a);
        err = listen_on(a, one, port, options->reuse_port);
    }
    free(addresses);
    return err;
}

tis_error *acceptor_init(struct acceptor *a, const struct acceptor_options *options,
                         const struct acceptor_handler *handler, uint32_t shard_count)
{
    assert(shard_count > 0);
    *a = (struct acceptor){
        .handler = handler,
        .tls = options->tls,
        .connections_max = options->connections_max,
    };
    lock_init(&a->lock, LOCK_LOOP);
    cond_init(&a->changed);
    a->address = strdup(options->address ? options->address : "0.0.0.0");
    a->shards = calloc(shard_count, sizeof(struct acceptor_shard *));
    tis_error *err = a->address && a->shards ? listen_all(a, options) : error_no_memory();
    if (err)
        acceptor_fini(a);
    return err;
}

void acceptor_add_shard(struct acceptor *a, struct acceptor_shard *s, struct loop *loop)
{
    s->acceptor = a;
    s->loop = loop;
    list_init(&s->conns);
    for (uint32_t i = 0; i < a->socket_count; i++) {
        s->listeners[i] = (struct acceptor_listener){
            .shard = s,
            .watch = { .fd = a->sockets[i].fd, .ready = accept_ready },
        };
    }
    s->accept_timer.fire = accept_timer_fired;
    s->start_message.run = start_run;
    s->control_message.run = control_run;
    a->shards[a->shard_count++] = s;
}

void acceptor_fini(struct acceptor *a)
{
    if (!a->handler)
        return;
    close_sockets(a);
    free(a->shards);
    free(a->address);
    cond_fini(&a->changed);
    lock_fini(&a->lock);
    *a = (struct acceptor){ 0 };
}
