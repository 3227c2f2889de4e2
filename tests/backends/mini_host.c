#include "mini_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOST_CHECK(condition)                                                         \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                  \
        }                                                                             \
    } while (0)

struct tis_error {
    TRITONSERVER_Error_Code code;
    char text[4096];
};

struct tis_message {
    char *text;
};

/* A response is a view of its request: only one is made of each. */
struct tis_response {
    struct tis_request *request;
};

struct tis_backend {
    void *state;
    struct tis_message settings;
};

struct tis_version {
    void *state;
};

struct tis_instance {
    void *state;
};

struct host host;
static struct tis_backend backend;
static struct tis_version model;
static struct tis_instance instance;

/* ---- Errors, log, messages, types ---- */

TRITONSERVER_Error *TRITONSERVER_ErrorNew(TRITONSERVER_Error_Code code, const char *msg)
{
    TRITONSERVER_Error *error = calloc(1, sizeof *error);

    HOST_CHECK(error);
    error->code = code;
    snprintf(error->text, sizeof error->text, "%s", msg);
    return error;
}

void TRITONSERVER_ErrorDelete(TRITONSERVER_Error *error)
{
    free(error);
}

TRITONSERVER_Error_Code TRITONSERVER_ErrorCode(TRITONSERVER_Error *error)
{
    return error->code;
}

const char *TRITONSERVER_ErrorMessage(TRITONSERVER_Error *error)
{
    return error->text;
}

bool TRITONSERVER_LogIsEnabled(TRITONSERVER_LogLevel level)
{
    return level == TRITONSERVER_LOG_WARN || level == TRITONSERVER_LOG_ERROR;
}

TRITONSERVER_Error *TRITONSERVER_LogMessage(TRITONSERVER_LogLevel level, const char *filename,
                                            const int line, const char *msg)
{
    fprintf(stderr, "log %d %s:%d %s\n", (int)level, filename, line, msg);
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_MessageNewFromSerializedJson(TRITONSERVER_Message **message,
                                                              const char *base, size_t byte_size)
{
    *message = calloc(1, sizeof **message);
    HOST_CHECK(*message);
    (*message)->text = strndup(base, byte_size);
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_MessageDelete(TRITONSERVER_Message *message)
{
    free(message->text);
    free(message);
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_MessageSerializeToJson(TRITONSERVER_Message *message,
                                                        const char **base, size_t *byte_size)
{
    *base = message->text;
    *byte_size = strlen(message->text);
    return NULL;
}

static const struct {
    const char *name;
    uint32_t byte_size;
} TYPES[] = {
    { "<invalid>", 0 }, { "BOOL", 1 }, { "UINT8", 1 }, { "UINT16", 2 }, { "UINT32", 4 },
    { "UINT64", 8 },    { "INT8", 1 }, { "INT16", 2 }, { "INT32", 4 },  { "INT64", 8 },
    { "FP16", 2 },      { "FP32", 4 }, { "FP64", 8 },  { "BYTES", 0 },  { "BF16", 2 },
};

const char *TRITONSERVER_DataTypeString(TRITONSERVER_DataType datatype)
{
    return TYPES[datatype].name;
}

TRITONSERVER_DataType TRITONSERVER_StringToDataType(const char *dtype)
{
    for (unsigned i = 1; i < sizeof TYPES / sizeof *TYPES; i++) {
        if (strcmp(TYPES[i].name, dtype) == 0)
            return (TRITONSERVER_DataType)i;
    }
    return TRITONSERVER_TYPE_INVALID;
}

uint32_t TRITONSERVER_DataTypeByteSize(TRITONSERVER_DataType datatype)
{
    return TYPES[datatype].byte_size;
}

/* ---- Backend, model, instance ---- */

TRITONSERVER_Error *TRITONBACKEND_ApiVersion(uint32_t *major, uint32_t *minor)
{
    *major = TRITONBACKEND_API_VERSION_MAJOR;
    *minor = TRITONBACKEND_API_VERSION_MINOR;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_BackendConfig(TRITONBACKEND_Backend *handle,
                                                TRITONSERVER_Message **backend_config)
{
    *backend_config = &handle->settings;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_BackendState(TRITONBACKEND_Backend *handle, void **state)
{
    *state = handle->state;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_BackendSetState(TRITONBACKEND_Backend *handle, void *state)
{
    handle->state = state;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_BackendAttributeSetParallelModelInstanceLoading(
    TRITONBACKEND_BackendAttribute *backend_attributes, bool enabled)
{
    (void)backend_attributes;
    (void)enabled;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelName(TRITONBACKEND_Model *handle, const char **name)
{
    (void)handle;
    *name = "m";
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelVersion(TRITONBACKEND_Model *handle, uint64_t *version)
{
    (void)handle;
    *version = 1;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelRepository(TRITONBACKEND_Model *handle,
                                                  TRITONBACKEND_ArtifactType *artifact_type,
                                                  const char **location)
{
    (void)handle;
    *artifact_type = TRITONBACKEND_ARTIFACT_FILESYSTEM;
    *location = host.directory;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelConfig(TRITONBACKEND_Model *handle, uint32_t config_version,
                                              TRITONSERVER_Message **model_config)
{
    const char *text = host.completed_config ? host.completed_config : host.config;

    (void)handle;
    HOST_CHECK(config_version == 1);
    return TRITONSERVER_MessageNewFromSerializedJson(model_config, text, strlen(text));
}

TRITONSERVER_Error *TRITONBACKEND_ModelAutoCompleteConfig(TRITONBACKEND_Model *handle,
                                                          bool *auto_complete_config)
{
    (void)handle;
    *auto_complete_config = host.auto_complete;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelSetConfig(TRITONBACKEND_Model *handle,
                                                 uint32_t config_version,
                                                 TRITONSERVER_Message *model_config)
{
    (void)handle;
    HOST_CHECK(config_version == 1);
    free(host.completed_config);
    host.completed_config = strdup(model_config->text);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelBackend(TRITONBACKEND_Model *handle,
                                               TRITONBACKEND_Backend **ret_backend)
{
    (void)handle;
    *ret_backend = &backend;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelState(TRITONBACKEND_Model *handle, void **state)
{
    *state = handle->state;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelSetState(TRITONBACKEND_Model *handle, void *state)
{
    handle->state = state;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceKind(TRITONBACKEND_ModelInstance *handle,
                                                    TRITONSERVER_InstanceGroupKind *kind)
{
    (void)handle;
    *kind = TRITONSERVER_INSTANCEGROUPKIND_CPU;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceModel(TRITONBACKEND_ModelInstance *handle,
                                                     TRITONBACKEND_Model **ret_model)
{
    (void)handle;
    *ret_model = &model;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceState(TRITONBACKEND_ModelInstance *handle,
                                                     void **state)
{
    *state = handle->state;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceSetState(TRITONBACKEND_ModelInstance *handle,
                                                        void *state)
{
    handle->state = state;
    return NULL;
}

TRITONSERVER_Error *
TRITONBACKEND_ModelInstanceReportStatistics(TRITONBACKEND_ModelInstance *handle,
                                            TRITONBACKEND_Request *request, bool success,
                                            uint64_t exec_start_ns, uint64_t compute_start_ns,
                                            uint64_t compute_end_ns, uint64_t exec_end_ns)
{
    (void)handle;
    HOST_CHECK(request->release_count == 0);
    HOST_CHECK(exec_start_ns <= compute_start_ns && compute_start_ns <= compute_end_ns &&
               compute_end_ns <= exec_end_ns);
    request->report_count++;
    request->success = success;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceReportBatchStatistics(
    TRITONBACKEND_ModelInstance *handle, uint64_t batch_size, uint64_t exec_start_ns,
    uint64_t compute_start_ns, uint64_t compute_end_ns, uint64_t exec_end_ns)
{
    (void)handle;
    HOST_CHECK(exec_start_ns <= compute_start_ns && compute_start_ns <= compute_end_ns &&
               compute_end_ns <= exec_end_ns);
    host.execution_count++;
    host.executed_batch_size += batch_size;
    return NULL;
}

/* ---- Requests and responses ---- */

TRITONSERVER_Error *TRITONBACKEND_RequestInput(TRITONBACKEND_Request *request, const char *name,
                                               TRITONBACKEND_Input **input)
{
    for (unsigned i = 0; i < TENSORS_MAX && request->inputs[i].name; i++) {
        *input = &request->inputs[i];
        if (strcmp((*input)->name, name) == 0)
            return NULL;
    }
    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INVALID_ARG, "no such input");
}

TRITONSERVER_Error *TRITONBACKEND_RequestInputByIndex(TRITONBACKEND_Request *request,
                                                      uint32_t index, TRITONBACKEND_Input **input)
{
    *input = &request->inputs[index];
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestOutputCount(TRITONBACKEND_Request *request,
                                                     uint32_t *count)
{
    *count = 0;
    while (*count < TENSORS_MAX && request->outputs[*count])
        ++*count;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestOutputName(TRITONBACKEND_Request *request, uint32_t index,
                                                    const char **output_name)
{
    *output_name = request->outputs[index];
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestRelease(TRITONBACKEND_Request *request,
                                                 uint32_t release_flags)
{
    HOST_CHECK(release_flags == TRITONSERVER_REQUEST_RELEASE_ALL);
    HOST_CHECK(request->release_count++ == 0);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_InputProperties(TRITONBACKEND_Input *input, const char **name,
                                                  TRITONSERVER_DataType *datatype,
                                                  const int64_t **shape, uint32_t *dims_count,
                                                  uint64_t *byte_size, uint32_t *buffer_count)
{
    if (name)
        *name = input->name;
    if (datatype)
        *datatype = input->datatype;
    if (shape)
        *shape = input->shape;
    if (dims_count)
        *dims_count = input->dims_count;
    if (buffer_count)
        *buffer_count = input->piece_count;
    if (byte_size) {
        *byte_size = 0;
        for (uint32_t i = 0; i < input->piece_count; i++)
            *byte_size += input->pieces[i].byte_size;
    }
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_InputBuffer(TRITONBACKEND_Input *input, uint32_t index,
                                              const void **buffer, uint64_t *buffer_byte_size,
                                              TRITONSERVER_MemoryType *memory_type,
                                              int64_t *memory_type_id)
{
    *buffer = input->pieces[index].data;
    *buffer_byte_size = input->pieces[index].byte_size;
    *memory_type = input->memory_type;
    *memory_type_id = 0;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseNew(TRITONBACKEND_Response **response,
                                              TRITONBACKEND_Request *request)
{
    *response = calloc(1, sizeof **response);
    HOST_CHECK(*response);
    (*response)->request = request;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseOutput(TRITONBACKEND_Response *response,
                                                 TRITONBACKEND_Output **output, const char *name,
                                                 TRITONSERVER_DataType datatype,
                                                 const int64_t *shape, uint32_t dims_count)
{
    struct tis_request *request = response->request;

    if (request->refuse_outputs)
        return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNAVAILABLE, "outputs refused");
    HOST_CHECK(request->result_count < TENSORS_MAX && dims_count <= RANK_HOST_MAX);
    *output = &request->results[request->result_count++];
    snprintf((*output)->name, sizeof(*output)->name, "%s", name);
    (*output)->datatype = datatype;
    (*output)->dims_count = dims_count;
    memcpy((*output)->shape, shape, dims_count * sizeof *shape);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_OutputBuffer(TRITONBACKEND_Output *output, void **buffer,
                                               uint64_t buffer_byte_size,
                                               TRITONSERVER_MemoryType *memory_type,
                                               int64_t *memory_type_id)
{
    HOST_CHECK(!output->data);
    output->byte_size = buffer_byte_size;
    output->data = malloc(buffer_byte_size ? buffer_byte_size : 1);
    *buffer = output->data;
    *memory_type = TRITONSERVER_MEMORY_CPU;
    *memory_type_id = 0;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseSend(TRITONBACKEND_Response *response,
                                               uint32_t send_flags, TRITONSERVER_Error *error)
{
    struct tis_request *request = response->request;

    HOST_CHECK(send_flags == TRITONSERVER_RESPONSE_COMPLETE_FINAL);
    HOST_CHECK(request->send_count++ == 0);
    if (error)
        snprintf(request->error, sizeof request->error, "%s", error->text);
    free(response);
    return NULL;
}

/* ---- For tests ---- */

static bool note(TRITONSERVER_Error *error, char reason[4096])
{
    if (!error)
        return true;
    snprintf(reason, 4096, "%s", error->text);
    TRITONSERVER_ErrorDelete(error);
    return false;
}

bool host_load(char reason[4096])
{
    backend.settings.text = (char *)host.settings;
    return note(TRITONBACKEND_Initialize(&backend), reason) &&
           note(TRITONBACKEND_ModelInitialize(&model), reason) &&
           note(TRITONBACKEND_ModelInstanceInitialize(&instance), reason);
}

void host_execute(struct tis_request **requests, uint32_t count)
{
    host.execution_count = 0;
    host.executed_batch_size = 0;
    HOST_CHECK(!TRITONBACKEND_ModelInstanceExecute(&instance, requests, count));
    for (uint32_t i = 0; i < count; i++) {
        struct tis_request *request = requests[i];

        HOST_CHECK(request->send_count == 1 && request->release_count == 1 &&
                   request->report_count == 1);
        HOST_CHECK(request->success == !request->error[0]);
    }
}

void host_reset(struct tis_request *request)
{
    for (uint32_t i = 0; i < request->result_count; i++)
        free(request->results[i].data);
    memset(request->results, 0, sizeof request->results);
    request->result_count = 0;
    request->error[0] = '\0';
    request->send_count = request->release_count = request->report_count = 0;
}

void host_unload(void)
{
    char reason[4096];

    HOST_CHECK(note(TRITONBACKEND_ModelInstanceFinalize(&instance), reason));
    HOST_CHECK(note(TRITONBACKEND_ModelFinalize(&model), reason));
    HOST_CHECK(note(TRITONBACKEND_Finalize(&backend), reason));
    free(host.completed_config);
    host.completed_config = NULL;
    backend = (struct tis_backend){ 0 };
    model = (struct tis_version){ 0 };
    instance = (struct tis_instance){ 0 };
}
