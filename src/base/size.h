/* base/size.h - sizes that come from outside are added and multiplied through these. */
#ifndef TIS_BASE_SIZE_H
#define TIS_BASE_SIZE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/attr.h"

/* *ret_product = a * b; false (and *ret_product untouched) on overflow. */
MUST_USE static inline bool mul_size(size_t a, size_t b, size_t *ret_product)
{
    size_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *ret_product = product;
    return true;
}

MUST_USE static inline bool add_size(size_t a, size_t b, size_t *ret_sum)
{
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *ret_sum = sum;
    return true;
}

#endif
