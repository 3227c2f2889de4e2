/* Any bytes as the message of ModelInfer, for a model with an input of each kind: no crash,
 * no leak, bounded memory; what is accepted is consistent.
 *
 * Parses: src/api/v2/grpc_infer.c src/proto/wire_read.c */
#include <stdlib.h>

#include "api/v2/v2.h"
#include "fuzz/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static tis_error *decode(struct call *call)
{
    tis_error *err = v2_rpc_read_target(call);
    return err ? err : v2_rpc_decode(call);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct model_config *config;
    if (!config)
        config = model_config_create(model_text);
    char *message = exact_copy(data, size);
    struct call call = { .message = message, .message_len = size };
    model_try(config, &call, decode);
    free(message);
    return 0;
}
