/* grpc/server.h - gRPC over HTTP/2 for a program that answers calls.
 *
 * The server accepts connections, keeps streams, flow control, message framing and deadlines, and
 * writes answers; it knows bytes, no messages and no models. One call and its answer are an
 * *exchange*, as in http/server.h; a connection has many at a time, and each connection belongs to
 * one loop, where everything about it happens.
 *
 * The way of an exchange:
 *   on_head      the headers are complete. The handler looks at the path and either answers at once
 *                (grpc_fail) or lets the message come; it says so when the call is a stream of
 *                messages (is_stream).
 *   on_message   the message's length is known: memory for it.
 *   on_request   the message is complete: exchange->message holds it, contiguous. The handler answers
 *                now or later.
 *   on_cancel    the client has given up (RST_STREAM, connection lost) or its deadline has passed,
 *                while the answer is outstanding. The handler may give up the work; it still must
 *                answer, and the answer is dropped.
 *   grpc_respond, grpc_fail
 *                the answer. Exactly once an exchange, from on_head on. The exchange is the server's
 *                again.
 *   on_end       the exchange is over: the last moment it may be touched.
 *
 * In a stream on_message and on_request come for each message, on_half_close after the last one. The
 * handler keeps a message until grpc_message_release(), sends as many as it likes by grpc_send(), and
 * ends the exchange by grpc_finish() or grpc_fail(), exactly once, also after on_cancel. While it
 * holds more than STREAM_HELD_BYTES_MAX of a stream's messages the client's window stays closed, so
 * that a slow handler stops its own client and no other stream.
 *
 * What the server answers itself: 415 to what is not gRPC, UNIMPLEMENTED to an unknown compression,
 * RESOURCE_EXHAUSTED to a message over the limit, UNAVAILABLE when the in-flight byte budget is
 * spent, INTERNAL to broken framing, DEADLINE_EXCEEDED when the deadline passes.
 *
 * Threads: loop threads only, unless a function says otherwise.
 */
#ifndef TIS_GRPC_SERVER_H
#define TIS_GRPC_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/budget.h"
#include "base/error.h"
#include "base/list.h"
#include "grpc/compress.h"
#include "http/server.h"
#include "net/loop.h"

struct grpc_server;
struct pool;
struct tls;
struct transport;

/* Numbers of the protocol. */
enum grpc_code {
    GRPC_OK = 0,
    GRPC_CANCELLED = 1,
    GRPC_UNKNOWN = 2,
    GRPC_INVALID_ARGUMENT = 3,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_NOT_FOUND = 5,
    GRPC_ALREADY_EXISTS = 6,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
};

struct grpc_exchange {
    /* the call; set by the server before on_head, constant afterwards */
    const char *path;     /* "/package.Service/Method"; NUL-terminated; "" when too long */
    uint64_t deadline_ns; /* monotonic; 0: none */
    /* what is not gRPC's own: names in lower case, values as sent (-bin: base64) */
    const struct http_header *metadata;
    uint32_t metadata_count;

    /* set before on_request */
    const char *message;
    size_t message_len;

    /* the handler's; on_head may change them */
    uint64_t message_bytes_max; /* starts as the option's */
    bool budget_exempt;
    bool is_stream;
    enum compress_level compression; /* of what is sent, when the client takes it; starts as NONE */
    void *user;
    /* set by the server */
    uint64_t recv_start_ns; /* monotonic: headers seen */
    uint64_t recv_end_ns;   /* monotonic: message complete */
};

struct grpc_handler {
    void *arg;
    void (*on_head)(struct grpc_exchange *ex, void *arg);
    /* Memory for a message of `bytes` > 0; see http_handler.on_body. Its release runs when the
     * exchange ends. In a stream it is the handler's, without a release. */
    tis_error *(*on_message)(struct grpc_exchange *ex, size_t bytes,
                             struct http_body_memory *ret_memory, void *arg);
    void (*on_request)(struct grpc_exchange *ex, void *arg);
    /* Of a stream: no further message comes. May be NULL when no exchange is a stream. */
    void (*on_half_close)(struct grpc_exchange *ex, void *arg);
    /* Of a stream: the server is about to end; a stream with nothing to do should. May be NULL. */
    void (*on_drain)(struct grpc_exchange *ex, void *arg);
    void (*on_cancel)(struct grpc_exchange *ex, void *arg);
    /* Comes for every exchange that on_head was called for. */
    void (*on_end)(struct grpc_exchange *ex, void *arg);
};

/* Keepalive and the end of connections, as grpc-core's server has them; its names of the settings
 * stand in brackets. Times in ns. All zero: nothing of this. */
struct grpc_lifetime {
    uint64_t keepalive_ns; /* silence before the client is pinged; 0: never [KEEPALIVE_TIME] */
    uint64_t keepalive_timeout_ns; /* without a byte after it before the end [KEEPALIVE_TIMEOUT] */
    /* Ping, and let clients ping, when no call is open too [KEEPALIVE_PERMIT_WITHOUT_CALLS] */
    bool keepalive_without_calls;
    /* Pings we send with no HEADERS, DATA or WINDOW_UPDATE of ours between; 0: any number
     * [HTTP2_MAX_PINGS_WITHOUT_DATA] */
    uint32_t pings_without_data_max;
    /* A client's ping that follows its last one sooner than this, with nothing sent between, is a
     * strike [HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA]; more strikes than ping_strikes_max end the
     * connection; 0: any number [HTTP2_MAX_PING_STRIKES] */
    uint64_t ping_interval_ns_min;
    uint32_t ping_strikes_max;
    /* After this time, give or take a tenth, the client is told to go; 0: never [MAX_CONNECTION_AGE] */
    uint64_t age_ns_max;
    /* Then its calls may go on for this long before they are cut off. 0: until they end, which is what
     * grpc-core does when Triton, for its flag's 0, leaves the setting out [MAX_CONNECTION_AGE_GRACE] */
    uint64_t age_grace_ns;
};

struct grpc_server_options {
    const char *address; /* one or several, see struct acceptor_options */
    uint16_t port;       /* 0: a free one */
    bool reuse_port;
    struct tls *tls; /* NULL: cleartext; must outlive the server */
    uint64_t message_bytes_max;
    const char *message_bytes_flag; /* named in texts */
    const char *budget_flag;
    uint32_t streams_max;     /* at the same time on a connection */
    uint32_t connections_max; /* a further one is accepted and closed; 0: no limit */
    uint64_t stall_ns_max; /* a reader that takes nothing, a preface that does not come; 0: ever */
    size_t header_bytes_max; /* of a call's headers, counted as HTTP/2 does; 0: no limit */
    struct grpc_lifetime lifetime;
    struct budget *budget;       /* may be NULL */
    struct pool *workers;        /* (de)compress what is large; NULL: the loops do it */
    uint64_t budget_wait_ns_max; /* a message's, for the budget, before it is refused */
};

/* Binds and listens, but accepts nothing before grpc_server_start(): a taken port is an error that
 * names address and port. Several servers may share the loops, which must outlive them. */
MUST_USE tis_error *grpc_server_create(const struct grpc_server_options *options,
                                       const struct grpc_handler *handler,
                                       struct loop *const *loops, uint32_t loop_count,
                                       struct grpc_server **ret_server);
/* The loops must run. */
void grpc_server_start(struct grpc_server *server);
/* 0: it listens on Unix domain sockets only. */
uint16_t grpc_server_port(const struct grpc_server *server);
/* Threads: any. */
struct acceptor_counts grpc_server_counts(const struct grpc_server *server);
/* Serves a connection that another server has accepted, one of the same loops: takes what `from` has,
 * which is closed then, and the bytes that were read from it. Threads: from's loop. */
void grpc_server_adopt_transport(struct grpc_server *server, struct transport *from,
                                 const void *bytes, size_t len);

/* Threads: any but a loop. Stops accepting (the port closes) and tells every client by GOAWAY to open
 * no further stream; open ones are served to their end. Returns when no connection is left, or at
 * deadline_ns. True when none is left. May be called again. */
bool grpc_server_drain(struct grpc_server *server, uint64_t deadline_ns);
/* Threads: any but a loop; loops still running. Closes what is left, calls on_cancel for the
 * exchanges that wait for an answer, waits until each of them has got one, and frees everything.
 * NULL is accepted. */
void grpc_server_destroy(struct grpc_server *server);

/* The answer: one message of the parts. The bytes are not copied and must stay valid until on_end. */
void grpc_respond(struct grpc_exchange *ex, const struct iovec *parts, uint32_t part_count);
/* The answer is an error; the text is copied. In a stream messages that are not yet on their way are
 * dropped. */
void grpc_fail(struct grpc_exchange *ex, enum grpc_code code, const char *text);

/* ---- Streams ---- */

/* One message on its way to the client. Embedded by its sender; parts and bytes stay valid until
 * done(), which is called once, on this loop: the message is written, or dropped. */
struct grpc_message {
    const struct iovec *parts;
    uint32_t part_count;
    void (*done)(struct grpc_message *m);
    /* the server's */
    struct list link;
    struct stream *stream;
    struct zip *zip;
    bool is_zipped;
    uint64_t left; /* bytes not yet in the connection's output, prefix included */
    uint32_t part_at;
    size_t part_offset;
    uint32_t slices; /* in the connection's output */
    size_t bytes;    /* all of them */
    uint8_t prefix[5];
    uint8_t prefix_at; /* bytes of it in the output */
};

/* Queues a message behind those sent before. */
void grpc_send(struct grpc_exchange *ex, struct grpc_message *m);
/* The stream ends with OK after the messages sent. */
void grpc_finish(struct grpc_exchange *ex);
/* The handler has finished with a message of this length. */
void grpc_message_release(struct grpc_exchange *ex, size_t message_len);
/* Bytes of messages that wait for a client which does not read. */
size_t grpc_unsent_bytes(const struct grpc_exchange *ex);
/* Answers cannot be refused room in the byte budget: is more than twice of it taken? */
bool grpc_is_overdrawn(const struct grpc_exchange *ex);

/* The loop that owns the exchange. Threads: any, while the exchange lives. */
struct loop *grpc_exchange_loop(const struct grpc_exchange *ex);
/* True after on_cancel. */
bool grpc_exchange_is_cancelled(const struct grpc_exchange *ex);

#endif
