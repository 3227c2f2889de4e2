#include "exec/groups.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "exec/instance.h"
#include "exec/runner.h"
#include "proto/message.h"

/* ---- What a configuration asks for ---- */

/* One instance. */
struct wish {
    const Inference__ModelInstanceGroup *group;
    char *name;
    TRITONSERVER_InstanceGroupKind kind;
    int32_t device_id;
    uint32_t position; /* among all of them */
};

struct change {
    struct tis_version *version;
    struct model_config *config;
    struct wish *wishes;
    uint32_t wish_count;
    struct tis_runner **runners; /* that the version shall have */
    uint32_t runner_count;
    bool *is_new;        /* of each of these */
    bool *keeps;         /* of each that it has */
    uint32_t index_next; /* no instance below has a free index */
};

/* The configuration and the plug-in API number the kinds differently. A normalised configuration has
 * no KIND_AUTO. */
static TRITONSERVER_InstanceGroupKind kind_of(const Inference__ModelInstanceGroup *group)
{
    switch (group->kind) {
    case INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_GPU:
        return TRITONSERVER_INSTANCEGROUPKIND_GPU;
    case INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_MODEL:
        return TRITONSERVER_INSTANCEGROUPKIND_MODEL;
    default:
        return TRITONSERVER_INSTANCEGROUPKIND_CPU;
    }
}

/* As 0.9 called them: "<group>_<copy>_cpu", "<group>_<copy>_gpu<id>". */
static char *instance_name(const struct wish *w, int32_t copy)
{
    struct bytes name = { 0 };
    bytes_printf(&name, "%s_%" PRId32, w->group->name, copy);
    if (w->kind == TRITONSERVER_INSTANCEGROUPKIND_GPU)
        bytes_printf(&name, "_gpu%" PRId32, w->device_id);
    else
        bytes_append_str(&name,
                         w->kind == TRITONSERVER_INSTANCEGROUPKIND_MODEL ? "_model" : "_cpu");
    return bytes_steal(&name);
}

static size_t device_count(const Inference__ModelInstanceGroup *group)
{
    return group->n_gpus > 0 ? group->n_gpus : 1;
}

/* `count` of each group, on each of its GPUs if it has some. */
static tis_error *list_wishes(struct change *c)
{
    const Inference__ModelConfig *pb = c->config->message;
    size_t total = 0;
    for (size_t g = 0; g < pb->n_instance_group; g++)
        total += (size_t)pb->instance_group[g]->count * device_count(pb->instance_group[g]);
    c->wishes = calloc(total + 1, sizeof(*c->wishes));
    if (!c->wishes)
        return error_no_memory();

    for (size_t g = 0; g < pb->n_instance_group; g++) {
        const Inference__ModelInstanceGroup *group = pb->instance_group[g];
        for (size_t d = 0; d < device_count(group); d++) {
            for (int32_t copy = 0; copy < group->count; copy++) {
                struct wish *w = &c->wishes[c->wish_count];
                w->group = group;
                w->kind = kind_of(group);
                w->device_id = group->n_gpus > 0 ? group->gpus[d] : 0;
                w->position = c->wish_count++;
                w->name = instance_name(w, copy);
                if (!w->name)
                    return error_no_memory();
            }
        }
    }
    return NULL;
}

static int compare_devices(const void *a, const void *b)
{
    const struct wish *left = a, *right = b;
    if (left->kind != right->kind)
        return left->kind < right->kind ? -1 : 1;
    if (left->device_id != right->device_id)
        return left->device_id < right->device_id ? -1 : 1;
    return left->position < right->position ? -1 : 1;
}

/* Does one thread run all instances of a GPU? A backend may ask for it; a sequence belongs to one
 * instance and would wait for the others there. */
static bool shares_devices(const struct change *c)
{
    return c->version->backend->execution_policy == TRITONBACKEND_EXECUTION_DEVICE_BLOCKING &&
           c->config->message->scheduling_choice_case !=
               INFERENCE__MODEL_CONFIG__SCHEDULING_CHOICE_SEQUENCE_BATCHING;
}

/* How many instances from `first` on one thread runs. */
static uint32_t wishes_of_runner(const struct change *c, uint32_t first)
{
    const struct wish *w = &c->wishes[first];
    uint32_t count = 1;
    if (!shares_devices(c) || w->kind != TRITONSERVER_INSTANCEGROUPKIND_GPU)
        return 1;
    while (first + count < c->wish_count && w[count].kind == w->kind &&
           w[count].device_id == w->device_id)
        count++;
    return count;
}

/* ---- What the version has of it ---- */

/* Number and places of instances aside. */
static bool groups_agree(const Inference__ModelInstanceGroup *a,
                         const Inference__ModelInstanceGroup *b)
{
    Inference__ModelInstanceGroup left = *a, right = *b;
    struct bytes left_bytes = { 0 }, right_bytes = { 0 };
    left.count = right.count = 0;
    left.n_gpus = right.n_gpus = 0;
    message_append(&left_bytes, &left.base);
    message_append(&right_bytes, &right.base);
    bool agree = !left_bytes.failed && !right_bytes.failed && left_bytes.len == right_bytes.len &&
                 memcmp(bytes_str(&left_bytes), bytes_str(&right_bytes), left_bytes.len) == 0;
    bytes_fini(&left_bytes);
    bytes_fini(&right_bytes);
    return agree;
}

/* Each is kept once: nothing forbids two groups of the same name, whose instances are called alike. */
static struct tis_runner *keep_runner(struct change *c, const struct wish *wishes, uint32_t count)
{
    const struct tis_version *v = c->version;
    for (uint32_t i = 0; i < v->runner_count; i++) {
        struct tis_runner *r = v->runners[i];
        uint32_t same = 0;
        if (c->keeps[i])
            continue;
        while (r->instance_count == count && same < count &&
               strcmp(r->instances[same]->name, wishes[same].name) == 0 &&
               groups_agree(r->instances[same]->group, wishes[same].group))
            same++;
        if (same < count)
            continue;
        c->keeps[i] = true;
        return r;
    }
    return NULL;
}

static bool has_index(struct tis_runner *const *runners, uint32_t count, uint32_t index)
{
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t k = 0; k < runners[i]->instance_count; k++)
            if (runners[i]->instances[k]->index == index)
                return true;
    return false;
}

/* The lowest that no instance has, those that are about to end included. */
static uint32_t take_index(struct change *c)
{
    while (has_index(c->version->runners, c->version->runner_count, c->index_next))
        c->index_next++;
    return c->index_next++;
}

static tis_error *make_runner(struct change *c, const struct wish *wishes, uint32_t count,
                              struct tis_runner **ret_runner)
{
    struct tis_runner *r = NULL;
    tis_error *err = runner_create(c->version, count, &r);
    for (uint32_t i = 0; i < count && !err; i++) {
        const struct wish *w = &wishes[i];
        struct tis_instance *instance = NULL;
        err = instance_create(c->version, c->config, w->group, w->name, take_index(c), w->kind,
                              w->device_id, &instance);
        if (!err)
            runner_add(r, instance);
    }
    if (err) {
        runner_destroy(r);
        return err;
    }
    *ret_runner = r;
    return NULL;
}

/* Finds or makes the runners. */
static tis_error *plan(struct change *c)
{
    if (shares_devices(c))
        qsort(c->wishes, c->wish_count, sizeof(*c->wishes), compare_devices);
    c->runners = calloc(c->wish_count + 1, sizeof(struct tis_runner *));
    c->is_new = calloc(c->wish_count + 1, sizeof(*c->is_new));
    c->keeps = calloc(c->version->runner_count + 1, sizeof(*c->keeps));
    if (!c->runners || !c->is_new || !c->keeps)
        return error_no_memory();
    for (uint32_t first = 0; first < c->wish_count;) {
        uint32_t count = wishes_of_runner(c, first);
        struct tis_runner *r = keep_runner(c, &c->wishes[first], count);
        c->is_new[c->runner_count] = r == NULL;
        tis_error *err = r ? NULL : make_runner(c, &c->wishes[first], count, &r);
        if (err)
            return err;
        c->runners[c->runner_count++] = r;
        first += count;
    }
    return NULL;
}

/* ---- Begin and end ---- */

/* One after the other, unless the backend can initialise several instances at once. */
static tis_error *start_new(struct change *c)
{
    bool at_once = c->version->backend->attribute.parallel_instance_loading;
    tis_error *err = NULL;
    for (uint32_t i = 0; i < c->runner_count && !err; i++) {
        if (!c->is_new[i])
            continue;
        err = runner_start(c->runners[i]);
        if (!err && !at_once)
            err = runner_wait_ready(c->runners[i]);
    }
    for (uint32_t i = 0; at_once && i < c->runner_count && !err; i++)
        if (c->is_new[i])
            err = runner_wait_ready(c->runners[i]);
    return err;
}

/* Each finishes its batch, if it runs one. NULLs are left out. */
static void end_runners(struct tis_runner **runners, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (runners[i])
            runner_leave(runners[i]);
    for (uint32_t i = 0; i < count; i++) {
        if (runners[i])
            runner_join(runners[i]);
        runner_destroy(runners[i]);
    }
}

/* Takes the runners of c into use and ends those that it does not keep. */
static void exchange(struct change *c)
{
    struct tis_version *v = c->version;
    lock_take(&v->lock);
    struct tis_runner **had = v->runners;
    uint32_t had_count = v->runner_count;
    v->runners = c->runners;
    v->runner_count = c->runner_count;
    /* Somebody may still walk the old list. Whoever comes now counts for the new one. */
    uint32_t *asking = &v->asking[v->list_number++ % 2];
    while (*asking > 0)
        cond_wait(&v->changed, &v->lock);
    lock_release(&v->lock);
    c->runners = NULL;

    for (uint32_t i = 0; i < had_count; i++)
        if (c->keeps[i])
            had[i] = NULL;
    end_runners(had, had_count);
    free(had);
}

static void change_fini(struct change *c)
{
    for (uint32_t i = 0; i < c->wish_count; i++)
        free(c->wishes[i].name);
    free(c->wishes);
    free(c->runners);
    free(c->is_new);
    free(c->keeps);
}

tis_error *groups_apply(struct tis_version *v, struct model_config *config)
{
    struct change c = { .version = v, .config = config };
    tis_error *err = list_wishes(&c);
    if (!err)
        err = plan(&c);
    if (!err)
        err = start_new(&c);
    if (!err) {
        exchange(&c);
    } else if (c.runners) {
        for (uint32_t i = 0; i < c.runner_count; i++)
            if (!c.is_new[i])
                c.runners[i] = NULL;
        end_runners(c.runners, c.runner_count);
    }
    change_fini(&c);
    return err;
}

void groups_end(struct tis_version *v)
{
    end_runners(v->runners, v->runner_count);
    free(v->runners);
    v->runners = NULL;
    v->runner_count = 0;
}
