/* gate.c - a backend for tests of the scheduler: it tells which requests it runs together, and runs for
 * as long as a test wants.
 *
 * Each requested OUTPUTx is a copy of INPUTx. Models must have a batch dimension. When an execution
 * begins, the log gets a line with the ids and batch sizes of its requests, in their order:
 *
 *     gate begins model=M instance=M_0_0 batch=ID:SIZE,ID:SIZE;
 *
 * Parameters of a request:
 *   hold   string   the execution lasts until there is a file of that name, HOLD_SECONDS_MAX at most
 *   fail   bool     true: this request is answered with an error
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kit/request.h"
#include "kit/tensor.h"

enum {
    HOLD_SECONDS_MAX = 100,
    BATCH_TEXT_BYTES = 3000,
    NAME_BYTES = 256,
};

static const uint64_t NS_PER_S = 1000000000;

/* One request of an execution. */
struct item {
    TRITONBACKEND_Request *request;
    uint64_t batch_size;
    const char *hold; /* NULL: no such parameter */
    bool fails;
};

static TRITONSERVER_Error *read_parameters(struct item *item)
{
    uint32_t count;
    TRITONSERVER_Error *err = TRITONBACKEND_RequestParameterCount(item->request, &count);

    for (uint32_t i = 0; !err && i < count; i++) {
        const char *key;
        TRITONSERVER_ParameterType type;
        const void *value;

        err = TRITONBACKEND_RequestParameter(item->request, i, &key, &type, &value);
        if (err)
            break;
        if (strcmp(key, "hold") == 0 && type == TRITONSERVER_PARAMETER_STRING)
            item->hold = value;
        if (strcmp(key, "fail") == 0 && type == TRITONSERVER_PARAMETER_BOOL)
            item->fails = *(const bool *)value;
    }
    return err;
}

static TRITONSERVER_Error *read_item(TRITONBACKEND_Request *request, struct item *item)
{
    TRITONBACKEND_Input *input;
    const int64_t *shape;
    uint32_t dims_count;
    TRITONSERVER_Error *err;

    *item = (struct item){ .request = request, .batch_size = 1 };
    err = TRITONBACKEND_RequestInputByIndex(request, 0, &input);
    if (!err)
        err = TRITONBACKEND_InputProperties(input, NULL, NULL, &shape, &dims_count, NULL, NULL);
    if (!err && dims_count > 0)
        item->batch_size = (uint64_t)shape[0];
    return err ? err : read_parameters(item);
}

static TRITONSERVER_Error *log_begin(TRITONBACKEND_ModelInstance *instance,
                                     const struct item *items, uint32_t count)
{
    TRITONBACKEND_Model *model;
    const char *model_name, *instance_name, *id;
    char batch[BATCH_TEXT_BYTES] = "";
    size_t used = 0;
    TRITONSERVER_Error *err = TRITONBACKEND_ModelInstanceModel(instance, &model);

    if (!err)
        err = TRITONBACKEND_ModelName(model, &model_name);
    if (!err)
        err = TRITONBACKEND_ModelInstanceName(instance, &instance_name);
    for (uint32_t i = 0; i < count && !err && used < sizeof batch; i++) {
        err = TRITONBACKEND_RequestId(items[i].request, &id);
        if (!err)
            used += (size_t)snprintf(batch + used, sizeof batch - used, "%s%s:%d", i ? "," : "", id,
                                     (int)items[i].batch_size);
    }
    if (!err)
        KIT_LOG(TRITONSERVER_LOG_INFO, "gate begins model=%s instance=%s batch=%s;", model_name,
                instance_name, batch);
    return err;
}

static void wait_for_file(const char *name)
{
    const struct timespec step = { .tv_nsec = 1000000 };
    uint64_t end_ns = kit_now_ns() + HOLD_SECONDS_MAX * NS_PER_S;

    while (access(name, F_OK) != 0 && kit_now_ns() < end_ns)
        nanosleep(&step, NULL);
}

static TRITONSERVER_Error *copy_output(const struct kit_request *request, const char *output)
{
    char name[NAME_BYTES];
    struct kit_input input;
    TRITONSERVER_Error *err;
    void *data;

    if (strncmp(output, "OUTPUT", strlen("OUTPUT")) != 0)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG, "output '%s' has no input", output);
    snprintf(name, sizeof name, "INPUT%s", output + strlen("OUTPUT"));
    err = kit_input_open(request->request, name, &input);
    if (!err)
        err = kit_output_open(request->response, output, input.datatype, input.shape,
                              input.dims_count, input.byte_size, &data);
    return err ? err : kit_input_copy(&input, data);
}

static TRITONSERVER_Error *copy_outputs(const struct kit_request *request)
{
    uint32_t count;
    const char *name;
    TRITONSERVER_Error *err = TRITONBACKEND_RequestOutputCount(request->request, &count);

    for (uint32_t i = 0; !err && i < count; i++) {
        err = TRITONBACKEND_RequestOutputName(request->request, i, &name);
        if (!err)
            err = copy_output(request, name);
    }
    return err;
}

static void answer(TRITONBACKEND_ModelInstance *instance, const struct item *item,
                   const struct kit_times *times)
{
    struct kit_request request;

    if (!kit_request_open(item->request, instance, times, &request))
        return;
    kit_request_finish(&request, instance, times,
                       item->fails ? kit_error(TRITONSERVER_ERROR_INVALID_ARG, "it has to fail")
                                   : copy_outputs(&request));
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance *instance,
                                                       TRITONBACKEND_Request **requests,
                                                       uint32_t count)
{
    struct kit_times times = { .exec_start_ns = kit_now_ns() };
    struct item *items = calloc(count, sizeof *items);
    uint64_t batch_size = 0;
    TRITONSERVER_Error *err = items ? NULL : kit_error_memory(count * sizeof *items, "a batch");

    for (uint32_t i = 0; i < count && !err; i++) {
        err = read_item(requests[i], &items[i]);
        if (!err)
            batch_size += items[i].batch_size;
    }
    if (!err)
        err = log_begin(instance, items, count);
    if (err) {
        free(items);
        return err;
    }

    times.compute_start_ns = kit_now_ns();
    for (uint32_t i = 0; i < count; i++) {
        if (items[i].hold)
            wait_for_file(items[i].hold);
    }
    times.compute_end_ns = kit_now_ns();
    kit_batch_report(instance, batch_size, &times);
    for (uint32_t i = 0; i < count; i++)
        answer(instance, &items[i], &times);
    free(items);
    return NULL;
}
