/* metrics/exposition.h - the text of a metrics page.
 *
 * A page is a row of families, each with its series, in one of two forms: Prometheus' text format
 * 0.0.4, or OpenMetrics 1.0. They differ in the lines before a family and in the end of the page.
 * In OpenMetrics a counter ends with _total; those that have other names, taken over from TRTIS and
 * Triton, keep them and have the type `unknown` there.
 *
 * Numbers: counters exactly, up to 2^64; others with the fewest digits that read back as the same.
 *
 * Ownership: the text is the caller's; families and bucket texts are borrowed until the next family.
 * Threads:   one at a time.
 */
#ifndef TIS_METRICS_EXPOSITION_H
#define TIS_METRICS_EXPOSITION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

enum exposition_format {
    EXPOSITION_TEXT,
    EXPOSITION_OPENMETRICS,
};

/* For the header Content-Type. */
const char *exposition_content_type(enum exposition_format format);

enum metric_type {
    METRIC_COUNTER,
    METRIC_GAUGE,
    METRIC_HISTOGRAM,
};

struct metric_info {
    const char *name; /* of its series; of a histogram without _bucket, _count and _sum */
    enum metric_type type;
    const char *unit; /* what the name ends in, before _total; NULL: none that counts */
    const char *help;
};

/* name="value",name="value" without braces, escaped; see labels_append(). */
struct label_text {
    const char *at;
    size_t len;
};

struct exposition {
    /* set by exposition_init(), then constant */
    struct bytes *out;
    enum exposition_format format;
    /* the family in hand */
    const struct metric_info *family;
    size_t name_len;
    bool is_begun; /* it has a series */
};

void exposition_init(struct exposition *e, enum exposition_format format, struct bytes *out);
/* Series of this family follow; without any it leaves no trace. */
void exposition_family(struct exposition *e, const struct metric_info *family);
/* One series of a counter or gauge. `more`: further labels, in the same form, or NULL. */
void exposition_u64(struct exposition *e, struct label_text labels, const char *more,
                    uint64_t value);
void exposition_double(struct exposition *e, struct label_text labels, const char *more,
                       double value);
/* Nothing follows. Afterwards out->failed says whether the page is whole. */
void exposition_finish(struct exposition *e);

/* ---- Histograms ---- */

enum {
    BUCKETS_MAX = 64,
    NUMBER_TEXT_BYTES = 32,
};

/* How the bounds of buckets are written, for many series with the same ones. */
struct bucket_texts {
    uint32_t count; /* with +Inf */
    struct {
        char text[NUMBER_TEXT_BYTES + 8]; /* ,le="0.5"} */
        uint8_t len;
    } bounds[BUCKETS_MAX + 1];
};

/* upper[0..count): ascending, count <= BUCKETS_MAX, without +Inf. */
void bucket_texts_init(struct bucket_texts *t, const double *upper, uint32_t count);
/* One series of a histogram. cumulative[i]: observations not above the i-th bound; count: all. */
void exposition_histogram(struct exposition *e, struct label_text labels,
                          const struct bucket_texts *t, const uint64_t *cumulative, uint64_t count,
                          double sum);

/* ---- Parts ---- */

/* Adds a label to the text that begins at out->data[begin]. name: a legal one. value: any bytes; what
 * is no UTF-8 becomes U+FFFD. */
void labels_append(struct bytes *out, size_t begin, const char *name, const char *value,
                   size_t value_len);
/* Letters, digits, '_' and, in the name of a metric, ':'; not a digit first, not empty. */
bool metric_name_is_legal(const char *name);
bool label_name_is_legal(const char *name);

/* The fewest digits that read back as value. is_bound: in the canonical form of bounds, which is Go's
 * ("1e-05", "1e+06") with ".0" behind whole numbers. Returns the length. */
size_t double_text(char out[NUMBER_TEXT_BYTES], double value, bool is_bound);

#endif
