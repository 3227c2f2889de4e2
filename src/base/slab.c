#include "base/slab.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/lock.h"

/* A free object waits in a thread's cache (at most CACHE_MAX of a kind) or on the shared list.
 * BATCH objects move at a time, so the lock is taken once in BATCH frees or allocations even when
 * one thread only allocates and another only frees. Caches are FIFO rings: a freed object rests
 * as long as possible, which makes a stale pointer easier to recognise. */
enum {
    CACHE_MAX = 64,
    BATCH = CACHE_MAX / 2,
    ALIGNMENT = 64,
};

struct ring {
    void *objects[CACHE_MAX];
    uint32_t first;
    uint32_t count;
};

struct shared {
    void **objects;
    size_t count;
    size_t capacity;
};

static struct lock shared_lock = { .mutex = PTHREAD_MUTEX_INITIALIZER, .rank = LOCK_SLAB };
static struct shared shared[SLAB_KINDS_MAX];

static _Thread_local struct ring *rings; /* [SLAB_KINDS_MAX] */
static pthread_key_t rings_key;
static pthread_once_t rings_once = PTHREAD_ONCE_INIT;

static void ring_put(struct ring *r, void *object)
{
    assert(r->count < CACHE_MAX);
    r->objects[(r->first + r->count++) % CACHE_MAX] = object;
}

static void *ring_take(struct ring *r)
{
    assert(r->count > 0);
    void *object = r->objects[r->first];
    r->first = (r->first + 1) % CACHE_MAX;
    r->count--;
    return object;
}

/* Moves up to n objects from the ring to the shared list. */
static void ring_spill(uint32_t kind, struct ring *r, uint32_t n)
{
    lock_take(&shared_lock);
    struct shared *s = &shared[kind];
    if (s->count + n > s->capacity) {
        size_t capacity = s->capacity ? s->capacity * 2 : 256;
        void **objects = realloc(s->objects, capacity * sizeof(*objects));
        if (objects) {
            s->objects = objects;
            s->capacity = capacity;
        }
    }
    while (n-- > 0 && r->count > 0) {
        void *object = ring_take(r);
        /* Without memory for the list the object is lost: malloc may never have it back. */
        if (s->count < s->capacity)
            s->objects[s->count++] = object;
    }
    lock_release(&shared_lock);
}

static void ring_fill(uint32_t kind, struct ring *r)
{
    lock_take(&shared_lock);
    struct shared *s = &shared[kind];
    for (uint32_t i = 0; i < BATCH && s->count > 0; i++)
        ring_put(r, s->objects[--s->count]);
    lock_release(&shared_lock);
}

/* A thread ends: its objects go to the others. */
static void rings_end(void *arg)
{
    struct ring *mine = arg;
    for (uint32_t kind = 0; kind < SLAB_KINDS_MAX; kind++)
        ring_spill(kind, &mine[kind], mine[kind].count);
    free(mine);
    rings = NULL;
}

static void rings_key_create(void)
{
    if (pthread_key_create(&rings_key, rings_end) != 0)
        abort();
}

static struct ring *ring_of(const struct slab *s)
{
    assert(s->kind < SLAB_KINDS_MAX);
    if (UNLIKELY(!rings)) {
        pthread_once(&rings_once, rings_key_create);
        rings = calloc(SLAB_KINDS_MAX, sizeof(*rings));
        if (!rings)
            return NULL;
        pthread_setspecific(rings_key, rings);
    }
    return &rings[s->kind];
}

void *slab_alloc(const struct slab *s, int *ret_is_new)
{
    struct ring *r = ring_of(s);
    if (!r)
        return NULL;
    if (r->count == 0)
        ring_fill(s->kind, r);
    if (r->count > 0) {
        *ret_is_new = 0;
        return ring_take(r);
    }

    void *object;
    if (posix_memalign(&object, ALIGNMENT, s->bytes) != 0)
        return NULL;
    *ret_is_new = 1;
    return object;
}

void slab_free(const struct slab *s, void *object)
{
    struct ring *r = ring_of(s);
    if (!r) {
        struct ring one = { .objects = { object }, .count = 1 };
        ring_spill(s->kind, &one, 1);
        return;
    }
    if (r->count == CACHE_MAX)
        ring_spill(s->kind, r, BATCH);
    ring_put(r, object);
}
