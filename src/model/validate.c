#include "model/validate.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "infer/datatype.h"
#include "infer/reason.h"
#include "infer/shape.h"

/* What every check needs. */
struct check {
    struct tis_request *req;
    const struct model_config *config;
    const char *model;
    bool batches; /* shapes begin with the batch size */
};

/* The configuration's entry for an input; NULL when it has none. */
static const struct tensor_spec *spec_of(const struct check *c, const struct tis_input *in)
{
    int32_t at = config_find_input(c->config, in->name, strlen(in->name));
    return at < 0 ? NULL : &c->config->inputs[at];
}

static tis_error *check_outputs(const struct check *c)
{
    struct tis_request *req = c->req;
    if (req->output_count == 0) {
        uint32_t count = c->config->output_count;
        req->outputs = arena_alloc(&req->arena, count * sizeof(*req->outputs));
        if (!req->outputs)
            return error_no_memory();
        for (uint32_t i = 0; i < count; i++)
            req->outputs[i] = c->config->outputs[i].name;
        req->output_count = count;
        return NULL;
    }
    for (uint32_t i = 0; i < req->output_count; i++) {
        int32_t at = config_find_output(c->config, req->outputs[i], strlen(req->outputs[i]));
        if (at < 0)
            return reason_error(REASON_OUTPUT_UNKNOWN, c->model, req->outputs[i]);
        req->outputs[i] = c->config->outputs[at].name;
    }
    return NULL;
}

static tis_error *input_count_error(const struct check *c)
{
    struct bytes got = { 0 };
    struct bytes missing = { 0 };
    for (uint32_t i = 0; i < c->req->input_count; i++)
        bytes_printf(&got, "%s'%s'", i ? "," : "", c->req->inputs[i].name);
    for (uint32_t i = 0; i < c->config->input_count; i++) {
        const struct tensor_spec *spec = &c->config->inputs[i];
        if (!spec->optional && !request_find_input(c->req, spec->name))
            bytes_printf(&missing, "%s'%s'", missing.len ? "," : "", spec->name);
    }
    tis_error *err =
        reason_error(REASON_INPUT_COUNT, c->model, REASON_NUMBER(c->config->required_input_count),
                     REASON_NUMBER(c->req->input_count), bytes_str(&got), bytes_str(&missing));
    bytes_fini(&got);
    bytes_fini(&missing);
    return err;
}

static tis_error *check_input_names(const struct check *c)
{
    uint32_t required_found = 0;
    for (uint32_t i = 0; i < c->req->input_count; i++) {
        struct tis_input *in = &c->req->inputs[i];
        const struct tensor_spec *spec = spec_of(c, in);
        if (!spec)
            return reason_error(REASON_INPUT_UNKNOWN, c->model, in->name);
        if (request_find_input(c->req, in->name) != in)
            return reason_error(REASON_INPUT_TWICE, c->model, in->name);
        in->name = spec->name;
        in->batch_rule = spec->allow_ragged      ? BATCH_ANY_SHAPE
                         : spec->is_shape_tensor ? BATCH_SAME_DATA
                                                 : BATCH_SAME_SHAPE;
        required_found += !spec->optional;
    }
    if (required_found != c->config->required_input_count)
        return input_count_error(c);
    return NULL;
}

/* The first dimension is the same for all inputs and within the limit. */
static tis_error *check_batch(const struct check *c)
{
    struct tis_request *req = c->req;
    if (!c->batches) {
        req->batch_size = 1;
        return NULL;
    }
    uint32_t batch_size_max = (uint32_t)c->config->max_batch_size;
    int64_t batch_size = 1;
    for (uint32_t i = 0; i < req->input_count; i++) {
        const struct tis_input *in = &req->inputs[i];
        if (in->rank == 0)
            return reason_error(REASON_BATCH_MISSING, c->model, in->name);
        if (i > 0 && in->shape[0] != batch_size)
            return reason_error(REASON_BATCH_MISMATCH, c->model, in->name);
        batch_size = in->shape[0];
    }
    if (batch_size < 1)
        return reason_error(REASON_BATCH_ZERO, c->model);
    if (batch_size > (int64_t)batch_size_max)
        return reason_error(REASON_BATCH_TOO_LARGE, c->model, REASON_NUMBER(batch_size_max),
                            REASON_NUMBER(batch_size));
    req->batch_size = (uint32_t)batch_size;
    return NULL;
}

static tis_error *shape_error(const struct check *c, const struct tis_input *in,
                              const struct tensor_spec *spec)
{
    struct bytes expected = { 0 };
    struct bytes got = { 0 };
    if (c->batches) {
        int64_t pattern[SHAPE_RANK_MAX + 1] = { -1 };
        memcpy(pattern + 1, spec->dims, spec->rank * sizeof(int64_t));
        shape_append(&expected, pattern, spec->rank + 1);
    } else {
        shape_append(&expected, spec->dims, spec->rank);
    }
    shape_append(&got, in->shape, in->rank);
    const char *note = c->batches
                           ? "NOTE: Setting a non-zero max_batch_size in the model config requires "
                             "a batch dimension to be prepended to each input shape. If you want "
                             "to specify the full shape including the batch dim in your input "
                             "dims config, try setting max_batch_size to zero."
                           : "";
    tis_error *err = reason_error(REASON_INPUT_SHAPE, c->model, in->name, bytes_str(&expected),
                                  bytes_str(&got), note);
    bytes_fini(&expected);
    bytes_fini(&got);
    return err;
}

static tis_error *dims_error(const struct check *c, const struct tis_input *in)
{
    struct bytes shape = { 0 };
    shape_append(&shape, in->shape, in->rank);
    tis_error *err = reason_error(REASON_INPUT_DIMS, c->model, in->name, bytes_str(&shape));
    bytes_fini(&shape);
    return err;
}

/* The shape the model sees, when its configuration reshapes the input. */
static tis_error *apply_reshape(const struct check *c, struct tis_input *in,
                                const struct tensor_spec *spec)
{
    uint32_t skip = c->batches;
    int64_t *shape = arena_alloc(&c->req->arena, (spec->reshape_rank + skip) * sizeof(*shape));
    if (!shape)
        return error_no_memory();
    if (skip)
        shape[0] = in->shape[0];
    shape_convert(spec->dims, spec->rank, spec->reshape, spec->reshape_rank, in->shape + skip,
                  shape + skip);
    in->shape = shape;
    in->rank = spec->reshape_rank + skip;
    return NULL;
}

/* A string tensor is a sequence of [uint32 little-endian length][bytes]; no element crosses a chunk's
 * end, as every protocol delivers it. */
static tis_error *check_strings(const struct check *c, const struct tis_input *in, uint64_t count)
{
    uint64_t found = 0;
    for (uint32_t k = 0; k < in->chunk_count; k++) {
        if (in->chunks[k].attributes.memory_type == TRITONSERVER_MEMORY_GPU)
            return NULL; /* only the backend can look at it */
        const unsigned char *at = in->chunks[k].base;
        uint64_t left = in->chunks[k].attributes.bytes;
        for (; left > 0; found++) {
            if (left < sizeof(uint32_t))
                return reason_error(REASON_STRING_LENGTH, c->model, in->name,
                                    REASON_NUMBER(sizeof(uint32_t)), REASON_NUMBER(left));
            uint32_t len;
            memcpy(&len, at, sizeof(len));
            at += sizeof(len);
            left -= sizeof(len);
            if (left < len)
                return reason_error(REASON_STRING_DATA, c->model, in->name, REASON_NUMBER(len),
                                    REASON_NUMBER(left));
            at += len;
            left -= len;
        }
    }
    if (found != count)
        return reason_error(REASON_STRING_COUNT, c->model, in->name, REASON_NUMBER(count),
                            REASON_NUMBER(found));
    return NULL;
}

static tis_error *check_data(const struct check *c, const struct tis_input *in)
{
    uint64_t count;
    uint64_t bytes;
    if (in->data_type == TRITONSERVER_TYPE_BYTES)
        return shape_count(in->shape, in->rank, &count) ? check_strings(c, in, count)
                                                        : dims_error(c, in);
    if (!shape_bytes(in->shape, in->rank, datatype_bytes(in->data_type), &bytes))
        return dims_error(c, in);
    if (bytes != in->bytes)
        return reason_error(REASON_INPUT_BYTES, c->model, in->name, REASON_NUMBER(bytes),
                            REASON_NUMBER(in->bytes));
    return NULL;
}

static tis_error *check_input(const struct check *c, struct tis_input *in)
{
    const struct tensor_spec *spec = spec_of(c, in);
    uint32_t skip = c->batches;
    for (uint32_t i = 0; i < in->rank; i++) {
        if (in->shape[i] < 0)
            return dims_error(c, in);
    }
    if (!shape_matches(spec->dims, spec->rank, in->shape + skip, in->rank - skip))
        return shape_error(c, in, spec);
    tis_error *err = check_data(c, in);
    if (!err && spec->has_reshape)
        err = apply_reshape(c, in, spec);
    return err;
}

tis_error *request_validate(struct tis_request *req, const struct model_config *config,
                            const char *model)
{
    struct check c = {
        .req = req,
        .config = config,
        .model = model,
        .batches = config->max_batch_size > 0,
    };
    tis_error *err = check_outputs(&c);
    if (!err)
        err = check_input_names(&c);
    for (uint32_t i = 0; i < req->input_count && !err; i++) {
        const struct tensor_spec *spec = spec_of(&c, &req->inputs[i]);
        if (req->inputs[i].data_type != spec->data_type)
            err = reason_error(REASON_INPUT_TYPE, model, req->inputs[i].name,
                               datatype_name(req->inputs[i].data_type),
                               datatype_name(spec->data_type));
    }
    if (!err)
        err = check_batch(&c);
    for (uint32_t i = 0; i < req->input_count && !err; i++)
        err = check_input(&c, &req->inputs[i]);
    return err;
}
