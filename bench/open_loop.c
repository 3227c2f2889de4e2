/* Requests at a fixed rate, whatever the server does: an open loop, as users are.
 *
 *   open_loop PORT PATH HEADER_BYTES BODY_FILE CONNECTIONS RATE SECONDS
 *
 * One v2 inference (JSON of HEADER_BYTES, then tensors) is due every 1/RATE s. It goes out on a connection
 * that has none under way; when there is no such connection it waits, and its latency counts from the
 * moment when it was due, so a server that stalls cannot hide it (wrk's closed loop does). Prints
 *
 *   SENT DONE ERRORS P50_US P99_US MAX_US
 *
 * ERRORS: answers other than 200. Exit status 1 when a connection breaks.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 1024,
    ANSWER_BYTES_MAX = 1 << 20,
};

struct connection {
    int fd;
    uint64_t due_ns; /* of the request under way */
    size_t len;
    char *answer;
};

static struct connection connections[CONNECTIONS_MAX];
static struct connection *idle[CONNECTIONS_MAX];
static int idle_count;
static uint32_t *latencies_us;
static uint64_t sent, done, errors;

static void die(const char *what)
{
    fprintf(stderr, "open_loop: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int connect_to(int port)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

static char *make_request(const char *path, const char *header_bytes, const char *file,
                          size_t *ret_len)
{
    static char body[16 << 20];
    FILE *f = fopen(file, "rb");
    if (!f)
        die(file);
    size_t body_len = fread(body, 1, sizeof(body), f);
    fclose(f);
    char head[1024];
    int head_len = snprintf(head, sizeof(head),
                            "POST %s HTTP/1.1\r\nHost: localhost\r\n"
                            "Content-Type: application/octet-stream\r\n"
                            "Inference-Header-Content-Length: %s\r\nContent-Length: %zu\r\n\r\n",
                            path, header_bytes, body_len);
    char *request = malloc((size_t)head_len + body_len);
    if (!request)
        die("memory");
    memcpy(request, head, (size_t)head_len);
    memcpy(request + head_len, body, body_len);
    *ret_len = (size_t)head_len + body_len;
    return request;
}

static void send_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n < 0)
            die("send");
        data += n;
        len -= (size_t)n;
    }
}

/* Is the answer whole? Heads of both servers have a Content-Length. */
static int is_whole(const struct connection *c)
{
    c->answer[c->len] = '\0';
    const char *end = strstr(c->answer, "\r\n\r\n");
    if (!end)
        return 0;
    const char *length = strcasestr(c->answer, "\r\ncontent-length:");
    if (!length || length > end)
        die("an answer without Content-Length");
    size_t head = (size_t)(end + 4 - c->answer);
    return c->len >= head + strtoull(length + 17, NULL, 10);
}

static void receive(struct connection *c)
{
    ssize_t n = recv(c->fd, c->answer + c->len, ANSWER_BYTES_MAX - c->len, 0);
    if (n <= 0)
        die("recv");
    c->len += (size_t)n;
    if (!is_whole(c))
        return;
    errors += strncmp(c->answer, "HTTP/1.1 200 ", 13) != 0;
    latencies_us[done++] = (uint32_t)((now_ns() - c->due_ns) / 1000);
    c->len = 0;
    idle[idle_count++] = c;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    if (argc != 8)
        return 2;
    int count = (int)strtol(argv[5], NULL, 10);
    double rate = atof(argv[6]);
    uint64_t total = (uint64_t)(rate * atof(argv[7]));
    size_t request_len;
    char *request = make_request(argv[2], argv[3], argv[4], &request_len);
    latencies_us = calloc(total + 1, sizeof(*latencies_us));
    int epoll = epoll_create1(0);
    if (count < 1 || count > CONNECTIONS_MAX || !latencies_us || epoll < 0)
        return 2;
    prctl(PR_SET_TIMERSLACK, 1000);
    for (int i = 0; i < count; i++) {
        struct connection *c = &connections[i];
        struct epoll_event e = { .events = EPOLLIN, .data.ptr = c };
        c->fd = connect_to((int)strtol(argv[1], NULL, 10));
        c->answer = malloc(ANSWER_BYTES_MAX + 1);
        epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e);
        idle[idle_count++] = c;
    }

    uint64_t start_ns = now_ns();
    uint64_t deadline_ns = start_ns + (uint64_t)((atof(argv[7]) + 10) * 1e9);
    while (done < total && now_ns() < deadline_ns) {
        uint64_t due_ns = start_ns + (uint64_t)((double)sent / rate * 1e9);
        while (sent < total && idle_count > 0 && due_ns <= now_ns()) {
            struct connection *c = idle[--idle_count];
            c->due_ns = due_ns;
            send_all(c->fd, request, request_len);
            sent++;
            due_ns = start_ns + (uint64_t)((double)sent / rate * 1e9);
        }
        uint64_t now = now_ns();
        int64_t wait_ns = sent < total && idle_count > 0 ? (int64_t)(due_ns - now) : 100000000;
        if (wait_ns < 0)
            wait_ns = 0;
        struct timespec wait = { wait_ns / 1000000000, wait_ns % 1000000000 };
        struct epoll_event events[64];
        int n = epoll_pwait2(epoll, events, 64, &wait, NULL);
        for (int i = 0; i < n; i++)
            receive(events[i].data.ptr);
    }
    qsort(latencies_us, done, sizeof(*latencies_us), compare);
    printf("%llu %llu %llu %u %u %u\n", (unsigned long long)sent, (unsigned long long)done,
           (unsigned long long)errors, latencies_us[done / 2], latencies_us[done * 99 / 100],
           latencies_us[done ? done - 1 : 0]);
    return 0;
}
