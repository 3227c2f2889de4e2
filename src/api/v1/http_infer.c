/* Inference of the v1 protocol over HTTP: shapes and sizes in the header NV-InferRequest, tensors one
 * after the other in the body; the answer is raw tensors followed by an InferResponseHeader. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api/v1/infer.h"
#include "api/v1/v1.h"
#include "infer/reason.h"
#include "proto/text.h"

/* Takes err. */
static void fail(struct call *call, tis_error *err)
{
    const struct v1_infer *v = v1_infer_of(call);
    struct bytes *headers = &call->out;
    bytes_clear(headers);
    v1_append_status(headers, call->api, v && v->header.is_v0 ? DIALECT_V0 : DIALECT_V1, err,
                     v ? v->request_id : 0);
    bytes_append_str(headers, "NV-InferResponse: ");
    if (v && v->header.id)
        bytes_printf(headers, "id: %" PRIu64, v->header.id);
    bytes_append_str(headers, "\r\nContent-Type: application/octet-stream\r\n");
    call_respond(call, 400, bytes_str(headers));
    error_free(err);
}

/* A version number that no number holds is as unknown as any other. */
static tis_error *read_target(struct call *call, int64_t *ret_version)
{
    tis_error *err = call_version_number(call, ret_version);
    if (!err)
        return NULL;
    error_free(err);
    char *model = strndup(call->model.at, call->model.len);
    err = model ? reason_error(REASON_VERSION_UNKNOWN, model) : error_no_memory();
    free(model);
    return err;
}

static tis_error *read_header(const struct call *call, const char *model, struct arena *a,
                              struct v1_infer_header *ret_header)
{
    const struct http_header *text = http_header_find(call->ex, "NV-InferRequest");
    if (!text)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG, "unable to parse request for model '%s'",
                         model);
    return v1_infer_header_parse(text->value, text->value_len, model, a, ret_header);
}

/* The body's next bytes are the next input's. */
static tis_error *add_inputs(struct call *call, const struct v1_full_input *inputs, uint32_t count)
{
    const char *model = call->target->model_name;
    const char *body = call->ex->body;
    uint64_t left = call->ex->body_len;
    for (uint32_t i = 0; i < count; i++) {
        const struct v1_full_input *in = &inputs[i];
        if (in->bytes > left)
            return reason_error(REASON_BODY_SHORT, model, in->spec->name,
                                REASON_NUMBER(in->bytes - left), REASON_NUMBER(in->bytes),
                                REASON_NUMBER(left));
        tis_error *err = v1_add_input(call, in, body);
        if (err)
            return err;
        body = body ? body + in->bytes : NULL;
        left -= in->bytes;
    }
    return left > 0 ? reason_error(REASON_BODY_LONG, model) : NULL;
}

static tis_error *encode(struct call *call)
{
    const struct v1_infer *v = v1_infer_of(call);
    struct v1_answer_output *outputs;
    uint32_t count;
    tis_error *err = v1_collect_outputs(call, &outputs, &count);
    if (err)
        return err;
    const ProtobufCMessage *header = v1_make_response_header(call, outputs, count);
    struct iovec *parts = arena_calloc(&call->response->arena, count + 1, sizeof(*parts));
    if (!header || !parts)
        return error_no_memory();
    bytes_clear(&call->out);
    /* Behind the tensors the header stands again: binary, or text of several lines. */
    v1_append_message(&call->out, header, v1_format(call) == V1_BINARY ? V1_BINARY : V1_TEXT);
    if (call->out.failed)
        return error_no_memory();

    uint32_t part_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!outputs[i].classes && outputs[i].output->bytes > 0)
            parts[part_count++] = (struct iovec){ .iov_base = outputs[i].output->buffer->base,
                                                  .iov_len = outputs[i].output->bytes };
    }
    parts[part_count++] = (struct iovec){ .iov_base = call->out.data, .iov_len = call->out.len };

    struct bytes headers = { 0 };
    v1_append_status(&headers, call->api, DIALECT_V1, NULL, v->request_id);
    if (!v->header.is_v0) {
        bytes_append_str(&headers, "NV-InferResponse: ");
        text_append(&headers, header, TEXT_ONE_LINE);
        bytes_append_str(&headers, "\r\n");
    }
    bytes_append_str(&headers, "Content-Type: application/octet-stream\r\n");
    if (headers.failed)
        err = error_no_memory();
    else
        http_respond(call->ex, 200, headers.data, headers.len, parts, part_count, NULL, NULL);
    bytes_fini(&headers);
    return err;
}

static const struct v1_infer_form http_form = {
    .dialect = { .name = "HTTP end point", .encode = encode, .fail = fail },
    .read_target = read_target,
    .read_header = read_header,
    .add_inputs = add_inputs,
};

void v1_infer(struct call *call)
{
    v1_infer_run(call, &http_form);
}
