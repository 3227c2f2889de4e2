/* base/error.h - the one error type, from plug-in to socket.
 *
 * An error is a code and one sentence; NULL is success. It is the plug-in ABI's error object, so
 * nothing is converted at that border. An error that a client can see may carry a *reason* and the
 * reason's arguments beside the sentence, from which each protocol dialect makes its own text (see
 * infer/reason.h); to this file a reason is a number.
 *
 * Ownership: whoever receives an error frees it, or passes it on. Out of memory is one static
 * object, so reporting it cannot fail; freeing it does nothing.
 * Threads:   any; an error belongs to one thread at a time.
 *
 * Text: what was asked, which object, what was found, what would be right. Lower case, no full
 * stop, strings that came from outside in single quotes.
 */
#ifndef TIS_BASE_ERROR_H
#define TIS_BASE_ERROR_H

#include <stdarg.h>
#include <stdint.h>

#include "base/attr.h"
#include "tis/backend.h"

typedef struct tis_error tis_error;

enum {
    ERROR_REASON_NONE = 0,
    ERROR_ARGS_MAX = 6,
};

/* New error with a printf-style text. Never NULL. */
MUST_USE NEVER_NULL tis_error *error_new(TRITONSERVER_Error_Code code, const char *fmt, ...)
    PRINTF(2, 3);
MUST_USE NEVER_NULL tis_error *error_newv(TRITONSERVER_Error_Code code, const char *fmt,
                                          va_list args);

/* New error with a reason: `text` is the sentence, args[0..count) the reason's arguments, all
 * copied; count <= ERROR_ARGS_MAX. */
MUST_USE NEVER_NULL tis_error *error_new_reason(TRITONSERVER_Error_Code code, uint16_t reason,
                                                const char *text, const char *const *args,
                                                uint32_t count);

/* Puts context before the text: "<context>: <text>". Keeps the code, drops the reason. Takes err;
 * NULL stays NULL. Once per boundary, not per frame. */
MUST_USE tis_error *error_wrap(tis_error *err, const char *fmt, ...) PRINTF(2, 3);

MUST_USE tis_error *error_copy(const tis_error *err);
MUST_USE NEVER_NULL tis_error *error_no_memory(void);
void error_free(tis_error *err);

/* Lends err to somebody who may or may not free it: error_free() does nothing to it until its owner
 * calls error_free_lent(), which also takes errors that were never lent. Returns err. */
tis_error *error_lend(tis_error *err);
void error_free_lent(tis_error *err);

TRITONSERVER_Error_Code error_code(const tis_error *err);
const char *error_text(const tis_error *err);
uint16_t error_reason(const tis_error *err);

/* The reason's argument `index`, "" when there is none. Valid as long as the error. */
const char *error_arg(const tis_error *err, uint32_t index);

/* "Unknown", "Internal", "Not found", "Invalid argument", ... (the ABI's words). */
const char *error_code_name(TRITONSERVER_Error_Code code);

#endif
