/* grpc/unzip.c - compressed messages from the client.
 *
 * A compressed message comes into memory of ours. When it is complete its length is measured, that is
 * taken from the byte budget as for any message, the handler gives memory (on_message), and it is
 * decompressed there: the handler sees no difference. What may take long happens on a worker; the
 * stream waits meanwhile, as for the budget. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/conn.h"

enum {
    /* What the loop does by itself: about a tenth of a millisecond. */
    HERE_BYTES_MAX = 64 << 10,
};

static struct stream *stream_of(struct unzip *u)
{
    return CONTAINER_OF(u, struct stream, unzip);
}

static const struct grpc_server_options *options_of(const struct stream *s)
{
    return &s->conn->shard->server->options;
}

tis_error *unzip_memory(struct stream *s)
{
    char *base = malloc(s->message_len);
    if (!base)
        return error_no_memory();
    s->memory = (struct http_body_memory){
        .base = base,
        .bytes = s->message_len,
        .owner = base,
        .release = free,
    };
    return NULL;
}

void unzip_drop(struct stream *s)
{
    struct unzip *u = &s->unzip;
    assert(!u->is_on_worker);
    free(u->zipped);
    u->zipped = NULL;
    if (u->step != UNZIP_IDLE && !s->pub.budget_exempt && options_of(s)->budget) {
        size_t cost = stream_cost(s, u->zipped_len);
        wait_give(s->conn->shard, cost);
        s->budget_bytes -= cost;
    }
    u->step = UNZIP_IDLE;
}

static void fail(struct stream *s)
{
    struct unzip *u = &s->unzip;
    if (u->result == COMPRESS_LARGE)
        reply_errorf(s, GRPC_RESOURCE_EXHAUSTED,
                     "message of more than %llu bytes when decompressed is larger than the limit. "
                     "Use %s to increase the limit.",
                     (unsigned long long)s->pub.message_bytes_max,
                     options_of(s)->message_bytes_flag);
    else if (u->result == COMPRESS_NO_MEMORY)
        reply_error(s, GRPC_UNAVAILABLE, "out of memory");
    else
        reply_errorf(s, GRPC_INTERNAL, "Unexpected error decompressing data for algorithm %s",
                     compress_name(s->encoding));
    unzip_drop(s);
    stream_cancel(s);
}

/* The current step, on whatever thread. */
static void work(struct stream *s)
{
    struct unzip *u = &s->unzip;
    if (u->step == UNZIP_MEASURE)
        u->result =
            compress_measure(s->encoding, u->zipped, u->zipped_len, u->bytes_max, &u->bytes);
    else
        u->result =
            compress_inflate(s->encoding, u->zipped, u->zipped_len, s->memory.base, u->bytes);
}

static void work_run(struct pool_job *job)
{
    struct stream *s = stream_of(CONTAINER_OF(job, struct unzip, job));
    struct loop *loop = s->conn->shard->loop;
    work(s);
    loop_post(loop, &s->unzip.done);
}

/* The current step has its result. */
static void go_on(struct stream *s)
{
    struct unzip *u = &s->unzip;
    if (u->result != COMPRESS_OK) {
        fail(s);
    } else if (u->step == UNZIP_INFLATE) {
        unzip_drop(s);
        stream_unzipped(s);
    } else {
        s->message_len = u->bytes;
        s->received = u->bytes;
        u->step = UNZIP_INFLATE;
        if (wait_charge(s, stream_cost(s, u->bytes)))
            unzip_charged(s);
    }
}

static void done_run(struct loop_message *m)
{
    struct stream *s = stream_of(CONTAINER_OF(m, struct unzip, done));
    struct grpc_conn *c = s->conn;
    s->unzip.is_on_worker = false;
    c->is_running = true;
    if (s->is_replied)
        unzip_drop(s); /* answered meanwhile */
    else
        go_on(s);
    c->is_running = false;
    stream_settle(s);
    grpc_conn_run(c);
}

static void do_step(struct stream *s, bool here)
{
    struct unzip *u = &s->unzip;
    if (here || !options_of(s)->workers) {
        work(s);
        go_on(s);
        return;
    }
    u->is_on_worker = true;
    u->job.run = work_run;
    u->done.run = done_run;
    pool_post(options_of(s)->workers, &u->job);
}

void unzip_charged(struct stream *s)
{
    struct unzip *u = &s->unzip;
    if (!stream_get_memory(s)) {
        unzip_drop(s);
        return;
    }
    /* What is long may hold nothing, in as many blocks as the client likes. */
    do_step(s, u->bytes <= HERE_BYTES_MAX && u->zipped_len <= HERE_BYTES_MAX);
}

void unzip_start(struct stream *s)
{
    struct unzip *u = &s->unzip;
    u->zipped = s->memory.base;
    u->zipped_len = s->message_len;
    memset(&s->memory, 0, sizeof(s->memory));
    s->is_zipped = false;
    u->step = UNZIP_MEASURE;
    u->bytes_max = s->pub.message_bytes_max;
    /* gzip says its length. Of deflate it has to be found, and a little may become a lot. */
    bool is_known = s->encoding == COMPRESS_GZIP;
    if (!is_known && u->zipped_len <= HERE_BYTES_MAX && u->bytes_max > HERE_BYTES_MAX) {
        u->bytes_max = HERE_BYTES_MAX;
        work(s);
        u->bytes_max = s->pub.message_bytes_max;
        if (u->result != COMPRESS_LARGE) {
            go_on(s);
            return;
        }
    }
    do_step(s, is_known);
}
