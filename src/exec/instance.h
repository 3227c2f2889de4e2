/* exec/instance.h - an instance's start, its thread and its end (for exec/version only). */
#ifndef TIS_EXEC_INSTANCE_H
#define TIS_EXEC_INSTANCE_H

#include "exec/version.h"

/* Initialises instance `index` of v through the plug-in; the thread is not started. */
MUST_USE tis_error *instance_create(struct tis_version *v,
                                    const Inference__ModelInstanceGroup *group, const char *name,
                                    uint32_t index, TRITONSERVER_InstanceGroupKind kind,
                                    int32_t device_id, struct tis_instance **ret_instance);
MUST_USE tis_error *instance_start(struct tis_instance *i);
/* After v->closing was set and every idle instance woken. */
void instance_join(struct tis_instance *i);
/* The thread is joined, or was never started. NULL is fine. */
void instance_destroy(struct tis_instance *i);

#endif
