/* api/call_stream.h - a stream of calls over one gRPC exchange.
 *
 * Each message of the client is a call of its own (api/call.h); many run at the same time, and each
 * is answered by one message, in their order, or by any number, at any time, when its model is
 * decoupled. The stream ends with OK when the client has ended its side
 * and every call its answers; with an error when a call fails it (call_fail), when the client goes,
 * its deadline passes, or the server drains and nothing runs.
 *
 * Memory: the messages of running calls close the client's window (grpc/server.h). A client that
 * does not read its answers loses the stream when STREAM_UNSENT_BYTES_MAX of them wait.
 *
 * Threads: the loop of the exchange; responses come in on backends' threads.
 */
#ifndef TIS_API_CALL_STREAM_H
#define TIS_API_CALL_STREAM_H

#include "api/call.h"

/* What the messages of a stream are. */
struct stream_dialect {
    /* One message, in call->message: calls call_infer(), or answers. */
    void (*handle)(struct call *call);
    bool in_order; /* each message has one answer; else those to decoupled models have any number */
    /* Of calls that watch: answers if there is news. */
    void (*look)(struct call *call);
};

struct call_stream;

/* The stream for an exchange whose head has come; makes it a stream. NULL when out of memory. */
struct call_stream *call_stream_open(struct api *api, struct grpc_exchange *ex,
                                     const struct stream_dialect *dialect);
/* What the gRPC server tells, see struct grpc_handler. */
MUST_USE tis_error *call_stream_message(struct call_stream *stream, size_t bytes, char **ret_base);
void call_stream_request(struct call_stream *stream);
void call_stream_half_close(struct call_stream *stream);
void call_stream_drain(struct call_stream *stream);
void call_stream_cancel_all(struct call_stream *stream);
/* The exchange is over; the stream lives until its calls have ended. */
void call_stream_exchange_ended(struct call_stream *stream);

/* From handle(): the call stays until the stream ends, and look() is called for it about once a second
 * and when the server drains. One of a stream; a further one takes its place. */
void call_stream_watch(struct call *call);

/* Metadata of the call's exchange; NULL when absent. name: lower case. */
const struct http_header *call_stream_metadata(const struct call *call, const char *name);

#endif
