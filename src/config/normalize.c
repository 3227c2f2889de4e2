/* Filling in what a configuration leaves out. Each step looks at one field and leaves given values
 * alone, so the order matters only where a step says so. */
#include <string.h>

#include "config/config.h"
#include "config/platform.h"
#include "proto/message.h"

/* Steps answer false when the arena is exhausted. */

static bool set_string(struct arena *a, char **field, const char *value)
{
    char *copy = arena_strdup(a, value);
    if (copy)
        *field = copy;
    return copy;
}

static bool is_empty(const char *s)
{
    return !s || !*s;
}

static const ProtobufCFieldDescriptor *field_of(const ProtobufCMessage *m, const char *name)
{
    return message_field(m->descriptor, name, strlen(name));
}

/* Platform and backend from the model file, when exactly one known file name is there. */
static const struct platform *guess_by_files(const struct config_context *context)
{
    const struct platform *guess = NULL;
    for (size_t i = 0; i < context->version_file_count; i++) {
        const struct platform *p = platform_find_file(context->version_files[i]);
        if (p && guess && p != guess)
            return NULL;
        if (p)
            guess = p;
    }
    return guess;
}

/* A backend with several platforms (tensorflow): the one whose file is there, else none. */
static const struct platform *platform_of_backend(const Inference__ModelConfig *m,
                                                  const struct config_context *context)
{
    const struct platform *p = platform_find_backend(m->backend);
    if (!p || strcmp(p->backend, "tensorflow") != 0)
        return p;
    p = is_empty(m->default_model_filename) ? NULL : platform_find_file(m->default_model_filename);
    if (!p)
        p = guess_by_files(context);
    return p && strcmp(p->backend, m->backend) == 0 ? p : NULL;
}

/* "onnxruntime" of the name "resnet.onnxruntime"; NULL when there is none. */
static const char *name_suffix(const Inference__ModelConfig *m)
{
    const char *dot = is_empty(m->name) ? NULL : strrchr(m->name, '.');
    return dot && dot != m->name && dot[1] ? dot + 1 : NULL;
}

/* A known engine in the name wins over the files; a name like "resnet.v2" does not. */
static bool fill_engine(Inference__ModelConfig *m, const struct config_context *context,
                        struct arena *a)
{
    const struct platform *p = NULL;

    if (!is_empty(m->platform)) {
        p = platform_find(m->platform);
        if (p && is_empty(m->backend))
            return set_string(a, &m->backend, p->backend);
        return true;
    }
    if (is_empty(m->backend)) {
        const char *suffix = name_suffix(m);
        if (!suffix || !platform_find_backend(suffix))
            p = is_empty(m->default_model_filename) ? guess_by_files(context)
                                                    : platform_find_file(m->default_model_filename);
        if (!p && !suffix)
            return true;
        if (!set_string(a, &m->backend, p ? p->backend : suffix))
            return false;
    }
    if (!p)
        p = platform_of_backend(m, context);
    return !p || !p->name || set_string(a, &m->platform, p->name);
}

static bool fill_filename(Inference__ModelConfig *m, struct arena *a)
{
    if (!is_empty(m->default_model_filename))
        return true;
    const struct platform *p = is_empty(m->platform) ? NULL : platform_find(m->platform);
    if (!p && strcmp(m->backend, "tensorflow") != 0)
        p = platform_find_backend(m->backend);
    return !p || !p->filename || set_string(a, &m->default_model_filename, p->filename);
}

static bool fill_version_policy(Inference__ModelConfig *m, struct arena *a)
{
    if (!m->version_policy) {
        m->version_policy = (Inference__ModelVersionPolicy *)message_create(
            &inference__model_version_policy__descriptor, a);
        if (!m->version_policy)
            return false;
    }
    Inference__ModelVersionPolicy *policy = m->version_policy;
    if (policy->policy_choice_case == INFERENCE__MODEL_VERSION_POLICY__POLICY_CHOICE__NOT_SET) {
        Inference__ModelVersionPolicy__Latest *latest =
            (Inference__ModelVersionPolicy__Latest *)message_create(
                &inference__model_version_policy__latest__descriptor, a);
        if (!latest)
            return false;
        policy->latest = latest;
        policy->policy_choice_case = INFERENCE__MODEL_VERSION_POLICY__POLICY_CHOICE_LATEST;
    }
    if (policy->policy_choice_case == INFERENCE__MODEL_VERSION_POLICY__POLICY_CHOICE_LATEST &&
        policy->latest->num_versions == 0)
        policy->latest->num_versions = 1;
    return true;
}

static bool add_int32(ProtobufCMessage *m, const char *field, int32_t value, struct arena *a)
{
    int32_t *at = field_add(m, field_of(m, field), a);
    if (at)
        *at = value;
    return at;
}

static bool every_gpu_exists(const Inference__ModelInstanceGroup *g, uint32_t gpu_count)
{
    for (size_t i = 0; i < g->n_gpus; i++)
        if (g->gpus[i] < 0 || (uint32_t)g->gpus[i] >= gpu_count)
            return false;
    return true;
}

/* Does this machine have what the preference asks for? */
static bool is_possible(const struct group_preference *p, uint32_t gpu_count)
{
    if (p->kind != INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_GPU)
        return true;
    for (uint32_t i = 0; i < p->gpu_count; i++)
        if (p->gpus[i] >= gpu_count)
            return false;
    return gpu_count > 0;
}

/* What nobody has asked for is the first possible one of what the backend prefers. */
static bool fill_preferred(Inference__ModelInstanceGroup *g, const struct config_context *context,
                           struct arena *a)
{
    for (size_t i = 0; i < context->preference_count; i++) {
        const struct group_preference *p = &context->preferences[i];
        if (!is_possible(p, context->gpu_count))
            continue;
        g->kind = p->kind;
        g->count = p->count;
        for (uint32_t k = 0; k < p->gpu_count; k++)
            if (!add_int32(&g->base, "gpus", (int32_t)p->gpus[k], a))
                return false;
        return true;
    }
    return true;
}

/* A second cheap instance is worth it where processors are left for it and the loops: with two in all it takes
 * requests out of the first one's batches (bench: 8 connections, a third less). Triton has two of
 * onnxruntime and tensorflow on any machine. */
static int32_t default_count(const Inference__ModelInstanceGroup *g,
                             const Inference__ModelConfig *m, const struct config_context *context)
{
    const struct platform *p = is_empty(m->backend) ? NULL : platform_find_backend(m->backend);
    bool is_cheap =
        g->kind == INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_CPU && p && p->has_cheap_instances;
    return is_cheap && context->processor_count >= 4 ? 2 : 1;
}

static bool fill_instance_group(Inference__ModelConfig *m, size_t index,
                                const struct config_context *context, struct arena *a)
{
    Inference__ModelInstanceGroup *g = m->instance_group[index];
    uint32_t gpu_count = context->gpu_count;
    if (is_empty(g->name)) {
        g->name = arena_printf(a, "%s_%zu", m->name, index);
        if (!g->name)
            return false;
    }
    if (g->kind == INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_AUTO) {
        bool gpu = gpu_count > 0 && every_gpu_exists(g, gpu_count);
        g->kind = gpu ? INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_GPU
                      : INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_CPU;
        if (!gpu)
            g->n_gpus = 0; /* a list of wishes that this machine does not have */
    }
    if (g->count < 1)
        g->count = default_count(g, m, context);
    if (g->kind == INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_GPU && g->n_gpus == 0)
        for (uint32_t i = 0; i < gpu_count; i++)
            if (!add_int32(&g->base, "gpus", (int32_t)i, a))
                return false;
    return true;
}

/* The group of a model that names none: called as the model is, not "<model>_0". */
static bool add_group(struct config_builder *b, const struct config_context *context)
{
    Inference__ModelConfig *m = b->message;
    ProtobufCMessage **at = field_add(&m->base, field_of(&m->base, "instance_group"), &b->arena);
    if (!at)
        return false;
    *at = message_create(&inference__model_instance_group__descriptor, &b->arena);
    if (!*at)
        return false;
    b->instances_by_default = true;
    Inference__ModelInstanceGroup *g = m->instance_group[0];
    return set_string(&b->arena, &g->name, m->name) && fill_preferred(g, context, &b->arena);
}

static bool fill_instance_groups(struct config_builder *b, const struct config_context *context)
{
    Inference__ModelConfig *m = b->message;
    if (m->scheduling_choice_case == INFERENCE__MODEL_CONFIG__SCHEDULING_CHOICE_ENSEMBLE_SCHEDULING)
        return true;
    if (m->n_instance_group == 0 && !add_group(b, context))
        return false;
    for (size_t i = 0; i < m->n_instance_group; i++)
        if (!fill_instance_group(m, i, context, &b->arena))
            return false;
    return true;
}

static bool fill_dynamic_batching(Inference__ModelConfig *m, struct arena *a)
{
    if (m->scheduling_choice_case != INFERENCE__MODEL_CONFIG__SCHEDULING_CHOICE_DYNAMIC_BATCHING)
        return true;
    Inference__ModelDynamicBatching *d = m->dynamic_batching;
    if (d->n_preferred_batch_size == 0 && m->max_batch_size > 0)
        return add_int32(&d->base, "preferred_batch_size", m->max_batch_size, a);
    return true;
}

static bool fill_all(struct config_builder *b, const struct config_context *context)
{
    Inference__ModelConfig *m = b->message;
    struct arena *a = &b->arena;
    if (is_empty(m->name) && context->directory_name &&
        !set_string(a, &m->name, context->directory_name))
        return false;
    return fill_engine(m, context, a) && fill_filename(m, a) && fill_version_policy(m, a) &&
           fill_instance_groups(b, context) && fill_dynamic_batching(m, a);
}

tis_error *config_normalize(struct config_builder *b, const struct config_context *context)
{
    if (fill_all(b, context))
        return NULL;
    return error_new(TRITONSERVER_ERROR_UNAVAILABLE,
                     "model '%s' configuration needs more than %d bytes of memory",
                     b->message->name, CONFIG_MEMORY_BYTES_MAX);
}
