/* repeat.c - a decoupled backend: a request gets as many responses as it has values.
 *
 *   input   IN     INT32[n]    the values
 *           DELAY  UINT32[n]   milliseconds before each of their responses
 *           WAIT   UINT32[1]   milliseconds that the instance is busy with the request
 *   output  OUT    INT32[1]    the value
 *           IDX    UINT32[1]   its index
 *
 * Behind the last response comes the final flag alone; no value, no response but that. Execute hands
 * the values to the instance's player, waits WAIT and releases the request; the responses come from
 * the player's thread, during and after that. So one instance can be answering many requests.
 *
 * It is the example of a backend whose responses come through response factories, and for tests of
 * streams. A cancelled request gets the error CANCELLED within 50 ms, in WAIT too.
 *
 * The version's directory may be empty.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kit/config.h"
#include "kit/request.h"
#include "kit/tensor.h"
#include "repeat/player.h"

struct repeat_instance {
    TRITONBACKEND_ModelInstance *handle;
    struct player *player;
};

/* Statistics of responses are the youngest part of the interface that is used. */
static const uint32_t API_MINOR_NEEDED = 19;

/* While an instance waits it asks so often whether the request is cancelled. */
static const uint64_t WAIT_STEP_NS = 50000000;

TRITONSERVER_Error *TRITONBACKEND_Initialize(TRITONBACKEND_Backend *backend)
{
    (void)backend;
    return kit_api_check(API_MINOR_NEEDED);
}

/* ---- The model ---- */

static const struct tensor_row {
    const char *name;
    TRITONSERVER_DataType datatype;
    bool is_input;
    bool is_single; /* [1]; the others are vectors of any size */
} TENSORS[] = {
    { "IN", TRITONSERVER_TYPE_INT32, true, false },
    { "DELAY", TRITONSERVER_TYPE_UINT32, true, false },
    { "WAIT", TRITONSERVER_TYPE_UINT32, true, true },
    { "OUT", TRITONSERVER_TYPE_INT32, false, true },
    { "IDX", TRITONSERVER_TYPE_UINT32, false, true },
};

enum {
    TENSOR_COUNT = sizeof TENSORS / sizeof *TENSORS
};

static const struct tensor_row *row_of(const char *name, bool is_input)
{
    for (size_t i = 0; i < TENSOR_COUNT; i++)
        if (TENSORS[i].is_input == is_input && strcmp(TENSORS[i].name, name) == 0)
            return &TENSORS[i];
    return NULL;
}

static TRITONSERVER_Error *check_tensor(const struct kit_config *config,
                                        const struct kit_tensor_config *tensor, bool is_input)
{
    const struct tensor_row *row = row_of(tensor->name, is_input);
    char found[KIT_SHAPE_TEXT_BYTES];

    if (!row)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "model '%s': unexpected %s '%s', expected inputs IN, DELAY, WAIT and "
                         "outputs OUT, IDX",
                         config->name, is_input ? "input" : "output", tensor->name);
    if (tensor->datatype != row->datatype)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "model '%s': '%s' has type %s, expected %s", config->name, tensor->name,
                         TRITONSERVER_DataTypeString(tensor->datatype),
                         TRITONSERVER_DataTypeString(row->datatype));
    if (tensor->dims_count != 1 || (row->is_single && tensor->dims[0] != 1))
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "model '%s': '%s' has shape %s, expected %s", config->name, tensor->name,
                         kit_shape_text(tensor->dims, tensor->dims_count, found),
                         row->is_single ? "[1]" : "one dimension, such as [-1]");
    return NULL;
}

static TRITONSERVER_Error *check_config(const struct kit_config *config)
{
    yyjson_val *decoupled = kit_config_at(config, "/model_transaction_policy/decoupled");
    TRITONSERVER_Error *err = NULL;

    if (!yyjson_is_true(decoupled))
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "model '%s' is not decoupled, expected model_transaction_policy { "
                         "decoupled: true }",
                         config->name);
    if (config->batch_size_max != 0)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "model '%s' has max_batch_size %" PRId64 ", expected 0", config->name,
                         config->batch_size_max);
    if (config->input_count != 3 || config->output_count == 0)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "model '%s' has %" PRIu32 " inputs and %" PRIu32
                         " outputs, expected inputs IN, DELAY, WAIT and outputs OUT, IDX",
                         config->name, config->input_count, config->output_count);
    for (uint32_t i = 0; !err && i < config->input_count; i++)
        err = check_tensor(config, &config->inputs[i], true);
    for (uint32_t i = 0; !err && i < config->output_count; i++)
        err = check_tensor(config, &config->outputs[i], false);
    return err;
}

/* There is nothing to keep of a model but that it is right. */
TRITONSERVER_Error *TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model *handle)
{
    struct kit_config config = { 0 };
    TRITONSERVER_Error *err = kit_config_load(handle, &config);

    if (!err)
        err = check_config(&config);
    kit_config_fini(&config);
    return err;
}

/* ---- Instances ---- */

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance *handle)
{
    struct repeat_instance *instance = calloc(1, sizeof *instance);
    TRITONSERVER_Error *err;

    if (!instance)
        return kit_error_memory(sizeof *instance, "an instance");
    instance->handle = handle;
    err = player_create(handle, &instance->player);
    if (!err)
        err = TRITONBACKEND_ModelInstanceSetState(handle, instance);
    if (err) {
        player_destroy(instance->player);
        free(instance);
    }
    return err;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance *handle)
{
    struct repeat_instance *instance;
    void *state;
    TRITONSERVER_Error *err = TRITONBACKEND_ModelInstanceState(handle, &state);

    if (err)
        return err;
    instance = state;
    if (instance) /* NULL after a failed ModelInstanceInitialize */
        player_destroy(instance->player);
    free(instance);
    return NULL;
}

/* ---- Requests ---- */

/* Opens an input of 4-byte elements. */
static TRITONSERVER_Error *open_words(TRITONBACKEND_Request *request, const char *name,
                                      struct kit_input *ret_input, uint64_t *ret_count)
{
    TRITONSERVER_Error *err = kit_input_open(request, name, ret_input);

    if (!err)
        err = kit_shape_count(ret_input->shape, ret_input->dims_count, ret_count);
    if (!err && ret_input->byte_size != *ret_count * sizeof(uint32_t))
        err = kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                        "input '%s' has %" PRIu64 " bytes, expected %" PRIu64, name,
                        ret_input->byte_size, *ret_count * sizeof(uint32_t));
    return err;
}

static TRITONSERVER_Error *read_wait(TRITONBACKEND_Request *request, uint32_t *ret_wait_ms)
{
    struct kit_input input;
    uint64_t count;
    TRITONSERVER_Error *err = open_words(request, "WAIT", &input, &count);

    if (err)
        return err;
    if (count != 1)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "input 'WAIT' has %" PRIu64 " elements, expected 1", count);
    return kit_input_copy(&input, ret_wait_ms);
}

static TRITONSERVER_Error *read_outputs(TRITONBACKEND_Request *request, struct play *play)
{
    uint32_t count;
    TRITONSERVER_Error *err = TRITONBACKEND_RequestOutputCount(request, &count);

    for (uint32_t i = 0; !err && i < count; i++) {
        const char *name;

        err = TRITONBACKEND_RequestOutputName(request, i, &name);
        if (!err && strcmp(name, "OUT") == 0)
            play->wants_out = true;
        else if (!err && strcmp(name, "IDX") == 0)
            play->wants_idx = true;
    }
    return err;
}

/* Makes the play of a request; the request stays the caller's. */
static TRITONSERVER_Error *make_play(struct player *player, TRITONBACKEND_Request *request,
                                     struct play **ret_play)
{
    struct kit_input values, delays;
    uint64_t count, delay_count;
    struct play *play;
    TRITONSERVER_Error *err;

    err = open_words(request, "IN", &values, &count);
    if (!err)
        err = open_words(request, "DELAY", &delays, &delay_count);
    if (err)
        return err;
    if (count != delay_count || count > UINT32_MAX)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "input 'DELAY' has %" PRIu64 " elements, expected %" PRIu64
                         " as input 'IN'",
                         delay_count, count);

    err = play_create(player, (uint32_t)count, &play);
    if (err)
        return err;
    err = kit_input_copy(&values, play->values);
    if (!err)
        err = kit_input_copy(&delays, play->delays_ms);
    if (!err)
        err = read_outputs(request, play);
    if (!err)
        err = TRITONBACKEND_ResponseFactoryNew(&play->factory, request);
    if (err) {
        play_drop(player, play);
        return err;
    }
    *ret_play = play;
    return NULL;
}

/* Until wait_ms have passed or the request is cancelled. */
static void wait_for(TRITONBACKEND_Request *request, uint32_t wait_ms)
{
    uint64_t end_ns = kit_now_ns() + (uint64_t)wait_ms * 1000000;
    bool is_cancelled = false;

    for (uint64_t now_ns = kit_now_ns(); now_ns < end_ns && !is_cancelled; now_ns = kit_now_ns()) {
        uint64_t left_ns = end_ns - now_ns;
        struct timespec step = {
            .tv_nsec = (long)(left_ns < WAIT_STEP_NS ? left_ns : WAIT_STEP_NS),
        };

        nanosleep(&step, NULL);
        KIT_LOG_ERROR(TRITONBACKEND_RequestIsCancelled(request, &is_cancelled),
                      "asking whether a request is cancelled");
    }
}

static void report_and_release(const struct repeat_instance *instance,
                               TRITONBACKEND_Request *request, struct kit_times *times)
{
    times->compute_end_ns = kit_now_ns();
    kit_batch_report(instance->handle, 1, times);
    kit_request_release(request, instance->handle, times, true);
}

static void execute_one(const struct repeat_instance *instance, TRITONBACKEND_Request *request)
{
    struct kit_times times = { .exec_start_ns = kit_now_ns() };
    uint32_t wait_ms = 0;
    struct play *play = NULL;
    struct kit_request answered;
    TRITONSERVER_Error *err = read_wait(request, &wait_ms);

    if (!err)
        err = make_play(instance->player, request, &play);
    if (err) {
        if (kit_request_open(request, instance->handle, &times, &answered))
            kit_request_finish(&answered, instance->handle, &times, err);
        else
            KIT_LOG_ERROR(err, "answering a request");
        return;
    }
    times.compute_start_ns = kit_now_ns();
    if (wait_ms == 0) {
        /* Nothing to wait for: counted before it is answered, and its memory is free early. */
        report_and_release(instance, request, &times);
        play_put(instance->player, play);
        return;
    }
    play_put(instance->player, play);
    wait_for(request, wait_ms);
    report_and_release(instance, request, &times);
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance *handle,
                                                       TRITONBACKEND_Request **requests,
                                                       uint32_t request_count)
{
    void *state;
    TRITONSERVER_Error *err = TRITONBACKEND_ModelInstanceState(handle, &state);

    if (err)
        return err; /* the requests stay with the server */
    for (uint32_t i = 0; i < request_count; i++)
        execute_one(state, requests[i]);
    return NULL;
}
