/* Batches that no well-behaved server forms, in the onnxruntime backend: requests
 * of different shapes, broken requests among good ones, inputs in pieces and at
 * odd addresses. Each must get its own right answer. test_batches.py makes the
 * models, builds this with the sanitizers, and runs it:
 *
 *   onnxruntime_batches MODELS ORT_LIBRARY         the tests
 *   onnxruntime_batches MODELS ORT_LIBRARY COUNT   the time of COUNT executions
 */
#include "mini_host.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "onnxruntime/model.h"

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                  \
        }                                                                             \
    } while (0)

static const char *models, *settings;

#define TENSOR(name, type, dims) \
    "{\"name\":\"" name "\",\"data_type\":\"" type "\",\"dims\":" dims "}"

static void load(const char *model, const char *config)
{
    char reason[4096];
    static char directory[4096];

    snprintf(directory, sizeof directory, "%s/%s", models, model);
    host = (struct host){ .config = config, .directory = directory, .settings = settings };
    if (!host_load(reason)) {
        fprintf(stderr, "%s: %s\n", model, reason);
        exit(1);
    }
}

/* A request for add_sub over rows of FP32: INPUT0 and INPUT1 of shape [rows,columns]. */
static void add_sub_request(struct tis_request *r, int64_t rows, int64_t columns, const float *a,
                            const float *b)
{
    const uint64_t byte_size = (uint64_t)(rows * columns) * sizeof *a;

    *r = (struct tis_request){ .outputs = { "OUTPUT0", "OUTPUT1" } };
    for (int i = 0; i < 2; i++) {
        r->inputs[i] = (struct tis_input){ .name = i ? "INPUT1" : "INPUT0",
                                           .datatype = TRITONSERVER_TYPE_FP32,
                                           .shape = { rows, columns },
                                           .dims_count = 2,
                                           .piece_count = 1 };
        r->inputs[i].pieces[0].data = i ? b : a;
        r->inputs[i].pieces[0].byte_size = byte_size;
    }
}

/* Checks the sum and the difference that an add_sub request was answered with. */
static void check_add_sub(const struct tis_request *r, int64_t rows, int64_t columns,
                          const float *a, const float *b)
{
    CHECK(!r->error[0] && r->result_count == 2);
    for (uint32_t k = 0; k < 2; k++) {
        const struct tis_output *out = &r->results[k];
        const float *values = out->data;

        CHECK(strcmp(out->name, k ? "OUTPUT1" : "OUTPUT0") == 0);
        CHECK(out->dims_count == 2 && out->shape[0] == rows && out->shape[1] == columns);
        CHECK(out->byte_size == (uint64_t)(rows * columns) * sizeof *values);
        for (int64_t i = 0; i < rows * columns; i++)
            CHECK(values[i] == (k ? a[i] - b[i] : a[i] + b[i]));
    }
}

static const char ADD_SUB[] =
    "{\"max_batch_size\":8,\"input\":[" TENSOR("INPUT0", "TYPE_FP32", "[-1]") "," TENSOR(
        "INPUT1", "TYPE_FP32",
        "[-1]") "],\"output\":[" TENSOR("OUTPUT0", "TYPE_FP32",
                                        "[-1]") "," TENSOR("OUTPUT1", "TYPE_FP32", "[-1]") "]}";

static const float A[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
static const float B[16] = { 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8 };

/* Requests of two widths, batch sizes 1 and 2: two runs, each request its own rows. */
static void test_shapes(void)
{
    struct tis_request requests[6], *batch[6];

    load("add_sub", ADD_SUB);
    for (int i = 0; i < 6; i++) {
        batch[i] = &requests[i];
        add_sub_request(batch[i], 1 + i % 2, 2 + i / 3, A + i, B + i);
    }
    host_execute(batch, 6);
    CHECK(host.execution_count == 2 && host.executed_batch_size == 9);
    for (int i = 0; i < 6; i++) {
        check_add_sub(batch[i], 1 + i % 2, 2 + i / 3, A + i, B + i);
        host_reset(batch[i]);
    }
    host_unload();
}

/* More rows than max_batch_size: no run is larger than that. */
static void test_too_many(void)
{
    struct tis_request requests[6], *batch[6];

    load("add_sub", ADD_SUB);
    for (int i = 0; i < 6; i++) {
        batch[i] = &requests[i];
        add_sub_request(batch[i], 3, 1, A + i, B + i);
    }
    host_execute(batch, 6);
    CHECK(host.execution_count == 3 && host.executed_batch_size == 18);
    for (int i = 0; i < 6; i++) {
        check_add_sub(batch[i], 3, 1, A + i, B + i);
        host_reset(batch[i]);
    }
    host_unload();
}

/* Data in pieces that cut elements, and at an odd address. */
static void test_pieces(void)
{
    static char odd[1 + sizeof A];
    struct tis_request r, *batch[] = { &r };

    load("add_sub", ADD_SUB);
    memcpy(odd + 1, A, sizeof A);
    add_sub_request(&r, 2, 8, (const float *)(const void *)A, B);
    r.inputs[0].pieces[0].data = odd + 1;
    r.inputs[1].piece_count = 3;
    r.inputs[1].pieces[0].byte_size = 5;
    r.inputs[1].pieces[1].byte_size = 0;
    r.inputs[1].pieces[2].data = (const char *)B + 5;
    r.inputs[1].pieces[2].byte_size = sizeof B - 5;
    host_execute(batch, 1);
    check_add_sub(&r, 2, 8, A, B);
    host_reset(&r);
    host_unload();
}

/* One good request among all kinds of broken ones. */
static void test_broken(void)
{
    struct tis_request requests[8], *batch[8];
    const char *words[8] = { NULL,
                             "input 'INPUT1'",
                             "input 'INPUT0' has 4 bytes, expected 8",
                             "input 'INPUT1' has type INT32, expected FP32",
                             "input 'INPUT1' has a batch of 2, expected 1",
                             "shape [1,-5] is not possible",
                             "output 'OUTPUT9' is not in the model",
                             "input 'INPUT0' is in GPU memory" };

    load("add_sub", ADD_SUB);
    for (int i = 0; i < 8; i++) {
        batch[i] = &requests[i];
        add_sub_request(batch[i], 1, 2, A, B);
    }
    requests[1].inputs[1].name = NULL;
    requests[2].inputs[0].pieces[0].byte_size = 4;
    requests[3].inputs[1].datatype = TRITONSERVER_TYPE_INT32;
    requests[4].inputs[1].shape[0] = 2;
    requests[4].inputs[1].pieces[0].byte_size = 16;
    requests[5].inputs[0].shape[1] = -5;
    requests[6].outputs[1] = NULL;
    requests[6].outputs[0] = "OUTPUT9";
    requests[7].inputs[0].memory_type = TRITONSERVER_MEMORY_GPU;
    host_execute(batch, 8);
    check_add_sub(batch[0], 1, 2, A, B);
    for (int i = 0; i < 8; i++) {
        if (words[i] && !strstr(requests[i].error, words[i])) {
            fprintf(stderr, "request %d: '%s' lacks '%s'\n", i, requests[i].error, words[i]);
            exit(1);
        }
        host_reset(batch[i]);
    }
    host_unload();
}

/* The memory for one request's outputs cannot be had: the others do not notice. */
static void test_refused_outputs(void)
{
    struct tis_request requests[3], *batch[3];

    load("add_sub", ADD_SUB);
    for (int i = 0; i < 3; i++) {
        batch[i] = &requests[i];
        add_sub_request(batch[i], 1, 2, A + i, B + i);
    }
    requests[1].refuse_outputs = true;
    host_execute(batch, 3);
    CHECK(host.execution_count == 1);
    CHECK(strstr(requests[1].error, "outputs refused"));
    check_add_sub(batch[0], 1, 2, A, B);
    check_add_sub(batch[2], 1, 2, A + 2, B + 2);
    for (int i = 0; i < 3; i++)
        host_reset(batch[i]);
    host_unload();
}

/* A request that makes the engine fail, in the middle of a batch of good ones. */
static void test_failing_run(void)
{
    static const int64_t good[] = { 2, 3 }, bad[] = { 2, 99 };
    struct tis_request requests[4], *batch[4];

    load("lookup", "{\"max_batch_size\":8,\"input\":[" TENSOR(
                       "INPUT0", "TYPE_INT64",
                       "[2]") "],\"output\":[" TENSOR("OUTPUT0", "TYPE_INT64", "[2]") "]}");
    for (int i = 0; i < 4; i++) {
        batch[i] = &requests[i];
        requests[i] = (struct tis_request){
            .inputs = { { .name = "INPUT0",
                          .datatype = TRITONSERVER_TYPE_INT64,
                          .shape = { 1, 2 },
                          .dims_count = 2,
                          .piece_count = 1,
                          .pieces = { { i == 2 ? bad : good, sizeof good } } } },
            .outputs = { "OUTPUT0" }
        };
    }
    host_execute(batch, 4);
    for (int i = 0; i < 4; i++) {
        const int64_t *values = requests[i].results[0].data;

        if (i == 2)
            CHECK(strstr(requests[i].error, "model 'm': onnxruntime:"));
        else
            CHECK(!requests[i].error[0] && values[0] == 4 && values[1] == 9);
        host_reset(batch[i]);
    }
    host_unload();
}

/* Strings with a NUL, none, and broken lengths, each in a request of one batch. */
static void test_strings(void)
{
    static const char two[] = "\3\0\0\0a\0b\0\0\0\0", three[] = "\0\0\0\0\0\0\0\0\0\0\0\0",
                      broken[] = "\4\0\0\0abcd\377\377\377\377";
    const struct {
        const char *data;
        size_t byte_size;
        const char *error;
    } CASES[] = {
        { two, sizeof two - 1, NULL },
        { three, sizeof three - 1, "holds 3 BYTES elements, the shape 2" },
        { broken, sizeof broken - 1, "BYTES element 1 at byte 8 goes past the end" },
        { two, sizeof two - 1, NULL },
    };
    struct tis_request requests[4], *batch[4];

    load("strings", "{\"max_batch_size\":8,\"input\":[" TENSOR(
                        "INPUT0", "TYPE_STRING",
                        "[2]") "],\"output\":[" TENSOR("OUTPUT0", "TYPE_STRING", "[2]") "]}");
    for (int i = 0; i < 4; i++) {
        batch[i] = &requests[i];
        requests[i] = (struct tis_request){
            .inputs = { { .name = "INPUT0",
                          .datatype = TRITONSERVER_TYPE_BYTES,
                          .shape = { 1, 2 },
                          .dims_count = 2,
                          .piece_count = 1,
                          .pieces = { { CASES[i].data, CASES[i].byte_size } } } },
            .outputs = { "OUTPUT0" }
        };
    }
    host_execute(batch, 4);
    for (int i = 0; i < 4; i++) {
        if (CASES[i].error)
            CHECK(strstr(requests[i].error, CASES[i].error));
        else
            CHECK(requests[i].results[0].byte_size == CASES[i].byte_size &&
                  memcmp(requests[i].results[0].data, CASES[i].data, CASES[i].byte_size) == 0);
        host_reset(batch[i]);
    }
    host_unload();
}

#define MADE(kind)                                          \
    "{\"kind\":\"BATCH_" kind "\",\"target_name\":[\"" kind \
    "\"],\"data_type\":\"TYPE_INT32\",\"source_input\":[\"INPUT0\"]}"

/* The model of onnx_models.ragged(); dims are those of OUTPUT0 behind the batch. */
#define RAGGED(dims)                                                                                                                                                                 \
    "{\"max_batch_size\":8,\"input\":[{\"name\":\"INPUT0\",\"data_type\":\"TYPE_FP32\","                                                                                             \
    "\"dims\":[-1],\"allow_ragged_batch\":true}," TENSOR(                                                                                                                            \
        "SIZE", "TYPE_FP32",                                                                                                                                                         \
        "[1]") "],"                                                                                                                                                                  \
               "\"output\":[" TENSOR("OUTPUT0", "TYPE_FP32", dims) "," TENSOR(                                                                                                       \
                   "SEEN_ELEMENT_COUNT", "TYPE_FP32",                                                                                                                                \
                   "[-1]") "],"                                                                                                                                                      \
                           "\"batch_input\":[" MADE("ELEMENT_COUNT") "," MADE("ACCUMULATED_ELEMENT_COUNT") "," MADE("ACCUMULATED_ELEMENT_COUNT_WITH_ZERO") "," MADE(                 \
                               "MAX_ELEMENT_COUNT_AS_SHAPE") "," MADE("ITEM_SHAPE") "," MADE("ITEM_SHAPE_FLATTEN") "],"                                                              \
                                                                                                                   "\"batch_output\":[{\"kind\":\"BATCH_SCATTER_WITH_INPUT_SHAPE\"," \
                                                                                                                   "\"target_name\":[\"OUTPUT0\"],\"source_input\":[\"INPUT0\"]}]}"

static void ragged_request(struct tis_request *r, int64_t rows, int64_t columns)
{
    *r = (struct tis_request){
        .inputs = { { .name = "INPUT0",
                      .datatype = TRITONSERVER_TYPE_FP32,
                      .shape = { rows, columns },
                      .dims_count = 2,
                      .piece_count = 1,
                      .pieces = { { A, (uint64_t)(rows * columns) * sizeof *A } } },
                    { .name = "SIZE",
                      .datatype = TRITONSERVER_TYPE_FP32,
                      .shape = { rows, 1 },
                      .dims_count = 2,
                      .piece_count = 1,
                      .pieces = { { B, (uint64_t)rows * sizeof *B } } } },
        .outputs = { "OUTPUT0", "SEEN_ELEMENT_COUNT" },
    };
}

/* Checks the double of a request's own elements, and what the model knew of the batch. */
static void check_ragged(const struct tis_request *r, const float *counts, int64_t count)
{
    const int64_t rows = r->inputs[0].shape[0], columns = r->inputs[0].shape[1];
    const float *doubled = r->results[0].data, *seen = r->results[1].data;

    CHECK(!r->error[0] && r->result_count == 2);
    CHECK(r->results[0].dims_count == 2 && r->results[0].shape[0] == rows &&
          r->results[0].shape[1] == columns);
    for (int64_t i = 0; i < rows * columns; i++)
        CHECK(doubled[i] == A[i] * 2);
    CHECK(r->results[1].shape[0] == rows && r->results[1].shape[1] == count);
    for (int64_t i = 0; i < rows * count; i++)
        CHECK(seen[i] == counts[i % count]);
}

/* Requests of unlike shapes in one run, one of them empty, one in pieces, and two of them broken,
 * which the model never hears of. */
static void test_ragged(void)
{
    static const int64_t SHAPES[][2] = {
        { 1, 2 }, { 2, 3 }, { 1, 4 }, { 1, 0 }, { 1, 5 }, { 1, 9 }
    };
    static const float COUNTS[] = { 2, 6, 0, 9 };
    struct tis_request requests[6], *batch[6];

    load("ragged", RAGGED("[-1]"));
    for (int round = 0; round < 3; round++) { /* the last batch's memory does not show */
        for (int i = 0; i < 6; i++) {
            batch[i] = &requests[i];
            ragged_request(batch[i], SHAPES[i][0], SHAPES[i][1]);
        }
        requests[2].inputs[0].pieces[0].byte_size = 4;
        requests[4].inputs[0].name = "OTHER";
        requests[5].inputs[0].piece_count = 2;
        requests[5].inputs[0].pieces[0].byte_size = 7;
        requests[5].inputs[0].pieces[1].data = (const char *)A + 7;
        requests[5].inputs[0].pieces[1].byte_size = 9 * sizeof *A - 7;
        host_execute(batch, 6);
        CHECK(host.execution_count == 1 && host.executed_batch_size == 5);
        CHECK(strstr(requests[2].error, "4 bytes, expected 16"));
        CHECK(strstr(requests[4].error, "input 'INPUT0'"));
        for (int i = 0; i < 6; i++) {
            if (i != 2 && i != 4)
                check_ragged(batch[i], COUNTS, 4);
            host_reset(batch[i]);
        }
    }
    host_unload();
}

/* A configuration that promises an output of 3 elements a row: right for one request, wrong for
 * the other, which fails alone. */
static void test_batch_output_of_another_size(void)
{
    static const float COUNT[] = { 3 };
    struct tis_request requests[2], *batch[] = { &requests[0], &requests[1] };

    load("ragged", RAGGED("[3]"));
    ragged_request(batch[0], 1, 3);
    ragged_request(batch[1], 1, 4);
    host_execute(batch, 2);
    check_ragged(batch[0], COUNT, 1);
    CHECK(strstr(requests[1].error, "output 'OUTPUT0' came with shape [4], expected 3 elements, as "
                                    "its batch_output says"));
    host_reset(batch[0]);
    host_reset(batch[1]);
    host_unload();
}

#define PARAMETER(key, value) "\"" key "\":{\"string_value\":\"" value "\"}"

#define MASKED(parameters)                                          \
    "{\"max_batch_size\":8,\"parameters\":{" parameters             \
    "},\"input\":[" TENSOR("IDS", "TYPE_INT64", "[-1]") "," TENSOR( \
        "MASK", "TYPE_FP32",                                        \
        "[-1]") "],\"output\":[" TENSOR("OUTPUT0", "TYPE_FP32",     \
                                        "[-1]") "," TENSOR("WHOLE", "TYPE_FP32", "[-1]") "]}"

static const int64_t IDS[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };

static void masked_request(struct tis_request *r, int64_t rows, int64_t ids, int64_t mask)
{
    *r = (struct tis_request){
        .inputs = { { .name = "IDS",
                      .datatype = TRITONSERVER_TYPE_INT64,
                      .shape = { rows, ids },
                      .dims_count = 2,
                      .piece_count = 1,
                      .pieces = { { IDS, (uint64_t)(rows * ids) * sizeof *IDS } } },
                    { .name = "MASK",
                      .datatype = TRITONSERVER_TYPE_FP32,
                      .shape = { rows, mask },
                      .dims_count = 2,
                      .piece_count = 1,
                      .pieces = { { B, (uint64_t)(rows * mask) * sizeof *B } } } },
        .outputs = { "OUTPUT0", "WHOLE" },
    };
}

/* Requests of unlike lengths in one run. OUTPUT0, of the inputs' length, is cut back; WHOLE is not,
 * and shows the padding of IDS. One request's inputs do not belong together: it fails alone. */
static void test_padded(void)
{
    static const int64_t SHAPES[][2] = { { 1, 3 }, { 2, 5 }, { 1, 4 }, { 1, 1 } };
    struct tis_request requests[4], *batch[4];

    load("masked", MASKED(PARAMETER("pad_batch.IDS", "-7") "," PARAMETER("pad_batch", "0")));
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++) {
            batch[i] = &requests[i];
            masked_request(batch[i], SHAPES[i][0], SHAPES[i][1], SHAPES[i][1] - (i == 2));
        }
        requests[1].inputs[0].piece_count = 2;
        requests[1].inputs[0].pieces[0].byte_size = 11;
        requests[1].inputs[0].pieces[1].data = (const char *)IDS + 11;
        requests[1].inputs[0].pieces[1].byte_size = 10 * sizeof *IDS - 11;
        host_execute(batch, 4);
        CHECK(host.execution_count == 1 && host.executed_batch_size == 4);
        CHECK(strstr(requests[2].error, "input 'MASK' has size 3 in dimension 1, expected 4 as "
                                        "input 'IDS' in dimension 1"));
        for (int i = 0; i < 4; i++) {
            const int64_t rows = SHAPES[i][0], length = SHAPES[i][1];
            const float *product = requests[i].results[0].data,
                        *whole = requests[i].results[1].data;

            if (i == 2) {
                host_reset(batch[i]);
                continue;
            }
            CHECK(!requests[i].error[0]);
            CHECK(requests[i].results[0].shape[0] == rows &&
                  requests[i].results[0].shape[1] == length);
            CHECK(requests[i].results[1].shape[0] == rows && requests[i].results[1].shape[1] == 5);
            for (int64_t k = 0; k < rows * length; k++)
                CHECK(product[k] == (float)IDS[k] * B[k]);
            for (int64_t k = 0; k < rows * 5; k++)
                CHECK(whole[k] == (k % 5 < length ? (float)IDS[k / 5 * length + k % 5] : -7.0f));
            host_reset(batch[i]);
        }
    }
    host_unload();
}

/* The server hears which inputs it may batch whatever their shapes. */
static void test_server_is_told_of_padding(void)
{
    static const struct {
        const char *config;
        bool ids, mask;
    } CASES[] = {
        { MASKED(PARAMETER("pad_batch", "0")), true, true },
        { MASKED(PARAMETER("pad_batch.MASK", "0")), false, true },
        { MASKED(PARAMETER("pad_batches", "0")), false, false },
    };

    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        yyjson_doc *doc;
        yyjson_val *inputs;

        load("masked", CASES[i].config);
        CHECK(!host.completed_config == (!CASES[i].ids && !CASES[i].mask));
        if (host.completed_config) {
            doc = yyjson_read(host.completed_config, strlen(host.completed_config), 0);
            inputs = yyjson_obj_get(yyjson_doc_get_root(doc), "input");
            CHECK(yyjson_arr_size(inputs) == 2);
            for (size_t k = 0; k < 2; k++)
                CHECK(yyjson_get_bool(
                          yyjson_obj_get(yyjson_arr_get(inputs, k), "allow_ragged_batch")) ==
                      (k == 0 ? CASES[i].ids : CASES[i].mask));
            yyjson_doc_free(doc);
        }
        host_unload();
    }
}

/* Two dimensions of any size. Inputs that would grow too much by padding run apart. */
static void test_padding_has_a_limit(void)
{
    static const struct {
        int64_t heights[2], widths[2];
        uint32_t execution_count;
    } CASES[] = {
        { { 2, 3 }, { 5, 1 }, 1 },
        { { 600, 1 }, { 1, 600 }, 2 },
        { { 0, 1 }, { 7, 0 }, 1 },
        { { 2, 2 }, { 3, 3 }, 1 },
    };
    static float numbers[600];
    struct tis_request requests[2], *batch[] = { &requests[0], &requests[1] };

    for (int i = 0; i < 600; i++)
        numbers[i] = (float)i;
    load("double",
         "{\"max_batch_size\":8,\"parameters\":{" PARAMETER(
             "pad_batch",
             "0.5") "},"
                    "\"input\":[" TENSOR("INPUT0", "TYPE_FP32",
                                         "[-1,-1]") "],"
                                                    "\"output\":[" TENSOR("OUTPUT0", "TYPE_FP32",
                                                                          "[-1,-1]") "]}");
    for (size_t c = 0; c < sizeof CASES / sizeof *CASES; c++) {
        for (int i = 0; i < 2; i++) {
            const int64_t height = CASES[c].heights[i], width = CASES[c].widths[i];

            requests[i] = (struct tis_request){
                .inputs = { { .name = "INPUT0",
                              .datatype = TRITONSERVER_TYPE_FP32,
                              .shape = { 1, height, width },
                              .dims_count = 3,
                              .piece_count = 1,
                              .pieces = { { numbers,
                                            (uint64_t)(height * width) * sizeof *numbers } } } },
                .outputs = { "OUTPUT0" },
            };
        }
        host_execute(batch, 2);
        CHECK(host.execution_count == CASES[c].execution_count && host.executed_batch_size == 2);
        for (int i = 0; i < 2; i++) {
            const struct tis_output *out = &requests[i].results[0];
            const float *doubled = out->data;

            CHECK(!requests[i].error[0] && out->dims_count == 3 && out->shape[0] == 1);
            CHECK(out->shape[1] == CASES[c].heights[i] && out->shape[2] == CASES[c].widths[i]);
            for (int64_t k = 0; k < out->shape[1] * out->shape[2]; k++)
                CHECK(doubled[k] == numbers[k] * 2);
            host_reset(batch[i]);
        }
    }
    host_unload();
}

/* Parameters that cannot be meant. */
static void test_padding_parameters(void)
{
    static const struct {
        const char *parameters, *words;
    } CASES[] = {
        { PARAMETER("pad_batch", "1.5"), "'1.5' is no padding for input 'IDS' of type INT64" },
        { PARAMETER("pad_batch", ""), "'' is no padding" },
        { PARAMETER("pad_batch.MASK", "none"), "parameter 'pad_batch.MASK': 'none' is no padding" },
        { PARAMETER("pad_batch.OTHER", "0"), "there is no input 'OTHER' that can be padded" },
        { PARAMETER("pad_batch.", "0"), "there is no input '' that can be padded" },
    };
    static char directory[4096], config[4096];
    char reason[4096];

    snprintf(directory, sizeof directory, "%s/masked", models);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        snprintf(config, sizeof config, MASKED("%s"), CASES[i].parameters);
        host = (struct host){ .config = config, .directory = directory, .settings = settings };
        CHECK(!host_load(reason));
        if (!strstr(reason, CASES[i].words)) {
            fprintf(stderr, "'%s' lacks '%s'\n", reason, CASES[i].words);
            exit(1);
        }
        host_unload();
    }
}

/* A derived configuration: nothing but the model file. */
static void test_derived(void)
{
    static char directory[4096];
    struct tis_request r, *batch[] = { &r };
    char reason[4096];

    snprintf(directory, sizeof directory, "%s/add_sub", models);
    host = (struct host){ .config = "{\"max_batch_size\":0,\"input\":[],\"output\":[]}",
                          .directory = directory,
                          .settings = settings,
                          .auto_complete = true };
    CHECK(host_load(reason));
    add_sub_request(&r, 4, 2, A, B);
    host_execute(batch, 1);
    check_add_sub(&r, 4, 2, A, B);
    host_reset(&r);
    host_unload();
}

/* A model that does not load leaves nothing behind, and a later one loads. */
static void test_failing_load(void)
{
    static char directory[4096];
    char reason[4096];

    snprintf(directory, sizeof directory, "%s/missing", models);
    host = (struct host){ .config = ADD_SUB, .directory = directory, .settings = settings };
    CHECK(!host_load(reason) && strstr(reason, "there is no file"));
    host_unload();
    test_shapes();
}

/* ---- Which instances share a session ---- */

static int sessions_alive, sessions_made;

static TRITONSERVER_Error *make_session(const struct model *model, OrtSession **ret_handle)
{
    (void)model;
    sessions_alive++;
    sessions_made++;
    *ret_handle = malloc(1);
    return NULL;
}

static void end_session(OrtSession *handle)
{
    sessions_alive--;
    free(handle);
}

/* A thread that takes a session, bound to a processor (-1 = not bound) and at a priority. */
struct taker {
    struct sessions *sessions;
    int processor, nice;
    OrtSession *handle;
};

static void *take(void *argument)
{
    struct taker *taker = argument;
    cpu_set_t set;

    CPU_ZERO(&set);
    if (taker->processor >= 0) {
        CPU_SET((unsigned)taker->processor, &set);
        CHECK(sched_setaffinity(0, sizeof set, &set) == 0);
    }
    CHECK(taker->nice == 0 || setpriority(PRIO_PROCESS, 0, taker->nice) == 0);
    CHECK(!session_take(taker->sessions, &taker->handle));
    return NULL;
}

static OrtSession *take_on(struct sessions *sessions, int processor, int nice)
{
    struct taker taker = { sessions, processor, nice, NULL };
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, take, &taker) == 0 && pthread_join(thread, NULL) == 0);
    return taker.handle;
}

static int first_processor(void)
{
    cpu_set_t set;
    int i = 0;

    CHECK(sched_getaffinity(0, sizeof set, &set) == 0);
    while (!CPU_ISSET((unsigned)i, &set))
        i++;
    return i;
}

/* One session for all that run alike, one for each that has threads or other processors. */
static void test_sessions(void)
{
    struct engine engine = { .api.ReleaseSession = end_session };
    struct model model = { .engine = &engine };
    const int processor = first_processor();
    struct sessions *sessions;
    OrtSession *first, *a, *b, *c;
    cpu_set_t all;
    bool can_bind = !sched_getaffinity(0, sizeof all, &all) && CPU_COUNT(&all) > 1;

    CHECK(!sessions_create(&model, make_session, false, &sessions));
    CHECK(!sessions_first(sessions, &first));
    a = take_on(sessions, -1, 0);
    b = take_on(sessions, -1, 5); /* it has no thread that could be of the wrong priority */
    CHECK(a == first && b == first && sessions_made == 1);
    if (can_bind) {
        c = take_on(sessions, processor, 0);
        CHECK(c != first && take_on(sessions, processor, 0) == c && sessions_alive == 2);
        session_release(sessions, c);
        session_release(sessions, c);
        CHECK(sessions_alive == 1);
    }
    session_release(sessions, a);
    session_release(sessions, b);
    CHECK(sessions_alive == 1 && take_on(sessions, -1, 0) == first); /* kept for the next */
    session_release(sessions, first);
    sessions_destroy(sessions);
    CHECK(sessions_alive == 0);

    sessions_made = 0;
    CHECK(!sessions_create(&model, make_session, true, &sessions));
    CHECK(!sessions_first(sessions, &first));
    a = take_on(sessions, -1, 0);
    b = take_on(sessions, -1, 0);
    CHECK(a == first && b != first && sessions_made == 2);
    session_release(sessions, a);
    CHECK(sessions_alive == 1);
    session_release(sessions, b);
    c = take_on(sessions, -1, 5); /* the threads of the idle one have another priority */
    CHECK(sessions_made == 3 && sessions_alive == 1);
    session_release(sessions, c);
    sessions_destroy(sessions);
    CHECK(sessions_alive == 0);
}

static uint64_t cpu_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Prints what one execution of one small request costs, the engine's run included. */
static void measure(unsigned long count)
{
    struct tis_request r, *batch[] = { &r };
    uint64_t start_ns;

    load("add_sub", ADD_SUB);
    add_sub_request(&r, 1, 16, A, B);
    start_ns = cpu_ns();
    for (unsigned long i = 0; i < count; i++) {
        host_execute(batch, 1);
        host_reset(&r);
    }
    printf("%.2f us of CPU per execution\n", (double)(cpu_ns() - start_ns) / (double)count / 1e3);
    host_unload();
}

int main(int argc, char **argv)
{
    static char text[4096];

    if (argc < 3) {
        fprintf(stderr, "usage: %s MODELS ORT_LIBRARY [COUNT]\n", argv[0]);
        return 2;
    }
    models = argv[1];
    snprintf(text, sizeof text, "{\"cmdline\":{\"library\":\"%s\"}}", argv[2]);
    settings = text;
    if (argc > 3) {
        measure(strtoul(argv[3], NULL, 10));
        return 0;
    }
    test_shapes();
    test_too_many();
    test_pieces();
    test_broken();
    test_refused_outputs();
    test_failing_run();
    test_strings();
    test_ragged();
    test_batch_output_of_another_size();
    test_padded();
    test_server_is_told_of_padding();
    test_padding_has_a_limit();
    test_padding_parameters();
    test_derived();
    test_failing_load();
    test_sessions();
    puts("ok");
    return 0;
}
