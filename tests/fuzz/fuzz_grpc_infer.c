/* Any bytes as the message of ModelInfer, for a model with an input of each kind: no crash,
 * no leak, bounded memory; what is accepted is consistent.
 *
 * Parses: src/api/v2/grpc_infer.c src/proto/wire_read.c */
#include <stdlib.h>
#include <string.h>

#include "api/v2/v2.h"
#include "infer/shape.h"
#include "model/validate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char config_text[] =
    "name: 'm' backend: 'identity' max_batch_size: 4 "
    "input { name: 'I' data_type: TYPE_INT8 dims: [2] } "
    "input { name: 'F' data_type: TYPE_FP32 dims: [-1, 2] optional: true } "
    "input { name: 'D' data_type: TYPE_FP64 dims: [1] reshape { shape: [] } optional: true } "
    "input { name: 'H' data_type: TYPE_FP16 dims: [1] optional: true } "
    "input { name: 'U' data_type: TYPE_UINT64 dims: [1] optional: true } "
    "input { name: 'B' data_type: TYPE_BOOL dims: [2] optional: true } "
    "input { name: 'S' data_type: TYPE_STRING dims: [-1] optional: true } "
    "output { name: 'O' data_type: TYPE_INT8 dims: [2] }";

static void must(bool condition)
{
    if (!condition)
        abort();
}

static struct model_config *make_config(const char *text)
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

static void try_message(struct model_config *config, const char *message, size_t len)
{
    static const struct sink_ops ops = { .complete = sink_complete };
    struct tis_version version = { .model_name = (char *)(uintptr_t)config->name,
                                   .config = config };
    struct call call = { .message = message, .message_len = len, .target = &version };
    call.request = request_create(&ops, NULL);
    must(call.request != NULL);
    tis_error *err = v2_rpc_read_target(&call);
    if (!err)
        err = v2_rpc_decode(&call);
    if (!err)
        err = request_validate(call.request, config, config->name);
    if (!err)
        check_accepted(call.request, config);
    else
        must(*error_text(err));
    error_free(err);
    request_free(&call.request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct model_config *config;
    if (!config)
        config = make_config(config_text);
    /* A copy of its own: reading behind the message is found. */
    char *message = malloc(size + 1);
    must(message != NULL);
    if (size > 0)
        memcpy(message, data, size);
    try_message(config, message, size);
    free(message);
    return 0;
}
