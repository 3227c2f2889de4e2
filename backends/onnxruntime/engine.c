#include "onnxruntime/engine.h"

#include <dirent.h>
#include <dlfcn.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY_TESTED "libonnxruntime.so.1.28.0"

static const char *const LIBRARY_NAMES[] = { LIBRARY_TESTED, "libonnxruntime.so.1",
                                             "libonnxruntime.so" };

/* ---- Data types ---- */

static const struct {
    TRITONSERVER_DataType datatype;
    ONNXTensorElementDataType element;
} TYPES[] = {
    { TRITONSERVER_TYPE_BOOL, ORT_ELEMENT_BOOL },
    { TRITONSERVER_TYPE_UINT8, ORT_ELEMENT_UINT8 },
    { TRITONSERVER_TYPE_UINT16, ORT_ELEMENT_UINT16 },
    { TRITONSERVER_TYPE_UINT32, ORT_ELEMENT_UINT32 },
    { TRITONSERVER_TYPE_UINT64, ORT_ELEMENT_UINT64 },
    { TRITONSERVER_TYPE_INT8, ORT_ELEMENT_INT8 },
    { TRITONSERVER_TYPE_INT16, ORT_ELEMENT_INT16 },
    { TRITONSERVER_TYPE_INT32, ORT_ELEMENT_INT32 },
    { TRITONSERVER_TYPE_INT64, ORT_ELEMENT_INT64 },
    { TRITONSERVER_TYPE_FP16, ORT_ELEMENT_FLOAT16 },
    { TRITONSERVER_TYPE_FP32, ORT_ELEMENT_FLOAT },
    { TRITONSERVER_TYPE_FP64, ORT_ELEMENT_DOUBLE },
    { TRITONSERVER_TYPE_BYTES, ORT_ELEMENT_STRING },
    { TRITONSERVER_TYPE_BF16, ORT_ELEMENT_BFLOAT16 },
};

TRITONSERVER_DataType datatype_from_element(ONNXTensorElementDataType element)
{
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        if (TYPES[i].element == element)
            return TYPES[i].datatype;
    }
    return TRITONSERVER_TYPE_INVALID;
}

ONNXTensorElementDataType element_from_datatype(TRITONSERVER_DataType datatype)
{
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        if (TYPES[i].datatype == datatype)
            return TYPES[i].element;
    }
    return ORT_ELEMENT_UNDEFINED;
}

/* ---- Errors and log ---- */

TRITONSERVER_Error *engine_error(const struct engine *engine, OrtStatus *status)
{
    TRITONSERVER_Error_Code code = TRITONSERVER_ERROR_INTERNAL;
    TRITONSERVER_Error *err;

    if (!status)
        return NULL;
    switch (engine->api.GetErrorCode(status)) {
    case ORT_INVALID_ARGUMENT:
        code = TRITONSERVER_ERROR_INVALID_ARG;
        break;
    case ORT_NO_SUCHFILE:
        code = TRITONSERVER_ERROR_NOT_FOUND;
        break;
    case ORT_NOT_IMPLEMENTED:
        code = TRITONSERVER_ERROR_UNSUPPORTED;
        break;
    case ORT_FAIL:
        break;
    }
    err = kit_error(code, "onnxruntime: %s", engine->api.GetErrorMessage(status));
    engine->api.ReleaseStatus(status);
    return err;
}

/* The engine's line in the server's log. Its INFO is what the server calls VERBOSE. */
static void log_line(void *param, OrtLoggingLevel severity, const char *category,
                     const char *session, const char *location, const char *message)
{
    static const TRITONSERVER_LogLevel LEVELS[] = {
        [ORT_LOG_VERBOSE] = TRITONSERVER_LOG_VERBOSE, [ORT_LOG_INFO] = TRITONSERVER_LOG_VERBOSE,
        [ORT_LOG_WARNING] = TRITONSERVER_LOG_WARN,    [ORT_LOG_ERROR] = TRITONSERVER_LOG_ERROR,
        [ORT_LOG_FATAL] = TRITONSERVER_LOG_ERROR,
    };
    const char *base = strrchr(location, '/');
    char file[128] = "";
    int line = 0;

    (void)param;
    (void)category;
    if (sscanf(base ? base + 1 : location, "%127[^: ]:%d", file, &line) != 2)
        line = 0;
    kit_log(severity <= ORT_LOG_FATAL ? LEVELS[severity] : TRITONSERVER_LOG_ERROR, file, line,
            "onnxruntime: %s%s%s", session, *session ? ": " : "", message);
}

/* ---- The library ---- */

/* Whether a directory's entry is a better library than best (NULL = none yet):
 * the tested version before all others, then the last in alphabetical order. */
static bool is_better(const char *name, const char *best)
{
    if (strncmp(name, "libonnxruntime.so", strlen("libonnxruntime.so")) != 0)
        return false;
    if (!best || strcmp(name, LIBRARY_TESTED) == 0)
        return true;
    return strcmp(best, LIBRARY_TESTED) != 0 && strcmp(name, best) > 0;
}

/* The path of the libonnxruntime.so* beside this backend's own file, to be freed;
 * NULL when there is none. */
static char *library_beside_backend(void)
{
    char *best = NULL, *path = NULL;
    struct dirent *entry;
    Dl_info self;
    char *folder;
    DIR *dir;

    if (!dladdr(LIBRARY_NAMES, &self) || !strrchr(self.dli_fname, '/'))
        return NULL;
    folder = strndup(self.dli_fname, (size_t)(strrchr(self.dli_fname, '/') - self.dli_fname));
    dir = folder ? opendir(folder) : NULL;

    while (dir && (entry = readdir(dir))) {
        if (is_better(entry->d_name, best)) {
            free(best);
            best = strdup(entry->d_name);
        }
    }
    if (best && asprintf(&path, "%s/%s", folder, best) < 0)
        path = NULL;

    if (dir)
        closedir(dir);
    free(best);
    free(folder);
    return path;
}

static TRITONSERVER_Error *open_library(const char *path, void **ret_handle)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    if (!handle)
        return kit_error(TRITONSERVER_ERROR_UNAVAILABLE, "cannot load ONNX Runtime: %s", dlerror());
    *ret_handle = handle;
    return NULL;
}

/* Finds and loads the library: the one asked for, else the one beside this file,
 * else what the loader finds under the usual names. */
static TRITONSERVER_Error *find_library(const char *wanted, void **ret_handle)
{
    char *beside;
    TRITONSERVER_Error *err;

    if (wanted)
        return open_library(wanted, ret_handle);

    beside = library_beside_backend();
    if (beside) {
        err = open_library(beside, ret_handle);
        free(beside);
        return err;
    }
    for (size_t i = 0; i < sizeof LIBRARY_NAMES / sizeof *LIBRARY_NAMES; i++) {
        *ret_handle = dlopen(LIBRARY_NAMES[i], RTLD_NOW | RTLD_LOCAL);
        if (*ret_handle)
            return NULL;
    }
    return kit_error(TRITONSERVER_ERROR_UNAVAILABLE,
                     "cannot find ONNX Runtime: no libonnxruntime.so* beside the backend's file or "
                     "on the loader's path; put " LIBRARY_TESTED
                     " there or name it with --backend-config=onnxruntime,library=PATH");
}

/* Copies the entries we use out of the library's table. */
static TRITONSERVER_Error *read_table(void *handle, struct ort_api *api)
{
    const OrtApiBase *(*get_base)(void) =
        (const OrtApiBase *(*)(void))dlsym(handle, "OrtGetApiBase");
    const OrtApiBase *base;
    void *const *table;

    if (!get_base)
        return kit_error(TRITONSERVER_ERROR_UNAVAILABLE,
                         "the ONNX Runtime library has no OrtGetApiBase: %s", dlerror());
    base = get_base();
    table = base->GetApi(ORT_API_VERSION_NEEDED);
    if (!table)
        return kit_error(TRITONSERVER_ERROR_UNAVAILABLE,
                         "ONNX Runtime %s is too old, expected 1.%d or later",
                         base->GetVersionString(), ORT_API_VERSION_NEEDED);

#define COPY_ENTRY(slot, name, ret, ...) memcpy(&api->name, &table[slot], sizeof api->name);
    ORT_API_SLOTS(COPY_ENTRY)
#undef COPY_ENTRY

    KIT_LOG(TRITONSERVER_LOG_INFO, "ONNX Runtime %s", base->GetVersionString());
    return NULL;
}

/* ---- The environment ---- */

static int64_t cpu_count(void)
{
    cpu_set_t cpus;

    return sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
}

static TRITONSERVER_Error *read_int(yyjson_doc *settings, const char *key, int64_t max,
                                    int64_t *value)
{
    const char *text = kit_backend_config_get(settings, key);

    if (!text)
        return NULL;
    return kit_parse_int(text, key, 0, max, value);
}

static OrtLoggingLevel log_level(void)
{
    return TRITONSERVER_LogIsEnabled(TRITONSERVER_LOG_VERBOSE) ? ORT_LOG_INFO : ORT_LOG_WARNING;
}

/* An environment whose thread pools all sessions share. */
static OrtStatus *create_env_with_pools(struct engine *engine, int64_t intra_count,
                                        int64_t inter_count)
{
    const struct ort_api *api = &engine->api;
    OrtThreadingOptions *options;
    OrtStatus *status = api->CreateThreadingOptions(&options);

    if (status)
        return status;
    status = api->SetGlobalIntraOpNumThreads(options, (int)intra_count);
    if (!status)
        status = api->SetGlobalInterOpNumThreads(options, (int)inter_count);
    if (!status)
        status = api->SetGlobalSpinControl(options, 0);
    if (!status)
        status = api->CreateEnvWithCustomLoggerAndGlobalThreadPools(log_line, NULL, log_level(), "",
                                                                    options, &engine->env);
    api->ReleaseThreadingOptions(options);
    return status;
}

static TRITONSERVER_Error *create_env(yyjson_doc *settings, struct engine *engine)
{
    int64_t global = 0, intra_count = cpu_count(), inter_count = 1;
    const struct ort_api *api = &engine->api;
    OrtStatus *status;
    TRITONSERVER_Error *err;

    engine->default_batch_size_max = 4;
    err = read_int(settings, "enable-global-threadpool", 1, &global);
    if (!err)
        err = read_int(settings, "intra_op_thread_count", 4096, &intra_count);
    if (!err)
        err = read_int(settings, "inter_op_thread_count", 4096, &inter_count);
    if (!err)
        err = read_int(settings, "default-max-batch-size", INT32_MAX,
                       &engine->default_batch_size_max);
    if (err)
        return err;

    engine->global_threads = global;
    if (global)
        status = create_env_with_pools(engine, intra_count, inter_count);
    else
        status = api->CreateEnvWithCustomLogger(log_line, NULL, log_level(), "", &engine->env);
    if (!status)
        status = api->GetAllocatorWithDefaultOptions(&engine->allocator);
    if (!status)
        status = api->CreateCpuMemoryInfo(ORT_ALLOCATOR_ARENA, ORT_MEM_TYPE_DEFAULT, &engine->cpu);
    return engine_error(engine, status);
}

TRITONSERVER_Error *engine_open(yyjson_doc *settings, struct engine *ret_engine)
{
    struct engine engine = { 0 };
    void *handle;
    TRITONSERVER_Error *err;

    /* Newer official builds send usage data unless told not to before they load. */
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);

    err = find_library(kit_backend_config_get(settings, "library"), &handle);
    if (!err)
        err = read_table(handle, &engine.api);
    if (!err)
        err = create_env(settings, &engine);
    if (err) {
        engine_close(&engine);
        return err;
    }
    *ret_engine = engine;
    return NULL;
}

void engine_close(struct engine *engine)
{
    if (engine->cpu)
        engine->api.ReleaseMemoryInfo(engine->cpu);
    if (engine->env)
        engine->api.ReleaseEnv(engine->env);
    *engine = (struct engine){ 0 };
}
