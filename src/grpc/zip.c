/* grpc/zip.c - compressed messages to the client.
 *
 * A message is compressed before it is queued, when the handler asks for it and the client takes it; one
 * that would not become smaller goes as it is. A large one is compressed by a worker. Those that are
 * sent behind it wait in a list, so that the order stays. */
#include <stdlib.h>

#include "grpc/conn.h"

enum {
    ZIP_BYTES_MIN = 64, /* less than the heads of both formats and a few codes bring nothing */
    HERE_BYTES_MAX = 64 << 10,
};

struct zip {
    struct pool_job job;
    struct loop_message done;
    struct grpc_message *message;
    enum compress_format format;
    enum compress_level level;
    enum compress_result result;
    void *out; /* malloc'ed */
    size_t bytes;
    struct iovec part;
};

static void work(struct zip *z)
{
    z->result = compress_deflate(z->format, z->level, z->message->parts, z->message->part_count,
                                 &z->out, &z->bytes);
}

static void work_run(struct pool_job *job)
{
    struct zip *z = CONTAINER_OF(job, struct zip, job);
    struct loop *loop = z->message->stream->conn->shard->loop;
    work(z);
    loop_post(loop, &z->done);
}

/* The message is what came out, or stays what it was. */
static void apply(struct grpc_message *m)
{
    struct zip *z = m->zip;
    m->is_zipped = z && z->result == COMPRESS_OK;
    if (!m->is_zipped)
        return;
    z->part = (struct iovec){ .iov_base = z->out, .iov_len = z->bytes };
    m->parts = &z->part;
    m->part_count = 1;
}

static bool is_done_here(const struct grpc_message *m)
{
    return !m->zip || m->bytes <= HERE_BYTES_MAX ||
           !m->stream->conn->shard->server->options.workers;
}

/* The first of the list goes on. */
static void deliver(struct grpc_message *m)
{
    apply(m);
    list_remove(&m->link);
    m->stream->zipping_bytes -= m->bytes;
    reply_deliver(m);
}

/* Compresses the first of the list, and those behind it as far as they are short. */
static void next(struct stream *s)
{
    while (!list_is_empty(&s->zipping)) {
        struct grpc_message *m = LIST_ENTRY(s->zipping.next, struct grpc_message, link);
        if (!is_done_here(m)) {
            pool_post(s->conn->shard->server->options.workers, &m->zip->job);
            return;
        }
        if (m->zip)
            work(m->zip);
        deliver(m);
    }
    if (s->is_finish_due)
        reply_finish(s);
}

static void done_run(struct loop_message *message)
{
    struct grpc_message *m = CONTAINER_OF(message, struct zip, done)->message;
    struct stream *s = m->stream;
    struct grpc_conn *c = s->conn;
    c->is_running = true;
    deliver(m);
    next(s);
    c->is_running = false;
    grpc_conn_run(c);
}

bool zip_put(struct grpc_message *m)
{
    struct stream *s = m->stream;
    bool is_wanted = s->zip_format != COMPRESS_IDENTITY && m->bytes >= ZIP_BYTES_MIN;
    bool is_first = list_is_empty(&s->zipping);
    m->zip = is_wanted ? calloc(1, sizeof(*m->zip)) : NULL; /* without memory it goes as it is */
    m->is_zipped = false;
    if (m->zip) {
        m->zip->job.run = work_run;
        m->zip->done.run = done_run;
        m->zip->message = m;
        m->zip->format = s->zip_format;
        m->zip->level = s->pub.compression;
    }
    if (is_first && is_done_here(m)) {
        if (m->zip)
            work(m->zip);
        apply(m);
        return false;
    }
    list_append(&s->zipping, &m->link);
    s->zipping_bytes += m->bytes;
    if (is_first)
        next(s);
    return true;
}

void zip_free(struct grpc_message *m)
{
    if (m->zip)
        free(m->zip->out);
    free(m->zip);
    m->zip = NULL;
}
