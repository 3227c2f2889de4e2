/* complete.c - fills what a model's configuration leaves open in from the model.
 *
 * A configuration may lack its inputs, its outputs, or both. When it lacks both
 * and sets no max_batch_size, and every tensor of the model begins with a
 * dimension of any size, that dimension is taken for a batch: max_batch_size
 * becomes the server's default, and above 1 the requests are batched. */
#include <inttypes.h>

#include "onnxruntime/model.h"

static bool add_tensor(yyjson_mut_doc *doc, yyjson_mut_val *list,
                       const struct signature_tensor *tensor, bool batching)
{
    yyjson_mut_val *object = yyjson_mut_arr_add_obj(doc, list);
    yyjson_mut_val *dims;
    TRITONSERVER_DataType datatype = datatype_from_element(tensor->element);
    char type[32];
    int length = snprintf(
        type, sizeof type, "TYPE_%s",
        datatype == TRITONSERVER_TYPE_BYTES ? "STRING" : TRITONSERVER_DataTypeString(datatype));

    if (!object || !yyjson_mut_obj_add_strcpy(doc, object, "name", tensor->name) ||
        !yyjson_mut_obj_add_strncpy(doc, object, "data_type", type, (size_t)length))
        return false;
    dims = yyjson_mut_obj_add_arr(doc, object, "dims");
    if (!dims)
        return false;

    for (uint32_t i = batching; i < tensor->rank; i++) {
        if (!yyjson_mut_arr_add_sint(doc, dims, tensor->dims[i]))
            return false;
    }
    if (tensor->rank > batching)
        return true;
    /* Dims may not be empty: [1] stands for one element, for each of the batch. */
    if (!yyjson_mut_arr_add_sint(doc, dims, 1))
        return false;
    if (!batching)
        return true;
    object = yyjson_mut_obj_add_obj(doc, object, "reshape");
    return object && yyjson_mut_obj_add_arr(doc, object, "shape");
}

/* Initializers stay as the model has them, outputs of foreign types unseen; an
 * input of a foreign type stays in, so that the server names it. */
static bool is_offered(const struct signature_tensor *tensor, bool is_input)
{
    return is_input ? tensor->required : tensor->element != ORT_ELEMENT_UNDEFINED;
}

/* Replaces the list under key by the tensors of the model. */
static bool set_tensors(yyjson_mut_doc *doc, const char *key,
                        const struct signature_tensor *tensors, size_t count, bool batching,
                        bool is_input)
{
    yyjson_mut_val *root = yyjson_mut_doc_get_root(doc);
    yyjson_mut_val *list;

    yyjson_mut_obj_remove_key(root, key);
    list = yyjson_mut_obj_add_arr(doc, root, key);
    for (size_t i = 0; list && i < count; i++) {
        if (is_offered(&tensors[i], is_input) && !add_tensor(doc, list, &tensors[i], batching))
            return false;
    }
    return list != NULL;
}

static bool set_batch_size_max(yyjson_mut_doc *doc, int64_t batch_size_max)
{
    static const char *const SCHEDULERS[] = { "dynamic_batching", "sequence_batching",
                                              "ensemble_scheduling" };
    yyjson_mut_val *root = yyjson_mut_doc_get_root(doc);

    yyjson_mut_obj_remove_key(root, "max_batch_size");
    if (!yyjson_mut_obj_add_sint(doc, root, "max_batch_size", batch_size_max))
        return false;
    for (size_t i = 0; i < sizeof SCHEDULERS / sizeof *SCHEDULERS; i++) {
        if (yyjson_mut_obj_get(root, SCHEDULERS[i]))
            return true;
    }
    return batch_size_max == 1 || yyjson_mut_obj_add_obj(doc, root, "dynamic_batching");
}

/* Gives the server the completed text, then reads what it made of it. */
static TRITONSERVER_Error *hand_over(TRITONBACKEND_Model *handle, yyjson_mut_doc *doc,
                                     struct kit_config *config)
{
    size_t byte_size;
    char *text = yyjson_mut_write(doc, 0, &byte_size);
    TRITONSERVER_Message *message;
    TRITONSERVER_Error *err;

    if (!text)
        return kit_error_memory(0, "a configuration's text");
    err = TRITONSERVER_MessageNewFromSerializedJson(&message, text, byte_size);
    free(text);
    if (err)
        return err;
    err = TRITONBACKEND_ModelSetConfig(handle, 1, message);
    KIT_LOG_ERROR(TRITONSERVER_MessageDelete(message), "freeing a configuration message");
    if (err)
        return err;

    kit_config_fini(config);
    return kit_config_load(handle, config);
}

TRITONSERVER_Error *config_complete(const struct engine *engine, TRITONBACKEND_Model *handle,
                                    const struct signature *s, struct kit_config *config)
{
    bool lacks_inputs = config->input_count == 0, lacks_outputs = config->output_count == 0;
    int64_t batch_size_max = config->batch_size_max;
    yyjson_mut_doc *doc;
    bool wanted, ok = true;
    TRITONSERVER_Error *err;

    err = TRITONBACKEND_ModelAutoCompleteConfig(handle, &wanted);
    if (err || !wanted || !(lacks_inputs || lacks_outputs))
        return err;

    doc = yyjson_doc_mut_copy(config->doc, NULL);
    if (!doc)
        return kit_error_memory(0, "a completed configuration");
    if (lacks_inputs && lacks_outputs && batch_size_max == 0 && signature_has_batch_dim(s)) {
        batch_size_max = engine->default_batch_size_max;
        ok = batch_size_max == 0 || set_batch_size_max(doc, batch_size_max);
    }
    if (ok && lacks_inputs)
        ok = set_tensors(doc, "input", s->inputs, s->input_count, batch_size_max > 0, true);
    if (ok && lacks_outputs)
        ok = set_tensors(doc, "output", s->outputs, s->output_count, batch_size_max > 0, false);

    err = ok ? hand_over(handle, doc, config) : kit_error_memory(0, "a completed configuration");
    yyjson_mut_doc_free(doc);
    return err;
}
