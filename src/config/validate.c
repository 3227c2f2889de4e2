/* The rules of a configuration. Each function checks one part and adds a problem for each rule that
 * is broken, so that one run shows everything. Where the protocols give a text (v1.md 6.1) the
 * problem contains it word for word. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "config/config.h"
#include "config/platform.h"
#include "infer/datatype.h"
#include "infer/shape.h"
#include "proto/message.h"

enum {
    PROBLEMS_MAX = 50
};

struct checker {
    const Inference__ModelConfig *m;
    const struct config_context *context;
    struct bytes text;
    uint32_t count;
};

/* "model '<name>' <field>: <text>". The text says what is wrong, what was found, what is right. */
static void problem(struct checker *c, const char *field, const char *fmt, ...) PRINTF(3, 4);

static void problem(struct checker *c, const char *field, const char *fmt, ...)
{
    if (++c->count > PROBLEMS_MAX)
        return;
    if (c->text.len)
        bytes_append_str(&c->text, "; ");
    bytes_printf(&c->text, "model '%s' %s: ", c->m->name, field);
    va_list args;
    va_start(args, fmt);
    bytes_vprintf(&c->text, fmt, args);
    va_end(args);
}

/* A dotted place inside the configuration, such as input[2].dims. */
struct place {
    char text[160];
};

static struct place place(const char *fmt, ...) PRINTF(1, 2);

static struct place place(const char *fmt, ...)
{
    struct place p;
    va_list args;
    va_start(args, fmt);
    vsnprintf(p.text, sizeof(p.text), fmt, args);
    va_end(args);
    return p;
}

/* "[2,-1,4]", shortened when long. */
struct shape_text {
    char text[128];
};

static struct shape_text shape_text(const int64_t *dims, size_t rank)
{
    struct shape_text s;
    size_t len = 0;
    size_t room = sizeof(s.text) - 8;

    s.text[len++] = '[';
    for (size_t i = 0; i < rank; i++) {
        char number[32];
        int n = snprintf(number, sizeof(number), "%s%" PRId64, i ? "," : "", dims[i]);
        if (len + (size_t)n > room) {
            memcpy(s.text + len, ",...", 4);
            len += 4;
            break;
        }
        memcpy(s.text + len, number, (size_t)n);
        len += (size_t)n;
    }
    s.text[len++] = ']';
    s.text[len] = '\0';
    return s;
}

static bool is_empty(const char *s)
{
    return !s || !*s;
}

/* A path that stays inside the directory it is relative to. */
static bool path_stays_inside(const char *path)
{
    if (path[0] == '/')
        return false;
    for (const char *part = path; part; part = strchr(part, '/')) {
        part += *part == '/';
        if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0'))
            return false;
    }
    return true;
}

static void check_path(struct checker *c, const char *field, const char *path)
{
    if (!is_empty(path) && !path_stays_inside(path))
        problem(c, field,
                "the path leaves the model's directory (found '%s', expected a relative path "
                "without '..')",
                path);
}

/* ---- name and engine ---- */

static void check_name(struct checker *c)
{
    const char *name = c->m->name;
    const char *directory = c->context->directory_name;

    if (is_empty(name)) {
        problem(c, "name", "model configuration must specify 'name'");
        return;
    }
    if (strchr(name, '/'))
        problem(c, "name", "a model's name must not contain '/' (found '%s')", name);
    if (directory && strcmp(name, directory) != 0)
        problem(c, "name",
                "unexpected directory name '%s' for model '%s', directory name must equal model "
                "name",
                directory, name);
}

static void check_engine(struct checker *c)
{
    const Inference__ModelConfig *m = c->m;
    const struct platform *p = is_empty(m->platform) ? NULL : platform_find(m->platform);

    if (is_empty(m->platform) && is_empty(m->backend)) {
        problem(c, "platform",
                "must specify platform for model '%s' (found neither 'platform' nor 'backend', "
                "expected for example backend: \"onnxruntime\")",
                m->name);
        return;
    }
    if (!is_empty(m->platform) && !p && is_empty(m->backend)) {
        const char *meant = platform_nearest(m->platform);
        problem(c, "platform", "unexpected platform type %s for %s (%s'%s')", m->platform, m->name,
                meant ? "did you mean " : "expected 'backend', or a platform such as ",
                meant ? meant : "onnxruntime_onnx");
    }
    if (p && *p->backend && strcmp(p->backend, m->backend) != 0)
        problem(
            c, "backend",
            "platform '%s' belongs to another backend (found '%s', expected '%s' or no platform)",
            m->platform, m->backend, p->backend);
    if (strchr(m->backend, '/'))
        problem(c, "backend", "a backend's name must not contain '/' (found '%s')", m->backend);
    if (strcmp(m->backend, "tensorflow") == 0 && is_empty(m->platform) &&
        is_empty(m->default_model_filename))
        problem(c, "platform",
                "must specify platform for model '%s' (found backend 'tensorflow' alone, expected "
                "'tensorflow_graphdef' or 'tensorflow_savedmodel')",
                m->name);
}

static void check_files(struct checker *c)
{
    const Inference__ModelConfig *m = c->m;

    check_path(c, "default_model_filename", m->default_model_filename);
    for (size_t i = 0; i < m->n_cc_model_filenames; i++)
        check_path(c, place("cc_model_filenames['%.60s']", m->cc_model_filenames[i]->key).text,
                   m->cc_model_filenames[i]->value);
}

static void check_versions(struct checker *c)
{
    const Inference__ModelVersionPolicy *policy = c->m->version_policy;

    if (!policy ||
        policy->policy_choice_case != INFERENCE__MODEL_VERSION_POLICY__POLICY_CHOICE_SPECIFIC)
        return;
    if (policy->specific->n_versions == 0)
        problem(c, "version_policy.specific",
                "no version is listed (expected for example versions: [ 1 ])");
    for (size_t i = 0; i < policy->specific->n_versions; i++)
        if (policy->specific->versions[i] < 0)
            problem(c, place("version_policy.specific.versions[%zu]", i).text,
                    "a version is not negative (found %" PRId64 ")", policy->specific->versions[i]);
}

/* ---- inputs and outputs ---- */

/* What inputs and outputs have in common. */
struct io {
    const char *kind; /* "input" or "output" */
    size_t index;
    const char *name;
    int data_type;
    const int64_t *dims;
    size_t rank;
    const Inference__ModelTensorReshape *reshape;
    bool is_shape_tensor;
    bool is_non_linear_format;
};

static struct place io_place(const struct io *io, const char *field)
{
    return place("%s[%zu]%s%.60s%s.%s", io->kind, io->index, is_empty(io->name) ? "" : " '",
                 is_empty(io->name) ? "" : io->name, is_empty(io->name) ? "" : "'", field);
}

/* Product of the sizes; -1 when one is variable, -2 when it does not fit. */
static int64_t element_count(const int64_t *dims, size_t rank)
{
    int64_t count = 1;
    bool variable = false;
    for (size_t i = 0; i < rank; i++) {
        if (dims[i] < 0)
            variable = true;
        else if (__builtin_mul_overflow(count, dims[i], &count))
            return -2;
    }
    return variable ? -1 : count;
}

static bool check_dims(struct checker *c, const struct io *io)
{
    bool good = true;

    if (io->rank == 0 && c->context->incomplete)
        return false; /* nothing else to check yet */
    if (io->rank == 0) {
        problem(
            c, io_place(io, "dims").text,
            "model %s must specify 'dims' (found none, expected for example dims: [ 16 ]; for a "
            "scalar dims: [ 1 ] and reshape: { shape: [ ] })",
            io->kind);
        return false;
    }
    for (size_t i = 0; i < io->rank; i++) {
        if (io->dims[i] >= 1 || io->dims[i] == -1)
            continue;
        problem(c, io_place(io, "dims").text,
                "dimension must be integer >= 1, or -1 to indicate a variable-size dimension "
                "(found %s)",
                shape_text(io->dims, io->rank).text);
        good = false;
        break;
    }
    if (good && element_count(io->dims, io->rank) == -2) {
        problem(c, io_place(io, "dims").text,
                "the number of elements does not fit 64 bits (found %s)",
                shape_text(io->dims, io->rank).text);
        good = false;
    }
    return good;
}

/* Product of the sizes up to the next variable one; *at moves behind that. */
static int64_t section(const int64_t *dims, size_t rank, size_t *at)
{
    int64_t count = 1;
    while (*at < rank && dims[*at] >= 0)
        count *= dims[(*at)++];
    (*at)++;
    return count;
}

/* Variable sizes keep their place: between two of them both shapes hold as many elements. */
static bool sections_agree(const struct io *io)
{
    const Inference__ModelTensorReshape *r = io->reshape;
    size_t a = 0, b = 0;
    while (a <= io->rank && b <= r->n_shape)
        if (section(io->dims, io->rank, &a) != section(r->shape, r->n_shape, &b))
            return false;
    return a > io->rank && b > r->n_shape;
}

static size_t variable_count(const int64_t *dims, size_t rank)
{
    size_t count = 0;
    for (size_t i = 0; i < rank; i++)
        count += dims[i] < 0;
    return count;
}

static void check_reshape(struct checker *c, const struct io *io)
{
    const Inference__ModelTensorReshape *r = io->reshape;
    struct place where = io_place(io, "reshape");

    for (size_t i = 0; i < r->n_shape; i++) {
        if (r->shape[i] >= 1 || r->shape[i] == -1)
            continue;
        problem(c, where.text,
                "reshape dimensions must be integer >= 1, or -1 to indicate a variable-size "
                "dimension (found %s)",
                shape_text(r->shape, r->n_shape).text);
        return;
    }
    int64_t dims_count = element_count(io->dims, io->rank);
    int64_t shape_count = element_count(r->shape, r->n_shape);
    bool agree = dims_count == shape_count;
    if (agree && dims_count == -1) {
        if (variable_count(io->dims, io->rank) != variable_count(r->shape, r->n_shape)) {
            problem(c, where.text,
                    "has different number of variable-size dimensions for dims and reshape "
                    "(found dims %s, reshape %s)",
                    shape_text(io->dims, io->rank).text, shape_text(r->shape, r->n_shape).text);
            return;
        }
        agree = sections_agree(io);
    }
    if (!agree)
        problem(c, where.text,
                "has different size for dims and reshape (found dims %s, reshape %s)",
                shape_text(io->dims, io->rank).text, shape_text(r->shape, r->n_shape).text);
}

static void check_io(struct checker *c, const struct io *io)
{
    const char *type = enum_name(&inference__data_type__descriptor, io->data_type);
    bool tensorrt = strcmp(c->m->backend, "tensorrt") == 0;

    if (is_empty(io->name))
        problem(c, io_place(io, "name").text, "model %s must specify 'name'", io->kind);
    if (!type)
        problem(c, io_place(io, "data_type").text,
                "unknown data type (found %d, expected for example TYPE_FP32)", io->data_type);
    else if (io->data_type == INFERENCE__DATA_TYPE__TYPE_INVALID && !c->context->incomplete)
        problem(c, io_place(io, "data_type").text,
                "model %s must specify 'data_type' (found none, expected for example TYPE_FP32)",
                io->kind);
    if (check_dims(c, io) && io->reshape)
        check_reshape(c, io);
    if (io->is_shape_tensor && !tensorrt)
        problem(c, io_place(io, "is_shape_tensor").text,
                "shape tensors exist in TensorRT models only (found backend '%s')", c->m->backend);
    if (io->is_non_linear_format && !tensorrt)
        problem(c, io_place(io, "is_non_linear_format_io").text,
                "non-linear formats exist in TensorRT models only (found backend '%s')",
                c->m->backend);
}

static void check_input(struct checker *c, size_t index)
{
    const Inference__ModelInput *in = c->m->input[index];
    struct io io = {
        .kind = "input",
        .index = index,
        .name = in->name,
        .data_type = (int)in->data_type,
        .dims = in->dims,
        .rank = in->n_dims,
        .reshape = in->reshape,
        .is_shape_tensor = in->is_shape_tensor,
        .is_non_linear_format = in->is_non_linear_format_io,
    };

    check_io(c, &io);
    if (!enum_name(&inference__model_input__format__descriptor, (int)in->format))
        problem(c, io_place(&io, "format").text,
                "unknown format (found %d, expected FORMAT_NONE, FORMAT_NHWC or FORMAT_NCHW)",
                (int)in->format);
    else if (in->format != INFERENCE__MODEL_INPUT__FORMAT__FORMAT_NONE && in->n_dims != 3 &&
             !(in->n_dims == 0 && c->context->incomplete))
        problem(c, io_place(&io, "format").text, "model input NHWC/NCHW require 3 dims (found %zu)",
                in->n_dims);
    if (in->allow_ragged_batch && in->is_shape_tensor)
        problem(c, io_place(&io, "allow_ragged_batch").text, "a shape tensor cannot be ragged");
    if (in->allow_ragged_batch && c->m->max_batch_size == 0)
        problem(c, io_place(&io, "allow_ragged_batch").text,
                "only models that batch can have ragged inputs (found max_batch_size 0)");
}

static void check_output(struct checker *c, size_t index)
{
    const Inference__ModelOutput *out = c->m->output[index];
    struct io io = {
        .kind = "output",
        .index = index,
        .name = out->name,
        .data_type = (int)out->data_type,
        .dims = out->dims,
        .rank = out->n_dims,
        .reshape = out->reshape,
        .is_shape_tensor = out->is_shape_tensor,
        .is_non_linear_format = out->is_non_linear_format_io,
    };

    check_io(c, &io);
    check_path(c, io_place(&io, "label_filename").text, out->label_filename);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* names is a scratch array of count names. */
static void check_unique(struct checker *c, const char *kind, const char **names, size_t count)
{
    if (count)
        qsort(names, count, sizeof(*names), compare_names);
    for (size_t i = 1; i < count; i++)
        if (*names[i] && strcmp(names[i], names[i - 1]) == 0)
            problem(c, kind, "two of them are called '%s'", names[i]);
}

static void check_tensors(struct checker *c)
{
    const Inference__ModelConfig *m = c->m;
    size_t max = m->n_input > m->n_output ? m->n_input : m->n_output;
    const char **names = calloc(max ? max : 1, sizeof(*names));

    for (size_t i = 0; i < m->n_input; i++)
        check_input(c, i);
    for (size_t i = 0; i < m->n_output; i++)
        check_output(c, i);
    if (!names) {
        c->text.failed = true;
        return;
    }
    for (size_t i = 0; i < m->n_input; i++)
        names[i] = m->input[i]->name;
    check_unique(c, "input", names, m->n_input);
    for (size_t i = 0; i < m->n_output; i++)
        names[i] = m->output[i]->name;
    check_unique(c, "output", names, m->n_output);
    free(names);
}

/* ---- batching ---- */

static void check_queue_policy(struct checker *c, const char *field,
                               const Inference__ModelQueuePolicy *policy)
{
    int action = (int)policy->timeout_action;
    if (!enum_name(&inference__model_queue_policy__timeout_action__descriptor, action))
        problem(c, field, "unknown timeout_action (found %d, expected REJECT or DELAY)", action);
    if (c->m->dynamic_batching->preserve_ordering &&
        action == INFERENCE__MODEL_QUEUE_POLICY__TIMEOUT_ACTION__DELAY)
        problem(c, field, "DELAY cannot be combined with preserve_ordering (expected REJECT)");
    if (policy->default_timeout_microseconds > INT64_MAX / 1000)
        problem(c, field,
                "default_timeout_microseconds is too large (found %" PRIu64 ", expected at most "
                "%" PRId64 ")",
                policy->default_timeout_microseconds, INT64_MAX / 1000);
}

static void check_priorities(struct checker *c, const Inference__ModelDynamicBatching *d)
{
    uint64_t levels = d->priority_levels;

    if (levels > CONFIG_PRIORITY_LEVELS_MAX)
        problem(c, "dynamic_batching.priority_levels",
                "too many levels (found %" PRIu64 ", expected at most %d)", levels,
                CONFIG_PRIORITY_LEVELS_MAX);
    if (levels && (d->default_priority_level == 0 || d->default_priority_level > levels))
        problem(c, "dynamic_batching.default_priority_level",
                "must be one of the priority levels (found %" PRIu64 ", expected 1 to %" PRIu64 ")",
                d->default_priority_level, levels);
    if (d->preserve_ordering && levels > 1)
        problem(c, "dynamic_batching.priority_levels",
                "only one level can be combined with preserve_ordering (found %" PRIu64 ")",
                levels);
    if (d->default_queue_policy)
        check_queue_policy(c, "dynamic_batching.default_queue_policy", d->default_queue_policy);
    for (size_t i = 0; i < d->n_priority_queue_policy; i++) {
        uint64_t level = d->priority_queue_policy[i]->key;
        struct place where = place("dynamic_batching.priority_queue_policy[%" PRIu64 "]", level);
        if (level == 0 || level > levels)
            problem(c, where.text, "no such priority level (expected 1 to %" PRIu64 ")", levels);
        check_queue_policy(c, where.text, d->priority_queue_policy[i]->value);
    }
}

static void check_batching(struct checker *c)
{
    const Inference__ModelConfig *m = c->m;

    if (m->max_batch_size < 0)
        problem(c, "max_batch_size",
                "'max_batch_size' must be non-negative value for %s (found %d)", m->name,
                m->max_batch_size);
    if (m->scheduling_choice_case != INFERENCE__MODEL_CONFIG__SCHEDULING_CHOICE_DYNAMIC_BATCHING)
        return;
    const Inference__ModelDynamicBatching *d = m->dynamic_batching;
    for (size_t i = 0; i < d->n_preferred_batch_size; i++) {
        struct place where = place("dynamic_batching.preferred_batch_size[%zu]", i);
        int32_t size = d->preferred_batch_size[i];
        if (size <= 0)
            problem(c, where.text,
                    "dynamic batching preferred size must be positive for %s (found %d)", m->name,
                    size);
        else if (size > m->max_batch_size)
            problem(c, where.text,
                    "dynamic batching preferred size must be <= max batch size for %s (found %d, "
                    "max_batch_size is %d)",
                    m->name, size, m->max_batch_size);
    }
    if (d->max_queue_delay_microseconds > INT64_MAX / 1000)
        problem(c, "dynamic_batching.max_queue_delay_microseconds",
                "dynamic batching maximum queue delay must be non-negative for %s (found %" PRIu64
                ", expected at most %" PRId64 ")",
                m->name, d->max_queue_delay_microseconds, INT64_MAX / 1000);
    check_priorities(c, d);
}

static const Inference__ModelInput *find_input(const Inference__ModelConfig *m, const char *name)
{
    for (size_t i = 0; i < m->n_input; i++)
        if (strcmp(m->input[i]->name, name) == 0)
            return m->input[i];
    return NULL;
}

/* Tensors made by or cut for the backend: their sources must exist. */
static void check_source(struct checker *c, const char *field, const char *name)
{
    if (!find_input(c->m, name))
        problem(c, field, "the source is not an input of the model (found '%s')", name);
}

struct names {
    char *const *at;
    size_t count;
};

static struct names batch_input_targets(const struct checker *c, size_t index)
{
    const Inference__BatchInput *in = c->m->batch_input[index];
    return (struct names){ in->target_name, in->n_target_name };
}

static struct names batch_output_targets(const struct checker *c, size_t index)
{
    const Inference__BatchOutput *out = c->m->batch_output[index];
    return (struct names){ out->target_name, out->n_target_name };
}

/* Each tensor is the target of one entry, once. */
static void check_targets(struct checker *c, const char *field,
                          struct names (*targets)(const struct checker *, size_t), size_t index)
{
    struct names own = targets(c, index);

    if (own.count == 0)
        problem(c, field, "expected at least one target_name (found 0)");
    for (size_t i = 0; i < own.count; i++)
        for (size_t e = 0; e <= index; e++) {
            struct names others = targets(c, e);
            for (size_t k = 0; k < (e == index ? i : others.count); k++)
                if (strcmp(own.at[i], others.at[k]) == 0)
                    problem(c, field, "a target can be named only once (found '%s' again)",
                            own.at[i]);
        }
}

static void check_batch_input(struct checker *c, size_t index)
{
    const Inference__BatchInput *in = c->m->batch_input[index];
    struct place where = place("batch_input[%zu]", index);

    if (!enum_name(&inference__batch_input__kind__descriptor, (int)in->kind))
        problem(c, where.text, "unknown kind (found %d)", (int)in->kind);
    if (in->data_type != INFERENCE__DATA_TYPE__TYPE_INT32 &&
        in->data_type != INFERENCE__DATA_TYPE__TYPE_FP32)
        problem(c, where.text, "data_type must be TYPE_INT32 or TYPE_FP32 (found %s)",
                config_type_name((TRITONSERVER_DataType)in->data_type));
    check_targets(c, where.text, batch_input_targets, index);
    for (size_t i = 0; i < in->n_target_name; i++)
        if (find_input(c->m, in->target_name[i]))
            problem(c, where.text, "the target is an input that requests bring (found '%s')",
                    in->target_name[i]);
    if (in->n_source_input != 1)
        problem(c, where.text, "expected exactly one source_input (found %zu)", in->n_source_input);
    for (size_t i = 0; i < in->n_source_input; i++)
        check_source(c, where.text, in->source_input[i]);
}

static void check_batch_output(struct checker *c, size_t index)
{
    const Inference__BatchOutput *out = c->m->batch_output[index];
    struct place where = place("batch_output[%zu]", index);

    if (!enum_name(&inference__batch_output__kind__descriptor, (int)out->kind))
        problem(c, where.text, "unknown kind (found %d)", (int)out->kind);
    if (out->n_source_input != 1)
        problem(c, where.text, "expected exactly one source_input (found %zu)",
                out->n_source_input);
    for (size_t i = 0; i < out->n_source_input; i++)
        check_source(c, where.text, out->source_input[i]);
    check_targets(c, where.text, batch_output_targets, index);
    for (size_t i = 0; i < out->n_target_name; i++) {
        bool found = false;
        for (size_t k = 0; k < c->m->n_output; k++)
            found |= strcmp(c->m->output[k]->name, out->target_name[i]) == 0;
        if (!found)
            problem(c, where.text, "the target is not an output of the model (found '%s')",
                    out->target_name[i]);
    }
}

static void check_batch_tensors(struct checker *c)
{
    for (size_t i = 0; i < c->m->n_batch_input; i++)
        check_batch_input(c, i);
    for (size_t i = 0; i < c->m->n_batch_output; i++)
        check_batch_output(c, i);
    if (c->m->max_batch_size == 0 && c->m->n_batch_input)
        problem(c, "batch_input",
                "only models that batch can have batch inputs (found max_batch_size 0)");
    if (c->m->max_batch_size == 0 && c->m->n_batch_output)
        problem(c, "batch_output",
                "only models that batch can have batch outputs (found max_batch_size 0)");
}

/* ---- instances ---- */

static void check_gpus(struct checker *c, const char *where, const Inference__ModelInstanceGroup *g)
{
    uint32_t gpu_count = c->context->gpu_count;

    if (g->n_gpus == 0)
        problem(c, where, "instance group %s of model %s has kind KIND_GPU but specifies no GPUs%s",
                g->name, c->m->name,
                gpu_count ? "" : " (found no GPU in this machine, expected KIND_CPU or KIND_AUTO)");
    for (size_t i = 0; i < g->n_gpus; i++) {
        if (g->gpus[i] >= 0 && (uint32_t)g->gpus[i] < gpu_count)
            continue;
        if (gpu_count)
            problem(c, where,
                    "instance group %s of model %s specifies invalid GPU id %d, valid GPUs are 0 - "
                    "%u",
                    g->name, c->m->name, g->gpus[i], gpu_count - 1);
        else
            problem(
                c, where,
                "instance group %s of model %s specifies invalid GPU id %d, this machine has no "
                "GPU (expected KIND_CPU or KIND_AUTO)",
                g->name, c->m->name, g->gpus[i]);
    }
}

enum {
    INSTANCES_MAX = 4096, /* each is a thread */
    RESOURCES_MAX = 64,   /* of a group's rate_limiter */
};

static void check_resources(struct checker *c, size_t group)
{
    const Inference__ModelRateLimiter *limiter = c->m->instance_group[group]->rate_limiter;
    size_t count = limiter ? limiter->n_resources : 0;
    if (count > RESOURCES_MAX) {
        problem(c, place("instance_group[%zu].rate_limiter", group).text,
                "too many resources (found %zu, expected at most %d)", count, RESOURCES_MAX);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const Inference__ModelRateLimiter__Resource *r = limiter->resources[i];
        struct place where = place("instance_group[%zu].rate_limiter.resources[%zu]", group, i);
        if (is_empty(r->name))
            problem(c, where.text, "a resource needs a name (found '')");
        if (r->count == 0)
            problem(c, where.text,
                    "resource '%s': an instance that needs none of it must not name it "
                    "(found count 0, expected at least 1)",
                    r->name);
        for (size_t k = 0; k < i && !is_empty(r->name); k++) {
            if (strcmp(limiter->resources[k]->name, r->name) == 0) {
                problem(c, where.text, "resource '%s' is there twice (as resources[%zu])", r->name,
                        k);
                break;
            }
        }
    }
}

static void check_instance_group(struct checker *c, size_t index)
{
    const Inference__ModelInstanceGroup *g = c->m->instance_group[index];
    struct place where = place("instance_group[%zu]", index);

    switch ((int)g->kind) {
    case INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_GPU:
        check_gpus(c, where.text, g);
        break;
    case INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_CPU:
        if (g->n_gpus)
            problem(
                c, where.text,
                "instance group %s of model %s has kind KIND_CPU but specifies one or more GPUs",
                g->name, c->m->name);
        if (strcmp(c->m->backend, "tensorrt") == 0)
            problem(c, where.text,
                    "instance group %s of model %s must be KIND_GPU and must specify at least on "
                    "GPU id",
                    g->name, c->m->name);
        break;
    case INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_MODEL:
    case INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_AUTO:
        break;
    default:
        problem(c, where.text, "unknown kind (found %d, expected for example KIND_CPU)",
                (int)g->kind);
        break;
    }
    check_resources(c, index);
}

static void check_instance_groups(struct checker *c)
{
    uint64_t instances = 0;
    for (size_t i = 0; i < c->m->n_instance_group; i++) {
        const Inference__ModelInstanceGroup *g = c->m->instance_group[i];
        check_instance_group(c, i);
        instances += (uint64_t)(g->count > 0 ? g->count : 1) * (g->n_gpus > 0 ? g->n_gpus : 1);
    }
    if (instances > INSTANCES_MAX)
        problem(c, "instance_group",
                "too many instances in all groups (found %" PRIu64 ", expected at most %d)",
                instances, INSTANCES_MAX);
}

/* ---- warm-up ---- */

enum {
    WARMUP_STRING_BYTES = 16 /* what an element of type string is counted as */
};

/* Where its values come from. */
static void check_warmup_data(struct checker *c, const char *where,
                              const Inference__ModelWarmup__Input *in)
{
    switch (in->input_data_type_case) {
    case INFERENCE__MODEL_WARMUP__INPUT__INPUT_DATA_TYPE_ZERO_DATA:
    case INFERENCE__MODEL_WARMUP__INPUT__INPUT_DATA_TYPE_RANDOM_DATA:
        return;
    case INFERENCE__MODEL_WARMUP__INPUT__INPUT_DATA_TYPE_INPUT_DATA_FILE:
        if (is_empty(in->input_data_file) || !path_stays_inside(in->input_data_file))
            problem(c, where,
                    "input_data_file must be a file below the model's directory 'warmup' (found "
                    "'%s')",
                    in->input_data_file);
        return;
    default:
        problem(c, where,
                "nothing says what its values are (expected zero_data, random_data or "
                "input_data_file)");
    }
}

/* Against the model's input of that name. */
static void check_warmup_input(struct checker *c, const char *where,
                               const Inference__ModelWarmup__Input *in,
                               const Inference__ModelInput *of)
{
    uint64_t bytes;
    uint32_t element = datatype_bytes((TRITONSERVER_DataType)in->data_type);

    if (of->data_type == INFERENCE__DATA_TYPE__TYPE_INVALID || of->n_dims == 0)
        return; /* check_io() has told, or a backend will fill it in */
    if (in->data_type != of->data_type) {
        problem(c, where, "data_type must be that of the model's input (found %s, expected %s)",
                config_type_name((TRITONSERVER_DataType)in->data_type),
                config_type_name((TRITONSERVER_DataType)of->data_type));
        return;
    }
    for (size_t i = 0; i < in->n_dims; i++) {
        if (in->dims[i] >= 0)
            continue;
        problem(c, where, "warm-up needs a size for every dimension (found %s)",
                shape_text(in->dims, in->n_dims).text);
        return;
    }
    if (in->n_dims > SHAPE_RANK_MAX ||
        !shape_matches(of->dims, (uint32_t)of->n_dims, in->dims, (uint32_t)in->n_dims))
        problem(c, where,
                "dims do not fit those of the model's input (found %s, expected %s, without the "
                "batch dimension)",
                shape_text(in->dims, in->n_dims).text, shape_text(of->dims, of->n_dims).text);
    else if (!shape_bytes(in->dims, (uint32_t)in->n_dims, element ? element : WARMUP_STRING_BYTES,
                          &bytes) ||
             bytes > CONFIG_WARMUP_BYTES_MAX)
        problem(c, where, "too large for a warm-up (found dims %s, expected at most %d bytes)",
                shape_text(in->dims, in->n_dims).text, CONFIG_WARMUP_BYTES_MAX);
}

static void check_warmup_inputs(struct checker *c, const char *where,
                                const Inference__ModelWarmup *w)
{
    for (size_t i = 0; i < w->n_inputs; i++) {
        const char *name = w->inputs[i]->key;
        struct place input = place("%s.inputs['%.40s']", where, name);
        const Inference__ModelInput *of = find_input(c->m, name);
        const Inference__ModelWarmup__Input *value = w->inputs[i]->value;
        if (!value) {
            problem(c, input.text, "has no value (expected data_type, dims and the data)");
            continue;
        }
        check_warmup_data(c, input.text, value);
        if (of)
            check_warmup_input(c, input.text, value, of);
        else if (!c->context->incomplete)
            problem(c, input.text, "the model has no such input (found '%s')", name);
    }
    for (size_t i = 0; i < c->m->n_input; i++) {
        const Inference__ModelInput *of = c->m->input[i];
        bool found = of->optional;
        for (size_t k = 0; k < w->n_inputs && !found; k++)
            found = strcmp(w->inputs[k]->key, of->name) == 0;
        if (!found)
            problem(c, where, "input '%s' is missing", of->name);
    }
}

static void check_warmup(struct checker *c, size_t index)
{
    const Inference__ModelWarmup *w = c->m->model_warmup[index];
    struct place where = place("model_warmup[%zu]%s%.40s%s", index, is_empty(w->name) ? "" : " '",
                               is_empty(w->name) ? "" : w->name, is_empty(w->name) ? "" : "'");
    int32_t max = c->m->max_batch_size;

    if (max < 1)
        max = 1;
    if (max > CONFIG_WARMUP_REQUESTS_MAX)
        max = CONFIG_WARMUP_REQUESTS_MAX;
    /* A model that says nothing of batches may yet be given a max_batch_size. */
    if (w->batch_size == 0 || (w->batch_size > (uint32_t)max && !c->context->incomplete))
        problem(c, where.text,
                "batch_size is out of range (found %" PRIu32 ", expected 1 to %" PRId32 ")",
                w->batch_size, max);
    check_warmup_inputs(c, where.text, w);
}

/* ---- the rest ---- */

static void check_optimization(struct checker *c)
{
    const Inference__ModelOptimizationPolicy *o = c->m->optimization;
    if (!o)
        return;
    if (!enum_name(&inference__model_optimization_policy__model_priority__descriptor,
                   (int)o->priority))
        problem(c, "optimization.priority",
                "unknown priority (found %d, expected PRIORITY_DEFAULT, PRIORITY_MAX or "
                "PRIORITY_MIN)",
                (int)o->priority);
}

static void check_metric_control(struct checker *c, size_t index)
{
    static const char family[] = "nv_inference_first_response_histogram_ms";
    const Inference__ModelMetrics__MetricControl *m = c->m->model_metrics->metric_control[index];
    const Inference__ModelMetrics__MetricControl__HistogramOptions *h = m->histogram_options;
    const char *found = m->metric_identifier ? m->metric_identifier->family : "";
    struct place where = place("model_metrics.metric_control[%zu]", index);

    if (strcmp(found, family) != 0)
        problem(c, place("%s.metric_identifier.family", where.text).text,
                "this family has no settings (found '%s', expected '%s')", found, family);
    if (index > 0)
        problem(c, where.text, "a family is set once (found %zu settings, expected one)",
                c->m->model_metrics->n_metric_control);
    where = place("%s.histogram_options.buckets", where.text);
    if (!h || h->n_buckets == 0 || h->n_buckets > CONFIG_METRIC_BUCKETS_MAX) {
        problem(c, where.text, "a histogram has 1 to %d buckets (found %zu)",
                CONFIG_METRIC_BUCKETS_MAX, h ? h->n_buckets : 0);
        return;
    }
    for (size_t i = 0; i < h->n_buckets; i++) {
        if (isfinite(h->buckets[i]) && (i == 0 || h->buckets[i - 1] < h->buckets[i]))
            continue;
        problem(c, where.text, "bounds are finite and ascend (found %g at index %zu)",
                h->buckets[i], i);
        return;
    }
}

static void not_yet(struct checker *c, bool given, const char *field, const char *what)
{
    if (given)
        problem(c, field,
                "%s not supported by this server yet; remove this field to serve the model", what);
}

/* Fields of features that are still to come. A model that asks for one must not be served as if it
 * had not asked. Each line goes when its feature arrives. */
static void check_later_features(struct checker *c)
{
    const Inference__ModelConfig *m = c->m;

    not_yet(c,
            m->scheduling_choice_case ==
                INFERENCE__MODEL_CONFIG__SCHEDULING_CHOICE_SEQUENCE_BATCHING,
            "sequence_batching", "sequence batching is");
    not_yet(c,
            m->scheduling_choice_case ==
                INFERENCE__MODEL_CONFIG__SCHEDULING_CHOICE_ENSEMBLE_SCHEDULING,
            "ensemble_scheduling", "ensembles are");
    not_yet(c,
            strcmp(m->platform, "ensemble") == 0 &&
                m->scheduling_choice_case !=
                    INFERENCE__MODEL_CONFIG__SCHEDULING_CHOICE_ENSEMBLE_SCHEDULING,
            "platform", "ensembles are");
    not_yet(c, m->response_cache && m->response_cache->enable, "response_cache",
            "the response cache is");
    not_yet(c, m->model_repository_agents && m->model_repository_agents->n_agents,
            "model_repository_agents", "repository agents are");
    for (size_t i = 0; i < m->n_instance_group; i++) {
        const Inference__ModelInstanceGroup *g = m->instance_group[i];
        not_yet(c, g->n_secondary_devices, place("instance_group[%zu].secondary_devices", i).text,
                "secondary devices are");
        not_yet(c, g->passive, place("instance_group[%zu].passive", i).text,
                "passive instances are");
    }
}

tis_error *config_validate(const struct config_builder *b, const struct config_context *context)
{
    struct checker c = { .m = b->message, .context = context };
    tis_error *err = NULL;

    check_name(&c);
    check_engine(&c);
    check_files(&c);
    check_versions(&c);
    check_tensors(&c);
    check_batching(&c);
    check_batch_tensors(&c);
    check_instance_groups(&c);
    for (size_t i = 0; i < c.m->n_model_warmup; i++)
        check_warmup(&c, i);
    check_optimization(&c);
    for (size_t i = 0; c.m->model_metrics && i < c.m->model_metrics->n_metric_control; i++)
        check_metric_control(&c, i);
    check_later_features(&c);

    if (c.count > PROBLEMS_MAX)
        bytes_printf(&c.text, "; and %u more", c.count - PROBLEMS_MAX);
    if (c.text.failed)
        err = error_no_memory();
    else if (c.count)
        err = error_new(TRITONSERVER_ERROR_INVALID_ARG, "%s", bytes_str(&c.text));
    bytes_fini(&c.text);
    return err;
}
