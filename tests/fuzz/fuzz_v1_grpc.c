/* Any bytes as the message of the v1 protocol's Infer, for a model with an input of each kind: no
 * crash, no leak, bounded memory; what is accepted is consistent, and its tensors lie in the
 * message.
 *
 * Parses: src/api/v1/infer_wire.c src/proto/wire_read.c */
#include <stdlib.h>

#include "api/v1/infer.h"
#include "fuzz/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static tis_error *decode(struct call *call)
{
    int64_t version;
    tis_error *err = v1_rpc_infer_form.read_target(call, &version);
    if (!err)
        err = v1_infer_decode(call, &v1_rpc_infer_form);
    const char *begin = call->message;
    for (uint32_t i = 0; !err && i < call->request->input_count; i++) {
        const struct tis_input *in = &call->request->inputs[i];
        for (uint32_t k = 0; k < in->chunk_count; k++) {
            const char *at = in->chunks[k].base;
            must(at >= begin && at + in->chunks[k].attributes.bytes <= begin + call->message_len);
        }
    }
    return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct model_config *config;
    static struct api api;
    if (!config)
        config = model_config_create(model_text);
    char *message = exact_copy(data, size);
    struct call call = { .api = &api, .message = message, .message_len = size };
    model_try(config, &call, decode);
    free(message);
    return 0;
}
