/* What adds and what reads. Adding is a handful of relaxed atomic additions, most of them to cache
 * lines that only the instance's thread writes.
 *
 * The tables by batch size and by response number are arrays of pages. A page is made when the first
 * of its rows is needed and published by compare-exchange; who loses the race frees his. Pages of
 * small batch sizes have a fixed place, so the rows of the sizes that a model can run cannot be
 * crowded out; the other places are shared by hash among whatever sizes clients ask for. */
#include "metrics/statistics.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "metrics/statistics_internal.h"

enum {
    BATCH_PAGES_SURE = STATISTICS_BATCH_SIZES_SURE / BATCH_PAGE_ROWS,
    BATCH_PAGES_SHARED = BATCH_PAGES - BATCH_PAGES_SURE,
    CACHE_LINE_BYTES = 64,
};

const char *const failure_names[FAILURE_COUNT] = {
    [FAILURE_REJECTED] = "REJECTED",
    [FAILURE_CANCELED] = "CANCELED",
    [FAILURE_BACKEND] = "BACKEND",
    [FAILURE_OTHER] = "OTHER",
};

/* ---- Histograms ---- */

#define DURATION_BOUNDS                                                                           \
    {                                                                                             \
        16,                                                                                       \
        {                                                                                         \
            0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, \
                0.5, 1, 2.5, 10                                                                   \
        }                                                                                         \
    }

const struct histogram_bounds histogram_bounds[HISTOGRAM_COUNT] = {
    [HISTOGRAM_REQUEST] = DURATION_BOUNDS,
    [HISTOGRAM_QUEUE] = DURATION_BOUNDS,
    [HISTOGRAM_COMPUTE] = DURATION_BOUNDS,
    [HISTOGRAM_FIRST_RESPONSE] = DURATION_BOUNDS,
    [HISTOGRAM_BATCH_SIZE] = { 12, { 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048 } },
    [HISTOGRAM_LOAD_RATIO] = { 7, { 1.05, 1.10, 1.25, 1.5, 2.0, 10.0, 50.0 } }, /* those of 0.9 */
};

static void bucket_add(struct statistics_shard *shard, enum statistics_histogram histogram,
                       uint32_t bucket)
{
    counter_add(&shard->buckets[histogram][bucket], 1);
}

/* Binary search in the 16 bounds of durations, here in ns: five comparisons. */
static void duration_observe(struct statistics_shard *shard, enum statistics_histogram histogram,
                             uint64_t ns)
{
    static const uint64_t bounds_ns[HISTOGRAM_BOUNDS_MAX] = {
        50 * NS_PER_US,  100 * NS_PER_US,  250 * NS_PER_US,  500 * NS_PER_US,
        1 * NS_PER_MS,   2500 * NS_PER_US, 5 * NS_PER_MS,    10 * NS_PER_MS,
        25 * NS_PER_MS,  50 * NS_PER_MS,   100 * NS_PER_MS,  250 * NS_PER_MS,
        500 * NS_PER_MS, 1 * NS_PER_SEC,   2500 * NS_PER_MS, 10 * NS_PER_SEC,
    };
    uint32_t bucket = 0;
    for (uint32_t step = HISTOGRAM_BOUNDS_MAX / 2; step > 0; step /= 2)
        bucket += ns > bounds_ns[bucket + step - 1] ? step : 0;
    bucket += ns > bounds_ns[bucket];
    bucket_add(shard, histogram, bucket);
}

static void value_observe(struct statistics_shard *shard, enum statistics_histogram histogram,
                          double value)
{
    const struct histogram_bounds *bounds = &histogram_bounds[histogram];
    uint32_t bucket = 0;
    while (bucket < bounds->count && value > bounds->upper[bucket])
        bucket++;
    bucket_add(shard, histogram, bucket);
}

/* ---- Shards ---- */

void statistics_set_first_response_bounds(struct statistics *s, const double *upper_ms,
                                          uint32_t count)
{
    assert(count <= FIRST_RESPONSE_BOUNDS_MAX);
    memcpy(s->first_response_bounds_ms, upper_ms, count * sizeof(*upper_ms));
    s->first_response_bound_count = count;
}

void statistics_init(struct statistics *s)
{
    static const double first_response_bounds_ms[] = { 100, 500, 2000, 5000 };
    memset(s, 0, sizeof(*s));
    statistics_set_first_response_bounds(s, first_response_bounds_ms,
                                         ARRAY_LEN(first_response_bounds_ms));
    lock_init(&s->memory_lock, LOCK_STATISTICS);
    s->own.owner = s;
    atomic_init(&s->own.is_open, true);
    atomic_init(&s->shards, &s->own);
}

static void shard_fini(struct statistics_shard *shard)
{
    for (uint32_t i = 0; i < BATCH_PAGES; i++)
        free(atomic_load(&shard->batches[i]));
    for (uint32_t i = 0; i < RESPONSE_PAGES; i++)
        free(atomic_load(&shard->responses[i]));
}

void statistics_fini(struct statistics *s)
{
    struct statistics_shard *next;
    for (struct statistics_shard *shard = atomic_load(&s->shards); shard; shard = next) {
        next = shard->next;
        shard_fini(shard);
        if (shard != &s->own)
            free(shard);
    }
    lock_fini(&s->memory_lock);
}

struct statistics_shard *statistics_shard_open(struct statistics *s)
{
    struct statistics_shard *shard = atomic_load(&s->shards);
    for (; shard; shard = shard->next) {
        bool closed = false;
        if (atomic_compare_exchange_strong(&shard->is_open, &closed, true))
            return shard;
    }

    size_t bytes = (sizeof(*shard) + CACHE_LINE_BYTES - 1) / CACHE_LINE_BYTES * CACHE_LINE_BYTES;
    shard = aligned_alloc(CACHE_LINE_BYTES, bytes);
    if (!shard)
        return NULL;
    memset(shard, 0, sizeof(*shard));
    shard->owner = s;
    atomic_init(&shard->is_open, true);
    shard->next = atomic_load(&s->shards);
    while (!atomic_compare_exchange_weak(&s->shards, &shard->next, shard))
        ;
    return shard;
}

void statistics_shard_close(struct statistics_shard *shard)
{
    if (!shard)
        return;
    error_free(statistics_set_memory(shard, NULL, 0));
    atomic_store(&shard->is_open, false);
}

tis_error *statistics_set_memory(struct statistics_shard *shard, const struct memory_usage *usages,
                                 uint32_t count)
{
    if (count > MEMORY_USAGES_MAX)
        return error_new(TRITONSERVER_ERROR_UNSUPPORTED,
                         "memory usage of %u memories was reported, at most %d can be", count,
                         MEMORY_USAGES_MAX);
    if (count > 0)
        atomic_store(&shard->owner->has_memory, true);
    lock_take(&shard->owner->memory_lock);
    shard->memory_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = 0;
        while (at < shard->memory_count &&
               (shard->memory[at].type != usages[i].type || shard->memory[at].id != usages[i].id))
            at++;
        shard->memory[at] = usages[i];
        shard->memory_count += at == shard->memory_count;
    }
    lock_release(&shard->owner->memory_lock);
    return NULL;
}

/* ---- Rows ---- */

/* The page at *place, made when there is none. NULL when out of memory, or when another thread puts a
 * page of another number there. */
static struct batch_page *batch_page_make(struct batch_page *_Atomic *place, uint32_t number)
{
    struct batch_page *made = calloc(1, sizeof(*made));
    if (!made)
        return NULL;
    made->number = number;
    struct batch_page *found = NULL;
    if (atomic_compare_exchange_strong(place, &found, made))
        return made;
    free(made);
    return found->number == number ? found : NULL;
}

/* The row of a batch size. NULL when out of memory, or when there is no place for its page: the
 * totals still count. */
static struct batch_row *batch_row(struct statistics_shard *shard, uint32_t batch_size)
{
    uint32_t number = batch_size / BATCH_PAGE_ROWS;
    bool is_sure = number < BATCH_PAGES_SURE;
    uint32_t tries = is_sure ? 1 : BATCH_PAGES_SHARED;
    for (uint32_t i = 0; i < tries; i++) {
        uint32_t at = is_sure ? number : BATCH_PAGES_SURE + (number + i) % BATCH_PAGES_SHARED;
        struct batch_page *page = atomic_load_explicit(&shard->batches[at], memory_order_acquire);
        if (!page)
            page = batch_page_make(&shard->batches[at], number);
        if (page && page->number == number)
            return &page->rows[batch_size % BATCH_PAGE_ROWS];
    }
    return NULL;
}

/* NULL beyond the bound, or when out of memory. */
static struct response_row *response_row(struct statistics_shard *shard, uint32_t index)
{
    if (index >= STATISTICS_RESPONSES_MAX)
        return NULL;
    struct response_page *_Atomic *place = &shard->responses[index / RESPONSE_PAGE_ROWS];
    struct response_page *page = atomic_load_explicit(place, memory_order_acquire);
    if (!page) {
        struct response_page *made = calloc(1, sizeof(*made));
        if (!made)
            return NULL;
        if (atomic_compare_exchange_strong(place, &page, made))
            page = made;
        else
            free(made);
    }
    return &page->rows[index % RESPONSE_PAGE_ROWS];
}

/* ---- Adding ---- */

/* A backend may report times out of order: a negative span counts as none. */
static uint64_t span(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? to_ns - from_ns : 0;
}

/* Reading the wall clock costs more than half of the rest, so that is done once a millisecond, which
 * is the figure's unit. */
static void touch(struct statistics_shard *shard, uint64_t exec_end_ns)
{
    uint64_t touched_ns = counter_get(&shard->touched_ns);
    if (touched_ns > 0 && touched_ns <= exec_end_ns && exec_end_ns - touched_ns < NS_PER_MS)
        return;
    atomic_store_explicit(&shard->touched_ns, exec_end_ns, memory_order_relaxed);
    atomic_store_explicit(&shard->last_inference_ms, clock_wall_ms(), memory_order_relaxed);
}

void statistics_add_success(struct statistics_shard *shard, const struct statistics_request *r)
{
    uint64_t total_ns = span(r->request_start_ns, r->exec_end_ns);
    uint64_t queue_ns = span(r->queue_start_ns, r->exec_start_ns);
    uint64_t compute_ns = span(r->exec_start_ns, r->exec_end_ns);
    double load_ratio = (double)total_ns / (double)(compute_ns > 0 ? compute_ns : 1);

    touch(shard, r->exec_end_ns);
    counter_add(&shard->inference_count, r->batch_size);
    counter_add(&shard->success_ns, total_ns);
    counter_add(&shard->queue_ns, queue_ns);
    counter_add(&shard->compute_input_ns, span(r->exec_start_ns, r->compute_start_ns));
    counter_add(&shard->compute_infer_ns, span(r->compute_start_ns, r->compute_end_ns));
    counter_add(&shard->compute_output_ns, span(r->compute_end_ns, r->exec_end_ns));

    struct batch_row *row = batch_row(shard, r->batch_size);
    if (row) {
        counter_add(&row->success_count, 1);
        counter_add(&row->success_ns, total_ns);
        counter_add(&row->queue_ns, queue_ns);
        counter_add(&row->compute_ns, compute_ns);
    }

    duration_observe(shard, HISTOGRAM_REQUEST, total_ns);
    duration_observe(shard, HISTOGRAM_QUEUE, queue_ns);
    duration_observe(shard, HISTOGRAM_COMPUTE, compute_ns);
    value_observe(shard, HISTOGRAM_LOAD_RATIO, load_ratio);
    sum_add(&shard->load_ratio_sum, load_ratio);
}

void statistics_add_failure(struct statistics_shard *shard, enum failure_kind kind,
                            uint32_t batch_size, uint64_t duration_ns)
{
    counter_add(&shard->failures[kind], 1);
    counter_add(&shard->fail_ns, duration_ns);
    struct batch_row *row = batch_row(shard, batch_size);
    if (row) {
        counter_add(&row->failed_count, 1);
        counter_add(&row->failed_ns, duration_ns);
    }
}

void statistics_add_execution(struct statistics_shard *shard, uint64_t batch_size,
                              uint64_t exec_start_ns, uint64_t compute_start_ns,
                              uint64_t compute_end_ns, uint64_t exec_end_ns)
{
    counter_add(&shard->execution_count, 1);
    if (batch_size > UINT32_MAX)
        return; /* no such batch: only the total counts */
    counter_add(&shard->execution_entries, batch_size);
    value_observe(shard, HISTOGRAM_BATCH_SIZE, (double)batch_size);
    struct batch_row *row = batch_row(shard, (uint32_t)batch_size);
    if (row) {
        counter_add(&row->execution_count, 1);
        counter_add(&row->compute_input_ns, span(exec_start_ns, compute_start_ns));
        counter_add(&row->compute_infer_ns, span(compute_start_ns, compute_end_ns));
        counter_add(&row->compute_output_ns, span(compute_end_ns, exec_end_ns));
    }
}

static void duration_add(struct atomic_duration *d, uint64_t ns)
{
    counter_add(&d->count, 1);
    counter_add(&d->ns, ns);
}

/* Triton's rules: a cancelled response counts as such alone; one without outputs is all compute. */
void statistics_add_response(struct statistics_shard *shard, uint32_t index,
                             const struct statistics_response *r)
{
    struct response_row *row = response_row(shard, index);
    if (!row)
        return;
    uint64_t total_ns = span(r->start_ns, r->end_ns);
    bool has_output = r->output_start_ns > 0;
    if (r->end == RESPONSE_END_CANCEL) {
        duration_add(&row->cancel, total_ns);
        return;
    }
    duration_add(&row->compute_infer,
                 has_output ? span(r->start_ns, r->output_start_ns) : total_ns);
    if (has_output)
        duration_add(&row->compute_output, span(r->output_start_ns, r->end_ns));
    if (r->end == RESPONSE_END_FAIL)
        duration_add(&row->fail, total_ns);
    else
        duration_add(has_output ? &row->success : &row->empty, total_ns);
}

void statistics_add_first_response(struct statistics *s, uint64_t duration_ns)
{
    double ms = (double)duration_ns / NS_PER_MS;
    uint32_t bucket = 0;
    while (bucket < s->first_response_bound_count && ms > s->first_response_bounds_ms[bucket])
        bucket++;
    counter_add(&s->first_response_buckets[bucket], 1);
    duration_observe(&s->own, HISTOGRAM_FIRST_RESPONSE, duration_ns);
    counter_add(&s->own.first_response_ns, duration_ns);
}
