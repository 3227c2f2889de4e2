/* The byte budget: the limit, the request larger than it, and that no byte is lost or exceeds the
 * limit when many threads take and give. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/budget.h"

static void test_limit(void **state)
{
    (void)state;
    struct budget b;
    budget_init(&b, 100);
    assert_true(budget_take(&b, 60));
    assert_true(budget_take(&b, 40));
    assert_false(budget_take(&b, 1));
    assert_true(budget_take(&b, 0));
    budget_give(&b, 40);
    assert_false(budget_take(&b, 41));
    assert_false(budget_take(&b, SIZE_MAX));
    assert_true(budget_take(&b, 40));
    budget_give(&b, 100);

    assert_true(budget_take(&b, 1000)); /* alone it may pass */
    assert_false(budget_take(&b, 1));
    budget_give(&b, 1000);
    budget_force(&b, 500); /* exists already */
    assert_false(budget_take(&b, 1));
    budget_give(&b, 500);
    assert_int_equal(atomic_load(&b.bytes), 0);
}

enum {
    THREADS = 4,
    ROUNDS = 20000,
    PIECE = 30
};

static void *take_and_give(void *arg)
{
    struct budget *b = arg;
    uintptr_t over = 0;
    for (int i = 0; i < ROUNDS; i++) {
        if (!budget_take(b, PIECE))
            continue;
        over += atomic_load(&b->bytes) > b->bytes_max;
        budget_give(b, PIECE);
    }
    return (void *)over;
}

static void test_threads(void **state)
{
    (void)state;
    struct budget b;
    budget_init(&b, 100);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, &b), 0);
    for (int i = 0; i < THREADS; i++) {
        void *over;
        pthread_join(threads[i], &over);
        assert_null(over);
    }
    assert_int_equal(atomic_load(&b.bytes), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_limit),
                                        cmocka_unit_test(test_threads) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
