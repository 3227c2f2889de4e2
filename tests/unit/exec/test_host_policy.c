/* Host policies from settings, against a made-up /sys/devices/system with two nodes: what is told to
 * plug-ins and the log, what is refused with which words; and a thread that really moves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>

#include "base/log.h"
#include "base/processors.h"
#include "exec/host_policy.h"
#include "unit/folder.h"

static char root[] = "/tmp/test_host_policy_XXXXXX";
static char allowed_first[16]; /* a processor that this process may use, and one that it may not */
static char not_allowed[16];

/* The machine has all processors up to 4095; node 0 has the first half of them, node 1 none that this
 * process may use, node 2 memory alone. */
static int set_up(void **state)
{
    (void)state;
    struct processors allowed;
    log_set_enabled(LOG_LEVEL_WARNING, false);
    if (!mkdtemp(root))
        return -1;
    assert_null(processors_allowed(&allowed));
    uint32_t first = 0, free = 4000;
    while (!processors_has(&allowed, first))
        first++;
    while (processors_has(&allowed, free))
        free++;
    snprintf(allowed_first, sizeof(allowed_first), "%u", first);
    snprintf(not_allowed, sizeof(not_allowed), "%u", free);
    folder_write(root, "cpu/present", "0-4095\n");
    folder_write(root, "node/online", "0-2\n");
    folder_write(root, "node/node0/cpulist", "0-2047\n");
    folder_write(root, "node/node1/cpulist", not_allowed);
    folder_write(root, "node/node2/cpulist", "\n");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return folder_remove(root);
}

/* The policies of settings[0..count), whose value "A" is a processor that may be used and "N" one that
 * may not. */
static tis_error *create(const struct host_policy_setting *settings, uint32_t count,
                         struct host_policies **ret_policies)
{
    struct host_policy_setting all[4];
    static char value[64];
    for (uint32_t i = 0; i < count; i++) {
        all[i] = settings[i];
        if (strcmp(all[i].value, "A") == 0)
            all[i].value = allowed_first;
        if (strcmp(all[i].value, "N") == 0)
            all[i].value = not_allowed;
        if (strcmp(all[i].value, "A,N") == 0) {
            snprintf(value, sizeof(value), "%s,%s", allowed_first, not_allowed);
            all[i].value = value;
        }
    }
    return host_policies_create(all, count, root, ret_policies);
}

static void test_what_is_told(void **state)
{
    (void)state;
    static const struct {
        struct host_policy_setting settings[3];
        uint32_t count;
        const char *json;  /* A, N: as above */
        const char *place; /* in the log */
    } cases[] = {
        { { { 0 } }, 0, "{\"cpu\":{}}", "" },
        { { { "other", "cpu-cores", "A" } }, 1, "{\"cpu\":{}}", "" },
        { { { "cpu", "cpu-cores", "A" } }, 1, "{\"cpu\":{\"cpu-cores\":\"A\"}}", " cores=A" },
        { { { "cpu", "numa-node", "2" } }, 1, "{\"cpu\":{\"numa-node\":\"2\"}}", " node=2" },
        { { { "cpu", "numa-node", "2" }, { "cpu", "cpu-cores", "A" } },
          2,
          "{\"cpu\":{\"cpu-cores\":\"A\",\"numa-node\":\"2\"}}",
          " cores=A node=2" },
        { { { "cpu", "cpu-cores", "0-99999" }, { "cpu", "cpu-cores", "A" } }, /* the last counts */
          2,
          "{\"cpu\":{\"cpu-cores\":\"A\"}}",
          " cores=A" },
        { { { "cpu", "cpu-cores", "A,N" } }, /* the setting as given, the place as it is */
          1,
          "{\"cpu\":{\"cpu-cores\":\"A,N\"}}",
          " cores=A" },
        { { { "gpu_0", "cpu-cores", "A" },
            { "cpu", "cpu-cores", "A" },
            { "m\"", "numa-node", "0" } },
          3,
          "{\"cpu\":{\"cpu-cores\":\"A\"}}",
          " cores=A" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct host_policies *policies = NULL;
        struct bytes json = { 0 }, place = { 0 }, expected[2] = { { 0 } };
        assert_null(create(cases[i].settings, cases[i].count, &policies));
        const struct host_policy *p = host_policies_find(policies, "cpu");
        host_policy_append_json(&json, "cpu", p);
        host_policy_describe(&place, p);
        for (int k = 0; k < 2; k++) {
            for (const char *c = k ? cases[i].place : cases[i].json; *c; c++) {
                if (*c == 'A' || *c == 'N')
                    bytes_append_str(&expected[k], *c == 'A' ? allowed_first : not_allowed);
                else
                    bytes_append_char(&expected[k], *c);
            }
        }
        assert_string_equal(bytes_str(&json), bytes_str(&expected[0]));
        assert_string_equal(bytes_str(&place), bytes_str(&expected[1]));
        bytes_fini(&expected[0]);
        bytes_fini(&expected[1]);
        bytes_fini(&json);
        bytes_fini(&place);
        host_policies_destroy(policies);
    }
}

static void test_names_are_escaped(void **state)
{
    (void)state;
    struct bytes json = { 0 };
    host_policy_append_json(&json, "a\"b", NULL);
    assert_string_equal(bytes_str(&json), "{\"a\\\"b\":{}}");
    bytes_fini(&json);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        const char *value;
        const char *text; /* in the error */
    } cases[] = {
        { "cpu-core", "0", "unknown setting 'cpu-core' (expected cpu-cores or numa-node)" },
        { "cpu-cores", "", "expected at least one processor" },
        { "cpu-cores", "x", "--host-policy=p,cpu-cores=x: 'x' at byte 0 is no list of processors" },
        { "cpu-cores", "5000-5001", "this machine has no processor 5000-5001 (it has 0-4095)" },
        { "cpu-cores", "N", "this process may use none of the processors (found " },
        { "numa-node", "7", "this machine has no such node (it has 0-2)" },
        { "numa-node", "one", "expected the number of a node" },
        { "numa-node", "99999999999", "expected the number of a node" },
        { "numa-node", "1", "this process may use none of the processors (found " },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct host_policies *policies = NULL;
        struct host_policy_setting setting = { "p", cases[i].key, cases[i].value };
        tis_error *err = create(&setting, 1, &policies);
        assert_non_null(err);
        assert_null(policies);
        assert_int_equal(error_code(err), TRITONSERVER_ERROR_INVALID_ARG);
        if (!strstr(error_text(err), cases[i].text) || !strstr(error_text(err), "--host-policy=p,"))
            fail_msg("%s", error_text(err));
        error_free(err);
    }
}

/* Without /sys what may be used is all that is known; a node cannot be looked up. */
static void test_without_system_files(void **state)
{
    (void)state;
    struct host_policies *policies = NULL;
    struct host_policy_setting cores = { "p", "cpu-cores", allowed_first };
    struct host_policy_setting node = { "p", "numa-node", "0" };
    assert_null(host_policies_create(&cores, 1, "/nonexistent", &policies));
    host_policies_destroy(policies);
    policies = NULL;
    tis_error *err = host_policies_create(&node, 1, "/nonexistent", &policies);
    assert_non_null(err);
    assert_non_null(strstr(error_text(err), "/nonexistent/node/online"));
    error_free(err);
}

static void test_applying(void **state)
{
    (void)state;
    struct host_policies *policies = NULL;
    struct host_policy_setting setting = { "p", "cpu-cores", allowed_first };
    cpu_set_t before, after;
    assert_null(host_policies_create(&setting, 1, root, &policies));
    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    assert_null(host_policy_apply(NULL));
    assert_int_equal(sched_getaffinity(0, sizeof(after), &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
    assert_null(host_policy_apply(host_policies_find(policies, "p")));
    assert_int_equal(sched_getaffinity(0, sizeof(after), &after), 0);
    assert_int_equal(CPU_COUNT(&after), 1);
    assert_true(CPU_ISSET((size_t)strtoul(allowed_first, NULL, 10), &after));
    assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
    host_policies_destroy(policies);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_told), cmocka_unit_test(test_names_are_escaped),
        cmocka_unit_test(test_refusals),     cmocka_unit_test(test_without_system_files),
        cmocka_unit_test(test_applying),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
