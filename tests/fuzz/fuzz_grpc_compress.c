/* Feeds bytes as a compressed message: what is measured is what is made, and nothing is written behind
 * it. The first byte says which format. What decompresses is compressed again and must come back.
 *
 * Parses: src/grpc/compress.c */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/compress.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    BYTES_MAX = 1 << 20,
};

static void check_back(enum compress_format format, const void *message, size_t bytes)
{
    struct iovec parts[] = {
        { .iov_base = (void *)(uintptr_t)message, .iov_len = bytes / 2 },
        { .iov_base = (char *)(uintptr_t)message + bytes / 2, .iov_len = bytes - bytes / 2 },
    };
    void *out;
    size_t out_bytes, measured;
    if (compress_deflate(format, COMPRESS_MEDIUM, parts, 2, &out, &out_bytes))
        return;
    void *back = malloc(bytes);
    assert(!compress_measure(format, out, out_bytes, bytes, &measured) && measured == bytes);
    assert(!compress_inflate(format, out, out_bytes, back, bytes));
    assert(memcmp(back, message, bytes) == 0);
    free(back);
    free(out);
}

/* Names and lists are what the client sends, too. */
static void read_names(const char *text, size_t len)
{
    static const char *const words[] = { "none", "low", "medium", "high", "higher" };
    unsigned accepted = compress_formats_in(text, len);
    assert(!(accepted & 1u << COMPRESS_UNKNOWN));
    if (compress_format_of(text, len) != COMPRESS_UNKNOWN)
        assert(accepted == 1u << compress_format_of(text, len));
    enum compress_level level;
    if (!compress_level_of(words[text[0] & 3], &level) || compress_level_of(words[4], &level))
        abort();
    enum compress_format chosen = compress_choose(level, accepted);
    assert(chosen == COMPRESS_IDENTITY || accepted & 1u << chosen);
    assert(strlen(compress_name(chosen)) > 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t bytes;
    if (size == 0)
        return 0;
    enum compress_format format = data[0] & 1 ? COMPRESS_GZIP : COMPRESS_DEFLATE;
    read_names((const char *)data, size);
    data++;
    size--;
    if (compress_measure(format, data, size, BYTES_MAX, &bytes))
        return 0;
    assert(bytes <= BYTES_MAX);
    char *message = malloc(bytes + 1);
    enum compress_result result = compress_inflate(format, data, size, message, bytes);
    /* What was found by decompressing decompresses again. */
    assert(format == COMPRESS_GZIP || result == COMPRESS_OK);
    if (result == COMPRESS_OK)
        check_back(format, message, bytes);
    free(message);
    return 0;
}
