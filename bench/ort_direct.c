/* bench/ort_direct.c - the engine alone: ONNX Runtime called directly, in a loop, on one thread.
 *
 *   ort_direct LIBRARY MODEL INPUT_NAMES OUTPUT_NAMES INPUT_DIM MILLISECONDS
 *
 * Names are separated by commas; every input is FP32 [1, INPUT_DIM]. The session is made as the
 * backend makes it (one thread, no spinning); inputs are wrapped without a copy and outputs left to
 * the engine, for each run anew, because that is what any server has to do for each request.
 * Prints `RUNS WALL_US CPU_US START_US`; the last is what loading the library and making the session
 * took, which no server of this engine can start without.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../backends/onnxruntime/ort_api.h"

enum {
    TENSORS_MAX = 8
};

static struct ort_api ort;

static void check(OrtStatus *status)
{
    if (status) {
        fprintf(stderr, "ort_direct: %s\n", ort.GetErrorMessage(status));
        exit(1);
    }
}

static void quiet(void *param, OrtLoggingLevel severity, const char *category, const char *logid,
                  const char *code_location, const char *message)
{
    (void)param, (void)severity, (void)category, (void)logid, (void)code_location, (void)message;
}

static void load_api(const char *library)
{
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    const OrtApiBase *(*base)(void);
    if (!handle || !(*(void **)&base = dlsym(handle, "OrtGetApiBase"))) {
        fprintf(stderr, "ort_direct: %s\n", dlerror());
        exit(1);
    }
    void *const *slots = base()->GetApi(ORT_API_VERSION_NEEDED);
    if (!slots) {
        fprintf(stderr, "ort_direct: %s is older than this program\n", library);
        exit(1);
    }
#define COPY_SLOT(slot, name, ...) memcpy(&ort.name, &slots[slot], sizeof(ort.name));
    ORT_API_SLOTS(COPY_SLOT)
#undef COPY_SLOT
}

static size_t split(char *names, const char **ret_names)
{
    size_t count = 0;
    for (char *at = strtok_r(names, ",", &names); at && count < TENSORS_MAX;
         at = strtok_r(NULL, ",", &names))
        ret_names[count++] = at;
    return count;
}

static uint64_t now_us(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: ort_direct LIBRARY MODEL INPUTS OUTPUTS INPUT_DIM MILLISECONDS\n");
        return 2;
    }
    const char *inputs[TENSORS_MAX], *outputs[TENSORS_MAX];
    size_t input_count = split(argv[3], inputs), output_count = split(argv[4], outputs);
    int64_t shape[2] = { 1, strtol(argv[5], NULL, 10) };
    uint64_t duration_us = strtoul(argv[6], NULL, 10) * 1000;

    uint64_t started = now_us(CLOCK_MONOTONIC);
    load_api(argv[1]);
    OrtEnv *env;
    OrtSessionOptions *options;
    OrtSession *session;
    OrtMemoryInfo *memory;
    check(ort.CreateEnvWithCustomLogger(quiet, NULL, ORT_LOG_WARNING, "bench", &env));
    check(ort.CreateSessionOptions(&options));
    check(ort.SetIntraOpNumThreads(options, 1));
    check(ort.SetInterOpNumThreads(options, 1));
    check(ort.AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0"));
    check(ort.CreateSession(env, argv[2], options, &session));
    check(ort.CreateCpuMemoryInfo(ORT_ALLOCATOR_ARENA, ORT_MEM_TYPE_DEFAULT, &memory));

    uint64_t start = now_us(CLOCK_MONOTONIC) - started;

    size_t bytes = (size_t)shape[1] * sizeof(float);
    float *data = calloc(1, bytes);
    for (int64_t i = 0; i < shape[1]; i++)
        data[i] = (float)(i % 50);

    uint64_t runs = 0, wall = 0, cpu = 0, spent = 0;
    for (uint64_t i = 0; spent < duration_us; i++) {
        OrtValue *in[TENSORS_MAX] = { NULL }, *out[TENSORS_MAX] = { NULL };
        if (i == 200) { /* warm */
            wall = now_us(CLOCK_MONOTONIC);
            cpu = now_us(CLOCK_PROCESS_CPUTIME_ID);
        }
        for (size_t k = 0; k < input_count; k++)
            check(ort.CreateTensorWithDataAsOrtValue(memory, data, bytes, shape, 2,
                                                     ORT_ELEMENT_FLOAT, &in[k]));
        check(ort.Run(session, NULL, inputs, (const OrtValue *const *)in, input_count, outputs,
                      output_count, out));
        for (size_t k = 0; k < input_count; k++)
            ort.ReleaseValue(in[k]);
        for (size_t k = 0; k < output_count; k++)
            ort.ReleaseValue(out[k]);
        if (i >= 200) {
            runs++;
            if (runs % 64 == 0)
                spent = now_us(CLOCK_MONOTONIC) - wall;
        }
    }
    printf("%llu %llu %llu %llu\n", (unsigned long long)runs,
           (unsigned long long)(now_us(CLOCK_MONOTONIC) - wall),
           (unsigned long long)(now_us(CLOCK_PROCESS_CPUTIME_ID) - cpu), (unsigned long long)start);
    return 0;
}
