#include "exec/host_policy.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/number.h"
#include "base/processors.h"
#include "proto/json.h"

enum {
    NODES_MAX = 1024, /* of a Linux kernel */
    NODE_WORD_BITS = 8 * sizeof(unsigned long),
};

struct host_policy {
    const char *name;
    const char *cores_text; /* as given; NULL: not */
    const char *node_text;
    bool has_cores;
    bool has_node;
    struct processors cores; /* that the process may use */
    uint32_t node;
};

struct host_policies {
    struct host_policy *all;
    uint32_t count;
};

#define INVALID(...) error_new(TRITONSERVER_ERROR_INVALID_ARG, __VA_ARGS__)

/* ---- Creation ---- */

static struct host_policy *find(const struct host_policies *policies, const char *name)
{
    for (uint32_t i = 0; i < policies->count; i++)
        if (strcmp(policies->all[i].name, name) == 0)
            return &policies->all[i];
    return NULL;
}

/* The last of several settings of one key counts. */
static tis_error *add_setting(struct host_policies *policies, const struct host_policy_setting *s)
{
    struct host_policy *p = find(policies, s->policy);
    if (!p) {
        p = &policies->all[policies->count++];
        p->name = s->policy;
    }
    if (strcmp(s->key, "cpu-cores") == 0)
        p->cores_text = s->value;
    else if (strcmp(s->key, "numa-node") == 0)
        p->node_text = s->value;
    else
        return INVALID("--host-policy=%s,%s=%s: unknown setting '%s' (expected cpu-cores or "
                       "numa-node)",
                       s->policy, s->key, s->value, s->key);
    return NULL;
}

static char *text_of(const struct processors *set)
{
    struct bytes text = { 0 };
    processors_append(&text, set);
    return bytes_steal(&text);
}

/* Takes out of `cores` what the process may not use, and says so; nothing left is an error.
 * what: the flag. */
static tis_error *keep_allowed(const char *what, struct processors *cores)
{
    struct processors allowed;
    tis_error *err = processors_allowed(&allowed);
    if (err)
        return err;
    struct processors refused = *cores;
    processors_subtract(&refused, &allowed);
    processors_intersect(cores, &allowed);
    if (processors_count(&refused) == 0 && processors_count(cores) > 0)
        return NULL;

    char *refused_text = text_of(&refused);
    char *allowed_text = text_of(&allowed);
    if (!refused_text || !allowed_text)
        err = error_no_memory();
    else if (processors_count(cores) == 0)
        err = INVALID("%s: this process may use none of the processors (found %s, allowed are %s)",
                      what, refused_text, allowed_text);
    else
        log_warning("%s: left out processors=%s, which this process may not use allowed=%s", what,
                    refused_text, allowed_text);
    free(refused_text);
    free(allowed_text);
    return err;
}

static tis_error *check_exists(const char *what, const struct processors *cores,
                               const char *system_directory)
{
    struct bytes path = { 0 };
    struct processors present;
    bytes_printf(&path, "%s/cpu/present", system_directory);
    tis_error *err = processors_read(bytes_str(&path), &present);
    bytes_fini(&path);
    if (err) { /* no /sys: what may be used is all that is known to exist */
        error_free(err);
        return NULL;
    }
    struct processors missing = *cores;
    processors_subtract(&missing, &present);
    if (processors_count(&missing) == 0)
        return NULL;
    char *missing_text = text_of(&missing);
    char *present_text = text_of(&present);
    err = INVALID("%s: this machine has no processor %s (it has %s)", what,
                  missing_text ? missing_text : "", present_text ? present_text : "");
    free(missing_text);
    free(present_text);
    return err;
}

static tis_error *resolve_cores(struct host_policy *p, const char *system_directory)
{
    struct bytes what = { 0 };
    bytes_printf(&what, "--host-policy=%s,cpu-cores=%s", p->name, p->cores_text);
    tis_error *err = error_wrap(processors_parse(p->cores_text, strlen(p->cores_text), &p->cores),
                                "%s", bytes_str(&what));
    if (!err && processors_count(&p->cores) == 0)
        err = INVALID("%s: expected at least one processor", bytes_str(&what));
    if (!err)
        err = check_exists(bytes_str(&what), &p->cores, system_directory);
    if (!err)
        err = keep_allowed(bytes_str(&what), &p->cores);
    p->has_cores = err == NULL;
    bytes_fini(&what);
    return err;
}

/* The node's processors count when no others are given; a node may have none, only memory. */
static tis_error *resolve_node(struct host_policy *p, const char *system_directory)
{
    uint64_t node = 0;
    struct bytes what = { 0 }, path = { 0 };
    struct processors nodes, cores;
    tis_error *err = NULL;
    bytes_printf(&what, "--host-policy=%s,numa-node=%s", p->name, p->node_text);
    bytes_printf(&path, "%s/node/online", system_directory);
    if (!number_parse_u64(p->node_text, strlen(p->node_text), &node) || node >= NODES_MAX) {
        err = INVALID("%s: expected the number of a node", bytes_str(&what));
        goto out;
    }
    err = error_wrap(processors_read(bytes_str(&path), &nodes), "%s", bytes_str(&what));
    if (err)
        goto out;
    if (!processors_has(&nodes, (uint32_t)node)) {
        char *online = text_of(&nodes);
        err = INVALID("%s: this machine has no such node (it has %s)", bytes_str(&what),
                      online ? online : "");
        free(online);
        goto out;
    }
    p->node = (uint32_t)node;
    p->has_node = true;

    bytes_clear(&path);
    bytes_printf(&path, "%s/node/node%" PRIu64 "/cpulist", system_directory, node);
    err = error_wrap(processors_read(bytes_str(&path), &cores), "%s", bytes_str(&what));
    if (!err && !p->has_cores && processors_count(&cores) > 0) {
        err = keep_allowed(bytes_str(&what), &cores);
        p->cores = cores;
        p->has_cores = err == NULL;
    }
out:
    bytes_fini(&path);
    bytes_fini(&what);
    return err;
}

tis_error *host_policies_create(const struct host_policy_setting *settings, uint32_t count,
                                const char *system_directory, struct host_policies **ret_policies)
{
    struct host_policies *policies = calloc(1, sizeof(*policies));
    tis_error *err = NULL;
    if (policies)
        policies->all = calloc(count + 1, sizeof(*policies->all));
    if (!policies || !policies->all)
        err = error_no_memory();
    for (uint32_t i = 0; i < count && !err; i++)
        err = add_setting(policies, &settings[i]);
    for (uint32_t i = 0; !err && i < policies->count; i++) {
        struct host_policy *p = &policies->all[i];
        err = p->cores_text ? resolve_cores(p, system_directory) : NULL;
        if (!err && p->node_text)
            err = resolve_node(p, system_directory);
    }
    if (err) {
        host_policies_destroy(policies);
        return err;
    }
    *ret_policies = policies;
    return NULL;
}

void host_policies_destroy(struct host_policies *policies)
{
    if (!policies)
        return;
    free(policies->all);
    free(policies);
}

/* ---- Use ---- */

const struct host_policy *host_policies_find(const struct host_policies *policies, const char *name)
{
    return policies ? find(policies, name) : NULL;
}

static void append_setting(struct bytes *out, const char *key, const char *value, bool *is_first)
{
    if (!value)
        return;
    bytes_append_str(out, *is_first ? "" : ",");
    json_append_string(out, key, strlen(key));
    bytes_append_char(out, ':');
    json_append_string(out, value, strlen(value));
    *is_first = false;
}

void host_policy_append_json(struct bytes *out, const char *name, const struct host_policy *p)
{
    bool is_first = true;
    bytes_append_char(out, '{');
    json_append_string(out, name, strlen(name));
    bytes_append_str(out, ":{");
    if (p) {
        append_setting(out, "cpu-cores", p->cores_text, &is_first);
        append_setting(out, "numa-node", p->node_text, &is_first);
    }
    bytes_append_str(out, "}}");
}

void host_policy_describe(struct bytes *out, const struct host_policy *p)
{
    if (p && p->has_cores) {
        bytes_append_str(out, " cores=");
        processors_append(out, &p->cores);
    }
    if (p && p->has_node)
        bytes_printf(out, " node=%" PRIu32, p->node);
}

tis_error *host_policy_apply(const struct host_policy *p)
{
    if (p && p->has_cores &&
        sched_setaffinity(0, sizeof(p->cores), (const cpu_set_t *)&p->cores) != 0)
        return error_new(TRITONSERVER_ERROR_UNAVAILABLE,
                         "host policy '%s': cannot run on its processors: %s", p->name,
                         strerror(errno));
    if (p && p->has_node) {
        unsigned long nodes[NODES_MAX / NODE_WORD_BITS + 1] = { 0 };
        nodes[p->node / NODE_WORD_BITS] = 1ul << (p->node % NODE_WORD_BITS);
        /* Preferred, not bound: an engine that needs more than the node has still gets it. */
        if (syscall(SYS_set_mempolicy, MPOL_PREFERRED, nodes, (unsigned long)NODES_MAX) != 0)
            return error_new(TRITONSERVER_ERROR_UNAVAILABLE,
                             "host policy '%s': cannot prefer the memory of node %" PRIu32 ": %s",
                             p->name, p->node, strerror(errno));
    }
    return NULL;
}
