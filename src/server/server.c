#include "server/server.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "api/api.h"
#include "api/inproc.h"
#include "base/alarm.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/number.h"
#include "base/processors.h"
#include "exec/backend.h"
#include "grpc/server.h"
#include "http/server.h"
#include "model/registry.h"
#include "net/loop.h"
#include "net/tls.h"
#include "sched/limiter.h"

/* For ALPN, in order of preference. A client that can do both gets HTTP/1.1 on the HTTP port: only
 * gRPC is spoken over HTTP/2 there. */
#define HTTP_PROTOCOLS "\x08http/1.1\x08http/1.0"
#define GRPC_PROTOCOLS "\x02h2"

enum {
    LOOPS_MAX = 256,
    LOOPS_DEFAULT_MAX = 4,
    BODY_BYTES_PER_SEC_MIN = 1024,
    BUDGET_WAIT_SECS = 2,
    /* Of the metrics port: a handful of collectors. */
    METRICS_CONNECTIONS_MAX = 16,
    METRICS_IDLE_SECS = 300,
    WORKER_COUNT = 2,
    GRPC_STREAMS_MAX = 1024,
    GRPC_HEADER_BYTES_MAX = 64 << 10,
};

struct server {
    /* set at creation, then constant */
    const struct options *options;
    char *backend_directory;
    struct backends *backends;
    struct host_policies *host_policies;
    struct registry *registry;
    struct pool *workers;
    struct alarms *alarms;
    struct limiter *limiter; /* NULL: --rate-limit=off */
    struct tis_server plugin_view;
    struct budget budget;
    struct api api;
    struct forward *http_forward; /* NULL: no header */
    struct forward *grpc_forward;
    struct loop *loops[LOOPS_MAX];
    uint32_t loop_count;
    struct tls *http_tls;        /* NULL: cleartext */
    struct tls *grpc_tls;        /* likewise */
    struct http_server *http;    /* NULL: not allowed */
    struct grpc_server *grpc;    /* likewise */
    struct http_server *metrics; /* likewise */
    char *metrics_address;
};

static bool is_directory(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* 'backends' beside the executable, else beside its folder, else Triton's. malloc'ed. */
char *server_backend_directory(const struct options *o, const char *executable)
{
    static const char *const places[] = { "backends", "../backends" };
    if (o->backend_directory)
        return strdup(o->backend_directory);
    const char *slash = strrchr(executable, '/');
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        struct bytes path = { 0 };
        if (slash)
            bytes_append(&path, executable, (size_t)(slash - executable) + 1);
        bytes_append_str(&path, places[i]);
        if (is_directory(bytes_str(&path)))
            return bytes_steal(&path);
        bytes_fini(&path);
    }
    return strdup("/opt/tritonserver/backends");
}

static tis_error *create_loops(struct server *s)
{
    uint32_t processors = processors_usable();
    uint64_t count = s->options->http_thread_count;
    if (count == 0)
        count = processors < LOOPS_DEFAULT_MAX ? processors : LOOPS_DEFAULT_MAX;
    while (s->loop_count < count) {
        char name[16];
        snprintf(name, sizeof(name), "loop:%u", s->loop_count);
        tis_error *err = loop_create(name, &s->loops[s->loop_count]);
        if (err)
            return err;
        s->loop_count++;
    }
    return NULL;
}

static void log_certificate(const char *event, const struct tls *tls, const char *port)
{
    char text[512];
    tls_describe(tls, text, sizeof(text));
    log_info("%s port=%s %s", event, port, text);
}

/* TLS of one port, as its flags say; *ret_tls stays NULL without. */
static tis_error *create_tls(const struct ssl_options *ssl, bool is_http, const char *protocols,
                             uint64_t handshake_ns_max, struct tls **ret_tls)
{
    if (!ssl->is_used) {
        if (ssl->certificate || ssl->key || ssl->root)
            log_warning("--%s-use-ssl is false: the port speaks no TLS, and the files of its "
                        "certificates are not used",
                        is_http ? "http" : "grpc");
        return NULL;
    }
    tis_error *err = tls_create(
        &(struct tls_options){
            .certificate = { ssl->certificate,
                             is_http ? "--http-server-cert" : "--grpc-server-cert" },
            .key = { ssl->key, is_http ? "--http-server-key" : "--grpc-server-key" },
            .root = { ssl->root, is_http ? "--http-root-cert" : "--grpc-root-cert" },
            .is_mutual = ssl->is_mutual,
            .protocols = protocols,
            .handshake_ns_max = handshake_ns_max,
        },
        ret_tls);
    if (!err)
        log_certificate("tls certificate", *ret_tls, is_http ? "http" : "grpc");
    return err;
}

/* A connection of the HTTP port that speaks HTTP/2: gRPC. */
static void http2_begins(struct transport *from, const void *bytes, size_t len, void *arg)
{
    struct server *s = arg;
    grpc_server_adopt_transport(s->grpc, from, bytes, len);
}

/* After create_grpc(). */
static tis_error *create_http(struct server *s)
{
    const struct options *o = s->options;
    if (!o->allow_http)
        return NULL;
    tis_error *err =
        create_tls(&o->http_ssl, true, s->grpc ? HTTP_PROTOCOLS GRPC_PROTOCOLS : HTTP_PROTOCOLS,
                   o->http_header_timeout_secs * NS_PER_SEC, &s->http_tls);
    if (err)
        return err;
    struct http_server_options http = {
        .address = o->http_address,
        .port = (uint16_t)o->http_port,
        .reuse_port = o->reuse_http_port,
        .tls = s->http_tls,
        .cancel_on_half_close = o->http_cancel_on_half_close,
        .limits = {
            .head_bytes_max = o->http_max_header_size,
                .head_bytes_flag = "--http-max-header-size",
            .body_bytes_max = o->http_max_input_size,
            .head_ns_max = o->http_header_timeout_secs * NS_PER_SEC,
            .idle_ns_max = o->http_idle_timeout_secs * NS_PER_SEC,
            .body_stall_ns_max = o->http_stall_timeout_secs * NS_PER_SEC,
            .body_rate_min = BODY_BYTES_PER_SEC_MIN,
            .budget_wait_ns_max = BUDGET_WAIT_SECS * NS_PER_SEC,
            .connections_max = (uint32_t)o->http_max_connections,
        },
        .budget = &s->budget,
        .on_http2 = s->grpc ? http2_begins : NULL,
        .on_http2_arg = s,
    };
    struct http_handler handler = api_http_handler(&s->api);
    return http_server_create(&http, &handler, s->loops, s->loop_count, &s->http);
}

static struct grpc_lifetime grpc_lifetime_of(const struct options *o)
{
    return (struct grpc_lifetime){
        .keepalive_ns =
            o->grpc_keepalive_time == INT32_MAX ? 0 : o->grpc_keepalive_time * NS_PER_MS,
        .keepalive_timeout_ns = o->grpc_keepalive_timeout * NS_PER_MS,
        .keepalive_without_calls = o->grpc_keepalive_permit_without_calls,
        .pings_without_data_max = (uint32_t)o->grpc_http2_max_pings_without_data,
        .ping_interval_ns_min = o->grpc_http2_min_recv_ping_interval_without_data * NS_PER_MS,
        .ping_strikes_max = (uint32_t)o->grpc_http2_max_ping_strikes,
        .age_ns_max = o->grpc_max_connection_age * NS_PER_MS,
        .age_grace_ns = o->grpc_max_connection_age_grace * NS_PER_MS,
    };
}

static tis_error *create_grpc(struct server *s)
{
    const struct options *o = s->options;
    if (!o->allow_grpc)
        return NULL;
    tis_error *err = create_tls(&o->grpc_ssl, false, GRPC_PROTOCOLS,
                                o->http_header_timeout_secs * NS_PER_SEC, &s->grpc_tls);
    if (err)
        return err;
    struct grpc_server_options grpc = {
        .address = o->grpc_address,
        .port = (uint16_t)o->grpc_port,
        .reuse_port = o->reuse_grpc_port,
        .tls = s->grpc_tls,
        .message_bytes_max = o->grpc_max_message_size,
        .message_bytes_flag = "--grpc-max-message-size",
        .budget_flag = "--max-inflight-bytes",
        .streams_max = GRPC_STREAMS_MAX,
        .connections_max = (uint32_t)o->http_max_connections,
        .stall_ns_max = o->http_stall_timeout_secs * NS_PER_SEC,
        .header_bytes_max = GRPC_HEADER_BYTES_MAX,
        .lifetime = grpc_lifetime_of(o),
        .budget = &s->budget,
        .workers = s->workers,
        .budget_wait_ns_max = BUDGET_WAIT_SECS * NS_PER_SEC,
    };
    struct grpc_handler handler = api_grpc_handler(&s->api);
    return grpc_server_create(&grpc, &handler, s->loops, s->loop_count, &s->grpc);
}

/* A port for collectors: HTTP without TLS and without gRPC. */
static tis_error *create_metrics(struct server *s)
{
    const struct options *o = s->options;
    if (!o->allow_metrics)
        return NULL;
    s->metrics_address = options_metrics_address(o);
    if (!s->metrics_address)
        return error_no_memory();
    struct http_server_options http = {
        .address = s->metrics_address,
        .port = (uint16_t)o->metrics_port,
        .limits = {
            .head_bytes_max = o->http_max_header_size,
            .head_bytes_flag = "--http-max-header-size",
            .head_ns_max = o->http_header_timeout_secs * NS_PER_SEC,
            .idle_ns_max = METRICS_IDLE_SECS * NS_PER_SEC,
            .body_stall_ns_max = o->http_stall_timeout_secs * NS_PER_SEC,
            .connections_max = METRICS_CONNECTIONS_MAX,
        },
        .budget = &s->budget, /* pages count; without a body nothing waits for it */
    };
    struct http_handler handler = api_metrics_handler(&s->api);
    return http_server_create(&http, &handler, s->loops, s->loop_count, &s->metrics);
}

/* The environment variable TRTSERVER_DELAY_SCHEDULER of TRTIS, for tests: the instances take nothing until
 * that many requests wait, which makes batches independent of time. 0: it is not set. */
static uint32_t requests_to_wait_for(void)
{
    const char *text = getenv("TRTSERVER_DELAY_SCHEDULER");
    uint64_t count;
    if (!text)
        return 0;
    if (!number_parse_u64(text, strlen(text), &count) || count > UINT32_MAX) {
        log_warning("TRTSERVER_DELAY_SCHEDULER is not a number of requests and has no effect "
                    "found=%s",
                    text);
        return 0;
    }
    log_warning(
        "TRTSERVER_DELAY_SCHEDULER is set: nothing runs before so many requests wait at a model "
        "requests=%" PRIu64,
        count);
    return (uint32_t)count;
}

static tis_error *create_registry(struct server *s, void (*on_loaded)(void *arg), void *arg)
{
    const struct options *o = s->options;
    bool complete = !o->strict_model_config && !o->disable_auto_complete_config;
    bool is_polling = o->allow_poll_model_repository && strcmp(o->model_control_mode, "poll") == 0;
    tis_error *err = backends_create(
        &(struct backends_options){
            .directory = s->backend_directory,
            .settings = o->backend_settings,
            .setting_count = (uint32_t)o->backend_setting_count,
            .auto_complete_config = complete,
        },
        &s->backends);
    if (!err)
        err = host_policies_create(o->host_policies, (uint32_t)o->host_policy_count,
                                   "/sys/devices/system", &s->host_policies);
    if (!err)
        err = alarms_create(&s->alarms);
    if (!err && strcmp(o->rate_limit, "off") != 0)
        err = limiter_create(o->rate_limit_resources, o->rate_limit_resource_count, &s->limiter);
    else if (o->rate_limit_resource_count > 0)
        log_warning("--rate-limit-resource has no effect without --rate-limit=execution_count");
    if (err)
        return err;
    return registry_create(
        &(struct registry_options){
            .repositories = o->repositories,
            .repository_count = (uint32_t)o->repository_count,
            .backends = s->backends,
            .alarms = s->alarms,
            .host_policies = s->host_policies,
            .limiter = s->limiter,
            .server = &s->plugin_view,
            .load_thread_count = (uint32_t)o->model_load_thread_count,
            .auto_complete_config = complete,
            .held_until = requests_to_wait_for(),
            .strict_readiness = o->strict_readiness,
            .poll_ns = is_polling ? o->repository_poll_secs * NS_PER_SEC : 0,
            .on_loaded = on_loaded,
            .on_loaded_arg = arg,
        },
        &s->registry);
}

tis_error *server_create(const struct options *options, const char *executable,
                         void (*on_loaded)(void *arg), void *arg, struct server **ret_server)
{
    struct server *s = calloc(1, sizeof(*s));
    if (!s)
        return error_no_memory();
    s->options = options;
    budget_init(&s->budget, options->max_inflight_bytes);
    s->backend_directory = server_backend_directory(options, executable);
    tis_error *err = s->backend_directory ? NULL : error_no_memory();
    if (!err)
        err = create_registry(s, on_loaded, arg);
    if (!err)
        err = pool_create("worker", WORKER_COUNT, &s->workers);
    if (!err)
        err = forward_create("--http-header-forward-pattern", options->http_header_forward_pattern,
                             &s->http_forward);
    if (!err)
        err = forward_create("--grpc-header-forward-pattern", options->grpc_header_forward_pattern,
                             &s->grpc_forward);
    s->plugin_view.registry = s->registry;
    enum compress_level compression = COMPRESS_NONE;
    compress_level_of(options->grpc_infer_response_compression_level, &compression); /* it is one */
    api_init(&s->api,
             &(struct api_options){
                 .id = options->id,
                 .version = getenv("TENSORRT_SERVER_VERSION"),
                 .start_ns = clock_ns(),
                 .body_bytes_max = options->http_max_input_size,
                 .strict_readiness = options->strict_readiness,
                 .allow_profiling = options->allow_profiling,
                 .grpc_compression = compression,
                 .http_restrictions = options->http_restrictions,
                 .grpc_restrictions = options->grpc_restrictions,
                 .metrics = options->metrics,
                 .metrics_on_http_port = options->metrics_on_http_port,
                 .metrics_of_machine = options->allow_cpu_metrics,
                 .metrics_interval_ns = options->metrics_interval_ms * NS_PER_MS,
                 .http_forward = s->http_forward,
                 .grpc_forward = s->grpc_forward,
             },
             s->registry, s->workers);
    if (!err)
        err = create_loops(s);
    if (!err)
        err = create_grpc(s);
    if (!err)
        err = create_http(s);
    if (!err)
        err = create_metrics(s);
    if (err) {
        server_destroy(s);
        return err;
    }
    api_set_ports(&s->api, &(struct api_ports){ .http = s->http,
                                                .grpc = s->grpc,
                                                .metrics = s->metrics,
                                                .budget = &s->budget });
    *ret_server = s;
    return NULL;
}

void server_destroy(struct server *s)
{
    if (!s)
        return;
    http_server_destroy(s->metrics);
    http_server_destroy(s->http); /* it gives connections to gRPC as long as it lives */
    grpc_server_destroy(s->grpc);
    tls_destroy(s->http_tls);
    tls_destroy(s->grpc_tls);
    for (uint32_t i = 0; i < s->loop_count; i++)
        loop_stop(s->loops[i]);
    pool_destroy(s->workers);
    registry_destroy(s->registry);
    limiter_destroy(s->limiter);
    alarms_destroy(s->alarms);
    host_policies_destroy(s->host_policies);
    backends_destroy(s->backends);
    /* After everybody who posts to them: the waking of a loop may outlast what it is woken for. */
    for (uint32_t i = 0; i < s->loop_count; i++)
        loop_destroy(s->loops[i]);
    api_fini(&s->api);
    forward_destroy(s->http_forward);
    forward_destroy(s->grpc_forward);
    free(s->backend_directory);
    free(s->metrics_address);
    free(s);
}

static tis_error *start_metrics(struct server *s)
{
    tis_error *err = http_server_start(s->metrics);
    if (!err)
        log_info("metrics open address=%s port=%u", s->metrics_address,
                 http_server_port(s->metrics));
    if (!err && http_server_port(s->metrics)) /* scripts look for 0.9's words */
        log_info("Reporting prometheus metrics on port %u", http_server_port(s->metrics));
    return err;
}

tis_error *server_start(struct server *s)
{
    tis_error *err = NULL;
    api_set_state(&s->api, SERVER_INITIALIZING);
    for (uint32_t i = 0; i < s->loop_count && !err; i++)
        err = loop_start(s->loops[i]);
    if (!err && s->grpc) {
        grpc_server_start(s->grpc);
        log_info("grpc open address=%s port=%u", s->options->grpc_address,
                 grpc_server_port(s->grpc));
    }
    if (!err && s->http)
        err = http_server_start(s->http);
    if (!err && s->metrics)
        err = start_metrics(s);
    if (err)
        return err;
    if (s->http)
        log_info("http open address=%s port=%u threads=%u", s->options->http_address,
                 http_server_port(s->http), s->loop_count);
    log_verbose("backends in directory=%s", s->backend_directory);
    err = registry_load_all(s->registry);
    if (err) {
        api_set_state(&s->api, SERVER_FAILED_TO_INITIALIZE);
        if (!s->options->exit_on_error) {
            log_error("cannot initialize, staying up as asked by --exit-on-error=false: %s",
                      error_text(err));
            error_free(err);
            return NULL;
        }
    }
    return err;
}

tis_error *server_set_loaded(struct server *s)
{
    struct bytes failures = { 0 };
    tis_error *err = NULL;
    if (api_state(&s->api) != SERVER_INITIALIZING)
        return NULL;
    registry_describe_failures(s->registry, &failures);
    if (failures.len > 0 && s->options->exit_on_error)
        err = error_new(TRITONSERVER_ERROR_INTERNAL, "failed to load all models\n%s",
                        bytes_str(&failures));
    else
        api_set_state(&s->api, SERVER_READY);
    bytes_fini(&failures);
    return err;
}

void server_address(const struct server *s, char *out, size_t out_bytes)
{
    uint16_t port = s->http ? http_server_port(s->http) : grpc_server_port(s->grpc);
    if (port)
        snprintf(out, out_bytes, ":%u", (unsigned)port);
    else
        snprintf(out, out_bytes, "%s",
                 s->http ? s->options->http_address : s->options->grpc_address);
}

static void reload_tls(struct tls *tls, const char *port)
{
    if (!tls)
        return;
    tis_error *err = tls_reload(tls);
    if (err)
        log_error("tls reload fails port=%s error=\"%s\"; keeping the certificate in use", port,
                  error_text(err));
    else
        log_certificate("tls reloaded", tls, port);
    error_free(err);
}

void server_reload(struct server *s)
{
    reload_tls(s->http_tls, "http");
    reload_tls(s->grpc_tls, "grpc");
}

void server_set_exiting_soon(struct server *s)
{
    api_set_draining(&s->api);
}

bool server_stop(struct server *s, uint64_t deadline_ns)
{
    api_set_state(&s->api, SERVER_EXITING);
    registry_hurry(s->registry);
    for (;;) {
        uint64_t now_ns = clock_ns();
        uint64_t step_ns = now_ns + NS_PER_SEC < deadline_ns ? now_ns + NS_PER_SEC : deadline_ns;
        if (s->grpc)
            grpc_server_drain(s->grpc, 0); /* both refuse before one is waited for */
        if ((!s->http || http_server_drain(s->http, step_ns)) &&
            (!s->grpc || grpc_server_drain(s->grpc, step_ns)) &&
            registry_stop(s->registry, step_ns))
            return true;
        now_ns = clock_ns();
        if (now_ns >= deadline_ns)
            return false;
        log_info("Timeout %" PRIu64 ": Found %" PRIu32 " live models and %" PRIu32
                 " in-flight requests",
                 (deadline_ns - now_ns) / NS_PER_SEC, registry_live_versions(s->registry),
                 atomic_load(&s->api.in_flight));
    }
}
