/* mini_host.h - the smallest server a backend can run in, for tests.
 *
 * One model, one instance, one thread. A test describes a batch of requests as
 * data, executes it and looks at the answers. The host counts sends and releases
 * and aborts on the second of either. It defines just the functions that our own
 * backends call; the entry points are linked in, so sanitizers see everything.
 */
#ifndef MINI_HOST_H
#define MINI_HOST_H

#include "tis/backend.h"

enum {
    TENSORS_MAX = 8,
    PIECES_MAX = 4,
    RANK_HOST_MAX = 4
};

struct tis_input {
    const char *name; /* NULL = end of the list */
    TRITONSERVER_DataType datatype;
    int64_t shape[RANK_HOST_MAX];
    uint32_t dims_count;
    struct {
        const void *data;
        uint64_t byte_size;
    } pieces[PIECES_MAX];
    uint32_t piece_count;
    TRITONSERVER_MemoryType memory_type;
};

struct tis_output {
    char name[64];
    TRITONSERVER_DataType datatype;
    int64_t shape[RANK_HOST_MAX];
    uint32_t dims_count;
    void *data;
    uint64_t byte_size;
};

struct tis_request {
    /* set by the test */
    struct tis_input inputs[TENSORS_MAX];
    const char *outputs[TENSORS_MAX]; /* NULL = end of the list */
    bool refuse_outputs;              /* nobody wants to keep its outputs */

    /* the answer, read by the test */
    struct tis_output results[TENSORS_MAX];
    uint32_t result_count;
    char error[4096]; /* "" = success */
    int send_count, release_count, report_count;
    bool success; /* as reported */
};

struct host {
    /* set by the test */
    const char *config;    /* of the model, JSON */
    const char *directory; /* of the model */
    const char *settings;  /* of the backend, JSON */
    bool auto_complete;
    /* what the backend has made of config; NULL: nothing. The host frees it */
    char *completed_config;
    /* the last batch */
    uint32_t execution_count;
    uint64_t executed_batch_size;
};

extern struct host host;

/* Loads backend, model and instance; false and the reason when that fails. */
bool host_load(char reason[4096]);

/* Executes a batch, and aborts unless each request was answered, reported and
 * released exactly once. */
void host_execute(struct tis_request **requests, uint32_t count);

/* Frees the answer, so that the request can be executed again. */
void host_reset(struct tis_request *request);

void host_unload(void);

#endif
