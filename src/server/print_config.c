#include "server/print_config.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "api/inproc.h"
#include "base/alarm.h"
#include "exec/backend.h"
#include "exec/version.h"
#include "model/configure.h"
#include "model/labels.h"
#include "model/registry.h"
#include "model/validate.h"
#include "proto/text.h"
#include "repository/local.h"
#include "server/server.h"

/* What it takes to load a version: a server without repositories and ports. */
struct bench {
    char *backend_directory;
    struct backends *backends;
    struct alarms *alarms;
    struct registry *registry; /* empty: a model that calls others finds none */
    struct tis_server plugin_view;
};

static void bench_fini(struct bench *b)
{
    registry_destroy(b->registry);
    alarms_destroy(b->alarms);
    backends_destroy(b->backends);
    free(b->backend_directory);
}

static bool may_complete(const struct options *o)
{
    return !o->strict_model_config && !o->disable_auto_complete_config;
}

static tis_error *bench_init(struct bench *b, const struct options *o, const char *executable)
{
    b->backend_directory = server_backend_directory(o, executable);
    if (!b->backend_directory)
        return error_no_memory();
    tis_error *err = backends_create(
        &(struct backends_options){
            .directory = b->backend_directory,
            .settings = o->backend_settings,
            .setting_count = (uint32_t)o->backend_setting_count,
            .auto_complete_config = may_complete(o),
        },
        &b->backends);
    if (!err)
        err = alarms_create(&b->alarms);
    if (!err)
        err = registry_create(&(struct registry_options){ .backends = b->backends,
                                                          .server = &b->plugin_view,
                                                          .load_thread_count = 1 },
                              &b->registry);
    b->plugin_view.registry = b->registry;
    return err;
}

/* The main thread may block, so the version ends at once. */
static void version_unused(struct tis_version *version, void *arg)
{
    (void)arg;
    version_destroy(version);
}

static const _Atomic bool never_stopping;

/* Loads the highest version that would be served, so that its backend completes the configuration. */
static tis_error *load(struct bench *b, const struct options *o, const char *directory,
                       struct model_config *config, struct model_config **ret_loaded)
{
    int64_t *versions = NULL;
    size_t count = 0;
    struct tis_version *version = NULL;

    tis_error *err = model_choose_versions(directory, config, &versions, &count);
    if (err)
        return err;
    err = version_create(
        &(struct tis_version_options){
            .backends = b->backends,
            .alarms = b->alarms,
            .server = &b->plugin_view,
            .model_name = config->name,
            .number = versions[count - 1],
            .directory = directory,
            .config = config,
            .auto_complete_config = may_complete(o),
            .hooks = { request_validate, local_read_file, &never_stopping },
            .on_unused = version_unused,
        },
        &version);
    free(versions);
    if (err)
        return err;
    if (version->config != config)
        err = labels_load(version->config, directory);
    if (!err)
        *ret_loaded = config_ref(version->config);
    version_unref(version);
    return err;
}

/* ---- Where a value came from ---- */

/* One field in the three states of the configuration, as text; "" when it is not set. */
struct stages {
    struct bytes file;
    struct bytes normal; /* names and defaults filled in */
    struct bytes loaded; /* completed by the backend */
};

static bool is_same(const struct bytes *a, const struct bytes *b)
{
    return a->len == b->len && memcmp(bytes_str(a), bytes_str(b), a->len) == 0;
}

/* What a field's default is taken from. */
static const char *default_source(const char *field)
{
    static const struct {
        const char *field;
        const char *source;
    } sources[] = {
        { "name", "the directory's name" },
        { "platform", "default, by the backend or the model file" },
        { "backend", "default, by the platform, the model file or the model's name" },
        { "default_model_filename", "default, by the platform or the backend" },
    };
    for (size_t i = 0; i < ARRAY_LEN(sources); i++)
        if (strcmp(sources[i].field, field) == 0)
            return sources[i].source;
    return "default";
}

static void append_source(struct bytes *out, const char *field, const struct stages *s,
                          const char *backend)
{
    bool derived = !is_same(&s->loaded, &s->normal);

    bytes_append_str(out, "\n# ");
    if (s->file.len) {
        bytes_append_str(out, "config.pbtxt");
        if (!is_same(&s->normal, &s->file))
            bytes_append_str(out, ", with defaults filled in");
        if (derived)
            bytes_printf(out, ", completed from the model by backend '%s'", backend);
    } else if (derived) {
        bytes_printf(out, "derived from the model by backend '%s'", backend);
    } else {
        bytes_append_str(out, default_source(field));
    }
    bytes_append_char(out, '\n');
}

static void append_field(struct bytes *out, const ProtobufCFieldDescriptor *f,
                         const struct configure_source *source, const struct model_config *normal,
                         const struct model_config *loaded)
{
    struct stages s = { 0 };
    text_append_field(&s.file, &source->raw->message->base, f);
    text_append_field(&s.normal, &normal->message->base, f);
    text_append_field(&s.loaded, &loaded->message->base, f);
    if (s.loaded.len) {
        append_source(out, f->name, &s, loaded->backend);
        bytes_append(out, bytes_str(&s.loaded), s.loaded.len);
    }
    out->failed |= s.file.failed || s.normal.failed || s.loaded.failed;
    bytes_fini(&s.file);
    bytes_fini(&s.normal);
    bytes_fini(&s.loaded);
}

static tis_error *print(const struct configure_source *source, const struct model_config *normal,
                        const struct model_config *loaded, FILE *out)
{
    const ProtobufCMessageDescriptor *desc = loaded->message->base.descriptor;
    struct bytes text = { 0 };
    tis_error *err = NULL;

    bytes_printf(&text,
                 "# The configuration with which trtserver " TIS_VERSION
                 " serves this model. Above "
                 "each field stands\n# where its value comes from%s.\n",
                 source->has_file ? "" : "; there is no config.pbtxt");
    for (unsigned i = 0; i < desc->n_fields; i++)
        append_field(&text, &desc->fields[i], source, normal, loaded);
    if (text.failed)
        err = error_no_memory();
    else if (fwrite(bytes_str(&text), 1, text.len, out) != text.len || fflush(out) != 0)
        err = error_new(TRITONSERVER_ERROR_UNAVAILABLE, "cannot write the configuration: %s",
                        strerror(errno));
    bytes_fini(&text);
    return err;
}

tis_error *print_model_config(const struct options *o, const char *executable, FILE *out)
{
    struct bench bench = { 0 };
    struct configure_source source = { 0 };
    struct model_config *normal = NULL, *loaded = NULL;

    char *directory = realpath(o->print_model_config, NULL);
    if (!directory)
        return error_new(TRITONSERVER_ERROR_NOT_FOUND, "cannot open '%s': %s",
                         o->print_model_config, strerror(errno));
    const char *name = strrchr(directory, '/') + 1; /* an absolute path has one */
    tis_error *err = bench_init(&bench, o, executable);
    if (!err)
        err = model_configure(name, directory, may_complete(o), &source, &normal);
    if (!err)
        err = load(&bench, o, directory, normal, &loaded);
    if (!err)
        err = print(&source, normal, loaded, out);
    config_unref(loaded);
    config_unref(normal);
    configure_source_fini(&source);
    bench_fini(&bench);
    free(directory);
    return err;
}
