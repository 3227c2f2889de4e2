/* Buffers: alignment at an offset, counting, recycling between threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "infer/buffer.h"

static void test_alignment(void **state)
{
    (void)state;
    static const size_t sizes[] = { 0, 1, 63, 64, 4096, 65536, 65537, 1 << 20, (1 << 20) + 1 };
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        for (size_t offset = 0; offset < 130; offset++) {
            struct buffer *b = buffer_create(sizes[i], offset);
            assert_non_null(b);
            assert_true(b->capacity >= sizes[i]);
            assert_int_equal(((uintptr_t)b->base + offset) % BUFFER_ALIGNMENT, 0);
            assert_int_equal(b->memory_type, TRITONSERVER_MEMORY_CPU);
            if (sizes[i] > 0) {
                ((char *)b->base)[0] = 1;
                ((char *)b->base)[b->capacity - 1] = 1; /* the sanitizer looks */
            }
            buffer_unref(b);
        }
    }
    assert_null(buffer_create(SIZE_MAX, 0));
    assert_null(buffer_create(SIZE_MAX - 64, 0));
}

/* A tensor of exactly a power of two does not take twice its memory. */
static void test_large_is_tight(void **state)
{
    (void)state;
    struct buffer *b = buffer_create(1 << 20, 0);
    assert_true(b->capacity < (1 << 20) + (1 << 10));
    buffer_unref(b);
}

/* Very large memory is given back by a thread of its own; many at a time. */
static void test_very_large(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        struct buffer *b = buffer_create((size_t)40 << 20, 0);
        assert_non_null(b);
        ((char *)b->base)[0] = 1;
        ((char *)b->base)[b->capacity - 1] = 1;
        buffer_unref(b);
    }
}

static int released;

static void count_release(struct buffer *b)
{
    assert_ptr_equal(b->owner, &released);
    released++;
}

static void test_counting(void **state)
{
    (void)state;
    struct buffer b = { .release = count_release, .owner = &released };
    atomic_init(&b.refs, 1);
    assert_ptr_equal(buffer_ref(&b), &b);
    buffer_unref(&b);
    assert_int_equal(released, 0);
    buffer_unref(&b);
    assert_int_equal(released, 1);
    buffer_unref(NULL);
}

/* Large memory comes back, whichever thread frees it. */
static void *unref(void *b)
{
    buffer_unref(b);
    return NULL;
}

static void test_recycling(void **state)
{
    (void)state;
    struct buffer *b = buffer_create(3 << 20, 0);
    void *base = b->base;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, unref, b), 0);
    pthread_join(thread, NULL);
    b = buffer_create(3 << 20, 0);
    assert_ptr_equal(b->base, base);
    buffer_unref(b);
}

enum {
    THREADS = 4,
    ROUNDS = 2000,
    SLOTS = 8
};
static _Atomic(struct buffer *) slots[SLOTS];

static void *exchange(void *arg)
{
    uint32_t seed = (uint32_t)(uintptr_t)arg;
    for (int i = 0; i < ROUNDS; i++) {
        seed = seed * 1664525 + 1013904223;
        size_t bytes = (size_t)1 << (10 + (seed >> 8) % 10);
        struct buffer *mine = buffer_create(bytes, 0);
        memset(mine->base, i, 64);
        buffer_unref(atomic_exchange(&slots[(seed >> 16) % SLOTS], mine));
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, exchange, (void *)(i + 1)), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < SLOTS; i++)
        buffer_unref(atomic_load(&slots[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alignment),  cmocka_unit_test(test_large_is_tight),
        cmocka_unit_test(test_very_large), cmocka_unit_test(test_counting),
        cmocka_unit_test(test_recycling),  cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
