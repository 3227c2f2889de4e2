#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"

enum {
    ENTRY_BYTES_MAX = 64 << 10
};

static _Atomic bool enabled[] = {
    [LOG_LEVEL_INFO] = true,
    [LOG_LEVEL_WARNING] = true,
    [LOG_LEVEL_ERROR] = true,
    [LOG_LEVEL_VERBOSE] = false,
};
static _Atomic uint32_t verbose_level;
static _Atomic uint32_t current_format = LOG_FORMAT_DEFAULT;

void log_set_enabled(enum log_level level, bool on)
{
    atomic_store_explicit(&enabled[level], on, memory_order_relaxed);
}

bool log_is_enabled(enum log_level level)
{
    return atomic_load_explicit(&enabled[level], memory_order_relaxed);
}

void log_set_verbose_level(uint32_t level)
{
    atomic_store_explicit(&verbose_level, level, memory_order_relaxed);
    log_set_enabled(LOG_LEVEL_VERBOSE, level > 0);
}

uint32_t log_verbose_level(void)
{
    return atomic_load_explicit(&verbose_level, memory_order_relaxed);
}

void log_set_format(enum log_format format)
{
    atomic_store_explicit(&current_format, format, memory_order_relaxed);
}

enum log_format log_format(void)
{
    return atomic_load_explicit(&current_format, memory_order_relaxed);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* A text from outside may hold line breaks or control bytes; an entry stays one line. */
static void blank_controls(char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)s[i] < 0x20)
            s[i] = ' ';
    }
}

static void append_head(struct bytes *entry, enum log_level level)
{
    static const char letters[] = { 'I', 'W', 'E', 'I' };
    struct timespec ts;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    if (log_format() == LOG_FORMAT_ISO8601)
        bytes_printf(entry, "%04d-%02d-%02dT%02d:%02d:%02dZ %c", tm.tm_year + 1900, tm.tm_mon + 1,
                     tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, letters[level]);
    else
        bytes_printf(entry, "%c%02d%02d %02d:%02d:%02d.%06ld", letters[level], tm.tm_mon + 1,
                     tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ts.tv_nsec / 1000);
}

void log_write(enum log_level level, const char *file, int line, const char *fmt, ...)
{
    struct bytes entry = { 0 };
    append_head(&entry, level);
    bytes_printf(&entry, " %ld %s:%d] ", (long)getpid(), base_name(file), line);
    va_list args;
    va_start(args, fmt);
    bytes_vprintf(&entry, fmt, args);
    va_end(args);
    if (entry.data) {
        if (entry.len > ENTRY_BYTES_MAX)
            entry.len = ENTRY_BYTES_MAX; /* a plug-in printed a whole model: its begin will do */
        blank_controls(entry.data, entry.len);
        entry.data[entry.len] = '\n'; /* over the NUL: the text ends here */
        ssize_t written = write(STDERR_FILENO, entry.data, entry.len + 1);
        (void)written; /* a log that cannot be written has nowhere to say so */
    }
    bytes_fini(&entry);
}
