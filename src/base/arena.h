/* base/arena.h - memory that goes all at once.
 *
 * An arena hands out pieces that are never freed one by one; arena_fini() frees all of them. The
 * first block may be the caller's (a request embeds its own), so that a small request costs no
 * malloc at all. A limit bounds what one request, model or file can make the server hold.
 *
 * Threads: one at a time.
 */
#ifndef TIS_BASE_ARENA_H
#define TIS_BASE_ARENA_H

#include <stddef.h>

#include "base/attr.h"

struct arena_block;

struct arena {
    struct arena_block *blocks; /* malloc'ed ones, newest first */
    char *at;
    char *end;
    size_t bytes;     /* malloc'ed so far */
    size_t bytes_max; /* limit on that */
};

/* first may be NULL; it stays the caller's and must outlive the arena. */
void arena_init(struct arena *a, void *first, size_t first_bytes, size_t bytes_max);
void arena_fini(struct arena *a);

/* `bytes` zeroed (arena_calloc) or uninitialised bytes, aligned to 16. NULL when memory or the
 * limit is exhausted. */
MUST_USE void *arena_alloc(struct arena *a, size_t bytes);
MUST_USE void *arena_calloc(struct arena *a, size_t count, size_t bytes);
/* Copies len bytes and a NUL. */
MUST_USE char *arena_strndup(struct arena *a, const char *s, size_t len);
MUST_USE char *arena_strdup(struct arena *a, const char *s);
MUST_USE char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF(2, 3);

#endif
