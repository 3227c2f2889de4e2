/* grpc/wait.c - waiting for the byte budget.
 *
 * A stream that cannot take more (its next message waits for bytes of the budget) pauses its
 * connection: nghttp2 stops behind the chunk that it was handing over, what was read and not used is
 * held, and nothing more is read. wait_go_on() takes it up again. So a client that sends faster than
 * we can keep is stopped by TCP, and other connections are not. The price is that this connection's
 * other streams stop too, and that its WINDOW_UPDATEs are not seen meanwhile: when most of the budget is
 * replies that this very client has not read yet, only the refusal ends the wait.
 *
 * The streams of a loop that wait for the budget stand in one queue, oldest first. Bytes given back on
 * this loop are offered to it at once; other loops, and HTTP, give theirs back unnoticed, so a timer
 * looks every few milliseconds. Who has waited for budget_wait_ns_max is refused. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "grpc/conn.h"

#define BUDGET_POLL_NS (2 * NS_PER_MS)

static struct budget *budget_of(const struct grpc_shard *shard)
{
    return shard->server->options.budget;
}

/* ---- Pausing a connection ---- */

void wait_drop(struct grpc_conn *c)
{
    free(c->held.bytes);
    c->held = (struct held_input){ 0 };
}

/* Further bytes behind those held. */
static bool append(struct held_input *h, const uint8_t *data, size_t len)
{
    uint8_t *grown = realloc(h->bytes, h->capacity + len);
    if (!grown)
        return false;
    memcpy(grown + h->capacity, data, len);
    h->bytes = grown;
    h->capacity += len;
    return true;
}

/* Keeps what nghttp2 has not handed over: the rest of the chunk at which it paused, and what follows
 * the bytes that it has used. Both lie in the same buffer, which may be the held one. */
static bool hold(struct grpc_conn *c, const uint8_t *rest, size_t rest_len)
{
    struct held_input *h = &c->held;
    size_t len = h->chunk + rest_len;
    if (h->bytes) {
        /* There may be padding between the two. */
        h->at = h->capacity - len;
        memmove(h->bytes + h->at, c->paused_at, h->chunk);
        return true;
    }
    h->bytes = malloc(len);
    if (!h->bytes)
        return false;
    h->capacity = len;
    h->at = 0;
    memcpy(h->bytes, c->paused_at, h->chunk);
    memcpy(h->bytes + h->chunk, rest, rest_len);
    return true;
}

static void feed(struct grpc_conn *c, const uint8_t *data, size_t len)
{
    ssize_t used = nghttp2_session_mem_recv(c->session, data, len);
    if (used >= 0 && c->paused_at) {
        if (!hold(c, data + used, len - (size_t)used))
            c->is_failed = true;
        c->paused_at = NULL;
    } else if (used != (ssize_t)len) {
        c->is_failed = true;
    } else {
        wait_drop(c);
    }
}

void wait_feed(struct grpc_conn *c, const uint8_t *data, size_t len)
{
    if (!c->held.bytes)
        feed(c, data, len);
    else if (!append(&c->held, data, len))
        c->is_failed = true;
}

int wait_chunk(struct grpc_conn *c, int32_t id, const uint8_t *data, size_t len)
{
    struct stream *s = nghttp2_session_get_stream_user_data(c->session, id);
    size_t n = s ? stream_data(s, data, len) : len;
    int rc = s ? stream_consume(s, n) : nghttp2_session_consume(c->session, id, n);
    if (rc == NGHTTP2_ERR_NOMEM)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    c->held.chunk = len - n;
    if (n == len)
        return 0;
    c->held.id = id;
    c->paused_at = data + n;
    return NGHTTP2_ERR_PAUSE;
}

/* Does the stream for which c is paused still wait? */
static bool is_stuck(const struct grpc_conn *c)
{
    struct stream *s = nghttp2_session_get_stream_user_data(c->session, c->held.id);
    return s && stream_is_waiting(s);
}

void wait_go_on(struct grpc_conn *c)
{
    struct held_input *h = &c->held;
    while (h->bytes && !is_stuck(c) && !c->is_failed) {
        if (h->chunk > 0) {
            size_t len = h->chunk;
            int rc = wait_chunk(c, h->id, h->bytes + h->at, len);
            c->paused_at = NULL;
            h->at += len - h->chunk;
            if (rc == NGHTTP2_ERR_CALLBACK_FAILURE)
                c->is_failed = true;
            continue;
        }
        /* Also with nothing left: nghttp2 may owe the end of the frame. */
        feed(c, h->bytes + h->at, h->capacity - h->at);
    }
}

/* ---- The budget's queue ---- */

static void arm_poll(struct grpc_shard *shard)
{
    if (list_is_empty(&shard->budget_queue) || loop_timer_is_armed(&shard->budget_timer))
        return;
    loop_timer_arm(shard->loop, &shard->budget_timer, loop_now_ns(shard->loop) + BUDGET_POLL_NS);
}

/* Takes `bytes` more. The whole of what s has is asked for again with it, so that one message alone may
 * pass a budget that is smaller; what the handler of a stream has is not of that message. */
static bool take(struct stream *s, size_t bytes)
{
    struct budget *budget = budget_of(s->conn->shard);
    size_t again = s->held > 0 ? 0 : s->budget_bytes;
    budget_give(budget, again);
    if (!budget_take(budget, again + bytes)) {
        budget_force(budget, again);
        return false;
    }
    s->budget_bytes += bytes;
    return true;
}

bool wait_charge(struct stream *s, size_t bytes)
{
    struct grpc_shard *shard = s->conn->shard;
    if (!budget_of(shard) || s->pub.budget_exempt)
        return true;
    if (list_is_empty(&shard->budget_queue) && take(s, bytes))
        return true;
    s->is_in_queue = true;
    s->wanted = bytes;
    s->wait_ns = loop_now_ns(shard->loop);
    list_append(&shard->budget_queue, &s->in_budget_queue);
    arm_poll(shard);
    return false;
}

void wait_stop(struct stream *s)
{
    if (s->is_in_queue)
        list_remove(&s->in_budget_queue);
    s->is_in_queue = false;
}

static void retry(struct grpc_shard *shard)
{
    uint64_t wait_max = shard->server->options.budget_wait_ns_max;
    while (!list_is_empty(&shard->budget_queue)) {
        struct stream *s = LIST_ENTRY(shard->budget_queue.next, struct stream, in_budget_queue);
        struct grpc_conn *c = s->conn;
        bool is_granted = !s->is_replied && take(s, s->wanted);
        if (!is_granted && !s->is_replied && loop_now_ns(shard->loop) < s->wait_ns + wait_max)
            break;
        wait_stop(s);
        c->is_running = true;
        if (!s->is_replied)
            stream_charged(s, is_granted);
        c->is_running = false;
        grpc_conn_run(c);
    }
    arm_poll(shard);
}

static void budget_timer_fired(struct loop_timer *t, uint64_t now)
{
    (void)now;
    retry(CONTAINER_OF(t, struct grpc_shard, budget_timer));
}

static void budget_retry_run(struct loop_message *m)
{
    struct grpc_shard *shard = CONTAINER_OF(m, struct grpc_shard, budget_retry);
    shard->is_budget_retry_posted = false;
    retry(shard);
}

void wait_give(struct grpc_shard *shard, size_t bytes)
{
    if (bytes == 0 || !budget_of(shard))
        return;
    budget_give(budget_of(shard), bytes);
    /* By message: the caller is in the middle of something. */
    if (list_is_empty(&shard->budget_queue) || shard->is_budget_retry_posted)
        return;
    shard->is_budget_retry_posted = true;
    loop_post(shard->loop, &shard->budget_retry);
}

void wait_init(struct grpc_shard *shard)
{
    list_init(&shard->budget_queue);
    shard->budget_timer.fire = budget_timer_fired;
    shard->budget_retry.run = budget_retry_run;
}

void wait_end(struct grpc_shard *shard)
{
    assert(list_is_empty(&shard->budget_queue));
    loop_timer_cancel(shard->loop, &shard->budget_timer);
}

/* ---- Replies ---- */

void wait_charge_replies(struct grpc_conn *c)
{
    struct budget *budget = budget_of(c->shard);
    if (!budget || c->unsent == c->unsent_charged)
        return;
    if (c->unsent > c->unsent_charged)
        budget_force(budget, c->unsent - c->unsent_charged);
    else
        wait_give(c->shard, c->unsent_charged - c->unsent);
    c->unsent_charged = c->unsent;
}
