/* api/v1/infer_header.h - the InferRequestHeader of both dialects, read into one form.
 *
 * Threads: any; everything lives in the request's arena.
 */
#ifndef TIS_API_V1_INFER_HEADER_H
#define TIS_API_V1_INFER_HEADER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

struct v1_input {
    const char *name;
    const int64_t *dims; /* without the batch dimension */
    uint32_t rank;
    bool has_dims;            /* 1.x, when the client gave any */
    uint64_t byte_size;       /* 0.9: of one batch entry; 0: not given */
    uint64_t batch_byte_size; /* 1.x: of all; 0: not given */
};

struct v1_output {
    const char *name;
    uint64_t byte_size;   /* 0.9: of one batch entry; 0: not given */
    bool wants_classes;   /* instead of the tensor */
    uint32_t class_count; /* at most so many for each batch entry */
};

struct v1_infer_header {
    bool is_v0; /* a 0.9 client */
    uint64_t id;
    uint64_t correlation_id;
    uint32_t flags;
    uint64_t priority;   /* 1.12 */
    uint64_t timeout_us; /* 1.12 */
    uint32_t batch_size;
    struct v1_input *inputs;
    uint32_t input_count;
    struct v1_output *outputs;
    uint32_t output_count;
};

/* Reads the protobuf text, HTTP's header NV-InferRequest. Errors: INVALID_ARG "unable to parse request for model '<m>'" (what the
 * 1.x reader found is logged at the verbose level: the sentence is 0.9's, to the letter);
 * UNSUPPORTED shared memory; UNAVAILABLE. */
MUST_USE tis_error *v1_infer_header_parse(const char *text, size_t len, const char *model,
                                          struct arena *a, struct v1_infer_header *ret_header);

/* The same of the wire form, the field meta_data of gRPC. A 0.9 client is known by field 2 of an input
 * or output being a number: sizes. 1.x has shapes there, and packs them. Errors: also INVALID_ARG for
 * bytes that are no such message. */
MUST_USE tis_error *v1_infer_header_read(const char *data, size_t len, const char *model,
                                         struct arena *a, struct v1_infer_header *ret_header);

#endif
