/* metrics/accept.h - which form of the page a client wants.
 *
 * Threads: any.
 */
#ifndef TIS_METRICS_ACCEPT_H
#define TIS_METRICS_ACCEPT_H

#include "metrics/exposition.h"

enum {
    ACCEPT_RANGES_MAX = 32 /* of one header; what follows is not read */
};

/* The value of a header Accept, any bytes. The most specific range that covers a form gives its
 * weight; the heavier form wins, of two that are alike the one that is named more exactly, then the
 * text format. Versions that we do not write do not count. Whoever accepts neither gets the text
 * format: Prometheus and curl rather read that than an error. */
enum exposition_format accept_choose(const char *value, size_t len);

#endif
