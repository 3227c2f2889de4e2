#include "metrics/settings.h"

#include <stddef.h>
#include <string.h>

#include "base/attr.h"

#define INVALID(...) error_new(TRITONSERVER_ERROR_INVALID_ARG, __VA_ARGS__)
#define NAMES "counter_latencies, histogram_latencies, summary_latencies=false"

static const struct {
    const char *name;
    size_t offset;
    bool when_true; /* what the field becomes then */
} names[] = {
    { "counter_latencies", offsetof(struct metrics_settings, no_counter_latencies), false },
    { "histogram_latencies", offsetof(struct metrics_settings, histogram_latencies), true },
};

/* "true" or "false", in any case. */
static tis_error *parse_bool(const char *name, const char *value, bool *ret_value)
{
    bool is_true = strcasecmp(value, "true") == 0;
    if (!is_true && strcasecmp(value, "false") != 0)
        return INVALID("%s=%s: expected true or false", name, value);
    *ret_value = is_true;
    return NULL;
}

static tis_error *no_summaries(const char *setting)
{
    return INVALID("%s: this server has no summaries, as quantiles of replicas cannot be added up; "
                   "the histograms trtserver_..._duration_seconds are always there, and "
                   "histogram_quantile() gives any quantile of them",
                   setting);
}

tis_error *metrics_settings_set(struct metrics_settings *s, const char *text)
{
    const char *equals = strchr(text, '=');
    if (!equals)
        return INVALID("%s: expected <name>=<value>; names are " NAMES, text);
    size_t len = (size_t)(equals - text);
    const char *value = equals + 1;
    bool on;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strlen(names[i].name) != len || memcmp(names[i].name, text, len) != 0)
            continue;
        tis_error *err = parse_bool(names[i].name, value, &on);
        if (!err)
            *((bool *)((char *)s + names[i].offset)) = on == names[i].when_true;
        return err;
    }
    if (strncmp(text, "summary_quantiles=", strlen("summary_quantiles=")) == 0)
        return no_summaries("summary_quantiles");
    if (strncmp(text, "summary_latencies=", strlen("summary_latencies=")) == 0) {
        tis_error *err = parse_bool("summary_latencies", value, &on);
        return err || !on ? err : no_summaries(text);
    }
    return INVALID("%s: unknown name '%.*s', expected of " NAMES, text, (int)len, text);
}
