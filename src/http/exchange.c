#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/number.h"
#include "http/conn.h"

struct exchange *exchange_get(struct shard *s)
{
    struct exchange *x = s->free_exchanges;
    if (x) {
        s->free_exchanges = x->next_free;
        s->free_count--;
    } else {
        x = malloc(sizeof(*x));
        if (!x)
            return NULL;
        x->buf = x->inline_buf;
        x->capacity = READ_BUFFER_BYTES;
    }
    x->next_free = NULL;
    x->start = 0;
    x->len = 0;
    exchange_reset(x);
    return x;
}

void exchange_put(struct shard *s, struct exchange *x)
{
    if (x->buf != x->inline_buf) {
        free(x->buf);
        x->buf = x->inline_buf;
        x->capacity = READ_BUFFER_BYTES;
    }
    if (s->free_count == FREE_EXCHANGES_MAX) {
        free(x);
        return;
    }
    x->next_free = s->free_exchanges;
    s->free_exchanges = x;
    s->free_count++;
}

void exchange_reset(struct exchange *x)
{
    memset(&x->pub, 0, sizeof(x->pub));
    x->pub.method = HTTP_OTHER;
    x->pub.method_name = "";
    x->pub.path = "";
    x->pub.query = "";
    x->pub.headers = x->parser.headers;
    x->is_seen = false;
    x->is_asked = false;
    x->is_answered = false;
    x->is_cancelled = false;
    x->expects_continue = false;
    x->parsed = x->start;
    x->head_end = x->start;
    parser_reset(&x->parser);
    memset(&x->memory, 0, sizeof(x->memory));
    x->room = 0;
    x->body_len = 0;
    x->drop_left = 0;
    x->budget_bytes = 0;
    x->out = OUT_NONE;
    x->iov = x->iov_inline;
    x->iov_count = 0;
    x->iov_at = 0;
    x->out_big = NULL;
    x->done = NULL;
}

struct loop *http_exchange_loop(const struct http_exchange *ex)
{
    return CONTAINER_OF(ex, const struct exchange, pub)->conn->shard->loop;
}

bool http_exchange_is_cancelled(const struct http_exchange *ex)
{
    return CONTAINER_OF(ex, const struct exchange, pub)->is_cancelled;
}

const struct http_header *http_header_find(const struct http_exchange *ex, const char *name)
{
    size_t len = strlen(name);
    for (uint32_t i = 0; i < ex->header_count; i++) {
        const struct http_header *h = &ex->headers[i];
        if (h->name_len == len && strncasecmp(h->name, name, len) == 0)
            return h;
    }
    return NULL;
}

/* Decodes [s, end) into out, cut at out_bytes. A '%' without two digits stands for itself. */
static void percent_decode(const char *s, const char *end, char *out, size_t out_bytes)
{
    size_t n = 0;
    while (s < end && n + 1 < out_bytes) {
        if (*s == '%' && end - s > 2 && number_hex_digit(s[1]) >= 0 &&
            number_hex_digit(s[2]) >= 0) {
            out[n++] = (char)(number_hex_digit(s[1]) * 16 + number_hex_digit(s[2]));
            s += 3;
        } else {
            out[n++] = *s == '+' ? ' ' : *s;
            s++;
        }
    }
    if (out_bytes)
        out[n] = '\0';
}

bool http_query_get(const struct http_exchange *ex, const char *key, char *out, size_t out_bytes)
{
    size_t key_len = strlen(key);
    const char *end = ex->query + ex->query_len;
    for (const char *s = ex->query; s < end;) {
        const char *item_end = memchr(s, '&', (size_t)(end - s));
        if (!item_end)
            item_end = end;
        const char *equals = memchr(s, '=', (size_t)(item_end - s));
        const char *key_end = equals ? equals : item_end;
        if ((size_t)(key_end - s) == key_len && memcmp(s, key, key_len) == 0) {
            percent_decode(equals ? equals + 1 : item_end, item_end, out, out_bytes);
            return true;
        }
        s = item_end < end ? item_end + 1 : end;
    }
    return false;
}
