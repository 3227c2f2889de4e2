/* kit/ragged.h - batches of requests whose shapes differ.
 *
 * An input with allow_ragged_batch is given to the model as one flat array, the
 * elements of all requests end to end. What that array no longer tells, the model
 * learns from batch inputs, tensors that the backend makes of the requests' shapes
 * (kit_config.batch_inputs); and an output that is such a flat array is cut up by
 * the shapes of an input (kit_config.batch_outputs).
 *
 * sources are the source input of every request of the batch, in its order, each
 * with a batch dimension.
 *
 * The other way is to fill the smaller inputs up: kit_pad() and kit_cut().
 */
#ifndef KIT_RAGGED_H
#define KIT_RAGGED_H

#include "kit/config.h"
#include "kit/tensor.h"

enum {
    KIT_BATCH_INPUT_RANK_MAX = 2
};

/* The shape of a batch input. n requests, of b rows together, whose shapes have r
 * dimensions behind the batch's:
 *   ELEMENT_COUNT                        [n]
 *   ACCUMULATED_ELEMENT_COUNT            [n]
 *   ACCUMULATED_ELEMENT_COUNT_WITH_ZERO  [n + 1]
 *   MAX_ELEMENT_COUNT_AS_SHAPE           [the largest number of elements]
 *   ITEM_SHAPE                           [b, r]
 *   ITEM_SHAPE_FLATTEN                   [b * r]
 * INVALID_ARG when the sources differ in their number of dimensions. */
MUST_USE TRITONSERVER_Error *kit_batch_input_shape(const struct kit_batch_input *input,
                                                   const struct kit_input *const *sources,
                                                   uint32_t count,
                                                   int64_t ret_shape[KIT_BATCH_INPUT_RANK_MAX],
                                                   uint32_t *ret_dims_count);

/* Writes the elements of a batch input, as many as its shape says, 4 bytes each.
 * Those of MAX_ELEMENT_COUNT_AS_SHAPE are 0: only their number counts.
 * INVALID_ARG when a number does not fit the data type. */
MUST_USE TRITONSERVER_Error *kit_batch_input_fill(const struct kit_batch_input *input,
                                                  const struct kit_input *const *sources,
                                                  uint32_t count, void *data);

/* The shape of one request's part of a batch output: dims of the output, behind a
 * batch dimension; where they say -1, and for the batch, the size that source has in
 * that place. ret_shape has room for output->dims_count + 1.
 * INVALID_ARG when source has no such place. */
MUST_USE TRITONSERVER_Error *kit_batch_output_shape(const struct kit_tensor_config *output,
                                                    const struct kit_input *source,
                                                    int64_t *ret_shape);

/* Copies src to the front of every dimension of dst, which is nowhere smaller, and
 * sets the other elements of dst to the one at padding. Row-major arrays. */
void kit_pad(void *dst, const int64_t *dst_shape, const void *src, const int64_t *src_shape,
             uint32_t dims_count, size_t element_bytes, const void *padding);

/* Fills dst from the front of every dimension of src, which is nowhere smaller. */
void kit_cut(void *dst, const int64_t *dst_shape, const void *src, const int64_t *src_shape,
             uint32_t dims_count, size_t element_bytes);

#endif
