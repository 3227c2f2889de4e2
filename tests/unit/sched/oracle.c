#include "oracle.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/sink.h"

/* The clock that a request was given may be older than the time at which it came in. */
#define CLOCK_SKEW_NS 3000

const char *violation_name(enum violation v)
{
#define VIOLATION_TEXT(name, text) text,
    static const char *const names[] = { VIOLATIONS(VIOLATION_TEXT) };
#undef VIOLATION_TEXT
    return names[v];
}

void oracle_init(struct oracle *o, const struct batcher_options *rules, uint32_t room)
{
    *o = (struct oracle){ .rules = rules };
    o->order = calloc(room, sizeof(struct record *));
}

void oracle_fini(struct oracle *o)
{
    free(o->order);
}

struct record *record_of(const struct tis_request *req)
{
    return req->sink->user;
}

void oracle_blame(struct oracle *o, enum violation v, const char *format, ...)
{
    va_list arguments;
    if (o->violation)
        return;
    o->violation = v;
    va_start(arguments, format);
    vsnprintf(o->text, sizeof(o->text), format, arguments);
    va_end(arguments);
}

/* ---- The order ---- */

static uint32_t position_of(const struct oracle *o, const struct record *r)
{
    uint32_t at = 0;
    while (at < o->waiting && o->order[at] != r)
        at++;
    return at;
}

static void insert_at(struct oracle *o, struct record *r, uint32_t at)
{
    memmove(&o->order[at + 1], &o->order[at], (o->waiting - at) * sizeof(struct record *));
    o->order[at] = r;
    o->waiting++;
}

static void leave(struct oracle *o, struct record *r, enum fate fate)
{
    uint32_t at = position_of(o, r);
    o->waiting--;
    memmove(&o->order[at], &o->order[at + 1], (o->waiting - at) * sizeof(struct record *));
    r->fate = fate;
    if (o->promoted == r)
        o->promoted = NULL;
}

/* Last of its place. */
static void append(struct oracle *o, struct record *r, uint32_t place)
{
    uint32_t at = 0;
    while (at < o->waiting && o->order[at]->place <= place)
        at++;
    r->fate = FATE_WAITING;
    r->place = place;
    insert_at(o, r, at);
}

static void prepend(struct oracle *o, struct record *r)
{
    r->fate = FATE_WAITING;
    r->place = 0;
    insert_at(o, r, 0);
}

/* When others were passed over often enough, the oldest of those that are first of their place goes
 * before all. */
static void promote(struct oracle *o)
{
    struct record *oldest = NULL;
    if (o->passes < PASSES_MAX)
        return;
    o->passes = 0;
    for (uint32_t i = 0; i < o->waiting; i++) {
        struct record *r = o->order[i];
        bool is_first = i == 0 || o->order[i - 1]->place != r->place;
        if (is_first && (!oldest || r->start_ns < oldest->start_ns))
            oldest = r;
    }
    if (!oldest || oldest->place == 0)
        return;
    leave(o, oldest, FATE_WAITING);
    prepend(o, oldest);
    o->promoted = oldest;
}

/* ---- The bound on starvation ---- */

/* Among the delayed ones of a level, which are in the order of their time-outs, one that came before may
 * wait behind one that came later, and behind all those older than that one. */
static void begin_to_wait(struct oracle *o, struct record *r)
{
    bool is_delayed = r->place > 0 && r->place % 2 == 0;
    r->executions_first = o->executions;
    r->ahead = 0;
    for (uint32_t i = 0; i < o->waiting; i++) {
        struct record *other = o->order[i];
        if (other == r)
            continue;
        if (is_delayed || other->place == r->place || other->start_ns < r->start_ns + CLOCK_SKEW_NS)
            r->ahead++;
        if (r->start_ns < other->start_ns + CLOCK_SKEW_NS)
            other->ahead++;
    }
}

static void check_starvation(struct oracle *o)
{
    uint32_t period = PASSES_MAX + 1 + (o->puts_back ? o->rules->requests_max : 0);
    for (uint32_t i = 0; i < o->waiting; i++) {
        struct record *r = o->order[i];
        uint64_t seen = o->executions - r->executions_first;
        if (seen > (uint64_t)(r->ahead + 1) * period)
            oracle_blame(o, VIOLATION_STARVED,
                         "request %u saw %u executions although only %u were ahead", r->number,
                         (unsigned)seen, r->ahead);
    }
}

/* ---- The decision ---- */

static uint32_t size_of(const struct oracle *o, uint32_t count)
{
    uint32_t size = 0;
    for (uint32_t i = 0; i < count; i++)
        size += o->order[i]->request->batch_size;
    return size;
}

static bool is_unlike(const struct oracle *o, const struct record *a, const struct record *b)
{
    return o->rules->compares_inputs && a->look != b->look;
}

/* How many of the first requests make one batch of up to size_max? A first one that is larger is alone. */
static uint32_t together(const struct oracle *o, uint32_t size_max, bool *ret_can_grow)
{
    uint32_t count = o->waiting ? 1 : 0;
    while (count < o->waiting && count < o->rules->requests_max &&
           size_of(o, count + 1) <= size_max && !is_unlike(o, o->order[0], o->order[count]))
        count++;
    *ret_can_grow =
        count == o->waiting && count < o->rules->requests_max && size_of(o, count) < size_max;
    return count;
}

static bool is_preferred(const struct batcher_options *rules, uint32_t size)
{
    bool found = rules->preferred_count == 0 && size == rules->batch_size_max;
    for (size_t i = 0; i < rules->preferred_count; i++)
        found = found || (uint32_t)rules->preferred[i] == size;
    return found;
}

static uint32_t preferred_largest(const struct batcher_options *rules)
{
    uint32_t largest = rules->preferred_count ? 0 : rules->batch_size_max;
    for (size_t i = 0; i < rules->preferred_count; i++) {
        if ((uint32_t)rules->preferred[i] > largest)
            largest = (uint32_t)rules->preferred[i];
    }
    return largest;
}

/* How many of the first requests shall run now? With 0, *ret_ready_ns says when some shall. */
static uint32_t batch_due(const struct oracle *o, uint64_t now_ns, uint64_t *ret_ready_ns)
{
    bool can_grow;
    uint32_t count = together(o, preferred_largest(o->rules), &can_grow);
    uint64_t due_ns = SCHEDULER_NEVER;
    for (uint32_t i = 0; i < count; i++) {
        if (o->order[i]->start_ns + o->rules->delay_ns < due_ns)
            due_ns = o->order[i]->start_ns + o->rules->delay_ns;
    }
    *ret_ready_ns = due_ns;
    if (count == 0)
        return 0;

    bool is_late = o->hurried || now_ns >= due_ns;
    if (o->rules->delay_ns > 0 && is_late)
        return together(o, o->rules->batch_size_max, &can_grow);
    for (uint32_t i = count; i > 0; i--) {
        if (is_preferred(o->rules, size_of(o, i)))
            return i;
    }
    return !can_grow || is_late ? count : 0;
}

uint64_t oracle_ready_ns(const struct oracle *o, uint64_t now_ns)
{
    uint64_t ready_ns;
    return batch_due(o, now_ns, &ready_ns) ? now_ns : ready_ns;
}

static uint64_t expiry_of_all(const struct oracle *o)
{
    uint64_t expiry_ns = SCHEDULER_NEVER;
    for (uint32_t i = 0; i < o->waiting; i++) {
        if (o->order[i]->deadline_ns < expiry_ns)
            expiry_ns = o->order[i]->deadline_ns;
    }
    return expiry_ns;
}

/* ---- Calls ---- */

static const struct queue_policy *policy_of(const struct oracle *o, const struct record *r)
{
    return &o->rules->policies[r->level];
}

static uint64_t timeout_ns(const struct queue_policy *policy, const struct tis_request *req)
{
    uint64_t allowed_us = policy->timeout_ns / 1000;
    if (policy->timeout_override && req->timeout_us > 0 &&
        (allowed_us == 0 || req->timeout_us < allowed_us))
        allowed_us = req->timeout_us;
    return allowed_us * 1000;
}

void oracle_put(struct oracle *o, struct record *r, uint64_t now_ns, bool accepted)
{
    uint64_t priority = r->request->priority;
    bool names_level = priority >= 1 && priority <= o->rules->level_count;
    r->level = names_level ? (uint32_t)priority - 1 : o->rules->level_default;

    uint32_t same_level = 0;
    for (uint32_t i = 0; i < o->waiting; i++)
        same_level += o->order[i]->level == r->level;
    uint32_t requests_max = policy_of(o, r)->requests_max;
    bool has_room = requests_max == 0 || same_level < requests_max;
    if (accepted != has_room)
        oracle_blame(o, accepted ? VIOLATION_OVERFULL : VIOLATION_REFUSED,
                     "request %u at level %u where %u of %u wait", r->number, r->level, same_level,
                     requests_max);
    if (!accepted) {
        r->fate = FATE_REFUSED;
        return;
    }
    if (atomic_load(&r->request->state) != REQUEST_QUEUED)
        oracle_blame(o, VIOLATION_MISTAKEN, "request %u waits in state %u", r->number,
                     atomic_load(&r->request->state));
    uint64_t wait_ns = timeout_ns(policy_of(o, r), r->request);
    r->start_ns = now_ns;
    r->deadline_ns = wait_ns ? now_ns + wait_ns : SCHEDULER_NEVER;
    append(o, r, 1 + 2 * r->level);
    begin_to_wait(o, r);
}

/* When it should act at the latest. */
static uint64_t latest_expiry_ns(const struct oracle *o, const struct record *r)
{
    if (r->deadline_ns == SCHEDULER_NEVER)
        return SCHEDULER_NEVER;
    return (r->deadline_ns > r->came_ns ? r->deadline_ns : r->came_ns) + o->slack_ns;
}

/* What nobody may ever get, whatever the order. */
static void check_legal(struct oracle *o, struct tis_request *const *given, uint32_t count,
                        uint32_t max, uint64_t now_ns)
{
    uint32_t size = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct record *r = record_of(given[i]);
        bool again = false;
        for (uint32_t k = 0; k < i; k++)
            again = again || given[k] == given[i];
        if (again || r->fate == FATE_TAKEN || r->fate == FATE_DONE)
            oracle_blame(o, VIOLATION_DOUBLED, "request %u", r->number);
        else if (r->fate != FATE_WAITING)
            oracle_blame(o, VIOLATION_ENDED, "request %u", r->number);
        else if (latest_expiry_ns(o, r) < now_ns)
            oracle_blame(o, VIOLATION_TIMEOUT_LATE, "request %u runs in spite of its time-out",
                         r->number);
        size += given[i]->batch_size;
    }
    if (count > max || count > o->rules->requests_max ||
        (count > 1 && size > o->rules->batch_size_max))
        oracle_blame(o, VIOLATION_OVERSIZED, "%u requests of %u in all, allowed are %u of %u",
                     count, size, o->rules->requests_max, o->rules->batch_size_max);
    for (uint32_t i = 1; i < count; i++) {
        if (is_unlike(o, record_of(given[0]), record_of(given[i])))
            oracle_blame(o, VIOLATION_UNLIKE, "requests %u and %u", record_of(given[0])->number,
                         record_of(given[i])->number);
    }
}

static void check_order(struct oracle *o, struct tis_request *const *given, uint32_t count)
{
    for (uint32_t i = 0; i < count && !o->violation; i++) {
        struct record *r = record_of(given[i]);
        if (o->order[i] == r)
            continue;
        oracle_blame(o, o->order[i] == o->promoted ? VIOLATION_STARVED : VIOLATION_REORDERED,
                     "request %u came, it was the turn of %u", r->number, o->order[i]->number);
    }
}

void oracle_take(struct oracle *o, struct tis_request *const *given, uint32_t count, uint32_t max,
                 uint64_t now_ns)
{
    uint64_t ready_ns;
    promote(o);
    uint32_t due = batch_due(o, now_ns, &ready_ns);
    if (due > max)
        due = max;
    check_legal(o, given, count, max, now_ns);
    check_order(o, given, count);
    if (count != due)
        oracle_blame(o,
                     due == 0     ? VIOLATION_TOO_EARLY
                     : count == 0 ? VIOLATION_TOO_LATE
                                  : VIOLATION_WRONG_SIZE,
                     "%u requests were given, %u should be; %u wait", count, due, o->waiting);
    for (uint32_t i = 0; i < count && o->violation; i++) {
        if (record_of(given[i])->fate == FATE_WAITING)
            record_of(given[i])->fate = FATE_TAKEN; /* wrongly, but not lost */
    }
    if (o->violation || count == 0)
        return;

    uint32_t place = o->order[count - 1]->place;
    bool passes_over = o->order[o->waiting - 1]->place > place;
    for (uint32_t i = 0; i < count; i++)
        leave(o, o->order[0], FATE_TAKEN);
    o->passes = passes_over ? o->passes + 1 : 0;
    o->executions++;
    check_starvation(o);
}

void oracle_ready(struct oracle *o, uint64_t ready_ns, uint64_t now_ns)
{
    promote(o);
    uint64_t expected_ns = oracle_ready_ns(o, now_ns);
    if (ready_ns < now_ns)
        ready_ns = now_ns;
    if (ready_ns != expected_ns)
        oracle_blame(o, ready_ns > expected_ns ? VIOLATION_TOO_LATE : VIOLATION_TOO_EARLY,
                     "the next batch is said to be ready %.1f us after it is",
                     ((double)ready_ns - (double)expected_ns) / 1000);
}

void oracle_put_back(struct oracle *o, struct tis_request *const *requests, uint32_t count)
{
    for (uint32_t i = count; i > 0; i--) {
        struct record *r = record_of(requests[i - 1]);
        prepend(o, r);
        begin_to_wait(o, r);
    }
}

void oracle_cancel(struct oracle *o, struct record *r, bool found)
{
    if (found != (r->fate == FATE_WAITING))
        oracle_blame(o, VIOLATION_MISTAKEN, "request %u to be cancelled is said to %s", r->number,
                     found ? "wait" : "wait no longer");
    else if (found)
        leave(o, r, FATE_CANCELLED);
}

static struct record *first_due(const struct oracle *o)
{
    uint64_t expiry_ns = expiry_of_all(o);
    uint32_t at = 0;
    while (o->order[at]->deadline_ns != expiry_ns)
        at++;
    return o->order[at];
}

static bool is_among(const struct record *r, struct tis_request *const *given, uint32_t count)
{
    bool found = false;
    for (uint32_t i = 0; i < count; i++)
        found = found || given[i] == r->request;
    return found;
}

void oracle_expire(struct oracle *o, struct tis_request *const *given, uint32_t count, uint32_t max,
                   uint64_t now_ns)
{
    for (uint32_t i = 0; i < count; i++) {
        struct record *r = record_of(given[i]);
        if (r->fate != FATE_WAITING)
            oracle_blame(o, VIOLATION_ENDED, "request %u expires", r->number);
        else if (r->deadline_ns > now_ns || policy_of(o, r)->action != TIMEOUT_REJECT)
            oracle_blame(o, VIOLATION_TIMEOUT_EARLY, "request %u at level %u is refused", r->number,
                         r->level);
    }

    uint32_t refused = 0;
    while (expiry_of_all(o) <= now_ns && refused < max && !o->violation) {
        struct record *r = first_due(o);
        bool is_rejected = policy_of(o, r)->action == TIMEOUT_REJECT;
        if (is_rejected && !is_among(r, given, count))
            oracle_blame(o, VIOLATION_TIMEOUT_LATE, "request %u is not refused", r->number);
        if (!is_rejected)
            r->deadline_ns = SCHEDULER_NEVER;
        if (!is_rejected && r->place == 0)
            continue;
        leave(o, r, is_rejected ? FATE_EXPIRED : FATE_WAITING);
        refused += is_rejected;
        if (is_rejected)
            continue;
        append(o, r, 2 + 2 * r->level);
        begin_to_wait(o, r);
    }
}

void oracle_expect_expiry(struct oracle *o, uint64_t next_ns)
{
    for (uint32_t i = 0; i < o->waiting; i++) {
        const struct record *r = o->order[i];
        if (latest_expiry_ns(o, r) < next_ns && r->deadline_ns != SCHEDULER_NEVER)
            oracle_blame(o, VIOLATION_TIMEOUT_LATE,
                         "nobody looks when the time-out of request %u passes at %.3f us",
                         r->number, (double)r->deadline_ns / 1000);
    }
}

void oracle_figures(struct oracle *o, uint32_t waiting, uint64_t expiry_ns)
{
    if (waiting != o->waiting)
        oracle_blame(o, VIOLATION_MISCOUNTED, "%u are said to wait, %u do", waiting, o->waiting);
    uint64_t expected_ns = expiry_of_all(o);
    if (expiry_ns != expected_ns)
        oracle_blame(o, expiry_ns > expected_ns ? VIOLATION_TIMEOUT_LATE : VIOLATION_TIMEOUT_EARLY,
                     "the next time-out is said to be %.1f us after it is",
                     ((double)expiry_ns - (double)expected_ns) / 1000);
}
