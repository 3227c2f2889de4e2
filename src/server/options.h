/* server/options.h - the command line.
 *
 * One table (options.c) holds every flag with its type, default, range and help text; parsing and
 * --help both read it. Flags of trtserver 0.9, 1.x and of tritonserver are accepted where the
 * feature exists.
 *
 * Threads: main, before anything starts.
 */
#ifndef TIS_SERVER_OPTIONS_H
#define TIS_SERVER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "api/restrict.h"
#include "base/error.h"
#include "exec/backend.h"
#include "exec/host_policy.h"
#include "metrics/settings.h"
#include "sched/limiter.h"

/* TLS of one port. */
struct ssl_options {
    bool is_used;
    bool is_mutual; /* implies is_used */
    const char *certificate;
    const char *key;
    const char *root;
};

/* Strings point into argv or are literals; lists are malloc'ed. */
struct options {
    bool help;
    bool version;
    const char *print_model_config; /* a model's directory; NULL: serve */

    const char *id; /* NULL: each protocol's default */
    const char **repositories;
    uint64_t repository_count;
    const char *model_control_mode;
    bool allow_poll_model_repository;
    uint64_t repository_poll_secs;
    bool strict_model_config;
    bool disable_auto_complete_config;
    bool strict_readiness;
    bool exit_on_error;
    uint64_t exit_timeout_secs;
    uint64_t exit_delay_secs;
    uint64_t model_load_thread_count;
    bool allow_profiling;

    bool allow_http;
    const char *http_address;
    uint64_t http_port;
    bool reuse_http_port;
    struct ssl_options http_ssl;
    uint64_t http_thread_count; /* 0: as many as useful */
    uint64_t http_max_input_size;
    uint64_t http_max_header_size;
    uint64_t http_max_connections;
    uint64_t http_header_timeout_secs;
    uint64_t http_idle_timeout_secs;
    uint64_t http_stall_timeout_secs;
    bool http_cancel_on_half_close;
    const char *http_header_forward_pattern;
    struct restrictions http_restrictions;
    uint64_t max_inflight_bytes;

    bool allow_grpc;
    const char *grpc_address;
    uint64_t grpc_port;
    bool reuse_grpc_port;
    struct ssl_options grpc_ssl;
    uint64_t grpc_max_message_size;
    uint64_t grpc_keepalive_time; /* these in milliseconds */
    uint64_t grpc_keepalive_timeout;
    bool grpc_keepalive_permit_without_calls;
    uint64_t grpc_http2_max_pings_without_data;
    uint64_t grpc_http2_min_recv_ping_interval_without_data;
    uint64_t grpc_http2_max_ping_strikes;
    uint64_t grpc_max_connection_age;
    uint64_t grpc_max_connection_age_grace;
    const char *grpc_infer_response_compression_level;
    const char *grpc_header_forward_pattern;
    struct restrictions grpc_restrictions;

    bool allow_metrics;
    const char *metrics_address; /* NULL: see options_metrics_address() */
    uint64_t metrics_port;
    bool metrics_on_http_port;
    bool allow_cpu_metrics;
    bool allow_gpu_metrics;
    uint64_t metrics_interval_ms;
    struct metrics_settings metrics;

    const char *backend_directory; /* NULL: looked for beside the executable */
    struct backend_setting *backend_settings;
    uint64_t backend_setting_count;

    struct host_policy_setting *host_policies;
    uint64_t host_policy_count;
    const char *rate_limit; /* off, execution_count */
    struct limiter_amount *rate_limit_resources;
    uint64_t rate_limit_resource_count;

    bool log_info;
    bool log_warning;
    bool log_error;
    uint64_t log_verbose;
    const char *log_format;
};

/* Reads argv. On error nothing needs to be freed and *ret_options is untouched. Errors:
 * INVALID_ARG with the flag, what was found and what would be right; an unknown flag with the
 * nearest known one. */
MUST_USE tis_error *options_parse(int argc, char **argv, struct options *ret_options);
void options_fini(struct options *o);
/* Where the metrics port listens: as asked, else the TCP addresses of HTTP, else 127.0.0.1.
 * malloc'ed; NULL without memory. */
char *options_metrics_address(const struct options *o);
/* The text of --help. */
void options_print_help(FILE *out);

#endif
