/* bench/ready.c - how long a server takes from exec to its first 200, and its memory then.
 *
 *   ready PORT PATH COMMAND [ARGUMENT ...]
 *
 * Starts the command with its output to /dev/null, asks 127.0.0.1:PORT for PATH every 200 us until
 * the answer's status is 200, prints `MILLISECONDS RSS_KIB`, ends the server with SIGTERM.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    GIVE_UP_SECONDS = 30,
    ASK_EVERY_US = 200
};

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* One connection, one question; the status, or 0 when there was none. */
static int ask(int port, const char *path)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    struct timeval patience = { .tv_sec = 2 };
    char text[1024];
    int status = 0;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0) {
        int n = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);
        if (write(fd, text, (size_t)n) == n) {
            ssize_t got = read(fd, text, sizeof(text) - 1);
            text[got > 0 ? got : 0] = '\0';
            if (sscanf(text, "HTTP/%*s %d", &status) != 1)
                status = 0;
        }
    }
    close(fd);
    return status;
}

static long rss_kib(pid_t pid)
{
    char line[256];
    long kib = -1;
    snprintf(line, sizeof(line), "/proc/%d/status", (int)pid);
    FILE *f = fopen(line, "re");
    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "VmRSS: %ld", &kib) == 1)
            break;
    }
    if (f)
        fclose(f);
    return kib;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: ready PORT PATH COMMAND [ARGUMENT ...]\n");
        return 2;
    }
    int port = (int)strtol(argv[1], NULL, 10);
    uint64_t started = now_ns();
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        execvp(argv[3], argv + 3);
        _exit(127);
    }

    int rc = 1;
    while (pid > 0 && now_ns() - started < GIVE_UP_SECONDS * 1000000000ull) {
        if (ask(port, argv[2]) == 200) {
            printf("%.2f %ld\n", (double)(now_ns() - started) / 1e6, rss_kib(pid));
            rc = 0;
            break;
        }
        if (waitpid(pid, NULL, WNOHANG) == pid) {
            fprintf(stderr, "ready: %s ended before it was ready\n", argv[3]);
            return 1;
        }
        usleep(ASK_EVERY_US);
    }
    if (pid > 0) {
        kill(pid, SIGTERM);
        waitpid(pid, NULL, 0);
    }
    return rc;
}
