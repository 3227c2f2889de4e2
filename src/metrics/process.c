#include "metrics/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "metrics/family.h"

enum {
    FILE_BYTES_MAX =
        8192 /* /proc/stat is longer with many processors: only its first line counts */
};

/* ---- Reading ---- */

/* The beginning of a file; "" when it cannot be read. */
static void read_file(const char *path, char text[FILE_BYTES_MAX])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? 0 : read(fd, text, FILE_BYTES_MAX - 1);
    text[len > 0 ? len : 0] = '\0';
    if (fd >= 0)
        close(fd);
}

/* proc(5): the name in parentheses may hold anything, also blanks and parentheses. */
void process_parse_self(const char *text, uint64_t page_bytes, struct process_sample *sample,
                        uint64_t *ret_start_ticks)
{
    const char *at = strrchr(text, ')');
    uint64_t threads = 0, start = 0, virtual_bytes = 0, resident = 0;
    if (at)
        sscanf(at + 1,
               " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %" SCNu64
               " %*d %" SCNu64 " %" SCNu64 " %" SCNu64,
               &threads, &start, &virtual_bytes, &resident);
    sample->threads = threads;
    sample->virtual_bytes = virtual_bytes;
    sample->resident_bytes = resident * page_bytes;
    *ret_start_ticks = start;
}

void process_parse_machine(const char *text, struct process_sample *sample)
{
    uint64_t t[8] = { 0 }; /* user nice system idle iowait irq softirq steal */
    sscanf(text,
           "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
           " %" SCNu64,
           &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]);
    uint64_t idle = t[3] + t[4];
    uint64_t all = 0;
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        all += t[i];
    sample->machine_ticks = all;
    sample->machine_busy_ticks = all - idle;
}

static uint64_t memory_line(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    return at ? strtoull(at + strlen(key), NULL, 10) * 1024 : 0;
}

void process_parse_memory(const char *text, struct process_sample *sample)
{
    uint64_t available = memory_line(text, "MemAvailable:");
    sample->memory_bytes = memory_line(text, "MemTotal:");
    sample->memory_used_bytes =
        available < sample->memory_bytes ? sample->memory_bytes - available : 0;
}

static uint64_t count_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd"); /* CLOEXEC, as glibc does it */
    uint64_t count = 0;
    if (!dir)
        return 0;
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count - 1; /* the directory's own */
}

/* The kernel counts from the start of the machine, which is what the wall clock and the boot clock
 * differ by. To the hundredth, as precise as the kernel tells it. */
static double start_of(uint64_t start_ticks)
{
    struct timespec wall, boot;
    clock_gettime(CLOCK_REALTIME, &wall);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    double booted =
        (double)(wall.tv_sec - boot.tv_sec) + (double)(wall.tv_nsec - boot.tv_nsec) / 1e9;
    double secs = booted + (double)start_ticks / (double)sysconf(_SC_CLK_TCK);
    return (double)(uint64_t)(secs * 100) / 100;
}

static void sample_take(struct process_sample *s, bool with_machine)
{
    char text[FILE_BYTES_MAX];
    struct rlimit limit;
    struct timespec cpu = { 0 };
    uint64_t start_ticks;
    *s = (struct process_sample){ .start_secs =
                                      s->start_secs }; /* once: the wall clock may be set */
    read_file("/proc/self/stat", text);
    process_parse_self(text, (uint64_t)sysconf(_SC_PAGESIZE), s, &start_ticks);
    if (s->start_secs == 0)
        s->start_secs = start_of(start_ticks);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    s->cpu_ns = (uint64_t)cpu.tv_sec * NS_PER_SEC + (uint64_t)cpu.tv_nsec;
    s->open_fds = count_descriptors();
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        s->max_fds = limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur;
    if (!with_machine)
        return;
    read_file("/proc/stat", text);
    process_parse_machine(text, s);
    read_file("/proc/meminfo", text);
    process_parse_memory(text, s);
}

/* ---- The page ---- */

void process_metrics_init(struct process_metrics *p, uint64_t interval_ns, bool with_machine)
{
    *p = (struct process_metrics){ .interval_ns = interval_ns, .with_machine = with_machine };
    lock_init(&p->lock, LOCK_STATISTICS);
    sample_take(&p->sample, with_machine); /* utilization is counted from here */
}

void process_metrics_fini(struct process_metrics *p)
{
    lock_fini(&p->lock);
}

/* Under the lock. */
static void refresh(struct process_metrics *p, uint64_t now_ns)
{
    if (p->sampled_ns != 0 && now_ns - p->sampled_ns < p->interval_ns)
        return;
    struct process_sample before = p->sample;
    sample_take(&p->sample, p->with_machine);
    p->sampled_ns = now_ns;
    /* The kernel's sums may run backwards by a little. */
    uint64_t all = p->sample.machine_ticks - before.machine_ticks;
    uint64_t busy = p->sample.machine_busy_ticks - before.machine_busy_ticks;
    if (all > 0 && all <= INT64_MAX && busy <= all)
        p->utilization = (double)busy / (double)all;
}

void process_metrics_write(struct process_metrics *p, uint64_t now_ns, struct exposition *e)
{
    static const struct label_text none;
    static const struct {
        enum family family;
        size_t offset;
        bool of_machine;
    } numbers[] = {
        { FAMILY_PROCESS_RESIDENT, offsetof(struct process_sample, resident_bytes), false },
        { FAMILY_PROCESS_VIRTUAL, offsetof(struct process_sample, virtual_bytes), false },
        { FAMILY_PROCESS_OPEN_FDS, offsetof(struct process_sample, open_fds), false },
        { FAMILY_PROCESS_MAX_FDS, offsetof(struct process_sample, max_fds), false },
        { FAMILY_PROCESS_THREADS, offsetof(struct process_sample, threads), false },
        { FAMILY_CPU_MEMORY_TOTAL, offsetof(struct process_sample, memory_bytes), true },
        { FAMILY_CPU_MEMORY_USED, offsetof(struct process_sample, memory_used_bytes), true },
    };
    lock_take(&p->lock);
    refresh(p, now_ns);
    struct process_sample s = p->sample;
    double utilization = p->utilization;
    lock_release(&p->lock);

    exposition_family(e, &families[FAMILY_PROCESS_CPU]);
    exposition_double(e, none, NULL, (double)s.cpu_ns / 1e9);
    exposition_family(e, &families[FAMILY_PROCESS_START]);
    exposition_double(e, none, NULL, s.start_secs);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        if (numbers[i].of_machine && !p->with_machine)
            continue;
        exposition_family(e, &families[numbers[i].family]);
        uint64_t value;
        memcpy(&value, (const char *)&s + numbers[i].offset, sizeof(value));
        exposition_u64(e, none, NULL, value);
    }
    if (p->with_machine) {
        exposition_family(e, &families[FAMILY_CPU_UTILIZATION]);
        exposition_double(e, none, NULL, utilization);
    }
}
