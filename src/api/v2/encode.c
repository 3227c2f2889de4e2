/* Replies of the v2 protocol: the JSON head is written into call->out, binary tensors follow it in
 * one writev from where the backend left them. */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "api/classify.h"
#include "api/v2/v2.h"
#include "infer/datatype.h"
#include "infer/shape.h"
#include "proto/json.h"

struct encoder {
    struct call *call;
    struct bytes *out;
    struct iovec *parts; /* [0] is the JSON */
    uint32_t part_count;
    uint64_t binary_bytes;
    bool has_binary;
};

static void append_key(struct bytes *out, const char *key)
{
    bytes_append_char(out, '"');
    bytes_append_str(out, key);
    bytes_append(out, "\":", 2);
}

static void append_string_member(struct bytes *out, const char *key, const char *value)
{
    append_key(out, key);
    json_append_string(out, value, strlen(value));
}

static void append_parameters(struct bytes *out, const struct tis_response *r)
{
    append_key(out, "parameters");
    bytes_append_char(out, '{');
    for (const struct response_parameter *p = r->parameters; p; p = p->next) {
        const struct tis_parameter *q = &p->parameter;
        if (p != r->parameters)
            bytes_append_char(out, ',');
        json_append_string(out, q->name, strlen(q->name));
        bytes_append_char(out, ':');
        switch (q->type) {
        case TRITONSERVER_PARAMETER_STRING:
            json_append_string(out, q->value.string, strlen(q->value.string));
            break;
        case TRITONSERVER_PARAMETER_INT:
            bytes_append_i64(out, q->value.integer);
            break;
        case TRITONSERVER_PARAMETER_BOOL:
            bytes_append_str(out, q->value.boolean ? "true" : "false");
            break;
        case TRITONSERVER_PARAMETER_DOUBLE:
            json_append_double(out, q->value.number);
            break;
        case TRITONSERVER_PARAMETER_BYTES:
            bytes_append_str(out, "null"); /* a response cannot carry any */
            break;
        }
    }
    bytes_append(out, "},", 2);
}

/* ---- Tensors as JSON ---- */

static void append_bools(struct bytes *out, const unsigned char *at, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        bytes_append_str(out, at[i] ? (i ? ",true" : "true") : (i ? ",false" : "false"));
}

static void append_integers(struct bytes *out, TRITONSERVER_DataType type, const char *at,
                            uint64_t count)
{
    bool is_signed = type >= TRITONSERVER_TYPE_INT8 && type <= TRITONSERVER_TYPE_INT64;
    uint32_t bytes = datatype_bytes(type);
    unsigned unused = 64 - bytes * 8;
    for (uint64_t i = 0; i < count; i++, at += bytes) {
        uint64_t bits = 0;
        memcpy(&bits, at, bytes);
        if (i > 0)
            bytes_append_char(out, ',');
        if (is_signed) /* the sign goes to the top and back down */
            bytes_append_i64(out, (int64_t)(bits << unused) >> unused);
        else
            bytes_append_u64(out, bits);
    }
}

static tis_error *append_strings(struct bytes *out, const struct tis_output *o)
{
    const char *at = o->buffer->base;
    uint64_t left = o->bytes;
    for (bool first = true; left > 0; first = false) {
        uint32_t len;
        if (left < sizeof(len))
            break;
        memcpy(&len, at, sizeof(len));
        at += sizeof(len);
        left -= sizeof(len);
        if (len > left)
            break;
        if (!first)
            bytes_append_char(out, ',');
        json_append_string(out, at, len);
        at += len;
        left -= len;
    }
    if (left > 0)
        return error_new(TRITONSERVER_ERROR_INTERNAL,
                         "output '%s': the backend sent strings whose lengths do not fit the "
                         "tensor's %" PRIu64 " bytes",
                         o->name, o->bytes);
    return NULL;
}

static tis_error *append_data(struct bytes *out, const struct tis_output *o)
{
    tis_error *err = NULL;
    uint64_t count = 0;
    uint32_t element = datatype_bytes(o->data_type);
    if (element > 0)
        count = o->bytes / element;
    append_key(out, "data");
    bytes_append_char(out, '[');
    const char *base = o->bytes > 0 ? o->buffer->base : NULL;
    switch (o->data_type) {
    case TRITONSERVER_TYPE_BOOL:
        append_bools(out, (const unsigned char *)base, count);
        break;
    case TRITONSERVER_TYPE_FP32:
        json_append_floats(out, base, count);
        break;
    case TRITONSERVER_TYPE_FP64:
        json_append_doubles(out, base, count);
        break;
    case TRITONSERVER_TYPE_BYTES:
        if (o->bytes > 0)
            err = append_strings(out, o);
        break;
    case TRITONSERVER_TYPE_FP16:
    case TRITONSERVER_TYPE_BF16:
        err = error_new(TRITONSERVER_ERROR_INVALID_ARG,
                        "sending %s data via JSON is not supported. Please use the binary data "
                        "format for output %s",
                        datatype_name(o->data_type), o->name);
        break;
    default:
        append_integers(out, o->data_type, base, count);
    }
    bytes_append_char(out, ']');
    return err;
}

/* ---- Classification ---- */

static const char *label_of(const struct call *call, const char *output, uint32_t index)
{
    const struct model_config *config = call->target->config;
    int32_t at = config_find_output(config, output, strlen(output));
    if (at < 0 || index >= config->outputs[at].label_count)
        return NULL;
    const char *label = config->outputs[at].labels[index];
    return label[0] ? label : NULL; /* an empty line gives no label */
}

tis_error *v2_make_classes(struct call *call, struct tis_output *o, uint32_t k)
{
    bool batches = call->target->config->max_batch_size > 0;
    uint32_t element = datatype_bytes(o->data_type);
    uint64_t entries = batches ? call->request->batch_size : 1;
    uint64_t count = element && entries ? o->bytes / element / entries : 0;
    struct bytes strings = { 0 };
    tis_error *err = NULL;
    size_t chosen = 0;

    for (uint64_t b = 0; b < entries && !err; b++) {
        const char *values = (const char *)o->buffer->base + b * count * element;
        uint32_t *indices;
        err = classify(o, values, count, k, &call->response->arena, &indices, &chosen);
        for (size_t i = 0; i < chosen && !err; i++) {
            struct bytes one = { 0 };
            const char *label = label_of(call, o->name, indices[i]);
            classify_append_value(&one, o->data_type, values, indices[i]);
            bytes_printf(&one, ":%" PRIu32 "%s%s", indices[i], label ? ":" : "",
                         label ? label : "");
            uint32_t len = (uint32_t)one.len;
            bytes_append(&strings, &len, sizeof(len));
            bytes_append(&strings, one.data, one.len);
            bytes_fini(&one);
        }
    }
    struct buffer *b = err ? NULL : buffer_create(strings.len, 0);
    int64_t *shape = arena_alloc(&call->response->arena, 2 * sizeof(*shape));
    if (!err && (!b || !shape || strings.failed)) {
        buffer_unref(b);
        err = error_no_memory();
    }
    if (!err) {
        if (strings.len > 0)
            memcpy(b->base, strings.data, strings.len);
        buffer_unref(o->buffer);
        o->buffer = b;
        o->bytes = strings.len;
        o->data_type = TRITONSERVER_TYPE_BYTES;
        o->shape = shape;
        o->rank = 1 + batches;
        shape[0] = (int64_t)entries;
        shape[batches] = (int64_t)chosen;
    }
    bytes_fini(&strings);
    return err;
}

/* ---- The reply ---- */

static tis_error *append_output(struct encoder *e, struct tis_output *o, bool is_binary)
{
    struct bytes *out = e->out;
    bytes_append_char(out, '{');
    append_string_member(out, "name", o->name);
    bytes_append_char(out, ',');
    append_string_member(out, "datatype", datatype_name(o->data_type));
    bytes_append_char(out, ',');
    append_key(out, "shape");
    shape_append(out, o->shape, o->rank);
    bytes_append_char(out, ',');

    tis_error *err = NULL;
    if (is_binary) {
        bytes_append_str(out, "\"parameters\":{\"binary_data_size\":");
        bytes_append_u64(out, o->bytes);
        bytes_append_char(out, '}');
        e->has_binary = true;
        e->binary_bytes += o->bytes;
        if (o->bytes > 0)
            e->parts[e->part_count++] =
                (struct iovec){ .iov_base = o->buffer->base, .iov_len = o->bytes };
    } else {
        err = append_data(out, o);
    }
    bytes_append_char(out, '}');
    return err;
}

/* Clients cut the reply by shape and size: the two must agree. */
static tis_error *check_size(const struct call *call, const struct tis_output *o)
{
    uint64_t bytes;
    uint32_t element = datatype_bytes(o->data_type);
    if (element == 0 || (shape_bytes(o->shape, o->rank, element, &bytes) && bytes == o->bytes))
        return NULL;
    struct bytes shape = { 0 };
    shape_append(&shape, o->shape, o->rank);
    tis_error *err =
        error_new(TRITONSERVER_ERROR_INTERNAL,
                  "model '%s': the backend sent output '%s' with shape %s in %" PRIu64 " bytes",
                  call->target->model_name, o->name, bytes_str(&shape), o->bytes);
    bytes_fini(&shape);
    return err;
}

tis_error *v2_check_output(const struct call *call, const struct tis_output *o)
{
    if (!o->buffer)
        return error_new(TRITONSERVER_ERROR_INTERNAL,
                         "model '%s': the backend sent output '%s' without memory",
                         call->target->model_name, o->name);
    if (o->attributes.memory_type == TRITONSERVER_MEMORY_GPU)
        return error_new(TRITONSERVER_ERROR_INTERNAL,
                         "model '%s': output '%s' lies in GPU memory, which a reply cannot carry",
                         call->target->model_name, o->name);
    return check_size(call, o);
}

static tis_error *append_outputs(struct encoder *e)
{
    struct call *call = e->call;
    tis_error *err = NULL;
    bool first = true;
    bytes_append_str(e->out, "\"outputs\":[");
    for (struct tis_output *o = call->response->outputs; o && !err; o = o->next) {
        const struct wanted_output *w = call_wanted(call, o->name);
        if (!w && call->wanted_count > 0)
            continue;
        err = v2_check_output(call, o);
        if (!err && w && w->class_count > 0)
            err = v2_make_classes(call, o, w->class_count);
        if (!first)
            bytes_append_char(e->out, ',');
        first = false;
        if (!err)
            err = append_output(e, o, w ? w->is_binary : call->binary_default);
    }
    bytes_append_str(e->out, "]}");
    return err;
}

/* Writes the JSON into call->out and finds the parts of the reply. */
static tis_error *build_reply(struct call *call)
{
    struct tis_response *r = call->response;
    struct encoder *e = call->dialect_data;
    bytes_clear(e->out);
    bytes_append_char(e->out, '{');
    if (call->request->id[0]) {
        append_string_member(e->out, "id", call->request->id);
        bytes_append_char(e->out, ',');
    }
    append_string_member(e->out, "model_name", call->target->model_name);
    bytes_append_str(e->out, ",\"model_version\":\"");
    bytes_append_i64(e->out, call->target->number);
    bytes_append_str(e->out, "\",");
    if (r->parameter_count > 0)
        append_parameters(e->out, r);
    tis_error *err = append_outputs(e);
    if (!err && e->out->failed)
        err = error_no_memory();
    return err;
}

/* On the loop. */
static void send_reply(struct call *call, tis_error *err)
{
    static const char json_headers[] = "Content-Type: application/json\r\n";
    static const char binary_headers[] =
        "Content-Type: application/octet-stream\r\n" V2_HEADER_LENGTH ": ";
    struct encoder *e = call->dialect_data;
    struct bytes *out = e->out;
    size_t json_len = out->len;
    if (!err && e->has_binary) {
        /* The head follows the JSON in the same memory; http_respond copies it. */
        bytes_append_str(out, binary_headers);
        bytes_append_u64(out, json_len);
        bytes_append_str(out, "\r\n");
        if (out->failed)
            err = error_no_memory();
    }
    if (err) {
        v2_fail(call, err);
        return;
    }
    e->parts[0] = (struct iovec){ .iov_base = out->data, .iov_len = json_len };
    const char *headers = e->has_binary ? out->data + json_len : json_headers;
    size_t headers_len = e->has_binary ? out->len - json_len : sizeof(json_headers) - 1;
    http_respond(call->ex, 200, headers, headers_len, e->parts, e->part_count, NULL, NULL);
}

/* Bytes of the tensors that the reply carries as JSON. */
static uint64_t json_tensor_bytes(const struct call *call)
{
    uint64_t bytes = 0;
    for (const struct tis_output *o = call->response->outputs; o; o = o->next) {
        const struct wanted_output *w = call_wanted(call, o->name);
        if (w || call->wanted_count == 0)
            bytes += (w ? w->is_binary : call->binary_default) ? 0 : o->bytes;
    }
    return bytes;
}

tis_error *v2_encode(struct call *call)
{
    struct tis_response *r = call->response;
    struct encoder *e = arena_calloc(&r->arena, 1, sizeof(*e));
    struct iovec *parts = arena_alloc(&r->arena, (r->output_count + 1) * sizeof(*parts));
    if (!e || !parts)
        return error_no_memory();
    *e = (struct encoder){ .call = call, .out = &call->out, .parts = parts, .part_count = 1 };
    call->dialect_data = e;
    if (json_tensor_bytes(call) > V2_JSON_INLINE_BYTES_MAX)
        call_offload(call, build_reply, send_reply);
    else
        send_reply(call, build_reply(call));
    return NULL;
}
