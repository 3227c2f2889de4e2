/* model/validate.h - checks a request against the configuration of the version it is for.
 *
 * After it a backend may trust: every input is in the configuration, every required one is there,
 * types, shapes and sizes fit, strings are whole. It also completes the request: batch size, the
 * outputs when the client named none, reshapes.
 */
#ifndef TIS_MODEL_VALIDATE_H
#define TIS_MODEL_VALIDATE_H

#include "base/error.h"
#include "config/config.h"
#include "infer/request.h"

/* req is NEW; its inputs' shapes include the batch dimension for models that batch. Errors are
 * reasons (infer/reason.h). model: the name to say in errors. */
MUST_USE tis_error *request_validate(struct tis_request *req, const struct model_config *config,
                                     const char *model);

#endif
