/* exec/plugin_call.h - which plug-in function this thread is inside.
 *
 * Every call across the plug-in border notes itself here, so that a crash report (server/crash) can
 * name the model and the entry point, and so can a line about a plug-in's mistake.
 *
 * Threads: the note is the thread's own; reading it in a signal handler on the same thread is safe.
 */
#ifndef TIS_EXEC_PLUGIN_CALL_H
#define TIS_EXEC_PLUGIN_CALL_H

#include <stdint.h>

#include "base/error.h"

struct plugin_call {
    const char *entry;   /* "TRITONBACKEND_ModelInstanceExecute"; NULL: not inside a plug-in */
    const char *backend; /* its name */
    const char *model;   /* NULL in calls about the backend itself */
    int64_t version;
};

extern _Thread_local struct plugin_call plugin_call;

static inline void plugin_call_begin(const char *entry, const char *backend, const char *model,
                                     int64_t version)
{
    plugin_call = (struct plugin_call){ entry, backend, model, version };
}

static inline void plugin_call_end(void)
{
    plugin_call.entry = 0;
}

/* A plug-in broke a rule of the API, such as answering twice: it is told (INVALID_ARG), and so is
 * the operator. Its name is known only on a thread of ours. */
MUST_USE NEVER_NULL tis_error *misuse(const char *what);

#endif
