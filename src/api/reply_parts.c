#include "api/reply_parts.h"

#include <inttypes.h>

#include "proto/wire.h"

tis_error *reply_parts_init(struct reply_parts *p, struct bytes *out, uint32_t tensor_count_max,
                            struct arena *a)
{
    bytes_clear(out);
    *p = (struct reply_parts){
        .at = arena_alloc(a, (2 * (size_t)tensor_count_max + 1) * sizeof(*p->at)),
        .out = out,
    };
    return p->at ? NULL : error_no_memory();
}

/* What `out` has got since the last part; its address is known when it moves no more. */
static void add_written(struct reply_parts *p)
{
    if (p->out->len > p->begin)
        p->at[p->count++] = (struct iovec){ .iov_len = p->out->len - p->begin };
    p->begin = p->out->len;
}

void reply_parts_add(struct reply_parts *p, uint32_t field, void *data, size_t len)
{
    wire_append_head(p->out, field, len);
    if (len == 0)
        return;
    add_written(p);
    p->at[p->count++] = (struct iovec){ .iov_base = data, .iov_len = len };
    p->bytes += len;
}

tis_error *reply_parts_finish(struct reply_parts *p)
{
    add_written(p);
    if (p->out->failed)
        return error_no_memory();
    p->bytes += p->out->len;
    if (p->bytes > INT32_MAX)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "Response has byte size %" PRIu64
                         " which exceeds gRPC's byte size limit %d.",
                         p->bytes, INT32_MAX);
    char *written = p->out->data;
    for (uint32_t i = 0; i < p->count; i++) {
        if (p->at[i].iov_base)
            continue;
        p->at[i].iov_base = written;
        written += p->at[i].iov_len;
    }
    return NULL;
}
