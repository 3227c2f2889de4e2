/* bench/queue.c - what a scheduler's work costs, per request, while many others wait.
 *
 * For 0 to 100,000 waiting requests, 1 and 10 priority levels, with and without time-outs, one line:
 *
 *     queue waiting=10000 levels=10 timeouts=no put_ns=31.0 take_ns=35.2 cancel_ns=40.1
 *
 * The time of an operation does not depend on the number that waits, but for log2 of it with time-outs;
 * what grows a little is the way to the memory of a request that has waited long: 100,000 of them do not
 * fit into the processor's caches. Batches are of eight requests.
 *
 *     ninja -C build bench/queue && build/bench/queue */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/attr.h"
#include "base/clock.h"
#include "sched/batcher.h"

enum {
    AT_ONCE = 64, /* operations between two looks at the clock */
    ROUNDS = 4000,
    BATCH_SIZE = 8,
    LEVELS_MAX = 10,
};

struct bench {
    struct scheduler *s;
    struct tis_request **all; /* waiting and free */
    uint32_t count;
    struct tis_request *free[AT_ONCE];
    uint32_t free_count;
    uint32_t levels;
    uint64_t random;
    uint64_t now_ns;
};

/* Times of AT_ONCE operations each. */
struct cost {
    uint64_t ns[2 * ROUNDS];
    uint32_t count;
};

static void die(const char *why)
{
    fprintf(stderr, "queue: %s\n", why);
    exit(1);
}

/* xorshift64 */
static uint32_t random_below(struct bench *b, uint32_t bound)
{
    b->random ^= b->random << 13;
    b->random ^= b->random >> 7;
    b->random ^= b->random << 17;
    return (uint32_t)((b->random >> 32) % bound);
}

static void on_complete(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    (void)sink, (void)response, (void)flags;
}

static void on_done(struct sink *sink, struct tis_request *request)
{
    (void)sink, (void)request;
}

static const struct sink_ops ops = { .complete = on_complete, .done = on_done };

/* A request that was given back is new again. */
static void recycle(struct bench *b, struct tis_request *req)
{
    if (!request_move(req, REQUEST_QUEUED, REQUEST_NEW))
        die("a request was given that does not wait");
    req->priority = 1 + random_below(b, b->levels);
    req->timeout_us = 3600u * 1000000u + random_below(b, 100000000);
    b->free[b->free_count++] = req;
}

static void put_all(struct bench *b, struct cost *cost)
{
    uint64_t start_ns = clock_ns();
    while (b->free_count > 0) {
        tis_error *err = b->s->ops->put(b->s, &b->free[--b->free_count], b->now_ns += NS_PER_US);
        if (err)
            die(error_text(err));
    }
    if (cost)
        cost->ns[cost->count++] = clock_ns() - start_ns;
}

static void take_some(struct bench *b, struct cost *cost)
{
    struct tis_request *taken[AT_ONCE + BATCH_SIZE];
    uint32_t count = 0;
    uint64_t start_ns = clock_ns();
    while (count < AT_ONCE)
        count += b->s->ops->take(b->s, 0, taken + count, BATCH_SIZE, b->now_ns);
    cost->ns[cost->count++] = clock_ns() - start_ns;
    if (count > AT_ONCE)
        die("a batch was not full");
    for (uint32_t i = 0; i < count; i++)
        recycle(b, taken[i]);
}

static void cancel_some(struct bench *b, struct cost *cost)
{
    struct tis_request *chosen[AT_ONCE];
    for (uint32_t i = 0; i < AT_ONCE; i++) {
        do
            chosen[i] = b->all[random_below(b, b->count)];
        while (chosen[i]->flags);
        chosen[i]->flags = 1;
    }

    uint64_t start_ns = clock_ns();
    for (uint32_t i = 0; i < AT_ONCE; i++) {
        if (!b->s->ops->cancel(b->s, chosen[i]))
            die("a waiting request was not found");
    }
    cost->ns[cost->count++] = clock_ns() - start_ns;
    for (uint32_t i = 0; i < AT_ONCE; i++) {
        chosen[i]->flags = 0;
        recycle(b, chosen[i]);
    }
}

/* `waiting` requests, and AT_ONCE that come and go. */
static void fill(struct bench *b, uint32_t waiting)
{
    b->count = waiting + AT_ONCE;
    b->all = calloc(b->count, sizeof(*b->all));
    if (!b->all)
        die("out of memory");
    for (uint32_t i = 0; i < b->count; i++) {
        b->all[i] = request_create(&ops, NULL);
        if (!b->all[i] || !request_move(b->all[i], REQUEST_NEW, REQUEST_QUEUED))
            die("out of memory");
        recycle(b, b->all[i]);
        if (i < waiting)
            put_all(b, NULL);
    }
}

static void empty(struct bench *b)
{
    for (uint32_t i = 0; i < b->count; i++) {
        struct tis_request *req = b->all[i];
        if (b->s->ops->cancel(b->s, req) && !request_move(req, REQUEST_QUEUED, REQUEST_NEW))
            die("a request has the wrong state");
        request_free(&req);
    }
    b->s->ops->destroy(b->s);
    free(b->all);
}

static int compare_times(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* The median, per operation: another program's turn on this processor is no part of it. */
static double ns_each(struct cost *cost)
{
    qsort(cost->ns, cost->count, sizeof(cost->ns[0]), compare_times);
    return (double)cost->ns[cost->count / 2] / AT_ONCE;
}

static void run(uint32_t waiting, uint32_t levels, bool has_timeouts)
{
    struct queue_policy policies[LEVELS_MAX] = { 0 };
    struct bench b = { .levels = levels, .random = 1, .now_ns = NS_PER_SEC };
    static struct cost put, take, cancel;
    put.count = take.count = cancel.count = 0;
    for (uint32_t i = 0; i < levels; i++)
        policies[i].timeout_override = has_timeouts;
    tis_error *err = batcher_create(&(struct batcher_options){ .policies = policies,
                                                               .level_count = levels,
                                                               .requests_max = BATCH_SIZE,
                                                               .batch_size_max = BATCH_SIZE },
                                    &b.s);
    if (err)
        die(error_text(err));

    fill(&b, waiting);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        put_all(&b, &put);
        take_some(&b, &take);
        put_all(&b, &put);
        cancel_some(&b, &cancel);
    }
    printf("queue waiting=%u levels=%u timeouts=%s put_ns=%.1f take_ns=%.1f cancel_ns=%.1f\n",
           waiting, levels, has_timeouts ? "yes" : "no", ns_each(&put), ns_each(&take),
           ns_each(&cancel));
    fflush(stdout);
    empty(&b);
}

int main(void)
{
    static const uint32_t waiting[] = { 0, 100, 10000, 100000 };
    static const uint32_t levels[] = { 1, LEVELS_MAX };
    for (size_t t = 0; t < 2; t++) {
        for (size_t l = 0; l < ARRAY_LEN(levels); l++) {
            for (size_t w = 0; w < ARRAY_LEN(waiting); w++)
                run(waiting[w], levels[l], t == 1);
        }
    }
    return 0;
}
