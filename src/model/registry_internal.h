/* model/registry_internal.h - what registry.c and watch.c share. */
#ifndef TIS_MODEL_REGISTRY_INTERNAL_H
#define TIS_MODEL_REGISTRY_INTERNAL_H

/* Without memory the element is left out (hh.tbl is NULL then), instead of ending the process. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "base/alarm.h"
#include "base/pool.h"
#include "model/registry.h"
#include "repository/local.h"

struct model_version {
    int64_t number;
    enum version_state state;
    char *reason;
    struct tis_version *loaded; /* the registry's reference; NULL unless READY */
    uint64_t load_ns;           /* what loading took; 0 unless READY */
};

struct model {
    UT_hash_handle hh;
    /* set at creation, then constant */
    char *name;
    char *directory;
    /* its configuration's job, then the watch */
    bool has_stamp;                 /* there was such a job: not for a model of two repositories */
    struct file_stamp config_stamp; /* of config.pbtxt when it was last looked at */
    /* of the file in effect, or, when the model is not served, of the one seen last; NULL: not readable */
    char *config_text;
    size_t config_text_len;
    bool has_mixed_groups; /* some versions took the groups of a later text, others could not */
    /* under the registry's lock */
    char *reason; /* why there is no configuration; NULL when there is one */
    struct model_config *config;
    struct model_version *versions; /* ascending by number */
    uint32_t version_count;
};

struct registry {
    /* set at creation, then constant */
    struct registry_options options;
    struct pool *loader;
    struct alarm watch_alarm; /* it is time for watch_job */
    struct pool_job watch_job;
    /* under lock */
    struct lock lock;
    struct cond changed;
    struct model *models; /* hash by name */
    uint32_t loads_open;  /* jobs that must end before loading has finished */
    uint32_t live;        /* versions created and not yet destroyed */
    bool loaded;
    /* atomic, set under lock */
    _Atomic bool stopping;
};

/* ---- model/watch.c ---- */

void watch_init(struct registry *r);
/* The next look, if there shall be one. */
void watch_arm(struct registry *r);
/* After `stopping` was set: no look begins any more; one that has begun is a job of the loader. */
void watch_stop(struct registry *r);

#endif
