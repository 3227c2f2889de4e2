/* tis/server.h - the TRITONSERVER_ half of the plug-in interface.
 *
 * Backends written for Triton Inference Server call these functions: errors,
 * messages, parameters, logging, buffer attributes, metrics, and inference on
 * other models. This file declares server API 1.34 as far as public backends
 * use it. A backend includes "tis/backend.h", which includes this file.
 *
 * Every function that returns TRITONSERVER_Error * returns NULL for success;
 * otherwise the caller owns the error and ends it with TRITONSERVER_ErrorDelete.
 * Outputs are written only on success. A function that the server does not have
 * yet answers TRITONSERVER_ERROR_UNSUPPORTED and names itself.
 *
 * Threads: any function may be called from any thread; one object is used by
 * one thread at a time unless its comment says otherwise.
 * "Borrowed" memory belongs to the object it was got from and lives as long.
 *
 * Compiles as C99 and C++.
 */
#ifndef TIS_SERVER_H
#define TIS_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

#define TRITONSERVER_API_VERSION_MAJOR 1
#define TRITONSERVER_API_VERSION_MINOR 34

/* Opaque; only pointers cross the border. */
typedef struct tis_buffer_attributes TRITONSERVER_BufferAttributes;
typedef struct tis_error TRITONSERVER_Error;
typedef struct tis_message TRITONSERVER_Message;
typedef struct tis_metric TRITONSERVER_Metric;
typedef struct tis_metric_args TRITONSERVER_MetricArgs;
typedef struct tis_metric_family TRITONSERVER_MetricFamily;
typedef struct tis_parameter TRITONSERVER_Parameter;
typedef struct tis_request TRITONSERVER_InferenceRequest;
typedef struct tis_response TRITONSERVER_InferenceResponse;
typedef struct tis_response_allocator TRITONSERVER_ResponseAllocator;
typedef struct tis_server TRITONSERVER_Server;
typedef struct tis_server_options TRITONSERVER_ServerOptions;
typedef struct tis_trace TRITONSERVER_InferenceTrace;

/* ---- Data types, memory types, instance kinds ---- */

/* Element types. BYTES elements have a length of their own: each is a uint32_t
 * length, little-endian, followed by so many bytes of any value. */
typedef enum TRITONSERVER_datatype {
    TRITONSERVER_TYPE_INVALID = 0,
    TRITONSERVER_TYPE_BOOL = 1,
    TRITONSERVER_TYPE_UINT8 = 2,
    TRITONSERVER_TYPE_UINT16 = 3,
    TRITONSERVER_TYPE_UINT32 = 4,
    TRITONSERVER_TYPE_UINT64 = 5,
    TRITONSERVER_TYPE_INT8 = 6,
    TRITONSERVER_TYPE_INT16 = 7,
    TRITONSERVER_TYPE_INT32 = 8,
    TRITONSERVER_TYPE_INT64 = 9,
    TRITONSERVER_TYPE_FP16 = 10,
    TRITONSERVER_TYPE_FP32 = 11,
    TRITONSERVER_TYPE_FP64 = 12,
    TRITONSERVER_TYPE_BYTES = 13,
    TRITONSERVER_TYPE_BF16 = 14
} TRITONSERVER_DataType;

typedef enum TRITONSERVER_memorytype {
    TRITONSERVER_MEMORY_CPU = 0,
    TRITONSERVER_MEMORY_CPU_PINNED = 1,
    TRITONSERVER_MEMORY_GPU = 2
} TRITONSERVER_MemoryType;

typedef enum TRITONSERVER_instancegroupkind {
    TRITONSERVER_INSTANCEGROUPKIND_AUTO = 0, /* in configurations only; an instance never has it */
    TRITONSERVER_INSTANCEGROUPKIND_CPU = 1,
    TRITONSERVER_INSTANCEGROUPKIND_GPU = 2,
    TRITONSERVER_INSTANCEGROUPKIND_MODEL = 3 /* the model places itself */
} TRITONSERVER_InstanceGroupKind;

/* "FP32", "BYTES" ...; "<invalid>" for an unknown value. Static storage. */
const char *TRITONSERVER_DataTypeString(TRITONSERVER_DataType datatype);

/* The inverse of DataTypeString; TYPE_INVALID for an unknown word. */
TRITONSERVER_DataType TRITONSERVER_StringToDataType(const char *dtype);

/* Bytes of one element; 0 for BYTES and INVALID. */
uint32_t TRITONSERVER_DataTypeByteSize(TRITONSERVER_DataType datatype);

/* "CPU", "CPU_PINNED", "GPU"; static storage. */
const char *TRITONSERVER_MemoryTypeString(TRITONSERVER_MemoryType memtype);

/* "AUTO", "CPU", "GPU", "MODEL"; static storage. */
const char *TRITONSERVER_InstanceGroupKindString(TRITONSERVER_InstanceGroupKind kind);

/* ---- Errors ---- */

typedef enum TRITONSERVER_errorcode {
    TRITONSERVER_ERROR_UNKNOWN = 0,
    TRITONSERVER_ERROR_INTERNAL = 1,
    TRITONSERVER_ERROR_NOT_FOUND = 2,
    TRITONSERVER_ERROR_INVALID_ARG = 3,
    TRITONSERVER_ERROR_UNAVAILABLE = 4,
    TRITONSERVER_ERROR_UNSUPPORTED = 5,
    TRITONSERVER_ERROR_ALREADY_EXISTS = 6,
    TRITONSERVER_ERROR_CANCELLED = 7
} TRITONSERVER_Error_Code;

/* Makes an error; msg is copied. Never returns NULL, also when memory is short. */
TRITONSERVER_Error *TRITONSERVER_ErrorNew(TRITONSERVER_Error_Code code, const char *msg);

/* Ends an error. */
void TRITONSERVER_ErrorDelete(TRITONSERVER_Error *error);

TRITONSERVER_Error_Code TRITONSERVER_ErrorCode(TRITONSERVER_Error *error);

/* The code in words, "Invalid argument" for example; static storage. */
const char *TRITONSERVER_ErrorCodeString(TRITONSERVER_Error *error);

/* The text given to ErrorNew; borrowed. */
const char *TRITONSERVER_ErrorMessage(TRITONSERVER_Error *error);

/* ---- Log ---- */

typedef enum TRITONSERVER_loglevel {
    TRITONSERVER_LOG_INFO = 0,
    TRITONSERVER_LOG_WARN = 1,
    TRITONSERVER_LOG_ERROR = 2,
    TRITONSERVER_LOG_VERBOSE = 3
} TRITONSERVER_LogLevel;

typedef enum TRITONSERVER_logformat {
    TRITONSERVER_LOG_DEFAULT = 0,
    TRITONSERVER_LOG_ISO8601 = 1
} TRITONSERVER_LogFormat;

/* Whether a line of this level would be written now. Ask before building text. */
bool TRITONSERVER_LogIsEnabled(TRITONSERVER_LogLevel level);

/* Writes one line to the server's log. filename and line say where in the
 * plug-in it comes from; both texts are copied. */
TRITONSERVER_Error *TRITONSERVER_LogMessage(TRITONSERVER_LogLevel level, const char *filename,
                                            const int line, const char *msg);

/* ---- Messages: a JSON document ---- */

/* Makes a message from byte_size bytes of JSON at base; the text is copied. */
TRITONSERVER_Error *TRITONSERVER_MessageNewFromSerializedJson(TRITONSERVER_Message **message,
                                                              const char *base, size_t byte_size);

TRITONSERVER_Error *TRITONSERVER_MessageDelete(TRITONSERVER_Message *message);

/* The JSON text: byte_size bytes and a NUL that is not counted. Borrowed. */
TRITONSERVER_Error *TRITONSERVER_MessageSerializeToJson(TRITONSERVER_Message *message,
                                                        const char **base, size_t *byte_size);

/* ---- Parameters: a name and a value ---- */

/* How a value is read through the `const void *` that carries it. */
typedef enum TRITONSERVER_parametertype {
    TRITONSERVER_PARAMETER_STRING = 0, /* const char *, NUL-terminated */
    TRITONSERVER_PARAMETER_INT = 1,    /* const int64_t * */
    TRITONSERVER_PARAMETER_BOOL = 2,   /* const bool * */
    TRITONSERVER_PARAMETER_DOUBLE = 3, /* const double * */
    TRITONSERVER_PARAMETER_BYTES = 4   /* const void *; see ParameterBytesNew */
} TRITONSERVER_ParameterType;

/* Copies name and value. NULL for type BYTES. */
TRITONSERVER_Parameter *TRITONSERVER_ParameterNew(const char *name, TRITONSERVER_ParameterType type,
                                                  const void *value);

/* Copies name; the size bytes at byte_ptr stay with the caller and must outlive
 * the parameter. */
TRITONSERVER_Parameter *TRITONSERVER_ParameterBytesNew(const char *name, const void *byte_ptr,
                                                       uint64_t size);

void TRITONSERVER_ParameterDelete(TRITONSERVER_Parameter *parameter);

/* ---- Buffer attributes: where a piece of memory lies and how long it is ---- */

TRITONSERVER_Error *
TRITONSERVER_BufferAttributesNew(TRITONSERVER_BufferAttributes **buffer_attributes);

TRITONSERVER_Error *
TRITONSERVER_BufferAttributesDelete(TRITONSERVER_BufferAttributes *buffer_attributes);

/* The device number for GPU memory, the NUMA node or 0 for CPU memory. */
TRITONSERVER_Error *
TRITONSERVER_BufferAttributesSetMemoryTypeId(TRITONSERVER_BufferAttributes *buffer_attributes,
                                             int64_t memory_type_id);

TRITONSERVER_Error *
TRITONSERVER_BufferAttributesSetMemoryType(TRITONSERVER_BufferAttributes *buffer_attributes,
                                           TRITONSERVER_MemoryType memory_type);

TRITONSERVER_Error *
TRITONSERVER_BufferAttributesSetByteSize(TRITONSERVER_BufferAttributes *buffer_attributes,
                                         size_t byte_size);

/* The CUDA IPC handle of the buffer, or NULL when it has none; borrowed. */
TRITONSERVER_Error *
TRITONSERVER_BufferAttributesCudaIpcHandle(TRITONSERVER_BufferAttributes *buffer_attributes,
                                           void **cuda_ipc_handle);

/* ---- Metrics made by a plug-in ----
 *
 * A family has a name and a help text; a metric is one labelled series in it.
 * Metrics are deleted before their family. All of these are thread-safe. */

typedef enum TRITONSERVER_metrickind {
    TRITONSERVER_METRIC_KIND_COUNTER = 0,
    TRITONSERVER_METRIC_KIND_GAUGE = 1,
    TRITONSERVER_METRIC_KIND_HISTOGRAM = 2
} TRITONSERVER_MetricKind;

typedef enum TRITONSERVER_metricformat {
    TRITONSERVER_METRIC_PROMETHEUS = 0
} TRITONSERVER_MetricFormat;

/* Copies name and description. */
TRITONSERVER_Error *TRITONSERVER_MetricFamilyNew(TRITONSERVER_MetricFamily **family,
                                                 TRITONSERVER_MetricKind kind, const char *name,
                                                 const char *description);

/* INVALID_ARG while a metric of the family exists. */
TRITONSERVER_Error *TRITONSERVER_MetricFamilyDelete(TRITONSERVER_MetricFamily *family);

TRITONSERVER_Error *TRITONSERVER_GetMetricFamilyKind(TRITONSERVER_MetricFamily *family,
                                                     TRITONSERVER_MetricKind *kind);

/* Extra arguments of a metric: the upper bounds of a histogram's buckets. */
TRITONSERVER_Error *TRITONSERVER_MetricArgsNew(TRITONSERVER_MetricArgs **args);

/* Copies buckets_count bounds, in rising order. */
TRITONSERVER_Error *TRITONSERVER_MetricArgsSetHistogram(TRITONSERVER_MetricArgs *args,
                                                        const double *buckets,
                                                        uint64_t buckets_count);

TRITONSERVER_Error *TRITONSERVER_MetricArgsDelete(TRITONSERVER_MetricArgs *args);

/* labels are string parameters; they are copied. Counter or gauge. */
TRITONSERVER_Error *TRITONSERVER_MetricNew(TRITONSERVER_Metric **metric,
                                           TRITONSERVER_MetricFamily *family,
                                           const TRITONSERVER_Parameter **labels,
                                           uint64_t label_count);

/* As MetricNew; a histogram needs args with its buckets, which are copied. */
TRITONSERVER_Error *TRITONSERVER_MetricNewWithArgs(TRITONSERVER_Metric **metric,
                                                   TRITONSERVER_MetricFamily *family,
                                                   const TRITONSERVER_Parameter **labels,
                                                   uint64_t label_count,
                                                   const TRITONSERVER_MetricArgs *args);

TRITONSERVER_Error *TRITONSERVER_MetricDelete(TRITONSERVER_Metric *metric);

/* Counter or gauge; UNSUPPORTED for a histogram. */
TRITONSERVER_Error *TRITONSERVER_MetricValue(TRITONSERVER_Metric *metric, double *value);

/* Adds value. A counter refuses a negative one with INVALID_ARG. */
TRITONSERVER_Error *TRITONSERVER_MetricIncrement(TRITONSERVER_Metric *metric, double value);

/* Gauge only, else UNSUPPORTED. */
TRITONSERVER_Error *TRITONSERVER_MetricSet(TRITONSERVER_Metric *metric, double value);

/* Histogram only, else UNSUPPORTED. */
TRITONSERVER_Error *TRITONSERVER_MetricObserve(TRITONSERVER_Metric *metric, double value);

/* ---- Traces ---- */

/* Bits; MIN and MAX are the older spelling of TIMESTAMPS. */
typedef enum TRITONSERVER_tracelevel {
    TRITONSERVER_TRACE_LEVEL_DISABLED = 0,
    TRITONSERVER_TRACE_LEVEL_MIN = 1,
    TRITONSERVER_TRACE_LEVEL_MAX = 2,
    TRITONSERVER_TRACE_LEVEL_TIMESTAMPS = 4,
    TRITONSERVER_TRACE_LEVEL_TENSORS = 8
} TRITONSERVER_InferenceTraceLevel;

typedef enum TRITONSERVER_traceactivity {
    TRITONSERVER_TRACE_REQUEST_START = 0,
    TRITONSERVER_TRACE_QUEUE_START = 1,
    TRITONSERVER_TRACE_COMPUTE_START = 2,
    TRITONSERVER_TRACE_COMPUTE_INPUT_END = 3,
    TRITONSERVER_TRACE_COMPUTE_OUTPUT_START = 4,
    TRITONSERVER_TRACE_COMPUTE_END = 5,
    TRITONSERVER_TRACE_REQUEST_END = 6,
    TRITONSERVER_TRACE_TENSOR_QUEUE_INPUT = 7,
    TRITONSERVER_TRACE_TENSOR_BACKEND_INPUT = 8,
    TRITONSERVER_TRACE_TENSOR_BACKEND_OUTPUT = 9,
    TRITONSERVER_TRACE_CUSTOM_ACTIVITY = 10
} TRITONSERVER_InferenceTraceActivity;

/* timestamp_ns is monotonic time. */
typedef void (*TRITONSERVER_InferenceTraceActivityFn_t)(
    TRITONSERVER_InferenceTrace *trace, TRITONSERVER_InferenceTraceActivity activity,
    uint64_t timestamp_ns, void *userp);

/* The tensor is borrowed for the call. */
typedef void (*TRITONSERVER_InferenceTraceTensorActivityFn_t)(
    TRITONSERVER_InferenceTrace *trace, TRITONSERVER_InferenceTraceActivity activity,
    const char *name, TRITONSERVER_DataType datatype, const void *base, size_t byte_size,
    const int64_t *shape, uint64_t dim_count, TRITONSERVER_MemoryType memory_type,
    int64_t memory_type_id, void *userp);

/* Gives the trace back to who made it. */
typedef void (*TRITONSERVER_InferenceTraceReleaseFn_t)(TRITONSERVER_InferenceTrace *trace,
                                                       void *userp);

/* Adds an event of the plug-in's own; timestamp in ns, monotonic. */
TRITONSERVER_Error *TRITONSERVER_InferenceTraceReportActivity(TRITONSERVER_InferenceTrace *trace,
                                                              uint64_t timestamp,
                                                              const char *activity_name);

/* Makes a trace below trace, to be handed to ServerInferAsync. */
TRITONSERVER_Error *
TRITONSERVER_InferenceTraceSpawnChildTrace(TRITONSERVER_InferenceTrace *trace,
                                           TRITONSERVER_InferenceTrace **child_trace);

/* The propagated context (W3C trace context as JSON), or NULL; borrowed. */
TRITONSERVER_Error *TRITONSERVER_InferenceTraceContext(TRITONSERVER_InferenceTrace *trace,
                                                       const char **trace_context);

/* ---- Response allocators: who provides the memory of outputs ---- */

/* Provides byte_size bytes for an output. *buffer may be NULL only for size 0.
 * The actual_ values may differ from the wish; buffer_userp comes back in the
 * release callback. May be called from several threads at once. */
typedef TRITONSERVER_Error *(*TRITONSERVER_ResponseAllocatorAllocFn_t)(
    TRITONSERVER_ResponseAllocator *allocator, const char *tensor_name, size_t byte_size,
    TRITONSERVER_MemoryType memory_type, int64_t memory_type_id, void *userp, void **buffer,
    void **buffer_userp, TRITONSERVER_MemoryType *actual_memory_type,
    int64_t *actual_memory_type_id);

/* Fills in the attributes of a buffer that alloc has just provided. */
typedef TRITONSERVER_Error *(*TRITONSERVER_ResponseAllocatorBufferAttributesFn_t)(
    TRITONSERVER_ResponseAllocator *allocator, const char *tensor_name,
    TRITONSERVER_BufferAttributes *buffer_attributes, void *userp, void *buffer_userp);

/* Says where alloc would put an output. tensor_name and byte_size may be NULL;
 * memory_type and memory_type_id carry the wish in and the answer out. */
typedef TRITONSERVER_Error *(*TRITONSERVER_ResponseAllocatorQueryFn_t)(
    TRITONSERVER_ResponseAllocator *allocator, void *userp, const char *tensor_name,
    size_t *byte_size, TRITONSERVER_MemoryType *memory_type, int64_t *memory_type_id);

/* Takes one buffer back. */
typedef TRITONSERVER_Error *(*TRITONSERVER_ResponseAllocatorReleaseFn_t)(
    TRITONSERVER_ResponseAllocator *allocator, void *buffer, void *buffer_userp, size_t byte_size,
    TRITONSERVER_MemoryType memory_type, int64_t memory_type_id);

/* Called once for each response, before its first allocation. */
typedef TRITONSERVER_Error *(*TRITONSERVER_ResponseAllocatorStartFn_t)(
    TRITONSERVER_ResponseAllocator *allocator, void *userp);

/* start_fn may be NULL. */
TRITONSERVER_Error *
TRITONSERVER_ResponseAllocatorNew(TRITONSERVER_ResponseAllocator **allocator,
                                  TRITONSERVER_ResponseAllocatorAllocFn_t alloc_fn,
                                  TRITONSERVER_ResponseAllocatorReleaseFn_t release_fn,
                                  TRITONSERVER_ResponseAllocatorStartFn_t start_fn);

TRITONSERVER_Error *
TRITONSERVER_ResponseAllocatorSetQueryFunction(TRITONSERVER_ResponseAllocator *allocator,
                                               TRITONSERVER_ResponseAllocatorQueryFn_t query_fn);

/* Only after every response that used it is gone. */
TRITONSERVER_Error *TRITONSERVER_ResponseAllocatorDelete(TRITONSERVER_ResponseAllocator *allocator);

/* ---- Requests to other models ---- */

/* Bits of a request. */
typedef enum TRITONSERVER_requestflag {
    TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = 1,
    TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 2
} TRITONSERVER_RequestFlag;

typedef enum TRITONSERVER_requestreleaseflag {
    TRITONSERVER_REQUEST_RELEASE_ALL = 1,       /* whoever made the request gets it back */
    TRITONSERVER_REQUEST_RELEASE_RESCHEDULE = 2 /* back to the queue, for another turn */
} TRITONSERVER_RequestReleaseFlag;

typedef enum TRITONSERVER_responsecompleteflag {
    TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1 /* no further response to this request */
} TRITONSERVER_ResponseCompleteFlag;

/* Gives the request back to who made it. Runs on any thread, so it is short. */
typedef void (*TRITONSERVER_InferenceRequestReleaseFn_t)(TRITONSERVER_InferenceRequest *request,
                                                         uint32_t flags, void *userp);

/* Delivers a response, which the callback owns from then on. response is NULL
 * when only flags are sent. Runs on any thread, so it is short. */
typedef void (*TRITONSERVER_InferenceResponseCompleteFn_t)(TRITONSERVER_InferenceResponse *response,
                                                           uint32_t flags, void *userp);

/* Makes a request; model_version -1 leaves the choice to the model's policy. */
TRITONSERVER_Error *
TRITONSERVER_InferenceRequestNew(TRITONSERVER_InferenceRequest **inference_request,
                                 TRITONSERVER_Server *server, const char *model_name,
                                 int64_t model_version);

/* Not between a successful ServerInferAsync and the release callback. */
TRITONSERVER_Error *
TRITONSERVER_InferenceRequestDelete(TRITONSERVER_InferenceRequest *inference_request);

TRITONSERVER_Error *
TRITONSERVER_InferenceRequestSetId(TRITONSERVER_InferenceRequest *inference_request,
                                   const char *id);

/* flags: bits of TRITONSERVER_RequestFlag. */
TRITONSERVER_Error *
TRITONSERVER_InferenceRequestSetFlags(TRITONSERVER_InferenceRequest *inference_request,
                                      uint32_t flags);

/* The sequence the request belongs to; 0 = none. */
TRITONSERVER_Error *
TRITONSERVER_InferenceRequestSetCorrelationId(TRITONSERVER_InferenceRequest *inference_request,
                                              uint64_t correlation_id);

/* The same with a name instead of a number. */
TRITONSERVER_Error *TRITONSERVER_InferenceRequestSetCorrelationIdString(
    TRITONSERVER_InferenceRequest *inference_request, const char *correlation_id);

/* Asks for an early end; it is answered all the same. Thread-safe. */
TRITONSERVER_Error *
TRITONSERVER_InferenceRequestCancel(TRITONSERVER_InferenceRequest *inference_request);

/* Microseconds in the queue, 0 = no limit. */
TRITONSERVER_Error *TRITONSERVER_InferenceRequestSetTimeoutMicroseconds(
    TRITONSERVER_InferenceRequest *inference_request, uint64_t timeout_us);

/* shape has dim_count entries, the batch dimension included. Copies all. */
TRITONSERVER_Error *
TRITONSERVER_InferenceRequestAddInput(TRITONSERVER_InferenceRequest *inference_request,
                                      const char *name, TRITONSERVER_DataType datatype,
                                      const int64_t *shape, uint64_t dim_count);

/* Adds one piece of an input's data. Nothing is copied: the bytes stay with the
 * caller, unchanged until the release callback. */
TRITONSERVER_Error *TRITONSERVER_InferenceRequestAppendInputData(
    TRITONSERVER_InferenceRequest *inference_request, const char *name, const void *base,
    size_t byte_size, TRITONSERVER_MemoryType memory_type, int64_t memory_type_id);

/* Without this all outputs of the model are produced. */
TRITONSERVER_Error *
TRITONSERVER_InferenceRequestAddRequestedOutput(TRITONSERVER_InferenceRequest *inference_request,
                                                const char *name);

TRITONSERVER_Error *TRITONSERVER_InferenceRequestSetReleaseCallback(
    TRITONSERVER_InferenceRequest *inference_request,
    TRITONSERVER_InferenceRequestReleaseFn_t request_release_fn, void *request_release_userp);

TRITONSERVER_Error *TRITONSERVER_InferenceRequestSetResponseCallback(
    TRITONSERVER_InferenceRequest *inference_request,
    TRITONSERVER_ResponseAllocator *response_allocator, void *response_allocator_userp,
    TRITONSERVER_InferenceResponseCompleteFn_t response_fn, void *response_userp);

TRITONSERVER_Error *
TRITONSERVER_InferenceRequestSetStringParameter(TRITONSERVER_InferenceRequest *request,
                                                const char *key, const char *value);

TRITONSERVER_Error *
TRITONSERVER_InferenceRequestSetIntParameter(TRITONSERVER_InferenceRequest *request,
                                             const char *key, int64_t value);

TRITONSERVER_Error *
TRITONSERVER_InferenceRequestSetBoolParameter(TRITONSERVER_InferenceRequest *request,
                                              const char *key, bool value);

/* ---- Responses of other models ---- */

/* Ends a response; its output buffers go back to the allocator. */
TRITONSERVER_Error *
TRITONSERVER_InferenceResponseDelete(TRITONSERVER_InferenceResponse *inference_response);

/* The error that the response carries, NULL for none. Borrowed: not deleted. */
TRITONSERVER_Error *
TRITONSERVER_InferenceResponseError(TRITONSERVER_InferenceResponse *inference_response);

TRITONSERVER_Error *
TRITONSERVER_InferenceResponseParameterCount(TRITONSERVER_InferenceResponse *inference_response,
                                             uint32_t *count);

/* Parameter number index; vvalue is read as ParameterType says. Borrowed. */
TRITONSERVER_Error *
TRITONSERVER_InferenceResponseParameter(TRITONSERVER_InferenceResponse *inference_response,
                                        uint32_t index, const char **name,
                                        TRITONSERVER_ParameterType *type, const void **vvalue);

TRITONSERVER_Error *
TRITONSERVER_InferenceResponseOutputCount(TRITONSERVER_InferenceResponse *inference_response,
                                          uint32_t *count);

/* Output number index; all borrowed. userp is the allocator's buffer_userp. */
TRITONSERVER_Error *TRITONSERVER_InferenceResponseOutput(
    TRITONSERVER_InferenceResponse *inference_response, uint32_t index, const char **name,
    TRITONSERVER_DataType *datatype, const int64_t **shape, uint64_t *dim_count, const void **base,
    size_t *byte_size, TRITONSERVER_MemoryType *memory_type, int64_t *memory_type_id, void **userp);

/* ---- The server, as a backend sees it ---- */

typedef enum TRITONSERVER_modelcontrolmode {
    TRITONSERVER_MODEL_CONTROL_NONE = 0,
    TRITONSERVER_MODEL_CONTROL_POLL = 1,
    TRITONSERVER_MODEL_CONTROL_EXPLICIT = 2
} TRITONSERVER_ModelControlMode;

typedef enum TRITONSERVER_ratelimitmode {
    TRITONSERVER_RATE_LIMIT_OFF = 0,
    TRITONSERVER_RATE_LIMIT_EXEC_COUNT = 1
} TRITONSERVER_RateLimitMode;

/* Bits. */
typedef enum TRITONSERVER_modelbatchflag {
    TRITONSERVER_BATCH_UNKNOWN = 1,
    TRITONSERVER_BATCH_FIRST_DIM = 2
} TRITONSERVER_ModelBatchFlag;

/* Bits. */
typedef enum TRITONSERVER_modelindexflag {
    TRITONSERVER_INDEX_FLAG_READY = 1
} TRITONSERVER_ModelIndexFlag;

/* Bits. */
typedef enum TRITONSERVER_modeltxnpropertyflag {
    TRITONSERVER_TXN_ONE_TO_ONE = 1, /* each request has exactly one response */
    TRITONSERVER_TXN_DECOUPLED = 2   /* any number of responses */
} TRITONSERVER_ModelTxnPropertyFlag;

/* model_version -1: the version that the model's policy would choose. */
TRITONSERVER_Error *TRITONSERVER_ServerModelIsReady(TRITONSERVER_Server *server,
                                                    const char *model_name, int64_t model_version,
                                                    bool *ready);

/* *txn_flags gets bits of TRITONSERVER_ModelTxnPropertyFlag; voidp may be NULL. */
TRITONSERVER_Error *TRITONSERVER_ServerModelTransactionProperties(TRITONSERVER_Server *server,
                                                                  const char *model_name,
                                                                  int64_t model_version,
                                                                  uint32_t *txn_flags,
                                                                  void **voidp);

/* Loads a model and waits for it. The string parameter "config" replaces its
 * configuration (JSON); bytes parameters "file:PATH" are its files. */
TRITONSERVER_Error *
TRITONSERVER_ServerLoadModelWithParameters(TRITONSERVER_Server *server, const char *model_name,
                                           const TRITONSERVER_Parameter **parameters,
                                           uint64_t parameter_count);

/* Returns before the unloading is complete. */
TRITONSERVER_Error *TRITONSERVER_ServerUnloadModel(TRITONSERVER_Server *server,
                                                   const char *model_name);

/* The same for an ensemble and the models it is made of. */
TRITONSERVER_Error *TRITONSERVER_ServerUnloadModelAndDependents(TRITONSERVER_Server *server,
                                                                const char *model_name);

/* Starts an inference. On success the server owns the request until the release
 * callback; on error it stays with the caller. trace (may be NULL) is taken in
 * both cases. The callbacks may run before this returns. */
TRITONSERVER_Error *TRITONSERVER_ServerInferAsync(TRITONSERVER_Server *server,
                                                  TRITONSERVER_InferenceRequest *inference_request,
                                                  TRITONSERVER_InferenceTrace *trace);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
