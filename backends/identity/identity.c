/* identity.c - a backend that answers each request with its own inputs.
 *
 * It is the smallest complete backend, to be read as the example and used in
 * tests. A model has pairs of tensors INPUTx and OUTPUTx (x is any text, the same
 * in both; mostly a number) of one type and shape; all types and shapes work.
 *
 * Parameters in the model's configuration:
 *   execute_delay_ms                 each execution takes that long at least
 *   instance_wise_delay_multiplier   instance number i (from 0) takes the delay
 *                                    i * multiplier times, at least once
 *   creation_delay_sec               loading the model takes that long at least
 *
 * The life of a backend, as the functions below appear: the file is initialised
 * once; each model version is initialised, then each of its instances; instances
 * execute; all is finalised in the opposite order. What the backend must keep for
 * an object hangs on that object's state pointer.
 *
 * No model.onnx or the like is needed: the version's directory may be empty.
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kit/config.h"
#include "kit/request.h"
#include "kit/tensor.h"

/* One version of a model. */
struct identity_model {
    /* set by ModelInitialize, then constant */
    struct kit_config config;
    int64_t delay_ms;
    int64_t delay_multiplier;
    int64_t creation_delay_s;
    /* atomic */
    _Atomic int64_t instance_count;
};

/* One instance: constant. */
/* One request of an execution and what became of it. */
struct item {
    struct kit_request request;
    TRITONSERVER_Error *error;
};

struct identity_instance {
    const struct identity_model *model;
    int64_t delay_ms;
    struct item *items; /* scratch of Execute */
    uint32_t item_capacity;
};

static const int64_t DELAY_MS_MAX = 24 * 3600 * 1000;

TRITONSERVER_Error *TRITONBACKEND_Initialize(TRITONBACKEND_Backend *backend)
{
    (void)backend;
    return kit_api_check(0); /* uses nothing that is younger than 1.0 */
}

/* The input that output is a copy of; NULL when there is none. */
static const struct kit_tensor_config *source_of(const struct kit_config *config,
                                                 const char *output)
{
    if (strncmp(output, "OUTPUT", strlen("OUTPUT")) != 0)
        return NULL;
    for (uint32_t i = 0; i < config->input_count; i++) {
        const char *input = config->inputs[i].name;

        if (strncmp(input, "INPUT", strlen("INPUT")) == 0 &&
            strcmp(input + strlen("INPUT"), output + strlen("OUTPUT")) == 0)
            return &config->inputs[i];
    }
    return NULL;
}

static TRITONSERVER_Error *check_pair(const struct kit_config *config,
                                      const struct kit_tensor_config *output)
{
    const struct kit_tensor_config *input = source_of(config, output->name);
    char found[KIT_SHAPE_TEXT_BYTES], expected[KIT_SHAPE_TEXT_BYTES];

    if (!input)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "model '%s': output '%s' has no input to copy, expected pairs of names "
                         "such as INPUT0 and OUTPUT0",
                         config->name, output->name);
    if (input->datatype != output->datatype)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "model '%s': output '%s' has type %s, expected %s as input '%s'",
                         config->name, output->name, TRITONSERVER_DataTypeString(output->datatype),
                         TRITONSERVER_DataTypeString(input->datatype), input->name);
    if (input->dims_count != output->dims_count ||
        memcmp(input->dims, output->dims, input->dims_count * sizeof *input->dims) != 0)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "model '%s': output '%s' has shape %s, expected %s as input '%s'",
                         config->name, output->name,
                         kit_shape_text(output->dims, output->dims_count, found),
                         kit_shape_text(input->dims, input->dims_count, expected), input->name);
    return NULL;
}

static TRITONSERVER_Error *read_parameters(struct identity_model *model)
{
    const struct kit_config *config = &model->config;
    TRITONSERVER_Error *err;

    err = kit_config_parameter_int(config, "execute_delay_ms", 0, DELAY_MS_MAX, &model->delay_ms);
    if (!err)
        err = kit_config_parameter_int(config, "instance_wise_delay_multiplier", 0, 1000,
                                       &model->delay_multiplier);
    if (!err)
        err = kit_config_parameter_int(config, "creation_delay_sec", 0, DELAY_MS_MAX / 1000,
                                       &model->creation_delay_s);
    return err;
}

static void delay(int64_t ms)
{
    struct timespec left = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

    while (nanosleep(&left, &left) != 0)
        continue;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model *handle)
{
    struct identity_model *model = calloc(1, sizeof *model);
    TRITONSERVER_Error *err;

    if (!model)
        return kit_error_memory(sizeof *model, "a model");
    err = kit_config_load(handle, &model->config);
    if (!err)
        err = read_parameters(model);
    for (uint32_t i = 0; !err && i < model->config.output_count; i++)
        err = check_pair(&model->config, &model->config.outputs[i]);
    if (!err)
        err = TRITONBACKEND_ModelSetState(handle, model);
    if (err) {
        kit_config_fini(&model->config);
        free(model);
        return err;
    }
    if (model->creation_delay_s)
        delay(model->creation_delay_s * 1000);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model *handle)
{
    struct identity_model *model;
    void *state;
    TRITONSERVER_Error *err = TRITONBACKEND_ModelState(handle, &state);

    if (err)
        return err;
    model = state;
    if (model) /* NULL after a failed ModelInitialize */
        kit_config_fini(&model->config);
    free(model);
    return NULL;
}

static TRITONSERVER_Error *check_kind(TRITONBACKEND_ModelInstance *handle,
                                      const struct identity_model *model)
{
    TRITONSERVER_InstanceGroupKind kind;
    TRITONSERVER_Error *err = TRITONBACKEND_ModelInstanceKind(handle, &kind);

    if (!err && kind == TRITONSERVER_INSTANCEGROUPKIND_GPU)
        err = kit_error(TRITONSERVER_ERROR_UNSUPPORTED,
                        "model '%s': an instance has kind KIND_GPU, expected KIND_CPU",
                        model->config.name);
    return err;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance *handle)
{
    struct identity_instance *instance;
    struct identity_model *model;
    TRITONBACKEND_Model *model_handle;
    TRITONSERVER_Error *err;
    int64_t times;
    void *state;

    err = TRITONBACKEND_ModelInstanceModel(handle, &model_handle);
    if (!err)
        err = TRITONBACKEND_ModelState(model_handle, &state);
    if (err)
        return err;
    model = state;
    err = check_kind(handle, model);
    if (err)
        return err;

    instance = calloc(1, sizeof *instance);
    if (!instance)
        return kit_error_memory(sizeof *instance, "an instance");
    times = atomic_fetch_add(&model->instance_count, 1) * model->delay_multiplier;
    instance->model = model;
    instance->delay_ms = model->delay_ms * (times > 1 ? times : 1);

    err = TRITONBACKEND_ModelInstanceSetState(handle, instance);
    if (err)
        free(instance);
    return err;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance *handle)
{
    struct identity_instance *instance;
    void *state;
    TRITONSERVER_Error *err = TRITONBACKEND_ModelInstanceState(handle, &state);

    if (err)
        return err;
    instance = state;
    if (instance) /* NULL after a failed ModelInstanceInitialize */
        free(instance->items);
    free(instance);
    return NULL;
}

/* Copies the input that belongs to the output called name. */
static TRITONSERVER_Error *copy_pair(const struct kit_config *config,
                                     const struct kit_request *request, const char *name)
{
    const struct kit_tensor_config *source = source_of(config, name);
    struct kit_input input;
    TRITONSERVER_Error *err;
    void *data;

    if (!source)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG, "model '%s' has no output '%s'",
                         config->name, name);
    err = kit_input_open(request->request, source->name, &input);
    if (err)
        return kit_error_wrap(err, "model '%s': output '%s'", config->name, name);
    err = kit_output_open(request->response, name, input.datatype, input.shape, input.dims_count,
                          input.byte_size, &data);
    if (err)
        return err;
    return kit_input_copy(&input, data);
}

/* Fills in the outputs that the client asked for. */
static TRITONSERVER_Error *copy_outputs(const struct kit_config *config,
                                        const struct kit_request *request)
{
    uint32_t count;
    TRITONSERVER_Error *err = TRITONBACKEND_RequestOutputCount(request->request, &count);

    for (uint32_t i = 0; !err && i < count; i++) {
        const char *name;

        err = TRITONBACKEND_RequestOutputName(request->request, i, &name);
        if (!err)
            err = copy_pair(config, request, name);
    }
    return err;
}

/* The size of the request's batch; 1 where the model has no batch dimension. */
static TRITONSERVER_Error *batch_size_of(const struct kit_config *config,
                                         TRITONBACKEND_Request *request, uint64_t *ret_size)
{
    TRITONBACKEND_Input *input;
    const int64_t *shape;
    uint32_t dims_count;
    TRITONSERVER_Error *err;

    *ret_size = 1;
    if (config->batch_size_max == 0)
        return NULL;
    err = TRITONBACKEND_RequestInputByIndex(request, 0, &input);
    if (!err)
        err = TRITONBACKEND_InputProperties(input, NULL, NULL, &shape, &dims_count, NULL, NULL);
    if (!err && dims_count > 0)
        *ret_size = (uint64_t)shape[0];
    return err;
}

/* Room for the requests of one execution, kept from one to the next. */
static TRITONSERVER_Error *reserve_items(struct identity_instance *instance, uint32_t count)
{
    struct item *grown;

    if (count <= instance->item_capacity)
        return NULL;
    grown = realloc(instance->items, count * sizeof *grown);
    if (!grown)
        return kit_error_memory(count * sizeof *grown, "the requests of a batch");
    instance->items = grown;
    instance->item_capacity = count;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance *handle,
                                                       TRITONBACKEND_Request **requests,
                                                       uint32_t request_count)
{
    struct kit_times times = { .exec_start_ns = kit_now_ns() };
    struct identity_instance *instance = NULL;
    uint64_t batch_size = 0;
    uint32_t item_count = 0;
    void *state;
    TRITONSERVER_Error *err = TRITONBACKEND_ModelInstanceState(handle, &state);

    if (!err) {
        instance = state;
        err = reserve_items(instance, request_count);
    }
    if (err)
        return err; /* the requests stay with the server */

    /* From here on the requests are ours: each is answered and released below. */
    times.compute_start_ns = kit_now_ns();
    if (instance->delay_ms)
        delay(instance->delay_ms);

    for (uint32_t i = 0; i < request_count; i++) {
        struct item *item = &instance->items[item_count];
        uint64_t request_batch_size = 0;

        if (!kit_request_open(requests[i], handle, &times, &item->request))
            continue;
        item_count++;
        item->error = batch_size_of(&instance->model->config, requests[i], &request_batch_size);
        if (!item->error)
            item->error = copy_outputs(&instance->model->config, &item->request);
        batch_size += request_batch_size;
    }
    times.compute_end_ns = kit_now_ns();

    /* Counted before it is answered: a client that has its answer finds it in the statistics. */
    if (batch_size)
        kit_batch_report(handle, batch_size, &times);
    for (uint32_t i = 0; i < item_count; i++)
        kit_request_finish(&instance->items[i].request, handle, &times, instance->items[i].error);
    return NULL;
}
