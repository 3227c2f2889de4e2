#include "exec/warmup.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "infer/datatype.h"
#include "infer/reason.h"
#include "infer/response.h"
#include "infer/shape.h"

/* While answers are missing: when to look whether the server ends, and when to tell the log. */
#define LOOK_NS (1 * NS_PER_SEC)
#define WARN_NS (5 * NS_PER_SEC)

enum {
    NUMBER_BELOW = 128,    /* random integers: fit every type, and most vocabularies */
    STRING_DIGITS_MAX = 8, /* of a random string, so that models that take numbers can read it */
};

/* ---- Data ---- */

/* splitmix64: the same data on every machine and each time. */
static uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

/* value / 2048 as FP16; value < 2048. */
static uint16_t half_of(uint32_t value)
{
    if (value == 0)
        return 0;
    uint32_t high = 31 - (uint32_t)__builtin_clz(value);
    return (uint16_t)((high - 11 + 15) << 10 | ((value << (10 - high)) & 0x3ff));
}

/* Writes one number of [0, 1), of 0 to NUMBER_BELOW - 1, or a truth value. */
static void write_random(TRITONSERVER_DataType type, uint64_t random, unsigned char *to)
{
    uint64_t integer = random % NUMBER_BELOW;
    float real = (float)(random >> 40) / (float)(1 << 24);
    double wide = real;
    uint32_t bits;
    uint16_t half;
    switch (type) {
    case TRITONSERVER_TYPE_FP64:
        memcpy(to, &wide, sizeof(wide));
        break;
    case TRITONSERVER_TYPE_FP32:
        memcpy(to, &real, sizeof(real));
        break;
    case TRITONSERVER_TYPE_BF16:
        memcpy(&bits, &real, sizeof(bits));
        half = (uint16_t)(bits >> 16);
        memcpy(to, &half, sizeof(half));
        break;
    case TRITONSERVER_TYPE_FP16:
        half = half_of((uint32_t)(random >> 53));
        memcpy(to, &half, sizeof(half));
        break;
    case TRITONSERVER_TYPE_BOOL:
        *to = integer & 1;
        break;
    default: /* integers, little-endian as everything here */
        memcpy(to, &integer, datatype_bytes(type));
        break;
    }
}

/* Appends count strings of decimal digits. */
static void append_random_strings(struct bytes *out, uint64_t count, uint64_t *state)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t random = random_next(state);
        uint32_t len = 1 + (uint32_t)(random % STRING_DIGITS_MAX);
        char digits[STRING_DIGITS_MAX];
        for (uint32_t k = 0; k < len; k++) {
            random /= 10;
            digits[k] = (char)('0' + random % 10);
        }
        bytes_append(out, &len, sizeof(len));
        bytes_append(out, digits, len);
    }
}

/* ---- Samples ---- */

struct sample_input {
    const char *name;
    TRITONSERVER_DataType type;
    int64_t *shape; /* with the batch dimension, which is 1 */
    uint32_t rank;
    struct buffer *data;
    uint64_t bytes;
};

/* What the requests of a sample share. */
struct sample {
    const Inference__ModelWarmup *config;
    struct sample_input *inputs;
    size_t input_count;
};

static void sample_fini(struct sample *s)
{
    for (size_t i = 0; i < s->input_count; i++) {
        buffer_unref(s->inputs[i].data);
        free(s->inputs[i].shape);
    }
    free(s->inputs);
}

static tis_error *take_bytes(struct sample_input *in, const void *data, size_t len)
{
    in->data = buffer_create(len, 0);
    if (!in->data)
        return error_no_memory();
    if (len)
        memcpy(in->data->base, data, len);
    in->bytes = len;
    return NULL;
}

/* element: its bytes, 0 for strings, whose number request_validate() checks. */
static tis_error *read_data(const struct tis_version *v, struct sample_input *in, const char *file,
                            uint64_t count, uint32_t element)
{
    struct bytes path = { 0 };
    char *text = NULL;
    size_t len = 0;
    bytes_printf(&path, "%s/warmup/%s", v->directory, file);
    tis_error *err = v->hooks.read_file(bytes_str(&path), CONFIG_WARMUP_BYTES_MAX, &text, &len);
    if (!err && element > 0 && len != count * element)
        err = error_new(TRITONSERVER_ERROR_INVALID_ARG,
                        "'%s' has %zu bytes, expected %" PRIu64 ": one row of %" PRIu64
                        " elements of %s",
                        bytes_str(&path), len, count * element, count, datatype_name(in->type));
    if (!err)
        err = take_bytes(in, text, len);
    free(text);
    bytes_fini(&path);
    return err;
}

static tis_error *make_strings(struct sample_input *in, uint64_t count, uint64_t seed)
{
    struct bytes strings = { 0 };
    append_random_strings(&strings, count, &seed);
    tis_error *err =
        strings.failed ? error_no_memory() : take_bytes(in, bytes_str(&strings), strings.len);
    bytes_fini(&strings);
    return err;
}

static tis_error *make_numbers(struct sample_input *in, uint64_t count, uint32_t element,
                               uint64_t seed)
{
    in->bytes = count * element;
    in->data = buffer_create(in->bytes, 0);
    if (!in->data)
        return error_no_memory();
    unsigned char *to = in->data->base;
    for (uint64_t i = 0; i < count; i++)
        write_random(in->type, random_next(&seed), to + i * element);
    return NULL;
}

/* Numbers 0, or empty strings. */
static tis_error *make_zeros(struct sample_input *in, uint64_t count, uint32_t element)
{
    in->bytes = count * (element ? element : sizeof(uint32_t));
    in->data = buffer_create(in->bytes, 0);
    if (!in->data)
        return error_no_memory();
    memset(in->data->base, 0, in->bytes);
    return NULL;
}

static tis_error *make_data(const struct tis_version *v, size_t index,
                            const Inference__ModelWarmup__Input *from, struct sample_input *in)
{
    uint32_t element = datatype_bytes(in->type);
    uint64_t count;
    uint64_t seed = index + 1;
    bool fits = shape_count(in->shape, in->rank, &count);
    assert(fits && count <= CONFIG_WARMUP_BYTES_MAX); /* config_validate() looked */
    switch (from->input_data_type_case) {
    case INFERENCE__MODEL_WARMUP__INPUT__INPUT_DATA_TYPE_INPUT_DATA_FILE:
        return read_data(v, in, from->input_data_file, count, element);
    case INFERENCE__MODEL_WARMUP__INPUT__INPUT_DATA_TYPE_RANDOM_DATA:
        return element == 0 ? make_strings(in, count, seed)
                            : make_numbers(in, count, element, seed);
    default:
        return make_zeros(in, count, element);
    }
}

static tis_error *sample_input_init(struct sample_input *in, const struct tis_version *v,
                                    size_t index, const Inference__ModelWarmup__InputsEntry *from)
{
    const Inference__ModelWarmup__Input *value = from->value;
    uint32_t skip = v->config->max_batch_size > 0;
    in->name = from->key;
    in->type = (TRITONSERVER_DataType)value->data_type;
    in->rank = (uint32_t)value->n_dims + skip;
    in->shape = calloc(in->rank ? in->rank : 1, sizeof(*in->shape));
    if (!in->shape)
        return error_no_memory();
    in->shape[0] = 1;
    if (value->n_dims)
        memcpy(in->shape + skip, value->dims, value->n_dims * sizeof(*in->shape));
    return make_data(v, index, value, in);
}

static tis_error *sample_init(struct sample *s, const struct tis_version *v,
                              const Inference__ModelWarmup *config)
{
    *s = (struct sample){ .config = config };
    s->inputs = calloc(config->n_inputs ? config->n_inputs : 1, sizeof(*s->inputs));
    if (!s->inputs)
        return error_no_memory();
    s->input_count = config->n_inputs;
    tis_error *err = NULL;
    for (size_t i = 0; i < s->input_count && !err; i++)
        err = sample_input_init(&s->inputs[i], v, i, config->inputs[i]);
    return err;
}

/* ---- Running ---- */

/* One execution of a sample. */
struct run {
    /* set before the requests exist, then constant */
    struct tis_instance *instance;
    const struct sample *sample;
    /* under the version's lock */
    struct cond changed;
    uint32_t open;    /* requests that have not come back */
    tis_error *error; /* the first that was answered */
};

static void run_complete(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    struct run *run = sink->user;
    struct lock *lock = &run->instance->version->lock;
    (void)flags;
    if (response && response->error) {
        lock_take(lock);
        if (!run->error)
            run->error = error_copy(response->error);
        lock_release(lock);
    }
    response_destroy(&response); /* whether it is right is not for us to know */
}

static void run_done(struct sink *sink, struct tis_request *request)
{
    struct run *run = sink->user;
    struct lock *lock = &run->instance->version->lock;
    request_free(&request);
    lock_take(lock);
    run->open--;
    cond_signal(&run->changed);
    lock_release(lock); /* run is gone from here on */
}

static const struct sink_ops run_ops = { .complete = run_complete, .done = run_done };

/* The version outlives its instances, and these the sinks of their warm-up: what the plug-in keeps of
 * them it gives back in ModelInstanceFinalize at the latest. */
static void version_stays(struct tis_version *v)
{
    (void)v;
}

static tis_error *make_request(struct run *run, struct tis_request **ret_request)
{
    struct tis_version *v = run->instance->version;
    const struct sample *s = run->sample;
    struct tis_request *req = request_create(&run_ops, run);
    if (!req)
        return error_no_memory();
    req->sink->version = v;
    req->sink->version_unref = version_stays;
    tis_error *err = request_reserve_inputs(req, (uint32_t)s->input_count);
    for (size_t i = 0; i < s->input_count && !err; i++) {
        const struct sample_input *in = &s->inputs[i];
        struct tis_input *to = request_add_input(req, in->name, in->type, in->shape, in->rank);
        err = request_add_chunk(req, to, in->data->base, in->bytes, TRITONSERVER_MEMORY_CPU, 0,
                                in->data);
    }
    if (!err)
        err = v->hooks.check_request(req, v->config, v->model_name);
    if (err) {
        request_free(&req);
        return err;
    }
    request_start(req);
    req->stamps[STAMP_QUEUE_START] = req->stamps[STAMP_REQUEST_START];
    bool moved = request_move(req, REQUEST_NEW, REQUEST_QUEUED);
    assert(moved);
    *ret_request = req;
    return NULL;
}

/* sinks: of the requests, referenced. */
static void wait_answers(struct run *run, struct sink **sinks, uint32_t count)
{
    struct tis_version *v = run->instance->version;
    uint64_t start_ns = clock_ns();
    uint64_t warn_ns = start_ns + WARN_NS;
    bool cancelled = false;

    lock_take(&v->lock);
    while (run->open > 0) {
        cond_wait_until(&run->changed, &v->lock, clock_ns() + LOOK_NS);
        uint32_t open = run->open;
        uint64_t now_ns = clock_ns();
        lock_release(&v->lock);
        if (open > 0 && now_ns >= warn_ns) {
            log_warning("warm-up waits model=%s instance=%s sample=\"%s\" unanswered=%u s=%" PRIu64
                        ": the model is not ready before",
                        v->model_name, run->instance->name, run->sample->config->name, open,
                        (now_ns - start_ns) / NS_PER_SEC);
            warn_ns = now_ns + WARN_NS;
        }
        if (!cancelled && atomic_load(v->hooks.stopping)) {
            cancelled = true;
            for (uint32_t i = 0; i < count; i++)
                atomic_store(&sinks[i]->cancelled, true);
        }
        lock_take(&v->lock);
    }
    lock_release(&v->lock);
}

/* The arrays have room for the sample's batch. */
struct arrays {
    struct tis_request **requests;
    struct sink **sinks;
    struct given *given;
};

static tis_error *execute_once(struct tis_instance *i, const struct sample *s,
                               const struct arrays *a)
{
    struct run run = { .instance = i, .sample = s };
    uint32_t count = s->config->batch_size;
    tis_error *err = NULL;
    uint32_t made = 0;
    cond_init(&run.changed);
    for (; made < count; made++) {
        err = make_request(&run, &a->requests[made]);
        if (err)
            break;
        a->sinks[made] = sink_ref(a->requests[made]->sink);
    }
    if (err) { /* the backend has not seen them */
        for (uint32_t k = 0; k < made; k++) {
            bool moved = request_move(a->requests[k], REQUEST_QUEUED, REQUEST_NEW);
            assert(moved);
            request_free(&a->requests[k]);
        }
    } else {
        run.open = count; /* nobody else knows of it yet */
        instance_execute(i, a->requests, count, a->given);
        wait_answers(&run, a->sinks, count);
        err = run.error;
    }
    for (uint32_t k = 0; k < made; k++)
        sink_unref(a->sinks[k]);
    cond_fini(&run.changed);
    return err;
}

static tis_error *sample_run(struct tis_instance *i, const struct sample *s)
{
    struct tis_version *v = i->version;
    uint32_t batch_size = s->config->batch_size;
    uint32_t count = s->config->count ? s->config->count : 1;
    struct arrays a = {
        .requests = calloc(batch_size, sizeof(*a.requests)),
        .sinks = calloc(batch_size, sizeof(*a.sinks)),
        .given = calloc(batch_size, sizeof(*a.given)),
    };
    tis_error *err = a.requests && a.sinks && a.given ? NULL : error_no_memory();
    for (uint32_t k = 0; k < count && !err; k++) {
        if (atomic_load(v->hooks.stopping)) {
            err = reason_error_args(REASON_SERVER_EXITING, NULL, 0);
            break;
        }
        log_verbose("warm-up model=%s version=%" PRId64 " instance=%s sample=\"%s\" run=%u of=%u "
                    "requests=%u",
                    v->model_name, v->number, i->name, s->config->name, k + 1, count, batch_size);
        err = execute_once(i, s, &a);
    }
    free(a.requests);
    free(a.sinks);
    free(a.given);
    return err;
}

tis_error *warmup_run(struct tis_instance *i)
{
    struct tis_version *v = i->version;
    const Inference__ModelConfig *pb = v->config->message;
    tis_error *err = NULL;
    atomic_store(&i->warming, true);
    for (size_t k = 0; k < pb->n_model_warmup && !err; k++) {
        struct sample s;
        err = sample_init(&s, v, pb->model_warmup[k]);
        if (!err)
            err = sample_run(i, &s);
        sample_fini(&s);
        err = error_wrap(err, "model '%s' instance '%s' warm-up sample '%s'", v->model_name,
                         i->name, pb->model_warmup[k]->name);
    }
    atomic_store(&i->warming, false);
    return err;
}
