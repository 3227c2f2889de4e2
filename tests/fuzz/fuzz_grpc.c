/* Feeds bytes, cut in pieces, through the gRPC server's connection code over a socket pair.
 *
 * The first byte seeds the sizes of the pieces and what the handler does; the rest is what the
 * client sends. Every exchange that is seen ends exactly once, and all memory comes back. */
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
    if (next_random() % 8 == 0)
        grpc_fail(ex, GRPC_UNIMPLEMENTED, "none");
}

static tis_error *on_message(struct grpc_exchange *ex, size_t bytes,
                             struct http_body_memory *ret_memory, void *arg)
{
    (void)arg;
    assert(ex->user == &heads && bytes > 0 && bytes <= 100000);
    char *base = malloc(bytes);
    assert(base);
    *ret_memory =
        (struct http_body_memory){ .base = base, .bytes = bytes, .owner = base, .release = free };
    return NULL;
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
    if (next_random() % 2 && later_count < LATER_MAX)
        later[later_count++] = ex;
    else
        respond(ex);
}

static void on_end(struct grpc_exchange *ex, void *arg)
{
    (void)arg;
    assert(ex->user == &heads);
    ex->user = NULL;
    ends++;
}

static void set_up(void)
{
    struct grpc_handler handler = {
        .on_head = on_head,
        .on_message = on_message,
        .on_request = on_request,
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
    for (int i = 0; i < 10 && atomic_load(&server->conn_count) > 0; i++)
        loop_run_once(loop, 0);
    assert(atomic_load(&server->conn_count) == 0);
    assert(heads == ends && budget.bytes == 0);
    return 0;
}
