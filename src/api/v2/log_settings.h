/* api/v2/log_settings.h - the settings of the log, as the v2 protocol shows and changes them.
 *
 * A request changes all that it names, or nothing. A setting without a value (JSON's null, an empty
 * SettingValue) stays as it is.
 *
 * Threads: any.
 */
#ifndef TIS_API_V2_LOG_SETTINGS_H
#define TIS_API_V2_LOG_SETTINGS_H

#include <stddef.h>

#include "base/bytes.h"
#include "base/error.h"

/* Errors of both: INVALID_ARG; UNSUPPORTED for the log's file. */

/* From the body of POST /v2/logging, which may be empty. */
MUST_USE tis_error *log_settings_change_json(const char *body, size_t len);
/* From a LogSettingsRequest. */
MUST_USE tis_error *log_settings_change_message(const char *message, size_t len);

/* The settings as an object, and as a LogSettingsResponse. */
void log_settings_append_json(struct bytes *out);
void log_settings_append_message(struct bytes *out);

#endif
