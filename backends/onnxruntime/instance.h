/* instance.h - executes batches of requests on a model's session.
 *
 * An instance is what the session lacks: memory for one execution at a time.
 *
 * Threads: one at a time.
 */
#ifndef INSTANCE_H
#define INSTANCE_H

#include "onnxruntime/model.h"

struct instance;

MUST_USE TRITONSERVER_Error *instance_create(const struct model *model,
                                             TRITONBACKEND_ModelInstance *handle,
                                             struct instance **ret_instance);

/* NULL is fine. */
void instance_destroy(struct instance *instance);

/* Answers and releases all requests, each with its outputs or its own error. An
 * error is returned only before the first of them is touched. */
MUST_USE TRITONSERVER_Error *instance_execute(struct instance *instance,
                                              TRITONBACKEND_Request **requests,
                                              uint32_t request_count);

#endif
