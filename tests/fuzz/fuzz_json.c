/* Any bytes as the JSON of a model configuration or of a request header: no crash, no leak, bounded
 * memory; what is accepted reads back from what is written of it. The first byte chooses the message.
 *
 * Parses: src/proto/json_read.c */
#include <stdlib.h>
#include <string.h>

#include "proto/json.h"
#include "proto/model_config.pb-c.h"
#include "proto/v1/api.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const ProtobufCMessageDescriptor *desc =
        data[0] % 2 ? &inference__model_config__descriptor
                    : &nvidia__inferenceserver__infer_request_header__descriptor;
    struct arena a;
    struct bytes once = { 0 }, twice = { 0 };
    ProtobufCMessage *m = NULL;
    arena_init(&a, NULL, 0, 4 << 20);
    tis_error *err = json_parse_message(desc, (const char *)data + 1, size - 1, &a, &m);
    must(err ? *error_text(err) != '\0' : m != NULL);
    error_free(err);
    if (m) {
        json_append_message(&once, m);
        m = NULL;
        error_free(json_parse_message(desc, bytes_str(&once), once.len, &a, &m));
    }
    if (m) {
        json_append_message(&twice, m);
        must(once.len == twice.len && memcmp(bytes_str(&once), bytes_str(&twice), once.len) == 0);
    }
    bytes_fini(&once);
    bytes_fini(&twice);
    arena_fini(&a);
    return 0;
}
