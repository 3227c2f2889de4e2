/* Feeds bytes, cut in pieces, through the real connection code over a socket pair.
 *
 * The input's first byte seeds the sizes of the pieces and what the handler does; the rest is what
 * the client sends. After each piece the loop runs until it is quiet; at the end the client
 * half-closes and must see the end of the stream after what are answers and nothing else. The
 * handler checks on its side that every exchange is well-formed and ends exactly once.
 *
 * Parses: src/http/parser.c src/http/conn.c */
#include <assert.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "http/conn.h"
#include "http/server.h"

enum {
    LATER_MAX = 4,
    ROUNDS_MAX = 4000
};

static struct loop *loop;
static struct http_server *server;
static struct budget budget;
static struct http_exchange *later[LATER_MAX];
static int later_count;
static int heads, ends, bodies, releases;
static uint32_t seed;
static volatile uint64_t body_sum; /* every byte is read, so that a sanitizer can object */

static uint32_t next_random(void)
{
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8;
}

static void check_head(const struct http_exchange *ex)
{
    assert(strlen(ex->path) == ex->path_len && strlen(ex->query) == ex->query_len);
    assert(ex->path[0] == '/' || strcmp(ex->path, "*") == 0);
    for (uint32_t i = 0; i < ex->header_count; i++) {
        const struct http_header *h = &ex->headers[i];
        assert(h->name_len > 0);
        assert(!memchr(h->name, '\n', h->name_len) && !memchr(h->name, ':', h->name_len));
        assert(!memchr(h->value, '\n', h->value_len) && !memchr(h->value, '\0', h->value_len));
    }
    char value[32];
    http_query_get(ex, "q", value, sizeof(value));
}

static void on_head(struct http_exchange *ex, void *arg)
{
    (void)arg;
    heads++;
    check_head(ex);
    ex->user = &heads;
    if (next_random() % 4 == 0)
        http_respond_copy(ex, 200, NULL, "now", 3);
    else
        ex->body_bytes_max = 3000;
}

static void release(void *owner)
{
    releases++;
    free(owner);
}

static tis_error *on_body(struct http_exchange *ex, size_t bytes,
                          struct http_body_memory *ret_memory, void *arg)
{
    (void)arg;
    assert(ex->user == &heads && bytes > 0 && bytes <= 3000);
    if (next_random() % 16 == 0)
        return error_new(TRITONSERVER_ERROR_UNAVAILABLE, "no");
    bodies++;
    char *base = malloc(bytes);
    *ret_memory = (struct http_body_memory){
        .base = base, .bytes = bytes, .owner = base, .release = release
    };
    return NULL;
}

static void respond(struct http_exchange *ex)
{
    struct iovec part = { .iov_base = (void *)(uintptr_t)ex->body, .iov_len = ex->body_len };
    http_respond(ex, 200, "X: y\r\n", 6, &part, 1, NULL, NULL);
}

static void on_request(struct http_exchange *ex, void *arg)
{
    (void)arg;
    assert(ex->user == &heads);
    for (size_t i = 0; i < ex->body_len; i++)
        body_sum += (unsigned char)ex->body[i];
    if (next_random() % 2 && later_count < LATER_MAX)
        later[later_count++] = ex;
    else
        respond(ex);
}

static void on_cancel(struct http_exchange *ex, void *arg)
{
    (void)arg;
    assert(http_exchange_is_cancelled(ex));
}

static void on_end(struct http_exchange *ex, void *arg)
{
    (void)arg;
    assert(ex->user == &heads);
    ex->user = NULL;
    ends++;
}

static void answer_later_run(struct loop_message *m)
{
    (void)m;
    if (later_count)
        respond(later[--later_count]);
}

static void on_http2(struct transport *from, const void *bytes, size_t len, void *arg)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    (void)arg;
    assert(heads == ends && len >= sizeof(preface) - 1);
    assert(memcmp(bytes, preface, sizeof(preface) - 1) == 0);
    transport_close(from);
}

static void set_up(void)
{
    struct http_handler handler = {
        .on_head = on_head,
        .on_body = on_body,
        .on_request = on_request,
        .on_cancel = on_cancel,
        .on_end = on_end,
    };
    budget_init(&budget, 2000);
    struct http_server_options options = {
        .address = "127.0.0.1",
        .cancel_on_half_close = true,
        .budget = &budget,
        .on_http2 = on_http2,
        .limits = { .head_bytes_max = 40000, .body_bytes_max = 1 << 20 },
    };
    if (loop_create("fuzz", &loop) || http_server_create(&options, &handler, &loop, 1, &server))
        abort();
}

/* What comes back is a sequence of answers with correct framing. The answers to HEAD carry a length
 * and no body, which only their request tells, so a body that looks like a status line is none. */
static void check_answers(const char *s, size_t len)
{
    while (len) {
        assert(len > 12 && memcmp(s, "HTTP/1.1 ", 9) == 0);
        const char *end = memmem(s, len, "\r\n\r\n", 4);
        assert(end);
        const char *length = memmem(s, (size_t)(end - s) + 2, "Content-Length: ", 16);
        size_t body = length ? strtoul(length + 16, NULL, 10) : 0;
        len -= (size_t)(end + 4 - s);
        s = end + 4;
        if (len >= 9 && memcmp(s, "HTTP/1.1 ", 9) == 0)
            continue;
        if (body > len)
            return; /* HEAD as the last one */
        s += body;
        len -= body;
    }
}

static char answers[1 << 20];
static size_t answers_len;

/* Returns false at the end of the stream. */
static bool read_answers(int fd)
{
    for (;;) {
        ssize_t n = recv(fd, answers + answers_len, sizeof(answers) - answers_len, MSG_DONTWAIT);
        if (n < 0)
            return true;
        if (n == 0)
            return false;
        answers_len += (size_t)n;
    }
}

static void answer_later(void)
{
    static struct loop_message m = { .run = answer_later_run };
    loop_post(loop, &m);
    loop_run_once(loop, 0);
}

/* Runs the loop until a round or two change nothing. */
static bool settle(int fd)
{
    bool is_open = true;
    for (int i = 0; i < 3; i++) {
        loop_run_once(loop, 0);
        is_open = read_answers(fd);
    }
    return is_open;
}

static bool send_pieces(int fd, const uint8_t *data, size_t size)
{
    bool is_open = true;
    size_t piece_max = next_random() % 3 == 0 ? 8 : 4000;
    while (size && is_open) {
        size_t n = 1 + next_random() % piece_max;
        if (n > size)
            n = size;
        ssize_t sent = send(fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) {
            data += sent;
            size -= (size_t)sent;
        }
        is_open = settle(fd);
        if (next_random() % 3 == 0)
            answer_later();
    }
    return is_open;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!loop)
        set_up();
    if (size < 1)
        return 0;
    seed = data[0] * 2654435761u;
    heads = ends = bodies = releases = later_count = 0;
    answers_len = 0;

    int s[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, s) < 0)
        abort();
    http_server_adopt(server, s[0]);
    loop_run_once(loop, 0);

    bool is_open = send_pieces(s[1], data + 1, size - 1);
    bool is_rude = next_random() % 8 == 0;
    if (is_rude)
        close(s[1]);
    else
        shutdown(s[1], SHUT_WR);
    for (int i = 0; i < ROUNDS_MAX && atomic_load(&server->acceptor.conn_count); i++) {
        if (!is_rude && is_open)
            is_open = settle(s[1]);
        else
            loop_run_once(loop, 0);
        answer_later();
    }
    if (!is_rude) {
        read_answers(s[1]);
        close(s[1]);
        check_answers(answers, answers_len);
    }

    assert(atomic_load(&server->acceptor.conn_count) == 0);
    assert(heads == ends && bodies == releases && later_count == 0);
    assert(atomic_load(&budget.bytes) == 0);
    return 0;
}
