/* tests/fuzz/model.h - a model with an input of each kind, for targets that decode requests for it. */
#ifndef TIS_TESTS_FUZZ_MODEL_H
#define TIS_TESTS_FUZZ_MODEL_H

#include <stdbool.h>
#include <stddef.h>

#include "api/call.h"
#include "model/validate.h"

/* Ends the program otherwise. */
void must(bool condition);

/* max_batch_size 4; one input is required, the others are not. */
extern const char model_text[];
struct model_config *model_config_create(const char *text);

/* Decodes a request for the model by decode(call), which fills call->request; checks that what is
 * accepted is consistent and that a refusal has words. `call` holds what decode() needs. */
void model_try(struct model_config *config, struct call *call,
               tis_error *(*decode)(struct call *call));

/* A copy on the heap without spare bytes: reading behind it is found. */
char *exact_copy(const void *data, size_t len);

#endif
