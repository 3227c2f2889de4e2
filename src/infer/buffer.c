#include "infer/buffer.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/lock.h"
#include "base/size.h"

/* Small memory is malloc's. Freed memory of POOL_BYTES_MIN and more waits in a pool that all
 * threads share: a tensor is typically allocated on an instance thread and freed on a loop, and
 * handing a megabyte back to the kernel and faulting it in again costs more than copying it.
 * Classes are powers of two, with room to align the start: tensors often are exactly one large. The
 * pool holds at most POOL_BYTES_MAX. */
enum {
    CLASS_BITS_MIN = 16, /* 64 KiB */
    CLASS_BITS_MAX = 24, /* 16 MiB */
    CLASS_COUNT = CLASS_BITS_MAX - CLASS_BITS_MIN + 1,
    POOL_BYTES_MAX = 48 << 20,
    OFFSET_MAX = 64 << 10,
    ASIDE_BYTES_MIN = 32 << 20,
};

/* Header and bytes are one allocation: [struct owned][padding][bytes...]. */
struct owned {
    struct buffer buffer;
    struct owned *next; /* in the pool */
    size_t bytes;       /* usable behind the header */
    uint32_t class;     /* CLASS_COUNT: not pooled */
};

static struct lock pool_lock = { .mutex = PTHREAD_MUTEX_INITIALIZER, .rank = LOCK_SLAB };
static struct owned *pool[CLASS_COUNT];
static size_t pool_bytes;

static size_t class_bytes(uint32_t class)
{
    return ((size_t)1 << (class + CLASS_BITS_MIN)) + BUFFER_ALIGNMENT;
}

/* The class whose members hold `bytes`; CLASS_COUNT for sizes that are not pooled. */
static uint32_t class_of(size_t bytes)
{
    if (bytes <= class_bytes(0) / 2)
        return CLASS_COUNT;
    uint32_t class = 0;
    while (class < CLASS_COUNT && class_bytes(class) < bytes)
        class ++;
    return class;
}

static struct owned *pool_take(uint32_t class)
{
    lock_take(&pool_lock);
    struct owned *o = pool[class];
    if (o) {
        pool[class] = o->next;
        pool_bytes -= o->bytes;
    }
    lock_release(&pool_lock);
    return o;
}

static void *free_run(void *owned)
{
    free(owned);
    return NULL;
}

/* The kernel takes a gigabyte back in a fifth of a second, and it is often a loop that gives it: a
 * thread for that alone costs nothing beside it. */
static bool free_aside(struct owned *o)
{
    pthread_attr_t attributes;
    pthread_t thread;
    if (pthread_attr_init(&attributes))
        return false;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int rc = pthread_create(&thread, &attributes, free_run, o);
    pthread_attr_destroy(&attributes);
    return rc == 0;
}

static void owned_release(struct buffer *b)
{
    struct owned *o = CONTAINER_OF(b, struct owned, buffer);
    if (o->class < CLASS_COUNT) {
        lock_take(&pool_lock);
        bool kept = pool_bytes + o->bytes <= POOL_BYTES_MAX;
        if (kept) {
            o->next = pool[o->class];
            pool[o->class] = o;
            pool_bytes += o->bytes;
        }
        lock_release(&pool_lock);
        if (kept)
            return;
    }
    if (o->bytes < ASIDE_BYTES_MIN || !free_aside(o))
        free(o);
}

static struct owned *owned_create(size_t bytes)
{
    uint32_t class = class_of(bytes);
    struct owned *o = class < CLASS_COUNT ? pool_take(class) : NULL;
    if (o)
        return o;

    size_t usable = class < CLASS_COUNT ? class_bytes(class) : bytes;
    size_t total;
    if (!add_size(usable, sizeof(struct owned), &total))
        return NULL;
    o = malloc(total);
    if (o) {
        o->bytes = usable;
        o->class = class;
    }
    return o;
}

struct buffer *buffer_create(size_t bytes, size_t offset)
{
    assert(offset < OFFSET_MAX);
    /* Space to shift the start so that start + offset is aligned. */
    size_t padded;
    if (!add_size(bytes, BUFFER_ALIGNMENT, &padded))
        return NULL;
    struct owned *o = owned_create(padded);
    if (!o)
        return NULL;

    uintptr_t start = (uintptr_t)(o + 1);
    size_t shift = -(start + offset) & (BUFFER_ALIGNMENT - 1);
    o->buffer = (struct buffer){
        .base = (char *)(o + 1) + shift,
        .capacity = o->bytes - shift,
        .memory_type = TRITONSERVER_MEMORY_CPU,
        .memory_id = 0,
        .release = owned_release,
    };
    atomic_init(&o->buffer.refs, 1);
    return &o->buffer;
}

struct buffer *buffer_ref(struct buffer *b)
{
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void buffer_unref(struct buffer *b)
{
    if (b && atomic_fetch_sub(&b->refs, 1) == 1)
        b->release(b);
}
