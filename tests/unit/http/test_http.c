/* The HTTP server over real sockets on the loopback address, with its loops in threads.
 *
 * The handler's behaviour is chosen by the path (see on_head and on_request below). Clients are
 * blocking sockets with a deadline of ten seconds; every wait is for bytes, for a counter of the
 * handler, or for the end of a stream, never for time to pass. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/lock.h"
#include "http/server.h"

#define MS NS_PER_MS
#define DEADLINE_NS (10 * NS_PER_SEC)

enum {
    LOOPS_MAX = 2,
    HELD_MAX = 32,
    RESPONSE_BYTES = 8 << 20
};

/* ---- the handler ---- */

enum counter {
    HEADS,
    REQUESTS,
    CANCELS,
    ENDS,
    DONES,
    BODIES,
    RELEASES,
    ERRORS,
    COUNTERS
};

struct fixture {
    struct loop *loops[LOOPS_MAX];
    uint32_t loop_count;
    struct http_server *server;
    struct budget budget;
    struct http_server_options options;
    bool answer_on_cancel; /* exchanges that are held answer when cancelled */
    bool own_errors;       /* on_error is set */

    struct lock lock;
    struct cond changed;
    unsigned counters[COUNTERS];
    unsigned per_loop[LOOPS_MAX];
    struct http_exchange *held[HELD_MAX];
    unsigned held_count;
};

static void count(struct fixture *f, enum counter which)
{
    lock_take(&f->lock);
    f->counters[which]++;
    cond_broadcast(&f->changed);
    lock_release(&f->lock);
}

static unsigned counted(struct fixture *f, enum counter which)
{
    lock_take(&f->lock);
    unsigned value = f->counters[which];
    lock_release(&f->lock);
    return value;
}

static void wait_counter(struct fixture *f, enum counter which, unsigned value)
{
    uint64_t deadline = clock_ns() + DEADLINE_NS;
    lock_take(&f->lock);
    while (f->counters[which] < value && clock_ns() < deadline)
        cond_wait_until(&f->changed, &f->lock, deadline);
    unsigned seen = f->counters[which];
    lock_release(&f->lock);
    if (seen < value)
        fail_msg("counter %d is %u, waited for %u", (int)which, seen, value);
}

static void on_head(struct http_exchange *ex, void *arg)
{
    struct fixture *f = arg;
    count(f, HEADS);
    lock_take(&f->lock);
    for (uint32_t i = 0; i < f->loop_count; i++)
        f->per_loop[i] += http_exchange_loop(ex) == f->loops[i];
    lock_release(&f->lock);

    if (strcmp(ex->path, "/now") == 0)
        http_respond_copy(ex, 200, "Content-Type: text/plain\r\n", "now", 3);
    else if (strcmp(ex->path, "/204") == 0)
        http_respond_copy(ex, 204, NULL, NULL, 0);
    else if (strcmp(ex->path, "/max8") == 0)
        ex->body_bytes_max = 8;
    else if (strcmp(ex->path, "/max0") == 0)
        ex->body_bytes_max = 0;
    else if (strcmp(ex->path, "/exempt") == 0)
        ex->budget_exempt = true;
}

struct owned {
    struct fixture *f;
    char bytes[];
};

static void release(void *owner)
{
    struct owned *o = owner;
    count(o->f, RELEASES);
    free(o);
}

static tis_error *on_body(struct http_exchange *ex, size_t bytes,
                          struct http_body_memory *ret_memory, void *arg)
{
    struct fixture *f = arg;
    if (strcmp(ex->path, "/nobody") == 0)
        return error_new(TRITONSERVER_ERROR_UNAVAILABLE, "no room for bodies");
    count(f, BODIES);
    struct owned *o = malloc(sizeof(*o) + bytes); /* exact, so that ASan sees one byte too many */
    o->f = f;
    *ret_memory = (struct http_body_memory){
        .base = o->bytes, .bytes = bytes, .owner = o, .release = release
    };
    return NULL;
}

static void done(void *arg)
{
    count(arg, DONES);
}

static void respond_info(struct http_exchange *ex)
{
    char text[4096], q[16] = "-";
    http_query_get(ex, "q", q, sizeof(q));
    const struct http_header *h = http_header_find(ex, "x-test");
    snprintf(text, sizeof(text), "%s|%s|%s|%s|%.*s|%zu", ex->method_name, ex->path, ex->query, q,
             h ? (int)h->value_len : 1, h ? h->value : "-", ex->body_len);
    assert(strlen(ex->path) == ex->path_len && strlen(ex->query) == ex->query_len);
    http_respond_copy(ex, 200, NULL, text, strlen(text));
}

static void respond_parts(struct http_exchange *ex, struct fixture *f, uint32_t part_count,
                          size_t part_bytes)
{
    char *part = malloc(part_bytes);
    memset(part, 'p', part_bytes);
    struct iovec *iov = calloc(part_count, sizeof(*iov));
    for (uint32_t i = 0; i < part_count; i++)
        iov[i] = (struct iovec){ .iov_base = part, .iov_len = part_bytes };
    ex->user = part;
    http_respond(ex, 200, "", 0, iov, part_count, done, f);
    free(iov);
}

static void on_request(struct http_exchange *ex, void *arg)
{
    struct fixture *f = arg;
    count(f, REQUESTS);
    if (strcmp(ex->path, "/echo") == 0 || strcmp(ex->path, "/exempt") == 0) {
        struct iovec part = { .iov_base = (void *)(uintptr_t)ex->body, .iov_len = ex->body_len };
        http_respond(ex, 200, "", 0, &part, 1, done, f);
    } else if (strcmp(ex->path, "/parts") == 0) {
        respond_parts(ex, f, 3000, 7);
    } else if (strcmp(ex->path, "/big") == 0) {
        respond_parts(ex, f, 1, 64 << 20);
    } else if (strcmp(ex->path, "/later") == 0) {
        lock_take(&f->lock);
        f->held[f->held_count++] = ex;
        cond_broadcast(&f->changed);
        lock_release(&f->lock);
    } else {
        respond_info(ex);
    }
}

static void on_cancel(struct http_exchange *ex, void *arg)
{
    struct fixture *f = arg;
    assert(http_exchange_is_cancelled(ex));
    count(f, CANCELS);
    if (f->answer_on_cancel)
        http_respond(ex, 500, "", 0, NULL, 0, done, f);
}

static void on_end(struct http_exchange *ex, void *arg)
{
    if (strcmp(ex->path, "/big") == 0 || strcmp(ex->path, "/parts") == 0)
        free(ex->user);
    count(arg, ENDS);
}

static void on_error(struct http_exchange *ex, int status, const char *text, void *arg)
{
    char body[512];
    snprintf(body, sizeof(body), "own %d %s", status, text);
    count(arg, ERRORS);
    http_respond_copy(ex, status, "X-Own: 1\r\n", body, strlen(body));
}

/* ---- answering held exchanges from outside, by message, as the real program does ---- */

struct answer {
    struct loop_message message;
    struct http_exchange *ex;
    struct fixture *f;
};

static void answer_run(struct loop_message *m)
{
    struct answer *a = CONTAINER_OF(m, struct answer, message);
    static char text[] = "later";
    const struct iovec part = { .iov_base = text, .iov_len = 5 };
    http_respond(a->ex, 200, "", 0, &part, 1, done, a->f);
    free(a);
}

static void wait_held(struct fixture *f, unsigned n)
{
    uint64_t deadline = clock_ns() + DEADLINE_NS;
    lock_take(&f->lock);
    while (f->held_count < n && clock_ns() < deadline)
        cond_wait_until(&f->changed, &f->lock, deadline);
    bool ok = f->held_count >= n;
    lock_release(&f->lock);
    assert_true(ok);
}

static void answer_held(struct fixture *f, unsigned index)
{
    wait_held(f, index + 1);
    struct answer *a = calloc(1, sizeof(*a));
    a->message.run = answer_run;
    lock_take(&f->lock);
    a->ex = f->held[index];
    lock_release(&f->lock);
    a->f = f;
    loop_post(http_exchange_loop(a->ex), &a->message);
}

/* ---- set-up ---- */

static struct fixture *new_fixture(uint32_t loop_count)
{
    struct fixture *f = calloc(1, sizeof(*f));
    lock_init(&f->lock, LOCK_REGISTRY);
    cond_init(&f->changed);
    f->loop_count = loop_count;
    budget_init(&f->budget, 1 << 30);
    f->options = (struct http_server_options){
        .address = "127.0.0.1",
        .cancel_on_half_close = true,
        .budget = &f->budget,
        .limits =
            {
                .head_bytes_max = 32768,
                .body_bytes_max = 64 << 20,
                .head_ns_max = DEADLINE_NS,
                .idle_ns_max = DEADLINE_NS,
                .body_stall_ns_max = DEADLINE_NS,
                .body_rate_min = 1,
                .budget_wait_ns_max = DEADLINE_NS,
            },
    };
    return f;
}

static void start(struct fixture *f)
{
    struct http_handler handler = {
        .arg = f,
        .on_head = on_head,
        .on_body = on_body,
        .on_request = on_request,
        .on_cancel = on_cancel,
        .on_end = on_end,
        .on_error = f->own_errors ? on_error : NULL,
    };
    for (uint32_t i = 0; i < f->loop_count; i++) {
        assert_null(loop_create("http", &f->loops[i]));
        assert_null(loop_start(f->loops[i]));
    }
    assert_null(http_server_create(&f->options, &handler, f->loops, f->loop_count, &f->server));
    assert_null(http_server_start(f->server));
}

static struct fixture *started(void)
{
    struct fixture *f = new_fixture(1);
    start(f);
    return f;
}

/* Also checks what must be true at the end of every test: nothing leaks, nothing is called twice. */
static void stop(struct fixture *f)
{
    http_server_destroy(f->server);
    assert_int_equal(f->counters[BODIES], f->counters[RELEASES]);
    assert_true(f->counters[ENDS] >= f->counters[HEADS]);
    assert_int_equal(atomic_load(&f->budget.bytes), 0);
    for (uint32_t i = 0; i < f->loop_count; i++) {
        loop_stop(f->loops[i]);
        loop_destroy(f->loops[i]);
    }
    cond_fini(&f->changed);
    lock_fini(&f->lock);
    free(f);
}

/* ---- the client ---- */

static int dial(struct fixture *f)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in sin = {
        .sin_family = AF_INET,
        .sin_port = htons(http_server_port(f->server)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    struct timeval tv = { .tv_sec = 10 };
    int one = 1;
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
    return fd;
}

static void send_bytes(int fd, const void *data, size_t len)
{
    const char *at = data;
    while (len) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n < 0)
            return; /* the server may close before it has read everything */
        at += n;
        len -= (size_t)n;
    }
}

static void send_text(int fd, const char *text)
{
    send_bytes(fd, text, strlen(text));
}

/* Closes with a reset instead of an orderly end. */
static void close_reset(int fd)
{
    struct linger hard = { .l_onoff = 1 };
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(fd);
}

struct response {
    int status;
    char head[8192];
    char *body;
    size_t body_len;
};

static void response_fini(struct response *r)
{
    free(r->body);
}

/* Reads one answer, and not a byte more. no_body: an answer to HEAD. */
static void read_response_to(int fd, struct response *r, bool no_body)
{
    memset(r, 0, sizeof(*r));
    size_t len = 0;
    while (len < 4 || memcmp(r->head + len - 4, "\r\n\r\n", 4) != 0) {
        assert_true(len + 1 < sizeof(r->head));
        ssize_t n = recv(fd, r->head + len, 1, 0);
        if (n <= 0)
            fail_msg("stream ended with %zd (%s) after '%s'", n, strerror(errno), r->head);
        len++;
    }
    assert_memory_equal(r->head, "HTTP/1.1 ", 9);
    r->status = (int)strtol(r->head + 9, NULL, 10);
    const char *length = strstr(r->head, "Content-Length: ");
    if (length && !no_body)
        r->body_len = strtoul(length + 16, NULL, 10);
    r->body = calloc(1, r->body_len + 1);
    for (size_t got = 0; got < r->body_len;) {
        ssize_t n = recv(fd, r->body + got, r->body_len - got, 0);
        assert_true(n > 0);
        got += (size_t)n;
    }
}

static void read_response(int fd, struct response *r)
{
    read_response_to(fd, r, false);
}

static void expect_response(int fd, int status, const char *body)
{
    struct response r;
    read_response(fd, &r);
    if (r.status != status || (body && strcmp(body, r.body) != 0))
        fail_msg("expected %d '%s', got %d '%s'", status, body ? body : "", r.status, r.body);
    response_fini(&r);
}

static bool is_alive(int fd)
{
    send_text(fd, "GET /now HTTP/1.1\r\nHost: t\r\n\r\n");
    char c;
    if (recv(fd, &c, 1, MSG_PEEK) <= 0)
        return false;
    expect_response(fd, 200, "now");
    return true;
}

/* The server ends the stream, without a byte before. */
static void expect_end(int fd)
{
    char c;
    assert_int_equal(recv(fd, &c, 1, 0), 0);
}

/* ---- requests ---- */

static const char echo_identity[] =
    "POST /echo?x=1 HTTP/1.1\r\nHost: t\r\nContent-Length: 11\r\n\r\nhello world";
static const char echo_chunked[] =
    "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
    "5;ext=\"a\"\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX-Trailer: 1\r\n\r\n";

/* A request arrives in two pieces, cut at every place, and byte by byte: always the same answer. */
static void test_every_cut(void **state)
{
    (void)state;
    static const char *const texts[] = { echo_identity, echo_chunked };
    struct fixture *f = started();
    int fd = dial(f);
    for (size_t t = 0; t < ARRAY_LEN(texts); t++) {
        size_t len = strlen(texts[t]);
        for (size_t cut = 1; cut < len; cut++) {
            send_bytes(fd, texts[t], cut);
            send_bytes(fd, texts[t] + cut, len - cut);
            expect_response(fd, 200, "hello world");
        }
        for (size_t i = 0; i < len; i++)
            send_bytes(fd, texts[t] + i, 1);
        expect_response(fd, 200, "hello world");
    }
    close(fd);
    stop(f);
}

/* What must not be taken for a request. */
static const struct {
    const char *what;
    const char *text;
    size_t len; /* 0: strlen */
    int status;
} refused[] = {
#define POST "POST /echo HTTP/1.1\r\nHost: t\r\n"
#define WITH_NUL(text) text, sizeof(text) - 1
#define NEXT "GET /now HTTP/1.1\r\nHost: t\r\n\r\n"
    { "CL and TE", POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" NEXT, 0,
      400 },
    { "TE and CL", POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" NEXT, 0,
      400 },
    { "CL twice", POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" NEXT, 0, 400 },
    { "same CL twice", POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello" NEXT, 0, 400 },
    { "CL list", POST "Content-Length: 5, 5\r\n\r\nhello" NEXT, 0, 400 },
    { "CL sign", POST "Content-Length: +5\r\n\r\nhello" NEXT, 0, 400 },
    { "CL negative", POST "Content-Length: -5\r\n\r\nhello" NEXT, 0, 400 },
    { "CL hex", POST "Content-Length: 0x5\r\n\r\nhello" NEXT, 0, 400 },
    { "CL empty", POST "Content-Length: \r\n\r\nhello" NEXT, 0, 400 },
    { "CL blank inside", POST "Content-Length: 1 1\r\n\r\nhello" NEXT, 0, 400 },
    { "CL overflow", POST "Content-Length: 18446744073709551616\r\n\r\nhello" NEXT, 0, 400 },
    { "TE identity", POST "Transfer-Encoding: identity\r\n\r\n" NEXT, 0, 400 },
    { "TE not last", POST "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" NEXT, 0, 400 },
    { "TE gzip", POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" NEXT, 0, 501 },
    { "TE xchunked", POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" NEXT, 0, 400 },
    { "TE quoted", POST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n" NEXT, 0, 400 },
    { "TE vertical tab",
      POST "Transfer-Encoding: \x0b"
           "chunked\r\n\r\n0\r\n\r\n" NEXT,
      0, 400 },
    { "TE twice",
      POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" NEXT, 0,
      400 },
    { "TE then identity",
      POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" NEXT, 0,
      400 },
    { "TE empty", POST "Transfer-Encoding: \r\n\r\n0\r\n\r\n" NEXT, 0, 400 },
    { "TE comma", POST "Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n" NEXT, 0, 501 },
    { "TE in 1.0", "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" NEXT, 0,
      400 },
    { "blank before colon", POST "Content-Length : 5\r\n\r\nhello" NEXT, 0, 400 },
    { "TE blank before colon", POST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" NEXT, 0, 400 },
    { "tab before colon", POST "Content-Length\t: 5\r\n\r\nhello" NEXT, 0, 400 },
    { "obs-fold", POST "X-A: 1\r\n Content-Length: 5\r\n\r\n" NEXT, 0, 400 },
    { "obs-fold in TE", POST "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" NEXT, 0, 400 },
    { "first header folded", "GET /now HTTP/1.1\r\n Host: t\r\n\r\n" NEXT, 0, 400 },
    { "bare LF after line", "GET /now HTTP/1.1\nHost: t\r\n\r\n" NEXT, 0, 400 },
    { "bare LF after header", "GET /now HTTP/1.1\r\nHost: t\nX-A: 1\r\n\r\n" NEXT, 0, 400 },
    { "bare LF at end", "GET /now HTTP/1.1\r\nHost: t\r\n\n" NEXT, 0, 400 },
    { "bare CR", "GET /now HTTP/1.1\r\nHost: t\rX-A: 1\r\n\r\n" NEXT, 0, 400 },
    { "NUL in value", WITH_NUL("GET /now HTTP/1.1\r\nX-A: a\0b\r\n\r\n" NEXT), 400 },
    { "NUL in name", WITH_NUL("GET /now HTTP/1.1\r\nX\0A: ab\r\n\r\n" NEXT), 400 },
    { "NUL in path", WITH_NUL("GET /no\0w HTTP/1.1\r\nX-A: b\r\n\r\n" NEXT), 400 },
    { "DEL in value",
      "GET /now HTTP/1.1\r\nX-A: a\x7f"
      "b\r\n\r\n" NEXT,
      0, 400 },
    { "empty name", "GET /now HTTP/1.1\r\n: a\r\n\r\n" NEXT, 0, 400 },
    { "no colon", "GET /now HTTP/1.1\r\nHost\r\n\r\n" NEXT, 0, 400 },
    { "blank in name", "GET /now HTTP/1.1\r\nX A: a\r\n\r\n" NEXT, 0, 400 },
    { "Host twice", "GET /now HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" NEXT, 0, 400 },
    { "chunk size sign", POST "Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n" NEXT, 0,
      400 },
    { "chunk size 0x", POST "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n" NEXT, 0,
      400 },
    { "chunk size empty", POST "Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n" NEXT, 0,
      400 },
    { "chunk size overflow",
      POST "Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n" NEXT, 0,
      400 },
    { "chunk size huge", POST "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nhello" NEXT, 0,
      413 },
    { "chunk size blank", POST "Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n" NEXT, 0,
      400 },
    { "chunk bare LF", POST "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n" NEXT, 0,
      400 },
    { "chunk ext bare LF", POST "Transfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n" NEXT, 0,
      400 },
    { "chunk data too long", POST "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n" NEXT,
      0, 400 },
    { "chunk data LF", POST "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n" NEXT, 0,
      400 },
    { "trailer folded", POST "Transfer-Encoding: chunked\r\n\r\n0\r\nX: 1\r\n 2\r\n\r\n" NEXT, 0,
      400 },
    { "trailer bare LF", POST "Transfer-Encoding: chunked\r\n\r\n0\r\nX: 1\n\r\n" NEXT, 0, 400 },
    { "version 2.0", "GET /now HTTP/2.0\r\n\r\n" NEXT, 0, 505 },
    { "version 1.2", "GET /now HTTP/1.2\r\n\r\n" NEXT, 0, 505 },
    { "version 0.9", "GET /now HTTP/0.9\r\n\r\n" NEXT, 0, 505 },
    { "no version", "GET /now\r\n\r\n" NEXT, 0, 505 },
    { "HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, 505 },
    { "RTSP", "OPTIONS /now RTSP/1.0\r\n\r\n" NEXT, 0, 505 },
    { "unknown method", "GOT /now HTTP/1.1\r\n\r\n" NEXT, 0, 400 },
    { "lower-case method", "get /now HTTP/1.1\r\n\r\n" NEXT, 0, 400 },
    { "TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11, 400 },
    { "CONNECT", "CONNECT t:80 HTTP/1.1\r\nHost: t\r\n\r\n" NEXT, 0, 400 },
    { "relative target", "GET now HTTP/1.1\r\nHost: t\r\n\r\n" NEXT, 0, 400 },
    { "unknown expectation", POST "Expect: coffee\r\nContent-Length: 5\r\n\r\nhello" NEXT, 0, 417 },
};

/* Each is refused with its status and the connection closed, so that whatever follows is never
 * looked at. */
static void test_smuggling(void **state)
{
    (void)state;
    struct fixture *f = started();
    unsigned wrong = 0;
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        struct response r;
        int fd = dial(f);
        send_bytes(fd, refused[i].text, refused[i].len ? refused[i].len : strlen(refused[i].text));
        read_response(fd, &r);
        if (r.status != refused[i].status) {
            print_message("%s: expected %d, got %d '%s'\n", refused[i].what, refused[i].status,
                          r.status, r.body);
            wrong++;
            response_fini(&r);
            close(fd);
            continue;
        }
        assert_non_null(strstr(r.head, "Connection: close\r\n"));
        assert_true(r.body_len > 1);
        expect_end(fd);
        response_fini(&r);
        close(fd);
    }
    assert_int_equal(wrong, 0);
    assert_int_equal(counted(f, REQUESTS), 0);
    stop(f);
}

/* Unusual, and right: what the handler sees. */
static void test_forms(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *seen; /* method|path|query|q|x-test|body bytes */
    } cases[] = {
        { "GET /a HTTP/1.1\r\nHost: t\r\n\r\n", "GET|/a||-|-|0" },
        { "\r\n\r\nGET /a HTTP/1.1\r\nHost: t\r\n\r\n", "GET|/a||-|-|0" },
        { "GET /a HTTP/1.1\r\n\r\n", "GET|/a||-|-|0" },
        { "GET http://h:80/a?q=1 HTTP/1.1\r\nHost: h\r\n\r\n", "GET|/a|q=1|1|-|0" },
        { "GET /? HTTP/1.1\r\n\r\n", "GET|/||-|-|0" },
        { "GET /a?b=1&q=x%20y+z HTTP/1.1\r\n\r\n", "GET|/a|b=1&q=x%20y+z|x y z|-|0" },
        { "GET /a?q HTTP/1.1\r\n\r\n", "GET|/a|q||-|0" },
        { "GET /a?q=%zz%4 HTTP/1.1\r\n\r\n", "GET|/a|q=%zz%4|%zz%4|-|0" },
        { "GET /a?&&q=0123456789abcdefghij HTTP/1.1\r\n\r\n",
          "GET|/a|&&q=0123456789abcdefghij|0123456789abcde|-|0" },
        { "GET /a?qq=1&xq=2 HTTP/1.1\r\n\r\n", "GET|/a|qq=1&xq=2|-|-|0" },
        { "GET /a%2Fb?c?d HTTP/1.1\r\n\r\n", "GET|/a%2Fb|c?d|-|-|0" },
        { "GET /a?b#c?d HTTP/1.1\r\n\r\n", "GET|/a|b|-|-|0" },
        { "OPTIONS * HTTP/1.1\r\n\r\n", "OPTIONS|*||-|-|0" },
        { "PATCH /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nxy", "PATCH|/a||-|-|2" },
        { "GET /a HTTP/1.1\r\nX-TEST: \t v w \t \r\n\r\n", "GET|/a||-|v w|0" },
        { "GET /a HTTP/1.1\r\nx-test:\r\nY: 1\r\n\r\n", "GET|/a||-||0" },
        { "GET /a HTTP/1.1\r\nX-Test: \xc3\xa4\r\n\r\n", "GET|/a||-|\xc3\xa4|0" },
        { "GET /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "GET|/a||-|-|0" },
        { "DELETE /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "DELETE|/a||-|-|0" },
        { "PUT /a HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n0003\r\nabc\r\n000\r\n\r\n",
          "PUT|/a||-|-|3" },
        { "POST /a HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 1\r\n\r\nx",
          "POST|/a||-|-|1" },
        { "GET /a HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "GET|/a||-|-|0" },
    };
    struct fixture *f = started();
    int fd = dial(f);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        send_text(fd, cases[i].text);
        expect_response(fd, 200, cases[i].seen);
    }
    close(fd);
    stop(f);
}

/* When the connection stays and when it ends, and which headers say so. */
static void test_keep_alive(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool stays;
        const char *line; /* in the answer's head; NULL: no Connection header */
    } cases[] = {
        { "GET /a HTTP/1.1\r\n\r\n", true, NULL },
        { "GET /now HTTP/1.1\r\n\r\n", true, NULL },
        { "GET /204 HTTP/1.1\r\n\r\n", true, NULL },
        { "GET /a HTTP/1.1\r\nConnection: close\r\n\r\n", false, "Connection: close\r\n" },
        { "GET /now HTTP/1.1\r\nConnection: Close\r\n\r\n", false, "Connection: close\r\n" },
        { "GET /a HTTP/1.0\r\n\r\n", false, "Connection: close\r\n" },
        { "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true, "Connection: keep-alive\r\n" },
        { "POST /now HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", true, NULL },
        { "POST /now HTTP/1.1\r\nContent-Length: 100000\r\n\r\nabc", false,
          "Connection: close\r\n" },
        { "POST /now HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false,
          "Connection: close\r\n" },
        { "POST /now HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n", false,
          "Connection: close\r\n" },
    };
    struct fixture *f = started();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct response r;
        int fd = dial(f);
        send_text(fd, cases[i].text);
        read_response(fd, &r);
        const char *line = strstr(r.head, "Connection: ");
        if ((line != NULL) != (cases[i].line != NULL) ||
            (line && strncmp(line, cases[i].line, strlen(cases[i].line)) != 0))
            fail_msg("case %zu: %s", i, r.head);
        assert_true((strstr(r.head, "Content-Length") == NULL) == (r.status == 204));
        if (cases[i].stays)
            assert_true(is_alive(fd));
        else
            expect_end(fd);
        response_fini(&r);
        close(fd);
    }
    stop(f);
}

/* HEAD: the length of the body that GET would have, and no body. */
static void test_head(void **state)
{
    (void)state;
    struct fixture *f = started();
    int fd = dial(f);
    static const char *const paths[] = { "/now", "/parts" };
    static const char *const lengths[] = { "Content-Length: 3\r\n", "Content-Length: 21000\r\n" };
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        char text[100];
        snprintf(text, sizeof(text), "HEAD %s HTTP/1.1\r\n\r\n", paths[i]);
        send_text(fd, text);
        struct response r;
        read_response_to(fd, &r, true);
        assert_non_null(strstr(r.head, lengths[i]));
        response_fini(&r);
        assert_true(is_alive(fd));
    }
    assert_int_equal(counted(f, DONES), 1);
    close(fd);
    stop(f);
}

/* Many requests in one go, answered at once, later, and with bodies: in order, each once. More of
 * them than the stack would stand if each answer began the next request from inside. */
static void test_pipelining(void **state)
{
    (void)state;
    enum {
        ROUNDS = 20000
    };
    struct fixture *f = started();
    int fd = dial(f);
    static const char now[] = "GET /now HTTP/1.1\r\n\r\n";
    size_t one = strlen(now), len = 0;
    char *all = malloc(ROUNDS * (one + sizeof(echo_chunked)));
    for (int i = 0; i < ROUNDS; i++) {
        const char *text = i % 100 == 7 ? echo_chunked : i % 100 == 8 ? echo_identity : now;
        memcpy(all + len, text, strlen(text));
        len += strlen(text);
    }
    /* In pieces, because nobody reads the answers while we write. */
    for (size_t at = 0, answered = 0; at < len || answered < ROUNDS;) {
        size_t n = len - at < 20000 ? len - at : 20000;
        send_bytes(fd, all + at, n);
        at += n;
        size_t complete = 0;
        for (size_t pos = 0, i = 0; i < ROUNDS; i++) {
            pos += strlen(i % 100 == 7 ? echo_chunked : i % 100 == 8 ? echo_identity : now);
            if (pos > at)
                break;
            complete = i + 1;
        }
        for (; answered < complete; answered++) {
            bool is_now = answered % 100 != 7 && answered % 100 != 8;
            expect_response(fd, 200, is_now ? "now" : "hello world");
        }
    }
    free(all);

    send_text(fd,
              "GET /later HTTP/1.1\r\n\r\nGET /now HTTP/1.1\r\n\r\nGET /later HTTP/1.1\r\n\r\n");
    answer_held(f, 0);
    expect_response(fd, 200, "later");
    expect_response(fd, 200, "now");
    answer_held(f, 1);
    expect_response(fd, 200, "later");
    close(fd);
    stop(f);
}

/* More pipelined bytes than the buffer holds while the answer is outstanding: the server stops
 * reading, and goes on afterwards. */
static void test_pipelined_beyond_buffer(void **state)
{
    (void)state;
    enum {
        BYTES = 100000
    };
    struct fixture *f = started();
    int fd = dial(f);
    char *body = malloc(BYTES + 1);
    memset(body, 'b', BYTES);
    body[BYTES] = '\0';
    send_text(fd,
              "GET /later HTTP/1.1\r\n\r\nPOST /echo HTTP/1.1\r\nContent-Length: 100000\r\n\r\n");
    send_bytes(fd, body, BYTES);
    send_text(fd, "GET /now HTTP/1.1\r\n\r\n");
    answer_held(f, 0);
    expect_response(fd, 200, "later");
    expect_response(fd, 200, body);
    expect_response(fd, 200, "now");
    free(body);
    close(fd);
    stop(f);
}

/* Expect: 100-continue is answered when the body is wanted, and only then. */
static void test_expect(void **state)
{
    (void)state;
    struct fixture *f = started();
    int fd = dial(f);
    for (int i = 0; i < 2; i++) {
        send_text(
            fd,
            i ? "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-Continue\r\n\r\n"
              : "POST /echo HTTP/1.1\r\nContent-Length: 2\r\nexpect: 100-continue\r\n\r\n");
        expect_response(fd, 100, "");
        send_text(fd, i ? "2\r\nhi\r\n0\r\n\r\n" : "hi");
        expect_response(fd, 200, "hi");
    }
    /* The body comes without waiting: no interim answer is needed. */
    send_text(fd, "POST /echo HTTP/1.1\r\nContent-Length: 2\r\nexpect: 100-continue\r\n\r\nhi");
    expect_response(fd, 200, "hi");
    /* HTTP/1.0 does not know it. */
    send_text(fd, "POST /echo HTTP/1.0\r\nContent-Length: 2\r\nexpect: 100-continue\r\n\r\nhi");
    expect_response(fd, 200, "hi");
    expect_end(fd);
    close(fd);

    fd = dial(f);
    send_text(fd, "POST /max8 HTTP/1.1\r\nContent-Length: 9\r\nexpect: 100-continue\r\n\r\n");
    expect_response(fd, 413, NULL);
    expect_end(fd);
    close(fd);
    stop(f);
}

/* Bodies of many sizes around every boundary, both codings, echoed byte for byte. */
static void test_body_sizes(void **state)
{
    (void)state;
    static const size_t sizes[] = { 1,     2,     16000, 16383,   16384,   16385,
                                    32768, 65536, 99999, 1048576, 5000001, RESPONSE_BYTES };
    struct fixture *f = started();
    int fd = dial(f);
    char *data = malloc(RESPONSE_BYTES);
    for (size_t i = 0; i < RESPONSE_BYTES; i++)
        data[i] = (char)(i * 2654435761u >> 13);
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        for (int chunked = 0; chunked < 2; chunked++) {
            char head[200];
            size_t chunk = sizes[s] / 5 + 1;
            struct response r;
            if (chunked)
                snprintf(head, sizeof(head),
                         "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
            else
                snprintf(head, sizeof(head), "POST /echo HTTP/1.1\r\nContent-Length: %zu\r\n\r\n",
                         sizes[s]);
            send_text(fd, head);
            for (size_t at = 0; at < sizes[s];) {
                size_t n = chunked && sizes[s] - at > chunk ? chunk : sizes[s] - at;
                if (chunked) {
                    snprintf(head, sizeof(head), "%zx\r\n", n);
                    send_text(fd, head);
                }
                send_bytes(fd, data + at, n);
                if (chunked)
                    send_text(fd, "\r\n");
                at += n;
            }
            if (chunked)
                send_text(fd, "0\r\n\r\n");
            read_response(fd, &r);
            assert_int_equal(r.status, 200);
            assert_int_equal(r.body_len, sizes[s]);
            assert_memory_equal(r.body, data, sizes[s]);
            response_fini(&r);
        }
    }
    free(data);
    close(fd);
    stop(f);
}

/* Ten thousand chunks of one byte do not cost ten thousand buffers. */
static void test_many_chunks(void **state)
{
    (void)state;
    enum {
        CHUNKS = 10000
    };
    struct fixture *f = started();
    int fd = dial(f);
    struct response r;
    char *all = malloc(CHUNKS * 6);
    for (size_t i = 0; i < CHUNKS; i++)
        memcpy(all + i * 6, "1\r\nx\r\n", 6);
    send_text(fd, "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    send_bytes(fd, all, CHUNKS * 6);
    send_text(fd, "0\r\n\r\n");
    read_response(fd, &r);
    assert_int_equal(r.body_len, CHUNKS);
    assert_true(counted(f, BODIES) < 40);
    response_fini(&r);
    free(all);
    close(fd);
    stop(f);
}

/* A head larger than the first buffer keeps all its headers; three thousand parts are more than one
 * writev takes. */
static void test_long_head_and_many_parts(void **state)
{
    (void)state;
    struct fixture *f = started();
    int fd = dial(f);
    char *text = malloc(40000);
    int n = snprintf(text, 40000, "GET /a?q=1 HTTP/1.1\r\n");
    for (int i = 0; i < 90; i++)
        n += snprintf(text + n, 40000 - (size_t)n, "X-%d: %0300d\r\n", i, i);
    n += snprintf(text + n, 40000 - (size_t)n, "X-Test: last\r\n\r\n");
    for (int at = 0; at < n; at += 1000)
        send_bytes(fd, text + at, (size_t)(n - at < 1000 ? n - at : 1000));
    expect_response(fd, 200, "GET|/a|q=1|1|last|0");
    free(text);

    struct response r;
    send_text(fd, "GET /parts HTTP/1.1\r\n\r\n");
    read_response(fd, &r);
    assert_int_equal(r.body_len, 21000);
    for (size_t i = 0; i < r.body_len; i++)
        assert_int_equal(r.body[i], 'p');
    response_fini(&r);
    assert_true(is_alive(fd));
    close(fd);
    stop(f);
}

/* ---- limits ---- */

/* Each size limit: the status, and a text that names the flag. */
static void test_size_limits(void **state)
{
    (void)state;
    struct fixture *f = new_fixture(1);
    f->options.limits.body_bytes_max = 1000;
    f->options.limits.body_bytes_flag = "--body-flag";
    start(f);
    char *x40k = malloc(40001), *headers = malloc(4000);
    memset(x40k, 'x', 40000);
    x40k[40000] = '\0';
    headers[0] = '\0';
    size_t len = 0;
    for (int i = 0; i < 101; i++)
        len += (size_t)snprintf(headers + len, 4000 - len, "X: 1\r\n");
    const struct {
        const char *parts[3];
        int status;
        const char *text;
    } cases[] = {
        { { "GET /", x40k, " HTTP/1.1\r\n\r\n" }, 431, "--http-max-head-size" },
        { { "GET /a HTTP/1.1\r\nX: ", x40k, "\r\n\r\n" }, 431, "32768" },
        { { "GET /a HTTP/1.1\r\n", headers, "\r\n" }, 431, "too many headers" },
        { { "POST /echo HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", x40k, "" }, 413, "--body-flag" },
        { { "POST /echo HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n", "", "" },
          413,
          "" },
        { { "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n", x40k, "" },
          413,
          "1000 bytes" },
        { { "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;", x40k, "" },
          431,
          "chunk" },
        { { "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", x40k, "" },
          431,
          "trailers" },
        { { "POST /max8 HTTP/1.1\r\nContent-Length: 9\r\n\r\n", "123456789", "" }, 413, "8 bytes" },
        { { "POST /max8 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "8\r\n12345678\r\n1\r\n9\r\n0\r\n\r\n", "" },
          413,
          "at least 9" },
        { { "POST /max0 HTTP/1.1\r\nContent-Length: 1\r\n\r\n", "1", "" }, 413, "have none" },
        { { "POST /max0 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "2\r\n12\r\n0\r\n\r\n",
            "" },
          413,
          "at least 2 bytes, and here requests have none" },
        { { "POST /nobody HTTP/1.1\r\nContent-Length: 9\r\n\r\n", "123456789", "" },
          503,
          "no room for bodies" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct response r;
        int fd = dial(f);
        for (int p = 0; p < 3; p++)
            send_text(fd, cases[i].parts[p]);
        read_response(fd, &r);
        if (r.status != cases[i].status || !strstr(r.body, cases[i].text))
            fail_msg("case %zu: %d '%s'", i, r.status, r.body);
        expect_end(fd);
        response_fini(&r);
        close(fd);
    }
    assert_int_equal(counted(f, REQUESTS), 0);
    int fd = dial(f);
    send_text(fd, "POST /max8 HTTP/1.1\r\nContent-Length: 8\r\n\r\n12345678");
    expect_response(fd, 200, "POST|/max8||-|-|8");
    close(fd);
    free(x40k);
    free(headers);
    stop(f);
}

/* The handler may write the server's own errors in its dialect. */
static void test_own_errors(void **state)
{
    (void)state;
    struct fixture *f = new_fixture(1);
    f->own_errors = true;
    start(f);
    struct response r;
    int fd = dial(f);
    send_text(fd, "nonsense\r\n\r\n");
    read_response(fd, &r);
    assert_int_equal(r.status, 400);
    assert_non_null(strstr(r.head, "X-Own: 1\r\n"));
    assert_memory_equal(r.body, "own 400 ", 8);
    response_fini(&r);
    close(fd);
    wait_counter(f, ENDS, 1);
    assert_int_equal(counted(f, ERRORS), 1);
    stop(f);
}

/* Slow clients: 408 for half a head and half a body, silence for an idle connection, and a reader
 * that never reads loses its connection and gives the memory back. */
static void test_slow_clients(void **state)
{
    (void)state;
    struct fixture *f = new_fixture(1);
    f->options.limits.head_ns_max = 60 * MS;
    f->options.limits.body_stall_ns_max = 60 * MS;
    f->options.limits.idle_ns_max = NS_PER_SEC;
    start(f);
    static const struct {
        const char *text;
        int status;
    } cases[] = {
        { "GET /a HT", 408 },
        { "\r\n", 408 },
        { "POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nab", 408 },
        { "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", 408 },
        { "", 0 },
        { "GET /now HTTP/1.1\r\n\r\n", 200 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int fd = dial(f);
        send_text(fd, cases[i].text);
        if (cases[i].status)
            expect_response(fd, cases[i].status, NULL);
        expect_end(fd);
        close(fd);
    }

    int fd = dial(f);
    unsigned ends = counted(f, ENDS);
    send_text(fd, "GET /big HTTP/1.1\r\n\r\n");
    wait_counter(f, DONES, 1);
    wait_counter(f, ENDS, ends + 1);
    close(fd);
    stop(f);
}

/* Waiting for an answer has no limit: the deadline of an idle connection passes meanwhile. */
static void test_no_deadline_while_waiting(void **state)
{
    (void)state;
    struct fixture *f = new_fixture(1);
    f->options.limits.head_ns_max = 20 * MS;
    f->options.limits.body_stall_ns_max = 20 * MS;
    f->options.limits.idle_ns_max = 500 * MS;
    start(f);
    int fd = dial(f), other = dial(f);
    send_text(fd, "GET /later HTTP/1.1\r\n\r\n");
    wait_held(f, 1);
    expect_end(other); /* idled out, so the time has passed for fd as well */
    answer_held(f, 0);
    expect_response(fd, 200, "later");
    expect_end(fd);
    close(fd);
    close(other);
    stop(f);
}

/* The byte budget: what does not fit waits, in order, until bytes are given back; exempt requests
 * pass; who waits too long gets 503. */
static void test_budget(void **state)
{
    (void)state;
    struct fixture *f = new_fixture(2);
    budget_init(&f->budget, 100);
    f->options.limits.budget_wait_ns_max = 60 * NS_PER_SEC;
    start(f);
    int first = dial(f), second = dial(f), third = dial(f), exempt = dial(f);
    send_text(first, "POST /later HTTP/1.1\r\nContent-Length: 80\r\n\r\n");
    char body[81];
    memset(body, 'b', 80);
    body[80] = '\0';
    send_text(first, body);
    wait_held(f, 1);
    send_text(second, "POST /echo HTTP/1.1\r\nContent-Length: 80\r\n\r\n");
    send_text(second, body);
    send_text(third, "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n50\r\n");
    send_text(third, body);
    send_text(third, "\r\n0\r\n\r\n");
    wait_counter(f, HEADS, 3);
    send_text(exempt, "POST /exempt HTTP/1.1\r\nContent-Length: 80\r\n\r\n");
    send_text(exempt, body);
    expect_response(exempt, 200, body);
    assert_int_equal(counted(f, REQUESTS), 2);
    assert_true(is_alive(exempt)); /* no body, no charge */

    answer_held(f, 0);
    expect_response(first, 200, "later");
    expect_response(second, 200, body);
    expect_response(third, 200, body);
    /* One larger than the whole budget passes alone. */
    send_text(third, "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n50\r\n");
    send_text(third, body);
    send_text(third, "\r\n50\r\n");
    send_text(third, body);
    send_text(third, "\r\n0\r\n\r\n");
    expect_response(third, 200, NULL);
    close(first);
    close(second);
    close(third);
    close(exempt);
    stop(f);
}

static void test_budget_timeout(void **state)
{
    (void)state;
    struct fixture *f = new_fixture(1);
    budget_init(&f->budget, 100);
    f->options.limits.budget_wait_ns_max = 50 * MS;
    start(f);
    int first = dial(f), gone = dial(f);
    char body[81];
    memset(body, 'b', 80);
    body[80] = '\0';
    send_text(first, "POST /later HTTP/1.1\r\nContent-Length: 80\r\n\r\n");
    send_text(first, body);
    wait_held(f, 1);
    send_text(gone, "POST /echo HTTP/1.1\r\nContent-Length: 80\r\n\r\n");
    wait_counter(f, HEADS, 2);
    close_reset(gone); /* leaves the queue */
    wait_counter(f, ENDS, 1);
    for (int i = 0; i < 2; i++) {
        int fd = dial(f);
        struct response r;
        send_text(fd, i ? "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n50\r\n"
                        : "POST /echo HTTP/1.1\r\nContent-Length: 80\r\n\r\n");
        send_text(fd, body);
        read_response(fd, &r);
        assert_int_equal(r.status, 503);
        assert_non_null(strstr(r.body, "--max-inflight-bytes"));
        expect_end(fd);
        response_fini(&r);
        close(fd);
    }
    answer_held(f, 0);
    expect_response(first, 200, "later");
    close(first);
    stop(f);
}

/* ---- clients that go away ---- */

/* A reset cancels the outstanding request; the late answer is dropped, its memory let go, and other
 * connections do not notice. */
static void test_reset_cancels(void **state)
{
    (void)state;
    struct fixture *f = new_fixture(1);
    f->options.cancel_on_half_close = false;
    start(f);
    int fd = dial(f), other = dial(f);
    send_text(fd, "POST /later HTTP/1.1\r\nContent-Length: 2\r\n\r\nab");
    wait_held(f, 1);
    close_reset(fd);
    wait_counter(f, CANCELS, 1);
    assert_int_equal(counted(f, ENDS), 0);
    answer_held(f, 0);
    wait_counter(f, ENDS, 1);
    assert_int_equal(counted(f, DONES), 1);
    assert_int_equal(counted(f, CANCELS), 1);
    assert_true(is_alive(other));
    close(other);
    stop(f);
}

/* A client that half-closes: cancelled or answered, as the option says. Requests pipelined before
 * the end are served first. */
static void test_half_close(void **state)
{
    (void)state;
    for (int cancels = 0; cancels < 2; cancels++) {
        struct fixture *f = new_fixture(1);
        f->options.cancel_on_half_close = cancels;
        start(f);
        int fd = dial(f);
        send_text(fd, "GET /now HTTP/1.1\r\n\r\nGET /later HTTP/1.1\r\n\r\n"
                      "GET /a HTTP/1.1\r\n\r\nGET /later HTTP/1.1\r\n\r\n");
        shutdown(fd, SHUT_WR);
        expect_response(fd, 200, "now");
        answer_held(f, 0);
        expect_response(fd, 200, "later");
        expect_response(fd, 200, "GET|/a||-|-|0");
        wait_held(f, 2);
        if (cancels)
            wait_counter(f, CANCELS, 1);
        answer_held(f, 1);
        if (!cancels)
            expect_response(fd, 200, "later");
        expect_end(fd);
        wait_counter(f, ENDS, 4);
        assert_int_equal(counted(f, CANCELS), cancels);
        close(fd);
        stop(f);
    }
}

/* A client that goes away in every other state: no cancel, but an end for each head seen. */
static void test_gone_in_every_state(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "GET /a HTT",
        "POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nab",
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
        "POST /now HTTP/1.1\r\nContent-Length: 5\r\n\r\nab",
        "GET /big HTTP/1.1\r\n\r\n",
        "nonsense\r\n\r\n",
    };
    struct fixture *f = started();
    for (int reset = 0; reset < 2; reset++) {
        for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
            unsigned heads = counted(f, HEADS);
            int fd = dial(f);
            send_text(fd, texts[i]);
            if (strstr(texts[i], "\r\n\r\n") && texts[i][0] != 'n')
                wait_counter(f, HEADS, heads + 1);
            if (reset)
                close_reset(fd);
            else
                close(fd);
        }
    }
    wait_counter(f, ENDS, counted(f, HEADS));
    assert_int_equal(counted(f, CANCELS), 0);
    int fd = dial(f);
    assert_true(is_alive(fd));
    close(fd);
    stop(f);
}

/* ---- end of the server ---- */

struct drainer {
    struct fixture *f;
    uint64_t deadline_ns;
    bool result;
};

static void *drain_main(void *arg)
{
    struct drainer *d = arg;
    d->result = http_server_drain(d->f->server, d->deadline_ns);
    return NULL;
}

/* Draining: idle connections close, the port refuses, the running exchange is answered with
 * "Connection: close", and then drain returns. */
static void test_drain(void **state)
{
    (void)state;
    struct fixture *f = new_fixture(2);
    start(f);
    int busy = dial(f), idle = dial(f);
    assert_true(is_alive(idle));
    send_text(busy, "GET /later HTTP/1.1\r\n\r\n");
    wait_held(f, 1);
    /* Too early: false at the deadline. */
    assert_false(http_server_drain(f->server, clock_ns() + 10 * MS));
    expect_end(idle);

    struct drainer d = { .f = f, .deadline_ns = clock_ns() + DEADLINE_NS };
    pthread_t thread;
    pthread_create(&thread, NULL, drain_main, &d);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in sin = {
        .sin_family = AF_INET,
        .sin_port = htons(http_server_port(f->server)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), -1);
    close(fd);
    answer_held(f, 0);
    struct response r;
    read_response(busy, &r);
    assert_non_null(strstr(r.head, "Connection: close\r\n"));
    response_fini(&r);
    expect_end(busy);
    pthread_join(thread, NULL);
    assert_true(d.result);
    close(busy);
    close(idle);
    stop(f);
}

/* Destroying with everything in flight: connections close, outstanding exchanges are cancelled and
 * waited for. */
static void test_destroy_in_flight(void **state)
{
    (void)state;
    struct fixture *f = new_fixture(2);
    f->answer_on_cancel = true;
    start(f);
    int fds[6];
    static const char *const texts[] = {
        "",
        "GET /a HT",
        "POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nab",
        "GET /later HTTP/1.1\r\n\r\n",
        "GET /later HTTP/1.1\r\n\r\n",
        "GET /big HTTP/1.1\r\n\r\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = dial(f);
        send_text(fds[i], texts[i]);
    }
    wait_counter(f, HEADS, 4);
    wait_held(f, 2);
    stop(f); /* checks the counters */
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        close(fds[i]);
}

/* A server that was created and never started goes away, and its port with it. */
static void test_never_started(void **state)
{
    (void)state;
    struct fixture *f = new_fixture(1);
    start(f);
    struct http_handler handler = { .on_head = on_head, .on_request = on_request };
    struct http_server *other = NULL;
    f->options.port = http_server_port(f->server);
    tis_error *err = http_server_create(&f->options, &handler, f->loops, 1, &other);
    assert_non_null(err);
    assert_int_equal(error_code(err), TRITONSERVER_ERROR_UNAVAILABLE);
    error_free(err);
    f->options.port = 0;
    assert_null(http_server_create(&f->options, &handler, f->loops, 1, &other));
    http_server_destroy(other);
    http_server_destroy(NULL);
    stop(f);
}

/* ---- many connections ---- */

/* Sixteen connections over two loops end as eight and eight. */
static void test_balance(void **state)
{
    (void)state;
    struct fixture *f = new_fixture(2);
    start(f);
    int fds[16];
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        fds[i] = dial(f);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        assert_true(is_alive(fds[i]));
    lock_take(&f->lock);
    unsigned first = f->per_loop[0], second = f->per_loop[1];
    lock_release(&f->lock);
    assert_int_equal(first + second, 16);
    /* Two loops that accept at the same instant may both be off by one. */
    assert_true(first >= 6 && second >= 6);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        close(fds[i]);
    stop(f);
}

/* One connection too many is closed at once; when one leaves, the next is served. */
static void test_connections_max(void **state)
{
    (void)state;
    struct fixture *f = new_fixture(1);
    f->options.limits.connections_max = 2;
    start(f);
    int a = dial(f), b = dial(f);
    assert_true(is_alive(a));
    assert_true(is_alive(b));
    int c = dial(f);
    expect_end(c);
    close(c);
    send_text(b, "GET /a HTTP/1.1\r\nConnection: close\r\n\r\n");
    expect_response(b, 200, NULL);
    expect_end(b);
    close(b);
    /* The server counts b out just before it closes; the next one may still meet the old count. */
    uint64_t deadline = clock_ns() + DEADLINE_NS;
    bool served = false;
    while (!served && clock_ns() < deadline) {
        c = dial(f);
        served = is_alive(c);
        close(c);
    }
    assert_true(served);
    assert_true(is_alive(a));
    close(a);
    stop(f);
}

static unsigned open_fds(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static uint64_t cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* Without descriptors the server neither spins nor loses the waiting connection: it is served when
 * there are descriptors again. */
static void test_no_descriptors(void **state)
{
    (void)state;
    struct fixture *f = started();
    int other = dial(f);
    assert_true(is_alive(other));
    struct rlimit before, low;
    getrlimit(RLIMIT_NOFILE, &before);
    low = before;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval tv = { .tv_sec = 10 };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    (void)open_fds();
    low.rlim_cur = (rlim_t)fd + 1; /* descriptors are given out from the lowest free one */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    struct sockaddr_in sin = {
        .sin_family = AF_INET,
        .sin_port = htons(http_server_port(f->server)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    uint64_t cpu = cpu_ns();
    assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
    send_text(fd, "GET /now HTTP/1.1\r\n\r\n");
    struct timeval brief = { .tv_usec = 300000 };
    char c;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof(brief));
    assert_int_equal(recv(fd, &c, 1, MSG_PEEK), -1);
    assert_true(cpu_ns() - cpu < 150 * MS);
    assert_true(is_alive(other));
    setrlimit(RLIMIT_NOFILE, &before);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    expect_response(fd, 200, "now");
    close(fd);
    close(other);
    stop(f);
}

/* Threads of clients on two loops at once: for the sanitizers. */
static void *client_main(void *arg)
{
    struct fixture *f = arg;
    for (int i = 0; i < 10; i++) {
        int fd = dial(f);
        for (int k = 0; k < 20; k++) {
            send_text(fd, k % 2 ? echo_identity : echo_chunked);
            expect_response(fd, 200, "hello world");
        }
        if (i % 3 == 0)
            close_reset(fd);
        else
            close(fd);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct fixture *f = new_fixture(2);
    start(f);
    pthread_t threads[4];
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        pthread_create(&threads[i], NULL, client_main, f);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(counted(f, REQUESTS), 4 * 10 * 20);
    stop(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_smuggling),
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_pipelining),
        cmocka_unit_test(test_pipelined_beyond_buffer),
        cmocka_unit_test(test_expect),
        cmocka_unit_test(test_body_sizes),
        cmocka_unit_test(test_many_chunks),
        cmocka_unit_test(test_long_head_and_many_parts),
        cmocka_unit_test(test_size_limits),
        cmocka_unit_test(test_own_errors),
        cmocka_unit_test(test_slow_clients),
        cmocka_unit_test(test_no_deadline_while_waiting),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_budget_timeout),
        cmocka_unit_test(test_reset_cancels),
        cmocka_unit_test(test_half_close),
        cmocka_unit_test(test_gone_in_every_state),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_destroy_in_flight),
        cmocka_unit_test(test_never_started),
        cmocka_unit_test(test_balance),
        cmocka_unit_test(test_connections_max),
        cmocka_unit_test(test_no_descriptors),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
