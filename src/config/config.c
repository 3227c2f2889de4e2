#include "config/config.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "proto/json.h"
#include "proto/message.h"
#include "proto/text.h"

enum {
    LINEAR_SEARCH_MAX = 8
};

/* ---- reading ---- */

static struct config_builder *builder_create(void)
{
    struct config_builder *b = calloc(1, sizeof(*b));
    if (b)
        arena_init(&b->arena, NULL, 0, CONFIG_MEMORY_BYTES_MAX);
    return b;
}

void config_builder_destroy(struct config_builder *b)
{
    if (!b)
        return;
    arena_fini(&b->arena);
    free(b);
}

static tis_error *check_text_bytes(size_t len, const char *what)
{
    if (len <= CONFIG_TEXT_BYTES_MAX)
        return NULL;
    return error_new(TRITONSERVER_ERROR_INVALID_ARG, "%s has %zu bytes, expected %d at most", what,
                     len, CONFIG_TEXT_BYTES_MAX);
}

tis_error *config_parse_text(const char *text, size_t len, const char *file_name,
                             struct config_builder **ret_builder)
{
    static const struct text_alias aliases[] = {
        { "inference.ModelConfig", "tags", "metric_tags" }, /* up to 0.10 */
    };
    struct text_options options = {
        .file_name = file_name,
        .aliases = aliases,
        .alias_count = ARRAY_LEN(aliases),
    };
    ProtobufCMessage *m = NULL;

    tis_error *err = check_text_bytes(len, file_name ? file_name : "the configuration");
    if (err)
        return err;
    struct config_builder *b = builder_create();
    if (!b)
        return error_no_memory();
    err = text_parse(&inference__model_config__descriptor, text, len, &options, &b->arena, &m);
    if (err) {
        config_builder_destroy(b);
        return err;
    }
    b->message = (Inference__ModelConfig *)m;
    *ret_builder = b;
    return NULL;
}

tis_error *config_parse_json(const char *text, size_t len, struct config_builder **ret_builder)
{
    ProtobufCMessage *m = NULL;

    tis_error *err = check_text_bytes(len, "the configuration");
    if (err)
        return err;
    struct config_builder *b = builder_create();
    if (!b)
        return error_no_memory();
    err = json_parse_message(&inference__model_config__descriptor, text, len, &b->arena, &m);
    if (err) {
        config_builder_destroy(b);
        return error_wrap(err, "model configuration");
    }
    b->message = (Inference__ModelConfig *)m;
    *ret_builder = b;
    return NULL;
}

tis_error *config_create_empty(struct config_builder **ret_builder)
{
    return config_parse_text("", 0, NULL, ret_builder);
}

static tis_error *copy_message(const Inference__ModelConfig *from,
                               struct config_builder **ret_builder)
{
    struct config_builder *b = builder_create();
    ProtobufCMessage *m =
        b ? message_convert(&from->base, &inference__model_config__descriptor, &b->arena) : NULL;
    if (!m) {
        config_builder_destroy(b);
        return error_no_memory();
    }
    b->message = (Inference__ModelConfig *)m;
    *ret_builder = b;
    return NULL;
}

tis_error *config_edit(const struct model_config *c, struct config_builder **ret_builder)
{
    tis_error *err = copy_message(c->message, ret_builder);
    if (!err)
        (*ret_builder)->instances_by_default = c->instances_by_default;
    return err;
}

tis_error *config_edit_groups(const struct model_config *c, const struct config_builder *from,
                              struct config_builder **ret_builder)
{
    struct config_builder *b = NULL;
    tis_error *err = config_edit(c, &b);
    if (err)
        return err;
    Inference__ModelConfig *copy = (Inference__ModelConfig *)message_convert(
        &from->message->base, &inference__model_config__descriptor, &b->arena);
    if (!copy) {
        config_builder_destroy(b);
        return error_no_memory();
    }
    b->message->n_instance_group = copy->n_instance_group;
    b->message->instance_group = copy->instance_group;
    b->instances_by_default = false;
    *ret_builder = b;
    return NULL;
}

tis_error *config_builder_copy(const struct config_builder *b, struct config_builder **ret_builder)
{
    return copy_message(b->message, ret_builder);
}

void config_append_differences(struct bytes *out, const struct config_builder *a,
                               const struct config_builder *b)
{
    const ProtobufCMessageDescriptor *desc = a->message->base.descriptor;
    size_t begin = out->len;
    for (unsigned i = 0; i < desc->n_fields; i++) {
        struct bytes left = { 0 }, right = { 0 };
        text_append_field(&left, &a->message->base, &desc->fields[i]);
        text_append_field(&right, &b->message->base, &desc->fields[i]);
        bool differ =
            left.len != right.len || memcmp(bytes_str(&left), bytes_str(&right), left.len) != 0;
        if (differ)
            bytes_printf(out, "%s%s", out->len > begin ? ", " : "", desc->fields[i].name);
        out->failed |= left.failed || right.failed;
        bytes_fini(&left);
        bytes_fini(&right);
    }
}

tis_error *config_update(const struct model_config *c, const char *json, size_t len,
                         struct config_builder **ret_builder)
{
    struct config_builder *b = NULL;
    ProtobufCMessage *m = NULL;

    tis_error *err = check_text_bytes(len, "the configuration");
    if (!err)
        err = config_edit(c, &b);
    if (!err)
        err = json_parse_message(&inference__model_config__descriptor, json, len, &b->arena, &m);
    if (err) {
        config_builder_destroy(b);
        return error_wrap(err, "model '%s', configuration from its backend", c->name);
    }

    /* Both messages live in b's arena, so parts can be handed over as they are. */
    Inference__ModelConfig *from = (Inference__ModelConfig *)m;
    Inference__ModelConfig *to = b->message;
    to->max_batch_size = from->max_batch_size;
    to->n_input = from->n_input;
    to->input = from->input;
    to->n_output = from->n_output;
    to->output = from->output;
    if (from->model_transaction_policy)
        to->model_transaction_policy = from->model_transaction_policy;
    if (to->scheduling_choice_case == INFERENCE__MODEL_CONFIG__SCHEDULING_CHOICE__NOT_SET) {
        to->scheduling_choice_case = from->scheduling_choice_case;
        to->dynamic_batching = from->dynamic_batching; /* the union's first member of one size */
    }
    *ret_builder = b;
    return NULL;
}

tis_error *config_check(const struct model_config *c, const struct config_context *context)
{
    struct config_builder *b = NULL;
    tis_error *err = config_edit(c, &b);
    if (!err)
        err = config_validate(b, context);
    config_builder_destroy(b);
    return err;
}

/* ---- finishing ---- */

static uint32_t name_hash(const char *name, size_t len)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)name[i]) * 16777619u;
    return hash;
}

static bool index_tensors(struct arena *a, const struct tensor_spec *specs, uint32_t count,
                          uint32_t **ret_slots, uint32_t *ret_mask)
{
    uint32_t slot_count = 1;

    if (count <= LINEAR_SEARCH_MAX)
        return true;
    while (slot_count < count * 2)
        slot_count *= 2;
    uint32_t *slots = arena_calloc(a, slot_count, sizeof(*slots));
    if (!slots)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t slot = name_hash(specs[i].name, specs[i].name_len);
        while (slots[slot & (slot_count - 1)])
            slot++;
        slots[slot & (slot_count - 1)] = i + 1;
    }
    *ret_slots = slots;
    *ret_mask = slot_count - 1;
    return true;
}

static void set_reshape(struct tensor_spec *spec, const Inference__ModelTensorReshape *reshape)
{
    if (!reshape)
        return;
    spec->has_reshape = true;
    spec->reshape = reshape->shape;
    spec->reshape_rank = (uint32_t)reshape->n_shape;
}

static void fill_input(struct tensor_spec *spec, const Inference__ModelInput *input)
{
    *spec = (struct tensor_spec){
        .name = input->name,
        .name_len = (uint32_t)strlen(input->name),
        .data_type = (TRITONSERVER_DataType)input->data_type,
        .dims = input->dims,
        .rank = (uint32_t)input->n_dims,
        .optional = input->optional,
        .allow_ragged = input->allow_ragged_batch,
        .is_shape_tensor = input->is_shape_tensor,
        .label_filename = "",
    };
    set_reshape(spec, input->reshape);
}

static void fill_output(struct tensor_spec *spec, const Inference__ModelOutput *output)
{
    *spec = (struct tensor_spec){
        .name = output->name,
        .name_len = (uint32_t)strlen(output->name),
        .data_type = (TRITONSERVER_DataType)output->data_type,
        .dims = output->dims,
        .rank = (uint32_t)output->n_dims,
        .label_filename = output->label_filename,
    };
    set_reshape(spec, output->reshape);
}

/* May two requests differ in this input so that no batch can hold both? */
static bool may_be_unlike(const struct tensor_spec *spec)
{
    bool is_fixed = true;
    for (uint32_t i = 0; i < spec->rank; i++)
        is_fixed &= spec->dims[i] >= 0;
    return spec->optional || spec->is_shape_tensor || (!is_fixed && !spec->allow_ragged);
}

static bool fill_tensors(struct model_config *c)
{
    const Inference__ModelConfig *m = c->message;

    c->input_count = (uint32_t)m->n_input;
    c->output_count = (uint32_t)m->n_output;
    c->inputs = arena_calloc(&c->arena, m->n_input, sizeof(*c->inputs));
    c->outputs = arena_calloc(&c->arena, m->n_output, sizeof(*c->outputs));
    if (!c->inputs || !c->outputs)
        return false;
    for (uint32_t i = 0; i < c->input_count; i++) {
        fill_input(&c->inputs[i], m->input[i]);
        c->required_input_count += !c->inputs[i].optional;
        c->has_unlike_requests |= may_be_unlike(&c->inputs[i]);
    }
    for (uint32_t i = 0; i < c->output_count; i++)
        fill_output(&c->outputs[i], m->output[i]);
    return index_tensors(&c->arena, c->inputs, c->input_count, &c->input_slots,
                         &c->input_slot_mask) &&
           index_tensors(&c->arena, c->outputs, c->output_count, &c->output_slots,
                         &c->output_slot_mask);
}

static bool fill_json(struct model_config *c)
{
    struct bytes b = { .len_max = CONFIG_MEMORY_BYTES_MAX };

    json_append_message(&b, &c->message->base);
    c->json = b.failed ? NULL : arena_strndup(&c->arena, bytes_str(&b), b.len);
    c->json_len = b.len;
    bytes_fini(&b);
    return c->json;
}

tis_error *config_finish(struct config_builder **b, struct model_config **ret_config)
{
    const Inference__ModelConfig *m = (*b)->message;
    struct model_config *c = calloc(1, sizeof(*c));
    if (!c)
        return error_no_memory();

    /* The tables go to the builder's arena, which changes hands only when all is done. */
    c->arena = (*b)->arena;
    c->message = m;
    c->name = m->name;
    c->backend = m->backend;
    c->max_batch_size = m->max_batch_size;
    c->instances_by_default = (*b)->instances_by_default;
    c->decoupled = m->model_transaction_policy && m->model_transaction_policy->decoupled;
    atomic_init(&c->refs, 1);
    bool done = fill_tensors(c) && fill_json(c);
    (*b)->arena = c->arena;
    if (!done) {
        free(c);
        return error_new(TRITONSERVER_ERROR_UNAVAILABLE,
                         "model '%s' configuration needs more than %d bytes of memory", m->name,
                         CONFIG_MEMORY_BYTES_MAX);
    }
    free(*b);
    *b = NULL;
    *ret_config = c;
    return NULL;
}

/* ---- using ---- */

struct model_config *config_ref(struct model_config *c)
{
    uint32_t before = atomic_fetch_add(&c->refs, 1);
    assert(before > 0);
    (void)before;
    return c;
}

void config_unref(struct model_config *c)
{
    if (!c || atomic_fetch_sub(&c->refs, 1) > 1)
        return;
    arena_fini(&c->arena);
    free(c);
}

static size_t count_lines(const char *text, size_t len)
{
    size_t count = 0;
    for (size_t i = 0; i < len; i++)
        count += text[i] == '\n';
    return count + (len && text[len - 1] != '\n');
}

tis_error *config_set_labels(struct model_config *c, uint32_t index, const char *text, size_t len)
{
    size_t count = count_lines(text, len);
    assert(index < c->output_count && atomic_load(&c->refs) == 1);

    struct tensor_spec *spec = &c->outputs[index];
    char *copy = count <= UINT32_MAX ? arena_strndup(&c->arena, text, len) : NULL;
    const char **labels = arena_calloc(&c->arena, count, sizeof(*labels));
    uint32_t *bytes = arena_calloc(&c->arena, count, sizeof(*bytes));
    if (!copy || !labels || !bytes)
        return error_new(TRITONSERVER_ERROR_UNAVAILABLE,
                         "model '%s' output '%s': labels need more than %d bytes of memory",
                         c->name, spec->name, CONFIG_MEMORY_BYTES_MAX);

    char *end = copy + len;
    for (size_t i = 0; i < count; i++) {
        char *stop = memchr(copy, '\n', (size_t)(end - copy));
        char *next = stop ? stop + 1 : end;
        stop = stop ? stop : end;
        if (stop > copy && stop[-1] == '\r')
            stop--;
        *stop = '\0';
        labels[i] = copy;
        bytes[i] = (uint32_t)(stop - copy);
        copy = next;
    }
    spec->labels = labels;
    spec->label_bytes = bytes;
    spec->label_count = (uint32_t)count;
    return NULL;
}

static bool has_name(const struct tensor_spec *spec, const char *name, size_t len)
{
    return spec->name_len == len && memcmp(spec->name, name, len) == 0;
}

static int32_t find(const struct tensor_spec *specs, uint32_t count, const uint32_t *slots,
                    uint32_t mask, const char *name, size_t len)
{
    if (!slots) {
        for (uint32_t i = 0; i < count; i++)
            if (has_name(&specs[i], name, len))
                return (int32_t)i;
        return -1;
    }
    for (uint32_t slot = name_hash(name, len); slots[slot & mask]; slot++) {
        uint32_t i = slots[slot & mask] - 1;
        if (has_name(&specs[i], name, len))
            return (int32_t)i;
    }
    return -1;
}

int32_t config_find_input(const struct model_config *c, const char *name, size_t len)
{
    return find(c->inputs, c->input_count, c->input_slots, c->input_slot_mask, name, len);
}

int32_t config_find_output(const struct model_config *c, const char *name, size_t len)
{
    return find(c->outputs, c->output_count, c->output_slots, c->output_slot_mask, name, len);
}

static int compare_versions(const void *a, const void *b)
{
    int64_t va = *(const int64_t *)a, vb = *(const int64_t *)b;
    return (va > vb) - (va < vb);
}

static bool is_listed(const Inference__ModelVersionPolicy__Specific *specific, int64_t version)
{
    for (size_t i = 0; i < specific->n_versions; i++)
        if (specific->versions[i] == version)
            return true;
    return false;
}

void config_select_versions(const Inference__ModelVersionPolicy *policy, const int64_t *available,
                            size_t count, int64_t *ret_selected, size_t *ret_count)
{
    size_t selected = 0;

    *ret_count = 0;
    if (count == 0)
        return;
    if (policy &&
        policy->policy_choice_case == INFERENCE__MODEL_VERSION_POLICY__POLICY_CHOICE_SPECIFIC) {
        for (size_t i = 0; i < count; i++)
            if (is_listed(policy->specific, available[i]))
                ret_selected[selected++] = available[i];
        qsort(ret_selected, selected, sizeof(*ret_selected), compare_versions);
        *ret_count = selected;
        return;
    }

    size_t wanted = 1;
    if (policy && policy->policy_choice_case == INFERENCE__MODEL_VERSION_POLICY__POLICY_CHOICE_ALL)
        wanted = count;
    else if (policy &&
             policy->policy_choice_case == INFERENCE__MODEL_VERSION_POLICY__POLICY_CHOICE_LATEST &&
             policy->latest->num_versions)
        wanted = policy->latest->num_versions;
    if (wanted > count)
        wanted = count;

    memcpy(ret_selected, available, count * sizeof(*available));
    qsort(ret_selected, count, sizeof(*ret_selected), compare_versions);
    memmove(ret_selected, ret_selected + (count - wanted), wanted * sizeof(*ret_selected));
    *ret_count = wanted;
}

tis_error *config_to_v1(const struct model_config *c, struct arena *a,
                        Nvidia__Inferenceserver__ModelConfig **ret_config)
{
    ProtobufCMessage *m =
        message_convert(&c->message->base, &nvidia__inferenceserver__model_config__descriptor, a);
    if (!m)
        return error_new(TRITONSERVER_ERROR_UNAVAILABLE,
                         "model '%s' configuration needs more than %zu bytes of memory", c->name,
                         a->bytes_max);
    *ret_config = (Nvidia__Inferenceserver__ModelConfig *)m;
    return NULL;
}

void config_append_text(struct bytes *b, const struct model_config *c)
{
    text_append(b, &c->message->base, TEXT_LINES);
}

const char *config_type_name(TRITONSERVER_DataType type)
{
    const char *name = enum_name(&inference__data_type__descriptor, (int)type);
    return name ? name : "TYPE_INVALID";
}
