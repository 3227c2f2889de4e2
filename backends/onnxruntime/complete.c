/* complete.c - fills what a model's configuration leaves open in from the model.
 *
 * A configuration may lack inputs or outputs altogether, single inputs, and the
 * data type or the dims of those it has. Outputs it leaves out of a list are not
 * served, which is its right. When max_batch_size is 0, every tensor of the model
 * begins with a dimension of any size and the dims that are given leave it out,
 * that dimension is taken for a batch: max_batch_size becomes the server's default,
 * and above 1 the requests are batched. */
#include <inttypes.h>

#include "onnxruntime/model.h"

/* ---- One tensor ---- */

static bool set_datatype(yyjson_mut_doc *doc, yyjson_mut_val *object,
                         const struct signature_tensor *tensor)
{
    TRITONSERVER_DataType datatype = datatype_from_element(tensor->element);
    char type[32];
    int length = snprintf(
        type, sizeof type, "TYPE_%s",
        datatype == TRITONSERVER_TYPE_BYTES ? "STRING" : TRITONSERVER_DataTypeString(datatype));

    yyjson_mut_obj_remove_key(object, "data_type");
    return yyjson_mut_obj_add_strncpy(doc, object, "data_type", type, (size_t)length);
}

static bool set_dims(yyjson_mut_doc *doc, yyjson_mut_val *object,
                     const struct signature_tensor *tensor, bool batching)
{
    yyjson_mut_val *dims;

    yyjson_mut_obj_remove_key(object, "dims");
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

static bool add_tensor(yyjson_mut_doc *doc, yyjson_mut_val *list,
                       const struct signature_tensor *tensor, bool batching)
{
    yyjson_mut_val *object = yyjson_mut_arr_add_obj(doc, list);

    return object && yyjson_mut_obj_add_strcpy(doc, object, "name", tensor->name) &&
           set_datatype(doc, object, tensor) && set_dims(doc, object, tensor, batching);
}

/* ---- All inputs, all outputs ---- */

/* Initializers stay as the model has them, outputs of foreign types unseen; an
 * input of a foreign type stays in, so that the server names it. */
static bool is_offered(const struct signature_tensor *tensor, bool is_input)
{
    return is_input ? tensor->required : tensor->element != ORT_ELEMENT_UNDEFINED;
}

/* One side of a configuration and of the model. */
struct side {
    const char *key;
    bool is_input;
    const struct kit_config *config;
    const struct kit_tensor_config *given;
    uint32_t given_count;
    const struct signature_tensor *tensors;
    size_t count;
};

/* Nothing is to be added for name: it is listed, or an input that the backend makes. */
static bool is_given(const struct side *side, const char *name)
{
    if (side->is_input)
        return config_has_input(side->config, name);
    for (uint32_t i = 0; i < side->given_count; i++) {
        if (strcmp(side->given[i].name, name) == 0)
            return true;
    }
    return false;
}

static bool is_complete(const struct side *side, uint32_t i)
{
    return side->given[i].datatype != TRITONSERVER_TYPE_INVALID && side->given[i].has_dims;
}

/* A name that the model does not have may be meant for any of its tensors, so
 * nothing is added beside it; the check reports both. */
static bool knows_all_given(const struct side *side)
{
    for (uint32_t i = 0; i < side->given_count; i++) {
        if (!signature_find(side->tensors, side->count, side->given[i].name))
            return false;
    }
    return true;
}

static bool adds_tensor(const struct side *side, size_t i)
{
    return is_offered(&side->tensors[i], side->is_input) &&
           (side->given_count == 0 ||
            (side->is_input && !is_given(side, side->tensors[i].name) && knows_all_given(side)));
}

static bool lacks_something(const struct side *side)
{
    for (uint32_t i = 0; i < side->given_count; i++) {
        if (!is_complete(side, i) &&
            signature_find(side->tensors, side->count, side->given[i].name))
            return true;
    }
    for (size_t i = 0; i < side->count; i++) {
        if (adds_tensor(side, i))
            return true;
    }
    return false;
}

/* Whether the model's shape is that of a whole ragged batch, so it says nothing about a request. */
static bool is_flat(const struct side *side, size_t i)
{
    if (side->is_input)
        return side->given[i].ragged;
    for (uint32_t k = 0; k < side->config->batch_output_count; k++) {
        if (side->config->batch_outputs[k].target == i)
            return true;
    }
    return false;
}

static bool complete_given(yyjson_mut_doc *doc, yyjson_mut_val *list, const struct side *side,
                           bool batching)
{
    yyjson_mut_val *object;
    size_t i, max;

    yyjson_mut_arr_foreach(list, i, max, object)
    {
        const struct signature_tensor *tensor =
            signature_find(side->tensors, side->count, side->given[i].name);

        if (!tensor)
            continue;
        if (side->given[i].datatype == TRITONSERVER_TYPE_INVALID &&
            !set_datatype(doc, object, tensor))
            return false;
        if (!side->given[i].has_dims && !is_flat(side, i) &&
            !set_dims(doc, object, tensor, batching))
            return false;
    }
    return true;
}

static bool complete_side(yyjson_mut_doc *doc, const struct side *side, bool batching)
{
    yyjson_mut_val *root = yyjson_mut_doc_get_root(doc);
    yyjson_mut_val *list = yyjson_mut_obj_get(root, side->key);

    if (!list)
        list = yyjson_mut_obj_add_arr(doc, root, side->key);
    if (!list || !complete_given(doc, list, side, batching))
        return false;
    for (size_t i = 0; i < side->count; i++) {
        if (adds_tensor(side, i) && !add_tensor(doc, list, &side->tensors[i], batching))
            return false;
    }
    return true;
}

/* ---- The batch dimension ---- */

/* Whether the dims that are given leave the first dimension of the model out. */
static bool leaves_room_for_batch(const struct side *side)
{
    for (uint32_t i = 0; i < side->given_count; i++) {
        const struct signature_tensor *tensor =
            signature_find(side->tensors, side->count, side->given[i].name);

        if (tensor && tensor->rank > 0 && side->given[i].has_dims &&
            side->given[i].dims_count + 1 != tensor->rank)
            return false;
    }
    return true;
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

/* ---- Handing over ---- */

TRITONSERVER_Error *config_set(TRITONBACKEND_Model *handle, const yyjson_mut_doc *doc)
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
    return err;
}

/* Gives the server the completed text, then reads what it made of it. */
static TRITONSERVER_Error *hand_over(TRITONBACKEND_Model *handle, const yyjson_mut_doc *doc,
                                     struct kit_config *config)
{
    TRITONSERVER_Error *err = config_set(handle, doc);

    if (err)
        return err;
    kit_config_fini(config);
    return kit_config_load(handle, config);
}

TRITONSERVER_Error *config_complete(const struct engine *engine, TRITONBACKEND_Model *handle,
                                    const struct signature *s, struct kit_config *config)
{
    const struct side in = { "input",   true,          config, config->inputs, config->input_count,
                             s->inputs, s->input_count };
    const struct side out = {
        "output", false, config, config->outputs, config->output_count, s->outputs, s->output_count
    };
    int64_t batch_size_max = config->batch_size_max;
    yyjson_mut_doc *doc;
    bool wanted, ok = true, derives_batch;
    TRITONSERVER_Error *err;

    err = TRITONBACKEND_ModelAutoCompleteConfig(handle, &wanted);
    if (err)
        return err;
    if (!wanted)
        return signature_check_complete(s, config);
    derives_batch = batch_size_max == 0 && engine->default_batch_size_max > 0 &&
                    signature_has_batch_dim(s) && leaves_room_for_batch(&in) &&
                    leaves_room_for_batch(&out);
    if (!derives_batch && !lacks_something(&in) && !lacks_something(&out))
        return NULL;

    doc = yyjson_doc_mut_copy(config->doc, NULL);
    if (!doc)
        return kit_error_memory(0, "a completed configuration");
    if (derives_batch) {
        batch_size_max = engine->default_batch_size_max;
        ok = set_batch_size_max(doc, batch_size_max);
    }
    ok = ok && complete_side(doc, &in, batch_size_max > 0) &&
         complete_side(doc, &out, batch_size_max > 0);
    err = ok ? hand_over(handle, doc, config) : kit_error_memory(0, "a completed configuration");
    yyjson_mut_doc_free(doc);
    return err;
}
