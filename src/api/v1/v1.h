/* api/v1/v1.h - the protocol of TRTIS 0.9 and 1.x, over HTTP and gRPC.
 *
 * Two dialects share paths and calls: 0.9 gives sizes, 1.x gives shapes. A request's infer header
 * tells which (it gives a byte_size in an input or output), and the answer follows.
 * HTTP: every answer to a known path carries NV-Status; the only codes are 200, 400 and 405.
 * gRPC: every call ends with the status OK; its answer carries the same in request_status.
 */
#ifndef TIS_API_V1_V1_H
#define TIS_API_V1_V1_H

#include <protobuf-c/protobuf-c.h>

#include "api/call.h"
#include "api/status.h"
#include "v1/server_status.pb-c.h"

/* ---- The operations but for inference (infer.h), however they are carried: operations.c ---- */

enum {
    V1_STATUS_ARENA_BYTES_MAX = 256 << 20 /* what the messages of status and index may take */
};

/* Is the server live, ready? Errors: UNKNOWN for another mode than these two words. */
MUST_USE tis_error *v1_ask_health(struct call *call, struct part mode, bool *ret_yes);
/* command: start or stop. */
MUST_USE tis_error *v1_run_profile(struct call *call, struct part command);
/* Of one model, or of all when the name is empty; in the arena, but for what the server keeps. */
MUST_USE tis_error *v1_get_status(struct call *call, struct part model, struct arena *a,
                                  Nvidia__Inferenceserver__ServerStatus **ret_status);
MUST_USE tis_error *v1_get_index(struct call *call, struct arena *a,
                                 Nvidia__Inferenceserver__ModelRepositoryIndex **ret_index);
MUST_USE tis_error *v1_control_model(struct call *call);

/* The messages of the last ones: server_status.c. */
MUST_USE tis_error *v1_make_status(struct api *api, struct part model, struct arena *a,
                                   Nvidia__Inferenceserver__ServerStatus **ret_status);
MUST_USE tis_error *v1_make_index(struct api *api, struct arena *a,
                                  Nvidia__Inferenceserver__ModelRepositoryIndex **ret_index);

/* A request for a version of a known model that is not there (negative: the latest) has failed. Of many
 * different ones not all are kept: absent.c. */
void v1_count_absent(struct call *call, int64_t version, uint32_t batch_size);
/* Those of a model; their names are the server's. False when out of memory. */
MUST_USE bool v1_get_absent(struct api *api, const char *model, struct arena *a,
                            struct absent_failures **ret_rows, uint32_t *ret_count);

/* The server's id as v1 clients see it. */
const char *v1_server_id(const struct api *api);
/* The number of a request. Counts from 1. */
uint64_t v1_next_request_id(struct api *api);
/* The same for an answer with this error or none: 0 when the server's state refuses everything. */
uint64_t v1_request_id(struct api *api, const tis_error *err);

/* ---- HTTP: status.c, http_infer.c ---- */

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

/* Appends the header line "NV-Status: ...\r\n"; err NULL: SUCCESS. */
void v1_append_status(struct bytes *headers, const struct api *api, enum dialect dialect,
                      const tis_error *err, uint64_t request_id);
/* Answers with NV-Status and no body: 200, or 400 with an error. Takes err. */
void v1_answer(struct call *call, tis_error *err);

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

/* ---- gRPC: grpc.c, grpc_infer.c ---- */

void v1_rpc_status(struct call *call);
void v1_rpc_profile(struct call *call);
void v1_rpc_health(struct call *call);
void v1_rpc_infer(struct call *call);
extern const struct stream_dialect v1_stream_dialect; /* StreamInfer */
void v1_rpc_model_control(struct call *call);
void v1_rpc_shared_memory_control(struct call *call);
void v1_rpc_repository(struct call *call);

/* Appends the field request_status, which every answer begins with; err NULL: SUCCESS. */
void v1_append_request_status(struct bytes *out, const struct api *api, enum dialect dialect,
                              const tis_error *err, uint64_t request_id);
/* Answers with call->out. */
void v1_rpc_respond(struct call *call);

#endif
