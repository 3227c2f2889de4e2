#include "base/processors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/number.h"

enum {
    FILE_BYTES_MAX = 64 << 10, /* of one file of /sys and /proc */
};

/* ---- Sets ---- */

void processors_add(struct processors *set, uint32_t number)
{
    set->bits[number / 64] |= 1ull << (number % 64);
}

bool processors_has(const struct processors *set, uint32_t number)
{
    return number < PROCESSORS_MAX && (set->bits[number / 64] >> (number % 64) & 1);
}

uint32_t processors_count(const struct processors *set)
{
    uint32_t count = 0;
    for (size_t i = 0; i < ARRAY_LEN(set->bits); i++)
        count += (uint32_t)__builtin_popcountll(set->bits[i]);
    return count;
}

void processors_intersect(struct processors *set, const struct processors *other)
{
    for (size_t i = 0; i < ARRAY_LEN(set->bits); i++)
        set->bits[i] &= other->bits[i];
}

void processors_subtract(struct processors *set, const struct processors *other)
{
    for (size_t i = 0; i < ARRAY_LEN(set->bits); i++)
        set->bits[i] &= ~other->bits[i];
}

/* ---- Lists ---- */

/* One number or range; the last one is the first one of a single number. */
static bool parse_range(const char *text, size_t len, uint64_t *ret_first, uint64_t *ret_last)
{
    const char *dash = memchr(text, '-', len);
    size_t first_len = dash ? (size_t)(dash - text) : len;
    if (!number_parse_u64(text, first_len, ret_first))
        return false;
    *ret_last = *ret_first;
    if (dash && !number_parse_u64(dash + 1, len - first_len - 1, ret_last))
        return false;
    return *ret_first <= *ret_last && *ret_last < PROCESSORS_MAX;
}

tis_error *processors_parse(const char *text, size_t len, struct processors *ret_set)
{
    struct processors set = { 0 };
    for (size_t at = 0; at < len;) {
        const char *comma = memchr(text + at, ',', len - at);
        size_t part = comma ? (size_t)(comma - text) - at : len - at;
        uint64_t first = 0, last = 0;
        if (!parse_range(text + at, part, &first, &last) || at + part + 1 == len)
            return error_new(
                TRITONSERVER_ERROR_INVALID_ARG,
                "'%.*s' at byte %zu is no list of processors (expected numbers below %d "
                "and ranges with commas between them, such as 0-3,8)",
                (int)(len - at < 40 ? len - at : 40), text + at, at, PROCESSORS_MAX);
        for (uint64_t i = first; i <= last; i++)
            processors_add(&set, (uint32_t)i);
        at += part + 1;
    }
    *ret_set = set;
    return NULL;
}

void processors_append(struct bytes *out, const struct processors *set)
{
    bool is_first = true;
    for (uint32_t i = 0; i < PROCESSORS_MAX; i++) {
        if (!processors_has(set, i))
            continue;
        uint32_t last = i;
        while (processors_has(set, last + 1))
            last++;
        bytes_printf(out, "%s%" PRIu32, is_first ? "" : ",", i);
        if (last > i)
            bytes_printf(out, "-%" PRIu32, last);
        is_first = false;
        i = last;
    }
    if (is_first)
        bytes_append_str(out, "none");
}

/* ---- The kernel's files ---- */

/* The file's text without white space at its end, at most FILE_BYTES_MAX bytes; malloc'ed, NULL when
 * it cannot be read. */
static char *read_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    struct bytes text = { 0 };
    for (;;) {
        char *room = bytes_reserve(&text, 4096);
        ssize_t n = room ? read(fd, room, 4096) : 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0 || text.len + (size_t)n > FILE_BYTES_MAX)
            break;
        text.len += (size_t)n;
    }
    close(fd);
    while (text.len > 0 && strchr(" \n", text.data[text.len - 1]))
        text.len--;
    bytes_append(&text, "", 0);
    char *copy = text.failed ? NULL : strndup(bytes_str(&text), text.len);
    bytes_fini(&text);
    return copy;
}

tis_error *processors_read(const char *path, struct processors *ret_set)
{
    char *text = read_file(path);
    if (!text)
        return error_new(TRITONSERVER_ERROR_NOT_FOUND, "cannot read '%s'", path);
    tis_error *err = error_wrap(processors_parse(text, strlen(text), ret_set), "%s", path);
    free(text);
    return err;
}

tis_error *processors_allowed(struct processors *ret_set)
{
    struct processors set = { 0 };
    if (sched_getaffinity(getpid(), sizeof(set), (cpu_set_t *)&set) != 0)
        return error_new(TRITONSERVER_ERROR_INTERNAL, "cannot tell the allowed processors: %s",
                         strerror(errno));
    *ret_set = set;
    return NULL;
}

/* ---- Quotas ---- */

/* quota / period of a text such as "150000 100000"; 0 when there is none ("max", "-1"). */
static uint32_t quota_of(const char *text)
{
    char *end = NULL;
    long long quota = strtoll(text, &end, 10);
    long long period = end != text ? strtoll(end, NULL, 10) : 0;
    if (quota <= 0 || period <= 0)
        return 0;
    long long count = quota / period + (quota % period != 0);
    return count < PROCESSORS_MAX ? (uint32_t)count : 0;
}

/* Version 1 keeps the two numbers in two files. */
static uint32_t quota_in(const char *directory, bool is_v2)
{
    static const char *const files[] = { "cpu.cfs_quota_us", "cpu.cfs_period_us" };
    struct bytes numbers = { 0 };
    for (size_t i = 0; i < (is_v2 ? 1 : ARRAY_LEN(files)); i++) {
        struct bytes path = { 0 };
        bytes_printf(&path, "%s/%s", directory, is_v2 ? "cpu.max" : files[i]);
        char *text = read_file(bytes_str(&path));
        bytes_printf(&numbers, "%s ", text ? text : "-");
        free(text);
        bytes_fini(&path);
    }
    uint32_t count = quota_of(bytes_str(&numbers));
    bytes_fini(&numbers);
    return count;
}

/* The smallest quota of `group` and those it is in. Inside a container the group's path may be the
 * host's: then only the root, which is the container's own group there, is found. */
static uint32_t quota_of_group(const char *mount, const char *group, size_t group_len, bool is_v2)
{
    uint32_t least = 0;
    for (;;) {
        struct bytes directory = { 0 };
        bytes_printf(&directory, "%s%.*s", mount, (int)group_len, group);
        uint32_t count = quota_in(bytes_str(&directory), is_v2);
        bytes_fini(&directory);
        if (count > 0 && (least == 0 || count < least))
            least = count;
        if (group_len == 0)
            return least;
        while (group_len > 0 && group[--group_len] != '/')
            continue;
    }
}

static bool has_controller(const char *list, size_t len, const char *name)
{
    size_t name_len = strlen(name);
    for (size_t at = 0; at < len;) {
        const char *comma = memchr(list + at, ',', len - at);
        size_t part = comma ? (size_t)(comma - list) - at : len - at;
        if (part == name_len && memcmp(list + at, name, part) == 0)
            return true;
        at += part + 1;
    }
    return false;
}

/* A line is "<hierarchy>:<controllers>:<group>"; version 2 has no controllers there. */
uint32_t processors_quota(const char *membership, const char *root)
{
    uint32_t least = 0;
    for (const char *line = membership; *line;) {
        size_t len = strcspn(line, "\n");
        const char *list = memchr(line, ':', len);
        const char *group = list ? memchr(list + 1, ':', len - (size_t)(list + 1 - line)) : NULL;
        size_t list_len = group ? (size_t)(group - list) - 1 : 0;
        if (group && (list_len == 0 || has_controller(list + 1, list_len, "cpu"))) {
            bool is_v2 = list_len == 0;
            struct bytes mount = { 0 };
            bytes_printf(&mount, "%s%s%.*s", root, is_v2 ? "" : "/", (int)list_len, list + 1);
            uint32_t count = quota_of_group(bytes_str(&mount), group + 1,
                                            len - (size_t)(group + 1 - line), is_v2);
            bytes_fini(&mount);
            if (count > 0 && (least == 0 || count < least))
                least = count;
        }
        line += len + (line[len] == '\n');
    }
    return least;
}

uint32_t processors_usable(void)
{
    struct processors set = { 0 };
    error_free(processors_allowed(&set)); /* the empty set counts as 1 below */
    uint32_t count = processors_count(&set);
    char *membership = read_file("/proc/self/cgroup");
    uint32_t quota = membership ? processors_quota(membership, "/sys/fs/cgroup") : 0;
    free(membership);
    if (quota > 0 && quota < count)
        count = quota;
    return count > 0 ? count : 1;
}
