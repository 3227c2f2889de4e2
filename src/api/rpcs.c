/* Which path is which operation over gRPC, and the gRPC server's callbacks. */
#include <assert.h>
#include <string.h>

#include "api/api.h"
#include "api/call.h"
#include "api/call_stream.h"
#include "api/reflection.h"
#include "api/v1/v1.h"
#include "api/v2/v2.h"

#define V1_SERVICE "/nvidia.inferenceserver.GRPCService/"
#define V2_SERVICE "/inference.GRPCInferenceService/"

enum {
    RPC_SHORT = 1 << 8 /* its messages are, see SHORT_BYTES_MAX */
};

struct rpc {
    const char *path;
    void (*handle)(struct call *call);
    int flags;                           /* of routes, and RPC_SHORT */
    uint32_t categories;                 /* api/restrict.h */
    const struct stream_dialect *stream; /* instead of handle */
};

static void reflect(struct call *call)
{
    tis_error *err = reflection_answer(call->message, call->message_len, &call->out);
    if (err)
        v2_rpc_fail(call, err);
    else
        v2_rpc_respond(call);
}

static const struct stream_dialect reflection_dialect = { .handle = reflect, .in_order = true };

static const struct stream_dialect health_watch_dialect = {
    .handle = call_stream_watch,
    .look = v2_rpc_health_look,
};

/* The hot ones first. */
static const struct rpc rpcs[] = {
    { V2_SERVICE "ModelInfer", v2_rpc_infer, ROUTE_INFER, CATEGORY_INFERENCE },
    { V2_SERVICE "ModelStreamInfer", NULL, ROUTE_INFER, CATEGORY_INFERENCE, &v2_stream_dialect },
    { V1_SERVICE "Infer", v1_rpc_infer, ROUTE_INFER, CATEGORY_INFERENCE },
    { V1_SERVICE "StreamInfer", NULL, ROUTE_INFER, CATEGORY_INFERENCE, &v1_stream_dialect },
    { V2_SERVICE "ServerLive", v2_rpc_server_live, ROUTE_EXEMPT, CATEGORY_HEALTH },
    { V2_SERVICE "ServerReady", v2_rpc_server_ready, ROUTE_EXEMPT, CATEGORY_HEALTH },
    { V2_SERVICE "ModelReady", v2_rpc_model_ready, ROUTE_EXEMPT, CATEGORY_HEALTH },
    { V2_SERVICE "ServerMetadata", v2_rpc_server_metadata, 0, CATEGORY_METADATA },
    { V2_SERVICE "ModelMetadata", v2_rpc_model_metadata, 0, CATEGORY_METADATA },
    { V2_SERVICE "ModelConfig", v2_rpc_model_config, 0, CATEGORY_MODEL_CONFIG },
    { V2_SERVICE "ModelStatistics", v2_rpc_statistics, 0, CATEGORY_STATISTICS },
    { V2_SERVICE "RepositoryIndex", v2_rpc_repository_index, 0, CATEGORY_MODEL_REPOSITORY },
    { V2_SERVICE "RepositoryModelLoad", v2_rpc_model_control, 0, CATEGORY_MODEL_REPOSITORY },
    { V2_SERVICE "RepositoryModelUnload", v2_rpc_model_control, 0, CATEGORY_MODEL_REPOSITORY },
    { V2_SERVICE "LogSettings", v2_rpc_log_settings, 0, CATEGORY_LOGGING },
    { V2_SERVICE "TraceSetting", v2_rpc_no_trace, 0, CATEGORY_TRACE },
    { V2_SERVICE "SystemSharedMemoryStatus", v2_rpc_no_shared_memory, 0, CATEGORY_SHARED_MEMORY },
    { V2_SERVICE "SystemSharedMemoryRegister", v2_rpc_no_shared_memory, 0, CATEGORY_SHARED_MEMORY },
    { V2_SERVICE "SystemSharedMemoryUnregister", v2_rpc_no_shared_memory, 0,
      CATEGORY_SHARED_MEMORY },
    { V2_SERVICE "CudaSharedMemoryStatus", v2_rpc_no_shared_memory, 0, CATEGORY_SHARED_MEMORY },
    { V2_SERVICE "CudaSharedMemoryRegister", v2_rpc_no_shared_memory, 0, CATEGORY_SHARED_MEMORY },
    { V2_SERVICE "CudaSharedMemoryUnregister", v2_rpc_no_shared_memory, 0, CATEGORY_SHARED_MEMORY },
    { V1_SERVICE "Health", v1_rpc_health, ROUTE_EXEMPT, CATEGORY_HEALTH },
    { V1_SERVICE "Status", v1_rpc_status, 0, CATEGORY_V1_STATUS },
    { V1_SERVICE "Profile", v1_rpc_profile, 0, CATEGORY_TRACE },
    { V1_SERVICE "ModelControl", v1_rpc_model_control, 0, CATEGORY_MODEL_REPOSITORY },
    { V1_SERVICE "SharedMemoryControl", v1_rpc_shared_memory_control, 0, CATEGORY_SHARED_MEMORY },
    { V1_SERVICE "Repository", v1_rpc_repository, 0, CATEGORY_MODEL_REPOSITORY },
    { "/grpc.health.v1.Health/Check", v2_rpc_health_check, ROUTE_EXEMPT, CATEGORY_HEALTH },
    { "/grpc.health.v1.Health/Watch", NULL, ROUTE_EXEMPT, CATEGORY_HEALTH, &health_watch_dialect },
    { "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", NULL, RPC_SHORT,
      CATEGORY_METADATA, &reflection_dialect },
    { "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", NULL, RPC_SHORT,
      CATEGORY_METADATA, &reflection_dialect },
};

enum {
    SHORT_BYTES_MAX =
        64 << 10 /* of a message that is short, or that the byte budget does not count */
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
    const struct api *api = arg;
    tis_error *err = restrictions_check(&api->options.grpc_restrictions, &restriction_grpc,
                                        rpc->categories, ex->metadata, ex->metadata_count);
    if (err) {
        grpc_fail(ex, GRPC_UNAVAILABLE, error_text(err));
        error_free(err);
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
    ex->budget_exempt = rpc->flags & ROUTE_EXEMPT;
    if (rpc->flags & (ROUTE_EXEMPT | RPC_SHORT))
        ex->message_bytes_max = SHORT_BYTES_MAX;
    if (rpc->flags & ROUTE_INFER)
        ex->compression = api->options.grpc_compression;
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
    for (size_t i = 0; i < ARRAY_LEN(rpcs); i++)
        assert(rpcs[i].categories != 0); /* such a row could not be restricted */
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
