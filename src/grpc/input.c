/* grpc/input.c - from the socket into nghttp2.
 *
 * Bytes are read into memory that a loop's connections share and fed to nghttp2, and stream_data()
 * copies what belongs to a message to its place. For a large message that is one copy too many. While
 * such a message comes, the next bytes are most likely its own, in DATA frames as long as the last
 * one; so they are read straight to their place, and the heads of the frames aside:
 *
 *     [rest of this frame] [head] [a frame] [head] [a frame] ... [shared memory]
 *
 * nghttp2 is fed from there and stream_data() finds each byte where it wants it. The guess may be
 * wrong. Before nghttp2 sees anything, each head is compared with what was guessed; from the first
 * one that differs, what was read is moved to shared memory and goes the usual way. So nothing that
 * could end the message, and with it give away its memory, is fed while bytes behind it lie there. */
#include <errno.h>
#include <string.h>

#include "grpc/conn.h"

enum {
    HEAD_BYTES = 9,
    PLAN_PARTS_MAX = 2 * INPUT_FRAMES_MAX + 2,
};

/* Where the next bytes shall go: what is left of a payload, possibly nothing; then heads and payloads
 * in turn; then shared memory. */
struct plan {
    struct iovec parts[PLAN_PARTS_MAX];
    uint32_t count;       /* of parts */
    uint32_t frame_count; /* of payloads, each with its head before it, the first without */
    int32_t id;           /* of the stream */
    bool is_whole;        /* the message ends with the last payload */
    uint8_t heads[INPUT_FRAMES_MAX][HEAD_BYTES];
};

void input_frame_begins(struct grpc_conn *c, const nghttp2_frame_hd *head)
{
    bool is_plain = head->type == NGHTTP2_DATA && !(head->flags & NGHTTP2_FLAG_PADDED);
    c->data_id = head->stream_id;
    c->data_left = is_plain ? head->length : 0;
    c->data_bytes = is_plain && !(head->flags & NGHTTP2_FLAG_END_STREAM) ? head->length : 0;
}

void input_data(struct grpc_conn *c, const uint8_t *data, size_t len)
{
    c->data_end = data + len;
    c->data_left -= len < c->data_left ? len : c->data_left;
}

/* The stream whose message the next bytes belong to, if much of it is to come. */
static struct stream *large_message(const struct grpc_conn *c)
{
    struct stream *s = NULL;
    if (c->data_left > 0 || (c->is_data_over && c->data_bytes > 0))
        s = nghttp2_session_get_stream_user_data(c->session, c->data_id);
    /* Without memory it waits for the budget. */
    bool is_large = s && !s->is_replied && s->memory.base && s->prefix_len == FRAME_PREFIX_BYTES &&
                    s->message_len - s->received >= INPUT_LARGE_BYTES_MIN;
    return is_large ? s : NULL;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void add_part(struct plan *p, void *base, size_t len)
{
    p->parts[p->count++] = (struct iovec){ .iov_base = base, .iov_len = len };
}

static void make_plan(const struct grpc_conn *c, const struct stream *s, struct plan *p)
{
    char *at = s->memory.base + s->received;
    size_t left = s->message_len - s->received;
    size_t room = INPUT_BYTES_MAX;
    size_t frame = c->data_left;
    p->count = 0;
    p->frame_count = 0;
    p->id = c->data_id;
    for (;;) {
        size_t n = least(least(frame, left), room);
        add_part(p, at, n);
        p->frame_count++;
        at += n;
        left -= n;
        room -= n;
        if (left == 0 || room == 0 || c->data_bytes == 0 || p->frame_count == INPUT_FRAMES_MAX)
            break;
        add_part(p, p->heads[p->frame_count], HEAD_BYTES);
        frame = c->data_bytes;
    }
    p->is_whole = left == 0;
    if (left == 0 || c->data_bytes == 0)
        add_part(p, c->shard->scratch, RECV_BYTES);
}

/* Is the payload that follows this head, as far as it is in the plan, the message's? */
static bool is_as_guessed(const struct plan *p, uint32_t frame)
{
    const uint8_t *h = p->heads[frame];
    bool is_last = p->is_whole && frame + 1 == p->frame_count;
    size_t guessed = p->parts[2 * frame].iov_len;
    size_t bytes = (size_t)h[0] << 16 | (size_t)h[1] << 8 | h[2];
    uint32_t id = (uint32_t)h[5] << 24 | (uint32_t)h[6] << 16 | (uint32_t)h[7] << 8 | h[8];
    bool fits = is_last ? bytes >= guessed : bytes == guessed;
    return fits && h[3] == NGHTTP2_DATA &&
           (h[4] == 0 || (h[4] == NGHTTP2_FLAG_END_STREAM && is_last)) && id == (uint32_t)p->id;
}

void input_feed(struct grpc_conn *c, const void *data, size_t len)
{
    if (len == 0 || c->is_failed)
        return;
    c->data_end = NULL;
    wait_feed(c, data, len);
    c->is_data_over = c->data_left == 0 && c->data_end == (const uint8_t *)data + len;
}

/* Moves what stands in the parts from `first` on, n bytes of them, to shared memory; returns how
 * many were moved, the others stand there already. */
static size_t move_aside(const struct plan *p, uint32_t first, size_t n, uint8_t *to)
{
    size_t moved = 0;
    for (uint32_t i = first; i < 2 * p->frame_count - 1 && moved < n; i++) {
        size_t len = least(p->parts[i].iov_len, n - moved);
        memcpy(to + moved, p->parts[i].iov_base, len);
        moved += len;
    }
    return moved;
}

/* n bytes have been read as planned. */
static void feed_plan(struct grpc_conn *c, const struct plan *p, size_t n)
{
    uint32_t good = 1; /* payloads that are as guessed */
    size_t at = p->parts[0].iov_len;
    while (good < p->frame_count && at + HEAD_BYTES <= n && is_as_guessed(p, good)) {
        at += HEAD_BYTES + p->parts[2 * good].iov_len;
        good++;
    }
    uint8_t *aside = c->shard->scratch + RECV_BYTES;
    size_t direct = least(at, n);
    size_t moved = move_aside(p, 2 * good - 1, n - direct, aside);
    size_t tail = n - direct - moved;
    for (uint32_t i = 0; direct > 0; i++) {
        size_t len = least(p->parts[i].iov_len, direct);
        input_feed(c, p->parts[i].iov_base, len);
        direct -= len;
    }
    input_feed(c, aside, moved);
    input_feed(c, c->shard->scratch, tail);
}

void input_receive(struct grpc_conn *c)
{
    struct plan p = { .count = 0 };
    struct stream *s = large_message(c);
    ssize_t n;
    if (s) {
        make_plan(c, s, &p);
        n = transport_recv_parts(&c->base.transport, p.parts, p.count);
    } else {
        /* While a message waits on this loop others may too, and what they have sent is held. */
        size_t len = list_is_empty(&c->shard->budget_queue) ? RECV_BYTES : RECV_BYTES / 8;
        n = transport_recv(&c->base.transport, c->shard->scratch, len);
    }
    if (n > 0)
        conn_heard(c);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
        c->is_failed = true;
    else if (n > 0 && s)
        feed_plan(c, &p, (size_t)n);
    else if (n > 0)
        input_feed(c, c->shard->scratch, (size_t)n);
}
