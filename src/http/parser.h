/* http/parser.h - cuts request heads and chunked bodies out of bytes; the only user of llhttp.
 *
 * llhttp runs in its strict mode and decides what is HTTP. This wrapper pauses it at the end of the
 * head, so that the connection decides where the body goes: a body of known length never passes
 * through here, a chunked one does, in place where possible (see parser_body()).
 *
 * Nothing is copied: spans point into the caller's read buffer. When the caller moves the bytes of
 * an unfinished head it says so with parser_rebase().
 *
 * Threads: one at a time.
 */
#ifndef TIS_HTTP_PARSER_H
#define TIS_HTTP_PARSER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http/header.h"

enum {
    PARSER_HEADERS_MAX = 100,
    /* Bytes of chunk extensions and the like in front of one chunk, and of all trailers. */
    PARSER_CHUNK_OVERHEAD_BYTES_MAX = 8192,
};

enum parser_result {
    PARSER_MORE,  /* everything was consumed, more is needed */
    PARSER_HEAD,  /* parser_head(): the head is complete */
    PARSER_CHUNK, /* parser_body(): a chunk of chunk_left bytes begins; make room for it */
    PARSER_DONE,  /* parser_body(): the body is complete */
    PARSER_ERROR, /* see status and reason; the connection cannot go on */
};

struct http_parser {
    /* parser.c's: an llhttp_t. Its header stays out of here: it claims names like HTTP_GET. */
    _Alignas(8) unsigned char llhttp[104];
    bool in_body;
    bool url_seen;
    char protocol_first;

    /* The head; valid after PARSER_HEAD. */
    const char *url;
    size_t url_len;
    const char *method_name; /* static text */
    uint32_t header_count;
    bool is_http10;
    bool keep_alive; /* what version and Connection header say together */
    bool is_chunked;
    bool has_content_length;
    uint64_t content_length;
    struct http_header headers[PARSER_HEADERS_MAX];

    /* A chunked body. */
    char *out;             /* set by the caller: where body bytes go; moves on */
    uint64_t chunk_left;   /* of the current chunk, not yet consumed */
    size_t overhead_bytes; /* consumed since the last chunk began, without its data */

    /* After PARSER_ERROR: what to answer, and a short English text. */
    int status;
    const char *reason;
};

/* Ready for the next request. */
void parser_reset(struct http_parser *p);

/* Parses the next bytes of a head. *ret_consumed: how many belonged to it (less than len only with
 * PARSER_HEAD). */
enum parser_result parser_head(struct http_parser *p, const char *data, size_t len,
                               size_t *ret_consumed);
/* The bytes of the head parsed so far have moved by `delta`. */
void parser_rebase(struct http_parser *p, ptrdiff_t delta);

/* Parses the next bytes of a chunked body; its data is moved to p->out, or stays where it is when it
 * already lies there. The caller makes room for chunk_left bytes at p->out after each PARSER_CHUNK
 * and calls again with what was not consumed. */
enum parser_result parser_body(struct http_parser *p, const char *data, size_t len,
                               size_t *ret_consumed);

#endif
