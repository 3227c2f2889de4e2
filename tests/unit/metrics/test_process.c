/* What is read out of the kernel's texts, the real ones of this process, and the interval. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "metrics/process.h"

static void test_parse(void **state)
{
    (void)state;
    struct process_sample s = { 0 };
    uint64_t start;
    process_parse_self("42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 7 3 0 0 20 0 5 0 12345 "
                       "1048576 17 18446744073709551615 1",
                       4096, &s, &start);
    assert_int_equal(s.threads, 5);
    assert_int_equal(start, 12345);
    assert_int_equal(s.virtual_bytes, 1048576);
    assert_int_equal(s.resident_bytes, 17 * 4096);
    process_parse_machine("cpu  10 20 30 400 50 6 7 8 0 0\ncpu0 1 2 3 4\n", &s);
    assert_int_equal(s.machine_ticks, 531);
    assert_int_equal(s.machine_busy_ticks, 81);
    process_parse_memory("MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    250 kB\n", &s);
    assert_int_equal(s.memory_bytes, 1000 * 1024);
    assert_int_equal(s.memory_used_bytes, 750 * 1024);

    /* What cannot be read is zero. */
    process_parse_self("", 4096, &s, &start);
    process_parse_machine("", &s);
    process_parse_memory("", &s);
    assert_int_equal(s.threads + s.virtual_bytes + s.resident_bytes + start, 0);
    assert_int_equal(s.machine_ticks + s.machine_busy_ticks, 0);
    assert_int_equal(s.memory_bytes + s.memory_used_bytes, 0);
}

/* The page's text; the caller frees it. */
static char *page(struct process_metrics *p, uint64_t now_ns)
{
    struct bytes out = { 0 };
    struct exposition e;
    exposition_init(&e, EXPOSITION_TEXT, &out);
    process_metrics_write(p, now_ns, &e);
    return bytes_steal(&out);
}

static double value(const char *text, const char *name)
{
    char line[128];
    snprintf(line, sizeof(line), "\n%s ", name);
    const char *at = strstr(text, line);
    if (!at)
        fail_msg("no %s in %s", name, text);
    return strtod(at + strlen(line), NULL);
}

static void test_own_process(void **state)
{
    (void)state;
    struct process_metrics p;
    process_metrics_init(&p, 1000, true);
    char *text = page(&p, 5000);
    double fds = value(text, "process_open_fds");
    assert_true(fds >= 3 && fds <= value(text, "process_max_fds"));
    assert_true(value(text, "process_threads") >= 1);
    assert_true(value(text, "process_resident_memory_bytes") > 100000);
    assert_true(value(text, "process_virtual_memory_bytes") >
                value(text, "process_resident_memory_bytes"));
    assert_true(value(text, "process_cpu_seconds_total") > 0);
    double age = (double)time(NULL) - value(text, "process_start_time_seconds");
    assert_true(age > -2 && age < 120);
    assert_true(value(text, "nv_cpu_utilization") >= 0 && value(text, "nv_cpu_utilization") <= 1);
    assert_true(value(text, "nv_cpu_memory_used_bytes") < value(text, "nv_cpu_memory_total_bytes"));
    free(text);

    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    text = page(&p, 5999); /* not yet time for another sample */
    assert_true(value(text, "process_open_fds") == fds);
    free(text);
    text = page(&p, 6000);
    assert_true(value(text, "process_open_fds") == fds + 1);
    free(text);
    close(fd);
    process_metrics_fini(&p);
}

static void test_without_machine(void **state)
{
    (void)state;
    struct process_metrics p;
    process_metrics_init(&p, 0, false);
    char *text = page(&p, 1);
    assert_null(strstr(text, "nv_cpu"));
    assert_non_null(strstr(text, "process_open_fds"));
    free(text);
    process_metrics_fini(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_own_process),
        cmocka_unit_test(test_without_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
