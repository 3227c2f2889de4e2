#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <yyjson.h>

#include "base/number.h"
#include "proto/json.h"
#include "proto/message.h"

enum {
    DEPTH_MAX = 64
};

/* The way from the root to the value being read: a chain on the stack, printed only for errors. */
struct path {
    const struct path *up;
    const char *name; /* NULL: an element of an array */
    size_t index;
};

struct reader {
    struct arena *arena;
    uint32_t depth;
};

static tis_error *read_object(struct reader *r, yyjson_val *object, const struct path *path,
                              ProtobufCMessage *m);

static void append_path(struct bytes *b, const struct path *path)
{
    if (!path)
        return;
    append_path(b, path->up);
    if (!path->name) {
        bytes_printf(b, "[%zu]", path->index);
        return;
    }
    if (b->len)
        bytes_append_char(b, '.');
    bytes_append_str(b, path->name);
}

static tis_error *wrong(const struct path *path, const char *fmt, ...) PRINTF(2, 3);

static tis_error *wrong(const struct path *path, const char *fmt, ...)
{
    struct bytes b = { 0 };
    va_list args;

    va_start(args, fmt);
    tis_error *err = error_newv(TRITONSERVER_ERROR_INVALID_ARG, fmt, args);
    va_end(args);
    append_path(&b, path);
    if (b.len)
        err = error_wrap(err, "%s", bytes_str(&b));
    bytes_fini(&b);
    return err;
}

static tis_error *no_memory(const struct reader *r)
{
    return error_new(TRITONSERVER_ERROR_UNAVAILABLE,
                     "JSON text needs more than %zu bytes of memory", r->arena->bytes_max);
}

static const char *kind_of(yyjson_val *value)
{
    return yyjson_get_type_desc(value);
}

static bool to_i64(yyjson_val *value, int64_t *ret_value)
{
    if (yyjson_is_str(value))
        return number_parse_i64(yyjson_get_str(value), yyjson_get_len(value), ret_value);
    if (yyjson_is_real(value)) {
        double real = yyjson_get_real(value);
        if (!(real >= -0x1p63 && real < 0x1p63) || real != floor(real))
            return false;
        *ret_value = (int64_t)real;
        return true;
    }
    if (!yyjson_is_int(value) || (yyjson_is_uint(value) && yyjson_get_uint(value) > INT64_MAX))
        return false;
    *ret_value = yyjson_get_sint(value);
    return true;
}

static bool to_u64(yyjson_val *value, uint64_t *ret_value)
{
    int64_t number;

    if (yyjson_is_str(value))
        return number_parse_u64(yyjson_get_str(value), yyjson_get_len(value), ret_value);
    if (yyjson_is_uint(value)) {
        *ret_value = yyjson_get_uint(value);
        return true;
    }
    if (!to_i64(value, &number) || number < 0)
        return false;
    *ret_value = (uint64_t)number;
    return true;
}

static tis_error *read_integer(const ProtobufCFieldDescriptor *f, yyjson_val *value,
                               const struct path *path, void *at)
{
    int64_t number = 0;
    uint64_t positive = 0;
    bool fits;

    switch (f->type) {
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        fits = to_u64(value, &positive) && positive <= UINT32_MAX;
        *(uint32_t *)at = (uint32_t)positive;
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        fits = to_u64(value, &positive);
        *(uint64_t *)at = positive;
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        fits = to_i64(value, &number);
        *(int64_t *)at = number;
        break;
    default:
        fits = to_i64(value, &number) && number >= INT32_MIN && number <= INT32_MAX;
        *(int32_t *)at = (int32_t)number;
        break;
    }
    if (fits)
        return NULL;
    return wrong(path, "found %s, expected a whole number of %zu bits%s",
                 yyjson_is_num(value) ? "a number that does not fit" : kind_of(value),
                 field_value_bytes(f) * 8,
                 f->type == PROTOBUF_C_TYPE_UINT32 || f->type == PROTOBUF_C_TYPE_UINT64
                     ? " without a sign"
                     : "");
}

static tis_error *read_real(const ProtobufCFieldDescriptor *f, yyjson_val *value,
                            const struct path *path, void *at)
{
    double number;

    if (yyjson_is_num(value)) {
        number = yyjson_get_num(value);
    } else if (yyjson_equals_str(value, "NaN")) {
        number = (double)NAN;
    } else if (yyjson_equals_str(value, "Infinity")) {
        number = (double)INFINITY;
    } else if (yyjson_equals_str(value, "-Infinity")) {
        number = -(double)INFINITY;
    } else if (yyjson_is_str(value)) {
        char *end;
        const char *s = yyjson_get_str(value);
        number = strtod(s, &end);
        if (end == s || end != s + yyjson_get_len(value))
            return wrong(path, "found a string, expected a number");
    } else {
        return wrong(path, "found %s, expected a number", kind_of(value));
    }
    if (f->type == PROTOBUF_C_TYPE_FLOAT)
        *(float *)at = (float)number;
    else
        *(double *)at = number;
    return NULL;
}

static tis_error *read_enum(const ProtobufCFieldDescriptor *f, yyjson_val *value,
                            const struct path *path, void *at)
{
    const ProtobufCEnumDescriptor *desc = f->descriptor;
    struct nearest nearest;
    int64_t number;

    if (yyjson_is_num(value) && to_i64(value, &number) && number >= INT_MIN && number <= INT_MAX) {
        *(int *)at = (int)number;
        return NULL;
    }
    if (!yyjson_is_str(value))
        return wrong(path, "found %s, expected the name of a value of %s", kind_of(value),
                     desc->short_name);
    const char *name = yyjson_get_str(value);
    const ProtobufCEnumValue *found = enum_value_by_name(desc, name, yyjson_get_len(value));
    if (found) {
        *(int *)at = found->value;
        return NULL;
    }
    nearest_init(&nearest, name, yyjson_get_len(value));
    for (unsigned i = 0; i < desc->n_values; i++)
        nearest_offer(&nearest, desc->values[i].name);
    const char *meant = nearest_found(&nearest);
    return wrong(path, "%s has no value '%s'%s%s%s", desc->short_name, name,
                 meant ? "; did you mean '" : "", meant ? meant : "", meant ? "'?" : "");
}

static tis_error *read_string(struct reader *r, yyjson_val *value, const struct path *path,
                              void *at)
{
    if (!yyjson_is_str(value))
        return wrong(path, "found %s, expected a string", kind_of(value));
    const char *s = yyjson_get_str(value);
    size_t len = yyjson_get_len(value);
    if (memchr(s, '\0', len))
        return wrong(path, "the string contains a NUL byte");
    char *copy = arena_strndup(r->arena, s, len);
    if (!copy)
        return no_memory(r);
    *(char **)at = copy;
    return NULL;
}

static tis_error *read_message(struct reader *r, const ProtobufCFieldDescriptor *f,
                               yyjson_val *value, const struct path *path, void *at)
{
    ProtobufCMessage *m = message_create(f->descriptor, r->arena);
    if (!m)
        return no_memory(r);
    *(ProtobufCMessage **)at = m;
    return read_object(r, value, path, m);
}

static tis_error *read_value(struct reader *r, const ProtobufCFieldDescriptor *f, yyjson_val *value,
                             const struct path *path, void *at)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE:
        return read_real(f, value, path, at);
    case PROTOBUF_C_TYPE_BOOL:
        if (!yyjson_is_bool(value))
            return wrong(path, "found %s, expected true or false", kind_of(value));
        *(protobuf_c_boolean *)at = yyjson_get_bool(value);
        return NULL;
    case PROTOBUF_C_TYPE_ENUM:
        return read_enum(f, value, path, at);
    case PROTOBUF_C_TYPE_STRING:
        return read_string(r, value, path, at);
    case PROTOBUF_C_TYPE_MESSAGE:
        return read_message(r, f, value, path, at);
    case PROTOBUF_C_TYPE_BYTES:
        return wrong(path, "fields of type bytes cannot be read from JSON");
    default:
        return read_integer(f, value, path, at);
    }
}

static tis_error *read_array(struct reader *r, const ProtobufCFieldDescriptor *f, yyjson_val *array,
                             const struct path *path, ProtobufCMessage *m)
{
    size_t index, count;
    yyjson_val *value;

    if (!yyjson_is_arr(array))
        return wrong(path, "found %s, expected an array", kind_of(array));
    yyjson_arr_foreach(array, index, count, value)
    {
        struct path here = { .up = path, .index = index };
        void *at = field_add(m, f, r->arena);
        if (!at)
            return no_memory(r);
        tis_error *err = read_value(r, f, value, &here, at);
        if (err)
            return err;
    }
    return NULL;
}

/* A map's key is always a string in JSON. */
static tis_error *read_key(struct reader *r, const ProtobufCFieldDescriptor *f, yyjson_val *key,
                           const struct path *path, void *at)
{
    if (f->type == PROTOBUF_C_TYPE_BOOL) {
        if (!yyjson_equals_str(key, "true") && !yyjson_equals_str(key, "false"))
            return wrong(path, "expected the key 'true' or 'false'");
        *(protobuf_c_boolean *)at = yyjson_equals_str(key, "true");
        return NULL;
    }
    return read_value(r, f, key, path, at);
}

static tis_error *read_map(struct reader *r, const ProtobufCFieldDescriptor *f, yyjson_val *object,
                           const struct path *path, ProtobufCMessage *m)
{
    size_t index, count;
    yyjson_val *key, *value;

    if (!yyjson_is_obj(object))
        return wrong(path, "found %s, expected an object", kind_of(object));
    yyjson_obj_foreach(object, index, count, key, value)
    {
        struct path here = { .up = path, .name = yyjson_get_str(key) };
        ProtobufCMessage **at = field_add(m, f, r->arena);
        ProtobufCMessage *entry = message_create(f->descriptor, r->arena);
        if (!at || !entry)
            return no_memory(r);
        *at = entry;
        const ProtobufCFieldDescriptor *kf = &entry->descriptor->fields[0];
        const ProtobufCFieldDescriptor *vf = &entry->descriptor->fields[1];
        tis_error *err = read_key(r, kf, key, &here, field_add(entry, kf, r->arena));
        if (!err)
            err = read_value(r, vf, value, &here, field_add(entry, vf, r->arena));
        if (err)
            return err;
    }
    return NULL;
}

/* Field by its own name or by the lowerCamelCase one. */
static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *desc,
                                                  const char *key, size_t len)
{
    const ProtobufCFieldDescriptor *f = message_field(desc, key, len);
    if (f || len > 63)
        return f;
    char snake[128];
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        bool upper = key[i] >= 'A' && key[i] <= 'Z';
        if (upper)
            snake[n++] = '_';
        snake[n++] = upper ? (char)(key[i] - 'A' + 'a') : key[i];
    }
    return message_field(desc, snake, n);
}

static tis_error *unknown_key(const ProtobufCMessageDescriptor *desc, yyjson_val *key,
                              const struct path *path)
{
    struct nearest nearest;
    nearest_init(&nearest, yyjson_get_str(key), yyjson_get_len(key));
    for (unsigned i = 0; i < desc->n_fields; i++)
        nearest_offer(&nearest, desc->fields[i].name);
    const char *meant = nearest_found(&nearest);
    return wrong(path, "%s has no field named '%s'%s%s%s", desc->short_name, yyjson_get_str(key),
                 meant ? "; did you mean '" : "", meant ? meant : "", meant ? "'?" : "");
}

/* Is `key` given before `index` in the same object, perhaps in its other spelling? */
static bool is_given_before(const ProtobufCMessageDescriptor *desc, yyjson_val *object,
                            size_t index, const ProtobufCFieldDescriptor *f)
{
    size_t i, count;
    yyjson_val *key, *value;
    yyjson_obj_foreach(object, i, count, key, value)
    {
        if (i == index)
            return false;
        if (find_field(desc, yyjson_get_str(key), yyjson_get_len(key)) == f)
            return true;
    }
    return false;
}

static tis_error *read_field(struct reader *r, const ProtobufCFieldDescriptor *f, yyjson_val *value,
                             const struct path *path, ProtobufCMessage *m)
{
    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        return field_is_map(f) ? read_map(r, f, value, path, m) : read_array(r, f, value, path, m);

    const ProtobufCFieldDescriptor *other = field_oneof_conflict(m, f);
    if (other)
        return wrong(path, "cannot be given together with '%s'", other->name);
    void *at = field_add(m, f, r->arena);
    return at ? read_value(r, f, value, path, at) : no_memory(r);
}

static tis_error *read_object(struct reader *r, yyjson_val *object, const struct path *path,
                              ProtobufCMessage *m)
{
    size_t index, count;
    yyjson_val *key, *value;

    if (!yyjson_is_obj(object))
        return wrong(path, "found %s, expected an object", kind_of(object));
    if (++r->depth > DEPTH_MAX)
        return wrong(path, "objects are nested deeper than %d", DEPTH_MAX);
    yyjson_obj_foreach(object, index, count, key, value)
    {
        const ProtobufCFieldDescriptor *f =
            find_field(m->descriptor, yyjson_get_str(key), yyjson_get_len(key));
        if (!f)
            return unknown_key(m->descriptor, key, path);
        struct path here = { .up = path, .name = f->name };
        if (is_given_before(m->descriptor, object, index, f))
            return wrong(&here, "is given twice");
        if (yyjson_is_null(value))
            continue;
        tis_error *err = read_field(r, f, value, &here, m);
        if (err)
            return err;
    }
    r->depth--;
    return message_settle_maps(m, r->arena) ? NULL : no_memory(r);
}

tis_error *json_parse_message(const ProtobufCMessageDescriptor *desc, const char *text, size_t len,
                              struct arena *a, ProtobufCMessage **ret_message)
{
    struct reader r = { .arena = a };
    yyjson_read_err read_error = { 0 };
    tis_error *err;

    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)text, len, YYJSON_READ_ALLOW_INF_AND_NAN,
                                       NULL, &read_error);
    if (!doc) {
        if (read_error.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION)
            return error_no_memory();
        return error_new(TRITONSERVER_ERROR_INVALID_ARG, "not valid JSON at byte %zu: %s",
                         read_error.pos, read_error.msg);
    }
    ProtobufCMessage *m = message_create(desc, a);
    err = m ? read_object(&r, yyjson_doc_get_root(doc), NULL, m) : no_memory(&r);
    yyjson_doc_free(doc);
    if (err)
        return err;
    *ret_message = m;
    return NULL;
}
