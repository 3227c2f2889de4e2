#include "model/registry.h"

#include <assert.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/prefetch.h"
#include "infer/reason.h"
#include "model/configure.h"
#include "model/labels.h"
#include "model/registry_internal.h"
#include "model/validate.h"
#include "repository/local.h"

struct config_job {
    struct pool_job job;
    struct registry *registry;
    struct model *model;
};

/* The end of a version; made before the version, so that the end cannot lack memory. */
struct destroy_job {
    struct pool_job job;
    struct registry *registry;
    struct tis_version *version;
};

struct version_job {
    struct pool_job job;
    struct registry *registry;
    struct model *model;
    struct model_config *config; /* a reference */
    struct destroy_job *destroy; /* the version's, once it is loaded */
    int64_t number;
};

const char *version_state_name(enum version_state state)
{
    static const char *const names[] = {
        [VERSION_UNKNOWN] = "UNKNOWN",
        [VERSION_LOADING] = "LOADING",
        [VERSION_READY] = "READY",
        [VERSION_UNLOADING] = "UNLOADING",
        [VERSION_UNAVAILABLE] = "UNAVAILABLE",
    };
    return names[state];
}

/* ---- Creation and end ---- */

static void model_destroy(struct model *m)
{
    if (!m)
        return;
    for (uint32_t i = 0; i < m->version_count; i++) {
        assert(!m->versions[i].loaded);
        free(m->versions[i].reason);
    }
    free(m->versions);
    config_unref(m->config);
    free(m->config_text);
    free(m->reason);
    free(m->directory);
    free(m->name);
    free(m);
}

tis_error *registry_create(const struct registry_options *options, struct registry **ret_registry)
{
    struct registry *r = calloc(1, sizeof(*r));
    if (!r)
        return error_no_memory();
    r->options = *options;
    lock_init(&r->lock, LOCK_REGISTRY);
    cond_init(&r->changed);
    watch_init(r);
    tis_error *err = pool_create("loader", options->load_thread_count, &r->loader);
    if (err) {
        registry_destroy(r);
        return err;
    }
    *ret_registry = r;
    return NULL;
}

void registry_destroy(struct registry *r)
{
    if (!r)
        return;
    pool_destroy(r->loader);
    assert(r->live == 0);
    struct model *m, *next;
    HASH_ITER (hh, r->models, m, next) {
        HASH_DEL(r->models, m);
        model_destroy(m);
    }
    cond_fini(&r->changed);
    lock_fini(&r->lock);
    free(r);
}

/* ---- Loading ---- */

/* A job of loading has ended. */
static void load_ended(struct registry *r)
{
    lock_take(&r->lock);
    assert(r->loads_open > 0);
    bool last = --r->loads_open == 0;
    if (last)
        r->loaded = true;
    cond_broadcast(&r->changed);
    lock_release(&r->lock);
    if (last)
        watch_arm(r);
    if (last && r->options.on_loaded)
        r->options.on_loaded(r->options.on_loaded_arg);
}

static struct model_version *find_version(struct model *m, int64_t number)
{
    for (uint32_t i = 0; i < m->version_count; i++) {
        if (m->versions[i].number == number)
            return &m->versions[i];
    }
    return NULL;
}

/* Under the lock. Takes `loaded`. */
static void version_set_state(struct model *m, int64_t number, enum version_state state,
                              const char *reason, struct tis_version *loaded)
{
    struct model_version *mv = find_version(m, number);
    free(mv->reason);
    mv->reason = strdup(reason);
    mv->state = state;
    mv->loaded = loaded;
    if (!loaded)
        mv->load_ns = 0;
}

/* Not under the lock: a reader of the log that does not keep up must not stop requests. */
static void log_state(const struct model *m, int64_t number, enum version_state from,
                      enum version_state to, const char *reason)
{
    log_info("model state model=%s version=%" PRId64 " from=%s to=%s%s%s", m->name, number,
             version_state_name(from), version_state_name(to), *reason ? " reason=" : "", reason);
}

static void destroy_run(struct pool_job *job)
{
    struct destroy_job *d = CONTAINER_OF(job, struct destroy_job, job);
    struct registry *r = d->registry;
    char name[NAME_MAX + 1]; /* of a directory */
    int64_t number = d->version->number;
    snprintf(name, sizeof(name), "%s", d->version->model_name);
    version_destroy(d->version);
    free(d);
    log_info("successfully unloaded model=%s version=%" PRId64, name, number);
    lock_take(&r->lock);
    r->live--;
    cond_broadcast(&r->changed);
    lock_release(&r->lock);
}

/* Nobody refers to the version any more; this may be any thread, so its end waits for a loading
 * thread. */
static void version_unused(struct tis_version *version, void *arg)
{
    struct destroy_job *d = arg;
    d->job.run = destroy_run;
    d->version = version;
    pool_post(d->registry->loader, &d->job);
}

static tis_error *version_load(struct version_job *v, struct tis_version **ret_version)
{
    const struct registry_options *o = &v->registry->options;
    tis_error *err = version_create(
        &(struct tis_version_options){
            .backends = o->backends,
            .alarms = o->alarms,
            .host_policies = o->host_policies,
            .limiter = o->limiter,
            .server = o->server,
            .model_name = v->model->name,
            .number = v->number,
            .directory = v->model->directory,
            .config = v->config,
            .auto_complete_config = o->auto_complete_config,
            .held_until = o->held_until,
            .hooks = { request_validate, local_read_file, &v->registry->stopping },
            .on_unused = version_unused,
            .on_unused_arg = v->destroy,
        },
        ret_version);
    if (err)
        return err;
    /* The backend may have replaced the configuration by one that has no labels yet. One that it has
     * not replaced is shared with the model's other versions. */
    if ((*ret_version)->config != v->config)
        err = labels_load((*ret_version)->config, v->model->directory);
    if (err) {
        version_destroy(*ret_version);
        *ret_version = NULL;
    }
    return err;
}

static void version_run(struct pool_job *job)
{
    struct version_job *v = CONTAINER_OF(job, struct version_job, job);
    struct registry *r = v->registry;
    struct tis_version *loaded = NULL;
    struct tis_version *unwanted = NULL;
    uint64_t start_ns = clock_ns();
    lock_take(&r->lock);
    bool stopping = r->stopping;
    lock_release(&r->lock);
    tis_error *err =
        stopping ? reason_error_args(REASON_SERVER_EXITING, NULL, 0) : version_load(v, &loaded);
    if (stopping)
        log_verbose("not loaded model=%s version=%" PRId64 ": the server exits", v->model->name,
                    v->number);
    else if (err)
        log_error("failed to load model=%s version=%" PRId64 " error=\"%s\"", v->model->name,
                  v->number, error_text(err));
    else
        log_verbose("loaded model=%s version=%" PRId64 " ms=%" PRIu64, v->model->name, v->number,
                    (clock_ns() - start_ns) / NS_PER_MS);

    enum version_state state = VERSION_UNAVAILABLE;
    const char *reason = err ? error_text(err) : "unloaded";
    lock_take(&r->lock);
    if (loaded) {
        r->live++;
        if (r->stopping) {
            unwanted = loaded;
            loaded = NULL;
        } else {
            config_unref(v->model->config);
            v->model->config = config_ref(loaded->config); /* as its backend completed it */
            find_version(v->model, v->number)->load_ns = clock_ns() - start_ns;
            state = VERSION_READY;
            reason = "";
        }
    }
    version_set_state(v->model, v->number, state, reason, loaded);
    lock_release(&r->lock);
    log_state(v->model, v->number, VERSION_LOADING, state, reason);

    if (!loaded && !unwanted)
        free(v->destroy);
    version_unref(unwanted);
    error_free(err);
    config_unref(v->config);
    free(v);
    load_ended(r);
}

/* Makes the versions' entries (LOADING) and a job for each. Jobs are all made before any is
 * posted, so a lack of memory leaves the model as it was. */
static tis_error *versions_start(struct registry *r, struct model *m, struct model_config *config,
                                 const int64_t *versions, size_t count)
{
    struct model_version *entries = calloc(count, sizeof(*entries));
    struct version_job **jobs = calloc(count, sizeof(*jobs));
    tis_error *err = entries && jobs ? NULL : error_no_memory();
    for (size_t i = 0; i < count && !err; i++) {
        jobs[i] = calloc(1, sizeof(*jobs[i]));
        struct destroy_job *destroy = calloc(1, sizeof(*destroy));
        if (!jobs[i] || !destroy) {
            free(destroy);
            err = error_no_memory();
            break;
        }
        destroy->registry = r;
        *jobs[i] = (struct version_job){
            .job.run = version_run,
            .registry = r,
            .model = m,
            .destroy = destroy,
            .number = versions[i],
        };
        entries[i] = (struct model_version){ .number = versions[i], .state = VERSION_LOADING };
    }
    if (err) {
        for (size_t i = 0; jobs && i < count && jobs[i]; i++) {
            free(jobs[i]->destroy);
            free(jobs[i]);
        }
        free(jobs);
        free(entries);
        return err;
    }

    lock_take(&r->lock);
    m->config = config_ref(config);
    m->versions = entries;
    m->version_count = (uint32_t)count;
    r->loads_open += (uint32_t)count;
    lock_release(&r->lock);
    for (size_t i = 0; i < count; i++) {
        jobs[i]->config = config_ref(config);
        pool_post(r->loader, &jobs[i]->job);
    }
    free(jobs);
    return NULL;
}

static void config_run(struct pool_job *job)
{
    struct config_job *c = CONTAINER_OF(job, struct config_job, job);
    struct registry *r = c->registry;
    struct model *m = c->model;
    struct configure_source source = { 0 };
    struct model_config *config = NULL;
    struct bytes path = { 0 };
    int64_t *versions = NULL;
    size_t count = 0;

    model_config_path(m->directory, &path);
    m->config_stamp = local_stamp(bytes_str(&path)); /* before it is read: a later one is seen */
    m->has_stamp = true;
    bytes_fini(&path);
    tis_error *err =
        model_configure(m->name, m->directory, r->options.auto_complete_config, &source, &config);
    m->config_text = source.text;
    m->config_text_len = source.text_len;
    source.text = NULL;
    configure_source_fini(&source);
    if (!err)
        err = model_choose_versions(m->directory, config, &versions, &count);
    if (!err)
        err = versions_start(r, m, config, versions, count);
    if (err) {
        log_error("failed to load model=%s error=\"%s\"", m->name, error_text(err));
        lock_take(&r->lock);
        m->reason = strdup(error_text(err));
        lock_release(&r->lock);
    }
    error_free(err);
    free(versions);
    config_unref(config);
    free(c);
    load_ended(r);
}

/* Under the lock, before any job runs. A model that two repositories hold is served from neither. */
static tis_error *model_add(struct registry *r, const char *repository, const char *name)
{
    struct model *m = NULL;
    HASH_FIND_STR(r->models, name, m);
    if (m) {
        free(m->reason);
        struct bytes reason = { 0 };
        bytes_printf(&reason,
                     "model '%s' is in more than one repository ('%s' and below '%s'); it is "
                     "served from neither",
                     name, m->directory, repository);
        m->reason = bytes_steal(&reason);
        return m->reason ? NULL : error_no_memory();
    }
    struct bytes directory = { 0 };
    bytes_printf(&directory, "%s/%s", repository, name);
    m = calloc(1, sizeof(*m));
    if (m) {
        m->name = strdup(name);
        m->directory = bytes_steal(&directory);
    }
    if (!m || !m->name || !m->directory) {
        bytes_fini(&directory);
        model_destroy(m);
        return error_no_memory();
    }
    HASH_ADD_KEYPTR(hh, r->models, m->name, strlen(m->name), m);
    if (!m->hh.tbl) {
        model_destroy(m);
        return error_no_memory();
    }
    return NULL;
}

static tis_error *repository_scan(struct registry *r, const char *repository)
{
    char **names = NULL;
    size_t count = 0;
    tis_error *err = local_list_models(repository, &names, &count);
    /* The ports are open already: loops look into the table. */
    lock_take(&r->lock);
    for (size_t i = 0; i < count && !err; i++)
        err = model_add(r, repository, names[i]);
    lock_release(&r->lock);
    local_free_names(names, count);
    return error_wrap(err, "model repository '%s'", repository);
}

static int compare_models(const struct model *a, const struct model *b)
{
    return strcmp(a->name, b->name);
}

tis_error *registry_load_all(struct registry *r)
{
    for (uint32_t i = 0; i < r->options.repository_count; i++) {
        tis_error *err = repository_scan(r, r->options.repositories[i]);
        if (err)
            return err;
    }
    lock_take(&r->lock);
    HASH_SORT(r->models, compare_models);
    r->loads_open = 1; /* this function's own, so that loading cannot end before all is posted */
    lock_release(&r->lock);

    /* From here on the table is constant. */
    tis_error *err = NULL;
    for (struct model *m = r->models; m && !err; m = m->hh.next) {
        if (m->reason) {
            log_error("failed to load model=%s error=\"%s\"", m->name, m->reason);
            continue;
        }
        struct config_job *c = calloc(1, sizeof(*c));
        if (!c) {
            err = error_no_memory();
            break;
        }
        *c = (struct config_job){ .job.run = config_run, .registry = r, .model = m };
        lock_take(&r->lock);
        r->loads_open++;
        lock_release(&r->lock);
        pool_post(r->loader, &c->job);
    }
    load_ended(r);
    return err;
}

/* Under the lock. The registry's reference to some version that it still has; NULL: to none. */
static struct tis_version *take_loaded(struct registry *r, struct model **ret_model)
{
    for (struct model *m = r->models; m; m = m->hh.next) {
        for (uint32_t i = 0; i < m->version_count; i++) {
            struct tis_version *loaded = m->versions[i].loaded;
            if (!loaded)
                continue;
            version_set_state(m, m->versions[i].number, VERSION_UNAVAILABLE, "unloaded", NULL);
            *ret_model = m;
            return loaded;
        }
    }
    return NULL;
}

void registry_hurry(struct registry *r)
{
    lock_take(&r->lock);
    for (struct model *m = r->models; m; m = m->hh.next) {
        for (uint32_t i = 0; i < m->version_count; i++) {
            if (m->versions[i].loaded)
                version_hurry(m->versions[i].loaded);
        }
    }
    lock_release(&r->lock);
}

bool registry_stop(struct registry *r, uint64_t deadline_ns)
{
    lock_take(&r->lock);
    r->stopping = true;
    lock_release(&r->lock);
    watch_stop(r);
    lock_take(&r->lock);
    for (;;) {
        /* Dropping a reference may end in pool_post() and takes other locks: not under ours. */
        struct model *m;
        struct tis_version *drop = take_loaded(r, &m);
        if (!drop)
            break;
        lock_release(&r->lock);
        log_state(m, drop->number, VERSION_READY, VERSION_UNAVAILABLE, "unloaded");
        version_unref(drop);
        lock_take(&r->lock);
    }
    while ((r->live > 0 || r->loads_open > 0) && clock_ns() < deadline_ns)
        cond_wait_until(&r->changed, &r->lock, deadline_ns);
    bool gone = r->live == 0 && r->loads_open == 0;
    lock_release(&r->lock);
    return gone && pool_wait_idle(r->loader, deadline_ns);
}

/* ---- Looking up ---- */

tis_error *registry_acquire(struct registry *r, const char *name, size_t name_len, int64_t number,
                            struct tis_version **ret_version)
{
    struct tis_version *found = NULL;
    enum version_state state = VERSION_UNKNOWN;
    struct model *m = NULL;

    lock_take(&r->lock);
    HASH_FIND(hh, r->models, name, name_len, m);
    for (uint32_t i = m ? m->version_count : 0; i > 0 && !found; i--) {
        const struct model_version *mv = &m->versions[i - 1];
        if (number >= 0 && mv->number != number)
            continue;
        state = mv->state;
        found = mv->loaded ? version_ref(mv->loaded) : NULL;
    }
    lock_release(&r->lock);
    if (found) {
        *ret_version = found;
        return NULL;
    }

    struct bytes text = { 0 };
    bytes_append(&text, name, name_len);
    const char *model = bytes_str(&text);
    tis_error *err;
    if (!m)
        err = reason_error(REASON_MODEL_UNKNOWN, model);
    else if (number < 0)
        err = reason_error(REASON_MODEL_NO_VERSION, model);
    else if (state != VERSION_UNKNOWN) /* loading, or it failed to */
        err = reason_error(REASON_VERSION_NOT_READY, model, REASON_NUMBER(number));
    else
        err = reason_error(REASON_VERSION_UNKNOWN, model, REASON_NUMBER(number));
    bytes_fini(&text);
    return err;
}

/* Under the lock. */
static bool model_is_ready(const struct model *m)
{
    for (uint32_t i = 0; i < m->version_count; i++) {
        if (m->versions[i].state != VERSION_READY)
            return false;
    }
    return m->version_count > 0;
}

bool registry_is_ready(struct registry *r)
{
    lock_take(&r->lock);
    bool ready = r->loaded && !r->stopping;
    for (struct model *m = r->models; m && ready && r->options.strict_readiness; m = m->hh.next)
        ready = model_is_ready(m);
    lock_release(&r->lock);
    return ready;
}

void registry_describe_failures(struct registry *r, struct bytes *out)
{
    lock_take(&r->lock);
    for (struct model *m = r->models; m; m = m->hh.next) {
        if (m->reason)
            bytes_printf(out, "model '%s': %s\n", m->name, m->reason);
        for (uint32_t i = 0; i < m->version_count; i++) {
            const struct model_version *mv = &m->versions[i];
            if (mv->state == VERSION_UNAVAILABLE)
                bytes_printf(out, "model '%s' version %" PRId64 ": %s\n", m->name, mv->number,
                             mv->reason ? mv->reason : "");
        }
    }
    lock_release(&r->lock);
}

uint32_t registry_live_versions(struct registry *r)
{
    lock_take(&r->lock);
    uint32_t live = r->live;
    lock_release(&r->lock);
    return live;
}

/* ---- Information ---- */

void registry_info_free(struct model_info *models, uint32_t count)
{
    for (uint32_t i = 0; models && i < count; i++) {
        for (uint32_t k = 0; k < models[i].version_count; k++) {
            version_unref(models[i].versions[k].version);
            free(models[i].versions[k].reason);
        }
        free(models[i].versions);
        config_unref(models[i].config);
        free(models[i].reason);
        free(models[i].name);
    }
    free(models);
}

/* Under the lock. On failure what was filled so far can be freed. */
static bool copy_model(const struct model *m, struct model_info *info)
{
    info->name = strdup(m->name);
    info->reason = strdup(m->reason ? m->reason : "");
    info->config = m->config ? config_ref(m->config) : NULL;
    info->versions = calloc(m->version_count + 1, sizeof(*info->versions));
    if (!info->name || !info->reason || !info->versions)
        return false;
    for (uint32_t i = 0; i < m->version_count; i++) {
        const struct model_version *mv = &m->versions[i];
        struct version_info *vi = &info->versions[i];
        vi->number = mv->number;
        vi->state = mv->state;
        vi->version = mv->loaded ? version_ref(mv->loaded) : NULL;
        vi->reason = strdup(mv->reason ? mv->reason : "");
        info->version_count++;
        if (!vi->reason)
            return false;
    }
    return true;
}

tis_error *registry_info(struct registry *r, const char *name, size_t name_len,
                         struct model_info **ret_models, uint32_t *ret_count)
{
    lock_take(&r->lock);
    struct model *one = NULL;
    if (name)
        HASH_FIND(hh, r->models, name, name_len, one);
    uint32_t wanted = name ? one != NULL : HASH_COUNT(r->models);
    struct model_info *models = calloc(wanted + 1, sizeof(*models));
    uint32_t count = 0;
    bool ok = models != NULL;
    for (struct model *m = name ? one : r->models; m && ok; m = name ? NULL : m->hh.next)
        ok = copy_model(m, &models[count++]);
    lock_release(&r->lock);

    if (!ok) {
        registry_info_free(models, count);
        return error_no_memory();
    }
    if (name && count == 0) {
        registry_info_free(models, count);
        struct bytes text = { 0 };
        bytes_append(&text, name, name_len);
        tis_error *err = reason_error(REASON_MODEL_UNKNOWN, bytes_str(&text));
        bytes_fini(&text);
        return err;
    }
    *ret_models = models;
    *ret_count = count;
    return NULL;
}

void registry_list_free(struct version_list *list)
{
    for (uint32_t i = 0; i < list->count; i++)
        version_unref(list->entries[i].version);
    free(list->entries);
    free(list->names);
    *list = (struct version_list){ 0 };
}

tis_error *registry_list(struct registry *r, struct version_list *ret_list)
{
    struct version_list list = { 0 };
    uint32_t version_count = 0;
    size_t name_bytes = 0;
    lock_take(&r->lock);
    for (struct model *m = r->models; m; m = m->hh.next) {
        version_count += m->version_count;
        name_bytes += strlen(m->name) + 1;
        for (uint32_t i = 0; i < m->version_count; i++) {
            if (m->versions[i].loaded)
                prefetch(&m->versions[i].loaded->refs, sizeof(m->versions[i].loaded->refs));
        }
    }
    list.entries = calloc(version_count + 1, sizeof(*list.entries));
    list.names = malloc(name_bytes + 1);
    char *name = list.names;
    bool ok = list.entries && list.names;
    for (struct model *m = r->models; m && ok; m = m->hh.next) {
        size_t len = strlen(m->name) + 1;
        memcpy(name, m->name, len);
        for (uint32_t i = 0; i < m->version_count; i++) {
            const struct model_version *mv = &m->versions[i];
            list.entries[list.count++] = (struct version_entry){
                .model = name,
                .number = mv->number,
                .state = mv->state,
                .load_ns = mv->load_ns,
                .version = mv->loaded ? version_ref(mv->loaded) : NULL,
            };
        }
        name += len;
    }
    lock_release(&r->lock);
    if (!ok) {
        registry_list_free(&list);
        return error_no_memory();
    }
    *ret_list = list;
    return NULL;
}
