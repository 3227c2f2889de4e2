/* http/header.h - one header of a request, as the parser finds it and the handler sees it. */
#ifndef TIS_HTTP_HEADER_H
#define TIS_HTTP_HEADER_H

#include <stdint.h>

/* Both strings point into the head and live as long as the exchange. Blanks around the value are
 * not part of it. */
struct http_header {
    const char *name; /* as sent; compared without case */
    const char *value;
    uint32_t name_len;
    uint32_t value_len;
};

#endif
