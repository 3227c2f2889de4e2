/* model/labels.h - names of classes, one a line, from the files that a configuration's outputs name.
 *
 * Threads: before the configuration is shared.
 */
#ifndef TIS_MODEL_LABELS_H
#define TIS_MODEL_LABELS_H

#include "base/error.h"
#include "config/config.h"

/* Reads the label_filename of every output of config below `model_directory` into its tensor_spec.
 * Errors: a file is missing, too large, or lies outside the directory. */
MUST_USE tis_error *labels_load(struct model_config *config, const char *model_directory);

#endif
