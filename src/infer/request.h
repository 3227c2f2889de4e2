/* infer/request.h - an inference request on its way through the server.
 *
 * A request is filled by an API (or by a backend that calls another model), checked against the
 * model's configuration (model/validate), queued (sched), run (exec) and comes back to whoever made
 * it. Names, shapes and parameters live in its arena; tensor data is lent: a chunk points into a
 * buffer that the request holds a reference on.
 *
 * Ownership: a request is in exactly one place, which its state names. NEW: the maker fills it.
 *   QUEUED: the scheduler's. RUNNING: the backend's, until TRITONBACKEND_RequestRelease makes it
 *   RELEASED. FAILING: exec's, after Execute returned an error. The sink's done() hands it back to the
 *   maker, who frees it.
 * Threads:   one at a time, by state; `state` and the sink's fields are atomic.
 *
 * Memory is type-stable (base/slab): a plug-in that releases a request twice meets the state check.
 */
#ifndef TIS_INFER_REQUEST_H
#define TIS_INFER_REQUEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/heap.h"
#include "base/list.h"
#include "infer/buffer.h"
#include "infer/sink.h"
#include "tis/backend.h"

/* Where a request's time went; monotonic ns, 0 = not reached. The names are the trace file's. */
enum stamp {
    STAMP_RECV_START, /* HTTP_RECV_START, GRPC_WAITREAD_START */
    STAMP_RECV_END,
    STAMP_REQUEST_START, /* decoded and accepted */
    STAMP_QUEUE_START,
    STAMP_COMPUTE_START, /* taken by an instance */
    STAMP_COMPUTE_INPUT_END,
    STAMP_COMPUTE_OUTPUT_START,
    STAMP_COMPUTE_END,
    STAMP_REQUEST_END,
    STAMP_SEND_START,
    STAMP_SEND_END,
    STAMP_COUNT,
};

enum request_state {
    REQUEST_FREE,
    REQUEST_NEW,
    REQUEST_QUEUED,
    REQUEST_RUNNING,
    REQUEST_FAILING, /* taken back from the backend, to be answered with an error */
    REQUEST_RELEASED,
};

/* Borrowed bytes of an input. */
struct chunk {
    const void *base;
    struct tis_buffer_attributes attributes;
    struct buffer *buffer; /* a reference; NULL when the maker keeps the bytes alive by itself */
};

/* When may the inputs of two requests be in one batch? */
enum batch_rule {
    BATCH_SAME_SHAPE, /* equal but for the batch dimension */
    BATCH_ANY_SHAPE,  /* ragged: the backend is told each one's shape */
    BATCH_SAME_DATA,  /* shape tensors: equal to the last byte */
};

struct tis_input {
    const char *name; /* the configuration's, or the arena's */
    TRITONSERVER_DataType data_type;
    enum batch_rule batch_rule;
    const int64_t *shape; /* with the batch dimension; no -1 */
    uint32_t rank;
    uint32_t chunk_count;
    uint64_t bytes; /* of all chunks */
    struct chunk *chunks;
    uint32_t chunk_capacity;
    struct chunk one; /* storage for the usual single chunk */
};

struct tis_parameter {
    const char *name;
    TRITONSERVER_ParameterType type;
    uint64_t bytes; /* PARAMETER_BYTES only */
    union {
        const char *string;
        int64_t integer;
        bool boolean;
        double number;
        const void *data;
    } value;
};

/* What a plug-in reads as the parameter's value: a string or bytes by pointer, others by address. */
static inline const void *parameter_value(const struct tis_parameter *p)
{
    bool is_pointer =
        p->type == TRITONSERVER_PARAMETER_STRING || p->type == TRITONSERVER_PARAMETER_BYTES;
    return is_pointer ? p->value.data : &p->value;
}

enum {
    REQUEST_ARENA_BYTES_FIRST = 3072,
    REQUEST_ARENA_BYTES_MAX = 64 << 20,
};

/* Where a request waits: sched/queue's, kept here so that waiting allocates nothing. */
struct queue_place {
    struct list link;
    struct heap_node deadline; /* key: when its time-out passes; 0: never */
    uint32_t list;             /* index of the list it is in */
    uint32_t level;
};

struct tis_request {
    /* atomic */
    _Atomic uint32_t state;
    _Atomic uint32_t generation; /* grows with each reuse of this memory */

    struct arena arena;
    struct sink *sink; /* a reference */

    const char *id; /* "" when the client gave none */
    struct tis_input *inputs;
    uint32_t input_count;
    uint32_t input_capacity;
    const char **outputs; /* requested names; all of the model's when the client named none */
    uint32_t output_count;
    struct tis_parameter *parameters;
    uint32_t parameter_count;
    uint32_t flags; /* TRITONSERVER_RequestFlag */
    uint64_t correlation_id;
    const char *correlation_text; /* NULL when the id is a number */
    uint64_t priority;
    uint64_t timeout_us;
    uint32_t batch_size; /* 1 for models without batching */

    uint64_t stamps[STAMP_COUNT];
    struct queue_place queued; /* a scheduler's; the version's lock */
    struct buffer *body;       /* a reference to what most chunks point into, or NULL */
    struct tis_trace *trace;   /* NULL: not traced */

    char first[REQUEST_ARENA_BYTES_FIRST] __attribute__((aligned(16)));
};

/* A request in state NEW with a sink of its own; NULL when out of memory. See infer/sink.h for ops
 * and user. */
MUST_USE struct tis_request *request_create(const struct sink_ops *ops, void *user);
/* Takes *req (NULL is fine), which must be NEW or RELEASED. */
void request_free(struct tis_request **req);

/* Room for `count` inputs in all; earlier ones move: no tis_input may be held across it. */
MUST_USE tis_error *request_reserve_inputs(struct tis_request *req, uint32_t count);
/* Adds an input within the reserved room; shape and name are borrowed and must live as long as the
 * request. */
struct tis_input *request_add_input(struct tis_request *req, const char *name,
                                    TRITONSERVER_DataType type, const int64_t *shape,
                                    uint32_t rank);
/* Appends bytes to an input. Takes a reference on `buffer` when it is not NULL. */
MUST_USE tis_error *request_add_chunk(struct tis_request *req, struct tis_input *input,
                                      const void *base, uint64_t bytes,
                                      TRITONSERVER_MemoryType memory_type, int64_t memory_id,
                                      struct buffer *buffer);
/* The request begins now, for the durations in statistics and traces. */
void request_start(struct tis_request *req);

/* May both run in one batch? They have the same inputs, each pair obeying its batch_rule. */
bool request_is_alike(const struct tis_request *a, const struct tis_request *b);

/* NULL when the request has no such input. */
struct tis_input *request_find_input(const struct tis_request *req, const char *name);

/* from -> to; false (and nothing done) when the request is in another state. */
MUST_USE bool request_move(struct tis_request *req, enum request_state from, enum request_state to);

/* The owner gives the request back: RUNNING (or QUEUED) -> RELEASED, and the sink hears of it. The
 * request may be gone when this returns true. False when it was in another state. */
MUST_USE bool request_release(struct tis_request *req, enum request_state from);

/* Answers the request with err, unless its final response was sent, and releases it. Takes err. Only
 * for the request's owner: nobody else can move it out of `from` meanwhile. */
void request_fail(struct tis_request *req, enum request_state from, tis_error *err);

#endif
