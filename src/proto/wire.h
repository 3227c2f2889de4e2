/* proto/wire.h - walking and writing protobuf's wire form by hand.
 *
 * For messages that carry tensors: protobuf-c copies every bytes field, a walk points at it. Only
 * what these messages need; unknown fields are for the caller to skip, which is doing nothing.
 *
 * Threads: any; the state is the caller's.
 */
#ifndef TIS_PROTO_WIRE_H
#define TIS_PROTO_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/arena.h"
#include "base/attr.h"
#include "base/bytes.h"
#include "base/error.h"

enum wire_type {
    WIRE_VARINT = 0,
    WIRE_FIXED64 = 1,
    WIRE_BYTES = 2,
    WIRE_FIXED32 = 5,
};

struct wire {
    const char *at;
    const char *end;
    bool is_bad; /* the bytes are no message; set by wire_next() and wire_varint() */
};

struct wire_field {
    uint32_t number;
    enum wire_type type;
    uint64_t value;   /* WIRE_VARINT */
    const char *data; /* the others: the value's bytes, not terminated */
    size_t len;
};

static inline struct wire wire_open(const char *data, size_t len)
{
    const char *at = len > 0 ? data : ""; /* of nothing, data may be NULL */
    return (struct wire){ .at = at, .end = at + len };
}

/* A number at w->at; false at the end, or when the bytes are none. */
bool wire_varint(struct wire *w, uint64_t *ret_value);
/* The next field; false at the end and when w->is_bad. Groups are bad. */
bool wire_next(struct wire *w, struct wire_field *ret_field);

enum {
    WIRE_VARINT_BYTES_MAX = 10
};

/* INVALID_ARG: the bytes are not the message that they should be. */
MUST_USE NEVER_NULL tis_error *wire_error(void);
/* A string field as a C string; `what` names it in texts. Errors: INVALID_ARG for another type, for
 * what is no UTF-8 (other implementations refuse it, also in our answers) and for a NUL; UNAVAILABLE. */
MUST_USE tis_error *wire_get_text(const struct wire_field *f, const char *what, struct arena *a,
                                  const char **ret_text);
/* A number. Errors: INVALID_ARG for another type. */
MUST_USE tis_error *wire_get_number(const struct wire_field *f, uint64_t *ret_value);

size_t wire_varint_bytes(uint64_t value);
/* Writes up to WIRE_VARINT_BYTES_MAX bytes; returns where they end. */
char *wire_put_varint(char *at, uint64_t value);
void wire_append_varint(struct bytes *out, uint64_t value);
void wire_append_tag(struct bytes *out, uint32_t number, enum wire_type type);
/* Tag and length; the bytes follow. */
void wire_append_head(struct bytes *out, uint32_t number, uint64_t len);
void wire_append_bytes(struct bytes *out, uint32_t number, const void *data, size_t len);
/* Bytes that wire_append_bytes() takes, for a field number below 16. */
static inline size_t wire_bytes_bytes(size_t len)
{
    return 1 + wire_varint_bytes(len) + len;
}

#endif
