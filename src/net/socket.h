/* net/socket.h - listening sockets and the few options that a server's sockets need.
 *
 * Threads: any; nothing here keeps state.
 */
#ifndef TIS_NET_SOCKET_H
#define TIS_NET_SOCKET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/attr.h"
#include "base/error.h"

/* A listening socket. */
struct socket_listener {
    int fd;        /* -1: closed */
    uint16_t port; /* 0: a Unix domain socket */
    char *path;    /* of a Unix domain socket's file, which is ours; else NULL */
    dev_t device;  /* of that file */
    ino_t inode;
};

/* Binds and listens; the descriptor is non-blocking and CLOEXEC. On TCP sockets TCP_NODELAY and
 * keep-alive probes are set, which accepted sockets inherit, so that accepting costs one system
 * call.
 *   address     a numeric IPv4 or IPv6 address or a host name ("localhost": its first address);
 *               NULL, "" or "*": all IPv4. "::" also takes IPv4.
 *               "unix:PATH", "unix:///PATH": a Unix domain socket with mode 0660. A file left over
 *               from a server that has died is replaced.
 *   port        0: a free one, see ret_listener->port; of no meaning for a Unix domain socket
 *   reuse_port  let other processes listen on the same port (SO_REUSEPORT); likewise
 * Errors: UNAVAILABLE   the port or the file is taken; the text names address and port
 *         INVALID_ARG   no such address on this machine; a path that is too long or cannot be used */
MUST_USE tis_error *socket_listen(const char *address, uint16_t port, bool reuse_port,
                                  struct socket_listener *ret_listener);
/* Removes the file of a Unix domain socket, unless another server has replaced it. Zeroed or closed
 * ones are accepted when fd is -1. */
void socket_listener_close(struct socket_listener *l);
/* True for the address of a Unix domain socket. */
bool socket_is_unix(const char *address);

#endif
