/* The infer header: which texts of NV-InferRequest are which dialect, what is read from them, and
 * what is refused, by a table. Each header that is read is written down again on one line. The same
 * headers in the wire form, of gRPC, read alike. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api/v1/infer_header.h"
#include "base/attr.h"
#include "base/bytes.h"
#include "proto/message.h"
#include "proto/text.h"
#include "v0/api.pb-c.h"
#include "v1/api.pb-c.h"

enum {
    ARENA_BYTES_MAX = 1 << 20
};

struct header_case {
    const char *text;
    const char *expected; /* as written by describe(), or "! " and the error */
};

#define UNREADABLE "! unable to parse request for model 'm'"

static const struct header_case cases[] = {
    /* 1.x */
    { "batch_size: 2 input { name: \"INPUT0\" dims: 4 } input { name: \"INPUT1\" dims: 4 } output { "
      "name: \"OUTPUT0\" } output { name: \"OUTPUT1\" cls { count: 2 } }",
      "1.x batch=2 | INPUT0 [4] 0 0 | INPUT1 [4] 0 0 | OUTPUT0 0 | OUTPUT1 0 classes=2" },
    { "id: 18446744073709551615 flags: 3 correlation_id: 42 batch_size: 1",
      "1.x batch=1 id=18446744073709551615 flags=3 correlation=42" },
    { "batch_size: 1 priority: 2 timeout_microseconds: 18446744073709551615", /* from 1.12 on */
      "1.x batch=1 priority=2 timeout=18446744073709551615" },
    { "input{name:'a' dims:[-1,2] dims:3 batch_byte_size:24}", "1.x batch=0 | a [-1,2,3] 0 24" },
    { "batch_size:1 input{name:'a'}output{name:'b'}", "1.x batch=1 | a 0 0 | b 0" },
    { "input { } output { cls { } }", "1.x batch=0 |  0 0 |  0 classes=0" },
    { "", "1.x batch=0" },
    { "  # nothing\n", "1.x batch=0" },
    /* 0.9: one byte_size, of an input or of an output, makes the dialect */
    { "batch_size: 8 input { name: \"a\" byte_size: 64 } output { name: \"b\" byte_size: 4 cls { "
      "count: 3 } }",
      "0.9 batch=8 | a 64 0 | b 4 classes=3" },
    { "input { name: \"a\" } output { name: \"b\" byte_size: 18446744073709551615 }",
      "0.9 batch=0 | a 0 0 | b 18446744073709551615" },
    { "input { byte_size: 0 }", "0.9 batch=0 |  0 0" },
    /* neither */
    { "input { byte_size: 4 dims: 4 }", UNREADABLE },
    { "input { byte_size: 4 } id: 1", UNREADABLE },
    { "batch_size: -1", UNREADABLE },
    { "batch_size: 4294967296", UNREADABLE },
    { "batch_size: 1 batch_size: 2", UNREADABLE },
    { "batch_size: 1 input {", UNREADABLE },
    { "inputs { }", UNREADABLE },
    { "input { name: \"a\\000b\" }", UNREADABLE },
    { "input { name: \"\\377\" }", UNREADABLE },
    { "\xff", UNREADABLE },
    /* A byte_size of shared memory does not make a 0.9 client. */
    { "batch_size: 1 input { name: \"a\" shared_memory { name: \"s\" byte_size: 4 } }",
      "! input 'a': shared memory is not supported by this server" },
    { "batch_size: 1 output { name: \"b\" shared_memory { name: \"s\" byte_size: 4 } }",
      "! output 'b': shared memory is not supported by this server" },
};

static void describe(struct bytes *out, const struct v1_infer_header *h)
{
    bytes_printf(out, "%s batch=%" PRIu32, h->is_v0 ? "0.9" : "1.x", h->batch_size);
    if (h->id)
        bytes_printf(out, " id=%" PRIu64, h->id);
    if (h->flags)
        bytes_printf(out, " flags=%" PRIu32, h->flags);
    if (h->correlation_id)
        bytes_printf(out, " correlation=%" PRIu64, h->correlation_id);
    if (h->priority)
        bytes_printf(out, " priority=%" PRIu64, h->priority);
    if (h->timeout_us)
        bytes_printf(out, " timeout=%" PRIu64, h->timeout_us);
    for (uint32_t i = 0; i < h->input_count; i++) {
        const struct v1_input *in = &h->inputs[i];
        assert_true(in->has_dims == (in->rank > 0));
        bytes_printf(out, " | %s ", in->name);
        for (uint32_t k = 0; k < in->rank; k++)
            bytes_printf(out, "%s%" PRId64 "%s", k ? "," : "[", in->dims[k],
                         k + 1 == in->rank ? "] " : "");
        bytes_printf(out, "%" PRIu64 " %" PRIu64, in->byte_size, in->batch_byte_size);
    }
    for (uint32_t i = 0; i < h->output_count; i++) {
        bytes_printf(out, " | %s %" PRIu64, h->outputs[i].name, h->outputs[i].byte_size);
        if (h->outputs[i].wants_classes)
            bytes_printf(out, " classes=%" PRIu32, h->outputs[i].class_count);
    }
}

/* Reads by `read` from a copy without a terminator: one byte read too many is seen by ASan. */
static void check(tis_error *(*read)(const char *, size_t, const char *, struct arena *,
                                     struct v1_infer_header *),
                  const char *data, size_t len, const char *expected)
{
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    if (len > 0)
        memcpy(copy, data, len);
    struct arena arena;
    struct v1_infer_header header;
    struct bytes got = { 0 };
    arena_init(&arena, NULL, 0, ARENA_BYTES_MAX);
    tis_error *err = read(copy, len, "m", &arena, &header);
    free(copy); /* nothing points into it */
    if (err)
        bytes_printf(&got, "! %s", error_text(err));
    else
        describe(&got, &header);
    assert_string_equal(bytes_str(&got), expected);
    error_free(err);
    bytes_fini(&got);
    arena_fini(&arena);
}

static void test_texts(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        check(v1_infer_header_parse, cases[i].text, strlen(cases[i].text), cases[i].expected);
}

/* The text as the wire form of its dialect; false when it is of neither. */
static bool pack(const char *text, struct bytes *out)
{
    static const ProtobufCMessageDescriptor *const dialects[] = {
        &nvidia__inferenceserver__infer_request_header__descriptor,
        &nvidia__inferenceserver__v0__infer_request_header__descriptor,
    };
    struct arena arena;
    bool is_packed = false;
    arena_init(&arena, NULL, 0, ARENA_BYTES_MAX);
    for (size_t i = 0; i < ARRAY_LEN(dialects) && !is_packed; i++) {
        ProtobufCMessage *m;
        tis_error *err = text_parse(dialects[i], text, strlen(text), NULL, &arena, &m);
        is_packed = !err;
        if (!err)
            message_append(out, m);
        error_free(err);
    }
    arena_fini(&arena);
    return is_packed;
}

static void test_wire(void **state)
{
    (void)state;
    size_t count = 0;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct bytes wire = { 0 };
        /* A size of 0 is a text of 0.9; on the wire it is not there. */
        if (!strstr(cases[i].text, "byte_size: 0") && pack(cases[i].text, &wire)) {
            check(v1_infer_header_read, wire.data, wire.len, cases[i].expected);
            count++;
        }
        bytes_fini(&wire);
    }
    assert_true(count >= 10);
}

#define BROKEN "! failed to parse the request message"

/* What no writer of these messages writes. */
static void test_wire_oddities(void **state)
{
    static const struct {
        const char *data;
        size_t len;
        const char *expected;
    } odd[] = {
#define ODD(data, expected) { data, sizeof(data) - 1, expected }
        ODD("\x08\x01\x08\x02", "1.x batch=2"), /* the last one counts */
        ODD("\x78\x01\x08\x02", "1.x batch=2"), /* an unknown field */
        ODD("\x12\x06\x12\x01\x03\x12\x01\x04", "1.x batch=0 |  [3,4] 0 0"),
        ODD("\x12\x02\x12\x00", "1.x batch=0 |  0 0"),
        ODD("\x1a\x04\x1a\x00\x10\x05", "0.9 batch=0 |  5 classes=0"),
        ODD("\x28\x07\x12\x02\x10\x05", "0.9 batch=0 |  5 0"),   /* no id there */
        ODD("\x12\x02\x10\x05\x12\x03\x12\x01\x05", UNREADABLE), /* both dialects */
        ODD("\x12\x05\x10\x05\x12\x01\x05", UNREADABLE),
        ODD("\x12\x03\x0a\x01\x00", "! the name of an input holds a NUL character"),
        ODD("\x1a\x03\x0a\x01\xff", "! the name of an output is not valid UTF-8"),
        ODD("\x12\x02\x0a", BROKEN),
        ODD("\x12\x03\x12\x01\x80", BROKEN), /* half a dimension */
        ODD("\x12\x01\x0a", BROKEN),
        ODD("\x12\x02\x08\x01", BROKEN), /* a name that is a number */
        ODD("\x12\x02\x1a\x00", BROKEN), /* a batch_byte_size that is bytes */
        ODD("\x1a\x02\x18\x01", BROKEN), /* a cls that is a number */
        ODD("\x1a\x04\x1a\x02\x0a\x00", BROKEN),
        ODD("\x10\x01", BROKEN),
        ODD("\x0a\x00", BROKEN),
        ODD("\x2a\x00", BROKEN),
        ODD("\x0b", BROKEN),
        ODD("\xff", BROKEN),
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(odd); i++)
        check(v1_infer_header_read, odd[i].data, odd[i].len, odd[i].expected);
}

/* The codes: an unreadable header is the client's, no room is ours. */
static void test_codes(void **state)
{
    (void)state;
    struct arena arena;
    struct v1_infer_header header = { .id = 7 };
    arena_init(&arena, NULL, 0, ARENA_BYTES_MAX);
    tis_error *err = v1_infer_header_parse("x", 1, "m", &arena, &header);
    assert_int_equal(error_code(err), TRITONSERVER_ERROR_INVALID_ARG);
    error_free(err);

    static const char shared[] = "input { shared_memory { } }";
    err = v1_infer_header_parse(shared, sizeof(shared) - 1, "m", &arena, &header);
    assert_int_equal(error_code(err), TRITONSERVER_ERROR_UNSUPPORTED);
    error_free(err);
    arena_fini(&arena);

    static const char good[] = "batch_size: 1 input { name: \"a\" dims: 1 }";
    arena_init(&arena, NULL, 0, 0);
    err = v1_infer_header_parse(good, sizeof(good) - 1, "m", &arena, &header);
    assert_int_equal(error_code(err), TRITONSERVER_ERROR_UNAVAILABLE);
    error_free(err);
    arena_fini(&arena);
    assert_int_equal(header.id, 7); /* written only on success */
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_wire),
        cmocka_unit_test(test_wire_oddities),
        cmocka_unit_test(test_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
