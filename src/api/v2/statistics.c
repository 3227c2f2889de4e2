/* The statistics extension of the v2 protocol. */
#include <inttypes.h>
#include <string.h>

#include "api/v2/v2.h"
#include "exec/version.h"
#include "infer/reason.h"
#include "proto/json.h"

static void append_duration(struct bytes *out, const char *key, const struct duration *d)
{
    bytes_printf(out, "%s\"%s\":{\"count\":%" PRIu64 ",\"ns\":%" PRIu64 "}",
                 out->data[out->len - 1] == '{' ? "" : ",", key, d->count, d->ns);
}

static void append_batch(struct bytes *out, const struct batch_statistics *b)
{
    bytes_printf(out, "{\"batch_size\":%" PRIu32, b->batch_size);
    append_duration(out, "compute_input", &b->compute_input);
    append_duration(out, "compute_infer", &b->compute_infer);
    append_duration(out, "compute_output", &b->compute_output);
    bytes_append_char(out, '}');
}

static void append_response(struct bytes *out, uint32_t index, const struct response_statistics *r)
{
    bytes_printf(out, "%s\"%" PRIu32 "\":{", index > 0 ? "," : "", index);
    append_duration(out, "compute_infer", &r->compute_infer);
    append_duration(out, "compute_output", &r->compute_output);
    append_duration(out, "success", &r->success);
    append_duration(out, "fail", &r->fail);
    append_duration(out, "empty_response", &r->empty);
    append_duration(out, "cancel", &r->cancel);
    bytes_append_char(out, '}');
}

static void append_version(struct bytes *out, const char *name, const struct version_info *v)
{
    static const struct duration none;
    struct statistics_snapshot s;
    statistics_get(&v->version->statistics, &s);

    if (out->data[out->len - 1] == '}')
        bytes_append_char(out, ',');
    bytes_append_str(out, "{\"name\":");
    json_append_string(out, name, strlen(name));
    bytes_printf(
        out,
        ",\"version\":\"%" PRId64 "\",\"last_inference\":%" PRIu64 ",\"inference_count\":%" PRIu64
        ",\"execution_count\":%" PRIu64 ",\"inference_stats\":{",
        v->number, s.totals.last_inference_ms, s.totals.inference_count, s.totals.execution_count);
    append_duration(out, "success", &s.totals.success);
    append_duration(out, "fail", &s.totals.fail);
    append_duration(out, "queue", &s.totals.queue);
    append_duration(out, "compute_input", &s.totals.compute_input);
    append_duration(out, "compute_infer", &s.totals.compute_infer);
    append_duration(out, "compute_output", &s.totals.compute_output);
    append_duration(out, "cache_hit", &none); /* there is no response cache */
    append_duration(out, "cache_miss", &none);
    bytes_append_str(out, "},\"response_stats\":{");
    for (uint32_t i = 0; i < s.response_count; i++)
        append_response(out, i, &s.responses[i]);
    bytes_append_str(out, "},\"batch_stats\":[");
    for (uint32_t i = 0; i < s.batch_count; i++) {
        if (s.batches[i].compute_infer.count == 0)
            continue; /* requests of this size ran in batches of another */
        if (out->data[out->len - 1] == '}')
            bytes_append_char(out, ',');
        append_batch(out, &s.batches[i]);
    }
    bytes_append_str(out, "],\"memory_usage\":[");
    for (uint32_t i = 0; i < s.memory_count; i++)
        bytes_printf(out, "%s{\"type\":\"%s\",\"id\":%" PRId64 ",\"byte_size\":%" PRIu64 "}",
                     i > 0 ? "," : "", TRITONSERVER_MemoryTypeString(s.memory[i].type),
                     s.memory[i].id, s.memory[i].bytes);
    bytes_append_str(out, "]}");
    statistics_snapshot_fini(&s);
}

/* The named version, or all that are ready. */
static tis_error *append_models(struct call *call, int64_t number, struct bytes *out)
{
    const char *name = call->model.len > 0 ? call->model.at : NULL;
    struct model_info *models;
    uint32_t count;
    tis_error *err = registry_info(call->api->registry, name, call->model.len, &models, &count);
    if (err)
        return err;
    bool found = false;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t k = 0; k < models[i].version_count; k++) {
            const struct version_info *v = &models[i].versions[k];
            if (!v->version || (number >= 0 && v->number != number))
                continue;
            append_version(out, models[i].name, v);
            found = true;
        }
    }
    if (!found && number >= 0)
        err = reason_error(REASON_VERSION_UNKNOWN, models[0].name, REASON_NUMBER(number));
    registry_info_free(models, count);
    return err;
}

void v2_statistics(struct call *call)
{
    int64_t number;
    tis_error *err = call_version_number(call, &number);
    bytes_append_str(&call->out, "{\"model_stats\":[");
    if (!err)
        err = append_models(call, number, &call->out);
    if (err) {
        v2_fail(call, err);
        return;
    }
    bytes_append_str(&call->out, "]}");
    call_respond_json(call, 200, &call->out);
}
