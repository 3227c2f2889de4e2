/* Feeds bytes, cut in pieces, through the gRPC server's connection code over a socket pair.
 *
 * The first byte seeds the sizes of the pieces and what the handler does; the rest is what the
 * client sends. Every exchange that is seen ends exactly once, and all memory comes back.
 *
 * Parses: src/grpc/conn.c src/grpc/stream.c src/grpc/frame.c */
#include <assert.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "grpc/conn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    LATER_MAX = 4
};

static struct loop *loop;
static struct grpc_server *server;
static struct budget budget;
static struct grpc_exchange *later[LATER_MAX];
static int later_count;
static int heads, ends;
static uint32_t seed;

/* A stream's message, the handler's until it is written. */
struct owned {
    struct list link;
    struct grpc_exchange *ex;
    char *base;
    struct iovec part;
    struct grpc_message message;
};

static struct list owned;

static uint32_t next_random(void)
{
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8;
}

static void on_head(struct grpc_exchange *ex, void *arg)
{
    (void)arg;
    heads++;
    ex->user = &heads;
    ex->is_stream = next_random() % 4 == 0;
    ex->compression = (enum compress_level)(seed >> 4 & 3);
    if (next_random() % 8 == 0)
        grpc_fail(ex, GRPC_UNIMPLEMENTED, "none");
}

static tis_error *on_message(struct grpc_exchange *ex, size_t bytes,
                             struct http_body_memory *ret_memory, void *arg)
{
    (void)arg;
    assert(ex->user == &heads && bytes > 0 && bytes <= 100000);
    if (bytes % 1000 == 999)
        return error_no_memory();
    char *base = malloc(bytes);
    assert(base);
    *ret_memory = (struct http_body_memory){ .base = base, .bytes = bytes };
    if (ex->is_stream) {
        struct owned *o = malloc(sizeof(*o));
        assert(o);
        *o = (struct owned){ .base = base, .ex = ex };
        list_append(&owned, &o->link);
    } else {
        ret_memory->owner = base;
        ret_memory->release = free;
    }
    return NULL;
}

static void free_owned(struct owned *o)
{
    list_remove(&o->link);
    free(o->base);
    free(o);
}

/* ---- Streams: each message goes back; they end with the client, or when something is wrong ---- */

static void echo_done(struct grpc_message *m)
{
    struct owned *o = CONTAINER_OF(m, struct owned, message);
    grpc_message_release(o->ex, o->part.iov_len);
    free_owned(o);
}

static void echo(struct grpc_exchange *ex)
{
    LIST_FOREACH(it, &owned)
    {
        struct owned *o = LIST_ENTRY(it, struct owned, link);
        if (o->ex != ex || o->base != ex->message)
            continue;
        o->part = (struct iovec){ .iov_base = o->base, .iov_len = ex->message_len };
        o->message = (struct grpc_message){ .parts = &o->part, .part_count = 1, .done = echo_done };
        grpc_send(ex, &o->message);
        return;
    }
    grpc_message_release(ex, ex->message_len);
}

static void on_half_close(struct grpc_exchange *ex, void *arg)
{
    (void)arg;
    if (next_random() % 2)
        grpc_finish(ex);
    else
        grpc_fail(ex, GRPC_NOT_FOUND, "over");
}

static void on_cancel(struct grpc_exchange *ex, void *arg)
{
    (void)arg;
    assert(grpc_exchange_is_cancelled(ex) && grpc_exchange_loop(ex) == loop);
    if (ex->is_stream)
        grpc_fail(ex, GRPC_CANCELLED, "");
}

static void respond(struct grpc_exchange *ex)
{
    struct iovec part = { .iov_base = (void *)(uintptr_t)ex->message, .iov_len = ex->message_len };
    grpc_respond(ex, &part, ex->message_len > 0);
}

static void on_request(struct grpc_exchange *ex, void *arg)
{
    (void)arg;
    assert(ex->user == &heads);
    if (ex->is_stream)
        echo(ex);
    else if (next_random() % 2 && later_count < LATER_MAX)
        later[later_count++] = ex;
    else
        respond(ex);
}

static void on_end(struct grpc_exchange *ex, void *arg)
{
    (void)arg;
    assert(ex->user == &heads);
    ex->user = NULL;
    for (struct list *it = owned.next, *next; it != &owned; it = next) {
        struct owned *o = LIST_ENTRY(it, struct owned, link);
        next = it->next;
        if (o->ex == ex)
            free_owned(o); /* never complete */
    }
    ends++;
}

static void set_up(void)
{
    struct grpc_handler handler = {
        .on_head = on_head,
        .on_message = on_message,
        .on_request = on_request,
        .on_half_close = on_half_close,
        .on_cancel = on_cancel,
        .on_end = on_end,
    };
    struct grpc_server_options options = {
        .address = "127.0.0.1",
        .message_bytes_max = 100000,
        .message_bytes_flag = "--flag",
        .budget_flag = "--budget",
        .streams_max = 16,
        .budget = &budget,
    };
    list_init(&owned);
    budget_init(&budget, 50000);
    if (loop_create("fuzz", &loop) || grpc_server_create(&options, &handler, &loop, 1, &server))
        abort();
}

static void answer_run(struct loop_message *m)
{
    (void)m;
    if (later_count > 0)
        respond(later[--later_count]);
}

static void answer_later(void)
{
    static struct loop_message m = { .run = answer_run };
    loop_post(loop, &m);
    loop_run_once(loop, 0);
}

static void drop_output(int fd)
{
    static char buf[65536];
    while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fds[2];
    if (!loop)
        set_up();
    if (size == 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds))
        return 0;
    seed = *data++;
    size--;
    heads = ends = 0;
    size_t piece_max = next_random() % 3 == 0 ? 8 : 4000;
    grpc_server_adopt(server, fds[0]);
    loop_run_once(loop, 0);
    while (size > 0) {
        size_t n = 1 + next_random() % piece_max;
        ssize_t sent = send(fds[1], data, n < size ? n : size, MSG_NOSIGNAL);
        if (sent <= 0)
            break;
        data += sent;
        size -= (size_t)sent;
        loop_run_once(loop, 0);
        drop_output(fds[1]);
        if (next_random() % 4 == 0)
            answer_later();
    }
    for (int i = 0; i < 3; i++) {
        loop_run_once(loop, 0);
        drop_output(fds[1]);
    }
    close(fds[1]);
    while (later_count > 0)
        answer_later();
    for (int i = 0; i < 10 && atomic_load(&server->acceptor.conn_count) > 0; i++)
        loop_run_once(loop, 0);
    assert(atomic_load(&server->acceptor.conn_count) == 0);
    assert(heads == ends && budget.bytes == 0);
    return 0;
}
