#include "model/configure.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/processors.h"
#include "model/labels.h"
#include "repository/local.h"

enum {
    VERSIONS_LOOKED_AT_MAX = 16, /* the highest; model files have the same name in all of them */
};

/* ---- The names of the model files ---- */

struct file_names {
    char **names;
    size_t count;
};

static void file_names_fini(struct file_names *files)
{
    local_free_names(files->names, files->count);
    *files = (struct file_names){ 0 };
}

/* Takes the names of one directory. */
static bool file_names_take(struct file_names *files, char **names, size_t count)
{
    char **grown = realloc(files->names, (files->count + count + 1) * sizeof(*grown));
    if (!grown) {
        local_free_names(names, count);
        return false;
    }
    files->names = grown;
    if (count)
        memcpy(grown + files->count, names, count * sizeof(*names));
    files->count += count;
    free(names);
    return true;
}

/* What cannot be read is as good as empty: loading the version will say why. */
static tis_error *list_version_files(const char *directory, struct file_names *files)
{
    int64_t *versions = NULL;
    size_t version_count = 0;
    tis_error *err = local_list_versions(directory, &versions, &version_count);
    size_t first =
        version_count > VERSIONS_LOOKED_AT_MAX ? version_count - VERSIONS_LOOKED_AT_MAX : 0;
    for (size_t i = first; i < version_count && !err; i++) {
        struct bytes path = { 0 };
        char **names = NULL;
        size_t count = 0;
        bytes_printf(&path, "%s/%" PRId64, directory, versions[i]);
        error_free(local_list_files(bytes_str(&path), &names, &count));
        bytes_fini(&path);
        if (!file_names_take(files, names, count))
            err = error_no_memory();
    }
    free(versions);
    if (err)
        file_names_fini(files);
    return err;
}

/* ---- Reading ---- */

static bool is_given(const char *text)
{
    return text && *text;
}

static tis_error *read_file(const char *name, bool auto_complete, struct configure_source *source,
                            struct config_builder **ret_builder)
{
    const char *path = source->path;
    tis_error *err = local_read_file(path, CONFIG_TEXT_BYTES_MAX, &source->text, &source->text_len);
    bool missing = err && error_code(err) == TRITONSERVER_ERROR_NOT_FOUND;
    if (missing) {
        error_free(err);
        err = auto_complete
                  ? config_create_empty(ret_builder)
                  : error_new(TRITONSERVER_ERROR_NOT_FOUND,
                              "model '%s' has no config.pbtxt (expected '%s'), and the server "
                              "may not derive one from the model (--strict-model-config, "
                              "--disable-auto-complete-config)",
                              name, path);
    } else if (!err) {
        err = config_parse_text(source->text, source->text_len, path, ret_builder);
    }
    source->has_file = !missing;
    if (missing)
        source->text = strdup("");
    return err;
}

/* Problems of an incomplete file are shown together with what is missing, so that one run shows
 * everything. */
static tis_error *validate(const struct config_builder *b, struct config_context *context)
{
    tis_error *err = config_validate(b, context);
    if (!err || !context->incomplete)
        return err;
    error_free(err);
    context->incomplete = false;
    return config_validate(b, context);
}

static tis_error *complete(const char *name, const char *directory, bool auto_complete,
                           struct config_builder **b, struct model_config **ret_config)
{
    struct config_context context = { .directory_name = name,
                                      .processor_count = processors_usable(),
                                      .incomplete = auto_complete };
    struct file_names files = { 0 };
    tis_error *err = NULL;

    if (auto_complete && !is_given((*b)->message->platform))
        err = list_version_files(directory, &files);
    context.version_files = (const char *const *)files.names;
    context.version_file_count = files.count;
    if (!err)
        err = config_normalize(*b, &context);
    if (!err)
        err = validate(*b, &context);
    if (!err)
        err = config_finish(b, ret_config);
    file_names_fini(&files);
    return err;
}

void model_config_path(const char *directory, struct bytes *out)
{
    bytes_printf(out, "%s/config.pbtxt", directory);
}

tis_error *model_configure(const char *name, const char *directory, bool auto_complete,
                           struct configure_source *source, struct model_config **ret_config)
{
    struct bytes path = { 0 };
    struct configure_source found = { 0 };
    struct config_builder *builder = NULL;
    struct model_config *config = NULL;

    model_config_path(directory, &path);
    found.path = bytes_steal(&path);
    tis_error *err =
        found.path ? read_file(name, auto_complete, &found, &builder) : error_no_memory();
    if (!err && source)
        err = config_builder_copy(builder, &found.raw);
    if (!err)
        err = complete(name, directory, auto_complete, &builder, &config);
    if (err && found.path && !found.has_file && auto_complete)
        err = error_wrap(err, "no config.pbtxt (expected '%s'), and other names do not tell enough",
                         found.path);
    if (!err)
        err = labels_load(config, directory);
    config_builder_destroy(builder);
    if (source)
        *source = found;
    else
        configure_source_fini(&found);
    if (err) {
        config_unref(config);
        return err;
    }
    *ret_config = config;
    return NULL;
}

void configure_source_fini(struct configure_source *source)
{
    config_builder_destroy(source->raw);
    free(source->path);
    free(source->text);
    *source = (struct configure_source){ 0 };
}

tis_error *model_choose_versions(const char *directory, const struct model_config *config,
                                 int64_t **ret_versions, size_t *ret_count)
{
    int64_t *available = NULL;
    size_t available_count = 0;
    size_t count = 0;
    tis_error *err = local_list_versions(directory, &available, &available_count);
    if (err)
        return err;
    int64_t *versions = calloc(available_count + 1, sizeof(*versions));
    if (!versions) {
        free(available);
        return error_no_memory();
    }
    config_select_versions(config->message->version_policy, available, available_count, versions,
                           &count);
    free(available);
    if (count == 0) {
        free(versions);
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "at least one version must be available under the version policy of model "
                         "'%s'",
                         config->name);
    }
    *ret_versions = versions;
    *ret_count = count;
    return NULL;
}
