/* model/registry.h - the models a server has: names, versions, states.
 *
 * The registry reads the repositories, loads what the version policies ask for on the loading
 * threads, and hands out counted references to loaded versions. One bad model harms no other: its
 * reason is kept and shown.
 *
 * States of a version: LOADING -> READY or UNAVAILABLE (with a reason); READY -> UNAVAILABLE
 * "unloaded". A model whose configuration cannot be used has no versions but a reason.
 *
 * Threads: any, unless a function says otherwise. registry_acquire() is on the way of every request:
 *          one lock, no allocation on success.
 */
#ifndef TIS_MODEL_REGISTRY_H
#define TIS_MODEL_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "config/config.h"
#include "exec/version.h"
#include "metrics/statistics.h"

struct registry;

enum version_state {
    VERSION_UNKNOWN,
    VERSION_LOADING,
    VERSION_READY,
    VERSION_UNLOADING,
    VERSION_UNAVAILABLE,
};

/* "READY", ...: the word of the v2 protocol. */
const char *version_state_name(enum version_state state);

struct registry_options {
    const char *const *repositories;
    uint32_t repository_count;
    struct backends *backends;
    struct alarms *alarms;                     /* of the versions' queues */
    const struct host_policies *host_policies; /* NULL: none */
    struct limiter *limiter;                   /* NULL: none */
    struct tis_server *server;
    uint32_t load_thread_count;
    uint64_t poll_ns; /* between looks at the models' config.pbtxt; 0: none */
    bool auto_complete_config;
    uint32_t held_until; /* of each version: nothing runs before so many requests wait, once */
    bool strict_readiness;
    /* Every model that was found has finished loading, well or badly. A loading thread. */
    void (*on_loaded)(void *arg);
    void *on_loaded_arg;
};

MUST_USE tis_error *registry_create(const struct registry_options *options,
                                    struct registry **ret_registry);
/* Lists the repositories and starts to load everything. Errors: a repository cannot be read. */
MUST_USE tis_error *registry_load_all(struct registry *r);
/* The server ends: no request waits any more for others to fill its batch. */
void registry_hurry(struct registry *r);
/* Stops handing out versions and unloads all of them; returns when all are gone (true), or at
 * deadline_ns. */
bool registry_stop(struct registry *r, uint64_t deadline_ns);
/* After a registry_stop() that returned true. NULL is fine. */
void registry_destroy(struct registry *r);

/* Version `number` of a model, or the highest that is ready when number is negative. The caller
 * owns a reference. Errors: reasons MODEL_UNKNOWN, MODEL_NO_VERSION, VERSION_UNKNOWN,
 * VERSION_NOT_READY. `name` need not be terminated. */
MUST_USE tis_error *registry_acquire(struct registry *r, const char *name, size_t name_len,
                                     int64_t number, struct tis_version **ret_version);

/* Loading has finished and, with strict readiness, every version that should be served is ready. */
bool registry_is_ready(struct registry *r);
/* Names (model and reason) of what could not be loaded, one per line; "" when all is well. For the
 * console at start. */
void registry_describe_failures(struct registry *r, struct bytes *out);
/* Versions still alive: for the countdown at exit. */
uint32_t registry_live_versions(struct registry *r);

/* What the status, index and statistics APIs show. A deep copy: */
struct version_info {
    int64_t number;
    enum version_state state;
    char *reason;                /* "" when none */
    struct tis_version *version; /* a reference when READY, else NULL */
};

struct model_info {
    char *name;
    char *reason;                /* why there is no configuration; "" when there is one */
    struct model_config *config; /* a reference; NULL when it cannot be used */
    struct version_info *versions;
    uint32_t version_count;
};

/* All models sorted by name, or the one called `name`. Free with registry_info_free(). Errors:
 * MODEL_UNKNOWN when `name` is given and unknown. */
MUST_USE tis_error *registry_info(struct registry *r, const char *name, size_t name_len,
                                  struct model_info **ret_models, uint32_t *ret_count);
void registry_info_free(struct model_info *models, uint32_t count);

/* One version, for the metrics page: flat, as a thousand of them are asked for again and again. */
struct version_entry {
    const char *model; /* in the list's memory */
    int64_t number;
    enum version_state state;
    uint64_t load_ns;            /* what loading it took; 0 unless READY */
    struct tis_version *version; /* a reference when READY, else NULL */
};

struct version_list {
    struct version_entry *entries; /* by name, then number */
    uint32_t count;
    char *names;
};

/* Every version of every model. Free with registry_list_free(). */
MUST_USE tis_error *registry_list(struct registry *r, struct version_list *ret_list);
void registry_list_free(struct version_list *list);

#endif
