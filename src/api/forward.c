#define PCRE2_CODE_UNIT_WIDTH 8
#include "api/forward.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "proto/message.h"

enum {
    MATCH_STEPS_MAX = 20000, /* PCRE2's match limit: a millisecond or so */
    MATCH_DEPTH_MAX = 1000,
};

#define INVALID(...) error_new(TRITONSERVER_ERROR_INVALID_ARG, __VA_ARGS__)

struct forward {
    const char *flag;
    pcre2_code *code;
    pcre2_match_context *limits;
};

tis_error *forward_create(const char *flag, const char *pattern, struct forward **ret_forward)
{
    int why;
    PCRE2_SIZE at;
    if (!pattern || !pattern[0]) {
        *ret_forward = NULL;
        return NULL;
    }
    struct forward *f = calloc(1, sizeof(*f));
    if (!f)
        return error_no_memory();
    f->flag = flag;
    f->code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_CASELESS, &why, &at, NULL);
    f->limits = pcre2_match_context_create(NULL);
    tis_error *err = NULL;
    if (!f->code) {
        PCRE2_UCHAR text[128] = "";
        pcre2_get_error_message(why, text, sizeof(text));
        err = INVALID("%s=%s: the pattern is wrong at character %zu: %s", flag, pattern, at + 1,
                      (const char *)text);
    } else if (!f->limits) {
        err = error_no_memory();
    }
    if (err) {
        forward_destroy(f);
        return err;
    }
    pcre2_set_match_limit(f->limits, MATCH_STEPS_MAX);
    pcre2_set_depth_limit(f->limits, MATCH_DEPTH_MAX);
    *ret_forward = f;
    return NULL;
}

void forward_destroy(struct forward *f)
{
    if (!f)
        return;
    pcre2_code_free(f->code);
    pcre2_match_context_free(f->limits);
    free(f);
}

/* With regard to case: the parameters have it too. */
static bool is_reserved(const struct http_header *h)
{
    static const char *const names[] = {
        "sequence_id", "sequence_start", "sequence_end",       "priority",
        "timeout",     "headers",        "binary_data_output",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strlen(names[i]) == h->name_len && memcmp(names[i], h->name, h->name_len) == 0)
            return true;
    }
    return h->name_len >= 7 && memcmp(h->name, "triton_", 7) == 0;
}

static int base64_digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* With padding or without. Into out, which holds len bytes; false when it is no base64. */
static bool base64_decode(const char *text, size_t len, char *out, size_t *ret_len)
{
    uint32_t bits = 0;
    size_t out_len = 0;
    while (len > 0 && text[len - 1] == '=')
        len--;
    for (size_t i = 0; i < len; i++) {
        int digit = base64_digit(text[i]);
        if (digit < 0)
            return false;
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 != 0) /* 8 bits at least are there; what is behind them begins the next byte */
            out[out_len++] = (char)(bits >> (6 - 2 * (i % 4)));
    }
    *ret_len = out_len;
    return len % 4 != 1;
}

static bool is_binary(const struct http_header *h)
{
    return h->name_len > 4 && memcmp(h->name + h->name_len - 4, "-bin", 4) == 0;
}

/* The header as a parameter; *ret_parameter stays as it is when the value is no text. */
static tis_error *make_parameter(struct arena *a, const struct http_header *h, bool is_grpc,
                                 struct tis_parameter *ret_parameter)
{
    char *name = arena_strndup(a, h->name, h->name_len);
    char *value = arena_strndup(a, h->value, h->value_len);
    size_t len = h->value_len;
    if (!name || !value)
        return error_no_memory();
    if (is_grpc && is_binary(h)) {
        if (!base64_decode(h->value, h->value_len, value, &len))
            return NULL;
        value[len] = '\0';
    }
    if (memchr(value, '\0', len) || !utf8_is_valid(value, len))
        return NULL;
    *ret_parameter = (struct tis_parameter){ .name = name,
                                             .type = TRITONSERVER_PARAMETER_STRING,
                                             .value.string = value };
    return NULL;
}

/* Makes room for `count` more parameters. */
static bool reserve(struct tis_request *req, uint32_t count)
{
    struct tis_parameter *all =
        arena_calloc(&req->arena, req->parameter_count + count, sizeof(*all));
    if (!all)
        return false;
    if (req->parameter_count > 0)
        memcpy(all, req->parameters, req->parameter_count * sizeof(*all));
    req->parameters = all;
    return true;
}

tis_error *forward_headers(const struct forward *f, const struct http_header *headers,
                           uint32_t header_count, bool is_grpc, struct tis_request *req)
{
    if (!f || header_count == 0)
        return NULL;
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    tis_error *err = match && reserve(req, header_count) ? NULL : error_no_memory();
    for (uint32_t i = 0; i < header_count && !err; i++) {
        const struct http_header *h = &headers[i];
        int found = pcre2_match(f->code, (PCRE2_SPTR)h->name, h->name_len, 0, 0, match, f->limits);
        if (found == PCRE2_ERROR_NOMATCH)
            continue;
        struct tis_parameter *p = &req->parameters[req->parameter_count];
        if (found < 0)
            err = INVALID("header '%.*s' is too hard to compare with %s", (int)h->name_len, h->name,
                          f->flag);
        else if (is_reserved(h))
            err = INVALID("Header '%.*s' is reserved for Triton usage and cannot be forwarded.",
                          (int)h->name_len, h->name);
        else
            err = make_parameter(&req->arena, h, is_grpc, p);
        req->parameter_count += !err && p->name;
    }
    pcre2_match_data_free(match);
    return err;
}
