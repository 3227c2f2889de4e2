/* kit/config.h - the configuration of a model, or of a backend, for reading.
 *
 * The server hands configurations over as JSON with every default filled in.
 * kit_config reads a model's: the parts every backend needs as C data, the rest
 * through kit_config_at() and the parameter functions.
 *
 * Ownership: all strings and arrays belong to the configuration and go with it.
 * Threads:   constant after kit_config_load(), so any.
 */
#ifndef KIT_CONFIG_H
#define KIT_CONFIG_H

#include "kit/error.h"
#include "yyjson.h"

/* One input or output of a model. Where the server lets backends complete configurations
 * (TRITONBACKEND_ModelAutoCompleteConfig), the data type may be INVALID and dims empty: it wants them
 * completed by TRITONBACKEND_ModelSetConfig, and refuses the model otherwise. */
struct kit_tensor_config {
    const char *name;
    TRITONSERVER_DataType datatype;
    /* The shape as the engine sees it: reshape.shape where the configuration has
     * one, else dims; without the batch dimension; -1 = any size. */
    const int64_t *dims;
    uint32_t dims_count;
    bool has_dims; /* dims are given; with a reshape, dims_count may be 0 all the same */
    bool optional; /* inputs only */
    bool ragged;   /* inputs only: allow_ragged_batch */
};

/* What a batch input says about its source, see kit/ragged.h. */
enum kit_batch_input_kind {
    KIT_ELEMENT_COUNT,
    KIT_ACCUMULATED_ELEMENT_COUNT,
    KIT_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO,
    KIT_MAX_ELEMENT_COUNT_AS_SHAPE,
    KIT_ITEM_SHAPE,
    KIT_ITEM_SHAPE_FLATTEN
};

/* A tensor that the backend makes for the model, about one input of all requests of a batch. */
struct kit_batch_input {
    enum kit_batch_input_kind kind;
    TRITONSERVER_DataType datatype; /* INT32 or FP32 */
    const char *target;             /* the model's input */
    uint32_t source;                /* index in kit_config.inputs */
};

/* An output that is one array for the whole batch, to be cut by the shapes of an input. */
struct kit_batch_output {
    uint32_t target; /* index in kit_config.outputs */
    uint32_t source; /* index in kit_config.inputs */
};

struct kit_config {
    yyjson_doc *doc;

    /* borrowed from the model */
    const char *name;
    const char *directory; /* the model's; versions are in it */
    uint64_t version;

    int64_t batch_size_max; /* 0 = shapes have no batch dimension */
    struct kit_tensor_config *inputs;
    uint32_t input_count;
    struct kit_tensor_config *outputs;
    uint32_t output_count;
    /* One entry for each target; a configuration's entry may have several. */
    struct kit_batch_input *batch_inputs;
    uint32_t batch_input_count;
    struct kit_batch_output *batch_outputs;
    uint32_t batch_output_count;
};

/* Fails when the server's interface lacks what a backend needs: another major
 * version, or a minor version below minor_needed. */
MUST_USE TRITONSERVER_Error *kit_api_check(uint32_t minor_needed);

/* Reads model's configuration into config, whose old content is lost. */
MUST_USE TRITONSERVER_Error *kit_config_load(TRITONBACKEND_Model *model, struct kit_config *config);

/* Frees what load got; a zeroed config is fine. */
void kit_config_fini(struct kit_config *config);

/* The value at a JSON pointer such as "/optimization/graph/level", or NULL. */
yyjson_val *kit_config_at(const struct kit_config *config, const char *pointer);

/* The string value of a model parameter, NULL when it is not set. */
const char *kit_config_parameter(const struct kit_config *config, const char *key);

/* The parameter as a whole number. *ret_value stays as it is when the parameter
 * is not set. INVALID_ARG when it is no number or outside min..max. */
MUST_USE TRITONSERVER_Error *kit_config_parameter_int(const struct kit_config *config,
                                                      const char *key, int64_t min, int64_t max,
                                                      int64_t *ret_value);

/* Reads text as a whole number in min..max; what names it in the error. */
MUST_USE TRITONSERVER_Error *kit_parse_int(const char *text, const char *what, int64_t min,
                                           int64_t max, int64_t *ret_value);

/* The value of --backend-config=NAME,key=VALUE in the document that
 * kit_backend_config_load() made, or NULL. */
const char *kit_backend_config_get(yyjson_doc *doc, const char *key);

/* Reads a backend's settings; the caller frees the document with yyjson_doc_free. */
MUST_USE TRITONSERVER_Error *kit_backend_config_load(TRITONBACKEND_Backend *backend,
                                                     yyjson_doc **ret_doc);

#endif
