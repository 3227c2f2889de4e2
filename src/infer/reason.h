/* infer/reason.h - why a request was refused, apart from how a protocol says it.
 *
 * The dialects (0.9, 1.x, v2) word the same refusal differently and give it different codes. So the
 * core names a reason and its arguments; the sentence here is today's (v2), and api/status.c holds
 * the tables of the older dialects.
 */
#ifndef TIS_INFER_REASON_H
#define TIS_INFER_REASON_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

/* Arguments are given in this order. */
enum reason {
    REASON_NONE,
    REASON_MODEL_UNKNOWN,       /* model */
    REASON_VERSION_UNKNOWN,     /* model, version */
    REASON_MODEL_NO_VERSION,    /* model */
    REASON_VERSION_NOT_READY,   /* model, version */
    REASON_VERSION_INVALID,     /* text */
    REASON_SERVER_EXITING,      /* - */
    REASON_CONTROL_OFF,         /* - */
    REASON_SERVER_NOT_READY,    /* - */
    REASON_INPUT_COUNT,         /* model, expected, got, names got, names missing */
    REASON_INPUT_UNKNOWN,       /* model, input */
    REASON_INPUT_TWICE,         /* model, input */
    REASON_OUTPUT_UNKNOWN,      /* model, output */
    REASON_INPUT_TYPE,          /* model, input, type got, type expected */
    REASON_INPUT_SHAPE,         /* model, input, expected, got, note */
    REASON_INPUT_SHAPE_MISSING, /* model, input */
    REASON_INPUT_DIMS,          /* model, input, shape */
    REASON_INPUT_BYTES,         /* model, input, expected, got */
    REASON_BATCH_ZERO,          /* model */
    REASON_BATCH_TOO_LARGE,     /* model, max, got; by v1 also: instance */
    REASON_BATCH_MISMATCH,      /* model, input */
    REASON_BATCH_MISSING,       /* model, input */
    REASON_BODY_SHORT,          /* model, input, bytes missing, bytes expected, bytes got */
    REASON_BODY_LONG,           /* model */
    REASON_RAW_MISSING,         /* model, entries of raw_input got */
    REASON_RAW_BYTES,           /* model, input, bytes expected, bytes got */
    REASON_STRING_COUNT,        /* model, input, expected, got */
    REASON_STRING_LENGTH,       /* model, input, expected, got */
    REASON_STRING_DATA,         /* model, input, expected, got */
    REASON_CANCELLED,           /* - */
    REASON_QUEUE_FULL,          /* - */
    REASON_QUEUE_TIMEOUT,       /* - */
    REASON_CLASS_TYPE,          /* output, configuration type */
    REASON_COUNT,
};

struct reason_text {
    TRITONSERVER_Error_Code code;
    /* {0} {1} ... stand for the arguments; NULL in an older dialect's table: as here. */
    const char *text;
};

/* today's */
extern const struct reason_text reason_texts[REASON_COUNT];

/* An error with this reason: reason_error(REASON_INPUT_UNKNOWN, model, input). */
#define reason_error(reason, ...)                       \
    reason_error_args(                                  \
        (reason), (const char *const[]){ __VA_ARGS__ }, \
        (uint32_t)(sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(const char *)))
MUST_USE NEVER_NULL tis_error *reason_error_args(enum reason reason, const char *const *args,
                                                 uint32_t count);

/* Writes `text` with its {n} replaced by err's arguments. */
void reason_expand(struct bytes *out, const char *text, const tis_error *err);

/* A number as an argument; the storage lives as long as the enclosing block. */
#define REASON_NUMBER(value) reason_number((char[24]){ 0 }, (uint64_t)(value))
const char *reason_number(char *storage24, uint64_t value);

#endif
