/* Transports over a socket pair, with the loop driven by the test. The peer of a TLS transport is
 * OpenSSL's client on a socket that does not block; certificates are made by the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/transport.h"
#include "unit/net/certificates.h"

#define HANDSHAKE_NS_MAX (50 * NS_PER_MS)

enum {
    ROUNDS_MAX = 100000,
    BIG_BYTES = 3 << 20,
    PATH_BYTES = 96
};

/* ---- certificates ---- */

struct files {
    char folder[32];
    char certificate[PATH_BYTES];
    char key[PATH_BYTES];
    char root[PATH_BYTES];
    char other_key[PATH_BYTES];
    char text[PATH_BYTES];
    char empty[PATH_BYTES];
    char locked_key[PATH_BYTES];
    struct pair ca, server, client, stranger; /* the last one has signed itself */
};

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static const struct {
    const char *name;
    size_t offset;
} places[] = {
    { "certificate", offsetof(struct files, certificate) },
    { "key", offsetof(struct files, key) },
    { "root", offsetof(struct files, root) },
    { "other_key", offsetof(struct files, other_key) },
    { "text", offsetof(struct files, text) },
    { "empty", offsetof(struct files, empty) },
    { "locked_key", offsetof(struct files, locked_key) },
};

static int set_up(void **state)
{
    struct files *f = calloc(1, sizeof(*f));
    char folder[] = "/tmp/tis_tls_XXXXXX";
    if (!mkdtemp(folder))
        return -1;
    memcpy(f->folder, folder, sizeof(folder));
    for (size_t i = 0; i < ARRAY_LEN(places); i++)
        snprintf((char *)f + places[i].offset, PATH_BYTES, "%s/%s", folder, places[i].name);
    f->ca = make_pair("ca", NULL, 1);
    f->server = make_pair("server", &f->ca, 2);
    f->client = make_pair("client", &f->ca, 3);
    f->stranger = make_pair("stranger", NULL, 4);
    write_certificate(f->certificate, &f->server);
    write_key(f->key, &f->server, NULL);
    write_certificate(f->root, &f->ca);
    write_key(f->other_key, &f->client, NULL);
    write_key(f->locked_key, &f->server, "secret");
    write_text(f->text, "not a certificate\n");
    write_text(f->empty, "");
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct files *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(places); i++)
        unlink((char *)f + places[i].offset);
    rmdir(f->folder);
    free_pair(&f->ca);
    free_pair(&f->server);
    free_pair(&f->client);
    free_pair(&f->stranger);
    free(f);
    return 0;
}

static struct tls_options options_of(const struct files *f)
{
    return (struct tls_options){
        .certificate = { f->certificate, "--cert" },
        .key = { f->key, "--key" },
        .root = { f->root, "--root" },
        .protocols = "\x08http/1.1\x02h2",
        .handshake_ns_max = HANDSHAKE_NS_MAX * 200,
    };
}

/* ---- a transport that receives everything, and a peer ---- */

struct fixture {
    struct loop *loop;
    struct tls *tls;
    struct transport transport;
    int fd; /* the peer's */
    SSL_CTX *context;
    SSL *ssl;

    size_t room; /* of one recv */
    bool is_paused;
    bool has_ended;  /* recv gave 0 */
    bool is_hung_up; /* LOOP_HANGUP */
    int error;       /* recv gave -1 */
    unsigned calls;  /* of ready */
    char *got;
    size_t got_len;
    const char *out;
    size_t out_len; /* still to be sent */
    struct iovec parts[5];
};

static void want(struct fixture *f)
{
    bool is_over = f->has_ended || f->error;
    transport_want(&f->transport, (f->is_paused || is_over ? 0u : (unsigned)LOOP_READ) |
                                      (f->out_len ? (unsigned)LOOP_WRITE : 0u));
}

static void receive(struct fixture *f)
{
    ssize_t n = transport_recv(&f->transport, f->got + f->got_len, f->room);
    if (n > 0)
        f->got_len += (size_t)n;
    else if (n == 0)
        f->has_ended = true;
    else if (errno != EAGAIN)
        f->error = errno;
}

/* In parts of odd sizes, some of them empty. */
static void send_rest(struct fixture *f)
{
    while (f->out_len) {
        size_t sizes[] = { 5, 0, 40000, 1, f->out_len };
        size_t count = 0, left = f->out_len;
        const char *at = f->out;
        for (size_t i = 0; i < ARRAY_LEN(sizes) && left; i++) {
            size_t len = sizes[i] < left ? sizes[i] : left;
            f->parts[count++] = (struct iovec){ .iov_base = (void *)(uintptr_t)at, .iov_len = len };
            at += len;
            left -= len;
        }
        ssize_t n = transport_send(&f->transport, f->parts, count);
        if (n < 0) {
            assert_int_equal(errno, EAGAIN);
            return;
        }
        f->out += n;
        f->out_len -= (size_t)n;
    }
}

static void ready(struct transport *t, unsigned events)
{
    struct fixture *f = CONTAINER_OF(t, struct fixture, transport);
    f->calls++;
    if (events & LOOP_HANGUP) {
        f->is_hung_up = true;
        transport_close(t);
        return;
    }
    if ((events & LOOP_READ) && !f->is_paused)
        receive(f);
    if (f->out_len)
        send_rest(f);
    want(f);
}

static struct fixture *connect_plain(void)
{
    struct fixture *f = calloc(1, sizeof(*f));
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    assert_null(loop_create("test", &f->loop));
    f->fd = fds[1];
    f->room = 64 << 10;
    f->got = malloc(BIG_BYTES + f->room);
    transport_init(&f->transport, f->loop, fds[0], ready);
    return f;
}

/* With a client that has `pair`, or none. Takes tls. */
static struct fixture *connect_to(struct tls *tls, const struct pair *pair)
{
    struct fixture *f = connect_plain();
    f->tls = tls;
    assert_null(transport_start(&f->transport, f->tls, LOOP_READ));
    f->context = SSL_CTX_new(TLS_client_method());
    if (pair) {
        SSL_CTX_use_certificate(f->context, pair->certificate);
        SSL_CTX_use_PrivateKey(f->context, pair->key);
    }
    f->ssl = SSL_new(f->context);
    SSL_set_fd(f->ssl, f->fd);
    SSL_set_connect_state(f->ssl);
    SSL_set_mode(f->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return f;
}

static struct fixture *connect_tls(const struct tls_options *options, const struct pair *pair)
{
    struct tls *tls = NULL;
    assert_null(tls_create(options, &tls));
    return connect_to(tls, pair);
}

static void disconnect(struct fixture *f)
{
    transport_close(&f->transport);
    SSL_free(f->ssl);
    SSL_CTX_free(f->context);
    close(f->fd);
    tls_destroy(f->tls);
    loop_destroy(f->loop);
    free(f->got);
    free(f);
}

static void run(struct fixture *f)
{
    loop_run_once(f->loop, 0);
}

/* The client's handshake; what it came to. */
static int shake(struct fixture *f)
{
    for (int i = 0; i < ROUNDS_MAX; i++) {
        int rc = SSL_do_handshake(f->ssl);
        int error = SSL_get_error(f->ssl, rc);
        if (rc == 1 || error != SSL_ERROR_WANT_READ)
            return rc;
        run(f);
    }
    fail_msg("the handshake does not end");
    return -1;
}

static void client_send(struct fixture *f, const char *data, size_t len)
{
    size_t n;
    for (int i = 0; i < ROUNDS_MAX && len; i++) {
        if (SSL_write_ex(f->ssl, data, len, &n) == 1) {
            data += n;
            len -= n;
        } else {
            assert_true(SSL_want_write(f->ssl));
        }
        run(f);
    }
    assert_int_equal(len, 0);
}

static void wait_got(struct fixture *f, size_t len)
{
    for (int i = 0; i < ROUNDS_MAX && f->got_len < len; i++)
        run(f);
    assert_int_equal(f->got_len, len);
}

static char *make_bytes(size_t len)
{
    char *bytes = malloc(len);
    uint32_t x = 1;
    for (size_t i = 0; i < len; i++) {
        x = x * 1664525u + 1013904223u;
        bytes[i] = (char)(x >> 24);
    }
    return bytes;
}

/* ---- tests ---- */

/* Bytes, several parts, half-close, pause: what connections rely on, without TLS. */
static void test_plain(void **state)
{
    (void)state;
    struct fixture *f = connect_plain();
    assert_null(transport_start(&f->transport, NULL, LOOP_READ));
    assert_false(transport_is_handshaking(&f->transport));
    assert_int_equal(send(f->fd, "hello", 5, 0), 5);
    wait_got(f, 5);

    f->is_paused = true;
    want(f);
    assert_int_equal(send(f->fd, "world", 5, 0), 5);
    run(f);
    assert_int_equal(f->got_len, 5);
    f->is_paused = false;
    want(f);
    wait_got(f, 10);
    assert_memory_equal(f->got, "helloworld", 10);

    char head[4], rest[8];
    struct iovec parts[] = { { head, 4 }, { rest, 8 } };
    assert_int_equal(send(f->fd, "abcdefg", 7, 0), 7);
    assert_int_equal(transport_recv_parts(&f->transport, parts, 2), 7);
    assert_memory_equal(head, "abcd", 4);
    assert_memory_equal(rest, "efg", 3);

    assert_true(transport_end_sending(&f->transport));
    assert_int_equal(recv(f->fd, head, 4, 0), 0);
    assert_int_equal(send(f->fd, "more", 4, 0), 4);
    wait_got(f, 14);
    transport_close(&f->transport);
    transport_close(&f->transport);
    disconnect(f);
}

/* 3 MiB each way, in records that fill the socket again and again. */
static void test_big(void **state)
{
    struct tls_options options = options_of(*state);
    struct fixture *f = connect_tls(&options, NULL);
    char *bytes = make_bytes(BIG_BYTES), *back = malloc(BIG_BYTES);
    assert_true(transport_is_handshaking(&f->transport));
    assert_int_equal(shake(f), 1);
    assert_string_equal(SSL_get_version(f->ssl), "TLSv1.3");
    client_send(f, bytes, BIG_BYTES);
    assert_false(transport_is_handshaking(&f->transport));
    wait_got(f, BIG_BYTES);
    assert_memory_equal(f->got, bytes, BIG_BYTES);

    f->out = bytes;
    f->out_len = BIG_BYTES;
    want(f);
    size_t n, len = 0;
    for (int i = 0; i < ROUNDS_MAX && len < BIG_BYTES; i++) {
        run(f);
        while (SSL_read_ex(f->ssl, back + len, BIG_BYTES - len, &n) == 1 && n > 0)
            len += n;
    }
    assert_int_equal(len, BIG_BYTES);
    assert_memory_equal(back, bytes, BIG_BYTES);
    free(bytes);
    free(back);
    disconnect(f);
}

/* What OpenSSL has decrypted, and the socket so does not tell of, comes by itself: to a reader with
 * little room, after a pause, and after the connection has changed hands. */
static void test_pending(void **state)
{
    struct tls_options options = options_of(*state);
    struct fixture *f = connect_tls(&options, NULL);
    char *bytes = make_bytes(40000);
    assert_int_equal(shake(f), 1);
    f->room = 100;
    client_send(f, bytes, 10000);
    wait_got(f, 10000);
    unsigned calls = f->calls;
    run(f);
    run(f);
    assert_int_equal(f->calls, calls); /* nobody is told of nothing */

    size_t n;
    assert_int_equal(SSL_write_ex(f->ssl, bytes + 10000, 10000, &n), 1);
    run(f); /* 100 bytes of it */
    f->is_paused = true;
    want(f);
    for (int i = 0; i < 5; i++)
        run(f);
    assert_int_equal(f->got_len, 10100);
    f->is_paused = false;
    want(f);
    wait_got(f, 20000);

    assert_int_equal(SSL_write_ex(f->ssl, bytes + 20000, 10000, &n), 1);
    run(f);
    struct transport elsewhere;
    transport_init(&elsewhere, f->loop, -1, ready);
    assert_null(transport_move(&elsewhere, &f->transport, 0));
    assert_false(transport_is_open(&f->transport));
    run(f);
    assert_null(transport_move(&f->transport, &elsewhere, LOOP_READ));
    wait_got(f, 30000);
    assert_memory_equal(f->got, bytes, 30000);
    free(bytes);
    disconnect(f);
}

/* The handshake may end inside a send, which so reads what the client has sent behind it: the server's
 * first bytes meet the client's. */
static void test_pending_after_send(void **state)
{
    const struct tls_options options = options_of(*state);
    struct fixture *f = connect_tls(&options, NULL);
    char greeting[] = "hello";
    struct iovec part = { greeting, 5 };
    size_t n;
    assert_int_equal(shake(f), 1);
    assert_int_equal(SSL_write_ex(f->ssl, "world", 5, &n), 1);
    assert_true(transport_is_handshaking(&f->transport));
    assert_int_equal(transport_send(&f->transport, &part, 1), 5);
    assert_false(transport_is_handshaking(&f->transport));
    want(f);
    wait_got(f, 5);
    assert_memory_equal(f->got, "world", 5);
    disconnect(f);
}

/* The peer's goodbye, and a stream that ends without one, are the end; we can still write. */
static void test_half_close(void **state)
{
    struct tls_options options = options_of(*state);
    for (int is_polite = 0; is_polite < 2; is_polite++) {
        struct fixture *f = connect_tls(&options, NULL);
        char got[8];
        size_t n;
        assert_int_equal(shake(f), 1);
        client_send(f, "question", 8);
        if (is_polite)
            SSL_shutdown(f->ssl);
        else
            shutdown(f->fd, SHUT_WR);
        for (int i = 0; i < ROUNDS_MAX && !f->has_ended && !f->error; i++)
            run(f);
        assert_true(f->has_ended);
        assert_int_equal(f->got_len, 8);

        struct iovec part = { .iov_base = got, .iov_len = 6 };
        memcpy(got, "answer", 6);
        assert_int_equal(transport_send(&f->transport, &part, 1), 6);
        assert_true(transport_end_sending(&f->transport));
        assert_int_equal(SSL_read_ex(f->ssl, got, sizeof(got), &n), 1);
        assert_int_equal(n, 6);
        assert_int_equal(SSL_read_ex(f->ssl, got, sizeof(got), &n), 0);
        assert_int_equal(SSL_get_error(f->ssl, 0), SSL_ERROR_ZERO_RETURN);
        disconnect(f);
    }
}

/* Garbage ends the connection with an error; a peer that sends nothing, or half a handshake, is hung
 * up on when the time is over. */
static void test_bad_handshake(void **state)
{
    struct tls_options options = options_of(*state);
    struct fixture *f = connect_tls(&options, NULL);
    static const char plain[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_int_equal(send(f->fd, plain, sizeof(plain) - 1, 0), sizeof(plain) - 1);
    for (int i = 0; i < ROUNDS_MAX && !f->error; i++)
        run(f);
    assert_int_equal(f->error, ECONNABORTED);
    disconnect(f);

    options.handshake_ns_max = HANDSHAKE_NS_MAX;
    for (int i = 0; i < 2; i++) {
        f = connect_tls(&options, NULL);
        if (i == 1)
            assert_int_equal(send(f->fd, "\x16\x03\x01\x02", 4, 0), 4);
        uint64_t start = clock_ns();
        while (!f->is_hung_up && clock_ns() < start + 10 * NS_PER_SEC)
            loop_run_once(f->loop, 10 * NS_PER_MS);
        assert_true(f->is_hung_up);
        disconnect(f);
    }
}

/* Only those whom root has signed come in. With TLS 1.3 a client learns it with its first read. */
static void test_mutual(void **state)
{
    struct files *files = *state;
    struct tls_options options = options_of(files);
    options.is_mutual = true;
    const struct {
        const struct pair *pair;
        bool is_welcome;
    } cases[] = { { &files->client, true }, { &files->stranger, false }, { NULL, false } };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture *f = connect_tls(&options, cases[i].pair);
        shake(f);
        for (int k = 0; k < 10; k++)
            run(f);
        assert_int_equal(!f->error, cases[i].is_welcome);
        assert_int_equal(!transport_is_handshaking(&f->transport), cases[i].is_welcome);
        disconnect(f);
    }
}

/* Our preference counts; without a common protocol there is no connection; without ALPN there is. */
static void test_protocols(void **state)
{
    struct tls_options options = options_of(*state);
    static const struct {
        const char *offered;
        const char *chosen; /* NULL: none */
    } cases[] = {
        { "\x02h2\x08http/1.1", "http/1.1" },
        { "\x02h2", "h2" },
        { "\x02h3", NULL },
        { "", "" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture *f = connect_tls(&options, NULL);
        const unsigned char *name = NULL;
        unsigned len = 0;
        SSL_set_alpn_protos(f->ssl, (const unsigned char *)cases[i].offered,
                            (unsigned)strlen(cases[i].offered));
        assert_int_equal(shake(f), cases[i].chosen ? 1 : -1);
        SSL_get0_alpn_selected(f->ssl, &name, &len);
        if (cases[i].chosen) {
            assert_int_equal(len, strlen(cases[i].chosen));
            assert_memory_equal(name ? name : (const unsigned char *)"", cases[i].chosen, len);
        }
        disconnect(f);
    }
}

/* TLS 1.2 works, what is older does not. */
static void test_versions(void **state)
{
    struct tls_options options = options_of(*state);
    for (int version = TLS1_1_VERSION; version <= TLS1_2_VERSION; version++) {
        struct fixture *f = connect_tls(&options, NULL);
        SSL_set_security_level(f->ssl, 0);
        SSL_set_min_proto_version(f->ssl, version);
        SSL_set_max_proto_version(f->ssl, version);
        int rc = shake(f);
        assert_int_equal(rc == 1, version == TLS1_2_VERSION);
        if (rc == 1) {
            client_send(f, "hello", 5);
            wait_got(f, 5);
        }
        disconnect(f);
    }
}

/* ---- files ---- */

/* What is wrong is named: flag, file, reason. */
static void test_wrong_files(void **state)
{
    struct files *f = *state;
    const struct {
        const char *certificate, *key, *root;
        const char *flag, *path, *text;
    } cases[] = {
        { "/no/such", f->key, f->root, "--cert", "/no/such", "No such file" },
        { f->folder, f->key, f->root, "--cert", f->folder, "Is a directory" },
        { f->text, f->key, f->root, "--cert", f->text,
          "found no such block; expected a certificate in PEM form" },
        { f->empty, f->key, f->root, "--cert", f->empty, "the file is empty" },
        { f->key, f->key, f->root, "--cert", f->key, "expected a certificate" },
        { f->certificate, "/no/such", f->root, "--key", "/no/such", "No such file" },
        { f->certificate, f->text, f->root, "--key", f->text,
          "found no such block; expected a private key in PEM form" },
        { f->certificate, f->other_key, f->root, "--key", f->other_key,
          "the key is not that of the certificate in" },
        { f->certificate, f->locked_key, f->root, "--key", f->locked_key, "passphrase" },
        { f->certificate, f->key, f->text, "--root", f->text, "expected certificates in PEM form" },
        { f->certificate, f->key, "/no/such", "--root", "/no/such", "No such file" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct tls_options options = {
            .certificate = { cases[i].certificate, "--cert" },
            .key = { cases[i].key, "--key" },
            .root = { cases[i].root, "--root" },
            .is_mutual = true,
            .protocols = "\x02h2",
        };
        struct tls *tls = NULL;
        char start[2 * PATH_BYTES];
        tis_error *err = tls_create(&options, &tls);
        if (!err)
            fail_msg("case %zu is accepted", i);
        snprintf(start, sizeof(start), "%s=%s: ", cases[i].flag, cases[i].path);
        if (error_code(err) != TRITONSERVER_ERROR_INVALID_ARG ||
            strncmp(error_text(err), start, strlen(start)) != 0 ||
            !strstr(error_text(err), cases[i].text))
            fail_msg("case %zu: '%s' is not '%s...%s'", i, error_text(err), start, cases[i].text);
        error_free(err);
    }
}

static long serial_of(struct fixture *f)
{
    X509 *c = SSL_get1_peer_certificate(f->ssl);
    long serial = ASN1_INTEGER_get(X509_get0_serialNumber(c));
    X509_free(c);
    return serial;
}

/* A reload is for new connections; one that fails changes nothing. */
static void test_reload(void **state)
{
    struct files *files = *state;
    struct tls_options options = options_of(files);
    struct fixture *f = connect_tls(&options, NULL);
    assert_int_equal(shake(f), 1);
    assert_int_equal(serial_of(f), 2);

    write_text(files->certificate, "half a certifi");
    tis_error *err = tls_reload(f->tls);
    assert_non_null(err);
    error_free(err);
    write_certificate(files->certificate, &files->client);
    write_key(files->key, &files->client, NULL);
    assert_null(tls_reload(f->tls));
    client_send(f, "still here", 10);
    wait_got(f, 10);

    char text[200];
    tls_describe(f->tls, text, sizeof(text));
    assert_non_null(strstr(text, "subject=\"CN=client\" expires=2"));
    tls_describe(f->tls, text, 20);
    assert_int_equal(strlen(text), 19);

    struct fixture *g = connect_to(f->tls, NULL);
    f->tls = NULL; /* g's now; connections may outlive it */
    assert_int_equal(shake(g), 1);
    assert_int_equal(serial_of(g), 3);
    disconnect(g);
    client_send(f, "and here", 8);
    wait_got(f, 18);
    disconnect(f);
    write_certificate(files->certificate, &files->server);
    write_key(files->key, &files->server, NULL);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* of the client's sockets */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),      cmocka_unit_test(test_big),
        cmocka_unit_test(test_pending),    cmocka_unit_test(test_pending_after_send),
        cmocka_unit_test(test_half_close), cmocka_unit_test(test_bad_handshake),
        cmocka_unit_test(test_mutual),     cmocka_unit_test(test_protocols),
        cmocka_unit_test(test_versions),   cmocka_unit_test(test_wrong_files),
        cmocka_unit_test(test_reload),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
