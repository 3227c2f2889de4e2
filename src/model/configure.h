/* model/configure.h - the configuration of a model directory.
 *
 * Reads config.pbtxt, completes it from the names of directory and model files, checks it and reads
 * the label files. What only the model itself can say is left to its backend, in
 * TRITONBACKEND_ModelInitialize.
 *
 * Threads: any that may block.
 */
#ifndef TIS_MODEL_CONFIGURE_H
#define TIS_MODEL_CONFIGURE_H

#include "base/bytes.h"
#include "base/error.h"
#include "config/config.h"

/* Where the parts of a configuration came from, for whoever wants to show it. */
struct configure_source {
    char *path;    /* of config.pbtxt */
    bool has_file; /* there is one */
    char *text;    /* its text, text_len bytes; "" when there is none */
    size_t text_len;
    struct config_builder *raw; /* as in the file; empty when there is none */
};

/* The configuration of the model called `name` in `directory`, not yet completed by a backend.
 *   auto_complete  config.pbtxt may be missing or incomplete
 *   source         NULL, or filled, after an error with what was found; end it with
 *                  configure_source_fini()
 * Errors: NOT_FOUND    no config.pbtxt, and auto_complete is off
 *         INVALID_ARG  every problem of the file */
MUST_USE tis_error *model_configure(const char *name, const char *directory, bool auto_complete,
                                    struct configure_source *source,
                                    struct model_config **ret_config);

/* Appends the path of the model's config.pbtxt. */
void model_config_path(const char *directory, struct bytes *out);

void configure_source_fini(struct configure_source *source);

/* The versions that the policy chooses among the directories, ascending; free() them.
 * Errors: INVALID_ARG  there is none */
MUST_USE tis_error *model_choose_versions(const char *directory, const struct model_config *config,
                                          int64_t **ret_versions, size_t *ret_count);

#endif
