/* ModelInfer and ModelStreamInfer of the v2 protocol over gRPC: the requests.
 *
 * A request is walked where it lies: an entry of raw_input_contents becomes a chunk that points
 * into the message. Typed contents are turned into elements in a buffer of their own. */
#include <string.h>

#include "api/call_stream.h"
#include "api/v2/v2.h"
#include "infer/datatype.h"
#include "infer/reason.h"
#include "infer/shape.h"
#include "proto/message.h"
#include "proto/wire.h"

enum {
    CLASS_COUNT_MAX = 1 << 20
};

/* Fields of ModelInferRequest. */
enum {
    REQUEST_ID = 3,
    REQUEST_PARAMETERS = 4,
    REQUEST_INPUTS = 5,
    REQUEST_OUTPUTS = 6,
    REQUEST_RAW = 7,
};

#define INVALID(...) error_new(TRITONSERVER_ERROR_INVALID_ARG, __VA_ARGS__)

struct decoder {
    struct call *call;
    struct tis_request *req;
    const struct model_config *config;
    struct wire raw; /* where the next raw_input_contents is looked for */
    uint32_t input_count;
    uint32_t output_count;
    uint32_t parameter_count;
    uint32_t raw_count;
};

/* ---- Parameters ---- */

/* An entry of a map<string, InferParameter>. A uint64 comes as an integer with *is_unsigned. */
static tis_error *get_parameter(struct decoder *d, const struct wire_field *entry,
                                struct tis_parameter *p, bool *ret_is_unsigned)
{
    struct wire_field value = { .type = WIRE_BYTES, .data = "" };
    struct wire w = wire_open(entry->data, entry->len);
    tis_error *err = NULL;
    *p = (struct tis_parameter){ .name = "", .type = TRITONSERVER_PARAMETER_BYTES };
    *ret_is_unsigned = false;
    for (struct wire_field f; !err && wire_next(&w, &f);) {
        if (f.number == 1)
            err = wire_get_text(&f, "name of a parameter", &d->req->arena, &p->name);
        else if (f.number == 2)
            value = f;
    }
    if (err)
        return err;
    if (w.is_bad || value.type != WIRE_BYTES)
        return wire_error();
    w = wire_open(value.data, value.len);
    for (struct wire_field f; !err && wire_next(&w, &f);) {
        static const enum wire_type types[] = { 0,          WIRE_VARINT,  WIRE_VARINT,
                                                WIRE_BYTES, WIRE_FIXED64, WIRE_VARINT };
        if (f.number > 5)
            continue;
        if (f.type != types[f.number])
            return wire_error();
        *ret_is_unsigned = f.number == 5;
        p->value.integer = (int64_t)f.value;
        p->type = TRITONSERVER_PARAMETER_INT;
        if (f.number == 1) {
            p->type = TRITONSERVER_PARAMETER_BOOL;
            p->value.boolean = f.value != 0;
        } else if (f.number == 3) {
            p->type = TRITONSERVER_PARAMETER_STRING;
            err = wire_get_text(&f, "value of a parameter", &d->req->arena, &p->value.string);
        } else if (f.number == 4) {
            p->type = TRITONSERVER_PARAMETER_DOUBLE;
            memcpy(&p->value.number, f.data, sizeof(p->value.number));
        }
    }
    return err ? err : w.is_bad ? wire_error() : NULL;
}

static tis_error *wrong_type(const char *where, const char *key, const char *expected)
{
    return INVALID("parameter '%s' of %s: expected %s", key, where, expected);
}

static tis_error *get_u64(const struct tis_parameter *p, bool is_unsigned, uint64_t *ret_value)
{
    if (p->type != TRITONSERVER_PARAMETER_INT || (p->value.integer < 0 && !is_unsigned))
        return wrong_type("the request", p->name, "an integer, zero or greater");
    *ret_value = (uint64_t)p->value.integer;
    return NULL;
}

static tis_error *set_flag(struct tis_request *req, const struct tis_parameter *p, uint32_t flag)
{
    if (p->type != TRITONSERVER_PARAMETER_BOOL)
        return wrong_type("the request", p->name, "a boolean");
    if (p->value.boolean)
        req->flags |= flag;
    return NULL;
}

static tis_error *set_parameter(struct decoder *d, const struct tis_parameter *p, bool is_unsigned)
{
    struct tis_request *req = d->req;
    if (strcmp(p->name, "sequence_id") == 0) {
        if (p->type != TRITONSERVER_PARAMETER_STRING)
            return get_u64(p, is_unsigned, &req->correlation_id);
        req->correlation_text = p->value.string[0] ? p->value.string : NULL;
        return NULL;
    }
    if (strcmp(p->name, "sequence_start") == 0)
        return set_flag(req, p, TRITONSERVER_REQUEST_FLAG_SEQUENCE_START);
    if (strcmp(p->name, "sequence_end") == 0)
        return set_flag(req, p, TRITONSERVER_REQUEST_FLAG_SEQUENCE_END);
    if (strcmp(p->name, "priority") == 0)
        return get_u64(p, is_unsigned, &req->priority);
    if (strcmp(p->name, "timeout") == 0)
        return get_u64(p, is_unsigned, &req->timeout_us);
    if (strcmp(p->name, "headers") == 0)
        return INVALID("parameter 'headers' is reserved for forwarded headers and should not be "
                       "specified");
    if (strcmp(p->name, "triton_enable_empty_final_response") == 0) {
        if (p->type != TRITONSERVER_PARAMETER_BOOL)
            return wrong_type("the request", p->name, "a boolean");
        d->call->wants_empty_final = p->value.boolean;
        return NULL;
    }
    if (strncmp(p->name, "triton_", 7) == 0)
        return INVALID("parameter keys starting with 'triton_' are reserved for Triton usage. Only "
                       "the following keys starting with 'triton_' are allowed: "
                       "triton_enable_empty_final_response");
    if (p->type == TRITONSERVER_PARAMETER_BYTES)
        return wrong_type("the request", p->name, "a value");
    if (is_unsigned && p->value.integer < 0)
        return wrong_type("the request", p->name, "an integer of 64 bits with sign");
    req->parameters[req->parameter_count++] = *p;
    return NULL;
}

static tis_error *decode_parameters(struct decoder *d)
{
    struct tis_request *req = d->req;
    if (d->parameter_count == 0)
        return NULL;
    req->parameters = arena_calloc(&req->arena, d->parameter_count, sizeof(*req->parameters));
    if (!req->parameters)
        return error_no_memory();
    tis_error *err = NULL;
    struct wire w = wire_open(d->call->message, d->call->message_len);
    for (struct wire_field f; !err && wire_next(&w, &f);) {
        struct tis_parameter p;
        bool is_unsigned;
        if (f.number != REQUEST_PARAMETERS)
            continue;
        err = get_parameter(d, &f, &p, &is_unsigned);
        if (!err)
            err = set_parameter(d, &p, is_unsigned);
    }
    return err;
}

/* ---- Typed contents ---- */

/* Number of InferTensorContents' field for a type; 0: the type travels raw only. */
static uint32_t contents_field(TRITONSERVER_DataType type)
{
    static const uint8_t fields[] = {
        [TRITONSERVER_TYPE_BOOL] = 1,   [TRITONSERVER_TYPE_INT8] = 2,
        [TRITONSERVER_TYPE_INT16] = 2,  [TRITONSERVER_TYPE_INT32] = 2,
        [TRITONSERVER_TYPE_INT64] = 3,  [TRITONSERVER_TYPE_UINT8] = 4,
        [TRITONSERVER_TYPE_UINT16] = 4, [TRITONSERVER_TYPE_UINT32] = 4,
        [TRITONSERVER_TYPE_UINT64] = 5, [TRITONSERVER_TYPE_FP32] = 6,
        [TRITONSERVER_TYPE_FP64] = 7,   [TRITONSERVER_TYPE_BYTES] = 8,
    };
    return (size_t)type < sizeof(fields) ? fields[type] : 0;
}

static bool is_float(TRITONSERVER_DataType type)
{
    return type == TRITONSERVER_TYPE_FP32 || type == TRITONSERVER_TYPE_FP64;
}

/* Writes one integer or boolean; false when the type cannot hold it. */
static bool put_integer(TRITONSERVER_DataType type, uint64_t value, char *at)
{
    uint32_t bytes = datatype_bytes(type);
    bool fits = true;
    if (type == TRITONSERVER_TYPE_BOOL)
        value = value != 0;
    else if (type == TRITONSERVER_TYPE_INT8)
        fits = (int32_t)value == (int8_t)value;
    else if (type == TRITONSERVER_TYPE_INT16)
        fits = (int32_t)value == (int16_t)value;
    else if (type == TRITONSERVER_TYPE_UINT8 || type == TRITONSERVER_TYPE_UINT16)
        fits = (uint32_t)value >> (bytes * 8) == 0;
    memcpy(at, &value, bytes); /* little-endian: the low bytes come first */
    return fits;
}

/* Writes a field's values to *at and moves it; at NULL it only counts them in *bytes. Packed or not. */
static tis_error *put_values(const struct tis_input *in, const struct wire_field *f, char **at,
                             uint64_t *bytes)
{
    uint32_t element = datatype_bytes(in->data_type);
    if (in->data_type == TRITONSERVER_TYPE_BYTES) {
        uint32_t len = (uint32_t)f->len;
        if (f->type != WIRE_BYTES || f->len > UINT32_MAX)
            return wire_error();
        if (*at) {
            memcpy(*at, &len, sizeof(len));
            if (len > 0)
                memcpy(*at + sizeof(len), f->data, len);
            *at += sizeof(len) + len;
        }
        *bytes += sizeof(len) + len;
        return NULL;
    }
    if (is_float(in->data_type)) {
        if (f->type == WIRE_VARINT || f->len % element != 0)
            return wire_error();
        if (*at && f->len > 0) {
            memcpy(*at, f->data, f->len);
            *at += f->len;
        }
        *bytes += f->len;
        return NULL;
    }
    struct wire packed = wire_open(f->data, f->len);
    uint64_t value = f->value;
    bool is_packed = f->type == WIRE_BYTES;
    if (!is_packed && f->type != WIRE_VARINT)
        return wire_error();
    while (!is_packed || packed.at < packed.end) {
        if (is_packed && !wire_varint(&packed, &value))
            return wire_error();
        if (*at && !put_integer(in->data_type, value, *at))
            return INVALID("'contents' of input '%s': a value is out of the range of %s", in->name,
                           datatype_name(in->data_type));
        if (*at)
            *at += element;
        *bytes += element;
        if (!is_packed)
            break;
    }
    return NULL;
}

/* One pass over the contents: counts (at NULL), or writes. */
static tis_error *walk_contents(const struct tis_input *in, const struct wire_field *contents,
                                char *at, uint64_t *ret_bytes)
{
    uint32_t number = contents_field(in->data_type);
    struct wire w = wire_open(contents->data, contents->len);
    tis_error *err = NULL;
    *ret_bytes = 0;
    for (struct wire_field f; !err && wire_next(&w, &f);) {
        if (f.number != number)
            err = INVALID("'contents' of input '%s' hold values that are not of its type %s%s",
                          in->name, datatype_name(in->data_type),
                          number ? "" : ", which can only be sent in raw_input_contents");
        else
            err = put_values(in, &f, &at, ret_bytes);
    }
    return err ? err : w.is_bad ? wire_error() : NULL;
}

static tis_error *decode_contents(struct decoder *d, struct tis_input *in,
                                  const struct wire_field *contents)
{
    uint64_t bytes;
    tis_error *err = walk_contents(in, contents, NULL, &bytes);
    if (err)
        return err;
    /* At most eight times the message's bytes: eight for a varint of one. */
    struct buffer *b = buffer_create(bytes, 0);
    if (!b)
        return error_no_memory();
    err = walk_contents(in, contents, b->base, &bytes);
    if (!err)
        err = request_add_chunk(d->req, in, b->base, bytes, TRITONSERVER_MEMORY_CPU, 0, b);
    buffer_unref(b);
    return err;
}

/* ---- Inputs ---- */

static tis_error *add_dim(int64_t *shape, uint32_t *rank, uint64_t value)
{
    if (*rank == SHAPE_RANK_MAX)
        return INVALID("an input has more than the %d dimensions that are possible",
                       SHAPE_RANK_MAX);
    if (value > INT64_MAX)
        return INVALID("an input has the dimension %lld, expected zero or greater",
                       (long long)value);
    shape[(*rank)++] = (int64_t)value;
    return NULL;
}

static tis_error *add_dims(int64_t *shape, uint32_t *rank, const struct wire_field *f)
{
    if (f->type == WIRE_VARINT)
        return add_dim(shape, rank, f->value);
    struct wire w = wire_open(f->data, f->len);
    tis_error *err = f->type == WIRE_BYTES ? NULL : wire_error();
    while (!err && w.at < w.end) {
        uint64_t value;
        err = wire_varint(&w, &value) ? add_dim(shape, rank, value) : wire_error();
    }
    return err;
}

static tis_error *refuse_shared_memory(struct decoder *d, const struct wire_field *f)
{
    struct tis_parameter p;
    bool is_unsigned;
    tis_error *err = get_parameter(d, f, &p, &is_unsigned);
    if (!err && strcmp(p.name, "shared_memory_region") == 0)
        err = error_new(TRITONSERVER_ERROR_UNSUPPORTED,
                        "shared memory is not supported by this server");
    return err;
}

/* What stands in an InferInputTensor. */
struct input_fields {
    const char *name;
    struct wire_field type;
    struct wire_field contents;
    int64_t shape[SHAPE_RANK_MAX];
    uint32_t rank;
    bool has_contents;
};

static tis_error *read_input(struct decoder *d, const struct wire_field *field,
                             struct input_fields *ret)
{
    struct wire w = wire_open(field->data, field->len);
    tis_error *err = field->type == WIRE_BYTES ? NULL : wire_error();
    ret->name = "";
    ret->type = (struct wire_field){ .type = WIRE_BYTES, .data = "" };
    ret->rank = 0;
    ret->has_contents = false;
    for (struct wire_field f; !err && wire_next(&w, &f);) {
        if ((f.number == 2 || f.number == 4 || f.number == 5) && f.type != WIRE_BYTES)
            return wire_error();
        if (f.number == 1) {
            err = wire_get_text(&f, "name of an input", &d->req->arena, &ret->name);
        } else if (f.number == 2) {
            ret->type = f;
        } else if (f.number == 3) {
            err = add_dims(ret->shape, &ret->rank, &f);
        } else if (f.number == 4) {
            err = refuse_shared_memory(d, &f);
        } else if (f.number == 5) {
            ret->contents = f;
            ret->has_contents = true;
        }
    }
    return err ? err : w.is_bad ? wire_error() : NULL;
}

static tis_error *no_data(const struct decoder *d, const char *input)
{
    return INVALID("unable to find data for input tensor '%s' for model '%s' in request.", input,
                   d->call->target->model_name);
}

/* The next raw_input_contents. */
static tis_error *decode_raw(struct decoder *d, struct tis_input *in, bool has_contents)
{
    if (has_contents)
        return INVALID("contents field must not be specified when using raw_input_contents for "
                       "'%s' for model '%s'",
                       in->name, d->call->target->model_name);
    for (struct wire_field f; wire_next(&d->raw, &f);) {
        if (f.number == REQUEST_RAW)
            return request_add_chunk(d->req, in, f.data, f.len, TRITONSERVER_MEMORY_CPU, 0, NULL);
    }
    return no_data(d, in->name);
}

static tis_error *decode_input(struct decoder *d, const struct wire_field *field)
{
    struct input_fields fields;
    tis_error *err = read_input(d, field, &fields);
    if (err)
        return err;
    TRITONSERVER_DataType type = datatype_from_name(fields.type.data, fields.type.len);
    if (type == TRITONSERVER_TYPE_INVALID)
        return INVALID("invalid datatype for input %s: '%.*s'", fields.name,
                       (int)(fields.type.len < 32 ? fields.type.len : 32), fields.type.data);
    int64_t *shape = arena_alloc(&d->req->arena, (fields.rank + 1) * sizeof(*shape));
    if (!shape)
        return error_no_memory();
    memcpy(shape, fields.shape, fields.rank * sizeof(*shape));
    struct tis_input *in = request_add_input(d->req, fields.name, type, shape, fields.rank);
    if (d->raw_count > 0)
        return decode_raw(d, in, fields.has_contents);
    uint64_t count;
    if (!fields.has_contents && shape_count(shape, fields.rank, &count) && count > 0)
        return no_data(d, fields.name);
    if (!fields.has_contents)
        return request_add_chunk(d->req, in, "", 0, TRITONSERVER_MEMORY_CPU, 0, NULL);
    return decode_contents(d, in, &fields.contents);
}

static tis_error *decode_inputs(struct decoder *d)
{
    /* One more than the model has is enough to be refused. */
    uint32_t count_max = d->config->input_count + 1;
    bool is_whole = d->input_count < count_max;
    tis_error *err = request_reserve_inputs(d->req, is_whole ? d->input_count : count_max);
    struct wire w = wire_open(d->call->message, d->call->message_len);
    for (struct wire_field f;
         !err && d->req->input_count < d->req->input_capacity && wire_next(&w, &f);) {
        if (f.number == REQUEST_INPUTS)
            err = decode_input(d, &f);
    }
    if (!err && is_whole && d->raw_count > d->input_count)
        err = INVALID("expected %u entries of raw_input_contents, one for each input, but got %u "
                      "for model '%s'",
                      d->input_count, d->raw_count, d->call->target->model_name);
    return err;
}

/* ---- Outputs ---- */

static tis_error *decode_output(struct decoder *d, const struct wire_field *field,
                                struct wanted_output *w)
{
    struct wire in = wire_open(field->data, field->len);
    tis_error *err = field->type == WIRE_BYTES ? NULL : wire_error();
    *w = (struct wanted_output){ .name = "", .is_binary = true };
    for (struct wire_field f; !err && wire_next(&in, &f);) {
        struct tis_parameter p;
        bool is_unsigned;
        if (f.number == 1)
            err = wire_get_text(&f, "name of an output", &d->req->arena, &w->name);
        if (f.number != 2)
            continue;
        err = f.type == WIRE_BYTES ? refuse_shared_memory(d, &f) : wire_error();
        if (!err)
            err = get_parameter(d, &f, &p, &is_unsigned);
        if (!err && strcmp(p.name, "classification") == 0) {
            uint64_t count = 0;
            err = get_u64(&p, is_unsigned, &count);
            w->class_count = (uint32_t)(count > CLASS_COUNT_MAX ? CLASS_COUNT_MAX : count);
        }
    }
    if (!err && in.is_bad)
        err = wire_error();
    if (!err && config_find_output(d->config, w->name, strlen(w->name)) < 0)
        err = reason_error(REASON_OUTPUT_UNKNOWN, d->call->target->model_name, w->name);
    return err;
}

/* Each output once, however often it is named; the first naming counts. */
static tis_error *decode_outputs(struct decoder *d)
{
    struct call *call = d->call;
    if (d->output_count == 0)
        return NULL;
    call->wanted = arena_calloc(&d->req->arena, d->config->output_count, sizeof(*call->wanted));
    if (!call->wanted)
        return error_no_memory();
    tis_error *err = NULL;
    struct wire w = wire_open(call->message, call->message_len);
    for (struct wire_field f; !err && wire_next(&w, &f);) {
        struct wanted_output wanted;
        if (f.number != REQUEST_OUTPUTS)
            continue;
        err = decode_output(d, &f, &wanted);
        if (!err && (call->wanted_count == 0 || !call_wanted(call, wanted.name)))
            call->wanted[call->wanted_count++] = wanted;
    }
    return err;
}

tis_error *v2_rpc_decode(struct call *call)
{
    struct decoder d = { .call = call, .req = call->request, .config = call->target->config };
    tis_error *err = NULL;
    struct wire w = wire_open(call->message, call->message_len);
    d.raw = w;
    call->binary_default = true;
    for (struct wire_field f; !err && wire_next(&w, &f);) {
        if (f.number == REQUEST_ID)
            err = wire_get_text(&f, "id of the request", &d.req->arena, &d.req->id);
        else if (f.number >= REQUEST_PARAMETERS && f.number <= REQUEST_RAW && f.type != WIRE_BYTES)
            err = wire_error();
        d.parameter_count += f.number == REQUEST_PARAMETERS;
        d.input_count += f.number == REQUEST_INPUTS;
        d.output_count += f.number == REQUEST_OUTPUTS;
        d.raw_count += f.number == REQUEST_RAW;
    }
    if (!err && w.is_bad)
        err = wire_error();
    if (!err)
        err = decode_parameters(&d);
    if (!err)
        err = decode_inputs(&d);
    if (!err)
        err = decode_outputs(&d);
    return err;
}

/* ---- The call ---- */

static const struct infer_dialect unary = {
    .name = "ModelInfer RPC",
    .encode = v2_rpc_encode,
    .fail = v2_rpc_fail,
};

static const struct infer_dialect streamed = {
    .name = "ModelStreamInfer RPC",
    .encode = v2_rpc_encode,
    .fail = v2_rpc_stream_fail,
    .end = v2_rpc_stream_end,
};

static const struct infer_dialect *dialect_of(const struct call *call)
{
    return call->stream ? &streamed : &unary;
}

/* On the loop: the request is filled, or err says why not. */
static void decoded(struct call *call, tis_error *err)
{
    if (!err)
        err = call_infer(call);
    if (err)
        dialect_of(call)->fail(call, err);
}

/* Is there so much to convert that it would hold up the loop? */
static bool is_long(const struct call *call)
{
    size_t bytes = 0;
    if (call->message_len <= V2_JSON_INLINE_BYTES_MAX)
        return false;
    struct wire w = wire_open(call->message, call->message_len);
    for (struct wire_field f; wire_next(&w, &f);)
        bytes += f.number == REQUEST_RAW ? 0 : f.len;
    return bytes > V2_JSON_INLINE_BYTES_MAX;
}

void v2_rpc_infer(struct call *call)
{
    int64_t version;
    tis_error *err = NULL;
    if (api_state(call->api) == SERVER_EXITING)
        err = reason_error_args(REASON_SERVER_EXITING, NULL, 0);
    if (!err)
        err = v2_rpc_read_target(call);
    if (!err)
        err = call_version_number(call, &version);
    if (!err)
        err = call_open_request(call, version, dialect_of(call));
    if (!err && is_long(call))
        call_offload(call, v2_rpc_decode, decoded);
    else
        decoded(call, err ? err : v2_rpc_decode(call));
}

const struct stream_dialect v2_stream_dialect = { .handle = v2_rpc_infer };
