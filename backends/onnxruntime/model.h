/* model.h - one version of an ONNX model: its sessions and how tensors map to it.
 *
 * Instances take their sessions from the version (session.h). The configuration is completed from the model where the server
 * allows it, then checked against the model.
 *
 * Threads: constant after model_open(), so any.
 */
#ifndef MODEL_H
#define MODEL_H

#include "onnxruntime/session.h"
#include "onnxruntime/signature.h"

/* A size that is to be that of a padded input: of dimension dim of input number input. */
struct tie {
    uint32_t input;
    uint32_t dim; /* 0, the batch dimension, stands for nowhere */
};

/* One input or output, as configuration and model agree on it. */
struct port {
    const char *name;
    TRITONSERVER_DataType datatype;
    ONNXTensorElementDataType element;
    uint32_t element_bytes; /* 0 for BYTES */
    const struct kit_tensor_config *config;
    bool optional; /* input that a request may leave out */
    bool scalar;   /* input of rank 0 in the model, of one element in the configuration */
    bool ragged;   /* input that the model takes as one flat tensor for the whole batch */
    const struct kit_batch_output *scatter; /* output that is flat in the same way; else NULL */
    bool padded; /* input that is filled up to the largest of the batch, with padding */
    char padding[8];
    /* What each of tie_count dimensions is tied to, because the model gives both the same
     * name: an output is cut by it, a padded input must agree with it. NULL: none is. */
    struct tie *ties;
    uint32_t tie_count;
    /* Output whose shape is known before a run: out_dims, in which the batch
     * dimension, if there is one, is still to be filled in at [0]. */
    bool fixed;
    uint32_t out_rank;
    int64_t *out_dims;
};

struct model {
    const struct engine *engine;
    struct kit_config config;
    struct signature signature;
    struct sessions *sessions;
    OrtRunOptions *run_options;
    bool padding;         /* some input is padded */
    bool batching;        /* shapes begin with a batch dimension */
    struct port *inputs;  /* config.input_count */
    struct port *outputs; /* config.output_count */
};

/* Loads the version that handle stands for. */
MUST_USE TRITONSERVER_Error *model_open(const struct engine *engine, TRITONBACKEND_Model *handle,
                                        struct model **ret_model);

/* Frees all, after the last run; NULL is fine. */
void model_close(struct model *model);

/* padding.c: reads from the parameters which inputs are padded, and from the model
 * which outputs follow them. Tells the server, as it would not batch such inputs. */
MUST_USE TRITONSERVER_Error *padding_read(TRITONBACKEND_Model *handle, struct model *model);

/* complete.c: fills what config leaves open in from signature, gives the result
 * to the server and reads it again. Does nothing when there is nothing to fill in.
 * Where the server wants configurations complete, an incomplete one is an error. */
MUST_USE TRITONSERVER_Error *config_complete(const struct engine *engine,
                                             TRITONBACKEND_Model *handle,
                                             const struct signature *signature,
                                             struct kit_config *config);
/* complete.c: gives the server another configuration. */
MUST_USE TRITONSERVER_Error *config_set(TRITONBACKEND_Model *handle, const yyjson_mut_doc *doc);

#endif
