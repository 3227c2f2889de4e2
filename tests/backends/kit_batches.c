/* kit/batch with batches that no well-behaved server forms, in the backend of
 * docs/writing-a-backend.md. test_batches.py builds this with the sanitizers and
 * runs it. */
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

int main(void)
{
    test_rows();
    test_broken();
    test_nobody();
    test_unwanted();
    puts("ok");
    return 0;
}
