/* Lists of processors, by tables; CPU quotas from files in a temporary directory, as control groups of
 * both versions have them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/processors.h"
#include "unit/folder.h"

/* What a list is read as, written again; "" when it is refused. */
static void check_list(const char *text, const char *expected)
{
    struct processors set = { .bits = { 77 } };
    tis_error *err = processors_parse(text, strlen(text), &set);
    if (!*expected) {
        assert_non_null(err);
        assert_int_equal(error_code(err), TRITONSERVER_ERROR_INVALID_ARG);
        assert_int_equal(set.bits[0], 77); /* written only on success */
        error_free(err);
        return;
    }
    assert_null(err);
    struct bytes out = { 0 };
    processors_append(&out, &set);
    assert_string_equal(bytes_str(&out), expected);
    bytes_fini(&out);
}

static void test_lists(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *expected; /* "" : refused */
    } cases[] = {
        { "0", "0" },
        { "", "none" },
        { "0-3", "0-3" },
        { "0-3,8", "0-3,8" },
        { "8,0-3", "0-3,8" },
        { "1,2,3", "1-3" },
        { "1-2,2-3", "1-3" },
        { "63,64", "63-64" },
        { "7-7", "7" },
        { "0-8191", "0-8191" },
        { "8191", "8191" },
        { "8192", "" },
        { "0-8192", "" },
        { "3-1", "" },
        { "-1", "" },
        { "1-", "" },
        { "-", "" },
        { ",", "" },
        { "1,", "" },
        { ",1", "" },
        { "1,,2", "" },
        { " 1", "" },
        { "1 ", "" },
        { "a", "" },
        { "0x1", "" },
        { "1-2-3", "" },
        { "18446744073709551615", "" },
        { "0-18446744073709551616", "" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        check_list(cases[i].text, cases[i].expected);
}

static void test_the_error_shows_the_place(void **state)
{
    (void)state;
    struct processors set;
    tis_error *err = processors_parse("0-3,x", 5, &set);
    assert_non_null(err);
    assert_non_null(strstr(error_text(err), "'x' at byte 4"));
    assert_non_null(strstr(error_text(err), "0-3,8"));
    error_free(err);
}

static void test_sets(void **state)
{
    (void)state;
    struct processors a, b;
    assert_null(processors_parse("0-5,100", 7, &a));
    assert_null(processors_parse("4-7,100", 7, &b));
    assert_int_equal(processors_count(&a), 7);
    assert_true(processors_has(&a, 100));
    assert_false(processors_has(&a, 6));
    assert_false(processors_has(&a, PROCESSORS_MAX));
    struct processors both = a;
    processors_intersect(&both, &b);
    assert_int_equal(processors_count(&both), 3);
    processors_subtract(&a, &b);
    assert_int_equal(processors_count(&a), 4);
    assert_false(processors_has(&a, 100));
}

static void test_this_machine(void **state)
{
    (void)state;
    struct processors set;
    assert_null(processors_allowed(&set));
    assert_true(processors_count(&set) >= 1);
    assert_in_range(processors_usable(), 1, processors_count(&set));
    tis_error *err = processors_read("/nonexistent/cpulist", &set);
    assert_non_null(err);
    assert_int_equal(error_code(err), TRITONSERVER_ERROR_NOT_FOUND);
    error_free(err);
}

/* ---- Quotas ---- */

static char root[] = "/tmp/test_processors_XXXXXX";

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return folder_remove(root);
}

static void test_quotas(void **state)
{
    (void)state;
    folder_write(root, "a/b/cpu.max", "150000 100000\n");
    folder_write(root, "a/cpu.max", "max 100000\n");
    folder_write(root, "tight/loose/cpu.max", "800000 100000\n");
    folder_write(root, "tight/cpu.max", "300000 100000\n");
    folder_write(root, "bad/cpu.max", "lots\n");
    folder_write(root, "cpu,cpuacct/x/cpu.cfs_quota_us", "50000\n");
    folder_write(root, "cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
    folder_write(root, "cpu,cpuacct/free/cpu.cfs_quota_us", "-1\n");
    folder_write(root, "cpu,cpuacct/free/cpu.cfs_period_us", "100000\n");
    static const struct {
        const char *membership;
        uint32_t expected;
    } cases[] = {
        { "0::/a/b\n", 2 }, /* one and a half */
        { "0::/a\n", 0 },
        { "0::/tight/loose\n", 3 }, /* the group around it has less */
        { "0::/tight/loose/missing/deep\n", 3 },
        { "0::/bad\n", 0 },
        { "0::/nowhere\n", 0 },
        { "0::/", 0 },
        { "4:cpuset:/x\n2:cpu,cpuacct:/x\n0::/\n", 1 },
        { "2:cpu,cpuacct:/free\n", 0 },
        { "2:cpu,cpuacct:/x\n0::/a/b\n", 1 }, /* both versions: the smaller one */
        { "2:cpuset:/x\n", 0 },
        { "", 0 },
        { "garbage\n:\n::\n", 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(processors_quota(cases[i].membership, root), cases[i].expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),  cmocka_unit_test(test_the_error_shows_the_place),
        cmocka_unit_test(test_sets),   cmocka_unit_test(test_this_machine),
        cmocka_unit_test(test_quotas),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
