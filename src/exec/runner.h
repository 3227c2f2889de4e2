/* exec/runner.h - the thread that runs instances (for exec/version only).
 *
 * Mostly one instance. All instances on one GPU share a runner when their backend only starts work there
 * and waits for nothing (execution policy DEVICE_BLOCKING); it gives them batches in turn.
 *
 * The plug-in is told of an instance on the thread that will run it, so the threads which an engine
 * makes for it inherit that thread's priority and processors.
 */
#ifndef TIS_EXEC_RUNNER_H
#define TIS_EXEC_RUNNER_H

#include "exec/instance.h"

struct tis_runner {
    /* set before it starts, then constant */
    struct tis_version *version;
    struct tis_instance **instances; /* its own */
    uint32_t instance_count;
    pthread_t thread;
    bool thread_started;
    struct tis_request **requests; /* one batch */
    struct given *given;
    /* its thread, or under the version's lock while it sleeps */
    uint32_t turn;                /* the instance that is next */
    struct limiter_member *asked; /* the instance that last asked the rate limiter; NULL: none */
    struct list granted;          /* other runners' instances, to be woken outside of the lock */
    /* under the version's lock */
    struct tis_runner *idle_next;
    bool is_ready;   /* has initialised its instances, or failed to */
    bool is_leaving; /* shall end after the batch that it runs */
    bool waits;      /* for resources, not in the idle list (exec/resources.h) */
    tis_error *error;
    /* any thread */
    struct park park; /* sleeps here while it is in the version's idle list */
};

/* For `count` instances of v, which runner_add() gives it. */
MUST_USE tis_error *runner_create(struct tis_version *v, uint32_t count,
                                  struct tis_runner **ret_runner);
/* Takes the instance. */
void runner_add(struct tis_runner *r, struct tis_instance *instance);
/* Starts the thread, which takes its place (priority, processors), initialises the instances and then
 * runs what the scheduler gives. */
MUST_USE tis_error *runner_start(struct tis_runner *r);
/* Waits until the instances are initialised. Errors: the plug-in's. */
MUST_USE tis_error *runner_wait_ready(struct tis_runner *r);
/* The thread ends after the batch that it runs, and takes no other. */
void runner_leave(struct tis_runner *r);
/* After runner_leave(): waits for the thread, and for the requests that the plug-in still holds. */
void runner_join(struct tis_runner *r);
/* Finalises the instances. Joined, or never started. NULL is fine. */
void runner_destroy(struct tis_runner *r);

#endif
