#include "server/options.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "grpc/compress.h"
#include "net/socket.h"
#include "proto/message.h"

enum option_type {
    OPTION_BOOL,
    OPTION_NUMBER,
    OPTION_TEXT,
    OPTION_LIST,        /* repeatable text: const char **, count right behind it */
    OPTION_BACKEND,     /* repeatable <backend>,<key>=<value> */
    OPTION_HOST_POLICY, /* repeatable <policy>,<key>=<value> */
    OPTION_RESTRICTION, /* repeatable <categories>:<key>=<value> */
    OPTION_METRICS,     /* repeatable <name>=<value> */
    OPTION_RESOURCE,    /* repeatable <name>:<count>[:<device>] */
};

struct option_spec {
    const char *name;
    enum option_type type;
    size_t offset; /* in struct options */
    const char *default_text;
    uint64_t min;
    uint64_t max;
    const char *argument; /* for --help */
    const char *help;
};

/* A flag with a name of its own, or a heading of --help when name is NULL. */
#define FIELD(field) offsetof(struct options, field)
#define BOOL(name, field, value, help)                                   \
    {                                                                    \
        name, OPTION_BOOL, FIELD(field), value, 0, 0, "true|false", help \
    }
#define NUMBER(name, field, value, min, max, argument, help)               \
    {                                                                      \
        name, OPTION_NUMBER, FIELD(field), value, min, max, argument, help \
    }
#define TEXT(name, field, value, argument, help)                     \
    {                                                                \
        name, OPTION_TEXT, FIELD(field), value, 0, 0, argument, help \
    }
/* The flags of one port's TLS. */
#define SSL(port, field)                                                                       \
    BOOL(port "-use-ssl", field.is_used, "false",                                              \
         "Speak TLS on this port, with the two files below."),                                 \
        BOOL(port "-use-ssl-mutual", field.is_mutual, "false",                                 \
             "Speak TLS, and demand a certificate of every client that --" port                \
             "-root-cert has signed."),                                                        \
        TEXT(port "-server-cert", field.certificate, NULL, "FILE",                             \
             "The server's certificate in PEM form, with those between it and the root. Read " \
             "again on SIGHUP, like the two files below."),                                    \
        TEXT(port "-server-key", field.key, NULL, "FILE",                                      \
             "The certificate's private key in PEM form, without a passphrase."),              \
        TEXT(port "-root-cert", field.root, NULL, "FILE",                                      \
             "Certificates in PEM form that sign those of clients, for --" port                \
             "-use-ssl-mutual.")
#define HEADING(text)                                \
    {                                                \
        NULL, OPTION_BOOL, 0, NULL, 0, 0, NULL, text \
    }

static const struct option_spec specs[] = {
    HEADING("Model repository"),
    { "model-store", OPTION_LIST, FIELD(repositories), NULL, 0, 0, "DIR",
      "Directory of models to serve. May be given several times; a model that is in two of them is "
      "served from neither." },
    { "model-repository", OPTION_LIST, FIELD(repositories), NULL, 0, 0, "DIR",
      "Another name of --model-store." },
    BOOL(
        "strict-model-config", strict_model_config, "false",
        "Demand a complete config.pbtxt; otherwise a backend may complete it from the model file."),
    BOOL("disable-auto-complete-config", disable_auto_complete_config, "false",
         "The same as --strict-model-config."),
    BOOL("strict-readiness", strict_readiness, "true",
         "Ready only when every version that should be served is ready; otherwise when loading has "
         "finished."),
    BOOL(
        "exit-on-error", exit_on_error, "true",
        "Exit with status 1 when a model fails to load at start, after naming every one that did."),
    TEXT(
        "model-control-mode", model_control_mode, "poll", "none|poll",
        "none: models stay as they were found at start. poll: their config.pbtxt files are looked at "
        "again while the server runs; a change of instance_group alone takes effect at once, others "
        "at the next start."),
    BOOL("allow-poll-model-repository", allow_poll_model_repository, "true",
         "The same: false is --model-control-mode=none."),
    NUMBER("repository-poll-secs", repository_poll_secs, "15", 0, 31536000, "SECS",
           "Time between two looks; 0: none."),
    NUMBER("model-load-thread-count", model_load_thread_count, "4", 1, 256, "N",
           "Models that may load at the same time."),

    HEADING("HTTP"),
    BOOL("allow-http", allow_http, "true", "Serve HTTP."),
    TEXT(
        "http-address", http_address, "0.0.0.0", "ADDRESS",
        "Address to listen on, or several, separated by commas. unix:PATH is a Unix domain socket."),
    NUMBER("http-port", http_port, "8000", 0, 65535, "PORT",
           "Port to listen on; 0 takes a free one and prints it."),
    BOOL("reuse-http-port", reuse_http_port, "false",
         "Share the port with other servers (SO_REUSEPORT); otherwise a taken port is an error."),
    SSL("http", http_ssl),
    NUMBER("http-thread-count", http_thread_count, "0", 0, 256, "N",
           "Threads that serve connections; 0 chooses by the number of processors."),
    BOOL("http-cancel-on-half-close", http_cancel_on_half_close, "true",
         "A client that closes its sending side while it waits for an answer has gone: cancel its "
         "request."),
    TEXT(
        "http-header-forward-pattern", http_header_forward_pattern, NULL, "PATTERN",
        "Regular expression: headers of inference requests whose names hold a match of it, without "
        "regard to case, reach the model as parameters. Example: --http-header-forward-pattern=^x-"),
    { "http-restricted-api", OPTION_RESTRICTION, FIELD(http_restrictions), NULL, 0, 0,
      "CATEGORIES:KEY=VALUE",
      "Serve operations of these categories only to requests with the header KEY: VALUE. Categories, "
      "with commas between them: health, metadata, inference, shared-memory, model-config, "
      "model-repository, statistics, trace, logging. May be given several times, each category "
      "once. HTTP and gRPC are restricted apart." },

    HEADING("gRPC"),
    BOOL(
        "allow-grpc", allow_grpc, "true",
        "Serve gRPC, on a port of its own and on the HTTP port for clients that begin with HTTP/2."),
    TEXT(
        "grpc-address", grpc_address, "0.0.0.0", "ADDRESS",
        "Address to listen on, or several, separated by commas. unix:PATH is a Unix domain socket."),
    NUMBER("grpc-port", grpc_port, "8001", 0, 65535, "PORT",
           "Port to listen on; 0 takes a free one and logs it."),
    BOOL("reuse-grpc-port", reuse_grpc_port, "false",
         "Share the port with other servers (SO_REUSEPORT); otherwise a taken port is an error."),
    SSL("grpc", grpc_ssl),
    NUMBER("grpc-max-message-size", grpc_max_message_size, "2147483647", 1, INT32_MAX, "BYTES",
           "Largest request message."),
    NUMBER("grpc-keepalive-time", grpc_keepalive_time, "7200000", 1, INT32_MAX, "MS",
           "Ping a client that has been silent for this time; 2147483647: never."),
    NUMBER("grpc-keepalive-timeout", grpc_keepalive_timeout, "20000", 1, INT32_MAX, "MS",
           "Close the connection when nothing comes for this time after such a ping."),
    BOOL("grpc-keepalive-permit-without-calls", grpc_keepalive_permit_without_calls, "false",
         "Ping, and let clients ping, when the connection has no call."),
    NUMBER("grpc-http2-max-pings-without-data", grpc_http2_max_pings_without_data, "2", 0,
           INT32_MAX, "N",
           "Pings that the server sends without data or headers between them; 0: any number."),
    NUMBER(
        "grpc-http2-min-recv-ping-interval-without-data",
        grpc_http2_min_recv_ping_interval_without_data, "300000", 0, INT32_MAX, "MS",
        "Time between two pings of a client to which nothing was sent; one that comes sooner is a "
        "strike. Without a call it is two hours."),
    NUMBER("grpc-http2-max-ping-strikes", grpc_http2_max_ping_strikes, "2", 0, INT32_MAX, "N",
           "Strikes before the connection is closed with 'too_many_pings'; 0: any number."),
    NUMBER("grpc-max-connection-age", grpc_max_connection_age, "0", 0, INT32_MAX, "MS",
           "Ask clients to connect anew after this time, give or take a tenth; 0: never."),
    NUMBER("grpc-max-connection-age-grace", grpc_max_connection_age_grace, "0", 0, INT32_MAX, "MS",
           "Time for the calls of such a connection to end before they are cut off; 0: as long as "
           "they take."),
    TEXT(
        "grpc-infer-response-compression-level", grpc_infer_response_compression_level, "none",
        "none|low|medium|high",
        "Compress inference responses for clients that accept it: gzip for low, deflate for medium "
        "and high. Requests may be compressed in any case."),
    TEXT("grpc-header-forward-pattern", grpc_header_forward_pattern, NULL, "PATTERN",
         "The same as --http-header-forward-pattern for the metadata of gRPC calls."),
    { "grpc-restricted-protocol", OPTION_RESTRICTION, FIELD(grpc_restrictions), NULL, 0, 0,
      "CATEGORIES:KEY=VALUE",
      "The same as --http-restricted-api for gRPC; the header is triton-grpc-protocol-KEY." },

    HEADING("Limits"),
    NUMBER("http-max-input-size", http_max_input_size, "67108864", 1, INT64_MAX, "BYTES",
           "Largest request body."),
    NUMBER("http-max-header-size", http_max_header_size, "65536", 1024, 16777216, "BYTES",
           "Largest request line with headers."),
    NUMBER("http-max-connections", http_max_connections, "0", 0, UINT32_MAX, "N",
           "Connections at the same time; 0: as many as the process may open."),
    NUMBER("http-header-timeout-secs", http_header_timeout_secs, "20", 1, 86400, "SECS",
           "Time for a request's headers to arrive."),
    NUMBER("http-idle-timeout-secs", http_idle_timeout_secs, "0", 0, 31536000, "SECS",
           "Close a connection without a request after this time; 0: never."),
    NUMBER("http-stall-timeout-secs", http_stall_timeout_secs, "30", 1, 86400, "SECS",
           "Give up a client that neither sends nor takes a byte of a body for this time."),
    NUMBER("max-inflight-bytes", max_inflight_bytes, "1073741824", 1, INT64_MAX, "BYTES",
           "Bytes of request bodies and replies held at the same time, over all clients. When they "
           "are spent, bodies wait, then get 503."),

    HEADING("Metrics"),
    BOOL("allow-metrics", allow_metrics, "true",
         "Serve the metrics page, in Prometheus' form, on a port of its own: /metrics."),
    TEXT("metrics-address", metrics_address, NULL, "ADDRESS",
         "Address to listen on, or several, separated by commas. Default: the one of "
         "--http-address; 127.0.0.1 when that has only Unix domain sockets."),
    NUMBER("metrics-port", metrics_port, "8002", 0, 65535, "PORT",
           "Port to listen on; 0 takes a free one and logs it."),
    BOOL(
        "metrics-on-http-port", metrics_on_http_port, "false",
        "Serve the page at /metrics of the HTTP port too, also with --allow-metrics=false. There it "
        "belongs to the category statistics of --http-restricted-api."),
    BOOL("allow-cpu-metrics", allow_cpu_metrics, "true",
         "Show processors and memory of the machine (nv_cpu_...)."),
    BOOL("allow-gpu-metrics", allow_gpu_metrics, "true",
         "Show GPUs (nv_gpu_...). This release uses none, so there are none to show."),
    NUMBER("metrics-interval-ms", metrics_interval_ms, "2000", 0, 86400000, "MS",
           "Figures of the process and the machine are read again when they are older than this."),
    { "metrics-config", OPTION_METRICS, FIELD(metrics), NULL, 0, 0, "NAME=VALUE",
      "Which of the optional families to show: counter_latencies=false hides the sums of durations "
      "in microseconds, histogram_latencies=true adds nv_inference_first_response_histogram_ms. May "
      "be given several times." },

    HEADING("Backends"),
    TEXT("backend-directory", backend_directory, NULL, "DIR",
         "Where backends are: DIR/NAME/libtriton_NAME.so. Default: 'backends' beside the "
         "executable, else beside its folder, else /opt/tritonserver/backends."),
    { "backend-config", OPTION_BACKEND, FIELD(backend_settings), NULL, 0, 0, "NAME,KEY=VALUE",
      "A setting for backend NAME, or for all of them when NAME is empty. May be given several "
      "times. Example: --backend-config=onnxruntime,library=/usr/lib/libonnxruntime.so" },
    { "host-policy", OPTION_HOST_POLICY, FIELD(host_policies), NULL, 0, 0, "NAME,KEY=VALUE",
      "Where instances with the host policy NAME run: cpu-cores=0-3,8 names processors, numa-node=0 a "
      "node, whose memory is preferred and whose processors are taken when none are named. An "
      "instance group names its policy; without a name it is 'cpu', 'gpu_ID' or 'model', by its kind. "
      "May be given several times. Example: --host-policy=cpu,cpu-cores=2-7" },

    HEADING("Rate limiter"),
    TEXT(
        "rate-limit", rate_limit, "off", "off|execution_count",
        "execution_count: an instance runs only while it has the resources that its rate_limiter "
        "asks for, and of those that wait for some the one with the fewest executions times priority "
        "is first. off: rate_limiter in configurations is ignored."),
    { "rate-limit-resource", OPTION_RESOURCE, FIELD(rate_limit_resources), NULL, 0, 0,
      "NAME:COUNT[:DEVICE]",
      "How much there is of resource NAME, on one device or on each; of a global resource, on the whole "
      "server. May be given several times; there is nothing then of resources that are not given. "
      "Default: as much as the instance needs that needs most of it." },

    HEADING("Server"),
    TEXT("id", id, NULL, "NAME",
         "Name of this server in status and metadata. Default: 'inference:0' for v1 clients, "
         "'triton' for v2 clients."),
    NUMBER("exit-timeout-secs", exit_timeout_secs, "30", 0, 86400, "SECS",
           "Time for requests in flight to end after SIGINT or SIGTERM."),
    NUMBER("exit-delay-secs", exit_delay_secs, "0", 0, 86400, "SECS",
           "After SIGINT or SIGTERM: not ready, but still serving for this time (rolling "
           "updates)."),
    BOOL("allow-profiling", allow_profiling, "false", "Allow the v1 profile API."),

    HEADING("Log"),
    BOOL("log-info", log_info, "true", "Log informational lines."),
    BOOL("log-warning", log_warning, "true", "Log warnings."),
    BOOL("log-error", log_error, "true", "Log errors."),
    NUMBER("log-verbose", log_verbose, "0", 0, 9, "LEVEL", "Log details from level 1 on."),
    TEXT("log-format", log_format, "default", "default|ISO8601",
         "How lines begin: I1122 18:20:05.123456 or 2026-11-22T18:20:05Z I."),

    HEADING("Help"),
    BOOL("help", help, "false", "Print this text."),
    BOOL("version", version, "false", "Print the version."),
    TEXT(
        "print-model-config", print_model_config, NULL, "MODEL_DIR",
        "Print the configuration that the model in this directory would be served with, complete and "
        "with a comment that says where each value comes from, and exit; with status 1 and all "
        "problems on stderr when it would not be served. The model is loaded, but no port is opened. "
        "--model-store is not needed; options of backends and --strict-model-config apply."),
};

#define INVALID(...) error_new(TRITONSERVER_ERROR_INVALID_ARG, __VA_ARGS__)

static void *field_of(struct options *o, const struct option_spec *spec)
{
    return (char *)o + spec->offset;
}

static tis_error *parse_bool(const struct option_spec *spec, const char *text, bool *ret_value)
{
    static const struct {
        const char *text;
        bool value;
    } words[] = { { "true", true },   { "1", true },  { "on", true },
                  { "false", false }, { "0", false }, { "off", false } };
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (strcasecmp(words[i].text, text) == 0) {
            *ret_value = words[i].value;
            return NULL;
        }
    }
    return INVALID("--%s=%s: expected true or false", spec->name, text);
}

/* Appends an element to the array at *array, whose count stands right behind the pointer. */
static tis_error *list_add(void *array, size_t element_bytes, const void *element)
{
    void **base = array;
    uint64_t *count = (uint64_t *)(base + 1);
    void *grown = realloc(*base, (*count + 1) * element_bytes);
    if (!grown)
        return error_no_memory();
    memcpy((char *)grown + *count * element_bytes, element, element_bytes);
    *base = grown;
    ++*count;
    return NULL;
}

/* Cuts "<name>,<key>=<value>" in place. */
static bool split_setting(char *text, const char **ret_name, const char **ret_key,
                          const char **ret_value)
{
    char *comma = strchr(text, ',');
    char *equals = comma ? strchr(comma, '=') : NULL;
    if (!equals || equals == comma + 1)
        return false;
    *comma = '\0';
    *equals = '\0';
    *ret_name = text;
    *ret_key = comma + 1;
    *ret_value = equals + 1;
    return true;
}

static tis_error *parse_backend(const struct option_spec *spec, char *text, void *array)
{
    struct backend_setting s;
    if (!split_setting(text, &s.backend, &s.key, &s.value))
        return INVALID("--%s=%s: expected %s", spec->name, text, spec->argument);
    return list_add(array, sizeof(s), &s);
}

static tis_error *parse_host_policy(const struct option_spec *spec, char *text, void *array)
{
    struct host_policy_setting s;
    if (*text == ',' || !split_setting(text, &s.policy, &s.key, &s.value))
        return INVALID("--%s=%s: expected %s", spec->name, text, spec->argument);
    return list_add(array, sizeof(s), &s);
}

static tis_error *parse_resource(const struct option_spec *spec, char *text, void *array)
{
    struct limiter_amount a = { .name = text, .device = LIMITER_EVERY_DEVICE };
    uint64_t device = 0, count = 0;
    char *colon = strchr(text, ':');
    char *second = colon ? strchr(colon + 1, ':') : NULL;
    size_t count_len = colon ? (second ? (size_t)(second - colon) : strlen(colon)) - 1 : 0;
    if (!colon || colon == text || !number_parse_u64(colon + 1, count_len, &count) ||
        count > UINT32_MAX ||
        (second &&
         (!number_parse_u64(second + 1, strlen(second + 1), &device) || device > INT32_MAX)))
        return INVALID("--%s=%s: expected %s, for example gpu_memory:4 or gpu_memory:4:0",
                       spec->name, text, spec->argument);
    *colon = '\0';
    a.count = (uint32_t)count;
    if (second)
        a.device = (int32_t)device;

    const struct limiter_amount *given = *(struct limiter_amount **)array;
    uint64_t given_count = *(uint64_t *)((void **)array + 1);
    for (uint64_t i = 0; i < given_count; i++) {
        if (strcmp(given[i].name, a.name) == 0 && given[i].device == a.device)
            return INVALID("--%s=%s:%s: given twice for the same device (found %" PRIu32 " before)",
                           spec->name, text, colon + 1, given[i].count);
    }
    return list_add(array, sizeof(a), &a);
}

static tis_error *set_option(struct options *o, const struct option_spec *spec, char *text)
{
    switch (spec->type) {
    case OPTION_BOOL:
        return parse_bool(spec, text, field_of(o, spec));
    case OPTION_NUMBER: {
        uint64_t value;
        if (!number_parse_u64(text, strlen(text), &value) || value < spec->min || value > spec->max)
            return INVALID("--%s=%s: expected a number from %" PRIu64 " to %" PRIu64, spec->name,
                           text, spec->min, spec->max);
        *(uint64_t *)field_of(o, spec) = value;
        return NULL;
    }
    case OPTION_TEXT:
        *(const char **)field_of(o, spec) = text;
        return NULL;
    case OPTION_LIST:
        return list_add(field_of(o, spec), sizeof(char *), &text);
    case OPTION_BACKEND:
        return parse_backend(spec, text, field_of(o, spec));
    case OPTION_HOST_POLICY:
        return parse_host_policy(spec, text, field_of(o, spec));
    case OPTION_RESOURCE:
        return parse_resource(spec, text, field_of(o, spec));
    case OPTION_RESTRICTION: /* the value is a secret: not in the error */
        return error_wrap(restrictions_add(field_of(o, spec), text), "--%s", spec->name);
    case OPTION_METRICS:
        return error_wrap(metrics_settings_set(field_of(o, spec), text), "--%s", spec->name);
    }
    return NULL;
}

static const struct option_spec *find_spec(const char *name, size_t len)
{
    for (size_t i = 0; i < ARRAY_LEN(specs); i++) {
        if (specs[i].name && strlen(specs[i].name) == len && memcmp(specs[i].name, name, len) == 0)
            return &specs[i];
    }
    return NULL;
}

static tis_error *unknown_option(const char *argument, const char *name, size_t len)
{
    struct nearest nearest;
    nearest_init(&nearest, name, len);
    for (size_t i = 0; i < ARRAY_LEN(specs); i++) {
        if (specs[i].name)
            nearest_offer(&nearest, specs[i].name);
    }
    const char *found = nearest_found(&nearest);
    if (found)
        return INVALID("Unrecognized option: %s (did you mean --%s?)", argument, found);
    return INVALID("Unrecognized option: %s (--help lists the options)", argument);
}

/* --name=value, --name value; a boolean alone means true. */
static tis_error *parse_argument(struct options *o, int argc, char **argv, int *at)
{
    char *argument = argv[*at];
    if (strncmp(argument, "--", 2) != 0)
        return INVALID("Unrecognized option: %s (options begin with --; --help lists them)",
                       argument);
    const char *name = argument + 2;
    size_t len = strcspn(name, "=");
    const struct option_spec *spec = find_spec(name, len);
    if (!spec)
        return unknown_option(argument, name, len);
    if (name[len] == '=')
        return set_option(o, spec, argument + 2 + len + 1);

    char *next = *at + 1 < argc ? argv[*at + 1] : NULL;
    if (spec->type == OPTION_BOOL) {
        bool ignored;
        tis_error *err = next ? parse_bool(spec, next, &ignored) : error_no_memory();
        bool next_is_value = err == NULL;
        error_free(err);
        if (!next_is_value) {
            static char yes[] = "true";
            return set_option(o, spec, yes);
        }
    }
    if (!next)
        return INVALID("--%s needs a value: %s", spec->name, spec->argument);
    ++*at;
    return set_option(o, spec, next);
}

static tis_error *set_defaults(struct options *o)
{
    for (size_t i = 0; i < ARRAY_LEN(specs); i++) {
        const struct option_spec *spec = &specs[i];
        if (!spec->name || !spec->default_text)
            continue;
        /* A text default is kept by pointer, the others are only read. */
        tis_error *err = set_option(o, spec, (char *)(uintptr_t)spec->default_text);
        if (err)
            return err;
    }
    return NULL;
}

static tis_error *check_ssl(const char *port, const struct ssl_options *ssl)
{
    const char *use = ssl->is_mutual ? "use-ssl-mutual" : "use-ssl";
    const char *missing = NULL;
    if (!ssl->is_used)
        return NULL;
    if (!ssl->certificate)
        missing = "server-cert";
    else if (!ssl->key)
        missing = "server-key";
    else if (ssl->is_mutual && !ssl->root)
        missing = "root-cert";
    return missing ? INVALID("--%s-%s needs --%s-%s=FILE", port, use, port, missing) : NULL;
}

/* Some address of the list is one of TCP. */
static bool has_port(const char *addresses)
{
    for (const char *at = addresses; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (!socket_is_unix(at))
            return true;
    }
    return false;
}

char *options_metrics_address(const struct options *o)
{
    if (o->metrics_address)
        return strdup(o->metrics_address);
    struct bytes out = { 0 };
    char *addresses = strdup(o->http_address);
    char *rest = addresses;
    for (char *one; (one = strsep(&rest, ",")) != NULL;) {
        if (!socket_is_unix(one))
            bytes_printf(&out, "%s%s", out.len > 0 ? "," : "", *one ? one : "*");
    }
    if (!addresses)
        return NULL;
    free(addresses);
    if (out.len == 0)
        bytes_append_str(&out, "127.0.0.1");
    return bytes_steal(&out);
}

static tis_error *check_metrics(const struct options *o)
{
    uint64_t port = o->metrics_port;
    if (!o->allow_metrics || port == 0 || (o->metrics_address && !has_port(o->metrics_address)))
        return NULL;
    if ((o->allow_http && o->http_port == port && has_port(o->http_address)) ||
        (o->allow_grpc && o->grpc_port == port && has_port(o->grpc_address)))
        return INVALID(
            "The server cannot provide metrics on same port used for HTTP or gRPC requests");
    return NULL;
}

static tis_error *check_together(const struct options *o)
{
    if (strcmp(o->log_format, "default") != 0 && strcmp(o->log_format, "ISO8601") != 0)
        return INVALID("--log-format=%s: expected default or ISO8601", o->log_format);
    enum compress_level level;
    if (!compress_level_of(o->grpc_infer_response_compression_level, &level))
        return INVALID(
            "--grpc-infer-response-compression-level=%s: expected none, low, medium or high",
            o->grpc_infer_response_compression_level);
    if (strcmp(o->model_control_mode, "explicit") == 0)
        return INVALID("--model-control-mode=explicit: this release loads all models at start "
                       "(expected none or poll)");
    if (strcmp(o->model_control_mode, "none") != 0 && strcmp(o->model_control_mode, "poll") != 0)
        return INVALID("--model-control-mode=%s: expected none or poll", o->model_control_mode);
    if (strcmp(o->rate_limit, "off") != 0 && strcmp(o->rate_limit, "execution_count") != 0)
        return INVALID("--rate-limit=%s: expected off or execution_count", o->rate_limit);
    if (o->help || o->version || o->print_model_config)
        return NULL;
    if (o->repository_count == 0)
        return INVALID("--model-store must be specified");
    if (!o->allow_http && !o->allow_grpc)
        return INVALID(
            "At least one of the following options must be true: --allow-http, --allow-grpc");
    if (o->allow_http && o->allow_grpc && o->http_port == o->grpc_port && o->http_port != 0 &&
        has_port(o->http_address) && has_port(o->grpc_address))
        return INVALID(
            "The server cannot listen to HTTP requests and gRPC requests at the same port");
    tis_error *err = check_metrics(o);
    if (!err && o->allow_http)
        err = check_ssl("http", &o->http_ssl);
    if (!err && o->allow_grpc)
        err = check_ssl("grpc", &o->grpc_ssl);
    return err;
}

tis_error *options_parse(int argc, char **argv, struct options *ret_options)
{
    struct options o = { 0 };
    tis_error *err = set_defaults(&o);
    for (int i = 1; i < argc && !err; i++)
        err = parse_argument(&o, argc, argv, &i);
    o.http_ssl.is_used |= o.http_ssl.is_mutual;
    o.grpc_ssl.is_used |= o.grpc_ssl.is_mutual;
    if (!err)
        err = check_together(&o);
    if (err) {
        options_fini(&o);
        return err;
    }
    *ret_options = o;
    return NULL;
}

void options_fini(struct options *o)
{
    free(o->repositories);
    free(o->backend_settings);
    free(o->host_policies);
    free(o->rate_limit_resources);
    *o = (struct options){ 0 };
}

/* Words of text in lines of at most `width`, each begun with `indent` blanks but the first. */
static void print_wrapped(FILE *out, const char *text, int indent, int width)
{
    int column = indent;
    while (*text) {
        int len = (int)strcspn(text, " ");
        if (column + len > width && column > indent) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        }
        fprintf(out, "%.*s", len, text);
        column += len + 1;
        text += len;
        if (*text == ' ') {
            text++;
            if (column + (int)strcspn(text, " ") <= width)
                fputc(' ', out);
        }
    }
    fputc('\n', out);
}

void options_print_help(FILE *out)
{
    fputs(
        "Usage: trtserver --model-store=DIR [OPTION]...\n"
        "Serves the machine-learning models of a repository over HTTP and gRPC to TRTIS 0.9, TRTIS 1.x and\n"
        "v2 (Triton, KServe) clients.\n\n"
        "  trtserver --model-store=/models\n"
        "  curl localhost:8000/v2/health/ready\n\n"
        "A model is a folder of the repository: MODEL/config.pbtxt and MODEL/VERSION/FILES.\n"
        "Options are written --name=value or --name value.\n",
        out);
    for (size_t i = 0; i < ARRAY_LEN(specs); i++) {
        const struct option_spec *s = &specs[i];
        if (!s->name) {
            fprintf(out, "\n%s:\n", s->help);
            continue;
        }
        fprintf(out, "  --%s=%s", s->name, s->argument);
        if (s->default_text)
            fprintf(out, "  [%s]", s->default_text);
        fputs("\n        ", out);
        print_wrapped(out, s->help, 8, 92);
    }
}
