/* Inference of the v1 protocol over gRPC.
 *
 * The request is walked where it lies: an entry of raw_input becomes a chunk that points into the
 * message. The answer's head is written into call->out, and the tensors follow from where the backend
 * left them. */
#include "api/call_stream.h"
#include "api/reply_parts.h"
#include "api/v1/infer.h"
#include "api/v1/v1.h"
#include "infer/reason.h"
#include "proto/message.h"
#include "proto/wire.h"

/* Fields of InferRequest. */
enum {
    REQUEST_MODEL = 1,
    REQUEST_VERSION = 2,
    REQUEST_META_DATA = 3,
    REQUEST_RAW = 4,
};

/* Fields of InferResponse; the first is request_status. */
enum {
    RESPONSE_META_DATA = 2,
    RESPONSE_RAW = 3,
};

/* An infer header is names and shapes: a longer one would only hold up the loop. */
enum {
    META_DATA_BYTES_MAX = 1 << 20
};

/* Takes err. Of the question only the id comes back, as 1.x does it. */
static void fail(struct call *call, tis_error *err)
{
    enum {
        HEADER_ID = 5 /* of InferResponseHeader */
    };
    const struct v1_infer *v = v1_infer_of(call);
    struct bytes *out = &call->out;
    bytes_clear(out);
    v1_append_request_status(out, call->api, v && v->header.is_v0 ? DIALECT_V0 : DIALECT_V1, err,
                             v ? v->request_id : 0);
    if (v && v->header.id) {
        wire_append_head(out, RESPONSE_META_DATA, 1 + wire_varint_bytes(v->header.id));
        wire_append_tag(out, HEADER_ID, WIRE_VARINT);
        wire_append_varint(out, v->header.id);
    }
    error_free(err);
    v1_rpc_respond(call);
}

/* The one look at the whole message: afterwards its own fields are known to be sound. */
static tis_error *read_target(struct call *call, int64_t *ret_version)
{
    uint64_t version = 0;
    tis_error *err = NULL;
    struct wire w = wire_open(call->message, call->message_len);
    call->model = (struct part){ "", 0 };
    for (struct wire_field f; !err && wire_next(&w, &f);) {
        if (f.number == REQUEST_VERSION)
            err = wire_get_number(&f, &version);
        else if (f.number <= REQUEST_RAW && f.type != WIRE_BYTES)
            err = wire_error();
        if (f.number == REQUEST_MODEL)
            call->model = (struct part){ f.data, f.len };
    }
    if (!err && (w.is_bad || !utf8_is_valid(call->model.at, call->model.len)))
        err = wire_error();
    if (!err)
        *ret_version = (int64_t)version;
    return err;
}

static tis_error *read_header(const struct call *call, const char *model, struct arena *a,
                              struct v1_infer_header *ret_header)
{
    struct wire_field header = { .data = "" };
    struct wire w = wire_open(call->message, call->message_len);
    for (struct wire_field f; wire_next(&w, &f);) {
        if (f.number == REQUEST_META_DATA)
            header = f;
    }
    if (header.len > META_DATA_BYTES_MAX)
        return error_new(
            TRITONSERVER_ERROR_INVALID_ARG,
            "the meta_data of the request for model '%s' has %zu bytes, at most %d are "
            "possible",
            model, header.len, META_DATA_BYTES_MAX);
    return v1_infer_header_read(header.data, header.len, model, a, ret_header);
}

/* An entry of raw_input for each input, in the same order. */
static tis_error *add_inputs(struct call *call, const struct v1_full_input *inputs, uint32_t count)
{
    const char *model = call->target->model_name;
    struct wire w = wire_open(call->message, call->message_len);
    uint32_t at = 0;
    for (struct wire_field f; wire_next(&w, &f);) {
        if (f.number != REQUEST_RAW)
            continue;
        if (at == count)
            return reason_error(REASON_BODY_LONG, model);
        const struct v1_full_input *in = &inputs[at++];
        if (f.len != in->bytes)
            return reason_error(REASON_RAW_BYTES, model, in->spec->name, REASON_NUMBER(in->bytes),
                                REASON_NUMBER(f.len));
        tis_error *err = v1_add_input(call, in, f.data);
        if (err)
            return err;
    }
    return at < count ? reason_error(REASON_RAW_MISSING, model, REASON_NUMBER(at)) : NULL;
}

static tis_error *encode(struct call *call)
{
    struct v1_answer_output *outputs;
    struct reply_parts parts;
    uint32_t count;
    tis_error *err = v1_collect_outputs(call, &outputs, &count);
    if (!err)
        err = reply_parts_init(&parts, &call->out, count, &call->response->arena);
    if (err)
        return err;
    const ProtobufCMessage *header = v1_make_response_header(call, outputs, count);
    if (!header)
        return error_no_memory();
    v1_append_request_status(&call->out, call->api, DIALECT_V1, NULL,
                             v1_infer_of(call)->request_id);
    wire_append_head(&call->out, RESPONSE_META_DATA, protobuf_c_message_get_packed_size(header));
    message_append(&call->out, header);
    for (uint32_t i = 0; i < count; i++) {
        const struct tis_output *o = outputs[i].output;
        bool is_empty = outputs[i].classes || o->bytes == 0;
        reply_parts_add(&parts, RESPONSE_RAW, is_empty ? NULL : o->buffer->base,
                        is_empty ? 0 : o->bytes);
    }
    err = reply_parts_finish(&parts);
    if (!err)
        call_reply(call, parts.at, parts.count);
    return err;
}

const struct v1_infer_form v1_rpc_infer_form = {
    .dialect = { .name = "Infer RPC", .encode = encode, .fail = fail },
    .read_target = read_target,
    .read_header = read_header,
    .add_inputs = add_inputs,
};

void v1_rpc_infer(struct call *call)
{
    v1_infer_run(call, &v1_rpc_infer_form);
}

/* A failed request is an answer like others: the stream goes on. */
const struct stream_dialect v1_stream_dialect = {
    .handle = v1_rpc_infer,
    .in_order = true,
};
