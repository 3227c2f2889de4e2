/* kit/tensor.h - shapes, the inputs of a request, the outputs of a response.
 *
 * Inputs are lent by the server in one or more pieces at any address and stay
 * valid until their request is released; outputs are written to memory that the
 * response's owner provides. The kit deals with CPU memory and refuses the rest.
 */
#ifndef KIT_TENSOR_H
#define KIT_TENSOR_H

#include "kit/error.h"

/* Room for kit_shape_text(): "[1,2,3]"; longer shapes end in "...]". */
enum {
    KIT_SHAPE_TEXT_BYTES = 128
};

/* An input as the server lends it; fill in with kit_input_open(). */
struct kit_input {
    TRITONBACKEND_Input *handle;
    const char *name;
    TRITONSERVER_DataType datatype;
    const int64_t *shape; /* with the batch dimension, if the model has one */
    uint32_t dims_count;
    uint32_t buffer_count;
    uint64_t byte_size;
};

/* Writes shape as text into text, and returns it. */
const char *kit_shape_text(const int64_t *shape, uint32_t dims_count,
                           char text[KIT_SHAPE_TEXT_BYTES]);

/* The number of elements. INVALID_ARG when a size is negative or the product is
 * over 2^60 (a byte size from it could overflow). */
MUST_USE TRITONSERVER_Error *kit_shape_count(const int64_t *shape, uint32_t dims_count,
                                             uint64_t *ret_count);

/* INVALID_ARG when the request has no input of that name. */
MUST_USE TRITONSERVER_Error *kit_input_open(TRITONBACKEND_Request *request, const char *name,
                                            struct kit_input *ret_input);

/* Copies the whole input to dst, byte_size bytes. */
MUST_USE TRITONSERVER_Error *kit_input_copy(const struct kit_input *input, void *dst);

/* The input's own memory where it is one piece, else NULL: then copy it. */
MUST_USE TRITONSERVER_Error *kit_input_borrow(const struct kit_input *input, const void **ret_data);

/* Checks that the byte_size bytes at data are element_count BYTES elements. */
MUST_USE TRITONSERVER_Error *kit_bytes_check(const void *data, uint64_t byte_size,
                                             uint64_t element_count);

/* Adds an output to response and gets its memory, byte_size bytes to be filled.
 * *ret_data is never NULL. */
MUST_USE TRITONSERVER_Error *kit_output_open(TRITONBACKEND_Response *response, const char *name,
                                             TRITONSERVER_DataType datatype, const int64_t *shape,
                                             uint32_t dims_count, uint64_t byte_size,
                                             void **ret_data);

#endif
