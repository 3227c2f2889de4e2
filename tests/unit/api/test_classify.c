/* The k largest of a tensor: order by the tensor's own type, ties, NaN, limits, by tables and
 * against a full sort of random values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/classify.h"
#include "base/attr.h"

enum {
    ARENA_BYTES_MAX = 1 << 20,
    RANDOM_COUNT = 200,
    RANDOM_ROUNDS = 300,
};

#define T(name) TRITONSERVER_TYPE_##name

static tis_error *run(TRITONSERVER_DataType type, const void *values, size_t count, size_t k,
                      struct arena *arena, uint32_t **ret_indices, size_t *ret_count)
{
    struct tis_output output = { .name = "OUT", .data_type = type };
    arena_init(arena, NULL, 0, ARENA_BYTES_MAX);
    return classify(&output, values, count, k, arena, ret_indices, ret_count);
}

/* "3,0,1" for the indices; values are copied to an odd address. */
static void check(TRITONSERVER_DataType type, const void *values, size_t bytes, size_t count,
                  size_t k, const char *expected)
{
    struct arena arena;
    uint32_t *indices = NULL;
    size_t found = 0;
    struct bytes text = { 0 };
    char *copy = malloc(bytes + 1);
    assert_non_null(copy);
    memcpy(copy + 1, values, bytes);
    assert_null(run(type, copy + 1, count, k, &arena, &indices, &found));
    for (size_t i = 0; i < found; i++)
        bytes_printf(&text, "%s%u", i ? "," : "", indices[i]);
    assert_string_equal(bytes_str(&text), expected);
    bytes_fini(&text);
    free(copy);
    arena_fini(&arena);
}

#define CHECK(type, c_type, k, expected, ...)                                             \
    check(type, (const c_type[]){ __VA_ARGS__ }, sizeof((const c_type[]){ __VA_ARGS__ }), \
          sizeof((const c_type[]){ __VA_ARGS__ }) / sizeof(c_type), (k), (expected))

static void test_order(void **state)
{
    (void)state;
    CHECK(T(INT32), int32_t, 2, "3,1", 1, 7, -9, 8);
    CHECK(T(INT32), int32_t, 4, "3,1,0,2", 1, 7, -9, 8);
    CHECK(T(INT32), int32_t, 9, "3,1,0,2", 1, 7, -9, 8); /* k is capped */
    CHECK(T(INT32), int32_t, 0, "", 1, 7);
    CHECK(T(INT32), int32_t, 3, "0,1,2", 5, 5, 5, 5, 5); /* equal ones by index */
    CHECK(T(INT32), int32_t, 3, "1,0,2", 5, 6, 5, 5, 5);
    CHECK(T(UINT8), uint8_t, 1, "1", 127, 255, 0);
    CHECK(T(INT8), int8_t, 1, "0", 127, -1, 0);
    CHECK(T(UINT16), uint16_t, 2, "1,0", 7, 65535);
    CHECK(T(INT16), int16_t, 2, "0,1", 7, -1);
    CHECK(T(UINT32), uint32_t, 2, "1,0", 7, UINT32_MAX);
    CHECK(T(INT64), int64_t, 1, "1", INT64_MAX - 1, INT64_MAX); /* no double tells them apart */
    CHECK(T(UINT64), uint64_t, 2, "1,0", UINT64_MAX - 1, UINT64_MAX);
    CHECK(T(FP64), double, 2, "2,1", 1.0, 1.0 + 1e-15, 1.0 + 1e-14);
    CHECK(T(FP32), float, 5, "2,4,1,3,0", -INFINITY, 0.5f, INFINITY, -1.0f, 0.75f);
}

/* NaN comes after every number, and NaNs among themselves by index. */
static void test_nan(void **state)
{
    (void)state;
    CHECK(T(FP32), float, 4, "2,1,0,3", NAN, -INFINITY, 1.0f, NAN);
    CHECK(T(FP64), double, 2, "1,0", NAN, -1e300, NAN);
}

static void test_empty(void **state)
{
    (void)state;
    check(T(FP32), "", 0, 0, 3, "");
}

static const float *sorted_values;

static int compare_indices(const void *a, const void *b)
{
    float x = sorted_values[*(const uint32_t *)a];
    float y = sorted_values[*(const uint32_t *)b];
    if (x != y)
        return x > y ? -1 : 1;
    return *(const uint32_t *)a < *(const uint32_t *)b ? -1 : 1;
}

/* Against qsort, for many sizes and k; few different values, so that ties are many. */
static void test_random(void **state)
{
    (void)state;
    unsigned short seed[3] = { 1, 2, 3 };
    for (uint32_t round = 0; round < RANDOM_ROUNDS; round++) {
        size_t count = 1 + (size_t)nrand48(seed) % RANDOM_COUNT;
        size_t k = 1 + (size_t)nrand48(seed) % RANDOM_COUNT;
        float values[RANDOM_COUNT];
        uint32_t want[RANDOM_COUNT];
        for (uint32_t i = 0; i < count; i++) {
            values[i] = (float)(nrand48(seed) % 20);
            want[i] = i;
        }
        sorted_values = values;
        qsort(want, count, sizeof(*want), compare_indices);

        struct arena arena;
        uint32_t *got = NULL;
        size_t found = 0;
        assert_null(run(T(FP32), values, count, k, &arena, &got, &found));
        assert_int_equal(found, k < count ? k : count);
        assert_memory_equal(got, want, found * sizeof(*got));
        arena_fini(&arena);
    }
}

/* Types without an order are refused; so is a k that the arena has no room for. */
static void test_errors(void **state)
{
    (void)state;
    static const struct {
        TRITONSERVER_DataType type;
        const char *text;
    } types[] = {
        { T(BOOL), "class result not available for output 'OUT' due to unsupported type "
                   "'TYPE_BOOL'" },
        { T(FP16), "class result not available for output 'OUT' due to unsupported type "
                   "'TYPE_FP16'" },
        { T(BF16), "class result not available for output 'OUT' due to unsupported type "
                   "'TYPE_BF16'" },
        { T(BYTES), "class result not available for output 'OUT' due to unsupported type "
                    "'TYPE_STRING'" },
    };
    struct arena arena;
    uint32_t *indices = NULL;
    size_t count = 7;
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        tis_error *err = run(types[i].type, "1234", 1, 1, &arena, &indices, &count);
        assert_string_equal(error_text(err), types[i].text);
        assert_int_equal(error_code(err), TRITONSERVER_ERROR_INVALID_ARG);
        error_free(err);
        arena_fini(&arena);
    }

    char *values = calloc(1, 2 * ARENA_BYTES_MAX);
    assert_non_null(values);
    tis_error *err = run(T(UINT8), values, 2 * ARENA_BYTES_MAX, SIZE_MAX, &arena, &indices, &count);
    assert_int_equal(error_code(err), TRITONSERVER_ERROR_UNAVAILABLE);
    error_free(err);
    arena_fini(&arena);
    free(values);
    assert_null(indices);
    assert_int_equal(count, 7); /* written only on success */
}

/* Values as text (v2) and as a float (v1). */
static void test_values(void **state)
{
    (void)state;
#define VALUE(type, c_type, value, text_, float_)                           \
    {                                                                       \
        const c_type values[] = { 0, (c_type)(value) };                     \
        struct bytes text = { 0 };                                          \
        classify_append_value(&text, T(type), values, 1);                   \
        assert_string_equal(bytes_str(&text), (text_));                     \
        assert_true(classify_value(T(type), values, 1) == (float)(float_)); \
        bytes_fini(&text);                                                  \
    }
    VALUE(UINT8, uint8_t, 200, "200", 200)
    VALUE(INT8, int8_t, -7, "-7", -7)
    VALUE(UINT16, uint16_t, 65535, "65535", 65535)
    VALUE(INT16, int16_t, -32768, "-32768", -32768)
    VALUE(UINT32, uint32_t, UINT32_MAX, "4294967295", 4294967296.0)
    VALUE(INT32, int32_t, INT32_MIN, "-2147483648", -2147483648.0)
    VALUE(UINT64, uint64_t, UINT64_MAX, "18446744073709551615", 18446744073709551616.0)
    VALUE(INT64, int64_t, -1, "-1", -1)
    VALUE(FP32, float, 0.5, "0.500000", 0.5)
    VALUE(FP64, double, 1e-7, "0.000000", 1e-7)
#undef VALUE
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),  cmocka_unit_test(test_nan),    cmocka_unit_test(test_empty),
        cmocka_unit_test(test_random), cmocka_unit_test(test_errors), cmocka_unit_test(test_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
