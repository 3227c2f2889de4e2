/* exec/version.h - one loaded version of a model: its backend, instances and queue.
 *
 * `struct tis_version` is what the plug-in API calls a model. It is created by a loading thread,
 * runs requests on its instances' threads, and is destroyed by a loading thread when nobody refers
 * to it any more.
 *
 * Ownership: counted. The registry holds a reference while the version may be looked up, each
 *            request (through its sink) one until its last response is gone. The last unref calls
 *            on_unused, which must arrange for version_destroy() on a thread that may block.
 * Threads:   create, destroy: a loading thread. Everything else: any.
 */
#ifndef TIS_EXEC_VERSION_H
#define TIS_EXEC_VERSION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/alarm.h"
#include "base/error.h"
#include "base/lock.h"
#include "base/park.h"
#include "config/config.h"
#include "exec/backend.h"
#include "exec/host_policy.h"
#include "infer/request.h"
#include "metrics/statistics.h"
#include "sched/limiter.h"
#include "sched/scheduler.h"
#include "tis/backend.h"

/* What lies above exec and its warm-up needs; constant. */
struct version_hooks {
    /* Checks and completes a request as those of clients (model/validate). */
    tis_error *(*check_request)(struct tis_request *req, const struct model_config *config,
                                const char *model);
    /* A whole file of at most bytes_max, malloc'ed (repository/local). */
    tis_error *(*read_file)(const char *path, size_t bytes_max, char **ret_text, size_t *ret_len);
    /* Becomes true when the server ends. */
    const _Atomic bool *stopping;
};

struct tis_version_options {
    struct backends *backends;
    struct alarms *alarms;
    struct limiter *limiter;                   /* NULL: every instance may run at any time */
    const struct host_policies *host_policies; /* must outlive the version; NULL: none */
    struct tis_server *server;                 /* handed to plug-ins; opaque here */
    const char *model_name;
    int64_t number;
    const char *directory;       /* of the model */
    struct model_config *config; /* complete and valid; a reference is taken */
    uint32_t gpu_count;          /* that instances may use */
    bool auto_complete_config;
    uint32_t held_until; /* nothing runs before so many requests wait, once; for tests of batches */
    struct version_hooks hooks;
    void (*on_unused)(struct tis_version *version, void *arg);
    void *on_unused_arg;
};

struct tis_version {
    /* set at creation, then constant */
    char *model_name;
    int64_t number;
    char *directory;
    struct model_config *config; /* the backend may replace it inside ModelInitialize */
    struct tis_backend *backend;
    struct tis_server *server;
    struct scheduler *scheduler; /* what it points to: under lock */
    struct version_hooks hooks;
    uint32_t gpu_count;
    bool auto_complete_config;
    bool initializing;       /* inside ModelInitialize, when SetConfig is allowed */
    struct limiter *limiter; /* NULL: none */
    const struct host_policies *host_policies; /* NULL: none */
    struct order *order;                       /* in which answers leave; NULL: in any */
    struct batch_strategy *strategy;           /* makes batches smaller; NULL: none */
    void (*on_unused)(struct tis_version *version, void *arg);
    void *on_unused_arg;
    /* the backend's */
    void *state;
    /* any thread, under lock */
    struct lock lock;
    struct cond changed; /* a runner is ready; nobody walks a list any more */
    struct tis_runner **runners;
    uint32_t runner_count;
    uint32_t list_number;              /* of `runners`: counts the changes */
    uint32_t asking[2];                /* who walk a list unlocked; this one: [list_number % 2] */
    struct model_config *config_shown; /* with other instance groups than config; NULL: config */
    struct tis_runner *idle;           /* waiting for work; the last to wait is the first to run */
    uint32_t waking;                   /* runners that were woken and have not looked yet */
    uint64_t alarm_ns;                 /* when the alarm rings; SCHEDULER_NEVER: not */
    uint32_t held_until;               /* nothing runs before so many requests wait; 0: not held */
    struct alarm alarm;                /* a delay or a time-out has passed */
    bool choosing; /* a runner has taken requests that may come back: nobody else takes */
    /* any thread */
    struct statistics statistics;
    _Atomic uint32_t refs;
};

/* One execution context of a version. */
struct tis_instance {
    /* set at creation, then constant */
    struct tis_version *version;
    struct model_config *config; /* a reference, for group; NULL: it is in the version's */
    const Inference__ModelInstanceGroup *group;
    char *name; /* "<group>_<copy>_cpu", "<group>_<copy>_gpu<id>", "<group>_<copy>_model" */
    uint32_t index;
    TRITONSERVER_InstanceGroupKind kind;
    int32_t device_id;
    const struct host_policy *host_policy; /* NULL: without settings */
    struct tis_message host_policy_json;
    struct statistics_shard *statistics; /* one of the version's */
    bool initialized;                    /* the plug-in knows of it */
    struct tis_runner *runner;           /* set when it has one */
    /* its own rules (sched/limiter.h) */
    struct limiter_member limits;
    /* under the version's lock */
    bool is_unused; /* open has become 0 */
    /* atomic */
    _Atomic bool warming;  /* runs its warm-up, which no statistics count */
    _Atomic uint32_t open; /* requests given to it and not done, and 1 while it runs */
    /* the backend's */
    void *state;
};

/* Opens the backend, initialises model and instances, starts their threads. The version has one
 * reference, the caller's. Errors: the backend's, with model and version named. */
MUST_USE tis_error *version_create(const struct tis_version_options *options,
                                   struct tis_version **ret_version);
/* refs must be zero, or creation have failed. Waits for the instances' threads. */
void version_destroy(struct tis_version *v);

struct tis_version *version_ref(struct tis_version *v);
void version_unref(struct tis_version *v);

/* Queues *req, which was checked against the version's configuration; its sink takes a reference on
 * v. Takes *req on success. A running instance may take it from here on; a version_wake() must
 * follow. Errors: UNAVAILABLE, counted as a failure (reason QUEUE_FULL). */
MUST_USE tis_error *version_submit(struct tis_version *v, struct tis_request **req);
/* Wakes an idle instance if it has something to run; one call for each submitted request, soon. Apart from
 * version_submit() so that a loop that has several requests at hand queues them all first: waking
 * costs more than running a small model, and an instance that is awake finds the others by itself. */
void version_wake(struct tis_version *v);
/* The client has gone or changed its mind: a waiting request is answered CANCELLED at once, a
 * running one is marked for the backend to see. The caller must know that req is not done yet. */
void version_cancel(struct tis_version *v, struct tis_request *req);

/* The server ends: what waits for others to fill its batch runs now. */
void version_hurry(struct tis_version *v);

/* Gives v, while it serves, the instances that the groups of `config` ask for: v's own configuration with
 * other instance groups, complete and valid; a reference is taken. New ones are ready before old ones end,
 * which finish what they run. A loading thread, one at a time for each version. Errors: the plug-in's;
 * nothing has changed then. */
MUST_USE tis_error *version_set_groups(struct tis_version *v, struct model_config *config);

/* What a configuration of v is normalised and checked with. */
struct config_context version_config_context(const struct tis_version *v);
/* What the version is configured with now, instance groups included: to be shown. The caller owns a
 * reference. v->config, which requests are checked against, differs in nothing else. */
struct model_config *version_config(struct tis_version *v);
/* The name of one of its instances, for texts. */
void version_name_instance(struct tis_version *v, char *out, size_t out_bytes);

/* For exec/runner, under v->lock. */
/* May nothing be taken now? TRTSERVER_DELAY_SCHEDULER waits for more requests, or a runner is choosing. */
bool version_is_held(struct tis_version *v);
/* An idle runner to be woken because a batch is ready, no longer in the idle list; NULL: none, and the
 * alarm is set to when there will be one. */
struct tis_runner *version_take_idle(struct tis_version *v);
/* Sets the alarm to when the scheduler next has something to do that no put() brings about. */
void version_set_alarm(struct tis_version *v);
/* Ends a request that was cancelled and waits nowhere any more. Not under v->lock. */
void version_answer_cancelled(struct tis_version *v, struct tis_request *req);
/* The alarm rings: time-outs act, and an idle runner is woken when a batch is ready. */
void version_ring(struct alarm *a, uint64_t now_ns);

/* Requests that wait for an instance. */
uint32_t version_pending(struct tis_version *v);

/* Would the instances serve a request now? Asks the backend when it can tell. */
bool version_is_ready(struct tis_version *v);

#endif
