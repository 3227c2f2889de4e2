#include "infer/response.h"

#include <assert.h>
#include <string.h>

#include "base/slab.h"
#include "infer/slabs.h"

static const struct slab response_slab = { SLAB_RESPONSE, sizeof(struct tis_response) };

struct tis_response *response_create(struct sink *sink)
{
    int is_new;
    struct tis_response *r = slab_alloc(&response_slab, &is_new);
    if (!r)
        return NULL;
    /* A plug-in may still look at the state of the response that was here before. */
    uint32_t generation = is_new ? 0 : atomic_load(&r->generation);
    memset((char *)r + offsetof(struct tis_response, arena), 0,
           offsetof(struct tis_response, first) - offsetof(struct tis_response, arena));
    atomic_store(&r->generation, generation + 1);
    r->outputs_end = &r->outputs;
    r->parameters_end = &r->parameters;
    arena_init(&r->arena, r->first, sizeof(r->first), RESPONSE_ARENA_BYTES_MAX);
    r->sink = sink_ref(sink);
    atomic_store(&r->state, RESPONSE_OPEN);
    return r;
}

void response_destroy(struct tis_response **taken)
{
    struct tis_response *r = *taken;
    *taken = NULL;
    if (!r)
        return;
    uint32_t state = atomic_exchange(&r->state, RESPONSE_FREE);
    assert(state != RESPONSE_FREE);

    for (struct tis_output *o = r->outputs; o; o = o->next)
        buffer_unref(o->buffer);
    error_free_lent(r->error);
    sink_unref(r->sink);
    arena_fini(&r->arena);
    slab_free(&response_slab, r);
}

struct tis_output *response_find_output(struct tis_response *r, const char *name)
{
    for (struct tis_output *o = r->outputs; o; o = o->next) {
        if (strcmp(o->name, name) == 0)
            return o;
    }
    return NULL;
}

tis_error *response_add_output(struct tis_response *r, const char *name, TRITONSERVER_DataType type,
                               const int64_t *shape, uint32_t rank, struct tis_output **ret_output)
{
    if (response_find_output(r, name))
        return error_new(TRITONSERVER_ERROR_ALREADY_EXISTS,
                         "output '%s' was already added to this response", name);

    struct tis_output *o = arena_calloc(&r->arena, 1, sizeof(*o));
    int64_t *copy = arena_alloc(&r->arena, (size_t)rank * sizeof(*copy));
    if (!o || !copy)
        return error_no_memory();
    if (rank > 0)
        memcpy(copy, shape, (size_t)rank * sizeof(*copy));
    o->response = r;
    o->name = name;
    o->data_type = type;
    o->shape = copy;
    o->rank = rank;
    *r->outputs_end = o;
    r->outputs_end = &o->next;
    r->output_count++;
    *ret_output = o;
    return NULL;
}

tis_error *response_output_memory(struct tis_output *o, uint64_t bytes)
{
    if (o->buffer)
        return error_new(TRITONSERVER_ERROR_ALREADY_EXISTS, "output '%s' already has its memory",
                         o->name);

    struct sink *sink = o->response->sink;
    tis_error *err = NULL;
    if (sink->ops->allocate)
        err = sink->ops->allocate(sink, o, bytes, &o->buffer);
    else if (!(o->buffer = buffer_create(bytes, 0)))
        err = error_no_memory();
    if (err)
        return err;

    o->bytes = bytes;
    o->attributes = (struct tis_buffer_attributes){
        .memory_type = o->buffer->memory_type,
        .memory_id = o->buffer->memory_id,
        .bytes = bytes,
    };
    return NULL;
}

tis_error *response_add_parameter(struct tis_response *r, const struct tis_parameter *parameter)
{
    struct response_parameter *p = arena_calloc(&r->arena, 1, sizeof(*p));
    if (!p)
        return error_no_memory();
    p->parameter = *parameter;
    p->parameter.name = arena_strdup(&r->arena, parameter->name);
    if (parameter->type == TRITONSERVER_PARAMETER_STRING)
        p->parameter.value.string = arena_strdup(&r->arena, parameter->value.string);
    if (!p->parameter.name ||
        (parameter->type == TRITONSERVER_PARAMETER_STRING && !p->parameter.value.string))
        return error_no_memory();
    *r->parameters_end = p;
    r->parameters_end = &p->next;
    r->parameter_count++;
    return NULL;
}
