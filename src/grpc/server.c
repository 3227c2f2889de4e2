/* grpc/server.c - the server and its shards. */
#include <assert.h>
#include <stdlib.h>

#include "grpc/conn.h"

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
    memory_init(&s->memory);
    wait_init(s);
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
    for (uint32_t i = 0; i < server->acceptor.shard_count; i++)
        shard_destroy(CONTAINER_OF(server->acceptor.shards[i], struct grpc_shard, base));
    acceptor_fini(&server->acceptor);
    nghttp2_session_callbacks_del(server->callbacks);
    nghttp2_option_del(server->session_options);
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
#ifdef TIS_NGHTTP2_RESET_LIMIT
    /* lifetime.c has a limit of its own, which tells the client why. */
    nghttp2_option_set_stream_reset_rate_limit(server->session_options, UINT64_MAX, UINT64_MAX);
#endif
    return true;
}

static void shard_end(struct acceptor_shard *base)
{
    wait_end(CONTAINER_OF(base, struct grpc_shard, base));
}

static const struct acceptor_handler acceptor_handler = {
    .name = "grpc",
    .create = grpc_conn_create,
    .open = grpc_conn_open,
    .ready = grpc_conn_ready,
    .drain = grpc_conn_drain,
    .close = grpc_conn_close,
    .end = shard_end,
};

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

    tis_error *err = prepare_sessions(server) ? NULL : error_no_memory();
    if (!err)
        err = acceptor_init(&server->acceptor,
                            &(struct acceptor_options){
                                .address = options->address,
                                .port = options->port,
                                .reuse_port = options->reuse_port,
                                .tls = options->tls,
                                .connections_max = options->connections_max,
                            },
                            &acceptor_handler, loop_count);
    for (uint32_t i = 0; i < loop_count && !err; i++) {
        struct grpc_shard *s = shard_create(server, loops[i]);
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

void grpc_server_start(struct grpc_server *server)
{
    acceptor_start(&server->acceptor);
}

uint16_t grpc_server_port(const struct grpc_server *server)
{
    return acceptor_port(&server->acceptor);
}

struct acceptor_counts grpc_server_counts(const struct grpc_server *server)
{
    return acceptor_counts(&server->acceptor);
}

bool grpc_server_drain(struct grpc_server *server, uint64_t deadline_ns)
{
    return acceptor_drain(&server->acceptor, deadline_ns);
}

void grpc_server_destroy(struct grpc_server *server)
{
    if (!server)
        return;
    acceptor_close(&server->acceptor);
    free_server(server);
}

void grpc_server_adopt(struct grpc_server *server, int fd)
{
    acceptor_adopt(&server->acceptor, fd);
}

void grpc_server_adopt_transport(struct grpc_server *server, struct transport *from,
                                 const void *bytes, size_t len)
{
    struct acceptor_shard *s = acceptor_shard_here(&server->acceptor);
    assert(s);
    grpc_conn_adopt(CONTAINER_OF(s, struct grpc_shard, base), from, bytes, len);
}
