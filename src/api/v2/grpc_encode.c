/* ModelInfer and ModelStreamInfer of the v2 protocol over gRPC: the responses.
 *
 * The head is written into call->out, and the tensors follow from where the backend left them. In a
 * stream the response is a field of a ModelStreamInferResponse. */
#include <string.h>

#include "api/call_stream.h"
#include "api/reply_parts.h"
#include "api/v2/v2.h"
#include "infer/datatype.h"
#include "proto/wire.h"

enum {
    STREAM_RESPONSE = 2,                               /* field of ModelStreamInferResponse */
    STREAM_HEAD_BYTES_MAX = 1 + WIRE_VARINT_BYTES_MAX, /* its tag and length */
};

static void append_parameter(struct bytes *out, struct bytes *scratch,
                             const struct tis_parameter *p)
{
    bytes_clear(scratch);
    switch (p->type) {
    case TRITONSERVER_PARAMETER_BOOL:
        wire_append_tag(scratch, 1, WIRE_VARINT);
        wire_append_varint(scratch, p->value.boolean);
        break;
    case TRITONSERVER_PARAMETER_INT:
        wire_append_tag(scratch, 2, WIRE_VARINT);
        wire_append_varint(scratch, (uint64_t)p->value.integer);
        break;
    case TRITONSERVER_PARAMETER_STRING:
        wire_append_bytes(scratch, 3, p->value.string, strlen(p->value.string));
        break;
    case TRITONSERVER_PARAMETER_DOUBLE:
        wire_append_tag(scratch, 4, WIRE_FIXED64);
        bytes_append(scratch, &p->value.number, sizeof(p->value.number));
        break;
    case TRITONSERVER_PARAMETER_BYTES:
        return; /* a response cannot carry any */
    }
    size_t name_len = strlen(p->name);
    wire_append_head(out, 4, wire_bytes_bytes(name_len) + wire_bytes_bytes(scratch->len));
    wire_append_bytes(out, 1, p->name, name_len);
    wire_append_bytes(out, 2, scratch->data, scratch->len);
}

static void append_output(struct bytes *out, const struct tis_output *o)
{
    const char *type = datatype_name(o->data_type);
    size_t name_len = strlen(o->name), type_len = strlen(type), shape_len = 0;
    for (uint32_t i = 0; i < o->rank; i++)
        shape_len += wire_varint_bytes((uint64_t)o->shape[i]);
    size_t shape_bytes_all = o->rank > 0 ? wire_bytes_bytes(shape_len) : 0;
    wire_append_head(out, 5,
                     wire_bytes_bytes(name_len) + wire_bytes_bytes(type_len) + shape_bytes_all);
    wire_append_bytes(out, 1, o->name, name_len);
    wire_append_bytes(out, 2, type, type_len);
    if (o->rank > 0)
        wire_append_head(out, 3, shape_len);
    for (uint32_t i = 0; i < o->rank; i++)
        wire_append_varint(out, (uint64_t)o->shape[i]);
}

static bool is_wanted(const struct call *call, const struct tis_output *o)
{
    return call->wanted_count == 0 || call_wanted(call, o->name);
}

/* As text. */
static void append_number(struct bytes *out, uint32_t field, int64_t value)
{
    wire_append_head(out, field, 0);
    size_t begin = out->len;
    bytes_append_i64(out, value);
    if (!out->failed)
        out->data[begin - 1] = (char)(out->len - begin); /* at most 20: one byte, as that of 0 */
}

/* r: NULL for a message that marks the end or carries an error; like Triton's it has no version. */
static void append_head(const struct call *call, const struct tis_response *r, bool is_final,
                        struct bytes *out)
{
    struct bytes scratch = { 0 };
    wire_append_bytes(out, 1, call->target->model_name, strlen(call->target->model_name));
    if (r)
        append_number(out, 2, call->target->number);
    if (call->request->id[0])
        wire_append_bytes(out, 3, call->request->id, strlen(call->request->id));
    if (call->stream) {
        struct tis_parameter final = { .name = "triton_final_response",
                                       .type = TRITONSERVER_PARAMETER_BOOL,
                                       .value.boolean = is_final };
        append_parameter(out, &scratch, &final);
    }
    for (const struct response_parameter *p = r ? r->parameters : NULL; p; p = p->next)
        append_parameter(out, &scratch, &p->parameter);
    out->failed |= scratch.failed;
    bytes_fini(&scratch);
    for (const struct tis_output *o = r ? r->outputs : NULL; o; o = o->next) {
        if (is_wanted(call, o))
            append_output(out, o);
    }
}

static tis_error *prepare_outputs(struct call *call)
{
    tis_error *err = NULL;
    for (struct tis_output *o = call->response->outputs; o && !err; o = o->next) {
        if (!is_wanted(call, o))
            continue;
        err = v2_check_output(call, o);
        const struct wanted_output *w = call_wanted(call, o->name);
        if (!err && w && w->class_count > 0)
            err = v2_make_classes(call, o, w->class_count);
    }
    return err;
}

/* In a stream the response is a field of a message, whose length stands before it. */
static void begin_out(const struct call *call, struct bytes *out)
{
    static const char room[STREAM_HEAD_BYTES_MAX];
    bytes_clear(out);
    if (call->stream)
        bytes_append(out, room, sizeof(room));
}

/* Writes tag and length of a response of `bytes` so that they end where it begins in out->data;
 * returns where they begin. */
static size_t put_stream_head(struct bytes *out, uint64_t bytes)
{
    size_t begin = STREAM_HEAD_BYTES_MAX - 1 - wire_varint_bytes(bytes);
    out->data[begin] = STREAM_RESPONSE << 3 | WIRE_BYTES;
    wire_put_varint(out->data + begin + 1, bytes);
    return begin;
}

tis_error *v2_rpc_encode(struct call *call)
{
    struct tis_response *r = call->response;
    struct bytes *out = &call->out;
    struct reply_parts parts;
    tis_error *err = prepare_outputs(call);
    if (!err)
        err = reply_parts_init(&parts, out, r->output_count, &r->arena);
    if (err)
        return err;
    begin_out(call, out);
    append_head(call, r, call->is_final, out);
    for (const struct tis_output *o = r->outputs; o; o = o->next) {
        if (is_wanted(call, o))
            reply_parts_add(&parts, 6, o->bytes > 0 ? o->buffer->base : NULL, o->bytes);
    }
    err = reply_parts_finish(&parts);
    if (err)
        return err;
    if (call->stream) {
        size_t skip = put_stream_head(out, parts.bytes - STREAM_HEAD_BYTES_MAX);
        parts.at[0].iov_base = out->data + skip;
        parts.at[0].iov_len -= skip;
    }
    call_reply(call, parts.at, parts.count);
    return NULL;
}

/* ---- Streams ---- */

static void reply_out(struct call *call, size_t skip)
{
    struct iovec part = { .iov_base = call->out.data + skip, .iov_len = call->out.len - skip };
    if (call->out.failed)
        call_fail(call, GRPC_UNAVAILABLE, "out of memory");
    else
        call_reply(call, &part, 1);
}

void v2_rpc_stream_end(struct call *call)
{
    if (!call->target->config->decoupled && call->answer_count == 0) {
        v2_rpc_stream_fail(call, error_new(TRITONSERVER_ERROR_INTERNAL,
                                           "model '%s': the backend ended the request without a "
                                           "response",
                                           call->target->model_name));
        return;
    }
    if (!call->wants_empty_final)
        return;
    begin_out(call, &call->out);
    append_head(call, NULL, true, &call->out);
    size_t skip =
        call->out.failed ? 0 : put_stream_head(&call->out, call->out.len - STREAM_HEAD_BYTES_MAX);
    reply_out(call, skip);
}

/* The id that the client gave, also when its request could not be read further. */
static struct part request_id(const struct call *call)
{
    struct part id = { "", 0 };
    struct wire w = wire_open(call->message, call->message_len);
    for (struct wire_field f; wire_next(&w, &f);) {
        if (f.number == 3 && f.type == WIRE_BYTES)
            id = (struct part){ f.data, f.len };
    }
    return id;
}

static bool wants_status(const struct call *call)
{
    const struct http_header *h = call_stream_metadata(call, "triton_grpc_error");
    return h && h->value_len == 4 && memcmp(h->value, "true", 4) == 0;
}

/* The response beside an error: of a backend's, what else is known; of others, the id. */
static void append_error_head(struct call *call, struct bytes *out)
{
    struct part id;
    if (call->response && call->response->error) {
        append_head(call, NULL, call->is_final, out);
        return;
    }
    id = request_id(call);
    if (id.len > 0)
        wire_append_bytes(out, 3, id.at, id.len);
}

/* An error is a message like others, unless the client wants it as the status of the stream. */
void v2_rpc_stream_fail(struct call *call, tis_error *err)
{
    if (wants_status(call)) {
        v2_rpc_fail(call, err);
        return;
    }
    struct bytes text = { 0 }, head = { 0 };
    v2_describe(call, err, &text);
    append_error_head(call, &head);
    bytes_clear(&call->out);
    wire_append_bytes(&call->out, 1, text.data, text.len);
    wire_append_bytes(&call->out, STREAM_RESPONSE, head.data, head.len);
    call->out.failed |= text.failed || head.failed;
    bytes_fini(&text);
    bytes_fini(&head);
    error_free(err);
    reply_out(call, 0);
}
