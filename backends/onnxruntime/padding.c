/* padding.c - which inputs are filled up so that requests of unlike shapes share a run.
 *
 *   pad_batch        the element that fills inputs up, for all that have dims of -1
 *   pad_batch.NAME   the same for the input called NAME
 *
 * Inputs of type BYTES are never padded. An output follows an input's dimension where
 * the model gives both the same name, and is cut back to the request's own size; one
 * that follows none goes out as the model made it. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "onnxruntime/model.h"

#define KEY "pad_batch"

/* ---- The padding element ---- */

static bool parse_signed(const char *text, int bits, char *padding)
{
    const int64_t limit = INT64_MAX >> (64 - bits);
    char *end;
    int64_t value;

    errno = 0;
    value = strtoll(text, &end, 10);
    memcpy(padding, &value, sizeof value); /* little-endian: the low bytes are the element */
    return !errno && end != text && !*end && value >= -limit - 1 && value <= limit;
}

static bool parse_unsigned(const char *text, int bits, char *padding)
{
    char *end;
    uint64_t value;

    errno = 0;
    value = strtoull(text, &end, 10);
    memcpy(padding, &value, sizeof value);
    return !errno && end != text && !*end && !strchr(text, '-') &&
           value <= UINT64_MAX >> (64 - bits);
}

static bool parse_float(const char *text, TRITONSERVER_DataType datatype, char *padding)
{
    char *end;
    double value = strtod(text, &end);
    float narrow = (float)value;

    if (end == text || *end)
        return false;
    if (datatype == TRITONSERVER_TYPE_FP64)
        memcpy(padding, &value, sizeof value);
    else if (datatype == TRITONSERVER_TYPE_FP32)
        memcpy(padding, &narrow, sizeof narrow);
    else
        return value == 0; /* all bits 0, as padding is already */
    return true;
}

static bool parse_padding(const char *text, TRITONSERVER_DataType datatype, char *padding)
{
    const int bits = (int)TRITONSERVER_DataTypeByteSize(datatype) * 8;

    switch (datatype) {
    case TRITONSERVER_TYPE_INT8:
    case TRITONSERVER_TYPE_INT16:
    case TRITONSERVER_TYPE_INT32:
    case TRITONSERVER_TYPE_INT64:
        return parse_signed(text, bits, padding);
    case TRITONSERVER_TYPE_UINT8:
    case TRITONSERVER_TYPE_UINT16:
    case TRITONSERVER_TYPE_UINT32:
    case TRITONSERVER_TYPE_UINT64:
        return parse_unsigned(text, bits, padding);
    case TRITONSERVER_TYPE_BOOL:
        return parse_unsigned(text, 1, padding);
    default:
        return parse_float(text, datatype, padding);
    }
}

/* ---- Inputs ---- */

static bool can_pad(const struct port *port)
{
    if (port->datatype == TRITONSERVER_TYPE_BYTES || port->ragged || port->scalar)
        return false;
    for (uint32_t i = 0; i < port->config->dims_count; i++) {
        if (port->config->dims[i] == -1)
            return true;
    }
    return false;
}

static TRITONSERVER_Error *set_padding(struct port *port, const char *text)
{
    if (!parse_padding(text, port->datatype, port->padding))
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "'%s' is no padding for input '%s' of type %s, expected %s", text,
                         port->name, TRITONSERVER_DataTypeString(port->datatype),
                         port->datatype == TRITONSERVER_TYPE_FP16 ||
                                 port->datatype == TRITONSERVER_TYPE_BF16
                             ? "0"
                             : "a number of that type");
    port->padded = true;
    return NULL;
}

/* What parameter pad_batch, or with a name pad_batch.NAME, asks for. */
static TRITONSERVER_Error *apply(struct model *model, const char *name, const char *text)
{
    bool found = false;
    TRITONSERVER_Error *err = NULL;

    for (uint32_t i = 0; !err && i < model->config.input_count; i++) {
        struct port *port = &model->inputs[i];

        if (!can_pad(port) || (name && strcmp(name, port->name) != 0))
            continue;
        found = true;
        /* The parameter for one input is the stronger one. */
        if (name || !port->padded)
            err = set_padding(port, text);
    }
    if (err || found)
        return err;
    return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                     "there is no input%s%s%s that can be padded: it has dims of -1, a type other "
                     "than BYTES, and no allow_ragged_batch",
                     name ? " '" : "", name ? name : "", name ? "'" : "");
}

static TRITONSERVER_Error *apply_parameters(struct model *model, bool *ret_any)
{
    yyjson_val *key, *value;
    size_t i, max;

    *ret_any = false;
    yyjson_obj_foreach(kit_config_at(&model->config, "/parameters"), i, max, key, value)
    {
        const char *name = yyjson_get_str(key);
        const char *text = yyjson_get_str(yyjson_obj_get(value, "string_value"));
        const char *input = NULL;
        TRITONSERVER_Error *err;

        if (strncmp(name, KEY ".", sizeof KEY) == 0)
            input = name + sizeof KEY;
        if (!text || (!input && strcmp(name, KEY) != 0))
            continue;
        *ret_any = true;
        err = apply(model, input, text);
        if (err)
            return kit_error_wrap(err, "parameter '%s'", name);
    }
    return NULL;
}

/* ---- Dimensions of the same name ---- */

/* The first of input_count inputs that is padded in a dimension of this name. */
static struct tie find_tie(const struct model *model, uint32_t input_count, const char *dim_name)
{
    for (uint32_t i = 0; *dim_name && i < input_count; i++) {
        const struct port *port = &model->inputs[i];
        const struct signature_tensor *tensor =
            signature_find(model->signature.inputs, model->signature.input_count, port->name);

        for (uint32_t k = 1; port->padded && k < tensor->rank; k++) {
            if (port->config->dims[k - 1] == -1 && strcmp(tensor->dim_names[k], dim_name) == 0)
                return (struct tie){ i, k };
        }
    }
    return (struct tie){ 0 };
}

/* Ties the dimensions of port, tensor in the model, to those of the first input_count inputs. */
static TRITONSERVER_Error *tie(const struct model *model, uint32_t input_count,
                               const struct signature_tensor *tensor, struct port *port)
{
    bool any = false;

    if (tensor->rank == 0)
        return NULL;
    port->ties = calloc(tensor->rank, sizeof *port->ties);
    if (!port->ties)
        return kit_error_memory(tensor->rank * sizeof *port->ties, "an output's shape");
    port->tie_count = tensor->rank;
    for (uint32_t k = 1; k < tensor->rank; k++) {
        if (port->config->dims[k - 1] == -1)
            port->ties[k] = find_tie(model, input_count, tensor->dim_names[k]);
        any |= port->ties[k].dim > 0;
    }
    if (!any) {
        free(port->ties);
        port->ties = NULL;
        port->tie_count = 0;
    }
    return NULL;
}

static TRITONSERVER_Error *tie_input(const struct model *model, uint32_t index)
{
    struct port *port = &model->inputs[index];

    if (!port->padded)
        return NULL;
    return tie(model, index,
               signature_find(model->signature.inputs, model->signature.input_count, port->name),
               port);
}

static TRITONSERVER_Error *tie_output(const struct model *model, uint32_t index)
{
    struct port *port = &model->outputs[index];
    TRITONSERVER_Error *err;

    if (port->scatter)
        return NULL;
    err = tie(model, model->config.input_count,
              signature_find(model->signature.outputs, model->signature.output_count, port->name),
              port);
    if (!err && port->ties && port->datatype == TRITONSERVER_TYPE_BYTES)
        err = kit_error(TRITONSERVER_ERROR_UNSUPPORTED,
                        "output '%s' of type BYTES has a size of a padded input, and strings "
                        "cannot be cut back",
                        port->name);
    return err;
}

/* ---- The server ---- */

/* Requests meet in a batch when their inputs have like shapes, but for those with allow_ragged_batch. That
 * stands for itself here: the model's own configuration stays as it was read. */
static TRITONSERVER_Error *tell_server(TRITONBACKEND_Model *handle, const struct model *model)
{
    static const char ALLOW[] = "allow_ragged_batch";
    TRITONSERVER_Error *err;
    yyjson_mut_doc *doc = yyjson_doc_mut_copy(model->config.doc, NULL);
    yyjson_mut_val *inputs = yyjson_mut_obj_get(yyjson_mut_doc_get_root(doc), "input");
    yyjson_mut_val *input;
    bool ok = inputs != NULL;
    size_t i, max;

    yyjson_mut_arr_foreach(inputs, i, max, input)
    {
        if (!model->inputs[i].padded)
            continue;
        yyjson_mut_obj_remove_key(input, ALLOW);
        ok = ok && yyjson_mut_obj_add_true(doc, input, ALLOW);
    }
    err = ok ? config_set(handle, doc) : kit_error_memory(0, "a configuration with padding");
    yyjson_mut_doc_free(doc);
    return err;
}

TRITONSERVER_Error *padding_read(TRITONBACKEND_Model *handle, struct model *model)
{
    TRITONSERVER_Error *err = apply_parameters(model, &model->padding);

    if (!err && model->padding && !model->batching)
        err = kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                        "parameter '" KEY "' is for models with max_batch_size above 0");
    for (uint32_t i = 0; !err && model->padding && i < model->config.input_count; i++)
        err = tie_input(model, i);
    for (uint32_t i = 0; !err && model->padding && i < model->config.output_count; i++)
        err = tie_output(model, i);
    if (!err && model->padding)
        err = tell_server(handle, model);
    return err;
}
