/* Requests against configurations, by a table: each gives its inputs as text and the sentence of the
 * refusal, or none. And what validation completes: names, outputs, batch size, reshapes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "infer/datatype.h"
#include "infer/reason.h"
#include "infer/shape.h"
#include "model/validate.h"

static void on_complete(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    (void)sink, (void)response, (void)flags;
}

static void on_done(struct sink *sink, struct tis_request *request)
{
    (void)sink, (void)request;
}

static const struct sink_ops ops = { .complete = on_complete, .done = on_done };

#define PLAIN                                                            \
    "max_batch_size: 0 "                                                 \
    "input { name: 'a' data_type: TYPE_INT32 dims: [ -1, 2 ] } "         \
    "input { name: 's' data_type: TYPE_STRING dims: 2 optional: true } " \
    "output { name: 'x' data_type: TYPE_INT32 dims: 2 } "                \
    "output { name: 'y' data_type: TYPE_INT32 dims: 2 }"
#define BATCH                                                    \
    "max_batch_size: 4 "                                         \
    "input { name: 'a' data_type: TYPE_INT32 dims: [ -1, 2 ] } " \
    "input { name: 'b' data_type: TYPE_UINT8 dims: 3 } "         \
    "output { name: 'x' data_type: TYPE_INT32 dims: 2 }"

static struct model_config *configure(const char *text)
{
    struct config_builder *b = NULL;
    struct model_config *c = NULL;
    const struct config_context context = { .directory_name = "m" };
    struct bytes full = { 0 };
    bytes_printf(&full, "name: 'm' backend: 'identity' %s", text);
    tis_error *err = config_parse_text(full.data, full.len, "config.pbtxt", &b);
    if (!err)
        err = config_normalize(b, &context);
    if (!err)
        err = config_validate(b, &context);
    if (err)
        print_error("%s\n", error_text(err));
    assert_null(err);
    assert_null(config_finish(&b, &c));
    bytes_fini(&full);
    return c;
}

struct input {
    const char *name;
    TRITONSERVER_DataType type;
    uint32_t rank;
    int64_t shape[4];
    const char *data; /* NULL: zeros */
    size_t bytes;
};

static struct tis_request *request_of(const struct input *inputs, uint32_t count)
{
    static const char zeros[4096];
    struct tis_request *req = request_create(&ops, NULL);
    assert_null(request_reserve_inputs(req, count));
    for (uint32_t i = 0; i < count; i++) {
        const struct input *in = &inputs[i];
        struct tis_input *made = request_add_input(req, in->name, in->type, in->shape, in->rank);
        if (in->bytes > 0)
            assert_null(request_add_chunk(req, made, in->data ? in->data : zeros, in->bytes,
                                          TRITONSERVER_MEMORY_CPU, 0, NULL));
    }
    return req;
}

#define I32 TRITONSERVER_TYPE_INT32
#define U8 TRITONSERVER_TYPE_UINT8
#define STR TRITONSERVER_TYPE_BYTES

static const struct {
    const char *config;
    struct input inputs[3];
    uint32_t count;
    enum reason reason; /* REASON_NONE: accepted */
    const char *text;   /* in the error */
} checks[] = {
    { PLAIN, { { "a", I32, 2, { 3, 2 }, NULL, 24 } }, 1, REASON_NONE, "" },
    { PLAIN, { { "a", I32, 2, { 0, 2 }, NULL, 0 } }, 1, REASON_NONE, "" },
    { PLAIN,
      { { "a", I32, 2, { 1, 2 }, NULL, 8 }, { "s", STR, 1, { 2 }, "\1\0\0\0x\0\0\0\0", 9 } },
      2,
      REASON_NONE,
      "" },
    { BATCH,
      { { "a", I32, 3, { 4, 1, 2 }, NULL, 32 }, { "b", U8, 2, { 4, 3 }, NULL, 12 } },
      2,
      REASON_NONE,
      "" },
    /* names */
    { PLAIN, { { "q", I32, 2, { 1, 2 }, NULL, 8 } }, 1, REASON_INPUT_UNKNOWN, "'q'" },
    { PLAIN, { { "", I32, 2, { 1, 2 }, NULL, 8 } }, 1, REASON_INPUT_UNKNOWN, "''" },
    { PLAIN,
      { { "a", I32, 2, { 1, 2 }, NULL, 8 }, { "a", I32, 2, { 1, 2 }, NULL, 8 } },
      2,
      REASON_INPUT_TWICE,
      "'a' already" },
    { PLAIN,
      { { 0 } },
      0,
      REASON_INPUT_COUNT,
      "expected 1 inputs but got 0 inputs for model 'm'. Got input(s) [], but missing required "
      "input(s) ['a']" },
    { BATCH,
      { { "b", U8, 2, { 1, 3 }, NULL, 3 } },
      1,
      REASON_INPUT_COUNT,
      "Got input(s) ['b'], but missing required input(s) ['a']" },
    /* types */
    { PLAIN,
      { { "a", U8, 2, { 1, 2 }, NULL, 2 } },
      1,
      REASON_INPUT_TYPE,
      "'a' data-type is 'UINT8', but model 'm' expects 'INT32'" },
    { PLAIN,
      { { "a", (TRITONSERVER_DataType)99, 2, { 1, 2 }, NULL, 2 } },
      1,
      REASON_INPUT_TYPE,
      "'<invalid>'" },
    /* shapes */
    { PLAIN,
      { { "a", I32, 2, { 1, 3 }, NULL, 12 } },
      1,
      REASON_INPUT_SHAPE,
      "Expected [-1,2], got [1,3]" },
    { PLAIN, { { "a", I32, 1, { 2 }, NULL, 8 } }, 1, REASON_INPUT_SHAPE, "got [2]" },
    { PLAIN, { { "a", I32, 0, { 0 }, NULL, 4 } }, 1, REASON_INPUT_SHAPE, "got []" },
    { PLAIN, { { "a", I32, 2, { -1, 2 }, NULL, 8 } }, 1, REASON_INPUT_DIMS, "[-1,2]" },
    { PLAIN, { { "a", I32, 2, { INT64_MIN, 2 }, NULL, 8 } }, 1, REASON_INPUT_DIMS, "[-9" },
    { PLAIN, { { "a", I32, 2, { INT64_MAX, 2 }, NULL, 8 } }, 1, REASON_INPUT_DIMS, "[9" },
    { PLAIN, { { "a", I32, 2, { INT64_MAX / 8, 2 }, NULL, 8 } }, 1, REASON_INPUT_BYTES, "" },
    /* sizes */
    { PLAIN,
      { { "a", I32, 2, { 2, 2 }, NULL, 15 } },
      1,
      REASON_INPUT_BYTES,
      "Expected 16, got 15" },
    { PLAIN,
      { { "a", I32, 2, { 2, 2 }, NULL, 17 } },
      1,
      REASON_INPUT_BYTES,
      "Expected 16, got 17" },
    { PLAIN, { { "a", I32, 2, { 0, 2 }, NULL, 1 } }, 1, REASON_INPUT_BYTES, "Expected 0" },
    /* batches */
    { BATCH,
      { { "a", I32, 3, { 5, 1, 2 }, NULL, 40 }, { "b", U8, 2, { 5, 3 }, NULL, 15 } },
      2,
      REASON_BATCH_TOO_LARGE,
      "must be <= 4 for 'm'" },
    { BATCH,
      { { "a", I32, 3, { 0, 1, 2 }, NULL, 0 }, { "b", U8, 2, { 0, 3 }, NULL, 0 } },
      2,
      REASON_BATCH_ZERO,
      "must be >= 1" },
    { BATCH,
      { { "a", I32, 3, { -1, 1, 2 }, NULL, 0 }, { "b", U8, 2, { -1, 3 }, NULL, 0 } },
      2,
      REASON_BATCH_ZERO,
      "" },
    { BATCH,
      { { "a", I32, 3, { 2, 1, 2 }, NULL, 16 }, { "b", U8, 2, { 3, 3 }, NULL, 9 } },
      2,
      REASON_BATCH_MISMATCH,
      "'b' batch size" },
    { BATCH,
      { { "a", I32, 3, { 1, 1, 2 }, NULL, 8 }, { "b", U8, 0, { 0 }, NULL, 3 } },
      2,
      REASON_BATCH_MISSING,
      "'b'" },
    { BATCH,
      { { "a", I32, 2, { 1, 2 }, NULL, 8 }, { "b", U8, 2, { 1, 3 }, NULL, 3 } },
      2,
      REASON_INPUT_SHAPE,
      "Expected [-1,-1,2], got [1,2]" },
    /* strings */
    { PLAIN,
      { { "a", I32, 2, { 1, 2 }, NULL, 8 }, { "s", STR, 1, { 2 }, "\1\0\0\0x", 5 } },
      2,
      REASON_STRING_COUNT,
      "expected 2 string elements" },
    { PLAIN,
      { { "a", I32, 2, { 1, 2 }, NULL, 8 }, { "s", STR, 1, { 2 }, NULL, 0 } },
      2,
      REASON_STRING_COUNT,
      "got 0" },
    { PLAIN,
      { { "a", I32, 2, { 1, 2 }, NULL, 8 },
        { "s", STR, 1, { 2 }, "\0\0\0\0\0\0\0\0\0\0\0\0", 12 } },
      2,
      REASON_STRING_COUNT,
      "got 3" },
    { PLAIN,
      { { "a", I32, 2, { 1, 2 }, NULL, 8 }, { "s", STR, 1, { 2 }, "\1\0\0", 3 } },
      2,
      REASON_STRING_LENGTH,
      "expecting 4 bytes but only 3" },
    { PLAIN,
      { { "a", I32, 2, { 1, 2 }, NULL, 8 }, { "s", STR, 1, { 2 }, "\377\377\377\377xy", 6 } },
      2,
      REASON_STRING_DATA,
      "length 4294967295 but only 2" },
};

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(checks); i++) {
        struct model_config *c = configure(checks[i].config);
        struct tis_request *req = request_of(checks[i].inputs, checks[i].count);
        tis_error *err = request_validate(req, c, "m");
        enum reason reason = err ? (enum reason)error_reason(err) : REASON_NONE;
        const char *text = err ? error_text(err) : "";
        if (reason != checks[i].reason || !strstr(text, checks[i].text))
            fail_msg("case %zu: reason %d, \"%s\"", i, (int)reason, text);
        error_free(err);
        request_free(&req);
        config_unref(c);
    }
}

/* Outputs that the client names are checked; without names all are wanted, in the model's order. */
static void test_outputs(void **state)
{
    (void)state;
    struct model_config *c = configure(PLAIN);
    static const struct input a = { "a", I32, 2, { 1, 2 }, NULL, 8 };
    struct tis_request *req = request_of(&a, 1);
    assert_null(request_validate(req, c, "m"));
    assert_int_equal(req->output_count, 2);
    assert_ptr_equal(req->outputs[0], c->outputs[0].name);
    assert_ptr_equal(req->outputs[1], c->outputs[1].name);
    assert_ptr_equal(req->inputs[0].name, c->inputs[0].name); /* outlives the client's text */
    assert_int_equal(req->batch_size, 1);
    request_free(&req);

    const char *wanted[] = { "y", "z" };
    req = request_of(&a, 1);
    req->outputs = wanted;
    req->output_count = 1;
    assert_null(request_validate(req, c, "m"));
    assert_ptr_equal(wanted[0], c->outputs[1].name);
    request_free(&req);

    req = request_of(&a, 1);
    req->outputs = wanted;
    req->output_count = 2;
    tis_error *err = request_validate(req, c, "m");
    assert_int_equal(error_reason(err), REASON_OUTPUT_UNKNOWN);
    assert_string_equal(error_arg(err, 1), "z");
    error_free(err);
    request_free(&req);
    config_unref(c);
}

/* The model sees the reshaped dims, the batch dimension stays in front. */
static void test_reshape(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        struct input input;
        const char *shape;
        uint32_t batch_size;
    } cases[] = {
        { "max_batch_size: 8 input { name: 'a' data_type: TYPE_INT32 dims: 1 reshape { shape: [ ] } } "
          "output { name: 'x' data_type: TYPE_INT32 dims: 1 }",
          { "a", I32, 2, { 3, 1 }, NULL, 12 },
          "[3]",
          3 },
        { "max_batch_size: 0 input { name: 'a' data_type: TYPE_INT32 dims: [ -1, 4 ] "
          "reshape { shape: [ -1, 2, 2 ] } } output { name: 'x' data_type: TYPE_INT32 dims: 1 }",
          { "a", I32, 2, { 5, 4 }, NULL, 80 },
          "[5,2,2]",
          1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct model_config *c = configure(cases[i].config);
        struct tis_request *req = request_of(&cases[i].input, 1);
        assert_null(request_validate(req, c, "m"));
        struct bytes text = { 0 };
        shape_append(&text, req->inputs[0].shape, req->inputs[0].rank);
        assert_string_equal(bytes_str(&text), cases[i].shape);
        assert_int_equal(req->batch_size, cases[i].batch_size);
        bytes_fini(&text);
        request_free(&req);
        config_unref(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_table),
                                        cmocka_unit_test(test_outputs),
                                        cmocka_unit_test(test_reshape) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
