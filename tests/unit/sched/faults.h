/* Mistakes that the simulation has to find. A faulty scheduler stands before a batcher and does all as it
 * does, but for one function. */
#ifndef TESTS_SCHED_FAULTS_H
#define TESTS_SCHED_FAULTS_H

#include "simulation.h"

struct faulty {
    struct scheduler base;
    struct scheduler_ops ops;
    struct scheduler *batcher;
    uint64_t random;
    int64_t hidden; /* added to the number that waits */
    uint64_t expiry_late_ns;
    struct tis_request *kept; /* what the fault remembers */
    struct list held;
};

/* Takes the batcher. */
struct scheduler *faulty_create(const struct fault *fault, struct scheduler *batcher,
                                uint64_t seed);
void faulty_destroy(struct scheduler *s);
/* The batcher behind it. */
struct scheduler *faulty_batcher(struct scheduler *s);

extern const struct fault planted_faults[];
extern const size_t planted_fault_count;

#endif
