#include "proto/wire.h"

#include "proto/message.h"

bool wire_varint(struct wire *w, uint64_t *ret_value)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (w->at == w->end)
            break;
        unsigned char byte = (unsigned char)*w->at++;
        value |= shift < 64 ? (uint64_t)(byte & 0x7f) << shift : 0;
        if (byte < 0x80) {
            *ret_value = value;
            return true;
        }
    }
    w->is_bad = true;
    return false;
}

bool wire_next(struct wire *w, struct wire_field *ret_field)
{
    uint64_t tag;
    if (w->is_bad || w->at == w->end || !wire_varint(w, &tag))
        return false;
    struct wire_field f = { .number = (uint32_t)(tag >> 3), .type = tag & 7 };
    uint64_t len = 0;
    switch (f.type) {
    case WIRE_VARINT:
        if (!wire_varint(w, &f.value))
            return false;
        break;
    case WIRE_BYTES:
        if (!wire_varint(w, &len))
            return false;
        break;
    case WIRE_FIXED32:
        len = 4;
        break;
    case WIRE_FIXED64:
        len = 8;
        break;
    default:
        w->is_bad = true;
    }
    if (w->is_bad || f.number == 0 || tag >> 32 || len > (size_t)(w->end - w->at)) {
        w->is_bad = true;
        return false;
    }
    f.data = w->at;
    f.len = (size_t)len;
    w->at += len;
    *ret_field = f;
    return true;
}

tis_error *wire_error(void)
{
    return error_new(TRITONSERVER_ERROR_INVALID_ARG, "failed to parse the request message");
}

tis_error *wire_get_text(const struct wire_field *f, const char *what, struct arena *a,
                         const char **ret_text)
{
    if (f->type != WIRE_BYTES)
        return wire_error();
    if (f->len > 0 && memchr(f->data, '\0', f->len))
        return error_new(TRITONSERVER_ERROR_INVALID_ARG, "the %s holds a NUL character", what);
    if (!utf8_is_valid(f->data, f->len))
        return error_new(TRITONSERVER_ERROR_INVALID_ARG, "the %s is not valid UTF-8", what);
    const char *text = arena_strndup(a, f->data, f->len);
    if (!text)
        return error_no_memory();
    *ret_text = text;
    return NULL;
}

tis_error *wire_get_number(const struct wire_field *f, uint64_t *ret_value)
{
    if (f->type != WIRE_VARINT)
        return wire_error();
    *ret_value = f->value;
    return NULL;
}
