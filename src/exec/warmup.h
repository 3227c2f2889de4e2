/* exec/warmup.h - the requests of model_warmup, run before an instance is ready (for exec/runner only).
 *
 * A sample of batch size b is one execution of b requests of one row, as in Triton: the same b for each
 * of its `count` executions. Their data is made once for an instance: zeros, numbers from a fixed seed,
 * or a file of the model's directory `warmup`. The requests are checked as a client's are, and do
 * not count: while an instance is `warming`, nothing that its backend reports reaches the statistics.
 *
 * A backend that never answers keeps the model from becoming ready, as a client's request would keep
 * it from being unloaded: memory that a plug-in still uses cannot be taken from it. The log says so again
 * and again. When the server ends, the requests are marked cancelled, no further ones are run, and the exit
 * timeout ends the wait.
 *
 * Threads: that of the instance's runner; answers come from any.
 */
#ifndef TIS_EXEC_WARMUP_H
#define TIS_EXEC_WARMUP_H

#include "exec/instance.h"

/* Errors: what the backend answered, or what is wrong with the data; the sample and the instance are
 * named. Every request has come back then. */
MUST_USE tis_error *warmup_run(struct tis_instance *i);

#endif
