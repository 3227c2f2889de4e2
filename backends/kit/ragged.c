#include "kit/ragged.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static TRITONSERVER_Error *count_elements(const struct kit_input *source, uint64_t *ret_count)
{
    TRITONSERVER_Error *err = kit_shape_count(source->shape, source->dims_count, ret_count);

    return err ? kit_error_wrap(err, "input '%s'", source->name) : NULL;
}

/* ---- Shapes ---- */

static TRITONSERVER_Error *largest_count(const struct kit_input *const *sources, uint32_t count,
                                         int64_t *ret_largest)
{
    uint64_t largest = 0, elements = 0;

    for (uint32_t i = 0; i < count; i++) {
        TRITONSERVER_Error *err = count_elements(sources[i], &elements);

        if (err)
            return err;
        if (elements > largest)
            largest = elements;
    }
    *ret_largest = (int64_t)largest;
    return NULL;
}

/* The rows of all sources, and the dimensions of one. */
static TRITONSERVER_Error *count_rows(const struct kit_input *const *sources, uint32_t count,
                                      int64_t *ret_rows, int64_t *ret_dims)
{
    int64_t rows = 0;

    for (uint32_t i = 0; i < count; i++) {
        char text[KIT_SHAPE_TEXT_BYTES];

        if (sources[i]->dims_count == 0 || sources[i]->dims_count != sources[0]->dims_count ||
            sources[i]->shape[0] < 0 || __builtin_add_overflow(rows, sources[i]->shape[0], &rows))
            return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                             "input '%s' has shape %s, expected a batch and the %" PRIu32
                             " dimensions of the batch's first request",
                             sources[i]->name,
                             kit_shape_text(sources[i]->shape, sources[i]->dims_count, text),
                             sources[0]->dims_count);
    }
    *ret_rows = rows;
    *ret_dims = count ? (int64_t)sources[0]->dims_count - 1 : 0;
    return NULL;
}

TRITONSERVER_Error *kit_batch_input_shape(const struct kit_batch_input *input,
                                          const struct kit_input *const *sources, uint32_t count,
                                          int64_t ret_shape[KIT_BATCH_INPUT_RANK_MAX],
                                          uint32_t *ret_dims_count)
{
    int64_t shape[KIT_BATCH_INPUT_RANK_MAX] = { count, 0 };
    uint32_t dims_count = 1;
    TRITONSERVER_Error *err = NULL;

    switch (input->kind) {
    case KIT_ELEMENT_COUNT:
    case KIT_ACCUMULATED_ELEMENT_COUNT:
        break;
    case KIT_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO:
        shape[0] = (int64_t)count + 1;
        break;
    case KIT_MAX_ELEMENT_COUNT_AS_SHAPE:
        err = largest_count(sources, count, &shape[0]);
        break;
    case KIT_ITEM_SHAPE:
        err = count_rows(sources, count, &shape[0], &shape[1]);
        dims_count = 2;
        break;
    case KIT_ITEM_SHAPE_FLATTEN:
        err = count_rows(sources, count, &shape[0], &shape[1]);
        if (!err && __builtin_mul_overflow(shape[0], shape[1], &shape[0]))
            err = kit_error(TRITONSERVER_ERROR_INVALID_ARG, "the batch has too many rows");
        break;
    }
    if (err)
        return kit_error_wrap(err, "batch input '%s'", input->target);
    memcpy(ret_shape, shape, sizeof shape);
    *ret_dims_count = dims_count;
    return NULL;
}

/* ---- Elements ---- */

/* Writes the element at *at, and moves *at to the next. */
static TRITONSERVER_Error *put(const struct kit_batch_input *input, uint64_t value, char **at)
{
    if (input->datatype == TRITONSERVER_TYPE_FP32) {
        float number = (float)value;

        memcpy(*at, &number, sizeof number);
    } else {
        int32_t number = (int32_t)value;

        if (value > INT32_MAX)
            return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                             "batch input '%s': %" PRIu64 " does not fit INT32", input->target,
                             value);
        memcpy(*at, &number, sizeof number);
    }
    *at += sizeof(int32_t);
    return NULL;
}

static TRITONSERVER_Error *put_counts(const struct kit_batch_input *input,
                                      const struct kit_input *const *sources, uint32_t count,
                                      char *at)
{
    uint64_t sum = 0;
    TRITONSERVER_Error *err = NULL;

    if (input->kind == KIT_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO)
        err = put(input, 0, &at);
    for (uint32_t i = 0; !err && i < count; i++) {
        uint64_t elements;

        err = count_elements(sources[i], &elements);
        if (err)
            break;
        sum += elements; /* each is at most 2^60: 16 of them would need more memory than there is */
        err = put(input, input->kind == KIT_ELEMENT_COUNT ? elements : sum, &at);
    }
    return err;
}

static TRITONSERVER_Error *put_shapes(const struct kit_batch_input *input,
                                      const struct kit_input *const *sources, uint32_t count,
                                      char *at)
{
    TRITONSERVER_Error *err = NULL;

    for (uint32_t i = 0; !err && i < count; i++) {
        for (int64_t row = 0; !err && row < sources[i]->shape[0]; row++) {
            for (uint32_t k = 1; !err && k < sources[i]->dims_count; k++)
                err = put(input, (uint64_t)sources[i]->shape[k], &at);
        }
    }
    return err;
}

TRITONSERVER_Error *kit_batch_input_fill(const struct kit_batch_input *input,
                                         const struct kit_input *const *sources, uint32_t count,
                                         void *data)
{
    int64_t largest;
    TRITONSERVER_Error *err;

    switch (input->kind) {
    case KIT_MAX_ELEMENT_COUNT_AS_SHAPE:
        err = largest_count(sources, count, &largest);
        if (!err)
            memset(data, 0, (size_t)largest * sizeof(int32_t));
        return err;
    case KIT_ITEM_SHAPE:
    case KIT_ITEM_SHAPE_FLATTEN:
        return put_shapes(input, sources, count, data);
    default:
        return put_counts(input, sources, count, data);
    }
}

/* ---- Outputs ---- */

TRITONSERVER_Error *kit_batch_output_shape(const struct kit_tensor_config *output,
                                           const struct kit_input *source, int64_t *ret_shape)
{
    for (uint32_t i = 0; i < output->dims_count + 1; i++) {
        char text[KIT_SHAPE_TEXT_BYTES];

        if (i > 0 && output->dims[i - 1] != -1) {
            ret_shape[i] = output->dims[i - 1];
            continue;
        }
        if (i >= source->dims_count)
            return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                             "output '%s' takes dimension %" PRIu32
                             " from input '%s', which has shape %s",
                             output->name, i, source->name,
                             kit_shape_text(source->shape, source->dims_count, text));
        ret_shape[i] = source->shape[i];
    }
    return NULL;
}

/* ---- Padding ---- */

static size_t element_count(const int64_t *shape, uint32_t dims_count)
{
    size_t count = 1;

    for (uint32_t i = 0; i < dims_count; i++)
        count *= (size_t)shape[i];
    return count;
}

/* Copies what the two arrays have in common. Dimensions behind the last in which they
 * differ are one run of memory in both. */
static void copy_common(char *dst, const int64_t *dst_shape, const char *src,
                        const int64_t *src_shape, uint32_t dims_count, size_t element_bytes)
{
    const bool runs = dims_count < 2 || memcmp(dst_shape + 1, src_shape + 1,
                                               (dims_count - 1) * sizeof *src_shape) == 0;
    size_t dst_bytes = element_bytes, src_bytes = element_bytes;
    int64_t count = 1;

    if (dims_count) {
        count = dst_shape[0] < src_shape[0] ? dst_shape[0] : src_shape[0];
        dst_bytes *= element_count(dst_shape + 1, dims_count - 1);
        src_bytes *= element_count(src_shape + 1, dims_count - 1);
    }
    if (runs) {
        if (count && dst_bytes)
            memcpy(dst, src, (size_t)count * dst_bytes);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        copy_common(dst + (size_t)i * dst_bytes, dst_shape + 1, src + (size_t)i * src_bytes,
                    src_shape + 1, dims_count - 1, element_bytes);
}

static bool is_zero(const char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes[i])
            return false;
    }
    return true;
}

void kit_pad(void *dst, const int64_t *dst_shape, const void *src, const int64_t *src_shape,
             uint32_t dims_count, size_t element_bytes, const void *padding)
{
    const size_t count = element_count(dst_shape, dims_count);

    if (is_zero(padding, element_bytes)) {
        memset(dst, 0, count * element_bytes);
    } else {
        for (size_t i = 0; i < count; i++)
            memcpy((char *)dst + i * element_bytes, padding, element_bytes);
    }
    copy_common(dst, dst_shape, src, src_shape, dims_count, element_bytes);
}

void kit_cut(void *dst, const int64_t *dst_shape, const void *src, const int64_t *src_shape,
             uint32_t dims_count, size_t element_bytes)
{
    copy_common(dst, dst_shape, src, src_shape, dims_count, element_bytes);
}
