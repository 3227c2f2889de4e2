#include "kit/error.h"

#include <stdarg.h>
#include <stdio.h>

TRITONSERVER_Error *kit_error(TRITONSERVER_Error_Code code, const char *format, ...)
{
    char text[KIT_TEXT_BYTES_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return TRITONSERVER_ErrorNew(code, text);
}

TRITONSERVER_Error *kit_error_memory(size_t byte_size, const char *what)
{
    if (!byte_size)
        return kit_error(TRITONSERVER_ERROR_UNAVAILABLE, "out of memory for %s", what);
    return kit_error(TRITONSERVER_ERROR_UNAVAILABLE, "out of memory: %zu bytes for %s", byte_size,
                     what);
}

TRITONSERVER_Error *kit_error_wrap(TRITONSERVER_Error *error, const char *format, ...)
{
    char prefix[KIT_TEXT_BYTES_MAX];
    TRITONSERVER_Error *wrapped;
    va_list args;

    va_start(args, format);
    vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);

    wrapped = kit_error(TRITONSERVER_ErrorCode(error), "%s: %s", prefix,
                        TRITONSERVER_ErrorMessage(error));
    TRITONSERVER_ErrorDelete(error);
    return wrapped;
}

void kit_log(TRITONSERVER_LogLevel level, const char *file, int line, const char *format, ...)
{
    char text[KIT_TEXT_BYTES_MAX];
    TRITONSERVER_Error *error;
    va_list args;

    if (!TRITONSERVER_LogIsEnabled(level))
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);

    /* A log that cannot be written to leaves nowhere to say so. */
    error = TRITONSERVER_LogMessage(level, file, line, text);
    if (error)
        TRITONSERVER_ErrorDelete(error);
}

void kit_log_error(TRITONSERVER_Error *error, const char *file, int line, const char *what)
{
    if (!error)
        return;
    kit_log(TRITONSERVER_LOG_ERROR, file, line, "%s: %s", what, TRITONSERVER_ErrorMessage(error));
    TRITONSERVER_ErrorDelete(error);
}
