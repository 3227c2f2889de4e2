#include "api/v1/infer_header.h"

#include "base/log.h"
#include "proto/text.h"
#include "v0/api.pb-c.h"
#include "v1/api.pb-c.h"

typedef Nvidia__Inferenceserver__InferRequestHeader header_v1;
typedef Nvidia__Inferenceserver__V0__InferRequestHeader header_v0;

static tis_error *from_v1(const header_v1 *m, struct arena *a, struct v1_infer_header *h)
{
    h->id = m->id;
    h->correlation_id = m->correlation_id;
    h->flags = m->flags;
    h->priority = m->priority;
    h->timeout_us = m->timeout_microseconds;
    h->batch_size = m->batch_size;
    h->input_count = (uint32_t)m->n_input;
    h->output_count = (uint32_t)m->n_output;
    h->inputs = arena_calloc(a, m->n_input, sizeof(*h->inputs));
    h->outputs = arena_calloc(a, m->n_output, sizeof(*h->outputs));
    if (!h->inputs || !h->outputs)
        return error_no_memory();
    for (size_t i = 0; i < m->n_input; i++) {
        if (m->input[i]->shared_memory)
            return error_new(TRITONSERVER_ERROR_UNSUPPORTED,
                             "input '%s': shared memory is not supported by this server",
                             m->input[i]->name);
        h->inputs[i] = (struct v1_input){
            .name = m->input[i]->name,
            .dims = m->input[i]->dims,
            .rank = (uint32_t)m->input[i]->n_dims,
            .has_dims = m->input[i]->n_dims > 0,
            .batch_byte_size = m->input[i]->batch_byte_size,
        };
    }
    for (size_t i = 0; i < m->n_output; i++) {
        if (m->output[i]->shared_memory)
            return error_new(TRITONSERVER_ERROR_UNSUPPORTED,
                             "output '%s': shared memory is not supported by this server",
                             m->output[i]->name);
        h->outputs[i] = (struct v1_output){
            .name = m->output[i]->name,
            .wants_classes = m->output[i]->cls != NULL,
            .class_count = m->output[i]->cls ? m->output[i]->cls->count : 0,
        };
    }
    return NULL;
}

static tis_error *from_v0(const header_v0 *m, struct arena *a, struct v1_infer_header *h)
{
    h->is_v0 = true;
    h->batch_size = m->batch_size;
    h->input_count = (uint32_t)m->n_input;
    h->output_count = (uint32_t)m->n_output;
    h->inputs = arena_calloc(a, m->n_input, sizeof(*h->inputs));
    h->outputs = arena_calloc(a, m->n_output, sizeof(*h->outputs));
    if (!h->inputs || !h->outputs)
        return error_no_memory();
    for (size_t i = 0; i < m->n_input; i++)
        h->inputs[i] = (struct v1_input){
            .name = m->input[i]->name,
            .byte_size = m->input[i]->byte_size,
        };
    for (size_t i = 0; i < m->n_output; i++)
        h->outputs[i] = (struct v1_output){
            .name = m->output[i]->name,
            .byte_size = m->output[i]->byte_size,
            .wants_classes = m->output[i]->cls != NULL,
            .class_count = m->output[i]->cls ? m->output[i]->cls->count : 0,
        };
    return NULL;
}

/* A text that both dialects can read (nothing but names) is 1.x: it then needs nothing of 0.9. */
tis_error *v1_infer_header_parse(const char *text, size_t len, const char *model, struct arena *a,
                                 struct v1_infer_header *ret_header)
{
    ProtobufCMessage *m;
    struct v1_infer_header h = { 0 };
    tis_error *err = text_parse(&nvidia__inferenceserver__infer_request_header__descriptor, text,
                                len, NULL, a, &m);
    if (!err) {
        err = from_v1((const header_v1 *)m, a, &h);
        if (!err)
            *ret_header = h;
        return err;
    }

    tis_error *err_v0 = text_parse(&nvidia__inferenceserver__v0__infer_request_header__descriptor,
                                   text, len, NULL, a, &m);
    if (err_v0) {
        error_free(err_v0);
        if (error_code(err) != TRITONSERVER_ERROR_INVALID_ARG)
            return err;
        log_verbose("NV-InferRequest cannot be read model=%s error=\"%s\"", model, error_text(err));
        error_free(err);
        return error_new(TRITONSERVER_ERROR_INVALID_ARG, "unable to parse request for model '%s'",
                         model);
    }
    error_free(err);
    err = from_v0((const header_v0 *)m, a, &h);
    if (!err)
        *ret_header = h;
    return err;
}
