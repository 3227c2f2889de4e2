/* base/log.h - the server's log.
 *
 * One line an entry on file descriptor 2:
 *
 *     I1122 18:20:05.123456 4711 registry.c:178] model state model=simple version=1 to=READY ms=4
 *
 * level, month and day, UTC time, process id, file:line, the event's text, then key=value pairs. In
 * the format ISO8601 the beginning is "2026-11-22T18:20:05Z I 4711 ".
 * A line is written by one write(), so lines of different threads do not mix.
 *
 * Threads: any. Nothing per request is logged above verbose.
 */
#ifndef TIS_BASE_LOG_H
#define TIS_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"

enum log_level {
    LOG_LEVEL_INFO,
    LOG_LEVEL_WARNING,
    LOG_LEVEL_ERROR,
    LOG_LEVEL_VERBOSE, /* printed with I; enabled from verbose level 1 */
};

enum log_format {
    LOG_FORMAT_DEFAULT,
    LOG_FORMAT_ISO8601
};

/* What is printed, and how. */
void log_set_enabled(enum log_level level, bool enabled);
bool log_is_enabled(enum log_level level);
/* Remembers the number; LOG_LEVEL_VERBOSE is enabled from 1 on. */
void log_set_verbose_level(uint32_t level);
uint32_t log_verbose_level(void);
void log_set_format(enum log_format format);
enum log_format log_format(void);

void log_write(enum log_level level, const char *file, int line, const char *fmt, ...) PRINTF(4, 5);

#define LOG_AT(level, ...)                                       \
    do {                                                         \
        if (log_is_enabled(level))                               \
            log_write((level), __FILE__, __LINE__, __VA_ARGS__); \
    } while (0)

#define log_info(...) LOG_AT(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warning(...) LOG_AT(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_error(...) LOG_AT(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_verbose(...) LOG_AT(LOG_LEVEL_VERBOSE, __VA_ARGS__)

#endif
