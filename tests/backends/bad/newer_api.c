/* A backend of the future: it was built for a newer version of the interface and checks it, as all
 * backends must. */
#include <stdio.h>

#include "tis/backend.h"

TRITONSERVER_Error *TRITONBACKEND_Initialize(TRITONBACKEND_Backend *backend)
{
    uint32_t major, minor;
    (void)backend;
    TRITONSERVER_Error *err = TRITONBACKEND_ApiVersion(&major, &minor);
    if (err)
        return err;
    if (major == TRITONBACKEND_API_VERSION_MAJOR && minor >= TRITONBACKEND_API_VERSION_MINOR + 1)
        return NULL;
    char text[128];
    snprintf(text, sizeof(text), "interface version %u.%u is older than the %d.%d that is needed",
             major, minor, TRITONBACKEND_API_VERSION_MAJOR, TRITONBACKEND_API_VERSION_MINOR + 1);
    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNSUPPORTED, text);
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance *instance,
                                                       TRITONBACKEND_Request **requests,
                                                       const uint32_t request_count)
{
    (void)instance, (void)requests, (void)request_count;
    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, "must never run");
}
