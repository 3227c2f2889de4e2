/* Which path is which operation over gRPC, and the gRPC server's callbacks. */
#include <string.h>

#include "api/api.h"
#include "api/call.h"
#include "api/call_stream.h"
#include "api/v1/v1.h"
#include "api/v2/v2.h"

#define V1_SERVICE "/nvidia.inferenceserver.GRPCService/"
#define V2_SERVICE "/inference.GRPCInferenceService/"

struct rpc {
    const char *path;
    void (*handle)(struct call *call);
    int flags;                           /* of routes */
    const struct stream_dialect *stream; /* instead of handle */
};

/* The hot ones first. */
static const struct rpc rpcs[] = {
    { V2_SERVICE "ModelInfer", v2_rpc_infer, ROUTE_INFER },
    { V2_SERVICE "ModelStreamInfer", NULL, ROUTE_INFER, &v2_stream_dialect },
    { V1_SERVICE "Infer", v1_rpc_infer, ROUTE_INFER },
    { V1_SERVICE "StreamInfer", NULL, ROUTE_INFER, &v1_stream_dialect },
    { V2_SERVICE "ServerLive", v2_rpc_server_live, ROUTE_EXEMPT },
    { V2_SERVICE "ServerReady", v2_rpc_server_ready, ROUTE_EXEMPT },
    { V2_SERVICE "ModelReady", v2_rpc_model_ready, ROUTE_EXEMPT },
    { V2_SERVICE "ServerMetadata", v2_rpc_server_metadata, 0 },
    { V2_SERVICE "ModelMetadata", v2_rpc_model_metadata, 0 },
    { V2_SERVICE "ModelConfig", v2_rpc_model_config, 0 },
    { V2_SERVICE "ModelStatistics", v2_rpc_statistics, 0 },
    { V2_SERVICE "RepositoryIndex", v2_rpc_repository_index, 0 },
    { V1_SERVICE "Health", v1_rpc_health, ROUTE_EXEMPT },
    { V1_SERVICE "Status", v1_rpc_status, 0 },
    { V1_SERVICE "Profile", v1_rpc_profile, 0 },
    { V1_SERVICE "ModelControl", v1_rpc_model_control, 0 },
    { V1_SERVICE "SharedMemoryControl", v1_rpc_shared_memory_control, 0 },
    { V1_SERVICE "Repository", v1_rpc_repository, 0 },
    { "/grpc.health.v1.Health/Check", v2_rpc_health_check, ROUTE_EXEMPT },
};

enum {
    EXEMPT_BYTES_MAX = 64 << 10 /* of a message that the byte budget does not count */
};

static const struct rpc *find(const char *path)
{
    for (size_t i = 0; i < ARRAY_LEN(rpcs); i++) {
        if (strcmp(rpcs[i].path, path) == 0)
            return &rpcs[i];
    }
    return NULL;
}

static void on_head(struct grpc_exchange *ex, void *arg)
{
    const struct rpc *rpc = find(ex->path);
    if (!rpc) {
        grpc_fail(ex, GRPC_UNIMPLEMENTED, "");
        return;
    }
    struct call *call = rpc->stream ? NULL : call_create_rpc(arg, ex);
    ex->user = rpc->stream ? (void *)call_stream_open(arg, ex, rpc->stream) : call;
    if (!ex->user) {
        grpc_fail(ex, GRPC_UNAVAILABLE, "out of memory");
        return;
    }
    if (call)
        call->rpc_handle = rpc->handle;
    if (rpc->flags & ROUTE_EXEMPT) {
        ex->budget_exempt = true;
        ex->message_bytes_max = EXEMPT_BYTES_MAX;
    }
}

static tis_error *on_message(struct grpc_exchange *ex, size_t bytes,
                             struct http_body_memory *ret_memory, void *arg)
{
    (void)arg;
    char *base = NULL;
    tis_error *err = NULL;
    if (ex->is_stream) {
        err = call_stream_message(ex->user, bytes, &base);
    } else {
        struct call *call = ex->user;
        call->body = buffer_create(bytes, 0);
        if (!call->body)
            return error_no_memory();
        base = call->body->base;
    }
    if (!err)
        *ret_memory = (struct http_body_memory){ .base = base, .bytes = bytes };
    return err;
}

static void on_request(struct grpc_exchange *ex, void *arg)
{
    (void)arg;
    if (ex->is_stream) {
        call_stream_request(ex->user);
        return;
    }
    struct call *call = ex->user;
    call->message = ex->message;
    call->message_len = ex->message_len;
    call->recv_end_ns = ex->recv_end_ns;
    call->rpc_handle(call);
}

static void on_half_close(struct grpc_exchange *ex, void *arg)
{
    (void)arg;
    call_stream_half_close(ex->user);
}

static void on_drain(struct grpc_exchange *ex, void *arg)
{
    (void)arg;
    call_stream_drain(ex->user);
}

static void on_cancel(struct grpc_exchange *ex, void *arg)
{
    (void)arg;
    if (ex->is_stream)
        call_stream_cancel_all(ex->user);
    else
        call_cancel(ex->user);
}

static void on_end(struct grpc_exchange *ex, void *arg)
{
    (void)arg;
    if (ex->is_stream && ex->user)
        call_stream_exchange_ended(ex->user);
    else
        call_destroy(ex->user);
    ex->user = NULL;
}

struct grpc_handler api_grpc_handler(struct api *api)
{
    return (struct grpc_handler){
        .arg = api,
        .on_head = on_head,
        .on_message = on_message,
        .on_request = on_request,
        .on_half_close = on_half_close,
        .on_drain = on_drain,
        .on_cancel = on_cancel,
        .on_end = on_end,
    };
}
