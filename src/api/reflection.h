/* api/reflection.h - gRPC's server reflection: which services there are, and the message files that
 * describe them.
 *
 * A function from one request message to one response message, the same bytes for v1 and v1alpha. It
 * walks the descriptors that proto/meson.build embeds and keeps no state.
 *
 * Threads: any.
 */
#ifndef TIS_API_REFLECTION_H
#define TIS_API_REFLECTION_H

#include <stddef.h>

#include "base/bytes.h"
#include "base/error.h"

/* Appends the ServerReflectionResponse to a ServerReflectionRequest; what is not found is an error
 * inside the response. Check out->failed. Errors: INVALID_ARG, the bytes are no such request. */
MUST_USE tis_error *reflection_answer(const char *message, size_t len, struct bytes *out);

#endif
