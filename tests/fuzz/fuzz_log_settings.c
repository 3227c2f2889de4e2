/* Any bytes as a change of the log's settings, in JSON or as a message by the first byte: an error with
 * words, or settings that can be written in both forms, read back, and then are the same.
 *
 * Parses: src/api/v2/log_settings.c */
#include <stdlib.h>
#include <string.h>

#include "api/v2/log_settings.h"
#include "fuzz/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The file cannot be changed, so what was written is not quite what may be read. */
static void check_same(void)
{
    struct bytes json = { 0 }, message = { 0 }, again = { 0 };
    log_settings_append_json(&json);
    log_settings_append_message(&message);
    static const char file[] = "\"log_file\":\"\",";
    char *at = strstr(json.data, file);
    must(at != NULL);
    memset(at, ' ', sizeof(file) - 1);
    must(log_settings_change_json(json.data, json.len) == NULL);
    log_settings_append_message(&again);
    must(again.len == message.len && memcmp(again.data, message.data, again.len) == 0);
    bytes_fini(&json);
    bytes_fini(&message);
    bytes_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    char *text = exact_copy(data + 1, size - 1);
    tis_error *err = data[0] == '{' ? log_settings_change_json(text, size - 1)
                                    : log_settings_change_message(text, size - 1);
    must(!err || *error_text(err));
    error_free(err);
    check_same();
    free(text);
    return 0;
}
