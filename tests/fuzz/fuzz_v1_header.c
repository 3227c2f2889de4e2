/* Any bytes as the header NV-InferRequest: no crash, no leak, bounded memory, and what is read keeps
 * the promises of infer_header.h. The first byte chooses the room: a small arena must end in an
 * error, not in a fall.
 *
 * Parses: src/api/v1/infer_header.c */
#include <stdlib.h>
#include <string.h>

#include "api/v1/infer_header.h"

enum {
    ROOM_BYTES_MAX = 4 << 20
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void check_header(const struct v1_infer_header *h)
{
    size_t bytes = 0; /* every byte of every name, so that ASan sees them */
    for (uint32_t i = 0; i < h->input_count; i++) {
        const struct v1_input *in = &h->inputs[i];
        must(in->has_dims == (in->rank > 0));
        must(!h->is_v0 || (!in->has_dims && in->batch_byte_size == 0));
        must(h->is_v0 || in->byte_size == 0);
        for (uint32_t k = 0; k < in->rank; k++)
            bytes += in->dims[k] != 0;
        bytes += strlen(in->name);
    }
    for (uint32_t i = 0; i < h->output_count; i++) {
        must(h->outputs[i].wants_classes || h->outputs[i].class_count == 0);
        must(h->is_v0 || h->outputs[i].byte_size == 0);
        bytes += strlen(h->outputs[i].name);
    }
    must(!h->is_v0 || (h->id == 0 && h->flags == 0 && h->correlation_id == 0));
    must(bytes < ROOM_BYTES_MAX);
}

static void check_error(const tis_error *err)
{
    switch (error_code(err)) {
    case TRITONSERVER_ERROR_INVALID_ARG:
        must(strcmp(error_text(err), "unable to parse request for model 'm'") == 0);
        break;
    case TRITONSERVER_ERROR_UNSUPPORTED:
    case TRITONSERVER_ERROR_UNAVAILABLE:
        must(*error_text(err));
        break;
    default:
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct arena arena;
    struct v1_infer_header header;
    arena_init(&arena, NULL, 0, data[0] < 32 ? data[0] * 64u : ROOM_BYTES_MAX);
    tis_error *err = v1_infer_header_parse((const char *)data + 1, size - 1, "m", &arena, &header);
    if (err)
        check_error(err);
    else
        check_header(&header);
    error_free(err);
    arena_fini(&arena);
    return 0;
}
