/* backends/repeat's player without a server: ends with plays outstanding, cancels, and runs out of
 * memory, which no well-behaved server brings about. test_batches.py builds this with the sanitizers,
 * and again with the thread sanitizer, and runs it. */
#include "repeat/player.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kit/request.h"

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                  \
        }                                                                             \
    } while (0)

/* ---- The server ---- */

enum {
    SENT_MAX = 64
};

struct tis_error {
    TRITONSERVER_Error_Code code;
    char text[256];
};

/* A request's answers, as they came. */
struct tis_response_factory {
    _Atomic bool is_cancelled;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under lock */
    int32_t sent[SENT_MAX];
    int sent_count;
    int final_count;
    TRITONSERVER_Error_Code code;
    bool has_error;
    bool is_deleted;
};

struct tis_response {
    struct tis_response_factory *factory;
    int32_t out;
    uint32_t idx;
};

struct tis_output {
    void *data;
};

static _Atomic int failing = -1; /* the allocation that fails; negative: none */
static _Atomic bool refuse_responses;
static _Atomic int reported;
static int instance; /* any address */
static struct tis_output outputs[2];

static bool fails_now(void)
{
    return atomic_load(&failing) >= 0 && atomic_fetch_sub(&failing, 1) == 0;
}

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);

void *__wrap_malloc(size_t bytes)
{
    return fails_now() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return fails_now() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
    return fails_now() ? NULL : __real_realloc(old, bytes);
}

TRITONSERVER_Error *TRITONSERVER_ErrorNew(TRITONSERVER_Error_Code code, const char *msg)
{
    TRITONSERVER_Error *error = __real_calloc(1, sizeof *error);

    CHECK(error);
    error->code = code;
    snprintf(error->text, sizeof error->text, "%s", msg);
    return error;
}

void TRITONSERVER_ErrorDelete(TRITONSERVER_Error *error)
{
    free(error);
}

TRITONSERVER_Error_Code TRITONSERVER_ErrorCode(TRITONSERVER_Error *error)
{
    return error->code;
}

const char *TRITONSERVER_ErrorMessage(TRITONSERVER_Error *error)
{
    return error->text;
}

bool TRITONSERVER_LogIsEnabled(TRITONSERVER_LogLevel level)
{
    (void)level;
    return false;
}

TRITONSERVER_Error *TRITONSERVER_LogMessage(TRITONSERVER_LogLevel level, const char *filename,
                                            const int line, const char *msg)
{
    fprintf(stderr, "log %d %s:%d %s\n", (int)level, filename, line, msg);
    return NULL;
}

uint64_t kit_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseFactoryDelete(TRITONBACKEND_ResponseFactory *factory)
{
    pthread_mutex_lock(&factory->lock);
    CHECK(!factory->is_deleted);
    factory->is_deleted = true;
    pthread_cond_signal(&factory->changed);
    pthread_mutex_unlock(&factory->lock);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseFactoryIsCancelled(TRITONBACKEND_ResponseFactory *factory,
                                                             bool *is_cancelled)
{
    *is_cancelled = atomic_load(&factory->is_cancelled);
    return NULL;
}

static void arrive(struct tis_response_factory *factory, uint32_t flags, TRITONSERVER_Error *error)
{
    CHECK(factory->final_count == 0);
    if (error) {
        factory->has_error = true;
        factory->code = error->code;
    }
    if (flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        factory->final_count++;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseFactorySendFlags(TRITONBACKEND_ResponseFactory *factory,
                                                           uint32_t send_flags)
{
    pthread_mutex_lock(&factory->lock);
    arrive(factory, send_flags, NULL);
    pthread_mutex_unlock(&factory->lock);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseNewFromFactory(TRITONBACKEND_Response **response,
                                                         TRITONBACKEND_ResponseFactory *factory)
{
    if (atomic_load(&refuse_responses))
        return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNAVAILABLE, "no responses today");
    *response = __real_calloc(1, sizeof **response);
    CHECK(*response);
    (*response)->factory = factory;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseDelete(TRITONBACKEND_Response *response)
{
    free(response);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseOutput(TRITONBACKEND_Response *response,
                                                 TRITONBACKEND_Output **output, const char *name,
                                                 TRITONSERVER_DataType datatype,
                                                 const int64_t *shape, uint32_t dims_count)
{
    bool is_out = strcmp(name, "OUT") == 0;

    CHECK(datatype == (is_out ? TRITONSERVER_TYPE_INT32 : TRITONSERVER_TYPE_UINT32));
    CHECK(dims_count == 1 && shape[0] == 1);
    *output = &outputs[is_out]; /* one player, one thread */
    (*output)->data = is_out ? (void *)&response->out : (void *)&response->idx;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_OutputBuffer(TRITONBACKEND_Output *output, void **buffer,
                                               uint64_t buffer_byte_size,
                                               TRITONSERVER_MemoryType *memory_type,
                                               int64_t *memory_type_id)
{
    CHECK(buffer_byte_size == 4 && *memory_type == TRITONSERVER_MEMORY_CPU);
    *memory_type_id = 0;
    *buffer = output->data;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseSend(TRITONBACKEND_Response *response,
                                               uint32_t send_flags, TRITONSERVER_Error *error)
{
    struct tis_response_factory *factory = response->factory;

    pthread_mutex_lock(&factory->lock);
    arrive(factory, send_flags, error);
    if (!error) {
        CHECK(response->idx == (uint32_t)factory->sent_count && factory->sent_count < SENT_MAX);
        factory->sent[factory->sent_count++] = response->out;
    }
    pthread_mutex_unlock(&factory->lock);
    free(response);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsNew(
    TRITONBACKEND_ModelInstanceResponseStatistics **response_statistics)
{
    *response_statistics = malloc(1);
    if (!*response_statistics)
        return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNAVAILABLE, "out of memory");
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsDelete(
    TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics)
{
    free(response_statistics);
    return NULL;
}

#define SETTER(name, type)                                                          \
    TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsSet##name(     \
        TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics, type v) \
    {                                                                               \
        (void)response_statistics;                                                  \
        (void)v;                                                                    \
        return NULL;                                                                \
    }
SETTER(ModelInstance, TRITONBACKEND_ModelInstance *)
SETTER(ResponseFactory, TRITONBACKEND_ResponseFactory *)
SETTER(ResponseStart, uint64_t)
SETTER(ComputeOutputStart, uint64_t)
SETTER(ResponseEnd, uint64_t)
SETTER(Error, TRITONSERVER_Error *)

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceReportResponseStatistics(
    TRITONBACKEND_ModelInstanceResponseStatistics *response_statistics)
{
    (void)response_statistics;
    atomic_fetch_add(&reported, 1);
    return NULL;
}

/* kit/tensor.c's other half is not used. */
#define UNUSED(name, ...)                 \
    TRITONSERVER_Error *name(__VA_ARGS__) \
    {                                     \
        abort();                          \
    }
UNUSED(TRITONBACKEND_RequestInput, TRITONBACKEND_Request *r, const char *n, TRITONBACKEND_Input **i)
UNUSED(TRITONBACKEND_InputProperties, TRITONBACKEND_Input *i, const char **n,
       TRITONSERVER_DataType *t, const int64_t **s, uint32_t *d, uint64_t *b, uint32_t *c)
UNUSED(TRITONBACKEND_InputBuffer, TRITONBACKEND_Input *i, uint32_t index, const void **b,
       uint64_t *s, TRITONSERVER_MemoryType *t, int64_t *id)

/* ---- Tests ---- */

static void factory_init(struct tis_response_factory *f)
{
    *f = (struct tis_response_factory){ 0 };
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
}

static void factory_wait(struct tis_response_factory *f)
{
    pthread_mutex_lock(&f->lock);
    while (!f->is_deleted)
        pthread_cond_wait(&f->changed, &f->lock);
    CHECK(f->final_count == 1);
    pthread_mutex_unlock(&f->lock);
}

static struct player *open_player(void)
{
    struct player *player = NULL;

    CHECK(!player_create((TRITONBACKEND_ModelInstance *)&instance, &player));
    return player;
}

/* count values 0, 1, ...; the first at once, the others after delay_ms each. */
static void play(struct player *player, struct tis_response_factory *f, uint32_t count,
                 uint32_t delay_ms)
{
    struct play *p;

    factory_init(f);
    CHECK(!play_create(player, count, &p));
    for (uint32_t i = 0; i < count; i++) {
        p->values[i] = (int32_t)i;
        p->delays_ms[i] = i ? delay_ms : 0;
    }
    p->wants_out = p->wants_idx = true;
    p->factory = f;
    play_put(player, p);
}

static void test_many(void)
{
    static struct tis_response_factory f[200];
    struct player *player = open_player();

    for (int i = 0; i < 200; i++)
        play(player, &f[i], (uint32_t)(i % 7), (uint32_t)(i % 3));
    for (int i = 0; i < 200; i++) {
        factory_wait(&f[i]);
        CHECK(f[i].sent_count == i % 7 && !f[i].has_error);
    }
    player_destroy(player);
    player_destroy(NULL);
}

static void test_cancel(void)
{
    struct tis_response_factory f[3];
    struct player *player = open_player();

    for (int i = 0; i < 3; i++)
        play(player, &f[i], 2, 3600000);
    for (int i = 0; i < 3; i++)
        atomic_store(&f[i].is_cancelled, true);
    for (int i = 0; i < 3; i++) {
        factory_wait(&f[i]);
        CHECK(f[i].has_error && f[i].code == TRITONSERVER_ERROR_CANCELLED && f[i].sent_count < 2);
    }
    player_destroy(player);
}

/* Every request that is not answered to its end gets an error. */
static void test_destroy_with_plays(void)
{
    static struct tis_response_factory f[100];
    struct player *player = open_player();

    for (int i = 0; i < 100; i++)
        play(player, &f[i], 5, 3600000);
    player_destroy(player);
    for (int i = 0; i < 100; i++) {
        factory_wait(&f[i]);
        CHECK(f[i].has_error && f[i].code == TRITONSERVER_ERROR_UNAVAILABLE);
    }
}

/* No response can be made: the final flag still comes. */
static void test_no_responses(void)
{
    struct tis_response_factory f;
    struct player *player = open_player();

    atomic_store(&refuse_responses, true);
    play(player, &f, 3, 0);
    factory_wait(&f);
    CHECK(f.sent_count == 0);
    atomic_store(&refuse_responses, false);
    player_destroy(player);
}

static void test_bound(void)
{
    struct player *player = open_player();
    struct play *first = NULL, *second = NULL;
    TRITONSERVER_Error *err;

    CHECK(!play_create(player, PLAYER_BYTES_MAX / 16, &first));
    err = play_create(player, PLAYER_BYTES_MAX / 16, &second);
    CHECK(err && err->code == TRITONSERVER_ERROR_UNAVAILABLE);
    TRITONSERVER_ErrorDelete(err);
    play_drop(player, first);
    CHECK(!play_create(player, PLAYER_BYTES_MAX / 16, &first));
    play_drop(player, first);
    player_destroy(player);
}

/* Each allocation fails once; then everything works. */
static void test_out_of_memory(void)
{
    bool has_failed = true;

    for (int n = 0; has_failed; n++) {
        struct player *player = NULL;
        struct play *p = NULL;
        TRITONSERVER_Error *err;

        CHECK(n < 10);
        atomic_store(&failing, n);
        err = player_create((TRITONBACKEND_ModelInstance *)&instance, &player);
        if (!err)
            err = play_create(player, 3, &p);
        has_failed = err;
        CHECK(!err || err->code == TRITONSERVER_ERROR_UNAVAILABLE);
        atomic_store(&failing, -1);
        TRITONSERVER_ErrorDelete(err);
        if (p)
            play_drop(player, p);
        player_destroy(player);
    }
}

int main(void)
{
    test_many();
    test_cancel();
    test_destroy_with_plays();
    test_no_responses();
    test_bound();
    test_out_of_memory();
    CHECK(atomic_load(&reported) > 0);
    puts("ok");
    return 0;
}
