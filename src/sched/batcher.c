#include "sched/batcher.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "infer/reason.h"

/* The requests at the front of the queue that were gathered so far. Kept from one look to the next, so
 * that each request is looked at once however many come while the batch waits for its delay. */
struct gathered {
    struct tis_request *first; /* NULL: none */
    struct tis_request *last;
    uint32_t requests;
    uint32_t size;               /* batch entries */
    uint32_t preferred_requests; /* the most of them that make a preferred size; 0: none do */
    uint64_t oldest_ns;
};

struct batcher {
    struct scheduler base;
    struct queue queue;
    struct gathered gathered;
    uint32_t batch_size_max;
    uint32_t *preferred; /* ascending */
    size_t preferred_count;
    uint64_t delay_ns;
    bool compares_inputs;
    bool hurried;    /* batches are not delayed any more */
    uint32_t passes; /* executions in a row that passed others over */
};

static struct batcher *batcher_of(struct scheduler *s)
{
    return CONTAINER_OF(s, struct batcher, base);
}

static void gathered_reset(struct batcher *b)
{
    b->gathered = (struct gathered){ .oldest_ns = SCHEDULER_NEVER };
}

/* After each change of the queue. */
static void note_change(struct batcher *b)
{
    b->base.waiting = b->queue.waiting;
    b->base.expiry_ns = queue_expiry_ns(&b->queue);
}

/* ---- The decision ---- */

static bool is_preferred(const struct batcher *b, uint32_t size)
{
    for (size_t i = 0; i < b->preferred_count && b->preferred[i] <= size; i++) {
        if (b->preferred[i] == size)
            return true;
    }
    return false;
}

static void gathered_add(struct batcher *b, struct tis_request *req)
{
    struct gathered *g = &b->gathered;
    uint64_t start_ns = req->stamps[STAMP_QUEUE_START];
    if (!g->first)
        g->first = req;
    g->last = req;
    g->requests++;
    g->size += req->batch_size;
    if (start_ns < g->oldest_ns)
        g->oldest_ns = start_ns;
    if (is_preferred(b, g->size))
        g->preferred_requests = g->requests;
}

/* Gathers what fits into `size_max`. True when more requests could still join. */
static bool gather(struct batcher *b, uint32_t size_max)
{
    struct gathered *g = &b->gathered;
    for (;;) {
        struct tis_request *next =
            g->last ? queue_next(&b->queue, g->last) : queue_first(&b->queue);
        if (g->requests == b->base.requests_max || g->size >= size_max)
            return false;
        if (!next)
            return true;
        if (g->first && next->batch_size > size_max - g->size)
            return false;
        if (g->first && b->compares_inputs && !request_is_alike(g->first, next))
            return false;
        gathered_add(b, next);
    }
}

/* Others were passed over often enough. That grew in take(), so nothing is gathered yet. */
static void promote(struct batcher *b)
{
    assert(!b->gathered.first);
    queue_promote_oldest(&b->queue);
    b->passes = 0;
}

/* The number of gathered requests that shall run now. With 0, *ret_ready_ns says when some will. */
static uint32_t decide(struct batcher *b, uint64_t now_ns, uint64_t *ret_ready_ns)
{
    struct gathered *g = &b->gathered;
    if (b->passes >= PASSES_MAX)
        promote(b);
    bool may_grow = gather(b, b->preferred[b->preferred_count - 1]);
    *ret_ready_ns = SCHEDULER_NEVER;
    if (!g->first)
        return 0;

    uint64_t due_ns = g->oldest_ns + b->delay_ns;
    bool is_due = now_ns >= due_ns || b->hurried;
    if (b->delay_ns > 0 && is_due) {
        gather(b, b->batch_size_max);
        return g->requests;
    }
    if (g->preferred_requests > 0)
        return g->preferred_requests;
    if (!may_grow || is_due)
        return g->requests;
    *ret_ready_ns = due_ns;
    return 0;
}

/* ---- The table ---- */

static tis_error *batcher_put(struct scheduler *s, struct tis_request **taken, uint64_t now_ns)
{
    struct batcher *b = batcher_of(s);
    struct tis_request *req = *taken;
    req->stamps[STAMP_QUEUE_START] = now_ns;
    tis_error *err = queue_put(&b->queue, taken, now_ns);
    if (err)
        return err;

    bool moved = request_move(req, REQUEST_NEW, REQUEST_QUEUED);
    assert(moved);
    if (b->gathered.last && queue_is_before(req, b->gathered.last))
        gathered_reset(b);
    note_change(b);
    return NULL;
}

static uint32_t batcher_take(struct scheduler *s, uint32_t instance,
                             struct tis_request **ret_requests, uint32_t max, uint64_t now_ns)
{
    struct batcher *b = batcher_of(s);
    uint64_t ready_ns;
    (void)instance;
    uint32_t count = decide(b, now_ns, &ready_ns);
    if (count > max)
        count = max;
    if (count == 0)
        return 0;

    struct tis_request *req = b->gathered.first;
    uint32_t last_list = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct tis_request *next = queue_next(&b->queue, req);
        last_list = req->queued.list;
        queue_remove(&b->queue, req);
        ret_requests[i] = req;
        req = next;
    }
    b->passes = queue_has_behind(&b->queue, last_list) ? b->passes + 1 : 0;
    gathered_reset(b);
    note_change(b);
    return count;
}

static uint64_t batcher_ready_ns(struct scheduler *s, uint64_t now_ns)
{
    uint64_t ready_ns;
    return decide(batcher_of(s), now_ns, &ready_ns) > 0 ? now_ns : ready_ns;
}

static void batcher_put_back(struct scheduler *s, struct tis_request *const *requests,
                             uint32_t count)
{
    struct batcher *b = batcher_of(s);
    for (uint32_t i = count; i > 0; i--)
        queue_put_first(&b->queue, requests[i - 1]);
    gathered_reset(b);
    note_change(b);
}

static bool batcher_cancel(struct scheduler *s, struct tis_request *req)
{
    struct batcher *b = batcher_of(s);
    if (!list_is_linked(&req->queued.link))
        return false;
    queue_remove(&b->queue, req);
    gathered_reset(b);
    note_change(b);
    return true;
}

static uint32_t batcher_expire(struct scheduler *s, uint64_t now_ns,
                               struct tis_request **ret_requests, uint32_t max)
{
    struct batcher *b = batcher_of(s);
    bool is_changed;
    uint32_t count = queue_expire(&b->queue, now_ns, ret_requests, max, &is_changed);
    if (is_changed)
        gathered_reset(b);
    note_change(b);
    return count;
}

static void batcher_hurry(struct scheduler *s)
{
    batcher_of(s)->hurried = true;
}

static void batcher_destroy(struct scheduler *s)
{
    struct batcher *b = batcher_of(s);
    queue_fini(&b->queue);
    free(b->preferred);
    free(b);
}

static const struct scheduler_ops batcher_ops = {
    .put = batcher_put,
    .take = batcher_take,
    .ready_ns = batcher_ready_ns,
    .put_back = batcher_put_back,
    .cancel = batcher_cancel,
    .expire = batcher_expire,
    .hurry = batcher_hurry,
    .destroy = batcher_destroy,
};

static int compare_sizes(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a;
    uint32_t right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

tis_error *batcher_create(const struct batcher_options *options, struct scheduler **ret_scheduler)
{
    struct batcher *b = calloc(1, sizeof(*b));
    if (!b)
        return error_no_memory();
    b->base.ops = &batcher_ops;
    b->base.requests_max =
        options->requests_max < BATCH_REQUESTS_MAX ? options->requests_max : BATCH_REQUESTS_MAX;
    b->base.expiry_ns = SCHEDULER_NEVER;
    b->batch_size_max = options->batch_size_max;
    b->delay_ns = options->delay_ns;
    b->compares_inputs = options->compares_inputs;
    b->preferred_count = options->preferred_count ? options->preferred_count : 1;
    gathered_reset(b);
    tis_error *err =
        queue_init(&b->queue, options->policies, options->level_count, options->level_default);
    b->preferred = calloc(b->preferred_count, sizeof(*b->preferred));
    if (err || !b->preferred) {
        batcher_destroy(&b->base);
        return err ? err : error_no_memory();
    }
    b->preferred[0] = options->batch_size_max;
    for (size_t i = 0; i < options->preferred_count; i++)
        b->preferred[i] = (uint32_t)options->preferred[i];
    qsort(b->preferred, b->preferred_count, sizeof(*b->preferred), compare_sizes);
    *ret_scheduler = &b->base;
    return NULL;
}
