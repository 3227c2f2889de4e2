/* api/inproc.h - the server as plug-ins see it: asking models from inside a backend.
 *
 * A backend may call other models of the server it runs in (Triton calls this BLS): it makes a
 * request through the TRITONSERVER_InferenceRequest functions and gives it to
 * TRITONSERVER_ServerInferAsync. The functions are declared in include/tis/server.h and implemented
 * in inproc.c; this header holds the object they are given.
 */
#ifndef TIS_API_INPROC_H
#define TIS_API_INPROC_H

#include "model/registry.h"

/* TRITONSERVER_Server. Set before the first model loads, then constant. */
struct tis_server {
    struct registry *registry;
};

#endif
