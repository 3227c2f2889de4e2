/* proto/message.h - what the text and JSON codecs need to build and walk protobuf-c messages.
 *
 * Messages live in an arena: every string, array and sub-message of a message made here comes from
 * one arena and goes with it; protobuf_c_message_free_unpacked() is never called on them.
 * The exception to "proto3 strings are any text": protobuf-c keeps strings NUL-terminated, so a
 * string with an embedded NUL cannot be held and is refused by the readers.
 *
 * Threads: a message belongs to one thread until it is published, then it is read only.
 */
#ifndef TIS_PROTO_MESSAGE_H
#define TIS_PROTO_MESSAGE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/attr.h"
#include "base/bytes.h"

/* An allocator for protobuf_c_message_unpack(): allocates from the arena, frees nothing. */
ProtobufCAllocator message_allocator(struct arena *a);

/* A message with every field at its default; NULL when the arena is exhausted. */
MUST_USE ProtobufCMessage *message_create(const ProtobufCMessageDescriptor *desc, struct arena *a);

/* A deep copy, through the wire form; the other descriptor may be that of another version of the
 * message: fields it does not know are dropped. NULL when memory is exhausted or the bytes do not
 * fit the other descriptor. */
MUST_USE ProtobufCMessage *message_convert(const ProtobufCMessage *from,
                                           const ProtobufCMessageDescriptor *desc, struct arena *a);

/* Appends the message in its wire form. Check out->failed. */
void message_append(struct bytes *out, const ProtobufCMessage *m);

/* ---- fields ---- */

/* Is the field the repeated entry message that a map is on the wire? protobuf-c's descriptors do
 * not say so; it is recognised by the entry's generated name and its two fields. */
bool field_is_map(const ProtobufCFieldDescriptor *f);

/* Bytes of one value of the field inside a message or array. */
size_t field_value_bytes(const ProtobufCFieldDescriptor *f);

/* Address of a singular field's value, or of a repeated field's pointer to values. */
void *field_at(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f);

/* Number of values of a repeated field. */
size_t field_count(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f);

/* Is a singular field set? For a field without presence: is it different from its default? */
bool field_is_set(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f);

/* The other member of f's oneof that is set; NULL when none, or f itself, is. */
const ProtobufCFieldDescriptor *field_oneof_conflict(const ProtobufCMessage *m,
                                                     const ProtobufCFieldDescriptor *f);

/* Room for one more value of a repeated field, or the place of a singular field's value, which is
 * marked as set; zeroed (strings: empty). NULL when the arena is exhausted. Repeated fields must have
 * been filled by this function or be empty (protobuf-c's own arrays have no spare room). */
MUST_USE void *field_add(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, struct arena *a);

/* Makes the maps of m (not those below it) what a map is: entries ordered by key, of equal keys only
 * the last one, no entry without a value message. false when the arena is exhausted. */
MUST_USE bool message_settle_maps(ProtobufCMessage *m, struct arena *a);

/* Orders two entries of one map by key: numbers by value, strings by bytes. */
int map_entry_compare(const ProtobufCMessage *a, const ProtobufCMessage *b);

/* Appends an integer or boolean value, which both formats write alike; false for other types. */
bool field_append_integer(struct bytes *b, const ProtobufCFieldDescriptor *f, const void *at);

/* ---- names ---- */

/* "did you mean" helper: keeps the best of the candidates offered, by edit distance. */
struct nearest {
    const char *wanted;
    size_t wanted_len;
    const char *best;
    unsigned best_distance;
};
void nearest_init(struct nearest *n, const char *wanted, size_t len);
void nearest_offer(struct nearest *n, const char *candidate);
/* NULL when nothing offered was near enough to be what was meant. */
const char *nearest_found(const struct nearest *n);

/* The field with this name (not NUL-terminated). */
const ProtobufCFieldDescriptor *message_field(const ProtobufCMessageDescriptor *desc,
                                              const char *name, size_t len);
const ProtobufCEnumValue *enum_value_by_name(const ProtobufCEnumDescriptor *desc, const char *name,
                                             size_t len);
/* NULL when the number has no name. */
const char *enum_name(const ProtobufCEnumDescriptor *desc, int number);

/* Length of the valid UTF-8 sequence at s (1 to 4), 0 when there is none. */
size_t utf8_sequence(const char *s, size_t len);
/* Valid UTF-8 throughout. */
bool utf8_is_valid(const char *s, size_t len);

#endif
