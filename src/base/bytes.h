/* base/bytes.h - a growing byte string.
 *
 * Appending never fails at the call: running out of memory or over bytes_max sets `failed`, later
 * appends do nothing, and the caller asks once at the end. The text is always NUL-terminated (the
 * NUL is not counted).
 *
 * Threads: one at a time.
 */
#ifndef TIS_BASE_BYTES_H
#define TIS_BASE_BYTES_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "base/attr.h"

struct bytes {
    char *data; /* NULL until the first append */
    size_t len;
    size_t capacity;
    size_t len_max; /* 0: no limit */
    bool failed;
};

/* A zeroed struct is an empty string without a limit. */
void bytes_fini(struct bytes *b);
/* Empties it and keeps the memory. */
void bytes_clear(struct bytes *b);
/* Room for `more` bytes behind the text; NULL when failed. */
char *bytes_reserve(struct bytes *b, size_t more);

/* The general case of bytes_append(): grows, or fails. */
void bytes_append_slow(struct bytes *b, const void *data, size_t len);

/* Inline: replies are put together from many short pieces. After a failure pieces that fit may still
 * be appended; `failed` stays set. */
static inline void bytes_append(struct bytes *b, const void *data, size_t len)
{
    if (UNLIKELY(len >= b->capacity - b->len || b->len_max)) {
        bytes_append_slow(b, data, len);
        return;
    }
    if (len > 0)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = '\0';
}

static inline void bytes_append_str(struct bytes *b, const char *s)
{
    bytes_append(b, s, strlen(s));
}

static inline void bytes_append_char(struct bytes *b, char c)
{
    bytes_append(b, &c, 1);
}

void bytes_append_u64(struct bytes *b, unsigned long long value);
void bytes_append_i64(struct bytes *b, long long value);
void bytes_printf(struct bytes *b, const char *fmt, ...) PRINTF(2, 3);
void bytes_vprintf(struct bytes *b, const char *fmt, va_list args);
/* "" instead of NULL for an empty one. */
const char *bytes_str(const struct bytes *b);
/* The memory becomes the caller's (free()); NULL when failed. b is empty afterwards. */
MUST_USE char *bytes_steal(struct bytes *b);

#endif
