/* grpc/lifetime.c - how long a connection lives: keepalive, policing, age, drain.
 *
 * A connection has one timer and a table of *duties*: what may become due, when, and what is done
 * then. The timer is armed only when a duty is due earlier than it would fire; one that fires too
 * early finds the real time. So a busy connection touches the heap a few times a minute, not per
 * request, and an idle one once per keepalive time.
 *
 * The rules of keepalive and policing are those of grpc-core's server, since its clients are built
 * for them:
 *   - any byte from the client is a sign of life, not only the answer to our ping;
 *   - a client's pings are counted only while we send nothing of substance (HEADERS, DATA,
 *     WINDOW_UPDATE), which also forgives its strikes;
 *   - without a call a client may ping every two hours, unless keepalive_without_calls.
 *
 * Drain and age are one mechanism: a notice that names no last stream, a ping, and at its answer, or
 * after a second, GOAWAY with the last stream. The connection ends with that stream, or with the
 * grace. */
#include <string.h>

#include "base/clock.h"
#include "grpc/conn.h"

#define NOTICE_NS_MAX NS_PER_SEC
#define LEAVE_NS_MAX (2 * NS_PER_SEC)
/* TCP's own keepalive (RFC 1122), which grpc-core takes over for connections without calls. */
#define PING_INTERVAL_NS_MIN_IDLE (2 * 3600 * NS_PER_SEC)

enum {
    /* Streams that end by RST_STREAM cost more than they bring (CVE-2023-44487). A client may cancel
     * all it can have open at once twice over, then so many a second. */
    RESETS_BURST = 2048,
    RESETS_PER_SEC = 200,
};

/* Tells the answer to the drain's ping from others. */
static const uint8_t notice_ping[8] = "draining";

static uint64_t now_ns(const struct grpc_conn *c)
{
    return loop_now_ns(c->shard->loop);
}

static const struct grpc_lifetime *rules_of(const struct grpc_conn *c)
{
    return &c->shard->server->options.lifetime;
}

static bool is_reading(const struct grpc_conn *c)
{
    return (transport_wanted(&c->base.transport) & LOOP_READ) != 0;
}

/* ---- The end, in steps ---- */

static void notice(struct grpc_conn *c)
{
    if (c->is_noticed || c->is_leaving)
        return;
    c->is_noticed = true;
    c->notice_ns = now_ns(c);
    if (nghttp2_submit_shutdown_notice(c->session))
        c->is_failed = true; /* its ping follows it, see conn_judge_sent() */
}

/* The final GOAWAY. */
static void go_away(struct grpc_conn *c)
{
    if (c->is_going || c->is_leaving)
        return;
    c->is_going = true;
    int32_t last = nghttp2_session_get_last_proc_stream_id(c->session);
    if (nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0))
        c->is_failed = true;
}

void conn_leave(struct grpc_conn *c, uint32_t error, const char *why)
{
    if (c->is_leaving)
        return;
    c->is_leaving = true;
    c->leave_ns = now_ns(c);
    int32_t last = nghttp2_session_get_last_proc_stream_id(c->session);
    if (nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE, last, error, (const uint8_t *)why,
                              strlen(why)))
        c->is_failed = true;
}

void grpc_conn_drain(struct acceptor_conn *base)
{
    struct grpc_conn *c = CONTAINER_OF(base, struct grpc_conn, base);
    if (transport_is_handshaking(&c->base.transport)) {
        grpc_conn_close(base); /* there is nobody yet who could be told */
        return;
    }
    if (c->session) {
        notice(c);
        struct list *next;
        for (struct list *it = c->streams.next; it != &c->streams; it = next) {
            next = it->next;
            stream_drain(LIST_ENTRY(it, struct stream, in_conn));
        }
    }
    grpc_conn_run(c);
}

/* ---- Policing ---- */

static void judge_ping(struct grpc_conn *c)
{
    const struct grpc_lifetime *rules = rules_of(c);
    bool is_idle = !rules->keepalive_without_calls && list_is_empty(&c->streams);
    uint64_t interval = is_idle ? PING_INTERVAL_NS_MIN_IDLE : rules->ping_interval_ns_min;
    uint64_t now = now_ns(c);
    bool is_early = c->pinged_ns && now < c->pinged_ns + interval;
    c->pinged_ns = now;
    if (!rules->ping_strikes_max || !is_early)
        return;
    c->ping_strikes++;
    if (c->ping_strikes > rules->ping_strikes_max)
        conn_leave(c, NGHTTP2_ENHANCE_YOUR_CALM, "too_many_pings");
}

static void judge_reset(struct grpc_conn *c)
{
    uint64_t earned = (now_ns(c) - c->resets_ns) / (NS_PER_SEC / RESETS_PER_SEC);
    c->resets_ns += earned * (NS_PER_SEC / RESETS_PER_SEC);
    if (earned > RESETS_BURST - c->resets_left)
        earned = RESETS_BURST - c->resets_left;
    c->resets_left += (uint32_t)earned;
    if (c->resets_left == 0)
        conn_leave(c, NGHTTP2_ENHANCE_YOUR_CALM, "too_many_resets");
    else
        c->resets_left--;
}

void conn_judge_received(struct grpc_conn *c, const nghttp2_frame *frame)
{
    c->is_begun = true;
    if (frame->hd.type == NGHTTP2_RST_STREAM) {
        judge_reset(c);
    } else if (frame->hd.type == NGHTTP2_PING) {
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK))
            judge_ping(c);
        else if (c->is_noticed &&
                 memcmp(frame->ping.opaque_data, notice_ping, sizeof(notice_ping)) == 0)
            go_away(c);
    }
}

void conn_judge_sent(struct grpc_conn *c, const nghttp2_frame *frame)
{
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
    case NGHTTP2_WINDOW_UPDATE:
        c->pinged_ns = 0;
        c->ping_strikes = 0;
        c->pings_sent = 0;
        break;
    case NGHTTP2_GOAWAY:
        /* nghttp2 would put the ping in front of the notice. */
        if (frame->goaway.last_stream_id == INT32_MAX && !c->is_leaving &&
            nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, notice_ping))
            c->is_failed = true;
        break;
    case NGHTTP2_RST_STREAM:
        /* What the client did made nghttp2 reset it; we ourselves have no other reasons than these. */
        if (frame->rst_stream.error_code != NGHTTP2_NO_ERROR &&
            frame->rst_stream.error_code != NGHTTP2_CANCEL)
            judge_reset(c);
        break;
    default:
        break;
    }
}

/* ---- Duties: when they are due (0: not at all), and what is done then ----
 * A connection that is leaving has one only, to be gone in time. */

static uint64_t stall_due(const struct grpc_conn *c)
{
    uint64_t stall = c->shard->server->options.stall_ns_max;
    if (!stall)
        return 0;
    return !c->is_begun ? c->born_ns + stall : c->out ? c->progress_ns + stall : 0;
}

static void fail(struct grpc_conn *c)
{
    c->is_failed = true;
}

static uint64_t final_due(const struct grpc_conn *c)
{
    return c->is_noticed && !c->is_going ? c->notice_ns + NOTICE_NS_MAX : 0;
}

static uint64_t leave_due(const struct grpc_conn *c)
{
    return c->is_leaving ? c->leave_ns + LEAVE_NS_MAX : 0;
}

static uint64_t age_due(const struct grpc_conn *c)
{
    return c->is_noticed ? 0 : c->age_ns;
}

static void grow_old(struct grpc_conn *c)
{
    uint64_t grace = rules_of(c)->age_grace_ns;
    c->grace_ns = grace ? now_ns(c) + grace : 0;
    notice(c);
}

static uint64_t grace_due(const struct grpc_conn *c)
{
    return c->grace_ns;
}

static void cut_off(struct grpc_conn *c)
{
    conn_leave(c, NGHTTP2_NO_ERROR, "max_age");
}

static uint64_t ping_due(const struct grpc_conn *c)
{
    const struct grpc_lifetime *rules = rules_of(c);
    if (!rules->keepalive_ns || c->ping_ns || !is_reading(c))
        return 0;
    if (!rules->keepalive_without_calls && list_is_empty(&c->streams))
        return 0;
    if (rules->pings_without_data_max && c->pings_sent >= rules->pings_without_data_max)
        return 0;
    return c->received_ns + rules->keepalive_ns;
}

static void ping(struct grpc_conn *c)
{
    c->ping_ns = now_ns(c);
    c->pings_sent++;
    if (nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL))
        c->is_failed = true;
}

/* While we do not read, an answer may lie in front of us. */
static uint64_t pong_due(const struct grpc_conn *c)
{
    return c->ping_ns && is_reading(c) ? c->ping_ns + rules_of(c)->keepalive_timeout_ns : 0;
}

static void give_up(struct grpc_conn *c)
{
    conn_leave(c, NGHTTP2_ENHANCE_YOUR_CALM, "keepalive_timeout");
}

static uint64_t check_due(const struct grpc_conn *c)
{
    return c->check_ns;
}

static const struct duty {
    uint64_t (*due)(const struct grpc_conn *c);
    void (*act)(struct grpc_conn *c);
} duties[] = {
    { stall_due, fail },    { leave_due, fail },
    { final_due, go_away }, { age_due, grow_old },
    { grace_due, cut_off }, { ping_due, ping },
    { pong_due, give_up },  { check_due, stream_check_all },
};

static uint64_t due_of(const struct grpc_conn *c, const struct duty *d)
{
    return c->is_leaving && d->due != leave_due ? 0 : d->due(c);
}

void conn_arm_timer(struct grpc_conn *c)
{
    uint64_t first = UINT64_MAX;
    for (size_t i = 0; i < ARRAY_LEN(duties); i++) {
        uint64_t due = due_of(c, &duties[i]);
        if (due && due < first)
            first = due;
    }
    if (first < loop_timer_deadline_ns(&c->timer))
        loop_timer_arm(c->shard->loop, &c->timer, first);
}

static void timer_fired(struct loop_timer *t, uint64_t now)
{
    struct grpc_conn *c = CONTAINER_OF(t, struct grpc_conn, timer);
    for (size_t i = 0; i < ARRAY_LEN(duties); i++) {
        uint64_t due = due_of(c, &duties[i]);
        if (due && now >= due)
            duties[i].act(c);
    }
    grpc_conn_run(c); /* arms the timer again */
}

/* ---- Life ---- */

/* ns, give or take a tenth, so that clients that came together do not go together. */
static uint64_t with_jitter(uint64_t ns)
{
    uint64_t x = clock_ns() * 0x9e3779b97f4a7c15u;
    x ^= x >> 32;
    return ns - ns / 10 + x % (ns / 5 + 1);
}

void conn_begin_life(struct grpc_conn *c)
{
    uint64_t age = rules_of(c)->age_ns_max;
    uint64_t now = now_ns(c);
    c->timer.fire = timer_fired;
    c->born_ns = now;
    c->progress_ns = now;
    c->received_ns = now;
    c->resets_ns = now;
    c->resets_left = RESETS_BURST;
    c->age_ns = age ? now + with_jitter(age) : 0;
}

void conn_heard(struct grpc_conn *c)
{
    c->received_ns = now_ns(c);
    c->ping_ns = 0;
}
