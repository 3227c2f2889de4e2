/* The TRITONBACKEND_ functions about requests, inputs, responses and outputs. The contracts stand
 * in include/tis/backend.h. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/slab.h"
#include "exec/plugin_call.h"
#include "exec/response_factory.h"
#include "exec/version.h"
#include "infer/datatype.h"
#include "infer/request.h"
#include "infer/response.h"
#include "infer/shape.h"
#include "infer/slabs.h"
#include "tis/backend.h"

static tis_error *index_error(const char *what, uint32_t index, uint32_t count)
{
    return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                     "out of bounds index %" PRIu32 ": the request has %" PRIu32 " %s", index,
                     count, what);
}

/* ---- Request ---- */

TRITONSERVER_Error *TRITONBACKEND_RequestId(TRITONBACKEND_Request *request, const char **id)
{
    *id = request->id;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestIsCancelled(TRITONBACKEND_Request *request,
                                                     bool *is_cancelled)
{
    *is_cancelled = atomic_load(&request->sink->cancelled);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestCorrelationId(TRITONBACKEND_Request *request, uint64_t *id)
{
    if (request->correlation_text)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "the correlation id of this request is a string: '%s'",
                         request->correlation_text);
    *id = request->correlation_id;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestCorrelationIdString(TRITONBACKEND_Request *request,
                                                             const char **id)
{
    if (!request->correlation_text)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "the correlation id of this request is a number: %" PRIu64,
                         request->correlation_id);
    *id = request->correlation_text;
    return NULL;
}

TRITONSERVER_Error *
TRITONBACKEND_InferenceRequestTimeoutMicroseconds(TRITONBACKEND_Request *request, uint64_t *timeout)
{
    *timeout = request->timeout_us;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestFlags(TRITONBACKEND_Request *request, uint32_t *flags)
{
    *flags = request->flags;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestParameterCount(TRITONBACKEND_Request *request,
                                                        uint32_t *count)
{
    *count = request->parameter_count;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestParameter(TRITONBACKEND_Request *request,
                                                   const uint32_t index, const char **key,
                                                   TRITONSERVER_ParameterType *type,
                                                   const void **vvalue)
{
    if (index >= request->parameter_count)
        return index_error("parameters", index, request->parameter_count);
    const struct tis_parameter *p = &request->parameters[index];
    *key = p->name;
    *type = p->type;
    *vvalue = parameter_value(p);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestInputCount(TRITONBACKEND_Request *request, uint32_t *count)
{
    *count = request->input_count;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestInputName(TRITONBACKEND_Request *request,
                                                   const uint32_t index, const char **input_name)
{
    if (index >= request->input_count)
        return index_error("inputs", index, request->input_count);
    *input_name = request->inputs[index].name;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestInput(TRITONBACKEND_Request *request, const char *name,
                                               TRITONBACKEND_Input **input)
{
    *input = request_find_input(request, name);
    if (!*input)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG, "the request has no input '%s'", name);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestInputByIndex(TRITONBACKEND_Request *request,
                                                      const uint32_t index,
                                                      TRITONBACKEND_Input **input)
{
    if (index >= request->input_count)
        return index_error("inputs", index, request->input_count);
    *input = &request->inputs[index];
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestOutputCount(TRITONBACKEND_Request *request,
                                                     uint32_t *count)
{
    *count = request->output_count;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestOutputName(TRITONBACKEND_Request *request,
                                                    const uint32_t index, const char **output_name)
{
    if (index >= request->output_count)
        return index_error("requested outputs", index, request->output_count);
    *output_name = request->outputs[index];
    return NULL;
}

TRITONSERVER_Error *
TRITONBACKEND_RequestOutputBufferProperties(TRITONBACKEND_Request *request, const char *name,
                                            size_t *byte_size, TRITONSERVER_MemoryType *memory_type,
                                            int64_t *memory_type_id)
{
    struct sink *sink = request->sink;
    if (sink->ops->query)
        return sink->ops->query(sink, name, byte_size, memory_type, memory_type_id);
    /* Replies are made in CPU memory, whatever was preferred. */
    *memory_type = TRITONSERVER_MEMORY_CPU;
    *memory_type_id = 0;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestRelease(TRITONBACKEND_Request *request,
                                                 uint32_t release_flags)
{
    if (release_flags != TRITONSERVER_REQUEST_RELEASE_ALL)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "request release flags %" PRIu32 ": only ALL (1) is possible for models "
                         "without iterative sequences",
                         release_flags);
    if (!request_release(request, REQUEST_RUNNING))
        return misuse("a request was released that the backend does not own (released twice?)");
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestTrace(TRITONBACKEND_Request *request,
                                               TRITONSERVER_InferenceTrace **trace)
{
    *trace = request->trace;
    return NULL;
}

/* ---- Input ---- */

TRITONSERVER_Error *TRITONBACKEND_InputProperties(TRITONBACKEND_Input *input, const char **name,
                                                  TRITONSERVER_DataType *datatype,
                                                  const int64_t **shape, uint32_t *dims_count,
                                                  uint64_t *byte_size, uint32_t *buffer_count)
{
    if (name)
        *name = input->name;
    if (datatype)
        *datatype = input->data_type;
    if (shape)
        *shape = input->shape;
    if (dims_count)
        *dims_count = input->rank;
    if (byte_size)
        *byte_size = input->bytes;
    if (buffer_count)
        *buffer_count = input->chunk_count;
    return NULL;
}

TRITONSERVER_Error *
TRITONBACKEND_InputPropertiesForHostPolicy(TRITONBACKEND_Input *input, const char *host_policy_name,
                                           const char **name, TRITONSERVER_DataType *datatype,
                                           const int64_t **shape, uint32_t *dims_count,
                                           uint64_t *byte_size, uint32_t *buffer_count)
{
    (void)host_policy_name; /* every policy sees the same data */
    return TRITONBACKEND_InputProperties(input, name, datatype, shape, dims_count, byte_size,
                                         buffer_count);
}

TRITONSERVER_Error *TRITONBACKEND_InputBuffer(TRITONBACKEND_Input *input, const uint32_t index,
                                              const void **buffer, uint64_t *buffer_byte_size,
                                              TRITONSERVER_MemoryType *memory_type,
                                              int64_t *memory_type_id)
{
    static const struct chunk past_the_end = { .attributes.memory_type = TRITONSERVER_MEMORY_CPU };
    const struct chunk *c = index < input->chunk_count ? &input->chunks[index] : &past_the_end;
    *buffer = c->base;
    *buffer_byte_size = c->attributes.bytes;
    *memory_type = c->attributes.memory_type;
    *memory_type_id = c->attributes.memory_id;
    return NULL;
}

TRITONSERVER_Error *
TRITONBACKEND_InputBufferAttributes(TRITONBACKEND_Input *input, const uint32_t index,
                                    const void **buffer,
                                    TRITONSERVER_BufferAttributes **buffer_attributes)
{
    if (index >= input->chunk_count)
        return index_error("buffers in this input", index, input->chunk_count);
    *buffer = input->chunks[index].base;
    *buffer_attributes = &input->chunks[index].attributes;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_InputBufferForHostPolicy(
    TRITONBACKEND_Input *input, const char *host_policy_name, const uint32_t index,
    const void **buffer, uint64_t *buffer_byte_size, TRITONSERVER_MemoryType *memory_type,
    int64_t *memory_type_id)
{
    (void)host_policy_name;
    return TRITONBACKEND_InputBuffer(input, index, buffer, buffer_byte_size, memory_type,
                                     memory_type_id);
}

/* ---- Response factory ---- */

static const struct slab factory_slab = { SLAB_FACTORY, sizeof(struct tis_response_factory) };

TRITONSERVER_Error *TRITONBACKEND_ResponseFactoryNew(TRITONBACKEND_ResponseFactory **factory,
                                                     TRITONBACKEND_Request *request)
{
    int is_new;
    if (atomic_load(&request->state) != REQUEST_RUNNING)
        return misuse("a response factory was asked for a request that was released");
    struct tis_response_factory *f = slab_alloc(&factory_slab, &is_new);
    if (!f)
        return error_no_memory();
    f->generation = is_new ? 1 : f->generation + 1;
    f->sink = sink_ref(request->sink);
    atomic_store(&f->responses_reported, 0);
    atomic_store(&f->alive, true);
    *factory = f;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseFactoryDelete(TRITONBACKEND_ResponseFactory *factory)
{
    if (!factory)
        return NULL;
    if (!atomic_exchange(&factory->alive, false))
        return misuse("a response factory was deleted twice");
    sink_unref(factory->sink);
    slab_free(&factory_slab, factory);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseFactoryIsCancelled(TRITONBACKEND_ResponseFactory *factory,
                                                             bool *is_cancelled)
{
    if (!atomic_load(&factory->alive))
        return misuse("a deleted response factory was used");
    *is_cancelled = atomic_load(&factory->sink->cancelled);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseFactorySendFlags(TRITONBACKEND_ResponseFactory *factory,
                                                           const uint32_t send_flags)
{
    if (!atomic_load(&factory->alive))
        return misuse("a deleted response factory was used");
    if (!sink_send(factory->sink, NULL, send_flags))
        return misuse("flags were sent after the final response of a request");
    return NULL;
}

/* ---- Response and output ---- */

static tis_error *new_response(struct sink *sink, struct tis_response **response)
{
    struct tis_response *r = response_create(sink);
    if (!r)
        return error_no_memory();
    tis_error *err = sink->ops->start ? sink->ops->start(sink) : NULL;
    if (err) {
        response_destroy(&r);
        return err;
    }
    *response = r;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseNew(TRITONBACKEND_Response **response,
                                              TRITONBACKEND_Request *request)
{
    if (atomic_load(&request->state) != REQUEST_RUNNING)
        return misuse("a response was asked for a request that was released; a response factory "
                      "can do that");
    return new_response(request->sink, response);
}

TRITONSERVER_Error *TRITONBACKEND_ResponseNewFromFactory(TRITONBACKEND_Response **response,
                                                         TRITONBACKEND_ResponseFactory *factory)
{
    if (!atomic_load(&factory->alive))
        return misuse("a deleted response factory was used");
    return new_response(factory->sink, response);
}

TRITONSERVER_Error *TRITONBACKEND_ResponseDelete(TRITONBACKEND_Response *response)
{
    if (!response)
        return NULL;
    uint32_t open = RESPONSE_OPEN;
    if (!atomic_compare_exchange_strong(&response->state, &open, RESPONSE_SENT))
        return misuse("a response was deleted that the backend does not own (already sent?)");
    response_destroy(&response);
    return NULL;
}

static tis_error *set_parameter(struct tis_response *response,
                                const struct tis_parameter *parameter)
{
    if (atomic_load(&response->state) != RESPONSE_OPEN)
        return misuse("a parameter was added to a response that was sent");
    return response_add_parameter(response, parameter);
}

TRITONSERVER_Error *TRITONBACKEND_ResponseSetStringParameter(TRITONBACKEND_Response *response,
                                                             const char *name, const char *value)
{
    return set_parameter(response, &(struct tis_parameter){ .name = name,
                                                            .type = TRITONSERVER_PARAMETER_STRING,
                                                            .value.string = value });
}

TRITONSERVER_Error *TRITONBACKEND_ResponseSetIntParameter(TRITONBACKEND_Response *response,
                                                          const char *name, const int64_t value)
{
    return set_parameter(response, &(struct tis_parameter){ .name = name,
                                                            .type = TRITONSERVER_PARAMETER_INT,
                                                            .value.integer = value });
}

TRITONSERVER_Error *TRITONBACKEND_ResponseSetBoolParameter(TRITONBACKEND_Response *response,
                                                           const char *name, const bool value)
{
    return set_parameter(response, &(struct tis_parameter){ .name = name,
                                                            .type = TRITONSERVER_PARAMETER_BOOL,
                                                            .value.boolean = value });
}

TRITONSERVER_Error *TRITONBACKEND_ResponseSetDoubleParameter(TRITONBACKEND_Response *response,
                                                             const char *name, const double value)
{
    return set_parameter(response, &(struct tis_parameter){ .name = name,
                                                            .type = TRITONSERVER_PARAMETER_DOUBLE,
                                                            .value.number = value });
}

/* The client sees the configuration's dims, not the shape that the model made of them. */
static tis_error *undo_reshape(struct tis_output *o, const struct model_config *config,
                               const struct tensor_spec *spec)
{
    uint32_t skip = config->max_batch_size > 0;
    if (o->rank != spec->reshape_rank + skip ||
        !shape_matches(spec->reshape, spec->reshape_rank, o->shape + skip, spec->reshape_rank))
        return NULL; /* the backend reports the configuration's dims already */
    int64_t *shape = arena_alloc(&o->response->arena, (spec->rank + skip) * sizeof(*shape));
    if (!shape)
        return error_no_memory();
    if (skip)
        shape[0] = o->shape[0];
    shape_convert(spec->reshape, spec->reshape_rank, spec->dims, spec->rank, o->shape + skip,
                  shape + skip);
    o->shape = shape;
    o->rank = spec->rank + skip;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseOutput(TRITONBACKEND_Response *response,
                                                 TRITONBACKEND_Output **output, const char *name,
                                                 const TRITONSERVER_DataType datatype,
                                                 const int64_t *shape, const uint32_t dims_count)
{
    if (atomic_load(&response->state) != RESPONSE_OPEN)
        return misuse("an output was added to a response that was sent");
    struct tis_version *v = response->sink->version;
    int32_t at = config_find_output(v->config, name, strlen(name));
    if (at < 0)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "model '%s' has no output '%s' in its configuration", v->model_name, name);
    const struct tensor_spec *spec = &v->config->outputs[at];
    tis_error *err = response_add_output(response, spec->name, datatype, shape, dims_count, output);
    if (!err && spec->has_reshape)
        err = undo_reshape(*output, v->config, spec);
    return err;
}

TRITONSERVER_Error *TRITONBACKEND_OutputBuffer(TRITONBACKEND_Output *output, void **buffer,
                                               const uint64_t buffer_byte_size,
                                               TRITONSERVER_MemoryType *memory_type,
                                               int64_t *memory_type_id)
{
    if (atomic_load(&output->response->state) != RESPONSE_OPEN)
        return misuse("memory was asked for an output of a response that was sent");
    tis_error *err = response_output_memory(output, buffer_byte_size);
    if (err)
        return err;
    *buffer = output->buffer->base;
    *memory_type = output->buffer->memory_type;
    *memory_type_id = output->buffer->memory_id;
    return NULL;
}

TRITONSERVER_Error *
TRITONBACKEND_OutputBufferAttributes(TRITONBACKEND_Output *output,
                                     TRITONSERVER_BufferAttributes **buffer_attributes)
{
    if (!output->buffer)
        return error_new(TRITONSERVER_ERROR_UNAVAILABLE,
                         "output '%s' has no memory yet: TRITONBACKEND_OutputBuffer comes first",
                         output->name);
    *buffer_attributes = &output->attributes;
    return NULL;
}

/* Readers of a response take the elements that its shapes promise. */
static tis_error *check_sizes(const struct tis_response *r)
{
    for (const struct tis_output *o = r->outputs; o; o = o->next) {
        uint32_t element = datatype_bytes(o->data_type);
        uint64_t bytes = 0;
        bool fits = shape_is_fixed(o->shape, o->rank);
        if (fits && o->buffer && element > 0)
            fits = shape_bytes(o->shape, o->rank, element, &bytes) && bytes == o->bytes;
        if (fits)
            continue;
        struct bytes shape = { 0 };
        shape_append(&shape, o->shape, o->rank);
        tis_error *err = error_new(TRITONSERVER_ERROR_INTERNAL,
                                   "model '%s': the backend sent output '%s' with %" PRIu64
                                   " bytes, which its shape %s of %s does not make",
                                   r->sink->version->model_name, o->name, o->bytes,
                                   bytes_str(&shape), datatype_name(o->data_type));
        bytes_fini(&shape);
        return err;
    }
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseSend(TRITONBACKEND_Response *response,
                                               const uint32_t send_flags, TRITONSERVER_Error *error)
{
    uint32_t open = RESPONSE_OPEN;
    if (!atomic_compare_exchange_strong(&response->state, &open, RESPONSE_SENT))
        return misuse("a response was sent twice");
    response->error = error ? error_copy(error) : check_sizes(response);

    struct sink *sink = response->sink;
    sink_ref(sink);
    bool taken = sink_send(sink, response, send_flags);
    if (!taken)
        response_destroy(&response);
    sink_unref(sink);
    return taken ? NULL : misuse("a response was sent after the final response of its request");
}
