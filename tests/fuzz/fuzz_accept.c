/* Any bytes as a header Accept: one of the two forms, the same each time, and the same when blanks
 * stand around it.
 *
 * Parses: src/metrics/accept.c */
#include <stdlib.h>
#include <string.h>

#include "fuzz/model.h"
#include "metrics/accept.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *padded = malloc(size + 2); /* its own memory: reading beyond it is found */
    must(padded);
    padded[0] = ' ';
    if (size > 0)
        memcpy(padded + 1, data, size);
    padded[size + 1] = '\t';
    enum exposition_format format = accept_choose((const char *)data, size);
    must(format == EXPOSITION_TEXT || format == EXPOSITION_OPENMETRICS);
    must(accept_choose(padded, size + 2) == format);
    free(padded);
    return 0;
}
