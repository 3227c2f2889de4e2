/* Strict numbers and checked sizes, by tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/number.h"
#include "base/size.h"

static void test_u64(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool ok;
        uint64_t value;
    } cases[] = {
        { "0", true, 0 },
        { "007", true, 7 },
        { "18446744073709551615", true, UINT64_MAX },
        { "18446744073709551616", false, 0 },
        { "99999999999999999999999", false, 0 },
        { "", false, 0 },
        { "-1", false, 0 },
        { "+1", false, 0 },
        { " 1", false, 0 },
        { "1 ", false, 0 },
        { "1a", false, 0 },
        { "0x10", false, 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t value = 99;
        bool ok = number_parse_u64(cases[i].text, strlen(cases[i].text), &value);
        assert_int_equal(ok, cases[i].ok);
        assert_int_equal(value, ok ? cases[i].value : 99); /* written only on success */
    }
}

static void test_i64(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool ok;
        int64_t value;
    } cases[] = {
        { "0", true, 0 },
        { "-0", true, 0 },
        { "-12", true, -12 },
        { "9223372036854775807", true, INT64_MAX },
        { "9223372036854775808", false, 0 },
        { "-9223372036854775808", true, INT64_MIN },
        { "-9223372036854775809", false, 0 },
        { "-", false, 0 },
        { "--1", false, 0 },
        { "", false, 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t value = 99;
        bool ok = number_parse_i64(cases[i].text, strlen(cases[i].text), &value);
        assert_int_equal(ok, cases[i].ok);
        assert_int_equal(value, ok ? cases[i].value : 99);
    }
}

static void test_sizes(void **state)
{
    (void)state;
    size_t n = 99;
    assert_true(mul_size(3, 4, &n));
    assert_int_equal(n, 12);
    assert_false(mul_size(SIZE_MAX / 2 + 1, 2, &n));
    assert_int_equal(n, 12);
    assert_true(add_size(SIZE_MAX - 1, 1, &n));
    assert_int_equal(n, SIZE_MAX);
    assert_false(add_size(SIZE_MAX, 1, &n));
    assert_int_equal(n, SIZE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_u64),
        cmocka_unit_test(test_i64),
        cmocka_unit_test(test_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
