/* kit/request.h - answers each request of a batch exactly once.
 *
 * A backend opens the requests that Execute got, works, and finishes each of
 * them with its result or its error; finishing sends the response, reports the
 * statistics and releases the request, so no path can forget one of the three.
 * The work may end for one request earlier than for another.
 *
 * Threads: one thread per request at a time.
 */
#ifndef KIT_REQUEST_H
#define KIT_REQUEST_H

#include "kit/error.h"

/* When the parts of an execution took place; monotonic, 0 = did not happen. */
struct kit_times {
    uint64_t exec_start_ns;
    uint64_t compute_start_ns;
    uint64_t compute_end_ns;
};

/* A request being answered; zeroed = finished. */
struct kit_request {
    TRITONBACKEND_Request *request;
    TRITONBACKEND_Response *response;
};

/* Monotonic time. */
uint64_t kit_now_ns(void);

/* Takes request and makes its response. On error the request is finished already. */
bool kit_request_open(TRITONBACKEND_Request *request, TRITONBACKEND_ModelInstance *instance,
                      const struct kit_times *times, struct kit_request *ret_request);

/* Answers: with error (which it takes) or, when that is NULL, with the outputs.
 * *request is finished afterwards. */
void kit_request_finish(struct kit_request *request, TRITONBACKEND_ModelInstance *instance,
                        const struct kit_times *times, TRITONSERVER_Error *error);

/* Reports and releases a request that kit_request_open() was not called for: its responses come from
 * a response factory, before or after this. */
void kit_request_release(TRITONBACKEND_Request *request, TRITONBACKEND_ModelInstance *instance,
                         const struct kit_times *times, bool success);

/* Reports one run of the engine over batch_size elements. */
void kit_batch_report(TRITONBACKEND_ModelInstance *instance, uint64_t batch_size,
                      const struct kit_times *times);

#endif
