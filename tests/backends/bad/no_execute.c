/* A shared object that lacks the one entry point that a backend must have. */
#include <stddef.h>

#include "tis/backend.h"

TRITONSERVER_Error *TRITONBACKEND_Initialize(TRITONBACKEND_Backend *backend)
{
    (void)backend;
    return NULL;
}
