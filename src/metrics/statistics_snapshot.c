/* The readers' side of metrics/statistics.h: sums over shards. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "metrics/statistics_internal.h"

static double seconds(uint64_t ns)
{
    return (double)ns / NS_PER_SEC;
}

/* ---- Totals ---- */

static void add_duration(struct duration *to, uint64_t count, const _Atomic uint64_t *ns)
{
    to->count += count;
    to->ns += counter_get(ns);
}

static void add_histogram(struct histogram *to, const _Atomic uint64_t *buckets, uint32_t count)
{
    uint64_t below = 0;
    for (uint32_t i = 0; i < count; i++) {
        below += counter_get(&buckets[i]);
        to->cumulative[i] += below;
    }
    to->count += below + counter_get(&buckets[count]);
}

static void add_totals(struct statistics_totals *to, const struct statistics_shard *shard)
{
    struct histogram *h = to->histograms;
    /* A page asks a thousand versions: those that never ran cost a look at the first cache lines. */
    bool is_empty = (counter_get(&shard->inference_count) | counter_get(&shard->execution_count) |
                     counter_get(&shard->first_response_ns)) == 0;
    for (uint32_t i = 0; i < HISTOGRAM_COUNT && !is_empty; i++)
        add_histogram(&h[i], shard->buckets[i], histogram_bounds[i].count);
    h[HISTOGRAM_FIRST_RESPONSE].sum += seconds(counter_get(&shard->first_response_ns));
    h[HISTOGRAM_BATCH_SIZE].sum += (double)counter_get(&shard->execution_entries);
    h[HISTOGRAM_LOAD_RATIO].sum += sum_get(&shard->load_ratio_sum);

    uint64_t last_ms = counter_get(&shard->last_inference_ms);
    if (last_ms > to->last_inference_ms)
        to->last_inference_ms = last_ms;
    to->inference_count += counter_get(&shard->inference_count);
    to->execution_count += counter_get(&shard->execution_count);
    to->success.ns += counter_get(&shard->success_ns);
    to->fail.ns += counter_get(&shard->fail_ns);
    to->queue.ns += counter_get(&shard->queue_ns);
    to->compute_input.ns += counter_get(&shard->compute_input_ns);
    to->compute_infer.ns += counter_get(&shard->compute_infer_ns);
    to->compute_output.ns += counter_get(&shard->compute_output_ns);
    for (uint32_t i = 0; i < FAILURE_COUNT; i++)
        to->failures[i] += counter_get(&shard->failures[i]);
}

/* What is kept once is told twice: the successful requests are those of the histogram. */
static void complete_totals(struct statistics_totals *to, bool is_decoupled)
{
    struct histogram *h = to->histograms;
    uint64_t successes = h[HISTOGRAM_REQUEST].count;
    to->success.count = successes;
    to->queue.count = successes;
    to->compute_input.count = successes;
    to->compute_infer.count = successes;
    to->compute_output.count = successes;
    for (uint32_t i = 0; i < FAILURE_COUNT; i++)
        to->fail.count += to->failures[i];

    h[HISTOGRAM_REQUEST].sum = seconds(to->success.ns);
    h[HISTOGRAM_QUEUE].sum = seconds(to->queue.ns);
    h[HISTOGRAM_COMPUTE].sum =
        seconds(to->compute_input.ns + to->compute_infer.ns + to->compute_output.ns);
    if (!is_decoupled)
        h[HISTOGRAM_FIRST_RESPONSE] = h[HISTOGRAM_REQUEST];
}

void statistics_get_totals(const struct statistics *s, struct statistics_totals *ret_totals)
{
    memset(ret_totals, 0, sizeof(*ret_totals));
    for (const struct statistics_shard *shard = atomic_load(&s->shards); shard; shard = shard->next)
        add_totals(ret_totals, shard);
    complete_totals(ret_totals, s->is_decoupled);
}

void statistics_get_first_response(const struct statistics *s,
                                   struct first_response_histogram *ret_histogram)
{
    struct first_response_histogram h = { .bound_count = s->first_response_bound_count };
    memcpy(h.upper_ms, s->first_response_bounds_ms, sizeof(h.upper_ms));
    for (uint32_t i = 0; i < h.bound_count; i++) {
        h.count += counter_get(&s->first_response_buckets[i]);
        h.cumulative[i] = h.count;
    }
    h.count += counter_get(&s->first_response_buckets[h.bound_count]);
    h.sum_ms = (double)counter_get(&s->own.first_response_ns) / NS_PER_MS;
    *ret_histogram = h;
}

/* ---- Tables ---- */

/* One row for each shard and size, in no order; grows. */
struct batch_list {
    struct batch_statistics *rows;
    uint32_t count;
    uint32_t capacity;
};

/* NULL when out of memory. */
static struct batch_statistics *batch_list_push(struct batch_list *l)
{
    if (l->count == l->capacity) {
        uint32_t capacity = l->capacity ? l->capacity * 2 : 8;
        struct batch_statistics *grown = realloc(l->rows, capacity * sizeof(*grown));
        if (!grown)
            return NULL;
        l->rows = grown;
        l->capacity = capacity;
    }
    return &l->rows[l->count++];
}

static bool read_page(const struct batch_page *page, struct batch_list *l)
{
    for (uint32_t i = 0; i < BATCH_PAGE_ROWS; i++) {
        const struct batch_row *row = &page->rows[i];
        uint64_t successes = counter_get(&row->success_count);
        uint64_t failures = counter_get(&row->failed_count);
        uint64_t executions = counter_get(&row->execution_count);
        if (successes + failures + executions == 0)
            continue;
        struct batch_statistics *to = batch_list_push(l);
        if (!to)
            return false;
        *to = (struct batch_statistics){ .batch_size = page->number * BATCH_PAGE_ROWS + i };
        add_duration(&to->success, successes, &row->success_ns);
        add_duration(&to->compute, successes, &row->compute_ns);
        add_duration(&to->queue, successes, &row->queue_ns);
        add_duration(&to->failed, failures, &row->failed_ns);
        add_duration(&to->compute_input, executions, &row->compute_input_ns);
        add_duration(&to->compute_infer, executions, &row->compute_infer_ns);
        add_duration(&to->compute_output, executions, &row->compute_output_ns);
    }
    return true;
}

static int compare_batches(const void *a, const void *b)
{
    uint32_t x = ((const struct batch_statistics *)a)->batch_size;
    uint32_t y = ((const struct batch_statistics *)b)->batch_size;
    return (x > y) - (x < y);
}

static void merge_duration(struct duration *to, const struct duration *from)
{
    to->count += from->count;
    to->ns += from->ns;
}

static void merge_batch(struct batch_statistics *to, const struct batch_statistics *from)
{
    merge_duration(&to->success, &from->success);
    merge_duration(&to->failed, &from->failed);
    merge_duration(&to->compute, &from->compute);
    merge_duration(&to->queue, &from->queue);
    merge_duration(&to->compute_input, &from->compute_input);
    merge_duration(&to->compute_infer, &from->compute_infer);
    merge_duration(&to->compute_output, &from->compute_output);
}

static void get_batches(const struct statistics *s, struct statistics_snapshot *snapshot)
{
    struct batch_list l = { 0 };
    bool ok = true;
    const struct statistics_shard *shard = atomic_load(&s->shards);
    for (; shard && ok; shard = shard->next) {
        for (uint32_t i = 0; i < BATCH_PAGES && ok; i++) {
            const struct batch_page *page = atomic_load(&shard->batches[i]);
            ok = !page || read_page(page, &l);
        }
    }
    if (!ok || l.count == 0) {
        free(l.rows);
        return;
    }

    qsort(l.rows, l.count, sizeof(*l.rows), compare_batches);
    uint32_t last = 0;
    for (uint32_t i = 1; i < l.count; i++) {
        if (l.rows[i].batch_size == l.rows[last].batch_size)
            merge_batch(&l.rows[last], &l.rows[i]);
        else
            l.rows[++last] = l.rows[i];
    }
    snapshot->batches = l.rows;
    snapshot->batch_count = last + 1;
}

static void read_duration(struct duration *to, const struct atomic_duration *from)
{
    to->count += counter_get(&from->count);
    to->ns += counter_get(&from->ns);
}

/* Adds the rows of a page; how many there are up to the last that counted something. */
static uint32_t read_responses(const struct response_page *page, struct response_statistics *to)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < RESPONSE_PAGE_ROWS; i++) {
        const struct response_row *row = &page->rows[i];
        read_duration(&to[i].compute_infer, &row->compute_infer);
        read_duration(&to[i].compute_output, &row->compute_output);
        read_duration(&to[i].success, &row->success);
        read_duration(&to[i].fail, &row->fail);
        read_duration(&to[i].empty, &row->empty);
        read_duration(&to[i].cancel, &row->cancel);
        if (to[i].compute_infer.count + to[i].cancel.count > 0)
            used = i + 1;
    }
    return used;
}

static void get_responses(const struct statistics *s, struct statistics_snapshot *snapshot)
{
    const struct statistics_shard *first = atomic_load(&s->shards);
    uint32_t pages = 0;
    for (const struct statistics_shard *shard = first; shard; shard = shard->next) {
        for (uint32_t i = pages; i < RESPONSE_PAGES; i++)
            pages = atomic_load(&shard->responses[i]) ? i + 1 : pages;
    }
    if (pages == 0)
        return;
    struct response_statistics *rows = calloc(pages, RESPONSE_PAGE_ROWS * sizeof(*rows));
    if (!rows)
        return;

    uint32_t count = 0;
    for (const struct statistics_shard *shard = first; shard; shard = shard->next) {
        for (uint32_t i = 0; i < pages; i++) {
            const struct response_page *page = atomic_load(&shard->responses[i]);
            uint32_t used = page ? read_responses(page, &rows[i * RESPONSE_PAGE_ROWS]) : 0;
            if (used > 0 && count < i * RESPONSE_PAGE_ROWS + used)
                count = i * RESPONSE_PAGE_ROWS + used;
        }
    }
    snapshot->responses = rows;
    snapshot->response_count = count;
}

static int compare_memories(const void *a, const void *b)
{
    const struct memory_usage *x = a, *y = b;
    if (x->type != y->type)
        return x->type < y->type ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

void statistics_get_memory(struct statistics *s, struct memory_usage **ret_memory,
                           uint32_t *ret_count)
{
    *ret_memory = NULL;
    *ret_count = 0;
    if (!atomic_load(&s->has_memory))
        return;
    const struct statistics_shard *first = atomic_load(&s->shards);
    uint32_t count = 0;
    lock_take(&s->memory_lock);
    for (const struct statistics_shard *shard = first; shard; shard = shard->next)
        count += shard->memory_count;
    struct memory_usage *all = count > 0 ? malloc(count * sizeof(*all)) : NULL;
    uint32_t at = 0;
    for (const struct statistics_shard *shard = first; shard && all; shard = shard->next) {
        memcpy(&all[at], shard->memory, shard->memory_count * sizeof(*all));
        at += shard->memory_count;
    }
    lock_release(&s->memory_lock);
    if (!all)
        return;

    qsort(all, count, sizeof(*all), compare_memories);
    uint32_t last = 0;
    for (uint32_t i = 1; i < count; i++) {
        if (compare_memories(&all[i], &all[last]) == 0)
            all[last].bytes += all[i].bytes;
        else
            all[++last] = all[i];
    }
    *ret_memory = all;
    *ret_count = last + 1;
}

void statistics_get(struct statistics *s, struct statistics_snapshot *ret_snapshot)
{
    *ret_snapshot = (struct statistics_snapshot){ 0 };
    statistics_get_totals(s, &ret_snapshot->totals);
    get_batches(s, ret_snapshot);
    get_responses(s, ret_snapshot);
    statistics_get_memory(s, &ret_snapshot->memory, &ret_snapshot->memory_count);
}

void statistics_snapshot_fini(struct statistics_snapshot *snapshot)
{
    free(snapshot->batches);
    free(snapshot->responses);
    free(snapshot->memory);
    *snapshot = (struct statistics_snapshot){ 0 };
}
