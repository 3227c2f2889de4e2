/* Any bytes as headers, lines of "name:value", of which all are forwarded: an error with words, or
 * parameters that are texts.
 *
 * Parses: src/api/forward.c */
#include <stdlib.h>
#include <string.h>

#include "api/forward.h"
#include "fuzz/model.h"
#include "proto/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    HEADERS_MAX = 16
};

static void sink_complete(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    (void)sink;
    (void)response;
    (void)flags;
}

/* One for all inputs. */
static const struct forward *pattern(void)
{
    static struct forward *f;
    if (!f) {
        tis_error *err = forward_create("--flag", "(", &f);
        must(err && !f);
        error_free(err);
        must(!forward_create("--flag", "^(a|aa)*$|.", &f));
    }
    return f;
}

static uint32_t split(char *text, struct http_header *headers)
{
    uint32_t count = 0;
    for (char *line; count < HEADERS_MAX && (line = strsep(&text, "\n")) != NULL;) {
        size_t name_len = strcspn(line, ":");
        char *value = line + name_len + (line[name_len] == ':');
        headers[count++] = (struct http_header){
            .name = line,
            .name_len = (uint32_t)name_len,
            .value = value,
            .value_len = (uint32_t)strlen(value),
        };
    }
    return count;
}

/* The first byte chooses the protocol; the rest is a string, as parsed headers hold no NUL. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct sink_ops ops = { .complete = sink_complete };
    struct http_header headers[HEADERS_MAX];
    if (size == 0)
        return 0;
    char *text = strndup((const char *)data + 1, size - 1);
    struct tis_request *req = request_create(&ops, NULL);
    must(text && req);
    uint32_t count = split(text, headers);
    tis_error *err = forward_headers(pattern(), headers, count, data[0] == 'g', req);
    must(!err || *error_text(err));
    must(req->parameter_count <= count);
    for (uint32_t i = 0; i < req->parameter_count; i++) {
        const struct tis_parameter *p = &req->parameters[i];
        must(p->type == TRITONSERVER_PARAMETER_STRING);
        must(utf8_is_valid(p->value.string, strlen(p->value.string)));
    }
    error_free(err);
    request_free(&req);
    free(text);
    return 0;
}
