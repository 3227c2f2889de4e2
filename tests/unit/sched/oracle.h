/* The judge of the simulation: what the rules of sched/batcher.h and sched/queue.h ask for, written down
 * a second time as plainly as possible: one array of what waits, in the order to run, searched from
 * its beginning each time. It is told of each call to a scheduler and of the outcome, and keeps the
 * first rule that was broken. */
#ifndef TESTS_SCHED_ORACLE_H
#define TESTS_SCHED_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

#include "infer/request.h"
#include "sched/batcher.h"

#define VIOLATIONS(X)                                                \
    X(NONE, "none")                                                  \
    X(LOST, "a request was lost")                                    \
    X(DOUBLED, "a request was given twice")                          \
    X(ENDED, "a request was given after its end")                    \
    X(REORDERED, "requests were not given in their order")           \
    X(STARVED, "a request was passed over for too long")             \
    X(OVERSIZED, "a batch is larger than the model allows")          \
    X(UNLIKE, "a batch holds unlike requests")                       \
    X(TOO_EARLY, "a batch was given before its time")                \
    X(TOO_LATE, "a batch was not given in time")                     \
    X(WRONG_SIZE, "a batch is not the one that the rules ask for")   \
    X(TIMEOUT_EARLY, "a time-out acted that should not have")        \
    X(TIMEOUT_LATE, "a time-out did not act in time")                \
    X(REFUSED, "a request was refused although there is room")       \
    X(OVERFULL, "a request was accepted although the queue is full") \
    X(MISCOUNTED, "the number of waiting requests is wrong")         \
    X(MISTAKEN, "the scheduler does not know what waits")            \
    X(SPINNING, "the alarm rings again and again")                   \
    X(UNFINISHED, "something is left at the end")

#define VIOLATION_MEMBER(name, text) VIOLATION_##name,
enum violation {
    VIOLATIONS(VIOLATION_MEMBER) VIOLATION_COUNT
};
#undef VIOLATION_MEMBER

const char *violation_name(enum violation v);

enum fate {
    FATE_NEW,
    FATE_WAITING,
    FATE_TAKEN,
    FATE_REFUSED,
    FATE_EXPIRED,
    FATE_CANCELLED,
    FATE_DONE,
};

/* One request; request->sink->user. */
struct record {
    struct tis_request *request;
    uint32_t number; /* in the order of arrival */
    uint32_t look;   /* requests of equal looks are alike */
    enum fate fate;
    uint32_t level;
    uint32_t place; /* 0: before all others; then two for each level, fresh and delayed */
    uint64_t came_ns;
    uint64_t start_ns;         /* as its maker read the clock: a little before it came */
    uint64_t deadline_ns;      /* SCHEDULER_NEVER: none */
    uint64_t executions_first; /* when it began to wait in this place */
    uint32_t ahead;            /* that might go before it by right, then */
};

struct oracle {
    const struct batcher_options *rules;
    bool puts_back;    /* a custom strategy refuses requests */
    uint64_t slack_ns; /* by which an alarm may be late */
    struct record **order;
    uint32_t waiting;
    uint32_t passes;
    struct record *promoted; /* waits before all others, until it is taken */
    uint64_t executions;
    bool hurried;
    enum violation violation;
    char text[256];
};

/* room: for as many requests as will wait at most. */
void oracle_init(struct oracle *o, const struct batcher_options *rules, uint32_t room);
void oracle_fini(struct oracle *o);

struct record *record_of(const struct tis_request *req);

/* Keeps the first one. */
void oracle_blame(struct oracle *o, enum violation v, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Each is called after the scheduler did the same. */
void oracle_put(struct oracle *o, struct record *r, uint64_t now_ns, bool accepted);
void oracle_take(struct oracle *o, struct tis_request *const *given, uint32_t count, uint32_t max,
                 uint64_t now_ns);
void oracle_ready(struct oracle *o, uint64_t ready_ns, uint64_t now_ns);
void oracle_put_back(struct oracle *o, struct tis_request *const *requests, uint32_t count);
void oracle_cancel(struct oracle *o, struct record *r, bool found);
void oracle_expire(struct oracle *o, struct tis_request *const *given, uint32_t count, uint32_t max,
                   uint64_t now_ns);
void oracle_figures(struct oracle *o, uint32_t waiting, uint64_t expiry_ns);

/* When will a batch be ready if nothing else happens? */
uint64_t oracle_ready_ns(const struct oracle *o, uint64_t now_ns);
/* Is there a time-out that has to act before next_ns? */
void oracle_expect_expiry(struct oracle *o, uint64_t next_ns);

#endif
