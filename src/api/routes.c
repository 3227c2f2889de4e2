/* Which path is which operation, and the HTTP server's callbacks. */
#include <assert.h>
#include <string.h>

#include "api/api.h"
#include "api/call.h"
#include "api/metrics.h"
#include "api/v1/v1.h"
#include "api/v2/v2.h"
#include "base/number.h"

/* The hot one first. */
static const struct route routes[] = {
    { HTTP_POST, "/v2/models/{model}/infer", v2_infer, ROUTE_INFER, CATEGORY_INFERENCE },
    { HTTP_POST, "/v2/models/{model}/versions/{version}/infer", v2_infer, ROUTE_INFER,
      CATEGORY_INFERENCE },
    { HTTP_POST, "/api/infer/{model}", v1_infer, ROUTE_INFER, CATEGORY_INFERENCE },
    { HTTP_POST, "/api/infer/{model}/{version}", v1_infer, ROUTE_INFER, CATEGORY_INFERENCE },

    { HTTP_GET, "/v2", v2_server_metadata, 0, CATEGORY_METADATA },
    { HTTP_GET, "/v2/health/live", v2_live, ROUTE_EXEMPT, CATEGORY_HEALTH },
    { HTTP_GET, "/v2/health/ready", v2_ready, ROUTE_EXEMPT, CATEGORY_HEALTH },
    { HTTP_GET, "/v2/models/stats", v2_statistics, 0, CATEGORY_STATISTICS },
    { HTTP_GET, "/v2/models/{model}", v2_model_metadata, 0, CATEGORY_METADATA },
    { HTTP_GET, "/v2/models/{model}/versions/{version}", v2_model_metadata, 0, CATEGORY_METADATA },
    { HTTP_GET, "/v2/models/{model}/ready", v2_model_ready, ROUTE_EXEMPT, CATEGORY_HEALTH },
    { HTTP_GET, "/v2/models/{model}/versions/{version}/ready", v2_model_ready, ROUTE_EXEMPT,
      CATEGORY_HEALTH },
    { HTTP_GET, "/v2/models/{model}/config", v2_model_config, 0, CATEGORY_MODEL_CONFIG },
    { HTTP_GET, "/v2/models/{model}/versions/{version}/config", v2_model_config, 0,
      CATEGORY_MODEL_CONFIG },
    { HTTP_GET, "/v2/models/{model}/stats", v2_statistics, 0, CATEGORY_STATISTICS },
    { HTTP_GET, "/v2/models/{model}/versions/{version}/stats", v2_statistics, 0,
      CATEGORY_STATISTICS },
    { HTTP_POST, "/v2/repository/index", v2_repository_index, 0, CATEGORY_MODEL_REPOSITORY },
    { HTTP_POST, "/v2/repository/models/{model}/load", v2_model_control, 0,
      CATEGORY_MODEL_REPOSITORY },
    { HTTP_POST, "/v2/repository/models/{model}/unload", v2_model_control, 0,
      CATEGORY_MODEL_REPOSITORY },
    { HTTP_GET, "/v2/logging", v2_logging, 0, CATEGORY_LOGGING },
    { HTTP_POST, "/v2/logging", v2_logging, 0, CATEGORY_LOGGING },
    { HTTP_GET, "/metrics", metrics_page, ROUTE_METRICS, CATEGORY_STATISTICS },
    { HTTP_GET, "/metrics/", metrics_page, ROUTE_METRICS, CATEGORY_STATISTICS },

    { HTTP_GET, "/api/health/live", v1_live, ROUTE_EXEMPT, CATEGORY_HEALTH },
    { HTTP_GET, "/api/health/ready", v1_ready, ROUTE_EXEMPT, CATEGORY_HEALTH },
    { HTTP_GET, "/api/health", v1_health_without_mode, ROUTE_EXEMPT, CATEGORY_HEALTH },
    { HTTP_GET, "/api/health/", v1_health_without_mode, ROUTE_EXEMPT, CATEGORY_HEALTH },
    { HTTP_GET, "/api/status", v1_status, 0, CATEGORY_V1_STATUS },
    { HTTP_GET, "/api/status/", v1_status, 0, CATEGORY_V1_STATUS },
    { HTTP_GET, "/api/status/{rest}", v1_status, 0, CATEGORY_V1_STATUS },
    { HTTP_GET, "/api/profile", v1_profile, 0, CATEGORY_TRACE },
    { HTTP_GET, "/api/profile/", v1_profile, 0, CATEGORY_TRACE },
    { HTTP_GET, "/api/repository/index", v1_repository_index, 0, CATEGORY_MODEL_REPOSITORY },
    { HTTP_POST, "/api/modelcontrol/load/{model}", v1_model_control, 0, CATEGORY_MODEL_REPOSITORY },
    { HTTP_POST, "/api/modelcontrol/unload/{model}", v1_model_control, 0,
      CATEGORY_MODEL_REPOSITORY },
};

static bool is_digits(const char *at, size_t len)
{
    return len > 0 && strspn(at, "0123456789") >= len;
}

/* Undoes percent-encoding where it stands: the text of the request is the call's alone, and shrinks.
 * After routing, so that an encoded slash stays part of the name. */
static void part_decode(struct part *part)
{
    char *at = (char *)(uintptr_t)part->at;
    size_t len = 0;
    for (size_t i = 0; i < part->len; i++, len++) {
        int high = i + 2 < part->len ? number_hex_digit(at[i + 1]) : -1;
        int low = i + 2 < part->len ? number_hex_digit(at[i + 2]) : -1;
        if (at[i] != '%' || high < 0 || low < 0) {
            at[len] = at[i];
            continue;
        }
        at[len] = (char)(high << 4 | low);
        i += 2;
    }
    part->len = len;
}

/* Does the path fit the pattern? Fills the call's parts. */
static bool route_matches(const char *pattern, const char *path, struct call *call)
{
    call->model = call->version = call->rest = (struct part){ 0 };
    while (*pattern) {
        if (*pattern != '{') {
            if (*pattern++ != *path++)
                return false;
            continue;
        }
        size_t len = pattern[1] == 'r' ? strlen(path) : strcspn(path, "/");
        struct part part = { path, len };
        if (len == 0)
            return false;
        if (pattern[1] == 'm')
            call->model = part;
        else if (pattern[1] == 'r')
            call->rest = part;
        else if (is_digits(path, len))
            call->version = part;
        else
            return false;
        path += len;
        pattern = strchr(pattern, '}') + 1;
    }
    return *path == '\0';
}

/* The route of the call; without one 404 or 405 in *ret_status. */
static const struct route *route_find(struct call *call, int *ret_status)
{
    enum http_method method = call->ex->method == HTTP_HEAD ? HTTP_GET : call->ex->method;
    *ret_status = 404;
    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        if (!route_matches(routes[i].pattern, call->ex->path, call))
            continue;
        if (routes[i].flags & ROUTE_METRICS && !call->api->options.metrics_on_http_port)
            continue;
        if (routes[i].method == method)
            return &routes[i];
        *ret_status = 405;
    }
    return NULL;
}

static bool is_v1(const struct http_exchange *ex)
{
    return strncmp(ex->path, "/api", 4) == 0 && (ex->path[4] == '/' || ex->path[4] == '\0');
}

/* The operation is not for this client. Takes err. */
static void refuse(struct call *call, tis_error *err)
{
    if (is_v1(call->ex)) {
        v1_answer(call, err);
        return;
    }
    v2_append_error(&call->out, error_text(err));
    call_respond_json(call, 403, &call->out);
    error_free(err);
}

/* ---- The HTTP servers' callbacks ---- */

static void on_head(struct http_exchange *ex, void *arg)
{
    struct api *api = arg;
    struct call *call = call_create(api, ex);
    if (!call) {
        http_respond_copy(ex, 503, "", NULL, 0);
        return;
    }
    ex->user = call;
    int status;
    call->route = route_find(call, &status);
    if (!call->route) {
        if (is_v1(ex))
            v1_no_route(call);
        else
            v2_no_route(call, status);
        return;
    }
    tis_error *err = restrictions_check(&api->options.http_restrictions, &restriction_http,
                                        call->route->categories, ex->headers, ex->header_count);
    if (err) {
        refuse(call, err);
        return;
    }
    part_decode(&call->model);
    ex->budget_exempt = call->route->flags & ROUTE_EXEMPT;
    ex->body_bytes_max = api->options.body_bytes_max;
}

/* The body's buffer begins so that the first tensor behind a v2 JSON head is aligned. */
static tis_error *on_body(struct http_exchange *ex, size_t bytes,
                          struct http_body_memory *ret_memory, void *arg)
{
    (void)arg;
    uint64_t json_len = 0;
    const struct http_header *h = http_header_find(ex, V2_HEADER_LENGTH);
    if (h && (!number_parse_u64(h->value, h->value_len, &json_len) || json_len > bytes))
        json_len = 0; /* wrong; found and said when the request is decoded */

    struct call *call = ex->user;
    struct buffer *b = buffer_create(bytes, json_len % BUFFER_ALIGNMENT);
    if (!b)
        return error_no_memory();
    buffer_unref(call->body);
    call->body = b;
    *ret_memory = (struct http_body_memory){
        .base = b->base,
        .bytes = b->capacity,
        .owner = buffer_ref(b),
        .release = (void (*)(void *))buffer_unref,
    };
    return NULL;
}

static void on_request(struct http_exchange *ex, void *arg)
{
    (void)arg;
    struct call *call = ex->user;
    call->recv_end_ns = ex->recv_end_ns;
    call->route->handle(call);
}

static void on_cancel(struct http_exchange *ex, void *arg)
{
    (void)arg;
    call_cancel(ex->user);
}

static void on_end(struct http_exchange *ex, void *arg)
{
    (void)arg;
    call_destroy(ex->user);
    ex->user = NULL;
}

/* The HTTP server itself refuses: a limit, a client too slow, bad framing. */
static void on_error(struct http_exchange *ex, int status, const char *text, void *arg)
{
    if (is_v1(ex)) {
        v1_refuse(ex, arg, status, text);
        return;
    }
    struct bytes json = { 0 };
    v2_append_error(&json, text);
    http_respond_copy(ex, status, "Content-Type: application/json\r\n", json.data, json.len);
    bytes_fini(&json);
}

struct http_handler api_http_handler(struct api *api)
{
    for (size_t i = 0; i < ARRAY_LEN(routes); i++)
        assert(routes[i].categories != 0); /* such a row could not be restricted */
    return (struct http_handler){
        .arg = api,
        .on_head = on_head,
        .on_body = on_body,
        .on_request = on_request,
        .on_cancel = on_cancel,
        .on_end = on_end,
        .on_error = on_error,
    };
}

/* ---- The metrics port ---- */

static const struct route metrics_route = { HTTP_GET, "/metrics", metrics_page, 0,
                                            CATEGORY_STATISTICS };

/* The page and nothing else; who may ask is the network's business, as with Triton. */
static void on_metrics_head(struct http_exchange *ex, void *arg)
{
    static const char plain[] = "Content-Type: text/plain; charset=utf-8\r\n";
    static const char not_found[] = "the metrics are at /metrics\n";
    static const char not_allowed[] = "only GET and HEAD\n";
    struct call *call = call_create(arg, ex);
    ex->user = call;
    if (!call) {
        http_respond_copy(ex, 503, "", NULL, 0);
    } else if (strcmp(ex->path, "/metrics") != 0 && strcmp(ex->path, "/metrics/") != 0) {
        http_respond_copy(ex, 404, plain, not_found, strlen(not_found));
    } else if (ex->method != HTTP_GET && ex->method != HTTP_HEAD) {
        http_respond_copy(ex, 405, "Allow: GET, HEAD\r\nContent-Type: text/plain\r\n", not_allowed,
                          strlen(not_allowed));
    } else {
        call->route = &metrics_route;
    }
}

struct http_handler api_metrics_handler(struct api *api)
{
    return (struct http_handler){
        .arg = api,
        .on_head = on_metrics_head,
        .on_request = on_request,
        .on_cancel = on_cancel,
        .on_end = on_end,
    };
}
