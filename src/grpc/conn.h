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

#include "base/arena.h"
#include "base/list.h"
#include "base/pool.h"
#include "grpc/compress.h"
#include "grpc/frame.h"
#include "grpc/memory.h"
#include "grpc/server.h"
#include "net/acceptor.h"

enum {
    STREAM_WINDOW_BYTES = 8 << 20,
    CONN_WINDOW_BYTES = 64 << 20,
    RECV_BYTES = 128 << 10,      /* of one recv() into memory shared by a loop's connections */
    INPUT_BYTES_MAX = 256 << 10, /* of one recv() into a message */
    INPUT_FRAMES_MAX = 17,       /* of the usual 16 KiB */
    INPUT_LARGE_BYTES_MIN = 32 << 10,
    SCRATCH_BYTES = RECV_BYTES + INPUT_BYTES_MAX + 9 * INPUT_FRAMES_MAX,
    DATA_FRAME_BYTES_MAX = 256 << 10,
    OUTPUT_BYTES = 32 << 10, /* of frames that are copied: all but tensors */
    OUTPUT_SLICES_MAX = 256,
    OUTPUT_QUEUED_MAX = 4 << 20, /* more is not taken from nghttp2, and nothing is read */
    OUTBOUND_FRAMES_MAX = 2048,  /* kept by nghttp2, without DATA; then nothing is read */
    FRAME_PARTS_MAX = 16,        /* of messages, in one DATA frame */
    COPY_BYTES_MAX = 1024,       /* a shorter part is copied */
    PATH_BYTES = 256,
    METADATA_MAX = 64,
    METADATA_BYTES_FIRST = 512,
    METADATA_BYTES_MAX = 64 << 10,
    STREAM_HELD_BYTES_MAX = 8 << 20, /* of messages that a stream's handler has */
    MESSAGE_HELD_BYTES_MIN = 4096,   /* what a message counts at least: it becomes a request */
    MESSAGE_UNSENT_BYTES = 1024,     /* what an answer that waits counts besides its bytes */
    PARTS_INLINE = 8,
    FREE_MAX = 256, /* streams and outputs kept by a shard for reuse */
};

/* How far a compressed message is; see unzip.c. */
enum unzip_step {
    UNZIP_IDLE,
    UNZIP_MEASURE,
    UNZIP_INFLATE,
};

struct unzip {
    enum unzip_step step;
    bool is_on_worker; /* which has the fields below, and the stream's encoding and memory */
    void *zipped;      /* malloc'ed */
    size_t zipped_len;
    size_t bytes_max;
    size_t bytes; /* decompressed */
    enum compress_result result;
    struct pool_job job;
    struct loop_message done;
};

/* The header that says the client understands trailers. */
enum te {
    TE_MISSING,
    TE_TRAILERS,
    TE_OTHER,
};

struct stream {
    struct grpc_exchange pub;
    struct grpc_conn *conn;
    struct list in_conn;
    struct stream *next_free;
    int32_t id;

    bool is_open;      /* nghttp2 knows it */
    bool is_seen;      /* on_head was called: on_end is due */
    bool is_asked;     /* on_request was called, or it is a stream: an answer is due */
    bool is_answered;  /* grpc_respond, grpc_fail or grpc_finish was called */
    bool is_cancelled; /* on_cancel was called */
    bool is_replied;   /* the answer, the handler's or ours, is settled: no more may be sent */
    bool is_begun;     /* the answer's headers were given to nghttp2 */
    bool is_deferred;  /* nghttp2 waits for grpc_send() */
    bool is_ended;     /* the trailers were given to nghttp2, without a frame of DATA */
    bool is_grpc;      /* POST and a content type of ours */
    bool is_post;
    bool has_timeout;
    bool has_metadata; /* the arena is in use */
    bool is_head_long; /* more metadata than we keep */
    enum te te;
    enum compress_format encoding; /* of compressed messages */

    uint64_t timeout_ns;
    struct loop_timer deadline;

    /* input: the current message */
    uint8_t prefix[FRAME_PREFIX_BYTES];
    uint32_t prefix_len;
    size_t message_len; /* announced */
    size_t received;
    struct http_body_memory memory;
    size_t budget_bytes; /* charged, for all messages */
    bool is_in_queue;    /* for bytes of the budget, see wait.c */
    struct list in_budget_queue;
    size_t wanted;
    uint64_t wait_ns; /* since when */
    uint64_t data_ns; /* last bytes of a message */
    uint64_t sent_ns; /* of `unsent`: last bytes into the output, or since when some wait */
    bool is_zipped;   /* the message that comes */
    bool is_end_due;  /* the client has sent everything, behind a message that is not yet asked */
    struct unzip unzip;
    size_t held;       /* of a stream: charged messages that the handler has, see stream_cost() */
    size_t unconsumed; /* of the stream's window, to be given back when less is held */

    /* output */
    struct list messages; /* not wholly in the connection's output; nghttp2 takes from the first */
    uint32_t message_count;  /* not done */
    size_t unsent;           /* bytes of those in `messages` */
    size_t promised;         /* of these, in a frame that nghttp2 has begun */
    struct grpc_message own; /* the answer of a unary call */
    struct iovec *own_parts; /* own_inline, or malloc'ed */
    int final_code;
    char *final_text;                /* malloc'ed, or NULL */
    enum compress_format zip_format; /* of messages out */
    unsigned zip_accepted;           /* by the client; see compress_formats_in() */
    struct list zipping;             /* messages that wait for compression; see zip.c */
    size_t zipping_bytes;            /* of these */
    bool is_finish_due;              /* behind them */
    struct iovec own_inline[PARTS_INLINE];

    struct arena arena; /* of the metadata */
    struct http_header metadata[METADATA_MAX];
    char path[PATH_BYTES];
    char metadata_first[METADATA_BYTES_FIRST] __attribute__((aligned(16)));
};

/* Bytes on their way to the socket. Lent to a connection while it has any. */
struct output {
    struct output *next_free;
    size_t queued; /* bytes from at on */
    size_t len;    /* used of bytes[] */
    uint32_t at;
    uint32_t count;
    struct iovec iov[OUTPUT_SLICES_MAX];
    struct grpc_message *owner[OUTPUT_SLICES_MAX]; /* NULL: the bytes are in bytes[] */
    char bytes[OUTPUT_BYTES];
};

/* What was read while a stream could not take it. */
struct held_input {
    uint8_t *bytes; /* NULL: nothing; malloc'ed */
    size_t capacity;
    size_t at;    /* [at, capacity) are unused */
    size_t chunk; /* of these, data of stream id at the beginning */
    int32_t id;
};

struct grpc_conn {
    struct acceptor_conn base; /* its transport is closed once the connection is lost */

    /* set at creation, then constant */
    struct grpc_shard *shard;

    /* loop thread only */
    struct list streams;
    uint32_t stream_count;     /* of these, also those that nghttp2 has forgotten */
    struct list done_messages; /* reply_run_done() tells their senders */
    struct loop_timer timer;
    nghttp2_session *session; /* NULL once the connection lingers or is lost */
    struct output *out;       /* NULL: nothing to write */
    bool is_running;          /* inside nghttp2 or a callback: conn_run() is coming */
    bool is_failed;           /* to be lost by conn_run() */
    bool is_begun;            /* the client's first frame has come */
    bool is_noticed;          /* the shutdown notice was sent */
    bool is_going;            /* the final GOAWAY was sent */
    bool is_leaving;          /* to end when everything is written; nghttp2 gets nothing any more */
    bool is_lingering; /* everything is written and our side ended; what comes is thrown away */
    bool is_flush_posted;
    uint64_t born_ns;
    uint64_t progress_ns; /* last byte out, or since when bytes wait to go out */
    uint64_t received_ns; /* last byte in, or since when we read again */
    uint64_t notice_ns;   /* of is_noticed */
    uint64_t leave_ns;    /* of is_leaving */
    uint64_t age_ns;      /* when it will have lived too long; 0: never */
    uint64_t grace_ns;    /* when the streams that are left end; 0: by themselves */
    uint64_t ping_ns;     /* since when our keepalive ping waits for a sign of life; 0: none does */
    uint64_t pinged_ns;   /* the client's last ping; 0: we have sent something of substance since */
    uint32_t pings_sent;  /* by us since then */
    uint32_t ping_strikes;
    uint32_t resets_left;    /* see RESETS_BURST */
    uint64_t resets_ns;      /* up to when they were refilled */
    size_t header_bytes;     /* of the header block that is coming in */
    int32_t data_id;         /* the DATA frame that comes */
    size_t data_left;        /* of its payload; 0: none comes */
    const uint8_t *data_end; /* the end of the last piece of it, valid inside input_feed() */
    bool is_data_over;       /* nghttp2 has had the frame's last byte and none behind it */
    size_t data_bytes;       /* its payload; 0: there is no reason to expect another one like it */
    struct held_input held;
    const uint8_t *paused_at; /* nghttp2 has just been paused there */
    uint64_t check_ns;     /* when to look for messages, either way, that do not get on; 0: none */
    size_t unsent;         /* bytes of replies that are not done */
    size_t unsent_charged; /* of these */
    struct loop_message flush; /* at the end of the loop's round, for all answers of the round */
};

/* What the server keeps per loop. */
struct grpc_shard {
    struct acceptor_shard base;

    /* set at creation, then constant */
    struct grpc_server *server;
    struct loop *loop;

    /* loop thread only */
    struct stream *free_streams;
    struct output *free_outputs;
    uint32_t free_stream_count;
    uint32_t free_output_count;
    uint8_t *scratch;         /* SCRATCH_BYTES, of input.c */
    struct memory memory;     /* of the sessions */
    struct list budget_queue; /* streams, oldest first */
    struct loop_timer budget_timer;
    struct loop_message budget_retry;
    bool is_budget_retry_posted;
};

struct grpc_server {
    struct acceptor acceptor;

    /* set at creation, then constant */
    struct grpc_handler handler;
    struct grpc_server_options options;
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *session_options;
};

/* ---- conn.c ---- */

/* The acceptor's callbacks; see struct acceptor_handler. All but the first may free the connection. */
struct acceptor_conn *grpc_conn_create(struct acceptor_shard *s);
void grpc_conn_open(struct acceptor_conn *base);
void grpc_conn_ready(struct transport *t, unsigned events);
/* The first step of a drain: no further streams. */
void grpc_conn_drain(struct acceptor_conn *base);
void grpc_conn_close(struct acceptor_conn *base);
/* Serves what was begun elsewhere; see grpc_server_adopt_transport(). */
void grpc_conn_adopt(struct grpc_shard *shard, struct transport *from, const uint8_t *bytes,
                     size_t len);
/* What nghttp2 is to tell, of all connections. */
void conn_callbacks_set(nghttp2_session_callbacks *callbacks);
/* Writes what there is, ends what has ended. May free c. Does nothing inside callbacks: whoever set
 * is_running calls it afterwards. */
void grpc_conn_run(struct grpc_conn *c);
/* conn_run() at the end of the loop's round. */
void grpc_conn_run_soon(struct grpc_conn *c);

/* ---- lifetime.c ---- */

/* c begins to be served. */
void conn_begin_life(struct grpc_conn *c);
/* Bytes came from the client, or are read again after a pause. */
void conn_heard(struct grpc_conn *c);
/* For each frame that nghttp2 has read or written; they only submit. */
void conn_judge_received(struct grpc_conn *c, const nghttp2_frame *frame);
void conn_judge_sent(struct grpc_conn *c, const nghttp2_frame *frame);
/* Says why and ends c as soon as that is written, whatever streams there are. Only submits. */
void conn_leave(struct grpc_conn *c, uint32_t error, const char *why);
void conn_arm_timer(struct grpc_conn *c);

/* ---- wait.c ---- */

/* Gives nghttp2 bytes of the client, or holds them behind others. Whoever calls this runs c
 * afterwards. */
void wait_feed(struct grpc_conn *c, const uint8_t *data, size_t len);
/* nghttp2's on_data_chunk_recv_callback. */
int wait_chunk(struct grpc_conn *c, int32_t id, const uint8_t *data, size_t len);
/* Gives nghttp2 what was held, if that is possible now. */
void wait_go_on(struct grpc_conn *c);
/* Forgets what was held. */
void wait_drop(struct grpc_conn *c);
/* Takes bytes of the budget for s. False: they are not there; stream_charged() comes later, unless
 * wait_stop() is called or s is answered before. */
bool wait_charge(struct stream *s, size_t bytes);
void wait_stop(struct stream *s);
/* Gives bytes back to the budget. */
void wait_give(struct grpc_shard *shard, size_t bytes);
/* Replies count for the budget while they wait for a slow reader. */
void wait_charge_replies(struct grpc_conn *c);
void wait_init(struct grpc_shard *shard);
void wait_end(struct grpc_shard *shard);

/* ---- zip.c ---- */

/* Compresses m. True: m comes to reply_deliver() later; false: it is ready. */
bool zip_put(struct grpc_message *m);
void zip_free(struct grpc_message *m);

/* ---- unzip.c ---- */

/* Memory for the compressed message. */
tis_error *unzip_memory(struct stream *s);
/* It is complete. */
void unzip_start(struct stream *s);
/* The budget has the bytes that it will have. */
void unzip_charged(struct stream *s);
/* Lets go of it. Not while it is on a worker. */
void unzip_drop(struct stream *s);

/* ---- stream.c ---- */

/* NULL when out of memory. */
struct stream *stream_create(struct grpc_conn *c, int32_t id);
/* A header of the request. */
void stream_header(struct stream *s, const uint8_t *name, size_t name_len, const uint8_t *value,
                   size_t value_len);
/* The headers are complete. */
void stream_head(struct stream *s);
/* Takes what it can of the bytes, which are all of them unless it has to wait; returns how many. */
size_t stream_data(struct stream *s, const uint8_t *data, size_t len);
/* It cannot take data now. */
bool stream_is_waiting(const struct stream *s);
/* What a message counts while we or its handler have it: in a stream, each becomes a request. */
size_t stream_cost(const struct stream *s, size_t message_len);
/* wait_charge() has got the bytes, or given up. */
void stream_charged(struct stream *s, bool is_granted);
/* Memory from the handler for the message; false: refused. */
bool stream_get_memory(struct stream *s);
/* The message stands there. */
void stream_unzipped(struct stream *s);
/* Something of s begins to wait for the client: *ret_since is now, and stream_check_all() will look. */
void stream_watch(struct stream *s, uint64_t *ret_since);
/* Ends the calls of c whose messages, to us or from us, have not got on for stall_ns_max. */
void stream_check_all(struct grpc_conn *c);
/* Gives back what can be of the windows that the bytes of stream_data() have used. An error of
 * nghttp2's. */
int stream_consume(struct stream *s, size_t len);
/* The client has sent everything. */
void stream_end(struct stream *s);
/* The connection takes no further streams. */
void stream_drain(struct stream *s);
/* nghttp2 has forgotten the stream, or the connection is lost. May free s. */
void stream_closed(struct stream *s);
/* Ends the exchange when nobody needs it any more. May free s. */
void stream_settle(struct stream *s);
/* The client does not wait for the handler's answer any more. */
void stream_cancel(struct stream *s);

/* ---- reply.c ---- */

/* An answer of our own, unless one was given; the text is copied. */
void reply_error(struct stream *s, enum grpc_code code, const char *text);
PRINTF(3, 4) void reply_errorf(struct stream *s, enum grpc_code code, const char *fmt, ...);
/* To a client that does not speak gRPC: a status of HTTP, three digits. */
void reply_http(struct stream *s, const char *status);
/* The stream is closed: drops what is queued. */
void reply_drop(struct stream *s);
/* Queues a message that has been compressed. */
void reply_deliver(struct grpc_message *m);
/* OK, behind the messages queued. */
void reply_finish(struct stream *s);
/* Slices of m have left the output. */
void reply_slices_gone(struct grpc_message *m, uint32_t count);
/* m is wholly in the output. */
void reply_taken(struct grpc_message *m);
/* Calls done() of the messages that are. Not from inside nghttp2. May free streams. */
void reply_run_done(struct grpc_conn *c);

/* ---- input.c ---- */

/* One recv(), fed to nghttp2. */
void input_receive(struct grpc_conn *c);
/* Gives nghttp2 bytes that came from the client. */
void input_feed(struct grpc_conn *c, const void *data, size_t len);
/* nghttp2 has read the head of a frame. */
void input_frame_begins(struct grpc_conn *c, const nghttp2_frame_hd *head);
/* nghttp2 hands over bytes of a DATA frame. */
void input_data(struct grpc_conn *c, const uint8_t *data, size_t len);

/* ---- output.c ---- */

/* nghttp2's way out; see nghttp2_send_callback and nghttp2_send_data_callback. */
ssize_t output_send(nghttp2_session *session, const uint8_t *data, size_t len, int flags,
                    void *user);
int output_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
                     size_t len, nghttp2_data_source *source, void *user);
/* One writev; false when the connection is lost. */
bool output_write(struct grpc_conn *c);
/* The connection is lost: lets go of what is queued. */
void output_drop(struct grpc_conn *c);
size_t output_queued(const struct grpc_conn *c);

/* ---- server.c ---- */

/* Serves a connected socket as if it had been accepted (tests). Takes fd. */
void grpc_server_adopt(struct grpc_server *server, int fd);

#endif
