/* server/crash.h - what the process says when it dies of a signal.
 *
 * Plug-ins run in this process, and engines do crash. The report names the signal and, when the
 * thread was inside a plug-in, the backend, the entry point, the model and its version; then a stack
 * trace. The process then dies of the signal as it would have, core dump included.
 *
 * Threads: main, once, before any other thread starts.
 */
#ifndef TIS_SERVER_CRASH_H
#define TIS_SERVER_CRASH_H

void crash_install(void);

#endif
