/* ModelStatistics: the statistics extension of the v2 protocol over gRPC. The messages of one version
 * lie in an arena of the call's time, each with its durations in one piece. */
#include <inttypes.h>

#include "api/v2/v2.h"
#include "exec/version.h"
#include "infer/reason.h"
#include "proto/grpc_service.pb-c.h"

enum {
    ARENA_BYTES_FIRST = 4096,
    ARENA_BYTES_MAX = 64 << 20,
};

typedef Inference__StatisticDuration duration_message;

static duration_message *set(duration_message *m, const struct duration *d)
{
    *m = (duration_message)INFERENCE__STATISTIC_DURATION__INIT;
    m->count = d->count;
    m->ns = d->ns;
    return m;
}

static bool add_batch(struct arena *a, const struct batch_statistics *b,
                      Inference__ModelStatistics *m)
{
    struct {
        Inference__InferBatchStatistics message;
        duration_message compute_input, compute_infer, compute_output;
    } *row = arena_alloc(a, sizeof(*row));
    if (!row)
        return false;
    row->message = (Inference__InferBatchStatistics)INFERENCE__INFER_BATCH_STATISTICS__INIT;
    row->message.batch_size = b->batch_size;
    row->message.compute_input = set(&row->compute_input, &b->compute_input);
    row->message.compute_infer = set(&row->compute_infer, &b->compute_infer);
    row->message.compute_output = set(&row->compute_output, &b->compute_output);
    m->batch_stats[m->n_batch_stats++] = &row->message;
    return true;
}

static bool add_response(struct arena *a, uint32_t index, const struct response_statistics *r,
                         Inference__ModelStatistics *m)
{
    struct {
        Inference__ModelStatistics__ResponseStatsEntry entry;
        Inference__InferResponseStatistics message;
        duration_message compute_infer, compute_output, success, fail, empty, cancel;
    } *row = arena_alloc(a, sizeof(*row));
    char *key = arena_printf(a, "%" PRIu32, index);
    if (!row || !key)
        return false;
    row->message = (Inference__InferResponseStatistics)INFERENCE__INFER_RESPONSE_STATISTICS__INIT;
    row->message.compute_infer = set(&row->compute_infer, &r->compute_infer);
    row->message.compute_output = set(&row->compute_output, &r->compute_output);
    row->message.success = set(&row->success, &r->success);
    row->message.fail = set(&row->fail, &r->fail);
    row->message.empty_response = set(&row->empty, &r->empty);
    row->message.cancel = set(&row->cancel, &r->cancel);
    row->entry = (Inference__ModelStatistics__ResponseStatsEntry)
        INFERENCE__MODEL_STATISTICS__RESPONSE_STATS_ENTRY__INIT;
    row->entry.key = key;
    row->entry.value = &row->message;
    m->response_stats[m->n_response_stats++] = &row->entry;
    return true;
}

static bool add_memory(struct arena *a, const struct memory_usage *u, Inference__ModelStatistics *m)
{
    Inference__MemoryUsage *message = arena_alloc(a, sizeof(*message));
    if (!message)
        return false;
    *message = (Inference__MemoryUsage)INFERENCE__MEMORY_USAGE__INIT;
    message->type = (char *)(uintptr_t)TRITONSERVER_MemoryTypeString(u->type);
    message->id = u->id;
    message->byte_size = u->bytes;
    m->memory_usage[m->n_memory_usage++] = message;
    return true;
}

static Inference__InferStatistics *make_totals(struct arena *a, const struct statistics_totals *t)
{
    static const struct duration none; /* there is no response cache */
    struct {
        Inference__InferStatistics message;
        duration_message success, fail, queue, compute_input, compute_infer, compute_output;
        duration_message cache_hit, cache_miss;
    } *all = arena_alloc(a, sizeof(*all));
    if (!all)
        return NULL;
    all->message = (Inference__InferStatistics)INFERENCE__INFER_STATISTICS__INIT;
    all->message.success = set(&all->success, &t->success);
    all->message.fail = set(&all->fail, &t->fail);
    all->message.queue = set(&all->queue, &t->queue);
    all->message.compute_input = set(&all->compute_input, &t->compute_input);
    all->message.compute_infer = set(&all->compute_infer, &t->compute_infer);
    all->message.compute_output = set(&all->compute_output, &t->compute_output);
    all->message.cache_hit = set(&all->cache_hit, &none);
    all->message.cache_miss = set(&all->cache_miss, &none);
    return &all->message;
}

static bool fill_version(struct arena *a, const char *name, int64_t number,
                         const struct statistics_snapshot *s, Inference__ModelStatistics *m)
{
    *m = (Inference__ModelStatistics)INFERENCE__MODEL_STATISTICS__INIT;
    m->name = arena_strdup(a, name);
    m->version = arena_printf(a, "%" PRId64, number);
    m->last_inference = s->totals.last_inference_ms;
    m->inference_count = s->totals.inference_count;
    m->execution_count = s->totals.execution_count;
    m->inference_stats = make_totals(a, &s->totals);
    m->batch_stats = arena_calloc(a, s->batch_count, sizeof(*m->batch_stats));
    m->response_stats = arena_calloc(a, s->response_count, sizeof(*m->response_stats));
    m->memory_usage = arena_calloc(a, s->memory_count, sizeof(*m->memory_usage));
    bool ok = m->name && m->version && m->inference_stats && m->batch_stats && m->response_stats &&
              m->memory_usage;
    for (uint32_t i = 0; i < s->batch_count && ok; i++) {
        if (s->batches[i].compute_infer.count > 0) /* else its requests ran in other batches */
            ok = add_batch(a, &s->batches[i], m);
    }
    for (uint32_t i = 0; i < s->response_count && ok; i++)
        ok = add_response(a, i, &s->responses[i], m);
    for (uint32_t i = 0; i < s->memory_count && ok; i++)
        ok = add_memory(a, &s->memory[i], m);
    return ok;
}

static tis_error *make_version(struct arena *a, const char *name, const struct version_info *v,
                               Inference__ModelStatistics **ret_message)
{
    struct statistics_snapshot s;
    statistics_get(&v->version->statistics, &s);
    Inference__ModelStatistics *m = arena_alloc(a, sizeof(*m));
    bool is_made = m && fill_version(a, name, v->number, &s, m);
    statistics_snapshot_fini(&s);
    if (!is_made)
        return error_no_memory();
    *ret_message = m;
    return NULL;
}

/* The named version, or all that are ready. */
static tis_error *make_statistics(struct call *call, int64_t number, struct arena *a,
                                  Inference__ModelStatisticsResponse *m)
{
    const char *name = call->model.len > 0 ? call->model.at : NULL;
    struct model_info *models;
    uint32_t count;
    tis_error *err = registry_info(call->api->registry, name, call->model.len, &models, &count);
    if (err)
        return err;
    size_t version_count = 0;
    for (uint32_t i = 0; i < count; i++)
        version_count += models[i].version_count;
    m->model_stats = arena_alloc(a, (version_count + 1) * sizeof(*m->model_stats));
    if (!m->model_stats)
        err = error_no_memory();
    for (uint32_t i = 0; i < count && !err; i++) {
        for (uint32_t k = 0; k < models[i].version_count && !err; k++) {
            const struct version_info *v = &models[i].versions[k];
            if (!v->version || (number >= 0 && v->number != number))
                continue;
            err = make_version(a, models[i].name, v, &m->model_stats[m->n_model_stats]);
            m->n_model_stats += !err;
        }
    }
    if (!err && m->n_model_stats == 0 && number >= 0)
        err = reason_error(REASON_VERSION_UNKNOWN, models[0].name, REASON_NUMBER(number));
    registry_info_free(models, count);
    return err;
}

void v2_rpc_statistics(struct call *call)
{
    char first[ARENA_BYTES_FIRST];
    struct arena a;
    int64_t number = -1;
    Inference__ModelStatisticsResponse m = INFERENCE__MODEL_STATISTICS_RESPONSE__INIT;
    arena_init(&a, first, sizeof(first), ARENA_BYTES_MAX);
    tis_error *err = v2_rpc_read_target(call);
    if (!err)
        err = call_version_number(call, &number);
    if (!err)
        err = make_statistics(call, number, &a, &m);
    if (err && error_reason(err) == REASON_MODEL_UNKNOWN) {
        tis_error *unknown =
            error_new(TRITONSERVER_ERROR_INVALID_ARG, "requested model '%.*s' is not available",
                      (int)call->model.len, call->model.at);
        error_free(err);
        err = unknown;
    }
    v2_rpc_respond_message(call, err, &m.base);
    arena_fini(&a);
}
