#include "fuzz/model.h"

#include <stdlib.h>
#include <string.h>

#include "infer/shape.h"

const char model_text[] =
    "name: 'm' backend: 'identity' max_batch_size: 4 "
    "input { name: 'I' data_type: TYPE_INT8 dims: [2] } "
    "input { name: 'F' data_type: TYPE_FP32 dims: [-1, 2] optional: true } "
    "input { name: 'D' data_type: TYPE_FP64 dims: [1] reshape { shape: [] } optional: true } "
    "input { name: 'H' data_type: TYPE_FP16 dims: [1] optional: true } "
    "input { name: 'U' data_type: TYPE_UINT64 dims: [1] optional: true } "
    "input { name: 'B' data_type: TYPE_BOOL dims: [2] optional: true } "
    "input { name: 'S' data_type: TYPE_STRING dims: [-1] optional: true } "
    "output { name: 'O' data_type: TYPE_INT8 dims: [2] }";

void must(bool condition)
{
    if (!condition)
        abort();
}

struct model_config *model_config_create(const char *text)
{
    struct config_context context = { .directory_name = NULL };
    struct config_builder *b = NULL;
    struct model_config *config = NULL;
    must(!config_parse_text(text, strlen(text), "config", &b));
    must(!config_normalize(b, &context));
    must(!config_validate(b, &context));
    must(!config_finish(&b, &config));
    return config;
}

static void sink_complete(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    (void)sink;
    (void)response;
    (void)flags;
}

static void check_accepted(const struct tis_request *req, const struct model_config *config)
{
    must(req->batch_size >= 1 && req->batch_size <= 4);
    must(req->output_count >= 1);
    for (uint32_t i = 0; i < req->input_count; i++) {
        const struct tis_input *in = &req->inputs[i];
        uint64_t bytes = 0, count;
        must(config_find_input(config, in->name, strlen(in->name)) >= 0);
        must(shape_count(in->shape, in->rank, &count));
        for (uint32_t k = 0; k < in->chunk_count; k++)
            bytes += in->chunks[k].attributes.bytes;
        must(bytes == in->bytes);
    }
}

void model_try(struct model_config *config, struct call *call,
               tis_error *(*decode)(struct call *call))
{
    static const struct sink_ops ops = { .complete = sink_complete };
    struct tis_version version = { .model_name = (char *)(uintptr_t)config->name,
                                   .config = config };
    call->target = &version;
    call->request = request_create(&ops, NULL);
    must(call->request != NULL);
    tis_error *err = decode(call);
    if (!err)
        err = request_validate(call->request, config, config->name);
    if (!err)
        check_accepted(call->request, config);
    else
        must(*error_text(err));
    error_free(err);
    if (call->json)
        call->json_free(call->json);
    request_free(&call->request);
}

char *exact_copy(const void *data, size_t len)
{
    char *copy = malloc(len > 0 ? len : 1);
    must(copy != NULL);
    if (len > 0)
        memcpy(copy, data, len);
    return copy;
}
