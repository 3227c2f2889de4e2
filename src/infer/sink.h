/* infer/sink.h - where the responses of one request go.
 *
 * The sink lives apart from its request: responses may be made and sent after the request was
 * released, and the request may be held after its last response was sent. It is counted: the
 * request, each response and each response factory hold a reference.
 *
 * A request is done when it was released AND the flag FINAL was seen, in either order; then
 * ops->done() runs, once.
 *
 * Threads: any; callbacks run on the thread that caused them (usually a backend's) and must be
 *          short. No lock is held while they run.
 */
#ifndef TIS_INFER_SINK_H
#define TIS_INFER_SINK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/error.h"
#include "infer/buffer.h"
#include "infer/order.h"

struct sink;
struct tis_instance;
struct tis_output;
struct tis_request;
struct tis_response;
struct tis_version;

struct sink_ops {
    /* A response begins, before its first allocation. May be NULL. */
    tis_error *(*start)(struct sink *sink);
    /* Where would `bytes` of an output lie? output and bytes may be NULL; memory_type and memory_id
     * carry the wish in and the answer out. NULL: in CPU memory. */
    tis_error *(*query)(struct sink *sink, const char *output, size_t *bytes,
                        TRITONSERVER_MemoryType *memory_type, int64_t *memory_id);
    /* Memory of `bytes` for an output (one reference for the caller). NULL: buffer_create(). */
    tis_error *(*allocate)(struct sink *sink, const struct tis_output *output, uint64_t bytes,
                           struct buffer **ret_buffer);
    /* A response is complete; takes it. NULL with flags only: the end without a response. */
    void (*complete)(struct sink *sink, struct tis_response *response, uint32_t flags);
    /* Released and final: the request is the maker's again. */
    void (*done)(struct sink *sink, struct tis_request *request);
};

struct sink {
    /* set at creation, then constant */
    const struct sink_ops *ops;
    void *user;
    struct tis_request *request; /* for done(); not to be touched otherwise */
    /* set by exec before the request is queued, then constant */
    struct tis_version *version; /* a reference, dropped by version_unref */
    void (*version_unref)(struct tis_version *version);
    struct turn turn;  /* exec's, for models with preserve_ordering */
    uint64_t start_ns; /* of the request */
    /* Hears of the first response before complete() does. NULL: nobody wants to know. */
    void (*first_response)(struct sink *sink, const struct tis_response *response);
    /* set by exec when the request is executed */
    struct tis_instance *instance;            /* NULL: not yet */
    void (*instance_done)(struct sink *sink); /* hears of the end before done() does */
    /* atomic */
    _Atomic uint32_t refs;
    _Atomic uint32_t open; /* not released + not final + responses being handed over; 0: done */
    _Atomic bool final;
    _Atomic bool cancelled;
    _Atomic uint32_t response_count;
};

MUST_USE struct sink *sink_create(const struct sink_ops *ops, void *user,
                                  struct tis_request *request);
struct sink *sink_ref(struct sink *sink);
void sink_unref(struct sink *sink);

/* Hands a response (or NULL) with TRITONSERVER_ResponseCompleteFlag bits to the maker. Takes it.
 * False, and the response is not taken, when the final one was sent before. */
MUST_USE bool sink_send(struct sink *sink, struct tis_response *response, uint32_t flags);
/* Hands over what sink_send() took; for infer/order. */
void sink_deliver(struct sink *sink, struct tis_response *response, uint32_t flags);
/* The request was released. */
void sink_released(struct sink *sink);

#endif
