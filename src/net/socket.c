#include "net/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    LISTEN_BACKLOG = 4096, /* the kernel cuts it to net.core.somaxconn */
    KEEPALIVE_IDLE_SECS = 60,
    KEEPALIVE_INTERVAL_SECS = 15,
    KEEPALIVE_PROBES = 4,
    UNIX_MODE = 0660, /* owner and group */
};

/* An option that the kernel refuses costs speed or comfort, never correctness. */
static void set_option(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof(value));
}

static tis_error *resolve(const char *address, uint16_t port, struct addrinfo **ret_info)
{
    char service[8];
    snprintf(service, sizeof(service), "%u", (unsigned)port);
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_PASSIVE | AI_NUMERICSERV,
    };
    int rc = getaddrinfo(address, service, &hints, ret_info);
    if (rc != 0)
        return error_new(TRITONSERVER_ERROR_INVALID_ARG, "address '%s': %s", address,
                         gai_strerror(rc));
    return NULL;
}

static tis_error *bind_error(const char *address, uint16_t port, int error)
{
    if (error == EADDRINUSE)
        return error_new(TRITONSERVER_ERROR_UNAVAILABLE,
                         "address '%s' port %u: already in use, another server may be listening "
                         "there",
                         address, (unsigned)port);
    bool is_ours = error == EADDRNOTAVAIL || error == EACCES || error == EAFNOSUPPORT;
    return error_new(is_ours ? TRITONSERVER_ERROR_INVALID_ARG : TRITONSERVER_ERROR_INTERNAL,
                     "address '%s' port %u: %s", address, (unsigned)port, strerror(error));
}

static uint16_t bound_port(int fd)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0)
        return 0;
    if (ss.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&ss)->sin6_port);
    return ntohs(((struct sockaddr_in *)&ss)->sin_port);
}

static tis_error *listen_tcp(const char *address, uint16_t port, bool reuse_port,
                             struct socket_listener *ret_listener)
{
    if (!address || !*address || strcmp(address, "*") == 0)
        address = "0.0.0.0";
    struct addrinfo *info = NULL;
    int fd = -1;
    tis_error *err = resolve(address, port, &info);
    if (err)
        goto out;

    fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        err = bind_error(address, port, errno);
        goto out;
    }
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (reuse_port)
        set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (info->ai_family == AF_INET6)
        set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_SECS);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECS);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);

    if (bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
        err = bind_error(address, port, errno);
        goto out;
    }
    *ret_listener = (struct socket_listener){ .fd = fd, .port = bound_port(fd) };
    fd = -1;

out:
    if (fd >= 0)
        close(fd);
    if (info)
        freeaddrinfo(info);
    return err;
}

/* ---- Unix domain sockets ---- */

#define UNIX_PREFIX "unix:"

bool socket_is_unix(const char *address)
{
    return address && strncmp(address, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0;
}

static tis_error *path_error(const char *path, const char *text)
{
    return error_new(TRITONSERVER_ERROR_INVALID_ARG, "Unix socket '%s': %s", path, text);
}

/* Makes way for a socket at the path: removes what a server that has died left there. */
static tis_error *clear_path(const struct sockaddr_un *name)
{
    struct stat st;
    if (lstat(name->sun_path, &st) < 0)
        return errno == ENOENT ? NULL : path_error(name->sun_path, strerror(errno));
    if (!S_ISSOCK(st.st_mode))
        return path_error(name->sun_path, "a file of that name exists and is not a socket");

    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return path_error(name->sun_path, strerror(errno));
    bool is_stale =
        connect(fd, (const struct sockaddr *)name, sizeof(*name)) < 0 && errno == ECONNREFUSED;
    close(fd);
    if (!is_stale)
        return error_new(TRITONSERVER_ERROR_UNAVAILABLE,
                         "Unix socket '%s': already in use, another server may be listening there",
                         name->sun_path);
    if (unlink(name->sun_path) < 0 && errno != ENOENT)
        return path_error(name->sun_path, strerror(errno));
    return NULL;
}

static tis_error *listen_unix(const char *address, struct socket_listener *ret_listener)
{
    const char *path = address + strlen(UNIX_PREFIX);
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    struct socket_listener l = { .fd = -1 };
    struct stat st;
    if (strncmp(path, "//", 2) == 0)
        path += 2;
    if (!*path || strlen(path) >= sizeof(name.sun_path))
        return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                         "address '%s': expected unix:PATH with a path of 1 to %zu bytes, found "
                         "%zu",
                         address, sizeof(name.sun_path) - 1, strlen(path));
    memcpy(name.sun_path, path, strlen(path) + 1);

    tis_error *err = clear_path(&name);
    if (err)
        return err;
    l.path = strdup(path);
    l.fd = l.path ? socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : -1;
    /* The file's mode must not be wider than that for any moment, whatever the umask is. */
    if (l.fd < 0 || fchmod(l.fd, UNIX_MODE) < 0 ||
        bind(l.fd, (const struct sockaddr *)&name, sizeof(name)) < 0) {
        err = path_error(path, strerror(errno));
        if (l.fd >= 0)
            close(l.fd);
        free(l.path);
        return err;
    }
    if (stat(path, &st) == 0) {
        l.device = st.st_dev;
        l.inode = st.st_ino;
    }
    if (chmod(path, UNIX_MODE) < 0 || listen(l.fd, LISTEN_BACKLOG) < 0) {
        err = path_error(path, strerror(errno));
        socket_listener_close(&l);
        return err;
    }
    *ret_listener = l;
    return NULL;
}

void socket_listener_close(struct socket_listener *l)
{
    struct stat st;
    if (l->path && lstat(l->path, &st) == 0 && st.st_dev == l->device && st.st_ino == l->inode)
        unlink(l->path);
    free(l->path);
    l->path = NULL;
    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
}

tis_error *socket_listen(const char *address, uint16_t port, bool reuse_port,
                         struct socket_listener *ret_listener)
{
    return socket_is_unix(address) ? listen_unix(address, ret_listener)
                                   : listen_tcp(address, port, reuse_port, ret_listener);
}
