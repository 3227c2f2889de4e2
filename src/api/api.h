/* api/api.h - what the server can be asked, over HTTP and gRPC.
 *
 * Each operation is written once: decode, do, encode. v1 (TRTIS 0.9 and 1.x) and v2 differ in
 * paths, encodings and error texts, not in what is done; the folders v1/ and v2/ hold what differs.
 *
 * Threads: api_init() and api_fini() on the main thread, handlers on loop threads, completions
 *          of inference on backend threads (they only post to the loop).
 */
#ifndef TIS_API_API_H
#define TIS_API_API_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/forward.h"
#include "api/restrict.h"
#include "base/error.h"
#include "base/lock.h"
#include "base/pool.h"
#include "grpc/server.h"
#include "http/server.h"
#include "metrics/process.h"
#include "metrics/settings.h"
#include "metrics/statistics.h"
#include "model/registry.h"

enum server_state {
    SERVER_INVALID,
    SERVER_INITIALIZING,
    SERVER_READY,
    SERVER_EXITING,
    SERVER_FAILED_TO_INITIALIZE,
};

/* Counters of the v1 status: every call counts. */
enum api_counter {
    COUNTER_STATUS,
    COUNTER_PROFILE,
    COUNTER_HEALTH,
    COUNTER_COUNT,
};

/* Failed requests for a version that is not there, which has no statistics of its own. */
struct absent_failures {
    char *model;
    int64_t version;
    uint32_t batch_size;
    struct duration failed;
};

struct api_options {
    const char *id;      /* NULL: each dialect's default */
    const char *version; /* NULL: each dialect's default */
    uint64_t start_ns;   /* monotonic, of the process */
    uint64_t body_bytes_max;
    bool strict_readiness;
    bool allow_profiling;
    struct metrics_settings metrics;
    bool metrics_on_http_port;
    bool metrics_of_machine;
    uint64_t metrics_interval_ns;         /* between samples of the process and the machine */
    enum compress_level grpc_compression; /* of answers to inference */
    struct restrictions http_restrictions;
    struct restrictions grpc_restrictions;
    const struct forward *http_forward; /* NULL: no header */
    const struct forward *grpc_forward;
};

/* What the metrics page tells of; all may be NULL. */
struct api_ports {
    const struct http_server *http;
    const struct grpc_server *grpc;
    const struct http_server *metrics;
    const struct budget *budget;
};

struct api {
    /* set at creation, then constant */
    struct api_options options;
    struct registry *registry;
    struct pool *workers; /* for call_offload() */
    struct api_ports ports;
    /* atomic */
    _Atomic uint32_t state;     /* enum server_state */
    _Atomic bool draining;      /* not ready any more, still serving */
    _Atomic uint32_t in_flight; /* inference requests with a backend or in a queue */
    _Atomic uint64_t v1_request_id;
    _Atomic size_t page_bytes; /* of the last metrics page */
    _Atomic uint64_t page_cpu_ns;
    /* any thread, under lock */
    struct lock lock;
    struct duration counters[COUNTER_COUNT];
    struct absent_failures *absent; /* v1/absent.c */
    uint32_t absent_count;
    struct process_metrics process; /* has a lock of its own */
};

void api_init(struct api *api, const struct api_options *options, struct registry *registry,
              struct pool *workers);
void api_fini(struct api *api);
/* Once, before any of them is started. */
void api_set_ports(struct api *api, const struct api_ports *ports);

void api_set_state(struct api *api, enum server_state state);
enum server_state api_state(const struct api *api);
/* Answers "not ready" from now on, and serves. */
void api_set_draining(struct api *api);
bool api_is_live(const struct api *api);
bool api_is_ready(const struct api *api);
/* Counts a call of a kind that took until now. */
void api_count(struct api *api, enum api_counter counter, uint64_t start_ns);

/* The handler to give to http_server_create(); api must outlive the server. */
struct http_handler api_http_handler(struct api *api);
/* The same for a port that has the metrics page and nothing else. */
struct http_handler api_metrics_handler(struct api *api);
/* The same for grpc_server_create(). */
struct grpc_handler api_grpc_handler(struct api *api);

#endif
