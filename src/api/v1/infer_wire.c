/* The wire form of InferRequestHeader, of 0.9 and of 1.x: the same message but for field 2 of inputs
 * and outputs. Generated code would drop what it does not expect there. */
#include <string.h>

#include "api/v1/infer_header.h"
#include "proto/wire.h"

/* Fields of InferRequestHeader, of its Input and of its Output. */
enum {
    HEADER_BATCH_SIZE = 1,
    HEADER_INPUT = 2,
    HEADER_OUTPUT = 3,
    HEADER_CORRELATION_ID = 4, /* from here on 1.x */
    HEADER_ID = 5,
    HEADER_FLAGS = 6,
    HEADER_PRIORITY = 7,
    HEADER_TIMEOUT_MICROSECONDS = 8,

    TENSOR_NAME = 1,
    TENSOR_SIZE = 2,            /* 0.9: byte_size, a number; 1.x: dims of an input, packed */
    TENSOR_BATCH_BYTE_SIZE = 3, /* of an input */
    TENSOR_CLASS = 3,           /* of an output */
    TENSOR_SHARED_MEMORY = 4,

    CLASS_COUNT = 1,
};

struct reader {
    const char *model;
    struct arena *arena;
    struct v1_infer_header *header;
    bool has_dims; /* somewhere */
};

/* Is there a field 2 in a tensor's message, and of which dialect? */
static tis_error *find_dialect(struct reader *r, const struct wire_field *tensor)
{
    if (tensor->type != WIRE_BYTES)
        return wire_error();
    struct wire w = wire_open(tensor->data, tensor->len);
    for (struct wire_field f; wire_next(&w, &f);) {
        if (f.number != TENSOR_SIZE)
            continue;
        r->header->is_v0 |= f.type == WIRE_VARINT;
        r->has_dims |= f.type == WIRE_BYTES;
    }
    return w.is_bad ? wire_error() : NULL;
}

/* The first look: what there is, how much of it, and whose dialect it is. */
static tis_error *read_outline(struct reader *r, struct wire w)
{
    struct v1_infer_header *h = r->header;
    uint64_t flags = 0, batch_size = 0;
    tis_error *err = NULL;
    for (struct wire_field f; !err && wire_next(&w, &f);) {
        switch (f.number) {
        case HEADER_BATCH_SIZE:
            err = wire_get_number(&f, &batch_size);
            break;
        case HEADER_INPUT:
            h->input_count++;
            err = find_dialect(r, &f);
            break;
        case HEADER_OUTPUT:
            h->output_count++;
            err = find_dialect(r, &f);
            break;
        case HEADER_CORRELATION_ID:
            err = wire_get_number(&f, &h->correlation_id);
            break;
        case HEADER_ID:
            err = wire_get_number(&f, &h->id);
            break;
        case HEADER_FLAGS:
            err = wire_get_number(&f, &flags);
            break;
        case HEADER_PRIORITY:
            err = wire_get_number(&f, &h->priority);
            break;
        case HEADER_TIMEOUT_MICROSECONDS:
            err = wire_get_number(&f, &h->timeout_us);
            break;
        }
    }
    h->batch_size = (uint32_t)batch_size;
    h->flags = (uint32_t)flags;
    if (!err && w.is_bad)
        err = wire_error();
    if (!err && h->is_v0 && r->has_dims)
        err = error_new(TRITONSERVER_ERROR_INVALID_ARG, "unable to parse request for model '%s'",
                        r->model);
    if (h->is_v0)
        h->id = h->correlation_id = h->flags = h->priority = h->timeout_us =
            0; /* of no meaning there */
    return err;
}

/* A further piece of dims; 1.x packs them, mostly into one. */
static tis_error *add_dims(struct reader *r, const struct wire_field *f, struct v1_input *in)
{
    size_t count = 0;
    for (size_t i = 0; i < f->len; i++)
        count += (unsigned char)f->data[i] < 0x80; /* the last byte of a number */
    int64_t *dims = arena_alloc(r->arena, (in->rank + count) * sizeof(*dims));
    if (!dims)
        return error_no_memory();
    if (in->rank > 0)
        memcpy(dims, in->dims, in->rank * sizeof(*dims));
    struct wire packed = wire_open(f->data, f->len);
    for (uint64_t value; packed.at < packed.end; dims[in->rank++] = (int64_t)value) {
        if (!wire_varint(&packed, &value))
            return wire_error();
    }
    in->dims = dims;
    in->has_dims = in->rank > 0;
    return NULL;
}

static tis_error *shared_memory_error(const char *kind, const char *name)
{
    return error_new(TRITONSERVER_ERROR_UNSUPPORTED,
                     "%s '%s': shared memory is not supported by this server", kind, name);
}

static tis_error *read_input(struct reader *r, const struct wire_field *field, struct v1_input *in)
{
    bool is_v0 = r->header->is_v0, is_shared = false;
    struct wire w = wire_open(field->data, field->len);
    tis_error *err = NULL;
    in->name = "";
    for (struct wire_field f; !err && wire_next(&w, &f);) {
        if (f.number == TENSOR_NAME)
            err = wire_get_text(&f, "name of an input", r->arena, &in->name);
        else if (f.number == TENSOR_SIZE && f.type == WIRE_BYTES)
            err = add_dims(r, &f, in);
        else if (f.number == TENSOR_SIZE)
            err = wire_get_number(&f, &in->byte_size);
        else if (f.number == TENSOR_BATCH_BYTE_SIZE && !is_v0)
            err = wire_get_number(&f, &in->batch_byte_size);
        else if (f.number == TENSOR_SHARED_MEMORY && !is_v0)
            is_shared = true;
    }
    return !err && is_shared ? shared_memory_error("input", in->name) : err;
}

static tis_error *read_class(const struct wire_field *field, struct v1_output *out)
{
    uint64_t count = out->class_count;
    struct wire w = wire_open(field->data, field->len);
    tis_error *err = field->type == WIRE_BYTES ? NULL : wire_error();
    for (struct wire_field f; !err && wire_next(&w, &f);) {
        if (f.number == CLASS_COUNT)
            err = wire_get_number(&f, &count);
    }
    out->wants_classes = true;
    out->class_count = (uint32_t)count;
    return !err && w.is_bad ? wire_error() : err;
}

static tis_error *read_output(struct reader *r, const struct wire_field *field,
                              struct v1_output *out)
{
    bool is_v0 = r->header->is_v0, is_shared = false;
    struct wire w = wire_open(field->data, field->len);
    tis_error *err = NULL;
    out->name = "";
    for (struct wire_field f; !err && wire_next(&w, &f);) {
        if (f.number == TENSOR_NAME)
            err = wire_get_text(&f, "name of an output", r->arena, &out->name);
        else if (f.number == TENSOR_SIZE && is_v0)
            err = wire_get_number(&f, &out->byte_size);
        else if (f.number == TENSOR_CLASS)
            err = read_class(&f, out);
        else if (f.number == TENSOR_SHARED_MEMORY && !is_v0)
            is_shared = true;
    }
    return !err && is_shared ? shared_memory_error("output", out->name) : err;
}

/* The second look, with the dialect known. */
static tis_error *read_tensors(struct reader *r, struct wire w)
{
    struct v1_infer_header *h = r->header;
    uint32_t input = 0, output = 0;
    tis_error *err = NULL;
    h->inputs = arena_calloc(r->arena, h->input_count, sizeof(*h->inputs));
    h->outputs = arena_calloc(r->arena, h->output_count, sizeof(*h->outputs));
    if (!h->inputs || !h->outputs)
        return error_no_memory();
    for (struct wire_field f; !err && wire_next(&w, &f);) {
        if (f.number == HEADER_INPUT)
            err = read_input(r, &f, &h->inputs[input++]);
        else if (f.number == HEADER_OUTPUT)
            err = read_output(r, &f, &h->outputs[output++]);
    }
    return err;
}

tis_error *v1_infer_header_read(const char *data, size_t len, const char *model, struct arena *a,
                                struct v1_infer_header *ret_header)
{
    struct v1_infer_header h = { 0 };
    struct reader r = { .model = model, .arena = a, .header = &h };
    struct wire w = wire_open(data, len);
    tis_error *err = read_outline(&r, w);
    if (!err)
        err = read_tensors(&r, w);
    if (!err)
        *ret_header = h;
    return err;
}
