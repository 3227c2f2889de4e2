#include "infer/request.h"

#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "base/slab.h"
#include "infer/response.h"
#include "infer/slabs.h"

static const struct slab request_slab = { SLAB_REQUEST, sizeof(struct tis_request) };

struct tis_request *request_create(const struct sink_ops *ops, void *user)
{
    int is_new;
    struct tis_request *req = slab_alloc(&request_slab, &is_new);
    if (!req)
        return NULL;

    /* A plug-in may still look at the state of the request that was here before. */
    uint32_t generation = is_new ? 0 : atomic_load(&req->generation);
    memset((char *)req + offsetof(struct tis_request, arena), 0,
           offsetof(struct tis_request, first) - offsetof(struct tis_request, arena));
    atomic_store(&req->generation, generation + 1);
    req->id = "";
    req->batch_size = 1;
    list_init(&req->queued.link);
    arena_init(&req->arena, req->first, sizeof(req->first), REQUEST_ARENA_BYTES_MAX);
    req->sink = sink_create(ops, user, req);
    if (!req->sink) {
        slab_free(&request_slab, req);
        return NULL;
    }
    atomic_store(&req->state, REQUEST_NEW);
    return req;
}

void request_free(struct tis_request **taken)
{
    struct tis_request *req = *taken;
    *taken = NULL;
    if (!req)
        return;
    uint32_t state = atomic_exchange(&req->state, REQUEST_FREE);
    assert(state == REQUEST_NEW || state == REQUEST_RELEASED);

    for (uint32_t i = 0; i < req->input_count; i++) {
        for (uint32_t k = 0; k < req->inputs[i].chunk_count; k++)
            buffer_unref(req->inputs[i].chunks[k].buffer);
    }
    buffer_unref(req->body);
    sink_unref(req->sink);
    arena_fini(&req->arena);
    slab_free(&request_slab, req);
}

tis_error *request_reserve_inputs(struct tis_request *req, uint32_t count)
{
    assert(count >= req->input_count);
    struct tis_input *inputs = arena_calloc(&req->arena, count, sizeof(*inputs));
    if (!inputs)
        return error_no_memory();
    for (uint32_t i = 0; i < req->input_count; i++) {
        inputs[i] = req->inputs[i];
        if (inputs[i].chunks == &req->inputs[i].one)
            inputs[i].chunks = &inputs[i].one;
    }
    req->inputs = inputs;
    req->input_capacity = count;
    return NULL;
}

void request_start(struct tis_request *req)
{
    req->stamps[STAMP_REQUEST_START] = clock_ns();
}

struct tis_input *request_add_input(struct tis_request *req, const char *name,
                                    TRITONSERVER_DataType type, const int64_t *shape, uint32_t rank)
{
    assert(req->input_count < req->input_capacity);
    struct tis_input *in = &req->inputs[req->input_count++];
    in->name = name;
    in->data_type = type;
    in->shape = shape;
    in->rank = rank;
    in->chunks = &in->one;
    in->chunk_capacity = 1;
    return in;
}

tis_error *request_add_chunk(struct tis_request *req, struct tis_input *input, const void *base,
                             uint64_t bytes, TRITONSERVER_MemoryType memory_type, int64_t memory_id,
                             struct buffer *buffer)
{
    if (input->chunk_count == input->chunk_capacity) {
        uint32_t capacity = input->chunk_capacity * 4;
        struct chunk *chunks = arena_calloc(&req->arena, capacity, sizeof(*chunks));
        if (!chunks)
            return error_no_memory();
        memcpy(chunks, input->chunks, input->chunk_count * sizeof(*chunks));
        input->chunks = chunks;
        input->chunk_capacity = capacity;
    }
    input->chunks[input->chunk_count++] = (struct chunk){
        .base = base,
        .attributes = { .memory_type = memory_type, .memory_id = memory_id, .bytes = bytes },
        .buffer = buffer ? buffer_ref(buffer) : NULL,
    };
    input->bytes += bytes;
    return NULL;
}

struct tis_input *request_find_input(const struct tis_request *req, const char *name)
{
    for (uint32_t i = 0; i < req->input_count; i++) {
        if (strcmp(req->inputs[i].name, name) == 0)
            return &req->inputs[i];
    }
    return NULL;
}

static bool chunks_are_equal(const struct tis_input *a, const struct tis_input *b)
{
    /* Shape tensors are a few numbers in one piece; others are not looked into. */
    return a->bytes == b->bytes && a->chunk_count == 1 && b->chunk_count == 1 &&
           a->chunks[0].attributes.memory_type != TRITONSERVER_MEMORY_GPU &&
           b->chunks[0].attributes.memory_type != TRITONSERVER_MEMORY_GPU &&
           memcmp(a->chunks[0].base, b->chunks[0].base, a->bytes) == 0;
}

static bool inputs_are_alike(const struct tis_input *a, const struct tis_input *b)
{
    if (a->batch_rule == BATCH_ANY_SHAPE)
        return true;
    if (a->rank != b->rank ||
        (a->rank > 1 && memcmp(a->shape + 1, b->shape + 1, (a->rank - 1) * sizeof(*a->shape)) != 0))
        return false;
    return a->batch_rule == BATCH_SAME_SHAPE || chunks_are_equal(a, b);
}

bool request_is_alike(const struct tis_request *a, const struct tis_request *b)
{
    if (a->input_count != b->input_count)
        return false;
    for (uint32_t i = 0; i < a->input_count; i++) {
        /* Validated names are the configuration's own, and mostly come in one order. */
        const struct tis_input *other = &b->inputs[i];
        if (other->name != a->inputs[i].name)
            other = request_find_input(b, a->inputs[i].name);
        if (!other || !inputs_are_alike(&a->inputs[i], other))
            return false;
    }
    return true;
}

bool request_move(struct tis_request *req, enum request_state from, enum request_state to)
{
    uint32_t expected = from;
    return atomic_compare_exchange_strong(&req->state, &expected, to);
}

bool request_release(struct tis_request *req, enum request_state from)
{
    if (!request_move(req, from, REQUEST_RELEASED))
        return false;
    sink_released(req->sink);
    return true;
}

void request_fail(struct tis_request *req, enum request_state from, tis_error *err)
{
    struct tis_response *response = response_create(req->sink);
    if (response) {
        atomic_store(&response->state, RESPONSE_SENT);
        response->error = err;
    } else {
        error_free(err);
    }
    /* Without memory for a response the maker sees the end without one, and answers so. */
    if (!sink_send(req->sink, response, TRITONSERVER_RESPONSE_COMPLETE_FINAL))
        response_destroy(&response);
    bool released = request_release(req, from);
    assert(released);
}
