/* volume.c - a batching strategy: no execution gets more than so many bytes of input.
 *
 * For models whose memory or time grows with the bytes of a batch, not with the number of its
 * requests: texts, sounds, images of many sizes. The model's parameter MAX_BATCH_VOLUME_BYTES is the
 * bound. A request that is larger by itself runs alone.
 *
 * The server gathers requests as the model's dynamic_batching says, and asks this library of one after
 * the other whether it fits. What does not fit is first in the next execution. Calls come one at a time.
 * The file also runs in Triton. To build it and to use it: README.md in this folder.
 */
#include <stdlib.h>

#include "kit/config.h"

/* One for each version of a model; constant after Initialize. */
struct volume {
    uint64_t bytes_max;
};

/* One for each batch. */
struct batch {
    uint64_t bytes_left;
    bool has_requests;
};

/* An error becomes the reason why the model is not ready. */
TRITONSERVER_Error *TRITONBACKEND_ModelBatcherInitialize(TRITONBACKEND_Batcher **batcher,
                                                         TRITONBACKEND_Model *model)
{
    struct kit_config config;
    struct volume *volume;
    int64_t bytes_max = 0;

    TRITONSERVER_Error *err = kit_config_load(model, &config);
    if (err)
        return err;
    err = kit_config_parameter_int(&config, "MAX_BATCH_VOLUME_BYTES", 1, INT64_MAX, &bytes_max);
    if (!err && bytes_max == 0)
        err = kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                        "model '%s' has no parameter 'MAX_BATCH_VOLUME_BYTES'", config.name);
    kit_config_fini(&config);
    if (err)
        return err;

    volume = malloc(sizeof *volume);
    if (!volume)
        return kit_error_memory(sizeof *volume, "a batching strategy");
    volume->bytes_max = (uint64_t)bytes_max;
    *batcher = (TRITONBACKEND_Batcher *)volume;
    return NULL;
}

/* Also called after a failed Initialize: batcher is NULL then. */
TRITONSERVER_Error *TRITONBACKEND_ModelBatcherFinalize(TRITONBACKEND_Batcher *batcher)
{
    free(batcher);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelBatchInitialize(const TRITONBACKEND_Batcher *batcher,
                                                       void **userp)
{
    struct batch *batch = malloc(sizeof *batch);

    if (!batch)
        return kit_error_memory(sizeof *batch, "a batch");
    *batch = (struct batch){ .bytes_left = ((const struct volume *)batcher)->bytes_max };
    *userp = batch;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelBatchFinalize(void *userp)
{
    free(userp);
    return NULL;
}

static TRITONSERVER_Error *request_bytes(TRITONBACKEND_Request *request, uint64_t *ret_bytes)
{
    TRITONSERVER_Error *err;
    TRITONBACKEND_Input *input;
    uint64_t bytes, sum = 0;
    uint32_t count;

    err = TRITONBACKEND_RequestInputCount(request, &count);
    for (uint32_t i = 0; !err && i < count; i++) {
        err = TRITONBACKEND_RequestInputByIndex(request, i, &input);
        if (!err)
            err = TRITONBACKEND_InputProperties(input, NULL, NULL, NULL, NULL, &bytes, NULL);
        if (!err)
            sum += bytes;
    }
    if (!err)
        *ret_bytes = sum;
    return err;
}

TRITONSERVER_Error *TRITONBACKEND_ModelBatchIncludeRequest(TRITONBACKEND_Request *request,
                                                           void *userp, bool *should_include)
{
    struct batch *batch = userp;
    uint64_t bytes;

    *should_include = false;
    TRITONSERVER_Error *err = request_bytes(request, &bytes);
    if (err)
        return err;
    /* One that is too large by itself must run too. */
    *should_include = bytes <= batch->bytes_left || !batch->has_requests;
    batch->bytes_left -= bytes <= batch->bytes_left ? bytes : batch->bytes_left;
    batch->has_requests = true;
    return NULL;
}
