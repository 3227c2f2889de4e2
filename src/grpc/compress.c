#include "grpc/compress.h"

#include <assert.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum {
    GZIP_BYTES_MIN = 18, /* head and tail */
    RATIO_MAX = 1032,    /* of deflate: 258 bytes for two bits */
    NOWHERE_BYTES = 16 << 10,
};

static const struct {
    const char *name;
    enum compress_format format;
} formats[] = {
    { "identity", COMPRESS_IDENTITY },
    { "deflate", COMPRESS_DEFLATE },
    { "gzip", COMPRESS_GZIP },
};

enum compress_format compress_format_of(const char *name, size_t len)
{
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        if (strlen(formats[i].name) == len && memcmp(formats[i].name, name, len) == 0)
            return formats[i].format;
    }
    return COMPRESS_UNKNOWN;
}

bool compress_level_of(const char *text, enum compress_level *ret_level)
{
    static const char *const levels[] = { "none", "low", "medium", "high" };
    for (unsigned i = 0; i < ARRAY_LEN(levels); i++) {
        if (strcmp(levels[i], text) == 0) {
            *ret_level = (enum compress_level)i;
            return true;
        }
    }
    return false;
}

const char *compress_name(enum compress_format format)
{
    assert(format < ARRAY_LEN(formats));
    return formats[format].name;
}

unsigned compress_formats_in(const char *list, size_t len)
{
    unsigned found = 0;
    const char *end = list + len;
    while (list < end) {
        const char *comma = memchr(list, ',', (size_t)(end - list));
        const char *stop = comma ? comma : end;
        while (list < stop && *list == ' ')
            list++;
        const char *last = stop;
        while (last > list && last[-1] == ' ')
            last--;
        found |= 1u << compress_format_of(list, (size_t)(last - list));
        list = stop + 1;
    }
    return found & ~(1u << COMPRESS_UNKNOWN);
}

enum compress_format compress_choose(enum compress_level level, unsigned accepted)
{
    enum compress_format ranked[2];
    unsigned count = 0;
    if (accepted & 1u << COMPRESS_GZIP)
        ranked[count++] = COMPRESS_GZIP;
    if (accepted & 1u << COMPRESS_DEFLATE)
        ranked[count++] = COMPRESS_DEFLATE;
    if (level == COMPRESS_NONE || count == 0)
        return COMPRESS_IDENTITY;
    return level == COMPRESS_LOW ? ranked[0] : ranked[count - 1];
}

/* Of the zlib format: decompresses to nowhere. */
static enum compress_result measure_deflate(const void *data, size_t len, size_t max,
                                            size_t *ret_bytes)
{
    uint8_t nowhere[NOWHERE_BYTES];
    z_stream z = { .next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)len };
    uint64_t bytes = 0;
    int rc = inflateInit(&z);
    if (rc != Z_OK)
        return COMPRESS_NO_MEMORY;
    while (rc == Z_OK && bytes <= max) {
        z.next_out = nowhere;
        z.avail_out = sizeof(nowhere);
        rc = inflate(&z, Z_NO_FLUSH);
        bytes += sizeof(nowhere) - z.avail_out;
    }
    bool has_rest = z.avail_in > 0;
    inflateEnd(&z);
    if (bytes > max)
        return COMPRESS_LARGE;
    if (rc == Z_MEM_ERROR)
        return COMPRESS_NO_MEMORY;
    if (rc != Z_STREAM_END || has_rest)
        return COMPRESS_BAD;
    *ret_bytes = (size_t)bytes;
    return COMPRESS_OK;
}

static enum compress_result measure_gzip(const uint8_t *data, size_t len, size_t max,
                                         size_t *ret_bytes)
{
    if (len < GZIP_BYTES_MIN)
        return COMPRESS_BAD;
    const uint8_t *tail = data + len - 4;
    size_t bytes =
        (size_t)tail[0] | (size_t)tail[1] << 8 | (size_t)tail[2] << 16 | (size_t)tail[3] << 24;
    if (bytes / RATIO_MAX > len)
        return COMPRESS_BAD; /* no memory for a mere claim */
    if (bytes > max)
        return COMPRESS_LARGE;
    *ret_bytes = bytes;
    return COMPRESS_OK;
}

enum compress_result compress_measure(enum compress_format format, const void *data, size_t len,
                                      size_t max, size_t *ret_bytes)
{
    assert(len <= UINT32_MAX);
    return format == COMPRESS_GZIP ? measure_gzip(data, len, max, ret_bytes)
                                   : measure_deflate(data, len, max, ret_bytes);
}

enum compress_result compress_inflate(enum compress_format format, const void *data, size_t len,
                                      void *out, size_t bytes)
{
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    size_t used = 0;
    char none;
    if (!d)
        return COMPRESS_NO_MEMORY;
    if (bytes == 0)
        out = &none; /* libdeflate computes with the pointer */
    enum libdeflate_result rc =
        format == COMPRESS_GZIP
            ? libdeflate_gzip_decompress_ex(d, data, len, out, bytes, &used, NULL)
            : libdeflate_zlib_decompress_ex(d, data, len, out, bytes, &used, NULL);
    libdeflate_free_decompressor(d);
    return rc == LIBDEFLATE_SUCCESS && used == len ? COMPRESS_OK : COMPRESS_BAD;
}

/* One part, or all of them copied into one; the copy is *ret_copy. */
static const void *gather(const struct iovec *parts, uint32_t part_count, size_t len,
                          void **ret_copy)
{
    if (part_count == 1)
        return parts[0].iov_base;
    char *copy = malloc(len);
    *ret_copy = copy;
    for (uint32_t i = 0; copy && i < part_count; i++) {
        if (parts[i].iov_len > 0)
            memcpy(copy, parts[i].iov_base, parts[i].iov_len);
        copy += parts[i].iov_len;
    }
    return *ret_copy;
}

enum compress_result compress_deflate(enum compress_format format, enum compress_level level,
                                      const struct iovec *parts, uint32_t part_count,
                                      void **ret_out, size_t *ret_bytes)
{
    static const int levels[] = { [COMPRESS_LOW] = 1, [COMPRESS_MEDIUM] = 3, [COMPRESS_HIGH] = 6 };
    assert(level != COMPRESS_NONE && format != COMPRESS_IDENTITY);
    size_t len = 0, bytes = 0;
    for (uint32_t i = 0; i < part_count; i++)
        len += parts[i].iov_len;
    if (len <= GZIP_BYTES_MIN)
        return COMPRESS_BAD;
    void *copy = NULL;
    const void *data = gather(parts, part_count, len, &copy);
    void *out = malloc(len - 1); /* what does not fit is not wanted */
    struct libdeflate_compressor *c = libdeflate_alloc_compressor(levels[level]);
    bool has_memory = data && out && c;
    if (has_memory)
        bytes = format == COMPRESS_GZIP ? libdeflate_gzip_compress(c, data, len, out, len - 1)
                                        : libdeflate_zlib_compress(c, data, len, out, len - 1);
    libdeflate_free_compressor(c);
    free(copy);
    if (bytes == 0) {
        free(out);
        return has_memory ? COMPRESS_BAD : COMPRESS_NO_MEMORY;
    }
    /* The rest is given back; when that fails it is kept. */
    void *shrunk = realloc(out, bytes);
    *ret_out = shrunk ? shrunk : out;
    *ret_bytes = bytes;
    return COMPRESS_OK;
}
