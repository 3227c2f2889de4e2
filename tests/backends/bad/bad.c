/* bad.c - a backend that breaks the rules of the interface, one way for each model.
 *
 * The parameter "mode" of the model's configuration chooses the way; some only show what the server tells
 * of instances. What the server answered to a forbidden call goes to the log as "bad MODE: CODE", so that
 * a test can look. Models have one input INPUT0 and one output OUTPUT0 of one type and shape, as for
 * identity.
 *
 * The mode "trace" breaks no rule: it tells the log what was called when, "trace INSTANCE WHAT". An
 * instance that initialises waits a moment for a second one; an execution with a request of id "hold"
 * waits for the file "go" in the model's directory.
 */
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tis/backend.h"

enum {
    LATE_MS = 1000,
    MEET_MS = 1500,  /* how long an instance waits for another one that initialises */
    HOLD_MS = 20000, /* how long a request "hold" waits for the file */
    METRICS = 3      /* a counter, a gauge, a histogram */
};

struct model {
    char mode[64];
    /* mode "metrics" */
    TRITONSERVER_MetricFamily *families[METRICS];
    TRITONSERVER_Metric *metrics[METRICS];
};

static void check(TRITONSERVER_Error *err)
{
    if (err) {
        fprintf(stderr, "bad backend: %s\n", TRITONSERVER_ErrorMessage(err));
        abort(); /* the server refused what is allowed: the test shall fail loudly */
    }
}

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    check(TRITONSERVER_LogMessage(TRITONSERVER_LOG_INFO, __FILE__, __LINE__, text));
}

/* The answer to a call that is forbidden. */
static void report(const char *mode, TRITONSERVER_Error *err)
{
    say("bad %s: %s", mode, err ? TRITONSERVER_ErrorCodeString(err) : "allowed");
    TRITONSERVER_ErrorDelete(err);
}

/* ---- One answer, the right way ---- */

/* Adds OUTPUT0, a copy of INPUT0. */
static void fill(TRITONBACKEND_Response *response, TRITONBACKEND_Request *request)
{
    TRITONBACKEND_Input *input;
    TRITONBACKEND_Output *output;
    TRITONSERVER_DataType type;
    const int64_t *shape;
    uint32_t rank, chunks;
    uint64_t bytes;
    TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
    int64_t memory_id = 0;
    void *to;
    check(TRITONBACKEND_RequestInput(request, "INPUT0", &input));
    check(TRITONBACKEND_InputProperties(input, NULL, &type, &shape, &rank, &bytes, &chunks));
    check(TRITONBACKEND_ResponseOutput(response, &output, "OUTPUT0", type, shape, rank));
    check(TRITONBACKEND_OutputBuffer(output, &to, bytes, &memory, &memory_id));
    for (uint32_t i = 0; i < chunks; i++) {
        const void *from;
        uint64_t part;
        check(TRITONBACKEND_InputBuffer(input, i, &from, &part, &memory, &memory_id));
        memcpy(to, from, part);
        to = (char *)to + part;
    }
}

static TRITONBACKEND_Response *filled(TRITONBACKEND_Request *request)
{
    TRITONBACKEND_Response *response;
    check(TRITONBACKEND_ResponseNew(&response, request));
    fill(response, request);
    return response;
}

static void send(TRITONBACKEND_Response *response, uint32_t flags)
{
    check(TRITONBACKEND_ResponseSend(response, flags, NULL));
}

static void release(TRITONBACKEND_Request *request)
{
    check(TRITONBACKEND_RequestRelease(request, TRITONSERVER_REQUEST_RELEASE_ALL));
}

static const uint32_t FINAL = TRITONSERVER_RESPONSE_COMPLETE_FINAL;

/* ---- Answers from another thread ---- */

static void wait_ms(uint32_t ms)
{
    struct timespec time = { .tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L };
    nanosleep(&time, NULL);
}

struct late {
    TRITONBACKEND_Request *request;         /* or, when it was released, */
    TRITONBACKEND_ResponseFactory *factory; /* this and the response */
    TRITONBACKEND_Response *response;
};

static void *late_run(void *arg)
{
    struct late *l = arg;
    wait_ms(LATE_MS);
    if (l->request) {
        send(filled(l->request), FINAL);
        release(l->request);
    } else {
        send(l->response, 0);
        check(TRITONBACKEND_ResponseFactorySendFlags(l->factory, FINAL));
        check(TRITONBACKEND_ResponseFactoryDelete(l->factory));
    }
    free(l);
    return NULL;
}

static void start_late(struct late late)
{
    struct late *l = malloc(sizeof(*l));
    pthread_t thread;
    *l = late;
    if (pthread_create(&thread, NULL, late_run, l) != 0)
        abort();
    pthread_detach(thread);
}

static void run_late(TRITONBACKEND_Request *request)
{
    start_late((struct late){ .request = request });
}

static void run_late_after_release(TRITONBACKEND_Request *request)
{
    struct late late = { 0 };
    check(TRITONBACKEND_ResponseFactoryNew(&late.factory, request));
    check(TRITONBACKEND_ResponseNewFromFactory(&late.response, late.factory));
    fill(late.response, request);
    release(request);
    start_late(late);
}

/* ---- The ways ---- */

static void run_ok(TRITONBACKEND_Request *request)
{
    send(filled(request), FINAL);
    release(request);
}

static void run_never(TRITONBACKEND_Request *request)
{
    (void)request;
}

static void run_send_twice(TRITONBACKEND_Request *request)
{
    TRITONBACKEND_Response *response = filled(request);
    send(response, FINAL);
    report("send_twice", TRITONBACKEND_ResponseSend(response, FINAL, NULL));
    report("send_twice", TRITONBACKEND_ResponseDelete(response));
    release(request);
}

static void run_release_twice(TRITONBACKEND_Request *request)
{
    TRITONBACKEND_Response *response = filled(request);
    release(request);
    report("release_twice",
           TRITONBACKEND_RequestRelease(request, TRITONSERVER_REQUEST_RELEASE_ALL));
    send(response, FINAL);
    report("release_twice",
           TRITONBACKEND_RequestRelease(request, TRITONSERVER_REQUEST_RELEASE_ALL));
}

static void run_reschedule(TRITONBACKEND_Request *request)
{
    report("reschedule",
           TRITONBACKEND_RequestRelease(request, TRITONSERVER_REQUEST_RELEASE_RESCHEDULE));
    run_ok(request);
}

static void run_send_after_final(TRITONBACKEND_Request *request)
{
    TRITONBACKEND_Response *late = filled(request), *last = filled(request);
    send(filled(request), FINAL);
    report("send_after_final", TRITONBACKEND_ResponseSend(late, 0, NULL));
    report("send_after_final", TRITONBACKEND_ResponseSend(last, FINAL, NULL));
    release(request);
}

static void run_two_responses(TRITONBACKEND_Request *request)
{
    send(filled(request), 0);
    send(filled(request), FINAL);
    release(request);
}

static void run_no_response(TRITONBACKEND_Request *request)
{
    TRITONBACKEND_ResponseFactory *factory;
    check(TRITONBACKEND_ResponseFactoryNew(&factory, request));
    check(TRITONBACKEND_ResponseFactorySendFlags(factory, FINAL));
    check(TRITONBACKEND_ResponseFactoryDelete(factory));
    release(request);
}

static void run_release_first(TRITONBACKEND_Request *request)
{
    TRITONBACKEND_Response *response = filled(request);
    release(request);
    send(response, FINAL);
}

/* After the release a request can be asked for nothing that outlives it. */
static void run_use_after_release(TRITONBACKEND_Request *request)
{
    TRITONBACKEND_Response *response = filled(request), *another;
    TRITONBACKEND_ResponseFactory *factory;
    release(request);
    report("use_after_release", TRITONBACKEND_ResponseNew(&another, request));
    report("use_after_release", TRITONBACKEND_ResponseFactoryNew(&factory, request));
    send(response, FINAL);
}

static void run_factory_misuse(TRITONBACKEND_Request *request)
{
    TRITONBACKEND_ResponseFactory *factory;
    TRITONBACKEND_Response *response;
    bool cancelled;
    check(TRITONBACKEND_ResponseFactoryNew(&factory, request));
    check(TRITONBACKEND_ResponseFactoryDelete(factory));
    report("factory_misuse", TRITONBACKEND_ResponseFactoryDelete(factory));
    report("factory_misuse", TRITONBACKEND_ResponseNewFromFactory(&response, factory));
    report("factory_misuse", TRITONBACKEND_ResponseFactorySendFlags(factory, FINAL));
    report("factory_misuse", TRITONBACKEND_ResponseFactoryIsCancelled(factory, &cancelled));
    run_ok(request);
}

static void run_wrong_name(TRITONBACKEND_Request *request)
{
    TRITONBACKEND_Response *response;
    TRITONBACKEND_Output *output;
    int64_t shape[] = { 1 };
    check(TRITONBACKEND_ResponseNew(&response, request));
    TRITONSERVER_Error *err = TRITONBACKEND_ResponseOutput(response, &output, "NOT_THERE",
                                                           TRITONSERVER_TYPE_INT32, shape, 1);
    check(TRITONBACKEND_ResponseSend(response, FINAL, err));
    TRITONSERVER_ErrorDelete(err);
    release(request);
}

static void run_output_twice(TRITONBACKEND_Request *request)
{
    TRITONBACKEND_Response *response = filled(request);
    TRITONBACKEND_Output *output;
    int64_t shape[] = { 1 };
    report("output_twice", TRITONBACKEND_ResponseOutput(response, &output, "OUTPUT0",
                                                        TRITONSERVER_TYPE_INT32, shape, 1));
    send(response, FINAL);
    release(request);
}

static void run_no_output(TRITONBACKEND_Request *request)
{
    TRITONBACKEND_Response *response;
    check(TRITONBACKEND_ResponseNew(&response, request));
    send(response, FINAL);
    release(request);
}

/* OUTPUT0 of one dimension, with `bytes` bytes of memory (none for SIZE_MAX) that are all 0xff. */
static void run_shape(TRITONBACKEND_Request *request, TRITONSERVER_DataType type, int64_t dim,
                      size_t bytes)
{
    TRITONBACKEND_Response *response;
    TRITONBACKEND_Output *output;
    check(TRITONBACKEND_ResponseNew(&response, request));
    check(TRITONBACKEND_ResponseOutput(response, &output, "OUTPUT0", type, &dim, 1));
    if (bytes != SIZE_MAX) {
        TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
        int64_t memory_id = 0;
        void *to;
        check(TRITONBACKEND_OutputBuffer(output, &to, bytes, &memory, &memory_id));
        memset(to, 0xff, bytes);
        report("memory_twice", TRITONBACKEND_OutputBuffer(output, &to, bytes, &memory, &memory_id));
    }
    send(response, FINAL);
    release(request);
}

static void run_no_buffer(TRITONBACKEND_Request *request)
{
    run_shape(request, TRITONSERVER_TYPE_INT32, 4, SIZE_MAX);
}

static void run_shape_too_large(TRITONBACKEND_Request *request)
{
    run_shape(request, TRITONSERVER_TYPE_INT32, INT64_MAX, 16);
}

static void run_shape_negative(TRITONBACKEND_Request *request)
{
    run_shape(request, TRITONSERVER_TYPE_INT32, -1, 16);
}

static void run_shape_other(TRITONBACKEND_Request *request)
{
    run_shape(request, TRITONSERVER_TYPE_INT32, 5, 16);
}

static void run_bad_strings(TRITONBACKEND_Request *request)
{
    run_shape(request, TRITONSERVER_TYPE_BYTES, 4, 16);
}

/* ---- Metrics: the right way, but for a name that is taken. All models make the same. ---- */

static void metrics_make(struct model *model)
{
    static const char *const names[METRICS] = { "bad_requests_total", "bad_level", "bad_seconds" };
    static const double bounds[] = { 1, 2.5 };
    TRITONSERVER_MetricFamily *taken;
    TRITONSERVER_MetricArgs *args;
    TRITONSERVER_Parameter *label =
        TRITONSERVER_ParameterNew("what", TRITONSERVER_PARAMETER_STRING, "a \"test\"");
    const TRITONSERVER_Parameter *labels[] = { label };
    report("metrics", TRITONSERVER_MetricFamilyNew(&taken, TRITONSERVER_METRIC_KIND_COUNTER,
                                                   "nv_inference_count", "not ours"));
    check(TRITONSERVER_MetricArgsNew(&args));
    check(TRITONSERVER_MetricArgsSetHistogram(args, bounds, 2));
    for (int i = 0; i < METRICS; i++) {
        check(TRITONSERVER_MetricFamilyNew(&model->families[i], (TRITONSERVER_MetricKind)i,
                                           names[i], "Made by a backend"));
        if (i == TRITONSERVER_METRIC_KIND_HISTOGRAM)
            check(TRITONSERVER_MetricNewWithArgs(&model->metrics[i], model->families[i], labels, 1,
                                                 args));
        else
            check(TRITONSERVER_MetricNew(&model->metrics[i], model->families[i], labels, 1));
    }
    check(TRITONSERVER_MetricArgsDelete(args));
    TRITONSERVER_ParameterDelete(label);
}

static void metrics_move(struct model *model)
{
    check(TRITONSERVER_MetricIncrement(model->metrics[0], 1));
    check(TRITONSERVER_MetricSet(model->metrics[1], -0.25));
    check(TRITONSERVER_MetricObserve(model->metrics[2], 2));
}

static void metrics_delete(struct model *model)
{
    for (int i = 0; i < METRICS; i++) {
        check(TRITONSERVER_MetricDelete(model->metrics[i]));
        check(TRITONSERVER_MetricFamilyDelete(model->families[i]));
    }
}

/* ---- Executions at the same time: for the rate limiter, nothing bad here ---- */

static _Atomic int32_t running;

/* Answers with the most that ran at the same time, in the sum of their weights. */
static void run_weighs(TRITONBACKEND_Request *request, int32_t weight)
{
    struct timespec while_others_come = { .tv_nsec = 200000 };
    int32_t most = atomic_fetch_add(&running, weight) + weight;
    nanosleep(&while_others_come, NULL);
    int32_t now = atomic_fetch_sub(&running, weight);
    if (now > most)
        most = now;

    TRITONBACKEND_Response *response;
    TRITONBACKEND_Output *output;
    TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
    int64_t memory_id = 0, shape[] = { 4 };
    void *to;
    check(TRITONBACKEND_ResponseNew(&response, request));
    check(TRITONBACKEND_ResponseOutput(response, &output, "OUTPUT0", TRITONSERVER_TYPE_INT32, shape,
                                       1));
    check(TRITONBACKEND_OutputBuffer(output, &to, 4 * sizeof(most), &memory, &memory_id));
    for (int i = 0; i < 4; i++)
        memcpy((char *)to + (size_t)i * sizeof(most), &most, sizeof(most));
    send(response, FINAL);
    release(request);
}

static void run_weighs_1(TRITONBACKEND_Request *request)
{
    run_weighs(request, 1);
}

static void run_weighs_2(TRITONBACKEND_Request *request)
{
    run_weighs(request, 2);
}

static void run_weighs_4(TRITONBACKEND_Request *request)
{
    run_weighs(request, 4);
}

/* An execution posts the first and then waits for the second, which the test finds with dlsym(). */
__attribute__((visibility("default"))) sem_t bad_gate_reached, bad_gate_open;

__attribute__((constructor)) static void make_gate(void)
{
    sem_init(&bad_gate_reached, 0, 0);
    sem_init(&bad_gate_open, 0, 0);
}

static void run_gate(TRITONBACKEND_Request *request)
{
    sem_post(&bad_gate_reached);
    while (sem_wait(&bad_gate_open) != 0)
        continue;
    run_ok(request);
}

static const struct {
    const char *mode;
    void (*run)(TRITONBACKEND_Request *request);
} ways[] = {
    { "ok", run_ok },
    { "metrics", run_ok },
    { "trace", run_ok },
    { "late", run_late },
    { "late_after_release", run_late_after_release },
    { "never", run_never },
    { "send_twice", run_send_twice },
    { "release_twice", run_release_twice },
    { "reschedule", run_reschedule },
    { "send_after_final", run_send_after_final },
    { "two_responses", run_two_responses },
    { "no_response", run_no_response },
    { "release_first", run_release_first },
    { "use_after_release", run_use_after_release },
    { "factory_misuse", run_factory_misuse },
    { "wrong_name", run_wrong_name },
    { "output_twice", run_output_twice },
    { "no_output", run_no_output },
    { "no_buffer", run_no_buffer },
    { "shape_too_large", run_shape_too_large },
    { "shape_negative", run_shape_negative },
    { "shape_other", run_shape_other },
    { "bad_strings", run_bad_strings },
    { "weighs_1", run_weighs_1 },
    { "weighs_2", run_weighs_2 },
    { "weighs_4", run_weighs_4 },
    { "gate", run_gate },
};

/* ---- Memory that is said to be used ---- */

struct usage {
    TRITONSERVER_MemoryType type;
    int64_t id;
    size_t bytes;
};

enum {
    USAGES_MAX = 4
};

static void make_usages(const struct usage *usages, uint32_t count,
                        TRITONSERVER_BufferAttributes **ret_attributes)
{
    for (uint32_t i = 0; i < count; i++) {
        check(TRITONSERVER_BufferAttributesNew(&ret_attributes[i]));
        check(TRITONSERVER_BufferAttributesSetMemoryType(ret_attributes[i], usages[i].type));
        check(TRITONSERVER_BufferAttributesSetMemoryTypeId(ret_attributes[i], usages[i].id));
        check(TRITONSERVER_BufferAttributesSetByteSize(ret_attributes[i], usages[i].bytes));
    }
}

static void free_usages(TRITONSERVER_BufferAttributes **attributes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        check(TRITONSERVER_BufferAttributesDelete(attributes[i]));
}

/* The second report replaces the first; one place may be named twice. */
static void report_model_memory(TRITONBACKEND_Model *model)
{
    static const struct usage first[] = { { TRITONSERVER_MEMORY_CPU, 3, 99 } };
    static const struct usage second[] = { { TRITONSERVER_MEMORY_GPU, 1, 5000 },
                                           { TRITONSERVER_MEMORY_CPU, 0, 1000 },
                                           { TRITONSERVER_MEMORY_CPU, 0, 24 },
                                           { TRITONSERVER_MEMORY_GPU, 0, 7 } };
    TRITONSERVER_BufferAttributes *attributes[USAGES_MAX];
    make_usages(first, 1, attributes);
    check(TRITONBACKEND_ModelReportMemoryUsage(model, attributes, 1));
    free_usages(attributes, 1);
    make_usages(second, USAGES_MAX, attributes);
    check(TRITONBACKEND_ModelReportMemoryUsage(model, attributes, USAGES_MAX));
    free_usages(attributes, USAGES_MAX);
}

static void report_instance_memory(TRITONBACKEND_ModelInstance *instance)
{
    static const struct usage usages[] = { { TRITONSERVER_MEMORY_CPU_PINNED, 0, 60 },
                                           { TRITONSERVER_MEMORY_CPU, 0, 300 } };
    TRITONSERVER_BufferAttributes *attributes[USAGES_MAX];
    make_usages(usages, 2, attributes);
    check(TRITONBACKEND_ModelInstanceReportMemoryUsage(instance, attributes, 2));
    free_usages(attributes, 2);
}

/* ---- Where an instance runs ---- */

/* Logs what the server tells of an instance. */
static void describe(TRITONBACKEND_ModelInstance *instance)
{
    const char *name, *policy;
    TRITONSERVER_InstanceGroupKind kind;
    int32_t device;
    TRITONSERVER_Message *message;
    size_t len;
    char text[512];
    check(TRITONBACKEND_ModelInstanceName(instance, &name));
    check(TRITONBACKEND_ModelInstanceKind(instance, &kind));
    check(TRITONBACKEND_ModelInstanceDeviceId(instance, &device));
    check(TRITONBACKEND_ModelInstanceHostPolicy(instance, &message));
    check(TRITONSERVER_MessageSerializeToJson(message, &policy, &len));
    snprintf(text, sizeof(text), "bad describe: %s %s %" PRId32 " %s", name,
             TRITONSERVER_InstanceGroupKindString(kind), device, policy);
    check(TRITONSERVER_LogMessage(TRITONSERVER_LOG_INFO, __FILE__, __LINE__, text));
}

/* 1 for the first thread that asks, and so on. */
static int32_t thread_number(void)
{
    static _Atomic int32_t last;
    static _Thread_local int32_t mine;
    if (mine == 0)
        mine = atomic_fetch_add(&last, 1) + 1;
    return mine;
}

/* OUTPUT0, four INT32: the thread, the instance's device and kind, and 0. Slow, so that other threads
 * have a chance. */
static void run_place(TRITONBACKEND_ModelInstance *instance, TRITONBACKEND_Request *request)
{
    static const int64_t shape[] = { 4 };
    TRITONBACKEND_Response *response;
    TRITONBACKEND_Output *output;
    TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
    TRITONSERVER_InstanceGroupKind kind;
    int64_t memory_id = 0;
    void *to;
    int32_t place[4] = { thread_number() };
    struct timespec delay = { .tv_nsec = 2000000 };
    nanosleep(&delay, NULL);
    check(TRITONBACKEND_ModelInstanceDeviceId(instance, &place[1]));
    check(TRITONBACKEND_ModelInstanceKind(instance, &kind));
    place[2] = (int32_t)kind;
    check(TRITONBACKEND_ResponseNew(&response, request));
    check(TRITONBACKEND_ResponseOutput(response, &output, "OUTPUT0", TRITONSERVER_TYPE_INT32, shape,
                                       1));
    check(TRITONBACKEND_OutputBuffer(output, &to, sizeof(place), &memory, &memory_id));
    memcpy(to, place, sizeof(place));
    send(response, FINAL);
    release(request);
}

/* ---- What is called when ---- */

static const char *name_of(TRITONBACKEND_ModelInstance *instance)
{
    const char *name;
    check(TRITONBACKEND_ModelInstanceName(instance, &name));
    return name;
}

/* Until two instances are here at once, or for MEET_MS. */
static void meet(void)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
    static int count;
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += MEET_MS / 1000;
    deadline.tv_nsec += MEET_MS % 1000 * 1000000L;
    deadline.tv_sec += deadline.tv_nsec / 1000000000;
    deadline.tv_nsec %= 1000000000;
    pthread_mutex_lock(&mutex);
    count++;
    pthread_cond_broadcast(&changed);
    while (count < 2 && pthread_cond_timedwait(&changed, &mutex, &deadline) == 0)
        continue;
    if (count < 2)
        count = 0;
    pthread_mutex_unlock(&mutex);
}

static void trace_initialize(TRITONBACKEND_ModelInstance *instance)
{
    say("trace %s initialize begin", name_of(instance));
    meet();
    say("trace %s initialize end", name_of(instance));
}

static void wait_for_go(TRITONBACKEND_ModelInstance *instance)
{
    TRITONBACKEND_Model *model;
    TRITONBACKEND_ArtifactType type;
    const char *directory;
    char path[4096];
    check(TRITONBACKEND_ModelInstanceModel(instance, &model));
    check(TRITONBACKEND_ModelRepository(model, &type, &directory));
    snprintf(path, sizeof(path), "%s/go", directory);
    for (int ms = 0; ms < HOLD_MS && access(path, F_OK) != 0; ms += 5)
        wait_ms(5);
}

/* "trace INSTANCE execute ID,ID": requests without an id are "-". */
static void trace_execute(TRITONBACKEND_ModelInstance *instance, TRITONBACKEND_Request **requests,
                          uint32_t count)
{
    char ids[800] = "";
    size_t len = 0;
    bool hold = false;
    for (uint32_t i = 0; i < count; i++) {
        const char *id;
        check(TRITONBACKEND_RequestId(requests[i], &id));
        hold = hold || strcmp(id, "hold") == 0;
        len += (size_t)snprintf(ids + len, sizeof(ids) - len, "%s%s", i ? "," : "", *id ? id : "-");
        if (len >= sizeof(ids))
            break;
    }
    say("trace %s execute %s", name_of(instance), ids);
    if (hold)
        wait_for_go(instance);
}

/* ---- Entry points ---- */

static _Atomic int instances_left = -1; /* -1: any number */

/* --backend-config=NAME,execution=device_blocking */
TRITONSERVER_Error *TRITONBACKEND_Initialize(TRITONBACKEND_Backend *backend)
{
    TRITONSERVER_Message *message;
    const char *json;
    size_t len;
    check(TRITONBACKEND_BackendConfig(backend, &message));
    check(TRITONSERVER_MessageSerializeToJson(message, &json, &len));
    if (strstr(json, "\"execution\":\"device_blocking\""))
        check(TRITONBACKEND_BackendSetExecutionPolicy(backend,
                                                      TRITONBACKEND_EXECUTION_DEVICE_BLOCKING));
    const char *limit = strstr(json, "\"fails_from\":\"");
    instances_left = limit ? (int)strtol(limit + strlen("\"fails_from\":\""), NULL, 10) : -1;
    return NULL;
}

/* --backend-config=NAME,prefers=model: GPU 3, else three instances of KIND_MODEL.
 * --backend-config=NAME,parallel=true: instances are initialised at the same time. */
TRITONSERVER_Error *TRITONBACKEND_GetBackendAttribute(TRITONBACKEND_Backend *backend,
                                                      TRITONBACKEND_BackendAttribute *attributes)
{
    static const uint64_t gpus[] = { 3 };
    TRITONSERVER_Message *message;
    const char *json;
    size_t len;
    check(TRITONBACKEND_BackendConfig(backend, &message));
    check(TRITONSERVER_MessageSerializeToJson(message, &json, &len));
    if (strstr(json, "\"prefers\":\"model\"")) {
        check(TRITONBACKEND_BackendAttributeAddPreferredInstanceGroup(
            attributes, TRITONSERVER_INSTANCEGROUPKIND_GPU, 1, gpus, 1));
        check(TRITONBACKEND_BackendAttributeAddPreferredInstanceGroup(
            attributes, TRITONSERVER_INSTANCEGROUPKIND_MODEL, 3, NULL, 0));
    }
    if (strstr(json, "\"prefers\":\"many\""))
        check(TRITONBACKEND_BackendAttributeAddPreferredInstanceGroup(
            attributes, TRITONSERVER_INSTANCEGROUPKIND_CPU, INT32_MAX, NULL, 0));
    if (strstr(json, "\"parallel\":\"true\""))
        check(TRITONBACKEND_BackendAttributeSetParallelModelInstanceLoading(attributes, true));
    return NULL;
}

/* --backend-config=NAME,fails_from=N: that many instances can be initialised, no more. */
static bool is_one_too_many(void)
{
    return instances_left >= 0 && atomic_fetch_sub(&instances_left, 1) <= 0;
}

static TRITONSERVER_Error *error(const char *text)
{
    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNAVAILABLE, text);
}

static void crash(void)
{
    raise(SIGSEGV);
}

/* Runs out of stack; the result keeps the compiler from making a loop of it. */
static int overflow(volatile int depth)
{
    volatile char frame[1024];
    frame[0] = (char)depth;
    return depth < 0 ? 0 : overflow(depth + 1) + frame[0]; /* GCC refuses what cannot end */
}

/* The value of parameter "mode" in {..."mode":{"string_value":"VALUE"}...}. */
static void read_mode(TRITONBACKEND_Model *handle, struct model *model)
{
    static const char key[] = "\"mode\":{\"string_value\":\"";
    TRITONSERVER_Message *message;
    const char *json;
    size_t len;
    check(TRITONBACKEND_ModelConfig(handle, 1, &message));
    check(TRITONSERVER_MessageSerializeToJson(message, &json, &len));
    const char *at = strstr(json, key);
    if (at) {
        at += sizeof(key) - 1;
        snprintf(model->mode, sizeof(model->mode), "%.*s", (int)strcspn(at, "\""), at);
    }
    check(TRITONSERVER_MessageDelete(message));
}

TRITONSERVER_Error *TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model *handle)
{
    struct model *model = calloc(1, sizeof(*model));
    read_mode(handle, model);
    check(TRITONBACKEND_ModelSetState(handle, model));
    if (strcmp(model->mode, "crash_model_initialize") == 0)
        crash();
    if (strcmp(model->mode, "memory") == 0)
        report_model_memory(handle);
    if (strcmp(model->mode, "error_model_initialize") == 0)
        return error("this model shall not be");
    if (strcmp(model->mode, "metrics") == 0)
        metrics_make(model);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model *handle)
{
    void *model;
    check(TRITONBACKEND_ModelState(handle, &model));
    if (strcmp(((struct model *)model)->mode, "metrics") == 0)
        metrics_delete(model);
    free(model);
    return NULL;
}

static struct model *model_of(TRITONBACKEND_ModelInstance *instance)
{
    TRITONBACKEND_Model *model;
    void *state;
    check(TRITONBACKEND_ModelInstanceModel(instance, &model));
    check(TRITONBACKEND_ModelState(model, &state));
    return state;
}

static const char *mode_of(TRITONBACKEND_ModelInstance *instance)
{
    return model_of(instance)->mode;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance *instance)
{
    if (strcmp(mode_of(instance), "memory") == 0)
        report_instance_memory(instance);
    if (strcmp(mode_of(instance), "error_instance_initialize") == 0)
        return error("this instance shall not be");
    if (strcmp(mode_of(instance), "trace") == 0)
        trace_initialize(instance);
    if (strcmp(mode_of(instance), "describe") == 0)
        describe(instance);
    return is_one_too_many() ? error("there are enough instances") : NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceReady(TRITONBACKEND_ModelInstance *instance)
{
    return strcmp(mode_of(instance), "not_ready") == 0 ? error("not ready") : NULL;
}

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* Execute returns an error, having done various things that it should not have done. */
static TRITONSERVER_Error *fail(const char *mode, TRITONBACKEND_Request **requests, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(mode, "error_execute_answered") == 0)
            run_ok(requests[i]);
        if (strcmp(mode, "error_execute_sent") == 0)
            send(filled(requests[i]), FINAL);
        if (strcmp(mode, "error_execute_cleared") == 0)
            requests[i] = NULL;
    }
    return error("execute fails");
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance *instance,
                                                       TRITONBACKEND_Request **requests,
                                                       const uint32_t request_count)
{
    const char *mode = mode_of(instance);
    uint64_t start_ns = now_ns();
    if (strcmp(mode, "crash_execute") == 0)
        crash();
    if (strcmp(mode, "overflow_execute") == 0)
        overflow(0);
    if (strcmp(mode, "trace") == 0)
        trace_execute(instance, requests, request_count);
    if (strncmp(mode, "error_execute", strlen("error_execute")) == 0)
        return fail(mode, requests, request_count);
    /* Counted before it is answered: who has the answer finds it in the statistics. */
    check(TRITONBACKEND_ModelInstanceReportBatchStatistics(instance, request_count, start_ns,
                                                           start_ns - 5, start_ns - 9, now_ns()));
    for (uint32_t i = 0; i < request_count; i++) {
        /* Times out of order, at that: the server must not count centuries. */
        check(TRITONBACKEND_ModelInstanceReportStatistics(instance, requests[i], true, start_ns,
                                                          start_ns - 5, start_ns - 9, now_ns()));
        if (strcmp(mode, "metrics") == 0)
            metrics_move(model_of(instance));
        if (strcmp(mode, "place") == 0)
            run_place(instance, requests[i]);
        if (strcmp(mode, "describe") == 0)
            run_ok(requests[i]);
        for (size_t k = 0; k < sizeof(ways) / sizeof(ways[0]); k++) {
            if (strcmp(ways[k].mode, mode) == 0)
                ways[k].run(requests[i]);
        }
    }
    return NULL;
}
