#include <math.h>
#include <stdint.h>
#include <string.h>
#include <yyjson.h>

#include "proto/json.h"
#include "proto/message.h"

/* ---- numbers ----
 * yyjson has the fast shortest-digits writer but no call for bare numbers. So numbers are laid out as
 * the values of a document, which is then written with an allocator that hands out memory of ours:
 * a lone number straight into the room behind the text, arrays by chunks through the stack (two
 * thirds of the time). */

enum {
    NUMBER_BYTES_MAX = 48, /* what yyjson asks for a lone number, with some to spare */
    CHUNK_NUMBERS = 256,
    CHUNK_BYTES = CHUNK_NUMBERS * NUMBER_BYTES_MAX, /* yyjson's estimate, grown twice */
};

struct room {
    char *memory;
    size_t bytes;
};

static void *room_alloc(void *ctx, size_t bytes)
{
    const struct room *room = ctx;
    return bytes <= room->bytes ? room->memory : NULL;
}

static void *room_realloc(void *ctx, void *old, size_t old_bytes, size_t bytes)
{
    const struct room *room = ctx;
    (void)old_bytes;
    return bytes <= room->bytes ? old : NULL;
}

static void room_free(void *ctx, void *memory)
{
    (void)ctx;
    (void)memory;
}

/* Writes the value to the room's memory; returns the length, 0 when it does not fit. */
static size_t write_value(struct room *room, const yyjson_val *value)
{
    yyjson_alc allocator = { room_alloc, room_realloc, room_free, room };
    size_t len = 0;
    yyjson_val_write_opts(value, YYJSON_WRITE_ALLOW_INF_AND_NAN, &allocator, &len, NULL);
    return len;
}

static void append_number(struct bytes *b, const yyjson_val *value)
{
    struct room room = { bytes_reserve(b, NUMBER_BYTES_MAX), NUMBER_BYTES_MAX };
    if (!room.memory)
        return;
    b->len += write_value(&room, value);
    b->data[b->len] = '\0';
}

void json_append_float(struct bytes *b, float value)
{
    yyjson_val v = { 0 };
    unsafe_yyjson_set_float(&v, value);
    append_number(b, &v);
}

void json_append_double(struct bytes *b, double value)
{
    yyjson_val v = { 0 };
    unsafe_yyjson_set_double(&v, value);
    append_number(b, &v);
}

/* values[1..count] are set; values[0] becomes the array around them. Appends without the brackets. */
static void append_chunk(struct bytes *b, yyjson_val *values, size_t count)
{
    _Alignas(16) char memory[CHUNK_BYTES];
    struct room room = { memory, sizeof(memory) };

    unsafe_yyjson_set_tag(&values[0], YYJSON_TYPE_ARR, YYJSON_SUBTYPE_NONE, count);
    values[0].uni.ofs = (count + 1) * sizeof(*values);
    size_t len = write_value(&room, values);
    if (len < 2)
        b->failed = true;
    else
        bytes_append(b, memory + 1, len - 2);
}

void json_append_floats(struct bytes *b, const void *values, size_t count)
{
    yyjson_val chunk[1 + CHUNK_NUMBERS];
    const char *from = values;

    for (size_t done = 0; done < count && !b->failed;) {
        size_t n = count - done < CHUNK_NUMBERS ? count - done : CHUNK_NUMBERS;
        for (size_t i = 0; i < n; i++) {
            float value;
            memcpy(&value, from + (done + i) * sizeof(value), sizeof(value));
            unsafe_yyjson_set_float(&chunk[1 + i], value);
        }
        if (done)
            bytes_append_char(b, ',');
        append_chunk(b, chunk, n);
        done += n;
    }
}

void json_append_doubles(struct bytes *b, const void *values, size_t count)
{
    yyjson_val chunk[1 + CHUNK_NUMBERS];
    const char *from = values;

    for (size_t done = 0; done < count && !b->failed;) {
        size_t n = count - done < CHUNK_NUMBERS ? count - done : CHUNK_NUMBERS;
        for (size_t i = 0; i < n; i++) {
            double value;
            memcpy(&value, from + (done + i) * sizeof(value), sizeof(value));
            unsafe_yyjson_set_double(&chunk[1 + i], value);
        }
        if (done)
            bytes_append_char(b, ',');
        append_chunk(b, chunk, n);
        done += n;
    }
}

/* ---- strings ---- */

#define EACH_BYTE(x) (UINT64_C(0x0101010101010101) * (x))

/* Has any of the eight bytes to be looked at: below 0x20, above 0x7f, '"' or '\'? (The tests may
 * only err towards "yes".) */
static bool word_is_special(uint64_t w)
{
    uint64_t quote = w ^ EACH_BYTE('"');
    uint64_t backslash = w ^ EACH_BYTE('\\');
    uint64_t found =
        (w - EACH_BYTE(0x20)) | (quote - EACH_BYTE(1)) | (backslash - EACH_BYTE(1)) | w;
    return found & EACH_BYTE(0x80);
}

static size_t plain_prefix(const char *s, size_t len)
{
    size_t i = 0;
    for (; len - i >= 8; i += 8) {
        uint64_t w;
        memcpy(&w, s + i, 8);
        if (word_is_special(w))
            break;
    }
    for (; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c < 0x20 || c >= 0x80 || c == '"' || c == '\\')
            break;
    }
    return i;
}

static void append_escape(struct bytes *b, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    static const char letters[0x20] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r',
    };

    if (c >= 0x20)
        bytes_append(b, (char[]){ '\\', (char)c }, 2);
    else if (letters[c])
        bytes_append(b, (char[]){ '\\', letters[c] }, 2);
    else
        bytes_append(b, (char[]){ '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] }, 6);
}

void json_append_string(struct bytes *b, const char *s, size_t len)
{
    bytes_append_char(b, '"');
    while (len) {
        size_t n = plain_prefix(s, len);
        bytes_append(b, s, n);
        s += n;
        len -= n;
        if (!len)
            break;
        unsigned char c = (unsigned char)*s;
        n = 1;
        if (c < 0x80) {
            append_escape(b, c);
        } else if ((n = utf8_sequence(s, len)) != 0) {
            bytes_append(b, s, n);
        } else {
            bytes_append(b, "\xef\xbf\xbd", 3);
            n = 1;
        }
        s += n;
        len -= n;
    }
    bytes_append_char(b, '"');
}

static void append_cstring(struct bytes *b, const char *s)
{
    json_append_string(b, s ? s : "", s ? strlen(s) : 0);
}

/* ---- messages ---- */

static void append_enum(struct bytes *b, const ProtobufCFieldDescriptor *f, int number)
{
    const char *name = enum_name(f->descriptor, number);
    if (name)
        append_cstring(b, name);
    else
        bytes_append_i64(b, number);
}

/* In messages the values that JSON has no number for are strings, as in protobuf's own JSON: a
 * configuration is read by strict parsers. */
static void append_real(struct bytes *b, double value, bool single)
{
    bool bare = isfinite(value);
    if (!bare)
        bytes_append_char(b, '"');
    if (single)
        json_append_float(b, (float)value);
    else
        json_append_double(b, value);
    if (!bare)
        bytes_append_char(b, '"');
}

static void append_value(struct bytes *b, const ProtobufCFieldDescriptor *f, const void *at)
{
    if (field_append_integer(b, f, at))
        return;
    switch (f->type) {
    case PROTOBUF_C_TYPE_FLOAT:
        append_real(b, (double)*(const float *)at, true);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        append_real(b, *(const double *)at, false);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        append_enum(b, f, *(const int *)at);
        break;
    case PROTOBUF_C_TYPE_STRING:
        append_cstring(b, *(char *const *)at);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        json_append_message(b, *(ProtobufCMessage *const *)at);
        break;
    default: /* bytes: no message of ours has any */
        b->failed = true;
    }
}

static void append_map_key(struct bytes *b, const ProtobufCMessage *entry)
{
    const ProtobufCFieldDescriptor *key = &entry->descriptor->fields[0];
    if (key->type == PROTOBUF_C_TYPE_STRING) {
        append_value(b, key, field_at(entry, key));
        return;
    }
    bytes_append_char(b, '"');
    append_value(b, key, field_at(entry, key));
    bytes_append_char(b, '"');
}

static void append_repeated(struct bytes *b, const ProtobufCMessage *m,
                            const ProtobufCFieldDescriptor *f)
{
    bool map = field_is_map(f);
    size_t count = field_count(m, f);
    const char *values = *(const char *const *)field_at(m, f);

    bytes_append_char(b, map ? '{' : '[');
    for (size_t i = 0; i < count; i++) {
        const void *at = values + i * field_value_bytes(f);
        if (i)
            bytes_append_char(b, ',');
        if (map) {
            const ProtobufCMessage *entry = *(ProtobufCMessage *const *)at;
            const ProtobufCFieldDescriptor *value = &entry->descriptor->fields[1];
            append_map_key(b, entry);
            bytes_append_char(b, ':');
            append_value(b, value, field_at(entry, value));
        } else {
            append_value(b, f, at);
        }
    }
    bytes_append_char(b, map ? '}' : ']');
}

static bool is_absent(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
    bool has_presence = f->type == PROTOBUF_C_TYPE_MESSAGE ||
                        f->label == PROTOBUF_C_LABEL_OPTIONAL ||
                        (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF);
    return f->label != PROTOBUF_C_LABEL_REPEATED && has_presence && !field_is_set(m, f);
}

void json_append_message(struct bytes *b, const ProtobufCMessage *m)
{
    bool first = true;

    bytes_append_char(b, '{');
    for (unsigned i = 0; m && i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        if (is_absent(m, f))
            continue;
        if (!first)
            bytes_append_char(b, ',');
        first = false;
        append_cstring(b, f->name);
        bytes_append_char(b, ':');
        if (f->label == PROTOBUF_C_LABEL_REPEATED)
            append_repeated(b, m, f);
        else
            append_value(b, f, field_at(m, f));
    }
    bytes_append_char(b, '}');
}
