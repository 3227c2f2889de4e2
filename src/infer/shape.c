#include "infer/shape.h"

bool shape_count(const int64_t *shape, uint32_t rank, uint64_t *ret_count)
{
    uint64_t count = 1;
    for (uint32_t i = 0; i < rank; i++) {
        if (shape[i] < 0 || __builtin_mul_overflow(count, (uint64_t)shape[i], &count))
            return false;
    }
    *ret_count = count;
    return true;
}

bool shape_bytes(const int64_t *shape, uint32_t rank, uint32_t element_bytes, uint64_t *ret_bytes)
{
    uint64_t bytes;
    if (!shape_count(shape, rank, &bytes) || __builtin_mul_overflow(bytes, element_bytes, &bytes))
        return false;
    *ret_bytes = bytes;
    return true;
}

bool shape_matches(const int64_t *pattern, uint32_t pattern_rank, const int64_t *shape,
                   uint32_t rank)
{
    if (pattern_rank != rank)
        return false;
    for (uint32_t i = 0; i < rank; i++) {
        if (pattern[i] != -1 && pattern[i] != shape[i])
            return false;
    }
    return true;
}

void shape_convert(const int64_t *from, uint32_t from_rank, const int64_t *to, uint32_t to_rank,
                   const int64_t *shape, int64_t *ret_shape)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < to_rank; i++) {
        ret_shape[i] = to[i];
        if (to[i] != -1)
            continue;
        while (at < from_rank && from[at] != -1)
            at++;
        ret_shape[i] = at < from_rank ? shape[at++] : 1;
    }
}

bool shape_is_fixed(const int64_t *shape, uint32_t rank)
{
    for (uint32_t i = 0; i < rank; i++) {
        if (shape[i] < 0)
            return false;
    }
    return true;
}

void shape_append(struct bytes *out, const int64_t *shape, uint32_t rank)
{
    bytes_append_char(out, '[');
    for (uint32_t i = 0; i < rank; i++) {
        if (i > 0)
            bytes_append_char(out, ',');
        bytes_append_i64(out, shape[i]);
    }
    bytes_append_char(out, ']');
}
