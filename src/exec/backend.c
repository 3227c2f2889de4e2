#include "exec/backend.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/log.h"
#include "exec/host_alias.h"
#include "exec/plugin_call.h"
#include "proto/json.h"

_Thread_local struct plugin_call plugin_call;

tis_error *misuse(const char *what)
{
    const struct plugin_call *c = &plugin_call;
    log_error("backend misuse: %s%s%s%s%s", what, c->entry ? " backend=" : "",
              c->entry ? c->backend : "", c->entry && c->model ? " model=" : "",
              c->entry && c->model ? c->model : "");
    return error_new(TRITONSERVER_ERROR_INVALID_ARG, "%s", what);
}

struct backends {
    /* set at creation, then constant */
    char *directory;
    const struct backend_setting *settings;
    uint32_t setting_count;
    bool auto_complete_config;
    /* under lock */
    struct lock lock;
    struct tis_backend *first;
};

static void backend_destroy(struct tis_backend *b)
{
    if (!b)
        return;
    free(b->name);
    free(b->path);
    free(b->directory);
    free(b->config.text);
    free(b);
}

tis_error *backends_create(const struct backends_options *options, struct backends **ret_backends)
{
    struct backends *b = calloc(1, sizeof(*b));
    if (!b)
        return error_no_memory();
    b->directory = strdup(options->directory);
    if (!b->directory) {
        free(b);
        return error_no_memory();
    }
    b->settings = options->settings;
    b->setting_count = options->setting_count;
    b->auto_complete_config = options->auto_complete_config;
    lock_init(&b->lock, LOCK_BACKENDS);
    *ret_backends = b;
    return NULL;
}

static void backend_finalize(struct tis_backend *b)
{
    if (!b->entries.finalize)
        return;
    plugin_call_begin("TRITONBACKEND_Finalize", b->name, NULL, 0);
    tis_error *err = b->entries.finalize(b);
    plugin_call_end();
    if (err)
        log_warning("backend finalize failed backend=%s error=\"%s\"", b->name, error_text(err));
    error_free(err);
}

void backends_destroy(struct backends *b)
{
    if (!b)
        return;
    for (struct tis_backend *it = b->first, *next; it; it = next) {
        next = it->next;
        backend_finalize(it);
        backend_destroy(it);
    }
    lock_fini(&b->lock);
    free(b->directory);
    free(b);
}

static void append_pair(struct bytes *out, bool *first, const char *key, const char *value)
{
    if (!*first)
        bytes_append_char(out, ',');
    *first = false;
    json_append_string(out, key, strlen(key));
    bytes_append_char(out, ':');
    json_append_string(out, value, strlen(value));
}

/* Is there a later or more specific setting of the same key? */
static bool setting_is_overridden(const struct backends *b, uint32_t index, const char *name)
{
    const struct backend_setting *s = &b->settings[index];
    for (uint32_t i = 0; i < b->setting_count; i++) {
        const struct backend_setting *other = &b->settings[i];
        bool applies = other->backend[0] == '\0' || strcmp(other->backend, name) == 0;
        bool stronger = (other->backend[0] != '\0') > (s->backend[0] != '\0') ||
                        ((other->backend[0] != '\0') == (s->backend[0] != '\0') && i > index);
        if (applies && stronger && strcmp(other->key, s->key) == 0)
            return true;
    }
    return false;
}

static bool setting_exists(const struct backends *b, const char *key, const char *name)
{
    for (uint32_t i = 0; i < b->setting_count; i++) {
        const struct backend_setting *s = &b->settings[i];
        if ((s->backend[0] == '\0' || strcmp(s->backend, name) == 0) && strcmp(s->key, key) == 0)
            return true;
    }
    return false;
}

/* {"cmdline":{...}}: what the command line says for this backend, over the global defaults. */
static tis_error *build_config(const struct backends *b, const char *name,
                               struct tis_message *ret_config)
{
    const struct {
        const char *key;
        const char *value;
    } defaults[] = {
        { "auto-complete-config", b->auto_complete_config ? "true" : "false" },
        { "backend-directory", b->directory },
        { "min-compute-capability", "6.000000" },
        { "default-max-batch-size", "4" },
    };
    struct bytes out = { 0 };
    bool first = true;

    bytes_append_str(&out, "{\"cmdline\":{");
    for (size_t i = 0; i < ARRAY_LEN(defaults); i++) {
        if (!setting_exists(b, defaults[i].key, name))
            append_pair(&out, &first, defaults[i].key, defaults[i].value);
    }
    for (uint32_t i = 0; i < b->setting_count; i++) {
        const struct backend_setting *s = &b->settings[i];
        if ((s->backend[0] == '\0' || strcmp(s->backend, name) == 0) &&
            !setting_is_overridden(b, i, name))
            append_pair(&out, &first, s->key, s->value);
    }
    bytes_append_str(&out, "}}");

    ret_config->len = out.len;
    ret_config->text = bytes_steal(&out);
    return ret_config->text ? NULL : error_no_memory();
}

bool plugin_file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* Where a backend was found; malloc'ed strings. */
struct location {
    char *library;
    char *directory; /* with the backend's files */
    bool is_python_based;
};

static void location_fini(struct location *l)
{
    free(l->library);
    free(l->directory);
}

/* A backend written in Python is a model.py in its directory, run by the library of the python
 * backend. False when there is no such pair. */
static bool find_python_based(const struct backends *b, const char *name, struct location *l)
{
    struct bytes paths[3] = { 0 };
    bytes_printf(&paths[0], "%s/%s/model.py", b->directory, name);
    bytes_printf(&paths[1], "%s/python/libtriton_python.so", b->directory);
    bytes_printf(&paths[2], "%s/%s", b->directory, name);
    bool found =
        plugin_file_exists(bytes_str(&paths[0])) && plugin_file_exists(bytes_str(&paths[1]));
    if (found) {
        l->library = bytes_steal(&paths[1]);
        l->directory = bytes_steal(&paths[2]);
        l->is_python_based = true;
    }
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        bytes_fini(&paths[i]);
    return found;
}

/* The first of the search order. */
static tis_error *find_library(const struct backends *b, const char *name, const char *library,
                               const char *model_directory, const char *version_directory,
                               struct location *ret_location)
{
    if (strchr(name, '/') || strchr(library, '/') || name[0] == '.' || name[0] == '\0')
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "backend name '%s' and runtime '%s' must be plain names without '/'", name,
                         library);

    struct bytes file = { 0 };
    if (library[0])
        bytes_append_str(&file, library);
    else
        bytes_printf(&file, "libtriton_%s.so", name);

    struct bytes paths[3] = { 0 };
    bytes_printf(&paths[0], "%s/%s", version_directory, bytes_str(&file));
    bytes_printf(&paths[1], "%s/%s", model_directory, bytes_str(&file));
    bytes_printf(&paths[2], "%s/%s/%s", b->directory, name, bytes_str(&file));

    struct location found = { 0 };
    for (size_t i = 0; i < ARRAY_LEN(paths) && !found.library; i++) {
        if (plugin_file_exists(bytes_str(&paths[i])))
            found.library = bytes_steal(&paths[i]);
    }
    tis_error *err = NULL;
    if (found.library)
        found.directory =
            strndup(found.library, (size_t)(strrchr(found.library, '/') - found.library));
    else if (!find_python_based(b, name, &found))
        err = error_new(TRITONSERVER_ERROR_INVALID_ARG,
                        "unable to find backend library for backend '%s', searched: %s, %s, %s "
                        "(--backend-directory names the last one's root)",
                        name, bytes_str(&paths[0]), bytes_str(&paths[1]), bytes_str(&paths[2]));
    if (!err && (!found.library || !found.directory)) {
        location_fini(&found);
        err = error_no_memory();
    }
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        bytes_fini(&paths[i]);
    bytes_fini(&file);
    if (!err)
        *ret_location = found;
    return err;
}

/* Under the lock. */
static tis_error *open_library(const char *path, void **ret_handle)
{
    tis_error *err = host_alias_provide(path);
    if (err)
        return err;
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG, "unable to load backend library: %s",
                         dlerror());
    *ret_handle = handle;
    return NULL;
}

static tis_error *load_entries(void *handle, const char *path, struct backend_entries *e)
{
    const struct {
        const char *symbol;
        void *slot;
    } table[] = {
        { "TRITONBACKEND_Initialize", &e->initialize },
        { "TRITONBACKEND_Finalize", &e->finalize },
        { "TRITONBACKEND_GetBackendAttribute", &e->attributes },
        { "TRITONBACKEND_ModelInitialize", &e->model_initialize },
        { "TRITONBACKEND_ModelFinalize", &e->model_finalize },
        { "TRITONBACKEND_ModelInstanceInitialize", &e->instance_initialize },
        { "TRITONBACKEND_ModelInstanceFinalize", &e->instance_finalize },
        { "TRITONBACKEND_ModelInstanceExecute", &e->execute },
        { "TRITONBACKEND_ModelInstanceReady", &e->instance_ready },
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        void *function = dlsym(handle, table[i].symbol);
        memcpy(table[i].slot, &function, sizeof(function));
    }
    if (!e->execute)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "backend library '%s' does not export TRITONBACKEND_ModelInstanceExecute, "
                         "so it is not a backend",
                         path);
    return NULL;
}

static tis_error *backend_initialize(struct tis_backend *b)
{
    tis_error *err = NULL;
    if (b->entries.initialize) {
        plugin_call_begin("TRITONBACKEND_Initialize", b->name, NULL, 0);
        err = b->entries.initialize(b);
        plugin_call_end();
    }
    if (!err && b->entries.attributes) {
        plugin_call_begin("TRITONBACKEND_GetBackendAttribute", b->name, NULL, 0);
        err = b->entries.attributes(b, &b->attribute);
        plugin_call_end();
    }
    /* Triton finalizes a backend whose initialize failed; plug-ins rely on it. */
    if (err)
        backend_finalize(b);
    return error_wrap(err, "initializing backend '%s' (%s)", b->name, b->path);
}

/* Under the lock. Takes *location. */
static tis_error *backend_create(struct backends *owner, const char *name,
                                 struct location *location, struct tis_backend **ret_backend)
{
    tis_error *err = NULL;
    void *handle;
    struct tis_backend *b = calloc(1, sizeof(*b));
    if (!b)
        return error_no_memory();
    b->path = location->library;
    b->directory = location->directory;
    bool is_python_based = location->is_python_based;
    *location = (struct location){ 0 };
    b->name = strdup(name);
    b->auto_complete_config = owner->auto_complete_config;
    if (!b->name) {
        err = error_no_memory();
        goto out;
    }
    err = build_config(owner, is_python_based ? "python" : name, &b->config);
    if (err)
        goto out;

    err = open_library(b->path, &handle);
    if (err)
        goto out;
    err = load_entries(handle, b->path, &b->entries);
    if (err)
        goto out;
    err = backend_initialize(b);
    if (err)
        goto out;

    log_info("backend loaded backend=%s file=%s", b->name, b->path);
    *ret_backend = b;
    b = NULL;
out:
    backend_destroy(b);
    return err;
}

tis_error *backends_open(struct backends *b, const char *name, const char *library,
                         const char *model_directory, const char *version_directory,
                         struct tis_backend **ret_backend)
{
    struct location location;
    tis_error *err = find_library(b, name, library, model_directory, version_directory, &location);
    if (err)
        return err;

    lock_take(&b->lock);
    struct tis_backend *found = b->first;
    while (found && (strcmp(found->path, location.library) != 0 || strcmp(found->name, name) != 0))
        found = found->next;
    if (!found) {
        err = backend_create(b, name, &location, &found);
        if (!err) {
            found->next = b->first;
            b->first = found;
        }
    }
    lock_release(&b->lock);
    location_fini(&location);
    if (err)
        return err;
    *ret_backend = found;
    return NULL;
}

tis_error *backends_open_library(struct backends *b, const char *path, void **ret_handle)
{
    lock_take(&b->lock);
    tis_error *err = open_library(path, ret_handle);
    lock_release(&b->lock);
    return err;
}

const char *backends_directory(const struct backends *b)
{
    return b->directory;
}
