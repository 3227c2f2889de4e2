#include <inttypes.h>
#include <string.h>

#include "onnxruntime/instance_internal.h"

/* Finds or makes one piece of memory with the input of all members.
 *
 * Memory of the server's is used as it is when it is one piece whose address is a
 * multiple of the element size: compiled loops that read elements may rely on
 * that much, and on no more. */
static TRITONSERVER_Error *join_input(const struct run *run, uint32_t index, const void **ret_data,
                                      uint64_t *ret_byte_size)
{
    const struct port *port = &run->in->model->inputs[index];
    struct scratch *scratch = &run->in->input_scratch[index];
    const size_t alignment = port->element_bytes ? port->element_bytes : 1;
    uint64_t byte_size = 0, at = 0;
    TRITONSERVER_Error *err;

    for (uint32_t m = 0; m < run->member_count; m++)
        byte_size += run->members[m]->inputs[index].byte_size;
    *ret_byte_size = byte_size;

    if (run->member_count == 1) {
        err = kit_input_borrow(&run->members[0]->inputs[index], ret_data);
        if (err || (*ret_data && (uintptr_t)*ret_data % alignment == 0))
            return err;
    }
    err = scratch_reserve(scratch, byte_size);
    for (uint32_t m = 0; !err && m < run->member_count; m++) {
        const struct kit_input *input = &run->members[m]->inputs[index];

        err = kit_input_copy(input, (char *)scratch->data + at);
        at += input->byte_size;
    }
    *ret_data = scratch->data;
    return err;
}

/* One piece of memory with a member's input; it is valid until the next call. */
static TRITONSERVER_Error *read_piece(struct instance *in, const struct kit_input *input,
                                      const void **ret_data)
{
    TRITONSERVER_Error *err = kit_input_borrow(input, ret_data);

    if (err || *ret_data)
        return err;
    err = scratch_reserve(&in->piece, input->byte_size);
    if (err)
        return err;
    *ret_data = in->piece.data;
    return kit_input_copy(input, in->piece.data);
}

/* Lays the members' inputs end to end, each filled up to shape. */
static TRITONSERVER_Error *pad_input(const struct run *run, uint32_t index, int64_t *shape,
                                     uint32_t rank, const void **ret_data, uint64_t *ret_byte_size)
{
    const struct port *port = &run->in->model->inputs[index];
    struct scratch *scratch = &run->in->input_scratch[index];
    uint64_t count, row_bytes;
    char *at;
    TRITONSERVER_Error *err = kit_shape_count(shape, rank, &count);

    if (!err)
        err = scratch_reserve(scratch, count * port->element_bytes);
    if (err)
        return err;
    row_bytes = run->batch_size ? count / (uint64_t)run->batch_size * port->element_bytes : 0;
    at = scratch->data;
    for (uint32_t m = 0; m < run->member_count; m++) {
        const struct kit_input *input = &run->members[m]->inputs[index];
        const void *data;

        err = read_piece(run->in, input, &data);
        if (err)
            return err;
        shape[0] = input->shape[0];
        kit_pad(at, shape, data, input->shape, rank, port->element_bytes, port->padding);
        at += row_bytes * (uint64_t)input->shape[0];
    }
    shape[0] = run->batch_size;
    *ret_data = scratch->data;
    *ret_byte_size = count * port->element_bytes;
    return NULL;
}

/* Checks that each member's part of joined BYTES data is what its shape says. */
static TRITONSERVER_Error *check_strings(const struct run *run, uint32_t index, const char *data)
{
    for (uint32_t m = 0; m < run->member_count; m++) {
        const struct kit_input *input = &run->members[m]->inputs[index];
        uint64_t count;
        TRITONSERVER_Error *err = kit_shape_count(input->shape, input->dims_count, &count);

        if (!err)
            err = kit_bytes_check(data, input->byte_size, count);
        if (err)
            return kit_error_wrap(err, "input '%s'", input->name);
        data += input->byte_size;
    }
    return NULL;
}

/* Makes a string tensor of checked BYTES data; the engine keeps strings of its own. */
static OrtStatus *create_strings(const struct engine *engine, const char *data, uint64_t byte_size,
                                 const int64_t *shape, uint32_t rank, OrtValue **value)
{
    const struct ort_api *api = &engine->api;
    OrtStatus *status =
        api->CreateTensorAsOrtValue(engine->allocator, shape, rank, ORT_ELEMENT_STRING, value);
    const char *end = data + byte_size;

    for (size_t i = 0; !status && data < end; i++) {
        uint32_t length;
        char *text;

        memcpy(&length, data, sizeof length);
        data += sizeof length;
        status = api->GetResizedStringTensorElementBuffer(*value, i, length, &text);
        if (!status && length)
            memcpy(text, data, length);
        data += length;
    }
    return status;
}

/* The largest of each dimension among the members, kept for cutting the outputs. */
static void find_joint_shape(const struct run *run, uint32_t index, int64_t *shape)
{
    for (uint32_t m = 0; m < run->member_count; m++) {
        const struct kit_input *input = &run->members[m]->inputs[index];

        for (uint32_t k = 1; k < input->dims_count; k++) {
            if (input->shape[k] > shape[k])
                shape[k] = input->shape[k];
        }
    }
    memcpy(run->in->joints[index].shape, shape,
           run->members[0]->inputs[index].dims_count * sizeof *shape);
}

/* The shape that the engine sees. */
static TRITONSERVER_Error *find_shape(const struct run *run, uint32_t index, int64_t *ret_shape,
                                      uint32_t *ret_rank)
{
    const struct model *model = run->in->model;
    const struct port *port = &model->inputs[index];
    const struct kit_input *first = &run->members[0]->inputs[index];

    if (port->ragged) {
        *ret_rank = 1;
        *ret_shape = 0;
        for (uint32_t m = 0; m < run->member_count; m++) {
            const struct kit_input *input = &run->members[m]->inputs[index];
            uint64_t count;
            TRITONSERVER_Error *err = kit_shape_count(input->shape, input->dims_count, &count);

            if (err)
                return err;
            *ret_shape += (int64_t)count; /* of data that is in memory: no overflow */
        }
        return NULL;
    }
    *ret_rank = port->scalar ? 0 : first->dims_count;
    memcpy(ret_shape, first->shape, *ret_rank * sizeof *ret_shape);
    if (port->padded)
        find_joint_shape(run, index, ret_shape);
    if (model->batching && *ret_rank)
        ret_shape[0] = run->batch_size;
    return NULL;
}

/* Whether some member's input is smaller than shape, that of the run. */
static bool is_filled_up(const struct run *run, uint32_t index, const int64_t *shape, uint32_t rank)
{
    for (uint32_t m = 0; run->in->model->inputs[index].padded && m < run->member_count; m++) {
        if (memcmp(run->members[m]->inputs[index].shape + 1, shape + 1,
                   (rank - 1) * sizeof *shape) != 0)
            return true;
    }
    return false;
}

static TRITONSERVER_Error *create_input(struct run *run, uint32_t index)
{
    const struct model *model = run->in->model;
    const struct port *port = &model->inputs[index];
    OrtValue **value = &run->in->input_values[run->input_count];
    int64_t shape[RANK_MAX];
    uint32_t rank;
    const void *data = NULL;
    uint64_t byte_size = 0;
    OrtStatus *status;
    TRITONSERVER_Error *err = find_shape(run, index, shape, &rank);

    if (err)
        return err;
    if (model->batching && port->scalar) {
        data = &run->members[0]->scalars[index];
        byte_size = port->element_bytes;
    } else if (is_filled_up(run, index, shape, rank)) {
        run->padded = true;
        err = pad_input(run, index, shape, rank, &data, &byte_size);
    } else {
        err = join_input(run, index, &data, &byte_size);
    }
    if (!err && port->datatype == TRITONSERVER_TYPE_BYTES)
        err = check_strings(run, index, data);
    if (err)
        return err;

    *value = NULL;
    run->in->input_names[run->input_count++] = port->name;
    if (port->datatype == TRITONSERVER_TYPE_BYTES)
        status = create_strings(model->engine, data, byte_size, shape, rank, value);
    else /* the engine only reads inputs, its signature just does not say so */
        status = model->engine->api.CreateTensorWithDataAsOrtValue(
            model->engine->cpu, (void *)data, byte_size, shape, rank, port->element, value);
    return engine_error(model->engine, status);
}

/* Makes what the configuration wants the model to know about the members' shapes. */
static TRITONSERVER_Error *create_batch_input(struct run *run, uint32_t index)
{
    struct instance *in = run->in;
    const struct engine *engine = in->model->engine;
    const struct kit_batch_input *input = &in->model->config.batch_inputs[index];
    struct scratch *scratch = &in->input_scratch[in->model->config.input_count + index];
    OrtValue **value = &in->input_values[run->input_count];
    int64_t shape[KIT_BATCH_INPUT_RANK_MAX];
    uint32_t rank;
    uint64_t count;
    TRITONSERVER_Error *err;

    for (uint32_t m = 0; m < run->member_count; m++)
        in->sources[m] = &run->members[m]->inputs[input->source];
    err = kit_batch_input_shape(input, in->sources, run->member_count, shape, &rank);
    if (!err)
        err = kit_shape_count(shape, rank, &count);
    if (!err)
        err = scratch_reserve(scratch, count * sizeof(int32_t));
    if (!err)
        err = kit_batch_input_fill(input, in->sources, run->member_count, scratch->data);
    if (err)
        return err;

    *value = NULL;
    in->input_names[run->input_count++] = input->target;
    return engine_error(engine, engine->api.CreateTensorWithDataAsOrtValue(
                                    engine->cpu, scratch->data, count * sizeof(int32_t), shape,
                                    rank, element_from_datatype(input->datatype), value));
}

TRITONSERVER_Error *inputs_create(struct run *run)
{
    const struct kit_config *config = &run->in->model->config;
    TRITONSERVER_Error *err = NULL;

    for (uint32_t i = 0; !err && i < config->input_count; i++) {
        if (run->members[0]->inputs[i].handle)
            err = create_input(run, i);
    }
    for (uint32_t i = 0; !err && i < config->batch_input_count; i++)
        err = create_batch_input(run, i);
    return err;
}
