#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

enum {
    ALIGNMENT = 16,
    BLOCK_BYTES_MIN = 4096,
};

struct arena_block {
    struct arena_block *next;
    size_t bytes;
};

static char *align_up(char *p)
{
    return (char *)(((uintptr_t)p + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1));
}

void arena_init(struct arena *a, void *first, size_t first_bytes, size_t bytes_max)
{
    *a = (struct arena){ .bytes_max = bytes_max };
    if (first && first_bytes >= ALIGNMENT) {
        a->at = align_up(first);
        a->end = (char *)first + first_bytes;
    }
}

void arena_fini(struct arena *a)
{
    struct arena_block *next;
    for (struct arena_block *b = a->blocks; b; b = next) {
        next = b->next;
        free(b);
    }
    *a = (struct arena){ 0 };
}

/* Large pieces get a block of their own, so that the current block's rest is not lost. */
static void *alloc_slow(struct arena *a, size_t bytes)
{
    size_t block_bytes = bytes > BLOCK_BYTES_MIN / 4 ? bytes : BLOCK_BYTES_MIN;
    size_t total;
    if (!add_size(block_bytes, ALIGNMENT * 2, &total) || total > a->bytes_max - a->bytes)
        return NULL;
    struct arena_block *b = malloc(total);
    if (!b)
        return NULL;

    b->next = a->blocks;
    b->bytes = total;
    a->blocks = b;
    a->bytes += total;

    char *start = align_up((char *)(b + 1));
    if (block_bytes == bytes)
        return start;
    a->at = start + ((bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1));
    a->end = start + block_bytes;
    return start;
}

void *arena_alloc(struct arena *a, size_t bytes)
{
    size_t rounded = (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (rounded < bytes)
        return NULL;
    if (a->at && rounded <= (size_t)(a->end - a->at)) {
        void *p = a->at;
        a->at += rounded;
        return p;
    }
    return alloc_slow(a, bytes ? bytes : 1);
}

void *arena_calloc(struct arena *a, size_t count, size_t bytes)
{
    size_t total;
    if (!mul_size(count, bytes, &total))
        return NULL;
    void *p = arena_alloc(a, total);
    return p ? memset(p, 0, total) : NULL;
}

char *arena_strndup(struct arena *a, const char *s, size_t len)
{
    char *copy = len < SIZE_MAX ? arena_alloc(a, len + 1) : NULL;
    if (!copy)
        return NULL;
    memcpy(copy, s, len);
    copy[len] = '\0';
    return copy;
}

char *arena_strdup(struct arena *a, const char *s)
{
    return arena_strndup(a, s, strlen(s));
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, again);
    va_end(again);

    char *text = len < 0 ? NULL : arena_alloc(a, (size_t)len + 1);
    if (text)
        vsnprintf(text, (size_t)len + 1, fmt, args);
    va_end(args);
    return text;
}
