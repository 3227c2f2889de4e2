/* The rate limiter: what joins and what does not, turns by priority, and a simulation of everything
 * together from one seed (TIS_SEED plays another one), checked against sums that the test keeps itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "sched/limiter.h"

enum {
    NEEDS_MAX = 4
};

/* What a member is configured with; the pointers of the messages are set by config_of(). */
struct needs {
    Inference__ModelRateLimiter limiter;
    Inference__ModelRateLimiter__Resource resources[NEEDS_MAX];
    Inference__ModelRateLimiter__Resource *list[NEEDS_MAX];
};

struct need {
    const char *name;
    uint32_t count;
    bool global;
};

static const Inference__ModelRateLimiter *config_of(struct needs *n, uint32_t priority,
                                                    const struct need *needs, size_t count)
{
    n->limiter = (Inference__ModelRateLimiter)INFERENCE__MODEL_RATE_LIMITER__INIT;
    n->limiter.priority = priority;
    n->limiter.n_resources = count;
    n->limiter.resources = n->list;
    for (size_t i = 0; i < count; i++) {
        n->resources[i] =
            (Inference__ModelRateLimiter__Resource)INFERENCE__MODEL_RATE_LIMITER__RESOURCE__INIT;
        n->resources[i].name = (char *)(uintptr_t)needs[i].name;
        n->resources[i].count = needs[i].count;
        n->resources[i].global = needs[i].global;
        n->list[i] = &n->resources[i];
    }
    return &n->limiter;
}

static tis_error *join(struct limiter *l, struct limiter_member *m, int32_t device,
                       uint32_t priority, const struct need *needs, size_t count)
{
    struct needs storage;
    return limiter_join(l, m, config_of(&storage, priority, needs, count), device);
}

#define JOIN(l, m, device, priority, ...)                                                  \
    assert_null(join((l), (m), (device), (priority), (const struct need[]){ __VA_ARGS__ }, \
                     ARRAY_LEN(((const struct need[]){ __VA_ARGS__ }))))

static struct limiter *create(void)
{
    struct limiter *l;
    assert_null(limiter_create(NULL, 0, &l));
    return l;
}

static bool ask(struct limiter *l, struct limiter_member *m)
{
    return limiter_step(l, NULL, m, NULL);
}

/* m has run and is done; exactly `expected` (NULL: nobody) is granted what it gave back. */
static void gives_to(struct limiter *l, struct limiter_member *m, struct limiter_member *expected)
{
    struct list granted;
    list_init(&granted);
    m->has_run = true;
    assert_false(limiter_step(l, m, NULL, &granted));
    struct list *first = list_pop(&granted);
    assert_ptr_equal(first, expected ? &expected->link : NULL);
    assert_true(list_is_empty(&granted));
}

/* ---- Joining ---- */

/* The flags --rate-limit-resource=R1:10 R2:5:0 R2:8:1 R3:2 on a machine with two devices. */
static const struct limiter_amount amounts[] = {
    { "R1", 10, LIMITER_EVERY_DEVICE },
    { "R2", 5, 0 },
    { "R2", 8, 1 },
    { "R3", 2, LIMITER_EVERY_DEVICE },
};

static void test_amounts(void **state)
{
    (void)state;
    static const struct {
        struct need need;
        int32_t device;
        const char *error; /* part of it; NULL: it may join */
    } cases[] = {
        { { "R1", 10, false }, 0, NULL },
        { { "R1", 10, false }, 7, NULL },
        { { "R1", 11, false },
          1,
          "there is too little of resource 'R1' of device 1 (found count: 11, available 10, expected "
          "at least --rate-limit-resource=R1:11)" },
        { { "R2", 5, false }, 0, NULL },
        { { "R2", 6, false }, 0, "available 5" },
        { { "R2", 8, false }, 1, NULL },
        { { "R2", 1, false }, 2, "available 0" },
        { { "R3", 2, true }, 0, NULL },
        { { "R2", 8, true }, 0, NULL }, /* of a global resource the device does not matter */
        { { "R3", 3, true },
          1,
          "there is too little of resource 'R3' (found count: 3, available 2" },
        { { "r1", 1, false }, 0, "available 0" }, /* names are compared as they are */
    };
    struct limiter *l;
    assert_null(limiter_create(amounts, ARRAY_LEN(amounts), &l));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct limiter_member m = { 0 };
        tis_error *err = join(l, &m, cases[i].device, 1, &cases[i].need, 1);
        if ((err == NULL) != (cases[i].error == NULL) ||
            (err && !strstr(error_text(err), cases[i].error)))
            fail_msg("case %zu: %s", i, err ? error_text(err) : "joined");
        assert_int_equal(m.state, err ? LIMITER_OUT : LIMITER_IDLE);
        error_free(err);
        limiter_leave(l, &m);
        limiter_leave(l, &m); /* twice does no harm */
    }
    limiter_destroy(l);
    limiter_destroy(NULL);
}

/* A resource is global for all or for none; a refused member leaves nothing behind. */
static void test_global_or_not(void **state)
{
    (void)state;
    struct limiter *l = create();
    struct limiter_member a = { 0 }, b = { 0 };
    const struct need needs[] = { { "S", 9, false }, { "R", 1, true } };
    JOIN(l, &a, 0, 1, { "R", 2, false });
    tis_error *err = join(l, &b, 0, 1, needs, 2);
    assert_int_equal(error_code(err), TRITONSERVER_ERROR_INVALID_ARG);
    assert_non_null(strstr(error_text(err), "resource 'R' must be global for all"));
    error_free(err);
    limiter_leave(l, &a);
    assert_null(join(l, &b, 0, 1, needs, 2)); /* now nobody says otherwise */
    limiter_leave(l, &b);
    limiter_destroy(l);
}

/* Without amounts there is what the member needs that needs most, as long as it is there. */
static void test_default_amount(void **state)
{
    (void)state;
    struct limiter *l = create();
    struct limiter_member big = { 0 }, a = { 0 }, b = { 0 }, other = { 0 }, free_one = { 0 };
    JOIN(l, &big, 0, 1, { "R", 2, false });
    JOIN(l, &a, 0, 1, { "R", 1, false });
    JOIN(l, &b, 0, 1, { "R", 1, false });
    JOIN(l, &other, 1, 1, { "R", 1, false });
    assert_null(limiter_join(l, &free_one, NULL, 0));
    assert_true(ask(l, &a));
    assert_true(ask(l, &b));
    assert_false(ask(l, &big));
    assert_true(ask(l, &other)); /* another device */
    assert_true(ask(l, &free_one));
    gives_to(l, &a, NULL); /* half of what it needs is not given out */
    gives_to(l, &b, &big);
    gives_to(l, &big, NULL);

    limiter_leave(l, &big);
    assert_true(ask(l, &a));
    assert_false(ask(l, &b));
    gives_to(l, &a, &b);
    gives_to(l, &b, NULL);
    gives_to(l, &other, NULL);
    gives_to(l, &free_one, NULL);
    limiter_leave(l, &a);
    limiter_leave(l, &b);
    limiter_leave(l, &other);
    limiter_leave(l, &free_one);
    limiter_destroy(l);
}

/* ---- Steps ---- */

/* What was granted and not used is no execution; a member that waits can be withdrawn, once. */
static void test_unused_and_withdrawn(void **state)
{
    (void)state;
    struct limiter *l = create();
    struct limiter_member a = { 0 }, b = { 0 };
    struct list granted;
    list_init(&granted);
    JOIN(l, &a, 0, 1, { "R", 1, false });
    JOIN(l, &b, 0, 3, { "R", 1, false });
    assert_true(ask(l, &a));
    assert_true(limiter_step(l, &a, &a, &granted)); /* still */
    assert_false(ask(l, &b));
    assert_false(limiter_withdraw(l, &a, &granted)); /* it holds */
    assert_true(limiter_withdraw(l, &b, &granted));
    assert_false(limiter_withdraw(l, &b, &granted));
    assert_false(limiter_step(l, &a, NULL, &granted)); /* unused */
    assert_true(list_is_empty(&granted));
    assert_false(limiter_is_before(&b, &a) || limiter_is_before(&a, &b));

    assert_true(ask(l, &a));
    gives_to(l, &a, NULL);
    assert_true(limiter_is_before(&b, &a));
    assert_true(ask(l, &b));
    assert_false(ask(l, &a));
    assert_false(limiter_step(l, &b, NULL, &granted)); /* unused: a is woken all the same */
    assert_ptr_equal(list_pop(&granted), &a.link);
    assert_false(limiter_withdraw(l, &a, &granted)); /* too late */
    gives_to(l, &a, NULL);
    limiter_leave(l, &a);
    limiter_leave(l, &b);
    limiter_destroy(l);
}

/* A member that asks in the moment in which it is done keeps its turn before a later one. */
static void test_asks_again(void **state)
{
    (void)state;
    struct limiter *l = create();
    struct limiter_member a = { 0 }, b = { 0 };
    struct list granted;
    list_init(&granted);
    JOIN(l, &a, 0, 1, { "R", 1, false });
    JOIN(l, &b, 0, 3, { "R", 1, false });
    assert_true(ask(l, &b));
    assert_false(ask(l, &a));
    gives_to(l, &b, &a);
    assert_false(ask(l, &b)); /* turn 3 */
    a.has_run = true;
    assert_true(limiter_step(l, &a, &a, &granted)); /* 1 */
    a.has_run = true;
    assert_true(limiter_step(l, &a, &a, &granted)); /* 2 */
    assert_true(list_is_empty(&granted));
    a.has_run = true;
    assert_false(limiter_step(l, &a, &a, &granted)); /* 3, behind b */
    assert_ptr_equal(list_pop(&granted), &b.link);
    gives_to(l, &b, &a);
    gives_to(l, &a, NULL);
    limiter_leave(l, &a);
    limiter_leave(l, &b);
    limiter_destroy(l);
}

/* Runs members that always have a batch on one resource for `steps` executions of one time unit;
 * executions[i] counts those of members[i]. The most that one had in a row. */
static uint32_t run_busy(struct limiter *l, struct limiter_member *members, uint32_t count,
                         uint32_t steps, uint32_t *executions)
{
    uint32_t last = UINT32_MAX, row = 0, row_max = 0;
    for (uint32_t i = 0; i < count; i++)
        ask(l, &members[i]);
    for (uint32_t s = 0; s < steps; s++) {
        uint32_t i = 0;
        /* Those that hold finish one after the other, round robin. */
        for (uint32_t k = 0; k < count; k++) {
            i = (s + k) % count;
            if (members[i].state == LIMITER_HOLDS)
                break;
        }
        assert_int_equal(members[i].state, LIMITER_HOLDS);
        struct list granted;
        list_init(&granted);
        executions[i]++;
        row = i == last ? row + 1 : 1;
        last = i;
        if (row > row_max)
            row_max = row;
        members[i].has_run = true;
        limiter_step(l, &members[i], &members[i], &granted);
        while (list_pop(&granted))
            continue;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct list granted;
        list_init(&granted);
        limiter_withdraw(l, &members[i], &granted);
    }
    for (uint32_t i = 0; i < count; i++)
        limiter_step(l, &members[i], NULL, &(struct list){ 0 });
    return row_max;
}

/* One resource, always busy members: executions * priority is the same for all, within one turn. */
static void test_shares(void **state)
{
    (void)state;
    static const uint32_t cases[][5] = {
        { 1, 1, 0 }, { 1, 2, 0 }, { 2, 3, 0 }, { 1, 2, 3, 4, 0 }, { 5, 5, 1, 100, 0 }, { 7, 0 },
    };
    for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
        struct limiter *l = create();
        struct limiter_member members[5] = { { 0 } };
        uint32_t executions[5] = { 0 }, count = 0;
        double parts = 0;
        for (; cases[c][count] > 0; count++) {
            JOIN(l, &members[count], 0, cases[c][count], { "R", 1, false });
            parts += 1.0 / cases[c][count];
        }
        run_busy(l, members, count, 10000, executions);
        for (uint32_t i = 0; i < count; i++) {
            double expected = 10000 / parts / cases[c][i];
            if (executions[i] < expected - 3 || executions[i] > expected + 3)
                fail_msg("case %zu member %u: %u of %f", c, i, executions[i], expected);
            limiter_leave(l, &members[i]);
        }
        limiter_destroy(l);
    }
}

/* Who was alone owes nothing, who was away is owed one turn at most: after a thousand executions of one, both
 * take turns. (Else the other would run until the one has been passed over (5 + 1) * 1 times.) */
static void test_no_debts(void **state)
{
    (void)state;
    struct limiter *l = create();
    struct limiter_member members[2] = { { 0 } };
    uint32_t executions[2] = { 0 };
    JOIN(l, &members[0], 0, 5, { "R", 1, false });
    run_busy(l, members, 1, 1000, executions);
    JOIN(l, &members[1], 0, 5, { "R", 1, false }); /* has been here for no execution */
    for (int i = 0; i < 2; i++) {
        memset(executions, 0, sizeof(executions));
        assert_in_range(run_busy(l, members, 2, 10, executions), 1, 2);
        assert_in_range(executions[0], 4, 6);
        run_busy(l, &members[1], 1, 1000, executions);
    }
    limiter_leave(l, &members[0]);
    limiter_leave(l, &members[1]);
    limiter_destroy(l);
}

/* Turns are of the pools: who ran alone on one of them is not behind one who comes from another one. */
static void test_turns_of_two_pools(void **state)
{
    (void)state;
    struct limiter *l = create();
    struct limiter_member members[2] = { { 0 } };
    uint32_t executions[2] = { 0 };
    JOIN(l, &members[0], 0, 1, { "R", 1, false });
    JOIN(l, &members[1], 0, 1, { "R", 1, false }, { "S", 1, false });
    run_busy(l, members, 1, 1000, executions);
    memset(executions, 0, sizeof(executions));
    run_busy(l, members, 2, 30, executions);
    assert_in_range(executions[0], 14, 16);
    limiter_leave(l, &members[0]);
    limiter_leave(l, &members[1]);
    limiter_destroy(l);
}

/* Two that need half each never leave all of it free at one time, unless the one that needs all is kept it
 * for: by its rule after (1 + 1) * 2 grants of its rivals. */
static void test_big_among_small(void **state)
{
    (void)state;
    struct limiter *l = create();
    struct limiter_member members[3] = { { 0 } };
    struct list granted;
    list_init(&granted);
    JOIN(l, &members[0], 0, 1, { "R", 1, false });
    JOIN(l, &members[1], 0, 1, { "R", 1, false });
    JOIN(l, &members[2], 0, 1, { "R", 2, false });
    assert_true(ask(l, &members[0]));
    assert_true(ask(l, &members[1]));
    assert_false(ask(l, &members[2]));
    for (int i = 0; i < 4; i++) {
        assert_int_equal(members[2].state, LIMITER_WAITS);
        members[i % 2].has_run = true;
        assert_true(limiter_step(l, &members[i % 2], &members[i % 2], &granted));
    }
    assert_int_equal(members[2].state, LIMITER_IS_KEPT_FOR);
    members[0].has_run = true;
    assert_false(limiter_step(l, &members[0], &members[0], &granted));
    members[1].has_run = true;
    assert_false(limiter_step(l, &members[1], &members[1], &granted));
    assert_ptr_equal(list_pop(&granted), &members[2].link);
    assert_true(list_is_empty(&granted));

    /* When it goes, those behind it have what was kept. */
    assert_true(limiter_withdraw(l, &members[0], &granted));
    assert_true(limiter_withdraw(l, &members[1], &granted));
    gives_to(l, &members[2], NULL);
    for (uint32_t i = 0; i < 3; i++)
        limiter_leave(l, &members[i]);
    limiter_destroy(l);
}

/* When a member for which something is kept is withdrawn, the others have it at once. */
static void test_withdraw_kept(void **state)
{
    (void)state;
    struct limiter *l = create();
    struct limiter_member small[3] = { { 0 } }, big = { 0 };
    struct list granted;
    list_init(&granted);
    for (int i = 0; i < 3; i++)
        JOIN(l, &small[i], 0, 1, { "R", 1, false });
    JOIN(l, &big, 0, 1, { "R", 2, false });
    assert_true(ask(l, &small[0]));
    assert_true(ask(l, &small[1]));
    assert_false(ask(l, &big));
    for (int i = 0; big.state == LIMITER_WAITS; i++) {
        small[i % 2].has_run = true;
        assert_true(limiter_step(l, &small[i % 2], &small[i % 2], &granted));
    }
    gives_to(l, &small[0], NULL);
    assert_false(ask(l, &small[2])); /* half is free, and kept */
    assert_true(limiter_withdraw(l, &big, &granted));
    assert_ptr_equal(list_pop(&granted), &small[2].link);
    gives_to(l, &small[1], NULL);
    gives_to(l, &small[2], NULL);
    for (int i = 0; i < 3; i++)
        limiter_leave(l, &small[i]);
    limiter_leave(l, &big);
    limiter_destroy(l);
}

/* ---- Simulation ---- */

enum {
    SCENARIOS = 400,
    STEPS = 2000,
    MEMBERS_MAX = 8,
    POOLS = 3, /* A and B of a device, G of the server */
    DEVICES = 2,
    TIME_MAX = 50, /* of an execution */
};

static const char *const pool_names[POOLS] = { "A", "B", "G" };

struct sim_member {
    struct limiter_member member;
    int32_t device;
    uint32_t priority;
    uint32_t needs[POOLS];
    uint32_t backlog; /* batches */
    bool was_kept_for;
    uint64_t end; /* of its execution */
    uint64_t due; /* when it must run at the latest, once things are kept for it */
};

struct sim {
    uint64_t seed, state;
    uint64_t now;
    struct limiter *limiter;
    bool has_amounts;
    uint32_t amounts[POOLS];
    struct sim_member members[MEMBERS_MAX];
    uint32_t count;
    uint64_t executions;
    struct list granted;
};

static uint32_t chance(struct sim *s, uint32_t below)
{
    s->state = s->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(s->state >> 33) % below;
}

#define CHECK(s, condition)                                                       \
    do {                                                                          \
        if (!(condition))                                                         \
            fail_msg("TIS_SEED=%llu now=%llu: %s", (unsigned long long)(s)->seed, \
                     (unsigned long long)(s)->now, #condition);                   \
    } while (0)

static uint32_t device_of(const struct sim_member *m, int pool)
{
    return pool == POOLS - 1 ? 0 : (uint32_t)m->device;
}

static bool share_pool(const struct sim_member *a, const struct sim_member *b, int pool)
{
    return a->needs[pool] && b->needs[pool] && device_of(a, pool) == device_of(b, pool);
}

/* How much there is of a pool that m needs, and how much others use. */
static uint64_t total_of(const struct sim *s, const struct sim_member *m, int pool)
{
    uint64_t total = 0;
    if (s->has_amounts)
        return s->amounts[pool];
    for (uint32_t i = 0; i < s->count; i++)
        if (share_pool(m, &s->members[i], pool) && s->members[i].needs[pool] > total)
            total = s->members[i].needs[pool];
    return total;
}

static uint64_t used_of(const struct sim *s, const struct sim_member *m, int pool, bool and_kept)
{
    uint64_t used = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        const struct sim_member *o = &s->members[i];
        bool counts = o->member.state == LIMITER_HOLDS ||
                      (and_kept && o->member.state == LIMITER_IS_KEPT_FOR);
        if (o != m && counts && share_pool(m, o, pool))
            used += o->needs[pool];
    }
    return used;
}

static void begin(struct sim *s, struct sim_member *m)
{
    CHECK(s, m->member.state == LIMITER_HOLDS);
    for (int p = 0; p < POOLS; p++)
        if (m->needs[p])
            CHECK(s, used_of(s, m, p, false) + m->needs[p] <= total_of(s, m, p));
    CHECK(s, !m->was_kept_for || s->now <= m->due);
    m->end = s->now + 1 + chance(s, TIME_MAX);
}

static uint64_t passes_max(const struct sim *s, const struct sim_member *m)
{
    uint64_t rivals = 0;
    for (uint32_t i = 0; i < s->count; i++)
        for (int p = 0; p < POOLS; p++)
            rivals += &s->members[i] != m && share_pool(m, &s->members[i], p);
    return (m->priority + 1) * rivals;
}

/* After a step that gave something back nobody waits for what is there, and what is due is known. */
static void look_around(struct sim *s, bool was_freed)
{
    uint32_t kept_for = 0;
    for (struct list *link; (link = list_pop(&s->granted));)
        begin(s, LIST_ENTRY(link, struct sim_member, member.link));
    for (uint32_t i = 0; i < s->count; i++)
        kept_for += s->members[i].member.state == LIMITER_IS_KEPT_FOR;
    for (uint32_t i = 0; i < s->count; i++) {
        struct sim_member *m = &s->members[i];
        if (m->member.state != LIMITER_IS_KEPT_FOR) {
            m->was_kept_for = false;
        } else if (!m->was_kept_for) {
            m->was_kept_for = true;
            m->due = s->now + (uint64_t)TIME_MAX * kept_for;
        }
        if (m->member.state != LIMITER_WAITS)
            continue;
        bool fits = true;
        for (int p = 0; p < POOLS; p++)
            if (m->needs[p])
                fits &= used_of(s, m, p, true) + m->needs[p] <= total_of(s, m, p);
        CHECK(s, !was_freed || !fits);
        CHECK(s, m->member.passes < passes_max(s, m) + 1);
    }
}

static void sim_join(struct sim *s, struct sim_member *m)
{
    struct need needs[POOLS];
    size_t count = 0;
    m->device = (int32_t)chance(s, DEVICES);
    m->priority = 1 + chance(s, 4);
    for (int p = 0; p < POOLS; p++) {
        m->needs[p] = chance(s, 2) ? 1 + chance(s, 5) : 0;
        if (m->needs[p])
            needs[count++] = (struct need){ pool_names[p], m->needs[p], p == POOLS - 1 };
    }
    CHECK(s, join(s->limiter, &m->member, m->device, m->priority, needs, count) == NULL);
}

static void sim_create(struct sim *s, uint64_t seed)
{
    struct limiter_amount given[POOLS];
    *s = (struct sim){ .seed = seed, .state = seed };
    list_init(&s->granted);
    s->has_amounts = chance(s, 2);
    for (int p = 0; p < POOLS; p++) {
        s->amounts[p] = 5 + chance(s, 5);
        given[p] = (struct limiter_amount){ pool_names[p], s->amounts[p], LIMITER_EVERY_DEVICE };
    }
    assert_null(limiter_create(given, s->has_amounts ? POOLS : 0, &s->limiter));
    s->count = 2 + chance(s, MEMBERS_MAX - 1);
    for (uint32_t i = 0; i < s->count; i++)
        sim_join(s, &s->members[i]);
}

/* Its execution ends: it gives back, and asks again when it has more. */
static void sim_end(struct sim *s, struct sim_member *m)
{
    if (m->backlog > 0) { /* else it was granted for nothing, as after a cancel */
        m->backlog--;
        m->member.has_run = true;
        s->executions++;
    }
    struct limiter_member *next = m->backlog ? &m->member : NULL;
    if (limiter_step(s->limiter, &m->member, next, &s->granted))
        begin(s, m);
    look_around(s, true);
}

static void sim_arrive(struct sim *s, struct sim_member *m)
{
    m->backlog += 1 + chance(s, 6);
    if (m->member.state == LIMITER_IDLE && limiter_step(s->limiter, NULL, &m->member, NULL))
        begin(s, m);
    look_around(s, false);
}

/* Batches are cancelled; an idle member goes and comes back as another one. */
static void sim_disturb(struct sim *s, struct sim_member *m)
{
    m->backlog = 0;
    if (m->member.state == LIMITER_IDLE) {
        limiter_leave(s->limiter, &m->member);
        sim_join(s, m);
        /* There may be less now than what was used beside what is kept: the time counts anew. */
        for (uint32_t i = 0; i < s->count; i++)
            s->members[i].was_kept_for = false;
    } else if (chance(s, 2)) {
        limiter_withdraw(s->limiter, &m->member, &s->granted);
    }
    look_around(s, false);
}

/* The member whose execution ends next; NULL: none runs. */
static struct sim_member *first_to_end(struct sim *s)
{
    struct sim_member *first = NULL;
    for (uint32_t i = 0; i < s->count; i++) {
        struct sim_member *m = &s->members[i];
        if (m->member.state == LIMITER_HOLDS && (!first || m->end < first->end))
            first = m;
    }
    return first;
}

static void sim_run(struct sim *s)
{
    for (int step = 0; step < STEPS; step++) {
        struct sim_member *any = &s->members[chance(s, s->count)];
        struct sim_member *m = first_to_end(s);
        if (!m || chance(s, 3) == 0) {
            sim_arrive(s, any);
        } else if (chance(s, 20) == 0) {
            sim_disturb(s, any);
        } else {
            s->now = m->end;
            sim_end(s, m);
        }
    }
    for (struct sim_member *m; (m = first_to_end(s));) {
        s->now = m->end;
        sim_end(s, m);
    }
    for (uint32_t i = 0; i < s->count; i++) { /* all was run, nothing waits or leaks */
        CHECK(s, s->members[i].backlog == 0);
        CHECK(s, s->members[i].member.state == LIMITER_IDLE);
        limiter_leave(s->limiter, &s->members[i].member);
    }
    limiter_destroy(s->limiter);
}

static void test_simulation(void **state)
{
    (void)state;
    const char *given = getenv("TIS_SEED");
    uint64_t first = given ? strtoull(given, NULL, 10) : 1;
    uint64_t executions = 0;
    for (uint64_t i = 0; i < (given ? 1 : SCENARIOS); i++) {
        struct sim s;
        sim_create(&s, first + i);
        sim_run(&s);
        executions += s.executions;
    }
    assert_true(given || executions > (uint64_t)SCENARIOS * STEPS / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_amounts),
        cmocka_unit_test(test_global_or_not),
        cmocka_unit_test(test_default_amount),
        cmocka_unit_test(test_unused_and_withdrawn),
        cmocka_unit_test(test_asks_again),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_no_debts),
        cmocka_unit_test(test_big_among_small),
        cmocka_unit_test(test_turns_of_two_pools),
        cmocka_unit_test(test_withdraw_kept),
        cmocka_unit_test(test_simulation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
