#include "base/bytes.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/put.h"
#include "base/size.h"

void bytes_fini(struct bytes *b)
{
    free(b->data);
    *b = (struct bytes){ .len_max = b->len_max };
}

void bytes_clear(struct bytes *b)
{
    b->len = 0;
    b->failed = false;
    if (b->data)
        b->data[0] = '\0';
}

char *bytes_reserve(struct bytes *b, size_t more)
{
    size_t need;
    if (b->failed || !add_size(b->len, more, &need) || !add_size(need, 1, &need) ||
        (b->len_max && need - 1 > b->len_max)) {
        b->failed = true;
        return NULL;
    }
    if (need > b->capacity) {
        size_t capacity = b->capacity ? b->capacity : 64;
        while (capacity < need)
            capacity = capacity > SIZE_MAX / 2 ? need : capacity * 2;
        char *data = realloc(b->data, capacity);
        if (!data) {
            b->failed = true;
            return NULL;
        }
        b->data = data;
        b->capacity = capacity;
    }
    return b->data + b->len;
}

void bytes_append_slow(struct bytes *b, const void *data, size_t len)
{
    char *at = bytes_reserve(b, len);
    if (!at)
        return;
    if (len)
        memcpy(at, data, len);
    b->len += len;
    b->data[b->len] = '\0';
}

void bytes_append_u64(struct bytes *b, unsigned long long value)
{
    char digits[20];
    bytes_append(b, digits, (size_t)(put_u64(digits, value) - digits));
}

void bytes_append_i64(struct bytes *b, long long value)
{
    if (value < 0)
        bytes_append_char(b, '-');
    bytes_append_u64(b, value < 0 ? 0ULL - (unsigned long long)value : (unsigned long long)value);
}

void bytes_vprintf(struct bytes *b, const char *fmt, va_list args)
{
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    char *at = len < 0 ? NULL : bytes_reserve(b, (size_t)len);
    if (!at)
        return;
    vsnprintf(at, (size_t)len + 1, fmt, args);
    b->len += (size_t)len;
}

void bytes_printf(struct bytes *b, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    bytes_vprintf(b, fmt, args);
    va_end(args);
}

const char *bytes_str(const struct bytes *b)
{
    return b->data ? b->data : "";
}

char *bytes_steal(struct bytes *b)
{
    if (!b->failed && !b->data)
        bytes_append(b, "", 0);
    if (b->failed) {
        bytes_fini(b);
        return NULL;
    }
    char *data = b->data;
    *b = (struct bytes){ .len_max = b->len_max };
    return data;
}
