/* kit/batch.h - several requests executed as one: gather their inputs, scatter the outputs.
 *
 * For models whose shapes begin with a batch dimension. Execute opens a batch of
 * its requests, gathers their inputs into one array each, computes, scatters each
 * output and closes the batch; closing reports, answers and releases every
 * request. A request that is wrong leaves the batch with its error; the others go on.
 *
 * Types of a fixed size only: elements of BYTES have no common length.
 *
 * Ownership: gathered arrays belong to the batch and go when it is closed.
 * Threads:   one at a time.
 */
#ifndef KIT_BATCH_H
#define KIT_BATCH_H

#include "kit/request.h"
#include "kit/tensor.h"

struct kit_batch_item {
    struct kit_request request;
    TRITONSERVER_Error *error; /* not NULL: the request has left the batch */
    uint64_t first_row;
    uint64_t rows;
};

struct kit_batch {
    TRITONBACKEND_ModelInstance *instance;
    struct kit_times times; /* the backend sets compute_start_ns and compute_end_ns */
    struct kit_batch_item *items;
    uint32_t item_count;
    uint64_t rows; /* in each gathered array */
    void **arrays;
    uint32_t array_count;
};

/* One input of all requests, one behind the other. */
struct kit_gathered {
    TRITONSERVER_DataType datatype;
    const int64_t *row_shape; /* without the batch dimension; of the first request */
    uint32_t row_dims_count;
    uint64_t row_bytes;
    void *data; /* batch->rows * row_bytes */
};

/* Takes the requests; exec_start_ns is now. On error they stay with the server,
 * and Execute returns that error. */
MUST_USE TRITONSERVER_Error *kit_batch_open(TRITONBACKEND_ModelInstance *instance,
                                            TRITONBACKEND_Request **requests, uint32_t count,
                                            struct kit_batch *ret_batch);

/* Joins the inputs called names[0..count); one call for each batch. A request
 * leaves when it lacks one of them, or when types and row shapes are not those of
 * the first request in the batch. INVALID_ARG when none is left: close the batch. */
MUST_USE TRITONSERVER_Error *kit_batch_gather(struct kit_batch *batch, const char *const *names,
                                              uint32_t count, struct kit_gathered *ret_gathered);

/* Hands an output, batch->rows rows of row_shape at data, to the requests that asked for it. */
void kit_batch_scatter(struct kit_batch *batch, const char *name, TRITONSERVER_DataType datatype,
                       const int64_t *row_shape, uint32_t row_dims_count, const void *data);

/* Answers and releases all requests: those in the batch with error (which it
 * takes) or, when that is NULL, with their outputs; the others with their own. */
void kit_batch_close(struct kit_batch *batch, TRITONSERVER_Error *error);

#endif
