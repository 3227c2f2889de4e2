/* net/transport.h - a connected byte stream: a socket, and the loop that watches it.
 *
 * Embedded by a connection, which thinks in bytes and in "can read" and "can write". What the
 * functions return is what recv() and send() return: a count, 0 at the end of the peer's stream, or
 * -1 with errno; EAGAIN means that ready() will tell.
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

struct transport {
    /* set at creation, then constant */
    struct loop *loop;
    void (*ready)(struct transport *t, unsigned events); /* enum loop_events, as a watch is told */

    /* loop thread only */
    struct loop_watch watch; /* watch.fd is -1 once closed */
};

/* Takes fd, a connected socket. ready is the embedder's. */
void transport_init(struct transport *t, struct loop *loop, int fd,
                    void (*ready)(struct transport *t, unsigned events));
/* From here on ready() comes. */
MUST_USE tis_error *transport_start(struct transport *t, unsigned events);
/* Closes the descriptor; no callback comes any more. May be called again. */
void transport_close(struct transport *t);
/* to gets what from has, unwatched; from is closed. to's loop must be from's. */
void transport_move(struct transport *to, struct transport *from);

static inline bool transport_is_open(const struct transport *t)
{
    return t->watch.fd >= 0;
}

/* Which of LOOP_READ and LOOP_WRITE to be told of. */
static inline void transport_want(struct transport *t, unsigned events)
{
    loop_watch_change(t->loop, &t->watch, events);
}

static inline ssize_t transport_recv(struct transport *t, void *data, size_t len)
{
    return recv(t->watch.fd, data, len, MSG_DONTWAIT);
}

static inline ssize_t transport_recv_parts(struct transport *t, struct iovec *parts, size_t count)
{
    struct msghdr msg = { .msg_iov = parts, .msg_iovlen = count };
    return recvmsg(t->watch.fd, &msg, MSG_DONTWAIT);
}

/* May take a part of the bytes only. At most IOV_MAX parts. */
static inline ssize_t transport_send(struct transport *t, struct iovec *parts, size_t count)
{
    struct msghdr msg = { .msg_iov = parts, .msg_iovlen = count };
    return sendmsg(t->watch.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Tells the peer that no more bytes come; it can still be read from. */
MUST_USE bool transport_end_sending(struct transport *t);

#endif
