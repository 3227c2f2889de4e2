#include "kit/config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

TRITONSERVER_Error *kit_api_check(uint32_t minor_needed)
{
    uint32_t major, minor;
    TRITONSERVER_Error *err = TRITONBACKEND_ApiVersion(&major, &minor);

    if (err)
        return err;
    if (major != TRITONBACKEND_API_VERSION_MAJOR || minor < minor_needed)
        return kit_error(TRITONSERVER_ERROR_UNSUPPORTED,
                         "the server has backend API %" PRIu32 ".%" PRIu32 ", expected %d.%" PRIu32
                         " or a later minor version",
                         major, minor, TRITONBACKEND_API_VERSION_MAJOR, minor_needed);
    return NULL;
}

/* "TYPE_FP32" in configurations is "FP32" elsewhere, but strings have two names. */
static TRITONSERVER_DataType parse_datatype(const char *text)
{
    if (!text || strncmp(text, "TYPE_", 5) != 0)
        return TRITONSERVER_TYPE_INVALID;
    if (strcmp(text, "TYPE_STRING") == 0)
        return TRITONSERVER_TYPE_BYTES;
    return TRITONSERVER_StringToDataType(text + 5);
}

/* 64-bit integers come as numbers; protobuf's own JSON writer makes strings of them. */
static bool read_int(yyjson_val *value, int64_t *ret_number)
{
    if (yyjson_is_int(value)) {
        *ret_number = yyjson_get_sint(value);
        return true;
    }
    if (yyjson_is_str(value)) {
        char *end;
        long long number;

        errno = 0;
        number = strtoll(yyjson_get_str(value), &end, 10);
        if (errno || end == yyjson_get_str(value) || *end)
            return false;
        *ret_number = number;
        return true;
    }
    return false;
}

static TRITONSERVER_Error *read_dims(yyjson_val *list, struct kit_tensor_config *tensor)
{
    size_t count = yyjson_arr_size(list), i, max;
    int64_t *dims = calloc(count + 1, sizeof *dims); /* one more: calloc(0) may be NULL */
    yyjson_val *value;

    if (!dims)
        return kit_error_memory((count + 1) * sizeof *dims, "the dims of a tensor");
    tensor->dims = dims;
    tensor->dims_count = (uint32_t)count;

    yyjson_arr_foreach(list, i, max, value)
    {
        if (!read_int(value, &dims[i]) || dims[i] < -1)
            return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                             "tensor '%s': dims entry %zu is not a size or -1", tensor->name, i);
    }
    return NULL;
}

static TRITONSERVER_Error *read_tensor(yyjson_val *value, struct kit_tensor_config *tensor)
{
    yyjson_val *shape = yyjson_obj_get(yyjson_obj_get(value, "reshape"), "shape");
    const char *datatype = yyjson_get_str(yyjson_obj_get(value, "data_type"));

    tensor->name = yyjson_get_str(yyjson_obj_get(value, "name"));
    if (!tensor->name)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG, "an input or output has no name");
    /* "TYPE_INVALID" stands for a type that is still to be derived from the model. */
    tensor->datatype = parse_datatype(datatype);
    if (tensor->datatype == TRITONSERVER_TYPE_INVALID &&
        (!datatype || strcmp(datatype, "TYPE_INVALID") != 0))
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG, "tensor '%s': unknown data_type '%s'",
                         tensor->name, datatype ? datatype : "");
    tensor->optional = yyjson_get_bool(yyjson_obj_get(value, "optional"));
    tensor->ragged = yyjson_get_bool(yyjson_obj_get(value, "allow_ragged_batch"));

    tensor->has_dims = yyjson_arr_size(yyjson_obj_get(value, "dims")) > 0;

    /* An empty reshape is the message's printed default unless reshape itself is there. */
    return read_dims(yyjson_obj_get(value, "reshape") ? shape : yyjson_obj_get(value, "dims"),
                     tensor);
}

static TRITONSERVER_Error *read_tensors(yyjson_val *list, struct kit_tensor_config **ret_tensors,
                                        uint32_t *ret_count)
{
    size_t count = yyjson_arr_size(list), i, max;
    yyjson_val *value;

    *ret_tensors = calloc(count + 1, sizeof **ret_tensors);
    if (!*ret_tensors)
        return kit_error_memory((count + 1) * sizeof **ret_tensors, "a configuration");
    *ret_count = (uint32_t)count;

    yyjson_arr_foreach(list, i, max, value)
    {
        TRITONSERVER_Error *err = read_tensor(value, &(*ret_tensors)[i]);

        if (err)
            return err;
    }
    return NULL;
}

/* ---- Batch inputs and outputs ---- */

static const char *const KIND_NAMES[] = {
    [KIT_ELEMENT_COUNT] = "BATCH_ELEMENT_COUNT",
    [KIT_ACCUMULATED_ELEMENT_COUNT] = "BATCH_ACCUMULATED_ELEMENT_COUNT",
    [KIT_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO] = "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
    [KIT_MAX_ELEMENT_COUNT_AS_SHAPE] = "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE",
    [KIT_ITEM_SHAPE] = "BATCH_ITEM_SHAPE",
    [KIT_ITEM_SHAPE_FLATTEN] = "BATCH_ITEM_SHAPE_FLATTEN",
};

static TRITONSERVER_Error *find_tensor(const struct kit_tensor_config *tensors, uint32_t count,
                                       const char *what, const char *name, uint32_t *ret_index)
{
    for (uint32_t i = 0; name && i < count; i++) {
        if (strcmp(tensors[i].name, name) == 0) {
            *ret_index = i;
            return NULL;
        }
    }
    return kit_error(TRITONSERVER_ERROR_INVALID_ARG, "%s '%s' is not in the configuration", what,
                     name ? name : "");
}

static TRITONSERVER_Error *find_source(const struct kit_config *config, yyjson_val *entry,
                                       uint32_t *ret_source)
{
    yyjson_val *names = yyjson_obj_get(entry, "source_input");

    if (yyjson_arr_size(names) != 1)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "there are %zu of source_input, expected one", yyjson_arr_size(names));
    return find_tensor(config->inputs, config->input_count, "the source",
                       yyjson_get_str(yyjson_arr_get_first(names)), ret_source);
}

static TRITONSERVER_Error *read_batch_input(const struct kit_config *config, yyjson_val *entry,
                                            struct kit_batch_input *ret_input)
{
    const char *kind = yyjson_get_str(yyjson_obj_get(entry, "kind"));
    struct kit_batch_input input = { 0 };
    size_t k = 0;

    while (k < sizeof KIND_NAMES / sizeof *KIND_NAMES &&
           (!kind || strcmp(KIND_NAMES[k], kind) != 0))
        k++;
    if (k == sizeof KIND_NAMES / sizeof *KIND_NAMES)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG, "unknown kind '%s'", kind ? kind : "");
    input.kind = (enum kit_batch_input_kind)k;

    input.datatype = parse_datatype(yyjson_get_str(yyjson_obj_get(entry, "data_type")));
    if (input.datatype != TRITONSERVER_TYPE_INT32 && input.datatype != TRITONSERVER_TYPE_FP32)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "data_type is %s, expected TYPE_INT32 or TYPE_FP32",
                         TRITONSERVER_DataTypeString(input.datatype));
    *ret_input = input;
    return find_source(config, entry, &ret_input->source);
}

static size_t count_targets(yyjson_val *list)
{
    size_t count = 0, i, max;
    yyjson_val *entry;

    yyjson_arr_foreach(list, i, max, entry) count +=
        yyjson_arr_size(yyjson_obj_get(entry, "target_name"));
    return count;
}

static TRITONSERVER_Error *read_batch_inputs(struct kit_config *config)
{
    yyjson_val *list = kit_config_at(config, "/batch_input"), *entry, *target;
    size_t i, max, k, target_max;

    config->batch_inputs = calloc(count_targets(list) + 1, sizeof *config->batch_inputs);
    if (!config->batch_inputs)
        return kit_error_memory(0, "batch inputs");
    yyjson_arr_foreach(list, i, max, entry)
    {
        struct kit_batch_input input;
        TRITONSERVER_Error *err = read_batch_input(config, entry, &input);

        if (err)
            return kit_error_wrap(err, "model '%s': batch_input[%zu]", config->name, i);
        yyjson_arr_foreach(yyjson_obj_get(entry, "target_name"), k, target_max, target)
        {
            input.target = yyjson_get_str(target);
            config->batch_inputs[config->batch_input_count++] = input;
        }
    }
    return NULL;
}

static TRITONSERVER_Error *read_batch_outputs(struct kit_config *config)
{
    yyjson_val *list = kit_config_at(config, "/batch_output"), *entry, *target;
    size_t i, max, k, target_max;

    config->batch_outputs = calloc(count_targets(list) + 1, sizeof *config->batch_outputs);
    if (!config->batch_outputs)
        return kit_error_memory(0, "batch outputs");
    yyjson_arr_foreach(list, i, max, entry)
    {
        struct kit_batch_output output = { 0 };
        TRITONSERVER_Error *err = find_source(config, entry, &output.source);

        yyjson_arr_foreach(yyjson_obj_get(entry, "target_name"), k, target_max, target)
        {
            if (!err)
                err = find_tensor(config->outputs, config->output_count, "the target",
                                  yyjson_get_str(target), &output.target);
            config->batch_outputs[config->batch_output_count++] = output;
        }
        if (err)
            return kit_error_wrap(err, "model '%s': batch_output[%zu]", config->name, i);
    }
    return NULL;
}

/* ---- Documents ---- */

/* Parses the text of message, which stays with the caller. */
static TRITONSERVER_Error *parse_message(TRITONSERVER_Message *message, const char *what,
                                         yyjson_doc **ret_doc)
{
    const char *text;
    size_t byte_size;
    yyjson_read_err where;
    TRITONSERVER_Error *err;

    err = TRITONSERVER_MessageSerializeToJson(message, &text, &byte_size);
    if (err)
        return err;
    /* Without the in-situ flag the reader copies; it only lacks a const. */
    *ret_doc = yyjson_read_opts((char *)text, byte_size, 0, NULL, &where);
    if (!*ret_doc)
        return kit_error(TRITONSERVER_ERROR_INTERNAL, "%s is not JSON at byte %zu: %s", what,
                         where.pos, where.msg);
    return NULL;
}

static TRITONSERVER_Error *load_document(TRITONBACKEND_Model *model, yyjson_doc **ret_doc)
{
    TRITONSERVER_Message *message;
    TRITONSERVER_Error *err;

    err = TRITONBACKEND_ModelConfig(model, 1, &message);
    if (err)
        return err;
    err = parse_message(message, "the model's configuration", ret_doc);
    KIT_LOG_ERROR(TRITONSERVER_MessageDelete(message), "freeing a configuration message");
    return err;
}

TRITONSERVER_Error *kit_config_load(TRITONBACKEND_Model *model, struct kit_config *config)
{
    TRITONBACKEND_ArtifactType type;
    TRITONSERVER_Error *err;

    *config = (struct kit_config){ 0 };
    err = TRITONBACKEND_ModelName(model, &config->name);
    if (!err)
        err = TRITONBACKEND_ModelVersion(model, &config->version);
    if (!err)
        err = TRITONBACKEND_ModelRepository(model, &type, &config->directory);
    if (!err && type != TRITONBACKEND_ARTIFACT_FILESYSTEM)
        err = kit_error(TRITONSERVER_ERROR_UNSUPPORTED,
                        "model '%s' lies in a place of type %d, expected a local directory",
                        config->name, (int)type);
    if (!err)
        err = load_document(model, &config->doc);
    if (!err && !read_int(kit_config_at(config, "/max_batch_size"), &config->batch_size_max))
        err = kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                        "model '%s': the configuration has no max_batch_size", config->name);
    if (!err)
        err = read_tensors(kit_config_at(config, "/input"), &config->inputs, &config->input_count);
    if (!err)
        err =
            read_tensors(kit_config_at(config, "/output"), &config->outputs, &config->output_count);
    if (!err)
        err = read_batch_inputs(config);
    if (!err)
        err = read_batch_outputs(config);
    if (err)
        kit_config_fini(config);
    return err;
}

static void free_tensors(struct kit_tensor_config *tensors, uint32_t count)
{
    for (uint32_t i = 0; tensors && i < count; i++)
        free((void *)tensors[i].dims);
    free(tensors);
}

void kit_config_fini(struct kit_config *config)
{
    free_tensors(config->inputs, config->input_count);
    free_tensors(config->outputs, config->output_count);
    free(config->batch_inputs);
    free(config->batch_outputs);
    yyjson_doc_free(config->doc);
    *config = (struct kit_config){ 0 };
}

yyjson_val *kit_config_at(const struct kit_config *config, const char *pointer)
{
    return yyjson_doc_ptr_get(config->doc, pointer);
}

const char *kit_config_parameter(const struct kit_config *config, const char *key)
{
    /* Not by pointer: keys may hold '/' and '~'. */
    yyjson_val *parameter = yyjson_obj_get(kit_config_at(config, "/parameters"), key);

    return yyjson_get_str(yyjson_obj_get(parameter, "string_value"));
}

TRITONSERVER_Error *kit_parse_int(const char *text, const char *what, int64_t min, int64_t max,
                                  int64_t *ret_value)
{
    char *end;
    long long value;

    errno = 0;
    value = strtoll(text, &end, 10);
    if (errno || end == text || *end || value < min || value > max)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "%s is '%s', expected a whole number from %" PRId64 " to %" PRId64, what,
                         text, min, max);
    *ret_value = value;
    return NULL;
}

TRITONSERVER_Error *kit_config_parameter_int(const struct kit_config *config, const char *key,
                                             int64_t min, int64_t max, int64_t *ret_value)
{
    const char *text = kit_config_parameter(config, key);
    TRITONSERVER_Error *err;

    if (!text)
        return NULL;
    err = kit_parse_int(text, "the value", min, max, ret_value);
    if (err)
        return kit_error_wrap(err, "model '%s': parameter '%s'", config->name, key);
    return NULL;
}

TRITONSERVER_Error *kit_backend_config_load(TRITONBACKEND_Backend *backend, yyjson_doc **ret_doc)
{
    TRITONSERVER_Message *message;
    TRITONSERVER_Error *err;

    err = TRITONBACKEND_BackendConfig(backend, &message);
    if (err)
        return err;
    return parse_message(message, "the backend's configuration", ret_doc);
}

const char *kit_backend_config_get(yyjson_doc *doc, const char *key)
{
    yyjson_val *cmdline = yyjson_obj_get(yyjson_doc_get_root(doc), "cmdline");

    return yyjson_get_str(yyjson_obj_get(cmdline, key));
}
