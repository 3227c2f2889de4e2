#include "infer/datatype.h"

#include <string.h>

static const struct {
    const char *name;
    const char *config_name;
    uint32_t bytes;
} types[] = {
    [TRITONSERVER_TYPE_INVALID] = { "<invalid>", "TYPE_INVALID", 0 },
    [TRITONSERVER_TYPE_BOOL] = { "BOOL", "TYPE_BOOL", 1 },
    [TRITONSERVER_TYPE_UINT8] = { "UINT8", "TYPE_UINT8", 1 },
    [TRITONSERVER_TYPE_UINT16] = { "UINT16", "TYPE_UINT16", 2 },
    [TRITONSERVER_TYPE_UINT32] = { "UINT32", "TYPE_UINT32", 4 },
    [TRITONSERVER_TYPE_UINT64] = { "UINT64", "TYPE_UINT64", 8 },
    [TRITONSERVER_TYPE_INT8] = { "INT8", "TYPE_INT8", 1 },
    [TRITONSERVER_TYPE_INT16] = { "INT16", "TYPE_INT16", 2 },
    [TRITONSERVER_TYPE_INT32] = { "INT32", "TYPE_INT32", 4 },
    [TRITONSERVER_TYPE_INT64] = { "INT64", "TYPE_INT64", 8 },
    [TRITONSERVER_TYPE_FP16] = { "FP16", "TYPE_FP16", 2 },
    [TRITONSERVER_TYPE_FP32] = { "FP32", "TYPE_FP32", 4 },
    [TRITONSERVER_TYPE_FP64] = { "FP64", "TYPE_FP64", 8 },
    [TRITONSERVER_TYPE_BYTES] = { "BYTES", "TYPE_STRING", 0 },
    [TRITONSERVER_TYPE_BF16] = { "BF16", "TYPE_BF16", 2 },
};

static size_t index_of(TRITONSERVER_DataType type)
{
    return (size_t)type < ARRAY_LEN(types) ? (size_t)type : TRITONSERVER_TYPE_INVALID;
}

uint32_t datatype_bytes(TRITONSERVER_DataType type)
{
    return types[index_of(type)].bytes;
}

const char *datatype_name(TRITONSERVER_DataType type)
{
    return types[index_of(type)].name;
}

const char *datatype_config_name(TRITONSERVER_DataType type)
{
    return types[index_of(type)].config_name;
}

TRITONSERVER_DataType datatype_from_name(const char *name, size_t len)
{
    for (size_t i = 1; i < ARRAY_LEN(types); i++) {
        if (strlen(types[i].name) == len && memcmp(types[i].name, name, len) == 0)
            return (TRITONSERVER_DataType)i;
    }
    return TRITONSERVER_TYPE_INVALID;
}
