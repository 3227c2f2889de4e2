/* net/socket.h - listening sockets and the few options that a server's sockets need.
 *
 * Threads: any; nothing here keeps state.
 */
#ifndef TIS_NET_SOCKET_H
#define TIS_NET_SOCKET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/error.h"

/* Binds and listens; the descriptor is non-blocking and CLOEXEC. TCP_NODELAY and keep-alive probes
 * are set on it, which accepted sockets inherit, so that accepting costs one system call.
 *   address     a numeric IPv4 or IPv6 address or a host name ("localhost": its first address);
 *               NULL, "" or "*": all IPv4. "::" also takes IPv4.
 *   port        0: a free one, see *ret_port
 *   reuse_port  let other processes listen on the same port (SO_REUSEPORT)
 * Errors: UNAVAILABLE   the port is taken; the text names address and port
 *         INVALID_ARG   no such address on this machine */
MUST_USE tis_error *socket_listen(const char *address, uint16_t port, bool reuse_port, int *ret_fd,
                                  uint16_t *ret_port);

#endif
