#include "exec/batch_strategy.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "exec/plugin_call.h"

#define PATH_PARAMETER "TRITON_BATCH_STRATEGY_PATH"

struct batch_strategy {
    /* set at creation, then constant */
    struct tis_version *version;
    TRITONBACKEND_Batcher *batcher; /* the strategy's */
    TRITONSERVER_Error *(*batcher_initialize)(TRITONBACKEND_Batcher **, TRITONBACKEND_Model *);
    TRITONSERVER_Error *(*batcher_finalize)(TRITONBACKEND_Batcher *);
    TRITONSERVER_Error *(*batch_initialize)(const TRITONBACKEND_Batcher *, void **);
    TRITONSERVER_Error *(*include)(TRITONBACKEND_Request *, void *, bool *);
    TRITONSERVER_Error *(*batch_finalize)(void *);
    /* whoever chooses */
    bool has_failed;
};

/* ---- The library ---- */

static const char *path_parameter(const Inference__ModelConfig *pb)
{
    for (size_t i = 0; i < pb->n_parameters; i++)
        if (strcmp(pb->parameters[i]->key, PATH_PARAMETER) == 0 && pb->parameters[i]->value)
            return pb->parameters[i]->value->string_value;
    return NULL;
}

/* Appends the path of the library; nothing when there is none. */
static tis_error *find(const struct tis_version *v, const struct backends *backends,
                       const char *version_directory, struct bytes *path)
{
    const char *given = path_parameter(v->config->message);
    if (given) {
        bytes_append_str(path, given);
        return plugin_file_exists(given)
                   ? NULL
                   : error_new(TRITONSERVER_ERROR_NOT_FOUND,
                               "parameter '" PATH_PARAMETER
                               "' names '%s', expected a file (relative "
                               "paths begin at the server's working directory)",
                               given);
    }
    const char *const places[] = { version_directory, v->directory };
    for (size_t i = 0; i <= ARRAY_LEN(places); i++) {
        bytes_clear(path);
        if (i < ARRAY_LEN(places))
            bytes_append_str(path, places[i]);
        else
            bytes_printf(path, "%s/%s", backends_directory(backends), v->config->backend);
        bytes_append_str(path, "/batchstrategy.so");
        if (plugin_file_exists(bytes_str(path)))
            return NULL;
    }
    bytes_clear(path);
    return NULL;
}

/* All five or none at all: what is missing is named. */
static tis_error *load_entries(struct batch_strategy *s, void *handle, const char *path)
{
    const struct {
        const char *symbol;
        void *slot;
    } table[] = {
        { "TRITONBACKEND_ModelBatcherInitialize", &s->batcher_initialize },
        { "TRITONBACKEND_ModelBatcherFinalize", &s->batcher_finalize },
        { "TRITONBACKEND_ModelBatchInitialize", &s->batch_initialize },
        { "TRITONBACKEND_ModelBatchIncludeRequest", &s->include },
        { "TRITONBACKEND_ModelBatchFinalize", &s->batch_finalize },
    };
    struct bytes missing = { 0 };
    tis_error *err = NULL;
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        void *function = dlsym(handle, table[i].symbol);
        memcpy(table[i].slot, &function, sizeof(function));
        if (!function)
            bytes_printf(&missing, "%s%s", missing.len ? ", " : "", table[i].symbol);
    }
    if (missing.len)
        err = error_new(TRITONSERVER_ERROR_INVALID_ARG,
                        "batching strategy '%s' does not export %s: expected all five functions",
                        path, bytes_str(&missing));
    bytes_fini(&missing);
    return err;
}

static void begin(const struct batch_strategy *s, const char *entry)
{
    const struct tis_version *v = s->version;
    plugin_call_begin(entry, v->backend->name, v->model_name, v->number);
}

tis_error *batch_strategy_create(struct tis_version *v, struct backends *backends,
                                 const char *version_directory,
                                 struct batch_strategy **ret_strategy)
{
    struct bytes path = { 0 };
    void *handle;
    struct batch_strategy *s = NULL;
    tis_error *err = find(v, backends, version_directory, &path);
    if (err || path.len == 0) {
        *ret_strategy = NULL;
        goto out;
    }
    s = calloc(1, sizeof(*s));
    if (!s) {
        err = error_no_memory();
        goto out;
    }
    s->version = v;
    err =
        error_wrap(backends_open_library(backends, bytes_str(&path), &handle), "batching strategy");
    if (!err)
        err = load_entries(s, handle, bytes_str(&path));
    if (err)
        goto out;

    log_info("batching strategy model=%s version=%" PRId64 " file=%s", v->model_name, v->number,
             bytes_str(&path));
    begin(s, "TRITONBACKEND_ModelBatcherInitialize");
    err = s->batcher_initialize(&s->batcher, v);
    plugin_call_end();
    err = error_wrap(err, "initializing batching strategy '%s'", bytes_str(&path));
    if (err) { /* as for the other objects of a plug-in, Finalize follows all the same */
        batch_strategy_destroy(s);
        s = NULL;
        goto out;
    }
    *ret_strategy = s;
    s = NULL;
out:
    free(s);
    bytes_fini(&path);
    return err;
}

void batch_strategy_destroy(struct batch_strategy *s)
{
    if (!s)
        return;
    begin(s, "TRITONBACKEND_ModelBatcherFinalize");
    tis_error *err = s->batcher_finalize(s->batcher);
    plugin_call_end();
    if (err)
        log_warning("batching strategy finalize failed model=%s error=\"%s\"",
                    s->version->model_name, error_text(err));
    error_free(err);
    free(s);
}

/* ---- Choosing ---- */

/* What the entry point answered; false when it failed. Takes err. Batches are many: the operator reads of
 * the first one. */
static bool note(struct batch_strategy *s, tis_error *err)
{
    if (!err)
        return true;
    const char *model = s->version->model_name;
    if (!s->has_failed)
        log_error(
            "batching strategy failed model=%s entry=%s error=\"%s\": the batch runs as it is; "
            "further errors are told at verbose level",
            model, plugin_call.entry, error_text(err));
    else
        log_verbose("batching strategy failed model=%s entry=%s error=\"%s\"", model,
                    plugin_call.entry, error_text(err));
    s->has_failed = true;
    error_free(err);
    return false;
}

uint32_t batch_strategy_choose(struct batch_strategy *s, struct tis_request *const *requests,
                               uint32_t count)
{
    void *batch = NULL;
    uint32_t chosen = count;
    begin(s, "TRITONBACKEND_ModelBatchInitialize");
    bool good = note(s, s->batch_initialize(s->batcher, &batch));
    begin(s, "TRITONBACKEND_ModelBatchIncludeRequest");
    for (uint32_t i = 0; good && i < chosen; i++) {
        bool include = false;
        good = note(s, s->include(requests[i], batch, &include));
        if (good && !include && i > 0)
            chosen = i;
    }
    if (batch) { /* Triton does not finalize what Initialize left NULL either */
        begin(s, "TRITONBACKEND_ModelBatchFinalize");
        note(s, s->batch_finalize(batch));
    }
    plugin_call_end();
    return chosen;
}
