#include "metrics/exposition.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "base/put.h"

#define TOTAL "_total"

enum {
    BLOCK_BYTES = 16,
    NUMBER_BYTES = 24,     /* 20 digits, a newline, and some to have it moved in three words */
    LINE_BYTES_MORE = 128, /* of a histogram, besides name and labels; with the ends of blocks */
};

const char *exposition_content_type(enum exposition_format format)
{
    return format == EXPOSITION_TEXT ? "text/plain; version=0.0.4; charset=utf-8"
                                     : "application/openmetrics-text; version=1.0.0; charset=utf-8";
}

/* ---- Numbers ---- */

/* digits[0..count), the first one at 10^exponent. */
static size_t put_exponential(char *out, const char *digits, int count, int exponent)
{
    int len = snprintf(out, NUMBER_TEXT_BYTES, "%c%s%.*se%c%02d", digits[0], count > 1 ? "." : "",
                       count - 1, digits + 1, exponent < 0 ? '-' : '+', abs(exponent));
    return (size_t)len;
}

static size_t put_plain(char *out, const char *digits, int count, int exponent, bool with_point)
{
    int len;
    if (exponent < 0)
        len =
            snprintf(out, NUMBER_TEXT_BYTES, "0.%.*s%.*s", -exponent - 1, "000000", count, digits);
    else if (count > exponent + 1)
        len = snprintf(out, NUMBER_TEXT_BYTES, "%.*s.%.*s", exponent + 1, digits,
                       count - exponent - 1, digits + exponent + 1);
    else
        len = snprintf(out, NUMBER_TEXT_BYTES, "%.*s%.*s%s", count, digits, exponent + 1 - count,
                       "000000", with_point ? ".0" : "");
    return (size_t)len;
}

/* Most values are durations, whole nanoseconds, and printf takes longer than the rest of a line: up to
 * 15 digits, a whole number of them is the shortest text. 0 when value is another one. */
static size_t put_nanoseconds(char *out, double value)
{
    double scaled = value * 1e9;
    if (!(scaled >= 1 && scaled < 1e15))
        return 0;
    uint64_t n = (uint64_t)(scaled + 0.5);
    if ((double)n / 1e9 != value)
        return 0;
    char *at = put_u64(out, n / 1000000000);
    uint32_t fraction = (uint32_t)(n % 1000000000);
    *at = '.';
    for (int digit = 9; digit > 0; digit--) {
        at[digit] = (char)('0' + fraction % 10);
        fraction /= 10;
    }
    for (at += 9; *at == '0';)
        at--;
    at += *at != '.';
    *at = '\0';
    return (size_t)(at - out);
}

size_t double_text(char out[NUMBER_TEXT_BYTES], double value, bool is_bound)
{
    size_t len = is_bound ? 0 : put_nanoseconds(out, value);
    if (len > 0)
        return len;
    if (isnan(value) || isinf(value)) {
        const char *word = isnan(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf";
        memcpy(out, word, strlen(word) + 1);
        return strlen(word);
    }
    char scientific[NUMBER_TEXT_BYTES];                      /* 1.234e-05 */
    for (int precision = 14; precision <= 16; precision++) { /* 15 digits are kept by any double */
        snprintf(scientific, sizeof(scientific), "%.*e", precision, fabs(value));
        if (strtod(scientific, NULL) == fabs(value))
            break;
    }
    char digits[20];
    int count = 0;
    const char *at = scientific;
    for (; *at != 'e'; at++) {
        if (*at != '.')
            digits[count++] = *at;
    }
    while (count > 1 && digits[count - 1] == '0')
        count--;
    int exponent = (int)strtol(at + 1, NULL, 10);
    size_t sign = signbit(value) && value != 0;
    if (sign)
        *out = '-';
    return sign + (exponent < -4 || exponent >= 6 /* as Go */
                       ? put_exponential(out + sign, digits, count, exponent)
                       : put_plain(out + sign, digits, count, exponent, is_bound));
}

/* ---- Labels and names ---- */

/* Length of the UTF-8 sequence that s begins with; 0 when it is none. */
static size_t utf8_sequence(const unsigned char *s, size_t len)
{
    if (s[0] < 0x80)
        return 1;
    size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || n > len)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    }
    bool is_overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool is_beyond = (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf4 && s[1] > 0x8f);
    return is_overlong || is_beyond ? 0 : n;
}

/* Bytes of text that stand for themselves. */
static size_t plain_len(const char *text, size_t len)
{
    size_t n = 0;
    while (n < len && (unsigned char)(text[n] - ' ') < 0x5f && text[n] != '\\' && text[n] != '"')
        n++;
    return n;
}

/* Backslash, newline and, when is_quoted, the quote get a backslash. */
static void append_escaped(struct bytes *out, const char *text, size_t len, bool is_quoted)
{
    for (size_t at = 0, n; at < len; at += n) {
        n = plain_len(text + at, len - at);
        if (n > 0) {
            bytes_append(out, text + at, n);
            continue;
        }
        n = utf8_sequence((const unsigned char *)text + at, len - at);
        if (n == 0) {
            bytes_append_str(out, "\xef\xbf\xbd");
            n = 1;
        } else if (text[at] == '\n') {
            bytes_append(out, "\\n", 2);
        } else {
            if (text[at] == '\\' || (is_quoted && text[at] == '"'))
                bytes_append_char(out, '\\');
            bytes_append(out, text + at, n);
        }
    }
}

void labels_append(struct bytes *out, size_t begin, const char *name, const char *value,
                   size_t value_len)
{
    if (out->len > begin)
        bytes_append_char(out, ',');
    bytes_append_str(out, name);
    bytes_append(out, "=\"", 2);
    append_escaped(out, value, value_len, true);
    bytes_append_char(out, '"');
}

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
#define DIGITS "0123456789"

static bool is_name(const char *name, const char *letters)
{
    size_t len = strlen(name);
    return len > 0 && !strchr(DIGITS, name[0]) && strspn(name, letters) == len;
}

bool metric_name_is_legal(const char *name)
{
    return is_name(name, LETTERS DIGITS ":");
}

bool label_name_is_legal(const char *name)
{
    return is_name(name, LETTERS DIGITS) && strncmp(name, "__", 2) != 0;
}

/* ---- Families and series ---- */

void exposition_init(struct exposition *e, enum exposition_format format, struct bytes *out)
{
    *e = (struct exposition){ .out = out, .format = format };
}

void exposition_family(struct exposition *e, const struct metric_info *family)
{
    e->family = family;
    e->name_len = strlen(family->name);
    e->is_begun = false;
}

static bool ends_in_total(const char *name, size_t len)
{
    return len > strlen(TOTAL) && memcmp(name + len - strlen(TOTAL), TOTAL, strlen(TOTAL)) == 0;
}

static void append_line(struct exposition *e, const char *keyword, size_t name_len,
                        const char *text, bool is_quoted)
{
    bytes_append_str(e->out, keyword);
    bytes_append(e->out, e->family->name, name_len);
    bytes_append_char(e->out, ' ');
    append_escaped(e->out, text, strlen(text), is_quoted);
    bytes_append_char(e->out, '\n');
}

static void begin(struct exposition *e)
{
    static const char *const types[] = { "counter", "gauge", "histogram" };
    const struct metric_info *f = e->family;
    bool is_open = e->format == EXPOSITION_OPENMETRICS;
    size_t len = e->name_len;
    const char *type = types[f->type];
    if (is_open && f->type == METRIC_COUNTER) {
        if (ends_in_total(f->name, len))
            len -= strlen(TOTAL);
        else
            type = "unknown";
    }
    append_line(e, "# HELP ", len, f->help, is_open);
    append_line(e, "# TYPE ", len, type, is_open);
    if (is_open && f->unit)
        append_line(e, "# UNIT ", len, f->unit, true);
    e->is_begun = true;
}

/* The page may have a million lines: a line is one reservation and some copies. Room for a line
 * with name, labels and `more` bytes besides; NULL when there is none. */
static char *line_room(struct exposition *e, struct label_text labels, size_t more)
{
    if (!e->is_begun)
        begin(e);
    return bytes_reserve(e->out, e->name_len + labels.len + more + NUMBER_TEXT_BYTES + 16);
}

static void line_end(struct exposition *e, char *end)
{
    *end++ = '\n';
    *end = '\0';
    e->out->len = (size_t)(end - e->out->data);
}

static char *put_series(const struct exposition *e, char *at, struct label_text labels,
                        const char *more, size_t more_len)
{
    at = put(at, e->family->name, e->name_len);
    if (labels.len + more_len > 0) {
        *at++ = '{';
        if (labels.len > 0)
            at = put(at, labels.at, labels.len);
        if (labels.len > 0 && more_len > 0)
            *at++ = ',';
        if (more_len > 0)
            at = put(at, more, more_len);
        *at++ = '}';
    }
    *at++ = ' ';
    return at;
}

void exposition_u64(struct exposition *e, struct label_text labels, const char *more,
                    uint64_t value)
{
    size_t more_len = more ? strlen(more) : 0;
    char *at = line_room(e, labels, more_len);
    if (at)
        line_end(e, put_u64(put_series(e, at, labels, more, more_len), value));
}

void exposition_double(struct exposition *e, struct label_text labels, const char *more,
                       double value)
{
    if (value >= 0 && value < 0x1p53 && value == (double)(uint64_t)value) {
        exposition_u64(e, labels, more, (uint64_t)value); /* no 1e+06 for a million */
        return;
    }
    size_t more_len = more ? strlen(more) : 0;
    char *at = line_room(e, labels, more_len);
    if (!at)
        return;
    at = put_series(e, at, labels, more, more_len);
    line_end(e, at + double_text(at, value, false));
}

void exposition_finish(struct exposition *e)
{
    if (e->format == EXPOSITION_OPENMETRICS)
        bytes_append_str(e->out, "# EOF\n");
}

/* ---- Histograms ---- */

void bucket_texts_init(struct bucket_texts *t, const double *upper, uint32_t count)
{
    t->count = count + 1;
    for (uint32_t i = 0; i <= count; i++) {
        char number[NUMBER_TEXT_BYTES];
        double_text(number, i < count ? upper[i] : INFINITY, true);
        t->bounds[i].len =
            (uint8_t)snprintf(t->bounds[i].text, sizeof(t->bounds[i].text), "le=\"%s\"} ", number);
    }
}

/* A copy in whole blocks, the last of which goes past the end of both: for the short pieces of a line
 * memcpy takes longer. There must be room for it, and `at` lies a block or more behind `from`. */
static inline char *put_blocks(char *at, const char *from, size_t len)
{
    for (size_t i = 0; i < len; i += BLOCK_BYTES)
        memcpy(at + i, from + i, BLOCK_BYTES);
    return at + len;
}

/* The lines of a series begin alike and many end alike, so one reservation is made for all, a line begins
 * with a copy of the first one, and a number is converted when it is another than in the line before. */
void exposition_histogram(struct exposition *e, struct label_text labels,
                          const struct bucket_texts *t, const uint64_t *cumulative, uint64_t count,
                          double sum)
{
    if (!e->is_begun)
        begin(e);
    char *at = bytes_reserve(e->out, (t->count + 2) * (e->name_len + labels.len + LINE_BYTES_MORE));
    if (!at)
        return;
    const char *first = at; /* name_bucket{labels, */
    at = put(at, e->family->name, e->name_len);
    at = put(at, "_bucket{", 8);
    const char *open = at - 1;
    if (labels.len > 0) {
        at = put(at, labels.at, labels.len);
        *at++ = ',';
    }
    size_t prefix_len = (size_t)(at - first);
    uint64_t last = 0;
    char number[NUMBER_BYTES] = "0\n";
    size_t number_len = 2;
    for (uint32_t i = 0; i < t->count; i++) {
        uint64_t value = i + 1 < t->count ? cumulative[i] : count;
        if (value != last) {
            last = value;
            char *end = put_u64(number, value);
            *end++ = '\n';
            number_len = (size_t)(end - number);
        }
        if (i > 0)
            at = put_blocks(at, first, prefix_len);
        memcpy(at, t->bounds[i].text, sizeof(t->bounds[i].text));
        at += t->bounds[i].len;
        memcpy(at, number, sizeof(number));
        at += number_len;
    }
    size_t labels_len = labels.len > 0 ? labels.len + 1 : 0; /* with the brace */
    const char *close = labels.len > 0 ? "} " : " ";
    at = put_blocks(at, first, e->name_len);
    at = put(at, "_sum", 4);
    at = put_blocks(at, open, labels_len);
    at = put(at, close, strlen(close));
    at += double_text(at, sum, false);
    *at++ = '\n';
    at = put_blocks(at, first, e->name_len);
    at = put(at, "_count", 6);
    at = put_blocks(at, open, labels_len);
    at = put(at, close, strlen(close));
    at = put(at, number, number_len - 1);
    line_end(e, at);
}
