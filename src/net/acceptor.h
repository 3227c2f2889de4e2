/* net/acceptor.h - listening sockets, and the connections that come in by them.
 *
 * What the servers of all protocols share: they listen, spread connections over the loops, count
 * them, and tell all of them to finish or to close. An acceptor has a *shard* for each loop; a
 * connection belongs to one shard, where everything about it happens. The embedders are the server
 * (struct acceptor), what it keeps per loop (struct acceptor_shard) and its connection (struct
 * acceptor_conn).
 *
 * The way of a connection: create (memory for it, on the loop that accepted), open (on its own
 * loop), then drain and close when the acceptor is told to; the embedder ends it with
 * acceptor_conn_ended() whenever it likes, also inside these callbacks.
 *
 * Ownership: the acceptor owns the listening sockets and the files of Unix sockets; a connection's
 * memory and its transport are the embedder's.
 * Threads: what a function says; callbacks come on loops.
 */
#ifndef TIS_NET_ACCEPTOR_H
#define TIS_NET_ACCEPTOR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/lock.h"
#include "net/socket.h"
#include "net/transport.h"

enum {
    ACCEPTOR_SOCKETS_MAX = 8
};

struct acceptor;
struct acceptor_shard;

/* Embedded by a connection. */
struct acceptor_conn {
    struct transport transport;
    struct acceptor_shard *shard;
    /* acceptor's */
    struct list in_shard;
    struct loop_message adopt;
};

struct acceptor_handler {
    const char *name; /* "http": begins lines of the log */
    /* Memory for a connection of s; NULL when there is none. Threads: any loop. */
    struct acceptor_conn *(*create)(struct acceptor_shard *s);
    /* c's transport is watched for LOOP_READ; or already closed, when the connection came too late
     * or cannot be served, and then it is to be ended. */
    void (*open)(struct acceptor_conn *c);
    void (*ready)(struct transport *t, unsigned events); /* its transport's */
    /* Finish what is begun, then end. */
    void (*drain)(struct acceptor_conn *c);
    /* End, whatever it does. */
    void (*close)(struct acceptor_conn *c);
    /* s has no connection any more and will get none. May be NULL. */
    void (*end)(struct acceptor_shard *s);
};

struct acceptor_options {
    /* Where to listen: one or more of the following, separated by commas.
     *   a numeric address or a host name; "" or "*": all of IPv4
     *   unix:PATH   a Unix domain socket; PATH may be relative, unix:///PATH is absolute */
    const char *address;
    uint16_t port; /* of all TCP addresses; 0: a free one */
    bool reuse_port;
    struct tls *tls;          /* NULL: cleartext; must outlive the acceptor */
    uint32_t connections_max; /* a further one is accepted and closed; 0: no limit */
};

/* A listening socket, as one loop watches it. */
struct acceptor_listener {
    struct acceptor_shard *shard;
    struct loop_watch watch;
};

/* Embedded by what a server keeps per loop. */
struct acceptor_shard {
    /* set by acceptor_add_shard(), then constant */
    struct acceptor *acceptor;
    struct loop *loop;

    /* loop thread only; acceptor's */
    struct list conns;
    struct acceptor_listener listeners[ACCEPTOR_SOCKETS_MAX];
    struct loop_timer accept_timer; /* listening again after a lack of descriptors */
    bool is_accept_failing;         /* said so in the log already */
    bool is_closing;                /* acceptor_close(): adopt nothing */

    /* one controller at a time */
    struct loop_message start_message;
    struct loop_message control_message;
    void (*control)(struct acceptor_shard *s);

    /* atomic */
    _Atomic uint32_t conn_count;
};

/* Embedded by a server. */
struct acceptor {
    /* set by acceptor_init() and acceptor_add_shard(), then constant */
    const struct acceptor_handler *handler;
    struct tls *tls; /* NULL: cleartext */
    char *address;
    uint32_t connections_max;
    uint32_t socket_count;
    uint32_t shard_count;
    struct acceptor_shard **shards;
    bool is_started;

    /* closed by acceptor_drain() or acceptor_fini(), after every loop has let go of them */
    struct socket_listener sockets[ACCEPTOR_SOCKETS_MAX];

    /* any thread, under lock */
    struct lock lock;
    struct cond changed;
    uint32_t acks_missing;

    /* atomic */
    _Atomic uint32_t conn_count;
    _Atomic uint64_t accepted_count;
    _Atomic bool is_draining;
};

struct acceptor_counts {
    uint32_t open;     /* those of its protocol, also adopted ones */
    uint64_t accepted; /* by its own sockets, from the start on; those it closed at once too */
};

/* Binds and listens, but accepts nothing before acceptor_start(). Afterwards shard_count shards are
 * added. On error nothing needs to be undone, and acceptor_fini() does no harm. handler must outlive
 * the acceptor. Errors: those of socket_listen(). */
MUST_USE tis_error *acceptor_init(struct acceptor *a, const struct acceptor_options *options,
                                  const struct acceptor_handler *handler, uint32_t shard_count);
void acceptor_add_shard(struct acceptor *a, struct acceptor_shard *s, struct loop *loop);
/* After acceptor_close(), or when it was never started. Zeroed memory is accepted. */
void acceptor_fini(struct acceptor *a);

/* Threads: any but a loop. The loops must run. */
void acceptor_start(struct acceptor *a);
/* The port of the first TCP address; 0 when there is none. Threads: any. */
uint16_t acceptor_port(const struct acceptor *a);

/* Threads: any but a loop. Closes the listening sockets, tells every connection to drain, waits
 * until none is left or for deadline_ns. True when none is left. May be called again. */
bool acceptor_drain(struct acceptor *a, uint64_t deadline_ns);
/* Threads: any but a loop; loops still running. Tells every connection to close and waits until
 * none is left, then calls handler.end for each shard. */
void acceptor_close(struct acceptor *a);
/* Threads: any. */
bool acceptor_is_draining(const struct acceptor *a);
/* Threads: any. */
struct acceptor_counts acceptor_counts(const struct acceptor *a);

/* Takes fd, a connected socket, as if it had been accepted. Threads: any. */
void acceptor_adopt(struct acceptor *a, int fd);
/* Takes a connection of another acceptor: its transport goes over to c, which the caller has made as
 * handler.create does, and which is watched for LOOP_READ then, or closed when it comes too late;
 * handler.open is not called. from is closed. Threads: s's loop, which is from's too. */
void acceptor_adopt_transport(struct acceptor_shard *s, struct acceptor_conn *c,
                              struct transport *from);
/* The shard of the loop that runs. Threads: loop. */
struct acceptor_shard *acceptor_shard_here(struct acceptor *a);
/* c is over and its transport is closed; the caller frees it. */
void acceptor_conn_ended(struct acceptor_conn *c);

#endif
