/* grpc/memory.h - where the nghttp2 sessions of a loop take their memory from.
 *
 * nghttp2 allocates about eight small blocks for a call and frees them at its end. Blocks that were
 * freed wait in lists by size, so that a call costs neither malloc nor its locks.
 *
 * Threads: the loop's.
 */
#ifndef TIS_GRPC_MEMORY_H
#define TIS_GRPC_MEMORY_H

#include <nghttp2/nghttp2.h>

enum {
    MEMORY_STEP_BYTES = 32,          /* sizes are rounded up to a multiple of it */
    MEMORY_CLASS_COUNT = 32,         /* blocks of up to 1 KiB are kept */
    MEMORY_KEPT_BYTES_MAX = 1 << 20, /* what waits in the lists; more goes back to malloc */
};

struct memory_block;

struct memory {
    nghttp2_mem functions; /* for nghttp2; valid as long as the memory */
    struct memory_block *free[MEMORY_CLASS_COUNT];
    size_t kept_bytes;
};

/* m must not move afterwards. */
void memory_init(struct memory *m);
/* Every block has been freed. */
void memory_fini(struct memory *m);

#endif
