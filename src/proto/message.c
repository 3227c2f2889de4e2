#include "proto/message.h"

#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

static void *allocator_alloc(void *arena, size_t bytes)
{
    return arena_alloc(arena, bytes);
}

static void allocator_free(void *arena, void *memory)
{
    (void)arena;
    (void)memory;
}

ProtobufCAllocator message_allocator(struct arena *a)
{
    return (ProtobufCAllocator){
        .alloc = allocator_alloc,
        .free = allocator_free,
        .allocator_data = a,
    };
}

ProtobufCMessage *message_create(const ProtobufCMessageDescriptor *desc, struct arena *a)
{
    ProtobufCMessage *m = arena_alloc(a, desc->sizeof_message);
    if (m)
        protobuf_c_message_init(desc, m);
    return m;
}

/* Makes an unpacked message what the readers make: no unknown fields, maps settled. */
static bool tidy(ProtobufCMessage *m, struct arena *a)
{
    m->n_unknown_fields = 0;
    m->unknown_fields = NULL;
    if (!message_settle_maps(m, a))
        return false;
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        if (f->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        if (f->label != PROTOBUF_C_LABEL_REPEATED) {
            if (field_is_set(m, f) && !tidy(*(ProtobufCMessage **)field_at(m, f), a))
                return false;
            continue;
        }
        ProtobufCMessage **items = *(ProtobufCMessage ***)field_at(m, f);
        for (size_t k = 0; k < field_count(m, f); k++)
            if (!tidy(items[k], a))
                return false;
    }
    return true;
}

ProtobufCMessage *message_convert(const ProtobufCMessage *from,
                                  const ProtobufCMessageDescriptor *desc, struct arena *a)
{
    size_t len = protobuf_c_message_get_packed_size(from);
    uint8_t *wire = malloc(len ? len : 1);
    if (!wire)
        return NULL;
    protobuf_c_message_pack(from, wire);

    ProtobufCAllocator allocator = message_allocator(a);
    ProtobufCMessage *m = protobuf_c_message_unpack(desc, &allocator, len, wire);
    free(wire);
    return m && tidy(m, a) ? m : NULL;
}

void message_append(struct bytes *out, const ProtobufCMessage *m)
{
    char *at = bytes_reserve(out, protobuf_c_message_get_packed_size(m));
    if (at)
        out->len += protobuf_c_message_pack(m, (uint8_t *)at);
}

static bool name_is_entry_of(const char *entry, const char *field)
{
    bool upper = true;
    for (; *field; field++) {
        if (*field == '_') {
            upper = true;
            continue;
        }
        char c = upper ? (char)toupper((unsigned char)*field) : *field;
        upper = isdigit((unsigned char)*field);
        if (*entry++ != c)
            return false;
    }
    return strcmp(entry, "Entry") == 0;
}

bool field_is_map(const ProtobufCFieldDescriptor *f)
{
    if (f->type != PROTOBUF_C_TYPE_MESSAGE || f->label != PROTOBUF_C_LABEL_REPEATED)
        return false;
    const ProtobufCMessageDescriptor *entry = f->descriptor;
    return entry->n_fields == 2 && entry->fields[0].id == 1 && entry->fields[1].id == 2 &&
           strcmp(entry->fields[0].name, "key") == 0 &&
           strcmp(entry->fields[1].name, "value") == 0 &&
           name_is_entry_of(entry->short_name, f->name);
}

size_t field_value_bytes(const ProtobufCFieldDescriptor *f)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return 4;
    case PROTOBUF_C_TYPE_ENUM:
        return sizeof(int);
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return 8;
    }
}

void *field_at(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
    return (char *)m + f->offset;
}

static void *quantifier_at(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
    return (char *)m + f->quantifier_offset;
}

static bool in_oneof(const ProtobufCFieldDescriptor *f)
{
    return f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF;
}

size_t field_count(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
    return *(size_t *)quantifier_at(m, f);
}

static bool value_is_default(const ProtobufCFieldDescriptor *f, const void *at)
{
    static const char zeros[sizeof(ProtobufCBinaryData)];
    const char *s;

    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
        s = *(char *const *)at;
        return !s || !*s;
    case PROTOBUF_C_TYPE_BYTES:
        return ((const ProtobufCBinaryData *)at)->len == 0;
    default:
        return memcmp(at, zeros, field_value_bytes(f)) == 0;
    }
}

bool field_is_set(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
    assert(f->label != PROTOBUF_C_LABEL_REPEATED);
    if (in_oneof(f))
        return *(uint32_t *)quantifier_at(m, f) == f->id;
    if (f->type == PROTOBUF_C_TYPE_MESSAGE)
        return *(void **)field_at(m, f) != NULL;
    if (f->label == PROTOBUF_C_LABEL_OPTIONAL && f->type != PROTOBUF_C_TYPE_STRING)
        return *(protobuf_c_boolean *)quantifier_at(m, f);
    return !value_is_default(f, field_at(m, f));
}

const ProtobufCFieldDescriptor *field_oneof_conflict(const ProtobufCMessage *m,
                                                     const ProtobufCFieldDescriptor *f)
{
    if (!in_oneof(f))
        return NULL;
    uint32_t set = *(uint32_t *)quantifier_at(m, f);
    if (set == 0 || set == f->id)
        return NULL;
    return protobuf_c_message_descriptor_get_field(m->descriptor, set);
}

static void value_clear(const ProtobufCFieldDescriptor *f, void *at)
{
    if (f->type == PROTOBUF_C_TYPE_STRING)
        *(const char **)at = protobuf_c_empty_string;
    else
        memset(at, 0, field_value_bytes(f));
}

/* A repeated field's array has room for the next power of two above its count, so no capacity
 * needs to be kept beside it. */
static void *repeated_add(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, struct arena *a)
{
    size_t bytes = field_value_bytes(f);
    size_t *count = quantifier_at(m, f);
    char **values = field_at(m, f);

    if ((*count & (*count - 1)) == 0) {
        size_t capacity = *count ? *count * 2 : 1;
        size_t total;
        char *grown = mul_size(capacity, bytes, &total) ? arena_alloc(a, total) : NULL;
        if (!grown)
            return NULL;
        if (*count)
            memcpy(grown, *values, *count * bytes);
        *values = grown;
    }
    char *at = *values + *count * bytes;
    value_clear(f, at);
    (*count)++;
    return at;
}

void *field_add(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, struct arena *a)
{
    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        return repeated_add(m, f, a);
    if (in_oneof(f))
        *(uint32_t *)quantifier_at(m, f) = f->id;
    else if (f->label == PROTOBUF_C_LABEL_OPTIONAL && f->type != PROTOBUF_C_TYPE_STRING &&
             f->type != PROTOBUF_C_TYPE_MESSAGE)
        *(protobuf_c_boolean *)quantifier_at(m, f) = 1;
    void *at = field_at(m, f);
    value_clear(f, at);
    return at;
}

static int compare_u64(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

int map_entry_compare(const ProtobufCMessage *a, const ProtobufCMessage *b)
{
    const ProtobufCFieldDescriptor *key = &a->descriptor->fields[0];
    const void *ka = field_at(a, key);
    const void *kb = field_at(b, key);
    int64_t ia, ib;

    switch (key->type) {
    case PROTOBUF_C_TYPE_STRING:
        return strcmp(*(char *const *)ka, *(char *const *)kb);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return compare_u64(*(const uint32_t *)ka, *(const uint32_t *)kb);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return compare_u64(*(const uint64_t *)ka, *(const uint64_t *)kb);
    case PROTOBUF_C_TYPE_BOOL:
        return *(const protobuf_c_boolean *)ka - *(const protobuf_c_boolean *)kb;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        ia = *(const int64_t *)ka;
        ib = *(const int64_t *)kb;
        break;
    default:
        ia = *(const int32_t *)ka;
        ib = *(const int32_t *)kb;
        break;
    }
    return (ia > ib) - (ia < ib);
}

struct map_entry {
    ProtobufCMessage *message;
    size_t index;
};

static int map_order(const void *a, const void *b)
{
    const struct map_entry *ea = a, *eb = b;
    int order = map_entry_compare(ea->message, eb->message);
    return order ? order : (ea->index > eb->index) - (ea->index < eb->index);
}

static bool fill_value(ProtobufCMessage *entry, struct arena *a)
{
    const ProtobufCFieldDescriptor *value = &entry->descriptor->fields[1];
    if (value->type != PROTOBUF_C_TYPE_MESSAGE || field_is_set(entry, value))
        return true;
    ProtobufCMessage *empty = message_create(value->descriptor, a);
    *(ProtobufCMessage **)field_at(entry, value) = empty;
    return empty != NULL;
}

static bool settle_map(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, struct arena *a)
{
    size_t *count = quantifier_at(m, f);
    ProtobufCMessage **entries = *(ProtobufCMessage ***)field_at(m, f);

    for (size_t i = 0; i < *count; i++)
        if (!fill_value(entries[i], a))
            return false;
    if (*count < 2)
        return true;

    struct map_entry *sorted = arena_calloc(a, *count, sizeof(*sorted));
    if (!sorted)
        return false;
    for (size_t i = 0; i < *count; i++)
        sorted[i] = (struct map_entry){ entries[i], i };
    qsort(sorted, *count, sizeof(*sorted), map_order);

    size_t kept = 0;
    for (size_t i = 0; i < *count; i++) {
        bool is_last =
            i + 1 == *count || map_entry_compare(sorted[i].message, sorted[i + 1].message) != 0;
        if (is_last)
            entries[kept++] = sorted[i].message;
    }
    *count = kept;
    return true;
}

bool message_settle_maps(ProtobufCMessage *m, struct arena *a)
{
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        if (field_is_map(f) && !settle_map(m, f, a))
            return false;
    }
    return true;
}

enum {
    NEAREST_LEN_MAX = 63
};

void nearest_init(struct nearest *n, const char *wanted, size_t len)
{
    *n = (struct nearest){ .wanted = wanted, .wanted_len = len, .best_distance = ~0U };
}

/* Edit distance with swaps of neighbours counted once, letters compared without case. */
static unsigned edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    unsigned rows[3][NEAREST_LEN_MAX + 1];
    unsigned *before = rows[0], *above = rows[1], *row = rows[2];

    for (size_t j = 0; j <= b_len; j++)
        above[j] = (unsigned)j;
    for (size_t i = 1; i <= a_len; i++) {
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_len; j++) {
            int ca = tolower((unsigned char)a[i - 1]);
            int cb = tolower((unsigned char)b[j - 1]);
            unsigned d = above[j - 1] + (ca != cb);
            if (above[j] + 1 < d)
                d = above[j] + 1;
            if (row[j - 1] + 1 < d)
                d = row[j - 1] + 1;
            if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) &&
                cb == tolower((unsigned char)a[i - 2]) && before[j - 2] + 1 < d)
                d = before[j - 2] + 1;
            row[j] = d;
        }
        unsigned *free_row = before;
        before = above;
        above = row;
        row = free_row;
    }
    return above[b_len];
}

/* So many edits are a slip; more are another word. */
static unsigned edits_allowed(size_t len)
{
    return len < 8 ? 1 : (unsigned)(len / 4);
}

static bool contains(const char *a, size_t a_len, const char *b, size_t b_len)
{
    return b_len >= 4 && memmem(a, a_len, b, b_len);
}

void nearest_offer(struct nearest *n, const char *candidate)
{
    size_t len = strlen(candidate);
    if (len > NEAREST_LEN_MAX || n->wanted_len > NEAREST_LEN_MAX)
        return;
    unsigned distance = edit_distance(n->wanted, n->wanted_len, candidate, len);
    bool part = contains(candidate, len, n->wanted, n->wanted_len) ||
                contains(n->wanted, n->wanted_len, candidate, len);
    if (part && distance > edits_allowed(n->wanted_len))
        distance = edits_allowed(n->wanted_len);
    if (distance < n->best_distance) {
        n->best_distance = distance;
        n->best = candidate;
    }
}

const char *nearest_found(const struct nearest *n)
{
    return n->best_distance <= edits_allowed(n->wanted_len) ? n->best : NULL;
}

const ProtobufCFieldDescriptor *message_field(const ProtobufCMessageDescriptor *desc,
                                              const char *name, size_t len)
{
    unsigned low = 0, high = desc->n_fields;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        const ProtobufCFieldDescriptor *f = &desc->fields[desc->fields_sorted_by_name[middle]];
        int order = strncmp(f->name, name, len);
        if (order == 0 && f->name[len] == '\0')
            return f;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const ProtobufCEnumValue *enum_value_by_name(const ProtobufCEnumDescriptor *desc, const char *name,
                                             size_t len)
{
    for (unsigned i = 0; i < desc->n_values; i++)
        if (strncmp(desc->values[i].name, name, len) == 0 && desc->values[i].name[len] == '\0')
            return &desc->values[i];
    return NULL;
}

const char *enum_name(const ProtobufCEnumDescriptor *desc, int number)
{
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(desc, number);
    return v ? v->name : NULL;
}

static bool is_continuation(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

size_t utf8_sequence(const char *s, size_t len)
{
    if (len == 0)
        return 0;
    unsigned char c = (unsigned char)s[0];
    if (c < 0x80)
        return 1;
    if (c < 0xc2 || c > 0xf4 || len < 2 || !is_continuation(s[1]))
        return 0;
    if (c < 0xe0)
        return 2;
    unsigned char second = (unsigned char)s[1];
    if (c < 0xf0) {
        if (len < 3 || !is_continuation(s[2]) || (c == 0xe0 && second < 0xa0) ||
            (c == 0xed && second > 0x9f))
            return 0;
        return 3;
    }
    if (len < 4 || !is_continuation(s[2]) || !is_continuation(s[3]) ||
        (c == 0xf0 && second < 0x90) || (c == 0xf4 && second > 0x8f))
        return 0;
    return 4;
}

/* Most texts are ASCII: eight bytes at a time. */
static size_t ascii_bytes(const char *s, size_t len)
{
    size_t n = 0;
    for (uint64_t word; n + sizeof(word) <= len; n += sizeof(word)) {
        memcpy(&word, s + n, sizeof(word));
        if (word & UINT64_C(0x8080808080808080))
            break;
    }
    return n;
}

bool utf8_is_valid(const char *s, size_t len)
{
    size_t ascii = ascii_bytes(s, len);
    s += ascii;
    len -= ascii;
    while (len) {
        size_t n = utf8_sequence(s, len);
        if (n == 0)
            return false;
        s += n;
        len -= n;
    }
    return true;
}

bool field_append_integer(struct bytes *b, const ProtobufCFieldDescriptor *f, const void *at)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        bytes_append_i64(b, *(const int32_t *)at);
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        bytes_append_i64(b, *(const int64_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        bytes_append_u64(b, *(const uint32_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        bytes_append_u64(b, *(const uint64_t *)at);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        bytes_append_str(b, *(const protobuf_c_boolean *)at ? "true" : "false");
        break;
    default:
        return false;
    }
    return true;
}
