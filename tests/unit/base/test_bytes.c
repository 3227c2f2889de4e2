/* Byte strings: every way to append, the limit, the state after a failure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

static void test_append(void **state)
{
    (void)state;
    struct bytes b = { 0 };
    assert_string_equal(bytes_str(&b), "");
    bytes_append_str(&b, "a");
    bytes_append_char(&b, 'b');
    bytes_append(&b, "c\0d", 3);
    bytes_append(&b, NULL, 0);
    assert_int_equal(b.len, 5);
    assert_memory_equal(b.data, "abc\0d", 6); /* with the NUL behind it */
    bytes_clear(&b);
    assert_string_equal(bytes_str(&b), "");
    bytes_printf(&b, "%s=%d", "key", 42);
    assert_string_equal(bytes_str(&b), "key=42");
    for (int i = 0; i < 1000; i++)
        bytes_append_str(&b, "0123456789");
    assert_int_equal(b.len, 6 + 10000);
    assert_int_equal(strlen(b.data), b.len);
    bytes_fini(&b);
    assert_null(b.data);
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        long long value;
        const char *text;
    } cases[] = {
        { 0, "0" },
        { 7, "7" },
        { -1, "-1" },
        { INT64_MAX, "9223372036854775807" },
        { INT64_MIN, "-9223372036854775808" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct bytes b = { 0 };
        bytes_append_i64(&b, cases[i].value);
        assert_string_equal(bytes_str(&b), cases[i].text);
        bytes_fini(&b);
    }
    struct bytes b = { 0 };
    bytes_append_u64(&b, UINT64_MAX);
    assert_string_equal(bytes_str(&b), "18446744073709551615");
    bytes_fini(&b);
}

/* Over the limit: what fitted stays, nothing is added any more, stealing says so. */
static void test_limit(void **state)
{
    (void)state;
    struct bytes b = { .len_max = 4 };
    bytes_append_str(&b, "1234");
    assert_false(b.failed);
    bytes_append_char(&b, '5');
    assert_true(b.failed);
    bytes_append_str(&b, "");
    bytes_printf(&b, "%d", 1);
    assert_string_equal(bytes_str(&b), "1234");
    bytes_clear(&b);
    assert_false(b.failed);
    bytes_printf(&b, "%d", 12345);
    assert_true(b.failed);
    assert_null(bytes_steal(&b));
    assert_null(b.data);
    assert_int_equal(b.len_max, 4);

    struct bytes huge = { 0 };
    bytes_append_char(&huge, 'x');
    assert_null(bytes_reserve(&huge, SIZE_MAX - 1));
    assert_true(huge.failed);
    bytes_fini(&huge);
}

static void test_steal(void **state)
{
    (void)state;
    struct bytes b = { 0 };
    char *empty = bytes_steal(&b);
    assert_string_equal(empty, "");
    free(empty);
    bytes_append_str(&b, "mine");
    char *mine = bytes_steal(&b);
    assert_string_equal(mine, "mine");
    assert_int_equal(b.len, 0);
    assert_null(b.data);
    free(mine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_steal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
