/* http/conn.c - the life of a connection.
 *
 * Every event (bytes, room to write, a timer, an answer, bytes of the budget) first does its own
 * small thing and then calls conn_run(), which repeats step() until nothing more can be done. The
 * handler's callbacks run inside step(); what they call (http_respond) finds is_running set and
 * leaves the consequences to the step() that is on the stack already. So pipelined requests that
 * are answered at once are a loop, not a recursion, and only conn_run() frees a connection.
 *
 * Timers. A deadline moves with every byte, but the timer is armed again only when the new deadline
 * is *earlier* than the armed one; when it fires too early it looks at the real deadline and arms
 * itself for that. A busy connection so touches the heap a few times a minute, not per request.
 *
 * The end of the peer's stream counts where it stands in the stream: requests that were pipelined
 * before it are served first, and only the last of them meets a client that may be gone.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "http/conn.h"

#define LINGER_NS_MAX (2 * NS_PER_SEC)
#define RATE_GRACE_NS (10 * NS_PER_SEC)

static uint64_t now_ns(const struct conn *c)
{
    return loop_now_ns(c->shard->loop);
}

static bool is_lost(const struct conn *c)
{
    return !transport_is_open(&c->base.transport);
}

/* ---- answers of our own ---- */

static void refuse(struct conn *c, int status, const char *text)
{
    struct exchange *x = c->x;
    const struct http_handler *handler = c->shard->handler;
    assert(!x->is_answered);
    c->is_last = true;
    if (handler->on_error) {
        x->is_seen = true;
        handler->on_error(&x->pub, status, text, handler->arg);
    }
    if (!x->is_answered) {
        char body[600];
        int n = snprintf(body, sizeof(body), "%s\n", text);
        size_t len = n < 0 ? 0 : (size_t)n < sizeof(body) ? (size_t)n : sizeof(body) - 1;
        http_respond_copy(&x->pub, status, "Content-Type: text/plain\r\n", body, len);
    }
}

PRINTF(3, 4) static void refusef(struct conn *c, int status, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    refuse(c, status, text);
}

static void refuse_head_size(struct conn *c)
{
    const struct http_limits *limits = c->shard->limits;
    refusef(c, 431,
            "request head is larger than the limit of %zu bytes. Use %s to increase the limit.",
            limits->head_bytes_max, limits->head_bytes_flag);
}

static void refuse_body_size(struct conn *c, uint64_t bytes)
{
    const char *at_least = c->x->parser.is_chunked ? "at least " : "";
    unsigned long long max = c->x->pub.body_bytes_max;
    if (max == 0)
        refusef(c, 413, "request has a body of %s%llu bytes, and here requests have none", at_least,
                (unsigned long long)bytes);
    else
        refusef(c, 413,
                "request body of %s%llu bytes is larger than the limit of %llu bytes. Use %s to "
                "increase the limit.",
                at_least, (unsigned long long)bytes, max, c->shard->limits->body_bytes_flag);
}

/* ---- body memory and the byte budget ---- */

static void free_body(void *base)
{
    free(base);
}

static void release_memory(struct http_body_memory *m)
{
    if (m->release)
        m->release(m->owner);
    memset(m, 0, sizeof(*m));
}

/* Takes what the exchange needs for a body buffer of `bytes` in exchange for what it holds. The
 * whole is asked for, not the difference, so that one body alone may pass a budget that is smaller. */
static bool charge(struct conn *c, size_t bytes)
{
    struct exchange *x = c->x;
    struct budget *budget = c->shard->budget;
    if (!budget || x->pub.budget_exempt)
        return true;
    budget_give(budget, x->budget_bytes);
    if (!budget_take(budget, bytes)) {
        budget_force(budget, x->budget_bytes);
        return false;
    }
    x->budget_bytes = bytes;
    return true;
}

/* Gets body memory of `bytes` and moves there what has arrived; refuses the request on failure. */
static bool get_memory(struct conn *c, size_t bytes)
{
    struct exchange *x = c->x;
    const struct http_handler *handler = c->shard->handler;
    struct http_body_memory m = { 0 };
    tis_error *err = NULL;
    if (handler->on_body) {
        err = handler->on_body(&x->pub, bytes, &m, handler->arg);
    } else {
        m = (struct http_body_memory){ .base = malloc(bytes),
                                       .bytes = bytes,
                                       .release = free_body };
        m.owner = m.base;
        if (!m.base)
            err = error_no_memory();
    }
    if (err) {
        refuse(c, 503, error_text(err));
        error_free(err);
        return false;
    }
    assert(m.base && m.bytes >= bytes);
    if (x->body_len)
        memcpy(m.base, x->memory.base, x->body_len);
    release_memory(&x->memory);
    x->memory = m;
    x->room = bytes;
    x->parser.out = m.base + x->body_len;
    return true;
}

/* Makes room for a body of `bytes`; false: not now (IN_BUDGET) or never (refused). */
static bool make_room(struct conn *c, size_t bytes)
{
    struct exchange *x = c->x;
    struct shard *s = c->shard;
    if (bytes <= x->room)
        return true;
    if ((list_is_empty(&s->budget_queue) || x->pub.budget_exempt) && charge(c, bytes))
        return get_memory(c, bytes);

    x->room_wanted = bytes;
    c->in = IN_BUDGET;
    c->progress_ns = now_ns(c);
    list_append(&s->budget_queue, &c->in_budget_queue);
    server_budget_wait(s);
    return false;
}

bool conn_retry_budget(struct conn *c)
{
    assert(c->in == IN_BUDGET);
    if (!charge(c, c->x->room_wanted))
        return false;
    list_remove(&c->in_budget_queue);
    c->in = IN_BODY;
    c->progress_ns = now_ns(c);
    c->is_running = true;
    get_memory(c, c->x->room_wanted);
    c->is_running = false;
    conn_run(c);
    return true;
}

/* ---- input: head ---- */

static enum http_method method_of(const char *name)
{
    static const struct {
        const char *name;
        enum http_method method;
    } methods[] = {
        { "POST", HTTP_POST }, { "GET", HTTP_GET },       { "HEAD", HTTP_HEAD },
        { "PUT", HTTP_PUT },   { "DELETE", HTTP_DELETE },
    };
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        if (strcmp(name, methods[i].name) == 0)
            return methods[i].method;
    }
    return HTTP_OTHER;
}

/* Splits the request target into path and query and ends both with NUL: the byte behind the target
 * is a blank of the request line, the one behind the path a '?'. */
static bool split_target(struct exchange *x)
{
    char *at = x->buf + (x->parser.url - x->buf);
    char *end = at + x->parser.url_len;
    if (x->parser.url_len > 7 && strncasecmp(at, "http://", 7) == 0) {
        char *slash = memchr(at + 7, '/', (size_t)(end - at) - 7);
        if (!slash)
            return false;
        at = slash;
    }
    char *fragment = memchr(at, '#', (size_t)(end - at));
    if (fragment)
        end = fragment;
    if (at == end || (*at != '/' && (*at != '*' || end - at != 1)))
        return false;
    *end = '\0';

    char *mark = memchr(at, '?', (size_t)(end - at));
    x->pub.path = at;
    x->pub.path_len = (size_t)((mark ? mark : end) - at);
    if (mark) {
        *mark = '\0';
        x->pub.query = mark + 1;
        x->pub.query_len = (size_t)(end - mark) - 1;
    }
    return true;
}

/* The headers that are the connection's business. Returns a status to refuse with, or 0. */
static int scan_headers(struct exchange *x, const char **ret_text)
{
    bool has_host = false;
    for (uint32_t i = 0; i < x->parser.header_count; i++) {
        const struct http_header *h = &x->parser.headers[i];
        if (h->name_len == 4 && strncasecmp(h->name, "host", 4) == 0) {
            if (has_host) {
                *ret_text = "more than one Host header";
                return 400;
            }
            has_host = true;
        } else if (h->name_len == 6 && strncasecmp(h->name, "expect", 6) == 0) {
            if (h->value_len != 12 || strncasecmp(h->value, "100-continue", 12) != 0) {
                *ret_text = "the only expectation understood here is 100-continue";
                return 417;
            }
            x->expects_continue = !x->parser.is_http10;
        }
    }
    return 0;
}

/* Fills in the public part; refuses what is wrong. */
static bool accept_head(struct conn *c)
{
    struct exchange *x = c->x;
    const char *text = NULL;
    int status = scan_headers(x, &text);
    if (status != 0) {
        refuse(c, status, text);
        return false;
    }
    if (!split_target(x)) {
        refuse(c, 400, "the request target is not a path");
        return false;
    }
    x->pub.method_name = x->parser.method_name;
    x->pub.method = method_of(x->parser.method_name);
    x->pub.header_count = x->parser.header_count;
    x->pub.has_content_length = x->parser.has_content_length;
    x->pub.content_length = x->parser.content_length;
    x->pub.body_bytes_max = c->shard->limits->body_bytes_max;
    x->pub.body = "";
    return true;
}

static void ask(struct conn *c)
{
    struct exchange *x = c->x;
    const struct http_handler *handler = c->shard->handler;
    c->in = IN_DONE;
    x->is_asked = true;
    x->pub.body = x->memory.base ? x->memory.base : "";
    x->pub.body_len = x->body_len;
    x->pub.content_length = x->body_len;
    x->pub.recv_end_ns = now_ns(c);
    handler->on_request(&x->pub, handler->arg);
}

/* The interim answer is 25 bytes into a socket that has nothing else to send; if it does not fit,
 * something is badly wrong with the peer. */
static void send_continue(struct conn *c)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    c->x->expects_continue = false;
    struct iovec part = { .iov_base = (void *)(uintptr_t)text, .iov_len = sizeof(text) - 1 };
    ssize_t n = transport_send(&c->base.transport, &part, 1);
    if (n != (ssize_t)sizeof(text) - 1)
        conn_lose(c);
}

/* The handler wants the body. */
static void begin_body(struct conn *c)
{
    struct exchange *x = c->x;
    uint64_t length = x->pub.content_length;
    if (length > x->pub.body_bytes_max || length > SSIZE_MAX) {
        refuse_body_size(c, length);
        return;
    }
    if (length == 0 && !x->parser.is_chunked) {
        ask(c);
        return;
    }
    c->in = IN_BODY;
    c->progress_ns = now_ns(c);
    x->body_start_ns = c->progress_ns;
    if (length)
        make_room(c, (size_t)length); /* if not: IN_BUDGET, or answered */
}

static void head_complete(struct conn *c)
{
    struct exchange *x = c->x;
    const struct http_handler *handler = c->shard->handler;
    if (x->head_end - x->start > c->shard->limits->head_bytes_max) {
        refuse_head_size(c);
        return;
    }
    if (!accept_head(c))
        return;
    x->start = x->head_end;

    x->is_seen = true;
    handler->on_head(&x->pub, handler->arg);
    if (!x->is_answered) {
        begin_body(c);
    } else if (!c->is_last) {
        x->drop_left = x->pub.content_length;
        c->in = x->drop_left ? IN_DROP : IN_DONE;
    } else if (!x->parser.is_chunked && x->pub.content_length == 0) {
        c->in = IN_DONE;
    }
}

/* True while a new connection's bytes are, or may be, the preface of HTTP/2. When it is complete the
 * connection goes to whoever speaks that, and c is lost. */
static bool is_http2(struct conn *c)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const size_t preface_len = sizeof(preface) - 1;
    struct exchange *x = c->x;
    struct shard *s = c->shard;
    size_t len = x->len - x->start;
    if (memcmp(x->buf + x->start, preface, len < preface_len ? len : preface_len) != 0) {
        c->is_new = false;
        return false;
    }
    if (len >= preface_len) {
        loop_timer_cancel(s->loop, &c->timer);
        s->on_http2(&c->base.transport, x->buf + x->start, len, s->on_http2_arg);
        assert(is_lost(c));
    } else if (c->is_eof) {
        conn_lose(c);
    }
    return true;
}

static bool step_head(struct conn *c)
{
    struct exchange *x = c->x;
    if (UNLIKELY(c->is_new) && is_http2(c))
        return is_lost(c);
    if (x->parsed < x->len) {
        size_t consumed = 0;
        switch (parser_head(&x->parser, x->buf + x->parsed, x->len - x->parsed, &consumed)) {
        case PARSER_HEAD:
            x->head_end = x->parsed + consumed;
            head_complete(c);
            return true;
        case PARSER_ERROR:
            refuse(c, x->parser.status, x->parser.reason);
            return true;
        default:
            x->parsed = x->len;
        }
    }
    if (x->len - x->start >= c->shard->limits->head_bytes_max) {
        refuse_head_size(c);
        return true;
    }
    if (c->is_eof) {
        conn_lose(c); /* ended in the middle of a head */
        return true;
    }
    return false;
}

/* Room for more of the head behind len: moves it to the front of the buffer, or gets a larger one.
 * Some room is left over, because the framing of a chunked body is read behind the head. */
static bool head_room(struct conn *c)
{
    struct exchange *x = c->x;
    if (x->len + BODY_ROOM_BYTES <= x->capacity)
        return true;
    char *from = x->buf + x->start;
    size_t bytes = x->len - x->start;
    char *to = x->buf;
    if (!x->start) {
        to = malloc(x->capacity * 2);
        if (!to)
            return false;
        x->capacity *= 2;
    }
    memmove(to, from, bytes);
    parser_rebase(&x->parser, to - from);
    if (to != x->buf) {
        if (x->buf != x->inline_buf)
            free(x->buf);
        x->buf = to;
    }
    x->parsed -= x->start;
    x->len = bytes;
    x->start = 0;
    return true;
}

/* ---- input: body ---- */

/* The buffer's unconsumed bytes are used up: what follows goes behind the head again. */
static void rewind_buffer(struct exchange *x)
{
    if (x->start == x->len)
        x->start = x->len = x->head_end;
}

static bool step_identity(struct conn *c)
{
    struct exchange *x = c->x;
    size_t left = (size_t)x->pub.content_length - x->body_len;
    size_t n = x->len - x->start;
    if (n > left)
        n = left;
    if (n) {
        memcpy(x->memory.base + x->body_len, x->buf + x->start, n);
        x->body_len += n;
        x->start += n;
        rewind_buffer(x);
    }
    if (n < left)
        return false;
    ask(c);
    return true;
}

/* A chunk begins: room for it, growing by at least half so that many small ones stay linear. */
static void chunk_begins(struct conn *c)
{
    struct exchange *x = c->x;
    size_t bytes;
    if (__builtin_add_overflow(x->body_len, x->parser.chunk_left, &bytes) ||
        bytes > x->pub.body_bytes_max || bytes > SSIZE_MAX) {
        refuse_body_size(c, x->parser.chunk_left > UINT64_MAX - x->body_len
                                ? UINT64_MAX
                                : x->body_len + x->parser.chunk_left);
        return;
    }
    if (bytes <= x->room)
        return;
    size_t larger = x->room + x->room / 2;
    if (larger > x->pub.body_bytes_max)
        larger = (size_t)x->pub.body_bytes_max;
    make_room(c, larger > bytes ? larger : bytes);
}

/* Parses `len` bytes of chunked coding at `data`; returns how many were consumed. Stops when the
 * state changes. */
static size_t feed_chunked(struct conn *c, const char *data, size_t len)
{
    struct exchange *x = c->x;
    size_t at = 0;
    while (at < len && c->in == IN_BODY && !x->is_answered) {
        size_t consumed = 0;
        enum parser_result r = parser_body(&x->parser, data + at, len - at, &consumed);
        at += consumed;
        if (x->memory.base)
            x->body_len = (size_t)(x->parser.out - x->memory.base);
        if (r == PARSER_CHUNK)
            chunk_begins(c);
        else if (r == PARSER_DONE)
            c->in = IN_DONE; /* asked by step_chunked() */
        else if (r == PARSER_ERROR)
            refuse(c, x->parser.status, x->parser.reason);
    }
    return at;
}

static bool step_chunked(struct conn *c)
{
    struct exchange *x = c->x;
    if (x->start == x->len)
        return false;
    x->start += feed_chunked(c, x->buf + x->start, x->len - x->start);
    rewind_buffer(x);
    if (c->in == IN_DONE)
        ask(c);
    return true;
}

static bool step_body(struct conn *c)
{
    struct exchange *x = c->x;
    bool moved = x->parser.is_chunked ? step_chunked(c) : step_identity(c);
    if (moved)
        return true;
    if (c->is_eof) {
        conn_lose(c); /* ended in the middle of a body */
        return true;
    }
    if (x->expects_continue) {
        send_continue(c);
        return is_lost(c);
    }
    return false;
}

static bool step_drop(struct conn *c)
{
    struct exchange *x = c->x;
    size_t n = x->len - x->start;
    if (n > x->drop_left)
        n = (size_t)x->drop_left;
    x->drop_left -= n;
    x->start += n;
    rewind_buffer(x);
    if (x->drop_left) {
        if (c->is_eof)
            conn_lose(c);
        return is_lost(c);
    }
    c->in = IN_DONE;
    return true;
}

/* ---- ends ---- */

void conn_lose(struct conn *c)
{
    if (is_lost(c))
        return;
    transport_close(&c->base.transport);
    loop_timer_cancel(c->shard->loop, &c->timer);
    list_remove(&c->in_budget_queue);
}

/* Everything about this request is over; its last callbacks. */
static void end_exchange(struct conn *c)
{
    struct exchange *x = c->x;
    struct shard *s = c->shard;
    respond_drop(x);
    if (x->is_seen && s->handler->on_end)
        s->handler->on_end(&x->pub, s->handler->arg);
    release_memory(&x->memory);
    if (x->iov != x->iov_inline)
        free(x->iov);
    free(x->out_big);
    if (x->budget_bytes) {
        budget_give(s->budget, x->budget_bytes);
        server_budget_given(s);
    }

    bool goes_on = !is_lost(c) && !c->is_last && x->start < x->len;
    if (goes_on) {
        if (x->len + BODY_ROOM_BYTES > x->capacity) {
            memmove(x->buf, x->buf + x->start, x->len - x->start);
            x->len -= x->start;
            x->start = 0;
        }
        exchange_reset(x);
        x->pub.recv_start_ns = now_ns(c);
    } else {
        c->x = NULL;
        exchange_put(s, x);
    }
}

/* Unread bytes in our socket would turn its closing into a reset, which can overtake the answer. So
 * end our side, and read on until the peer has ended its own. */
static void linger(struct conn *c)
{
    if (c->is_eof || !transport_end_sending(&c->base.transport)) {
        conn_lose(c);
        return;
    }
    c->in = IN_LINGER;
}

/* The answer is written. */
static void next_exchange(struct conn *c)
{
    bool is_clean = c->in == IN_DONE && c->x->start == c->x->len;
    end_exchange(c);
    c->progress_ns = now_ns(c);
    if (c->is_last && is_clean)
        conn_lose(c);
    else if (c->is_last)
        linger(c);
    else
        c->in = IN_HEAD;
}

static void cancel(struct conn *c)
{
    struct exchange *x = c->x;
    const struct http_handler *handler = c->shard->handler;
    x->is_cancelled = true;
    if (handler->on_cancel)
        handler->on_cancel(&x->pub, handler->arg);
}

static bool step_lost(struct conn *c)
{
    struct exchange *x = c->x;
    if (!x)
        return false;
    if (!x->is_asked || x->is_answered) {
        end_exchange(c);
        return true;
    }
    if (x->is_cancelled)
        return false; /* the handler still owes an answer */
    cancel(c);
    return true;
}

/* One thing; true when there may be more to do. */
static bool step(struct conn *c)
{
    struct exchange *x = c->x;
    if (is_lost(c))
        return step_lost(c);
    if (!x) {
        if (!c->is_eof)
            return false;
        conn_lose(c);
        return true;
    }
    if (x->is_answered && c->in != IN_DROP) {
        if (x->out != OUT_WRITTEN)
            return false;
        next_exchange(c);
        return true;
    }

    switch (c->in) {
    case IN_HEAD:
        return step_head(c);
    case IN_BODY:
        return step_body(c);
    case IN_DROP:
        return step_drop(c);
    case IN_DONE:
        if (!c->is_eof || x->start < x->len || !c->shard->cancel_on_half_close)
            return false;
        conn_lose(c);
        return true;
    default:
        return false;
    }
}

/* ---- what to wait for ---- */

static bool wants_read(const struct conn *c)
{
    const struct exchange *x = c->x;
    if (c->is_eof)
        return false;
    switch (c->in) {
    case IN_BUDGET:
        return false;
    case IN_DROP:
    case IN_DONE:
        return x->len < x->capacity;
    default:
        /* An unwanted rest of head or body is left where it is until the answer is out. */
        return !x || !x->is_answered;
    }
}

static uint64_t after(uint64_t start_ns, uint64_t ns_max)
{
    return ns_max ? start_ns + ns_max : 0;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return !a ? b : !b ? a : a < b ? a : b;
}

/* When c has waited too long, 0: never. */
static uint64_t conn_deadline(const struct conn *c)
{
    const struct http_limits *limits = c->shard->limits;
    const struct exchange *x = c->x;
    if (c->in == IN_LINGER)
        return c->progress_ns + LINGER_NS_MAX;
    if (!x)
        return after(c->progress_ns, limits->idle_ns_max);
    if (x->out == OUT_WRITING)
        return after(c->progress_ns, limits->body_stall_ns_max);

    switch (c->in) {
    case IN_HEAD:
        return after(x->pub.recv_start_ns, limits->head_ns_max);
    case IN_BUDGET:
        return c->progress_ns + limits->budget_wait_ns_max;
    case IN_DROP:
        return after(c->progress_ns, limits->body_stall_ns_max);
    case IN_BODY: {
        uint64_t stall = after(c->progress_ns, limits->body_stall_ns_max);
        if (!limits->body_rate_min)
            return stall;
        /* What has arrived is enough until here. */
        uint64_t enough_ns = x->body_len / limits->body_rate_min * NS_PER_SEC;
        return earlier(stall,
                       x->body_start_ns + (enough_ns > RATE_GRACE_NS ? enough_ns : RATE_GRACE_NS));
    }
    default:
        return 0;
    }
}

static void arm_timer(struct conn *c)
{
    uint64_t deadline = conn_deadline(c);
    if (deadline && deadline < loop_timer_deadline_ns(&c->timer))
        loop_timer_arm(c->shard->loop, &c->timer, deadline);
}

static void expire(struct conn *c)
{
    struct exchange *x = c->x;
    if (c->in == IN_LINGER || !x || x->out == OUT_WRITING || c->in == IN_DROP) {
        conn_lose(c);
        return;
    }
    if (c->in == IN_BUDGET) {
        list_remove(&c->in_budget_queue);
        refusef(c, 503, "too many request bytes are in flight. Use %s to increase the limit.",
                c->shard->limits->budget_flag);
    } else if (c->in == IN_HEAD) {
        refuse(c, 408, "the request head came too slowly");
    } else {
        refuse(c, 408, "the request body came too slowly");
    }
}

static void timer_fired(struct loop_timer *t, uint64_t now)
{
    struct conn *c = CONTAINER_OF(t, struct conn, timer);
    uint64_t deadline = conn_deadline(c);
    if (deadline && now >= deadline) {
        c->is_running = true;
        expire(c);
        c->is_running = false;
    }
    conn_run(c); /* arms the timer again */
}

void conn_run(struct conn *c)
{
    if (c->is_running)
        return;
    c->is_running = true;
    while (step(c))
        ;
    c->is_running = false;

    if (!is_lost(c)) {
        bool is_writing = c->x && c->x->out == OUT_WRITING;
        transport_want(&c->base.transport, (wants_read(c) ? (unsigned)LOOP_READ : 0u) |
                                               (is_writing ? (unsigned)LOOP_WRITE : 0u));
        arm_timer(c);
    } else if (!c->x) {
        acceptor_conn_ended(&c->base);
        free(c);
    }
}

/* ---- events ---- */

/* One recv() where the bytes belong. Returns its result; 1 when there was nothing to do. */
static ssize_t receive_body(struct conn *c)
{
    struct exchange *x = c->x;
    if (!x->parser.is_chunked) {
        ssize_t n = transport_recv(&c->base.transport, x->memory.base + x->body_len,
                                   (size_t)x->pub.content_length - x->body_len);
        if (n > 0)
            x->body_len += (size_t)n;
        return n;
    }

    /* The current chunk's data goes to its place, the framing behind it into the read buffer. */
    size_t in_place = (size_t)x->parser.chunk_left;
    struct iovec iov[2] = {
        { .iov_base = x->parser.out, .iov_len = in_place },
        { .iov_base = x->buf + x->len, .iov_len = x->capacity - x->len },
    };
    ssize_t n =
        transport_recv_parts(&c->base.transport, in_place ? iov : iov + 1, in_place ? 2 : 1);
    if (n <= 0)
        return n;
    size_t direct = (size_t)n < in_place ? (size_t)n : in_place;
    x->len += (size_t)n - direct;
    if (direct)
        feed_chunked(c, iov[0].iov_base, direct);
    return n;
}

/* Leaves `spare` bytes of the buffer free. */
static ssize_t receive_buffered(struct conn *c, size_t spare)
{
    struct exchange *x = c->x;
    if (x->len + spare >= x->capacity)
        return 1;
    ssize_t n = transport_recv(&c->base.transport, x->buf + x->len, x->capacity - spare - x->len);
    if (n > 0)
        x->len += (size_t)n;
    return n;
}

static ssize_t receive_head(struct conn *c)
{
    bool is_new = !c->x;
    if (is_new) {
        c->x = exchange_get(c->shard);
        if (!c->x) {
            errno = ENOMEM;
            return -1;
        }
        c->x->conn = c;
        c->x->pub.recv_start_ns = now_ns(c);
    }
    if (!head_room(c)) {
        errno = ENOMEM;
        return -1;
    }
    ssize_t n = receive_buffered(c, BODY_ROOM_BYTES / 2);
    if (n <= 0 && is_new) {
        exchange_put(c->shard, c->x);
        c->x = NULL;
    }
    return n;
}

static void receive(struct conn *c)
{
    ssize_t n;
    if (c->is_eof)
        return;
    switch (c->in) {
    case IN_HEAD:
        n = receive_head(c);
        break;
    case IN_BODY:
        n = receive_body(c);
        break;
    case IN_DROP:
    case IN_DONE:
        n = receive_buffered(c, 0);
        break;
    case IN_LINGER:
        n = transport_recv(&c->base.transport, c->shard->scratch, SCRATCH_BYTES);
        break;
    default:
        return;
    }
    if (n > 0) {
        if (c->in == IN_BODY || c->in == IN_DROP)
            c->progress_ns = now_ns(c);
    } else if (n == 0) {
        c->is_eof = true;
    } else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        conn_lose(c);
    }
}

void conn_ready(struct transport *t, unsigned events)
{
    struct conn *c = CONTAINER_OF(t, struct conn, base.transport);
    c->is_running = true;
    if (events & LOOP_HANGUP)
        conn_lose(c);
    if ((events & LOOP_WRITE) && !is_lost(c) && c->x && c->x->out == OUT_WRITING)
        respond_write(c);
    if ((events & LOOP_READ) && !is_lost(c) && wants_read(c))
        receive(c);
    c->is_running = false;
    conn_run(c);
}

/* ---- birth ---- */

struct acceptor_conn *conn_create(struct acceptor_shard *s)
{
    struct conn *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->shard = CONTAINER_OF(s, struct shard, base);
    c->timer.fire = timer_fired;
    c->in = IN_HEAD;
    c->is_new = c->shard->on_http2 != NULL;
    list_init(&c->in_budget_queue);
    return &c->base;
}

void conn_open(struct acceptor_conn *base)
{
    struct conn *c = CONTAINER_OF(base, struct conn, base);
    c->progress_ns = now_ns(c);
    conn_run(c);
}

void conn_close_idle(struct acceptor_conn *base)
{
    struct conn *c = CONTAINER_OF(base, struct conn, base);
    if (!c->x && c->in == IN_HEAD)
        conn_close_now(base);
}

void conn_close_now(struct acceptor_conn *base)
{
    struct conn *c = CONTAINER_OF(base, struct conn, base);
    conn_lose(c);
    conn_run(c);
}
