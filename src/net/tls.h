/* net/tls.h - certificates, and encrypted transports.
 *
 * A struct tls is what a listening socket needs to know: certificate, key, who may connect, which
 * protocols are spoken. It can be read again from its files; connections keep what they began with.
 * A struct tls_stream is one connection's session; net/transport has one when it is not plain.
 * Servers' side only; OpenSSL 3, TLS 1.2 and 1.3, no renegotiation.
 *
 * Threads: tls_create, tls_reload, tls_destroy: one at a time. tls_stream_create: any. The other
 *          tls_stream functions: the stream's loop.
 */
#ifndef TIS_NET_TLS_H
#define TIS_NET_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/attr.h"
#include "base/error.h"

struct tls;
struct tls_stream;

/* A file, and the flag that named it, for texts. */
struct tls_file {
    const char *path; /* "" or NULL: not given */
    const char *flag; /* "--http-server-cert" */
};

struct tls_options {
    struct tls_file certificate; /* PEM, with the certificates between it and the root */
    struct tls_file key;         /* PEM */
    struct tls_file root;        /* PEM; signers of clients' certificates */
    bool is_mutual;              /* clients must have a certificate that root has signed */
    /* Application protocols in order of preference, as on the wire: each with its length before it.
     * Must stay valid. */
    const char *protocols;
    uint64_t handshake_ns_max; /* 0: no limit */
};

/* Errors: INVALID_ARG   a file is missing, cannot be read, or is not what it should be; the key is
 *                       not the certificate's. The text names file, flag and reason. */
MUST_USE tis_error *tls_create(const struct tls_options *options, struct tls **ret_tls);
/* Reads the files again, for connections to come. On error everything stays as it is. */
MUST_USE tis_error *tls_reload(struct tls *tls);
/* Streams may outlive it. NULL is accepted. */
void tls_destroy(struct tls *tls);
uint64_t tls_handshake_ns_max(const struct tls *tls);
/* For the log: `subject="CN=a" expires=2027-01-31T12:00:00Z` of the server's certificate. */
void tls_describe(const struct tls *tls, char *out, size_t out_bytes);

/* ---- one connection; the functions of net/transport.h call these ---- */

/* fd stays the caller's. NULL: no memory. */
struct tls_stream *tls_stream_create(struct tls *tls, int fd);
/* Says goodbye when that is possible at once. NULL is accepted. */
void tls_stream_destroy(struct tls_stream *s);

/* As recvmsg() and sendmsg(): a count, 0 at the end of the peer's stream, -1 with errno. The first
 * of them does the handshake. A send that was refused with EAGAIN must be repeated with at least the
 * same bytes. */
ssize_t tls_stream_recv(struct tls_stream *s, const struct iovec *parts, size_t count);
ssize_t tls_stream_send(struct tls_stream *s, const struct iovec *parts, size_t count);
/* Tells the peer that no more bytes come. */
void tls_stream_end_sending(struct tls_stream *s);

bool tls_stream_is_handshaking(const struct tls_stream *s);
/* There may be bytes that the socket will not tell of. */
bool tls_stream_has_pending(const struct tls_stream *s);
/* The socket's events (enum loop_events) to wait for, for somebody who wants `wanted`; and what he is
 * to be told when `events` have come. */
unsigned tls_stream_wait_events(const struct tls_stream *s, unsigned wanted);
unsigned tls_stream_told_events(const struct tls_stream *s, unsigned wanted, unsigned events);

#endif
