#include "server/crash.h"

#include <execinfo.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/attr.h"
#include "exec/plugin_call.h"

/* Sanitizers report crashes themselves, and better. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum {
    SANITIZED = 1
};
#else
enum {
    SANITIZED = 0
};
#endif

enum {
    FRAMES_MAX = 64,
    STACK_BYTES = 64 << 10,
};

static const struct {
    int number;
    const char *name;
} fatal[] = {
    { SIGSEGV, "SIGSEGV" }, { SIGBUS, "SIGBUS" },   { SIGFPE, "SIGFPE" },
    { SIGILL, "SIGILL" },   { SIGABRT, "SIGABRT" },
};

/* Only write(2) and the like from here on: the heap may be what broke. */
static void say(const char *text)
{
    ssize_t n = write(STDERR_FILENO, text, strlen(text));
    (void)n;
}

static void say_number(int64_t number)
{
    char digits[24];
    char *at = digits + sizeof(digits) - 1;
    *at = '\0';
    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0 && at > digits);
    say(at);
}

static void report(int signal_number, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    const char *name = "signal";
    for (size_t i = 0; i < ARRAY_LEN(fatal); i++) {
        if (fatal[i].number == signal_number)
            name = fatal[i].name;
    }
    say("\n*** trtserver died of ");
    say(name);
    if (plugin_call.entry) {
        say(" inside backend '");
        say(plugin_call.backend);
        say("', in ");
        say(plugin_call.entry);
        if (plugin_call.model) {
            say(" for model '");
            say(plugin_call.model);
            say("' version ");
            say_number(plugin_call.version);
        }
    }
    say(" ***\n");
    void *frames[FRAMES_MAX];
    backtrace_symbols_fd(frames, backtrace(frames, FRAMES_MAX), STDERR_FILENO);
    /* SA_RESETHAND: the default action now kills the process. */
    raise(signal_number);
}

void crash_install(void)
{
    if (SANITIZED)
        return;
    /* The first backtrace() loads libgcc, which a broken process could not. */
    void *warm[1];
    backtrace(warm, 1);

    stack_t stack = { .ss_sp = malloc(STACK_BYTES), .ss_size = STACK_BYTES };
    if (stack.ss_sp)
        sigaltstack(&stack, NULL);
    struct sigaction action = { .sa_sigaction = report };
    action.sa_flags = SA_SIGINFO | (int)SA_RESETHAND | SA_ONSTACK | SA_NODEFER;
    for (size_t i = 0; i < ARRAY_LEN(fatal); i++)
        sigaction(fatal[i].number, &action, NULL);
}
