#include "api/restrict.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "base/bytes.h"

#define INVALID(...) error_new(TRITONSERVER_ERROR_INVALID_ARG, __VA_ARGS__)
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

const struct restriction_form restriction_http = { "API", "" };
const struct restriction_form restriction_grpc = { "protocol", "triton-grpc-protocol-" };

static const char *const names[CATEGORY_COUNT] = {
    "health",           "metadata",   "inference", "shared-memory", "model-config",
    "model-repository", "statistics", "trace",     "logging",
};

static tis_error *unknown_category(const char *name)
{
    struct bytes list = { 0 };
    for (size_t i = 0; i < CATEGORY_COUNT; i++)
        bytes_printf(&list, "%s%s", i > 0 ? ", " : "", names[i]);
    tis_error *err = INVALID("unknown category '%s', expected of %s", name, bytes_str(&list));
    bytes_fini(&list);
    return err;
}

static tis_error *add_category(struct restrictions *r, const char *name, const char *key,
                               const char *value)
{
    for (size_t i = 0; i < CATEGORY_COUNT; i++) {
        if (strcmp(names[i], name) != 0)
            continue;
        if (r->restricted & 1u << i)
            return INVALID("category '%s' is restricted twice, by key '%s' and by key '%s', "
                           "expected once",
                           name, r->by[i].key, key);
        r->restricted |= 1u << i;
        r->by[i].key = key;
        r->by[i].value = value;
        return NULL;
    }
    return unknown_category(name);
}

tis_error *restrictions_add(struct restrictions *r, char *text)
{
    char *colon = strchr(text, ':');
    char *equals = colon ? strchr(colon, '=') : NULL;
    if (!equals || colon == text || equals == colon + 1 || equals[1] == '\0')
        return INVALID("expected <category>[,<category>]...:<key>=<value>");
    *colon = '\0';
    *equals = '\0';
    char *key = colon + 1;
    size_t token_len = strspn(key, LETTERS "0123456789!#$%&'*+-.^_`|~");
    if (key[token_len])
        return INVALID("key '%s' cannot be the name of a header: it holds '%c'", key,
                       key[token_len]);

    struct restrictions added = *r;
    tis_error *err = NULL;
    while (text && !err) {
        char *name = strsep(&text, ",");
        err = add_category(&added, name, key, equals + 1);
    }
    if (!err)
        *r = added;
    return err;
}

/* The time depends on what the client has sent, not on how much of it is right. */
static bool is_value(const char *expected, const char *value, size_t len)
{
    size_t expected_len = strlen(expected);
    size_t difference = expected_len ^ len;
    for (size_t i = 0; i < len; i++)
        difference |= (unsigned char)(value[i] ^ expected[i % expected_len]);
    return difference == 0;
}

static bool is_allowed(const char *prefix, const char *key, const char *value,
                       const struct http_header *headers, uint32_t header_count)
{
    size_t prefix_len = strlen(prefix), key_len = strlen(key);
    for (uint32_t i = 0; i < header_count; i++) {
        const struct http_header *h = &headers[i];
        if (h->name_len == prefix_len + key_len && strncasecmp(h->name, prefix, prefix_len) == 0 &&
            strncasecmp(h->name + prefix_len, key, key_len) == 0)
            return is_value(value, h->value, h->value_len);
    }
    return false;
}

tis_error *restrictions_check(const struct restrictions *r, const struct restriction_form *form,
                              uint32_t categories, const struct http_header *headers,
                              uint32_t header_count)
{
    uint32_t open = r->restricted & categories;
    while (open) {
        int i = __builtin_ctz(open);
        open &= open - 1;
        if (!is_allowed(form->prefix, r->by[i].key, r->by[i].value, headers, header_count))
            return error_new(TRITONSERVER_ERROR_UNAVAILABLE,
                             "This %s is restricted, expecting header '%s%s'", form->noun,
                             form->prefix, r->by[i].key);
    }
    return NULL;
}
