/* api/classify.h - the classification extension: the k largest values of a tensor with their labels.
 *
 * Threads: any.
 */
#ifndef TIS_API_CLASSIFY_H
#define TIS_API_CLASSIFY_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "infer/response.h"

/* The k largest of values[0..count) of the type, best first, equal ones by index: their indices in
 * ret_indices[0..min(k, count)). Arena: scratch memory. Errors: CLASS_TYPE for types without an
 * order (BOOL, FP16, BF16, BYTES). */
MUST_USE tis_error *classify(const struct tis_output *output, const void *values, size_t count,
                             size_t k, struct arena *arena, uint32_t **ret_indices,
                             size_t *ret_count);

/* The value as text: integers plainly, floats with six decimals (v2). */
void classify_append_value(struct bytes *out, TRITONSERVER_DataType type, const void *values,
                           uint32_t index);
/* The value as a float (v1). */
float classify_value(TRITONSERVER_DataType type, const void *values, uint32_t index);

#endif
