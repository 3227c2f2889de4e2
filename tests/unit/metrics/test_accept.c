/* Which form of the page a header Accept asks for: what collectors really send, weights, and what is
 * no such header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/attr.h"
#include "metrics/accept.h"

#define OPEN "application/openmetrics-text"

static void test_choice(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        bool is_open;
    } cases[] = {
        { "", false },
        { "*/*", false },
        { "text/plain", false },
        { OPEN, true },
        { OPEN "; version=1.0.0; charset=utf-8", true },
        { OPEN ";version=\"1.0.0\"", true },
        { OPEN ";version=0.0.1", false },
        { "APPLICATION/OpenMetrics-Text;VERSION=1.0.0", true },
        /* Prometheus 2 and 3 */
        { OPEN ";version=1.0.0;q=0.75," OPEN ";version=0.0.1;q=0.5,"
               "text/plain;version=0.0.4;q=0.25,*/*;q=0.1",
          true },
        { OPEN ";version=1.0.0;escaping=allow-utf-8;q=0.5," OPEN ";version=0.0.1;q=0.4,"
               "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,"
               "*/*;q=0.1",
          true },
        { "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
          "encoding=delimited,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
          false },
        /* weights */
        { "text/plain;q=0.5, " OPEN ";q=0.6", true },
        { "text/plain;q=0.6, " OPEN ";q=0.5", false },
        { "text/plain, " OPEN, false },
        { OPEN ", */*", true },
        { "application/*", true },
        { "application/*, text/*", false },
        { "text/*;q=0.2, application/*;q=0.3", true },
        { OPEN ";q=0, */*", false },
        { OPEN ";q=0", false },
        { "text/plain;q=0, */*;q=0.1", true },
        { "text/plain;q=0.001, " OPEN ";q=0.0001", false }, /* three places count */
        { "text/plain;q=0.999, " OPEN ";q=1.0", true },
        { "text/plain;q=1, " OPEN ";q=1.9", false },
        { "text/plain;version=9, " OPEN ";q=0.1", true },
        /* a weight that is none counts as 1 */
        { "text/plain;q=0.9, " OPEN ";q=x", true },
        { "text/plain;q=0.9, " OPEN ";q=", true },
        { "text/plain;q=0.9, " OPEN ";q=0,5", false },
        { "text/plain;q=0.9, " OPEN ";q=0-5", true },
        { "text/plain;q=0.9, " OPEN ";q=0.5x", true },
        /* nonsense */
        { ",,,;;;===", false },
        { ";q=1", false },
        { "text", false },
        { " \t , " OPEN " ; q = 1 ,", true },
        { OPEN "x", false },
        { "image/png", false },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        bool is_open =
            accept_choose(cases[i].header, strlen(cases[i].header)) == EXPOSITION_OPENMETRICS;
        if (is_open != cases[i].is_open)
            fail_msg("%s: %d", cases[i].header, is_open);
    }
}

/* Ranges beyond the bound are not read. */
static void test_bound(void **state)
{
    (void)state;
    struct bytes header = { 0 };
    for (int i = 0; i < ACCEPT_RANGES_MAX - 1; i++)
        bytes_append_str(&header, "a/b,");
    size_t begin = header.len;
    bytes_append_str(&header, OPEN);
    assert_int_equal(accept_choose(header.data, header.len), EXPOSITION_OPENMETRICS);
    header.len = begin;
    bytes_append_str(&header, "a/b," OPEN);
    assert_int_equal(accept_choose(header.data, header.len), EXPOSITION_TEXT);
    bytes_fini(&header);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
