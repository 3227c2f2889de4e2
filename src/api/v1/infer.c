/* Inference of the v1 protocol, however it is carried: what is checked of an InferRequestHeader, and
 * the outputs and the InferResponseHeader of the answer. */
#include "api/v1/infer.h"

#include <inttypes.h>
#include <string.h>

#include "api/classify.h"
#include "api/v1/v1.h"
#include "base/clock.h"
#include "infer/datatype.h"
#include "infer/reason.h"
#include "infer/shape.h"
#include "proto/message.h"
#include "v0/api.pb-c.h"
#include "v1/api.pb-c.h"

enum {
    HEADER_ARENA_BYTES_MAX = 16 << 20 /* a header of the largest size fits many times */
};

const struct v1_infer *v1_infer_of(const struct call *call)
{
    return call->dialect_data;
}

/* ---- Decode ---- */

/* 0.9 names the instance that would have run the batch. */
static tis_error *batch_too_large(const struct call *call, uint32_t batch_size)
{
    struct tis_version *v = call->target;
    char instance[256];
    version_name_instance(v, instance, sizeof(instance));
    return reason_error(REASON_BATCH_TOO_LARGE, v->model_name,
                        REASON_NUMBER(v->config->max_batch_size), REASON_NUMBER(batch_size),
                        instance);
}

static tis_error *check_header(const struct call *call, const struct v1_infer_header *h)
{
    const struct model_config *config = call->target->config;
    const char *model = call->target->model_name;
    if (h->batch_size < 1)
        return reason_error(REASON_BATCH_ZERO, model);
    if (h->batch_size > 1 && (int64_t)h->batch_size > config->max_batch_size)
        return batch_too_large(call, h->batch_size);
    for (uint32_t i = 0; i < h->output_count; i++) {
        if (config_find_output(config, h->outputs[i].name, strlen(h->outputs[i].name)) < 0)
            return reason_error(REASON_OUTPUT_UNKNOWN, model, h->outputs[i].name);
    }
    if (h->output_count > config->output_count)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "expected at most %u outputs but got %u outputs for model '%s'",
                         config->output_count, h->output_count, model);
    if (h->input_count != config->required_input_count && h->input_count != config->input_count)
        return reason_error(REASON_INPUT_COUNT, model, REASON_NUMBER(config->required_input_count),
                            REASON_NUMBER(h->input_count), "", "");
    return NULL;
}

static tis_error *dims_error(enum reason reason, const struct call *call, const struct v1_input *in,
                             const struct tensor_spec *spec)
{
    struct bytes expected = { 0 };
    struct bytes got = { 0 };
    shape_append(&expected, spec->dims, spec->rank);
    shape_append(&got, in->dims, in->rank);
    tis_error *err = reason_error(reason, call->target->model_name, in->name, bytes_str(&expected),
                                  bytes_str(&got));
    bytes_fini(&expected);
    bytes_fini(&got);
    return err;
}

/* The full shape of an input: the batch size, then the client's dims or the configuration's. */
static tis_error *find_shape(const struct call *call, const struct v1_infer_header *h,
                             const struct v1_input *in, struct v1_full_input *full)
{
    const struct tensor_spec *spec = full->spec;
    uint32_t skip = call->target->config->max_batch_size > 0;
    const int64_t *dims = in->has_dims ? in->dims : spec->dims;
    uint32_t rank = in->has_dims ? in->rank : spec->rank;
    if (!in->has_dims && !shape_is_fixed(spec->dims, spec->rank))
        return reason_error(REASON_INPUT_SHAPE_MISSING, call->target->model_name, in->name);
    if (!shape_is_fixed(dims, rank) || !shape_matches(spec->dims, spec->rank, dims, rank))
        return dims_error(REASON_INPUT_SHAPE, call, in, spec);
    int64_t *shape = arena_alloc(&call->request->arena, ((size_t)rank + skip) * sizeof(*shape));
    if (!shape)
        return error_no_memory();
    if (skip)
        shape[0] = h->batch_size;
    if (rank > 0)
        memcpy(shape + skip, dims, rank * sizeof(*shape));
    full->shape = shape;
    full->rank = rank + skip;
    return NULL;
}

/* Only the client knows how long its strings are. */
static tis_error *find_string_bytes(const struct call *call, const struct v1_infer_header *h,
                                    const struct v1_input *in, struct v1_full_input *full)
{
    uint64_t count;
    uint64_t bytes = in->batch_byte_size;
    if (h->is_v0 && __builtin_mul_overflow(in->byte_size, h->batch_size, &bytes))
        bytes = UINT64_MAX; /* more than any body: refused as short */
    if (bytes == 0 && (!shape_count(full->shape, full->rank, &count) || count > 0))
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "batch-byte-size must be specified for input '%s' with non-fixed-size "
                         "datatype for model '%s'",
                         in->name, call->target->model_name);
    full->bytes = bytes;
    return NULL;
}

/* Bytes of the whole batch, from the shape; what the client says must agree. */
static tis_error *find_bytes(const struct call *call, const struct v1_infer_header *h,
                             const struct v1_input *in, struct v1_full_input *full)
{
    const struct tensor_spec *spec = full->spec;
    if (spec->data_type == TRITONSERVER_TYPE_BYTES)
        return find_string_bytes(call, h, in, full);
    if (!shape_bytes(full->shape, full->rank, datatype_bytes(spec->data_type), &full->bytes))
        return dims_error(REASON_INPUT_SHAPE, call, in, spec);
    uint64_t said = h->is_v0 ? in->byte_size : in->batch_byte_size;
    uint64_t meant = h->is_v0 ? full->bytes / h->batch_size : full->bytes;
    if (said != meant && (said != 0 || h->is_v0))
        return reason_error(REASON_INPUT_BYTES, call->target->model_name, in->name,
                            REASON_NUMBER(meant), REASON_NUMBER(said));
    return NULL;
}

static tis_error *complete_input(const struct call *call, const struct v1_infer_header *h,
                                 const struct v1_input *in, struct v1_full_input *full)
{
    const struct model_config *config = call->target->config;
    int32_t at = config_find_input(config, in->name, strlen(in->name));
    if (at < 0)
        return reason_error(REASON_INPUT_UNKNOWN, call->target->model_name, in->name);
    full->spec = &config->inputs[at];
    tis_error *err = find_shape(call, h, in, full);
    if (!err)
        err = find_bytes(call, h, in, full);
    return err;
}

/* All that the header says is checked before the tensors are looked at. */
static tis_error *decode_inputs(struct call *call, const struct v1_infer_form *form,
                                const struct v1_infer_header *h)
{
    struct v1_full_input *inputs =
        arena_calloc(&call->request->arena, h->input_count, sizeof(*inputs));
    tis_error *err =
        inputs ? request_reserve_inputs(call->request, h->input_count) : error_no_memory();
    for (uint32_t i = 0; i < h->input_count && !err; i++)
        err = complete_input(call, h, &h->inputs[i], &inputs[i]);
    return err ? err : form->add_inputs(call, inputs, h->input_count);
}

tis_error *v1_add_input(struct call *call, const struct v1_full_input *in, const char *data)
{
    struct tis_input *input =
        request_add_input(call->request, in->spec->name, in->spec->data_type, in->shape, in->rank);
    return request_add_chunk(call->request, input, data, in->bytes, TRITONSERVER_MEMORY_CPU, 0,
                             NULL);
}

static tis_error *decode_outputs(struct call *call, const struct v1_infer_header *h)
{
    call->wanted = arena_calloc(&call->request->arena, h->output_count, sizeof(*call->wanted));
    if (!call->wanted)
        return error_no_memory();
    call->wanted_count = h->output_count;
    for (uint32_t i = 0; i < h->output_count; i++)
        call->wanted[i] = (struct wanted_output){
            .name = h->outputs[i].name,
            .class_count = h->outputs[i].class_count,
            .byte_size = h->outputs[i].byte_size,
        };
    return NULL;
}

tis_error *v1_infer_decode(struct call *call, const struct v1_infer_form *form)
{
    struct tis_request *req = call->request;
    struct v1_infer *v = arena_calloc(&req->arena, 1, sizeof(*v));
    if (!v)
        return error_no_memory();
    tis_error *err = form->read_header(call, call->target->model_name, &req->arena, &v->header);
    if (err)
        return err;
    v->request_id = v1_next_request_id(call->api);
    call->dialect_data = v;

    const struct v1_infer_header *h = &v->header;
    req->flags = h->flags;
    req->priority = h->priority;
    req->timeout_us = h->timeout_us;
    req->correlation_id = h->correlation_id;
    req->batch_size = h->batch_size;
    err = check_header(call, h);
    if (!err)
        err = decode_outputs(call, h);
    if (!err)
        err = decode_inputs(call, form, h);
    return err;
}

/* ---- Encode ---- */

/* asked: NULL when the client named no output and gets all. */
static tis_error *collect_output(struct call *call, struct tis_output *o,
                                 const struct v1_output *asked, struct v1_answer_output *a)
{
    struct arena *arena = &call->response->arena;
    uint32_t entries = call->request->batch_size;
    uint32_t element = datatype_bytes(o->data_type);
    *a = (struct v1_answer_output){ .output = o, .entry_bytes = o->bytes / entries };
    if (!o->buffer || o->attributes.memory_type == TRITONSERVER_MEMORY_GPU)
        return error_new(TRITONSERVER_ERROR_INTERNAL,
                         "model '%s': the backend sent output '%s' without memory that a reply can "
                         "carry",
                         call->target->model_name, o->name);
    if (asked && asked->byte_size && asked->byte_size != a->entry_bytes)
        return error_new(TRITONSERVER_ERROR_INTERNAL, "unexpected output size %" PRIu64,
                         asked->byte_size);
    if (!asked || !asked->wants_classes)
        return NULL;

    a->entry_count = element ? (uint32_t)(a->entry_bytes / element) : 0;
    a->classes = arena_calloc(arena, entries, sizeof(*a->classes));
    if (!a->classes)
        return error_no_memory();
    tis_error *err = NULL;
    for (uint32_t b = 0; b < entries && !err; b++) {
        const char *values = (const char *)o->buffer->base + b * a->entry_bytes;
        err = classify(o, values, a->entry_count, asked->class_count, arena, &a->classes[b],
                       &a->class_count);
    }
    return err;
}

tis_error *v1_collect_outputs(struct call *call, struct v1_answer_output **ret_outputs,
                              uint32_t *ret_count)
{
    struct tis_response *r = call->response;
    const struct v1_infer_header *h = &v1_infer_of(call)->header;
    uint32_t count = h->output_count ? h->output_count : r->output_count;
    struct v1_answer_output *outputs = arena_calloc(&r->arena, count, sizeof(*outputs));
    if (!outputs)
        return error_no_memory();
    struct tis_output *next = r->outputs;
    for (uint32_t i = 0; i < count; i++) {
        const struct v1_output *asked = h->output_count ? &h->outputs[i] : NULL;
        struct tis_output *o = asked ? response_find_output(r, asked->name) : next;
        if (!o)
            return error_new(TRITONSERVER_ERROR_INTERNAL,
                             "model '%s': the backend sent no output '%s'",
                             call->target->model_name, asked->name);
        tis_error *err = collect_output(call, o, asked, &outputs[i]);
        if (err)
            return err;
        next = o->next;
    }
    *ret_outputs = outputs;
    *ret_count = count;
    return NULL;
}

static const char *label_of(const struct call *call, const struct tis_output *o, uint32_t index)
{
    const struct model_config *config = call->target->config;
    int32_t at = config_find_output(config, o->name, strlen(o->name));
    bool has = at >= 0 && index < config->outputs[at].label_count;
    return has ? config->outputs[at].labels[index] : "";
}

typedef Nvidia__Inferenceserver__InferResponseHeader header_v1;
typedef Nvidia__Inferenceserver__InferResponseHeader__Output output_v1;
typedef Nvidia__Inferenceserver__InferResponseHeader__Output__Raw raw_v1;
typedef Nvidia__Inferenceserver__InferResponseHeader__Output__Classes classes_v1;
typedef Nvidia__Inferenceserver__InferResponseHeader__Output__Class class_v1;
typedef Nvidia__Inferenceserver__V0__InferResponseHeader header_v0;
typedef Nvidia__Inferenceserver__V0__InferResponseHeader__Output__Raw raw_v0;

/* The classes of one batch entry. */
static classes_v1 *make_class_list(struct call *call, const struct v1_answer_output *a,
                                   uint32_t entry)
{
    struct arena *arena = &call->response->arena;
    const char *values = (const char *)a->output->buffer->base + entry * a->entry_bytes;
    classes_v1 *list = arena_alloc(arena, sizeof(*list));
    class_v1 *items = arena_calloc(arena, a->class_count, sizeof(*items));
    class_v1 **refs = arena_calloc(arena, a->class_count, sizeof(*refs));
    if (!list || !items || !refs)
        return NULL;
    *list = (classes_v1)NVIDIA__INFERENCESERVER__INFER_RESPONSE_HEADER__OUTPUT__CLASSES__INIT;
    list->cls = refs;
    list->n_cls = a->class_count;
    for (size_t i = 0; i < a->class_count; i++) {
        uint32_t index = a->classes[entry][i];
        items[i] = (class_v1)NVIDIA__INFERENCESERVER__INFER_RESPONSE_HEADER__OUTPUT__CLASS__INIT;
        items[i].idx = (int32_t)index;
        items[i].value = classify_value(a->output->data_type, values, index);
        items[i].label = (char *)(uintptr_t)label_of(call, a->output, index);
        refs[i] = &items[i];
    }
    return list;
}

static bool fill_classes(struct call *call, const struct v1_answer_output *a, output_v1 *out)
{
    uint32_t entries = call->request->batch_size;
    out->batch_classes = arena_calloc(&call->response->arena, entries, sizeof(*out->batch_classes));
    bool ok = out->batch_classes != NULL;
    for (uint32_t b = 0; b < entries && ok; b++) {
        out->batch_classes[b] = make_class_list(call, a, b);
        ok = out->batch_classes[b] != NULL;
        out->n_batch_classes++;
    }
    return ok;
}

static bool fill_raw(struct call *call, const struct v1_answer_output *a, output_v1 *out)
{
    uint32_t skip = call->target->config->max_batch_size > 0;
    const struct tis_output *o = a->output;
    raw_v1 *raw = arena_alloc(&call->response->arena, sizeof(*raw));
    if (!raw)
        return false;
    *raw = (raw_v1)NVIDIA__INFERENCESERVER__INFER_RESPONSE_HEADER__OUTPUT__RAW__INIT;
    raw->dims = o->shape + skip;
    raw->n_dims = o->rank > skip ? o->rank - skip : 0;
    raw->batch_byte_size = o->bytes;
    out->raw = raw;
    return true;
}

/* The response header as 1.x writes it; a 0.9 client's is made without `raw`, which means something
 * else there. NULL when memory is exhausted. */
static header_v1 *make_header(struct call *call, const struct v1_answer_output *outputs,
                              uint32_t count)
{
    const struct v1_infer *v = v1_infer_of(call);
    struct arena *arena = &call->response->arena;
    header_v1 *h = arena_alloc(arena, sizeof(*h));
    output_v1 *items = arena_calloc(arena, count, sizeof(*items));
    output_v1 **refs = arena_calloc(arena, count, sizeof(*refs));
    if (!h || !items || !refs)
        return NULL;
    *h = (header_v1)NVIDIA__INFERENCESERVER__INFER_RESPONSE_HEADER__INIT;
    h->id = v->header.id;
    h->model_name = call->target->model_name;
    h->model_version = call->target->number;
    h->batch_size = call->request->batch_size;
    h->output = refs;
    h->n_output = count;
    bool ok = true;
    for (uint32_t i = 0; i < count && ok; i++) {
        items[i] = (output_v1)NVIDIA__INFERENCESERVER__INFER_RESPONSE_HEADER__OUTPUT__INIT;
        items[i].name = (char *)(uintptr_t)outputs[i].output->name;
        refs[i] = &items[i];
        if (outputs[i].classes)
            ok = fill_classes(call, &outputs[i], &items[i]);
        else if (!v->header.is_v0)
            ok = fill_raw(call, &outputs[i], &items[i]);
    }
    return ok ? h : NULL;
}

/* The same for a 0.9 client: all but `raw` is wire-compatible. */
static header_v0 *convert_to_v0(struct call *call, const header_v1 *from,
                                const struct v1_answer_output *outputs)
{
    struct arena *arena = &call->response->arena;
    header_v0 *h = (header_v0 *)message_convert(
        &from->base, &nvidia__inferenceserver__v0__infer_response_header__descriptor, arena);
    raw_v0 *raws = arena_calloc(arena, from->n_output, sizeof(*raws));
    if (!h || !raws)
        return NULL;
    for (size_t i = 0; i < h->n_output; i++) {
        if (outputs[i].classes)
            continue;
        raws[i] = (raw_v0)NVIDIA__INFERENCESERVER__V0__INFER_RESPONSE_HEADER__OUTPUT__RAW__INIT;
        raws[i].byte_size = outputs[i].entry_bytes;
        h->output[i]->raw = &raws[i];
    }
    return h;
}

const ProtobufCMessage *
v1_make_response_header(struct call *call, const struct v1_answer_output *outputs, uint32_t count)
{
    const header_v1 *header = make_header(call, outputs, count);
    if (!header || !v1_infer_of(call)->header.is_v0)
        return header ? &header->base : NULL;
    const header_v0 *old = convert_to_v0(call, header, outputs);
    return old ? &old->base : NULL;
}

/* ---- The way of an inference ---- */

/* Before there is a request: what is read of the header is the dialect, the id to echo, and the batch
 * size that the failure counts for when the model is known. */
static void fail_unopened(struct call *call, const struct v1_infer_form *form, int64_t version,
                          tis_error *err)
{
    enum reason reason = error_reason(err);
    bool is_known = reason == REASON_VERSION_UNKNOWN || reason == REASON_VERSION_NOT_READY ||
                    reason == REASON_MODEL_NO_VERSION;
    struct arena arena;
    struct v1_infer v = { .request_id = v1_next_request_id(call->api) };
    arena_init(&arena, NULL, 0, HEADER_ARENA_BYTES_MAX);
    error_free(form->read_header(call, "", &arena, &v.header));
    call->dialect_data = &v;
    if (is_known)
        v1_count_absent(call, version, v.header.batch_size);
    form->dialect.fail(call, err);
    arena_fini(&arena);
}

/* Refused before a backend saw it: counted under the batch size that was asked for. */
static void count_failure(const struct call *call)
{
    const struct v1_infer *v = v1_infer_of(call);
    statistics_add_failure(&call->target->statistics.own, FAILURE_OTHER,
                           v ? v->header.batch_size : 0, clock_ns() - call->start_ns);
}

void v1_infer_run(struct call *call, const struct v1_infer_form *form)
{
    int64_t version = -1;
    if (api_state(call->api) != SERVER_READY) {
        form->dialect.fail(call, reason_error_args(REASON_SERVER_NOT_READY, NULL, 0));
        return;
    }
    tis_error *err = form->read_target(call, &version);
    if (!err)
        err = call_open_request(call, version, &form->dialect);
    if (err) {
        fail_unopened(call, form, version, err);
        return;
    }
    err = v1_infer_decode(call, form);
    if (!err)
        err = call_infer(call);
    if (err) {
        count_failure(call);
        form->dialect.fail(call, err);
    }
}
