/* kit/error.h - making, extending and logging errors in a backend.
 *
 * Errors are the server's own objects: NULL is success, whoever holds one passes
 * it on or ends it. Texts follow the server's form: what, which object, what was
 * found, what would be right; lower case, no full stop.
 */
#ifndef KIT_ERROR_H
#define KIT_ERROR_H

#include "tis/backend.h"

#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF_LIKE(format_index, first_index) \
    __attribute__((format(printf, format_index, first_index)))

/* Text longer than this is cut. */
enum {
    KIT_TEXT_BYTES_MAX = 4096
};

MUST_USE TRITONSERVER_Error *kit_error(TRITONSERVER_Error_Code code, const char *format, ...)
    PRINTF_LIKE(2, 3);

/* The out-of-memory error, which says how much was asked for what; 0 = not known. */
MUST_USE TRITONSERVER_Error *kit_error_memory(size_t byte_size, const char *what);

/* Takes error and returns one of the same code whose text begins with the given. */
MUST_USE TRITONSERVER_Error *kit_error_wrap(TRITONSERVER_Error *error, const char *format, ...)
    PRINTF_LIKE(2, 3);

/* Writes a line to the server's log. */
#define KIT_LOG(level, ...) kit_log(level, __FILE__, __LINE__, __VA_ARGS__)
void kit_log(TRITONSERVER_LogLevel level, const char *file, int line, const char *format, ...)
    PRINTF_LIKE(4, 5);

/* Ends an error that cannot be passed on, after logging it; NULL does nothing. */
#define KIT_LOG_ERROR(error, what) kit_log_error(error, __FILE__, __LINE__, what)
void kit_log_error(TRITONSERVER_Error *error, const char *file, int line, const char *what);

#endif
