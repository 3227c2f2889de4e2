#include <assert.h>
#include <stdlib.h>

#include "infer/reason.h"
#include "sched/scheduler.h"

struct fifo {
    struct scheduler base;
    struct list requests;
    bool closed;
};

static struct fifo *fifo_of(struct scheduler *s)
{
    return CONTAINER_OF(s, struct fifo, base);
}

static tis_error *fifo_put(struct scheduler *s, struct tis_request **taken, uint64_t now_ns)
{
    struct fifo *f = fifo_of(s);
    struct tis_request *req = *taken;
    (void)now_ns;
    if (f->closed)
        return reason_error_args(REASON_QUEUE_CLOSED, NULL, 0);

    bool moved = request_move(req, REQUEST_NEW, REQUEST_QUEUED);
    assert(moved);
    list_append(&f->requests, &req->link);
    s->waiting++;
    *taken = NULL;
    return NULL;
}

static uint32_t fifo_take(struct scheduler *s, uint32_t instance, struct tis_request **ret_requests,
                          uint32_t max, uint64_t now_ns)
{
    (void)instance;
    (void)now_ns;
    struct list *first = max > 0 ? list_pop(&fifo_of(s)->requests) : NULL;
    if (!first)
        return 0;
    s->waiting--;
    ret_requests[0] = LIST_ENTRY(first, struct tis_request, link);
    return 1;
}

static bool fifo_cancel(struct scheduler *s, struct tis_request *req)
{
    if (!list_is_linked(&req->link))
        return false;
    list_remove(&req->link);
    s->waiting--;
    return true;
}

static void fifo_close(struct scheduler *s)
{
    fifo_of(s)->closed = true;
}

static void fifo_destroy(struct scheduler *s)
{
    assert(s->waiting == 0);
    free(fifo_of(s));
}

static const struct scheduler_ops fifo_ops = {
    .put = fifo_put,
    .take = fifo_take,
    .cancel = fifo_cancel,
    .close = fifo_close,
    .destroy = fifo_destroy,
};

tis_error *fifo_create(struct scheduler **ret_scheduler)
{
    struct fifo *f = calloc(1, sizeof(*f));
    if (!f)
        return error_no_memory();
    f->base.ops = &fifo_ops;
    list_init(&f->requests);
    *ret_scheduler = &f->base;
    return NULL;
}
