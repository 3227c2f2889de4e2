#include "metrics/accept.h"

#include <strings.h>

#include "base/attr.h"

/* [at, end) of the header, without blanks around it. */
struct span {
    const char *at;
    const char *end;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Cuts off what stands before the next separator; false at the end. */
static bool span_cut(struct span *rest, char separator, struct span *ret_part)
{
    if (!rest->at)
        return false;
    size_t left = (size_t)(rest->end - rest->at);
    const char *found = left > 0 ? memchr(rest->at, separator, left) : NULL;
    struct span part = { rest->at, found ? found : rest->end };
    rest->at = found ? found + 1 : NULL;
    while (part.at < part.end && is_blank(*part.at))
        part.at++;
    while (part.at < part.end && is_blank(part.end[-1]))
        part.end--;
    *ret_part = part;
    return true;
}

static bool span_is(struct span s, const char *word)
{
    return (size_t)(s.end - s.at) == strlen(word) &&
           strncasecmp(s.at, word, (size_t)(s.end - s.at)) == 0;
}

/* "0.5" in thousandths; what is no weight counts as none given. */
static int weight_of(struct span s)
{
    int weight = 0;
    if (s.at == s.end || (*s.at != '0' && *s.at != '1'))
        return 1000;
    weight = *s.at++ == '1' ? 1000 : 0;
    if (s.at < s.end && *s.at++ != '.')
        return 1000;
    for (int place = 100; s.at < s.end && place > 0; place /= 10) {
        if (*s.at < '0' || *s.at > '9')
            return 1000;
        weight += (*s.at++ - '0') * place;
    }
    return weight > 1000 ? 1000 : weight;
}

/* What the header says of one form. */
struct wish {
    int weight;
    int exactness; /* 0: nothing */
};

static void wish_offer(struct wish *w, int exactness, int weight)
{
    if (exactness > w->exactness || (exactness == w->exactness && weight > w->weight))
        *w = (struct wish){ .weight = weight, .exactness = exactness };
}

/* Ranges, and the form that each covers. */
static const struct {
    const char *range;
    bool is_text;
    bool is_open;
    int exactness;
} ranges[] = {
    { "*/*", true, true, 1 },
    { "text/*", true, false, 2 },
    { "application/*", false, true, 2 },
    { "text/plain", true, false, 3 },
    { "application/openmetrics-text", false, true, 3 },
};

static void read_range(struct span range, struct wish *text, struct wish *open)
{
    struct span name, parameter;
    struct span version = { 0 };
    int weight = 1000;
    span_cut(&range, ';', &name);
    while (span_cut(&range, ';', &parameter)) {
        struct span key;
        span_cut(&parameter, '=', &key);
        struct span value = { parameter.at ? parameter.at : parameter.end, parameter.end };
        if (value.end - value.at >= 2 && *value.at == '"' && value.end[-1] == '"')
            value = (struct span){ value.at + 1, value.end - 1 };
        if (span_is(key, "q"))
            weight = weight_of(value);
        else if (span_is(key, "version"))
            version = value;
    }
    for (size_t i = 0; i < ARRAY_LEN(ranges); i++) {
        if (!span_is(name, ranges[i].range))
            continue;
        if (ranges[i].is_text && (!version.at || span_is(version, "0.0.4")))
            wish_offer(text, ranges[i].exactness, weight);
        if (ranges[i].is_open && (!version.at || span_is(version, "1.0.0")))
            wish_offer(open, ranges[i].exactness, weight);
    }
}

enum exposition_format accept_choose(const char *value, size_t len)
{
    struct span rest = { value, value + len };
    struct span range;
    struct wish text = { 0 }, open = { 0 };
    for (int i = 0; i < ACCEPT_RANGES_MAX && span_cut(&rest, ',', &range); i++)
        read_range(range, &text, &open);
    bool open_wins = open.weight > text.weight ||
                     (open.weight == text.weight && open.exactness > text.exactness);
    return open_wins && open.weight > 0 ? EXPOSITION_OPENMETRICS : EXPOSITION_TEXT;
}
