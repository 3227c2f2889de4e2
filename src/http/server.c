/* http/server.c - listening, the shards, and the end of it all.
 *
 * Sharing the listener. Every loop watches the listening socket, exclusively, so that one connection
 * wakes one loop. The kernel wakes the same loop again and again while the others sleep, and keeps
 * no balance; so whoever accepts looks at the counts, and when another loop has clearly fewer
 * connections it gets the new one through its mailbox. Sixteen connections over two loops end as
 * eight and eight, and a server with one busy loop pays nothing. (SO_REUSEPORT would spread by hash,
 * which leaves few long connections unbalanced, and would hide that a port is taken.)
 *
 * Lack of descriptors. accept() fails and the listener stays readable: the loop stops watching it
 * and comes back after a while; connections wait in the backlog meanwhile.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "http/conn.h"
#include "net/socket.h"

#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)
#define BUDGET_POLL_NS (2 * NS_PER_MS)

enum {
    ACCEPTS_PER_ROUND = 16
};

bool server_is_draining(const struct shard *s)
{
    return atomic_load_explicit(&s->server->is_draining, memory_order_relaxed);
}

void server_conn_ended(struct shard *s)
{
    struct http_server *server = s->server;
    atomic_fetch_sub(&s->conn_count, 1);
    /* Only the end waits for zero, so only then is the lock worth it. */
    if (atomic_fetch_sub(&server->conn_count, 1) == 1 && server_is_draining(s)) {
        lock_take(&server->lock);
        cond_broadcast(&server->changed);
        lock_release(&server->lock);
    }
}

/* ---- byte budget ---- */

static void retry_budget(struct shard *s)
{
    while (!list_is_empty(&s->budget_queue)) {
        struct conn *c = LIST_ENTRY(s->budget_queue.next, struct conn, in_budget_queue);
        if (!conn_retry_budget(c))
            break;
    }
    server_budget_wait(s);
}

static void budget_timer_fired(struct loop_timer *t, uint64_t now)
{
    (void)now;
    retry_budget(CONTAINER_OF(t, struct shard, budget_timer));
}

static void budget_retry_run(struct loop_message *m)
{
    struct shard *s = CONTAINER_OF(m, struct shard, budget_retry);
    s->budget_retry_posted = false;
    retry_budget(s);
}

void server_budget_wait(struct shard *s)
{
    if (list_is_empty(&s->budget_queue) || s->budget_timer.heap_index)
        return;
    /* Without memory for the timer the next release on this loop, or the connection's own deadline,
     * goes on. */
    error_free(loop_timer_arm(s->loop, &s->budget_timer, loop_now_ns(s->loop) + BUDGET_POLL_NS));
}

void server_budget_given(struct shard *s)
{
    /* By message: the caller is in the middle of ending an exchange. */
    if (list_is_empty(&s->budget_queue) || s->budget_retry_posted)
        return;
    s->budget_retry_posted = true;
    loop_post(s->loop, &s->budget_retry);
}

/* ---- accepting ---- */

/* The shard that a new connection accepted by s should go to. */
static struct shard *shard_for_conn(struct shard *s)
{
    struct http_server *server = s->server;
    struct shard *least = s;
    uint32_t least_count = atomic_load_explicit(&s->conn_count, memory_order_relaxed);
    uint32_t own_count = least_count;
    for (uint32_t i = 0; i < server->shard_count; i++) {
        uint32_t count = atomic_load_explicit(&server->shards[i]->conn_count, memory_order_relaxed);
        if (count < least_count) {
            least = server->shards[i];
            least_count = count;
        }
    }
    /* A small imbalance among many is cheaper than crossing over. */
    return own_count - least_count > least_count / 8 ? least : s;
}

static void adopt_run(struct loop_message *m)
{
    conn_open(CONTAINER_OF(m, struct conn, adopt));
}

static void hand_over(struct shard *s, int fd)
{
    struct conn *c = conn_create(s, fd);
    if (!c)
        return;
    if (loop_is_current(s->loop)) {
        conn_open(c);
        return;
    }
    c->adopt.run = adopt_run;
    loop_post(s->loop, &c->adopt);
}

void http_server_adopt(struct http_server *server, int fd)
{
    hand_over(shard_for_conn(server->shards[0]), fd);
}

static void pause_accepting(struct shard *s, int error)
{
    if (!s->is_accept_failing)
        log_warning("http: accepting on '%s' port %u fails: %s; clients wait, trying every %d ms",
                    s->server->address, (unsigned)s->server->port, strerror(error),
                    (int)(ACCEPT_PAUSE_NS / NS_PER_MS));
    s->is_accept_failing = true;
    loop_watch_remove(s->loop, &s->listener);
    tis_error *err =
        loop_timer_arm(s->loop, &s->accept_timer, loop_now_ns(s->loop) + ACCEPT_PAUSE_NS);
    if (err) {
        /* No timer to come back with: rather try again and again than never. */
        error_free(err);
        error_free(loop_watch_add(s->loop, &s->listener, LOOP_READ | LOOP_EXCLUSIVE));
    }
}

static void accept_ready(struct loop_watch *w, unsigned events)
{
    struct shard *s = CONTAINER_OF(w, struct shard, listener);
    struct http_server *server = s->server;
    uint32_t conns_max = server->limits.connections_max;
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
        if (conns_max && atomic_load(&server->conn_count) >= conns_max)
            close(fd);
        else
            hand_over(shard_for_conn(s), fd);
    }
}

static void watch_listener(struct shard *s)
{
    if (server_is_draining(s) || s->listener.added || s->server->listen_fd < 0)
        return;
    tis_error *err = loop_watch_add(s->loop, &s->listener, LOOP_READ | LOOP_EXCLUSIVE);
    if (err) {
        log_error("http: %s; this loop accepts no connections", error_text(err));
        error_free(err);
    }
}

static void accept_timer_fired(struct loop_timer *t, uint64_t now)
{
    (void)now;
    watch_listener(CONTAINER_OF(t, struct shard, accept_timer));
}

static void start_run(struct loop_message *m)
{
    watch_listener(CONTAINER_OF(m, struct shard, start_message));
}

/* ---- one controller tells all shards something and waits ---- */

static void control_run(struct loop_message *m)
{
    struct shard *s = CONTAINER_OF(m, struct shard, control_message);
    struct http_server *server = s->server;
    if (s->control)
        s->control(s);
    /* s and server may be gone when the lock is given back. */
    lock_take(&server->lock);
    server->acks_missing--;
    cond_broadcast(&server->changed);
    lock_release(&server->lock);
}

static void control_shards(struct http_server *server, void (*control)(struct shard *s))
{
    server->acks_missing = server->shard_count;
    for (uint32_t i = 0; i < server->shard_count; i++) {
        struct shard *s = server->shards[i];
        s->control = control;
        s->control_message.run = control_run;
        loop_post(s->loop, &s->control_message);
    }
    lock_take(&server->lock);
    while (server->acks_missing)
        cond_wait(&server->changed, &server->lock);
    lock_release(&server->lock);
}

static void stop_listening(struct shard *s)
{
    loop_watch_remove(s->loop, &s->listener);
    loop_timer_cancel(s->loop, &s->accept_timer);
}

/* Calls visit for every connection. What a visit sets off may end any of them, so they are taken
 * from a list of those still to visit, which each leaves by itself when it ends. */
static void for_each_conn(struct shard *s, void (*visit)(struct conn *c))
{
    struct list waiting;
    list_init(&waiting);
    for (struct list *item; (item = list_pop(&s->conns));)
        list_append(&waiting, item);
    for (struct list *item; (item = list_pop(&waiting));) {
        list_append(&s->conns, item);
        visit(LIST_ENTRY(item, struct conn, in_shard));
    }
}

static void drain_shard(struct shard *s)
{
    stop_listening(s);
    for_each_conn(s, conn_close_idle);
}

static void close_shard(struct shard *s)
{
    s->is_closing = true;
    stop_listening(s);
    for_each_conn(s, conn_close_now);
}

static void end_shard(struct shard *s)
{
    assert(list_is_empty(&s->conns));
    loop_timer_cancel(s->loop, &s->budget_timer);
}

static void close_listener(struct http_server *server)
{
    if (server->listen_fd >= 0)
        close(server->listen_fd);
    server->listen_fd = -1;
}

/* ---- creation and destruction ---- */

static void shard_destroy(struct shard *s)
{
    if (!s)
        return;
    while (s->free_exchanges) {
        struct exchange *x = s->free_exchanges;
        s->free_exchanges = x->next_free;
        free(x);
    }
    free(s->scratch);
    free(s);
}

static struct shard *shard_create(struct http_server *server, struct loop *loop,
                                  const struct http_server_options *options)
{
    struct shard *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->server = server;
    s->loop = loop;
    s->handler = &server->handler;
    s->limits = &server->limits;
    s->budget = options->budget;
    s->cancel_on_half_close = options->cancel_on_half_close;
    list_init(&s->conns);
    list_init(&s->budget_queue);
    s->listener.fd = server->listen_fd;
    s->listener.ready = accept_ready;
    s->accept_timer.fire = accept_timer_fired;
    s->budget_timer.fire = budget_timer_fired;
    s->budget_retry.run = budget_retry_run;
    s->start_message.run = start_run;
    s->scratch = malloc(SCRATCH_BYTES);
    if (!s->scratch) {
        free(s);
        return NULL;
    }
    return s;
}

static void free_server(struct http_server *server)
{
    if (!server)
        return;
    close_listener(server);
    for (uint32_t i = 0; server->shards && i < server->shard_count; i++)
        shard_destroy(server->shards[i]);
    free(server->shards);
    free(server->address);
    cond_fini(&server->changed);
    lock_fini(&server->lock);
    free(server);
}

static void default_flags(struct http_limits *limits)
{
    if (!limits->head_bytes_flag)
        limits->head_bytes_flag = "--http-max-head-size";
    if (!limits->body_bytes_flag)
        limits->body_bytes_flag = "--http-max-input-size";
    if (!limits->budget_flag)
        limits->budget_flag = "--max-inflight-bytes";
}

tis_error *http_server_create(const struct http_server_options *options,
                              const struct http_handler *handler, struct loop *const *loops,
                              uint32_t loop_count, struct http_server **ret_server)
{
    assert(loop_count > 0 && handler->on_head && handler->on_request);
    struct http_server *server = calloc(1, sizeof(*server));
    if (!server)
        return error_no_memory();
    server->handler = *handler;
    server->limits = options->limits;
    default_flags(&server->limits);
    server->listen_fd = -1;
    lock_init(&server->lock, LOCK_LOOP);
    cond_init(&server->changed);

    tis_error *err = NULL;
    server->address = strdup(options->address ? options->address : "0.0.0.0");
    server->shards = calloc(loop_count, sizeof(struct shard *));
    if (!server->address || !server->shards) {
        err = error_no_memory();
        goto out;
    }
    err = socket_listen(options->address, options->port, options->reuse_port, &server->listen_fd,
                        &server->port);
    if (err)
        goto out;
    for (; server->shard_count < loop_count; server->shard_count++) {
        struct shard *s = shard_create(server, loops[server->shard_count], options);
        if (!s) {
            err = error_no_memory();
            goto out;
        }
        server->shards[server->shard_count] = s;
    }
    *ret_server = server;
    server = NULL;

out:
    free_server(server);
    return err;
}

tis_error *http_server_start(struct http_server *server)
{
    assert(!server->is_started);
    server->is_started = true;
    for (uint32_t i = 0; i < server->shard_count; i++)
        loop_post(server->shards[i]->loop, &server->shards[i]->start_message);
    return NULL;
}

uint16_t http_server_port(const struct http_server *server)
{
    return server->port;
}

/* Waits until no connection is left, or deadline_ns (UINT64_MAX: for ever). */
static bool wait_no_conns(struct http_server *server, uint64_t deadline_ns)
{
    lock_take(&server->lock);
    while (atomic_load(&server->conn_count)) {
        if (deadline_ns == UINT64_MAX)
            cond_wait(&server->changed, &server->lock);
        else if (clock_ns() >= deadline_ns)
            break;
        else
            cond_wait_until(&server->changed, &server->lock, deadline_ns);
    }
    bool none_left = atomic_load(&server->conn_count) == 0;
    lock_release(&server->lock);
    return none_left;
}

bool http_server_drain(struct http_server *server, uint64_t deadline_ns)
{
    assert(!loop_current());
    atomic_store(&server->is_draining, true);
    if (server->is_started)
        control_shards(server, drain_shard);
    close_listener(server);
    return wait_no_conns(server, deadline_ns);
}

void http_server_destroy(struct http_server *server)
{
    if (!server)
        return;
    assert(!loop_current());
    atomic_store(&server->is_draining, true);
    if (server->is_started) {
        control_shards(server, close_shard);
        wait_no_conns(server, UINT64_MAX);
        /* Whatever the loops were still doing with the shards is over when they answer this. */
        control_shards(server, end_shard);
    }
    free_server(server);
}
