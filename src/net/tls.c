/* net/tls.c
 *
 * Reading. OpenSSL reads the socket ahead of what is asked for, so bytes can lie in its memory while
 * epoll sees an empty socket: a recv() that ended because the caller's room was full leaves
 * has_pending set, and net/transport comes back by itself.
 *
 * Writing. A TLS record holds up to 16 KiB and costs some 30 bytes and a system call, so the parts of
 * a send are gathered: a part that fills a record alone is encrypted where it lies, smaller ones are
 * first copied together. When the socket is full OpenSSL keeps a record that it has not told as
 * written; the next call must offer its bytes again, and at least as many. A caller's queue only
 * grows at its end, so the gathering, which depends on nothing but the bytes, finds them again.
 *
 * The BIO is our own for MSG_NOSIGNAL: the library's would raise SIGPIPE.
 */
#include "net/tls.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/lock.h"
#include "base/log.h"
#include "net/loop.h"

enum {
    RECORD_BYTES = SSL3_RT_MAX_PLAIN_LENGTH,
    READ_AHEAD_BYTES = 64 << 10,
    /* Of one call, so that a fast peer does not keep the loop from others. */
    ROUND_BYTES_MAX = 256 << 10,
    REASON_BYTES = 256,
};

struct tls {
    /* set by tls_create(), then constant */
    struct tls_options options;
    struct tls_file files[3]; /* paths are copies */

    /* any thread, under lock */
    struct lock lock;
    SSL_CTX *context;
};

struct tls_stream {
    SSL *ssl;
    bool has_pending;
    bool recv_wants_write;
    bool is_broken; /* nothing may be written any more, not even a goodbye */
};

/* ---- the socket, as OpenSSL sees it ---- */

static int bio_fd(BIO *bio)
{
    return (int)(intptr_t)BIO_get_data(bio);
}

static int bio_read(BIO *bio, char *data, int len)
{
    ssize_t n = recv(bio_fd(bio), data, (size_t)len, MSG_DONTWAIT);
    BIO_clear_retry_flags(bio);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        BIO_set_retry_read(bio);
    if (n == 0)
        BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
    return (int)n;
}

static int bio_write(BIO *bio, const char *data, int len)
{
    ssize_t n = send(bio_fd(bio), data, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT);
    BIO_clear_retry_flags(bio);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        BIO_set_retry_write(bio);
    return (int)n;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)number;
    (void)pointer;
    if (command == BIO_CTRL_EOF)
        return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method;

static void bio_method_create(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket");
    if (method && BIO_meth_set_read(method, bio_read) && BIO_meth_set_write(method, bio_write) &&
        BIO_meth_set_ctrl(method, bio_ctrl))
        bio_method = method;
    else
        BIO_meth_free(method);
}

/* ---- certificates ---- */

/* Why OpenSSL refused something, in one line; empties its queue. */
static const char *openssl_reason(char *out)
{
    unsigned long code = ERR_peek_error();
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    if (text)
        snprintf(out, REASON_BYTES, "%s", text);
    else if (code)
        ERR_error_string_n(code, out, REASON_BYTES);
    else
        snprintf(out, REASON_BYTES, "unknown reason");
    ERR_clear_error();
    return out;
}

static tis_error *file_error(const struct tls_file *file, const char *reason)
{
    return error_new(TRITONSERVER_ERROR_INVALID_ARG, "%s=%s: %s", file->flag, file->path, reason);
}

/* What is wrong with a PEM file of which OpenSSL did not want to know; `expected` says what it
 * should hold. */
static tis_error *pem_error(const struct tls_file *file, const char *expected)
{
    char reason[REASON_BYTES], text[2 * REASON_BYTES];
    FILE *f = fopen(file->path, "re");
    if (!f) {
        ERR_clear_error();
        return file_error(file, strerror(errno));
    }
    char first;
    bool is_empty = fread(&first, 1, 1, f) == 0;
    bool is_unreadable = ferror(f) != 0;
    int error = errno;
    fclose(f);
    if (is_unreadable) {
        ERR_clear_error();
        return file_error(file, strerror(error));
    }
    unsigned long code = ERR_peek_error();
    bool has_none =
        ERR_GET_LIB(code) == ERR_LIB_OSSL_DECODER ||
        (ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE);
    if (is_empty)
        snprintf(text, sizeof(text), "the file is empty; expected %s", expected);
    else if (has_none)
        snprintf(text, sizeof(text), "found no such block; expected %s", expected);
    else
        snprintf(text, sizeof(text), "%s; expected %s", openssl_reason(reason), expected);
    ERR_clear_error();
    return file_error(file, text);
}

/* A key with a passphrase cannot be read: nobody is there to type it. */
static int no_passphrase(char *out, int bytes, int is_writing, void *arg)
{
    (void)out;
    (void)bytes;
    (void)is_writing;
    *(bool *)arg = true;
    return -1;
}

static tis_error *load_key(SSL_CTX *context, const struct tls_file *file,
                           const struct tls_file *certificate)
{
    bool is_locked = false;
    char text[REASON_BYTES + 64];
    SSL_CTX_set_default_passwd_cb(context, no_passphrase);
    SSL_CTX_set_default_passwd_cb_userdata(context, &is_locked);
    int loaded = SSL_CTX_use_PrivateKey_file(context, file->path, SSL_FILETYPE_PEM);
    SSL_CTX_set_default_passwd_cb_userdata(context, NULL);
    SSL_CTX_set_default_passwd_cb(context, NULL);
    if (loaded == 1 && SSL_CTX_check_private_key(context) == 1)
        return NULL;
    if (is_locked) {
        ERR_clear_error();
        return file_error(file, "the key has a passphrase; expected a private key without one");
    }
    if (loaded == 1 || ERR_GET_LIB(ERR_peek_error()) == ERR_LIB_X509) {
        ERR_clear_error();
        snprintf(text, sizeof(text), "the key is not that of the certificate in %s",
                 certificate->path);
        return file_error(file, text);
    }
    return pem_error(file, "a private key in PEM form");
}

static tis_error *load_files(SSL_CTX *context, const struct tls_file *files, bool is_mutual)
{
    const struct tls_file *certificate = &files[0], *key = &files[1], *root = &files[2];
    ERR_clear_error();
    if (SSL_CTX_use_certificate_chain_file(context, certificate->path) != 1)
        return pem_error(certificate, "a certificate in PEM form");
    tis_error *err = load_key(context, key, certificate);
    if (err || !is_mutual)
        return err;

    /* The names go to clients, which choose a certificate by them. */
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(root->path);
    if (!names || SSL_CTX_load_verify_file(context, root->path) != 1) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return pem_error(root, "certificates in PEM form");
    }
    SSL_CTX_set_client_CA_list(context, names);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return NULL;
}

static int choose_protocol(SSL *ssl, const unsigned char **ret_name, unsigned char *ret_len,
                           const unsigned char *offered, unsigned offered_len, void *arg)
{
    const char *ours = arg;
    unsigned char *chosen;
    (void)ssl;
    if (SSL_select_next_proto(&chosen, ret_len, (const unsigned char *)ours, (unsigned)strlen(ours),
                              offered, offered_len) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *ret_name = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static tis_error *context_create(const struct tls *tls, SSL_CTX **ret_context)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (!context) {
        ERR_clear_error();
        return error_no_memory();
    }
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    /* An end of the stream without goodbye is an end: HTTP frames tell whether bytes are missing. */
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, READ_AHEAD_BYTES);
    /* Sessions are resumed by tickets; mutual TLS asks for the context's name with them. */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(context, (const unsigned char *)"trtserver", 9);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, (void *)(uintptr_t)tls->options.protocols);

    tis_error *err = load_files(context, tls->files, tls->options.is_mutual);
    if (err) {
        SSL_CTX_free(context);
        return err;
    }
    *ret_context = context;
    return NULL;
}

/* ---- contexts ---- */

static tis_error *copy_files(struct tls *tls)
{
    const struct tls_file *given[] = { &tls->options.certificate, &tls->options.key,
                                       &tls->options.root };
    for (size_t i = 0; i < ARRAY_LEN(given); i++) {
        const char *path = given[i]->path ? given[i]->path : "";
        tls->files[i] = (struct tls_file){ .path = strdup(path), .flag = given[i]->flag };
        if (!tls->files[i].path)
            return error_no_memory();
    }
    return NULL;
}

tis_error *tls_create(const struct tls_options *options, struct tls **ret_tls)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, bio_method_create);
    struct tls *tls = bio_method ? calloc(1, sizeof(*tls)) : NULL;
    if (!tls)
        return error_no_memory();
    tls->options = *options;
    lock_init(&tls->lock, LOCK_TLS);
    tis_error *err = copy_files(tls);
    if (!err)
        err = context_create(tls, &tls->context);
    if (err) {
        tls_destroy(tls);
        return err;
    }
    *ret_tls = tls;
    return NULL;
}

tis_error *tls_reload(struct tls *tls)
{
    SSL_CTX *context = NULL;
    tis_error *err = context_create(tls, &context);
    if (err)
        return err;
    lock_take(&tls->lock);
    SSL_CTX *before = tls->context;
    tls->context = context;
    lock_release(&tls->lock);
    SSL_CTX_free(before); /* it lives on in its connections */
    return NULL;
}

void tls_destroy(struct tls *tls)
{
    if (!tls)
        return;
    SSL_CTX_free(tls->context);
    for (size_t i = 0; i < ARRAY_LEN(tls->files); i++)
        free((void *)(uintptr_t)tls->files[i].path);
    lock_fini(&tls->lock);
    free(tls);
}

uint64_t tls_handshake_ns_max(const struct tls *tls)
{
    return tls->options.handshake_ns_max;
}

void tls_describe(const struct tls *tls, char *out, size_t out_bytes)
{
    X509 *certificate = SSL_CTX_get0_certificate(tls->context);
    BIO *subject = BIO_new(BIO_s_mem());
    char *text = NULL, expires[32] = "";
    long len = 0;
    struct tm tm;
    if (subject) {
        X509_NAME_print_ex(subject, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253);
        len = BIO_get_mem_data(subject, &text);
    }
    if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &tm) == 1)
        strftime(expires, sizeof(expires), "%Y-%m-%dT%H:%M:%SZ", &tm);
    snprintf(out, out_bytes, "subject=\"%.*s\" expires=%s", (int)len, text ? text : "", expires);
    BIO_free(subject);
    ERR_clear_error();
}

/* ---- streams ---- */

struct tls_stream *tls_stream_create(struct tls *tls, int fd)
{
    struct tls_stream *s = calloc(1, sizeof(*s));
    BIO *bio = BIO_new(bio_method);
    lock_take(&tls->lock);
    SSL_CTX *context = tls->context;
    SSL_CTX_up_ref(context);
    lock_release(&tls->lock);
    if (s)
        s->ssl = SSL_new(context);
    SSL_CTX_free(context);
    if (!s || !bio || !s->ssl) {
        ERR_clear_error();
        BIO_free(bio);
        tls_stream_destroy(s);
        return NULL;
    }
    BIO_set_data(bio, (void *)(intptr_t)fd);
    BIO_set_init(bio, 1);
    SSL_set_bio(s->ssl, bio, bio);
    SSL_set_accept_state(s->ssl);
    return s;
}

void tls_stream_destroy(struct tls_stream *s)
{
    if (!s)
        return;
    if (s->ssl)
        tls_stream_end_sending(s);
    SSL_free(s->ssl);
    free(s);
}

bool tls_stream_is_handshaking(const struct tls_stream *s)
{
    return !SSL_is_init_finished(s->ssl);
}

bool tls_stream_has_pending(const struct tls_stream *s)
{
    return s->has_pending;
}

void tls_stream_end_sending(struct tls_stream *s)
{
    if (s->is_broken || tls_stream_is_handshaking(s) ||
        (SSL_get_shutdown(s->ssl) & SSL_SENT_SHUTDOWN))
        return;
    ERR_clear_error();
    SSL_shutdown(s->ssl);
    ERR_clear_error();
}

/* Why a session ends, for those who want to know: the peer's fault mostly, so not above verbose. */
static void log_failure(const struct tls_stream *s)
{
    struct sockaddr_storage name;
    socklen_t len = sizeof(name);
    char reason[REASON_BYTES], peer[INET6_ADDRSTRLEN] = "", port[8] = "";
    if (!log_is_enabled(LOG_LEVEL_VERBOSE))
        return;
    if (getpeername(bio_fd(SSL_get_rbio(s->ssl)), (struct sockaddr *)&name, &len) == 0)
        (void)getnameinfo((struct sockaddr *)&name, len, peer, sizeof(peer), port, sizeof(port),
                          NI_NUMERICHOST | NI_NUMERICSERV);
    log_verbose("tls %s fails: %s peer=%s port=%s",
                tls_stream_is_handshaking(s) ? "handshake" : "connection", openssl_reason(reason),
                peer, port);
}

/* Turns a failed call into what recv() or send() would say. */
static ssize_t failed(struct tls_stream *s, int result)
{
    int error = errno;
    switch (SSL_get_error(s->ssl, result)) {
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_SYSCALL:
        s->is_broken = true;
        errno = error ? error : ECONNRESET;
        break;
    default:
        s->is_broken = true;
        log_failure(s);
        errno = ECONNABORTED;
    }
    ERR_clear_error();
    return -1;
}

/* One record, or a part of it. */
static ssize_t recv_some(struct tls_stream *s, void *data, size_t len)
{
    size_t n = 0;
    s->recv_wants_write = false;
    s->has_pending = false;
    ERR_clear_error();
    errno = 0;
    int rc = SSL_read_ex(s->ssl, data, len, &n);
    if (rc == 1) {
        s->has_pending = SSL_has_pending(s->ssl);
        return (ssize_t)n;
    }
    ssize_t result = failed(s, rc);
    if (result < 0 && errno == EAGAIN)
        s->recv_wants_write = SSL_want_write(s->ssl);
    return result;
}

ssize_t tls_stream_recv(struct tls_stream *s, const struct iovec *parts, size_t count)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        for (size_t at = 0; at < parts[i].iov_len;) {
            ssize_t n = recv_some(s, (char *)parts[i].iov_base + at, parts[i].iov_len - at);
            if (n <= 0 && total > 0) {
                /* The end, or what has failed, is found again by the next call. */
                s->has_pending = n == 0 || errno != EAGAIN;
                return (ssize_t)total;
            }
            if (n <= 0)
                return n;
            at += (size_t)n;
            total += (size_t)n;
            /* When nothing is left here, the socket will tell of more. */
            if (!s->has_pending || total >= ROUND_BYTES_MAX)
                return (ssize_t)total;
        }
    }
    return (ssize_t)total;
}

/* ---- sending ---- */

/* A place in a caller's parts. */
struct cursor {
    const struct iovec *parts;
    size_t count;
    size_t offset; /* in parts[0] */
};

static void cursor_move(struct cursor *c, size_t n)
{
    n += c->offset;
    while (c->count && n >= c->parts->iov_len) {
        n -= c->parts->iov_len;
        c->parts++;
        c->count--;
    }
    c->offset = n;
}

/* The bytes of the next record: where they lie, or copied together. */
static const void *cursor_record(struct cursor c, char *copy, size_t *ret_len)
{
    size_t first = c.parts->iov_len - c.offset;
    if (first >= RECORD_BYTES || c.count == 1) {
        *ret_len = first < RECORD_BYTES ? first : RECORD_BYTES;
        return (const char *)c.parts->iov_base + c.offset;
    }
    size_t len = 0;
    while (c.count && len < RECORD_BYTES) {
        size_t n = c.parts->iov_len - c.offset;
        if (n > RECORD_BYTES - len)
            n = RECORD_BYTES - len;
        memcpy(copy + len, (const char *)c.parts->iov_base + c.offset, n);
        len += n;
        cursor_move(&c, n);
    }
    *ret_len = len;
    return copy;
}

static ssize_t send_records(struct tls_stream *s, const struct iovec *parts, size_t count)
{
    char copy[RECORD_BYTES];
    struct cursor c = { .parts = parts, .count = count };
    size_t total = 0;
    cursor_move(&c, 0); /* past empty parts */
    while (c.count && total < ROUND_BYTES_MAX) {
        size_t len, n = 0;
        const void *data = cursor_record(c, copy, &len);
        ERR_clear_error();
        errno = 0;
        int rc = SSL_write_ex(s->ssl, data, len, &n);
        if (rc != 1) {
            ssize_t result = failed(s, rc);
            if (result == 0) { /* the peer's end is no reason for us; this is */
                errno = EPIPE;
                result = -1;
            }
            return total ? (ssize_t)total : result;
        }
        total += n;
        cursor_move(&c, n);
    }
    return (ssize_t)total;
}

ssize_t tls_stream_send(struct tls_stream *s, const struct iovec *parts, size_t count)
{
    bool was_handshaking = tls_stream_is_handshaking(s);
    ssize_t result = send_records(s, parts, count);
    /* The peer's part of the handshake was read here, and maybe bytes behind it. */
    if (was_handshaking && !tls_stream_is_handshaking(s))
        s->has_pending = SSL_has_pending(s->ssl);
    return result;
}

/* ---- what to wait for ---- */

unsigned tls_stream_wait_events(const struct tls_stream *s, unsigned wanted)
{
    /* A handshake goes on by itself, whoever calls: mostly it waits for the peer. */
    if (tls_stream_is_handshaking(s))
        return SSL_want_write(s->ssl) ? LOOP_WRITE : LOOP_READ;
    return wanted | (s->recv_wants_write && (wanted & LOOP_READ) ? (unsigned)LOOP_WRITE : 0u);
}

unsigned tls_stream_told_events(const struct tls_stream *s, unsigned wanted, unsigned events)
{
    unsigned told = events & (wanted | LOOP_HANGUP);
    bool reads_on = tls_stream_is_handshaking(s) || (s->recv_wants_write && (wanted & LOOP_READ));
    if (reads_on && (events & (LOOP_READ | LOOP_WRITE)))
        told |= LOOP_READ;
    return told;
}
