/* The TRITONBACKEND_ functions about the statistics of single responses. The contracts stand in
 * include/tis/backend.h. */
#include <stdlib.h>

#include "exec/plugin_call.h"
#include "exec/response_factory.h"
#include "exec/version.h"
#include "tis/backend.h"

struct tis_response_statistics {
    struct tis_instance *instance;
    struct tis_response_factory *factory;
    struct statistics_response response;
};

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsNew(
    TRITONBACKEND_ModelInstanceResponseStatistics **response_statistics)
{
    struct tis_response_statistics *r = calloc(1, sizeof(*r));
    if (!r)
        return error_no_memory();
    *response_statistics = r;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsDelete(
    TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics)
{
    free(response_statistics);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsSetModelInstance(
    TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics,
    TRITONBACKEND_ModelInstance *model_instance)
{
    response_statistics->instance = model_instance;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseFactory(
    TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics,
    TRITONBACKEND_ResponseFactory *response_factory)
{
    response_statistics->factory = response_factory;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseStart(
    TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics, uint64_t response_start)
{
    response_statistics->response.start_ns = response_start;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsSetComputeOutputStart(
    TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics,
    uint64_t compute_output_start)
{
    response_statistics->response.output_start_ns = compute_output_start;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseEnd(
    TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics, uint64_t response_end)
{
    response_statistics->response.end_ns = response_end;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsSetError(
    TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics, TRITONSERVER_Error *error)
{
    enum response_end_kind end = RESPONSE_END_SUCCESS;
    if (error)
        end = error_code(error) == TRITONSERVER_ERROR_CANCELLED ? RESPONSE_END_CANCEL
                                                                : RESPONSE_END_FAIL;
    response_statistics->response.end = end;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceReportResponseStatistics(
    TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics)
{
    struct tis_response_statistics *r = response_statistics;
    if (!r->instance || !r->factory)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "response statistics need a model instance and a response factory");
    if (!atomic_load(&r->factory->alive))
        return misuse("a deleted response factory was used for statistics");
    if (atomic_load(&r->instance->warming))
        return NULL;
    uint32_t index = atomic_fetch_add(&r->factory->responses_reported, 1);
    statistics_add_response(r->instance->statistics, index, &r->response);
    return NULL;
}
