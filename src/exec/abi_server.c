/* The TRITONSERVER_ functions that backends import: errors, messages, parameters, names, log,
 * buffer attributes. The contracts stand in include/tis/server.h. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "exec/backend.h"
#include "infer/datatype.h"
#include "infer/response.h"
#include "tis/backend.h"

/* ---- Names ---- */

const char *TRITONSERVER_DataTypeString(TRITONSERVER_DataType datatype)
{
    return datatype_name(datatype);
}

TRITONSERVER_DataType TRITONSERVER_StringToDataType(const char *dtype)
{
    return datatype_from_name(dtype, strlen(dtype));
}

uint32_t TRITONSERVER_DataTypeByteSize(TRITONSERVER_DataType datatype)
{
    return datatype_bytes(datatype);
}

const char *TRITONSERVER_MemoryTypeString(TRITONSERVER_MemoryType memtype)
{
    static const char *const names[] = {
        [TRITONSERVER_MEMORY_CPU] = "CPU",
        [TRITONSERVER_MEMORY_CPU_PINNED] = "CPU_PINNED",
        [TRITONSERVER_MEMORY_GPU] = "GPU",
    };
    return (size_t)memtype < ARRAY_LEN(names) ? names[memtype] : "<invalid>";
}

const char *TRITONSERVER_InstanceGroupKindString(TRITONSERVER_InstanceGroupKind kind)
{
    static const char *const names[] = {
        [TRITONSERVER_INSTANCEGROUPKIND_AUTO] = "AUTO",
        [TRITONSERVER_INSTANCEGROUPKIND_CPU] = "CPU",
        [TRITONSERVER_INSTANCEGROUPKIND_GPU] = "GPU",
        [TRITONSERVER_INSTANCEGROUPKIND_MODEL] = "MODEL",
    };
    return (size_t)kind < ARRAY_LEN(names) ? names[kind] : "<invalid>";
}

/* ---- Errors ---- */

TRITONSERVER_Error *TRITONSERVER_ErrorNew(TRITONSERVER_Error_Code code, const char *msg)
{
    return error_new(code, "%s", msg);
}

void TRITONSERVER_ErrorDelete(TRITONSERVER_Error *error)
{
    error_free(error);
}

TRITONSERVER_Error_Code TRITONSERVER_ErrorCode(TRITONSERVER_Error *error)
{
    return error_code(error);
}

const char *TRITONSERVER_ErrorCodeString(TRITONSERVER_Error *error)
{
    return error_code_name(error_code(error));
}

const char *TRITONSERVER_ErrorMessage(TRITONSERVER_Error *error)
{
    return error_text(error);
}

/* ---- Messages ---- */

TRITONSERVER_Error *TRITONSERVER_MessageNewFromSerializedJson(TRITONSERVER_Message **message,
                                                              const char *base, size_t byte_size)
{
    struct tis_message *m = malloc(sizeof(*m));
    char *text = malloc(byte_size + 1);
    if (!m || !text) {
        free(m);
        free(text);
        return error_no_memory();
    }
    memcpy(text, base, byte_size);
    text[byte_size] = '\0';
    *m = (struct tis_message){ text, byte_size };
    *message = m;
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_MessageDelete(TRITONSERVER_Message *message)
{
    if (message) {
        free(message->text);
        free(message);
    }
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_MessageSerializeToJson(TRITONSERVER_Message *message,
                                                        const char **base, size_t *byte_size)
{
    *base = message->text;
    *byte_size = message->len;
    return NULL;
}

/* ---- Parameters ---- */

TRITONSERVER_Parameter *TRITONSERVER_ParameterNew(const char *name, TRITONSERVER_ParameterType type,
                                                  const void *value)
{
    if (type == TRITONSERVER_PARAMETER_BYTES)
        return NULL;
    /* One allocation: the parameter, its name, its text. */
    const char *text = type == TRITONSERVER_PARAMETER_STRING ? value : "";
    size_t name_bytes = strlen(name) + 1;
    size_t text_bytes = strlen(text) + 1;
    struct tis_parameter *p = calloc(1, sizeof(*p) + name_bytes + text_bytes);
    if (!p)
        return NULL;
    p->type = type;
    p->name = memcpy(p + 1, name, name_bytes);
    switch (type) {
    case TRITONSERVER_PARAMETER_STRING:
        p->value.string = memcpy((char *)(p + 1) + name_bytes, text, text_bytes);
        break;
    case TRITONSERVER_PARAMETER_INT:
        p->value.integer = *(const int64_t *)value;
        break;
    case TRITONSERVER_PARAMETER_BOOL:
        p->value.boolean = *(const bool *)value;
        break;
    case TRITONSERVER_PARAMETER_DOUBLE:
        p->value.number = *(const double *)value;
        break;
    case TRITONSERVER_PARAMETER_BYTES:
        break;
    }
    return p;
}

TRITONSERVER_Parameter *TRITONSERVER_ParameterBytesNew(const char *name, const void *byte_ptr,
                                                       const uint64_t size)
{
    size_t name_bytes = strlen(name) + 1;
    struct tis_parameter *p = calloc(1, sizeof(*p) + name_bytes);
    if (!p)
        return NULL;
    p->type = TRITONSERVER_PARAMETER_BYTES;
    p->name = memcpy(p + 1, name, name_bytes);
    p->value.data = byte_ptr;
    p->bytes = size;
    return p;
}

void TRITONSERVER_ParameterDelete(TRITONSERVER_Parameter *parameter)
{
    free(parameter);
}

/* ---- Log ---- */

static enum log_level level_of(TRITONSERVER_LogLevel level)
{
    switch (level) {
    case TRITONSERVER_LOG_INFO:
        return LOG_LEVEL_INFO;
    case TRITONSERVER_LOG_WARN:
        return LOG_LEVEL_WARNING;
    case TRITONSERVER_LOG_ERROR:
        return LOG_LEVEL_ERROR;
    case TRITONSERVER_LOG_VERBOSE:
        break;
    }
    return LOG_LEVEL_VERBOSE;
}

bool TRITONSERVER_LogIsEnabled(TRITONSERVER_LogLevel level)
{
    return log_is_enabled(level_of(level));
}

TRITONSERVER_Error *TRITONSERVER_LogMessage(TRITONSERVER_LogLevel level, const char *filename,
                                            const int line, const char *msg)
{
    if (log_is_enabled(level_of(level)))
        log_write(level_of(level), filename, line, "%s", msg);
    return NULL;
}

/* ---- Buffer attributes ---- */

TRITONSERVER_Error *
TRITONSERVER_BufferAttributesNew(TRITONSERVER_BufferAttributes **buffer_attributes)
{
    struct tis_buffer_attributes *a = calloc(1, sizeof(*a));
    if (!a)
        return error_no_memory();
    *buffer_attributes = a;
    return NULL;
}

TRITONSERVER_Error *
TRITONSERVER_BufferAttributesDelete(TRITONSERVER_BufferAttributes *buffer_attributes)
{
    free(buffer_attributes);
    return NULL;
}

TRITONSERVER_Error *
TRITONSERVER_BufferAttributesSetMemoryTypeId(TRITONSERVER_BufferAttributes *buffer_attributes,
                                             int64_t memory_type_id)
{
    buffer_attributes->memory_id = memory_type_id;
    return NULL;
}

TRITONSERVER_Error *
TRITONSERVER_BufferAttributesSetMemoryType(TRITONSERVER_BufferAttributes *buffer_attributes,
                                           TRITONSERVER_MemoryType memory_type)
{
    buffer_attributes->memory_type = memory_type;
    return NULL;
}

TRITONSERVER_Error *
TRITONSERVER_BufferAttributesSetByteSize(TRITONSERVER_BufferAttributes *buffer_attributes,
                                         size_t byte_size)
{
    buffer_attributes->bytes = byte_size;
    return NULL;
}

TRITONSERVER_Error *
TRITONSERVER_BufferAttributesCudaIpcHandle(TRITONSERVER_BufferAttributes *buffer_attributes,
                                           void **cuda_ipc_handle)
{
    *cuda_ipc_handle = buffer_attributes->cuda_ipc_handle;
    return NULL;
}
