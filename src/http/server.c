/* http/server.c - the server, its shards, and their byte budget. */
#include <assert.h>
#include <stdlib.h>

#include "base/clock.h"
#include "http/conn.h"

#define BUDGET_POLL_NS (2 * NS_PER_MS)

bool server_is_draining(const struct shard *s)
{
    return acceptor_is_draining(s->base.acceptor);
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
    if (list_is_empty(&s->budget_queue) || loop_timer_is_armed(&s->budget_timer))
        return;
    loop_timer_arm(s->loop, &s->budget_timer, loop_now_ns(s->loop) + BUDGET_POLL_NS);
}

void server_budget_given(struct shard *s)
{
    /* By message: the caller is in the middle of ending an exchange. */
    if (list_is_empty(&s->budget_queue) || s->budget_retry_posted)
        return;
    s->budget_retry_posted = true;
    loop_post(s->loop, &s->budget_retry);
}

static void shard_end(struct acceptor_shard *base)
{
    struct shard *s = CONTAINER_OF(base, struct shard, base);
    loop_timer_cancel(s->loop, &s->budget_timer);
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
    s->loop = loop;
    s->handler = &server->handler;
    s->limits = &server->limits;
    s->budget = options->budget;
    s->cancel_on_half_close = options->cancel_on_half_close;
    s->on_http2 = options->on_http2;
    s->on_http2_arg = options->on_http2_arg;
    list_init(&s->budget_queue);
    s->budget_timer.fire = budget_timer_fired;
    s->budget_retry.run = budget_retry_run;
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
    for (uint32_t i = 0; i < server->acceptor.shard_count; i++)
        shard_destroy(CONTAINER_OF(server->acceptor.shards[i], struct shard, base));
    acceptor_fini(&server->acceptor);
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

static const struct acceptor_handler acceptor_handler = {
    .name = "http",
    .create = conn_create,
    .open = conn_open,
    .ready = conn_ready,
    .drain = conn_close_idle,
    .close = conn_close_now,
    .end = shard_end,
};

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

    tis_error *err = acceptor_init(&server->acceptor,
                                   &(struct acceptor_options){
                                       .address = options->address,
                                       .port = options->port,
                                       .reuse_port = options->reuse_port,
                                       .tls = options->tls,
                                       .connections_max = options->limits.connections_max,
                                   },
                                   &acceptor_handler, loop_count);
    for (uint32_t i = 0; i < loop_count && !err; i++) {
        struct shard *s = shard_create(server, loops[i], options);
        if (s)
            acceptor_add_shard(&server->acceptor, &s->base, loops[i]);
        else
            err = error_no_memory();
    }
    if (err) {
        free_server(server);
        return err;
    }
    *ret_server = server;
    return NULL;
}

tis_error *http_server_start(struct http_server *server)
{
    acceptor_start(&server->acceptor);
    return NULL;
}

uint16_t http_server_port(const struct http_server *server)
{
    return acceptor_port(&server->acceptor);
}

struct acceptor_counts http_server_counts(const struct http_server *server)
{
    return acceptor_counts(&server->acceptor);
}

bool http_server_drain(struct http_server *server, uint64_t deadline_ns)
{
    return acceptor_drain(&server->acceptor, deadline_ns);
}

void http_server_destroy(struct http_server *server)
{
    if (!server)
        return;
    acceptor_close(&server->acceptor);
    free_server(server);
}

void http_server_adopt(struct http_server *server, int fd)
{
    acceptor_adopt(&server->acceptor, fd);
}
