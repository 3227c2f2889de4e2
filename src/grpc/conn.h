/* grpc/conn.h - inside of the gRPC server: shards, connections, streams, output.
 *
 * A *shard* is what the server keeps per loop. A *connection* has one nghttp2 session. A *stream*
 * is one exchange; it outlives nghttp2's stream of the same number while an answer is outstanding or
 * slices of its reply wait in the output.
 *
 * Only files in grpc/ include this. Threads: the shard's loop, unless a field says otherwise.
 */
#ifndef TIS_GRPC_CONN_H
#define TIS_GRPC_CONN_H

#include <nghttp2/nghttp2.h>

#include "base/list.h"
#include "base/lock.h"
#include "grpc/frame.h"
#include "grpc/server.h"

enum {
    STREAM_WINDOW_BYTES = 8 << 20,
    CONN_WINDOW_BYTES = 64 << 20,
    RECV_BYTES = 128 << 10, /* of one recv(), shared by a loop's connections */
    DATA_FRAME_BYTES_MAX = 256 << 10,
    OUTPUT_BYTES = 32 << 10, /* of frames that are copied: all but tensors */
    OUTPUT_SLICES_MAX = 256,
    OUTPUT_QUEUED_MAX = 4 << 20, /* more is not taken from nghttp2, and nothing is read */
    FRAME_SLICES_MAX = 8,        /* of the reply, in one DATA frame */
    PATH_BYTES = 256,
    PARTS_INLINE = 8,
    FREE_MAX = 256, /* streams and outputs kept by a shard for reuse */
};

struct stream {
    struct grpc_exchange pub;
    struct grpc_conn *conn;
    struct list in_conn;
    struct stream *next_free;
    int32_t id;

    bool is_open;      /* nghttp2 knows it */
    bool is_seen;      /* on_head was called: on_end is due */
    bool is_asked;     /* on_request was called: an answer is due */
    bool is_answered;  /* grpc_respond or grpc_fail was called */
    bool is_cancelled; /* on_cancel was called */
    bool is_replied;   /* an answer, the handler's or ours, was given to nghttp2 */
    bool is_grpc;      /* POST and a content type of ours */
    bool is_post;
    bool has_timeout;

    uint64_t timeout_ns;
    struct loop_timer deadline;

    /* input */
    uint8_t prefix[FRAME_PREFIX_BYTES];
    uint32_t prefix_len;
    size_t message_len; /* announced */
    size_t received;
    struct http_body_memory memory;
    size_t budget_bytes; /* charged */

    /* output: parts[part_at..part_count) from part_offset are not yet in the connection's output */
    uint8_t out_prefix[FRAME_PREFIX_BYTES];
    struct iovec *parts; /* inline_parts, or malloc'ed; [0] is the prefix */
    uint32_t part_count;
    uint32_t part_at;
    size_t part_offset;
    uint64_t left;
    uint32_t slices; /* in the connection's output */
    struct iovec inline_parts[PARTS_INLINE];
    char path[PATH_BYTES];
};

/* Bytes on their way to the socket. Lent to a connection while it has any. */
struct output {
    struct output *next_free;
    size_t queued; /* bytes from at on */
    size_t len;    /* used of bytes[] */
    uint32_t at;
    uint32_t count;
    struct iovec iov[OUTPUT_SLICES_MAX];
    struct stream *owner[OUTPUT_SLICES_MAX]; /* NULL: the bytes are in bytes[] */
    char bytes[OUTPUT_BYTES];
};

struct grpc_conn {
    /* set at creation, then constant */
    struct grpc_shard *shard;

    /* loop thread only */
    struct list in_shard;
    struct list streams;
    struct loop_watch watch; /* watch.fd is -1 once the connection is lost */
    struct loop_timer timer;
    nghttp2_session *session; /* NULL once the connection is lost */
    struct output *out;       /* NULL: nothing to write */
    bool is_running;          /* inside nghttp2 or a callback: conn_run() is coming */
    bool is_failed;           /* to be lost by conn_run() */
    bool is_begun;            /* the client's first frame has come */
    bool is_noticed;          /* the shutdown notice was sent */
    bool is_going;            /* the final GOAWAY was sent */
    bool is_flush_posted;
    uint64_t progress_ns;
    struct loop_message flush; /* at the end of the loop's round, for all answers of the round */
    struct loop_message adopt;
};

/* What the server keeps per loop. */
struct grpc_shard {
    /* set at creation, then constant */
    struct grpc_server *server;
    struct loop *loop;

    /* loop thread only */
    struct list conns;
    struct loop_watch listener;
    struct loop_timer accept_timer;
    struct stream *free_streams;
    struct output *free_outputs;
    uint32_t free_stream_count;
    uint32_t free_output_count;
    bool is_closing;
    uint8_t *scratch; /* RECV_BYTES */

    /* one controller at a time */
    struct loop_message start_message;
    struct loop_message control_message;
    void (*control)(struct grpc_shard *s);

    /* atomic */
    _Atomic uint32_t conn_count;
};

struct grpc_server {
    /* set at creation, then constant */
    struct grpc_handler handler;
    struct grpc_server_options options;
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *session_options;
    char *address;
    int listen_fd; /* closed by drain or destroy */
    uint16_t port;
    uint32_t shard_count;
    bool is_started;
    struct grpc_shard **shards;

    /* any thread, under lock */
    struct lock lock;
    struct cond changed;
    uint32_t acks_missing;

    /* atomic */
    _Atomic uint32_t conn_count;
    _Atomic bool is_draining;
};

/* ---- conn.c ---- */

/* Takes fd; serves it on the shard's loop. Any loop's thread. */
void conn_adopt(struct grpc_shard *s, int fd);
/* Writes what there is, ends what has ended. May free c. Does nothing inside callbacks: whoever set
 * is_running calls it afterwards. */
void grpc_conn_run(struct grpc_conn *c);
/* conn_run() at the end of the loop's round. */
void grpc_conn_run_soon(struct grpc_conn *c);
/* The first step of a drain: no further streams. May free c. */
void grpc_conn_drain(struct grpc_conn *c);
/* Ends c whatever it does. May free c. */
void grpc_conn_close(struct grpc_conn *c);

/* ---- stream.c ---- */

/* NULL when out of memory. */
struct stream *stream_create(struct grpc_conn *c, int32_t id);
/* A header of the request. */
void stream_header(struct stream *s, const uint8_t *name, size_t name_len, const uint8_t *value,
                   size_t value_len);
/* The headers are complete. */
void stream_head(struct stream *s);
void stream_data(struct stream *s, const uint8_t *data, size_t len);
/* The client has sent everything. */
void stream_end(struct stream *s);
/* nghttp2 has forgotten the stream, or the connection is lost. May free s. */
void stream_closed(struct stream *s);
/* Slices of the reply have left the output. May free s. */
void stream_slices_gone(struct stream *s, uint32_t count);

/* ---- output.c ---- */

/* nghttp2's way out; see nghttp2_send_callback and nghttp2_send_data_callback. */
ssize_t output_send(nghttp2_session *session, const uint8_t *data, size_t len, int flags,
                    void *user);
int output_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
                     size_t len, nghttp2_data_source *source, void *user);
/* One writev; false when the connection is lost. May free streams. */
bool output_write(struct grpc_conn *c);
/* The connection is lost: lets go of what is queued. */
void output_drop(struct grpc_conn *c);
size_t output_queued(const struct grpc_conn *c);

/* ---- server.c ---- */

void grpc_conn_ended(struct grpc_shard *s);
bool grpc_is_draining(const struct grpc_shard *s);
void conn_callbacks_set(nghttp2_session_callbacks *callbacks);
/* Serves a connected socket as if it had been accepted (tests). Takes fd. */
void grpc_server_adopt(struct grpc_server *server, int fd);

#endif
