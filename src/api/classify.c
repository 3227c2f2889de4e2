#include "api/classify.h"

#include <inttypes.h>
#include <string.h>

#include "infer/datatype.h"
#include "infer/reason.h"

/* Every type is compared as itself: a double cannot tell large 64-bit integers apart. */
#define VALUE(type, values, index)                                                 \
    ({                                                                             \
        type value_;                                                               \
        memcpy(&value_, (const char *)(values) + (size_t)(index) * sizeof(value_), \
               sizeof(value_));                                                    \
        value_;                                                                    \
    })

#define TYPES(X)                                  \
    X(TRITONSERVER_TYPE_UINT8, uint8_t, PRIu8)    \
    X(TRITONSERVER_TYPE_UINT16, uint16_t, PRIu16) \
    X(TRITONSERVER_TYPE_UINT32, uint32_t, PRIu32) \
    X(TRITONSERVER_TYPE_UINT64, uint64_t, PRIu64) \
    X(TRITONSERVER_TYPE_INT8, int8_t, PRId8)      \
    X(TRITONSERVER_TYPE_INT16, int16_t, PRId16)   \
    X(TRITONSERVER_TYPE_INT32, int32_t, PRId32)   \
    X(TRITONSERVER_TYPE_INT64, int64_t, PRId64)   \
    X(TRITONSERVER_TYPE_FP32, float, "f")         \
    X(TRITONSERVER_TYPE_FP64, double, "f")

/* Is value a before value b in the answer? A NaN comes after every number. */
static bool comes_before(TRITONSERVER_DataType type, const void *values, uint32_t a, uint32_t b)
{
#define COMPARE(tag, c_type, format)                                           \
    case tag: {                                                                \
        c_type x = VALUE(c_type, values, a);                                   \
        c_type y = VALUE(c_type, values, b);                                   \
        if (x > y || (x == x && y != y)) /* NOLINT: NaN differs from itself */ \
            return true;                                                       \
        if (x < y || (x != x && y == y))                                       \
            return false;                                                      \
        return a < b;                                                          \
    }
    switch (type) {
        TYPES(COMPARE)
    default:
        return a < b;
    }
#undef COMPARE
}

static bool has_order(TRITONSERVER_DataType type)
{
#define IS_TYPE(tag, c_type, format) type == tag ||
    return TYPES(IS_TYPE) false;
#undef IS_TYPE
}

/* Keeps heap[0..n) a heap whose top is the last of the answer. */
static void sift_down(TRITONSERVER_DataType type, const void *values, uint32_t *heap, size_t n,
                      size_t at)
{
    for (;;) {
        size_t child = at * 2 + 1;
        if (child >= n)
            return;
        if (child + 1 < n && comes_before(type, values, heap[child], heap[child + 1]))
            child++;
        if (!comes_before(type, values, heap[at], heap[child]))
            return;
        uint32_t swap = heap[at];
        heap[at] = heap[child];
        heap[child] = swap;
        at = child;
    }
}

tis_error *classify(const struct tis_output *output, const void *values, size_t count, size_t k,
                    struct arena *arena, uint32_t **ret_indices, size_t *ret_count)
{
    TRITONSERVER_DataType type = output->data_type;
    if (!has_order(type))
        return reason_error(REASON_CLASS_TYPE, output->name, datatype_config_name(type));
    if (count > UINT32_MAX)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "output '%s' has %zu elements, too many to classify", output->name, count);
    if (k > count)
        k = count;
    uint32_t *heap = arena_alloc(arena, k * sizeof(*heap));
    if (!heap)
        return error_no_memory();

    for (size_t i = 0; i < k; i++)
        heap[i] = (uint32_t)i;
    for (size_t i = k / 2; i > 0; i--)
        sift_down(type, values, heap, k, i - 1);
    for (size_t i = k; i < count && k > 0; i++) {
        if (!comes_before(type, values, (uint32_t)i, heap[0]))
            continue;
        heap[0] = (uint32_t)i;
        sift_down(type, values, heap, k, 0);
    }
    for (size_t n = k; n > 1; n--) { /* the top, the worst, goes last */
        uint32_t worst = heap[0];
        heap[0] = heap[n - 1];
        heap[n - 1] = worst;
        sift_down(type, values, heap, n - 1, 0);
    }
    *ret_indices = heap;
    *ret_count = k;
    return NULL;
}

void classify_append_value(struct bytes *out, TRITONSERVER_DataType type, const void *values,
                           uint32_t index)
{
#define APPEND(tag, c_type, format)                                  \
    case tag:                                                        \
        bytes_printf(out, "%" format, VALUE(c_type, values, index)); \
        return;
    switch (type) {
        TYPES(APPEND)
    default:
        return;
    }
#undef APPEND
}

float classify_value(TRITONSERVER_DataType type, const void *values, uint32_t index)
{
#define AS_FLOAT(tag, c_type, format) \
    case tag:                         \
        return (float)VALUE(c_type, values, index);
    switch (type) {
        TYPES(AS_FLOAT)
    default:
        return 0;
    }
#undef AS_FLOAT
}
