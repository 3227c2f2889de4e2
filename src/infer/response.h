/* infer/response.h - one response: outputs with their memory, parameters, or an error.
 *
 * Made by a backend through the ABI, filled by one thread, sent to the request's sink, read by the
 * request's maker, who destroys it. Output objects stay at their address while others are added.
 *
 * Threads: one at a time.
 */
#ifndef TIS_INFER_RESPONSE_H
#define TIS_INFER_RESPONSE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "infer/request.h"
#include "infer/sink.h"
#include "tis/backend.h"

struct tis_output {
    struct tis_output *next;
    struct tis_response *response;
    const char *name; /* the configuration's */
    TRITONSERVER_DataType data_type;
    int64_t *shape; /* with the batch dimension */
    uint32_t rank;
    struct buffer *buffer; /* a reference; NULL until memory was asked for */
    uint64_t bytes;        /* asked for, at buffer->base */
    struct tis_buffer_attributes attributes;
};

enum response_state {
    RESPONSE_FREE,
    RESPONSE_OPEN, /* the backend fills it */
    RESPONSE_SENT, /* the request's maker reads it */
};

enum {
    RESPONSE_ARENA_BYTES_FIRST = 1024,
    RESPONSE_ARENA_BYTES_MAX = 16 << 20,
};

struct response_parameter {
    struct response_parameter *next;
    struct tis_parameter parameter;
};

struct tis_response {
    /* atomic */
    _Atomic uint32_t state;
    _Atomic uint32_t generation; /* grows with each reuse of this memory */

    struct arena arena;
    struct sink *sink; /* a reference */
    struct tis_output *outputs;
    struct tis_output **outputs_end;
    uint32_t output_count;
    uint32_t parameter_count;
    struct response_parameter *parameters;
    struct response_parameter **parameters_end;
    tis_error *error;
    /* infer/order's, while it waits for its turn */
    struct tis_response *next;
    uint32_t flags;

    char first[RESPONSE_ARENA_BYTES_FIRST] __attribute__((aligned(16)));
};

/* An open response; takes a reference on the sink. NULL when out of memory. */
MUST_USE struct tis_response *response_create(struct sink *sink);
/* Takes *response (NULL is fine), open or sent. */
void response_destroy(struct tis_response **response);

/* name is borrowed (the configuration's); shape is copied. Errors: ALREADY_EXISTS. */
MUST_USE tis_error *response_add_output(struct tis_response *r, const char *name,
                                        TRITONSERVER_DataType type, const int64_t *shape,
                                        uint32_t rank, struct tis_output **ret_output);
/* Asks the sink for `bytes` of memory. Errors: ALREADY_EXISTS the second time. */
MUST_USE tis_error *response_output_memory(struct tis_output *o, uint64_t bytes);
struct tis_output *response_find_output(struct tis_response *r, const char *name);

/* Copies name and a string value. */
MUST_USE tis_error *response_add_parameter(struct tis_response *r,
                                           const struct tis_parameter *parameter);

#endif
