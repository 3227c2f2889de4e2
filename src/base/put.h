/* base/put.h - text written where there is room for it: each function returns the end. */
#ifndef TIS_BASE_PUT_H
#define TIS_BASE_PUT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline char *put(char *at, const void *data, size_t len)
{
    memcpy(at, data, len);
    return at + len;
}

/* Up to 20 digits. */
static inline char *put_u64(char *at, uint64_t value)
{
    char digits[20];
    size_t n = sizeof(digits);
    do {
        digits[--n] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    return put(at, digits + n, sizeof(digits) - n);
}

#endif
