/* instance_internal.h - what the three files of an instance share.
 *
 * instance.c   requests, groups, runs
 * inputs.c     the tensors that a run gives to the engine
 * outputs.c    those it gets back
 */
#ifndef INSTANCE_INTERNAL_H
#define INSTANCE_INTERNAL_H

#include "kit/ragged.h"
#include "kit/request.h"
#include "kit/tensor.h"
#include "onnxruntime/instance.h"

/* Memory kept from run to run; 64-byte aligned. */
struct scratch {
    void *data;
    size_t capacity;
    size_t used_bytes; /* by the last run */
};

/* A request and what the group it runs in needs of it. */
struct item {
    struct kit_request request;
    TRITONSERVER_Error *error; /* what it will be answered with */
    int64_t batch_size;        /* 1 where the model has no batch dimension */
    struct kit_input *inputs;  /* in the order of the model's; handle NULL = left out */
    uint64_t *scalars;         /* the value of each scalar input of a batching model */
    bool *wanted;              /* in the order of the model's outputs */
};

/* What the members of a group make of a padded input together. */
struct joint {
    int64_t shape[RANK_MAX]; /* the largest of each dimension; the batch's is not set */
    uint64_t byte_size;      /* of the members' own elements */
};

/* An output that the engine has allocated. */
struct result {
    const struct port *port;
    OrtValue *value;
    uint32_t rank; /* as the client will see it */
    int64_t shape[RANK_MAX];
    uint64_t row_count; /* elements in one entry of the batch, or in all without batch */
    uint64_t count;     /* elements in all */
};

struct instance {
    const struct model *model;
    TRITONBACKEND_ModelInstance *handle;
    OrtSession *session;

    /* one for each request of the largest batch so far */
    uint32_t item_capacity;
    struct item *items;
    struct item **group;
    struct kit_input *item_inputs;
    uint64_t *item_scalars;
    bool *item_wanted;
    const struct kit_input **sources; /* of one batch input, in the order of the group */

    /* one for each of the model's inputs, behind them the batch inputs, or outputs; a run fills a
     * part */
    const char **input_names;
    OrtValue **input_values;
    struct scratch *input_scratch;
    struct joint *joints; /* of padded inputs */
    const char **output_names;
    OrtValue **output_values;
    uint32_t *output_ports; /* the index in model->outputs */
    bool *output_lent;      /* the engine writes into the response's memory */
    struct result *results; /* where it does not */

    struct scratch string_bytes, string_offsets, piece;
};

/* One run of the engine, for a group of items. */
struct run {
    struct instance *in;
    struct item **members;
    uint32_t member_count;
    int64_t batch_size; /* of all members together */
    bool padded;        /* their shapes differ: some inputs are filled up */
    uint32_t input_count, output_count;
    struct kit_times times;
};

/* Room for byte_size bytes, their content lost. */
MUST_USE TRITONSERVER_Error *scratch_reserve(struct scratch *scratch, size_t byte_size);

/* Makes the engine's input tensors. */
MUST_USE TRITONSERVER_Error *inputs_create(struct run *run);

/* Decides which outputs the engine computes, and where it writes them. */
MUST_USE TRITONSERVER_Error *outputs_prepare(struct run *run);

/* Looks at what the engine has allocated and checks that it can be cut up for the members. */
MUST_USE TRITONSERVER_Error *outputs_read(const struct run *run);

/* After outputs_read(): puts what the engine has allocated into the responses. An error stands for all
 * members; an error of one member is left in it. */
MUST_USE TRITONSERVER_Error *outputs_deliver(const struct run *run);

#endif
