/* api/status.h - how each dialect says that something went wrong.
 *
 * An error's reason (infer/reason.h) is looked up in the dialect's table for code and text; without
 * a reason, or without an entry, the error's own code and text serve.
 */
#ifndef TIS_API_STATUS_H
#define TIS_API_STATUS_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/error.h"

enum dialect {
    DIALECT_V0,
    DIALECT_V1,
    DIALECT_V2
};

/* The text goes to `out`, the code is returned. */
TRITONSERVER_Error_Code status_describe(enum dialect dialect, const tis_error *err,
                                        struct bytes *out);

/* v2: HTTP status of a code. */
int status_http(TRITONSERVER_Error_Code code);
/* gRPC's status (enum grpc_code) of a code. */
int status_grpc(TRITONSERVER_Error_Code code);
/* v1: number and word of nvidia.inferenceserver.RequestStatusCode. */
int status_v1_code(TRITONSERVER_Error_Code code);
const char *status_v1_name(TRITONSERVER_Error_Code code);

/* v2 writes "[request id: X] " before errors that the core finds in a request. */
bool status_has_request_prefix(const tis_error *err);

#endif
