/* Any bytes as config.pbtxt: no crash, no leak, bounded memory. What is accepted must survive a trip
 * through the writer and through JSON unchanged, and normalising and checking must not fall over.
 * The first byte chooses what the text is read as.
 *
 * Parses: src/proto/text_read.c */
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "proto/json.h"
#include "proto/text.h"
#include "proto/v0/api.pb-c.h"
#include "proto/v1/api.pb-c.h"
#include "proto/v1/server_status.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void free_unexpected(tis_error *err)
{
    must(!err || error_code(err) == TRITONSERVER_ERROR_UNAVAILABLE);
    error_free(err);
}

static void try_configuration(const char *text, size_t len)
{
    struct config_context context = { .directory_name = "m", .gpu_count = 1 };
    struct config_builder *b = NULL;
    struct model_config *c = NULL, *again = NULL;

    tis_error *err = config_parse_text(text, len, "f", &b);
    if (err) {
        must(*error_text(err));
        error_free(err);
        return;
    }
    free_unexpected(config_normalize(b, &context));
    error_free(config_validate(b, &context));
    free_unexpected(config_finish(&b, &c));
    if (c && c->json_len <= CONFIG_TEXT_BYTES_MAX) {
        free_unexpected(config_parse_json(c->json, c->json_len, &b));
        if (b)
            free_unexpected(config_finish(&b, &again));
        must(!again || strcmp(again->json, c->json) == 0);
    }
    config_builder_destroy(b);
    config_unref(again);
    config_unref(c);
}

static void try_message(const ProtobufCMessageDescriptor *desc, const char *text, size_t len)
{
    struct arena a;
    struct bytes once = { 0 }, twice = { 0 };
    ProtobufCMessage *m = NULL;

    arena_init(&a, NULL, 0, 4 << 20);
    error_free(text_parse(desc, text, len, NULL, &a, &m));
    if (m) {
        text_append(&once, m, len % 2 ? TEXT_LINES : TEXT_ONE_LINE);
        m = NULL;
        free_unexpected(text_parse(desc, bytes_str(&once), once.len, NULL, &a, &m));
    }
    if (m) {
        text_append(&twice, m, len % 2 ? TEXT_LINES : TEXT_ONE_LINE);
        must(once.len == twice.len && memcmp(bytes_str(&once), bytes_str(&twice), once.len) == 0);
        json_append_message(&twice, m);
    }
    bytes_fini(&once);
    bytes_fini(&twice);
    arena_fini(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const char *text = (const char *)data + 1;
    switch (data[0] % 5) {
    case 0:
        try_message(&nvidia__inferenceserver__infer_request_header__descriptor, text, size - 1);
        break;
    case 1:
        try_message(&nvidia__inferenceserver__v0__infer_request_header__descriptor, text, size - 1);
        break;
    case 2:
        try_message(&nvidia__inferenceserver__server_status__descriptor, text, size - 1);
        break;
    case 3:
        try_message(&inference__model_config__descriptor, text, size - 1);
        break;
    default:
        try_configuration(text, size - 1);
        break;
    }
    return 0;
}
