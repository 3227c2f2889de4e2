/* kit/batch with batches that no well-behaved server forms, in the backend of
 * docs/writing-a-backend.md. test_batches.py builds this with the sanitizers and
 * runs it. */
#include "kit/ragged.h"
#include "mini_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                  \
        }                                                                             \
    } while (0)

static const float VALUES[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };

/* The entry points that the page's backend leaves out. */
TRITONSERVER_Error *TRITONBACKEND_Finalize(TRITONBACKEND_Backend *backend)
{
    return backend ? NULL : NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance *instance)
{
    return instance ? NULL : NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance *instance)
{
    return instance ? NULL : NULL;
}

static void load(void)
{
    char reason[4096];

    host = (struct host){
        .config = "{\"max_batch_size\":8,"
                  "\"input\":[{\"name\":\"X\",\"data_type\":\"TYPE_FP32\",\"dims\":[-1]}],"
                  "\"output\":[{\"name\":\"Y\",\"data_type\":\"TYPE_FP32\",\"dims\":[-1]}],"
                  "\"parameters\":{\"factor\":{\"string_value\":\"2\"}}}",
        .directory = "/nowhere",
        .settings = "{}",
    };
    if (!host_load(reason)) {
        fprintf(stderr, "%s\n", reason);
        exit(1);
    }
}

static struct tis_request request(int64_t rows, int64_t columns)
{
    struct tis_request r = { .outputs = { "Y" } };

    r.inputs[0] = (struct tis_input){ .name = "X",
                                      .datatype = TRITONSERVER_TYPE_FP32,
                                      .shape = { rows, columns },
                                      .dims_count = 2,
                                      .piece_count = 1 };
    r.inputs[0].pieces[0].data = VALUES;
    r.inputs[0].pieces[0].byte_size = (uint64_t)(rows * columns) * sizeof *VALUES;
    return r;
}

static void check_doubled(const struct tis_request *r, int64_t rows, int64_t columns)
{
    const float *values = r->results[0].data;

    CHECK(!r->error[0] && r->success && r->result_count == 1);
    CHECK(r->results[0].shape[0] == rows && r->results[0].shape[1] == columns);
    for (int64_t i = 0; i < rows * columns; i++)
        CHECK(values[i] == VALUES[i] * 2);
}

static void execute(struct tis_request *requests, uint32_t count)
{
    struct tis_request *batch[16];

    for (uint32_t i = 0; i < count; i++)
        batch[i] = &requests[i];
    host_execute(batch, count);
}

/* One execution for requests of different numbers of rows, each gets its own back. */
static void test_rows(void)
{
    struct tis_request r[] = { request(1, 2), request(3, 2), request(2, 2) };

    r[1].inputs[0].pieces[1].data = VALUES + 2; /* in two pieces, the first of one row */
    r[1].inputs[0].pieces[1].byte_size = 4 * sizeof *VALUES;
    r[1].inputs[0].pieces[0].byte_size = 2 * sizeof *VALUES;
    r[1].inputs[0].piece_count = 2;
    load();
    execute(r, 3);
    CHECK(host.execution_count == 1 && host.executed_batch_size == 6);
    check_doubled(&r[0], 1, 2);
    check_doubled(&r[1], 3, 2);
    check_doubled(&r[2], 2, 2);
    for (int i = 0; i < 3; i++)
        host_reset(&r[i]);
    host_unload();
}

/* Each wrong request fails alone, wherever it stands. */
static void test_broken(void)
{
    struct tis_request r[] = { request(1, 2), request(1, 2), request(1, 2), request(1, 3),
                               request(1, 2), request(1, 2), request(0, 2), request(1, 2) };
    static const char *const words[] = {
        "no such input",   NULL,          "type INT32", "shape [1,3]", "rows of 4 bytes",
        "outputs refused", "shape [0,2]", "GPU memory",
    };

    r[0].inputs[0].name = NULL; /* the first does not describe the batch then */
    r[2].inputs[0].datatype = TRITONSERVER_TYPE_INT32;
    r[4].inputs[0].pieces[0].byte_size = 4;
    r[5].refuse_outputs = true;
    r[7].inputs[0].memory_type = TRITONSERVER_MEMORY_GPU;
    load();
    execute(r, 8);
    check_doubled(&r[1], 1, 2);
    for (int i = 0; i < 8; i++) {
        if (words[i] && !strstr(r[i].error, words[i])) {
            fprintf(stderr, "request %d: '%s' lacks '%s'\n", i, r[i].error, words[i]);
            exit(1);
        }
        host_reset(&r[i]);
    }
    host_unload();
}

/* Nothing is left of the batch: nothing is executed, everybody hears why. */
static void test_nobody(void)
{
    struct tis_request r[] = { request(1, 2), request(1, 2) };

    r[0].inputs[0].name = r[1].inputs[0].name = NULL;
    load();
    execute(r, 2);
    CHECK(host.execution_count == 0);
    for (int i = 0; i < 2; i++) {
        CHECK(strstr(r[i].error, "no such input"));
        host_reset(&r[i]);
    }
    host_unload();
}

/* An output that nobody asked for is not made. */
static void test_unwanted(void)
{
    struct tis_request r = request(1, 2);

    r.outputs[0] = NULL;
    load();
    execute(&r, 1);
    CHECK(!r.error[0] && r.result_count == 0);
    host_reset(&r);
    host_unload();
}

/* ---- Batch inputs and outputs ---- */

static struct kit_input source(uint32_t dims_count, const int64_t *shape)
{
    return (struct kit_input){ .name = "X", .dims_count = dims_count, .shape = shape };
}

/* Takes error, which must hold words. */
static void check_error(TRITONSERVER_Error *error, const char *words)
{
    CHECK(error);
    if (!strstr(TRITONSERVER_ErrorMessage(error), words)) {
        fprintf(stderr, "'%s' lacks '%s'\n", TRITONSERVER_ErrorMessage(error), words);
        exit(1);
    }
    TRITONSERVER_ErrorDelete(error);
}

/* Each kind, about requests of the shapes [2,3,1], [1,2,2] and [1,0,5]. */
static void test_batch_inputs(void)
{
    const int64_t a[] = { 2, 3, 1 }, b[] = { 1, 2, 2 }, c[] = { 1, 0, 5 };
    const struct kit_input inputs[] = { source(3, a), source(3, b), source(3, c) };
    const struct kit_input *const sources[] = { &inputs[0], &inputs[1], &inputs[2] };
    static const struct {
        enum kit_batch_input_kind kind;
        uint32_t rank;
        int64_t shape[2];
        int32_t values[8];
    } CASES[] = {
        { KIT_ELEMENT_COUNT, 1, { 3 }, { 6, 4, 0 } },
        { KIT_ACCUMULATED_ELEMENT_COUNT, 1, { 3 }, { 6, 10, 10 } },
        { KIT_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO, 1, { 4 }, { 0, 6, 10, 10 } },
        { KIT_MAX_ELEMENT_COUNT_AS_SHAPE, 1, { 6 }, { 0 } },
        { KIT_ITEM_SHAPE, 2, { 4, 2 }, { 3, 1, 3, 1, 2, 2, 0, 5 } },
        { KIT_ITEM_SHAPE_FLATTEN, 1, { 8 }, { 3, 1, 3, 1, 2, 2, 0, 5 } },
    };

    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct kit_batch_input input = { .kind = CASES[i].kind, .target = "T" };
        const int64_t count = CASES[i].shape[0] * (CASES[i].rank == 2 ? CASES[i].shape[1] : 1);

        for (int is_float = 0; is_float < 2; is_float++) {
            /* Exactly as large as it must be: the sanitizer sees a write behind it. */
            void *data = malloc((size_t)count * sizeof(int32_t));
            int64_t shape[KIT_BATCH_INPUT_RANK_MAX];
            uint32_t rank;

            input.datatype = is_float ? TRITONSERVER_TYPE_FP32 : TRITONSERVER_TYPE_INT32;
            CHECK(!kit_batch_input_shape(&input, sources, 3, shape, &rank));
            CHECK(rank == CASES[i].rank && shape[0] == CASES[i].shape[0]);
            CHECK(rank == 1 || shape[1] == CASES[i].shape[1]);
            CHECK(!kit_batch_input_fill(&input, sources, 3, data));
            for (int64_t k = 0; k < count; k++)
                CHECK(is_float ? ((float *)data)[k] == (float)CASES[i].values[k]
                               : ((int32_t *)data)[k] == CASES[i].values[k]);
            free(data);
        }
    }
}

/* Numbers that no INT32 holds, and shapes that no well-behaved server brings together. */
static void test_batch_inputs_that_cannot_be(void)
{
    const int64_t huge[] = { 1, 3000000000 }, odd[] = { 1, 2, 3 }, bad[] = { 1, -1 };
    const struct kit_input inputs[] = { source(2, huge), source(3, odd), source(2, bad) };
    const struct kit_input *sources[] = { &inputs[0], &inputs[1] };
    struct kit_batch_input input = { .datatype = TRITONSERVER_TYPE_INT32, .target = "T" };
    int32_t data[2];
    float number;
    int64_t shape[2];
    uint32_t rank;

    for (int kind = KIT_ELEMENT_COUNT; kind <= KIT_ITEM_SHAPE_FLATTEN; kind++) {
        input.kind = (enum kit_batch_input_kind)kind;
        if (kind != KIT_MAX_ELEMENT_COUNT_AS_SHAPE)
            check_error(kit_batch_input_fill(&input, sources, 1, data), "does not fit INT32");
    }
    check_error(kit_batch_input_shape(&input, sources, 2, shape, &rank), "shape [1,2,3]");

    input.kind = KIT_ELEMENT_COUNT;
    input.datatype = TRITONSERVER_TYPE_FP32;
    CHECK(!kit_batch_input_fill(&input, sources, 1, &number) && number == 3e9f);
    sources[0] = &inputs[2];
    check_error(kit_batch_input_fill(&input, sources, 1, &number), "shape [1,-1]");
}

/* -1 in an output's dims is the size that the source has in the same place. */
static void test_batch_output_shape(void)
{
    const int64_t dims[] = { -1, 4, -1 }, shape[] = { 2, 7, 9, 3 };
    const struct kit_tensor_config output = { .name = "Y", .dims = dims, .dims_count = 3 };
    struct kit_input input = source(4, shape);
    int64_t found[4];

    CHECK(!kit_batch_output_shape(&output, &input, found));
    CHECK(found[0] == 2 && found[1] == 7 && found[2] == 4 && found[3] == 3);
    input.dims_count = 3;
    check_error(kit_batch_output_shape(&output, &input, found),
                "output 'Y' takes dimension 3 from input 'X', which has shape [2,7,9]");
}

/* Every pair of shapes of up to three dimensions: each element of dst is src's at the same place,
 * or the padding; and cut back it is src again. */
static void check_pad(const int64_t *large, const int64_t *small, uint32_t rank, int32_t padding)
{
    int64_t sizes[2][3] = { { 1, 1, 1 }, { 1, 1, 1 } };
    int32_t *src, *dst, *again;
    size_t src_bytes, dst_bytes;

    memcpy(sizes[0] + 3 - rank, small, rank * sizeof *small);
    memcpy(sizes[1] + 3 - rank, large, rank * sizeof *large);
    src_bytes = (size_t)(sizes[0][0] * sizes[0][1] * sizes[0][2]) * sizeof *src;
    dst_bytes = (size_t)(sizes[1][0] * sizes[1][1] * sizes[1][2]) * sizeof *dst;
    src = malloc(src_bytes); /* exactly as large as they are: the sanitizer sees what is beside */
    again = malloc(src_bytes);
    dst = malloc(dst_bytes);
    for (size_t i = 0; i < src_bytes / sizeof *src; i++)
        src[i] = (int32_t)i + 1;

    kit_pad(dst, large, src, small, rank, sizeof *dst, &padding);
    for (int64_t i = 0; i < sizes[1][0]; i++)
        for (int64_t j = 0; j < sizes[1][1]; j++)
            for (int64_t k = 0; k < sizes[1][2]; k++) {
                bool in = i < sizes[0][0] && j < sizes[0][1] && k < sizes[0][2];
                int32_t want = in ? src[(i * sizes[0][1] + j) * sizes[0][2] + k] : padding;
                CHECK(dst[(i * sizes[1][1] + j) * sizes[1][2] + k] == want);
            }
    kit_cut(again, small, dst, large, rank, sizeof *dst);
    CHECK(src_bytes == 0 || memcmp(again, src, src_bytes) == 0);
    free(src);
    free(again);
    free(dst);
}

static void test_padding(void)
{
    for (uint32_t rank = 0; rank <= 3; rank++)
        for (int code = 0; code < 1 << 12; code++) { /* two bits for each of six sizes */
            int64_t large[3], small[3];

            for (uint32_t i = 0; i < 3; i++) {
                small[i] = code >> 2 * i & 3;
                large[i] = small[i] + (code >> (6 + 2 * i) & 3);
            }
            check_pad(large, small, rank, code % 2 ? -1 : 0);
        }
}

int main(void)
{
    test_rows();
    test_broken();
    test_nobody();
    test_unwanted();
    test_batch_inputs();
    test_batch_inputs_that_cannot_be();
    test_batch_output_shape();
    test_padding();
    puts("ok");
    return 0;
}
