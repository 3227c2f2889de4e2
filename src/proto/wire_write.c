#include "proto/wire.h"

size_t wire_varint_bytes(uint64_t value)
{
    size_t n = 1;
    while (value >= 0x80) {
        value >>= 7;
        n++;
    }
    return n;
}

char *wire_put_varint(char *at, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *at++ = (char)(value | 0x80);
    *at++ = (char)value;
    return at;
}

void wire_append_varint(struct bytes *out, uint64_t value)
{
    char digits[WIRE_VARINT_BYTES_MAX];
    bytes_append(out, digits, (size_t)(wire_put_varint(digits, value) - digits));
}

void wire_append_tag(struct bytes *out, uint32_t number, enum wire_type type)
{
    wire_append_varint(out, (uint64_t)number << 3 | type);
}

void wire_append_head(struct bytes *out, uint32_t number, uint64_t len)
{
    wire_append_tag(out, number, WIRE_BYTES);
    wire_append_varint(out, len);
}

void wire_append_bytes(struct bytes *out, uint32_t number, const void *data, size_t len)
{
    wire_append_head(out, number, len);
    bytes_append(out, data, len);
}
