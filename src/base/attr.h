/* base/attr.h - compiler attributes and the few macros that every file uses. */
#ifndef TIS_BASE_ATTR_H
#define TIS_BASE_ATTR_H

#include <stddef.h>

#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define NEVER_NULL __attribute__((returns_nonnull))
#define NORETURN __attribute__((noreturn))

/* Runs `destroyer` on the variable when it leaves its scope. Never together with goto in one
 * function: a jump over the declaration runs the destroyer on garbage. */
#define AUTO(destroyer) __attribute__((cleanup(destroyer)))

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif
