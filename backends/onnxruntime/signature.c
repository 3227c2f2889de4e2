#include "onnxruntime/signature.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kit/tensor.h"

/* ---- Reading ---- */

typedef OrtStatus *(*name_fn)(const OrtSession *, size_t, OrtAllocator *, char **);
typedef OrtStatus *(*type_fn)(const OrtSession *, size_t, OrtTypeInfo **);

static bool copy_dim_names(const char *const *names, struct signature_tensor *tensor)
{
    for (uint32_t i = 0; i < tensor->rank; i++) {
        tensor->dim_names[i] = strdup(tensor->dims[i] == -1 ? names[i] : "");
        if (!tensor->dim_names[i])
            return false;
    }
    return true;
}

static OrtStatus *read_shape(const struct ort_api *api, const OrtTypeInfo *type,
                             struct signature_tensor *tensor, bool *ret_copied)
{
    const OrtTensorTypeAndShapeInfo *info = NULL; /* part of type */
    const char *dim_names[RANK_MAX];              /* borrowed from it */
    size_t rank = 0;
    OrtStatus *status = api->CastTypeInfoToTensorInfo(type, &info);

    if (status || !info)
        return status;
    status = api->GetDimensionsCount(info, &rank);
    if (status)
        return status;
    if (rank > RANK_MAX) /* as good as a foreign type */
        return NULL;
    tensor->rank = (uint32_t)rank;
    status = api->GetDimensions(info, tensor->dims, rank);
    if (!status)
        status = api->GetSymbolicDimensions(info, dim_names, rank);
    if (!status)
        *ret_copied = copy_dim_names(dim_names, tensor);
    if (!status)
        status = api->GetTensorElementType(info, &tensor->element);
    if (!status && datatype_from_element(tensor->element) == TRITONSERVER_TYPE_INVALID)
        tensor->element = ORT_ELEMENT_UNDEFINED;
    return status;
}

static TRITONSERVER_Error *read_tensor(const struct engine *engine, const OrtSession *session,
                                       size_t index, name_fn get_name, type_fn get_type,
                                       struct signature_tensor *tensor)
{
    const struct ort_api *api = &engine->api;
    OrtTypeInfo *type = NULL;
    char *name = NULL;
    bool copied = true;
    OrtStatus *status = get_name(session, index, engine->allocator, &name);

    if (status)
        return engine_error(engine, status);
    tensor->name = strdup(name);
    status = api->AllocatorFree(engine->allocator, name);
    if (!status)
        status = get_type(session, index, &type);
    if (!status)
        status = read_shape(api, type, tensor, &copied);
    if (type)
        api->ReleaseTypeInfo(type);
    if (!status && (!tensor->name || !copied))
        return kit_error_memory(0, "a tensor's name");
    return engine_error(engine, status);
}

TRITONSERVER_Error *signature_read(const struct engine *engine, const OrtSession *session,
                                   struct signature *ret_signature)
{
    const struct ort_api *api = &engine->api;
    struct signature s = { 0 };
    size_t required_count = 0, optional_count = 0;
    OrtStatus *status = api->SessionGetInputCount(session, &required_count);
    TRITONSERVER_Error *err;

    if (!status)
        status = api->SessionGetOverridableInitializerCount(session, &optional_count);
    if (!status)
        status = api->SessionGetOutputCount(session, &s.output_count);
    if (status)
        return engine_error(engine, status);

    s.input_count = required_count + optional_count;
    s.inputs = calloc(s.input_count + 1, sizeof *s.inputs);
    s.outputs = calloc(s.output_count + 1, sizeof *s.outputs);
    err = s.inputs && s.outputs ? NULL : kit_error_memory(0, "a model's signature");

    for (size_t i = 0; !err && i < required_count; i++) {
        s.inputs[i].required = true;
        err = read_tensor(engine, session, i, api->SessionGetInputName,
                          api->SessionGetInputTypeInfo, &s.inputs[i]);
    }
    for (size_t i = 0; !err && i < optional_count; i++)
        err = read_tensor(engine, session, i, api->SessionGetOverridableInitializerName,
                          api->SessionGetOverridableInitializerTypeInfo,
                          &s.inputs[required_count + i]);
    for (size_t i = 0; !err && i < s.output_count; i++)
        err = read_tensor(engine, session, i, api->SessionGetOutputName,
                          api->SessionGetOutputTypeInfo, &s.outputs[i]);
    if (err) {
        signature_fini(&s);
        return err;
    }
    *ret_signature = s;
    return NULL;
}

static void free_tensors(struct signature_tensor *tensors, size_t count)
{
    for (size_t i = 0; tensors && i < count; i++) {
        free(tensors[i].name);
        for (uint32_t k = 0; k < tensors[i].rank; k++)
            free(tensors[i].dim_names[k]);
    }
    free(tensors);
}

void signature_fini(struct signature *signature)
{
    free_tensors(signature->inputs, signature->input_count);
    free_tensors(signature->outputs, signature->output_count);
    *signature = (struct signature){ 0 };
}

const struct signature_tensor *signature_find(const struct signature_tensor *tensors, size_t count,
                                              const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(tensors[i].name, name) == 0)
            return &tensors[i];
    }
    return NULL;
}

bool signature_has_batch_dim(const struct signature *s)
{
    for (size_t i = 0; i < s->input_count; i++) {
        if (s->inputs[i].required && (s->inputs[i].rank == 0 || s->inputs[i].dims[0] != -1))
            return false;
    }
    for (size_t i = 0; i < s->output_count; i++) {
        if (s->outputs[i].rank == 0 || s->outputs[i].dims[0] != -1)
            return false;
    }
    return s->input_count > 0;
}

/* ---- Checking ---- */

/* The contradictions found so far, "a; b; c". */
struct findings {
    char text[KIT_TEXT_BYTES_MAX - 256];
    size_t used;
};

static void PRINTF_LIKE(2, 3) add_finding(struct findings *f, const char *format, ...)
{
    size_t room = sizeof f->text - f->used;
    va_list args;
    int length;

    if (f->used)
        f->used += (size_t)snprintf(f->text + f->used, room, "; ");
    if (f->used >= sizeof f->text)
        f->used = sizeof f->text - 1;

    room = sizeof f->text - f->used;
    va_start(args, format);
    length = vsnprintf(f->text + f->used, room, format, args);
    va_end(args);
    f->used += (size_t)length < room ? (size_t)length : room - 1;
}

/* Whether the model takes (or gives) what the configuration promises. */
static bool shapes_agree(const struct signature_tensor *model, const int64_t *dims,
                         uint32_t dims_count, bool batching)
{
    if (model->rank == 0) /* a scalar, or unknown: only running can tell */
        return true;
    if (model->rank != dims_count || (batching && model->dims[0] != -1))
        return false;
    for (uint32_t i = 0; i < dims_count; i++) {
        if (model->dims[i] != -1 && model->dims[i] != dims[i])
            return false;
    }
    return true;
}

static bool lacks_batch_size(const struct signature_tensor *model, uint32_t dims_count,
                             bool batching)
{
    return !batching && model->rank == dims_count + 1 && model->dims[0] == -1;
}

/* flat: the model has one dimension for the whole batch, whatever shape clients see. */
static void check_tensor(const char *kind, const struct kit_tensor_config *tensor,
                         const struct signature_tensor *model, bool batching, bool flat,
                         struct findings *f)
{
    char found[KIT_SHAPE_TEXT_BYTES], expected[KIT_SHAPE_TEXT_BYTES];
    ONNXTensorElementDataType element = element_from_datatype(tensor->datatype);
    uint32_t dims_count = tensor->dims_count + batching;
    int64_t dims[RANK_MAX];

    if (model->element == ORT_ELEMENT_UNDEFINED) {
        add_finding(f, "%s '%s' is in the model no tensor of a type that the server has", kind,
                    tensor->name);
        return;
    }
    if (element != model->element)
        add_finding(f, "%s '%s' has type %s, the model has %s", kind, tensor->name,
                    TRITONSERVER_DataTypeString(tensor->datatype),
                    TRITONSERVER_DataTypeString(datatype_from_element(model->element)));
    if (dims_count > RANK_MAX) {
        add_finding(f, "%s '%s' has %" PRIu32 " dimensions, the limit is %d", kind, tensor->name,
                    dims_count, RANK_MAX);
        return;
    }

    if (flat)
        return;
    dims[0] = -1;
    memcpy(dims + batching, tensor->dims, tensor->dims_count * sizeof *dims);
    if (!shapes_agree(model, dims, dims_count, batching))
        add_finding(f, "%s '%s' has shape %s%s, the model has %s%s", kind, tensor->name,
                    kit_shape_text(dims, dims_count, found),
                    batching ? " (the first is the batch: max_batch_size > 0)" : "",
                    kit_shape_text(model->dims, model->rank, expected),
                    lacks_batch_size(model, dims_count, batching)
                        ? " (the first may be the batch: is max_batch_size missing?)"
                        : "");
}

/* The names of tensors, "'a', 'b'". */
static const char *name_list(const struct signature_tensor *tensors, size_t count, char *text,
                             size_t text_bytes)
{
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 0; i < count && used < text_bytes; i++)
        used += (size_t)snprintf(text + used, text_bytes - used, "%s'%s'", i ? ", " : "",
                                 tensors[i].name);
    return text;
}

static void add_unknown(const char *kind, const char *name, const struct signature_tensor *model,
                        size_t model_count, struct findings *f)
{
    char names[512];

    add_finding(f, "%s '%s' is not in the model, which has %s", kind, name,
                name_list(model, model_count, names, sizeof names));
}

static void check_ragged(const struct kit_tensor_config *input,
                         const struct signature_tensor *model, struct findings *f)
{
    char text[KIT_SHAPE_TEXT_BYTES];

    if (!input->ragged)
        return;
    if (model->rank != 1 || model->dims[0] != -1)
        add_finding(
            f, "input '%s' has allow_ragged_batch, for which the model's shape %s must be [-1]",
            input->name, kit_shape_text(model->dims, model->rank, text));
    if (input->optional)
        add_finding(f, "input '%s' has allow_ragged_batch and cannot be optional", input->name);
}

static void check_inputs(const struct signature *s, const struct kit_config *config,
                         struct findings *f)
{
    for (uint32_t i = 0; i < config->input_count; i++) {
        const struct kit_tensor_config *input = &config->inputs[i];
        const struct signature_tensor *model =
            signature_find(s->inputs, s->input_count, input->name);

        if (model) {
            check_tensor("input", input, model, config->batch_size_max > 0, input->ragged, f);
            check_ragged(input, model, f);
        } else {
            add_unknown("input", input->name, s->inputs, s->input_count, f);
        }
    }
}

/* What an output that is cut by the shapes of an input needs, to be cut. */
static void check_batch_output(const struct kit_config *config,
                               const struct kit_batch_output *scatter, struct findings *f)
{
    const struct kit_tensor_config *output = &config->outputs[scatter->target];
    const struct kit_tensor_config *source = &config->inputs[scatter->source];

    if (output->datatype == TRITONSERVER_TYPE_BYTES)
        add_finding(f, "output '%s' has a batch_output and cannot be of type BYTES", output->name);
    if (source->optional)
        add_finding(f, "input '%s' is the source of a batch_output and cannot be optional",
                    source->name);
    for (uint32_t i = source->dims_count; i < output->dims_count; i++) {
        if (output->dims[i] == -1)
            add_finding(f,
                        "output '%s' would take the size of its dims entry %" PRIu32
                        " from input '%s', which has %" PRIu32 " dims",
                        output->name, i, source->name, source->dims_count);
    }
}

static const struct kit_batch_output *find_batch_output(const struct kit_config *config,
                                                        uint32_t output)
{
    for (uint32_t i = 0; i < config->batch_output_count; i++) {
        if (config->batch_outputs[i].target == output)
            return &config->batch_outputs[i];
    }
    return NULL;
}

static void check_outputs(const struct signature *s, const struct kit_config *config,
                          struct findings *f)
{
    for (uint32_t i = 0; i < config->output_count; i++) {
        const struct kit_tensor_config *output = &config->outputs[i];
        const struct kit_batch_output *scatter = find_batch_output(config, i);
        const struct signature_tensor *model =
            signature_find(s->outputs, s->output_count, output->name);

        if (model)
            check_tensor("output", output, model, config->batch_size_max > 0, scatter, f);
        else
            add_unknown("output", output->name, s->outputs, s->output_count, f);
        if (scatter)
            check_batch_output(config, scatter, f);
    }
}

/* The tensor that the backend makes is one that the model takes. */
static void check_batch_inputs(const struct signature *s, const struct kit_config *config,
                               struct findings *f)
{
    for (uint32_t i = 0; i < config->batch_input_count; i++) {
        const struct kit_batch_input *input = &config->batch_inputs[i];
        const struct kit_tensor_config *source = &config->inputs[input->source];
        const struct signature_tensor *model =
            signature_find(s->inputs, s->input_count, input->target);
        const int64_t shape[] = { -1, source->dims_count };
        const uint32_t rank = input->kind == KIT_ITEM_SHAPE ? 2 : 1;
        char found[KIT_SHAPE_TEXT_BYTES], expected[KIT_SHAPE_TEXT_BYTES];

        if (source->optional)
            add_finding(f, "input '%s' is the source of a batch_input and cannot be optional",
                        source->name);
        if (!model) {
            add_unknown("batch_input", input->target, s->inputs, s->input_count, f);
            continue;
        }
        if (element_from_datatype(input->datatype) != model->element)
            add_finding(f, "batch_input '%s' has type %s, the model has %s", input->target,
                        TRITONSERVER_DataTypeString(input->datatype),
                        TRITONSERVER_DataTypeString(datatype_from_element(model->element)));
        if (!shapes_agree(model, shape, rank, true))
            add_finding(f, "batch_input '%s' has shape %s, the model has %s", input->target,
                        kit_shape_text(shape, rank, found),
                        kit_shape_text(model->dims, model->rank, expected));
    }
}

bool config_has_input(const struct kit_config *config, const char *name)
{
    for (uint32_t i = 0; i < config->input_count; i++) {
        if (strcmp(config->inputs[i].name, name) == 0)
            return true;
    }
    for (uint32_t i = 0; i < config->batch_input_count; i++) {
        if (strcmp(config->batch_inputs[i].target, name) == 0)
            return true;
    }
    return false;
}

TRITONSERVER_Error *signature_check(const struct signature *s, const struct kit_config *config)
{
    struct findings f = { .used = 0 };

    check_inputs(s, config, &f);
    check_batch_inputs(s, config, &f);
    check_outputs(s, config, &f);
    for (size_t i = 0; i < s->input_count; i++) {
        if (s->inputs[i].required && !config_has_input(config, s->inputs[i].name))
            add_finding(&f, "input '%s' of the model is not in the configuration",
                        s->inputs[i].name);
    }
    if (!f.used)
        return NULL;
    return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                     "the configuration contradicts the ONNX model: %s", f.text);
}

static void add_missing(struct findings *f, const char *kind, const struct signature_tensor *tensor)
{
    char shape[KIT_SHAPE_TEXT_BYTES];

    add_finding(f, "%s '%s' of type %s and shape %s", kind, tensor->name,
                tensor->element == ORT_ELEMENT_UNDEFINED
                    ? "unknown"
                    : TRITONSERVER_DataTypeString(datatype_from_element(tensor->element)),
                kit_shape_text(tensor->dims, tensor->rank, shape));
}

TRITONSERVER_Error *signature_check_complete(const struct signature *s,
                                             const struct kit_config *config)
{
    struct findings f = { .used = 0 };

    for (uint32_t i = 0; i < config->input_count; i++) {
        /* A wrong name rather than a missing input. */
        if (!signature_find(s->inputs, s->input_count, config->inputs[i].name))
            return NULL;
    }
    for (size_t i = 0; i < s->input_count; i++) {
        if (s->inputs[i].required && !config_has_input(config, s->inputs[i].name))
            add_missing(&f, "input", &s->inputs[i]);
    }
    for (size_t i = 0; i < s->output_count && config->output_count == 0; i++)
        add_missing(&f, "output", &s->outputs[i]);
    if (!f.used)
        return NULL;
    return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                     "the configuration is incomplete, and the server may not complete it "
                     "(--strict-model-config, --disable-auto-complete-config); it lacks %s",
                     f.text);
}
