/* tis/backend.h - the interface between the server and its backends.
 *
 * A backend is a shared object libtriton_NAME.so that runs the models of one
 * engine. This file declares what the server offers it (TRITONBACKEND_ functions
 * here, TRITONSERVER_ functions in "tis/server.h") and, at the end, what the
 * server calls in it. It is the backend interface of Triton Inference Server,
 * API 1.19: a backend built against either header runs in either server.
 * backends/identity is the worked example.
 *
 * Nouns. A backend owns its models; a TRITONBACKEND_Model is one version of one
 * model; it has one or more instances, which execute batches of requests. Each
 * request has inputs and gets one response (several if the model is decoupled),
 * each response has outputs.
 *
 * Errors.  As in "tis/server.h": NULL = success, else the caller owns the error.
 * Threads. One instance executes one batch at a time, different instances at the
 * same time. Everything about different requests may happen at once and on any
 * thread, also on threads the backend made; the outputs of one response are added
 * by one thread at a time. Sending, releasing and allocating are thread-safe.
 * Times.   Nanoseconds of CLOCK_MONOTONIC.
 * Linking. A backend leaves these functions undefined and names no library of the
 * server's: they come from the program that loads it.
 */
#ifndef TIS_BACKEND_H
#define TIS_BACKEND_H

#include "tis/server.h"

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

#define TRITONBACKEND_API_VERSION_MAJOR 1
#define TRITONBACKEND_API_VERSION_MINOR 19

/* Opaque; only pointers cross the border. */
typedef struct tis_backend TRITONBACKEND_Backend;
typedef struct tis_backend_attribute TRITONBACKEND_BackendAttribute;
typedef struct tis_batcher TRITONBACKEND_Batcher;
typedef struct tis_input TRITONBACKEND_Input;
typedef struct tis_instance TRITONBACKEND_ModelInstance;
typedef struct tis_memory_manager TRITONBACKEND_MemoryManager;
typedef struct tis_output TRITONBACKEND_Output;
typedef struct tis_request TRITONBACKEND_Request;
typedef struct tis_response TRITONBACKEND_Response;
typedef struct tis_response_factory TRITONBACKEND_ResponseFactory;
typedef struct tis_response_statistics TRITONBACKEND_ModelInstanceResponseStatistics;
typedef struct tis_state TRITONBACKEND_State;
typedef struct tis_version TRITONBACKEND_Model;

typedef enum TRITONBACKEND_artifacttype {
    TRITONBACKEND_ARTIFACT_FILESYSTEM = 0 /* the location is a local directory */
} TRITONBACKEND_ArtifactType;

typedef enum TRITONBACKEND_execpolicy {
    TRITONBACKEND_EXECUTION_BLOCKING = 0,       /* a thread for each instance */
    TRITONBACKEND_EXECUTION_DEVICE_BLOCKING = 1 /* a thread for all of a model's on one GPU */
} TRITONBACKEND_ExecutionPolicy;

/* The version that the server implements. A backend can run when major equals
 * TRITONBACKEND_API_VERSION_MAJOR and minor is not below the one it was built with. */
TRITONSERVER_Error *TRITONBACKEND_ApiVersion(uint32_t *major, uint32_t *minor);

/* ---- Memory ---- */

/* Provides byte_size bytes. UNSUPPORTED when the server has no such memory,
 * UNAVAILABLE when there is not enough: ask for another type then. */
TRITONSERVER_Error *TRITONBACKEND_MemoryManagerAllocate(TRITONBACKEND_MemoryManager *manager,
                                                        void **buffer,
                                                        TRITONSERVER_MemoryType memory_type,
                                                        int64_t memory_type_id, uint64_t byte_size);

/* memory_type and memory_type_id are those it was allocated with. */
TRITONSERVER_Error *TRITONBACKEND_MemoryManagerFree(TRITONBACKEND_MemoryManager *manager,
                                                    void *buffer,
                                                    TRITONSERVER_MemoryType memory_type,
                                                    int64_t memory_type_id);

/* ---- Backend ---- */

/* Borrowed. */
TRITONSERVER_Error *TRITONBACKEND_BackendName(TRITONBACKEND_Backend *backend, const char **name);

/* The settings for this backend, {"cmdline":{KEY:STRING, ...}}: those given as
 * --backend-config=NAME,KEY=VALUE over the server's general ones. Borrowed. */
TRITONSERVER_Error *TRITONBACKEND_BackendConfig(TRITONBACKEND_Backend *backend,
                                                TRITONSERVER_Message **backend_config);

TRITONSERVER_Error *TRITONBACKEND_BackendExecutionPolicy(TRITONBACKEND_Backend *backend,
                                                         TRITONBACKEND_ExecutionPolicy *policy);

/* Only inside TRITONBACKEND_Initialize. */
TRITONSERVER_Error *TRITONBACKEND_BackendSetExecutionPolicy(TRITONBACKEND_Backend *backend,
                                                            TRITONBACKEND_ExecutionPolicy policy);

/* The directory that the backend's files are in; borrowed. */
TRITONSERVER_Error *TRITONBACKEND_BackendArtifacts(TRITONBACKEND_Backend *backend,
                                                   TRITONBACKEND_ArtifactType *artifact_type,
                                                   const char **location);

/* Borrowed. */
TRITONSERVER_Error *TRITONBACKEND_BackendMemoryManager(TRITONBACKEND_Backend *backend,
                                                       TRITONBACKEND_MemoryManager **manager);

/* A pointer of the backend's own, NULL at first; the server never follows it. */
TRITONSERVER_Error *TRITONBACKEND_BackendState(TRITONBACKEND_Backend *backend, void **state);
TRITONSERVER_Error *TRITONBACKEND_BackendSetState(TRITONBACKEND_Backend *backend, void *state);

/* ---- Backend attributes: only inside TRITONBACKEND_GetBackendAttribute ---- */

/* Adds an instance group for models whose configuration has none, most wanted
 * first. count 0 and no device_ids: the server's default. Copies device_ids. */
TRITONSERVER_Error *TRITONBACKEND_BackendAttributeAddPreferredInstanceGroup(
    TRITONBACKEND_BackendAttribute *backend_attributes, TRITONSERVER_InstanceGroupKind kind,
    uint64_t count, const uint64_t *device_ids, uint64_t id_count);

/* Whether ModelInstanceInitialize may run for several instances at once. */
TRITONSERVER_Error *TRITONBACKEND_BackendAttributeSetParallelModelInstanceLoading(
    TRITONBACKEND_BackendAttribute *backend_attributes, bool enabled);

/* ---- Model ---- */

/* Borrowed. */
TRITONSERVER_Error *TRITONBACKEND_ModelName(TRITONBACKEND_Model *model, const char **name);

TRITONSERVER_Error *TRITONBACKEND_ModelVersion(TRITONBACKEND_Model *model, uint64_t *version);

/* The model's directory; its versions are subdirectories. Borrowed. */
TRITONSERVER_Error *TRITONBACKEND_ModelRepository(TRITONBACKEND_Model *model,
                                                  TRITONBACKEND_ArtifactType *artifact_type,
                                                  const char **location);

/* The model's configuration as JSON with every default filled in; config_version
 * is 1. A new message each time, which the caller deletes. */
TRITONSERVER_Error *TRITONBACKEND_ModelConfig(TRITONBACKEND_Model *model, uint32_t config_version,
                                              TRITONSERVER_Message **model_config);

/* Whether the backend may complete the configuration with ModelSetConfig. */
TRITONSERVER_Error *TRITONBACKEND_ModelAutoCompleteConfig(TRITONBACKEND_Model *model,
                                                          bool *auto_complete_config);

/* Changes inputs, outputs, max_batch_size, the scheduler (if none was set) or the
 * decoupled flag. Only inside TRITONBACKEND_ModelInitialize. The message stays
 * with the caller; read ModelConfig again for the result with its defaults. */
TRITONSERVER_Error *TRITONBACKEND_ModelSetConfig(TRITONBACKEND_Model *model,
                                                 uint32_t config_version,
                                                 TRITONSERVER_Message *model_config);

/* The handle to give to TRITONSERVER_InferenceRequestNew; borrowed. */
TRITONSERVER_Error *TRITONBACKEND_ModelServer(TRITONBACKEND_Model *model,
                                              TRITONSERVER_Server **server);

TRITONSERVER_Error *TRITONBACKEND_ModelBackend(TRITONBACKEND_Model *model,
                                               TRITONBACKEND_Backend **backend);

/* A pointer of the backend's own, NULL at first. */
TRITONSERVER_Error *TRITONBACKEND_ModelState(TRITONBACKEND_Model *model, void **state);
TRITONSERVER_Error *TRITONBACKEND_ModelSetState(TRITONBACKEND_Model *model, void *state);

/* Tells how much memory the model takes, one entry for each place. The array and
 * its attributes stay with the backend. Only inside ModelInitialize. */
TRITONSERVER_Error *TRITONBACKEND_ModelReportMemoryUsage(TRITONBACKEND_Model *model,
                                                         TRITONSERVER_BufferAttributes **usage,
                                                         uint32_t usage_size);

/* ---- Model instance ---- */

/* Borrowed. */
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceName(TRITONBACKEND_ModelInstance *instance,
                                                    const char **name);

/* CPU, GPU or MODEL. */
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceKind(TRITONBACKEND_ModelInstance *instance,
                                                    TRITONSERVER_InstanceGroupKind *kind);

/* The GPU's number; 0 for the other kinds. */
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceDeviceId(TRITONBACKEND_ModelInstance *instance,
                                                        int32_t *device_id);

/* {POLICY:{SETTING:STRING, ...}}; borrowed. */
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceHostPolicy(TRITONBACKEND_ModelInstance *instance,
                                                          TRITONSERVER_Message **host_policy);

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceProfileCount(TRITONBACKEND_ModelInstance *instance,
                                                            uint32_t *count);

/* Optimisation profile number index of the instance group; borrowed. */
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceProfileName(TRITONBACKEND_ModelInstance *instance,
                                                           uint32_t index,
                                                           const char **profile_name);

TRITONSERVER_Error *
TRITONBACKEND_ModelInstanceSecondaryDeviceCount(TRITONBACKEND_ModelInstance *instance,
                                                uint32_t *count);

/* Secondary device number index: its kind as a borrowed string, and its id. */
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceSecondaryDeviceProperties(
    TRITONBACKEND_ModelInstance *instance, uint32_t index, const char **kind, int64_t *id);

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceModel(TRITONBACKEND_ModelInstance *instance,
                                                     TRITONBACKEND_Model **model);

/* A pointer of the backend's own, NULL at first. */
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceState(TRITONBACKEND_ModelInstance *instance,
                                                     void **state);
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceSetState(TRITONBACKEND_ModelInstance *instance,
                                                        void *state);

/* As ModelReportMemoryUsage, for what this instance adds. Only inside
 * ModelInstanceInitialize. */
TRITONSERVER_Error *
TRITONBACKEND_ModelInstanceReportMemoryUsage(TRITONBACKEND_ModelInstance *instance,
                                             TRITONSERVER_BufferAttributes **usage,
                                             uint32_t usage_size);

/* Tells how one request went, before it is released. exec: from the call of
 * Execute to the end of this request's work; compute: the engine's run in it. */
TRITONSERVER_Error *
TRITONBACKEND_ModelInstanceReportStatistics(TRITONBACKEND_ModelInstance *instance,
                                            TRITONBACKEND_Request *request, bool success,
                                            uint64_t exec_start_ns, uint64_t compute_start_ns,
                                            uint64_t compute_end_ns, uint64_t exec_end_ns);

/* Tells of one execution of the engine; batch_size is the sum over its requests. */
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceReportBatchStatistics(
    TRITONBACKEND_ModelInstance *instance, uint64_t batch_size, uint64_t exec_start_ns,
    uint64_t compute_start_ns, uint64_t compute_end_ns, uint64_t exec_end_ns);

/* Response statistics, for decoupled models: fill one object in for each response
 * and report it; it can be reused, and belongs to the backend. */
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsNew(
    TRITONBACKEND_ModelInstanceResponseStatistics **response_statistics);
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsDelete(
    TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics);
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsSetModelInstance(
    TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics,
    TRITONBACKEND_ModelInstance *model_instance);
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseFactory(
    TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics,
    TRITONBACKEND_ResponseFactory *response_factory);
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseStart(
    TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics, uint64_t response_start);
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsSetComputeOutputStart(
    TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics,
    uint64_t compute_output_start);
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseEnd(
    TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics, uint64_t response_end);

/* The error that the response was sent with; stays with the caller. */
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsSetError(
    TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics, TRITONSERVER_Error *error);

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceReportResponseStatistics(
    TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics);

/* ---- Request: all it leads to is borrowed until RequestRelease ---- */

/* The client's id; "" when it gave none. */
TRITONSERVER_Error *TRITONBACKEND_RequestId(TRITONBACKEND_Request *request, const char **id);

TRITONSERVER_Error *TRITONBACKEND_RequestIsCancelled(TRITONBACKEND_Request *request,
                                                     bool *is_cancelled);

/* The sequence's number, 0 = none. INVALID_ARG when it has a name instead. */
TRITONSERVER_Error *TRITONBACKEND_RequestCorrelationId(TRITONBACKEND_Request *request,
                                                       uint64_t *id);

/* The time limit in microseconds that the client set, 0 = none. */
TRITONSERVER_Error *
TRITONBACKEND_InferenceRequestTimeoutMicroseconds(TRITONBACKEND_Request *request,
                                                  uint64_t *timeout);

/* The sequence's name. INVALID_ARG when it has a number. */
TRITONSERVER_Error *TRITONBACKEND_RequestCorrelationIdString(TRITONBACKEND_Request *request,
                                                             const char **id);

/* Bits of TRITONSERVER_RequestFlag. */
TRITONSERVER_Error *TRITONBACKEND_RequestFlags(TRITONBACKEND_Request *request, uint32_t *flags);

TRITONSERVER_Error *TRITONBACKEND_RequestParameterCount(TRITONBACKEND_Request *request,
                                                        uint32_t *count);

/* vvalue is read as TRITONSERVER_ParameterType says. */
TRITONSERVER_Error *TRITONBACKEND_RequestParameter(TRITONBACKEND_Request *request, uint32_t index,
                                                   const char **key,
                                                   TRITONSERVER_ParameterType *type,
                                                   const void **vvalue);

TRITONSERVER_Error *TRITONBACKEND_RequestInputCount(TRITONBACKEND_Request *request,
                                                    uint32_t *count);

/* The order of inputs may differ from request to request. */
TRITONSERVER_Error *TRITONBACKEND_RequestInputName(TRITONBACKEND_Request *request, uint32_t index,
                                                   const char **input_name);

/* INVALID_ARG when the request has no such input. */
TRITONSERVER_Error *TRITONBACKEND_RequestInput(TRITONBACKEND_Request *request, const char *name,
                                               TRITONBACKEND_Input **input);

TRITONSERVER_Error *TRITONBACKEND_RequestInputByIndex(TRITONBACKEND_Request *request,
                                                      uint32_t index, TRITONBACKEND_Input **input);

/* The outputs the client wants; all of the model's when it named none. */
TRITONSERVER_Error *TRITONBACKEND_RequestOutputCount(TRITONBACKEND_Request *request,
                                                     uint32_t *count);

TRITONSERVER_Error *TRITONBACKEND_RequestOutputName(TRITONBACKEND_Request *request, uint32_t index,
                                                    const char **output_name);

/* Where the output called name would be put. name and byte_size may be NULL;
 * memory_type and memory_type_id carry the wish in and the answer out.
 * UNAVAILABLE when nobody can tell. */
TRITONSERVER_Error *
TRITONBACKEND_RequestOutputBufferProperties(TRITONBACKEND_Request *request, const char *name,
                                            size_t *byte_size, TRITONSERVER_MemoryType *memory_type,
                                            int64_t *memory_type_id);

/* Gives the request back; release_flags is one TRITONSERVER_RequestReleaseFlag.
 * On error the backend still owns it. */
TRITONSERVER_Error *TRITONBACKEND_RequestRelease(TRITONBACKEND_Request *request,
                                                 uint32_t release_flags);

/* NULL when the request is not traced. */
TRITONSERVER_Error *TRITONBACKEND_RequestTrace(TRITONBACKEND_Request *request,
                                               TRITONSERVER_InferenceTrace **trace);

/* ---- Input ---- */

/* What an input is; any output pointer may be NULL.
 *   shape       dims_count entries with the batch dimension, reshape applied
 *   byte_size   what the client sent, which need not be what the shape implies
 *   buffer_count  pieces that the data comes in, 0 or more */
TRITONSERVER_Error *TRITONBACKEND_InputProperties(TRITONBACKEND_Input *input, const char **name,
                                                  TRITONSERVER_DataType *datatype,
                                                  const int64_t **shape, uint32_t *dims_count,
                                                  uint64_t *byte_size, uint32_t *buffer_count);

/* The same for the data as prepared for one host policy; NULL = the default. */
TRITONSERVER_Error *
TRITONBACKEND_InputPropertiesForHostPolicy(TRITONBACKEND_Input *input, const char *host_policy_name,
                                           const char **name, TRITONSERVER_DataType *datatype,
                                           const int64_t **shape, uint32_t *dims_count,
                                           uint64_t *byte_size, uint32_t *buffer_count);

/* Piece number index. memory_type and memory_type_id carry a wish in, which the
 * server may ignore, and the truth out. An index past the end gives NULL and 0. */
TRITONSERVER_Error *TRITONBACKEND_InputBuffer(TRITONBACKEND_Input *input, uint32_t index,
                                              const void **buffer, uint64_t *buffer_byte_size,
                                              TRITONSERVER_MemoryType *memory_type,
                                              int64_t *memory_type_id);

/* The same for one host policy; NULL = the default. */
TRITONSERVER_Error *TRITONBACKEND_InputBufferForHostPolicy(
    TRITONBACKEND_Input *input, const char *host_policy_name, uint32_t index, const void **buffer,
    uint64_t *buffer_byte_size, TRITONSERVER_MemoryType *memory_type, int64_t *memory_type_id);

/* The same, with attributes that belong to the input. */
TRITONSERVER_Error *
TRITONBACKEND_InputBufferAttributes(TRITONBACKEND_Input *input, uint32_t index, const void **buffer,
                                    TRITONSERVER_BufferAttributes **buffer_attributes);

/* ---- Response factory: makes responses to a request, also after its release ---- */

TRITONSERVER_Error *TRITONBACKEND_ResponseFactoryNew(TRITONBACKEND_ResponseFactory **factory,
                                                     TRITONBACKEND_Request *request);

TRITONSERVER_Error *TRITONBACKEND_ResponseFactoryDelete(TRITONBACKEND_ResponseFactory *factory);

TRITONSERVER_Error *TRITONBACKEND_ResponseFactoryIsCancelled(TRITONBACKEND_ResponseFactory *factory,
                                                             bool *is_cancelled);

/* Sends flags without a response, such as FINAL to end a stream. */
TRITONSERVER_Error *TRITONBACKEND_ResponseFactorySendFlags(TRITONBACKEND_ResponseFactory *factory,
                                                           uint32_t send_flags);

/* ---- Response and its outputs ---- */

TRITONSERVER_Error *TRITONBACKEND_ResponseNew(TRITONBACKEND_Response **response,
                                              TRITONBACKEND_Request *request);

TRITONSERVER_Error *TRITONBACKEND_ResponseNewFromFactory(TRITONBACKEND_Response **response,
                                                         TRITONBACKEND_ResponseFactory *factory);

/* Drops a response that was not sent. */
TRITONSERVER_Error *TRITONBACKEND_ResponseDelete(TRITONBACKEND_Response *response);

/* Parameters that go to the client with the response. Names and values are copied. */
TRITONSERVER_Error *TRITONBACKEND_ResponseSetStringParameter(TRITONBACKEND_Response *response,
                                                             const char *name, const char *value);
TRITONSERVER_Error *TRITONBACKEND_ResponseSetIntParameter(TRITONBACKEND_Response *response,
                                                          const char *name, int64_t value);
TRITONSERVER_Error *TRITONBACKEND_ResponseSetBoolParameter(TRITONBACKEND_Response *response,
                                                           const char *name, bool value);
TRITONSERVER_Error *TRITONBACKEND_ResponseSetDoubleParameter(TRITONBACKEND_Response *response,
                                                             const char *name, double value);

/* Adds an output; name is one of the configuration's. shape has dims_count
 * entries with the batch dimension, before any reshape of the output; it is
 * copied. *output stays valid until the response is sent. */
TRITONSERVER_Error *TRITONBACKEND_ResponseOutput(TRITONBACKEND_Response *response,
                                                 TRITONBACKEND_Output **output, const char *name,
                                                 TRITONSERVER_DataType datatype,
                                                 const int64_t *shape, uint32_t dims_count);

/* Sends the response, which is gone afterwards, also when this fails. send_flags
 * is TRITONSERVER_RESPONSE_COMPLETE_FINAL for the last one, else 0. With an error
 * the outputs are ignored; the error stays with the caller. */
TRITONSERVER_Error *TRITONBACKEND_ResponseSend(TRITONBACKEND_Response *response,
                                               uint32_t send_flags, TRITONSERVER_Error *error);

/* Memory for an output's data, to be filled before the response is sent; once
 * for each output. memory_type and memory_type_id carry the wish in and what was
 * given out. *buffer may be NULL when buffer_byte_size is 0. */
TRITONSERVER_Error *TRITONBACKEND_OutputBuffer(TRITONBACKEND_Output *output, void **buffer,
                                               uint64_t buffer_byte_size,
                                               TRITONSERVER_MemoryType *memory_type,
                                               int64_t *memory_type_id);

/* The attributes of the memory got by OutputBuffer; they belong to the output. */
TRITONSERVER_Error *
TRITONBACKEND_OutputBufferAttributes(TRITONBACKEND_Output *output,
                                     TRITONSERVER_BufferAttributes **buffer_attributes);

/* ---- State of a sequence, kept by the server between its requests ---- */

/* Begins the new value of a state; name is one of the configuration's. */
TRITONSERVER_Error *TRITONBACKEND_StateNew(TRITONBACKEND_State **state,
                                           TRITONBACKEND_Request *request, const char *name,
                                           TRITONSERVER_DataType datatype, const int64_t *shape,
                                           uint32_t dims_count);

/* Memory for the new value, as OutputBuffer. */
TRITONSERVER_Error *TRITONBACKEND_StateBuffer(TRITONBACKEND_State *state, void **buffer,
                                              uint64_t buffer_byte_size,
                                              TRITONSERVER_MemoryType *memory_type,
                                              int64_t *memory_type_id);

/* Makes the new value the one that the next request of the sequence sees. */
TRITONSERVER_Error *TRITONBACKEND_StateUpdate(TRITONBACKEND_State *state);

/* ---- What a backend defines ----
 *
 * Found by name. Only ModelInstanceExecute must exist. Where an Initialize
 * fails, the Finalize of the same object is called all the same: it accepts a
 * state that was never set. No object is used after its Finalize, so threads of
 * the backend's own end there. */

/* First call. Check ApiVersion here. */
TRITONSERVER_Error *TRITONBACKEND_Initialize(TRITONBACKEND_Backend *backend);
TRITONSERVER_Error *TRITONBACKEND_Finalize(TRITONBACKEND_Backend *backend);

/* After Initialize; attributes live for the call. */
TRITONSERVER_Error *
TRITONBACKEND_GetBackendAttribute(TRITONBACKEND_Backend *backend,
                                  TRITONBACKEND_BackendAttribute *backend_attributes);

TRITONSERVER_Error *TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model *model);
TRITONSERVER_Error *TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model *model);

/* Here on the thread that will execute, in Triton on another one: count on neither. For several instances
 * at once only where BackendAttributeSetParallelModelInstanceLoading allowed it. */
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance *instance);
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance *instance);

/* Asked when a client asks whether the model is ready; an error means no. */
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceReady(TRITONBACKEND_ModelInstance *instance);

/* Executes a batch. The array is the server's and goes when this returns.
 *
 * Returning NULL takes the requests: each must get its final response and be
 * released, now or later. Returning an error leaves them with the server, which
 * answers each with that error: nothing may have been sent or released then. */
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance *instance,
                                                       TRITONBACKEND_Request **requests,
                                                       uint32_t request_count);

/* ---- What a batching strategy defines ----
 *
 * A library of its own, which a model's parameter TRITON_BATCH_STRATEGY_PATH
 * names, or batchstrategy.so in the directory of the version, the model or the
 * backend: all five functions. It makes the batches of a model smaller. Between
 * the first and the last function, the calls about the batches of one model
 * version come one at a time; they hold up its instances, so they are quick.
 * examples/batch_strategy/volume.c is the worked example. */

/* After ModelInitialize. *batcher, NULL at first, is what the strategy keeps for
 * this model version; the server never follows it. An error fails the load. */
TRITONSERVER_Error *TRITONBACKEND_ModelBatcherInitialize(TRITONBACKEND_Batcher **batcher,
                                                         TRITONBACKEND_Model *model);

/* After the last batch, or a failed Initialize. */
TRITONSERVER_Error *TRITONBACKEND_ModelBatcherFinalize(TRITONBACKEND_Batcher *batcher);

/* A batch begins. *userp, NULL at first, is what the strategy keeps for it. An
 * error of this function or of the next two goes to the log; the batch then runs as
 * the server gathered it. */
TRITONSERVER_Error *TRITONBACKEND_ModelBatchInitialize(const TRITONBACKEND_Batcher *batcher,
                                                       void **userp);

/* Shall the request be in the batch with those before it? The first of a batch is,
 * whatever the answer; the first that is not ends the batch and is the first of
 * the next one, when it is asked about again. *should_include is false when not set.
 *
 * The request is the server's: what it holds may be read, RequestId to
 * InputBuffer, and nothing else. */
TRITONSERVER_Error *TRITONBACKEND_ModelBatchIncludeRequest(TRITONBACKEND_Request *request,
                                                           void *userp, bool *should_include);

/* The batch is complete. Not called when userp is NULL. */
TRITONSERVER_Error *TRITONBACKEND_ModelBatchFinalize(void *userp);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
