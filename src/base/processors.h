/* base/processors.h - sets of processors: which ones exist, which ones this process may use, and how
 * many of them at the same time.
 *
 * A container's limits come in two kinds. Its cpuset takes processors away; the kernel folds it into
 * every thread's affinity. Its CPU quota leaves all of them and stops everybody for the rest of the
 * period once the time is spent, so more threads than the quota has processors only run into it.
 *
 * Threads: any. Nothing is remembered.
 */
#ifndef TIS_BASE_PROCESSORS_H
#define TIS_BASE_PROCESSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

enum {
    PROCESSORS_MAX = 8192, /* the largest number of a Linux kernel */
};

/* Bit i of word i / 64: processor i. The form in which the kernel takes affinities. */
struct processors {
    uint64_t bits[PROCESSORS_MAX / 64];
};

void processors_add(struct processors *set, uint32_t number);
bool processors_has(const struct processors *set, uint32_t number);
uint32_t processors_count(const struct processors *set);
/* Takes out what is not in `other` too. */
void processors_intersect(struct processors *set, const struct processors *other);
/* Takes out what is in `other`. */
void processors_subtract(struct processors *set, const struct processors *other);

/* Reads a list such as "0-3,8"; "" is the empty set.
 * Errors: INVALID_ARG, with the place. */
MUST_USE tis_error *processors_parse(const char *text, size_t len, struct processors *ret_set);
/* Appends such a list, "none" for the empty set. */
void processors_append(struct bytes *out, const struct processors *set);

/* Reads a list from a file of /sys. Errors: NOT_FOUND  it cannot be read; those of processors_parse(). */
MUST_USE tis_error *processors_read(const char *path, struct processors *ret_set);

/* Those that this process may use: its affinity, which its cpuset bounds. */
MUST_USE tis_error *processors_allowed(struct processors *ret_set);

/* How many of them it may keep busy at the same time: their number, or less by a CPU quota. At least 1. */
uint32_t processors_usable(void);

/* The processors that a CPU quota is worth, rounded up; 0: no quota. For processors_usable() and its
 * tests.
 *   membership  the text of /proc/self/cgroup
 *   root        where control groups are mounted */
uint32_t processors_quota(const char *membership, const char *root);

#endif
