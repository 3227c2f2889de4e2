/* Plays scenarios: a model with random settings and random traffic, from one seed. The clock is a number,
 * instances are entries of an array, and the one thread takes what comes next in time. exec/version.c
 * is the real one; its clock, its alarm and the sleep of its runners are replaced (--wrap in
 * tests/meson.build). Each call to the scheduler goes by the oracle. */
#ifndef TESTS_SCHED_SIMULATION_H
#define TESTS_SCHED_SIMULATION_H

#include "oracle.h"

enum {
    LEVELS_MAX = 70, /* more than two words of the queue's bit set */
    PREFERRED_MAX = 3,
    INSTANCES_MAX = 4,
    ARRIVALS_MAX = 200,
};

enum traffic {
    TRAFFIC_BURSTS,
    TRAFFIC_STEADY,
    TRAFFIC_SLOW, /* a few within a delay */
    TRAFFIC_OVERLOAD,
    TRAFFIC_LONE, /* a client that waits for its answer */
    TRAFFIC_COUNT,
};

/* The model, its clients and its machine. */
struct settings {
    struct batcher_options rules;
    struct queue_policy policies[LEVELS_MAX];
    int32_t preferred[PREFERRED_MAX];
    uint32_t instances;
    uint64_t run_ns_max;
    uint64_t late_ns_max;  /* of an alarm, and of a thread that is woken */
    uint64_t split_ns_max; /* between the submission of a request and its wake */
    bool put_back;         /* a custom strategy refuses parts of batches */
    enum traffic traffic;
    uint32_t size_max;      /* rows of a request */
    uint32_t rows_at_once;  /* that an execution has to run, for the instances to keep up */
    uint32_t pause_percent; /* after a request of a burst */
    uint32_t arrivals;
    uint32_t looks;
    uint32_t cancel_percent;
    uint32_t timeout_percent; /* of requests with a time-out of their own */
    uint32_t largest_percent; /* of requests of more than one row */
    bool changes_groups;
    bool hurries_early; /* while requests wait */
};

/* A mistake that is put between the simulation and the batcher, or into the machine. */
struct fault {
    const char *name;
    enum violation found_as;
    /* Settings under which it shows. May be NULL. */
    void (*shape)(struct settings *s);
    /* The batcher is created with other rules. May be NULL. */
    void (*misread)(struct batcher_options *rules, struct queue_policy *policies);
    /* Functions that replace the batcher's. */
    struct scheduler_ops ops;
    uint64_t expiry_late_ns;
    uint32_t wakes_lost_percent;
    uint32_t alarms_lost_percent;
};

struct outcome {
    enum violation violation;
    char text[256];
    uint64_t digest; /* of all that happened */
    uint64_t executions;
    uint64_t requests; /* that were run */
    uint64_t rings;
};

/* fault: NULL for none. Prints each event to stderr when `verbose`. */
void simulation_play(uint64_t seed, const struct fault *fault, bool verbose,
                     struct outcome *ret_outcome);

/* From one state to the next: numbers that are the same everywhere. */
uint64_t random_next(uint64_t *state);
uint32_t random_below(uint64_t *state, uint32_t bound);
bool random_percent(uint64_t *state, uint32_t percent);

#endif
