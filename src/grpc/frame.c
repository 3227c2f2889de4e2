#include "grpc/frame.h"

#include <string.h>

#include "base/clock.h"

bool frame_parse_timeout(const char *text, size_t len, uint64_t *ret_ns)
{
    static const struct {
        char unit;
        uint64_t ns;
    } units[] = {
        { 'H', 3600 * NS_PER_SEC },
        { 'M', 60 * NS_PER_SEC },
        { 'S', NS_PER_SEC },
        { 'm', NS_PER_MS },
        { 'u', 1000 },
        { 'n', 1 },
    };
    if (len < 2 || len > 9)
        return false;
    uint64_t value = 0;
    for (size_t i = 0; i + 1 < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (units[i].unit != text[len - 1])
            continue;
        *ret_ns = value > UINT64_MAX / 2 / units[i].ns ? UINT64_MAX / 2 : value * units[i].ns;
        return true;
    }
    return false;
}

bool frame_is_grpc_type(const char *text, size_t len)
{
    static const char type[] = "application/grpc";
    static const char proto[] = "+proto";
    size_t at = sizeof(type) - 1;
    if (len < at || memcmp(text, type, at) != 0)
        return false;
    if (len - at >= sizeof(proto) - 1 && memcmp(text + at, proto, sizeof(proto) - 1) == 0)
        at += sizeof(proto) - 1;
    return at == len || text[at] == ';' || text[at] == ' ';
}

size_t frame_encode_text(const char *text, char *out)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t len = strnlen(text, FRAME_TEXT_BYTES_MAX + 1);
    if (len > FRAME_TEXT_BYTES_MAX) {
        len = FRAME_TEXT_BYTES_MAX;
        while (len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80)
            len--; /* not inside a character of several bytes */
    }
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c <= 0x7e && c != '%') {
            out[n++] = (char)c;
            continue;
        }
        out[n++] = '%';
        out[n++] = digits[c >> 4];
        out[n++] = digits[c & 15];
    }
    return n;
}

void frame_put_prefix(uint8_t prefix[FRAME_PREFIX_BYTES], uint32_t bytes)
{
    prefix[0] = 0;
    for (int i = 0; i < 4; i++)
        prefix[1 + i] = (uint8_t)(bytes >> (24 - 8 * i));
}

uint32_t frame_prefix_bytes(const uint8_t prefix[FRAME_PREFIX_BYTES])
{
    return (uint32_t)prefix[1] << 24 | (uint32_t)prefix[2] << 16 | (uint32_t)prefix[3] << 8 |
           prefix[4];
}
