/* Request bodies of the v2 protocol: JSON, binary tensors behind the JSON, and raw.
 *
 * The JSON is parsed into the request's arena, or, when it is long, into memory of its own that
 * lives as long as the call. A binary tensor is a chunk that points into the body; a JSON tensor is
 * converted into a buffer of its own. */
#include <string.h>

#include <yyjson.h>

#include "api/v2/v2.h"
#include "base/number.h"
#include "infer/datatype.h"
#include "infer/reason.h"
#include "infer/shape.h"

enum {
    DEPTH_MAX = 100,                 /* nesting of the JSON */
    ARENA_JSON_BYTES_MAX = 64 << 10, /* a longer one is parsed into memory of its own */
    CLASS_COUNT_MAX = 1 << 20,
};

#define INVALID(...) error_new(TRITONSERVER_ERROR_INVALID_ARG, __VA_ARGS__)

struct decoder {
    struct call *call;
    struct tis_request *req;
    const char *tail; /* binary data not yet given to an input */
    size_t tail_len;
    bool has_header_length;
};

/* ---- yyjson in the request's arena ---- */

static void *json_malloc(void *ctx, size_t size)
{
    return arena_alloc(ctx, size);
}

static void *json_realloc(void *ctx, void *old, size_t old_size, size_t size)
{
    void *grown = arena_alloc(ctx, size);
    if (grown && old)
        memcpy(grown, old, old_size < size ? old_size : size);
    return grown;
}

static void json_free(void *ctx, void *ptr)
{
    (void)ctx;
    (void)ptr; /* goes with the arena */
}

static void json_doc_free(void *doc)
{
    yyjson_doc_free(doc);
}

static tis_error *parse_json(struct call *call, const char *text, size_t len, yyjson_val **ret_root)
{
    yyjson_alc in_arena = { json_malloc, json_realloc, json_free, &call->request->arena };
    bool is_long = len > ARENA_JSON_BYTES_MAX;
    yyjson_read_err why;
    /* Without YYJSON_READ_INSITU the text is not written to. */
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)text, len, YYJSON_READ_ALLOW_INF_AND_NAN,
                                       is_long ? NULL : &in_arena, &why);
    if (is_long && doc) {
        call->json = doc;
        call->json_free = json_doc_free;
    }
    if (!doc && why.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION)
        return error_no_memory();
    if (!doc)
        return INVALID("failed to parse the request JSON buffer: %s at %zu", why.msg, why.pos);
    *ret_root = yyjson_doc_get_root(doc);
    if (!yyjson_is_obj(*ret_root))
        return INVALID("failed to parse the request JSON buffer: expected an object, found %s",
                       yyjson_get_type_desc(*ret_root));
    return NULL;
}

/* Is anything nested deeper than it may be? Not in the tensors: put_array() looks at them. */
static bool is_too_deep(yyjson_val *value, unsigned depth)
{
    size_t at, max;
    yyjson_val *key, *item;
    if (!yyjson_is_ctn(value))
        return false;
    if (depth > DEPTH_MAX)
        return true;
    if (yyjson_is_arr(value)) {
        yyjson_arr_foreach(value, at, max, item)
        {
            if (is_too_deep(item, depth + 1))
                return true;
        }
        return false;
    }
    yyjson_obj_foreach(value, at, max, key, item)
    {
        bool is_tensor = depth == 3 && yyjson_equals_str(key, "data");
        if (!is_tensor && is_too_deep(item, depth + 1))
            return true;
    }
    return false;
}

/* Names, ids and the like reach backends as C strings: a NUL inside would cut them. NULL when value
 * is no string, or such a one. */
static const char *text_of(yyjson_val *value)
{
    const char *text = yyjson_get_str(value);
    return text && strlen(text) == yyjson_get_len(value) ? text : NULL;
}

/* ---- Parameters ---- */

static tis_error *wrong_type(const char *where, const char *key, yyjson_val *value,
                             const char *expected)
{
    return INVALID("Unable to parse '%s' of %s: found %s, expected %s", key, where,
                   yyjson_get_type_desc(value), expected);
}

static tis_error *get_bool(const char *where, const char *key, yyjson_val *value, bool *ret_value)
{
    if (!yyjson_is_bool(value))
        return wrong_type(where, key, value, "a boolean");
    *ret_value = yyjson_get_bool(value);
    return NULL;
}

static tis_error *get_u64(const char *where, const char *key, yyjson_val *value,
                          uint64_t *ret_value)
{
    if (!yyjson_is_uint(value))
        return wrong_type(where, key, value, "an unsigned integer");
    *ret_value = yyjson_get_uint(value);
    return NULL;
}

/* A parameter for the model: string, integer, boolean or double. */
static tis_error *add_parameter(struct tis_request *req, const char *key, yyjson_val *value)
{
    struct tis_parameter *p = &req->parameters[req->parameter_count];
    p->name = key;
    switch (yyjson_get_tag(value)) {
    case YYJSON_TYPE_STR | YYJSON_SUBTYPE_NONE:
    case YYJSON_TYPE_STR | YYJSON_SUBTYPE_NOESC:
        p->type = TRITONSERVER_PARAMETER_STRING;
        p->value.string = text_of(value);
        if (!p->value.string)
            return INVALID("parameter '%s' of the request holds a NUL character", key);
        break;
    case YYJSON_TYPE_BOOL | YYJSON_SUBTYPE_TRUE:
    case YYJSON_TYPE_BOOL | YYJSON_SUBTYPE_FALSE:
        p->type = TRITONSERVER_PARAMETER_BOOL;
        p->value.boolean = yyjson_get_bool(value);
        break;
    case YYJSON_TYPE_NUM | YYJSON_SUBTYPE_UINT:
        if (yyjson_get_uint(value) > INT64_MAX)
            return wrong_type("the request's parameters", key, value, "an integer of 64 bits");
        p->type = TRITONSERVER_PARAMETER_INT;
        p->value.integer = (int64_t)yyjson_get_uint(value);
        break;
    case YYJSON_TYPE_NUM | YYJSON_SUBTYPE_SINT:
        p->type = TRITONSERVER_PARAMETER_INT;
        p->value.integer = yyjson_get_sint(value);
        break;
    case YYJSON_TYPE_NUM | YYJSON_SUBTYPE_REAL:
        p->type = TRITONSERVER_PARAMETER_DOUBLE;
        p->value.number = yyjson_get_real(value);
        break;
    default:
        return wrong_type("the request's parameters", key, value,
                          "a string, a number or a boolean");
    }
    req->parameter_count++;
    return NULL;
}

static tis_error *set_sequence_id(struct tis_request *req, yyjson_val *value)
{
    if (yyjson_is_str(value)) {
        const char *text = text_of(value);
        if (!text)
            return INVALID("parameter 'sequence_id' of the request holds a NUL character");
        req->correlation_text = text[0] ? text : NULL;
        return NULL;
    }
    return get_u64("the request's parameters", "sequence_id", value, &req->correlation_id);
}

static tis_error *set_flag(struct tis_request *req, const char *key, yyjson_val *value,
                           uint32_t flag)
{
    bool on = false;
    tis_error *err = get_bool("the request's parameters", key, value, &on);
    if (!err && on)
        req->flags |= flag;
    return err;
}

static tis_error *set_request_parameter(struct decoder *d, const char *key, yyjson_val *value)
{
    static const char where[] = "the request's parameters";
    struct tis_request *req = d->req;
    if (strcmp(key, "sequence_id") == 0)
        return set_sequence_id(req, value);
    if (strcmp(key, "sequence_start") == 0)
        return set_flag(req, key, value, TRITONSERVER_REQUEST_FLAG_SEQUENCE_START);
    if (strcmp(key, "sequence_end") == 0)
        return set_flag(req, key, value, TRITONSERVER_REQUEST_FLAG_SEQUENCE_END);
    if (strcmp(key, "priority") == 0)
        return get_u64(where, key, value, &req->priority);
    if (strcmp(key, "timeout") == 0)
        return get_u64(where, key, value, &req->timeout_us);
    if (strcmp(key, "binary_data_output") == 0)
        return get_bool(where, key, value, &d->call->binary_default);
    if (strcmp(key, "headers") == 0)
        return INVALID("parameter 'headers' is reserved for forwarded headers and should not be "
                       "specified");
    if (strcmp(key, "triton_enable_empty_final_response") == 0)
        return NULL; /* concerns streams of responses; this protocol carries one */
    if (strncmp(key, "triton_", 7) == 0)
        return INVALID("parameter keys starting with 'triton_' are reserved for Triton usage and "
                       "should not be specified.");
    return add_parameter(req, key, value);
}

static tis_error *decode_parameters(struct decoder *d, yyjson_val *parameters)
{
    if (!parameters)
        return NULL;
    if (!yyjson_is_obj(parameters))
        return wrong_type("the request", "parameters", parameters, "an object");
    struct tis_request *req = d->req;
    req->parameters =
        arena_calloc(&req->arena, yyjson_obj_size(parameters), sizeof(*req->parameters));
    if (!req->parameters)
        return error_no_memory();

    yyjson_obj_iter it = yyjson_obj_iter_with(parameters);
    for (yyjson_val *key; (key = yyjson_obj_iter_next(&it)) != NULL;) {
        const char *name = text_of(key);
        tis_error *err = name ? set_request_parameter(d, name, yyjson_obj_iter_get_val(key))
                              : INVALID("the name of a parameter holds a NUL character");
        if (err)
            return err;
    }
    return NULL;
}

/* ---- JSON tensors ---- */

struct values {
    const char *input;
    TRITONSERVER_DataType type;
    char *at; /* fixed-size types: where the next element goes */
    uint64_t left;
    struct bytes *strings; /* BYTES */
};

static tis_error *data_error(const struct values *v, yyjson_val *value)
{
    return INVALID("Unable to parse 'data' of input '%s': found %s, expected values of type %s",
                   v->input, yyjson_get_type_desc(value), datatype_name(v->type));
}

static tis_error *range_error(const struct values *v)
{
    return INVALID("Unable to parse 'data' of input '%s': a value is out of the range of %s",
                   v->input, datatype_name(v->type));
}

/* Limits of the integer types, by element type. */
static const struct {
    int64_t min;
    uint64_t max;
} integer_limits[] = {
    [TRITONSERVER_TYPE_UINT8] = { 0, UINT8_MAX },
    [TRITONSERVER_TYPE_UINT16] = { 0, UINT16_MAX },
    [TRITONSERVER_TYPE_UINT32] = { 0, UINT32_MAX },
    [TRITONSERVER_TYPE_UINT64] = { 0, UINT64_MAX },
    [TRITONSERVER_TYPE_INT8] = { INT8_MIN, INT8_MAX },
    [TRITONSERVER_TYPE_INT16] = { INT16_MIN, INT16_MAX },
    [TRITONSERVER_TYPE_INT32] = { INT32_MIN, INT32_MAX },
    [TRITONSERVER_TYPE_INT64] = { INT64_MIN, INT64_MAX },
};

static tis_error *put_integer(struct values *v, yyjson_val *value)
{
    uint64_t bits;
    if (yyjson_is_uint(value)) {
        bits = yyjson_get_uint(value);
        if (bits > integer_limits[v->type].max)
            return range_error(v);
    } else if (yyjson_is_sint(value)) {
        int64_t number = yyjson_get_sint(value);
        if (number < integer_limits[v->type].min)
            return range_error(v);
        bits = (uint64_t)number;
    } else {
        return data_error(v, value);
    }
    memcpy(v->at, &bits, datatype_bytes(v->type)); /* little-endian: the low bytes come first */
    return NULL;
}

static tis_error *put_string(struct values *v, yyjson_val *value)
{
    if (!yyjson_is_str(value))
        return data_error(v, value);
    size_t len = yyjson_get_len(value);
    if (len > UINT32_MAX)
        return range_error(v);
    uint32_t prefix = (uint32_t)len;
    bytes_append(v->strings, &prefix, sizeof(prefix));
    bytes_append(v->strings, yyjson_get_str(value), len);
    return v->strings->failed ? error_no_memory() : NULL;
}

static tis_error *put_value(struct values *v, yyjson_val *value)
{
    if (v->left == 0)
        return INVALID("Unable to parse 'data' of input '%s': Shape does not match true shape of "
                       "'data' field",
                       v->input);
    v->left--;

    tis_error *err = NULL;
    float single;
    double number;
    switch (v->type) {
    case TRITONSERVER_TYPE_BYTES:
        return put_string(v, value);
    case TRITONSERVER_TYPE_BOOL:
        if (yyjson_is_bool(value))
            *v->at = yyjson_get_bool(value);
        else if (yyjson_is_int(value))
            *v->at = yyjson_get_uint(value) != 0;
        else
            err = data_error(v, value);
        break;
    case TRITONSERVER_TYPE_FP32:
        if (!yyjson_is_num(value))
            return data_error(v, value);
        single = (float)yyjson_get_num(value);
        memcpy(v->at, &single, sizeof(single));
        break;
    case TRITONSERVER_TYPE_FP64:
        if (!yyjson_is_num(value))
            return data_error(v, value);
        number = yyjson_get_num(value);
        memcpy(v->at, &number, sizeof(number));
        break;
    default:
        err = put_integer(v, value);
    }
    v->at += datatype_bytes(v->type);
    return err;
}

/* Nested or flat, row by row. */
static tis_error *put_array(struct values *v, yyjson_val *array, unsigned depth)
{
    if (depth > DEPTH_MAX)
        return INVALID("Unable to parse 'data' of input '%s': nested deeper than %d", v->input,
                       DEPTH_MAX);
    yyjson_arr_iter it = yyjson_arr_iter_with(array);
    tis_error *err = NULL;
    for (yyjson_val *value; !err && (value = yyjson_arr_iter_next(&it)) != NULL;)
        err = yyjson_is_arr(value) ? put_array(v, value, depth + 1) : put_value(v, value);
    return err;
}

static tis_error *decode_json_strings(struct decoder *d, struct tis_input *in, yyjson_val *data,
                                      uint64_t count)
{
    struct bytes strings = { 0 };
    struct values v = {
        .input = in->name, .type = in->data_type, .left = count, .strings = &strings
    };
    tis_error *err = put_array(&v, data, 1);
    if (!err && v.left > 0)
        err = INVALID("Unable to parse 'data' of input '%s': Shape does not match true shape of "
                      "'data' field",
                      in->name);
    struct buffer *b = err ? NULL : buffer_create(strings.len, 0);
    if (!err && !b)
        err = error_no_memory();
    if (!err) {
        if (strings.len > 0)
            memcpy(b->base, strings.data, strings.len);
        err = request_add_chunk(d->req, in, b->base, strings.len, TRITONSERVER_MEMORY_CPU, 0, b);
    }
    buffer_unref(b);
    bytes_fini(&strings);
    return err;
}

static tis_error *decode_json_data(struct decoder *d, struct tis_input *in, yyjson_val *data)
{
    if (in->data_type == TRITONSERVER_TYPE_FP16 || in->data_type == TRITONSERVER_TYPE_BF16)
        return INVALID("receiving %s data via JSON is not supported. Please use the binary data "
                       "format for input %s",
                       datatype_name(in->data_type), in->name);
    if (!yyjson_is_arr(data))
        return wrong_type("an input", "data", data, "an array");

    uint64_t count;
    uint64_t bytes;
    if (!shape_count(in->shape, in->rank, &count) ||
        !shape_bytes(in->shape, in->rank, datatype_bytes(in->data_type), &bytes))
        return INVALID("Unable to parse 'shape' of input '%s': the number of elements overflows",
                       in->name);
    /* Every element takes at least one byte of the body, so this bounds the memory too. */
    if (count > d->call->ex->body_len)
        return INVALID("Unable to parse 'data' of input '%s': Shape does not match true shape of "
                       "'data' field",
                       in->name);
    if (in->data_type == TRITONSERVER_TYPE_BYTES)
        return decode_json_strings(d, in, data, count);

    struct buffer *b = buffer_create(bytes, 0);
    if (!b)
        return error_no_memory();
    struct values v = { .input = in->name, .type = in->data_type, .at = b->base, .left = count };
    tis_error *err = put_array(&v, data, 1);
    if (!err && v.left > 0)
        err = INVALID("Unable to parse 'data' of input '%s': Shape does not match true shape of "
                      "'data' field",
                      in->name);
    if (!err)
        err = request_add_chunk(d->req, in, b->base, bytes, TRITONSERVER_MEMORY_CPU, 0, b);
    buffer_unref(b);
    return err;
}

/* ---- Inputs ---- */

static tis_error *decode_shape(struct decoder *d, const char *input, yyjson_val *value,
                               const int64_t **ret_shape, uint32_t *ret_rank)
{
    if (!yyjson_is_arr(value))
        return INVALID("Unable to parse 'shape' of input '%s': %s", input,
                       value ? "expected an array"
                             : "attempt to access non-existing object member 'shape'");
    size_t rank = yyjson_arr_size(value);
    if (rank > SHAPE_RANK_MAX)
        return INVALID("Unable to parse 'shape' of input '%s': %zu dimensions, at most %d are "
                       "possible",
                       input, rank, SHAPE_RANK_MAX);
    int64_t *shape = arena_alloc(&d->req->arena, rank * sizeof(*shape));
    if (!shape)
        return error_no_memory();
    yyjson_arr_iter it = yyjson_arr_iter_with(value);
    for (size_t i = 0; i < rank; i++) {
        yyjson_val *dim = yyjson_arr_iter_next(&it);
        if (!yyjson_is_uint(dim) || yyjson_get_uint(dim) > INT64_MAX)
            return INVALID("Unable to parse 'shape' of input '%s': attempt to access JSON "
                           "non-unsigned-integer as unsigned-integer",
                           input);
        shape[i] = (int64_t)yyjson_get_uint(dim);
    }
    *ret_shape = shape;
    *ret_rank = (uint32_t)rank;
    return NULL;
}

static tis_error *decode_binary_data(struct decoder *d, struct tis_input *in, uint64_t bytes)
{
    const char *model = d->call->target->model_name;
    if (!d->has_header_length)
        return INVALID("must specify valid 'Infer-Header-Content-Length' in request header and "
                       "'binary_data_size' when passing inputs in binary data format");
    if (bytes > d->tail_len)
        return reason_error(REASON_BODY_SHORT, model, in->name, REASON_NUMBER(bytes - d->tail_len),
                            REASON_NUMBER(bytes), REASON_NUMBER(d->tail_len));
    tis_error *err =
        request_add_chunk(d->req, in, d->tail, bytes, TRITONSERVER_MEMORY_CPU, 0, NULL);
    d->tail += bytes;
    d->tail_len -= bytes;
    return err;
}

static tis_error *decode_input(struct decoder *d, yyjson_val *object)
{
    const char *name = text_of(yyjson_obj_get(object, "name"));
    if (!name)
        return INVALID("Unable to parse 'name': every input is an object with a string 'name'");
    yyjson_val *type_value = yyjson_obj_get(object, "datatype");
    if (!yyjson_is_str(type_value))
        return INVALID("Unable to parse 'datatype' of input '%s': %s", name,
                       type_value ? "expected a string"
                                  : "attempt to access non-existing object member 'datatype'");
    TRITONSERVER_DataType type =
        datatype_from_name(yyjson_get_str(type_value), yyjson_get_len(type_value));
    if (type == TRITONSERVER_TYPE_INVALID)
        return INVALID("invalid datatype for input %s: '%s'", name, yyjson_get_str(type_value));

    const int64_t *shape;
    uint32_t rank;
    tis_error *err = decode_shape(d, name, yyjson_obj_get(object, "shape"), &shape, &rank);
    if (err)
        return err;
    struct tis_input *in = request_add_input(d->req, name, type, shape, rank);

    yyjson_val *parameters = yyjson_obj_get(object, "parameters");
    if (parameters && !yyjson_is_obj(parameters))
        return wrong_type(name, "parameters", parameters, "an object");
    if (yyjson_obj_get(parameters, "shared_memory_region"))
        return error_new(TRITONSERVER_ERROR_UNSUPPORTED,
                         "input '%s': shared memory is not supported by this server", name);
    yyjson_val *size = yyjson_obj_get(parameters, "binary_data_size");
    yyjson_val *data = yyjson_obj_get(object, "data");
    if (size) {
        uint64_t bytes;
        err = get_u64(name, "binary_data_size", size, &bytes);
        return err ? err : decode_binary_data(d, in, bytes);
    }
    if (!data)
        return INVALID("Unable to parse 'data' of input '%s': attempt to access non-existing "
                       "object member 'data'",
                       name);
    return decode_json_data(d, in, data);
}

static tis_error *decode_inputs(struct decoder *d, yyjson_val *inputs)
{
    if (!yyjson_is_arr(inputs))
        return INVALID("Unable to parse 'inputs': %s",
                       inputs ? "expected an array"
                              : "attempt to access non-existing object member 'inputs'");
    /* One more than the model has is enough to be refused, for a name that is unknown or comes
     * twice; a client cannot make us hold a million. */
    size_t count = yyjson_arr_size(inputs);
    size_t count_max = (size_t)d->call->target->config->input_count + 1;
    bool is_whole = count < count_max;
    tis_error *err = request_reserve_inputs(d->req, (uint32_t)(is_whole ? count : count_max));
    yyjson_arr_iter it = yyjson_arr_iter_with(inputs);
    while (!err && d->req->input_count < d->req->input_capacity)
        err = decode_input(d, yyjson_arr_iter_next(&it));
    if (!err && is_whole && d->tail_len > 0)
        err = reason_error(REASON_BODY_LONG, d->call->target->model_name);
    return err;
}

/* ---- Outputs ---- */

static tis_error *decode_output(struct decoder *d, yyjson_val *object, struct wanted_output *w)
{
    w->name = text_of(yyjson_obj_get(object, "name"));
    w->is_binary = d->call->binary_default;
    if (!w->name)
        return INVALID("Unable to parse 'name': every output is an object with a string 'name'");
    if (config_find_output(d->call->target->config, w->name, strlen(w->name)) < 0)
        return reason_error(REASON_OUTPUT_UNKNOWN, d->call->target->model_name, w->name);

    yyjson_val *parameters = yyjson_obj_get(object, "parameters");
    if (parameters && !yyjson_is_obj(parameters))
        return wrong_type(w->name, "parameters", parameters, "an object");
    if (yyjson_obj_get(parameters, "shared_memory_region"))
        return error_new(TRITONSERVER_ERROR_UNSUPPORTED,
                         "output '%s': shared memory is not supported by this server", w->name);
    tis_error *err = NULL;
    yyjson_val *binary = yyjson_obj_get(parameters, "binary_data");
    if (binary)
        err = get_bool(w->name, "binary_data", binary, &w->is_binary);
    yyjson_val *classes = yyjson_obj_get(parameters, "classification");
    if (!err && classes) {
        uint64_t count = 0;
        err = get_u64(w->name, "classification", classes, &count);
        w->class_count = (uint32_t)(count > CLASS_COUNT_MAX ? CLASS_COUNT_MAX : count);
    }
    return err;
}

/* Each output once, however often it is named; the first naming counts. */
static tis_error *decode_outputs(struct decoder *d, yyjson_val *outputs)
{
    struct call *call = d->call;
    if (!outputs)
        return NULL;
    if (!yyjson_is_arr(outputs))
        return wrong_type("the request", "outputs", outputs, "an array");
    uint32_t output_count = call->target->config->output_count;
    call->wanted = arena_calloc(&d->req->arena, output_count, sizeof(*call->wanted));
    if (!call->wanted)
        return error_no_memory();
    yyjson_arr_iter it = yyjson_arr_iter_with(outputs);
    for (yyjson_val *output; (output = yyjson_arr_iter_next(&it)) != NULL;) {
        struct wanted_output wanted = { 0 };
        tis_error *err = decode_output(d, output, &wanted);
        if (err)
            return err;
        if (call->wanted_count == 0 || !call_wanted(call, wanted.name))
            call->wanted[call->wanted_count++] = wanted;
    }
    return NULL;
}

/* ---- Bodies ---- */

static tis_error *decode_json_body(struct decoder *d, const char *json, size_t json_len)
{
    yyjson_val *root;
    tis_error *err = parse_json(d->call, json, json_len, &root);
    if (err)
        return err;
    if (is_too_deep(root, 1))
        return INVALID("failed to parse the request JSON buffer: nested deeper than %d", DEPTH_MAX);
    yyjson_val *id = yyjson_obj_get(root, "id");
    if (id && !text_of(id))
        return wrong_type("the request", "id", id, "a string without NUL characters");
    if (id)
        d->req->id = text_of(id);

    err = decode_parameters(d, yyjson_obj_get(root, "parameters"));
    if (!err)
        err = decode_inputs(d, yyjson_obj_get(root, "inputs"));
    if (!err)
        err = decode_outputs(d, yyjson_obj_get(root, "outputs"));
    return err;
}

/* A raw string body is one element without its length. */
static tis_error *raw_string(struct decoder *d, struct tis_input *in)
{
    if (d->tail_len > UINT32_MAX)
        return INVALID("raw request for input '%s': one string has at most %u bytes, got %zu",
                       in->name, UINT32_MAX, d->tail_len);
    uint32_t len = (uint32_t)d->tail_len;
    size_t bytes = sizeof(len) + d->tail_len;
    struct buffer *b = buffer_create(bytes, 0);
    if (!b)
        return error_no_memory();
    memcpy(b->base, &len, sizeof(len));
    memcpy((char *)b->base + sizeof(len), d->tail, d->tail_len);
    tis_error *err = request_add_chunk(d->req, in, b->base, bytes, TRITONSERVER_MEMORY_CPU, 0, b);
    buffer_unref(b);
    return err;
}

/* The shape of a raw body: batch 1, the one variable dimension from the number of bytes. */
static tis_error *raw_shape(struct decoder *d, const struct tensor_spec *spec, int64_t *shape)
{
    uint32_t skip = d->call->target->config->max_batch_size > 0;
    uint32_t variable = UINT32_MAX;
    uint64_t fixed = datatype_bytes(spec->data_type);
    if (skip)
        shape[0] = 1;
    for (uint32_t i = 0; i < spec->rank; i++) {
        bool is_string = spec->data_type == TRITONSERVER_TYPE_BYTES;
        shape[skip + i] = is_string ? 1 : spec->dims[i];
        if (is_string || spec->dims[i] != -1) {
            fixed *= is_string ? 1 : (uint64_t)spec->dims[i];
            continue;
        }
        if (variable != UINT32_MAX)
            return INVALID("The shape of the raw input '%s' can not be deduced because there are "
                           "more than one variable-sized dimension",
                           spec->name);
        variable = skip + i;
    }
    if (variable == UINT32_MAX)
        return NULL;
    if (fixed == 0 || d->tail_len % fixed != 0)
        return INVALID("The shape of the raw input '%s' can not be deduced: %zu bytes are not a "
                       "multiple of %llu",
                       spec->name, d->tail_len, (unsigned long long)fixed);
    shape[variable] = (int64_t)(d->tail_len / fixed);
    return NULL;
}

static tis_error *decode_raw_body(struct decoder *d)
{
    const struct model_config *config = d->call->target->config;
    if (config->input_count != 1)
        return INVALID("Raw request must only have 1 input (found 1) to be deduced but got %u "
                       "inputs in '%s' model configuration",
                       config->input_count, d->call->target->model_name);
    const struct tensor_spec *spec = &config->inputs[0];
    uint32_t rank = spec->rank + (config->max_batch_size > 0);
    int64_t *shape = arena_alloc(&d->req->arena, rank * sizeof(*shape));
    if (!shape)
        return error_no_memory();
    tis_error *err = raw_shape(d, spec, shape);
    if (!err)
        err = request_reserve_inputs(d->req, 1);
    if (err)
        return err;

    d->call->binary_default = true;
    struct tis_input *in = request_add_input(d->req, spec->name, spec->data_type, shape, rank);
    if (spec->data_type == TRITONSERVER_TYPE_BYTES)
        return raw_string(d, in);
    return request_add_chunk(d->req, in, d->tail, d->tail_len, TRITONSERVER_MEMORY_CPU, 0, NULL);
}

size_t v2_json_bytes(const struct call *call)
{
    const struct http_header *h = http_header_find(call->ex, V2_HEADER_LENGTH);
    uint64_t bytes;
    if (h && number_parse_u64(h->value, h->value_len, &bytes) && bytes <= call->ex->body_len)
        return bytes;
    return call->ex->body_len;
}

tis_error *v2_decode(struct call *call)
{
    const struct http_exchange *ex = call->ex;
    struct decoder d = { .call = call, .req = call->request };
    const struct http_header *encoding = http_header_find(ex, "Content-Encoding");
    if (encoding && encoding->value_len > 0 &&
        !(encoding->value_len == 8 && strncasecmp(encoding->value, "identity", 8) == 0))
        return error_new(TRITONSERVER_ERROR_UNSUPPORTED, "Unsupported compression type");

    uint64_t json_len = ex->body_len;
    const struct http_header *h = http_header_find(ex, V2_HEADER_LENGTH);
    if (h) {
        d.has_header_length = true;
        if (!number_parse_u64(h->value, h->value_len, &json_len) || json_len > ex->body_len)
            return INVALID("inference header size should be in range (0, %zu), got: %.*s",
                           ex->body_len, (int)(h->value_len < 32 ? h->value_len : 32), h->value);
    }
    d.tail = ex->body ? ex->body + json_len : NULL;
    d.tail_len = ex->body_len - json_len;
    if (json_len == 0)
        return decode_raw_body(&d);
    return decode_json_body(&d, ex->body, json_len);
}
