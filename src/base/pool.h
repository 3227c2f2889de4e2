/* base/pool.h - a few threads that run jobs which loops must not: they block, or take long.
 *
 * One pool loads and unloads models, one does the long part of large requests. Jobs are started in
 * the order they were posted; a job may post further jobs.
 *
 * Threads: pool_post(): any. create, destroy: the server's main thread.
 */
#ifndef TIS_BASE_POOL_H
#define TIS_BASE_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/list.h"

struct pool;

/* Embedded by whoever wants something done; run() may free it. */
struct pool_job {
    void (*run)(struct pool_job *job);
    struct list link; /* pool's */
};

MUST_USE tis_error *pool_create(const char *name, uint32_t thread_count, struct pool **ret_pool);
void pool_post(struct pool *p, struct pool_job *job);
/* Returns when every job has ended (true) or at deadline_ns. */
bool pool_wait_idle(struct pool *p, uint64_t deadline_ns);
/* Waits for the running jobs; jobs that wait are dropped. NULL is fine. */
void pool_destroy(struct pool *p);

#endif
