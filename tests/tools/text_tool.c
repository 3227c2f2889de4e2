/* text_tool - the codecs of src/proto as a program, for tests that compare them with another
 * implementation: tests/config/test_codec.py.
 *
 * Reads cases from standard input until its end and answers each on standard output. Numbers are
 * 32 bits, little-endian.
 *
 *     case:    form (1 byte: 't' text, 'j' JSON, 'w' wire), name (length, bytes), data (length, bytes)
 *     answer:  1 (1 byte) and four blobs (length, bytes): wire, text in lines, text on one line, JSON
 *              0 (1 byte) and one blob: the error
 *
 * The name is that of a message, such as "inference.ModelConfig". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "proto/json.h"
#include "proto/message.h"
#include "proto/text.h"
#include "proto/v0/api.pb-c.h"
#include "proto/v1/api.pb-c.h"
#include "proto/v1/model_config.pb-c.h"
#include "proto/v1/request_status.pb-c.h"
#include "proto/v1/server_status.pb-c.h"

enum {
    DATA_BYTES_MAX = 64 << 20
};

static const ProtobufCMessageDescriptor *const messages[] = {
    &inference__model_config__descriptor,
    &nvidia__inferenceserver__model_config__descriptor,
    &nvidia__inferenceserver__infer_request_header__descriptor,
    &nvidia__inferenceserver__infer_response_header__descriptor,
    &nvidia__inferenceserver__request_status__descriptor,
    &nvidia__inferenceserver__server_status__descriptor,
    &nvidia__inferenceserver__v0__infer_request_header__descriptor,
    &nvidia__inferenceserver__v0__infer_response_header__descriptor,
};

static void die(const char *why)
{
    fprintf(stderr, "text_tool: %s\n", why);
    exit(EXIT_FAILURE);
}

/* A counted blob, terminated, of exactly its size, so that a sanitizer sees a read behind it. */
static char *read_blob(uint32_t *ret_len)
{
    uint32_t len;
    if (fread(&len, sizeof(len), 1, stdin) != 1 || len > DATA_BYTES_MAX)
        die("a case is cut off or too long");
    char *data = malloc(len ? len : 1);
    if (!data || fread(data, 1, len, stdin) != len)
        die("a case is cut off");
    *ret_len = len;
    return data;
}

static void write_blob(const void *data, size_t len)
{
    uint32_t count = (uint32_t)len;
    fwrite(&count, sizeof(count), 1, stdout);
    fwrite(data, 1, len, stdout);
}

static const ProtobufCMessageDescriptor *find_message(const char *name, size_t len)
{
    for (size_t i = 0; i < ARRAY_LEN(messages); i++)
        if (strlen(messages[i]->name) == len && memcmp(messages[i]->name, name, len) == 0)
            return messages[i];
    die("a case names an unknown message");
    return NULL;
}

static tis_error *read_message(int form, const ProtobufCMessageDescriptor *desc, const char *data,
                               size_t len, struct arena *a, ProtobufCMessage **ret_message)
{
    struct text_options options = { .file_name = "f" };

    if (form == 't')
        return text_parse(desc, data, len, &options, a, ret_message);
    if (form == 'j')
        return json_parse_message(desc, data, len, a, ret_message);
    if (form != 'w')
        die("a case has an unknown form");
    ProtobufCAllocator allocator = message_allocator(a);
    *ret_message = protobuf_c_message_unpack(desc, &allocator, len, (const uint8_t *)data);
    return *ret_message ? NULL : error_new(TRITONSERVER_ERROR_INVALID_ARG, "not a message");
}

static void answer(const ProtobufCMessage *m)
{
    struct bytes b = { 0 };
    size_t packed_bytes = protobuf_c_message_get_packed_size(m);
    uint8_t *packed = malloc(packed_bytes + 1);
    if (!packed)
        die("out of memory");
    write_blob(packed, protobuf_c_message_pack(m, packed));
    free(packed);

    for (enum text_form form = TEXT_LINES; form <= TEXT_ONE_LINE; form++) {
        bytes_clear(&b);
        text_append(&b, m, form);
        write_blob(bytes_str(&b), b.len);
    }
    bytes_clear(&b);
    json_append_message(&b, m);
    write_blob(bytes_str(&b), b.len);
    if (b.failed)
        die("out of memory");
    bytes_fini(&b);
}

int main(void)
{
    for (int form; (form = getchar()) != EOF;) {
        uint32_t name_len, len;
        char *name = read_blob(&name_len);
        char *data = read_blob(&len);
        struct arena a;
        ProtobufCMessage *m = NULL;

        arena_init(&a, NULL, 0, CONFIG_MEMORY_BYTES_MAX);
        tis_error *err = read_message(form, find_message(name, name_len), data, len, &a, &m);
        putchar(err == NULL);
        if (err)
            write_blob(error_text(err), strlen(error_text(err)));
        else
            answer(m);
        error_free(err);
        arena_fini(&a);
        free(data);
        free(name);
    }
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
