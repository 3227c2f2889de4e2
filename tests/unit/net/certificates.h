/* Certificates and keys for tests, and the files that a server reads them from. */
#ifndef TIS_TESTS_UNIT_NET_CERTIFICATES_H
#define TIS_TESTS_UNIT_NET_CERTIFICATES_H

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

struct pair {
    EVP_PKEY *key;
    X509 *certificate;
};

/* With a key of its own; without a signer it has signed itself, as a root does. */
static inline struct pair make_pair(const char *name, const struct pair *signer, long serial)
{
    struct pair p = { .key = EVP_EC_gen("P-256"), .certificate = X509_new() };
    X509 *c = p.certificate;
    X509_set_version(c, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(c), serial);
    X509_gmtime_adj(X509_getm_notBefore(c), -60);
    X509_gmtime_adj(X509_getm_notAfter(c), 3600);
    X509_set_pubkey(c, p.key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(c), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(c, X509_get_subject_name(signer ? signer->certificate : c));
    if (!signer) {
        X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "CA:TRUE");
        X509_add_ext(c, e, -1);
        X509_EXTENSION_free(e);
    }
    assert_true(X509_sign(c, signer ? signer->key : p.key, EVP_sha256()) > 0);
    return p;
}

static inline void free_pair(struct pair *p)
{
    EVP_PKEY_free(p->key);
    X509_free(p->certificate);
}

static inline void write_certificate(const char *path, const struct pair *p)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(PEM_write_X509(f, p->certificate), 1);
    fclose(f);
}

/* passphrase: NULL for none. */
static inline void write_key(const char *path, const struct pair *p, const char *passphrase)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(PEM_write_PKCS8PrivateKey(f, p->key, passphrase ? EVP_aes_128_cbc() : NULL,
                                               passphrase, passphrase ? (int)strlen(passphrase) : 0,
                                               NULL, NULL),
                     1);
    fclose(f);
}

#endif
