#include "api/v2/log_settings.h"

#include <string.h>

#include <yyjson.h>

#include "base/log.h"
#include "proto/json.h"
#include "proto/message.h"
#include "proto/wire.h"

#define INVALID(...) error_new(TRITONSERVER_ERROR_INVALID_ARG, __VA_ARGS__)

/* The first ones are fields of LogSettingsRequest.SettingValue. */
enum value_type {
    VALUE_NONE, /* leaves a setting as it is */
    VALUE_BOOL,
    VALUE_NUMBER,
    VALUE_TEXT,
    VALUE_OTHER,
};

struct value {
    enum value_type type;
    uint64_t number; /* of a boolean too */
    const char *text;
    size_t text_len;
};

static const char *const type_names[] = { "nothing", "boolean", "unsigned integer", "string" };
static const char *const format_names[] = {
    [LOG_FORMAT_DEFAULT] = "default",
    [LOG_FORMAT_ISO8601] = "ISO8601",
};

/* ---- The settings ---- */

static struct value get_file(void)
{
    return (struct value){ .type = VALUE_TEXT, .text = "" }; /* stderr */
}

static struct value get_info(void)
{
    return (struct value){ .type = VALUE_BOOL, .number = log_is_enabled(LOG_LEVEL_INFO) };
}

static struct value get_warning(void)
{
    return (struct value){ .type = VALUE_BOOL, .number = log_is_enabled(LOG_LEVEL_WARNING) };
}

static struct value get_error(void)
{
    return (struct value){ .type = VALUE_BOOL, .number = log_is_enabled(LOG_LEVEL_ERROR) };
}

static struct value get_verbose_level(void)
{
    return (struct value){ .type = VALUE_NUMBER, .number = log_verbose_level() };
}

static struct value get_format(void)
{
    const char *name = format_names[log_format()];
    return (struct value){ .type = VALUE_TEXT, .text = name, .text_len = strlen(name) };
}

static void set_info(uint64_t on)
{
    log_set_enabled(LOG_LEVEL_INFO, on);
}

static void set_warning(uint64_t on)
{
    log_set_enabled(LOG_LEVEL_WARNING, on);
}

static void set_error(uint64_t on)
{
    log_set_enabled(LOG_LEVEL_ERROR, on);
}

static void set_verbose_level(uint64_t level)
{
    log_set_verbose_level((uint32_t)level);
}

static void set_format(uint64_t format)
{
    log_set_format((enum log_format)format);
}

static const struct setting {
    const char *name;
    struct value (*get)(void);
    void (*set)(uint64_t number); /* NULL: cannot be changed */
} settings[] = {
    { "log_file", get_file, NULL },
    { "log_info", get_info, set_info },
    { "log_warning", get_warning, set_warning },
    { "log_error", get_error, set_error },
    { "log_verbose_level", get_verbose_level, set_verbose_level },
    { "log_format", get_format, set_format },
};

/* What a request wants, by index of settings. */
struct changes {
    bool is_set[ARRAY_LEN(settings)];
    uint64_t number[ARRAY_LEN(settings)];
};

static tis_error *find_format(const struct value *v, uint64_t *ret_format)
{
    for (size_t i = 0; i < ARRAY_LEN(format_names); i++) {
        if (strlen(format_names[i]) == v->text_len &&
            memcmp(format_names[i], v->text, v->text_len) == 0) {
            *ret_format = i;
            return NULL;
        }
    }
    return INVALID("invalid argument for log_format, got: %.*s",
                   (int)(v->text_len < 64 ? v->text_len : 64), v->text);
}

static tis_error *add_change(struct changes *changes, const char *name, size_t name_len,
                             const struct value *v)
{
    size_t i = 0;
    while (i < ARRAY_LEN(settings) &&
           (strlen(settings[i].name) != name_len || memcmp(settings[i].name, name, name_len) != 0))
        i++;
    if (i == ARRAY_LEN(settings))
        return INVALID("unknown log setting '%.*s', expected log_info, log_warning, log_error, "
                       "log_verbose_level or log_format",
                       (int)(name_len < 64 ? name_len : 64), name);
    if (v->type == VALUE_NONE)
        return NULL;
    if (!settings[i].set)
        return error_new(TRITONSERVER_ERROR_UNSUPPORTED,
                         "log file location can not be updated through network protocol");
    enum value_type type = settings[i].get().type;
    if (v->type != type)
        return INVALID("expect %s for '%s'", type_names[type], settings[i].name);
    uint64_t number = v->number;
    tis_error *err = type == VALUE_TEXT ? find_format(v, &number) : NULL;
    if (!err && number > INT32_MAX)
        err = INVALID("'%s' is %llu, expected at most %d", settings[i].name,
                      (unsigned long long)number, INT32_MAX);
    if (err)
        return err;
    changes->is_set[i] = true;
    changes->number[i] = number;
    return NULL;
}

static void apply(const struct changes *changes)
{
    for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
        if (changes->is_set[i])
            settings[i].set(changes->number[i]);
    }
}

/* ---- JSON ---- */

static struct value json_value(yyjson_val *v)
{
    struct value value = { .type = yyjson_is_null(v) ? VALUE_NONE : VALUE_OTHER };
    if (yyjson_is_bool(v)) {
        value.type = VALUE_BOOL;
        value.number = yyjson_get_bool(v);
    } else if (yyjson_is_uint(v)) {
        value.type = VALUE_NUMBER;
        value.number = yyjson_get_uint(v);
    } else if (yyjson_is_str(v)) {
        value.type = VALUE_TEXT;
        value.text = yyjson_get_str(v);
        value.text_len = yyjson_get_len(v);
    }
    return value;
}

tis_error *log_settings_change_json(const char *body, size_t len)
{
    struct changes changes = { 0 };
    if (len == 0)
        return NULL;
    yyjson_doc *doc = yyjson_read(body, len, 0);
    yyjson_val *root = yyjson_doc_get_root(doc);
    tis_error *err = NULL;
    if (!yyjson_is_obj(root))
        err = INVALID("failed to parse the request JSON buffer: expected an object like "
                      "{\"log_verbose_level\":1}");
    yyjson_obj_iter it = yyjson_obj_iter_with(root);
    for (yyjson_val *key; !err && (key = yyjson_obj_iter_next(&it)) != NULL;) {
        struct value value = json_value(yyjson_obj_iter_get_val(key));
        err = add_change(&changes, yyjson_get_str(key), yyjson_get_len(key), &value);
    }
    yyjson_doc_free(doc);
    if (!err)
        apply(&changes);
    return err;
}

void log_settings_append_json(struct bytes *out)
{
    for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
        struct value v = settings[i].get();
        bytes_printf(out, "%s\"%s\":", i > 0 ? "," : "{", settings[i].name);
        if (v.type == VALUE_TEXT)
            json_append_string(out, v.text, v.text_len);
        else if (v.type == VALUE_BOOL)
            bytes_append_str(out, v.number ? "true" : "false");
        else
            bytes_append_u64(out, v.number);
    }
    bytes_append_char(out, '}');
}

/* ---- Messages ---- */

static tis_error *bad_message(void)
{
    return INVALID("failed to parse the request message");
}

/* LogSettingsRequest.SettingValue. */
static tis_error *read_value(const struct wire_field *field, struct value *ret_value)
{
    static const enum wire_type wire_types[] = { 0, WIRE_VARINT, WIRE_VARINT, WIRE_BYTES };
    struct wire w = wire_open(field->data, field->len);
    *ret_value = (struct value){ .type = VALUE_NONE };
    for (struct wire_field f; wire_next(&w, &f);) {
        if (f.number >= ARRAY_LEN(wire_types))
            continue;
        if (f.type != wire_types[f.number])
            return bad_message();
        ret_value->type = (enum value_type)f.number;
        ret_value->number = f.number == VALUE_BOOL ? f.value != 0 : (uint32_t)f.value;
        ret_value->text = f.data;
        ret_value->text_len = f.len;
    }
    return w.is_bad ? bad_message() : NULL;
}

/* One entry of the map. */
static tis_error *read_entry(const struct wire_field *entry, struct changes *changes)
{
    struct wire_field name = { .data = "" };
    struct wire_field value = { .data = "" };
    struct value v;
    struct wire w = wire_open(entry->data, entry->len);
    for (struct wire_field f; wire_next(&w, &f);) {
        if ((f.number == 1 || f.number == 2) && f.type != WIRE_BYTES)
            return bad_message();
        if (f.number == 1)
            name = f;
        else if (f.number == 2)
            value = f;
    }
    if (w.is_bad || !utf8_is_valid(name.data, name.len))
        return bad_message();
    tis_error *err = read_value(&value, &v);
    return err ? err : add_change(changes, name.data, name.len, &v);
}

static void append_entry(struct bytes *out, const struct setting *s)
{
    struct value v = s->get();
    size_t name_len = strlen(s->name);
    size_t value_len =
        v.type == VALUE_TEXT ? wire_bytes_bytes(v.text_len) : 1 + wire_varint_bytes(v.number);
    wire_append_head(out, 1, wire_bytes_bytes(name_len) + wire_bytes_bytes(value_len));
    wire_append_bytes(out, 1, s->name, name_len);
    wire_append_head(out, 2, value_len);
    if (v.type == VALUE_TEXT) {
        wire_append_bytes(out, VALUE_TEXT, v.text, v.text_len);
        return;
    }
    wire_append_tag(out, v.type, WIRE_VARINT);
    wire_append_varint(out, v.number);
}

tis_error *log_settings_change_message(const char *message, size_t len)
{
    struct changes changes = { 0 };
    tis_error *err = NULL;
    struct wire w = wire_open(message, len);
    for (struct wire_field f; !err && wire_next(&w, &f);) {
        if (f.number == 1)
            err = f.type == WIRE_BYTES ? read_entry(&f, &changes) : bad_message();
    }
    if (!err && w.is_bad)
        err = bad_message();
    if (!err)
        apply(&changes);
    return err;
}

void log_settings_append_message(struct bytes *out)
{
    for (size_t i = 0; i < ARRAY_LEN(settings); i++)
        append_entry(out, &settings[i]);
}
