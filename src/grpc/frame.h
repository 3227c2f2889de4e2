/* grpc/frame.h - the small texts and numbers that gRPC puts into HTTP/2.
 *
 * Threads: any; nothing here keeps state.
 */
#ifndef TIS_GRPC_FRAME_H
#define TIS_GRPC_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"

enum {
    FRAME_PREFIX_BYTES = 5,      /* of a message: compressed flag, big-endian length */
    FRAME_TEXT_BYTES_MAX = 2048, /* of grpc-message, before encoding: it must fit a header block */
};

/* "<digits><unit>", at most eight digits; units H M S m u n. False when it is none. */
MUST_USE bool frame_parse_timeout(const char *text, size_t len, uint64_t *ret_ns);

/* Is it "application/grpc", with "+proto" or parameters behind it or not? Other codings than
 * protobuf are not ours to read. */
bool frame_is_grpc_type(const char *text, size_t len);

/* Percent-encodes the text of an error for grpc-message into out, which has room for
 * 3 * FRAME_TEXT_BYTES_MAX; a longer text is cut at a character. Returns the encoded length. */
size_t frame_encode_text(const char *text, char *out);

void frame_put_prefix(uint8_t prefix[FRAME_PREFIX_BYTES], uint32_t bytes);
uint32_t frame_prefix_bytes(const uint8_t prefix[FRAME_PREFIX_BYTES]);

#endif
