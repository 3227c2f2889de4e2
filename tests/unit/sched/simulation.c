#include "simulation.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alarm.h"
#include "base/attr.h"
#include "base/clock.h"
#include "base/park.h"
#include "exec/runner.h"
#include "exec/version.h"
#include "faults.h"
#include "infer/response.h"

#define NEVER SCHEDULER_NEVER

enum {
    RINGS_AT_ONCE_MAX = 8, /* at one point in time, without a time-out */
    STEPS_MAX = 100000,
};

/* ---- Random numbers: splitmix64 ---- */

uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint32_t random_below(uint64_t *state, uint32_t bound)
{
    return bound ? (uint32_t)(random_next(state) % bound) : 0;
}

bool random_percent(uint64_t *state, uint32_t percent)
{
    return random_below(state, 100) < percent;
}

static uint64_t random_ns(uint64_t *state, uint64_t max)
{
    return max ? random_next(state) % max : 0;
}

/* ---- What plays ---- */

struct arrival {
    struct record record;
    uint64_t submit_ns;
    uint64_t wake_ns;   /* after it is submitted; then NEVER */
    uint64_t cancel_ns; /* NEVER: stays */
};

enum fake_state {
    FAKE_ASLEEP, /* in the version's list of idle runners, or just taken out of it */
    FAKE_LOOKING,
    FAKE_CHOOSING, /* has a batch, of which a custom strategy refuses a part */
    FAKE_RUNNING,
    FAKE_AWAY, /* has not come, or has left */
};

/* The thread of one instance. */
struct fake_runner {
    struct tis_runner base;
    enum fake_state state;
    uint64_t next_ns; /* when it does something; NEVER: when it is woken */
    struct tis_request **batch;
    uint32_t count;
};

/* The scheduler that exec/version sees: asks the one that is judged and tells the oracle. */
struct probe {
    struct scheduler base;
    struct scheduler *judged;
    struct oracle oracle;
};

struct simulation {
    struct settings settings;
    const struct fault *fault;
    uint64_t random;
    uint64_t now_ns;
    uint64_t clock_ns; /* what clock_gettime() says */
    struct probe probe;
    struct tis_version version;
    struct fake_runner runners[INSTANCES_MAX + 1]; /* one may come later */
    struct arrival *arrivals;
    uint32_t submitted;
    uint32_t first_open; /* all before it came, woke and are past their cancel */
    uint64_t alarm_ns;
    uint64_t hurry_ns;
    uint64_t change_ns; /* of the instance groups */
    uint64_t ready_ns;  /* since when a batch waits although an instance is idle, or will */
    uint32_t rings_at_once;
    uint32_t steps;
    bool verbose;
    struct outcome outcome;
};

static struct model_config config; /* exec/version looks whether the model is decoupled */

/* One at a time: the replaced functions know no argument to find it by. */
static struct simulation *playing;

static void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Into the digest, and to stderr when asked. */
static void note(const char *format, ...)
{
    char line[160];
    va_list arguments;
    struct simulation *sim = playing;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    for (int i = 0; i < length && i < (int)sizeof(line) - 1; i++)
        sim->outcome.digest = (sim->outcome.digest ^ (uint8_t)line[i]) * UINT64_C(0x100000001b3);
    if (sim->verbose)
        fprintf(stderr, "%12.3f us  %s\n", (double)sim->now_ns / 1000, line);
}

static struct oracle *oracle_of(struct simulation *sim)
{
    return &sim->probe.oracle;
}

/* ---- The machine: clock, alarm, sleep ---- */

int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);
void __wrap_alarm_set(struct alarm *a, uint64_t due_ns);
void __wrap_park_wake(struct park *p);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
    (void)clock;
    uint64_t now_ns = playing ? playing->clock_ns : 0;
    ts->tv_sec = (time_t)(now_ns / NS_PER_SEC);
    ts->tv_nsec = (long)(now_ns % NS_PER_SEC);
    return 0;
}

void __wrap_alarm_set(struct alarm *a, uint64_t due_ns)
{
    struct simulation *sim = playing;
    assert(a == &sim->version.alarm);
    if (sim->fault && random_percent(&sim->random, sim->fault->alarms_lost_percent))
        return;
    if (due_ns < sim->now_ns)
        due_ns = sim->now_ns;
    uint64_t rings_ns = due_ns + random_ns(&sim->random, sim->settings.late_ns_max);
    const struct tis_version *v = &sim->version;
    if (due_ns == sim->now_ns && v->scheduler->expiry_ns > sim->now_ns &&
        v->scheduler->waiting <= v->waking * v->scheduler->requests_max)
        oracle_blame(oracle_of(sim), VIOLATION_SPINNING, "it rings for what woken runners do");
    if (rings_ns < sim->alarm_ns) /* exec/version only ever sets it earlier */
        sim->alarm_ns = rings_ns;
    note("alarm set to %.3f us", (double)due_ns / 1000);
}

void __wrap_park_wake(struct park *p)
{
    struct simulation *sim = playing;
    struct fake_runner *r = CONTAINER_OF(p, struct fake_runner, base.park);
    if (r->state != FAKE_ASLEEP || r->next_ns != NEVER)
        oracle_blame(oracle_of(sim), VIOLATION_MISTAKEN, "a runner was woken that does not sleep");
    if (sim->fault && random_percent(&sim->random, sim->fault->wakes_lost_percent))
        return;
    r->next_ns = sim->now_ns + random_ns(&sim->random, sim->settings.late_ns_max);
    note("runner %u is woken", (uint32_t)(r - sim->runners));
}

/* ---- The probe ---- */

static struct probe *probe_of(struct scheduler *s)
{
    return CONTAINER_OF(s, struct probe, base);
}

static void probe_note_figures(struct probe *p)
{
    p->base.waiting = p->judged->waiting;
    p->base.expiry_ns = p->judged->expiry_ns;
    oracle_figures(&p->oracle, p->base.waiting, p->base.expiry_ns);
}

static tis_error *probe_put(struct scheduler *s, struct tis_request **taken, uint64_t now_ns)
{
    struct probe *p = probe_of(s);
    struct record *r = record_of(*taken);
    tis_error *err = p->judged->ops->put(p->judged, taken, now_ns);
    note("put %u of %u at level %u: %s", r->number, r->request->batch_size,
         (uint32_t)r->request->priority, err ? error_text(err) : "waits");
    if ((*taken == NULL) != (err == NULL))
        oracle_blame(&p->oracle, VIOLATION_MISTAKEN, "put() and *taken disagree");
    oracle_put(&p->oracle, r, now_ns, err == NULL);
    probe_note_figures(p);
    return err;
}

/* Nothing more is given after the first mistake: requests may be anywhere. */
static uint32_t probe_take(struct scheduler *s, uint32_t instance,
                           struct tis_request **ret_requests, uint32_t max, uint64_t now_ns)
{
    struct probe *p = probe_of(s);
    if (p->oracle.violation)
        return 0;
    uint32_t count = p->judged->ops->take(p->judged, instance, ret_requests, max, now_ns);
    oracle_take(&p->oracle, ret_requests, count, max, now_ns);
    note("instance %u takes %u, from %u on", instance, count,
         count ? record_of(ret_requests[0])->number : 0);
    probe_note_figures(p);
    return p->oracle.violation ? 0 : count;
}

static uint64_t probe_ready_ns(struct scheduler *s, uint64_t now_ns)
{
    struct probe *p = probe_of(s);
    if (p->oracle.violation)
        return NEVER;
    uint64_t ready_ns = p->judged->ops->ready_ns(p->judged, now_ns);
    oracle_ready(&p->oracle, ready_ns, now_ns);
    return ready_ns;
}

static void probe_put_back(struct scheduler *s, struct tis_request *const *requests, uint32_t count)
{
    struct probe *p = probe_of(s);
    p->judged->ops->put_back(p->judged, requests, count);
    oracle_put_back(&p->oracle, requests, count);
    note("put back %u, from %u on", count, record_of(requests[0])->number);
    probe_note_figures(p);
}

static bool probe_cancel(struct scheduler *s, struct tis_request *req)
{
    struct probe *p = probe_of(s);
    bool found = p->judged->ops->cancel(p->judged, req);
    note("cancel %u: %s", record_of(req)->number, found ? "waited" : "runs");
    oracle_cancel(&p->oracle, record_of(req), found);
    probe_note_figures(p);
    return found && !p->oracle.violation;
}

static uint32_t probe_expire(struct scheduler *s, uint64_t now_ns,
                             struct tis_request **ret_requests, uint32_t max)
{
    struct probe *p = probe_of(s);
    if (p->oracle.violation)
        return 0;
    uint32_t count = p->judged->ops->expire(p->judged, now_ns, ret_requests, max);
    oracle_expire(&p->oracle, ret_requests, count, max, now_ns);
    note("%u expire", count);
    probe_note_figures(p);
    return p->oracle.violation ? 0 : count;
}

static void probe_hurry(struct scheduler *s)
{
    struct probe *p = probe_of(s);
    p->judged->ops->hurry(p->judged);
    p->oracle.hurried = true;
    note("hurry");
}

static const struct scheduler_ops probe_ops = {
    .put = probe_put,
    .take = probe_take,
    .ready_ns = probe_ready_ns,
    .put_back = probe_put_back,
    .cancel = probe_cancel,
    .expire = probe_expire,
    .hurry = probe_hurry,
};

/* ---- Clients ---- */

static void on_complete(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    (void)sink, (void)flags;
    response_destroy(&response);
}

static void on_done(struct sink *sink, struct tis_request *request)
{
    struct record *r = sink->user;
    (void)request;
    if (r->fate == FATE_TAKEN)
        r->fate = FATE_DONE;
}

static const struct sink_ops client_ops = { .complete = on_complete, .done = on_done };

/* A look: three shapes, with or without an optional input, two values of a shape tensor. A ragged input
 * makes no difference. */
static void add_inputs(struct tis_request *req, uint32_t look, uint64_t *random)
{
    static const int64_t shapes[3][2] = { { 1, 2 }, { 1, 3 }, { 1, 4 } };
    static const int64_t tensor_shape[1] = { 1 };
    static const uint32_t values[2] = { 7, 8 };
    tis_error *err = request_reserve_inputs(req, 4);
    assert(!err);

    struct tis_input *in = request_add_input(req, "ragged", TRITONSERVER_TYPE_FP32,
                                             shapes[random_below(random, 3)], 2);
    in->batch_rule = BATCH_ANY_SHAPE;
    if (look / 3 % 2 == 1)
        request_add_input(req, "optional", TRITONSERVER_TYPE_FP32, shapes[0], 2);
    request_add_input(req, "usual", TRITONSERVER_TYPE_FP32, shapes[look % 3], 2);
    in = request_add_input(req, "tensor", TRITONSERVER_TYPE_INT32, tensor_shape, 1);
    in->batch_rule = BATCH_SAME_DATA;
    err = request_add_chunk(req, in, &values[look / 6 % 2], sizeof(values[0]),
                            TRITONSERVER_MEMORY_CPU, 0, NULL);
    assert(!err);
}

/* The time to the next request. */
static uint64_t gap_ns(struct simulation *sim, uint32_t number)
{
    const struct settings *s = &sim->settings;
    uint64_t service_ns = s->run_ns_max / 2 / s->instances / s->rows_at_once + 1;
    switch (s->traffic) {
    case TRAFFIC_BURSTS:
        return random_percent(&sim->random, s->pause_percent)
                   ? random_ns(&sim->random, 30 * service_ns)
                   : 0;
    case TRAFFIC_STEADY:
        return random_ns(&sim->random, 2 * service_ns);
    case TRAFFIC_SLOW:
        return random_ns(&sim->random, s->rules.delay_ns + s->run_ns_max);
    case TRAFFIC_OVERLOAD:
        return random_ns(&sim->random, service_ns / 2);
    default: /* lone: all that may happen to one request has happened */
        return number ? s->rules.delay_ns + 4 * s->run_ns_max + random_ns(&sim->random, NS_PER_MS)
                      : 0;
    }
}

static void arrivals_create(struct simulation *sim)
{
    const struct settings *s = &sim->settings;
    uint64_t at_ns = sim->now_ns + NS_PER_MS;
    sim->arrivals = calloc(s->arrivals, sizeof(*sim->arrivals));
    for (uint32_t i = 0; i < s->arrivals; i++) {
        struct arrival *a = &sim->arrivals[i];
        struct tis_request *req = request_create(&client_ops, &a->record);
        at_ns += gap_ns(sim, i);
        a->submit_ns = at_ns;
        a->wake_ns = at_ns + random_ns(&sim->random, s->split_ns_max);
        a->cancel_ns = NEVER;
        if (random_percent(&sim->random, s->cancel_percent))
            a->cancel_ns = at_ns + random_ns(&sim->random, s->rules.delay_ns + 2 * s->run_ns_max);
        if (a->cancel_ns < a->wake_ns) /* the same loop: first the one, then the other */
            a->cancel_ns = a->wake_ns;
        a->record = (struct record){ .request = req,
                                     .number = i,
                                     .look = random_below(&sim->random, s->looks) };
        if (random_percent(&sim->random, s->largest_percent))
            req->batch_size = 1 + random_below(&sim->random, s->size_max);
        req->priority = random_below(&sim->random, s->rules.level_count + 2);
        if (random_percent(&sim->random, s->timeout_percent))
            req->timeout_us = random_ns(&sim->random, 2 * s->run_ns_max) / 1000;
        add_inputs(req, a->record.look, &sim->random);
    }
    sim->hurry_ns = at_ns + 1;
    sim->change_ns = NEVER;
    if (s->changes_groups)
        sim->change_ns = sim->now_ns + random_ns(&sim->random, at_ns - sim->now_ns);
    if (s->hurries_early)
        sim->hurry_ns -= random_ns(&sim->random, (at_ns - sim->now_ns) / 4);
}

/* No two have the same number of ns in their last microsecond, so no two time-outs, which are whole
 * microseconds, pass at the same ns: then their order would be anybody's guess. */
static void submit(struct simulation *sim, struct arrival *a)
{
    struct tis_request *req = a->record.request;
    a->record.came_ns = sim->now_ns;
    sim->clock_ns = (sim->now_ns / 1000 - 1) * 1000 + a->record.number;
    tis_error *err = version_submit(&sim->version, &req);
    sim->clock_ns = sim->now_ns;
    if (err)
        a->cancel_ns = NEVER;
    error_free(err);
    a->submit_ns = NEVER;
    sim->submitted++;
}

static void cancel(struct simulation *sim, struct arrival *a)
{
    a->cancel_ns = NEVER;
    if (a->record.fate == FATE_WAITING || a->record.fate == FATE_TAKEN)
        version_cancel(&sim->version, a->record.request);
}

/* ---- Instances: what exec/runner.c does between two sleeps ---- */

static void execute(struct simulation *sim, struct fake_runner *r)
{
    for (uint32_t i = 0; i < r->count; i++) {
        bool moved = request_move(r->batch[i], REQUEST_QUEUED, REQUEST_RUNNING);
        if (!moved)
            oracle_blame(oracle_of(sim), VIOLATION_MISTAKEN, "request %u does not wait",
                         record_of(r->batch[i])->number);
    }
    sim->outcome.executions++;
    sim->outcome.requests += r->count;
    r->state = FAKE_RUNNING;
    r->next_ns = sim->now_ns + 1 + random_ns(&sim->random, sim->settings.run_ns_max);
}

static void wake_other(struct simulation *sim)
{
    struct tis_version *v = &sim->version;
    lock_take(&v->lock);
    struct tis_runner *other = version_take_idle(v);
    lock_release(&v->lock);
    if (other)
        park_wake(&other->park);
}

/* A custom strategy has gone through the batch, without the lock, and may refuse the last ones. */
static void choose(struct simulation *sim, struct fake_runner *r)
{
    struct tis_version *v = &sim->version;
    uint32_t chosen = 1 + random_below(&sim->random, r->count);
    for (uint32_t i = chosen; i < r->count; i++)
        record_of(r->batch[i])->came_ns = sim->now_ns;
    lock_take(&v->lock);
    v->choosing = false;
    if (chosen < r->count)
        v->scheduler->ops->put_back(v->scheduler, r->batch + chosen, r->count - chosen);
    struct tis_runner *other = version_take_idle(v);
    if (!other)
        version_set_alarm(v);
    lock_release(&v->lock);
    if (other)
        park_wake(&other->park);
    r->count = chosen;
    execute(sim, r);
}

static void fall_asleep(struct simulation *sim, struct fake_runner *r)
{
    struct tis_version *v = &sim->version;
    r->state = FAKE_ASLEEP;
    r->next_ns = NEVER;
    r->base.idle_next = v->idle;
    v->idle = &r->base;
    version_set_alarm(v);
}

/* What it may have been woken for is for another. */
static void leave(struct simulation *sim, struct fake_runner *r)
{
    struct tis_version *v = &sim->version;
    wake_other(sim);
    lock_take(&v->lock);
    version_set_alarm(v);
    lock_release(&v->lock);
    r->state = FAKE_AWAY;
    r->next_ns = NEVER;
}

/* run_all() and run_next(). */
static void look(struct simulation *sim, struct fake_runner *r)
{
    struct tis_version *v = &sim->version;
    struct scheduler *s = v->scheduler;
    uint32_t index = (uint32_t)(r - sim->runners);
    lock_take(&v->lock);
    if (r->state == FAKE_ASLEEP)
        v->waking--;
    r->state = FAKE_LOOKING;
    r->count = 0;
    if (!r->base.is_leaving && !version_is_held(v))
        r->count = s->ops->take(s, index, r->batch, s->requests_max, sim->clock_ns);
    if (r->count > 0 && sim->settings.put_back)
        v->choosing = true;
    if (r->count == 0 && !r->base.is_leaving)
        fall_asleep(sim, r);
    lock_release(&v->lock);

    if (r->base.is_leaving) {
        leave(sim, r);
    } else if (r->count > 0 && sim->settings.put_back) {
        r->state = FAKE_CHOOSING;
        r->next_ns = sim->now_ns + random_ns(&sim->random, sim->settings.split_ns_max);
    } else if (r->count > 0) {
        wake_other(sim);
        execute(sim, r);
    }
}

static void finish(struct simulation *sim, struct fake_runner *r)
{
    for (uint32_t i = 0; i < r->count; i++) {
        struct tis_request *req = r->batch[i];
        bool sent = sink_send(req->sink, NULL, TRITONSERVER_RESPONSE_COMPLETE_FINAL);
        bool released = request_release(req, REQUEST_RUNNING);
        if (!sent || !released)
            oracle_blame(oracle_of(sim), VIOLATION_MISTAKEN, "request %u does not run",
                         record_of(req)->number);
    }
    look(sim, r);
}

static void runner_step(struct simulation *sim, struct fake_runner *r)
{
    if (r->state == FAKE_CHOOSING)
        choose(sim, r);
    else if (r->state == FAKE_RUNNING)
        finish(sim, r);
    else
        look(sim, r);
}

/* What waits is given out, without delay. */
static void hurry_scheduler(struct simulation *sim)
{
    struct tis_version *v = &sim->version;
    lock_take(&v->lock);
    v->scheduler->ops->hurry(v->scheduler);
    lock_release(&v->lock);
    wake_other(sim);
    sim->hurry_ns = NEVER;
}

/* The instance groups change: one more comes, then the first one leaves. */
static void change_groups(struct simulation *sim)
{
    struct fake_runner *r = &sim->runners[sim->settings.instances];
    r->state = FAKE_LOOKING;
    r->next_ns = sim->now_ns + random_ns(&sim->random, sim->settings.run_ns_max);
    note("runner 0 leaves");
    runner_leave(&sim->runners[0].base);
    sim->change_ns = NEVER;
}

static void ring(struct simulation *sim)
{
    sim->alarm_ns = NEVER;
    sim->outcome.rings++;
    if (sim->probe.base.expiry_ns > sim->now_ns && ++sim->rings_at_once > RINGS_AT_ONCE_MAX)
        oracle_blame(oracle_of(sim), VIOLATION_SPINNING, "%u times at once", sim->rings_at_once);
    note("alarm");
    version_ring(&sim->version.alarm, sim->now_ns);
}

/* ---- What comes next ---- */

struct event {
    enum event_kind {
        EVENT_NONE,
        EVENT_RING,
        EVENT_RUNNER,
        EVENT_SUBMIT,
        EVENT_WAKE,
        EVENT_CANCEL,
        EVENT_CHANGE,
        EVENT_HURRY,
    } kind;
    uint64_t at_ns;
    uint32_t index;
};

static void consider(struct event *first, enum event_kind kind, uint64_t at_ns, uint32_t index)
{
    if (at_ns < first->at_ns)
        *first = (struct event){ kind, at_ns, index };
}

/* Of those at the same time the alarm is first, so that time-outs act exactly at theirs. */
static struct event next_event(struct simulation *sim)
{
    struct event first = { .at_ns = NEVER };
    consider(&first, EVENT_RING, sim->alarm_ns, 0);
    for (uint32_t i = 0; i <= sim->settings.instances; i++)
        consider(&first, EVENT_RUNNER, sim->runners[i].next_ns, i);
    for (uint32_t i = sim->first_open; i < sim->submitted; i++) {
        struct arrival *a = &sim->arrivals[i];
        consider(&first, EVENT_WAKE, a->wake_ns, i);
        consider(&first, EVENT_CANCEL, a->cancel_ns, i);
        if (i == sim->first_open && a->wake_ns == NEVER && a->cancel_ns == NEVER)
            sim->first_open++;
    }
    if (sim->submitted < sim->settings.arrivals)
        consider(&first, EVENT_SUBMIT, sim->arrivals[sim->submitted].submit_ns, sim->submitted);
    consider(&first, EVENT_CHANGE, sim->change_ns, 0);
    consider(&first, EVENT_HURRY, sim->hurry_ns, 0);
    return first;
}

/* Nothing happens before next_ns: will anything be late by then? */
static void check_silence(struct simulation *sim, uint64_t next_ns)
{
    struct oracle *o = oracle_of(sim);
    oracle_expect_expiry(o, next_ns);

    bool is_idle = false;
    bool is_awake = sim->version.choosing; /* nobody else may look */
    for (uint32_t i = 0; i <= sim->settings.instances; i++) {
        is_idle = is_idle || sim->runners[i].state == FAKE_ASLEEP;
        is_awake =
            is_awake || (sim->runners[i].state == FAKE_ASLEEP && sim->runners[i].next_ns != NEVER);
    }
    bool wakes_later = false;
    for (uint32_t i = sim->first_open; i < sim->submitted; i++)
        wakes_later = wakes_later || sim->arrivals[i].wake_ns != NEVER;
    uint64_t ready_ns = oracle_ready_ns(o, sim->now_ns);
    if (!is_idle || is_awake || wakes_later || ready_ns == NEVER) {
        sim->ready_ns = NEVER;
        return;
    }
    if (ready_ns < sim->ready_ns || ready_ns > sim->now_ns)
        sim->ready_ns = ready_ns;
    if (sim->ready_ns + o->slack_ns < next_ns)
        oracle_blame(o, VIOLATION_TOO_LATE,
                     "an instance sleeps and nobody looks when a batch is ready at %.3f us",
                     (double)ready_ns / 1000);
}

static void step(struct simulation *sim, const struct event *e)
{
    if (e->at_ns > sim->now_ns)
        sim->rings_at_once = 0;
    if (e->at_ns > sim->now_ns)
        sim->now_ns = e->at_ns;
    sim->clock_ns = sim->now_ns;
    switch (e->kind) {
    case EVENT_RING:
        ring(sim);
        break;
    case EVENT_RUNNER:
        runner_step(sim, &sim->runners[e->index]);
        break;
    case EVENT_SUBMIT:
        submit(sim, &sim->arrivals[e->index]);
        break;
    case EVENT_WAKE:
        sim->arrivals[e->index].wake_ns = NEVER;
        version_wake(&sim->version);
        break;
    case EVENT_CANCEL:
        cancel(sim, &sim->arrivals[e->index]);
        break;
    case EVENT_CHANGE:
        change_groups(sim);
        break;
    default:
        hurry_scheduler(sim);
    }
}

static void check_end(struct simulation *sim)
{
    struct oracle *o = oracle_of(sim);
    for (uint32_t i = 0; i < sim->settings.arrivals; i++) {
        const struct record *r = &sim->arrivals[i].record;
        if (r->fate == FATE_NEW || r->fate == FATE_WAITING || r->fate == FATE_TAKEN)
            oracle_blame(o, VIOLATION_UNFINISHED, "request %u has no end", r->number);
    }
    for (uint32_t i = 0; i <= sim->settings.instances; i++) {
        if (sim->runners[i].state != FAKE_AWAY)
            oracle_blame(o, VIOLATION_UNFINISHED, "runner %u has not left", i);
    }
    if (sim->version.waking != 0 || sim->version.idle)
        oracle_blame(o, VIOLATION_UNFINISHED, "%u runners are still waking", sim->version.waking);
}

/* After a mistake: is everything that waits still there? */
static void look_for_lost(struct simulation *sim)
{
    struct oracle *o = oracle_of(sim);
    struct scheduler *s = sim->probe.judged;
    struct tis_request *given[ARRIVALS_MAX];
    if (o->violation != VIOLATION_TOO_LATE && o->violation != VIOLATION_WRONG_SIZE &&
        o->violation != VIOLATION_REORDERED && o->violation != VIOLATION_MISCOUNTED &&
        o->violation != VIOLATION_UNFINISHED)
        return;
    s->ops->hurry(s);
    for (uint32_t round = 0; round < 2 * ARRIVALS_MAX; round++) {
        uint32_t count = s->ops->take(s, 0, given, s->requests_max, NEVER / 2);
        for (uint32_t i = 0; i < count; i++)
            record_of(given[i])->fate = FATE_DONE;
    }
    for (uint32_t i = 0; i < o->waiting; i++) {
        if (o->order[i]->fate != FATE_WAITING)
            continue;
        o->violation = VIOLATION_NONE;
        oracle_blame(o, VIOLATION_LOST, "request %u waits and is never given", o->order[i]->number);
    }
}

/* ---- The scenario ---- */

static void settings_draw_policy(struct queue_policy *p, uint64_t *random)
{
    if (random_percent(random, 50)) {
        p->action = random_percent(random, 50) ? TIMEOUT_REJECT : TIMEOUT_DELAY;
        p->timeout_ns = random_percent(random, 70) ? random_below(random, 10000) * 1000 : 0;
        p->timeout_override = random_percent(random, 50);
    }
    if (random_percent(random, 30))
        p->requests_max = 1 + random_below(random, 20);
}

static void settings_draw(struct settings *s, uint64_t *random)
{
    static const uint64_t delays_ns[] = { 0, 1000, 100000, 1000000, 5000000, 5000000 };
    static const uint64_t runs_ns[] = { 20000, 300000, 3000000 };
    static const uint32_t batch_sizes[] = { 1, 2, 4, 8, 8, 16 };
    static const enum traffic traffics[] = {
        TRAFFIC_BURSTS, TRAFFIC_BURSTS,   TRAFFIC_BURSTS,   TRAFFIC_STEADY,   TRAFFIC_STEADY,
        TRAFFIC_SLOW,   TRAFFIC_OVERLOAD, TRAFFIC_OVERLOAD, TRAFFIC_OVERLOAD, TRAFFIC_LONE,
    };
    struct batcher_options *rules = &s->rules;
    bool is_dynamic = random_percent(random, 85);
    rules->batch_size_max = batch_sizes[random_below(random, ARRAY_LEN(batch_sizes))];
    rules->requests_max = is_dynamic ? rules->batch_size_max : 1;
    if (is_dynamic && random_percent(random, 5)) /* as for BATCH_REQUESTS_MAX */
        rules->requests_max = 1 + rules->batch_size_max / 2;
    rules->level_count = random_percent(random, 40) ? 1 : 2 + random_below(random, 4);
    if (random_percent(random, 5))
        rules->level_count = LEVELS_MAX;
    rules->level_default = random_below(random, rules->level_count);
    rules->compares_inputs = random_percent(random, 30);
    if (is_dynamic && random_percent(random, 70)) {
        rules->delay_ns = delays_ns[random_below(random, ARRAY_LEN(delays_ns))];
        rules->preferred_count = random_below(random, PREFERRED_MAX + 1);
    }
    for (uint32_t i = 0; i < rules->preferred_count; i++)
        s->preferred[i] = 1 + (int32_t)random_below(random, rules->batch_size_max);
    if (random_percent(random, 50)) /* and smaller ones on the way to it */
        s->preferred[0] = (int32_t)rules->batch_size_max;
    for (uint32_t i = 0; i < rules->level_count; i++)
        settings_draw_policy(&s->policies[i], random);

    s->instances = random_percent(random, 50) ? 1 : 1 + random_below(random, INSTANCES_MAX);
    s->run_ns_max = runs_ns[random_below(random, ARRAY_LEN(runs_ns))];
    s->late_ns_max = random_percent(random, 50) ? 0 : 40000;
    s->split_ns_max = random_percent(random, 50) ? 0 : 20000;
    s->put_back = is_dynamic && random_percent(random, 20);
    s->size_max =
        random_percent(random, 50) ? rules->batch_size_max : (rules->batch_size_max + 2) / 3;
    s->rows_at_once = 1 + random_below(random, rules->batch_size_max);
    s->traffic = traffics[random_below(random, ARRAY_LEN(traffics))];
    s->arrivals = 20 + random_below(random, ARRIVALS_MAX - 20);
    s->looks =
        rules->compares_inputs ? 1 + random_below(random, random_percent(random, 50) ? 2 : 12) : 1;
    s->pause_percent = random_percent(random, 30) ? 1 : 10;
    s->cancel_percent = random_percent(random, 40) ? 10 + random_below(random, 50) : 0;
    s->timeout_percent = random_percent(random, 50) ? 30 : 0;
    s->largest_percent = rules->batch_size_max > 1 ? random_below(random, 3) * 30 : 0;
    s->changes_groups = random_percent(random, 20);
    s->hurries_early = random_percent(random, 20);
}

static void note_settings(const struct settings *s)
{
    const struct batcher_options *rules = &s->rules;
    note("batches up to %u, %u requests; delay %u us; %s; %u levels, default %u; %u instances",
         rules->batch_size_max, rules->requests_max, (uint32_t)(rules->delay_ns / 1000),
         rules->compares_inputs ? "compared" : "all alike", rules->level_count,
         rules->level_default, s->instances);
    for (uint32_t i = 0; i < rules->preferred_count; i++)
        note("preferred %d", rules->preferred[i]);
    for (uint32_t i = 0; i < rules->level_count; i++)
        note("level %u: %s after %u us%s; up to %u", i + 1,
             s->policies[i].action == TIMEOUT_DELAY ? "delay" : "reject",
             (uint32_t)(s->policies[i].timeout_ns / 1000),
             s->policies[i].timeout_override ? " or less" : "", s->policies[i].requests_max);
}

static struct scheduler *judged_create(struct simulation *sim, uint64_t seed)
{
    struct batcher_options rules = sim->settings.rules;
    struct queue_policy policies[LEVELS_MAX];
    struct scheduler *batcher;
    memcpy(policies, sim->settings.policies, sizeof(policies));
    rules.policies = policies;
    if (sim->fault && sim->fault->misread)
        sim->fault->misread(&rules, policies);
    tis_error *err = batcher_create(&rules, &batcher);
    assert(!err);
    return sim->fault ? faulty_create(sim->fault, batcher, seed) : batcher;
}

static struct simulation *simulation_create(uint64_t seed, const struct fault *fault, bool verbose)
{
    struct simulation *sim = calloc(1, sizeof(*sim));
    struct settings *s = &sim->settings;
    playing = sim;
    sim->fault = fault;
    sim->verbose = verbose;
    sim->random = seed;
    sim->now_ns = sim->clock_ns = NS_PER_SEC + random_below(&sim->random, 1000000);
    sim->alarm_ns = sim->ready_ns = NEVER;
    settings_draw(s, &sim->random);
    if (fault && fault->shape)
        fault->shape(s);
    s->rules.policies = s->policies;
    s->rules.preferred = s->preferred;

    struct probe *p = &sim->probe;
    p->judged = judged_create(sim, seed);
    oracle_init(&p->oracle, &s->rules, s->arrivals + 1);
    p->oracle.slack_ns = s->late_ns_max;
    p->oracle.puts_back = s->put_back;
    p->base = (struct scheduler){ .ops = &probe_ops,
                                  .requests_max = p->judged->requests_max,
                                  .expiry_ns = NEVER };

    struct tis_version *v = &sim->version;
    atomic_init(&v->refs, 1);
    lock_init(&v->lock, LOCK_VERSION);
    v->config = &config;
    v->alarm_ns = NEVER;
    v->scheduler = &p->base;
    statistics_init(&v->statistics);
    for (uint32_t i = 0; i <= s->instances; i++) {
        struct fake_runner *r = &sim->runners[i];
        r->base.version = v;
        r->state = i < s->instances ? FAKE_LOOKING : FAKE_AWAY;
        r->next_ns = i < s->instances ? sim->now_ns : NEVER;
        r->batch = calloc(p->base.requests_max + 1, sizeof(*r->batch));
    }
    note_settings(s);
    arrivals_create(sim);
    return sim;
}

static void simulation_destroy(struct simulation *sim)
{
    struct scheduler *judged = sim->probe.judged;
    struct scheduler *batcher = sim->fault ? faulty_batcher(judged) : judged;
    struct tis_request *given[ARRIVALS_MAX];
    batcher->ops->hurry(batcher); /* after a mistake it may hold some */
    while (batcher->ops->take(batcher, 0, given, batcher->requests_max, NEVER / 2) > 0)
        continue;
    judged->ops->destroy(judged);

    for (uint32_t i = 0; i < sim->settings.arrivals; i++) {
        struct tis_request *req = sim->arrivals[i].record.request;
        if (atomic_load(&req->state) != REQUEST_RELEASED)
            atomic_store(&req->state, REQUEST_NEW);
        request_free(&req);
    }
    if (atomic_load(&sim->version.refs) != 1)
        oracle_blame(oracle_of(sim), VIOLATION_UNFINISHED, "%u references to the version are left",
                     atomic_load(&sim->version.refs) - 1);
    for (uint32_t i = 0; i <= sim->settings.instances; i++)
        free(sim->runners[i].batch);
    statistics_fini(&sim->version.statistics);
    lock_fini(&sim->version.lock);
    free(sim->arrivals);
    oracle_fini(oracle_of(sim));
}

/* All runners leave; they are idle. */
static void leave_all(struct simulation *sim)
{
    for (uint32_t i = 0; i <= sim->settings.instances; i++) {
        if (sim->runners[i].state != FAKE_AWAY)
            runner_leave(&sim->runners[i].base);
    }
}

/* Until a rule is broken, or nothing is left to happen. */
static void play_on(struct simulation *sim)
{
    struct oracle *o = oracle_of(sim);
    while (!o->violation) {
        struct event e = next_event(sim);
        check_silence(sim, e.at_ns);
        if (++sim->steps == STEPS_MAX)
            oracle_blame(o, VIOLATION_SPINNING, "no end after %u steps", sim->steps);
        if (o->violation || e.kind == EVENT_NONE)
            break;
        step(sim, &e);
    }
}

void simulation_play(uint64_t seed, const struct fault *fault, bool verbose,
                     struct outcome *ret_outcome)
{
    struct simulation *sim = simulation_create(seed, fault, verbose);
    struct oracle *o = oracle_of(sim);
    play_on(sim);
    if (!o->violation)
        leave_all(sim);
    play_on(sim);
    if (!o->violation)
        check_end(sim);
    look_for_lost(sim);
    if (o->violation)
        note("%s: %s", violation_name(o->violation), o->text);
    simulation_destroy(sim);

    sim->outcome.violation = o->violation;
    memcpy(sim->outcome.text, o->text, sizeof(sim->outcome.text));
    *ret_outcome = sim->outcome;
    free(sim);
    playing = NULL;
}
