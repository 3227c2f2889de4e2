/* exec/instance.h - one execution context of a version: what a plug-in initialises, runs and
 * finalises (for exec/version and exec/runner only).
 *
 * Threads: create, destroy: a loading thread; the rest: the thread of its runner.
 */
#ifndef TIS_EXEC_INSTANCE_H
#define TIS_EXEC_INSTANCE_H

#include "exec/version.h"

/* Describes an instance of v for a group of `config`, which it keeps; the plug-in does not know of it yet.
 *   index  that no other instance of v has */
MUST_USE tis_error *instance_create(struct tis_version *v, struct model_config *config,
                                    const Inference__ModelInstanceGroup *group, const char *name,
                                    uint32_t index, TRITONSERVER_InstanceGroupKind kind,
                                    int32_t device_id, struct tis_instance **ret_instance);
/* Finalises it through the plug-in, if it was initialised. No thread runs it. NULL is fine. */
void instance_destroy(struct tis_instance *i);

MUST_USE tis_error *instance_initialize(struct tis_instance *i);
/* Its thread has ended: waits until the plug-in is done with every request that it was given, which
 * may be long after Execute has returned. Once. */
void instance_wait_unused(struct tis_instance *i);

/* What is remembered of a request while the plug-in has it. */
struct given {
    struct tis_request *request;
    uint32_t generation;
};

/* Runs requests[0..count) in one execution; they are QUEUED and go to the plug-in, which also writes to
 * the array. given: room for count. */
void instance_execute(struct tis_instance *i, struct tis_request **requests, uint32_t count,
                      struct given *given);

#endif
