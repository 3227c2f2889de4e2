#include "sched/limiter.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"

enum {
    GLOBAL = -1 /* the device of a pool that is the server's */
};

/* The pieces of one resource, of a device or of the server. It is there while members need it. */
struct pool {
    struct list link;
    char *name;
    int32_t device;
    uint32_t members;
    uint64_t total;
    uint64_t used;
    uint64_t kept; /* for members that were passed over too often */
    uint64_t turn; /* of the last that was granted */
};

struct limiter_need {
    struct pool *pool;
    uint32_t count;
};

struct limiter {
    /* set at creation, then constant */
    struct limiter_amount *amounts; /* own their names */
    size_t amount_count;
    /* any thread, under lock */
    struct lock lock;
    struct list pools;
    struct list members;
    struct list waiting;  /* by turn, then by arrival */
    struct list kept_for; /* in the order in which they got there */
};

static struct limiter_member *member_of(struct list *link)
{
    return LIST_ENTRY(link, struct limiter_member, link);
}

/* ---- Creation and end ---- */

tis_error *limiter_create(const struct limiter_amount *amounts, size_t count,
                          struct limiter **ret_limiter)
{
    struct limiter *l = calloc(1, sizeof(*l));
    if (!l)
        return error_no_memory();
    lock_init(&l->lock, LOCK_LIMITER);
    list_init(&l->pools);
    list_init(&l->members);
    list_init(&l->waiting);
    list_init(&l->kept_for);
    l->amounts = calloc(count + 1, sizeof(*l->amounts));
    bool is_good = l->amounts != NULL;
    for (size_t i = 0; i < count && is_good; i++) {
        l->amounts[i] = amounts[i];
        l->amounts[i].name = strdup(amounts[i].name);
        l->amount_count++;
        is_good = l->amounts[i].name != NULL;
    }
    if (!is_good) {
        limiter_destroy(l);
        return error_no_memory();
    }
    *ret_limiter = l;
    return NULL;
}

void limiter_destroy(struct limiter *l)
{
    if (!l)
        return;
    assert(list_is_empty(&l->members) && list_is_empty(&l->pools));
    for (size_t i = 0; i < l->amount_count; i++)
        free((char *)(uintptr_t)l->amounts[i].name);
    free(l->amounts);
    lock_fini(&l->lock);
    free(l);
}

/* ---- Joining and leaving ---- */

/* How much there shall be of a pool: as given, else what the member that needs most of it needs. */
static uint64_t amount_of(const struct limiter *l, const struct pool *pool)
{
    uint64_t amount = 0;
    for (size_t i = 0; i < l->amount_count; i++) {
        const struct limiter_amount *a = &l->amounts[i];
        bool is_here = pool->device == GLOBAL || a->device == LIMITER_EVERY_DEVICE ||
                       a->device == pool->device;
        if (is_here && a->count > amount && strcmp(a->name, pool->name) == 0)
            amount = a->count;
    }
    if (l->amount_count > 0)
        return amount;
    LIST_FOREACH(link, &l->members)
    {
        const struct limiter_member *m = LIST_ENTRY(link, struct limiter_member, joined);
        for (uint32_t i = 0; i < m->need_count; i++)
            if (m->needs[i].pool == pool && m->needs[i].count > amount)
                amount = m->needs[i].count;
    }
    return amount;
}

static tis_error *pool_create(struct limiter *l, const char *name, int32_t device,
                              struct pool **ret_pool)
{
    struct pool *pool = calloc(1, sizeof(*pool));
    if (pool)
        pool->name = strdup(name);
    if (!pool || !pool->name) {
        free(pool);
        return error_no_memory();
    }
    pool->device = device;
    pool->total = amount_of(l, pool);
    list_append(&l->pools, &pool->link);
    *ret_pool = pool;
    return NULL;
}

static void pool_unref(struct pool *pool)
{
    if (--pool->members > 0)
        return;
    assert(pool->used == 0 && pool->kept == 0);
    list_remove(&pool->link);
    free(pool->name);
    free(pool);
}

/* The pool of a resource, made when it is the first to need it. */
static tis_error *pool_find(struct limiter *l, const Inference__ModelRateLimiter__Resource *r,
                            int32_t device, struct pool **ret_pool)
{
    int32_t wanted = r->global ? GLOBAL : device;
    LIST_FOREACH(link, &l->pools)
    {
        struct pool *pool = LIST_ENTRY(link, struct pool, link);
        if (strcmp(pool->name, r->name) != 0)
            continue;
        if ((pool->device == GLOBAL) != r->global)
            return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                             "resource '%s' must be global for all instances that need it, or for "
                             "none (found global: %s here, global: %s in a model that is loaded)",
                             r->name, r->global ? "true" : "false", r->global ? "false" : "true");
        if (pool->device == wanted) {
            *ret_pool = pool;
            return NULL;
        }
    }
    return pool_create(l, r->name, wanted, ret_pool);
}

/* Under the lock. */
static tis_error *add_need(struct limiter *l, struct limiter_member *m,
                           const Inference__ModelRateLimiter__Resource *r, int32_t device)
{
    struct pool *pool;
    tis_error *err = pool_find(l, r, device, &pool);
    if (err)
        return err;
    pool->members++;
    m->needs[m->need_count++] = (struct limiter_need){ .pool = pool, .count = r->count };
    if (l->amount_count == 0 && r->count > pool->total)
        pool->total = r->count;
    if (r->count <= pool->total)
        return NULL;
    char where[32] = "";
    if (!r->global)
        snprintf(where, sizeof(where), " of device %" PRId32, device);
    return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                     "there is too little of resource '%s'%s (found count: %" PRIu32
                     ", available %" PRIu64 ", expected at least --rate-limit-resource=%s:%" PRIu32
                     ")",
                     r->name, where, r->count, pool->total, r->name, r->count);
}

/* Under the lock. */
static void drop_needs(struct limiter *l, struct limiter_member *m)
{
    list_remove(&m->joined);
    for (uint32_t i = 0; i < m->need_count; i++) {
        struct pool *pool = m->needs[i].pool;
        pool->total = amount_of(l, pool);
        pool_unref(pool);
    }
    free(m->needs);
    *m = (struct limiter_member){ .state = LIMITER_OUT };
}

tis_error *limiter_join(struct limiter *l, struct limiter_member *m,
                        const Inference__ModelRateLimiter *config, int32_t device)
{
    assert(m->state == LIMITER_OUT);
    size_t count = config ? config->n_resources : 0;
    *m = (struct limiter_member){ .priority = config && config->priority ? config->priority : 1,
                                  .needs = calloc(count + 1, sizeof(*m->needs)) };
    if (!m->needs)
        return error_no_memory();
    list_init(&m->link);

    tis_error *err = NULL;
    lock_take(&l->lock);
    list_append(&l->members, &m->joined);
    for (size_t i = 0; i < count && !err; i++)
        err = add_need(l, m, config->resources[i], device);
    m->state = LIMITER_IDLE;
    if (err)
        drop_needs(l, m);
    lock_release(&l->lock);
    return err;
}

/* ---- Turns ---- */

static bool are_rivals(const struct limiter_member *a, const struct limiter_member *b)
{
    for (uint32_t i = 0; i < a->need_count; i++)
        for (uint32_t k = 0; k < b->need_count; k++)
            if (a->needs[i].pool == b->needs[k].pool)
                return true;
    return false;
}

/* The turn of the pools that m needs: of the one that is furthest behind. */
static uint64_t pools_turn(const struct limiter_member *m)
{
    uint64_t turn = UINT64_MAX;
    for (uint32_t i = 0; i < m->need_count; i++)
        if (m->needs[i].pool->turn < turn)
            turn = m->needs[i].pool->turn;
    return turn;
}

static void limit_lead(struct limiter_member *m)
{
    uint64_t here = pools_turn(m);
    if (m->need_count > 0 && m->turn > here + m->priority)
        m->turn = here + m->priority;
}

static void limit_lag(struct limiter_member *m)
{
    uint64_t here = pools_turn(m);
    if (m->need_count > 0 && m->turn + m->priority < here)
        m->turn = here - m->priority;
}

/* Behind those whose turn is the same. */
static void wait_for_turn(struct limiter *l, struct limiter_member *m)
{
    limit_lead(m);
    limit_lag(m);
    m->state = LIMITER_WAITS;
    m->passes = 0;
    struct list *before = l->waiting.prev;
    while (before != &l->waiting && member_of(before)->turn > m->turn)
        before = before->prev;
    list_append(before->next, &m->link); /* before the one behind it */
}

/* ---- Granting ---- */

static void keep(struct limiter_member *m, bool on)
{
    for (uint32_t i = 0; i < m->need_count; i++) {
        if (on)
            m->needs[i].pool->kept += m->needs[i].count;
        else
            m->needs[i].pool->kept -= m->needs[i].count;
    }
}

/* Nothing is kept for m itself at that moment. What is kept counts as if it were used already:
 * then those for whom it is kept wait only for what was granted before. */
static bool fits(const struct limiter_member *m)
{
    for (uint32_t i = 0; i < m->need_count; i++) {
        const struct pool *pool = m->needs[i].pool;
        if (pool->used + pool->kept + m->needs[i].count > pool->total)
            return false;
    }
    return true;
}

/* m waits; it leaves its list. */
static void grant(struct limiter *l, struct limiter_member *m)
{
    limit_lead(m);
    list_remove(&m->link);
    m->state = LIMITER_HOLDS;
    for (uint32_t i = 0; i < m->need_count; i++) {
        m->needs[i].pool->used += m->needs[i].count;
        m->needs[i].pool->turn = m->turn;
    }
    LIST_FOREACH(link, &l->waiting)
    {
        if (are_rivals(m, member_of(link)))
            member_of(link)->passes++;
    }
}

static bool is_passed_over(const struct limiter_member *m)
{
    uint64_t rivals = 0;
    for (uint32_t i = 0; i < m->need_count; i++)
        rivals += m->needs[i].pool->members - 1;
    return m->passes >= ((uint64_t)m->priority + 1) * rivals;
}

static void keep_for_passed_over(struct limiter *l)
{
    struct list *next;
    for (struct list *link = l->waiting.next; link != &l->waiting; link = next) {
        struct limiter_member *m = member_of(link);
        next = link->next;
        if (m->passes == 0 || !is_passed_over(m))
            continue;
        list_remove(&m->link);
        list_append(&l->kept_for, &m->link);
        m->state = LIMITER_IS_KEPT_FOR;
        keep(m, true);
    }
}

static bool grant_if_fits(struct limiter *l, struct limiter_member *m, struct list *granted)
{
    if (!fits(m))
        return false;
    grant(l, m);
    list_append(granted, &m->link);
    return true;
}

/* Something has come free: grants whoever can be, in the order of their turns. */
static void grant_all(struct limiter *l, struct list *granted)
{
    struct list *next;
    LIST_FOREACH(link, &l->kept_for)
    keep(member_of(link), false);
    for (struct list *link = l->kept_for.next; link != &l->kept_for; link = next) {
        struct limiter_member *m = member_of(link);
        next = link->next;
        if (!grant_if_fits(l, m, granted))
            keep(m, true);
    }
    for (struct list *link = l->waiting.next; link != &l->waiting; link = next) {
        next = link->next;
        grant_if_fits(l, member_of(link), granted);
    }
    keep_for_passed_over(l);
}

/* ---- Steps ---- */

void limiter_leave(struct limiter *l, struct limiter_member *m)
{
    if (m->state == LIMITER_OUT)
        return;
    lock_take(&l->lock);
    assert(m->state == LIMITER_IDLE);
    drop_needs(l, m);
    keep_for_passed_over(l); /* with one rival less, some may have been passed over often enough */
    lock_release(&l->lock);
}

static void give_back(struct limiter_member *m)
{
    m->state = LIMITER_IDLE;
    if (m->has_run)
        m->turn += m->priority;
    m->has_run = false;
    for (uint32_t i = 0; i < m->need_count; i++)
        m->needs[i].pool->used -= m->needs[i].count;
}

bool limiter_step(struct limiter *l, struct limiter_member *done, struct limiter_member *next,
                  struct list *granted)
{
    lock_take(&l->lock);
    bool holds = done && done->state == LIMITER_HOLDS;
    if (holds && done == next && !done->has_run) {
        lock_release(&l->lock);
        return true;
    }
    if (holds)
        give_back(done);
    if (next) {
        assert(next->state == LIMITER_IDLE);
        wait_for_turn(l, next);
    }
    if (holds) {
        grant_all(l, granted);
    } else if (next && fits(next)) {
        grant(l, next);
        keep_for_passed_over(l);
    }
    bool next_holds = next && next->state == LIMITER_HOLDS;
    if (next_holds)
        list_remove(&next->link); /* it need not be woken */
    lock_release(&l->lock);
    return next_holds;
}

bool limiter_withdraw(struct limiter *l, struct limiter_member *m, struct list *granted)
{
    lock_take(&l->lock);
    bool was_kept_for = m->state == LIMITER_IS_KEPT_FOR;
    bool waited = was_kept_for || m->state == LIMITER_WAITS;
    if (waited) {
        list_remove(&m->link);
        m->state = LIMITER_IDLE;
    }
    if (was_kept_for) {
        keep(m, false);
        grant_all(l, granted);
    }
    lock_release(&l->lock);
    return waited;
}

bool limiter_is_before(const struct limiter_member *a, const struct limiter_member *b)
{
    return a->turn < b->turn;
}
