/* api/v1/infer.h - inference of the v1 protocol, apart from how it is carried.
 *
 * HTTP and gRPC give the same header and tensors in other wrappings: a form says how. Everything
 * between reading the header and writing the answer is here, so both check and answer alike.
 *
 * Threads: the loop of the call.
 */
#ifndef TIS_API_V1_INFER_H
#define TIS_API_V1_INFER_H

#include <protobuf-c/protobuf-c.h>

#include "api/call.h"
#include "api/v1/infer_header.h"
#include "model/registry.h"

/* What the answer needs of the question: call->dialect_data, from when the header is read. */
struct v1_infer {
    struct v1_infer_header header;
    uint64_t request_id;
};

/* NULL: nothing could be read. */
const struct v1_infer *v1_infer_of(const struct call *call);

/* An input as the server sees it, before its bytes are found. */
struct v1_full_input {
    const struct tensor_spec *spec;
    const int64_t *shape; /* with the batch size; request arena */
    uint32_t rank;
    uint64_t bytes; /* of the whole batch */
};

/* How an inference is carried. */
struct v1_infer_form {
    struct infer_dialect dialect;
    /* Sets call->model; version below 0: the latest. */
    tis_error *(*read_target)(struct call *call, int64_t *ret_version);
    /* model: for texts. Everything read lives in the arena. */
    tis_error *(*read_header)(const struct call *call, const char *model, struct arena *a,
                              struct v1_infer_header *ret_header);
    /* Calls v1_add_input() for each, in this order, and refuses what is left over. */
    tis_error *(*add_inputs)(struct call *call, const struct v1_full_input *inputs, uint32_t count);
};

/* The whole operation; answers. */
void v1_infer_run(struct call *call, const struct v1_infer_form *form);
/* Its middle: fills call->request, which is open, call->wanted and call->dialect_data. */
MUST_USE tis_error *v1_infer_decode(struct call *call, const struct v1_infer_form *form);
/* data: in->bytes of memory that lives as long as the call; not copied. */
MUST_USE tis_error *v1_add_input(struct call *call, const struct v1_full_input *in,
                                 const char *data);

/* One requested output of the answer. */
struct v1_answer_output {
    struct tis_output *output;
    uint32_t **classes; /* [batch entry] -> indices; NULL for raw */
    size_t class_count;
    uint64_t entry_bytes; /* of one batch entry */
    uint32_t entry_count; /* elements of one batch entry */
};

/* The outputs in the client's order, or in the response's when the client named none; in the
 * response's arena, as the header made of them. */
MUST_USE tis_error *v1_collect_outputs(struct call *call, struct v1_answer_output **ret_outputs,
                                       uint32_t *ret_count);
/* InferResponseHeader in the client's dialect. NULL when memory is exhausted. */
const ProtobufCMessage *
v1_make_response_header(struct call *call, const struct v1_answer_output *outputs, uint32_t count);

/* The form of gRPC, for tests/fuzz. */
extern const struct v1_infer_form v1_rpc_infer_form;

#endif
