/* exec/host_alias.h - makes foreign plug-ins find their host.
 *
 * A plug-in that was linked against Triton's server library names it in DT_NEEDED: as
 * libtritonserver.so, which is this executable's own SONAME, or, when a Python wheel was made of it,
 * under a name with a hash in it (libtritonserver-717102f0.so). Such a name would pull in a second
 * server, or not be found. So before a plug-in is opened, an empty library with just that SONAME is
 * put into the process; the loader is then content, and the functions come from the executable.
 *
 * Threads: one at a time (the caller holds the lock of the backends).
 */
#ifndef TIS_EXEC_HOST_ALIAS_H
#define TIS_EXEC_HOST_ALIAS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Provides every name of a server library that the shared object at `path` needs. Errors:
 * INVALID_ARG  not a 64-bit ELF file of this kind of machine; UNAVAILABLE. */
MUST_USE tis_error *host_alias_provide(const char *path);

/* The reading part: calls found() for every such name that the file's dynamic section asks for,
 * with the file's ELF machine. Stops at its first error. */
MUST_USE tis_error *host_alias_scan(const char *path, const void *bytes, size_t size,
                                    tis_error *(*found)(const char *name, uint16_t machine));

#endif
