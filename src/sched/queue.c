#include "sched/queue.h"

#include <assert.h>
#include <stdlib.h>

#include "infer/reason.h"

enum {
    LIST_FIRST = 0 /* then each level's fresh and delayed */
};

static uint32_t list_fresh(uint32_t level)
{
    return 1 + 2 * level;
}

static uint32_t list_delayed(uint32_t level)
{
    return 2 + 2 * level;
}

static struct tis_request *request_of(struct list *link)
{
    return LIST_ENTRY(link, struct tis_request, queued.link);
}

tis_error *queue_init(struct queue *q, const struct queue_policy *policies, uint32_t level_count,
                      uint32_t level_default)
{
    assert(level_count >= 1 && level_count <= QUEUE_LEVELS_MAX && level_default < level_count);
    *q = (struct queue){ .level_count = level_count, .level_default = level_default };
    q->levels = calloc(level_count, sizeof(*q->levels));
    q->lists = calloc(list_fresh(level_count), sizeof(*q->lists));
    if (!q->levels || !q->lists)
        return error_no_memory();
    for (uint32_t i = 0; i < level_count; i++)
        q->levels[i].policy = policies[i];
    for (uint32_t i = 0; i < list_fresh(level_count); i++)
        list_init(&q->lists[i]);
    return NULL;
}

void queue_fini(struct queue *q)
{
    assert(q->waiting == 0);
    free(q->levels);
    free(q->lists);
}

/* ---- In and out ---- */

static void put_in_list(struct queue *q, struct tis_request *req, uint32_t list)
{
    req->queued.list = list;
    q->filled[list / 64] |= (uint64_t)1 << (list % 64);
    list_append(&q->lists[list], &req->queued.link);
}

static void take_out_of_list(struct queue *q, struct tis_request *req)
{
    uint32_t list = req->queued.list;
    list_remove(&req->queued.link);
    if (list_is_empty(&q->lists[list]))
        q->filled[list / 64] &= ~((uint64_t)1 << (list % 64));
}

/* Priority 1 is the highest; 0, and what does not exist, is the default. */
static uint32_t level_of(const struct queue *q, const struct tis_request *req)
{
    return req->priority >= 1 && req->priority <= q->level_count ? (uint32_t)req->priority - 1
                                                                 : q->level_default;
}

static uint64_t timeout_of(const struct queue_policy *policy, const struct tis_request *req)
{
    uint64_t own_ns = req->timeout_us < UINT64_MAX / 1000 ? req->timeout_us * 1000 : UINT64_MAX;
    bool is_shorter = policy->timeout_ns == 0 || own_ns < policy->timeout_ns;
    return policy->timeout_override && own_ns > 0 && is_shorter ? own_ns : policy->timeout_ns;
}

tis_error *queue_put(struct queue *q, struct tis_request **taken, uint64_t now_ns)
{
    struct tis_request *req = *taken;
    uint32_t at = level_of(q, req);
    struct queue_level *level = &q->levels[at];
    if (level->policy.requests_max > 0 && level->waiting >= level->policy.requests_max)
        return reason_error_args(REASON_QUEUE_FULL, NULL, 0);

    uint64_t timeout_ns = timeout_of(&level->policy, req);
    if (timeout_ns > 0 && timeout_ns < UINT64_MAX - now_ns) {
        req->queued.deadline.key = now_ns + timeout_ns;
        heap_insert(&q->deadlines, &req->queued.deadline);
    }
    req->queued.level = at;
    put_in_list(q, req, list_fresh(at));
    level->waiting++;
    q->waiting++;
    *taken = NULL;
    return NULL;
}

void queue_put_first(struct queue *q, struct tis_request *req)
{
    struct list *first = &q->lists[LIST_FIRST];
    struct list *link = &req->queued.link;

    /* Behind the sentinel, which is before the first element. */
    req->queued.list = LIST_FIRST;
    link->prev = first;
    link->next = first->next;
    first->next->prev = link;
    first->next = link;
    q->filled[0] |= 1;
    if (req->queued.deadline.key > 0)
        heap_insert(&q->deadlines, &req->queued.deadline);
    q->levels[req->queued.level].waiting++;
    q->waiting++;
}

void queue_remove(struct queue *q, struct tis_request *req)
{
    take_out_of_list(q, req);
    heap_remove(&q->deadlines, &req->queued.deadline);
    q->levels[req->queued.level].waiting--;
    q->waiting--;
}

void queue_promote_oldest(struct queue *q)
{
    /* A delayed request began to wait at any time before; the delayed lists are in the order of
     * their time-outs, which is close enough: their first one goes. */
    struct tis_request *oldest = NULL;
    for (uint32_t i = 0; i < list_fresh(q->level_count); i++) {
        if (list_is_empty(&q->lists[i]))
            continue;
        struct tis_request *first = request_of(q->lists[i].next);
        if (!oldest || first->stamps[STAMP_QUEUE_START] < oldest->stamps[STAMP_QUEUE_START])
            oldest = first;
    }
    if (!oldest || oldest->queued.list == LIST_FIRST)
        return;
    queue_remove(q, oldest);
    queue_put_first(q, oldest);
}

/* ---- Walking ---- */

/* The first request of the lists from `list` on. */
static struct tis_request *first_from(const struct queue *q, uint32_t list)
{
    uint32_t words = list_fresh(q->level_count) / 64 + 1;
    uint64_t mask = ~(uint64_t)0 << (list % 64);
    for (uint32_t w = list / 64; w < words; w++, mask = ~(uint64_t)0) {
        uint64_t filled = q->filled[w] & mask;
        if (filled)
            return request_of(q->lists[w * 64 + (uint32_t)__builtin_ctzll(filled)].next);
    }
    return NULL;
}

struct tis_request *queue_first(const struct queue *q)
{
    return first_from(q, LIST_FIRST);
}

struct tis_request *queue_next(const struct queue *q, const struct tis_request *req)
{
    uint32_t list = req->queued.list;
    if (req->queued.link.next != &q->lists[list])
        return request_of(req->queued.link.next);
    return list < list_delayed(q->level_count - 1) ? first_from(q, list + 1) : NULL;
}

bool queue_has_behind(const struct queue *q, uint32_t list)
{
    return list < list_delayed(q->level_count - 1) && first_from(q, list + 1);
}

bool queue_is_before(const struct tis_request *a, const struct tis_request *b)
{
    return a->queued.list < b->queued.list;
}

/* ---- Time-outs ---- */

uint64_t queue_expiry_ns(const struct queue *q)
{
    struct heap_node *first = heap_first(&q->deadlines);
    return first ? first->key : UINT64_MAX;
}

uint32_t queue_expire(struct queue *q, uint64_t now_ns, struct tis_request **ret_requests,
                      uint32_t max, bool *ret_is_changed)
{
    uint32_t count = 0;
    *ret_is_changed = false;
    while (count < max && queue_expiry_ns(q) <= now_ns) {
        struct tis_request *req =
            CONTAINER_OF(heap_first(&q->deadlines), struct tis_request, queued.deadline);
        *ret_is_changed = true;
        if (q->levels[req->queued.level].policy.action == TIMEOUT_REJECT) {
            queue_remove(q, req);
            ret_requests[count++] = req;
            continue;
        }
        heap_remove(&q->deadlines, &req->queued.deadline);
        req->queued.deadline.key = 0;
        if (req->queued.list == LIST_FIRST)
            continue; /* promoted: it runs next */
        take_out_of_list(q, req);
        put_in_list(q, req, list_delayed(req->queued.level));
    }
    return count;
}
