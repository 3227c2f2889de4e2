#include "model/labels.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "repository/local.h"

enum {
    LABEL_BYTES_MAX = 32 << 20
};

static tis_error *load_one(struct model_config *config, uint32_t output,
                           const char *model_directory)
{
    const struct tensor_spec *spec = &config->outputs[output];
    if (strstr(spec->label_filename, "..") || spec->label_filename[0] == '/')
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "label_filename '%s' must be a file below the model's directory",
                         spec->label_filename);
    struct bytes path = { 0 };
    char *text = NULL;
    size_t len = 0;
    bytes_printf(&path, "%s/%s", model_directory, spec->label_filename);
    tis_error *err = local_read_file(bytes_str(&path), LABEL_BYTES_MAX, &text, &len);
    if (!err)
        err = config_set_labels(config, output, text, len);
    free(text);
    bytes_fini(&path);
    return err;
}

tis_error *labels_load(struct model_config *config, const char *model_directory)
{
    for (uint32_t i = 0; i < config->output_count; i++) {
        if (!config->outputs[i].label_filename[0] || config->outputs[i].label_count > 0)
            continue;
        tis_error *err = load_one(config, i, model_directory);
        if (err)
            return error_wrap(err, "model '%s' labels of output '%s'", config->name,
                              config->outputs[i].name);
    }
    return NULL;
}
