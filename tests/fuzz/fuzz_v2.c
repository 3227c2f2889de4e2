/* Any bytes as the body of a v2 inference request, for a model with an input of each kind: no crash,
 * no leak, bounded memory; what is accepted is consistent. The first two bytes are the length of the
 * JSON part (0xffff: the header is absent).
 *
 * Parses: src/api/v2/decode.c */
#include <stdio.h>
#include <stdlib.h>

#include "api/v2/v2.h"
#include "fuzz/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char raw_config_text[] = "name: 'r' backend: 'identity' "
                                      "input { name: 'S' data_type: TYPE_STRING dims: [1] } "
                                      "output { name: 'O' data_type: TYPE_STRING dims: [1] }";

static void try_body(struct model_config *config, const char *body, size_t len,
                     const struct http_header *headers, uint32_t header_count)
{
    struct http_exchange ex = {
        .path = "",
        .query = "",
        .headers = headers,
        .header_count = header_count,
        .body = body,
        .body_len = len,
    };
    struct call call = { .ex = &ex };
    model_try(config, &call, v2_decode);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct model_config *config;
    static struct model_config *raw_config;
    if (!config) {
        config = model_config_create(model_text);
        raw_config = model_config_create(raw_config_text);
    }
    if (size < 2)
        return 0;
    unsigned json_len = data[0] | (unsigned)data[1] << 8;
    char text[16];
    int text_len = snprintf(text, sizeof(text), "%u", json_len);
    struct http_header header = {
        .name = V2_HEADER_LENGTH,
        .name_len = sizeof(V2_HEADER_LENGTH) - 1,
        .value = text,
        .value_len = (uint32_t)text_len,
    };
    char *body = exact_copy(data + 2, size - 2);
    try_body(config, body, size - 2, &header, json_len != 0xffff);
    try_body(raw_config, body, size - 2, &header, json_len != 0xffff);
    free(body);
    return 0;
}
