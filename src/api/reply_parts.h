/* api/reply_parts.h - a gRPC reply of a head and of tensors that stay where the backend left them.
 *
 * The head is written into a buffer, each tensor's tag and length behind it; between them the parts
 * of the reply point at the tensors. The parts are good as long as arena, buffer and tensors are.
 *
 * Threads: the caller's.
 */
#ifndef TIS_API_REPLY_PARTS_H
#define TIS_API_REPLY_PARTS_H

#include <stdint.h>
#include <sys/uio.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"

struct reply_parts {
    struct iovec *at;
    uint32_t count;
    uint64_t bytes; /* of all parts */
    /* reply_parts.c's */
    struct bytes *out;
    size_t begin; /* of what is in `out` and in no part yet */
};

/* Empties `out`; what the caller appends to it afterwards is the head. */
MUST_USE tis_error *reply_parts_init(struct reply_parts *p, struct bytes *out,
                                     uint32_t tensor_count_max, struct arena *a);
/* A field of type bytes that is not copied. */
void reply_parts_add(struct reply_parts *p, uint32_t field, void *data, size_t len);
/* at, count and bytes are complete. Errors: UNAVAILABLE; INVALID_ARG when the reply is longer than any
 * client takes. */
MUST_USE tis_error *reply_parts_finish(struct reply_parts *p);

#endif
