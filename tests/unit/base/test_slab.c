/* Slabs: memory keeps its type and content, is aligned, and no object is handed out twice however
 * threads allocate, pass on and free. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/attr.h"
#include "base/slab.h"

struct object {
    _Atomic uint32_t used;
    uint32_t generation;
    char rest[100];
};

/* Kinds that the server does not use. */
static const struct slab slab = { SLAB_KINDS_MAX - 1, sizeof(struct object) };
static const struct slab lonely = { SLAB_KINDS_MAX - 2, sizeof(struct object) };

static struct object *take(const struct slab *s)
{
    int is_new;
    struct object *o = slab_alloc(s, &is_new);
    assert_non_null(o);
    assert_int_equal((uintptr_t)o % 64, 0);
    if (is_new)
        memset(o, 0, sizeof(*o));
    assert_int_equal(atomic_exchange(&o->used, 1), 0);
    o->generation++;
    return o;
}

static void give(const struct slab *s, struct object *o)
{
    assert_int_equal(atomic_exchange(&o->used, 0), 1);
    slab_free(s, o);
}

/* Content survives, and the one freed last is reused last. */
static void test_reuse(void **state)
{
    (void)state;
    struct object *a = take(&lonely);
    struct object *b = take(&lonely);
    assert_ptr_not_equal(a, b);
    a->generation = 77;
    give(&lonely, a);
    give(&lonely, b);
    assert_ptr_equal(take(&lonely), a);
    assert_int_equal(a->generation, 78);
    assert_ptr_equal(take(&lonely), b);
    give(&lonely, a);
    give(&lonely, b);
}

/* More objects than a thread keeps: all come back before a new one is made. */
static void test_many(void **state)
{
    (void)state;
    enum {
        COUNT = 1000
    };
    static struct object *objects[COUNT];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++)
            objects[i] = take(&lonely);
        for (int i = 0; i < COUNT; i++)
            give(&lonely, objects[i]);
    }
    uint32_t fresh = 0;
    for (int i = 0; i < COUNT; i++) {
        objects[i] = take(&lonely);
        fresh += objects[i]->generation == 1;
    }
    assert_int_equal(fresh, 0);
    for (int i = 0; i < COUNT; i++)
        give(&lonely, objects[i]);
}

/* A ring of slots: each thread takes what lies in a slot and puts an object of its own there, so
 * most objects are freed on another thread than they were made on. */
enum {
    SLOTS = 64,
    THREADS = 4,
    ROUNDS = 20000
};
static _Atomic(struct object *) slots[SLOTS];

static void *exchange(void *arg)
{
    uint32_t seed = (uint32_t)(uintptr_t)arg;
    for (int i = 0; i < ROUNDS; i++) {
        seed = seed * 1664525 + 1013904223;
        struct object *mine = take(&slab);
        struct object *theirs = atomic_exchange(&slots[(seed >> 16) % SLOTS], mine);
        if (theirs)
            give(&slab, theirs);
    }
    return NULL; /* what the thread still keeps goes to the others */
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    for (int round = 0; round < 2; round++) {
        for (uintptr_t i = 0; i < THREADS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, exchange, (void *)(i + 1)), 0);
        for (int i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < SLOTS; i++) {
        struct object *o = atomic_load(&slots[i]);
        if (o)
            give(&slab, o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_reuse), cmocka_unit_test(test_many),
                                        cmocka_unit_test(test_threads) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
