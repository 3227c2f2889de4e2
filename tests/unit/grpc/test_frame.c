/* The texts and numbers of gRPC: tables of cases. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "grpc/frame.h"

/* Every unit, the largest values, and what is no timeout. */
static void test_timeout(void **state)
{
    static const struct {
        const char *text;
        uint64_t ns; /* 0: wrong */
    } cases[] = {
        { "1n", 1 },
        { "2u", 2000 },
        { "3m", 3000000 },
        { "4S", 4000000000 },
        { "5M", 300000000000 },
        { "1H", 3600000000000 },
        { "99999999S", 99999999000000000 },
        { "99999999H", UINT64_MAX / 2 },
        { "", 0 },
        { "1", 0 },
        { "S", 0 },
        { "-1S", 0 },
        { "1s", 0 },
        { "1 S", 0 },
        { "999999999S", 0 },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t ns = 0;
        bool is_right = frame_parse_timeout(cases[i].text, strlen(cases[i].text), &ns);
        if (is_right != (cases[i].ns != 0) || ns != cases[i].ns)
            fail_msg("'%s': %d %llu", cases[i].text, is_right, (unsigned long long)ns);
    }
}

static void test_type(void **state)
{
    static const struct {
        const char *text;
        bool is_grpc;
    } cases[] = {
        { "application/grpc", true },
        { "application/grpc+proto", true },
        { "application/grpc; charset=utf-8", true },
        { "application/grpc+proto;x", true },
        { "application/grpc+json", false },
        { "application/grpc-web", false },
        { "application/grpcx", false },
        { "application/json", false },
        { "application", false },
        { "", false },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        if (frame_is_grpc_type(cases[i].text, strlen(cases[i].text)) != cases[i].is_grpc)
            fail_msg("'%s'", cases[i].text);
    }
}

/* Printable ASCII stays; the rest is encoded; a long text is cut between characters. */
static void test_text(void **state)
{
    char out[3 * FRAME_TEXT_BYTES_MAX + 1];
    char longer[FRAME_TEXT_BYTES_MAX + 100];
    (void)state;
    out[frame_encode_text("a b~%\n\x7f\xc3\xa4", out)] = '\0';
    assert_string_equal(out, "a b~%25%0A%7F%C3%A4");
    assert_int_equal(frame_encode_text("", out), 0);

    memset(longer, 'x', sizeof(longer));
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(frame_encode_text(longer, out), FRAME_TEXT_BYTES_MAX);
    memcpy(longer + FRAME_TEXT_BYTES_MAX - 1, "\xc3\xa4", 2);
    assert_int_equal(frame_encode_text(longer, out), FRAME_TEXT_BYTES_MAX - 1);
    memset(longer, '\xc3', sizeof(longer) - 1);
    assert_int_equal(frame_encode_text(longer, out), 3 * FRAME_TEXT_BYTES_MAX);
}

static void test_prefix(void **state)
{
    uint8_t prefix[FRAME_PREFIX_BYTES];
    (void)state;
    frame_put_prefix(prefix, 0x01020384);
    assert_memory_equal(prefix, "\0\1\2\3\x84", 5);
    assert_int_equal(frame_prefix_bytes(prefix), 0x01020384);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_type),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
