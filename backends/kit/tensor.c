#include "kit/tensor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* An address for tensors of no bytes, where NULL would read as "missing". */
static _Alignas(64) char no_bytes[64];

const char *kit_shape_text(const int64_t *shape, uint32_t dims_count,
                           char text[KIT_SHAPE_TEXT_BYTES])
{
    const size_t end_bytes = sizeof ",...]";
    size_t used = 1;

    text[0] = '[';
    for (uint32_t i = 0; i < dims_count; i++) {
        char number[24];
        int length = snprintf(number, sizeof number, "%s%" PRId64, i ? "," : "", shape[i]);

        if (used + (size_t)length + end_bytes > KIT_SHAPE_TEXT_BYTES) {
            memcpy(text + used, ",...", 4);
            used += 4;
            break;
        }
        memcpy(text + used, number, (size_t)length);
        used += (size_t)length;
    }
    text[used] = ']';
    text[used + 1] = '\0';
    return text;
}

TRITONSERVER_Error *kit_shape_count(const int64_t *shape, uint32_t dims_count, uint64_t *ret_count)
{
    uint64_t count = 1;
    char text[KIT_SHAPE_TEXT_BYTES];

    for (uint32_t i = 0; i < dims_count; i++) {
        if (shape[i] < 0 || __builtin_mul_overflow(count, (uint64_t)shape[i], &count) ||
            count > UINT64_C(1) << 60)
            return kit_error(TRITONSERVER_ERROR_INVALID_ARG, "shape %s is not possible",
                             kit_shape_text(shape, dims_count, text));
    }
    *ret_count = count;
    return NULL;
}

TRITONSERVER_Error *kit_input_open(TRITONBACKEND_Request *request, const char *name,
                                   struct kit_input *ret_input)
{
    struct kit_input input = { 0 };
    TRITONSERVER_Error *err;

    err = TRITONBACKEND_RequestInput(request, name, &input.handle);
    if (err)
        return err;
    err = TRITONBACKEND_InputProperties(input.handle, &input.name, &input.datatype, &input.shape,
                                        &input.dims_count, &input.byte_size, &input.buffer_count);
    if (err)
        return err;
    *ret_input = input;
    return NULL;
}

/* Piece number index of input, which must lie in memory that the CPU can read. */
static TRITONSERVER_Error *input_piece(const struct kit_input *input, uint32_t index,
                                       const void **ret_data, uint64_t *ret_byte_size)
{
    TRITONSERVER_MemoryType memory_type = TRITONSERVER_MEMORY_CPU;
    int64_t memory_type_id = 0;
    TRITONSERVER_Error *err;

    err = TRITONBACKEND_InputBuffer(input->handle, index, ret_data, ret_byte_size, &memory_type,
                                    &memory_type_id);
    if (err)
        return err;
    if (memory_type == TRITONSERVER_MEMORY_GPU)
        return kit_error(TRITONSERVER_ERROR_UNSUPPORTED,
                         "input '%s' is in GPU memory, expected CPU memory", input->name);
    return NULL;
}

TRITONSERVER_Error *kit_input_copy(const struct kit_input *input, void *dst)
{
    uint64_t filled = 0;

    for (uint32_t i = 0; i < input->buffer_count; i++) {
        const void *data;
        uint64_t byte_size;
        TRITONSERVER_Error *err = input_piece(input, i, &data, &byte_size);

        if (err)
            return err;
        if (byte_size > input->byte_size - filled)
            return kit_error(TRITONSERVER_ERROR_INTERNAL,
                             "input '%s' has more bytes in its buffers than the %" PRIu64
                             " it declares",
                             input->name, input->byte_size);
        if (byte_size)
            memcpy((char *)dst + filled, data, byte_size);
        filled += byte_size;
    }
    if (filled != input->byte_size)
        return kit_error(TRITONSERVER_ERROR_INTERNAL,
                         "input '%s' has %" PRIu64 " bytes in its buffers, but declares %" PRIu64,
                         input->name, filled, input->byte_size);
    return NULL;
}

TRITONSERVER_Error *kit_input_borrow(const struct kit_input *input, const void **ret_data)
{
    const void *data = NULL;
    uint64_t byte_size = 0;

    if (input->byte_size == 0) {
        *ret_data = no_bytes;
        return NULL;
    }
    if (input->buffer_count == 1) {
        TRITONSERVER_Error *err = input_piece(input, 0, &data, &byte_size);

        if (err)
            return err;
        if (byte_size != input->byte_size)
            return kit_error(TRITONSERVER_ERROR_INTERNAL,
                             "input '%s' has %" PRIu64
                             " bytes in its buffer, but declares %" PRIu64,
                             input->name, byte_size, input->byte_size);
    }
    *ret_data = data;
    return NULL;
}

TRITONSERVER_Error *kit_bytes_check(const void *data, uint64_t byte_size, uint64_t element_count)
{
    uint64_t at = 0, found = 0;

    while (at < byte_size) {
        uint32_t length; /* little-endian, as every machine this runs on */

        if (byte_size - at < sizeof length)
            break;
        memcpy(&length, (const char *)data + at, sizeof length);
        if (length > byte_size - at - sizeof length)
            break;
        at += sizeof length + length;
        found++;
    }
    if (at != byte_size)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "BYTES element %" PRIu64 " at byte %" PRIu64
                         " goes past the end of the data, %" PRIu64 " bytes",
                         found, at, byte_size);
    if (found != element_count)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "the data holds %" PRIu64 " BYTES elements, the shape %" PRIu64, found,
                         element_count);
    return NULL;
}

TRITONSERVER_Error *kit_output_open(TRITONBACKEND_Response *response, const char *name,
                                    TRITONSERVER_DataType datatype, const int64_t *shape,
                                    uint32_t dims_count, uint64_t byte_size, void **ret_data)
{
    TRITONSERVER_MemoryType memory_type = TRITONSERVER_MEMORY_CPU;
    int64_t memory_type_id = 0;
    TRITONBACKEND_Output *output;
    void *data = NULL;
    TRITONSERVER_Error *err;

    err = TRITONBACKEND_ResponseOutput(response, &output, name, datatype, shape, dims_count);
    if (err)
        return err;
    err = TRITONBACKEND_OutputBuffer(output, &data, byte_size, &memory_type, &memory_type_id);
    if (err)
        return err;
    if (memory_type == TRITONSERVER_MEMORY_GPU)
        return kit_error(TRITONSERVER_ERROR_UNSUPPORTED,
                         "output '%s' got GPU memory, expected CPU memory", name);
    *ret_data = byte_size ? data : no_bytes;
    return NULL;
}
