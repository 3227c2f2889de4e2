/* proto/text.h - the protobuf text format: config.pbtxt, the NV-* headers, status as text.
 *
 * Reader and writer walk protobuf-c's generated descriptors, so that every message the server knows
 * can be read and written. The reader accepts what protobuf's own C++ parser accepts (comments,
 * both kinds of quotes, adjacent strings, <> and {}, lists, ',' and ';', enum numbers, maps), except
 * extensions and expanded Any, strings with embedded NUL or invalid UTF-8, and nesting deeper than
 * depth_max. The writer's bytes are those of DebugString() and ShortDebugString().
 *
 * It knows no meaning: whether the values of a configuration make sense is checked in config/.
 *
 * Ownership: the message and all it holds live in the caller's arena, whose limit bounds what a
 * text can make the server hold; on error the arena may hold rubbish until it is finished.
 * Threads:   any; no state outside the arguments.
 */
#ifndef TIS_PROTO_TEXT_H
#define TIS_PROTO_TEXT_H

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "base/attr.h"
#include "base/bytes.h"
#include "base/error.h"

/* An older name of a field: `alias` is read as `field` inside messages called `message` (full name,
 * such as "inference.ModelConfig"). */
struct text_alias {
    const char *message;
    const char *alias;
    const char *field;
};

struct text_options {
    const char *file_name;            /* put before line and column; NULL: none */
    const struct text_alias *aliases; /* alias_count of them */
    uint32_t alias_count;
    uint32_t depth_max;  /* nesting of messages; 0: 64 */
    uint32_t errors_max; /* reading stops after so many; 0: 20 */
};

/* Reads text[0..len) as one message. options may be NULL.
 * Errors: INVALID_ARG  everything found wrong, in the order of the text, joined by "; ", each as
 *                      "<file>:<line>:<column>: <what>" (line and column from 1, columns in bytes)
 *         UNAVAILABLE  the arena is exhausted */
MUST_USE tis_error *text_parse(const ProtobufCMessageDescriptor *desc, const char *text, size_t len,
                               const struct text_options *options, struct arena *a,
                               ProtobufCMessage **ret_message);

enum text_form {
    TEXT_LINES,    /* DebugString: a field a line, two spaces of indent, newline at the end */
    TEXT_ONE_LINE, /* ShortDebugString: fields separated by one space, nothing at the end */
};

/* Appends the message: fields in the order of their numbers, those at their default left out, maps
 * ordered by key. Strings are escaped to ASCII. Check b->failed at the end. */
void text_append(struct bytes *b, const ProtobufCMessage *m, enum text_form form);

/* Appends one field of the message in the form TEXT_LINES; nothing when it is at its default. */
void text_append_field(struct bytes *b, const ProtobufCMessage *m,
                       const ProtobufCFieldDescriptor *f);

/* Appends the escaped form of a string, without quotes: \n \r \t \" \' \\ and three octal digits
 * for every other byte outside 0x20..0x7e. For one-line headers that are put together by hand. */
void text_append_escaped(struct bytes *b, const char *s, size_t len);

/* A number as the text format writes it: the fewest of 6 or 9 (float), 15 or 17 (double)
 * significant digits that read back as the same value; inf, -inf, nan. */
void text_append_float(struct bytes *b, float value);
void text_append_double(struct bytes *b, double value);

#endif
