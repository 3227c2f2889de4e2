/* grpc/compress.h - gzip and deflate of whole messages.
 *
 * "deflate" of gRPC is the zlib format. What comes from a client is not trusted: its length when
 * decompressed is found first, without memory for it, so that the caller can refuse it, have it
 * counted, and hand in memory of exactly that length.
 *
 * Threads: any; nothing here keeps state.
 */
#ifndef TIS_GRPC_COMPRESS_H
#define TIS_GRPC_COMPRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/attr.h"

enum compress_format {
    COMPRESS_IDENTITY,
    COMPRESS_DEFLATE,
    COMPRESS_GZIP,
    COMPRESS_UNKNOWN,
};

enum compress_level {
    COMPRESS_NONE,
    COMPRESS_LOW,
    COMPRESS_MEDIUM,
    COMPRESS_HIGH,
};

enum compress_result {
    COMPRESS_OK,
    COMPRESS_BAD,   /* not what it says it is */
    COMPRESS_LARGE, /* more than is allowed */
    COMPRESS_NO_MEMORY,
};

#define COMPRESS_ACCEPTED "identity, deflate, gzip"

/* Of grpc-encoding. */
enum compress_format compress_format_of(const char *name, size_t len);
/* "none", "low", "medium", "high"; false for other texts. */
bool compress_level_of(const char *text, enum compress_level *ret_level);
const char *compress_name(enum compress_format format);
/* Of grpc-accept-encoding: a bit for each format in the list; names that we do not know are skipped. */
unsigned compress_formats_in(const char *list, size_t len);
/* What grpc-core takes for a level, out of those accepted: gzip stands for fast, deflate for small. */
enum compress_format compress_choose(enum compress_level level, unsigned accepted);

/* How many bytes data holds, at most `max`. gzip says it at its end, and is believed as far as deflate
 * can shrink at all; of deflate it is found by decompressing to nowhere. */
MUST_USE enum compress_result compress_measure(enum compress_format format, const void *data,
                                               size_t len, size_t max, size_t *ret_bytes);
/* Decompresses what compress_measure() has measured. */
MUST_USE enum compress_result compress_inflate(enum compress_format format, const void *data,
                                               size_t len, void *out, size_t bytes);
/* Into malloc'ed memory. BAD: it would not become smaller, and *ret_out is untouched. */
MUST_USE enum compress_result compress_deflate(enum compress_format format,
                                               enum compress_level level, const struct iovec *parts,
                                               uint32_t part_count, void **ret_out,
                                               size_t *ret_bytes);

#endif
