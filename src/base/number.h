/* base/number.h - strict decimal numbers: the whole text, no blanks, no overflow. */
#ifndef TIS_BASE_NUMBER_H
#define TIS_BASE_NUMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"

/* Digits only, len > 0. */
MUST_USE bool number_parse_u64(const char *s, size_t len, uint64_t *ret_value);
/* The same with an optional leading '-'. */
MUST_USE bool number_parse_i64(const char *s, size_t len, int64_t *ret_value);
/* The digit's value, or -1. */
int number_hex_digit(char c);

#endif
