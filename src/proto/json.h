/* proto/json.h - JSON: messages out and in, and the pieces from which the HTTP API writes replies.
 *
 * Messages are written the way backends and the v2 config endpoint want them (protocols/backend-abi
 * 14): original field names, every scalar also at its default, empty arrays and maps, unset messages
 * absent, 64-bit integers as numbers, enums by name, maps as objects in the order the message holds
 * them, "NaN" and "Infinity" in quotes.
 * Read is that and what protobuf's own JSON allows: 64-bit integers in strings, enums by number,
 * lowerCamelCase names, null for "not given". Fields of type bytes are not supported (no message of
 * ours has one).
 *
 * Requests are not read here but with yyjson directly, in api/.
 *
 * Threads: any; no state outside the arguments.
 */
#ifndef TIS_PROTO_JSON_H
#define TIS_PROTO_JSON_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/attr.h"
#include "base/bytes.h"
#include "base/error.h"

/* Appends the message on one line, without blanks. Check b->failed at the end. */
void json_append_message(struct bytes *b, const ProtobufCMessage *m);

/* Reads text[0..len), one JSON object, as a message; strings, arrays and sub-messages live in the
 * arena. The text is not kept.
 * Errors: INVALID_ARG  not JSON (with the byte's position); an unknown key, a value of the wrong
 *                      kind, out of range or given twice, each with its path: "input[0].dims[1]"
 *         UNAVAILABLE  memory or the arena is exhausted */
MUST_USE tis_error *json_parse_message(const ProtobufCMessageDescriptor *desc, const char *text,
                                       size_t len, struct arena *a, ProtobufCMessage **ret_message);

/* Appends s in quotes, escaped. Bytes that are not valid UTF-8 become U+FFFD. */
void json_append_string(struct bytes *b, const char *s, size_t len);

/* Appends the shortest digits that read back as the same float32 or float64. Whole numbers keep
 * their ".0"; NaN, Infinity and -Infinity go bare, as Triton writes them. */
void json_append_float(struct bytes *b, float value);
void json_append_double(struct bytes *b, double value);

/* The same for count numbers with commas between them, without brackets; for tensors. Any
 * alignment. */
void json_append_floats(struct bytes *b, const void *values, size_t count);
void json_append_doubles(struct bytes *b, const void *values, size_t count);

#endif
