#include "kit/batch.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    RANK_MAX = 32
};

TRITONSERVER_Error *kit_batch_open(TRITONBACKEND_ModelInstance *instance,
                                   TRITONBACKEND_Request **requests, uint32_t count,
                                   struct kit_batch *ret_batch)
{
    struct kit_batch batch = { .instance = instance, .times.exec_start_ns = kit_now_ns() };

    batch.items = calloc(count + 1, sizeof *batch.items);
    if (!batch.items)
        return kit_error_memory(count * sizeof *batch.items, "the requests of a batch");
    for (uint32_t i = 0; i < count; i++) {
        struct kit_batch_item *item = &batch.items[batch.item_count];

        if (kit_request_open(requests[i], instance, &batch.times, &item->request))
            batch.item_count++;
    }
    *ret_batch = batch;
    return NULL;
}

/* ---- Gather ---- */

/* Checks that input is rows of what wanted says; rows is 0 before the request's first input. */
static TRITONSERVER_Error *check_input(const struct kit_input *input,
                                       const struct kit_gathered *wanted, uint64_t *rows)
{
    char found[KIT_SHAPE_TEXT_BYTES], expected[KIT_SHAPE_TEXT_BYTES];

    if (input->datatype != wanted->datatype)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG, "input '%s' has type %s, the batch has %s",
                         input->name, TRITONSERVER_DataTypeString(input->datatype),
                         TRITONSERVER_DataTypeString(wanted->datatype));
    if (input->dims_count != wanted->row_dims_count + 1 || input->shape[0] < 1 ||
        memcmp(input->shape + 1, wanted->row_shape,
               wanted->row_dims_count * sizeof *wanted->row_shape) != 0)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "input '%s' has shape %s, the rows of the batch have %s", input->name,
                         kit_shape_text(input->shape, input->dims_count, found),
                         kit_shape_text(wanted->row_shape, wanted->row_dims_count, expected));
    if (*rows == 0)
        *rows = (uint64_t)input->shape[0];
    if ((uint64_t)input->shape[0] != *rows || input->byte_size != *rows * wanted->row_bytes)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "input '%s' has %" PRId64 " rows of %" PRIu64 " bytes, expected %" PRIu64
                         " rows",
                         input->name, input->shape[0], input->byte_size, *rows);
    return NULL;
}

/* The rows of an input, as its request has them. */
static TRITONSERVER_Error *describe(const struct kit_input *input, struct kit_gathered *ret_wanted)
{
    uint32_t element_bytes = TRITONSERVER_DataTypeByteSize(input->datatype);
    uint64_t count;
    TRITONSERVER_Error *err;

    if (element_bytes == 0 || input->dims_count == 0)
        return kit_error(TRITONSERVER_ERROR_UNSUPPORTED,
                         "input '%s' of type %s without a batch dimension or a fixed size cannot "
                         "be gathered",
                         input->name, TRITONSERVER_DataTypeString(input->datatype));
    err = kit_shape_count(input->shape + 1, input->dims_count - 1, &count);
    if (err)
        return err;
    *ret_wanted = (struct kit_gathered){
        .datatype = input->datatype,
        .row_shape = input->shape + 1,
        .row_dims_count = input->dims_count - 1,
        .row_bytes = count * element_bytes,
    };
    return NULL;
}

/* Checks all inputs of one request; it describes the batch when it is the first. */
static TRITONSERVER_Error *admit(struct kit_batch_item *item, const char *const *names,
                                 uint32_t count, bool is_first, struct kit_gathered *gathered)
{
    uint64_t rows = 0;

    for (uint32_t k = 0; k < count; k++) {
        struct kit_input input;
        TRITONSERVER_Error *err = kit_input_open(item->request.request, names[k], &input);

        if (!err && is_first)
            err = describe(&input, &gathered[k]);
        if (!err)
            err = check_input(&input, &gathered[k], &rows);
        if (err)
            return err;
    }
    item->rows = rows;
    return NULL;
}

static TRITONSERVER_Error *make_arrays(struct kit_batch *batch, uint32_t count,
                                       struct kit_gathered *gathered)
{
    batch->arrays = calloc(count + 1, sizeof *batch->arrays);
    for (uint32_t k = 0; batch->arrays && k < count; k++) {
        uint64_t bytes;

        if (__builtin_mul_overflow(batch->rows, gathered[k].row_bytes, &bytes))
            bytes = UINT64_MAX;
        gathered[k].data = calloc(1, bytes ? bytes : 1); /* zeros where a copy fails */
        if (!gathered[k].data)
            return kit_error_memory(bytes, "the inputs of a batch");
        batch->arrays[batch->array_count++] = gathered[k].data;
    }
    return batch->arrays ? NULL : kit_error_memory(0, "the inputs of a batch");
}

static TRITONSERVER_Error *copy_inputs(const struct kit_batch_item *item, const char *const *names,
                                       uint32_t count, const struct kit_gathered *gathered)
{
    for (uint32_t k = 0; k < count; k++) {
        struct kit_input input;
        TRITONSERVER_Error *err = kit_input_open(item->request.request, names[k], &input);

        if (!err)
            err = kit_input_copy(&input, (char *)gathered[k].data +
                                             item->first_row * gathered[k].row_bytes);
        if (err)
            return err;
    }
    return NULL;
}

TRITONSERVER_Error *kit_batch_gather(struct kit_batch *batch, const char *const *names,
                                     uint32_t count, struct kit_gathered *ret_gathered)
{
    TRITONSERVER_Error *err;

    for (uint32_t i = 0; i < batch->item_count; i++) {
        struct kit_batch_item *item = &batch->items[i];

        item->error = admit(item, names, count, batch->rows == 0, ret_gathered);
        if (item->error)
            continue;
        item->first_row = batch->rows;
        batch->rows += item->rows;
    }
    if (batch->rows == 0)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG, "no request of the batch can be executed");

    err = make_arrays(batch, count, ret_gathered);
    for (uint32_t i = 0; !err && i < batch->item_count; i++) {
        struct kit_batch_item *item = &batch->items[i];

        if (!item->error)
            item->error = copy_inputs(item, names, count, ret_gathered);
    }
    return err;
}

/* ---- Scatter ---- */

static TRITONSERVER_Error *is_wanted(TRITONBACKEND_Request *request, const char *name,
                                     bool *ret_wanted)
{
    uint32_t count;
    TRITONSERVER_Error *err = TRITONBACKEND_RequestOutputCount(request, &count);

    *ret_wanted = false;
    for (uint32_t i = 0; !err && i < count && !*ret_wanted; i++) {
        const char *wanted;

        err = TRITONBACKEND_RequestOutputName(request, i, &wanted);
        if (!err)
            *ret_wanted = strcmp(wanted, name) == 0;
    }
    return err;
}

/* One request's part of an output of which shape says the rows, from shape[1]. */
static TRITONSERVER_Error *scatter_one(const struct kit_batch_item *item, const char *name,
                                       TRITONSERVER_DataType datatype, int64_t *shape,
                                       uint32_t dims_count, uint64_t row_bytes, const void *data)
{
    bool wanted;
    void *memory;
    TRITONSERVER_Error *err = is_wanted(item->request.request, name, &wanted);

    if (err || !wanted)
        return err;
    shape[0] = (int64_t)item->rows;
    err = kit_output_open(item->request.response, name, datatype, shape, dims_count,
                          item->rows * row_bytes, &memory);
    if (!err)
        memcpy(memory, (const char *)data + item->first_row * row_bytes, item->rows * row_bytes);
    return err;
}

void kit_batch_scatter(struct kit_batch *batch, const char *name, TRITONSERVER_DataType datatype,
                       const int64_t *row_shape, uint32_t row_dims_count, const void *data)
{
    int64_t shape[RANK_MAX + 1];
    uint64_t count = 0;
    TRITONSERVER_Error *err = NULL;

    if (row_dims_count > RANK_MAX)
        err = kit_error(TRITONSERVER_ERROR_UNSUPPORTED, "output '%s' has %" PRIu32 " dimensions",
                        name, row_dims_count);
    if (!err)
        err = kit_shape_count(row_shape, row_dims_count, &count);
    if (!err)
        memcpy(shape + 1, row_shape, row_dims_count * sizeof *row_shape);

    for (uint32_t i = 0; i < batch->item_count; i++) {
        struct kit_batch_item *item = &batch->items[i];

        if (item->error)
            continue;
        if (err)
            item->error =
                kit_error(TRITONSERVER_ErrorCode(err), "%s", TRITONSERVER_ErrorMessage(err));
        else
            item->error = scatter_one(item, name, datatype, shape, row_dims_count + 1,
                                      count * TRITONSERVER_DataTypeByteSize(datatype), data);
    }
    TRITONSERVER_ErrorDelete(err);
}

/* ---- The end ---- */

void kit_batch_close(struct kit_batch *batch, TRITONSERVER_Error *error)
{
    /* Counted before it is answered: a client that has its answer finds it in the statistics. */
    if (batch->rows)
        kit_batch_report(batch->instance, batch->rows, &batch->times);
    for (uint32_t i = 0; i < batch->item_count; i++) {
        struct kit_batch_item *item = &batch->items[i];

        if (!item->error && error)
            item->error =
                kit_error(TRITONSERVER_ErrorCode(error), "%s", TRITONSERVER_ErrorMessage(error));
        kit_request_finish(&item->request, batch->instance, &batch->times, item->error);
    }
    TRITONSERVER_ErrorDelete(error);

    for (uint32_t k = 0; k < batch->array_count; k++)
        free(batch->arrays[k]);
    free(batch->arrays);
    free(batch->items);
    *batch = (struct kit_batch){ 0 };
}
