#include "net/transport.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"

/* What a transport with TLS has besides. */
struct tls_transport {
    struct transport *transport;
    struct tls_stream *stream;
    unsigned wanted; /* by the embedder */
    /* Until the handshake is over: its end at the latest. Then: LOOP_READ is to be told in the loop's
     * next round, for bytes that the socket knows nothing of. */
    struct loop_timer timer;
    bool is_begun; /* the handshake is over */
};

/* ---- TLS ---- */

static void watch_socket(struct tls_transport *x)
{
    struct transport *t = x->transport;
    loop_watch_change(t->loop, &t->watch, tls_stream_wait_events(x->stream, x->wanted));
}

/* Sees that a reader who does not get what is there already is told so. In the next round, not in
 * this one: others come first. */
static void tell_pending(struct tls_transport *x)
{
    struct transport *t = x->transport;
    if (!(x->wanted & LOOP_READ) || !tls_stream_has_pending(x->stream) ||
        loop_timer_is_armed(&x->timer))
        return;
    loop_timer_arm(t->loop, &x->timer, loop_now_ns(t->loop) + 1);
}

static void timer_fired(struct loop_timer *timer, uint64_t now)
{
    struct tls_transport *x = CONTAINER_OF(timer, struct tls_transport, timer);
    struct transport *t = x->transport;
    (void)now;
    if (!x->is_begun)
        t->ready(t, LOOP_HANGUP);
    else if ((x->wanted & LOOP_READ) && tls_stream_has_pending(x->stream))
        t->ready(t, LOOP_READ);
}

void transport_tls_want(struct transport *t, unsigned events)
{
    struct tls_transport *x = t->tls;
    x->wanted = events;
    watch_socket(x);
    tell_pending(x);
}

unsigned transport_tls_wanted(const struct transport *t)
{
    return t->tls->wanted;
}

/* After each call of the stream's: the handshake may be over now. */
static void look_at_handshake(struct tls_transport *x)
{
    if (x->is_begun || tls_stream_is_handshaking(x->stream))
        return;
    x->is_begun = true;
    loop_timer_cancel(x->transport->loop, &x->timer);
}

ssize_t transport_tls_recv(struct transport *t, const struct iovec *parts, size_t count)
{
    ssize_t n = tls_stream_recv(t->tls->stream, parts, count);
    look_at_handshake(t->tls);
    return n;
}

ssize_t transport_tls_send(struct transport *t, const struct iovec *parts, size_t count)
{
    ssize_t n = tls_stream_send(t->tls->stream, parts, count);
    look_at_handshake(t->tls);
    return n;
}

static void tls_close(struct transport *t)
{
    struct tls_transport *x = t->tls;
    loop_timer_cancel(t->loop, &x->timer);
    tls_stream_destroy(x->stream);
    free(x);
    t->tls = NULL;
}

static tis_error *tls_open(struct transport *t, struct tls *tls)
{
    struct tls_transport *x = calloc(1, sizeof(*x));
    if (!x)
        return error_no_memory();
    t->tls = x;
    x->transport = t;
    x->timer.fire = timer_fired;
    x->stream = tls_stream_create(tls, t->watch.fd);
    if (!x->stream)
        return error_no_memory();
    uint64_t ns_max = tls_handshake_ns_max(tls);
    if (ns_max)
        loop_timer_arm(t->loop, &x->timer, loop_now_ns(t->loop) + ns_max);
    return NULL;
}

/* ---- all transports ---- */

static void watch_ready(struct loop_watch *w, unsigned events)
{
    struct transport *t = CONTAINER_OF(w, struct transport, watch);
    if (UNLIKELY(t->tls))
        events = tls_stream_told_events(t->tls->stream, t->tls->wanted, events);
    t->ready(t, events);
}

void transport_init(struct transport *t, struct loop *loop, int fd,
                    void (*ready)(struct transport *t, unsigned events))
{
    *t = (struct transport){
        .loop = loop,
        .ready = ready,
        .watch = { .fd = fd, .ready = watch_ready },
    };
}

tis_error *transport_start(struct transport *t, struct tls *tls, unsigned events)
{
    tis_error *err = tls ? tls_open(t, tls) : NULL;
    if (!err)
        err = loop_watch_add(t->loop, &t->watch, LOOP_READ);
    if (!err)
        transport_want(t, events);
    return err;
}

void transport_close(struct transport *t)
{
    if (!transport_is_open(t))
        return;
    loop_watch_remove(t->loop, &t->watch);
    if (t->tls)
        tls_close(t);
    close(t->watch.fd);
    t->watch.fd = -1;
}

tis_error *transport_move(struct transport *to, struct transport *from, unsigned events)
{
    loop_watch_remove(from->loop, &from->watch);
    to->watch.fd = from->watch.fd;
    to->tls = from->tls;
    if (to->tls)
        to->tls->transport = to;
    from->watch.fd = -1;
    from->tls = NULL;
    tis_error *err = loop_watch_add(to->loop, &to->watch, LOOP_READ);
    if (!err)
        transport_want(to, events);
    return err;
}

bool transport_is_handshaking(const struct transport *t)
{
    return t->tls && !t->tls->is_begun;
}

bool transport_end_sending(struct transport *t)
{
    if (t->tls)
        tls_stream_end_sending(t->tls->stream);
    return shutdown(t->watch.fd, SHUT_WR) == 0;
}
