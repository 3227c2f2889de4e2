/* Protobuf's wire form by hand: what is written is read back, and what is broken is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/wire.h"

/* Numbers of every length, and fields of every type. */
static void test_round_trip(void **state)
{
    static const uint64_t numbers[] = { 0, 1, 127, 128, 300, UINT32_MAX, INT64_MAX, UINT64_MAX };
    struct bytes out = { 0 };
    struct wire_field f;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        size_t before = out.len;
        wire_append_tag(&out, 5, WIRE_VARINT);
        wire_append_varint(&out, numbers[i]);
        assert_int_equal(out.len - before, 1 + wire_varint_bytes(numbers[i]));
    }
    wire_append_bytes(&out, 7, "abc", 3);
    wire_append_tag(&out, 300, WIRE_FIXED64);
    bytes_append(&out, "12345678", 8);
    wire_append_tag(&out, 9, WIRE_FIXED32);
    bytes_append(&out, "1234", 4);

    struct wire w = wire_open(out.data, out.len);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        assert_true(wire_next(&w, &f));
        assert_int_equal(f.number, 5);
        assert_true(f.value == numbers[i]);
    }
    assert_true(wire_next(&w, &f));
    assert_int_equal(f.len, 3);
    assert_memory_equal(f.data, "abc", 3);
    assert_true(wire_next(&w, &f));
    assert_int_equal(f.number, 300);
    assert_memory_equal(f.data, "12345678", 8);
    assert_true(wire_next(&w, &f));
    assert_int_equal(f.type, WIRE_FIXED32);
    assert_false(wire_next(&w, &f));
    assert_false(w.is_bad);
    bytes_fini(&out);
}

/* Cut numbers, lengths beyond the end, groups, field 0, a field number of more than 32 bits. */
static void test_bad(void **state)
{
    static const struct {
        const char *data;
        size_t len;
    } cases[] = {
        { "\x80", 1 },
        { "\x08", 1 },
        { "\x08\x80", 2 },
        { "\x0a\x02x", 3 },
        { "\x0d\1\2\3", 4 },
        { "\x09\1\2\3\4\5\6\7", 8 },
        { "\x0b", 1 },
        { "\x0c", 1 },
        { "\x0e", 1 },
        { "\x02\0", 2 },
        { "\x8a\x80\x80\x80\x80\x01\0", 7 },
        { "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12 },
        { "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11 },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct wire w = wire_open(cases[i].data, cases[i].len);
        struct wire_field f;
        if (wire_next(&w, &f) || !w.is_bad)
            fail_msg("case %zu", i);
        assert_false(wire_next(&w, &f));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_bad),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
