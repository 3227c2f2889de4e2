#include "net/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LISTEN_BACKLOG = 4096, /* the kernel cuts it to net.core.somaxconn */
    KEEPALIVE_IDLE_SECS = 60,
    KEEPALIVE_INTERVAL_SECS = 15,
    KEEPALIVE_PROBES = 4,
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

tis_error *socket_listen(const char *address, uint16_t port, bool reuse_port, int *ret_fd,
                         uint16_t *ret_port)
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
    *ret_port = bound_port(fd);
    *ret_fd = fd;
    fd = -1;

out:
    if (fd >= 0)
        close(fd);
    if (info)
        freeaddrinfo(info);
    return err;
}
