/* signature.h - what a loaded ONNX model says about its own inputs and outputs.
 *
 * Ownership: all names and dims belong to the signature.
 * Threads:   constant after signature_read(), so any.
 */
#ifndef SIGNATURE_H
#define SIGNATURE_H

#include "onnxruntime/engine.h"

/* Tensors of more dimensions are refused. */
enum {
    RANK_MAX = 64
};

struct signature_tensor {
    char *name;
    ONNXTensorElementDataType element; /* UNDEFINED: not a tensor, or of a foreign type */
    /* With the batch dimension if there is one; -1 = any size. A rank of 0 means a
     * scalar, or that the model does not say: the engine does not tell which. */
    uint32_t rank;
    int64_t dims[RANK_MAX];
    /* The names of dimensions of any size; "" where there is none. Tensors with the
     * same name agree in that size. */
    char *dim_names[RANK_MAX];
    bool required; /* false: an initializer that an input may override */
};

struct signature {
    struct signature_tensor *inputs;
    size_t input_count;
    struct signature_tensor *outputs;
    size_t output_count;
};

MUST_USE TRITONSERVER_Error *signature_read(const struct engine *engine, const OrtSession *session,
                                            struct signature *ret_signature);

/* A zeroed signature is fine. */
void signature_fini(struct signature *signature);

/* Compares a model's configuration with its signature. The error of a mismatch
 * names everything that contradicts, both sides of it. */
MUST_USE TRITONSERVER_Error *signature_check(const struct signature *signature,
                                             const struct kit_config *config);

/* For servers that want configurations complete: the error names every input that
 * configuration lacks, and the outputs when it has none. */
MUST_USE TRITONSERVER_Error *signature_check_complete(const struct signature *signature,
                                                      const struct kit_config *config);

/* Whether all tensors have a first dimension of any size: it may be a batch. */
bool signature_has_batch_dim(const struct signature *signature);

/* Whether requests bring the model's input called name, or the backend makes it. */
bool config_has_input(const struct kit_config *config, const char *name);

/* NULL when there is none of that name. */
const struct signature_tensor *signature_find(const struct signature_tensor *tensors, size_t count,
                                              const char *name);

#endif
