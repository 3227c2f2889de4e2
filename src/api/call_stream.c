#include "api/call_stream.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/slab.h"
#include "infer/reason.h"
#include "infer/slabs.h"

enum {
    REPLY_PARTS_INLINE = 6,
    REPLY_OUT_BYTES_KEPT_MAX = 4096,
    STREAM_UNSENT_BYTES_MAX = 256 << 20,
    STREAM_UNSENT_BYTES_FAIR = 1 << 20, /* when there is no room */
    RESPONSE_OWN_BYTES = 1024,          /* what a response takes besides its tensors */
};

#define LOOK_INTERVAL_NS NS_PER_SEC

struct call_stream {
    /* set at creation, then constant */
    struct api *api;
    const struct stream_dialect *dialect;
    struct loop *loop;
    /* loop thread only */
    struct grpc_exchange *ex; /* NULL: ended */
    struct list calls;        /* not ended */
    struct list order;        /* of these: one answer and not sent, oldest first */
    struct call *incoming;    /* its message is arriving */
    struct call *watcher;     /* of these; NULL: none */
    struct loop_timer look;   /* armed while there is a watcher */
    bool is_half_closed;
    bool is_draining;
    bool is_over; /* the exchange was answered */
    /* atomic */
    _Atomic size_t arriving; /* bytes of responses on their way to the loop */
    _Atomic bool is_flooded; /* they were too many */
};

/* One message to the client, with what it points into. */
struct reply {
    struct grpc_message message;
    struct call *call;
    struct tis_response *response; /* or NULL */
    size_t bytes;                  /* of it, while it is on its way */
    uint32_t flags;                /* of the response */
    struct loop_message arrived;
    struct bytes out;    /* its memory is reused */
    struct iovec *parts; /* parts_inline, or malloc'ed */
    struct iovec parts_inline[REPLY_PARTS_INLINE];
};

static const char too_many_unsent[] =
    "the client does not read its responses, and too many of them wait";

static const struct slab reply_slab = { SLAB_REPLY, sizeof(struct reply) };

/* ---- Ends ---- */

static void call_stream_settle(struct call_stream *stream)
{
    if (!list_is_empty(&stream->calls))
        return;
    if (!stream->ex && !stream->incoming) {
        free(stream);
        return;
    }
    if (stream->is_over)
        return;
    if (stream->is_half_closed) {
        stream->is_over = true;
        grpc_finish(stream->ex);
    } else if (stream->is_draining && !stream->incoming) {
        stream->is_over = true;
        grpc_fail(stream->ex, GRPC_UNAVAILABLE, "Server exiting");
    }
}

/* Ends the call when nobody needs it any more. May free its stream. */
static void call_settle(struct call *call)
{
    struct call_stream *stream = call->stream;
    if (call->is_held || call == stream->watcher || call->is_running || call->refused ||
        call->is_offloaded || call->reply_count > 0)
        return;
    list_remove(&call->in_stream);
    list_remove(&call->in_order);
    if (stream->ex)
        grpc_message_release(stream->ex, call->message_len);
    call_destroy(call);
    call_stream_settle(stream);
}

/* ---- Replies ---- */

static struct reply *reply_create(struct call *call)
{
    int is_new;
    struct reply *r = slab_alloc(&reply_slab, &is_new);
    if (!r)
        return NULL;
    if (is_new)
        r->out = (struct bytes){ 0 };
    bytes_clear(&r->out);
    r->call = call;
    r->response = NULL;
    r->flags = 0;
    r->parts = r->parts_inline;
    return r;
}

/* Sent, or dropped. */
static void reply_end(struct reply *r)
{
    struct call *call = r->call;
    response_destroy(&r->response);
    if (r->parts != r->parts_inline)
        free(r->parts);
    if (r->out.capacity > REPLY_OUT_BYTES_KEPT_MAX)
        bytes_fini(&r->out);
    slab_free(&reply_slab, r);
    call->reply_count--;
    call_settle(call);
}

static void reply_sent(struct grpc_message *m)
{
    reply_end(CONTAINER_OF(m, struct reply, message));
}

static void end_watch(struct call_stream *stream)
{
    struct call *call = stream->watcher;
    if (!call)
        return;
    loop_timer_cancel(stream->loop, &stream->look);
    stream->watcher = NULL;
    call_settle(call);
}

/* The stream is over: drops what its calls have not sent, and tells the backends. */
static void call_stream_end(struct call_stream *stream, enum grpc_code code, const char *text)
{
    if (stream->is_over)
        return;
    stream->is_over = true;
    grpc_fail(stream->ex, code, text);
    struct list *next;
    for (struct list *it = stream->calls.next; it != &stream->calls; it = next) {
        struct call *call = LIST_ENTRY(it, struct call, in_stream);
        next = it->next;
        struct reply *waiting = call->waiting;
        call->waiting = NULL;
        call_cancel(call);
        if (waiting)
            reply_end(waiting);
    }
    end_watch(stream);
}

/* Many streams together are bounded too: when they have overdrawn the byte budget, one that has much
 * unread ends. */
static bool has_too_many_unsent(const struct call_stream *stream)
{
    size_t unsent = grpc_unsent_bytes(stream->ex);
    return unsent > STREAM_UNSENT_BYTES_MAX ||
           (unsent > STREAM_UNSENT_BYTES_FAIR && grpc_is_overdrawn(stream->ex));
}

static void reply_send(struct call_stream *stream, struct reply *r)
{
    if (!stream->is_over && has_too_many_unsent(stream))
        call_stream_end(stream, GRPC_RESOURCE_EXHAUSTED, too_many_unsent);
    if (stream->is_over)
        reply_end(r);
    else
        grpc_send(stream->ex, &r->message);
}

/* Answers come in the order of their requests. A decoupled model's or a watcher's, of which there may be
 * any number, wait for no other and keep none waiting. */
static bool is_ordered(const struct call *call)
{
    if (call == call->stream->watcher)
        return false;
    return !call->carrier->many_responses || !call->target || !call->target->config->decoupled;
}

/* Sends what the oldest calls have ready. */
static void send_ready(struct call_stream *stream)
{
    while (!list_is_empty(&stream->order) && !stream->is_over) {
        struct call *call = LIST_ENTRY(stream->order.next, struct call, in_order);
        struct reply *r = call->waiting;
        if (!is_ordered(call)) {
            list_remove(&call->in_order);
            continue;
        }
        if (!r)
            return;
        call->waiting = NULL;
        list_remove(&call->in_order);
        reply_send(stream, r);
    }
}

static bool reply_set_parts(struct reply *r, const struct iovec *parts, uint32_t count)
{
    if (count > REPLY_PARTS_INLINE) {
        r->parts = malloc(count * sizeof(*r->parts));
        if (!r->parts) {
            r->parts = r->parts_inline;
            return false;
        }
    }
    if (count > 0)
        memcpy(r->parts, parts, count * sizeof(*parts));
    r->message =
        (struct grpc_message){ .parts = r->parts, .part_count = count, .done = reply_sent };
    return true;
}

/* The carrier's: one message to the client. */
static void stream_reply(struct call *call, const struct iovec *parts, uint32_t part_count)
{
    struct call_stream *stream = call->stream;
    struct reply *r = call->reply ? call->reply : reply_create(call);
    if (r && !call->reply)
        call->reply_count++;
    call->reply = NULL;
    if (!r || stream->is_over || !reply_set_parts(r, parts, part_count)) {
        if (!stream->is_over)
            call_stream_end(stream, GRPC_UNAVAILABLE, "out of memory");
        if (r)
            reply_end(r);
        return;
    }
    struct bytes out = r->out;
    r->out = call->out;
    call->out = out;
    r->response = call->response;
    call->response = NULL;
    if (!is_ordered(call)) {
        reply_send(stream, r);
        return;
    }
    call->waiting = r;
    send_ready(stream);
}

static const struct grpc_exchange *stream_exchange(const struct call *call)
{
    return call->stream->ex;
}

static void stream_fail(struct call *call, enum grpc_code code, const char *text)
{
    call_stream_end(call->stream, code, text);
}

static bool stream_is_cancelled(const struct call *call)
{
    return call->stream->is_over;
}

/* ---- Responses ---- */

static void response_arrived(struct loop_message *m)
{
    struct reply *r = CONTAINER_OF(m, struct reply, arrived);
    struct call *call = r->call;
    atomic_fetch_sub(&call->stream->arriving, r->bytes);
    if (!r->response)
        call_stream_end(call->stream, GRPC_RESOURCE_EXHAUSTED, too_many_unsent);
    bool is_late = is_ordered(call) && call->answer_count > 0;
    if (is_late)
        log_warning("model %s is not decoupled and sent more than one response to a request; "
                    "dropped",
                    call->target->model_name);
    call->reply_count++;
    call->answer_count++;
    if (!call->stream->is_over && !is_late) {
        call->response = r->response;
        r->response = NULL;
        call->reply = r;
        call->is_final = is_ordered(call) || r->flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL;
        call->has_final |= call->is_final;
        call_answer(call);
        if (call->reply != r)
            return;
        call->reply = NULL; /* the stream has ended instead */
        response_destroy(&call->response);
    }
    reply_end(r);
}

static size_t response_bytes(const struct tis_response *response)
{
    size_t bytes = RESPONSE_OWN_BYTES;
    for (const struct tis_output *o = response->outputs; o; o = o->next)
        bytes += o->bytes;
    return bytes;
}

/* A backend that is faster than the loop could fill the memory before the loop sees any of it. A
 * response too many is dropped; the first such goes on as NULL and tells the loop, the others are
 * refused (false). */
static bool admit(struct call_stream *stream, struct tis_response **response, size_t bytes)
{
    if (atomic_fetch_add(&stream->arriving, bytes) <= STREAM_UNSENT_BYTES_MAX)
        return true;
    response_destroy(response);
    if (!atomic_exchange(&stream->is_flooded, true))
        return true;
    atomic_fetch_sub(&stream->arriving, bytes);
    return false;
}

/* A backend's thread. */
static void sink_complete(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    struct call *call = sink->user;
    if (!response)
        return;
    size_t bytes = response_bytes(response);
    if (!admit(call->stream, &response, bytes))
        return;
    struct reply *r = reply_create(call);
    if (!r) {
        atomic_fetch_sub(&call->stream->arriving, bytes);
        log_error("model %s: out of memory, a response is dropped", sink->version->model_name);
        response_destroy(&response);
        return;
    }
    r->response = response;
    r->bytes = bytes;
    r->flags = flags;
    r->arrived.run = response_arrived;
    loop_post(call->loop, &r->arrived);
}

static void request_done(struct loop_message *m)
{
    struct call *call = CONTAINER_OF(m, struct call, done);
    call_ended(call);
    call->is_held = true;
    if (!call->stream->is_over && !call->has_final && call->dialect->end)
        call->dialect->end(call);
    else if (!call->stream->is_over && call->answer_count == 0)
        call_answer(call); /* says that there was no response */
    call->is_held = false;
    call_settle(call);
}

static void sink_done(struct sink *sink, struct tis_request *request)
{
    struct call *call = sink->user;
    (void)request;
    loop_post(call->loop, &call->done);
}

static const struct sink_ops stream_sink_ops = {
    .complete = sink_complete,
    .done = sink_done,
};

static const struct carrier carriers[] = {
    [false] = { .is_cancelled = stream_is_cancelled,
                .exchange = stream_exchange,
                .reply = stream_reply,
                .fail = stream_fail,
                .settle = call_settle,
                .sink = &stream_sink_ops,
                .many_responses = true },
    [true] = { .is_cancelled = stream_is_cancelled,
               .exchange = stream_exchange,
               .reply = stream_reply,
               .fail = stream_fail,
               .settle = call_settle,
               .sink = &stream_sink_ops },
};

/* ---- A call that watches ---- */

/* May free the stream. */
static void look(struct call_stream *stream, bool is_last)
{
    struct call *call = stream->watcher;
    if (!call)
        return;
    bool was_held = call->is_held;
    call->is_held = true; /* and with it the stream */
    stream->dialect->look(call);
    if (stream->watcher && !is_last)
        loop_timer_arm(stream->loop, &stream->look, loop_now_ns(stream->loop) + LOOK_INTERVAL_NS);
    call->is_held = was_held;
    if (is_last && stream->watcher)
        end_watch(stream);
    else
        call_settle(call);
}

static void look_fire(struct loop_timer *t, uint64_t now_ns)
{
    (void)now_ns;
    look(CONTAINER_OF(t, struct call_stream, look), false);
}

void call_stream_watch(struct call *call)
{
    struct call_stream *stream = call->stream;
    if (stream->watcher)
        call_fail(call, GRPC_INTERNAL, "more than one message in a call that takes one");
    if (stream->is_over)
        return;
    list_remove(&call->in_order);
    stream->watcher = call;
    stream->look.fire = look_fire;
    look(stream, false);
}

/* ---- What the gRPC server tells ---- */

struct call_stream *call_stream_open(struct api *api, struct grpc_exchange *ex,
                                     const struct stream_dialect *dialect)
{
    struct call_stream *stream = calloc(1, sizeof(*stream));
    if (!stream)
        return NULL;
    stream->api = api;
    stream->dialect = dialect;
    stream->loop = grpc_exchange_loop(ex);
    stream->ex = ex;
    list_init(&stream->calls);
    list_init(&stream->order);
    ex->is_stream = true;
    return stream;
}

static struct call *open_call(struct call_stream *stream)
{
    struct call *call =
        call_create_on(stream->api, &carriers[stream->dialect->in_order], stream->loop);
    if (!call)
        return NULL;
    call->stream = stream;
    call->done.run = request_done;
    list_init(&call->in_stream);
    list_init(&call->in_order);
    call->is_held = true;
    return call;
}

tis_error *call_stream_message(struct call_stream *stream, size_t bytes, char **ret_base)
{
    struct call *call = open_call(stream);
    struct buffer *b = call ? buffer_create(bytes, 0) : NULL;
    if (!b) {
        call_destroy(call);
        return error_no_memory();
    }
    call->body = b;
    stream->incoming = call;
    *ret_base = b->base;
    return NULL;
}

void call_stream_request(struct call_stream *stream)
{
    struct grpc_exchange *ex = stream->ex;
    struct call *call = stream->incoming ? stream->incoming : open_call(stream); /* empty message */
    stream->incoming = NULL;
    if (!call) {
        grpc_message_release(ex, ex->message_len);
        call_stream_end(stream, GRPC_UNAVAILABLE, "out of memory");
        return;
    }
    call->message = ex->message ? ex->message : "";
    call->message_len = ex->message_len;
    call->start_ns = ex->recv_start_ns;
    call->recv_end_ns = ex->recv_end_ns;
    list_append(&stream->calls, &call->in_stream);
    list_append(&stream->order, &call->in_order);
    stream->dialect->handle(call);
    call->is_held = false;
    call_settle(call);
}

void call_stream_half_close(struct call_stream *stream)
{
    stream->is_half_closed = true;
    call_stream_settle(stream);
}

void call_stream_drain(struct call_stream *stream)
{
    stream->is_draining = true;
    if (stream->watcher)
        look(stream, true);
    else
        call_stream_settle(stream);
}

void call_stream_cancel_all(struct call_stream *stream)
{
    call_stream_end(stream, GRPC_CANCELLED, "");
}

void call_stream_exchange_ended(struct call_stream *stream)
{
    call_destroy(stream->incoming);
    stream->incoming = NULL;
    stream->ex = NULL;
    call_stream_settle(stream);
}

const struct http_header *call_stream_metadata(const struct call *call, const char *name)
{
    const struct grpc_exchange *ex = call->stream->ex;
    for (uint32_t i = 0; ex && i < ex->metadata_count; i++) {
        if (strcmp(ex->metadata[i].name, name) == 0)
            return &ex->metadata[i];
    }
    return NULL;
}
