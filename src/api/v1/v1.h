/* api/v1/v1.h - the protocol of TRTIS 0.9 and 1.x over HTTP.
 *
 * Two dialects share the paths: 0.9 gives sizes, 1.x gives shapes. A request's NV-InferRequest header
 * tells which (it holds `byte_size:` in an input or output), and the answer follows.
 * Every answer to a known path carries NV-Status; the only HTTP codes are 200, 400 and 405.
 */
#ifndef TIS_API_V1_V1_H
#define TIS_API_V1_V1_H

#include <protobuf-c/protobuf-c.h>

#include "api/call.h"
#include "api/status.h"

void v1_infer(struct call *call);
void v1_live(struct call *call);
void v1_ready(struct call *call);
void v1_health_without_mode(struct call *call);
void v1_status(struct call *call);
void v1_profile(struct call *call);
void v1_repository_index(struct call *call);
void v1_model_control(struct call *call);
/* A path that is no operation, or not with this method. */
void v1_no_route(struct call *call);
/* The HTTP server itself refuses: a limit, a client too slow, bad framing. */
void v1_refuse(struct http_exchange *ex, const struct api *api, int status, const char *text);

/* The number of this request, for NV-Status. Counts from 1. */
uint64_t v1_next_request_id(struct api *api);
/* The server's id as v1 clients see it. */
const char *v1_server_id(const struct api *api);
/* Appends the header line "NV-Status: ...\r\n"; err NULL: SUCCESS. */
void v1_append_status(struct bytes *headers, const struct api *api, enum dialect dialect,
                      const tis_error *err, uint64_t request_id);
/* Answers with NV-Status and no body: 200, or 400 with an error. Takes err. */
void v1_answer(struct call *call, tis_error *err, uint64_t request_id);

/* How the body is to be written. Anything but binary and json is text. */
enum v1_format {
    V1_TEXT,
    V1_BINARY,
    V1_JSON,
};
/* Of the query; without one `Accept: application/json` counts too. */
enum v1_format v1_format(const struct call *call);
/* Appends the message. Check out->failed. */
void v1_append_message(struct bytes *out, const ProtobufCMessage *m, enum v1_format format);

#endif
