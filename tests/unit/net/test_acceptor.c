/* An acceptor with two loops in threads and a connection that sends back what it gets: several
 * listening sockets, balance, counting, drain and close. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/acceptor.h"
#include "unit/net/certificates.h"

#define DEADLINE_NS (10 * NS_PER_SEC)

enum {
    LOOPS = 2,
    CLIENTS = 16,
    TLS_CLIENTS = 4,
    TLS_CONNECTIONS = 12,
};

struct fixture {
    struct acceptor acceptor;
    struct acceptor_shard shards[LOOPS];
    struct loop *loops[LOOPS];
    _Atomic uint32_t opened;
    _Atomic uint32_t late; /* opened with a closed transport */
    _Atomic uint32_t drained;
    _Atomic uint32_t closed;
    _Atomic uint32_t ended_shards;
    _Atomic bool drain_ends; /* a drained connection ends at once */
};

static struct fixture *fixture_of(const struct acceptor_conn *c)
{
    return CONTAINER_OF(c->shard->acceptor, struct fixture, acceptor);
}

static void end(struct acceptor_conn *c)
{
    transport_close(&c->transport);
    acceptor_conn_ended(c);
    free(c);
}

static struct acceptor_conn *conn_create(struct acceptor_shard *s)
{
    (void)s;
    return calloc(1, sizeof(struct acceptor_conn));
}

static void conn_open(struct acceptor_conn *c)
{
    assert_true(loop_is_current(c->shard->loop));
    fixture_of(c)->opened++;
    if (transport_is_open(&c->transport))
        return;
    fixture_of(c)->late++;
    end(c);
}

static void conn_ready(struct transport *t, unsigned events)
{
    struct acceptor_conn *c = CONTAINER_OF(t, struct acceptor_conn, transport);
    char bytes[64];
    (void)events;
    ssize_t n = transport_recv(t, bytes, sizeof(bytes));
    struct iovec part = { .iov_base = bytes, .iov_len = n > 0 ? (size_t)n : 0 };
    if (n < 0 && errno == EAGAIN)
        transport_want(t, LOOP_READ);
    else if (n <= 0 || transport_send(t, &part, 1) != n)
        end(c);
}

static void conn_drain(struct acceptor_conn *c)
{
    struct fixture *f = fixture_of(c);
    f->drained++;
    if (f->drain_ends)
        end(c);
}

static void conn_close(struct acceptor_conn *c)
{
    fixture_of(c)->closed++;
    end(c);
}

static void shard_end(struct acceptor_shard *s)
{
    CONTAINER_OF(s->acceptor, struct fixture, acceptor)->ended_shards++;
}

static const struct acceptor_handler handler = {
    .name = "test",
    .create = conn_create,
    .open = conn_open,
    .ready = conn_ready,
    .drain = conn_drain,
    .close = conn_close,
    .end = shard_end,
};

static struct fixture *start_with(const struct acceptor_options *options)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_null(acceptor_init(&f->acceptor, options, &handler, LOOPS));
    for (uint32_t i = 0; i < LOOPS; i++) {
        assert_null(loop_create("test", &f->loops[i]));
        acceptor_add_shard(&f->acceptor, &f->shards[i], f->loops[i]);
        assert_null(loop_start(f->loops[i]));
    }
    acceptor_start(&f->acceptor);
    return f;
}

static struct fixture *start(const char *addresses, uint32_t connections_max)
{
    return start_with(&(struct acceptor_options){
        .address = addresses,
        .connections_max = connections_max,
    });
}

static void stop(struct fixture *f)
{
    acceptor_close(&f->acceptor);
    assert_int_equal(f->ended_shards, LOOPS);
    assert_int_equal(f->acceptor.conn_count, 0);
    for (uint32_t i = 0; i < LOOPS; i++) {
        assert_int_equal(f->shards[i].conn_count, 0);
        loop_stop(f->loops[i]);
        loop_destroy(f->loops[i]);
    }
    acceptor_fini(&f->acceptor);
    free(f);
}

static int dial_tcp(uint16_t port)
{
    struct sockaddr_in name = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    struct timeval limit = { .tv_sec = 10 };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof(name)), 0);
    return fd;
}

static int dial_unix(const char *path)
{
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    snprintf(name.sun_path, sizeof(name.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof(name)), 0);
    return fd;
}

static void echo(int fd)
{
    char got[8];
    assert_int_equal(send(fd, "hello", 5, MSG_NOSIGNAL), 5);
    assert_int_equal(recv(fd, got, sizeof(got), 0), 5);
    assert_memory_equal(got, "hello", 5);
}

static bool is_at_end(int fd)
{
    char byte;
    return recv(fd, &byte, 1, 0) <= 0;
}

/* TCP and Unix domain sockets of one acceptor, a free port that is the same on all addresses, and
 * connections spread evenly over the loops. */
static void test_accept(void **state)
{
    (void)state;
    char addresses[160], path[] = "/tmp/tis_acceptor_XXXXXX";
    assert_non_null(mkdtemp(path));
    snprintf(addresses, sizeof(addresses), "127.0.0.1,unix:%s/s,127.0.0.2", path);
    struct fixture *f = start(addresses, 0);
    assert_int_equal(f->acceptor.sockets[0].port, f->acceptor.sockets[2].port);

    int fds[CLIENTS];
    char file[80];
    snprintf(file, sizeof(file), "%s/s", path);
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = i % 2 ? dial_unix(file) : dial_tcp(acceptor_port(&f->acceptor));
        echo(fds[i]);
    }
    assert_int_equal(f->acceptor.conn_count, CLIENTS);
    assert_in_range(f->shards[0].conn_count, CLIENTS / 2 - 1, CLIENTS / 2 + 1);

    stop(f);
    for (int i = 0; i < CLIENTS; i++) {
        assert_true(is_at_end(fds[i]));
        close(fds[i]);
    }
    assert_int_equal(rmdir(path), 0); /* the socket's file is gone */
}

/* Above the limit a connection is closed; below it again, the next one is served. */
static void test_limit(void **state)
{
    (void)state;
    struct fixture *f = start("127.0.0.1", 1);
    uint16_t port = acceptor_port(&f->acceptor);
    int one = dial_tcp(port);
    echo(one);
    int other = dial_tcp(port);
    assert_true(is_at_end(other));
    close(other);
    shutdown(one, SHUT_WR);
    assert_true(is_at_end(one));
    close(one);

    uint64_t deadline = clock_ns() + DEADLINE_NS;
    bool is_served = false;
    while (!is_served && clock_ns() < deadline) { /* the first one's end may come a moment later */
        one = dial_tcp(port);
        char got[8];
        is_served = send(one, "x", 1, MSG_NOSIGNAL) == 1 && recv(one, got, sizeof(got), 0) == 1;
        close(one);
    }
    assert_true(is_served);
    stop(f);
}

/* A drain tells every connection, waits as long as it may, and can be repeated; the port is closed
 * from its beginning; whatever comes then is closed. */
static void test_drain(void **state)
{
    (void)state;
    struct fixture *f = start("127.0.0.1", 0);
    uint16_t port = acceptor_port(&f->acceptor);
    int one = dial_tcp(port), other = dial_tcp(port);
    echo(one);
    echo(other);
    assert_false(acceptor_drain(&f->acceptor, clock_ns()));
    assert_int_equal(f->drained, 2);
    echo(one);

    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    acceptor_adopt(&f->acceptor, pair[0]);
    assert_true(is_at_end(pair[1]));
    close(pair[1]);

    f->drain_ends = true;
    assert_true(acceptor_drain(&f->acceptor, clock_ns() + DEADLINE_NS));
    assert_int_equal(f->late, 1);
    assert_true(is_at_end(one) && is_at_end(other));
    close(one);
    close(other);
    stop(f);
}

/* When one of several addresses cannot be had, none is left open. */
static void test_wrong(void **state)
{
    (void)state;
    struct fixture *f = start("127.0.0.1", 0);
    struct acceptor a;
    char path[] = "/tmp/tis_acceptor_XXXXXX", addresses[160];
    assert_non_null(mkdtemp(path));
    snprintf(addresses, sizeof(addresses), "unix:%s/s,127.0.0.1", path);
    struct acceptor_options options = { .address = addresses, .port = acceptor_port(&f->acceptor) };
    tis_error *err = acceptor_init(&a, &options, &handler, 1);
    assert_non_null(err);
    assert_non_null(strstr(error_text(err), "already in use"));
    error_free(err);
    assert_int_equal(rmdir(path), 0);

    options.address = "127.0.0.1,127.0.0.2,127.0.0.3,127.0.0.4,127.0.0.5,127.0.0.6,127.0.0.7,"
                      "127.0.0.8,127.0.0.9";
    options.port = 0;
    err = acceptor_init(&a, &options, &handler, 1);
    assert_non_null(err);
    assert_non_null(strstr(error_text(err), "more than 8 addresses"));
    error_free(err);
    stop(f);
}

/* ---- TLS ---- */

struct tls_client {
    pthread_t thread;
    SSL_CTX *context;
    uint16_t port;
    int failures;
};

/* Connects, sends, receives, and leaves, again and again. */
static void *client_main(void *arg)
{
    struct tls_client *c = arg;
    for (int i = 0; i < TLS_CONNECTIONS; i++) {
        int fd = dial_tcp(c->port);
        SSL *ssl = SSL_new(c->context);
        char got[8];
        SSL_set_fd(ssl, fd);
        bool is_served = SSL_connect(ssl) == 1 && SSL_write(ssl, "hello", 5) == 5 &&
                         SSL_read(ssl, got, sizeof(got)) == 5 && memcmp(got, "hello", 5) == 0;
        c->failures += !is_served;
        if (i % 2)
            SSL_shutdown(ssl);
        SSL_free(ssl);
        close(fd);
    }
    return NULL;
}

/* Handshakes on two loops while certificates are read again and again. */
static void test_tls(void **state)
{
    (void)state;
    char folder[] = "/tmp/tis_acceptor_XXXXXX", certificate[64], key[64];
    assert_non_null(mkdtemp(folder));
    snprintf(certificate, sizeof(certificate), "%s/certificate", folder);
    snprintf(key, sizeof(key), "%s/key", folder);
    struct pair pair = make_pair("server", NULL, 1);
    write_certificate(certificate, &pair);
    write_key(key, &pair, NULL);

    struct tls *tls = NULL;
    struct tls_options options = {
        .certificate = { certificate, "--cert" },
        .key = { key, "--key" },
        .protocols = "\x02h2",
        .handshake_ns_max = DEADLINE_NS,
    };
    assert_null(tls_create(&options, &tls));
    struct fixture *f =
        start_with(&(struct acceptor_options){ .address = "127.0.0.1", .tls = tls });
    struct tls_client clients[TLS_CLIENTS];
    for (int i = 0; i < TLS_CLIENTS; i++) {
        clients[i] = (struct tls_client){
            .context = SSL_CTX_new(TLS_client_method()),
            .port = acceptor_port(&f->acceptor),
        };
        pthread_create(&clients[i].thread, NULL, client_main, &clients[i]);
    }
    for (int i = 0; i < 50; i++)
        assert_null(tls_reload(tls));
    for (int i = 0; i < TLS_CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
        assert_int_equal(clients[i].failures, 0);
        SSL_CTX_free(clients[i].context);
    }
    assert_int_equal(f->opened, TLS_CLIENTS * TLS_CONNECTIONS);
    stop(f);
    tls_destroy(tls);
    free_pair(&pair);
    unlink(certificate);
    unlink(key);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* of the clients' sockets */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accept), cmocka_unit_test(test_limit), cmocka_unit_test(test_drain),
        cmocka_unit_test(test_wrong),  cmocka_unit_test(test_tls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
