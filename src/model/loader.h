/* model/loader.h - the threads that load and unload models.
 *
 * Jobs are started in the order they were posted, a few at a time; a job may post further jobs.
 *
 * Threads: loader_post(): any. create, destroy: the server's main thread.
 */
#ifndef TIS_MODEL_LOADER_H
#define TIS_MODEL_LOADER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/list.h"

struct loader;

/* Embedded by whoever wants something done; run() may free it. */
struct loader_job {
    void (*run)(struct loader_job *job);
    struct list link; /* loader's */
};

MUST_USE tis_error *loader_create(uint32_t thread_count, struct loader **ret_loader);
void loader_post(struct loader *l, struct loader_job *job);
/* Returns when every job has ended (true) or at deadline_ns. */
bool loader_wait_idle(struct loader *l, uint64_t deadline_ns);
/* Waits for the running jobs; jobs that wait are dropped. NULL is fine. */
void loader_destroy(struct loader *l);

#endif
