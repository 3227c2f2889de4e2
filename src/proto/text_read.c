/* The reader works in two layers: next_token() cuts the text into tokens that remember where they
 * began; the parse_ functions put values into the message. A wrong value or an unknown field is
 * reported and skipped, so that one run finds many mistakes; after a mistake of form (a missing
 * brace, a stray character) nothing further can be trusted and reading stops. */
#include <limits.h>
#include <stdlib.h>

#include "proto/message.h"
#include "proto/text.h"

enum {
    DEPTH_MAX_DEFAULT = 64,
    ERRORS_MAX_DEFAULT = 20,
    QUOTE_LEN_MAX = 40, /* of the text that an error repeats */
};

enum token_kind {
    TOKEN_END,
    TOKEN_NAME,
    TOKEN_INTEGER,
    TOKEN_FLOAT,
    TOKEN_STRING, /* with its quotes */
    TOKEN_SYMBOL, /* one character */
};

struct token {
    enum token_kind kind;
    const char *start;
    size_t len;
    uint32_t line;
    size_t column;
};

struct parser {
    const struct text_options *options;
    struct arena *arena;
    const char *at;
    const char *end;
    const char *line_start;
    uint32_t line;
    uint32_t depth;
    struct token token; /* the next one */
    struct bytes errors;
    uint32_t error_count;
    bool out_of_memory;
    bool stop;
};

static void parse_fields(struct parser *p, ProtobufCMessage *m, char close);
static void skip_value(struct parser *p);

/* ---- errors ---- */

static void report_at(struct parser *p, const struct token *where, const char *fmt, ...)
    PRINTF(3, 4);

static void report_at(struct parser *p, const struct token *where, const char *fmt, ...)
{
    uint32_t max = p->options->errors_max ? p->options->errors_max : ERRORS_MAX_DEFAULT;
    if (p->stop)
        return;
    if (p->error_count)
        bytes_append_str(&p->errors, "; ");
    if (p->options->file_name)
        bytes_printf(&p->errors, "%s:", p->options->file_name);
    bytes_printf(&p->errors, "%u:%zu: ", where->line, where->column);

    va_list args;
    va_start(args, fmt);
    bytes_vprintf(&p->errors, fmt, args);
    va_end(args);
    if (++p->error_count >= max) {
        bytes_append_str(&p->errors, "; too many errors, reading stopped");
        p->stop = true;
    }
}

static void no_memory(struct parser *p)
{
    p->out_of_memory = true;
    p->stop = true;
}

/* The token as an error repeats it. */
struct quoted {
    char text[QUOTE_LEN_MAX + 8];
};

static struct quoted quote_token(const struct token *t)
{
    struct quoted q;
    struct bytes b = { 0 };

    if (t->kind == TOKEN_END) {
        snprintf(q.text, sizeof(q.text), "end of text");
        return q;
    }
    size_t len = t->len > QUOTE_LEN_MAX ? QUOTE_LEN_MAX : t->len;
    bool escape = false;
    for (size_t i = 0; i < len; i++)
        escape |= t->start[i] < 0x20 || t->start[i] > 0x7e;
    if (escape)
        text_append_escaped(&b, t->start, len);
    else
        bytes_append(&b, t->start, len);
    snprintf(q.text, sizeof(q.text), "'%.*s%s'", QUOTE_LEN_MAX, bytes_str(&b),
             t->len > len || b.len > QUOTE_LEN_MAX ? "..." : "");
    bytes_fini(&b);
    return q;
}

static void report_syntax(struct parser *p, const char *expected)
{
    report_at(p, &p->token, "found %s, expected %s", quote_token(&p->token).text, expected);
    p->stop = true;
}

/* ---- tokens ---- */

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static char peek(const struct parser *p, size_t offset)
{
    return offset < (size_t)(p->end - p->at) ? p->at[offset] : '\0';
}

static void skip_blanks(struct parser *p)
{
    for (; p->at < p->end; p->at++) {
        char c = *p->at;
        if (c == '#') {
            while (p->at < p->end && *p->at != '\n')
                p->at++;
            if (p->at == p->end)
                return;
            c = '\n';
        }
        if (c == '\n') {
            p->line++;
            p->line_start = p->at + 1;
        } else if (c != ' ' && c != '\t' && c != '\r' && c != '\v' && c != '\f') {
            return;
        }
    }
}

static void scan_digits(struct parser *p)
{
    while (is_digit(peek(p, 0)))
        p->at++;
}

static const char *scan_float_rest(struct parser *p)
{
    p->token.kind = TOKEN_FLOAT;
    if (peek(p, 0) == '.') {
        p->at++;
        scan_digits(p);
    }
    if (peek(p, 0) == 'e' || peek(p, 0) == 'E') {
        p->at++;
        if (peek(p, 0) == '-' || peek(p, 0) == '+')
            p->at++;
        if (!is_digit(peek(p, 0)))
            return "'e' must be followed by an exponent";
        scan_digits(p);
    }
    if (peek(p, 0) == 'f' || peek(p, 0) == 'F')
        p->at++;
    return NULL;
}

/* Returns what is wrong with the number, or NULL. */
static const char *scan_number(struct parser *p)
{
    const char *wrong = NULL;

    p->token.kind = TOKEN_INTEGER;
    if (peek(p, 0) == '0' && (peek(p, 1) == 'x' || peek(p, 1) == 'X')) {
        p->at += 2;
        if (hex_value(peek(p, 0)) < 0)
            wrong = "'0x' must be followed by hexadecimal digits";
        while (hex_value(peek(p, 0)) >= 0)
            p->at++;
    } else if (peek(p, 0) == '0' && is_digit(peek(p, 1))) {
        for (; is_digit(peek(p, 0)); p->at++)
            if (peek(p, 0) > '7')
                wrong = "a number that starts with 0 is octal and has the digits 0 to 7 only";
    } else {
        scan_digits(p);
        char c = peek(p, 0);
        if (c == '.' || c == 'e' || c == 'E' || c == 'f' || c == 'F')
            wrong = scan_float_rest(p);
    }
    if (wrong)
        return wrong;
    if (is_letter(peek(p, 0)))
        return "a space is needed between a number and a name";
    if (peek(p, 0) == '.')
        return "a number has one decimal point at most";
    return NULL;
}

static const char *scan_string(struct parser *p)
{
    char quote = *p->at++;

    p->token.kind = TOKEN_STRING;
    for (; p->at < p->end; p->at++) {
        if (*p->at == quote) {
            p->at++;
            return NULL;
        }
        if (*p->at == '\n')
            break;
        if (*p->at == '\\' && peek(p, 1) != '\0' && peek(p, 1) != '\n')
            p->at++;
    }
    return "a string is not closed before the end of its line";
}

static void next_token(struct parser *p)
{
    const char *wrong = NULL;

    skip_blanks(p);
    p->token = (struct token){
        .kind = TOKEN_END,
        .start = p->at,
        .line = p->line,
        .column = (size_t)(p->at - p->line_start) + 1,
    };
    if (p->at == p->end)
        return;

    char c = *p->at;
    if (is_letter(c)) {
        p->token.kind = TOKEN_NAME;
        while (is_letter(peek(p, 0)) || is_digit(peek(p, 0)))
            p->at++;
    } else if (is_digit(c) || (c == '.' && is_digit(peek(p, 1)))) {
        wrong = scan_number(p);
    } else if (c == '"' || c == '\'') {
        wrong = scan_string(p);
    } else {
        p->token.kind = TOKEN_SYMBOL;
        p->at++;
        if (c < 0x20 || c > 0x7e)
            wrong = "this character is only allowed in strings and comments";
    }
    p->token.len = (size_t)(p->at - p->token.start);
    if (wrong) {
        report_at(p, &p->token, "found %s: %s", quote_token(&p->token).text, wrong);
        p->stop = true;
    }
}

static bool looking_at(const struct parser *p, char symbol)
{
    return p->token.kind == TOKEN_SYMBOL && *p->token.start == symbol;
}

static bool take(struct parser *p, char symbol)
{
    if (p->stop || !looking_at(p, symbol))
        return false;
    next_token(p);
    return true;
}

/* ---- strings ---- */

static size_t put_utf8(char *to, uint32_t code)
{
    if (code < 0x80) {
        to[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        to[0] = (char)(0xc0 | code >> 6);
        to[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        to[0] = (char)(0xe0 | code >> 12);
        to[1] = (char)(0x80 | (code >> 6 & 0x3f));
        to[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    to[0] = (char)(0xf0 | code >> 18);
    to[1] = (char)(0x80 | (code >> 12 & 0x3f));
    to[2] = (char)(0x80 | (code >> 6 & 0x3f));
    to[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

static bool read_hex(const char *s, const char *end, unsigned digits, uint32_t *ret_value)
{
    uint32_t value = 0;
    if ((size_t)(end - s) < digits)
        return false;
    for (unsigned i = 0; i < digits; i++) {
        int digit = hex_value(s[i]);
        if (digit < 0)
            return false;
        value = value << 4 | (uint32_t)digit;
    }
    *ret_value = value;
    return true;
}

/* \uXXXX (two of them for a surrogate pair) or \UXXXXXXXX; *at points behind the letter. */
static const char *unescape_unicode(char letter, const char **at, const char *end, char *to,
                                    size_t *ret_len)
{
    unsigned digits = letter == 'u' ? 4 : 8;
    uint32_t code, low;

    if (!read_hex(*at, end, digits, &code))
        return letter == 'u' ? "\\u needs four hexadecimal digits"
                             : "\\U needs eight hexadecimal digits";
    *at += digits;
    if (code >= 0xd800 && code < 0xdc00 && end - *at >= 6 && (*at)[0] == '\\' && (*at)[1] == 'u' &&
        read_hex(*at + 2, end, 4, &low) && low >= 0xdc00 && low < 0xe000) {
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        *at += 6;
    }
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
        return "not a Unicode character";
    *ret_len = put_utf8(to, code);
    return NULL;
}

static size_t scan_byte(const char **at, const char *end, unsigned base, unsigned digits_max,
                        unsigned *ret_value)
{
    size_t count = 0;
    unsigned value = 0;
    for (; count < digits_max && *at < end; count++, (*at)++) {
        int digit = hex_value(**at);
        if (digit < 0 || (unsigned)digit >= base)
            break;
        value = value * base + (unsigned)digit;
    }
    *ret_value = value;
    return count;
}

/* One escape sequence; *at points behind the backslash. Returns what is wrong, or NULL. */
static const char *unescape(const char **at, const char *end, char *to, size_t *ret_len)
{
    static const char names[] = "abfnrtv\\?'\"";
    static const char values[] = "\a\b\f\n\r\t\v\\?'\"";
    unsigned byte;

    if (*at == end)
        return "nothing follows the backslash";
    char c = *(*at)++;
    const char *named = memchr(names, c, sizeof(names) - 1);
    *ret_len = 1;
    if (named) {
        *to = values[named - names];
        return NULL;
    }
    if (c == 'u' || c == 'U')
        return unescape_unicode(c, at, end, to, ret_len);
    if (c == 'x' || c == 'X') {
        if (scan_byte(at, end, 16, 2, &byte) == 0)
            return "\\x needs a hexadecimal digit";
    } else if (c >= '0' && c <= '7') {
        (*at)--;
        scan_byte(at, end, 8, 3, &byte);
        if (byte > 255)
            return "an octal escape goes up to \\377";
    } else {
        return "unknown escape sequence";
    }
    *to = (char)byte;
    return NULL;
}

/* Appends the string token's value. */
static void append_string_token(struct parser *p, struct bytes *b)
{
    const char *at = p->token.start + 1;
    const char *end = p->token.start + p->token.len - 1;
    char decoded[4];
    size_t len;

    while (at < end) {
        const char *backslash = memchr(at, '\\', (size_t)(end - at));
        const char *stop = backslash ? backslash : end;
        bytes_append(b, at, (size_t)(stop - at));
        if (!backslash)
            break;
        at = backslash + 1;
        const char *wrong = unescape(&at, end, decoded, &len);
        if (wrong) {
            struct token where = p->token;
            where.column += (size_t)(backslash - p->token.start);
            report_at(p, &where, "%s", wrong);
            return;
        }
        bytes_append(b, decoded, len);
    }
}

static void parse_string(struct parser *p, const ProtobufCFieldDescriptor *f, void *at)
{
    struct bytes b = { 0 };
    struct token first = p->token;
    uint32_t errors = p->error_count;

    if (first.kind != TOKEN_STRING) {
        report_at(p, &first, "field '%s' has %s, expected a string in quotes", f->name,
                  quote_token(&first).text);
        skip_value(p);
        return;
    }
    while (!p->stop && p->token.kind == TOKEN_STRING) {
        append_string_token(p, &b);
        next_token(p);
    }
    char *copy = b.failed ? NULL : arena_strndup(p->arena, bytes_str(&b), b.len);
    if (!copy) {
        no_memory(p);
    } else if (f->type == PROTOBUF_C_TYPE_BYTES) {
        *(ProtobufCBinaryData *)at = (ProtobufCBinaryData){ b.len, (uint8_t *)copy };
    } else if (errors == p->error_count) {
        if (memchr(copy, '\0', b.len))
            report_at(p, &first, "the string of field '%s' contains a NUL byte", f->name);
        else if (!utf8_is_valid(copy, b.len))
            report_at(p, &first, "the string of field '%s' is not valid UTF-8", f->name);
        *(char **)at = copy;
    }
    bytes_fini(&b);
}

/* ---- numbers, names ---- */

/* The integer token's value; false when it does not fit 64 bits. */
static bool token_u64(const struct token *t, uint64_t *ret_value)
{
    unsigned base = 10;
    size_t i = 0;
    uint64_t value = 0;

    if (t->len > 1 && t->start[0] == '0') {
        bool hex = t->start[1] == 'x' || t->start[1] == 'X';
        base = hex ? 16 : 8;
        i = hex ? 2 : 1;
    }
    for (; i < t->len; i++)
        if (__builtin_mul_overflow(value, base, &value) ||
            __builtin_add_overflow(value, (uint64_t)hex_value(t->start[i]), &value))
            return false;
    *ret_value = value;
    return true;
}

struct integer_range {
    uint64_t magnitude_min; /* of the lowest negative number */
    uint64_t max;
    const char *words;
};

static struct integer_range range_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return (struct integer_range){ 0, UINT32_MAX, "a whole number from 0 to 4294967295" };
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return (struct integer_range){ 0, UINT64_MAX,
                                       "a whole number from 0 to 18446744073709551615" };
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return (struct integer_range){
            (uint64_t)INT64_MAX + 1, INT64_MAX,
            "a whole number from -9223372036854775808 to 9223372036854775807"
        };
    default:
        return (struct integer_range){ (uint64_t)INT32_MAX + 1, INT32_MAX,
                                       "a whole number from -2147483648 to 2147483647" };
    }
}

static void parse_integer(struct parser *p, const ProtobufCFieldDescriptor *f, void *at)
{
    struct integer_range range = range_of(f->type);
    struct token first = p->token;
    bool negative = take(p, '-');
    uint64_t magnitude;

    if (p->stop)
        return;
    if (p->token.kind != TOKEN_INTEGER || !token_u64(&p->token, &magnitude) ||
        magnitude > (negative ? range.magnitude_min : range.max)) {
        report_at(p, &first, "field '%s' has %s%s, expected %s", f->name, negative ? "-" : "",
                  quote_token(&p->token).text, range.words);
        skip_value(p);
        return;
    }
    uint64_t value = negative ? 0 - magnitude : magnitude;
    if (field_value_bytes(f) == 8)
        *(uint64_t *)at = value;
    else
        *(uint32_t *)at = (uint32_t)value;
    next_token(p);
}

static bool token_is_word(const struct token *t, const char *word)
{
    return t->kind == TOKEN_NAME && t->len == strlen(word) &&
           strncasecmp(t->start, word, t->len) == 0;
}

static bool token_is(const struct token *t, const char *text)
{
    return t->len == strlen(text) && memcmp(t->start, text, t->len) == 0;
}

static bool token_double(struct parser *p, double *ret_value)
{
    const struct token *t = &p->token;

    if (token_is_word(t, "inf") || token_is_word(t, "infinity")) {
        *ret_value = __builtin_inf();
        return true;
    }
    if (token_is_word(t, "nan")) {
        *ret_value = __builtin_nan("");
        return true;
    }
    bool decimal =
        t->kind == TOKEN_FLOAT || (t->kind == TOKEN_INTEGER && (t->len == 1 || t->start[0] != '0'));
    if (!decimal)
        return false;
    char *copy = arena_strndup(p->arena, t->start, t->len);
    if (!copy) {
        no_memory(p);
        return false;
    }
    *ret_value = strtod(copy, NULL);
    return true;
}

static void parse_real(struct parser *p, const ProtobufCFieldDescriptor *f, void *at)
{
    struct token first = p->token;
    bool negative = take(p, '-');
    double value;

    if (p->stop)
        return;
    if (!token_double(p, &value)) {
        report_at(p, &first, "field '%s' has %s%s, expected a decimal number", f->name,
                  negative ? "-" : "", quote_token(&p->token).text);
        skip_value(p);
        return;
    }
    if (negative)
        value = -value;
    if (f->type == PROTOBUF_C_TYPE_FLOAT)
        *(float *)at = (float)value;
    else
        *(double *)at = value;
    next_token(p);
}

static void parse_bool(struct parser *p, const ProtobufCFieldDescriptor *f, void *at)
{
    const struct token *t = &p->token;
    uint64_t number;

    bool is_number = t->kind == TOKEN_INTEGER && token_u64(t, &number) && number <= 1;
    bool is_true =
        t->kind == TOKEN_NAME && (token_is(t, "true") || token_is(t, "True") || token_is(t, "t"));
    bool is_false =
        t->kind == TOKEN_NAME && (token_is(t, "false") || token_is(t, "False") || token_is(t, "f"));
    if (!is_number && !is_true && !is_false) {
        report_at(p, t, "field '%s' has %s, expected true or false", f->name, quote_token(t).text);
        skip_value(p);
        return;
    }
    *(protobuf_c_boolean *)at = is_true || (is_number && number == 1);
    next_token(p);
}

/* "TYPE_FP32, TYPE_FP64, ..." for small enums. */
static void append_enum_names(struct bytes *b, const ProtobufCEnumDescriptor *desc)
{
    for (unsigned i = 0; i < desc->n_values; i++)
        bytes_printf(b, "%s%s", i ? ", " : "", desc->values[i].name);
}

static void report_enum(struct parser *p, const ProtobufCFieldDescriptor *f)
{
    const ProtobufCEnumDescriptor *desc = f->descriptor;
    struct bytes names = { 0 };
    struct nearest nearest;

    nearest_init(&nearest, p->token.start, p->token.len);
    for (unsigned i = 0; i < desc->n_values; i++)
        nearest_offer(&nearest, desc->values[i].name);
    const char *meant = p->token.kind == TOKEN_NAME ? nearest_found(&nearest) : NULL;
    append_enum_names(&names, desc);
    report_at(p, &p->token, "field '%s' has %s, expected one of %s%s%s%s", f->name,
              quote_token(&p->token).text, bytes_str(&names), meant ? "; did you mean '" : "",
              meant ? meant : "", meant ? "'?" : "");
    bytes_fini(&names);
}

static void parse_enum(struct parser *p, const ProtobufCFieldDescriptor *f, void *at)
{
    if (p->token.kind == TOKEN_INTEGER || looking_at(p, '-')) {
        /* Enums of proto3 are open: any number is kept. */
        int32_t number = 0;
        parse_integer(p, f, &number);
        *(int *)at = number;
        return;
    }
    const ProtobufCEnumValue *value =
        p->token.kind == TOKEN_NAME
            ? enum_value_by_name(f->descriptor, p->token.start, p->token.len)
            : NULL;
    if (!value) {
        report_enum(p, f);
        skip_value(p);
        return;
    }
    *(int *)at = value->value;
    next_token(p);
}

/* ---- messages ---- */

static bool enter(struct parser *p)
{
    uint32_t max = p->options->depth_max ? p->options->depth_max : DEPTH_MAX_DEFAULT;
    if (p->depth >= max) {
        report_at(p, &p->token, "messages are nested deeper than %u", max);
        p->stop = true;
        return false;
    }
    p->depth++;
    return true;
}

static void parse_message(struct parser *p, const ProtobufCFieldDescriptor *f, void *at)
{
    char close = looking_at(p, '{') ? '}' : looking_at(p, '<') ? '>' : '\0';

    if (!close) {
        report_at(p, &p->token, "field '%s' is a message: found %s, expected '{'", f->name,
                  quote_token(&p->token).text);
        p->stop = true;
        return;
    }
    if (!enter(p))
        return;
    ProtobufCMessage *m = message_create(f->descriptor, p->arena);
    if (!m) {
        no_memory(p);
        return;
    }
    *(ProtobufCMessage **)at = m;
    next_token(p);
    parse_fields(p, m, close);
    p->depth--;
}

static void parse_value(struct parser *p, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
    void *at = field_add(m, f, p->arena);
    if (!at) {
        no_memory(p);
        return;
    }
    switch (f->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        parse_message(p, f, at);
        break;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
        parse_string(p, f, at);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        parse_enum(p, f, at);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        parse_bool(p, f, at);
        break;
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE:
        parse_real(p, f, at);
        break;
    default:
        parse_integer(p, f, at);
        break;
    }
}

static void parse_list(struct parser *p, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
    if (take(p, ']'))
        return;
    while (!p->stop) {
        parse_value(p, m, f);
        if (take(p, ']'))
            return;
        if (!p->stop && !take(p, ','))
            report_syntax(p, "',' or ']' in the list");
    }
}

/* Steps over a value of unknown or wrong type. Recursion is bounded like that of parse_message(). */
static void skip_group(struct parser *p, char close)
{
    if (!enter(p))
        return;
    next_token(p);
    while (!p->stop && !take(p, close)) {
        if (p->token.kind == TOKEN_END) {
            report_at(p, &p->token, "found end of text, expected '%c'", close);
            p->stop = true;
        } else if (looking_at(p, '{') || looking_at(p, '<') || looking_at(p, '[')) {
            skip_value(p);
        } else if (!p->stop) {
            next_token(p);
        }
    }
    p->depth--;
}

static void skip_value(struct parser *p)
{
    if (p->stop)
        return;
    if (looking_at(p, '{')) {
        skip_group(p, '}');
    } else if (looking_at(p, '<')) {
        skip_group(p, '>');
    } else if (looking_at(p, '[')) {
        skip_group(p, ']');
    } else {
        take(p, '-');
        bool string = p->token.kind == TOKEN_STRING;
        if (p->token.kind == TOKEN_SYMBOL || p->token.kind == TOKEN_END)
            report_syntax(p, "a value");
        else
            next_token(p);
        while (string && !p->stop && p->token.kind == TOKEN_STRING)
            next_token(p);
    }
}

static const ProtobufCFieldDescriptor *find_field(const struct parser *p,
                                                  const ProtobufCMessageDescriptor *desc)
{
    const ProtobufCFieldDescriptor *f = message_field(desc, p->token.start, p->token.len);
    for (uint32_t i = 0; !f && i < p->options->alias_count; i++) {
        const struct text_alias *alias = &p->options->aliases[i];
        if (strcmp(alias->message, desc->name) == 0 && token_is(&p->token, alias->alias))
            f = message_field(desc, alias->field, strlen(alias->field));
    }
    return f;
}

static void report_unknown_field(struct parser *p, const ProtobufCMessageDescriptor *desc)
{
    struct nearest nearest;
    nearest_init(&nearest, p->token.start, p->token.len);
    for (unsigned i = 0; i < desc->n_fields; i++)
        nearest_offer(&nearest, desc->fields[i].name);
    const char *meant = nearest_found(&nearest);
    report_at(p, &p->token, "%s has no field named %s%s%s%s", desc->short_name,
              quote_token(&p->token).text, meant ? "; did you mean '" : "", meant ? meant : "",
              meant ? "'?" : "");
}

/* May another value be put into f? Reports why not. */
static bool check_repetition(struct parser *p, const ProtobufCMessage *m,
                             const ProtobufCFieldDescriptor *f, const struct token *name)
{
    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        return true;
    const ProtobufCFieldDescriptor *other = field_oneof_conflict(m, f);
    if (other) {
        report_at(p, name, "'%s' cannot be given together with '%s'", f->name, other->name);
        return false;
    }
    if (field_is_set(m, f)) {
        report_at(p, name, "field '%s' is given twice, but can have one value only", f->name);
        return false;
    }
    return true;
}

static void parse_field(struct parser *p, ProtobufCMessage *m)
{
    struct token name = p->token;

    if (looking_at(p, '[')) {
        report_at(p, &name, "extensions and Any values in brackets are not supported");
        p->stop = true;
        return;
    }
    if (name.kind != TOKEN_NAME) {
        report_syntax(p, "the name of a field");
        return;
    }
    const ProtobufCFieldDescriptor *f = find_field(p, m->descriptor);
    if (!f)
        report_unknown_field(p, m->descriptor);
    next_token(p);
    if (p->stop)
        return;

    bool colon = take(p, ':');
    if (!f || !check_repetition(p, m, f, &name)) {
        skip_value(p);
    } else if (!colon && f->type != PROTOBUF_C_TYPE_MESSAGE) {
        report_at(p, &p->token, "found %s, expected ':' after '%s'", quote_token(&p->token).text,
                  f->name);
        p->stop = true;
    } else if (f->label == PROTOBUF_C_LABEL_REPEATED && take(p, '[')) {
        parse_list(p, m, f);
    } else if (!p->stop) {
        parse_value(p, m, f);
    }
    if (!take(p, ','))
        take(p, ';');
}

/* Up to the closing symbol, or with '\0' to the end of the text. */
static void parse_fields(struct parser *p, ProtobufCMessage *m, char close)
{
    while (!p->stop) {
        if (close ? take(p, close) : p->token.kind == TOKEN_END)
            break;
        if (p->token.kind == TOKEN_END) {
            report_at(p, &p->token, "found end of text, expected '%c'", close);
            p->stop = true;
        }
        if (!p->stop)
            parse_field(p, m);
    }
    if (p->error_count == 0 && !p->stop && !message_settle_maps(m, p->arena))
        no_memory(p);
}

tis_error *text_parse(const ProtobufCMessageDescriptor *desc, const char *text, size_t len,
                      const struct text_options *options, struct arena *a,
                      ProtobufCMessage **ret_message)
{
    static const struct text_options defaults;
    struct parser p = {
        .options = options ? options : &defaults,
        .arena = a,
        .at = text,
        .end = text + len,
        .line_start = text,
        .line = 1,
    };
    tis_error *err = NULL;

    /* Editors on other systems mark UTF-8 files so. */
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        p.line_start = p.at += 3;
    ProtobufCMessage *m = message_create(desc, a);
    if (!m)
        no_memory(&p);
    if (!p.stop)
        next_token(&p);
    if (!p.stop)
        parse_fields(&p, m, '\0');

    if (p.out_of_memory || p.errors.failed)
        err = error_new(TRITONSERVER_ERROR_UNAVAILABLE,
                        "text of %s needs more than %zu bytes of memory", desc->short_name,
                        a->bytes_max);
    else if (p.error_count)
        err = error_new(TRITONSERVER_ERROR_INVALID_ARG, "%s", bytes_str(&p.errors));
    else
        *ret_message = m;
    bytes_fini(&p.errors);
    return err;
}
