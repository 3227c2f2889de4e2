/* How a batch is executed.
 *
 * The requests of a batch become items: their inputs looked up and checked. Items
 * whose shapes agree apart from the batch dimension form a group; the engine runs
 * once for each group, normally once for the batch. The inputs of a group are laid
 * end to end in scratch memory, and its outputs cut up again; a group of one needs
 * neither: the engine reads the input where the server has it and, when the shape
 * is known before, writes the output where the response will be sent from.
 *
 * Ragged inputs do not keep items apart: they become one flat tensor, and the batch
 * inputs of the configuration tell the model about the parts (kit/ragged.h). Padded
 * inputs need not agree either: the smaller ones are filled up, and outputs that follow
 * them are cut back (padding.c).
 *
 * One bad request does not harm the others: what can be checked is checked item by
 * item, and a group that fails as a whole is run again one by one.
 */
#include "onnxruntime/instance_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- Memory ---- */

TRITONSERVER_Error *scratch_reserve(struct scratch *scratch, size_t byte_size)
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
    free(in->sources);
    in->items = NULL;
    in->group = NULL;
    in->item_inputs = NULL;
    in->item_scalars = NULL;
    in->item_wanted = NULL;
    in->sources = NULL;
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
    in->sources = calloc(count, sizeof *in->sources);
    if (!in->items || !in->group || !in->item_inputs || !in->item_scalars || !in->item_wanted ||
        !in->sources) {
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

static uint32_t engine_input_count(const struct model *model)
{
    return model->config.input_count + model->config.batch_input_count;
}

TRITONSERVER_Error *instance_create(const struct model *model, TRITONBACKEND_ModelInstance *handle,
                                    struct instance **ret_instance)
{
    size_t inputs = engine_input_count(model) + 1, outputs = model->config.output_count + 1;
    struct instance *in = calloc(1, sizeof *in);
    TRITONSERVER_Error *err;

    if (!in)
        return kit_error_memory(sizeof *in, "an instance");
    in->model = model;
    in->handle = handle;
    in->input_names = calloc(inputs, sizeof *in->input_names);
    in->input_values = calloc(inputs, sizeof *in->input_values);
    in->input_scratch = calloc(inputs, sizeof *in->input_scratch);
    in->joints = calloc(model->padding ? inputs : 1, sizeof *in->joints);
    in->output_names = calloc(outputs, sizeof *in->output_names);
    in->output_values = calloc(outputs, sizeof *in->output_values);
    in->output_ports = calloc(outputs, sizeof *in->output_ports);
    in->output_lent = calloc(outputs, sizeof *in->output_lent);
    in->results = calloc(outputs, sizeof *in->results);
    if (!in->input_names || !in->input_values || !in->input_scratch || !in->output_names ||
        !in->output_values || !in->output_ports || !in->output_lent || !in->results ||
        !in->joints) {
        instance_destroy(in);
        return kit_error_memory((inputs + outputs) * sizeof(void *), "an instance");
    }
    err = session_take(model->sessions, &in->session);
    if (err) {
        instance_destroy(in);
        return kit_error_wrap(err, "model '%s'", model->config.name);
    }
    *ret_instance = in;
    return NULL;
}

void instance_destroy(struct instance *in)
{
    if (!in)
        return;
    session_release(in->model->sessions, in->session);
    for (uint32_t i = 0; in->input_scratch && i < engine_input_count(in->model); i++)
        free(in->input_scratch[i].data);
    free(in->string_bytes.data);
    free(in->string_offsets.data);
    free(in->piece.data);
    free_items(in);
    free(in->input_names);
    free(in->input_values);
    free(in->input_scratch);
    free(in->joints);
    free(in->output_names);
    free(in->output_values);
    free(in->output_ports);
    free(in->output_lent);
    free(in->results);
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
    if (port->padded && input->dims_count != port->config->dims_count + 1)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "input '%s' has %" PRIu32 " dimensions, expected %" PRIu32, port->name,
                         input->dims_count, port->config->dims_count + 1);
    if (model->batching)
        err = check_batch_size(input, is_first, item);
    if (!err)
        err = check_size(port, input, item->batch_size, &count);
    if (!err && port->scalar && model->batching)
        err = read_scalar(port, input, count, &item->scalars[index]);
    return err;
}

/* Checks that padded inputs agree in the sizes that the model calls by one name: filled
 * up they would, and the model could not tell any more. */
static TRITONSERVER_Error *check_ties(const struct model *model, const struct item *item)
{
    for (uint32_t i = 0; i < model->config.input_count; i++) {
        const struct kit_input *input = &item->inputs[i];

        for (uint32_t k = 1; input->handle && k < model->inputs[i].tie_count; k++) {
            const struct tie tie = model->inputs[i].ties[k];
            const struct kit_input *other = &item->inputs[tie.input];

            if (tie.dim > 0 && other->handle && input->shape[k] != other->shape[tie.dim])
                return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                                 "input '%s' has size %" PRId64 " in dimension %" PRIu32
                                 ", expected %" PRId64 " as input '%s' in dimension %" PRIu32,
                                 input->name, input->shape[k], k, other->shape[tie.dim],
                                 other->name, tie.dim);
        }
    }
    return NULL;
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
    if (!err && model->padding)
        err = check_ties(model, item);
    if (!err)
        return true;
    kit_request_finish(&item->request, in->handle, times,
                       kit_error_wrap(err, "model '%s'", model->config.name));
    return false;
}

/* ---- Groups: which items run together ---- */

/* Whether the shapes of two items allow them to share a run. */
static bool shapes_match(const struct port *port, const struct kit_input *x,
                         const struct kit_input *y)
{
    for (uint32_t i = 1; i < x->dims_count; i++) {
        if (x->shape[i] != y->shape[i] && !(port->padded && port->config->dims[i - 1] == -1))
            return false;
    }
    return true;
}

/* Whether two items can share a run. */
static bool items_match(const struct model *model, const struct item *a, const struct item *b)
{
    for (uint32_t i = 0; i < model->config.input_count; i++) {
        const struct port *port = &model->inputs[i];
        const struct kit_input *x = &a->inputs[i], *y = &b->inputs[i];

        if (!x->handle != !y->handle || x->dims_count != y->dims_count)
            return false;
        if (!x->handle || port->ragged)
            continue;
        if (port->scalar ? a->scalars[i] != b->scalars[i] : !shapes_match(port, x, y))
            return false;
    }
    return true;
}

/* What padding may cost: a group's inputs grow to this many times their size, or to
 * this many bytes. Beyond, running the large ones apart is cheaper; and no client
 * should be able to make two small requests a large one. */
static const uint64_t PAD_FACTOR_MAX = 8;
static const uint64_t PAD_BYTES_FREE = 1 << 20;

/* Adds input to what the group has of it; false when the padding would cost too much. */
static bool join(const struct port *port, const struct kit_input *input, int64_t rows,
                 const struct joint *old, struct joint *ret_joint)
{
    uint64_t bytes = (uint64_t)rows * port->element_bytes;

    ret_joint->byte_size = old->byte_size + input->byte_size;
    for (uint32_t k = 1; k < input->dims_count; k++) {
        ret_joint->shape[k] = input->shape[k] > old->shape[k] ? input->shape[k] : old->shape[k];
        if (__builtin_mul_overflow(bytes, (uint64_t)ret_joint->shape[k], &bytes))
            return false;
    }
    return bytes <= PAD_BYTES_FREE || bytes / PAD_FACTOR_MAX <= ret_joint->byte_size;
}

/* Adds item to the group's padded inputs, of rows rows with it; false leaves them as they were. */
static bool join_all(struct instance *in, const struct item *item, int64_t rows)
{
    for (int commit = 0; commit < 2; commit++) {
        for (uint32_t i = 0; i < in->model->config.input_count; i++) {
            struct joint joint;

            if (!in->model->inputs[i].padded || !item->inputs[i].handle)
                continue;
            if (!join(&in->model->inputs[i], &item->inputs[i], rows, &in->joints[i], &joint))
                return false;
            if (commit)
                in->joints[i] = joint;
        }
    }
    return true;
}

/* Moves the items that can run together with the first open one into in->group;
 * returns their number. */
static uint32_t next_group(struct instance *in, uint32_t item_count, uint32_t first)
{
    const struct model *model = in->model;
    int64_t batch_size = in->items[first].batch_size;
    uint32_t count = 1;

    in->group[0] = &in->items[first];
    if (model->padding) {
        memset(in->joints, 0, model->config.input_count * sizeof *in->joints);
        join_all(in, in->group[0], batch_size);
    }
    for (uint32_t i = first + 1; model->batching && i < item_count; i++) {
        struct item *item = &in->items[i];

        if (!item->request.request || !items_match(model, in->group[0], item) ||
            batch_size + item->batch_size > model->config.batch_size_max)
            continue;
        if (model->padding && !join_all(in, item, batch_size + item->batch_size))
            continue;
        batch_size += item->batch_size;
        in->group[count++] = item;
    }
    return count;
}

/* ---- Runs ---- */

static TRITONSERVER_Error *compute(struct run *run)
{
    const struct instance *in = run->in;
    OrtStatus *status = NULL;

    run->times.compute_start_ns = kit_now_ns();
    if (run->output_count) /* nothing asked for is nothing to do */
        status =
            in->model->engine->api.Run(in->session, in->model->run_options, in->input_names,
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

    err = inputs_create(&run);
    if (!err)
        err = outputs_prepare(&run);
    if (!err) {
        err = compute(&run);
        ran = !err;
    }
    if (!err)
        err = outputs_read(&run);
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
        err = outputs_deliver(&run);
    /* Before any answer: a client that has its answer finds it counted. */
    if (ran)
        kit_batch_report(in->handle, (uint64_t)run.batch_size, &run.times);
    finish_members(&run, err);
    release_values(&run);
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

    for (uint32_t i = 0; i < engine_input_count(in->model); i++)
        scratch_trim(&in->input_scratch[i]);
    scratch_trim(&in->string_bytes);
    scratch_trim(&in->string_offsets);
    scratch_trim(&in->piece);
    return NULL;
}
