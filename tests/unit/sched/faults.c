#include "faults.h"

#include <stdlib.h>

#include "base/attr.h"
#include "base/clock.h"

/* ---- As the batcher does ---- */

static struct faulty *faulty_of(struct scheduler *s)
{
    return CONTAINER_OF(s, struct faulty, base);
}

static void note_figures(struct faulty *f)
{
    f->base.waiting = (uint32_t)(f->batcher->waiting + f->hidden);
    f->base.expiry_ns = f->batcher->expiry_ns;
    if (f->base.expiry_ns != SCHEDULER_NEVER)
        f->base.expiry_ns += f->expiry_late_ns;
}

static tis_error *faulty_put(struct scheduler *s, struct tis_request **taken, uint64_t now_ns)
{
    struct faulty *f = faulty_of(s);
    tis_error *err = f->batcher->ops->put(f->batcher, taken, now_ns);
    note_figures(f);
    return err;
}

static uint32_t faulty_take(struct scheduler *s, uint32_t instance,
                            struct tis_request **ret_requests, uint32_t max, uint64_t now_ns)
{
    struct faulty *f = faulty_of(s);
    uint32_t count = f->batcher->ops->take(f->batcher, instance, ret_requests, max, now_ns);
    note_figures(f);
    return count;
}

static uint64_t faulty_ready_ns(struct scheduler *s, uint64_t now_ns)
{
    struct faulty *f = faulty_of(s);
    return f->batcher->ops->ready_ns(f->batcher, now_ns);
}

static void faulty_put_back(struct scheduler *s, struct tis_request *const *requests,
                            uint32_t count)
{
    struct faulty *f = faulty_of(s);
    f->batcher->ops->put_back(f->batcher, requests, count);
    note_figures(f);
}

static bool faulty_cancel(struct scheduler *s, struct tis_request *req)
{
    struct faulty *f = faulty_of(s);
    bool found = f->batcher->ops->cancel(f->batcher, req);
    note_figures(f);
    return found;
}

static uint32_t faulty_expire(struct scheduler *s, uint64_t now_ns,
                              struct tis_request **ret_requests, uint32_t max)
{
    struct faulty *f = faulty_of(s);
    uint32_t count =
        f->batcher->ops->expire(f->batcher, now_ns - f->expiry_late_ns, ret_requests, max);
    note_figures(f);
    return count;
}

static void faulty_hurry(struct scheduler *s)
{
    struct faulty *f = faulty_of(s);
    f->batcher->ops->hurry(f->batcher);
}

void faulty_destroy(struct scheduler *s)
{
    struct faulty *f = faulty_of(s);
    f->batcher->ops->destroy(f->batcher);
    free(f);
}

struct scheduler *faulty_create(const struct fault *fault, struct scheduler *batcher, uint64_t seed)
{
    struct faulty *f = calloc(1, sizeof(*f));
    const struct scheduler_ops *with = &fault->ops;
    f->ops = (struct scheduler_ops){
        .put = with->put ? with->put : faulty_put,
        .take = with->take ? with->take : faulty_take,
        .ready_ns = with->ready_ns ? with->ready_ns : faulty_ready_ns,
        .put_back = with->put_back ? with->put_back : faulty_put_back,
        .cancel = with->cancel ? with->cancel : faulty_cancel,
        .expire = with->expire ? with->expire : faulty_expire,
        .hurry = with->hurry ? with->hurry : faulty_hurry,
        .destroy = faulty_destroy,
    };
    f->base.ops = &f->ops;
    f->base.requests_max = batcher->requests_max;
    f->batcher = batcher;
    f->random = ~seed;
    f->expiry_late_ns = fault->expiry_late_ns;
    list_init(&f->held);
    note_figures(f);
    return &f->base;
}

struct scheduler *faulty_batcher(struct scheduler *s)
{
    return faulty_of(s)->batcher;
}

/* ---- Mistakes ---- */

/* One of a batch goes nowhere. */
static uint32_t take_loses(struct scheduler *s, uint32_t instance,
                           struct tis_request **ret_requests, uint32_t max, uint64_t now_ns)
{
    struct faulty *f = faulty_of(s);
    uint32_t count = faulty_take(s, instance, ret_requests, max, now_ns);
    if (count > 0 && random_percent(&f->random, 5)) {
        f->hidden++;
        count--;
    }
    note_figures(f);
    return count;
}

/* The first of one batch comes again in a later one. */
static uint32_t take_doubles(struct scheduler *s, uint32_t instance,
                             struct tis_request **ret_requests, uint32_t max, uint64_t now_ns)
{
    struct faulty *f = faulty_of(s);
    uint32_t count = faulty_take(s, instance, ret_requests, max, now_ns);
    struct tis_request *earlier = f->kept;
    if (count > 0)
        f->kept = ret_requests[0];
    if (count > 0 && earlier && random_percent(&f->random, 5))
        ret_requests[count - 1] = earlier;
    return count;
}

static uint32_t take_reorders(struct scheduler *s, uint32_t instance,
                              struct tis_request **ret_requests, uint32_t max, uint64_t now_ns)
{
    struct faulty *f = faulty_of(s);
    uint32_t count = faulty_take(s, instance, ret_requests, max, now_ns);
    if (count > 1 && random_percent(&f->random, 5)) {
        struct tis_request *last = ret_requests[count - 1];
        ret_requests[count - 1] = ret_requests[count - 2];
        ret_requests[count - 2] = last;
    }
    return count;
}

/* Two batches become one. */
static uint32_t take_oversizes(struct scheduler *s, uint32_t instance,
                               struct tis_request **ret_requests, uint32_t max, uint64_t now_ns)
{
    uint32_t count = faulty_take(s, instance, ret_requests, max, now_ns);
    if (count == 0 || count == max)
        return count;
    return count + faulty_take(s, instance, ret_requests + count, max - count, now_ns);
}

/* Lower levels wait here as long as the batcher has others. */
static tis_error *put_starves(struct scheduler *s, struct tis_request **taken, uint64_t now_ns)
{
    struct faulty *f = faulty_of(s);
    struct tis_request *req = *taken;
    if (req->priority != 2 || f->batcher->waiting == 0)
        return faulty_put(s, taken, now_ns);
    if (!request_move(req, REQUEST_NEW, REQUEST_QUEUED))
        abort();
    req->stamps[STAMP_QUEUE_START] = now_ns;
    req->queued.level = 1;
    list_append(&f->held, &req->queued.link);
    f->hidden++;
    note_figures(f);
    *taken = NULL;
    return NULL;
}

static uint32_t take_starves(struct scheduler *s, uint32_t instance,
                             struct tis_request **ret_requests, uint32_t max, uint64_t now_ns)
{
    struct faulty *f = faulty_of(s);
    uint32_t count = faulty_take(s, instance, ret_requests, max, now_ns);
    struct list *next = f->batcher->waiting == 0 ? list_pop(&f->held) : NULL;
    if (next) {
        struct tis_request *req = LIST_ENTRY(next, struct tis_request, queued.link);
        f->batcher->ops->put_back(f->batcher, &req, 1);
        f->hidden--;
        note_figures(f);
    }
    return count;
}

/* A cancelled request is counted for ever. */
static bool cancel_leaks(struct scheduler *s, struct tis_request *req)
{
    struct faulty *f = faulty_of(s);
    bool found = faulty_cancel(s, req);
    f->hidden += found;
    note_figures(f);
    return found;
}

/* A cancelled request stays where it is. */
static bool cancel_keeps(struct scheduler *s, struct tis_request *req)
{
    struct faulty *f = faulty_of(s);
    if (!list_is_linked(&req->queued.link))
        return false;
    f->hidden--;
    note_figures(f);
    return true;
}

/* Those that expire do not leave. */
static uint32_t expire_keeps(struct scheduler *s, uint64_t now_ns,
                             struct tis_request **ret_requests, uint32_t max)
{
    struct faulty *f = faulty_of(s);
    uint32_t count = faulty_expire(s, now_ns, ret_requests, max);
    if (count > 0 && !f->kept) {
        f->kept = ret_requests[0];
        f->kept->queued.deadline.key = 0;
        f->batcher->ops->put_back(f->batcher, &f->kept, 1);
        f->hidden--;
        note_figures(f);
    }
    return count;
}

static void put_back_reverses(struct scheduler *s, struct tis_request *const *requests,
                              uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        faulty_put_back(s, &requests[i], 1);
}

static uint64_t ready_forgets(struct scheduler *s, uint64_t now_ns)
{
    struct faulty *f = faulty_of(s);
    bool forgets = random_percent(&f->random, 5);
    return forgets ? SCHEDULER_NEVER : faulty_ready_ns(s, now_ns);
}

/* What waits when it shall hurry goes on waiting for its delay. */
static void hurry_forgets(struct scheduler *s)
{
    (void)s;
}

static void misread_no_delay(struct batcher_options *rules, struct queue_policy *policies)
{
    (void)policies;
    rules->delay_ns = 0;
}

static void misread_long_delay(struct batcher_options *rules, struct queue_policy *policies)
{
    (void)policies;
    rules->delay_ns += 50 * NS_PER_US;
}

static void misread_inputs(struct batcher_options *rules, struct queue_policy *policies)
{
    (void)policies;
    rules->compares_inputs = false;
}

static void misread_levels(struct batcher_options *rules, struct queue_policy *policies)
{
    (void)policies;
    rules->level_count = 1;
    rules->level_default = 0;
}

static void misread_no_limit(struct batcher_options *rules, struct queue_policy *policies)
{
    for (uint32_t i = 0; i < rules->level_count; i++)
        policies[i].requests_max = 0;
}

static void misread_limit(struct batcher_options *rules, struct queue_policy *policies)
{
    for (uint32_t i = 0; i < rules->level_count; i++)
        policies[i].requests_max -= policies[i].requests_max > 1;
}

static void misread_override(struct batcher_options *rules, struct queue_policy *policies)
{
    for (uint32_t i = 0; i < rules->level_count; i++)
        policies[i].timeout_override = false;
}

static void misread_action(struct batcher_options *rules, struct queue_policy *policies)
{
    for (uint32_t i = 0; i < rules->level_count; i++)
        policies[i].action = TIMEOUT_REJECT;
}

static void misread_preferred(struct batcher_options *rules, struct queue_policy *policies)
{
    (void)policies;
    rules->preferred_count = 0;
}

/* ---- Settings under which they show ---- */

/* Much to do, in the largest batches, and nothing that ends a wait early. */
static void shape_plain(struct settings *s)
{
    s->rules.batch_size_max = s->rules.requests_max = 8;
    s->rules.level_count = 1;
    s->rules.level_default = 0;
    s->rules.preferred_count = 0;
    s->rules.delay_ns = 0;
    s->rules.compares_inputs = false;
    s->policies[0] = (struct queue_policy){ 0 };
    s->traffic = TRAFFIC_OVERLOAD;
    s->put_back = false;
    s->cancel_percent = 0;
    s->timeout_percent = 0;
    s->largest_percent = 0;
    s->size_max = 8;
}

static void shape_single(struct settings *s)
{
    shape_plain(s);
    s->rules.batch_size_max = s->rules.requests_max = 1;
}

static void shape_large(struct settings *s)
{
    shape_plain(s);
    s->largest_percent = 50;
}

static void shape_two_levels(struct settings *s)
{
    shape_single(s);
    s->rules.level_count = 2;
    s->policies[1] = (struct queue_policy){ 0 };
}

static void shape_delay(struct settings *s)
{
    shape_plain(s);
    s->rules.delay_ns = NS_PER_MS;
    s->traffic = TRAFFIC_STEADY;
}

static void shape_hurry(struct settings *s)
{
    shape_delay(s);
    s->hurries_early = true;
}

static void shape_preferred(struct settings *s)
{
    shape_delay(s);
    s->rules.preferred_count = 1;
    s->preferred[0] = 4;
}

static void shape_cancel(struct settings *s)
{
    shape_single(s);
    s->cancel_percent = 30;
}

static void shape_put_back(struct settings *s)
{
    shape_plain(s);
    s->put_back = true;
}

static void shape_unlike(struct settings *s)
{
    shape_plain(s);
    s->rules.compares_inputs = true;
    s->looks = 3;
}

static void shape_limited(struct settings *s)
{
    shape_plain(s);
    s->policies[0].requests_max = 10;
}

static void shape_timeout(struct settings *s)
{
    shape_single(s);
    s->policies[0].timeout_ns = NS_PER_MS;
}

static void shape_own_timeout(struct settings *s)
{
    shape_timeout(s);
    s->policies[0].timeout_override = true;
    s->timeout_percent = 30;
}

static void shape_timeout_delays(struct settings *s)
{
    shape_timeout(s);
    s->policies[0].action = TIMEOUT_DELAY;
}

const struct fault planted_faults[] = {
    { "a request is lost", VIOLATION_LOST, shape_plain, .ops.take = take_loses },
    { "a request is given twice", VIOLATION_DOUBLED, shape_plain, .ops.take = take_doubles },
    { "two requests change places", VIOLATION_REORDERED, shape_plain, .ops.take = take_reorders },
    { "priorities are ignored", VIOLATION_REORDERED, shape_two_levels, misread_levels },
    { "put_back forgets the order", VIOLATION_REORDERED, shape_put_back,
      .ops.put_back = put_back_reverses },
    { "two batches become one", VIOLATION_OVERSIZED, shape_large, .ops.take = take_oversizes },
    { "unlike requests are mixed", VIOLATION_UNLIKE, shape_unlike, misread_inputs },
    { "a level starves", VIOLATION_STARVED, shape_two_levels, .ops.put = put_starves,
      .ops.take = take_starves },
    { "the delay is ignored", VIOLATION_TOO_EARLY, shape_delay, misread_no_delay },
    { "the delay is too long", VIOLATION_TOO_LATE, shape_delay, misread_long_delay },
    { "preferred sizes are ignored", VIOLATION_TOO_LATE, shape_preferred, misread_preferred },
    { "a ready batch is forgotten", VIOLATION_TOO_LATE, NULL, .ops.ready_ns = ready_forgets },
    { "hurry is forgotten", VIOLATION_TOO_LATE, shape_hurry, .ops.hurry = hurry_forgets },
    { "a cancelled request is given", VIOLATION_ENDED, shape_cancel, .ops.cancel = cancel_keeps },
    { "a cancelled request leaks its slot", VIOLATION_MISCOUNTED, shape_cancel,
      .ops.cancel = cancel_leaks },
    { "an expired request is given", VIOLATION_ENDED, shape_timeout, .ops.expire = expire_keeps },
    { "a time-out is late", VIOLATION_TIMEOUT_LATE, shape_timeout, .expiry_late_ns = 60000 },
    { "a time-out of a request is ignored", VIOLATION_TIMEOUT_LATE, shape_own_timeout,
      misread_override },
    { "a time-out refuses instead of delaying", VIOLATION_TIMEOUT_EARLY, shape_timeout_delays,
      misread_action },
    { "a full queue takes more", VIOLATION_OVERFULL, shape_limited, misread_no_limit },
    { "a queue is full too early", VIOLATION_REFUSED, shape_limited, misread_limit },
    { "a wake-up is lost", VIOLATION_TOO_LATE, NULL, .wakes_lost_percent = 5 },
    { "an alarm for a delay is lost", VIOLATION_TOO_LATE, shape_delay, .alarms_lost_percent = 5 },
    { "an alarm for a time-out is lost", VIOLATION_TIMEOUT_LATE, shape_timeout,
      .alarms_lost_percent = 5 },
};
const size_t planted_fault_count = ARRAY_LEN(planted_faults);
