/* api/v2/v2.h - the v2 Open Inference Protocol over HTTP and gRPC, with Triton's extensions.
 *
 * Each handler answers the call. Where Triton answers a client's mistake with 500 or text/plain, we
 * answer 400 with the JSON error; docs/differences.md lists each case.
 */
#ifndef TIS_API_V2_V2_H
#define TIS_API_V2_V2_H

#include "api/call.h"
#include "base/bytes.h"

/* Length of the JSON part of a body that carries binary tensors behind it. */
#define V2_HEADER_LENGTH "Inference-Header-Content-Length"

void v2_server_metadata(struct call *call);
void v2_live(struct call *call);
void v2_ready(struct call *call);
void v2_model_metadata(struct call *call);
void v2_model_ready(struct call *call);
void v2_model_config(struct call *call);
void v2_infer(struct call *call);
void v2_statistics(struct call *call);
void v2_repository_index(struct call *call);
void v2_model_control(struct call *call);
void v2_logging(struct call *call);
void v2_no_route(struct call *call, int status);

/* {"error":"<text>"} */
void v2_append_error(struct bytes *out, const char *text);
/* Answers with the error's status and text. Takes err. */
void v2_fail(struct call *call, tis_error *err);

/* JSON up to this size is read and written on the loop, in well under a millisecond; longer JSON on a
 * worker. */
enum {
    V2_JSON_INLINE_BYTES_MAX = 128 << 10
};

/* Bytes of the body that are JSON. A header that makes no sense counts as absent. */
size_t v2_json_bytes(const struct call *call);

/* Fills call->request, call->wanted and so on from the body. Threads: any, one at a time. */
MUST_USE tis_error *v2_decode(struct call *call);
/* Answers from call->response. */
MUST_USE tis_error *v2_encode(struct call *call);

/* What the server says of itself. */
enum {
    V2_EXTENSION_COUNT = 7
};
extern const char *const v2_extensions[V2_EXTENSION_COUNT];
const char *v2_server_name(const struct api *api);
const char *v2_server_version(const struct api *api);

/* Is the output one that a reply can carry? */
MUST_USE tis_error *v2_check_output(const struct call *call, const struct tis_output *o);
/* Replaces the tensor by strings "<value>:<index>[:<label>]", k for each batch entry. */
MUST_USE tis_error *v2_make_classes(struct call *call, struct tis_output *o, uint32_t k);

/* ---- gRPC: grpc_metadata.c, grpc_statistics.c, grpc_infer.c ---- */

void v2_rpc_health_check(struct call *call);
/* Answers when it is not what the call has answered last. */
void v2_rpc_health_look(struct call *call);
void v2_rpc_server_live(struct call *call);
void v2_rpc_server_ready(struct call *call);
void v2_rpc_model_ready(struct call *call);
void v2_rpc_server_metadata(struct call *call);
void v2_rpc_model_metadata(struct call *call);
void v2_rpc_model_config(struct call *call);
void v2_rpc_statistics(struct call *call);
void v2_rpc_repository_index(struct call *call);
void v2_rpc_model_control(struct call *call);
void v2_rpc_log_settings(struct call *call);
void v2_rpc_infer(struct call *call);
/* What this server does not have. */
void v2_rpc_no_trace(struct call *call);
void v2_rpc_no_shared_memory(struct call *call);
/* ModelStreamInfer. */
extern const struct stream_dialect v2_stream_dialect;

/* Answers with the error's status and text. Takes err. */
void v2_rpc_fail(struct call *call, tis_error *err);
/* The error's text as clients see it, with the request's id where that is due. */
TRITONSERVER_Error_Code v2_describe(const struct call *call, const tis_error *err,
                                    struct bytes *ret_text);
/* Answers from call->response. */
MUST_USE tis_error *v2_rpc_encode(struct call *call);
/* In a stream: a message with the error (takes it), and one that marks the end of the responses. */
void v2_rpc_stream_fail(struct call *call, tis_error *err);
void v2_rpc_stream_end(struct call *call);
/* Answers with call->out. */
void v2_rpc_respond(struct call *call);
/* Answers with err (takes it), or with the message when there is none. */
void v2_rpc_respond_message(struct call *call, tis_error *err, const ProtobufCMessage *m);
/* Fills call->request and call->wanted from the message of call->rpc. Threads: any, one at a time. */
MUST_USE tis_error *v2_rpc_decode(struct call *call);
/* Reads what v2_rpc_decode() needs a request for: model and version. */
MUST_USE tis_error *v2_rpc_read_target(struct call *call);

#endif
