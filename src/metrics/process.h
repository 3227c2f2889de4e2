/* metrics/process.h - what the kernel says about the process and the machine.
 *
 * Reading it costs system calls and, for the count of descriptors, time in proportion to them, so a
 * sample is taken at most once an interval, when somebody asks. Nothing runs in between.
 *
 * Threads: any; a leaf lock, held while a sample is read.
 */
#ifndef TIS_METRICS_PROCESS_H
#define TIS_METRICS_PROCESS_H

#include <stdint.h>

#include "base/lock.h"
#include "metrics/exposition.h"

/* What could not be read is zero. */
struct process_sample {
    uint64_t cpu_ns; /* of the process */
    uint64_t resident_bytes;
    uint64_t virtual_bytes;
    uint64_t open_fds;
    uint64_t max_fds; /* UINT64_MAX: no limit */
    uint64_t threads;
    double start_secs;      /* since the epoch */
    uint64_t machine_ticks; /* of all processors, since the start of the machine */
    uint64_t machine_busy_ticks;
    uint64_t memory_bytes;
    uint64_t memory_used_bytes;
};

struct process_metrics {
    /* set by process_metrics_init(), then constant */
    uint64_t interval_ns;
    bool with_machine; /* --allow-cpu-metrics */
    /* any thread, under lock */
    struct lock lock;
    uint64_t sampled_ns; /* 0: not yet */
    struct process_sample sample;
    double utilization; /* of the machine, between the last two samples */
};

void process_metrics_init(struct process_metrics *p, uint64_t interval_ns, bool with_machine);
void process_metrics_fini(struct process_metrics *p);
/* Writes the families of the process and, unless told otherwise, of the machine. */
void process_metrics_write(struct process_metrics *p, uint64_t now_ns, struct exposition *e);

/* For tests: the parts of a sample that stand in these texts, in the form of /proc/self/stat,
 * /proc/stat and /proc/meminfo. */
void process_parse_self(const char *text, uint64_t page_bytes, struct process_sample *sample,
                        uint64_t *ret_start_ticks);
void process_parse_machine(const char *text, struct process_sample *sample);
void process_parse_memory(const char *text, struct process_sample *sample);

#endif
