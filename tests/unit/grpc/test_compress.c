/* Compressed messages: the formats by themselves, and through the server both ways, on the loop and on a
 * worker, in unary calls and in streams. */
#include "one_loop.h"

#include <zlib.h>

#include "base/pool.h"

/* zlib's own output; wbits: 15 zlib, 31 gzip, -15 raw. */
static struct bytes deflated(const void *data, size_t len, int wbits)
{
    struct bytes out = { 0 };
    z_stream z = { .next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)len };
    static uint8_t buf[65536];
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, wbits, 8, Z_DEFAULT_STRATEGY), Z_OK);
    int rc;
    do {
        z.next_out = buf;
        z.avail_out = sizeof(buf);
        rc = deflate(&z, Z_FINISH);
        bytes_append(&out, buf, sizeof(buf) - z.avail_out);
    } while (rc == Z_OK);
    deflateEnd(&z);
    return out;
}

static char *pattern(size_t len)
{
    char *data = malloc(len + 1);
    for (size_t i = 0; i < len; i++)
        data[i] = (char)("tensors of some kind"[i % 20] + i / 64 % 5 * (i % 3));
    return data;
}

static void test_names(void **state)
{
    (void)state;
    assert_int_equal(compress_format_of("gzip", 4), COMPRESS_GZIP);
    assert_int_equal(compress_format_of("deflate", 7), COMPRESS_DEFLATE);
    assert_int_equal(compress_format_of("identity", 8), COMPRESS_IDENTITY);
    assert_int_equal(compress_format_of("br", 2), COMPRESS_UNKNOWN);
    assert_int_equal(compress_format_of("", 0), COMPRESS_UNKNOWN);
    static const struct {
        const char *list;
        unsigned found;
    } lists[] = {
        { "identity, deflate, gzip", 7 },
        { "gzip", 4 },
        { "identity,gzip", 5 },
        { "br , deflate ,x", 2 },
        { "", 0 },
        { ",,", 0 },
        { "gzipx,deflat", 0 },
        { " identity ", 1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        assert_int_equal(compress_formats_in(lists[i].list, strlen(lists[i].list)), lists[i].found);
    assert_int_equal(compress_choose(COMPRESS_NONE, 7), COMPRESS_IDENTITY);
    assert_int_equal(compress_choose(COMPRESS_LOW, 7), COMPRESS_GZIP);
    assert_int_equal(compress_choose(COMPRESS_MEDIUM, 7), COMPRESS_DEFLATE);
    assert_int_equal(compress_choose(COMPRESS_HIGH, 5), COMPRESS_GZIP);
    assert_int_equal(compress_choose(COMPRESS_HIGH, 1), COMPRESS_IDENTITY);
}

/* What zlib makes is read, what we make zlib's rules allow: we read it too; and nothing else is. */
static void test_formats(void **state)
{
    static const size_t sizes[] = { 0, 1, 100, 70000, 3 << 20 };
    (void)state;
    for (int format = COMPRESS_DEFLATE; format <= COMPRESS_GZIP; format++) {
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
            char *data = pattern(sizes[i]);
            char *back = malloc(sizes[i] + 1);
            struct bytes z = deflated(data, sizes[i], format == COMPRESS_GZIP ? 31 : 15);
            size_t bytes = 0;
            assert_int_equal(compress_measure(format, z.data, z.len, sizes[i], &bytes),
                             COMPRESS_OK);
            assert_int_equal(bytes, sizes[i]);
            assert_int_equal(compress_inflate(format, z.data, z.len, back, bytes), COMPRESS_OK);
            assert_memory_equal(back, data, bytes);
            if (sizes[i] > 0)
                assert_int_equal(compress_measure(format, z.data, z.len, sizes[i] - 1, &bytes),
                                 COMPRESS_LARGE);
            /* Cut, longer, or damaged. */
            assert_true(compress_measure(format, z.data, z.len - 1, sizes[i], &bytes) ||
                        compress_inflate(format, z.data, z.len - 1, back, bytes));
            bytes_append_char(&z, 'x');
            assert_true(compress_measure(format, z.data, z.len, sizes[i], &bytes) ||
                        compress_inflate(format, z.data, z.len, back, bytes));
            z.data[z.len / 2] ^= 0x55;
            assert_true(compress_measure(format, z.data, z.len - 1, sizes[i], &bytes) ||
                        compress_inflate(format, z.data, z.len - 1, back, bytes));
            bytes_fini(&z);

            struct iovec parts[] = { { data, sizes[i] / 3 },
                                     { data + sizes[i] / 3, sizes[i] - sizes[i] / 3 } };
            void *out;
            size_t out_bytes;
            if (compress_deflate(format, COMPRESS_LOW, parts, 2, &out, &out_bytes) == COMPRESS_OK) {
                assert_true(out_bytes < sizes[i]);
                assert_int_equal(compress_measure(format, out, out_bytes, sizes[i], &bytes),
                                 COMPRESS_OK);
                assert_int_equal(compress_inflate(format, out, out_bytes, back, bytes),
                                 COMPRESS_OK);
                assert_memory_equal(back, data, sizes[i]);
                free(out);
            } else {
                assert_true(sizes[i] <= 100);
            }
            free(data);
            free(back);
        }
    }
}

/* gzip's length is a claim: without bytes that could hold so much it is not believed. */
static void test_claims(void **state)
{
    size_t bytes;
    (void)state;
    struct bytes z = deflated("abc", 3, 31);
    memset(z.data + z.len - 4, 0x7f, 4);
    assert_int_equal(compress_measure(COMPRESS_GZIP, z.data, z.len, INT32_MAX, &bytes),
                     COMPRESS_BAD);
    bytes_fini(&z);
    assert_int_equal(compress_measure(COMPRESS_GZIP, "short", 5, 100, &bytes), COMPRESS_BAD);
    assert_int_equal(compress_measure(COMPRESS_DEFLATE, "", 0, 100, &bytes), COMPRESS_BAD);
}

/* ---- Through the server ---- */

struct test {
    struct fixture fixture;
    struct client client;
    struct pool *workers;
};

static void open_test(struct test *t, bool has_workers)
{
    memset(t, 0, sizeof(*t));
    if (has_workers)
        assert_null(pool_create("test", 2, &t->workers));
    struct grpc_server_options options = { .workers = t->workers,
                                           .budget_wait_ns_max = 10 * NS_PER_SEC };
    fixture_open(&t->fixture, &options);
    t->fixture.workers = t->workers;
    t->fixture.budget.bytes_max = 64 << 20;
    client_open(&t->client, &t->fixture, false);
}

static void close_test(struct test *t)
{
    client_close(&t->client);
    fixture_close(&t->fixture);
}

static void add_zipped(struct call *call, const void *data, size_t len, int wbits)
{
    struct bytes z = deflated(data, len, wbits);
    call_add(call, 1, z.data, z.len);
    bytes_fini(&z);
}

/* Requests in either format, of all sizes; answers are plain, since the level is NONE. */
static void test_requests(void **state)
{
    static const size_t sizes[] = { 0, 1, 1000, 65536, 65537, 300000, 5 << 20 };
    (void)state;
    for (int round = 0; round < 4; round++) {
        struct test t;
        bool is_gzip = round & 1;
        open_test(&t, round & 2);
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
            char *data = pattern(sizes[i]);
            struct call call = { 0 };
            call_header(&call, "grpc-encoding", is_gzip ? "gzip" : "deflate");
            call_header(&call, "grpc-accept-encoding", "identity, deflate, gzip");
            add_zipped(&call, data, sizes[i], is_gzip ? 31 : 15);
            call_start(&t.client, &call, "/echo");
            WAIT_FOR(&t.client, call.is_closed);
            assert_string_equal(call.status, "0");
            assert_string_equal(call.encoding, "");
            assert_string_equal(call.accepted, "identity, deflate, gzip");
            assert_int_equal(call.in.len, 5 + sizes[i]);
            assert_int_equal(call.in.data[0], 0);
            assert_memory_equal(call.in.data + 5, data, sizes[i]);
            call_fini(&call);
            free(data);
        }
        close_test(&t);
    }
}

/* A stream of short and long, compressed and plain messages: they come back in order, compressed when
 * that pays. The end of the client's side comes with the last one. */
static void test_stream(void **state)
{
    (void)state;
    for (int round = 0; round < 4; round++) {
        struct test t;
        open_test(&t, round & 1);
        t.fixture.compression = round & 2 ? COMPRESS_HIGH : COMPRESS_NONE;
        struct call call = { 0 };
        struct bytes expected = { 0 };
        call_header(&call, "grpc-encoding", "gzip");
        call_header(&call, "grpc-accept-encoding", "gzip");
        for (size_t i = 0; i < 40; i++) {
            size_t len = i * i * 7919 % (i % 5 == 0 ? 400000 : 3000);
            char *data = pattern(len);
            if (len > 0)
                data[0] = (char)i;
            if (i % 3 == 0)
                call_add(&call, 0, data, len);
            else
                add_zipped(&call, data, len, 31);
            bytes_append(&expected, data, len);
            free(data);
        }
        call_start(&t.client, &call, "/stream");
        WAIT_FOR(&t.client, call.is_closed);
        assert_string_equal(call.status, "0");
        assert_string_equal(call.encoding, round & 2 ? "gzip" : "");
        size_t zipped = 0, at = 0;
        for (const uint8_t *p = (uint8_t *)call.in.data;
             p < (uint8_t *)call.in.data + call.in.len;) {
            size_t len = frame_prefix_bytes(p), bytes = len;
            char *message = NULL;
            if (p[0] == 1) {
                zipped++;
                assert_int_equal(compress_measure(COMPRESS_GZIP, p + 5, len, 1 << 20, &bytes), 0);
                message = malloc(bytes);
                assert_int_equal(compress_inflate(COMPRESS_GZIP, p + 5, len, message, bytes), 0);
            }
            assert_true(at + bytes <= expected.len);
            assert_memory_equal(expected.data + at, message ? message : (const char *)p + 5, bytes);
            free(message);
            at += bytes;
            p += 5 + len;
        }
        assert_int_equal(at, expected.len);
        assert_true(round & 2 ? zipped > 20 : zipped == 0);
        call_fini(&call);
        bytes_fini(&expected);
        close_test(&t);
    }
}

/* Unary answers; what does not shrink, and what the client does not take, goes as it is. */
static void test_answers(void **state)
{
    static const struct {
        const char *accepted;
        enum compress_level level;
        size_t len;
        const char *encoding;
        bool is_zipped;
    } cases[] = {
        { "gzip,deflate", COMPRESS_LOW, 100000, "gzip", true },
        { "gzip,deflate", COMPRESS_MEDIUM, 1000, "deflate", true },
        { "gzip,deflate", COMPRESS_HIGH, 2 << 20, "deflate", true },
        { "gzip", COMPRESS_HIGH, 1000, "gzip", true },
        { "gzip", COMPRESS_HIGH, 3, "gzip", false },
        { "gzip", COMPRESS_HIGH, 0, "gzip", false },
        { "br", COMPRESS_HIGH, 1000, "", false },
        { "gzip", COMPRESS_NONE, 1000, "", false },
    };
    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
        struct test t;
        size_t k = i / 2, bytes = cases[k].len;
        open_test(&t, i % 2);
        t.fixture.compression = cases[k].level;
        char *data = pattern(bytes);
        struct call call = { 0 };
        call_header(&call, "grpc-accept-encoding", cases[k].accepted);
        call_add(&call, 0, data, bytes);
        call_start(&t.client, &call, "/echo");
        WAIT_FOR(&t.client, call.is_closed);
        assert_string_equal(call.status, "0");
        assert_string_equal(call.encoding, cases[k].encoding);
        assert_int_equal(call.in.data[0], cases[k].is_zipped);
        if (cases[k].is_zipped) {
            char *back = malloc(bytes);
            enum compress_format format = compress_format_of(call.encoding, strlen(call.encoding));
            assert_true(call.in.len < bytes);
            assert_int_equal(
                compress_inflate(format, call.in.data + 5, call.in.len - 5, back, bytes),
                COMPRESS_OK);
            assert_memory_equal(back, data, bytes);
            free(back);
        } else {
            assert_memory_equal(call.in.data + 5, data, bytes);
        }
        call_fini(&call);
        free(data);
        close_test(&t);
    }
}

/* Wrong encodings, flags and data, and bombs; the connection serves on. */
static void test_errors(void **state)
{
    struct test t;
    char *zeros = calloc(9 << 20, 1);
    (void)state;
    struct bytes gzip_bomb = deflated(zeros, 9 << 20, 31), bomb = deflated(zeros, 9 << 20, 15);
    struct bytes hello = deflated("hello, hello, hello", 19, 31);
    struct bytes broken = deflated(zeros, 300000, 31);
    broken.data[broken.len / 2] ^= 0x11;
    const struct {
        const char *encoding; /* NULL: none */
        char flag;
        struct bytes data;
        const char *status;
        const char *text;
    } cases[] = {
        { "br", 1, hello, "12", "identity, deflate, gzip" },
        { "br", 0, hello, "12", "not supported" },
        { NULL, 1, hello, "13", "without grpc-encoding" },
        { "identity", 1, hello, "13", "without grpc-encoding" },
        { "gzip", 2, hello, "13", "Bad GRPC frame type 0x02" },
        { "deflate", 1, hello, "13", "Unexpected error decompressing data for algorithm deflate" },
        { "gzip", 1, bomb, "13", "algorithm gzip" },
        { "gzip", 1, broken, "13", "algorithm gzip" },
        { "gzip", 1, gzip_bomb, "8", "Use --flag" },
        { "deflate", 1, bomb, "8", "Use --flag" },
        { "gzip", 1, hello, "0", "" },
    };
    for (size_t i = 0; i < 2 * 2 * ARRAY_LEN(cases); i++) {
        size_t k = i / 4;
        if (i % (2 * ARRAY_LEN(cases)) == 0) {
            if (i > 0)
                close_test(&t);
            open_test(&t, i > 0);
        }
        struct call call = { 0 };
        if (cases[k].encoding)
            call_header(&call, "grpc-encoding", cases[k].encoding);
        call_add(&call, cases[k].flag, cases[k].data.data, cases[k].data.len);
        call_start(&t.client, &call, i % 2 ? "/stream" : "/echo");
        WAIT_FOR(&t.client, call.is_closed);
        assert_string_equal(call.status, cases[k].status);
        if (!strstr(call.text, cases[k].text))
            fail_msg("%zu: '%s'", k, call.text);
        call_fini(&call);
    }
    close_test(&t);
    free(zeros);
    bytes_fini(&gzip_bomb);
    bytes_fini(&bomb);
    bytes_fini(&hello);
    bytes_fini(&broken);
}

/* The client is gone, or has reset the call, while a worker has its message. */
static void test_gone(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        struct test t;
        open_test(&t, true);
        t.fixture.compression = COMPRESS_LOW;
        char *data = pattern(3 << 20);
        struct call call = { 0 };
        call_header(&call, "grpc-encoding", "deflate");
        call_header(&call, "grpc-accept-encoding", "deflate");
        add_zipped(&call, data, 3 << 20, 15);
        call_start(&t.client, &call, round & 1 ? "/stream" : "/echo");
        for (int i = 0; i < round / 2; i++)
            step(&t.client);
        if (round & 4) {
            nghttp2_submit_rst_stream(t.client.session, NGHTTP2_FLAG_NONE, call.id, NGHTTP2_CANCEL);
            client_send(&t.client);
        }
        close_test(&t);
        call_fini(&call);
        free(data);
    }
}

/* A long message that holds nothing keeps a worker busy, not the loop. */
static void test_empty_blocks(void **state)
{
    enum {
        BLOCKS = 800000
    };
    struct test t;
    struct bytes zipped = { 0 };
    struct call call = { 0 };
    (void)state;
    open_test(&t, true);
    bytes_append(&zipped, "\x1f\x8b\x08\0\0\0\0\0\0\xff", 10);
    for (int i = 0; i < BLOCKS; i++)
        bytes_append(&zipped, "\0\0\0\xff\xff", 5);
    bytes_append(&zipped, "\1\0\0\xff\xff\0\0\0\0\0\0\0\0", 13);
    call_header(&call, "grpc-encoding", "gzip");
    call_add(&call, 1, zipped.data, zipped.len);
    call_start(&t.client, &call, "/echo");
    WAIT_FOR(&t.client, !list_is_empty(&conn_of(&t.fixture)->streams));
    const struct stream *s = LIST_ENTRY(conn_of(&t.fixture)->streams.next, struct stream, in_conn);
    WAIT_FOR(&t.client, s->unzip.is_on_worker || call.is_closed);
    assert_false(call.is_closed);
    WAIT_FOR(&t.client, call.is_closed);
    assert_string_equal(call.status, "0");
    assert_int_equal(call.in.len, 5);
    bytes_fini(&zipped);
    call_fini(&call);
    close_test(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_claims),       cmocka_unit_test(test_requests),
        cmocka_unit_test(test_answers),      cmocka_unit_test(test_stream),
        cmocka_unit_test(test_errors),       cmocka_unit_test(test_gone),
        cmocka_unit_test(test_empty_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
