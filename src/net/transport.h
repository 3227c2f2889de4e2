/* net/transport.h - a connected byte stream: a socket, plain or with TLS, and the loop that watches it.
 *
 * Embedded by a connection, which thinks in bytes and in "can read" and "can write". What the
 * functions return is what recv() and send() return: a count, 0 at the end of the peer's stream, or
 * -1 with errno; EAGAIN means that ready() will tell. A send that was refused must be repeated with
 * at least the same bytes. Plain costs one branch.
 *
 * With TLS the handshake happens inside the first calls of transport_recv(); one that takes too long
 * ends by LOOP_HANGUP. Bytes that are decrypted already, and that the socket so does not tell of, are
 * told as LOOP_READ by and by.
 *
 * Owns the descriptor. Never blocks.
 * Threads: the loop's, except transport_init().
 */
#ifndef TIS_NET_TRANSPORT_H
#define TIS_NET_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "net/loop.h"
#include "net/tls.h"

struct transport {
    /* set at creation, then constant */
    struct loop *loop;
    void (*ready)(struct transport *t, unsigned events); /* enum loop_events, as a watch is told */

    /* loop thread only */
    struct loop_watch watch;   /* watch.fd is -1 once closed */
    struct tls_transport *tls; /* NULL: plain */
};

/* Takes fd, a connected socket. ready is the embedder's. */
void transport_init(struct transport *t, struct loop *loop, int fd,
                    void (*ready)(struct transport *t, unsigned events));
/* From here on ready() comes. tls: NULL for a plain one. */
MUST_USE tis_error *transport_start(struct transport *t, struct tls *tls, unsigned events);
/* Closes the descriptor; no callback comes any more. May be called again. */
void transport_close(struct transport *t);
/* `to`, initialised with fd -1, gets what `from` has and is started; from is closed. Both are of
 * one loop. */
MUST_USE tis_error *transport_move(struct transport *to, struct transport *from, unsigned events);

static inline bool transport_is_open(const struct transport *t)
{
    return t->watch.fd >= 0;
}

/* The peer has not yet shown that it speaks TLS. */
bool transport_is_handshaking(const struct transport *t);

/* What the next ones do with TLS. */
unsigned transport_tls_wanted(const struct transport *t);
void transport_tls_want(struct transport *t, unsigned events);
ssize_t transport_tls_recv(struct transport *t, const struct iovec *parts, size_t count);
ssize_t transport_tls_send(struct transport *t, const struct iovec *parts, size_t count);

/* What was wanted last. */
static inline unsigned transport_wanted(const struct transport *t)
{
    return UNLIKELY(t->tls) ? transport_tls_wanted(t) : t->watch.events;
}

/* Which of LOOP_READ and LOOP_WRITE to be told of. */
static inline void transport_want(struct transport *t, unsigned events)
{
    if (UNLIKELY(t->tls))
        transport_tls_want(t, events);
    else
        loop_watch_change(t->loop, &t->watch, events);
}

static inline ssize_t transport_recv(struct transport *t, void *data, size_t len)
{
    if (UNLIKELY(t->tls)) {
        struct iovec part = { .iov_base = data, .iov_len = len };
        return transport_tls_recv(t, &part, 1);
    }
    return recv(t->watch.fd, data, len, MSG_DONTWAIT);
}

static inline ssize_t transport_recv_parts(struct transport *t, struct iovec *parts, size_t count)
{
    struct msghdr msg = { .msg_iov = parts, .msg_iovlen = count };
    return UNLIKELY(t->tls) ? transport_tls_recv(t, parts, count)
                            : recvmsg(t->watch.fd, &msg, MSG_DONTWAIT);
}

/* May take a part of the bytes only. At most IOV_MAX parts. */
static inline ssize_t transport_send(struct transport *t, struct iovec *parts, size_t count)
{
    struct msghdr msg = { .msg_iov = parts, .msg_iovlen = count };
    return UNLIKELY(t->tls) ? transport_tls_send(t, parts, count)
                            : sendmsg(t->watch.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Tells the peer that no more bytes come; it can still be read from. */
MUST_USE bool transport_end_sending(struct transport *t);

#endif
