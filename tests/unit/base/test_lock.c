/* Locks: ranks are checked (each case dies in a child process), conditions wake and time out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/clock.h"
#include "base/lock.h"

static struct lock registry_lock, version_lock, slab_lock, other_version_lock;

/* Runs fn in a child; the signal it dies of, 0 when it ends well. */
static int signal_of(void (*fn)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        fclose(stderr); /* the report is expected */
        fn();
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void upwards(void)
{
    lock_take(&registry_lock);
    lock_take(&version_lock);
    lock_take(&slab_lock);
    /* Released in any order. */
    lock_release(&version_lock);
    lock_release(&registry_lock);
    lock_release(&slab_lock);
    lock_take(&version_lock);
    lock_release(&version_lock);
}

static void downwards(void)
{
    lock_take(&version_lock);
    lock_take(&registry_lock);
}

static void same_rank(void)
{
    lock_take(&version_lock);
    lock_take(&other_version_lock);
}

static void after_release(void)
{
    lock_take(&registry_lock);
    lock_take(&slab_lock);
    lock_release(&registry_lock);
    lock_take(&version_lock); /* slab is still held */
}

static void test_ranks(void **state)
{
    (void)state;
    lock_init(&registry_lock, LOCK_REGISTRY);
    lock_init(&version_lock, LOCK_VERSION);
    lock_init(&other_version_lock, LOCK_VERSION);
    lock_init(&slab_lock, LOCK_SLAB);
    assert_int_equal(signal_of(upwards), 0);
#ifdef TIS_DEBUG
    assert_int_equal(signal_of(downwards), SIGABRT);
    assert_int_equal(signal_of(same_rank), SIGABRT);
    assert_int_equal(signal_of(after_release), SIGABRT);
#else
    (void)downwards;
    (void)same_rank;
    (void)after_release;
#endif
    lock_fini(&registry_lock);
    lock_fini(&version_lock);
    lock_fini(&other_version_lock);
    lock_fini(&slab_lock);
}

struct shared {
    struct lock lock;
    struct cond cond;
    int value;
};

static void *set_value(void *arg)
{
    struct shared *s = arg;
    lock_take(&s->lock);
    s->value = 1;
    cond_broadcast(&s->cond);
    lock_release(&s->lock);
    return NULL;
}

static void test_conditions(void **state)
{
    (void)state;
    struct shared s = { .value = 0 };
    lock_init(&s.lock, LOCK_VERSION);
    cond_init(&s.cond);

    lock_take(&s.lock);
    uint64_t deadline = clock_ns() + 5 * NS_PER_MS;
    while (clock_ns() < deadline)
        cond_wait_until(&s.cond, &s.lock, deadline);
    assert_int_equal(s.value, 0);

    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, set_value, &s), 0);
    while (s.value == 0)
        cond_wait(&s.cond, &s.lock);
    lock_release(&s.lock);
    pthread_join(thread, NULL);
    cond_fini(&s.cond);
    lock_fini(&s.lock);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_ranks),
                                        cmocka_unit_test(test_conditions) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
