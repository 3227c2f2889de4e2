/* http/conn.h - inside of the HTTP server: shards, connections, exchanges.
 *
 * A *shard* is what the server keeps per loop. A *connection* is small and lives as long as its
 * socket; an *exchange* is large (read buffer, parser, answer's head) and is lent to a connection
 * from the first byte of a request until its answer is written, so that idle connections cost next
 * to nothing. Each loop recycles its exchanges.
 *
 * Only files in http/ include this. Threads: the shard's loop, unless a field says otherwise.
 */
#ifndef TIS_HTTP_CONN_H
#define TIS_HTTP_CONN_H

#include "base/list.h"
#include "http/parser.h"
#include "http/server.h"
#include "net/acceptor.h"

enum {
    READ_BUFFER_BYTES = 16384,
    BODY_ROOM_BYTES = 1024,  /* of the read buffer, not filled while a head is read */
    OUT_BUFFER_BYTES = 2048, /* head of the answer, and its body when that is short and copied */
    OUT_PARTS_INLINE = 16,
    SCRATCH_BYTES = 65536,
    FREE_EXCHANGES_MAX = 64, /* kept by a shard for reuse */
    DROP_BYTES_MAX = 65536,  /* a larger unwanted body closes the connection instead */
};

/* What the connection does with bytes that arrive. */
enum conn_in {
    IN_HEAD,   /* between requests, or a head is incomplete */
    IN_BUDGET, /* not reading: the in-flight byte budget is spent */
    IN_BODY,
    IN_DROP,   /* answered already: the rest of the body is read and dropped */
    IN_DONE,   /* the request is complete; further bytes are pipelined and wait */
    IN_LINGER, /* everything is written and shut down; reading until the peer has seen it */
};

enum out_state {
    OUT_NONE,
    OUT_WRITING,
    OUT_WRITTEN
};

struct exchange {
    struct http_exchange pub;
    struct conn *conn;
    struct exchange *next_free;

    bool is_seen;      /* the handler has seen it: on_end is due */
    bool is_asked;     /* on_request was called: an answer is due */
    bool is_answered;  /* http_respond was called */
    bool is_cancelled; /* on_cancel was called */
    bool expects_continue;

    /* Input. [start, len) of buf are unconsumed bytes; the current head lies before `start` once it
     * is complete, and must not move. */
    char *buf; /* inline_buf, or malloc'ed for a long head */
    size_t capacity;
    size_t start;
    size_t len;
    size_t parsed;   /* IN_HEAD: [start, parsed) went through the parser */
    size_t head_end; /* end of the head in buf */
    struct http_parser parser;

    /* Body. */
    struct http_body_memory memory;
    size_t room;        /* bytes usable at memory.base */
    size_t room_wanted; /* IN_BUDGET: what to ask for again */
    size_t body_len;    /* received */
    uint64_t drop_left; /* IN_DROP */
    uint64_t body_start_ns;
    size_t budget_bytes; /* charged */

    /* Output. */
    enum out_state out;
    struct iovec *iov; /* iov_inline, or malloc'ed */
    uint32_t iov_at;
    uint32_t iov_count;
    char *out_big; /* malloc'ed, when out_buf is too small */
    void (*done)(void *arg);
    void *done_arg;

    struct iovec iov_inline[OUT_PARTS_INLINE];
    char out_buf[OUT_BUFFER_BYTES];
    char inline_buf[READ_BUFFER_BYTES];
};

struct conn {
    struct acceptor_conn base; /* its transport is closed once the connection is lost */

    /* set by conn_create(), then constant */
    struct shard *shard;

    /* loop thread only */
    struct list in_budget_queue;
    struct loop_timer timer; /* armed at or before the real deadline, see conn_deadline() */
    struct exchange *x;      /* NULL: idle, lingering or lost */
    enum conn_in in;
    bool is_running;      /* conn_run() is on the stack */
    bool is_new;          /* it may turn out to be HTTP/2 */
    bool is_eof;          /* the peer has ended its stream */
    bool is_last;         /* close when the current answer is written */
    uint64_t progress_ns; /* last byte in or out, or the start of the current wait */
};

/* What the server keeps per loop. */
struct shard {
    struct acceptor_shard base;

    /* set by http_server_create(), then constant */
    struct loop *loop;
    const struct http_handler *handler;
    const struct http_limits *limits;
    struct budget *budget;
    bool cancel_on_half_close;
    void (*on_http2)(struct transport *from, const void *bytes, size_t len, void *arg);
    void *on_http2_arg;

    /* loop thread only */
    struct list budget_queue; /* connections in IN_BUDGET, oldest first */
    struct exchange *free_exchanges;
    uint32_t free_count;
    struct loop_timer budget_timer; /* other loops may have given bytes back */
    struct loop_message budget_retry;
    bool budget_retry_posted;
    char *scratch; /* SCRATCH_BYTES that nobody reads */
};

struct http_server {
    struct acceptor acceptor;

    /* set by http_server_create(), then constant */
    struct http_handler handler;
    struct http_limits limits;
};

/* ---- conn.c ---- */

/* The acceptor's callbacks; see struct acceptor_handler. */
struct acceptor_conn *conn_create(struct acceptor_shard *s);
void conn_open(struct acceptor_conn *base);
void conn_ready(struct transport *t, unsigned events);
/* Closes the connection when it is between requests. May free it. */
void conn_close_idle(struct acceptor_conn *base);
/* Closes it whatever it does; an outstanding exchange is cancelled. May free it. */
void conn_close_now(struct acceptor_conn *base);

/* Closes the socket without more ado: the peer is gone, or not worth an answer. The caller goes on
 * to conn_run(), which ends the exchange and frees c. */
void conn_lose(struct conn *c);
/* Does whatever can be done now: parse, ask, answer, end. May free c. Does nothing when it is
 * already on the stack. */
void conn_run(struct conn *c);
/* Tries again to get the bytes that c waits for; false when the budget still refuses. May free c. */
bool conn_retry_budget(struct conn *c);

/* ---- exchange.c ---- */

struct exchange *exchange_get(struct shard *s);
void exchange_put(struct shard *s, struct exchange *x);
/* Ready for a request that begins at x->start. */
void exchange_reset(struct exchange *x);
static inline struct exchange *exchange_of(struct http_exchange *ex)
{
    return CONTAINER_OF(ex, struct exchange, pub);
}

/* ---- respond.c ---- */

/* Writes what is left of the answer; on failure the connection is lost. */
void respond_write(struct conn *c);
/* The answer will not be written any more: lets go of it. */
void respond_drop(struct exchange *x);

/* ---- server.c ---- */

/* A connection was put into the budget queue: look again soon. */
void server_budget_wait(struct shard *s);
/* Bytes went back to the budget: somebody waiting may go on. */
void server_budget_given(struct shard *s);
bool server_is_draining(const struct shard *s);
/* Serves a connected socket as if it had been accepted (tests; a seam for sockets from elsewhere).
 * Takes fd. Threads: any. */
void http_server_adopt(struct http_server *server, int fd);

#endif
