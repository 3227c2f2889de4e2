/* Any bytes as a ServerReflectionRequest: an error and nothing written, or an answer that repeats the
 * request and says one thing.
 *
 * Parses: src/api/reflection.c */
#include <stdlib.h>
#include <string.h>

#include "api/reflection.h"
#include "proto/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void check_answer(const struct bytes *out, const char *message, size_t len)
{
    uint32_t bodies = 0, requests = 0;
    struct wire w = wire_open(out->data, out->len);
    for (struct wire_field f; wire_next(&w, &f);) {
        must(f.type == WIRE_BYTES);
        if (f.number == 2) {
            must(f.len == len && memcmp(f.data, message, len) == 0);
            requests++;
        }
        bodies += f.number >= 4 && f.number <= 7;
    }
    must(!w.is_bad && requests == 1 && bodies == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* A copy of its own: reading behind the message is found. */
    char *message = malloc(size + 1);
    struct bytes out = { 0 };
    must(message != NULL);
    if (size > 0)
        memcpy(message, data, size);
    tis_error *err = reflection_answer(message, size, &out);
    must(!out.failed);
    if (err)
        must(out.len == 0);
    else
        check_answer(&out, message, size);
    error_free(err);
    bytes_fini(&out);
    free(message);
    return 0;
}
