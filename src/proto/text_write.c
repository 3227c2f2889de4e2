#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/message.h"
#include "proto/text.h"

struct printer {
    struct bytes *b;
    enum text_form form;
    unsigned indent;
};

static void append_field(struct printer *p, const ProtobufCMessage *m,
                         const ProtobufCFieldDescriptor *f);

void text_append_escaped(struct bytes *b, const char *s, size_t len)
{
    static const char named[256] = {
        ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't', ['"'] = '"', ['\''] = '\'', ['\\'] = '\\',
    };

    size_t plain = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c < 0x7f && !named[c])
            continue;
        bytes_append(b, s + plain, i - plain);
        plain = i + 1;
        if (named[c])
            bytes_append(b, (char[]){ '\\', named[c] }, 2);
        else
            bytes_printf(b, "\\%03o", c);
    }
    bytes_append(b, s + plain, len - plain);
}

static bool append_special(struct bytes *b, double value)
{
    if (isfinite(value))
        return false;
    bytes_append_str(b, isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
    return true;
}

void text_append_float(struct bytes *b, float value)
{
    char digits[32];
    if (append_special(b, (double)value))
        return;
    snprintf(digits, sizeof(digits), "%.*g", FLT_DIG, (double)value);
    if (strtof(digits, NULL) != value)
        snprintf(digits, sizeof(digits), "%.*g", FLT_DIG + 3, (double)value);
    bytes_append_str(b, digits);
}

void text_append_double(struct bytes *b, double value)
{
    char digits[32];
    if (append_special(b, value))
        return;
    snprintf(digits, sizeof(digits), "%.*g", DBL_DIG, value);
    if (strtod(digits, NULL) != value)
        snprintf(digits, sizeof(digits), "%.*g", DBL_DIG + 2, value);
    bytes_append_str(b, digits);
}

static void append_quoted(struct bytes *b, const char *s, size_t len)
{
    bytes_append_char(b, '"');
    text_append_escaped(b, s, len);
    bytes_append_char(b, '"');
}

static void append_enum(struct bytes *b, const ProtobufCFieldDescriptor *f, int number)
{
    const char *name = enum_name(f->descriptor, number);
    if (name)
        bytes_append_str(b, name);
    else
        bytes_append_i64(b, number);
}

static void append_scalar(struct bytes *b, const ProtobufCFieldDescriptor *f, const void *at)
{
    const ProtobufCBinaryData *data;
    const char *s;

    if (field_append_integer(b, f, at))
        return;
    switch (f->type) {
    case PROTOBUF_C_TYPE_FLOAT:
        text_append_float(b, *(const float *)at);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        text_append_double(b, *(const double *)at);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        append_enum(b, f, *(const int *)at);
        break;
    case PROTOBUF_C_TYPE_STRING:
        s = *(char *const *)at;
        append_quoted(b, s ? s : "", s ? strlen(s) : 0);
        break;
    case PROTOBUF_C_TYPE_BYTES:
        data = at;
        append_quoted(b, (const char *)data->data, data->len);
        break;
    default: /* messages are the caller's */
        break;
    }
}

static void start_line(struct printer *p)
{
    if (p->form == TEXT_LINES)
        for (unsigned i = 0; i < p->indent; i++)
            bytes_append(p->b, "  ", 2);
}

static void end_line(struct printer *p)
{
    bytes_append_char(p->b, p->form == TEXT_LINES ? '\n' : ' ');
}

static void append_fields(struct printer *p, const ProtobufCMessage *m)
{
    for (unsigned i = 0; i < m->descriptor->n_fields; i++)
        append_field(p, m, &m->descriptor->fields[i]);
}

static void append_value(struct printer *p, const ProtobufCFieldDescriptor *f, const void *at)
{
    start_line(p);
    bytes_append_str(p->b, f->name);
    if (f->type != PROTOBUF_C_TYPE_MESSAGE) {
        bytes_append(p->b, ": ", 2);
        append_scalar(p->b, f, at);
        end_line(p);
        return;
    }

    const ProtobufCMessage *sub = *(ProtobufCMessage *const *)at;
    bytes_append(p->b, " {", 2);
    end_line(p);
    p->indent++;
    if (sub)
        append_fields(p, sub);
    p->indent--;
    start_line(p);
    bytes_append_char(p->b, '}');
    end_line(p);
}

static int entry_order(const void *a, const void *b)
{
    return map_entry_compare(*(ProtobufCMessage *const *)a, *(ProtobufCMessage *const *)b);
}

/* An entry shows key and value also when they are at their default. */
static void append_map(struct printer *p, const ProtobufCFieldDescriptor *f,
                       ProtobufCMessage *const *entries, size_t count)
{
    ProtobufCMessage **sorted = malloc(count * sizeof(*sorted));
    if (!sorted) {
        p->b->failed = true;
        return;
    }
    memcpy(sorted, entries, count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), entry_order);

    for (size_t i = 0; i < count; i++) {
        start_line(p);
        bytes_append_str(p->b, f->name);
        bytes_append(p->b, " {", 2);
        end_line(p);
        p->indent++;
        for (unsigned k = 0; k < 2; k++) {
            const ProtobufCFieldDescriptor *part = &sorted[i]->descriptor->fields[k];
            append_value(p, part, field_at(sorted[i], part));
        }
        p->indent--;
        start_line(p);
        bytes_append_char(p->b, '}');
        end_line(p);
    }
    free(sorted);
}

static void append_field(struct printer *p, const ProtobufCMessage *m,
                         const ProtobufCFieldDescriptor *f)
{
    if (f->label != PROTOBUF_C_LABEL_REPEATED) {
        if (field_is_set(m, f))
            append_value(p, f, field_at(m, f));
        return;
    }

    size_t count = field_count(m, f);
    const char *values = *(const char *const *)field_at(m, f);
    if (count && field_is_map(f)) {
        append_map(p, f, (ProtobufCMessage *const *)values, count);
        return;
    }
    for (size_t i = 0; i < count; i++)
        append_value(p, f, values + i * field_value_bytes(f));
}

void text_append(struct bytes *b, const ProtobufCMessage *m, enum text_form form)
{
    struct printer p = { .b = b, .form = form };
    size_t start = b->len;
    append_fields(&p, m);
    if (form == TEXT_ONE_LINE && !b->failed && b->len > start)
        b->data[--b->len] = '\0';
}

void text_append_field(struct bytes *b, const ProtobufCMessage *m,
                       const ProtobufCFieldDescriptor *f)
{
    struct printer p = { .b = b, .form = TEXT_LINES };
    append_field(&p, m, f);
}
