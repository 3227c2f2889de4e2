/* The TRITONSERVER_ functions with which a backend calls other models. The contracts stand in
 * include/tis/server.h.
 *
 * A request made here is the same object as one from the network; its sink hands responses to the
 * backend's callbacks instead of to a loop. */
#include "api/inproc.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "exec/version.h"
#include "infer/request.h"
#include "infer/response.h"
#include "infer/shape.h"
#include "model/validate.h"
#include "tis/backend.h"

enum {
    INPUTS_FIRST = 8
};

struct tis_response_allocator {
    TRITONSERVER_ResponseAllocatorAllocFn_t alloc;
    TRITONSERVER_ResponseAllocatorReleaseFn_t release;
    TRITONSERVER_ResponseAllocatorStartFn_t start;
    TRITONSERVER_ResponseAllocatorQueryFn_t query;
};

/* What a request made here carries besides; in the request's arena, as its sink's user. */
struct inproc {
    struct tis_version *target; /* a reference */
    struct tis_response_allocator *allocator;
    void *allocator_user;
    TRITONSERVER_InferenceResponseCompleteFn_t response;
    void *response_user;
    TRITONSERVER_InferenceRequestReleaseFn_t release;
    void *release_user;
};

static struct inproc *inproc_of(const struct tis_request *req)
{
    return req->sink->user;
}

/* ---- Response allocators ---- */

TRITONSERVER_Error *
TRITONSERVER_ResponseAllocatorNew(TRITONSERVER_ResponseAllocator **allocator,
                                  TRITONSERVER_ResponseAllocatorAllocFn_t alloc_fn,
                                  TRITONSERVER_ResponseAllocatorReleaseFn_t release_fn,
                                  TRITONSERVER_ResponseAllocatorStartFn_t start_fn)
{
    struct tis_response_allocator *a = calloc(1, sizeof(*a));
    if (!a)
        return error_no_memory();
    a->alloc = alloc_fn;
    a->release = release_fn;
    a->start = start_fn;
    *allocator = a;
    return NULL;
}

TRITONSERVER_Error *
TRITONSERVER_ResponseAllocatorSetQueryFunction(TRITONSERVER_ResponseAllocator *allocator,
                                               TRITONSERVER_ResponseAllocatorQueryFn_t query_fn)
{
    allocator->query = query_fn;
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_ResponseAllocatorDelete(TRITONSERVER_ResponseAllocator *allocator)
{
    free(allocator);
    return NULL;
}

/* ---- The sink ---- */

/* Memory that a plug-in's allocator gave. */
struct foreign_buffer {
    struct buffer buffer;
    struct tis_response_allocator *allocator;
    void *user; /* the allocator's, for this buffer */
    uint64_t bytes;
};

static void foreign_release(struct buffer *b)
{
    struct foreign_buffer *f = CONTAINER_OF(b, struct foreign_buffer, buffer);
    error_free(f->allocator->release(f->allocator, b->base, f->user, f->bytes, b->memory_type,
                                     b->memory_id));
    free(f);
}

static tis_error *inproc_allocate(struct sink *sink, const struct tis_output *output,
                                  uint64_t bytes, struct buffer **ret_buffer)
{
    const struct inproc *in = sink->user;
    struct foreign_buffer *f = calloc(1, sizeof(*f));
    if (!f)
        return error_no_memory();
    f->allocator = in->allocator;
    f->bytes = bytes;
    atomic_init(&f->buffer.refs, 1);
    f->buffer.release = foreign_release;
    f->buffer.capacity = bytes;
    tis_error *err = in->allocator->alloc(
        in->allocator, output->name, bytes, TRITONSERVER_MEMORY_CPU, 0, in->allocator_user,
        &f->buffer.base, &f->user, &f->buffer.memory_type, &f->buffer.memory_id);
    if (err) {
        free(f);
        return err;
    }
    *ret_buffer = &f->buffer;
    return NULL;
}

static tis_error *inproc_start(struct sink *sink)
{
    const struct inproc *in = sink->user;
    if (!in->allocator->start)
        return NULL;
    return in->allocator->start(in->allocator, in->allocator_user);
}

static tis_error *inproc_query(struct sink *sink, const char *output, size_t *bytes,
                               TRITONSERVER_MemoryType *memory_type, int64_t *memory_id)
{
    const struct inproc *in = sink->user;
    if (!in->allocator->query)
        return error_new(TRITONSERVER_ERROR_UNAVAILABLE,
                         "the response allocator cannot say where outputs will lie");
    return in->allocator->query(in->allocator, in->allocator_user, output, bytes, memory_type,
                                memory_id);
}

static void inproc_complete(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    const struct inproc *in = sink->user;
    in->response(response, flags, in->response_user);
}

static void inproc_done(struct sink *sink, struct tis_request *request)
{
    const struct inproc *in = sink->user;
    in->release(request, TRITONSERVER_REQUEST_RELEASE_ALL, in->release_user);
}

static const struct sink_ops inproc_sink_ops = {
    .start = inproc_start,
    .query = inproc_query,
    .allocate = inproc_allocate,
    .complete = inproc_complete,
    .done = inproc_done,
};

/* ---- Requests ---- */

static void inproc_request_free(struct tis_request *req)
{
    struct tis_version *target = inproc_of(req) ? inproc_of(req)->target : NULL;
    request_free(&req);
    version_unref(target);
}

TRITONSERVER_Error *
TRITONSERVER_InferenceRequestNew(TRITONSERVER_InferenceRequest **inference_request,
                                 TRITONSERVER_Server *server, const char *model_name,
                                 const int64_t model_version)
{
    struct tis_request *req = request_create(&inproc_sink_ops, NULL);
    if (!req)
        return error_no_memory();
    struct inproc *in = arena_calloc(&req->arena, 1, sizeof(*in));
    req->sink->user = in;
    tis_error *err = in ? request_reserve_inputs(req, INPUTS_FIRST) : error_no_memory();
    if (!err)
        err = registry_acquire(server->registry, model_name, strlen(model_name), model_version,
                               &in->target);
    if (err) {
        inproc_request_free(req);
        return err;
    }
    *inference_request = req;
    return NULL;
}

/* May the maker change or end the request? */
static tis_error *check_mine(const struct tis_request *req)
{
    uint32_t state = atomic_load(&req->state);
    if (state == REQUEST_NEW)
        return NULL;
    return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                     "an inference request cannot be changed after it was given to the server");
}

TRITONSERVER_Error *
TRITONSERVER_InferenceRequestDelete(TRITONSERVER_InferenceRequest *inference_request)
{
    if (!inference_request)
        return NULL;
    uint32_t state = atomic_load(&inference_request->state);
    if (state != REQUEST_NEW && state != REQUEST_RELEASED)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "an inference request cannot be deleted while the server owns it");
    inproc_request_free(inference_request);
    return NULL;
}

/* A copy in the request's arena at *ret_text. */
static tis_error *copy_text(struct tis_request *req, const char *text, const char **ret_text)
{
    tis_error *err = check_mine(req);
    if (err)
        return err;
    const char *copy = arena_strdup(&req->arena, text);
    if (!copy)
        return error_no_memory();
    *ret_text = copy;
    return NULL;
}

TRITONSERVER_Error *
TRITONSERVER_InferenceRequestSetId(TRITONSERVER_InferenceRequest *inference_request, const char *id)
{
    return copy_text(inference_request, id, &inference_request->id);
}

TRITONSERVER_Error *
TRITONSERVER_InferenceRequestSetFlags(TRITONSERVER_InferenceRequest *inference_request,
                                      uint32_t flags)
{
    inference_request->flags = flags;
    return NULL;
}

TRITONSERVER_Error *
TRITONSERVER_InferenceRequestSetCorrelationId(TRITONSERVER_InferenceRequest *inference_request,
                                              uint64_t correlation_id)
{
    inference_request->correlation_id = correlation_id;
    inference_request->correlation_text = NULL;
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_InferenceRequestSetCorrelationIdString(
    TRITONSERVER_InferenceRequest *inference_request, const char *correlation_id)
{
    return copy_text(inference_request, correlation_id, &inference_request->correlation_text);
}

TRITONSERVER_Error *
TRITONSERVER_InferenceRequestCancel(TRITONSERVER_InferenceRequest *inference_request)
{
    version_cancel(inproc_of(inference_request)->target, inference_request);
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_InferenceRequestSetTimeoutMicroseconds(
    TRITONSERVER_InferenceRequest *inference_request, uint64_t timeout_us)
{
    inference_request->timeout_us = timeout_us;
    return NULL;
}

TRITONSERVER_Error *
TRITONSERVER_InferenceRequestAddInput(TRITONSERVER_InferenceRequest *inference_request,
                                      const char *name, const TRITONSERVER_DataType datatype,
                                      const int64_t *shape, uint64_t dim_count)
{
    struct tis_request *req = inference_request;
    const char *copied_name;
    if (dim_count > SHAPE_RANK_MAX)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "input '%s' has %" PRIu64 " dimensions, at most %d are possible", name,
                         dim_count, SHAPE_RANK_MAX);
    tis_error *err = copy_text(req, name, &copied_name);
    if (err)
        return err;
    if (request_find_input(req, name))
        return error_new(TRITONSERVER_ERROR_INVALID_ARG, "input '%s' already exists in request",
                         name);
    int64_t *copied_shape = arena_alloc(&req->arena, dim_count * sizeof(*copied_shape));
    if (!copied_shape)
        return error_no_memory();
    memcpy(copied_shape, shape, dim_count * sizeof(*copied_shape));
    if (req->input_count == req->input_capacity)
        err = request_reserve_inputs(req, req->input_capacity * 2);
    if (!err)
        request_add_input(req, copied_name, datatype, copied_shape, (uint32_t)dim_count);
    return err;
}

TRITONSERVER_Error *TRITONSERVER_InferenceRequestAppendInputData(
    TRITONSERVER_InferenceRequest *inference_request, const char *name, const void *base,
    size_t byte_size, TRITONSERVER_MemoryType memory_type, int64_t memory_type_id)
{
    tis_error *err = check_mine(inference_request);
    struct tis_input *input = err ? NULL : request_find_input(inference_request, name);
    if (!err && !input)
        err =
            error_new(TRITONSERVER_ERROR_INVALID_ARG, "input '%s' does not exist in request", name);
    if (!err && byte_size > 0)
        err = request_add_chunk(inference_request, input, base, byte_size, memory_type,
                                memory_type_id, NULL);
    return err;
}

TRITONSERVER_Error *
TRITONSERVER_InferenceRequestAddRequestedOutput(TRITONSERVER_InferenceRequest *inference_request,
                                                const char *name)
{
    struct tis_request *req = inference_request;
    const char *copied_name;
    tis_error *err = copy_text(req, name, &copied_name);
    if (err)
        return err;
    const char **outputs = arena_alloc(&req->arena, (req->output_count + 1) * sizeof(*outputs));
    if (!outputs)
        return error_no_memory();
    if (req->output_count > 0)
        memcpy(outputs, req->outputs, req->output_count * sizeof(*outputs));
    outputs[req->output_count++] = copied_name;
    req->outputs = outputs;
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_InferenceRequestSetReleaseCallback(
    TRITONSERVER_InferenceRequest *inference_request,
    TRITONSERVER_InferenceRequestReleaseFn_t request_release_fn, void *request_release_userp)
{
    struct inproc *in = inproc_of(inference_request);
    in->release = request_release_fn;
    in->release_user = request_release_userp;
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_InferenceRequestSetResponseCallback(
    TRITONSERVER_InferenceRequest *inference_request,
    TRITONSERVER_ResponseAllocator *response_allocator, void *response_allocator_userp,
    TRITONSERVER_InferenceResponseCompleteFn_t response_fn, void *response_userp)
{
    struct inproc *in = inproc_of(inference_request);
    in->allocator = response_allocator;
    in->allocator_user = response_allocator_userp;
    in->response = response_fn;
    in->response_user = response_userp;
    return NULL;
}

static tis_error *add_parameter(struct tis_request *req, const char *key,
                                struct tis_parameter parameter)
{
    tis_error *err = copy_text(req, key, &parameter.name);
    if (!err && parameter.type == TRITONSERVER_PARAMETER_STRING)
        err = copy_text(req, parameter.value.string, &parameter.value.string);
    if (err)
        return err;
    struct tis_parameter *grown =
        arena_alloc(&req->arena, (req->parameter_count + 1) * sizeof(*grown));
    if (!grown)
        return error_no_memory();
    if (req->parameter_count > 0)
        memcpy(grown, req->parameters, req->parameter_count * sizeof(*grown));
    grown[req->parameter_count++] = parameter;
    req->parameters = grown;
    return NULL;
}

TRITONSERVER_Error *
TRITONSERVER_InferenceRequestSetStringParameter(TRITONSERVER_InferenceRequest *request,
                                                const char *key, const char *value)
{
    return add_parameter(
        request, key,
        (struct tis_parameter){ .type = TRITONSERVER_PARAMETER_STRING, .value.string = value });
}

TRITONSERVER_Error *
TRITONSERVER_InferenceRequestSetIntParameter(TRITONSERVER_InferenceRequest *request,
                                             const char *key, const int64_t value)
{
    return add_parameter(
        request, key,
        (struct tis_parameter){ .type = TRITONSERVER_PARAMETER_INT, .value.integer = value });
}

TRITONSERVER_Error *
TRITONSERVER_InferenceRequestSetBoolParameter(TRITONSERVER_InferenceRequest *request,
                                              const char *key, const bool value)
{
    return add_parameter(
        request, key,
        (struct tis_parameter){ .type = TRITONSERVER_PARAMETER_BOOL, .value.boolean = value });
}

/* ---- Responses ---- */

TRITONSERVER_Error *
TRITONSERVER_InferenceResponseDelete(TRITONSERVER_InferenceResponse *inference_response)
{
    response_destroy(&inference_response);
    return NULL;
}

TRITONSERVER_Error *
TRITONSERVER_InferenceResponseError(TRITONSERVER_InferenceResponse *inference_response)
{
    /* The header lends the error, Triton's own code gives a new one away: callers do both. */
    return error_lend(inference_response->error);
}

TRITONSERVER_Error *
TRITONSERVER_InferenceResponseParameterCount(TRITONSERVER_InferenceResponse *inference_response,
                                             uint32_t *count)
{
    *count = inference_response->parameter_count;
    return NULL;
}

static tis_error *response_index_error(const char *what, uint32_t index, uint32_t count)
{
    return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                     "out of bounds index %" PRIu32 ": the response has %" PRIu32 " %s", index,
                     count, what);
}

TRITONSERVER_Error *
TRITONSERVER_InferenceResponseParameter(TRITONSERVER_InferenceResponse *inference_response,
                                        const uint32_t index, const char **name,
                                        TRITONSERVER_ParameterType *type, const void **vvalue)
{
    if (index >= inference_response->parameter_count)
        return response_index_error("parameters", index, inference_response->parameter_count);
    const struct response_parameter *p = inference_response->parameters;
    for (uint32_t i = 0; i < index; i++)
        p = p->next;
    *name = p->parameter.name;
    *type = p->parameter.type;
    *vvalue = parameter_value(&p->parameter);
    return NULL;
}

TRITONSERVER_Error *
TRITONSERVER_InferenceResponseOutputCount(TRITONSERVER_InferenceResponse *inference_response,
                                          uint32_t *count)
{
    *count = inference_response->output_count;
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_InferenceResponseOutput(
    TRITONSERVER_InferenceResponse *inference_response, const uint32_t index, const char **name,
    TRITONSERVER_DataType *datatype, const int64_t **shape, uint64_t *dim_count, const void **base,
    size_t *byte_size, TRITONSERVER_MemoryType *memory_type, int64_t *memory_type_id, void **userp)
{
    if (index >= inference_response->output_count)
        return response_index_error("outputs", index, inference_response->output_count);
    const struct tis_output *o = inference_response->outputs;
    for (uint32_t i = 0; i < index; i++)
        o = o->next;
    *name = o->name;
    *datatype = o->data_type;
    *shape = o->shape;
    *dim_count = o->rank;
    *base = o->buffer ? o->buffer->base : NULL;
    *byte_size = o->bytes;
    *memory_type = o->attributes.memory_type;
    *memory_type_id = o->attributes.memory_id;
    bool is_foreign = o->buffer && o->buffer->release == foreign_release;
    *userp = is_foreign ? CONTAINER_OF(o->buffer, struct foreign_buffer, buffer)->user : NULL;
    return NULL;
}

/* ---- The server ---- */

TRITONSERVER_Error *TRITONSERVER_ServerModelIsReady(TRITONSERVER_Server *server,
                                                    const char *model_name,
                                                    const int64_t model_version, bool *ready)
{
    struct tis_version *v = NULL;
    tis_error *err =
        registry_acquire(server->registry, model_name, strlen(model_name), model_version, &v);
    *ready = !err && version_is_ready(v);
    version_unref(v);
    error_free(err);
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_ServerModelTransactionProperties(TRITONSERVER_Server *server,
                                                                  const char *model_name,
                                                                  const int64_t model_version,
                                                                  uint32_t *txn_flags, void **voidp)
{
    struct tis_version *v;
    tis_error *err =
        registry_acquire(server->registry, model_name, strlen(model_name), model_version, &v);
    if (err)
        return err;
    *txn_flags = v->config->decoupled ? TRITONSERVER_TXN_DECOUPLED : TRITONSERVER_TXN_ONE_TO_ONE;
    if (voidp)
        *voidp = NULL;
    version_unref(v);
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_ServerInferAsync(TRITONSERVER_Server *server,
                                                  TRITONSERVER_InferenceRequest *inference_request,
                                                  TRITONSERVER_InferenceTrace *trace)
{
    struct tis_request *req = inference_request;
    struct inproc *in = inproc_of(req);
    (void)server; /* the request knows its version */
    (void)trace;  /* none can exist: TRITONSERVER_InferenceTraceSpawnChildTrace refuses */
    tis_error *err = check_mine(req);
    if (!err && (!in->response || !in->release || !in->allocator))
        err = error_new(TRITONSERVER_ERROR_INVALID_ARG,
                        "an inference request needs a release callback and a response callback");
    if (!err) {
        request_start(req);
        err = request_validate(req, in->target->config, in->target->model_name);
    }
    if (err)
        return err;
    /* The callbacks may have freed the request when submit returns. */
    struct tis_version *target = version_ref(in->target);
    err = version_submit(target, &req);
    if (!err)
        version_wake(target);
    version_unref(target);
    return err;
}
