/* Arenas: alignment, the caller's first block, blocks of their own for large pieces, the limit and
 * overflow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/arena.h"

static void assert_aligned(const void *p)
{
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 16, 0);
}

/* Pieces of every small size are aligned, apart from each other and keep what was written. */
static void test_pieces(void **state)
{
    (void)state;
    enum {
        PIECES = 600
    };
    static unsigned char *pieces[PIECES];
    struct arena a;
    arena_init(&a, NULL, 0, 1 << 20);
    for (size_t i = 0; i < PIECES; i++) {
        pieces[i] = arena_alloc(&a, i);
        assert_aligned(pieces[i]);
        memset(pieces[i], (int)(i % 251), i);
    }
    for (size_t i = 0; i < PIECES; i++) {
        for (size_t k = 0; k < i; k++)
            assert_int_equal(pieces[i][k], i % 251);
    }
    arena_fini(&a);
    arena_fini(&a); /* an empty arena may end again */
}

/* While the caller's block lasts nothing is malloc'ed; a block too small to be aligned is not used. */
static void test_first_block(void **state)
{
    (void)state;
    char first[256 + 1];
    struct arena a;
    arena_init(&a, first + 1, 256, 1 << 20);
    for (int i = 0; i < 15; i++) {
        char *p = arena_alloc(&a, 16);
        assert_aligned(p);
        assert_true(p >= first && p + 16 <= first + sizeof(first));
    }
    assert_int_equal(a.bytes, 0);
    assert_aligned(arena_alloc(&a, 16));
    assert_true(a.bytes > 0);
    arena_fini(&a);

    arena_init(&a, first + 1, 3, 1 << 20);
    assert_aligned(arena_alloc(&a, 1));
    assert_true(a.bytes > 0);
    arena_fini(&a);
}

/* The limit counts every block; what was handed out before stays usable. */
static void test_limit(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, NULL, 0, 10000);
    char *kept = arena_alloc(&a, 100);
    assert_non_null(kept);
    assert_non_null(arena_alloc(&a, 5000));
    assert_null(arena_alloc(&a, 5000));
    assert_true(a.bytes <= 10000);
    memset(kept, 1, 100);
    assert_non_null(arena_alloc(&a, 100)); /* fits the block that is there */
    arena_fini(&a);
}

static void test_overflow(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, NULL, 0, SIZE_MAX);
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_alloc(&a, SIZE_MAX - 20));
    assert_null(arena_calloc(&a, SIZE_MAX / 2, 3));
    assert_null(arena_strndup(&a, "", SIZE_MAX));
    arena_fini(&a);
}

static void test_texts(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, NULL, 0, 1 << 20);
    assert_string_equal(arena_strdup(&a, "model"), "model");
    assert_string_equal(arena_strndup(&a, "modelfile", 5), "model");
    assert_string_equal(arena_strndup(&a, "", 0), "");
    assert_string_equal(arena_printf(&a, "%s-%d", "m", 7), "m-7");
    const unsigned char *zero = arena_calloc(&a, 100, 3);
    for (int i = 0; i < 300; i++)
        assert_int_equal(zero[i], 0);
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces), cmocka_unit_test(test_first_block),
        cmocka_unit_test(test_limit),  cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
