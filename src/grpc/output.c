/* grpc/output.c - from nghttp2 to the socket.
 *
 * nghttp2 hands over one frame after the other. What is small is copied; of a DATA frame only the
 * nine bytes of its head and short parts are, and long parts of messages follow as slices of the
 * handler's memory. What one round of the loop brings goes out by one sendmsg(), and more follow as
 * long as the socket takes them. The output is bounded: when it is full, or OUTPUT_QUEUED_MAX bytes
 * wait for a slow reader, nghttp2 is told to keep the rest to itself. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/conn.h"

enum {
    FRAME_HEAD_BYTES = 9
};

static struct output *output_get(struct grpc_conn *c)
{
    struct grpc_shard *shard = c->shard;
    struct output *o = c->out;
    if (o)
        return o;
    o = shard->free_outputs;
    if (o) {
        shard->free_outputs = o->next_free;
        shard->free_output_count--;
    } else {
        o = malloc(sizeof(*o));
        if (!o)
            return NULL;
    }
    o->queued = 0;
    o->len = 0;
    o->at = 0;
    o->count = 0;
    c->out = o;
    return o;
}

static void output_put(struct grpc_conn *c)
{
    struct grpc_shard *shard = c->shard;
    struct output *o = c->out;
    c->out = NULL;
    if (shard->free_output_count == FREE_MAX) {
        free(o);
        return;
    }
    o->next_free = shard->free_outputs;
    shard->free_outputs = o;
    shard->free_output_count++;
}

size_t output_queued(const struct grpc_conn *c)
{
    return c->out ? c->out->queued : 0;
}

/* There is room for the bytes and, when they do not follow others, for a slice. */
static void append_copy(struct output *o, const void *data, size_t len)
{
    char *at = o->bytes + o->len;
    if (len == 0)
        return;
    memcpy(at, data, len);
    o->len += len;
    o->queued += len;
    if (o->count > o->at && !o->owner[o->count - 1]) {
        struct iovec *last = &o->iov[o->count - 1];
        if ((char *)last->iov_base + last->iov_len == at) {
            last->iov_len += len;
            return;
        }
    }
    o->owner[o->count] = NULL;
    o->iov[o->count++] = (struct iovec){ .iov_base = at, .iov_len = len };
}

ssize_t output_send(nghttp2_session *session, const uint8_t *data, size_t len, int flags,
                    void *user)
{
    (void)session;
    (void)flags;
    struct output *o = output_get(user);
    if (!o)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    size_t room = sizeof(o->bytes) - o->len;
    if (room == 0 || o->count == OUTPUT_SLICES_MAX || o->queued >= OUTPUT_QUEUED_MAX)
        return NGHTTP2_ERR_WOULDBLOCK;
    if (len > room)
        len = room;
    append_copy(o, data, len);
    return (ssize_t)len;
}

/* Room for a frame of as many parts as there can be. */
static bool has_room(const struct output *o)
{
    return sizeof(o->bytes) - o->len >=
               FRAME_HEAD_BYTES + FRAME_PARTS_MAX * (FRAME_PREFIX_BYTES + COPY_BYTES_MAX) &&
           OUTPUT_SLICES_MAX - o->count >= 2 * FRAME_PARTS_MAX + 1 && o->queued < OUTPUT_QUEUED_MAX;
}

/* Up to len bytes of m; returns how many. */
static size_t take(struct output *o, struct grpc_message *m, size_t len)
{
    if (m->prefix_at < sizeof(m->prefix)) {
        size_t n = sizeof(m->prefix) - m->prefix_at;
        n = n < len ? n : len;
        append_copy(o, m->prefix + m->prefix_at, n);
        m->prefix_at += (uint8_t)n;
        return n;
    }
    const struct iovec *part = &m->parts[m->part_at];
    char *at = (char *)part->iov_base + m->part_offset;
    size_t n = part->iov_len - m->part_offset;
    n = n < len ? n : len;
    if (part->iov_len <= COPY_BYTES_MAX) {
        append_copy(o, at, n);
    } else {
        m->slices++;
        o->owner[o->count] = m;
        o->iov[o->count++] = (struct iovec){ .iov_base = at, .iov_len = n };
        o->queued += n;
    }
    m->part_offset += n;
    if (m->part_offset == part->iov_len) {
        m->part_at++;
        m->part_offset = 0;
    }
    return n;
}

int output_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
                     size_t len, nghttp2_data_source *source, void *user)
{
    (void)session;
    (void)frame;
    struct stream *s = source->ptr;
    struct output *o = output_get(user);
    if (!o)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (!has_room(o))
        return NGHTTP2_ERR_WOULDBLOCK;
    append_copy(o, head, FRAME_HEAD_BYTES);
    s->sent_ns = loop_now_ns(s->conn->shard->loop);
    while (len > 0) {
        struct grpc_message *m = LIST_ENTRY(s->messages.next, struct grpc_message, link);
        size_t n = take(o, m, len);
        len -= n;
        s->unsent -= n;
        s->promised -= n;
        m->left -= n;
        if (m->left == 0)
            reply_taken(m);
    }
    return 0;
}

/* The slices [from, to) are done with. Slices of one message mostly follow each other. */
static void let_go(struct output *o, uint32_t from, uint32_t to)
{
    while (from < to) {
        struct grpc_message *m = o->owner[from];
        uint32_t count = 1;
        while (from + count < to && o->owner[from + count] == m)
            count++;
        from += count;
        if (m)
            reply_slices_gone(m, count);
    }
}

static void advance(struct output *o, size_t n)
{
    uint32_t from = o->at;
    o->queued -= n;
    while (o->at < o->count && n >= o->iov[o->at].iov_len)
        n -= o->iov[o->at++].iov_len;
    if (n > 0) {
        o->iov[o->at].iov_base = (char *)o->iov[o->at].iov_base + n;
        o->iov[o->at].iov_len -= n;
    }
    let_go(o, from, o->at);
}

bool output_write(struct grpc_conn *c)
{
    struct output *o = c->out;
    while (o->at < o->count) {
        ssize_t n = transport_send(&c->base.transport, o->iov + o->at, o->count - o->at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK;
        c->progress_ns = loop_now_ns(c->shard->loop);
        advance(o, (size_t)n);
    }
    output_put(c);
    return true;
}

void output_drop(struct grpc_conn *c)
{
    struct output *o = c->out;
    if (!o)
        return;
    let_go(o, o->at, o->count);
    output_put(c);
}
