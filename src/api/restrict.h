/* api/restrict.h - operations that only a client with the right header may call.
 *
 * Each row of routes.c and rpcs.c says which categories its operation belongs to; a category may be
 * restricted, for HTTP and for gRPC each, to requests that carry <key>: <value>. An operation of
 * several categories needs the headers of all that are restricted.
 *
 * Ownership: strings are lent by whoever adds them.
 * Threads:   written at start, then constant.
 */
#ifndef TIS_API_RESTRICT_H
#define TIS_API_RESTRICT_H

#include <stdint.h>

#include "base/error.h"
#include "http/header.h"

/* Triton's, in its order; bits. */
enum category {
    CATEGORY_HEALTH = 1 << 0,
    CATEGORY_METADATA = 1 << 1,
    CATEGORY_INFERENCE = 1 << 2,
    CATEGORY_SHARED_MEMORY = 1 << 3,
    CATEGORY_MODEL_CONFIG = 1 << 4,
    CATEGORY_MODEL_REPOSITORY = 1 << 5,
    CATEGORY_STATISTICS = 1 << 6,
    CATEGORY_TRACE = 1 << 7,
    CATEGORY_LOGGING = 1 << 8,
    CATEGORY_COUNT = 9,
    /* v1's status shows what v2 has three operations for. */
    CATEGORY_V1_STATUS = CATEGORY_METADATA | CATEGORY_MODEL_CONFIG | CATEGORY_STATISTICS,
};

/* A zeroed struct restricts nothing. */
struct restrictions {
    uint32_t restricted; /* categories */
    struct {
        const char *key;
        const char *value;
    } by[CATEGORY_COUNT]; /* bit number of the category */
};

/* Restricts categories as text says: "<category>[,<category>]...:<key>=<value>"; text is cut in
 * pieces. Errors: INVALID_ARG, a text to put behind the flag's name; it does not hold the value. */
MUST_USE tis_error *restrictions_add(struct restrictions *r, char *text);

/* How a protocol carries the key, and what it calls the operations. */
struct restriction_form {
    const char *noun;
    const char *prefix; /* of the header, before the key */
};
extern const struct restriction_form restriction_http;
extern const struct restriction_form restriction_grpc;

/* May a request with these headers call an operation of these categories? Errors: UNAVAILABLE with
 * the protocol's text. */
MUST_USE tis_error *restrictions_check(const struct restrictions *r,
                                       const struct restriction_form *form, uint32_t categories,
                                       const struct http_header *headers, uint32_t header_count);

#endif
