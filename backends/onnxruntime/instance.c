/* How a batch is executed.
 *
 * The requests of a batch become items: their inputs looked up and checked. Items
 * whose shapes agree apart from the batch dimension form a group; the engine runs
 * once for each group, normally once for the batch. The inputs of a group are laid
 * end to end in scratch memory, and its outputs cut up again; a group of one needs
 * neither: the engine reads the input where the server has it and, when the shape
 * is known before, writes the output where the response will be sent from.
 *
 * One bad request does not harm the others: what can be checked is checked item by
 * item, and a group that fails as a whole is run again one by one.
 */
#include "onnxruntime/instance.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kit/request.h"
#include "kit/tensor.h"

/* Memory kept from run to run; 64-byte aligned. */
struct scratch {
    void *data;
    size_t capacity;
    size_t used_bytes; /* by the last run */
};

/* A request and what the group it runs in needs of it. */
struct item {
    struct kit_request request;
    TRITONSERVER_Error *error; /* what it will be answered with */
    int64_t batch_size;        /* 1 where the model has no batch dimension */
    struct kit_input *inputs;  /* in the order of the model's; handle NULL = left out */
    uint64_t *scalars;         /* the value of each scalar input of a batching model */
    bool *wanted;              /* in the order of the model's outputs */
};

struct instance {
    const struct model *model;
    TRITONBACKEND_ModelInstance *handle;

    /* one for each request of the largest batch so far */
    uint32_t item_capacity;
    struct item *items;
    struct item **group;
    struct kit_input *item_inputs;
    uint64_t *item_scalars;
    bool *item_wanted;

    /* one for each of the model's inputs or outputs; a run fills a part */
    const char **input_names;
    OrtValue **input_values;
    struct scratch *input_scratch;
    const char **output_names;
    OrtValue **output_values;
    uint32_t *output_ports; /* the index in model->outputs */
    bool *output_lent;      /* the engine writes into the response's memory */

    struct scratch string_bytes, string_offsets;
};

/* One run of the engine, for a group of items. */
struct run {
    struct instance *in;
    struct item **members;
    uint32_t member_count;
    int64_t batch_size; /* of all members together */
    uint32_t input_count, output_count;
    struct kit_times times;
};

/* ---- Memory ---- */

static TRITONSERVER_Error *scratch_reserve(struct scratch *scratch, size_t byte_size)
{
    scratch->used_bytes = byte_size;
    if (scratch->capacity >= byte_size && scratch->data)
        return NULL;
    free(scratch->data);
    scratch->capacity = (byte_size / 64 + 1) * 64;
    scratch->data = aligned_alloc(64, scratch->capacity);
    if (!scratch->data) {
        scratch->capacity = 0;
        return kit_error_memory(byte_size, "joining the inputs of a batch");
    }
    return NULL;
}

/* Gives memory back that one large batch needed and the last one did not. */
static void scratch_trim(struct scratch *scratch)
{
    if (scratch->capacity > 1 << 20 && scratch->used_bytes < scratch->capacity / 4) {
        free(scratch->data);
        *scratch = (struct scratch){ 0 };
    }
    scratch->used_bytes = 0;
}

static void free_items(struct instance *in)
{
    free(in->items);
    free(in->group);
    free(in->item_inputs);
    free(in->item_scalars);
    free(in->item_wanted);
    in->items = NULL;
    in->group = NULL;
    in->item_inputs = NULL;
    in->item_scalars = NULL;
    in->item_wanted = NULL;
    in->item_capacity = 0;
}

static TRITONSERVER_Error *reserve_items(struct instance *in, uint32_t count)
{
    const struct kit_config *config = &in->model->config;

    if (count <= in->item_capacity)
        return NULL;
    free_items(in);
    in->items = calloc(count, sizeof *in->items);
    in->group = calloc(count, sizeof *in->group);
    in->item_inputs = calloc((size_t)count * (config->input_count + 1), sizeof *in->item_inputs);
    in->item_scalars = calloc((size_t)count * (config->input_count + 1), sizeof *in->item_scalars);
    in->item_wanted = calloc((size_t)count * (config->output_count + 1), sizeof *in->item_wanted);
    if (!in->items || !in->group || !in->item_inputs || !in->item_scalars || !in->item_wanted) {
        free_items(in);
        return kit_error(TRITONSERVER_ERROR_UNAVAILABLE,
                         "out of memory: the records of a batch of %" PRIu32 " requests", count);
    }
    in->item_capacity = count;
    for (uint32_t i = 0; i < count; i++) {
        in->items[i].inputs = &in->item_inputs[(size_t)i * config->input_count];
        in->items[i].scalars = &in->item_scalars[(size_t)i * config->input_count];
        in->items[i].wanted = &in->item_wanted[(size_t)i * config->output_count];
    }
    return NULL;
}

TRITONSERVER_Error *instance_create(const struct model *model, TRITONBACKEND_ModelInstance *handle,
                                    struct instance **ret_instance)
{
    size_t inputs = model->config.input_count + 1, outputs = model->config.output_count + 1;
    struct instance *in = calloc(1, sizeof *in);

    if (!in)
        return kit_error_memory(sizeof *in, "an instance");
    in->model = model;
    in->handle = handle;
    in->input_names = calloc(inputs, sizeof *in->input_names);
    in->input_values = calloc(inputs, sizeof *in->input_values);
    in->input_scratch = calloc(inputs, sizeof *in->input_scratch);
    in->output_names = calloc(outputs, sizeof *in->output_names);
    in->output_values = calloc(outputs, sizeof *in->output_values);
    in->output_ports = calloc(outputs, sizeof *in->output_ports);
    in->output_lent = calloc(outputs, sizeof *in->output_lent);
    if (!in->input_names || !in->input_values || !in->input_scratch || !in->output_names ||
        !in->output_values || !in->output_ports || !in->output_lent) {
        instance_destroy(in);
        return kit_error_memory((inputs + outputs) * sizeof(void *), "an instance");
    }
    *ret_instance = in;
    return NULL;
}

void instance_destroy(struct instance *in)
{
    if (!in)
        return;
    for (uint32_t i = 0; in->input_scratch && i < in->model->config.input_count; i++)
        free(in->input_scratch[i].data);
    free(in->string_bytes.data);
    free(in->string_offsets.data);
    free_items(in);
    free(in->input_names);
    free(in->input_values);
    free(in->input_scratch);
    free(in->output_names);
    free(in->output_values);
    free(in->output_ports);
    free(in->output_lent);
    free(in);
}

/* ---- Items: looking up and checking what one request brings ---- */

/* Reads the value of a scalar input: one for each element of the batch, all equal,
 * because the model takes it once for the whole batch. */
static TRITONSERVER_Error *read_scalar(const struct port *port, const struct kit_input *input,
                                       uint64_t count, uint64_t *ret_value)
{
    const size_t bytes = port->element_bytes;
    TRITONSERVER_Error *err;
    char *copy;

    *ret_value = 0;
    if (count == 1)
        return kit_input_copy(input, ret_value);

    copy = malloc(input->byte_size + 1);
    if (!copy)
        return kit_error_memory(input->byte_size, port->name);
    err = kit_input_copy(input, copy);
    if (!err && count > 0) {
        memcpy(ret_value, copy, bytes);
        if (memcmp(copy, copy + bytes, (count - 1) * bytes) != 0)
            err = kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                            "input '%s' has different values in one batch, but the model takes "
                            "one for the whole batch",
                            port->name);
    }
    free(copy);
    return err;
}

/* Sets or compares the size of the item's batch. */
static TRITONSERVER_Error *check_batch_size(const struct kit_input *input, bool is_first,
                                            struct item *item)
{
    if (input->dims_count == 0)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "input '%s' has shape [], expected a first dimension for the batch",
                         input->name);
    if (is_first)
        item->batch_size = input->shape[0];
    if (item->batch_size != input->shape[0])
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "input '%s' has a batch of %" PRId64 ", expected %" PRId64
                         " as the first input",
                         input->name, input->shape[0], item->batch_size);
    return NULL;
}

static TRITONSERVER_Error *check_size(const struct port *port, const struct kit_input *input,
                                      int64_t batch_size, uint64_t *ret_count)
{
    char text[KIT_SHAPE_TEXT_BYTES];
    TRITONSERVER_Error *err = kit_shape_count(input->shape, input->dims_count, ret_count);

    if (err)
        return kit_error_wrap(err, "input '%s'", port->name);
    if (port->scalar && *ret_count != (uint64_t)batch_size)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "input '%s' has shape %s, expected one element: it is a scalar",
                         port->name, kit_shape_text(input->shape, input->dims_count, text));
    if (port->element_bytes && input->byte_size != *ret_count * port->element_bytes)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "input '%s' has %" PRIu64 " bytes, expected %" PRIu64
                         " for %s elements in shape %s",
                         port->name, input->byte_size, *ret_count * port->element_bytes,
                         TRITONSERVER_DataTypeString(port->datatype),
                         kit_shape_text(input->shape, input->dims_count, text));
    return NULL;
}

static TRITONSERVER_Error *read_input(const struct model *model, uint32_t index, bool is_first,
                                      struct item *item)
{
    const struct port *port = &model->inputs[index];
    struct kit_input *input = &item->inputs[index];
    uint64_t count;
    TRITONSERVER_Error *err;

    *input = (struct kit_input){ 0 };
    err = kit_input_open(item->request.request, port->name, input);
    if (err && port->optional) {
        TRITONSERVER_ErrorDelete(err);
        return NULL;
    }
    if (err)
        return kit_error_wrap(err, "input '%s'", port->name);

    if (input->datatype != port->datatype)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG, "input '%s' has type %s, expected %s",
                         port->name, TRITONSERVER_DataTypeString(input->datatype),
                         TRITONSERVER_DataTypeString(port->datatype));
    if (input->dims_count > RANK_MAX)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "input '%s' has %" PRIu32 " dimensions, the limit is %d", port->name,
                         input->dims_count, RANK_MAX);
    if (model->batching)
        err = check_batch_size(input, is_first, item);
    if (!err)
        err = check_size(port, input, item->batch_size, &count);
    if (!err && port->scalar && model->batching)
        err = read_scalar(port, input, count, &item->scalars[index]);
    return err;
}

static TRITONSERVER_Error *read_wanted(const struct model *model, struct item *item)
{
    const uint32_t output_count = model->config.output_count;
    uint32_t count;
    TRITONSERVER_Error *err = TRITONBACKEND_RequestOutputCount(item->request.request, &count);

    if (err)
        return err;
    /* The server lets no output be asked for twice, so this many are all. */
    memset(item->wanted, count == output_count, output_count * sizeof *item->wanted);
    for (uint32_t i = 0; count != output_count && i < count; i++) {
        const char *name;
        uint32_t k = 0;

        err = TRITONBACKEND_RequestOutputName(item->request.request, i, &name);
        if (err)
            return err;
        while (k < output_count && strcmp(model->outputs[k].name, name) != 0)
            k++;
        if (k == output_count)
            return kit_error(TRITONSERVER_ERROR_INVALID_ARG, "output '%s' is not in the model",
                             name);
        item->wanted[k] = true;
    }
    return NULL;
}

/* Takes a request; when it cannot be executed it is answered at once. */
static bool item_open(struct instance *in, TRITONBACKEND_Request *request,
                      const struct kit_times *times, struct item *item)
{
    const struct model *model = in->model;
    bool is_first = true;
    TRITONSERVER_Error *err;

    if (!kit_request_open(request, in->handle, times, &item->request))
        return false;
    item->error = NULL;
    item->batch_size = 1;
    err = read_wanted(model, item);
    for (uint32_t i = 0; !err && i < model->config.input_count; i++) {
        err = read_input(model, i, is_first, item);
        if (item->inputs[i].handle)
            is_first = false;
    }
    if (!err)
        return true;
    kit_request_finish(&item->request, in->handle, times,
                       kit_error_wrap(err, "model '%s'", model->config.name));
    return false;
}

/* Whether two items can share a run. */
static bool items_match(const struct model *model, const struct item *a, const struct item *b)
{
    for (uint32_t i = 0; i < model->config.input_count; i++) {
        const struct kit_input *x = &a->inputs[i], *y = &b->inputs[i];

        if (!x->handle != !y->handle || x->dims_count != y->dims_count)
            return false;
        if (!x->handle)
            continue;
        if (model->inputs[i].scalar
                ? a->scalars[i] != b->scalars[i]
                : memcmp(x->shape + 1, y->shape + 1, (x->dims_count - 1) * sizeof *x->shape) != 0)
            return false;
    }
    return true;
}

/* ---- Inputs of a run ---- */

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

static TRITONSERVER_Error *create_input(struct run *run, uint32_t index)
{
    const struct model *model = run->in->model;
    const struct port *port = &model->inputs[index];
    const struct item *leader = run->members[0];
    OrtValue **value = &run->in->input_values[run->input_count];
    uint32_t rank = port->scalar ? 0 : leader->inputs[index].dims_count;
    int64_t shape[RANK_MAX];
    const void *data;
    uint64_t byte_size;
    OrtStatus *status;
    TRITONSERVER_Error *err = NULL;

    memcpy(shape, leader->inputs[index].shape, rank * sizeof *shape);
    if (model->batching && rank)
        shape[0] = run->batch_size;

    if (model->batching && port->scalar) {
        data = &leader->scalars[index];
        byte_size = port->element_bytes;
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

static TRITONSERVER_Error *create_inputs(struct run *run)
{
    TRITONSERVER_Error *err = NULL;

    for (uint32_t i = 0; !err && i < run->in->model->config.input_count; i++) {
        if (run->members[0]->inputs[i].handle)
            err = create_input(run, i);
    }
    return err;
}

/* ---- Outputs of a run ---- */

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

static TRITONSERVER_Error *prepare_outputs(struct run *run)
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

/* An output that the engine has allocated. */
struct result {
    const struct port *port;
    OrtValue *value;
    uint32_t rank; /* as the client will see it */
    int64_t shape[RANK_MAX];
    uint64_t row_count; /* elements in one entry of the batch, or in all without batch */
};

static TRITONSERVER_Error *check_result(const struct run *run, struct result *r)
{
    const struct port *port = r->port;
    char text[KIT_SHAPE_TEXT_BYTES];

    if (run->in->model->batching) {
        if (r->rank == 0 || r->shape[0] != run->batch_size)
            return kit_error(TRITONSERVER_ERROR_INTERNAL,
                             "output '%s' came with shape %s, expected %" PRId64
                             " at the front, the size of the batch",
                             port->name, kit_shape_text(r->shape, r->rank, text), run->batch_size);
        return kit_shape_count(r->shape + 1, r->rank - 1, &r->row_count);
    }
    if (r->rank == 0) { /* a scalar has [1] in the configuration, where dims cannot be empty */
        for (uint32_t i = 0; i < port->config_dims_count; i++)
            r->shape[i] = 1;
        r->rank = port->config_dims_count;
    }
    return kit_shape_count(r->shape, r->rank, &r->row_count);
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

/* The first row and the number of rows that belong to each member in turn. */
struct cut {
    uint64_t row;
    uint64_t row_count;
};

static struct cut next_cut(const struct run *run, struct cut last, uint32_t member)
{
    return (struct cut){ last.row + last.row_count, run->in->model->batching
                                                        ? (uint64_t)run->members[member]->batch_size
                                                        : 1 };
}

/* Adds the output to one member's response. */
static TRITONSERVER_Error *open_output(const struct run *run, const struct result *r,
                                       const struct item *item, uint64_t byte_size, void **ret_data)
{
    int64_t shape[RANK_MAX];

    memcpy(shape, r->shape, r->rank * sizeof *shape);
    if (run->in->model->batching)
        shape[0] = item->batch_size;
    return kit_output_open(item->request.response, r->port->name, r->port->datatype, shape, r->rank,
                           byte_size, ret_data);
}

static TRITONSERVER_Error *deliver_numbers(const struct run *run, uint32_t output,
                                           const struct result *r)
{
    const struct engine *engine = run->in->model->engine;
    const size_t row_bytes = r->row_count * r->port->element_bytes;
    struct cut cut = { 0 };
    void *data, *memory;
    OrtStatus *status = engine->api.GetTensorMutableData(r->value, &data);

    if (status)
        return engine_error(engine, status);
    for (uint32_t m = 0; m < run->member_count; m++) {
        struct item *item = run->members[m];

        cut = next_cut(run, cut, m);
        if (item->error || !item->wanted[output])
            continue;
        item->error = open_output(run, r, item, cut.row_count * row_bytes, &memory);
        if (!item->error && row_bytes)
            memcpy(memory, (char *)data + cut.row * row_bytes, cut.row_count * row_bytes);
    }
    return NULL;
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
    uint64_t total = r->row_count * (uint64_t)(in->model->batching ? run->batch_size : 1);
    struct cut cut = { 0 };
    size_t *offsets, byte_size = 0;
    OrtStatus *status = api->GetStringTensorDataLength(r->value, &byte_size);
    TRITONSERVER_Error *err = engine_error(in->model->engine, status);

    if (!err)
        err = scratch_reserve(&in->string_bytes, byte_size);
    if (!err)
        err = scratch_reserve(&in->string_offsets, (total + 1) * sizeof *offsets);
    if (err)
        return err;
    offsets = in->string_offsets.data;
    if (total) {
        status =
            api->GetStringTensorContent(r->value, in->string_bytes.data, byte_size, offsets, total);
        if (status)
            return engine_error(in->model->engine, status);
    }
    offsets[total] = byte_size;

    for (uint32_t m = 0; m < run->member_count; m++) {
        struct item *item = run->members[m];
        uint64_t first, end;
        void *memory;

        cut = next_cut(run, cut, m);
        if (item->error || !item->wanted[output])
            continue;
        first = cut.row * r->row_count;
        end = first + cut.row_count * r->row_count;
        item->error =
            open_output(run, r, item,
                        (end - first) * sizeof(uint32_t) + offsets[end] - offsets[first], &memory);
        if (!item->error)
            write_strings(in->string_bytes.data, offsets, first, end, memory);
    }
    return NULL;
}

/* Puts what the engine has allocated into the responses. An error stands for all
 * members; an error of one member is left in it. */
static TRITONSERVER_Error *deliver(const struct run *run)
{
    TRITONSERVER_Error *err = NULL;

    for (uint32_t k = 0; !err && k < run->output_count; k++) {
        uint32_t output = run->in->output_ports[k];
        struct result result;

        if (run->in->output_lent[k])
            continue;
        err = read_result(run, k, &result);
        if (!err && result.port->datatype == TRITONSERVER_TYPE_BYTES)
            err = deliver_strings(run, output, &result);
        else if (!err)
            err = deliver_numbers(run, output, &result);
    }
    return err;
}

/* ---- Runs ---- */

static TRITONSERVER_Error *compute(struct run *run)
{
    const struct instance *in = run->in;
    OrtStatus *status = NULL;

    run->times.compute_start_ns = kit_now_ns();
    if (run->output_count) /* nothing asked for is nothing to do */
        status =
            in->model->engine->api.Run(in->model->session, in->model->run_options, in->input_names,
                                       (const OrtValue *const *)in->input_values, run->input_count,
                                       in->output_names, run->output_count, in->output_values);
    run->times.compute_end_ns = kit_now_ns();
    return engine_error(in->model->engine, status);
}

static void release_values(const struct run *run)
{
    const struct instance *in = run->in;

    for (uint32_t i = 0; i < run->input_count; i++) {
        if (in->input_values[i])
            in->model->engine->api.ReleaseValue(in->input_values[i]);
    }
    for (uint32_t i = 0; i < run->output_count; i++) {
        if (in->output_values[i])
            in->model->engine->api.ReleaseValue(in->output_values[i]);
    }
}

/* Answers every member: with its own error, with error (taken), or with its outputs. */
static void finish_members(struct run *run, TRITONSERVER_Error *error)
{
    for (uint32_t m = 0; m < run->member_count; m++) {
        struct item *item = run->members[m];
        TRITONSERVER_Error *own = item->error;

        if (!own && error)
            own = kit_error(TRITONSERVER_ErrorCode(error), "%s", TRITONSERVER_ErrorMessage(error));
        if (own)
            own = kit_error_wrap(own, "model '%s'", run->in->model->config.name);
        kit_request_finish(&item->request, run->in->handle, &run->times, own);
    }
    if (error)
        TRITONSERVER_ErrorDelete(error);
}

static void run_group(struct instance *in, struct item **members, uint32_t member_count,
                      const struct kit_times *times)
{
    struct run run = {
        .in = in, .members = members, .member_count = member_count, .times = *times
    };
    bool ran = false;
    TRITONSERVER_Error *err;

    for (uint32_t m = 0; m < member_count; m++)
        run.batch_size += members[m]->batch_size;

    err = create_inputs(&run);
    if (!err)
        err = prepare_outputs(&run);
    if (!err) {
        err = compute(&run);
        ran = !err;
    }
    if (err && member_count > 1) {
        KIT_LOG(TRITONSERVER_LOG_VERBOSE,
                "model '%s': a batch of %" PRIu32 " requests failed, running them one by one: %s",
                in->model->config.name, member_count, TRITONSERVER_ErrorMessage(err));
        TRITONSERVER_ErrorDelete(err);
        release_values(&run);
        for (uint32_t m = 0; m < member_count; m++)
            run_group(in, &members[m], 1, times);
        return;
    }
    if (!err)
        err = deliver(&run);
    /* Before any answer: a client that has its answer finds it counted. */
    if (ran)
        kit_batch_report(in->handle, (uint64_t)run.batch_size, &run.times);
    finish_members(&run, err);
    release_values(&run);
}

/* Moves the items that can run together with the first open one into in->group;
 * returns their number. */
static uint32_t next_group(struct instance *in, uint32_t item_count, uint32_t first)
{
    const struct model *model = in->model;
    int64_t batch_size = in->items[first].batch_size;
    uint32_t count = 1;

    in->group[0] = &in->items[first];
    for (uint32_t i = first + 1; model->batching && i < item_count; i++) {
        struct item *item = &in->items[i];

        if (!item->request.request || !items_match(model, in->group[0], item) ||
            batch_size + item->batch_size > model->config.batch_size_max)
            continue;
        batch_size += item->batch_size;
        in->group[count++] = item;
    }
    return count;
}

TRITONSERVER_Error *instance_execute(struct instance *in, TRITONBACKEND_Request **requests,
                                     uint32_t request_count)
{
    struct kit_times times = { .exec_start_ns = kit_now_ns() };
    uint32_t item_count = 0;
    TRITONSERVER_Error *err = reserve_items(in, request_count);

    if (err)
        return err;
    for (uint32_t i = 0; i < request_count; i++) {
        if (item_open(in, requests[i], &times, &in->items[item_count]))
            item_count++;
    }
    for (uint32_t i = 0; i < item_count; i++) {
        if (in->items[i].request.request) /* not finished with an earlier group */
            run_group(in, in->group, next_group(in, item_count, i), &times);
    }

    for (uint32_t i = 0; i < in->model->config.input_count; i++)
        scratch_trim(&in->input_scratch[i]);
    scratch_trim(&in->string_bytes);
    scratch_trim(&in->string_offsets);
    return NULL;
}
