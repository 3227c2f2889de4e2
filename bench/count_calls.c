/* bench/count_calls.c - counts the calls over the plug-in border.
 *
 * The test host (tests/backends/mini_host.c) is built with -finstrument-functions and this file; at
 * the end the number of calls of its TRITON functions goes to stderr as `border calls: N`. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define PLAIN __attribute__((no_instrument_function))

static unsigned long calls;

void __cyg_profile_func_enter(void *function, void *caller) PLAIN;
void __cyg_profile_func_exit(void *function, void *caller) PLAIN;

void __cyg_profile_func_enter(void *function, void *caller)
{
    Dl_info info;
    (void)caller;
    if (dladdr(function, &info) && info.dli_sname && strncmp(info.dli_sname, "TRITON", 6) == 0)
        calls++;
}

void __cyg_profile_func_exit(void *function, void *caller)
{
    (void)function;
    (void)caller;
}

__attribute__((destructor)) PLAIN static void report(void)
{
    fprintf(stderr, "border calls: %lu\n", calls);
}
