#include "config/platform.h"

#include <string.h>

#include "base/attr.h"
#include "proto/message.h"

static const struct platform platforms[] = {
    { "onnxruntime_onnx", "onnxruntime", "model.onnx", .has_cheap_instances = true },
    { "tensorrt_plan", "tensorrt", "model.plan" },
    { "tensorflow_graphdef", "tensorflow", "model.graphdef" },
    { "tensorflow_savedmodel", "tensorflow", "model.savedmodel" },
    { "caffe2_netdef", "caffe2", "model.netdef" },
    { "pytorch_libtorch", "pytorch", "model.pt" },
    { "custom", "custom", "libcustom.so" },
    { "ensemble", "", NULL },
    { NULL, "python", "model.py" },
    { NULL, "openvino", "model.xml" },
};

const struct platform *platform_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(platforms); i++)
        if (platforms[i].name && strcmp(platforms[i].name, name) == 0)
            return &platforms[i];
    return NULL;
}

const struct platform *platform_find_backend(const char *backend)
{
    for (size_t i = 0; i < ARRAY_LEN(platforms); i++)
        if (strcmp(platforms[i].backend, backend) == 0)
            return &platforms[i];
    return NULL;
}

const struct platform *platform_find_file(const char *filename)
{
    for (size_t i = 0; i < ARRAY_LEN(platforms); i++)
        if (platforms[i].filename && strcmp(platforms[i].filename, filename) == 0)
            return &platforms[i];
    return NULL;
}

const char *platform_nearest(const char *name)
{
    struct nearest nearest;
    nearest_init(&nearest, name, strlen(name));
    for (size_t i = 0; i < ARRAY_LEN(platforms); i++)
        if (platforms[i].name)
            nearest_offer(&nearest, platforms[i].name);
    return nearest_found(&nearest);
}
