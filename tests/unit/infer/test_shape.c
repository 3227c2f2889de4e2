/* Arithmetic on shapes, by tables: products and their overflow, patterns, reshapes, text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "infer/shape.h"

enum {
    RANK_MAX = 4
};

static void test_count(void **state)
{
    (void)state;
    static const struct {
        uint32_t rank;
        int64_t shape[RANK_MAX];
        uint32_t element;
        bool ok;
        uint64_t bytes;
    } cases[] = {
        { 0, { 0 }, 4, true, 4 }, /* a scalar */
        { 2, { 2, 3 }, 4, true, 24 },
        { 3, { 2, 0, 3 }, 8, true, 0 },
        { 1, { -1 }, 4, false, 0 },
        { 2, { -1, 0 }, 4, false, 0 },
        { 2, { 0, -5 }, 4, false, 0 },
        { 1, { INT64_MAX }, 1, true, INT64_MAX },
        { 1, { INT64_MAX }, 4, false, 0 },
        { 3, { INT64_MAX, INT64_MAX, 2 }, 1, false, 0 },
        { 2, { INT64_MAX, 0 }, 1, true, 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t bytes = 99;
        assert_int_equal(shape_bytes(cases[i].shape, cases[i].rank, cases[i].element, &bytes),
                         cases[i].ok);
        assert_int_equal(bytes, cases[i].ok ? cases[i].bytes : 99);
    }
}

static void test_matches(void **state)
{
    (void)state;
    static const struct {
        uint32_t pattern_rank;
        int64_t pattern[RANK_MAX];
        uint32_t rank;
        int64_t shape[RANK_MAX];
        bool matches;
    } cases[] = {
        { 0, { 0 }, 0, { 0 }, true },         { 1, { 3 }, 1, { 3 }, true },
        { 1, { 3 }, 1, { 4 }, false },        { 1, { -1 }, 1, { 4 }, true },
        { 1, { -1 }, 1, { 0 }, true },        { 2, { -1, 3 }, 2, { 7, 3 }, true },
        { 2, { -1, 3 }, 2, { 7, 4 }, false }, { 1, { 3 }, 2, { 3, 1 }, false },
        { 2, { 3, 1 }, 1, { 3 }, false },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(
            shape_matches(cases[i].pattern, cases[i].pattern_rank, cases[i].shape, cases[i].rank),
            cases[i].matches);
}

static void test_convert(void **state)
{
    (void)state;
    static const struct {
        uint32_t from_rank;
        int64_t from[RANK_MAX];
        uint32_t to_rank;
        int64_t to[RANK_MAX];
        int64_t shape[RANK_MAX];
        const char *result;
    } cases[] = {
        { 1, { 1 }, 0, { 0 }, { 1 }, "[]" },
        { 0, { 0 }, 1, { 1 }, { 0 }, "[1]" },
        { 2, { 2, 3 }, 1, { 6 }, { 2, 3 }, "[6]" },
        { 2, { -1, 4 }, 3, { -1, 2, 2 }, { 5, 4 }, "[5,2,2]" },
        { 3, { -1, 1, -1 }, 2, { -1, -1 }, { 5, 1, 7 }, "[5,7]" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t result[RANK_MAX];
        struct bytes text = { 0 };
        shape_convert(cases[i].from, cases[i].from_rank, cases[i].to, cases[i].to_rank,
                      cases[i].shape, result);
        shape_append(&text, result, cases[i].to_rank);
        assert_string_equal(bytes_str(&text), cases[i].result);
        bytes_fini(&text);
    }
}

static void test_is_fixed(void **state)
{
    (void)state;
    assert_true(shape_is_fixed(NULL, 0));
    assert_true(shape_is_fixed((int64_t[]){ 0, 1 }, 2));
    assert_false(shape_is_fixed((int64_t[]){ 1, -1 }, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_count),
        cmocka_unit_test(test_matches),
        cmocka_unit_test(test_convert),
        cmocka_unit_test(test_is_fixed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
