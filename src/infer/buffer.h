/* infer/buffer.h - a reference-counted piece of memory that holds tensor data.
 *
 * A request's body, a reply's tensor and a shared-memory region are all buffers, so that one can
 * be lent to another (a reply's tensor becomes the next model's input) without a copy. The kind
 * says where the bytes live; only code in device/ may touch bytes that are not CPU memory.
 *
 * Ownership: buffer_create() and buffer_wrap() give one reference; the last buffer_unref() calls
 * the release callback, on whatever thread that happens to be.
 * Threads:   the count is atomic; the bytes belong to whoever fills them until they are shared.
 */
#ifndef TIS_INFER_BUFFER_H
#define TIS_INFER_BUFFER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "tis/backend.h"

enum {
    BUFFER_ALIGNMENT = 64
};

/* What a plug-in is told about a piece of memory. */
struct tis_buffer_attributes {
    TRITONSERVER_MemoryType memory_type;
    int64_t memory_id;
    size_t bytes;
    void *cuda_ipc_handle;
};

struct buffer {
    /* set at creation, then constant */
    void *base;
    size_t capacity; /* bytes at base */
    TRITONSERVER_MemoryType memory_type;
    int64_t memory_id;
    void (*release)(struct buffer *b);
    void *owner; /* for release */
    /* atomic */
    _Atomic uint32_t refs;
};

/* CPU memory of at least `bytes`, base + offset aligned to BUFFER_ALIGNMENT (offset < 64 KiB; a
 * body whose first tensor starts at `offset` gets that tensor aligned). Large memory is recycled,
 * its content undefined. NULL when out of memory. */
MUST_USE struct buffer *buffer_create(size_t bytes, size_t offset);

struct buffer *buffer_ref(struct buffer *b);
/* NULL is accepted. */
void buffer_unref(struct buffer *b);

#endif
