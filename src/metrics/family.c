#include "metrics/family.h"

#include <string.h>

#include "base/attr.h"

const struct metric_info families[FAMILY_COUNT] = {
    [FAMILY_REQUEST_SUCCESS] = { "nv_inference_request_success", METRIC_COUNTER, NULL,
                                 "Number of successful inference requests" },
    [FAMILY_REQUEST_FAILURE] = { "nv_inference_request_failure", METRIC_COUNTER, NULL,
                                 "Number of failed inference requests" },
    [FAMILY_INFERENCE_COUNT] = { "nv_inference_count", METRIC_COUNTER, NULL,
                                 "Number of inferences performed (does not include cached "
                                 "requests)" },
    [FAMILY_EXEC_COUNT] = { "nv_inference_exec_count", METRIC_COUNTER, NULL,
                            "Number of model executions performed (does not include cached "
                            "requests)" },
    [FAMILY_REQUEST_US] = { "nv_inference_request_duration_us", METRIC_COUNTER, NULL,
                            "Cumulative inference request duration in microseconds, end to end" },
    [FAMILY_QUEUE_US] = { "nv_inference_queue_duration_us", METRIC_COUNTER, NULL,
                          "Cumulative inference queuing duration in microseconds" },
    [FAMILY_COMPUTE_US] = { "nv_inference_compute_duration_us", METRIC_COUNTER, NULL,
                            "Cumulative inference compute duration in microseconds: input, infer "
                            "and output together" },
    [FAMILY_COMPUTE_INPUT_US] = { "nv_inference_compute_input_duration_us", METRIC_COUNTER, NULL,
                                  "Cumulative compute input duration in microseconds" },
    [FAMILY_COMPUTE_INFER_US] = { "nv_inference_compute_infer_duration_us", METRIC_COUNTER, NULL,
                                  "Cumulative compute inference duration in microseconds" },
    [FAMILY_COMPUTE_OUTPUT_US] = { "nv_inference_compute_output_duration_us", METRIC_COUNTER, NULL,
                                   "Cumulative compute output duration in microseconds" },
    [FAMILY_LOAD_RATIO] = { "nv_inference_load_ratio", METRIC_HISTOGRAM, NULL,
                            "Ratio of request duration to compute duration" },
    [FAMILY_FIRST_RESPONSE_MS] = { "nv_inference_first_response_histogram_ms", METRIC_HISTOGRAM,
                                   NULL,
                                   "Duration from request to first response in milliseconds" },
    [FAMILY_PENDING] = { "nv_inference_pending_request_count", METRIC_GAUGE, NULL,
                         "Number of requests that wait for execution" },
    [FAMILY_LOAD_SECS] = { "nv_model_load_duration_secs", METRIC_GAUGE, NULL,
                           "Model load time in seconds" },
    [FAMILY_MODEL_READY] = { "trtserver_model_ready", METRIC_GAUGE, NULL,
                             "1 when the model version can be used, 0 when it is loading or could "
                             "not be loaded" },
    [FAMILY_MODEL_MEMORY] = { "trtserver_model_memory_bytes", METRIC_GAUGE, "bytes",
                              "Memory that the backend says the model version uses" },
    [FAMILY_REQUEST_SECONDS] = { "trtserver_request_duration_seconds", METRIC_HISTOGRAM, "seconds",
                                 "Duration of successful requests, end to end" },
    [FAMILY_QUEUE_SECONDS] = { "trtserver_queue_duration_seconds", METRIC_HISTOGRAM, "seconds",
                               "Time that successful requests waited for execution" },
    [FAMILY_COMPUTE_SECONDS] = { "trtserver_compute_duration_seconds", METRIC_HISTOGRAM, "seconds",
                                 "Time that successful requests were with the backend" },
    [FAMILY_FIRST_RESPONSE_SECONDS] = { "trtserver_first_response_duration_seconds",
                                        METRIC_HISTOGRAM, "seconds",
                                        "Time from a request to its first response" },
    [FAMILY_BATCH_SIZE] = { "trtserver_batch_size", METRIC_HISTOGRAM, NULL,
                            "Batch entries of an execution" },
    [FAMILY_BUILD_INFO] = { "trtserver_build_info", METRIC_GAUGE, NULL,
                            "1; the labels say which server this is" },
    [FAMILY_READY] = { "trtserver_ready", METRIC_GAUGE, NULL,
                       "1 when the server is ready, as its health says" },
    [FAMILY_UPTIME] = { "trtserver_uptime_seconds", METRIC_GAUGE, "seconds",
                        "Time since the server was started" },
    [FAMILY_REQUESTS_INFLIGHT] = { "trtserver_inflight_requests", METRIC_GAUGE, NULL,
                                   "Inference requests that wait or are executed" },
    [FAMILY_BYTES_INFLIGHT] = { "trtserver_inflight_bytes", METRIC_GAUGE, "bytes",
                                "Bytes of requests and replies that are held" },
    [FAMILY_BYTES_INFLIGHT_LIMIT] = { "trtserver_inflight_limit_bytes", METRIC_GAUGE, "bytes",
                                      "Bytes of requests and replies that may be held" },
    [FAMILY_CONNECTIONS] = { "trtserver_connections", METRIC_GAUGE, NULL,
                             "Open connections, by the protocol that they speak" },
    [FAMILY_CONNECTIONS_ACCEPTED] = { "trtserver_connections_accepted_total", METRIC_COUNTER, NULL,
                                      "Connections accepted, by the port that they came to" },
    [FAMILY_PAGE_CPU] = { "trtserver_metrics_page_cpu_seconds", METRIC_GAUGE, "seconds",
                          "Processor time that the metrics page before this one took" },
    [FAMILY_CPU_UTILIZATION] = { "nv_cpu_utilization", METRIC_GAUGE, NULL,
                                 "CPU utilization of the machine [0.0 - 1.0]" },
    [FAMILY_CPU_MEMORY_TOTAL] = { "nv_cpu_memory_total_bytes", METRIC_GAUGE, "bytes",
                                  "Memory of the machine (RAM), in bytes" },
    [FAMILY_CPU_MEMORY_USED] = { "nv_cpu_memory_used_bytes", METRIC_GAUGE, "bytes",
                                 "Memory of the machine in use (RAM), in bytes" },
    [FAMILY_PROCESS_CPU] = { "process_cpu_seconds_total", METRIC_COUNTER, "seconds",
                             "Processor time of the server, user and system" },
    [FAMILY_PROCESS_RESIDENT] = { "process_resident_memory_bytes", METRIC_GAUGE, "bytes",
                                  "Resident memory of the server" },
    [FAMILY_PROCESS_VIRTUAL] = { "process_virtual_memory_bytes", METRIC_GAUGE, "bytes",
                                 "Virtual memory of the server" },
    [FAMILY_PROCESS_OPEN_FDS] = { "process_open_fds", METRIC_GAUGE, NULL, "Open file descriptors" },
    [FAMILY_PROCESS_MAX_FDS] = { "process_max_fds", METRIC_GAUGE, NULL,
                                 "File descriptors that may be open" },
    [FAMILY_PROCESS_THREADS] = { "process_threads", METRIC_GAUGE, NULL, "Threads of the server" },
    [FAMILY_PROCESS_START] = { "process_start_time_seconds", METRIC_GAUGE, "seconds",
                               "Start of the server, in seconds since the epoch" },
};

/* Of servers with devices and features that this one does not have: a plug-in that takes one would be
 * read as the server. */
static const char *const reserved[] = {
    "nv_gpu_utilization",
    "nv_gpu_memory_total_bytes",
    "nv_gpu_memory_used_bytes",
    "nv_gpu_power_usage",
    "nv_gpu_power_limit",
    "nv_energy_consumption",
    "nv_pinned_memory_pool_total_bytes",
    "nv_pinned_memory_pool_used_bytes",
    "nv_cache_num_hits_per_model",
    "nv_cache_num_misses_per_model",
    "nv_cache_hit_duration_per_model",
    "nv_cache_miss_duration_per_model",
};

/* Endings that series of a type have besides the family's own name. */
static const char *const endings[][4] = {
    [METRIC_COUNTER] = { "_total", "_created" },
    [METRIC_GAUGE] = { NULL },
    [METRIC_HISTOGRAM] = { "_bucket", "_count", "_sum", "_created" },
};

/* A family's name: without _total when it is a counter. */
static size_t base_len(const char *name, enum metric_type type)
{
    size_t len = strlen(name), total = strlen("_total");
    bool is_cut = type == METRIC_COUNTER && len > total && !strcmp(name + len - total, "_total");
    return is_cut ? len - total : len;
}

/* Is b the family's name of a, with or without one of its endings? */
static bool is_name_of(const char *a, enum metric_type a_type, const char *b, size_t b_len)
{
    size_t len = base_len(a, a_type);
    if (b_len < len || memcmp(a, b, len) != 0)
        return false;
    if (b_len == len)
        return true;
    for (size_t i = 0; i < ARRAY_LEN(endings[0]); i++) {
        const char *ending = endings[a_type][i];
        if (ending && b_len - len == strlen(ending) && memcmp(b + len, ending, b_len - len) == 0)
            return true;
    }
    return false;
}

bool family_names_clash(const char *a, enum metric_type a_type, const char *b,
                        enum metric_type b_type)
{
    return is_name_of(a, a_type, b, base_len(b, b_type)) ||
           is_name_of(b, b_type, a, base_len(a, a_type));
}

const char *family_clash(const char *name, enum metric_type type)
{
    static const char prefix[] = "trtserver_";
    if (strncmp(name, prefix, strlen(prefix)) == 0)
        return prefix;
    for (size_t i = 0; i < FAMILY_COUNT; i++) {
        if (family_names_clash(families[i].name, families[i].type, name, type))
            return families[i].name;
    }
    for (size_t i = 0; i < ARRAY_LEN(reserved); i++) {
        if (family_names_clash(reserved[i], METRIC_GAUGE, name, type))
            return reserved[i];
    }
    return NULL;
}
