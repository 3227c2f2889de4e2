/* Listening sockets: TCP on the loopback address, Unix domain sockets in a folder of their own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/socket.h"

static void assert_fails(tis_error *err, TRITONSERVER_Error_Code code, const char *text)
{
    assert_non_null(err);
    if (error_code(err) != code || !strstr(error_text(err), text))
        fail_msg("code %d, '%s'; expected %d, '%s'", (int)error_code(err), error_text(err),
                 (int)code, text);
    error_free(err);
}

/* A taken port is an error that says so, unless sharing it was asked for; wrong addresses are told
 * apart from taken ones. */
static void test_tcp(void **state)
{
    (void)state;
    struct socket_listener one, other;
    char want[64];
    assert_null(socket_listen("127.0.0.1", 0, false, &one));
    assert_true(one.port > 0);
    assert_null(one.path);
    assert_true(fcntl(one.fd, F_GETFD) & FD_CLOEXEC);

    snprintf(want, sizeof(want), "address '127.0.0.1' port %u: already in use", (unsigned)one.port);
    assert_fails(socket_listen("127.0.0.1", one.port, false, &other),
                 TRITONSERVER_ERROR_UNAVAILABLE, want);
    /* One-sided sharing is refused too. */
    assert_fails(socket_listen("127.0.0.1", one.port, true, &other), TRITONSERVER_ERROR_UNAVAILABLE,
                 want);
    socket_listener_close(&one);
    assert_int_equal(one.fd, -1);
    socket_listener_close(&one);

    assert_null(socket_listen("127.0.0.1", 0, true, &one));
    assert_null(socket_listen("127.0.0.1", one.port, true, &other));
    assert_int_equal(one.port, other.port);
    socket_listener_close(&one);
    socket_listener_close(&other);

    static const char *const wrong[] = { "203.0.113.7", "no such host.invalid" };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_fails(socket_listen(wrong[i], 0, false, &one), TRITONSERVER_ERROR_INVALID_ARG,
                     wrong[i]);

    /* IPv6, where the machine has it. */
    tis_error *err = socket_listen("::1", 0, false, &one);
    if (err)
        error_free(err);
    else
        socket_listener_close(&one);
}

/* ---- Unix domain sockets ---- */

struct folder {
    char path[64];
    char file[80];
    char address[96];
};

static int set_up(void **state)
{
    struct folder *f = calloc(1, sizeof(*f));
    snprintf(f->path, sizeof(f->path), "/tmp/tis_socket_XXXXXX");
    if (!f || !mkdtemp(f->path))
        return -1;
    snprintf(f->file, sizeof(f->file), "%s/s", f->path);
    snprintf(f->address, sizeof(f->address), "unix:%s", f->file);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct folder *f = *state;
    unlink(f->file);
    rmdir(f->path);
    free(f);
    return 0;
}

static int dial(const char *path)
{
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    snprintf(name.sun_path, sizeof(name.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&name, sizeof(name)) == 0)
        return fd;
    close(fd);
    return -1;
}

static bool file_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

/* Only owner and group can connect, whatever the umask; the file goes with the listener. */
static void test_unix(void **state)
{
    struct folder *f = *state;
    struct socket_listener one;
    struct stat st;
    mode_t before = umask(0);
    assert_null(socket_listen(f->address, 8000, false, &one));
    assert_int_equal(stat(f->file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0660);
    assert_int_equal(one.port, 0);
    int fd = dial(f->file);
    assert_true(fd >= 0);
    close(fd);
    socket_listener_close(&one);
    assert_false(file_exists(f->file));

    umask(077);
    char address[96];
    snprintf(address, sizeof(address), "unix://%s", f->file);
    assert_null(socket_listen(address, 0, false, &one));
    assert_int_equal(stat(f->file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0660);
    socket_listener_close(&one);
    umask(before);
}

/* A socket that somebody listens on is taken; one that nobody listens on any more is replaced. */
static void test_unix_taken(void **state)
{
    struct folder *f = *state;
    struct socket_listener one, other;
    assert_null(socket_listen(f->address, 0, false, &one));
    assert_fails(socket_listen(f->address, 0, false, &other), TRITONSERVER_ERROR_UNAVAILABLE,
                 "already in use");
    close(one.fd); /* as when its process dies */
    assert_true(file_exists(f->file));
    assert_null(socket_listen(f->address, 0, false, &other));
    free(one.path);

    /* One whose file was replaced by another server's leaves that alone. */
    assert_int_equal(unlink(f->file), 0);
    assert_null(socket_listen(f->address, 0, false, &one));
    socket_listener_close(&other);
    assert_true(file_exists(f->file));
    socket_listener_close(&one);
    assert_false(file_exists(f->file));
}

static void test_unix_wrong(void **state)
{
    struct folder *f = *state;
    struct socket_listener l;
    char longer[200] = "unix:/tmp/";
    memset(longer + strlen(longer), 'x', 120);
    assert_fails(socket_listen("unix:", 0, false, &l), TRITONSERVER_ERROR_INVALID_ARG,
                 "expected unix:PATH with a path of 1 to 107 bytes, found 0");
    assert_fails(socket_listen(longer, 0, false, &l), TRITONSERVER_ERROR_INVALID_ARG, "found 125");
    assert_fails(socket_listen("unix:/no/such/folder/s", 0, false, &l),
                 TRITONSERVER_ERROR_INVALID_ARG, "Unix socket '/no/such/folder/s': No such file");

    /* Whatever else has that name is left alone. */
    int fd = open(f->file, O_CREAT | O_CLOEXEC | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_fails(socket_listen(f->address, 0, false, &l), TRITONSERVER_ERROR_INVALID_ARG,
                 "is not a socket");
    assert_true(file_exists(f->file));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp),
        cmocka_unit_test_setup_teardown(test_unix, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unix_taken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unix_wrong, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
