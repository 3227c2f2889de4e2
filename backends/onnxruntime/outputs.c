#include <inttypes.h>
#include <string.h>

#include "onnxruntime/instance_internal.h"

static bool is_wanted(const struct run *run, uint32_t output)
{
    for (uint32_t m = 0; m < run->member_count; m++) {
        if (run->members[m]->wanted[output])
            return true;
    }
    return false;
}

/* Lets the engine write an output of a single request into the response's memory. */
static TRITONSERVER_Error *lend_output(const struct run *run, const struct port *port,
                                       OrtValue **value)
{
    const struct engine *engine = run->in->model->engine;
    int64_t shape[RANK_MAX];
    uint64_t count;
    void *data;
    TRITONSERVER_Error *err;

    memcpy(shape, port->out_dims, port->out_rank * sizeof *shape);
    if (run->in->model->batching)
        shape[0] = run->batch_size;
    err = kit_shape_count(shape, port->out_rank, &count);
    if (!err)
        err = kit_output_open(run->members[0]->request.response, port->name, port->datatype, shape,
                              port->out_rank, count * port->element_bytes, &data);
    if (err)
        return err;
    return engine_error(engine, engine->api.CreateTensorWithDataAsOrtValue(
                                    engine->cpu, data, count * port->element_bytes, shape,
                                    port->out_rank, port->element, value));
}

TRITONSERVER_Error *outputs_prepare(struct run *run)
{
    struct instance *in = run->in;

    for (uint32_t i = 0; i < in->model->config.output_count; i++) {
        const struct port *port = &in->model->outputs[i];
        uint32_t k = run->output_count;
        TRITONSERVER_Error *err;

        if (!is_wanted(run, i))
            continue;
        in->output_names[k] = port->name;
        in->output_ports[k] = i;
        in->output_values[k] = NULL; /* the engine allocates */
        in->output_lent[k] = run->member_count == 1 && port->fixed && port->element_bytes;
        run->output_count++;
        if (!in->output_lent[k])
            continue;
        err = lend_output(run, port, &in->output_values[k]);
        if (err)
            return kit_error_wrap(err, "output '%s'", port->name);
    }
    return NULL;
}

/* One member's part of a result. */
struct part {
    uint32_t rank;
    int64_t shape[RANK_MAX];
    uint64_t first;     /* element of the result */
    uint64_t count;     /* elements from there */
    bool cut;           /* the member gets the front of every dimension of them only: */
    uint64_t cut_count; /* so many elements */
};

/* The sizes of the member's own inputs, where the result has those of the padded ones. */
static TRITONSERVER_Error *cut_part(const struct port *port, const struct item *item,
                                    struct part *part)
{
    for (uint32_t i = 1; i < port->tie_count; i++) {
        const struct kit_input *input = &item->inputs[port->ties[i].input];

        if (port->ties[i].dim > 0 && input->handle)
            part->shape[i] = input->shape[port->ties[i].dim];
    }
    part->cut = true;
    return kit_shape_count(part->shape, part->rank, &part->cut_count);
}

/* Steps from the part of the member before, or from a zeroed one, to member's. */
static TRITONSERVER_Error *next_part(const struct run *run, const struct result *r, uint32_t member,
                                     struct part *part)
{
    const struct model *model = run->in->model;
    const struct item *item = run->members[member];

    part->first += part->count;
    if (r->port->scatter) {
        TRITONSERVER_Error *err = kit_batch_output_shape(
            r->port->config, &item->inputs[r->port->scatter->source], part->shape);

        part->rank = r->port->config->dims_count + 1;
        return err ? err : kit_shape_count(part->shape, part->rank, &part->count);
    }
    part->rank = r->rank;
    memcpy(part->shape, r->shape, r->rank * sizeof *part->shape);
    part->count = r->count;
    if (model->batching) {
        part->shape[0] = item->batch_size;
        part->count = r->row_count * (uint64_t)item->batch_size;
    }
    return run->padded && r->port->ties ? cut_part(r->port, item, part) : NULL;
}

/* Checks that the result has the sizes of the padded inputs that it follows. */
static TRITONSERVER_Error *check_ties(const struct run *run, const struct result *r)
{
    const struct port *port = r->port;
    char text[KIT_SHAPE_TEXT_BYTES];

    for (uint32_t i = 1; i < port->tie_count; i++) {
        const struct tie tie = port->ties[i];

        if (tie.dim == 0 || !run->members[0]->inputs[tie.input].handle)
            continue;
        if (r->rank != port->tie_count || r->shape[i] != run->in->joints[tie.input].shape[tie.dim])
            return kit_error(TRITONSERVER_ERROR_INTERNAL,
                             "output '%s' came with shape %s, expected %" PRId64
                             " in dimension %" PRIu32 ", the size of padded input '%s'",
                             port->name, kit_shape_text(r->shape, r->rank, text),
                             run->in->joints[tie.input].shape[tie.dim], i,
                             run->in->model->inputs[tie.input].name);
    }
    return NULL;
}

/* Checks that the members' parts are what the engine has given. */
static TRITONSERVER_Error *check_scatter(const struct run *run, const struct result *r)
{
    struct part part = { 0 };
    char text[KIT_SHAPE_TEXT_BYTES];
    TRITONSERVER_Error *err = NULL;

    for (uint32_t m = 0; !err && m < run->member_count; m++)
        err = next_part(run, r, m, &part);
    if (!err && part.first + part.count != r->count)
        err = kit_error(TRITONSERVER_ERROR_INTERNAL,
                        "output '%s' came with shape %s, expected %" PRIu64
                        " elements, as its batch_output says",
                        r->port->name, kit_shape_text(r->shape, r->rank, text),
                        part.first + part.count);
    return err;
}

static TRITONSERVER_Error *check_result(const struct run *run, struct result *r)
{
    const struct port *port = r->port;
    char text[KIT_SHAPE_TEXT_BYTES];
    TRITONSERVER_Error *err;

    if (r->rank == 0 && !run->in->model->batching) { /* a scalar has [1] in the configuration, */
        for (uint32_t i = 0; i < port->config->dims_count; i++) /* where dims cannot be empty */
            r->shape[i] = 1;
        r->rank = port->config->dims_count;
    }
    err = kit_shape_count(r->shape, r->rank, &r->count);
    if (err || !run->in->model->batching)
        return err;
    if (port->scatter)
        return check_scatter(run, r);
    if (r->rank == 0 || r->shape[0] != run->batch_size)
        return kit_error(TRITONSERVER_ERROR_INTERNAL,
                         "output '%s' came with shape %s, expected %" PRId64
                         " at the front, the size of the batch",
                         port->name, kit_shape_text(r->shape, r->rank, text), run->batch_size);
    err = kit_shape_count(r->shape + 1, r->rank - 1, &r->row_count);
    return !err && run->padded ? check_ties(run, r) : err;
}

static TRITONSERVER_Error *read_result(const struct run *run, uint32_t k, struct result *r)
{
    const struct engine *engine = run->in->model->engine;
    const struct ort_api *api = &engine->api;
    OrtTensorTypeAndShapeInfo *info;
    ONNXTensorElementDataType element = ORT_ELEMENT_UNDEFINED;
    size_t rank = 0;
    OrtStatus *status;

    r->port = &run->in->model->outputs[run->in->output_ports[k]];
    r->value = run->in->output_values[k];
    status = api->GetTensorTypeAndShape(r->value, &info);
    if (status)
        return engine_error(engine, status);
    status = api->GetTensorElementType(info, &element);
    if (!status)
        status = api->GetDimensionsCount(info, &rank);
    if (!status && rank <= RANK_MAX)
        status = api->GetDimensions(info, r->shape, rank);
    api->ReleaseTensorTypeAndShapeInfo(info);
    if (status)
        return engine_error(engine, status);

    r->rank = (uint32_t)rank;
    if (rank > RANK_MAX || element != r->port->element)
        return kit_error(TRITONSERVER_ERROR_INTERNAL,
                         "output '%s' came with %zu dimensions of element type %d, expected at "
                         "most %d of type %d",
                         r->port->name, rank, (int)element, RANK_MAX, (int)r->port->element);
    return check_result(run, r);
}

/* Adds the output to one member's response. */
static TRITONSERVER_Error *open_part(const struct result *r, const struct item *item,
                                     const struct part *part, uint64_t byte_size, void **ret_data)
{
    return kit_output_open(item->request.response, r->port->name, r->port->datatype, part->shape,
                           part->rank, byte_size, ret_data);
}

static void copy_part(const struct result *r, const struct part *part, const char *data,
                      void *memory)
{
    int64_t whole[RANK_MAX];

    if (!part->cut) {
        if (part->count)
            memcpy(memory, data, part->count * r->port->element_bytes);
        return;
    }
    memcpy(whole, r->shape, r->rank * sizeof *whole);
    whole[0] = part->shape[0];
    kit_cut(memory, part->shape, data, whole, r->rank, r->port->element_bytes);
}

static TRITONSERVER_Error *deliver_numbers(const struct run *run, uint32_t output,
                                           const struct result *r)
{
    const struct engine *engine = run->in->model->engine;
    const size_t element_bytes = r->port->element_bytes;
    struct part part = { 0 };
    void *data, *memory;
    TRITONSERVER_Error *err =
        engine_error(engine, engine->api.GetTensorMutableData(r->value, &data));

    for (uint32_t m = 0; !err && m < run->member_count; m++) {
        struct item *item = run->members[m];

        err = next_part(run, r, m, &part);
        if (err || item->error || !item->wanted[output])
            continue;
        item->error = open_part(r, item, &part,
                                (part.cut ? part.cut_count : part.count) * element_bytes, &memory);
        if (!item->error)
            copy_part(r, &part, (char *)data + part.first * element_bytes, memory);
    }
    return err;
}

/* Writes elements number first to end as BYTES: a length and the bytes, each. */
static void write_strings(const char *bytes, const size_t *offsets, uint64_t first, uint64_t end,
                          char *memory)
{
    for (uint64_t i = first; i < end; i++) {
        uint32_t length = (uint32_t)(offsets[i + 1] - offsets[i]);

        memcpy(memory, &length, sizeof length);
        memcpy(memory + sizeof length, bytes + offsets[i], length);
        memory += sizeof length + length;
    }
}

static TRITONSERVER_Error *deliver_strings(const struct run *run, uint32_t output,
                                           const struct result *r)
{
    struct instance *in = run->in;
    const struct ort_api *api = &in->model->engine->api;
    struct part part = { 0 };
    size_t *offsets, byte_size = 0;
    OrtStatus *status = api->GetStringTensorDataLength(r->value, &byte_size);
    TRITONSERVER_Error *err = engine_error(in->model->engine, status);

    if (!err)
        err = scratch_reserve(&in->string_bytes, byte_size);
    if (!err)
        err = scratch_reserve(&in->string_offsets, (r->count + 1) * sizeof *offsets);
    if (err)
        return err;
    offsets = in->string_offsets.data;
    if (r->count) {
        status = api->GetStringTensorContent(r->value, in->string_bytes.data, byte_size, offsets,
                                             r->count);
        if (status)
            return engine_error(in->model->engine, status);
    }
    offsets[r->count] = byte_size;

    for (uint32_t m = 0; !err && m < run->member_count; m++) {
        struct item *item = run->members[m];
        uint64_t end;
        void *memory;

        err = next_part(run, r, m, &part);
        if (err || item->error || !item->wanted[output])
            continue;
        end = part.first + part.count;
        item->error =
            open_part(r, item, &part,
                      part.count * sizeof(uint32_t) + offsets[end] - offsets[part.first], &memory);
        if (!item->error)
            write_strings(in->string_bytes.data, offsets, part.first, end, memory);
    }
    return err;
}

TRITONSERVER_Error *outputs_read(const struct run *run)
{
    TRITONSERVER_Error *err = NULL;

    for (uint32_t k = 0; !err && k < run->output_count; k++) {
        if (!run->in->output_lent[k])
            err = read_result(run, k, &run->in->results[k]);
    }
    return err;
}

TRITONSERVER_Error *outputs_deliver(const struct run *run)
{
    TRITONSERVER_Error *err = NULL;

    for (uint32_t k = 0; !err && k < run->output_count; k++) {
        const struct result *result = &run->in->results[k];
        uint32_t output = run->in->output_ports[k];

        if (run->in->output_lent[k])
            continue;
        if (result->port->datatype == TRITONSERVER_TYPE_BYTES)
            err = deliver_strings(run, output, result);
        else
            err = deliver_numbers(run, output, result);
    }
    return err;
}
