/* http/server.h - HTTP/1.1 for a program that answers requests.
 *
 * The server accepts connections, reads heads and bodies within limits, and writes answers; it
 * knows bytes and framing, no models. One request and its answer are an *exchange*. A connection
 * has one exchange at a time (pipelined bytes wait in its read buffer); each connection belongs to
 * one loop and everything about it happens there.
 *
 * The way of an exchange:
 *   on_head      the head is complete. The handler looks at method, path and headers, and either
 *                answers at once (http_respond*; the body is then read and dropped, or the
 *                connection closed when it is large) or lets the body come.
 *   on_request   the body is complete: exchange->body holds it, contiguous.
 *                The handler answers now or later.
 *   on_cancel    the client is gone (reset, or half-closed when the option says so) while the
 *                answer is outstanding. The handler may give up the work; it still must answer, and
 *                the answer is dropped.
 *   http_respond the answer. Exactly once an exchange, from on_head on. The exchange is the server's
 *                again: on_end and done() may have run when http_respond returns.
 *
 * Body memory: the body is received straight into one buffer (infer/buffer is not known here:
 * memory comes from the handler's on_body), so the handler decides alignment and may keep a
 * reference when the exchange has ended.
 *
 * Limits: every one of http_limits has a flag in server/options; what a client gets when it passes
 * one: head too large 431, body too large 413 (both with a text that names the flag, but where
 * requests have no body), too slow 408
 * then close, idle: closed silently, in-flight byte budget spent: reading stops, after
 * budget_wait_ns 503.
 *
 * Threads: loop threads only, unless a function says otherwise.
 */
#ifndef TIS_HTTP_SERVER_H
#define TIS_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/budget.h"
#include "base/error.h"
#include "http/header.h"
#include "net/acceptor.h"
#include "net/loop.h"

struct http_server;
struct http_exchange;
struct tls;
struct transport;

/* All times: 0 means no limit. */
struct http_limits {
    size_t head_bytes_max;       /* request line and headers together */
    uint64_t body_bytes_max;     /* a default that on_head may change per exchange; 0: no bodies */
    const char *head_bytes_flag; /* named in the texts of 431, 413 and 503; NULL: */
    const char *body_bytes_flag; /* "--http-max-head-size", "--http-max-input-size", */
    const char *budget_flag;     /* "--max-inflight-bytes" */
    uint64_t head_ns_max;        /* first byte of a head to its last */
    uint64_t idle_ns_max;        /* keep-alive without a request; 0: for ever */
    uint64_t body_stall_ns_max;  /* without a single byte of the body; likewise for writing */
    uint64_t body_rate_min;      /* bytes per second over the whole body after the first 10 s */
    uint64_t budget_wait_ns_max; /* waiting for the in-flight byte budget before 503; 0: not at
                                  * all */
    uint32_t connections_max;    /* a further one is accepted and closed; 0: no limit */
};

enum http_method {
    HTTP_GET,
    HTTP_POST,
    HTTP_PUT,
    HTTP_DELETE,
    HTTP_HEAD,
    HTTP_OTHER
};

/* Memory for a body. base must stay valid until release(owner), which is called once when the
 * exchange no longer needs it (its last use: after the answer is written). */
struct http_body_memory {
    char *base;
    size_t bytes; /* at least what was asked for */
    void *owner;
    void (*release)(void *owner); /* may be NULL */
};

struct http_exchange {
    /* the request; set by the server before on_head, constant afterwards */
    enum http_method method;
    const char *method_name;
    const char *path; /* percent-encoding untouched, without the query; NUL-terminated */
    size_t path_len;
    const char *query; /* behind '?', "" when absent; NUL-terminated */
    size_t query_len;
    const struct http_header *headers;
    uint32_t header_count;
    bool has_content_length;
    uint64_t content_length; /* 0 with chunked coding, until on_request */

    /* set before on_request: the whole body (chunked coding removed) */
    const char *body;
    size_t body_len;

    /* the handler's; zero before on_head */
    uint64_t body_bytes_max; /* starts as limits.body_bytes_max; on_head may change it */
    bool budget_exempt;      /* on_head may set it: health */
    void *user;              /* for the handler */
    /* set by the server */
    uint64_t recv_start_ns; /* monotonic: first byte of the head seen */
    uint64_t recv_end_ns;   /* monotonic: body complete */
};

struct http_handler {
    void *arg; /* passed to each callback */
    void (*on_head)(struct http_exchange *ex, void *arg);
    /* Memory for `bytes` of body; `bytes` is content_length, or what chunked coding has announced
     * so far (then called again with a larger number; the server copies). On error the exchange is
     * answered 503 and the error freed. May be NULL: the server allocates. */
    tis_error *(*on_body)(struct http_exchange *ex, size_t bytes,
                          struct http_body_memory *ret_memory, void *arg);
    void (*on_request)(struct http_exchange *ex, void *arg);
    void (*on_cancel)(struct http_exchange *ex, void *arg);
    /* Called when the exchange is over (answer written, dropped, or connection lost before the
     * handler was asked for an answer): the last moment ex may be touched. May be NULL. */
    void (*on_end)(struct http_exchange *ex, void *arg);
    /* Text for an error the server itself answers (limits, bad framing): the handler's dialect
     * writes head lines and body through http_respond, before it returns. When the head is not
     * complete, path is "" and there are no headers. NULL: plain text. The connection is closed
     * afterwards. */
    void (*on_error)(struct http_exchange *ex, int status, const char *text, void *arg);
};

/* Server. Several may share the loops. loops[0..loop_count) must outlive it. */
struct http_server_options {
    const char *address; /* one or several, see struct acceptor_options; "0.0.0.0", "unix:/path" */
    uint16_t port;       /* 0: a free one */
    bool reuse_port;
    struct tls *tls; /* NULL: cleartext; must outlive the server */
    bool cancel_on_half_close;
    struct http_limits limits;
    struct budget *budget; /* may be NULL */
    /* A new connection begins with the preface of HTTP/2. Takes it: bytes are what was read so far,
     * from has the rest and must be closed or moved elsewhere on this loop. NULL: such a connection
     * is answered 505. */
    void (*on_http2)(struct transport *from, const void *bytes, size_t len, void *arg);
    void *on_http2_arg;
};

/* Binds and listens, but accepts nothing before http_server_start(): a taken port is an error that
 * names address and port. */
MUST_USE tis_error *http_server_create(const struct http_server_options *options,
                                       const struct http_handler *handler,
                                       struct loop *const *loops, uint32_t loop_count,
                                       struct http_server **ret_server);
/* The loops must run. */
MUST_USE tis_error *http_server_start(struct http_server *server);
uint16_t http_server_port(const struct http_server *server);
/* Threads: any. */
struct acceptor_counts http_server_counts(const struct http_server *server);

/* Threads: any but a loop. Stops accepting (the port closes), closes idle connections, lets running
 * exchanges end with "Connection: close". Returns when no connection is left or at deadline_ns. True
 * when none is left. */
bool http_server_drain(struct http_server *server, uint64_t deadline_ns);
/* Threads: any but a loop; loops still running. Closes what is left, calls on_cancel for the
 * exchanges that wait for an answer, waits until each of them has got one (they point into the
 * server's memory), and frees everything. NULL is accepted. */
void http_server_destroy(struct http_server *server);

/* Header of the request without regard to case; NULL when absent. */
const struct http_header *http_header_find(const struct http_exchange *ex, const char *name);
/* Value of `key` in the query string ("" for a key without '='), percent-decoded, '+' as blank, into out (NUL-terminated, cut at out_bytes);
 * false when absent. */
bool http_query_get(const struct http_exchange *ex, const char *key, char *out, size_t out_bytes);

/* The answer. headers: complete lines "Name: value\r\n..." of the handler (Content-Type and so on),
 * copied; Content-Length, Connection and the status line are the server's. parts[0..part_count):
 * the body, not copied: it must stay valid until done(arg), called once on this loop when the bytes
 * are written or the connection is lost (done may be NULL). One writev carries head and parts. */
void http_respond(struct http_exchange *ex, int status, const char *headers, size_t headers_len,
                  const struct iovec *parts, uint32_t part_count, void (*done)(void *arg),
                  void *arg);
/* Short answer: copies the body. headers: NUL-terminated lines, or NULL. */
void http_respond_copy(struct http_exchange *ex, int status, const char *headers, const void *body,
                       size_t body_len);

/* The loop that owns the exchange. Threads: any, while the exchange lives. */
struct loop *http_exchange_loop(const struct http_exchange *ex);
/* True after on_cancel. */
bool http_exchange_is_cancelled(const struct http_exchange *ex);

#endif
