/* server/server.h - one server: its parts, wired, started, drained.
 *
 * Several may live in one process; what belongs to the process (signals, limits, exit) is main.c's.
 *
 * Threads: one at a time, usually main; the callback comes on a loading thread.
 */
#ifndef TIS_SERVER_SERVER_H
#define TIS_SERVER_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "server/options.h"

struct server;

/* Where backends are looked for: as asked, else beside the executable. malloc'ed; NULL without
 * memory. */
char *server_backend_directory(const struct options *o, const char *executable);

/* Makes all parts and binds the ports; nothing is served yet. options must outlive the server.
 * executable: path of the running program, for the default backend directory. on_loaded comes once,
 * when every model has finished loading. */
MUST_USE tis_error *server_create(const struct options *options, const char *executable,
                                  void (*on_loaded)(void *arg), void *arg,
                                  struct server **ret_server);
/* Opens the ports and starts to load the models. Errors: a repository cannot be read; with
 * --exit-on-error=false the server then stays up and says so. */
MUST_USE tis_error *server_start(struct server *s);
/* After on_loaded: the server is ready. Errors: the models that failed, one a line, when
 * --exit-on-error says so. */
MUST_USE tis_error *server_set_loaded(struct server *s);

/* Where HTTP is served, or gRPC when HTTP is not: ":8000", or the address of a Unix domain socket. */
void server_address(const struct server *s, char *out, size_t out_bytes);

/* Reads the files of certificates again, for connections to come; those that are wrong are logged
 * and what was read before stays. */
void server_reload(struct server *s);

/* No longer ready, still serving: before server_stop() in a rolling update. */
void server_set_exiting_soon(struct server *s);
/* Refuses new requests, lets those in flight end, unloads the models. False when some were left at
 * the deadline; the server must not be destroyed then. */
bool server_stop(struct server *s, uint64_t deadline_ns);
/* After a server_stop() that returned true, or instead of server_start(). NULL is fine. */
void server_destroy(struct server *s);

#endif
