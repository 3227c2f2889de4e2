/* server/print_config.h - `trtserver --print-model-config=MODEL_DIR`.
 *
 * Loads one model without a server around it and writes the configuration that it would be served
 * with as config.pbtxt. Above each field a comment says where its value came from: the file, the
 * defaults, or the model through its backend.
 *
 * Threads: main.
 */
#ifndef TIS_SERVER_PRINT_CONFIG_H
#define TIS_SERVER_PRINT_CONFIG_H

#include <stdio.h>

#include "base/error.h"
#include "server/options.h"

/* executable: the path of this program, near which backends are looked for.
 * Errors: what a server would say about the model */
MUST_USE tis_error *print_model_config(const struct options *o, const char *executable, FILE *out);

#endif
