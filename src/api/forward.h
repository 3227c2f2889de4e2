/* api/forward.h - headers of a request that its model sees, as string parameters.
 *
 * The operator's pattern says which: a regular expression that the name of a header holds a match
 * of, without regard to case unless it begins with (?-i). Triton takes RE2's expressions, we take
 * PCRE2's, of which those are nearly all a part; its steps are bounded, so that no name can hold up a
 * loop.
 *
 * Threads: any; constant after creation.
 */
#ifndef TIS_API_FORWARD_H
#define TIS_API_FORWARD_H

#include <stdint.h>

#include "base/error.h"
#include "http/header.h"
#include "infer/request.h"

struct forward;

/* NULL for the pattern "" or NULL: nothing is forwarded. Errors: INVALID_ARG with flag, pattern and the
 * place in it. */
MUST_USE tis_error *forward_create(const char *flag, const char *pattern,
                                   struct forward **ret_forward);
void forward_destroy(struct forward *f);

/* Appends the matching headers to the parameters of req, names as sent. f may be NULL. A value that is
 * no text, which no string parameter can hold, is left out.
 *   is_grpc  names that end in -bin have values in base64, which are decoded
 * Errors: INVALID_ARG when a name is one of the protocol's own parameters, as in Triton, or too hard
 * to compare. */
MUST_USE tis_error *forward_headers(const struct forward *f, const struct http_header *headers,
                                    uint32_t header_count, bool is_grpc, struct tis_request *req);

#endif
