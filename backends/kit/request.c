#include "kit/request.h"

#include <assert.h>
#include <time.h>

uint64_t kit_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The times as the server wants them: parts that did not happen take no time. */
struct full_times {
    uint64_t exec_start_ns, compute_start_ns, compute_end_ns, exec_end_ns;
};

static struct full_times complete_times(const struct kit_times *times)
{
    uint64_t now_ns = kit_now_ns();
    uint64_t start_ns = times->compute_start_ns ? times->compute_start_ns : now_ns;

    return (struct full_times){
        .exec_start_ns = times->exec_start_ns,
        .compute_start_ns = start_ns,
        .compute_end_ns = times->compute_end_ns ? times->compute_end_ns : start_ns,
        .exec_end_ns = now_ns,
    };
}

void kit_request_release(TRITONBACKEND_Request *request, TRITONBACKEND_ModelInstance *instance,
                         const struct kit_times *times, bool success)
{
    struct full_times t = complete_times(times);

    KIT_LOG_ERROR(TRITONBACKEND_ModelInstanceReportStatistics(instance, request, success,
                                                              t.exec_start_ns, t.compute_start_ns,
                                                              t.compute_end_ns, t.exec_end_ns),
                  "reporting a request's statistics");
    KIT_LOG_ERROR(TRITONBACKEND_RequestRelease(request, TRITONSERVER_REQUEST_RELEASE_ALL),
                  "releasing a request");
}

bool kit_request_open(TRITONBACKEND_Request *request, TRITONBACKEND_ModelInstance *instance,
                      const struct kit_times *times, struct kit_request *ret_request)
{
    TRITONBACKEND_Response *response;
    TRITONSERVER_Error *err = TRITONBACKEND_ResponseNew(&response, request);

    if (err) {
        /* Without a response there is nothing to answer with: the server sees the
         * release of an unanswered request. */
        KIT_LOG_ERROR(err, "making a response");
        kit_request_release(request, instance, times, false);
        return false;
    }
    *ret_request = (struct kit_request){ .request = request, .response = response };
    return true;
}

void kit_request_finish(struct kit_request *request, TRITONBACKEND_ModelInstance *instance,
                        const struct kit_times *times, TRITONSERVER_Error *error)
{
    assert(request->request && request->response);

    /* The response goes first: the client waits for it, nobody for the rest. */
    KIT_LOG_ERROR(
        TRITONBACKEND_ResponseSend(request->response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, error),
        "sending a response");
    kit_request_release(request->request, instance, times, !error);
    if (error)
        TRITONSERVER_ErrorDelete(error);
    *request = (struct kit_request){ 0 };
}

void kit_batch_report(TRITONBACKEND_ModelInstance *instance, uint64_t batch_size,
                      const struct kit_times *times)
{
    struct full_times t = complete_times(times);

    KIT_LOG_ERROR(TRITONBACKEND_ModelInstanceReportBatchStatistics(
                      instance, batch_size, t.exec_start_ns, t.compute_start_ns, t.compute_end_ns,
                      t.exec_end_ns),
                  "reporting a batch's statistics");
}
