#include "repeat/player.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "kit/request.h"
#include "kit/tensor.h"

/* The server does not tell when a request is cancelled, it has to be asked: so often. */
static const uint64_t CANCEL_CHECK_NS = 50000000;

struct player {
    /* set by player_create(), then constant */
    TRITONBACKEND_ModelInstance *instance;
    pthread_t thread;
    /* the thread's */
    TRITONBACKEND_ModelInstanceResponseStatistics *statistics;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under lock */
    struct play **heap; /* heap[0] is to be looked at first */
    size_t heap_count;
    size_t heap_capacity; /* at least play_count: putting a play cannot fail */
    size_t play_count;    /* made and neither dropped nor ended */
    size_t byte_size;     /* of these */
    uint64_t turns;
    bool is_closing;
};

/* ---- The heap ---- */

static bool is_before(const struct play *a, const struct play *b)
{
    return a->wake_ns != b->wake_ns ? a->wake_ns < b->wake_ns : a->turn < b->turn;
}

static void heap_push(struct player *player, struct play *play)
{
    struct play **heap = player->heap;
    size_t at = player->heap_count++;

    play->turn = player->turns++;
    for (; at > 0 && is_before(play, heap[(at - 1) / 2]); at = (at - 1) / 2)
        heap[at] = heap[(at - 1) / 2];
    heap[at] = play;
}

static struct play *heap_pop(struct player *player)
{
    struct play **heap = player->heap, *first = heap[0];
    size_t count = --player->heap_count, at = 0;
    struct play *last = heap[count];

    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= count)
            break;
        if (child + 1 < count && is_before(heap[child + 1], heap[child]))
            child++;
        if (!is_before(heap[child], last))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return first;
}

/* ---- Plays ---- */

/* Counts one more play of byte_size. */
static TRITONSERVER_Error *reserve(struct player *player, size_t byte_size)
{
    size_t wanted = player->play_count + 1;

    if (byte_size > PLAYER_BYTES_MAX - player->byte_size)
        return kit_error(TRITONSERVER_ERROR_UNAVAILABLE,
                         "responses of %zu requests wait for their time and take %zu bytes; %zu "
                         "more are over the limit of %d",
                         player->play_count, player->byte_size, byte_size, PLAYER_BYTES_MAX);
    if (wanted > player->heap_capacity) {
        size_t capacity = 2 * wanted;
        struct play **grown = realloc(player->heap, capacity * sizeof *grown);

        if (!grown)
            return kit_error_memory(capacity * sizeof *grown, "waiting requests");
        player->heap = grown;
        player->heap_capacity = capacity;
    }
    player->play_count++;
    player->byte_size += byte_size;
    return NULL;
}

static void play_free(struct player *player, struct play *play, size_t byte_size)
{
    pthread_mutex_lock(&player->lock);
    player->play_count--;
    player->byte_size -= byte_size;
    pthread_mutex_unlock(&player->lock);
    free(play);
}

TRITONSERVER_Error *play_create(struct player *player, uint32_t count, struct play **ret_play)
{
    size_t byte_size = sizeof(struct play) + (size_t)count * (sizeof(int32_t) + sizeof(uint32_t));
    struct play *play;
    TRITONSERVER_Error *err;

    pthread_mutex_lock(&player->lock);
    err = reserve(player, byte_size);
    pthread_mutex_unlock(&player->lock);
    if (err)
        return err;

    play = malloc(byte_size);
    if (!play) {
        play_free(player, NULL, byte_size);
        return kit_error_memory(byte_size, "the values of a request");
    }
    *play = (struct play){ .count = count, .byte_size = byte_size };
    play->values = (int32_t *)(play + 1);
    play->delays_ms = (uint32_t *)(play->values + count);
    *ret_play = play;
    return NULL;
}

void play_drop(struct player *player, struct play *play)
{
    if (play->factory)
        KIT_LOG_ERROR(TRITONBACKEND_ResponseFactoryDelete(play->factory),
                      "deleting a response factory");
    play_free(player, play, play->byte_size);
}

/* When to look at the play again: not later than its next response is due. */
static void set_wake(struct play *play, uint64_t now_ns)
{
    uint64_t check_ns = now_ns + CANCEL_CHECK_NS;

    play->wake_ns = check_ns < play->due_ns ? check_ns : play->due_ns;
}

/* Sets the time of the next response; one behind the last is due at once. */
static void schedule(struct play *play, uint64_t now_ns)
{
    uint64_t delay_ms = play->next < play->count ? play->delays_ms[play->next] : 0;

    play->due_ns = now_ns + delay_ms * 1000000;
    set_wake(play, now_ns);
}

void play_put(struct player *player, struct play *play)
{
    schedule(play, kit_now_ns());
    pthread_mutex_lock(&player->lock);
    heap_push(player, play);
    pthread_cond_signal(&player->changed);
    pthread_mutex_unlock(&player->lock);
}

/* ---- Responses ---- */

/* Counts a response: one that failed (error), one with outputs, or a final flag alone. */
static void report_response(struct player *player, const struct play *play, uint64_t start_ns,
                            uint64_t output_start_ns, TRITONSERVER_Error *error)
{
    TRITONBACKEND_ModelInstanceResponseStatistics *s = player->statistics;
    TRITONSERVER_Error *err;

    err = TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseFactory(s, play->factory);
    if (!err)
        err = TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseStart(s, start_ns);
    if (!err)
        err =
            TRITONBACKEND_ModelInstanceResponseStatisticsSetComputeOutputStart(s, output_start_ns);
    if (!err)
        err = TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseEnd(s, kit_now_ns());
    if (!err)
        err = TRITONBACKEND_ModelInstanceResponseStatisticsSetError(s, error);
    if (!err)
        err = TRITONBACKEND_ModelInstanceReportResponseStatistics(s);
    KIT_LOG_ERROR(err, "reporting a response's statistics");
}

static TRITONSERVER_Error *fill_in(const struct play *play, TRITONBACKEND_Response *response)
{
    const int64_t shape[] = { 1 };
    TRITONSERVER_Error *err = NULL;
    void *data;

    if (play->wants_out) {
        err = kit_output_open(response, "OUT", TRITONSERVER_TYPE_INT32, shape, 1, sizeof(int32_t),
                              &data);
        if (!err)
            *(int32_t *)data = play->values[play->next];
    }
    if (!err && play->wants_idx) {
        err = kit_output_open(response, "IDX", TRITONSERVER_TYPE_UINT32, shape, 1, sizeof(uint32_t),
                              &data);
        if (!err)
            *(uint32_t *)data = play->next;
    }
    return err;
}

static TRITONSERVER_Error *send_next(struct player *player, const struct play *play)
{
    uint64_t start_ns = kit_now_ns();
    TRITONBACKEND_Response *response;
    TRITONSERVER_Error *err;

    err = TRITONBACKEND_ResponseNewFromFactory(&response, play->factory);
    if (err)
        return err;
    err = fill_in(play, response);
    if (err) {
        KIT_LOG_ERROR(TRITONBACKEND_ResponseDelete(response), "deleting a response");
        return err;
    }
    /* Counted before it is sent: a client that has its answer finds it in the statistics. */
    report_response(player, play, start_ns, start_ns, NULL);
    KIT_LOG_ERROR(TRITONBACKEND_ResponseSend(response, 0, NULL), "sending a response");
    return NULL;
}

/* The last of a request: error, which this takes, or when that is NULL the final flag alone. */
static void play_end(struct player *player, struct play *play, TRITONSERVER_Error *error)
{
    TRITONBACKEND_Response *response = NULL;

    report_response(player, play, kit_now_ns(), 0, error);
    if (error)
        KIT_LOG_ERROR(TRITONBACKEND_ResponseNewFromFactory(&response, play->factory),
                      "making a response for an error");
    if (response)
        KIT_LOG_ERROR(
            TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, error),
            "sending an error");
    else
        KIT_LOG_ERROR(TRITONBACKEND_ResponseFactorySendFlags(play->factory,
                                                             TRITONSERVER_RESPONSE_COMPLETE_FINAL),
                      "sending the final flag");
    if (error)
        TRITONSERVER_ErrorDelete(error);
    play_drop(player, play);
}

/* Does what is to be done for a play now. False when that was the last: the play is gone. */
static bool play_step(struct player *player, struct play *play)
{
    bool is_cancelled = false;
    uint64_t now_ns = kit_now_ns();
    TRITONSERVER_Error *err;

    err = TRITONBACKEND_ResponseFactoryIsCancelled(play->factory, &is_cancelled);
    if (!err && is_cancelled)
        err = kit_error(TRITONSERVER_ERROR_CANCELLED,
                        "request cancelled after %" PRIu32 " of %" PRIu32 " responses", play->next,
                        play->count);
    if (!err && play->next < play->count && now_ns >= play->due_ns) {
        err = send_next(player, play);
        play->next++;
        schedule(play, now_ns);
    }
    if (err || play->next == play->count) {
        play_end(player, play, err);
        return false;
    }
    set_wake(play, now_ns);
    return true;
}

/* ---- The thread ---- */

static void wait_until(struct player *player, uint64_t time_ns)
{
    struct timespec time = { .tv_sec = (time_t)(time_ns / 1000000000),
                             .tv_nsec = (long)(time_ns % 1000000000) };

    pthread_cond_timedwait(&player->changed, &player->lock, &time);
}

static void *run(void *arg)
{
    struct player *player = arg;

    pthread_mutex_lock(&player->lock);
    while (!player->is_closing) {
        struct play *play;

        if (player->heap_count == 0) {
            pthread_cond_wait(&player->changed, &player->lock);
            continue;
        }
        if (player->heap[0]->wake_ns > kit_now_ns()) {
            wait_until(player, player->heap[0]->wake_ns);
            continue;
        }
        play = heap_pop(player);
        pthread_mutex_unlock(&player->lock); /* the server may call back */
        bool goes_on = play_step(player, play);
        pthread_mutex_lock(&player->lock);
        if (goes_on)
            heap_push(player, play);
    }
    pthread_mutex_unlock(&player->lock);
    return NULL;
}

/* The server's signals are not for this thread. */
static int start_thread(struct player *player)
{
    sigset_t all, before;
    int status;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    status = pthread_create(&player->thread, NULL, run, player);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

static void player_free(struct player *player)
{
    if (player->statistics)
        KIT_LOG_ERROR(TRITONBACKEND_ModelInstanceResponseStatisticsDelete(player->statistics),
                      "deleting response statistics");
    pthread_cond_destroy(&player->changed);
    pthread_mutex_destroy(&player->lock);
    free(player->heap);
    free(player);
}

TRITONSERVER_Error *player_create(TRITONBACKEND_ModelInstance *instance, struct player **ret_player)
{
    struct player *player = calloc(1, sizeof *player);
    pthread_condattr_t attributes;
    TRITONSERVER_Error *err;

    if (!player)
        return kit_error_memory(sizeof *player, "an instance");
    player->instance = instance;
    pthread_mutex_init(&player->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&player->changed, &attributes);
    pthread_condattr_destroy(&attributes);

    err = TRITONBACKEND_ModelInstanceResponseStatisticsNew(&player->statistics);
    if (!err)
        err = TRITONBACKEND_ModelInstanceResponseStatisticsSetModelInstance(player->statistics,
                                                                            instance);
    if (!err && start_thread(player) != 0)
        err = kit_error(TRITONSERVER_ERROR_UNAVAILABLE, "no thread for an instance");
    if (err) {
        player_free(player);
        return err;
    }
    *ret_player = player;
    return NULL;
}

void player_destroy(struct player *player)
{
    if (!player)
        return;
    pthread_mutex_lock(&player->lock);
    player->is_closing = true;
    pthread_cond_signal(&player->changed);
    pthread_mutex_unlock(&player->lock);
    pthread_join(player->thread, NULL);

    while (player->heap_count > 0)
        play_end(player, heap_pop(player),
                 kit_error(TRITONSERVER_ERROR_UNAVAILABLE, "the model is being unloaded"));
    player_free(player);
}
