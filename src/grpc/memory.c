#include "grpc/memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

/* Stands before the bytes. */
struct memory_block {
    _Alignas(16) size_t bytes; /* usable */
    struct memory_block *next; /* in a list */
};

static size_t class_of(size_t bytes)
{
    return bytes / MEMORY_STEP_BYTES - 1;
}

static struct memory_block *block_of(void *p)
{
    return (struct memory_block *)p - 1;
}

static void *block_alloc(size_t bytes, void *user)
{
    struct memory *m = user;
    size_t usable, total;
    if (!add_size(bytes ? bytes : 1, MEMORY_STEP_BYTES - 1, &usable) ||
        !add_size(usable, sizeof(struct memory_block), &total))
        return NULL;
    usable -= usable % MEMORY_STEP_BYTES;

    size_t class = class_of(usable);
    struct memory_block *b = class < MEMORY_CLASS_COUNT ? m->free[class] : NULL;
    if (b) {
        m->free[class] = b->next;
        m->kept_bytes -= usable;
        return b + 1;
    }
    b = malloc(total);
    if (!b)
        return NULL;
    b->bytes = usable;
    return b + 1;
}

static void block_free(void *p, void *user)
{
    struct memory *m = user;
    if (!p)
        return;
    struct memory_block *b = block_of(p);
    size_t class = class_of(b->bytes);
    if (class >= MEMORY_CLASS_COUNT || m->kept_bytes + b->bytes > MEMORY_KEPT_BYTES_MAX) {
        free(b);
        return;
    }
    b->next = m->free[class];
    m->free[class] = b;
    m->kept_bytes += b->bytes;
}

static void *block_calloc(size_t count, size_t bytes, void *user)
{
    size_t total;
    void *p = mul_size(count, bytes, &total) ? block_alloc(total, user) : NULL;
    return p ? memset(p, 0, total) : NULL;
}

static void *block_realloc(void *p, size_t bytes, void *user)
{
    if (p && bytes <= block_of(p)->bytes)
        return p;
    void *grown = block_alloc(bytes, user);
    if (p && grown) {
        memcpy(grown, p, block_of(p)->bytes);
        block_free(p, user);
    }
    return grown;
}

void memory_init(struct memory *m)
{
    *m = (struct memory){
        .functions = {
            .mem_user_data = m,
            .malloc = block_alloc,
            .free = block_free,
            .calloc = block_calloc,
            .realloc = block_realloc,
        },
    };
}

void memory_fini(struct memory *m)
{
    for (size_t i = 0; i < MEMORY_CLASS_COUNT; i++) {
        struct memory_block *next;
        for (struct memory_block *b = m->free[i]; b; b = next) {
            next = b->next;
            free(b);
        }
        m->free[i] = NULL;
    }
    m->kept_bytes = 0;
}
