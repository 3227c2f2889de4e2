#include "infer/sink.h"

#include "base/slab.h"
#include "infer/slabs.h"

static const struct slab sink_slab = { SLAB_SINK, sizeof(struct sink) };

struct sink *sink_create(const struct sink_ops *ops, void *user, struct tis_request *request)
{
    int is_new;
    struct sink *sink = slab_alloc(&sink_slab, &is_new);
    if (!sink)
        return NULL;
    sink->ops = ops;
    sink->user = user;
    sink->request = request;
    sink->version = NULL;
    sink->version_unref = NULL;
    sink->instance = NULL;
    sink->turn.order = NULL;
    sink->start_ns = 0;
    sink->first_response = NULL;
    atomic_init(&sink->refs, 1);
    atomic_init(&sink->open, 2);
    atomic_init(&sink->final, false);
    atomic_init(&sink->cancelled, false);
    atomic_init(&sink->response_count, 0);
    return sink;
}

struct sink *sink_ref(struct sink *sink)
{
    atomic_fetch_add_explicit(&sink->refs, 1, memory_order_relaxed);
    return sink;
}

void sink_unref(struct sink *sink)
{
    if (!sink || atomic_fetch_sub(&sink->refs, 1) != 1)
        return;
    if (sink->version)
        sink->version_unref(sink->version);
    slab_free(&sink_slab, sink);
}

/* One of the conditions came true. */
static void sink_close_one(struct sink *sink)
{
    if (atomic_fetch_sub(&sink->open, 1) != 1)
        return;
    if (sink->instance)
        sink->instance_done(sink);
    sink->ops->done(sink, sink->request);
}

/* A response that is not the last one holds off done() while it is handed over: a broken plug-in
 * may send the last one on another thread meanwhile. False when done() has run. */
static bool sink_open_one(struct sink *sink)
{
    uint32_t open = atomic_load(&sink->open);
    do {
        if (open == 0)
            return false;
    } while (!atomic_compare_exchange_weak(&sink->open, &open, open + 1));
    return true;
}

void sink_deliver(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    sink->ops->complete(sink, response, flags);
    sink_close_one(sink);
    sink_unref(sink);
}

bool sink_send(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    bool final = flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL;
    if (final ? atomic_exchange(&sink->final, true) : !sink_open_one(sink))
        return false;

    sink_ref(sink); /* the response's reference goes with it */
    if (!final && atomic_load(&sink->final)) {
        sink_close_one(sink);
        sink_unref(sink);
        return false;
    }
    bool is_first =
        response && atomic_fetch_add_explicit(&sink->response_count, 1, memory_order_relaxed) == 0;
    if (is_first && sink->first_response)
        sink->first_response(sink, response);
    if (!sink->turn.order) {
        sink_deliver(sink, response, flags);
        return true;
    }
    sink_ref(sink); /* and so its version, whose order this is */
    order_deliver(sink, response, flags);
    sink_unref(sink);
    return true;
}

void sink_released(struct sink *sink)
{
    sink_ref(sink);
    sink_close_one(sink);
    sink_unref(sink);
}
