#include "base/error.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tis_error {
    TRITONSERVER_Error_Code code;
    uint16_t reason;
    uint16_t arg_count;
    bool is_lent;
    const char *args[ERROR_ARGS_MAX]; /* point into text[], behind the sentence */
    char text[];
};

/* A flexible array member can be initialised statically (GNU C). */
static struct tis_error no_memory = {
    .code = TRITONSERVER_ERROR_UNAVAILABLE,
    .text = "out of memory",
};

tis_error *error_no_memory(void)
{
    return &no_memory;
}

static struct tis_error *allocate(TRITONSERVER_Error_Code code, size_t text_bytes)
{
    struct tis_error *err = calloc(1, sizeof(*err) + text_bytes);
    if (!err)
        return &no_memory;
    err->code = code;
    return err;
}

tis_error *error_newv(TRITONSERVER_Error_Code code, const char *fmt, va_list args)
{
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (len < 0)
        len = 0;

    struct tis_error *err = allocate(code, (size_t)len + 1);
    if (err != &no_memory)
        vsnprintf(err->text, (size_t)len + 1, fmt, args);
    return err;
}

tis_error *error_new(TRITONSERVER_Error_Code code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    tis_error *err = error_newv(code, fmt, args);
    va_end(args);
    return err;
}

tis_error *error_new_reason(TRITONSERVER_Error_Code code, uint16_t reason, const char *text,
                            const char *const *args, uint32_t count)
{
    if (count > ERROR_ARGS_MAX)
        count = ERROR_ARGS_MAX;
    size_t bytes = strlen(text) + 1;
    for (uint32_t i = 0; i < count; i++)
        bytes += strlen(args[i]) + 1;

    struct tis_error *err = allocate(code, bytes);
    if (err == &no_memory)
        return err;
    err->reason = reason;
    err->arg_count = (uint16_t)count;

    char *at = err->text;
    size_t len = strlen(text) + 1;
    memcpy(at, text, len);
    at += len;
    for (uint32_t i = 0; i < count; i++) {
        len = strlen(args[i]) + 1;
        err->args[i] = memcpy(at, args[i], len);
        at += len;
    }
    return err;
}

tis_error *error_wrap(tis_error *err, const char *fmt, ...)
{
    if (!err || err == &no_memory)
        return err;

    char context[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(context, sizeof(context), fmt, args);
    va_end(args);

    tis_error *wrapped = error_new(err->code, "%s: %s", context, err->text);
    error_free(err);
    return wrapped;
}

tis_error *error_copy(const tis_error *err)
{
    if (!err)
        return NULL;
    if (err == &no_memory)
        return &no_memory;
    return error_new_reason(err->code, err->reason, err->text, err->args, err->arg_count);
}

void error_free(tis_error *err)
{
    if (err && err != &no_memory && !err->is_lent)
        free(err);
}

tis_error *error_lend(tis_error *err)
{
    if (err && err != &no_memory)
        err->is_lent = true;
    return err;
}

void error_free_lent(tis_error *err)
{
    if (err && err != &no_memory)
        err->is_lent = false;
    error_free(err);
}

TRITONSERVER_Error_Code error_code(const tis_error *err)
{
    return err->code;
}

const char *error_text(const tis_error *err)
{
    return err->text;
}

uint16_t error_reason(const tis_error *err)
{
    return err->reason;
}

const char *error_arg(const tis_error *err, uint32_t index)
{
    return index < err->arg_count ? err->args[index] : "";
}

const char *error_code_name(TRITONSERVER_Error_Code code)
{
    static const char *const names[] = {
        [TRITONSERVER_ERROR_UNKNOWN] = "Unknown",
        [TRITONSERVER_ERROR_INTERNAL] = "Internal",
        [TRITONSERVER_ERROR_NOT_FOUND] = "Not found",
        [TRITONSERVER_ERROR_INVALID_ARG] = "Invalid argument",
        [TRITONSERVER_ERROR_UNAVAILABLE] = "Unavailable",
        [TRITONSERVER_ERROR_UNSUPPORTED] = "Unsupported",
        [TRITONSERVER_ERROR_ALREADY_EXISTS] = "Already exists",
        [TRITONSERVER_ERROR_CANCELLED] = "Cancelled",
    };
    return (size_t)code < ARRAY_LEN(names) ? names[code] : "<invalid code>";
}
