/* Large messages that are read straight to their place: whatever follows the frame that has begun, the
 * outcome is that of bytes which come all at once and are copied.
 *
 * One loop, driven by the test. A case is a row of HTTP/2 frames; it is sent in two parts, cut at many
 * places, so that the second part is what a plan was made for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "grpc/conn.h"

enum {
    MESSAGE_BYTES = 90000,
    FRAME_BYTES = 8000,
    CUT_STEP = 449,
    BUDGET_BYTES = 1 << 20,
    FRAMES_MAX = 64,
};

enum flag {
    END = 1,
    HEADERS_DONE = 4,
    PADDED = 8,
};

/* What handlers have seen, in a form that two runs can be compared by. */
struct outcome {
    int heads, requests, ends, cancels;
    uint64_t digest; /* of the messages */
};

static struct outcome seen;
static struct loop *loop;
static struct grpc_server *server;
static struct budget budget;

static void on_head(struct grpc_exchange *ex, void *arg)
{
    (void)arg;
    seen.heads++;
    ex->is_stream = strcmp(ex->path, "/stream") == 0;
}

static tis_error *on_message(struct grpc_exchange *ex, size_t bytes,
                             struct http_body_memory *ret_memory, void *arg)
{
    (void)arg;
    /* Exactly as long as it must be, so that a byte behind it is found. */
    char *base = malloc(bytes);
    assert_non_null(base);
    *ret_memory = (struct http_body_memory){ .base = base, .bytes = bytes };
    if (ex->is_stream) {
        ex->user = base; /* for on_end, when it does not become a request */
    } else {
        ret_memory->owner = base;
        ret_memory->release = free;
    }
    return NULL;
}

static void on_request(struct grpc_exchange *ex, void *arg)
{
    (void)arg;
    seen.requests++;
    for (size_t i = 0; i < ex->message_len; i++)
        seen.digest = seen.digest * 1099511628211u + (uint8_t)ex->message[i] + 1;
    if (ex->is_stream) {
        free(ex->user);
        ex->user = NULL;
        grpc_message_release(ex, ex->message_len);
    } else {
        grpc_respond(ex, NULL, 0);
    }
}

static void on_half_close(struct grpc_exchange *ex, void *arg)
{
    (void)arg;
    grpc_finish(ex);
}

static void on_cancel(struct grpc_exchange *ex, void *arg)
{
    (void)arg;
    seen.cancels++;
    grpc_fail(ex, GRPC_CANCELLED, "");
}

static void on_end(struct grpc_exchange *ex, void *arg)
{
    (void)arg;
    free(ex->user);
    seen.ends++;
}

static int set_up(void **state)
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
        .message_bytes_max = 8 << 20,
        .message_bytes_flag = "--flag",
        .streams_max = 16,
        .budget = &budget,
        .budget_wait_ns_max = 10 * NS_PER_SEC,
    };
    (void)state;
    budget_init(&budget, BUDGET_BYTES);
    assert_null(loop_create("test", &loop));
    assert_null(grpc_server_create(&options, &handler, &loop, 1, &server));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    grpc_server_destroy(server);
    loop_destroy(loop);
    return 0;
}

/* ---- Frames ---- */

/* Where the frames of the case end on the wire. */
static size_t frame_ends[FRAMES_MAX];
static size_t frame_count;

static void frame(struct bytes *out, int type, int flags, uint32_t id, const void *data, size_t len)
{
    uint8_t head[9] = { (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len,
                        (uint8_t)type,        (uint8_t)flags,      (uint8_t)(id >> 24),
                        (uint8_t)(id >> 16),  (uint8_t)(id >> 8),  (uint8_t)id };
    bytes_append(out, head, sizeof(head));
    bytes_append(out, data, len);
    assert_true(frame_count < FRAMES_MAX);
    frame_ends[frame_count++] = out->len;
}

static void begin(struct bytes *out)
{
    frame_count = 0;
    bytes_append_str(out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    frame(out, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
    frame(out, NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, NULL, 0); /* of ours, sent when adopted */
}

/* POST, http, an authority, the path, content type and te; nothing for the dynamic table. */
static void call(struct bytes *out, uint32_t id, const char *path)
{
    struct bytes block = { 0 };
    bytes_append(&block, "\x83\x86\x01\x01t\x04", 6);
    bytes_append_char(&block, (char)strlen(path));
    bytes_append_str(&block, path);
    bytes_append(&block, "\x0f\x10\x10", 3);
    bytes_append_str(&block, "application/grpc");
    bytes_append(&block, "\0\x02te\x08trailers", 13);
    frame(out, NGHTTP2_HEADERS, HEADERS_DONE, id, block.data, block.len);
    bytes_fini(&block);
}

static void append_message(struct bytes *out, size_t len)
{
    char prefix[5] = { 0, (char)(len >> 24), (char)(len >> 16), (char)(len >> 8), (char)len };
    bytes_append(out, prefix, sizeof(prefix));
    for (size_t i = 0; i < len; i++)
        bytes_append_char(out, (char)(i * 7 + i / 251));
}

/* The next n bytes of a body, as far as it goes; at its end END when `ends`. */
static bool send_some(struct bytes *out, const struct bytes *body, size_t *at, size_t n, bool ends)
{
    if (n > body->len - *at)
        n = body->len - *at;
    bool is_last = *at + n == body->len;
    frame(out, NGHTTP2_DATA, is_last && ends ? END : 0, 1, body->data + *at, n);
    *at += n;
    return !is_last;
}

/* ---- Cases: what comes on the wire ---- */

static void even_frames(struct bytes *out, const struct bytes *body)
{
    size_t at = 0;
    while (send_some(out, body, &at, FRAME_BYTES, true))
        continue;
}

static void end_alone(struct bytes *out, const struct bytes *body)
{
    size_t at = 0;
    while (send_some(out, body, &at, FRAME_BYTES, false))
        continue;
    frame(out, NGHTTP2_DATA, END, 1, NULL, 0);
}

static void odd_frames(struct bytes *out, const struct bytes *body)
{
    static const size_t sizes[] = {
        8000, 8000, 7999, 8001, 1, 8000, 0, 12000, 500, 8000, 8000, 8000
    };
    size_t at = 0, i = 0;
    while (send_some(out, body, &at, sizes[i++ % ARRAY_LEN(sizes)], true))
        continue;
}

static void with_pings(struct bytes *out, const struct bytes *body)
{
    size_t at = 0;
    for (int i = 0; send_some(out, body, &at, FRAME_BYTES, true); i++) {
        if (i % 3 == 2)
            frame(out, NGHTTP2_PING, 0, 0, "12345678", 8);
    }
}

static void with_padding(struct bytes *out, const struct bytes *body)
{
    static const char zeros[200];
    struct bytes padded = { 0 };
    size_t at = 0;
    for (int i = 0; at < body->len; i++) {
        if (i % 3 != 2) {
            send_some(out, body, &at, FRAME_BYTES, true);
            continue;
        }
        size_t n = body->len - at < 4000 ? body->len - at : 4000;
        bytes_clear(&padded);
        bytes_append_char(&padded, 100);
        bytes_append(&padded, body->data + at, n);
        bytes_append(&padded, zeros, 100);
        at += n;
        frame(out, NGHTTP2_DATA, PADDED | (at == body->len ? END : 0), 1, padded.data, padded.len);
    }
    bytes_fini(&padded);
}

/* Frames of another call, as long as the first one's. */
static void with_other_call(struct bytes *out, const struct bytes *body)
{
    size_t at = 0, other = 0;
    call(out, 3, "/unary");
    for (int i = 0; send_some(out, body, &at, FRAME_BYTES, true); i++) {
        if (i % 3 != 1)
            continue;
        size_t n = body->len - other < FRAME_BYTES ? body->len - other : FRAME_BYTES;
        frame(out, NGHTTP2_DATA, 0, 3, body->data + other, n);
        other += n;
    }
    frame(out, NGHTTP2_DATA, END, 3, body->data + other, body->len - other);
}

/* The memory is given back while frames as guessed are still to come. */
static void with_reset(struct bytes *out, const struct bytes *body)
{
    size_t at = 0;
    for (int i = 0; i < 6; i++)
        send_some(out, body, &at, FRAME_BYTES, true);
    frame(out, NGHTTP2_RST_STREAM, 0, 1, "\0\0\0\x08", 4);
    while (send_some(out, body, &at, FRAME_BYTES, true))
        continue;
}

static void with_early_end(struct bytes *out, const struct bytes *body)
{
    size_t at = 0;
    for (int i = 0; i < 5; i++)
        send_some(out, body, &at, FRAME_BYTES, true);
    frame(out, NGHTTP2_DATA, END, 1, body->data + at, FRAME_BYTES);
    at += FRAME_BYTES;
    while (send_some(out, body, &at, FRAME_BYTES, true))
        continue;
}

static void with_more_behind(struct bytes *out, const struct bytes *body)
{
    size_t at = 0;
    struct bytes longer = { 0 };
    bytes_append(&longer, body->data, body->len);
    append_message(&longer, 50);
    while (send_some(out, &longer, &at, FRAME_BYTES, true))
        continue;
    bytes_fini(&longer);
}

static void with_bad_frame(struct bytes *out, const struct bytes *body)
{
    size_t at = 0;
    for (int i = 0; i < 4; i++)
        send_some(out, body, &at, FRAME_BYTES, true);
    frame(out, NGHTTP2_HEADERS, HEADERS_DONE, 5, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    while (send_some(out, body, &at, FRAME_BYTES, true))
        continue;
}

static const struct {
    void (*send)(struct bytes *out, const struct bytes *body);
    int requests;        /* of a unary call */
    int stream_requests; /* the body is three messages then */
} cases[] = {
    { even_frames, 1, 3 },    { end_alone, 1, 3 },      { odd_frames, 1, 3 },
    { with_pings, 1, 3 },     { with_padding, 1, 3 },   { with_other_call, 2, 3 },
    { with_reset, 0, 1 },     { with_early_end, 0, 1 }, { with_more_behind, 0, 4 },
    { with_bad_frame, 0, 0 },
};

/* ---- Running them ---- */

static void rounds(int fd)
{
    static char answer[65536];
    for (int i = 0; i < 12; i++) {
        loop_run_once(loop, 0);
        while (recv(fd, answer, sizeof(answer), MSG_DONTWAIT) > 0)
            continue;
    }
}

static struct outcome run(const struct bytes *wire, size_t cut)
{
    int fds[2], bytes = 1 << 20;
    seen = (struct outcome){ 0 };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    grpc_server_adopt(server, fds[0]);
    rounds(fds[1]);
    assert_int_equal(send(fds[1], wire->data, cut, MSG_NOSIGNAL), cut);
    rounds(fds[1]);
    /* The connection may have been closed for what came before the cut. */
    ssize_t n = send(fds[1], wire->data + cut, wire->len - cut, MSG_NOSIGNAL);
    assert_true(n < 0 || (size_t)n == wire->len - cut);
    rounds(fds[1]);
    close(fds[1]);
    rounds(fds[1]);
    assert_int_equal(atomic_load(&server->acceptor.conn_count), 0);
    assert_int_equal(seen.heads, seen.ends);
    return seen;
}

static void run_cut(size_t i, const struct bytes *wire, size_t cut, const struct outcome *expected)
{
    struct outcome found = run(wire, cut);
    if (memcmp(&found, expected, sizeof(found)) != 0)
        fail_msg(
            "case %zu cut at %zu: %d requests, digest %llx, %d cancelled; expected %d, %llx, %d", i,
            cut, found.requests, (unsigned long long)found.digest, found.cancels,
            expected->requests, (unsigned long long)expected->digest, expected->cancels);
}

static void run_cases(const char *path, bool is_stream)
{
    struct bytes body = { 0 };
    append_message(&body, is_stream ? 38000 : MESSAGE_BYTES);
    if (is_stream) {
        append_message(&body, 45000);
        append_message(&body, 700);
    }
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct bytes wire = { 0 };
        begin(&wire);
        call(&wire, 1, path);
        cases[i].send(&wire, &body);
        struct outcome expected = run(&wire, 24);
        assert_int_equal(expected.requests,
                         is_stream ? cases[i].stream_requests : cases[i].requests);
        for (size_t cut = 24 + 9; cut < wire.len; cut += CUT_STEP)
            run_cut(i, &wire, cut, &expected);
        /* Between two frames, and inside of a head. */
        for (size_t k = 0; k + 1 < frame_count; k++) {
            run_cut(i, &wire, frame_ends[k], &expected);
            run_cut(i, &wire, frame_ends[k] + 4, &expected);
        }
        bytes_fini(&wire);
    }
    bytes_fini(&body);
}

static void test_unary(void **state)
{
    (void)state;
    run_cases("/unary", false);
}

static void test_stream(void **state)
{
    (void)state;
    run_cases("/stream", true);
}

/* The rest of a head, with the bytes behind it, looks like a head of the same stream and length. */
static void test_half_head(void **state)
{
    enum {
        ID = 8001
    };
    static const char disguise[] = { 0, 0, 0, 0, ID >> 8, ID & 255 };
    struct bytes wire = { 0 }, body = { 0 };
    (void)state;
    begin(&wire);
    call(&wire, ID, "/unary");
    append_message(&body, MESSAGE_BYTES);
    for (size_t at = 0; at < body.len; at += ID) {
        size_t n = body.len - at < ID ? body.len - at : ID;
        if (at > 0)
            memcpy(body.data + at, disguise, sizeof(disguise));
        frame(&wire, NGHTTP2_DATA, at + n == body.len ? END : 0, ID, body.data + at, n);
    }
    struct outcome expected = run(&wire, 24);
    assert_int_equal(expected.requests, 1);
    for (size_t k = 0; k + 1 < frame_count; k++)
        run_cut(k, &wire, frame_ends[k] + 6, &expected);
    bytes_fini(&wire);
    bytes_fini(&body);
}

/* The message has no memory yet: it waits for the budget while more of its frame comes. */
static void test_waiting(void **state)
{
    struct bytes wire = { 0 }, body = { 0 };
    int fds[2];
    (void)state;
    begin(&wire);
    call(&wire, 1, "/unary");
    size_t cut = wire.len + 9 + FRAME_PREFIX_BYTES;
    append_message(&body, MESSAGE_BYTES);
    even_frames(&wire, &body);
    seen = (struct outcome){ 0 };
    budget_force(&budget, BUDGET_BYTES);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    grpc_server_adopt(server, fds[0]);
    rounds(fds[1]);
    assert_int_equal(send(fds[1], wire.data, cut, MSG_NOSIGNAL), cut);
    rounds(fds[1]);
    assert_int_equal(send(fds[1], wire.data + cut, wire.len - cut, MSG_NOSIGNAL), wire.len - cut);
    rounds(fds[1]);
    assert_int_equal(seen.requests, 0);
    budget_give(&budget, BUDGET_BYTES);
    uint64_t deadline = clock_ns() + 10 * NS_PER_SEC;
    while (seen.requests == 0 && clock_ns() < deadline)
        loop_run_once(loop, NS_PER_SEC);
    assert_int_equal(seen.requests, 1);
    close(fds[1]);
    rounds(fds[1]);
    assert_int_equal(budget.bytes, 0);
    bytes_fini(&wire);
    bytes_fini(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_unary, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stream, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_half_head, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_waiting, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
