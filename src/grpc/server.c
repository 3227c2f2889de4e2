/* grpc/server.c - listening, the shards, and the end of it all. As http/server.c, which explains how
 * the listener is shared; the two differ in what a connection is. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "grpc/conn.h"
#include "net/socket.h"

#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)

enum {
    ACCEPTS_PER_ROUND = 16
};

bool grpc_is_draining(const struct grpc_shard *s)
{
    return atomic_load_explicit(&s->server->is_draining, memory_order_relaxed);
}

void grpc_conn_ended(struct grpc_shard *s)
{
    struct grpc_server *server = s->server;
    atomic_fetch_sub(&s->conn_count, 1);
    /* Only the end waits for zero, so only then is the lock worth it. */
    if (atomic_fetch_sub(&server->conn_count, 1) == 1 && grpc_is_draining(s)) {
        lock_take(&server->lock);
        cond_broadcast(&server->changed);
        lock_release(&server->lock);
    }
}

/* ---- accepting ---- */

/* The shard that a new connection accepted by s should go to. */
static struct grpc_shard *shard_for_conn(struct grpc_shard *s)
{
    struct grpc_server *server = s->server;
    struct grpc_shard *least = s;
    uint32_t own_count = atomic_load_explicit(&s->conn_count, memory_order_relaxed);
    uint32_t least_count = own_count;
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

void grpc_server_adopt(struct grpc_server *server, int fd)
{
    conn_adopt(shard_for_conn(server->shards[0]), fd);
}

/* Lack of descriptors: clients wait in the backlog, the loop comes back after a while. */
static void pause_accepting(struct grpc_shard *s, int error)
{
    log_warning("grpc: accepting on '%s' port %u fails: %s; clients wait, trying every %d ms",
                s->server->address, (unsigned)s->server->port, strerror(error),
                (int)(ACCEPT_PAUSE_NS / NS_PER_MS));
    tis_error *err =
        loop_timer_arm(s->loop, &s->accept_timer, loop_now_ns(s->loop) + ACCEPT_PAUSE_NS);
    if (!err)
        loop_watch_remove(s->loop, &s->listener);
    error_free(err);
}

static void accept_ready(struct loop_watch *w, unsigned events)
{
    struct grpc_shard *s = CONTAINER_OF(w, struct grpc_shard, listener);
    struct grpc_server *server = s->server;
    uint32_t conns_max = server->options.connections_max;
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
        if (conns_max && atomic_load(&server->conn_count) >= conns_max)
            close(fd);
        else
            conn_adopt(shard_for_conn(s), fd);
    }
}

static void watch_listener(struct grpc_shard *s)
{
    if (grpc_is_draining(s) || s->listener.added || s->server->listen_fd < 0)
        return;
    tis_error *err = loop_watch_add(s->loop, &s->listener, LOOP_READ | LOOP_EXCLUSIVE);
    if (err) {
        log_error("grpc: %s; this loop accepts no connections", error_text(err));
        error_free(err);
    }
}

static void accept_timer_fired(struct loop_timer *t, uint64_t now)
{
    (void)now;
    watch_listener(CONTAINER_OF(t, struct grpc_shard, accept_timer));
}

static void start_run(struct loop_message *m)
{
    watch_listener(CONTAINER_OF(m, struct grpc_shard, start_message));
}

/* ---- one controller tells all shards something and waits ---- */

static void control_run(struct loop_message *m)
{
    struct grpc_shard *s = CONTAINER_OF(m, struct grpc_shard, control_message);
    struct grpc_server *server = s->server;
    if (s->control)
        s->control(s);
    /* s and server may be gone when the lock is given back. */
    lock_take(&server->lock);
    server->acks_missing--;
    cond_broadcast(&server->changed);
    lock_release(&server->lock);
}

static void control_shards(struct grpc_server *server, void (*control)(struct grpc_shard *s))
{
    server->acks_missing = server->shard_count;
    for (uint32_t i = 0; i < server->shard_count; i++) {
        struct grpc_shard *s = server->shards[i];
        s->control = control;
        s->control_message.run = control_run;
        loop_post(s->loop, &s->control_message);
    }
    lock_take(&server->lock);
    while (server->acks_missing)
        cond_wait(&server->changed, &server->lock);
    lock_release(&server->lock);
}

static void stop_listening(struct grpc_shard *s)
{
    loop_watch_remove(s->loop, &s->listener);
    loop_timer_cancel(s->loop, &s->accept_timer);
}

/* A visit may end any connection; each leaves the list it stands in by itself. */
static void for_each_conn(struct grpc_shard *s, void (*visit)(struct grpc_conn *c))
{
    struct list waiting;
    list_init(&waiting);
    for (struct list *item; (item = list_pop(&s->conns));)
        list_append(&waiting, item);
    for (struct list *item; (item = list_pop(&waiting));) {
        list_append(&s->conns, item);
        visit(LIST_ENTRY(item, struct grpc_conn, in_shard));
    }
}

static void drain_shard(struct grpc_shard *s)
{
    stop_listening(s);
    for_each_conn(s, grpc_conn_drain);
}

static void close_shard(struct grpc_shard *s)
{
    s->is_closing = true;
    stop_listening(s);
    for_each_conn(s, grpc_conn_close);
}

static void end_shard(struct grpc_shard *s)
{
    assert(list_is_empty(&s->conns));
}

static void close_listener(struct grpc_server *server)
{
    if (server->listen_fd >= 0)
        close(server->listen_fd);
    server->listen_fd = -1;
}

/* ---- creation and destruction ---- */

static void shard_destroy(struct grpc_shard *s)
{
    if (!s)
        return;
    for (struct stream *it; (it = s->free_streams);) {
        s->free_streams = it->next_free;
        free(it);
    }
    for (struct output *it; (it = s->free_outputs);) {
        s->free_outputs = it->next_free;
        free(it);
    }
    memory_fini(&s->memory);
    free(s->scratch);
    free(s);
}

static struct grpc_shard *shard_create(struct grpc_server *server, struct loop *loop)
{
    struct grpc_shard *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->server = server;
    s->loop = loop;
    list_init(&s->conns);
    s->listener.fd = server->listen_fd;
    s->listener.ready = accept_ready;
    s->accept_timer.fire = accept_timer_fired;
    s->start_message.run = start_run;
    memory_init(&s->memory);
    s->scratch = malloc(SCRATCH_BYTES);
    if (!s->scratch) {
        free(s);
        return NULL;
    }
    return s;
}

static void free_server(struct grpc_server *server)
{
    if (!server)
        return;
    close_listener(server);
    for (uint32_t i = 0; server->shards && i < server->shard_count; i++)
        shard_destroy(server->shards[i]);
    free(server->shards);
    free(server->address);
    nghttp2_session_callbacks_del(server->callbacks);
    nghttp2_option_del(server->session_options);
    cond_fini(&server->changed);
    lock_fini(&server->lock);
    free(server);
}

static bool prepare_sessions(struct grpc_server *server)
{
    if (nghttp2_session_callbacks_new(&server->callbacks) ||
        nghttp2_option_new(&server->session_options))
        return false;
    conn_callbacks_set(server->callbacks);
    nghttp2_option_set_no_auto_window_update(server->session_options, 1);
    nghttp2_option_set_no_closed_streams(server->session_options, 1);
    return true;
}

tis_error *grpc_server_create(const struct grpc_server_options *options,
                              const struct grpc_handler *handler, struct loop *const *loops,
                              uint32_t loop_count, struct grpc_server **ret_server)
{
    assert(loop_count > 0 && handler->on_head && handler->on_message && handler->on_request);
    struct grpc_server *server = calloc(1, sizeof(*server));
    if (!server)
        return error_no_memory();
    server->handler = *handler;
    server->options = *options;
    server->listen_fd = -1;
    lock_init(&server->lock, LOCK_LOOP);
    cond_init(&server->changed);

    tis_error *err = NULL;
    server->address = strdup(options->address ? options->address : "0.0.0.0");
    server->shards = calloc(loop_count, sizeof(struct grpc_shard *));
    if (!server->address || !server->shards || !prepare_sessions(server)) {
        err = error_no_memory();
        goto out;
    }
    err = socket_listen(options->address, options->port, options->reuse_port, &server->listen_fd,
                        &server->port);
    if (err)
        goto out;
    for (; server->shard_count < loop_count; server->shard_count++) {
        struct grpc_shard *s = shard_create(server, loops[server->shard_count]);
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

void grpc_server_start(struct grpc_server *server)
{
    assert(!server->is_started);
    server->is_started = true;
    for (uint32_t i = 0; i < server->shard_count; i++)
        loop_post(server->shards[i]->loop, &server->shards[i]->start_message);
}

uint16_t grpc_server_port(const struct grpc_server *server)
{
    return server->port;
}

/* Waits until no connection is left, or deadline_ns (UINT64_MAX: for ever). */
static bool wait_no_conns(struct grpc_server *server, uint64_t deadline_ns)
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

bool grpc_server_drain(struct grpc_server *server, uint64_t deadline_ns)
{
    assert(!loop_current());
    atomic_store(&server->is_draining, true);
    if (server->is_started)
        control_shards(server, drain_shard);
    close_listener(server);
    return wait_no_conns(server, deadline_ns);
}

void grpc_server_destroy(struct grpc_server *server)
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
