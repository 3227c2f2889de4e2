/* exec/backend.h - opened plug-ins.
 *
 * A backend is a shared object libtriton_NAME.so that implements Triton's backend API. It is looked
 * for in the model's version directory, in the model's directory and in <backend directory>/NAME/;
 * one file is opened and initialised once and shared by all models that use it. It is never closed:
 * engines were not written to be unloaded.
 *
 * A python-based backend is a <backend directory>/NAME/model.py without such a file: the library of
 * <backend directory>/python/ runs it with that backend's settings, initialised once for each name.
 *
 * Threads: any; opening and initialising happen one at a time.
 */
#ifndef TIS_EXEC_BACKEND_H
#define TIS_EXEC_BACKEND_H

#include <stdbool.h>

#include "base/error.h"
#include "base/lock.h"
#include "config/config.h"
#include "tis/backend.h"

struct tis_message {
    char *text; /* NUL-terminated JSON */
    size_t len;
};

/* One --backend-config=NAME,key=value; NAME "" applies to every backend. */
struct backend_setting {
    const char *backend;
    const char *key;
    const char *value;
};

struct backends_options {
    const char *directory;
    const struct backend_setting *settings;
    uint32_t setting_count;
    bool auto_complete_config;
};

/* The plug-in's entry points; all but execute may be NULL. */
struct backend_entries {
    TRITONSERVER_Error *(*initialize)(TRITONBACKEND_Backend *);
    TRITONSERVER_Error *(*finalize)(TRITONBACKEND_Backend *);
    TRITONSERVER_Error *(*attributes)(TRITONBACKEND_Backend *, TRITONBACKEND_BackendAttribute *);
    TRITONSERVER_Error *(*model_initialize)(TRITONBACKEND_Model *);
    TRITONSERVER_Error *(*model_finalize)(TRITONBACKEND_Model *);
    TRITONSERVER_Error *(*instance_initialize)(TRITONBACKEND_ModelInstance *);
    TRITONSERVER_Error *(*instance_finalize)(TRITONBACKEND_ModelInstance *);
    TRITONSERVER_Error *(*execute)(TRITONBACKEND_ModelInstance *, TRITONBACKEND_Request **,
                                   uint32_t);
    TRITONSERVER_Error *(*instance_ready)(TRITONBACKEND_ModelInstance *);
};

enum {
    GROUP_PREFERENCES_MAX = 16
};

struct tis_backend_attribute {
    bool parallel_instance_loading;
    struct group_preference preferences[GROUP_PREFERENCES_MAX]; /* the best one first */
    uint32_t preference_count;
};

struct tis_backend {
    struct tis_backend *next; /* under the collection's lock */
    /* set when opened, then constant */
    char *name;
    char *path;      /* of the shared object */
    char *directory; /* that holds it; of a python-based backend: its model.py */
    struct tis_message config;
    struct backend_entries entries;
    struct tis_backend_attribute attribute;
    TRITONBACKEND_ExecutionPolicy execution_policy;
    bool auto_complete_config;
    /* the backend's */
    void *state;
};

/* All backends of one server. */
struct backends;

MUST_USE tis_error *backends_create(const struct backends_options *options,
                                    struct backends **ret_backends);
/* Calls each backend's Finalize. No model may be left. */
void backends_destroy(struct backends *b);

/* Opens backend `name` for a model, or finds it open. library: file name instead of
 * libtriton_NAME.so (the configuration's "runtime"), or "". *ret_backend lives as long as b.
 * Errors: INVALID_ARG, with every place that was searched; what dlopen or Initialize said. */
MUST_USE tis_error *backends_open(struct backends *b, const char *name, const char *library,
                                  const char *model_directory, const char *version_directory,
                                  struct tis_backend **ret_backend);

/* For other files that plug-ins consist of. Opens a shared object, for good. */
MUST_USE tis_error *backends_open_library(struct backends *b, const char *path, void **ret_handle);
/* Where backends are looked for. */
const char *backends_directory(const struct backends *b);
/* Is there a regular file? */
bool plugin_file_exists(const char *path);

#endif
