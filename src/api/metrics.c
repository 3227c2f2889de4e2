/* The metrics page: what it shows. */
#include "api/metrics.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/prefetch.h"
#include "exec/version.h"
#include "infer/reason.h"
#include "metrics/accept.h"
#include "metrics/family.h"
#include "metrics/metric.h"

enum {
    TAGS_MAX = 64, /* of one model; what its configuration has beyond is not shown */
    TAG_BYTES_MAX = 64,
    PAGE_BYTES_FIRST = 16 << 10,
};

#define ALPHANUMERIC "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

static const struct label_text no_labels;

/* What the page says of one version. */
struct row {
    const struct version_entry *entry;
    struct label_text labels; /* of its series */
    /* set if it is loaded */
    uint32_t pending;
    struct statistics_totals totals;
};

struct page {
    struct exposition exposition;
    struct api *api;
    uint64_t now_ns;
    struct version_list versions;
    struct row *rows; /* one for each of versions */
    struct bytes labels;
};

/* ---- Labels ---- */

struct tag_names {
    uint32_t count;
    char names[TAGS_MAX][TAG_BYTES_MAX];
};

static bool tag_is_used(const struct tag_names *tags, const char *name)
{
    for (uint32_t i = 0; i < tags->count; i++) {
        if (strcmp(tags->names[i], name) == 0)
            return true;
    }
    return false;
}

/* The label of a tag: "_<key>", as 0.9 has it, with '_' for what a label's name must not hold, and a
 * number behind it when two keys end up alike. "__" is for the collectors' own labels. */
static const char *tag_name(struct tag_names *tags, const char *key)
{
    char base[TAG_BYTES_MAX - 8];
    char *name = tags->names[tags->count];
    key += strcspn(key, ALPHANUMERIC);
    snprintf(base, sizeof(base), "_%s", *key ? key : "tag");
    for (char *at = base; *(at += strspn(at, ALPHANUMERIC)); at++)
        *at = '_';
    snprintf(name, TAG_BYTES_MAX, "%s", base);
    for (uint32_t i = 2; tag_is_used(tags, name); i++)
        snprintf(name, TAG_BYTES_MAX, "%s_%" PRIu32, base, i);
    tags->count++;
    return name;
}

static void append_row_labels(struct bytes *out, const struct version_entry *entry)
{
    size_t begin = out->len;
    labels_append(out, begin, "model", entry->model, strlen(entry->model));
    bytes_append_str(out, ",version=\"");
    bytes_append_i64(out, entry->number);
    bytes_append_char(out, '"');
    const Inference__ModelConfig *config = entry->version ? entry->version->config->message : NULL;
    if (config && config->n_metric_tags > 0) {
        struct tag_names tags = { 0 };
        for (size_t i = 0; i < config->n_metric_tags && i < TAGS_MAX; i++)
            labels_append(out, begin, tag_name(&tags, config->metric_tags[i]->key),
                          config->metric_tags[i]->value, strlen(config->metric_tags[i]->value));
    }
}

/* ---- Versions ---- */

static const struct tis_version *version_at(const struct page *p, uint32_t at)
{
    return at < p->versions.count ? p->versions.entries[at].version : NULL;
}

/* Reading the figures of a version is mostly waiting for memory, in a dozen places that pointers lead to.
 * So a version is asked for six rows ahead, what it points to four, and what that points to two. */
static void rows_prefetch(const struct page *p, uint32_t at)
{
    const struct tis_version *v = version_at(p, at + 6);
    if (v) {
        prefetch(&v->config, sizeof(v->config));
        prefetch(&v->lock, sizeof(v->lock));
        prefetch(&v->scheduler, sizeof(v->scheduler));
        statistics_prefetch(&v->statistics);
    }
    v = version_at(p, at + 4);
    if (v) {
        prefetch(v->config, sizeof(*v->config));
        prefetch(v->scheduler, sizeof(*v->scheduler));
        statistics_prefetch_shards(&v->statistics);
    }
    v = version_at(p, at + 2);
    if (v)
        prefetch(&v->config->message->n_metric_tags, sizeof(size_t));
}

static bool rows_fill(struct page *p)
{
    uint32_t count = p->versions.count;
    p->rows = malloc((count + 1) * sizeof(*p->rows));
    if (!p->rows)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        size_t begin = p->labels.len;
        rows_prefetch(p, i);
        p->rows[i].entry = &p->versions.entries[i];
        append_row_labels(&p->labels, p->rows[i].entry);
        p->rows[i].labels.len = p->labels.len - begin;
        struct tis_version *version = p->rows[i].entry->version;
        if (version) {
            p->rows[i].pending = version_pending(version);
            statistics_get_totals(&version->statistics, &p->rows[i].totals);
        }
    }
    const char *at = p->labels.data; /* it has stopped moving */
    for (uint32_t i = 0; i < count; at += p->rows[i++].labels.len)
        p->rows[i].labels.at = at;
    return !p->labels.failed;
}

/* The next loaded version after *at (begin with -1); NULL: there is none. */
static const struct row *next_loaded(const struct page *p, uint32_t *at)
{
    while (++*at < p->versions.count) {
        if (p->rows[*at].entry->version)
            return &p->rows[*at];
    }
    return NULL;
}

/* Sums that exist from loading on, as Triton has them: up to three of statistics_totals together. */
#define TOTAL(field) offsetof(struct statistics_totals, field)
static const struct {
    enum family family;
    bool is_ns; /* told in us */
    uint32_t count;
    size_t offsets[3];
} sums[] = {
    { FAMILY_REQUEST_SUCCESS, false, 1, { TOTAL(success.count) } },
    { FAMILY_INFERENCE_COUNT, false, 1, { TOTAL(inference_count) } },
    { FAMILY_EXEC_COUNT, false, 1, { TOTAL(execution_count) } },
    { FAMILY_REQUEST_US, true, 1, { TOTAL(success.ns) } },
    { FAMILY_QUEUE_US, true, 1, { TOTAL(queue.ns) } },
    { FAMILY_COMPUTE_US,
      true,
      3,
      { TOTAL(compute_input.ns), TOTAL(compute_infer.ns), TOTAL(compute_output.ns) } },
    { FAMILY_COMPUTE_INPUT_US, true, 1, { TOTAL(compute_input.ns) } },
    { FAMILY_COMPUTE_INFER_US, true, 1, { TOTAL(compute_infer.ns) } },
    { FAMILY_COMPUTE_OUTPUT_US, true, 1, { TOTAL(compute_output.ns) } },
};

static void write_sums(struct page *p)
{
    const struct row *r;
    for (size_t k = 0; k < ARRAY_LEN(sums); k++) {
        if (sums[k].is_ns && p->api->options.metrics.no_counter_latencies)
            continue;
        exposition_family(&p->exposition, &families[sums[k].family]);
        for (uint32_t at = UINT32_MAX; (r = next_loaded(p, &at)) != NULL;) {
            uint64_t sum = 0;
            for (uint32_t i = 0; i < sums[k].count; i++)
                sum += *(const uint64_t *)((const char *)&r->totals + sums[k].offsets[i]);
            exposition_u64(&p->exposition, r->labels, NULL, sums[k].is_ns ? sum / NS_PER_US : sum);
        }
    }
}

static void write_failures(struct page *p)
{
    const struct row *r;
    char reasons[FAILURE_COUNT][32];
    for (size_t k = 0; k < FAILURE_COUNT; k++)
        snprintf(reasons[k], sizeof(reasons[k]), "reason=\"%s\"", failure_names[k]);
    exposition_family(&p->exposition, &families[FAMILY_REQUEST_FAILURE]);
    for (uint32_t at = UINT32_MAX; (r = next_loaded(p, &at)) != NULL;) {
        for (size_t k = 0; k < FAILURE_COUNT; k++)
            exposition_u64(&p->exposition, r->labels, reasons[k], r->totals.failures[k]);
    }
}

/* A version has its series from the first observation on: there are a hundred of them. */
static void write_histograms(struct page *p)
{
    static const struct {
        enum family family;
        enum statistics_histogram histogram;
    } all[] = {
        { FAMILY_LOAD_RATIO, HISTOGRAM_LOAD_RATIO },
        { FAMILY_REQUEST_SECONDS, HISTOGRAM_REQUEST },
        { FAMILY_QUEUE_SECONDS, HISTOGRAM_QUEUE },
        { FAMILY_COMPUTE_SECONDS, HISTOGRAM_COMPUTE },
        { FAMILY_FIRST_RESPONSE_SECONDS, HISTOGRAM_FIRST_RESPONSE },
        { FAMILY_BATCH_SIZE, HISTOGRAM_BATCH_SIZE },
    };
    const struct row *r;
    for (size_t k = 0; k < ARRAY_LEN(all); k++) {
        struct bucket_texts texts;
        const struct histogram_bounds *bounds = &histogram_bounds[all[k].histogram];
        bucket_texts_init(&texts, bounds->upper, bounds->count);
        exposition_family(&p->exposition, &families[all[k].family]);
        for (uint32_t at = UINT32_MAX; (r = next_loaded(p, &at)) != NULL;) {
            const struct histogram *h = &r->totals.histograms[all[k].histogram];
            prefetch(&r[1].totals.histograms[all[k].histogram], sizeof(*h));
            /* A sum of quotients has no digits worth the time that all 17 would take. */
            double sum =
                all[k].histogram == HISTOGRAM_LOAD_RATIO ? round(h->sum * 1e6) / 1e6 : h->sum;
            if (h->count > 0)
                exposition_histogram(&p->exposition, r->labels, &texts, h->cumulative, h->count,
                                     sum);
        }
    }
}

/* Triton's, of decoupled models only; each may have bounds of its own. */
static void write_first_responses(struct page *p)
{
    const struct row *r;
    if (!p->api->options.metrics.histogram_latencies)
        return;
    exposition_family(&p->exposition, &families[FAMILY_FIRST_RESPONSE_MS]);
    for (uint32_t at = UINT32_MAX; (r = next_loaded(p, &at)) != NULL;) {
        struct first_response_histogram h;
        struct bucket_texts texts;
        if (!r->entry->version->statistics.is_decoupled)
            continue;
        statistics_get_first_response(&r->entry->version->statistics, &h);
        bucket_texts_init(&texts, h.upper_ms, h.bound_count);
        exposition_histogram(&p->exposition, r->labels, &texts, h.cumulative, h.count, h.sum_ms);
    }
}

/* Few backends say so. */
static void write_memory(struct page *p)
{
    const struct row *r;
    exposition_family(&p->exposition, &families[FAMILY_MODEL_MEMORY]);
    for (uint32_t at = UINT32_MAX; (r = next_loaded(p, &at)) != NULL;) {
        struct memory_usage *memory;
        uint32_t count;
        statistics_get_memory(&r->entry->version->statistics, &memory, &count);
        for (uint32_t i = 0; i < count; i++) {
            char more[64];
            snprintf(more, sizeof(more), "memory=\"%s\",id=\"%" PRId64 "\"",
                     TRITONSERVER_MemoryTypeString(memory[i].type), memory[i].id);
            exposition_u64(&p->exposition, r->labels, more, memory[i].bytes);
        }
        free(memory);
    }
}

static void write_versions(struct page *p)
{
    struct exposition *e = &p->exposition;
    const struct row *r;
    write_sums(p);
    write_failures(p);
    exposition_family(e, &families[FAMILY_PENDING]);
    for (uint32_t at = UINT32_MAX; (r = next_loaded(p, &at)) != NULL;)
        exposition_u64(e, r->labels, NULL, r->pending);
    exposition_family(e, &families[FAMILY_LOAD_SECS]);
    for (uint32_t at = UINT32_MAX; (r = next_loaded(p, &at)) != NULL;)
        exposition_double(e, r->labels, NULL, (double)r->entry->load_ns / 1e9);
    exposition_family(e, &families[FAMILY_MODEL_READY]);
    for (uint32_t i = 0; i < p->versions.count; i++)
        exposition_u64(e, p->rows[i].labels, NULL, p->rows[i].entry->state == VERSION_READY);
    write_memory(p);
    write_histograms(p);
    write_first_responses(p);
}

/* ---- The server ---- */

static void write_info(struct page *p)
{
    struct bytes labels = { 0 };
    const char *id = p->api->options.id ? p->api->options.id : "triton";
    labels_append(&labels, 0, "version", TIS_VERSION, strlen(TIS_VERSION));
    labels_append(&labels, 0, "id", id, strlen(id));
    exposition_family(&p->exposition, &families[FAMILY_BUILD_INFO]);
    exposition_u64(&p->exposition, (struct label_text){ bytes_str(&labels), labels.len }, NULL, 1);
    bytes_fini(&labels);
}

static void write_number(struct page *p, enum family family, uint64_t value)
{
    exposition_family(&p->exposition, &families[family]);
    exposition_u64(&p->exposition, no_labels, NULL, value);
}

static void write_connections(struct page *p)
{
    const struct api_ports *ports = &p->api->ports;
    const struct {
        const char *protocol;
        const char *port;
        bool is_open;
        struct acceptor_counts counts;
    } all[] = {
        { "protocol=\"http\"", "port=\"http\"", ports->http != NULL,
          ports->http ? http_server_counts(ports->http) : (struct acceptor_counts){ 0 } },
        { "protocol=\"grpc\"", "port=\"grpc\"", ports->grpc != NULL,
          ports->grpc ? grpc_server_counts(ports->grpc) : (struct acceptor_counts){ 0 } },
        { "protocol=\"metrics\"", "port=\"metrics\"", ports->metrics != NULL,
          ports->metrics ? http_server_counts(ports->metrics) : (struct acceptor_counts){ 0 } },
    };
    exposition_family(&p->exposition, &families[FAMILY_CONNECTIONS]);
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        if (all[i].is_open)
            exposition_u64(&p->exposition, no_labels, all[i].protocol, all[i].counts.open);
    }
    exposition_family(&p->exposition, &families[FAMILY_CONNECTIONS_ACCEPTED]);
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        if (all[i].is_open)
            exposition_u64(&p->exposition, no_labels, all[i].port, all[i].counts.accepted);
    }
}

static void write_server(struct page *p)
{
    struct api *api = p->api;
    write_info(p);
    write_number(p, FAMILY_READY, api_is_ready(api));
    exposition_family(&p->exposition, &families[FAMILY_UPTIME]);
    exposition_double(&p->exposition, no_labels, NULL,
                      (double)(p->now_ns - api->options.start_ns) / 1e9);
    write_number(p, FAMILY_REQUESTS_INFLIGHT, atomic_load(&api->in_flight));
    if (api->ports.budget) {
        write_number(p, FAMILY_BYTES_INFLIGHT, atomic_load(&api->ports.budget->bytes));
        write_number(p, FAMILY_BYTES_INFLIGHT_LIMIT, api->ports.budget->bytes_max);
    }
    write_connections(p);
    exposition_family(&p->exposition, &families[FAMILY_PAGE_CPU]);
    exposition_double(&p->exposition, no_labels, NULL,
                      (double)atomic_load(&api->page_cpu_ns) / 1e9);
}

/* ---- The call ---- */

static tis_error *page_write(struct page *p, struct bytes *out)
{
    size_t expected = atomic_load_explicit(&p->api->page_bytes, memory_order_relaxed);
    bytes_reserve(out, PAGE_BYTES_FIRST + expected + expected / 16);
    tis_error *err = registry_list(p->api->registry, &p->versions);
    if (err)
        return err;
    if (!rows_fill(p))
        return error_no_memory();
    write_versions(p);
    write_server(p);
    process_metrics_write(&p->api->process, p->now_ns, &p->exposition);
    metric_families_write(&p->exposition);
    exposition_finish(&p->exposition);
    atomic_store_explicit(&p->api->page_bytes, out->len, memory_order_relaxed);
    return out->failed ? error_no_memory() : NULL;
}

static enum exposition_format wanted_format(const struct call *call)
{
    const struct http_header *accept = http_header_find(call->ex, "Accept");
    return accept ? accept_choose(accept->value, accept->value_len) : EXPOSITION_TEXT;
}

static uint64_t thread_cpu_ns(void)
{
    struct timespec ts = { 0 };
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* On a worker: with many models the page takes milliseconds. */
static tis_error *page_work(struct call *call)
{
    uint64_t start_ns = thread_cpu_ns();
    struct page p = { .api = call->api, .now_ns = clock_ns() };
    exposition_init(&p.exposition, wanted_format(call), &call->out);
    tis_error *err = page_write(&p, &call->out);
    registry_list_free(&p.versions);
    free(p.rows);
    bytes_fini(&p.labels);
    atomic_store(&call->api->page_cpu_ns, thread_cpu_ns() - start_ns);
    return err;
}

static void page_answer(struct call *call, tis_error *err)
{
    if (err) {
        http_respond_copy(call->ex, 503, "Content-Type: text/plain; charset=utf-8\r\n",
                          error_text(err), strlen(error_text(err)));
        error_free(err);
        return;
    }
    char head[128];
    int head_len = snprintf(head, sizeof(head), "Content-Type: %s\r\n",
                            exposition_content_type(wanted_format(call)));
    struct iovec part = { call->out.data, call->out.len };
    http_respond(call->ex, 200, head, (size_t)head_len, &part, 1, NULL, NULL);
}

void metrics_page(struct call *call)
{
    call_offload(call, page_work, page_answer);
}
