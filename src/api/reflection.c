#include "api/reflection.h"

#include <stdbool.h>
#include <string.h>

#include "grpc/server.h"
#include "proto/message.h"
#include "proto/proto_services.h"
#include "proto/wire.h"

enum {
    FILES_MAX = 64
};

/* Fields of ServerReflectionRequest. */
enum {
    REQUEST_HOST = 1,
    REQUEST_FILE = 3,
    REQUEST_SYMBOL = 4,
    REQUEST_EXTENSION = 5,
    REQUEST_EXTENSION_NUMBERS = 6,
    REQUEST_SERVICES = 7,
};

/* Fields of ServerReflectionResponse. */
enum {
    RESPONSE_HOST = 1,
    RESPONSE_REQUEST = 2,
    RESPONSE_FILES = 4,
    RESPONSE_EXTENSION_NUMBERS = 5,
    RESPONSE_SERVICES = 6,
    RESPONSE_ERROR = 7,
};

/* Fields of FileDescriptorProto. */
enum {
    FILE_NAME = 1,
    FILE_PACKAGE = 2,
    FILE_DEPENDENCY = 3,
    FILE_MESSAGE = 4,
    FILE_SERVICE = 6,
};

struct text {
    const char *at;
    size_t len;
};

static struct text text_of(const struct wire_field *f)
{
    return (struct text){ f->data, f->len };
}

static bool text_equals(struct text a, struct text b)
{
    return a.len == b.len && memcmp(a.at, b.at, a.len) == 0;
}

/* Does *symbol begin with the name and a dot? Cuts both off. */
static bool text_skip_scope(struct text *symbol, struct text name)
{
    if (symbol->len <= name.len || symbol->at[name.len] != '.' ||
        memcmp(symbol->at, name.at, name.len) != 0)
        return false;
    symbol->at += name.len + 1;
    symbol->len -= name.len + 1;
    return true;
}

/* The value of a string field; "" when it is not there. */
static struct text text_field(struct text message, uint32_t number)
{
    struct text found = { "", 0 };
    struct wire w = wire_open(message.at, message.len);
    for (struct wire_field f; wire_next(&w, &f);) {
        if (f.number == number)
            found = text_of(&f);
    }
    return found;
}

/* ---- Symbols ---- */

/* What a descriptor can declare: the field that holds it, and what that declares in turn. All of them
 * have their name in field 1. */
struct kind {
    uint32_t number; /* 0: the end of the list */
    const struct kind *inner;
    bool is_open; /* what it declares belongs to the scope around it: an enum's values */
};

static const struct kind in_leaf[] = { { 0 } };
static const struct kind in_enum[] = { { 2, in_leaf, false }, { 0 } };
static const struct kind in_service[] = { { 2, in_leaf, false }, { 0 } };
static const struct kind in_message[] = {
    { 2, in_leaf, false }, /* fields */
    { 3, in_message, false },
    { 4, in_enum, true },
    { 8, in_leaf, false }, /* oneofs */
    { 0 },
};
static const struct kind in_file[] = {
    { FILE_MESSAGE, in_message, false },
    { 5, in_enum, true },
    { FILE_SERVICE, in_service, false },
    { 0 },
};
static const struct kind messages_in_message[] = { { 3, messages_in_message, false }, { 0 } };
static const struct kind messages_in_file[] = { { FILE_MESSAGE, messages_in_message, false },
                                                { 0 } };

static bool declares(struct text descriptor, const struct kind *kinds, struct text symbol)
{
    struct wire w = wire_open(descriptor.at, descriptor.len);
    for (struct wire_field f; wire_next(&w, &f);) {
        const struct kind *kind = kinds;
        while (kind->number && kind->number != f.number)
            kind++;
        if (!kind->number)
            continue;
        struct text inner = symbol, name = text_field(text_of(&f), 1);
        if (text_equals(symbol, name))
            return true;
        if (text_skip_scope(&inner, name) && declares(text_of(&f), kind->inner, inner))
            return true;
        if (kind->is_open && declares(text_of(&f), kind->inner, symbol))
            return true;
    }
    return false;
}

static bool file_declares(struct text file, const struct kind *kinds, struct text symbol)
{
    return text_skip_scope(&symbol, text_field(file, FILE_PACKAGE)) &&
           declares(file, kinds, symbol);
}

/* ---- Files ---- */

struct files {
    struct text all[FILES_MAX];
    bool is_wanted[FILES_MAX];
    uint32_t count;
};

static void files_open(struct files *files)
{
    struct wire w = wire_open((const char *)proto_services, proto_services_len);
    files->count = 0;
    for (struct wire_field f; files->count < FILES_MAX && wire_next(&w, &f);) {
        files->is_wanted[files->count] = false;
        files->all[files->count++] = text_of(&f);
    }
}

/* The file and all that it imports, at any distance. */
static void want(struct files *files, uint32_t index)
{
    if (files->is_wanted[index])
        return;
    files->is_wanted[index] = true;
    struct wire w = wire_open(files->all[index].at, files->all[index].len);
    for (struct wire_field f; wire_next(&w, &f);) {
        for (uint32_t i = 0; f.number == FILE_DEPENDENCY && i < files->count; i++) {
            if (text_equals(text_field(files->all[i], FILE_NAME), text_of(&f)))
                want(files, i);
        }
    }
}

/* ---- Answers; the body of one field of the response ---- */

static void append_error(struct bytes *body, enum grpc_code code, const char *what,
                         struct text name)
{
    struct bytes text = { 0 };
    bytes_append_str(&text, what);
    bytes_append(&text, name.at, name.len);
    wire_append_tag(body, 1, WIRE_VARINT);
    wire_append_varint(body, code);
    wire_append_bytes(body, 2, text.data, text.len);
    body->failed |= text.failed;
    bytes_fini(&text);
}

/* The number of the field that the body is for. */
static uint32_t append_files(struct bytes *body, struct files *files, uint32_t index,
                             const char *what, struct text name)
{
    if (index == files->count) {
        append_error(body, GRPC_NOT_FOUND, what, name);
        return RESPONSE_ERROR;
    }
    want(files, index);
    wire_append_bytes(body, 1, files->all[index].at, files->all[index].len);
    for (uint32_t i = 0; i < files->count; i++) {
        if (files->is_wanted[i] && i != index)
            wire_append_bytes(body, 1, files->all[i].at, files->all[i].len);
    }
    return RESPONSE_FILES;
}

static uint32_t append_file(struct bytes *body, struct files *files, struct text name)
{
    uint32_t i = 0;
    while (i < files->count && !text_equals(text_field(files->all[i], FILE_NAME), name))
        i++;
    return append_files(body, files, i, "file not found: ", name);
}

static uint32_t append_symbol(struct bytes *body, struct files *files, struct text symbol)
{
    uint32_t i = 0;
    while (i < files->count && !file_declares(files->all[i], in_file, symbol))
        i++;
    return append_files(body, files, i, "symbol not found: ", symbol);
}

/* The messages of proto3 have no extensions, so a known type has none. */
static uint32_t append_extension_numbers(struct bytes *body, struct files *files, struct text type)
{
    for (uint32_t i = 0; i < files->count; i++) {
        if (file_declares(files->all[i], messages_in_file, type)) {
            wire_append_bytes(body, 1, type.at, type.len);
            return RESPONSE_EXTENSION_NUMBERS;
        }
    }
    append_error(body, GRPC_NOT_FOUND, "message type not found: ", type);
    return RESPONSE_ERROR;
}

static uint32_t append_services(struct bytes *body, struct files *files)
{
    for (uint32_t i = 0; i < files->count; i++) {
        struct text package = text_field(files->all[i], FILE_PACKAGE);
        struct wire w = wire_open(files->all[i].at, files->all[i].len);
        for (struct wire_field f; wire_next(&w, &f);) {
            if (f.number != FILE_SERVICE)
                continue;
            struct text name = text_field(text_of(&f), 1);
            size_t len = package.len + 1 + name.len;
            wire_append_head(body, 1, wire_bytes_bytes(len));
            wire_append_head(body, 1, len);
            bytes_append(body, package.at, package.len);
            bytes_append_char(body, '.');
            bytes_append(body, name.at, name.len);
        }
    }
    return RESPONSE_SERVICES;
}

/* Of what was asked last, as in any oneof. */
static uint32_t append_body(struct bytes *body, struct files *files, const struct wire_field *asked)
{
    static const struct text nothing = { "", 0 };
    switch (asked->number) {
    case REQUEST_FILE:
        return append_file(body, files, text_of(asked));
    case REQUEST_SYMBOL:
        return append_symbol(body, files, text_of(asked));
    case REQUEST_EXTENSION:
        append_error(body, GRPC_NOT_FOUND,
                     "extension of message type not found: ", text_field(text_of(asked), 1));
        return RESPONSE_ERROR;
    case REQUEST_EXTENSION_NUMBERS:
        return append_extension_numbers(body, files, text_of(asked));
    case REQUEST_SERVICES:
        return append_services(body, files);
    default:
        append_error(body, GRPC_INVALID_ARGUMENT, "the request asks for nothing", nothing);
        return RESPONSE_ERROR;
    }
}

static bool is_extension_request(struct text message)
{
    struct wire w = wire_open(message.at, message.len);
    for (struct wire_field f; wire_next(&w, &f);) {
        if ((f.number == 1 && (f.type != WIRE_BYTES || !utf8_is_valid(f.data, f.len))) ||
            (f.number == 2 && f.type != WIRE_VARINT))
            return false;
    }
    return !w.is_bad;
}

/* Finds host and the last question; false when the bytes are no ServerReflectionRequest. */
static bool read_request(struct text message, struct text *ret_host, struct wire_field *ret_asked)
{
    struct wire w = wire_open(message.at, message.len);
    *ret_host = (struct text){ "", 0 };
    *ret_asked = (struct wire_field){ 0 };
    for (struct wire_field f; wire_next(&w, &f);) {
        if (f.number != REQUEST_HOST && (f.number < REQUEST_FILE || f.number > REQUEST_SERVICES))
            continue;
        if (f.type != WIRE_BYTES ||
            (f.number == REQUEST_EXTENSION ? !is_extension_request(text_of(&f))
                                           : !utf8_is_valid(f.data, f.len)))
            return false;
        if (f.number == REQUEST_HOST)
            *ret_host = text_of(&f);
        else
            *ret_asked = f;
    }
    return !w.is_bad;
}

tis_error *reflection_answer(const char *message, size_t len, struct bytes *out)
{
    struct text request = { len > 0 ? message : "", len }, host;
    struct wire_field asked;
    struct files files;
    struct bytes body = { 0 };
    if (!read_request(request, &host, &asked))
        return error_new(TRITONSERVER_ERROR_INVALID_ARG, "failed to parse the request message");
    files_open(&files);
    uint32_t number = append_body(&body, &files, &asked);
    if (host.len > 0)
        wire_append_bytes(out, RESPONSE_HOST, host.at, host.len);
    wire_append_bytes(out, RESPONSE_REQUEST, request.at, request.len);
    wire_append_bytes(out, number, body.data, body.len);
    out->failed |= body.failed;
    bytes_fini(&body);
    return NULL;
}
