/* exec/batch_strategy.h - a rule of the operator's own for which requests go into one execution.
 *
 * A strategy is a shared object of its own with five entry points (at the end of include/tis/backend.h).
 * It only makes batches smaller: the scheduler gives a batch, and the strategy says of one request after
 * the other whether it shall be in it. The first one always is, or it would never run; from the first
 * refused one on they go back and are the first of the next batch.
 *
 * The library is the parameter TRITON_BATCH_STRATEGY_PATH of the model's configuration, as dlopen()
 * takes it, else the first batchstrategy.so in the version's directory, in the model's, and in the
 * backend's below the backend directory. It is never closed.
 *
 * A strategy that returns an error is told in the log, and the batch runs as it was given.
 *
 * Threads: create, destroy: a loading thread; choose: an instance's thread, one at a time for a version
 *          and under no lock.
 */
#ifndef TIS_EXEC_BATCH_STRATEGY_H
#define TIS_EXEC_BATCH_STRATEGY_H

#include "exec/version.h"

struct batch_strategy;

/* *ret_strategy is NULL when the model has none. Errors: NOT_FOUND, INVALID_ARG with what is missing;
 * what dlopen or ModelBatcherInitialize said. */
MUST_USE tis_error *batch_strategy_create(struct tis_version *v, struct backends *backends,
                                          const char *version_directory,
                                          struct batch_strategy **ret_strategy);
/* NULL is fine. */
void batch_strategy_destroy(struct batch_strategy *s);

/* How many of the first of requests[0..count), which are QUEUED, shall run in one execution: 1 to
 * count. */
uint32_t batch_strategy_choose(struct batch_strategy *s, struct tis_request *const *requests,
                               uint32_t count);

#endif
