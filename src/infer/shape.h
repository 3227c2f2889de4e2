/* infer/shape.h - arithmetic on tensor shapes.
 *
 * A shape is `rank` int64_t; -1 means any size in a configuration and never occurs in a request.
 * Rank 0 is a scalar: one element.
 */
#ifndef TIS_INFER_SHAPE_H
#define TIS_INFER_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/bytes.h"

enum {
    SHAPE_RANK_MAX = 64
};

/* Product of the dimensions; false when one is negative or the product overflows. */
MUST_USE bool shape_count(const int64_t *shape, uint32_t rank, uint64_t *ret_count);
/* Product times bytes per element, likewise. */
MUST_USE bool shape_bytes(const int64_t *shape, uint32_t rank, uint32_t element_bytes,
                          uint64_t *ret_bytes);
/* Does `shape` fit `pattern`, whose -1 fit any size? */
bool shape_matches(const int64_t *pattern, uint32_t pattern_rank, const int64_t *shape,
                   uint32_t rank);
/* Writes `shape`, which fits the pattern `from`, as the pattern `to`: the sizes of from's -1 become, in
 * order, those of to's. ret_shape has to_rank elements. */
void shape_convert(const int64_t *from, uint32_t from_rank, const int64_t *to, uint32_t to_rank,
                   const int64_t *shape, int64_t *ret_shape);
bool shape_is_fixed(const int64_t *shape, uint32_t rank);
/* "[2,-1,4]" */
void shape_append(struct bytes *out, const int64_t *shape, uint32_t rank);

#endif
