/* trtserver: what belongs to the process - command line, signals, limits, exit status. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "server/crash.h"
#include "server/options.h"
#include "server/print_config.h"
#include "server/server.h"

/* What the main thread waits for. */
struct events {
    int signals; /* signalfd of SIGINT and SIGTERM; of SIGHUP when there is something to reload */
    int loaded;  /* eventfd: every model has finished loading */
};

static void models_loaded(void *arg)
{
    const struct events *events = arg;
    uint64_t one = 1;
    ssize_t n = write(events->loaded, &one, sizeof(one));
    (void)n; /* an eventfd that nobody has written to takes a 1 */
}

/* SIGINT and SIGTERM are read from a descriptor; no thread may be interrupted by them. A client that
 * goes away must not kill the process by SIGPIPE. */
static tis_error *events_open(const struct options *o, struct events *ret_events)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    if (o->http_ssl.is_used || o->grpc_ssl.is_used)
        sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);

    ret_events->signals = signalfd(-1, &set, SFD_CLOEXEC);
    ret_events->loaded = eventfd(0, EFD_CLOEXEC);
    if (ret_events->signals < 0 || ret_events->loaded < 0)
        return error_new(TRITONSERVER_ERROR_UNAVAILABLE, "cannot open event descriptors: %s",
                         strerror(errno));
    return NULL;
}

/* Many connections need many descriptors: take what the hard limit allows. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void apply_log_options(const struct options *o)
{
    log_set_enabled(LOG_LEVEL_INFO, o->log_info);
    log_set_enabled(LOG_LEVEL_WARNING, o->log_warning);
    log_set_enabled(LOG_LEVEL_ERROR, o->log_error);
    log_set_verbose_level((uint32_t)o->log_verbose);
    log_set_format(strcmp(o->log_format, "ISO8601") == 0 ? LOG_FORMAT_ISO8601 : LOG_FORMAT_DEFAULT);
}

/* Waits until deadline_ns (0: for ever) for a signal; its number, or 0. */
static int wait_signal(const struct events *events, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now = clock_ns();
        int timeout_ms = -1;
        if (deadline_ns != 0)
            timeout_ms = deadline_ns > now ? (int)((deadline_ns - now) / NS_PER_MS) + 1 : 0;
        struct pollfd fd = { .fd = events->signals, .events = POLLIN };
        int n = poll(&fd, 1, timeout_ms);
        if (n == 0)
            return 0;
        struct signalfd_siginfo info;
        if (n > 0 && read(events->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
            return (int)info.ssi_signo;
    }
}

/* Serves until a signal asks for the end; its number. SIGHUP asks for new certificates. Errors: the models that failed to load. */
static tis_error *serve(struct server *server, const struct events *events, int *ret_signal)
{
    struct pollfd fds[] = {
        { .fd = events->signals, .events = POLLIN },
        { .fd = events->loaded, .events = POLLIN },
    };
    for (;;) {
        if (poll(fds, 2, -1) < 0)
            continue;
        if (fds[1].revents) {
            fds[1].fd = -1; /* comes once */
            fds[1].revents = 0;
            tis_error *err = server_set_loaded(server);
            if (err)
                return err;
            char address[256];
            server_address(server, address, sizeof(address));
            printf("Starting server listening on %s\n", address);
            fflush(stdout);
        }
        if (!fds[0].revents)
            continue;
        int number = wait_signal(events, 0);
        if (number != SIGHUP) {
            *ret_signal = number;
            return NULL;
        }
        log_info("reading certificates again (SIGHUP)");
        server_reload(server);
    }
}

/* A second signal ends the process at once. */
static void *second_signal(void *arg)
{
    int number;
    do
        number = wait_signal(arg, 0);
    while (number == SIGHUP);
    log_warning("Interrupt signal (%d) received again. Exiting immediately.", number);
    _exit(EXIT_FAILURE);
}

/* Ends the server within the exit timeout; the process's exit status. */
static int drain(struct server *server, const struct options *o, struct events *events,
                 int signal_number)
{
    log_info("Interrupt signal (%d) received.", signal_number);
    pthread_t thread;
    if (pthread_create(&thread, NULL, second_signal, events) == 0)
        pthread_detach(thread);
    if (o->exit_delay_secs > 0) {
        log_info("not ready, serving on for the exit delay secs=%lu",
                 (unsigned long)o->exit_delay_secs);
        server_set_exiting_soon(server);
        struct timespec delay = { .tv_sec = (time_t)o->exit_delay_secs };
        while (nanosleep(&delay, &delay) != 0 && errno == EINTR)
            continue;
    }
    log_info("Waiting for in-flight inferences to complete.");
    if (!server_stop(server, clock_ns() + o->exit_timeout_secs * NS_PER_SEC)) {
        log_error("Exit timeout expired. Exiting immediately.");
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

/* errors end with the usage hint, as scripts and people expect. */
static int fail(tis_error *err)
{
    fprintf(stderr, "error: creating server: %s - %s\n", error_code_name(error_code(err)),
            error_text(err));
    error_free(err);
    return EXIT_FAILURE;
}

static int run(const struct options *o, const char *executable)
{
    static struct events events; /* the thread that waits for a second signal may outlive run() */
    struct server *server = NULL;
    tis_error *err = events_open(o, &events);
    if (!err)
        err = server_create(o, executable, models_loaded, &events, &server);
    if (err)
        return fail(err);

    int signal_number = 0;
    int status = EXIT_FAILURE;
    err = server_start(server);
    if (!err)
        err = serve(server, &events, &signal_number);
    if (err) {
        status = fail(err);
        if (!server_stop(server, clock_ns() + o->exit_timeout_secs * NS_PER_SEC))
            _exit(EXIT_FAILURE);
    } else {
        status = drain(server, o, &events, signal_number);
        if (status != EXIT_SUCCESS)
            _exit(status); /* threads still run in what would be freed */
    }
    server_destroy(server);
    return status;
}

static int print_configuration(const struct options *o, const char *executable)
{
    log_set_enabled(LOG_LEVEL_INFO, o->log_verbose > 0); /* the answer is what matters */
    tis_error *err = print_model_config(o, executable, stdout);
    if (!err)
        return EXIT_SUCCESS;
    fprintf(stderr, "trtserver: --print-model-config=%s: %s\n", o->print_model_config,
            error_text(err));
    error_free(err);
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    char executable[4096] = "";
    ssize_t len = readlink("/proc/self/exe", executable, sizeof(executable) - 1);
    (void)len; /* "" leaves the backend directory to its other defaults */

    struct options options;
    tis_error *err = options_parse(argc, argv, &options);
    if (err) {
        fprintf(stderr, "trtserver: %s\n", error_text(err));
        fputs("Usage: trtserver --model-store=DIR [OPTION]...; --help lists the options\n", stderr);
        error_free(err);
        return EXIT_FAILURE;
    }
    int status = EXIT_SUCCESS;
    if (options.help) {
        options_print_help(stdout);
    } else if (options.version) {
        puts("trtserver " TIS_VERSION);
    } else {
        apply_log_options(&options);
        crash_install();
        raise_descriptor_limit();
        status = options.print_model_config ? print_configuration(&options, executable)
                                            : run(&options, executable);
    }
    options_fini(&options);
    return status;
}
