/* Follows the config.pbtxt of each served model.
 *
 * Every poll_ns a job of the loading threads looks at the stamps of the files. A file that differs from
 * the one in effect in nothing but instance_group takes effect at once: the versions get these instances,
 * without loading anything again. Whatever else has changed takes effect at the next start, and so does every
 * change of a model that is not served; the log says so once for each state of the file, as it does for one that
 * cannot be read.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "model/configure.h"
#include "model/registry_internal.h"

enum {
    SETTLE_NS =
        500 * 1000 * 1000, /* a file that was written just now may be half of what it will be */
};

/* ---- The file ---- */

static bool is_settled(const struct file_stamp *stamp)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t age_ns = (int64_t)now.tv_sec * (int64_t)NS_PER_SEC + now.tv_nsec - stamp->modified_ns;
    return age_ns > SETTLE_NS || age_ns < 0; /* below 0: another machine's clock, of no use */
}

/* Reads the file as model_configure() does: none is an empty one, where that is allowed. */
static tis_error *read_text(const struct registry *r, const char *path, char **ret_text,
                            size_t *ret_len)
{
    tis_error *err = local_read_file(path, CONFIG_TEXT_BYTES_MAX, ret_text, ret_len);
    if (!err || error_code(err) != TRITONSERVER_ERROR_NOT_FOUND || !r->options.auto_complete_config)
        return err;
    error_free(err);
    *ret_text = strdup("");
    *ret_len = 0;
    return *ret_text ? NULL : error_no_memory();
}

/* ---- The versions ---- */

/* References to the loaded versions of m, room for all of them at ret_versions. */
static uint32_t take_versions(struct registry *r, struct model *m,
                              struct tis_version **ret_versions)
{
    uint32_t count = 0;
    lock_take(&r->lock);
    for (uint32_t i = 0; i < m->version_count; i++)
        if (m->versions[i].loaded)
            ret_versions[count++] = version_ref(m->versions[i].loaded);
    lock_release(&r->lock);
    return count;
}

static bool is_served(struct registry *r, const struct model *m)
{
    bool found = false;
    lock_take(&r->lock);
    for (uint32_t i = 0; i < m->version_count && !found; i++)
        found = m->versions[i].loaded != NULL;
    lock_release(&r->lock);
    return found;
}

/* Gives v the groups of the file. */
static tis_error *set_groups(struct tis_version *v, const struct config_builder *file)
{
    const struct config_context context = version_config_context(v);
    struct model_config *now = version_config(v), *next = NULL;
    struct config_builder *b = NULL;
    tis_error *err = config_edit_groups(now, file, &b);
    if (!err)
        err = config_normalize(b, &context);
    if (!err)
        err = config_validate(b, &context);
    if (!err)
        err = config_finish(&b, &next);
    if (!err)
        err = version_set_groups(v, next);
    config_builder_destroy(b);
    config_unref(now);
    config_unref(next);
    return err;
}

/* The registry shows what the version with the highest number has. */
static void show(struct registry *r, struct model *m, struct tis_version *v)
{
    struct model_config *config = version_config(v);
    lock_take(&r->lock);
    struct model_config *before = m->config;
    m->config = config;
    lock_release(&r->lock);
    config_unref(before);
}

/* False when some version keeps its instances. */
static bool set_all_groups(struct registry *r, struct model *m, const struct config_builder *file)
{
    struct tis_version **versions = calloc(m->version_count + 1, sizeof(*versions));
    uint32_t count = versions ? take_versions(r, m, versions) : 0;
    uint32_t changed = 0;
    for (uint32_t i = 0; i < count; i++) {
        tis_error *err = set_groups(versions[i], file);
        if (err)
            log_error("instances not changed model=%s version=%" PRId64
                      ", keeping those it has error=\"%s\"",
                      m->name, versions[i]->number, error_text(err));
        else
            show(r, m, versions[i]);
        changed += err == NULL;
        error_free(err);
        version_unref(versions[i]);
    }
    bool is_good = versions && changed == count;
    if (is_good)
        m->has_mixed_groups = false;
    else if (changed > 0)
        m->has_mixed_groups = true;
    free(versions);
    return is_good;
}

/* ---- A look ---- */

static const char instance_group[] = "instance_group";

/* The text has changed. Whether later ones are to be compared with it: it is in effect now, or nothing is. */
static bool follow(struct registry *r, struct model *m, const char *path, const char *text,
                   size_t len)
{
    struct config_builder *before = NULL, *after = NULL;
    struct bytes fields = { 0 };
    bool is_followed = false;

    if (!is_served(r, m)) {
        log_warning("config.pbtxt changed model=%s: takes effect at the next start", m->name);
        return true;
    }
    tis_error *err = config_parse_text(m->config_text, m->config_text_len, path, &before);
    if (!err)
        err = config_parse_text(text, len, path, &after);
    if (!err)
        config_append_differences(&fields, before, after);
    if (!err && fields.failed)
        err = error_no_memory();

    if (err)
        log_error("config.pbtxt changed model=%s, keeping the configuration in use error=\"%s\"",
                  m->name, error_text(err));
    else if (strcmp(bytes_str(&fields), instance_group) == 0 ||
             (fields.len == 0 && m->has_mixed_groups))
        is_followed = set_all_groups(r, m, after);
    else if (fields.len > 0)
        log_warning("config.pbtxt changed model=%s fields=\"%s\": takes effect at the next start",
                    m->name, bytes_str(&fields));
    else
        is_followed = true; /* a comment */
    error_free(err);
    bytes_fini(&fields);
    config_builder_destroy(before);
    config_builder_destroy(after);
    return is_followed;
}

static void look(struct registry *r, struct model *m)
{
    struct bytes path = { 0 };
    char *text = NULL;
    size_t len = 0;
    bool is_same;
    tis_error *err = NULL;

    model_config_path(m->directory, &path);
    struct file_stamp stamp = local_stamp(bytes_str(&path));
    if (memcmp(&stamp, &m->config_stamp, sizeof(stamp)) == 0 || !is_settled(&stamp))
        goto out;
    m->config_stamp = stamp;
    err = read_text(r, bytes_str(&path), &text, &len);
    is_same = !err && m->config_text && len == m->config_text_len &&
              memcmp(text, m->config_text, len) == 0;
    if (is_same && !m->has_mixed_groups)
        goto out;
    if (err) {
        log_error("config.pbtxt changed model=%s, %s error=\"%s\"", m->name,
                  is_served(r, m) ? "keeping the configuration in use" : "which is not served",
                  error_text(err));
    } else if (follow(r, m, bytes_str(&path), text, len)) {
        free(m->config_text);
        m->config_text = text;
        m->config_text_len = len;
        text = NULL;
    }
out:
    error_free(err);
    free(text);
    bytes_fini(&path);
}

static void watch_run(struct pool_job *job)
{
    struct registry *r = CONTAINER_OF(job, struct registry, watch_job);
    /* Once everything is loaded, the table and the lists of versions are constant. */
    for (struct model *m = r->models; m && !r->stopping; m = m->hh.next)
        if (m->has_stamp)
            look(r, m);
    watch_arm(r);
}

/* ---- When ---- */

static void watch_ring(struct alarm *a, uint64_t now_ns)
{
    struct registry *r = CONTAINER_OF(a, struct registry, watch_alarm);
    (void)now_ns;
    pool_post(r->loader, &r->watch_job);
}

void watch_init(struct registry *r)
{
    r->watch_job.run = watch_run;
    alarm_init(&r->watch_alarm, r->options.alarms, watch_ring);
}

void watch_arm(struct registry *r)
{
    if (r->options.poll_ns == 0)
        return;
    lock_take(&r->lock);
    if (!r->stopping)
        alarm_set(&r->watch_alarm, clock_ns() + r->options.poll_ns);
    lock_release(&r->lock);
}

void watch_stop(struct registry *r)
{
    alarm_stop(&r->watch_alarm);
}
