/* api/call.h - one call of the API over one exchange, of HTTP or of gRPC.
 *
 * A call is made when the exchange's head is complete and lives until the exchange has ended; it
 * holds what the operation needs between decode and encode: the matched route, the body, and for
 * inference the request and its response.
 *
 * The way of an inference: the handler fills call->request and calls call_infer(). The backend's
 * thread leaves the response in the call and posts call->done to the loop; there the dialect's
 * encode (or fail) answers. In a stream of calls (api/call_stream.h) each message is a call.
 *
 * Threads: the loop of the exchange; only the fields marked so are touched by others.
 */
#ifndef TIS_API_CALL_H
#define TIS_API_CALL_H

#include <stdbool.h>
#include <stdint.h>

#include "api/api.h"
#include "base/bytes.h"
#include "base/list.h"
#include "base/pool.h"
#include "grpc/server.h"
#include "http/server.h"
#include "infer/buffer.h"
#include "infer/request.h"
#include "infer/response.h"

struct call;

/* A piece of the path; not terminated. */
struct part {
    const char *at;
    size_t len;
};

/* How a dialect answers an inference. */
struct infer_dialect {
    const char *name; /* of what was called, in texts */
    /* call->response has no error: answer. An error returned is answered by fail. */
    tis_error *(*encode)(struct call *call);
    /* Takes err. */
    void (*fail)(struct call *call, tis_error *err);
    /* In a stream: the request is done, and no response was marked as the last. NULL: nothing. */
    void (*end)(struct call *call);
};

/* What differs between the exchanges of HTTP and of gRPC for code that does not care. */
struct carrier {
    bool (*is_cancelled)(const struct call *call);
    /* Over gRPC: the exchange, NULL when it has ended; see call_reply() and call_fail(). */
    const struct grpc_exchange *(*exchange)(const struct call *call);
    void (*reply)(struct call *call, const struct iovec *parts, uint32_t part_count);
    void (*fail)(struct call *call, enum grpc_code code, const char *text);
    void (*settle)(struct call *call); /* after something happened outside of it; may be NULL */
    const struct sink_ops *sink;       /* where responses go */
    bool many_responses;               /* a request may have any number of them */
};

struct route {
    enum http_method method;
    const char *pattern; /* {model}: one segment; {version}: digits; {rest}: all that follows */
    void (*handle)(struct call *call);
    enum {
        ROUTE_EXEMPT = 1,  /* from the in-flight byte budget */
        ROUTE_INFER = 2,   /* the body carries tensors */
        ROUTE_METRICS = 4, /* only with --metrics-on-http-port */
    } flags;
    uint32_t categories; /* api/restrict.h */
};

/* What the client wants of one output. */
struct wanted_output {
    const char *name;
    bool is_binary;
    uint32_t class_count; /* 0: the tensor itself */
    uint64_t byte_size;   /* 0.9: what the client expects per batch entry; 0: not said */
};

struct call {
    const struct carrier *carrier;
    struct http_exchange *ex;   /* NULL over gRPC */
    struct grpc_exchange *rpc;  /* NULL over HTTP, and in a stream */
    struct call_stream *stream; /* the stream of calls that this is one of, or NULL */
    const char *message;        /* over gRPC */
    size_t message_len;
    struct api *api;
    const struct route *route;             /* HTTP */
    void (*rpc_handle)(struct call *call); /* gRPC */
    struct loop *loop;
    struct part model;
    struct part version;
    struct part rest;
    struct buffer *body;  /* a reference; NULL without a body */
    uint64_t start_ns;    /* the head was seen */
    uint64_t recv_end_ns; /* the body was complete */

    /* inference */
    const struct infer_dialect *dialect;
    struct tis_request *request;
    struct tis_version *target;   /* a reference; the version the request goes to */
    struct wanted_output *wanted; /* in the client's order; request arena */
    uint32_t wanted_count;        /* 0: all outputs */
    bool binary_default;          /* for outputs the client did not name */
    void *dialect_data;           /* request arena */
    void *json;                   /* a parsed body too long for the request's arena, or NULL */
    void (*json_free)(void *json);
    struct tis_response *response; /* left by the backend's thread before done is posted */
    _Atomic bool has_response;     /* a broken backend may send two at once: the first counts */
    bool is_final;                 /* of a stream: call->response is the request's last */
    struct loop_message wake;      /* at the end of the loop's round: an instance shall look */
    tis_error *refused;            /* by the version, after wake was posted: wake answers */
    struct loop_message done;
    bool is_running; /* submitted and not yet back on the loop */

    /* long work off the loop */
    bool is_offloaded;
    struct pool_job work_job;
    struct loop_message work_done;
    tis_error *(*work)(struct call *call);
    void (*work_then)(struct call *call, tis_error *err);
    tis_error *work_error;

    struct bytes out; /* the reply's head; its memory is reused */

    /* call_stream.c's */
    struct list in_stream;
    struct list in_order;
    struct reply *waiting;  /* for the answers of earlier calls */
    struct reply *reply;    /* the one that call->response came in */
    uint32_t reply_count;   /* not sent */
    uint32_t answer_count;  /* responses that came */
    bool is_held;           /* somebody up the stack needs it */
    bool has_final;         /* the last response was answered */
    bool wants_empty_final; /* a message marks the end of the responses */
    uint32_t watched;       /* what a call that watches has answered last */
};

struct call *call_create(struct api *api, struct http_exchange *ex);
struct call *call_create_rpc(struct api *api, struct grpc_exchange *rpc);
void call_destroy(struct call *call);

/* Parses {version}: -1 when the path has none. Errors: VERSION_INVALID. */
MUST_USE tis_error *call_version_number(const struct call *call, int64_t *ret_number);

/* The rest of making a call: memory of the slab, all fields set. NULL when out of memory. */
struct call *call_create_on(struct api *api, const struct carrier *carrier, struct loop *loop);

/* The version of call->model that the call names, in call->target. */
MUST_USE tis_error *call_acquire(struct call *call);

/* Looks the target up and makes call->request. Errors: reasons of registry_acquire(). */
MUST_USE tis_error *call_open_request(struct call *call, int64_t version,
                                      const struct infer_dialect *dialect);
/* Checks and queues call->request; the answer comes from the dialect later. On error the caller
 * answers. */
MUST_USE tis_error *call_infer(struct call *call);
/* The client has gone. */
void call_cancel(struct call *call);
/* On the loop: the request is done. */
void call_ended(struct call *call);
/* Fails the call unless the backend's response can be answered. */
void call_answer(struct call *call);

/* Runs work() on a worker thread and then() with its result on the loop again; for the long part of
 * large requests, which would keep the loop's other connections waiting. Nothing else may touch the
 * call meanwhile. One at a time. */
void call_offload(struct call *call, tis_error *(*work)(struct call *call),
                  void (*then)(struct call *call, tis_error *err));

/* What the client wants of an output of the response; NULL: nothing, it was not asked for. */
const struct wanted_output *call_wanted(const struct call *call, const char *output_name);

/* ---- Answers over gRPC ---- */

/* One message of the parts, whose bytes must live as long as the call, call->response or call->out.
 * Both of the latter belong to the answer afterwards. */
void call_reply(struct call *call, const struct iovec *parts, uint32_t part_count);
/* The exchange ends with this status: of a stream, with all calls in it. */
void call_fail(struct call *call, enum grpc_code code, const char *text);

/* Short answers, over HTTP. */
void call_respond(struct call *call, int status, const char *headers);           /* no body */
void call_respond_json(struct call *call, int status, const struct bytes *json); /* copies */

#endif
