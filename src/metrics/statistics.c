#include "metrics/statistics.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

/* Clients choose batch sizes, and a backend may report any: what one version keeps has a bound. */
enum {
    BATCH_SIZES_MAX = 4096,
    RESPONSES_MAX = 1024,
};

void statistics_init(struct statistics *s)
{
    memset(s, 0, sizeof(*s));
    lock_init(&s->lock, LOCK_STATISTICS);
}

void statistics_fini(struct statistics *s)
{
    free(s->batches);
    free(s->responses);
    lock_fini(&s->lock);
}

/* Under the lock. The entry of a batch size, made when it is new. NULL when out of memory, or when
 * there are BATCH_SIZES_MAX already: the totals still count. */
static struct batch_statistics *batch_entry(struct statistics *s, uint32_t batch_size)
{
    uint32_t at = 0;
    for (uint32_t end = s->batch_count; at < end;) {
        uint32_t middle = at + (end - at) / 2;
        if (s->batches[middle].batch_size < batch_size)
            at = middle + 1;
        else
            end = middle;
    }
    if (at < s->batch_count && s->batches[at].batch_size == batch_size)
        return &s->batches[at];

    if (s->batch_count == BATCH_SIZES_MAX)
        return NULL;
    if (s->batch_count == s->batch_capacity) {
        uint32_t capacity = s->batch_capacity ? s->batch_capacity * 2 : 4;
        struct batch_statistics *grown = realloc(s->batches, capacity * sizeof(*grown));
        if (!grown)
            return NULL;
        s->batches = grown;
        s->batch_capacity = capacity;
    }
    memmove(&s->batches[at + 1], &s->batches[at], (s->batch_count - at) * sizeof(*s->batches));
    s->batches[at] = (struct batch_statistics){ .batch_size = batch_size };
    s->batch_count++;
    return &s->batches[at];
}

static void duration_add(struct duration *d, uint64_t ns)
{
    d->count++;
    d->ns += ns;
}

/* A backend may report times out of order: a negative span counts as none. */
static uint64_t span(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? to_ns - from_ns : 0;
}

void statistics_add_request(struct statistics *s, const struct statistics_request *r)
{
    uint64_t total_ns = span(r->request_start_ns, r->exec_end_ns);
    if (!r->success) {
        statistics_add_failure(s, r->batch_size, total_ns);
        return;
    }

    uint64_t queue_ns = span(r->queue_start_ns, r->exec_start_ns);
    uint64_t now_ms = clock_wall_ms();
    lock_take(&s->lock);
    struct statistics_totals *t = &s->totals;
    t->last_inference_ms = now_ms;
    t->inference_count += r->batch_size;
    duration_add(&t->success, total_ns);
    duration_add(&t->queue, queue_ns);
    duration_add(&t->compute_input, span(r->exec_start_ns, r->compute_start_ns));
    duration_add(&t->compute_infer, span(r->compute_start_ns, r->compute_end_ns));
    duration_add(&t->compute_output, span(r->compute_end_ns, r->exec_end_ns));

    struct batch_statistics *b = batch_entry(s, r->batch_size);
    if (b) {
        duration_add(&b->success, total_ns);
        duration_add(&b->queue, queue_ns);
        duration_add(&b->compute, span(r->exec_start_ns, r->exec_end_ns));
    }
    lock_release(&s->lock);
}

void statistics_add_failure(struct statistics *s, uint32_t batch_size, uint64_t duration_ns)
{
    lock_take(&s->lock);
    duration_add(&s->totals.fail, duration_ns);
    struct batch_statistics *b = batch_entry(s, batch_size);
    if (b)
        duration_add(&b->failed, duration_ns);
    lock_release(&s->lock);
}

void statistics_add_execution(struct statistics *s, uint64_t batch_size, uint64_t exec_start_ns,
                              uint64_t compute_start_ns, uint64_t compute_end_ns,
                              uint64_t exec_end_ns)
{
    lock_take(&s->lock);
    s->totals.execution_count++;
    struct batch_statistics *b =
        batch_size <= UINT32_MAX ? batch_entry(s, (uint32_t)batch_size) : NULL;
    if (b) {
        duration_add(&b->compute_input, span(exec_start_ns, compute_start_ns));
        duration_add(&b->compute_infer, span(compute_start_ns, compute_end_ns));
        duration_add(&b->compute_output, span(compute_end_ns, exec_end_ns));
    }
    lock_release(&s->lock);
}

/* Under the lock. NULL beyond the bound, or when out of memory. */
static struct response_statistics *response_entry(struct statistics *s, uint32_t index)
{
    if (index >= RESPONSES_MAX)
        return NULL;
    if (index >= s->response_count) {
        struct response_statistics *grown =
            realloc(s->responses, (index + 1) * sizeof(*s->responses));
        if (!grown)
            return NULL;
        memset(&grown[s->response_count], 0, (index + 1 - s->response_count) * sizeof(*grown));
        s->responses = grown;
        s->response_count = index + 1;
    }
    return &s->responses[index];
}

/* Triton's rules: a cancelled response counts as such alone; one without outputs is all compute. */
void statistics_add_response(struct statistics *s, uint32_t index,
                             const struct statistics_response *r)
{
    uint64_t total_ns = span(r->start_ns, r->end_ns);
    bool has_output = r->output_start_ns > 0;
    lock_take(&s->lock);
    struct response_statistics *e = response_entry(s, index);
    if (e && r->end == RESPONSE_END_CANCEL) {
        duration_add(&e->cancel, total_ns);
    } else if (e) {
        duration_add(&e->compute_infer,
                     has_output ? span(r->start_ns, r->output_start_ns) : total_ns);
        if (has_output)
            duration_add(&e->compute_output, span(r->output_start_ns, r->end_ns));
        if (r->end == RESPONSE_END_FAIL)
            duration_add(&e->fail, total_ns);
        else
            duration_add(has_output ? &e->success : &e->empty, total_ns);
    }
    lock_release(&s->lock);
}

/* A copy of count elements, NULL when there are none or no memory. */
static void *copy_of(const void *array, size_t count, size_t element_bytes)
{
    void *copy = count > 0 ? malloc(count * element_bytes) : NULL;
    if (copy)
        memcpy(copy, array, count * element_bytes);
    return copy;
}

void statistics_get(struct statistics *s, struct statistics_snapshot *ret_snapshot)
{
    lock_take(&s->lock);
    *ret_snapshot = (struct statistics_snapshot){ .totals = s->totals };
    ret_snapshot->batches = copy_of(s->batches, s->batch_count, sizeof(*s->batches));
    ret_snapshot->batch_count = ret_snapshot->batches ? s->batch_count : 0;
    ret_snapshot->responses = copy_of(s->responses, s->response_count, sizeof(*s->responses));
    ret_snapshot->response_count = ret_snapshot->responses ? s->response_count : 0;
    lock_release(&s->lock);
}

void statistics_snapshot_fini(struct statistics_snapshot *snapshot)
{
    free(snapshot->batches);
    free(snapshot->responses);
    *snapshot = (struct statistics_snapshot){ 0 };
}
