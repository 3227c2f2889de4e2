/* The instances of a version, with a real plug-in (tests/backends/bad/bad.c) and GPUs that are not
 * there: who runs on which thread, how instances are called, what a change of the groups keeps, makes
 * and ends while requests are under way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alarm.h"
#include "base/log.h"
#include "exec/runner.h"
#include "unit/exec/fixture.h"

#define DEADLINE_NS (SECONDS_MAX * NS_PER_SEC)

static char root[] = "/tmp/test_groups_XXXXXX";
static struct alarms *alarms;
static sem_t unused; /* the version is */

static int set_up(void **state)
{
    (void)state;
    sem_init(&unused, 0, 0);
    if (!make_backends(root) || alarms_create(&alarms) != NULL)
        return -1;
    log_set_enabled(LOG_LEVEL_INFO, false);
    log_set_enabled(LOG_LEVEL_WARNING, false);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    alarms_destroy(alarms);
    return folder_remove(root);
}

/* ---- A version ---- */

struct fixture {
    struct backends *backends;
    struct tis_version *version;
};

/* The last reference may go on an instance's thread, which cannot end itself. */
static void on_unused(struct tis_version *version, void *arg)
{
    (void)version;
    (void)arg;
    assert_int_equal(sem_post(&unused), 0);
}

static struct model_config *configure(const char *mode, const char *groups, uint32_t gpu_count)
{
    char text[1024];
    struct config_builder *b = NULL;
    struct model_config *config = NULL;
    const struct config_context context = { .directory_name = "m", .gpu_count = gpu_count };
    int len = snprintf(text, sizeof(text),
                       "name: 'm' backend: 'unit' "
                       "input { name: 'INPUT0' data_type: TYPE_INT32 dims: 4 } "
                       "output { name: 'OUTPUT0' data_type: TYPE_INT32 dims: 4 } "
                       "parameters { key: 'mode' value { string_value: '%s' } } %s",
                       mode, groups);
    assert_null(config_parse_text(text, (size_t)len, NULL, &b));
    assert_null(config_normalize(b, &context));
    assert_null(config_validate(b, &context));
    assert_null(config_finish(&b, &config));
    return config;
}

/* key, value: a setting of the backend, or NULL. */
static tis_error *try_create(struct fixture *f, const char *mode, const char *key,
                             const char *value, const char *groups, uint32_t gpu_count)
{
    const struct backend_setting setting = { "unit", key, value };
    struct model_config *config = configure(mode, groups, gpu_count);
    *f = (struct fixture){ 0 };
    assert_null(backends_create(&(struct backends_options){ .directory = root,
                                                            .settings = &setting,
                                                            .setting_count = key ? 1 : 0 },
                                &f->backends));
    tis_error *err = version_create(
        &(struct tis_version_options){
            .backends = f->backends,
            .alarms = alarms,
            .model_name = "m",
            .number = 1,
            .directory = root,
            .config = config,
            .gpu_count = gpu_count,
            .on_unused = on_unused,
        },
        &f->version);
    config_unref(config);
    return err;
}

static void create_mode(struct fixture *f, const char *mode, const char *key, const char *value,
                        const char *groups, uint32_t gpu_count)
{
    assert_null(try_create(f, mode, key, value, groups, gpu_count));
}

static void create(struct fixture *f, const char *key, const char *value, const char *groups,
                   uint32_t gpu_count)
{
    create_mode(f, "place", key, value, groups, gpu_count);
}

static void end(struct fixture *f)
{
    version_unref(f->version);
    wait_for(&unused);
    version_destroy(f->version);
    backends_destroy(f->backends);
}

/* "a_0_cpu a_1_cpu|b_0_gpu0": the instances, those of one thread joined by blanks. */
static void assert_threads(const struct fixture *f, const char *expected)
{
    struct bytes found = { 0 };
    const struct tis_version *v = f->version;
    for (uint32_t r = 0; r < v->runner_count; r++) {
        for (uint32_t i = 0; i < v->runners[r]->instance_count; i++)
            bytes_printf(&found, "%s%s", i ? " " : (r ? "|" : ""),
                         v->runners[r]->instances[i]->name);
    }
    assert_string_equal(bytes_str(&found), expected);
    bytes_fini(&found);
}

/* ---- Requests ---- */

static void submit(struct ticket *t, struct tis_version *v)
{
    static const int32_t zeros[4] = { 0 };
    assert_null(ticket_try_submit(t, v, zeros));
}

struct place {
    int32_t thread, device, kind, zero;
};

static struct place finish(struct ticket *t)
{
    struct place place;
    struct tis_response *r = ticket_wait(t);
    assert_null(r->error);
    memcpy(&place, response_find_output(r, "OUTPUT0")->buffer->base, sizeof(place));
    ticket_end(t);
    return place;
}

/* ---- Tests ---- */

static const char TWO_GPUS[] = "instance_group [ { name: 'g' kind: KIND_GPU count: 2 }, "
                               "{ name: 'c' kind: KIND_CPU count: 2 }, "
                               "{ name: 'h' kind: KIND_GPU gpus: 1 } ]";

static void test_a_thread_for_each_instance(void **state)
{
    (void)state;
    struct fixture f;
    create(&f, NULL, NULL, TWO_GPUS, 2);
    assert_threads(&f, "g_0_gpu0|g_1_gpu0|g_0_gpu1|g_1_gpu1|c_0_cpu|c_1_cpu|h_0_gpu1");
    end(&f);
}

/* Instances of one GPU share a thread, also those of different groups; CPU instances do not. */
static void test_device_blocking(void **state)
{
    (void)state;
    enum {
        COUNT = 60
    };
    struct fixture f;
    static struct ticket tickets[COUNT];
    int32_t threads[2] = { 0 }, cpu_threads[2] = { 0 };
    create(&f, "execution", "device_blocking", TWO_GPUS, 2);
    assert_threads(&f, "c_0_cpu|c_1_cpu|g_0_gpu0 g_1_gpu0|g_0_gpu1 g_1_gpu1 h_0_gpu1");
    uint64_t deadline = clock_ns() + DEADLINE_NS;
    while (!(threads[0] && threads[1] && cpu_threads[0] && cpu_threads[1])) {
        assert_true(clock_ns() < deadline);
        for (int i = 0; i < COUNT; i++)
            submit(&tickets[i], f.version);
        for (int i = 0; i < COUNT; i++) {
            struct place p = finish(&tickets[i]);
            if (p.kind == TRITONSERVER_INSTANCEGROUPKIND_GPU) {
                assert_in_range(p.device, 0, 1);
                assert_true(threads[p.device] == 0 || threads[p.device] == p.thread);
                threads[p.device] = p.thread;
            } else if (cpu_threads[0] == 0 || cpu_threads[0] == p.thread) {
                cpu_threads[0] = p.thread;
            } else {
                assert_true(cpu_threads[1] == 0 || cpu_threads[1] == p.thread);
                cpu_threads[1] = p.thread;
            }
        }
    }
    assert_int_not_equal(threads[0], threads[1]);
    end(&f);
}

static void test_preferred_group(void **state)
{
    (void)state;
    struct fixture f;
    /* GPU 3, which it would like best, is not there. */
    create(&f, "prefers", "model", "", 0);
    assert_threads(&f, "m_0_model|m_1_model|m_2_model");
    assert_int_equal(f.version->config->message->instance_group[0]->count, 3);
    end(&f);
    create(&f, "prefers", "model", "", 4);
    assert_threads(&f, "m_0_gpu3");
    end(&f);
    /* A group in the configuration is not replaced. */
    create(&f, "prefers", "model", "instance_group { name: 'a' }", 0);
    assert_threads(&f, "a_0_cpu");
    end(&f);
    create(&f, NULL, NULL, "", 0);
    assert_threads(&f, "m_0_cpu");
    end(&f);
    /* What it prefers has the bounds of what a configuration asks for. */
    tis_error *err = try_create(&f, "place", "prefers", "many", "", 0);
    assert_non_null(err);
    assert_non_null(strstr(error_text(err), "too many instances"));
    error_free(err);
    backends_destroy(f.backends);
}

static void change(struct fixture *f, const char *groups, const char *expected)
{
    struct model_config *config = configure("place", groups, f->version->gpu_count);
    assert_null(version_set_groups(f->version, config));
    config_unref(config);
    assert_threads(f, expected);
}

static void test_change(void **state)
{
    (void)state;
    enum {
        COUNT = 20
    };
    struct fixture f;
    static struct ticket tickets[COUNT];
    create(&f, NULL, NULL, "instance_group { name: 'a' count: 2 }", 0);
    struct tis_runner *first = f.version->runners[0], *second = f.version->runners[1];
    for (int i = 0; i < COUNT; i++)
        submit(&tickets[i], f.version);
    change(&f, "instance_group { name: 'a' count: 4 }", "a_0_cpu|a_1_cpu|a_2_cpu|a_3_cpu");
    assert_ptr_equal(f.version->runners[0], first); /* what is still asked for goes on */
    assert_ptr_equal(f.version->runners[1], second);
    change(&f, "instance_group { name: 'a' }", "a_0_cpu");
    assert_ptr_equal(f.version->runners[0], first);
    change(&f, "instance_group { name: 'b' count: 2 }", "b_0_cpu|b_1_cpu");
    /* Other settings are other instances, though they have the same name. */
    first = f.version->runners[0];
    change(&f, "instance_group { name: 'b' count: 2 host_policy: 'p' }", "b_0_cpu|b_1_cpu");
    assert_ptr_not_equal(f.version->runners[0], first);
    for (int i = 0; i < COUNT; i++)
        finish(&tickets[i]);

    /* The plug-in is told the new groups, requests are still checked against the same configuration. */
    struct model_config *shown = version_config(f.version);
    assert_non_null(strstr(shown->json, "\"host_policy\":\"p\""));
    assert_null(strstr(f.version->config->json, "\"host_policy\":\"p\""));
    config_unref(shown);
    submit(&tickets[0], f.version);
    finish(&tickets[0]);
    end(&f);
}

/* Two groups of the same name have instances of the same names: each goes on once. */
static void test_change_of_groups_with_one_name(void **state)
{
    (void)state;
    struct fixture f;
    create(&f, NULL, NULL, "instance_group [ { name: 'a' }, { name: 'a' } ]", 0);
    struct tis_runner *first = f.version->runners[0], *second = f.version->runners[1];
    change(&f, "instance_group [ { name: 'a' }, { name: 'a' }, { name: 'b' } ]",
           "a_0_cpu|a_0_cpu|b_0_cpu");
    assert_ptr_equal(f.version->runners[0], first);
    assert_ptr_equal(f.version->runners[1], second);
    end(&f);
}

/* Instances of a GPU with one thread change together. */
static void test_change_of_shared_threads(void **state)
{
    (void)state;
    struct fixture f;
    create(&f, "execution", "device_blocking", "instance_group { name: 'g' kind: KIND_GPU }", 2);
    struct tis_runner *second = f.version->runners[1];
    assert_threads(&f, "g_0_gpu0|g_0_gpu1");
    change(&f,
           "instance_group [ { name: 'g' kind: KIND_GPU }, { name: 'h' kind: KIND_GPU gpus: 0 } ]",
           "g_0_gpu0 h_0_gpu0|g_0_gpu1");
    assert_ptr_equal(f.version->runners[1], second);
    change(&f, "instance_group { name: 'g' kind: KIND_GPU gpus: 1 }", "g_0_gpu1");
    assert_ptr_equal(f.version->runners[0], second);
    end(&f);
}

/* An instance that cannot be initialised changes nothing. */
static void test_failed_change(void **state)
{
    (void)state;
    struct fixture f;
    struct ticket ticket;
    create(&f, "fails_from", "2", "instance_group { name: 'a' count: 2 }", 0);
    struct model_config *config = configure("place", "instance_group { name: 'a' count: 5 }", 0);
    tis_error *err = version_set_groups(f.version, config);
    assert_non_null(err);
    assert_non_null(strstr(error_text(err), "enough instances"));
    error_free(err);
    config_unref(config);
    assert_threads(&f, "a_0_cpu|a_1_cpu");
    submit(&ticket, f.version);
    finish(&ticket);
    end(&f);
}

/* Requests that the plug-in answers long after Execute has returned are waited for before their
 * instance is finalised. */
static void test_open_requests(void **state)
{
    (void)state;
    enum {
        COUNT = 3
    };
    struct fixture f;
    struct ticket tickets[COUNT];
    create_mode(&f, "late", NULL, NULL, "instance_group { name: 'a' count: 2 }", 0);
    for (int i = 0; i < COUNT; i++)
        submit(&tickets[i], f.version);
    uint64_t deadline = clock_ns() + DEADLINE_NS;
    while (version_pending(f.version) > 0) {
        assert_true(clock_ns() < deadline);
        usleep(1000); /* polls an event: they were taken */
    }
    /* The answers come after 200 ms. */
    change(&f, "instance_group { name: 'b' }", "b_0_cpu");
    for (int i = 0; i < COUNT; i++) {
        assert_non_null(tickets[i].response);
        finish(&tickets[i]);
    }
    end(&f);
}

/* ---- Changes under load ---- */

struct load {
    struct tis_version *version;
    _Atomic bool stop;
    _Atomic uint32_t answered;
};

static void *load_run(void *arg)
{
    struct load *load = arg;
    while (!load->stop) {
        struct ticket t;
        submit(&t, load->version);
        finish(&t);
        version_is_ready(load->version);
        load->answered++;
    }
    return NULL;
}

/* No request is lost while instances come and go, and nobody asks one that has gone. */
static void test_changes_under_load(void **state)
{
    (void)state;
    static const uint32_t counts[] = { 3, 1, 4, 2, 1, 3, 2, 4, 1, 2 };
    struct fixture f;
    struct load load = { 0 };
    pthread_t threads[4];
    create(&f, NULL, NULL, "instance_group { name: 'a' count: 2 }", 0);
    load.version = f.version;
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, load_run, &load), 0);
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        char groups[64];
        uint32_t answered = load.answered;
        uint64_t deadline = clock_ns() + DEADLINE_NS;
        snprintf(groups, sizeof(groups), "instance_group { name: 'a' count: %u }", counts[i]);
        struct model_config *config = configure("place", groups, 0);
        assert_null(version_set_groups(f.version, config));
        config_unref(config);
        assert_int_equal(f.version->runner_count, counts[i]);
        while (load.answered < answered + 5) { /* it serves with these */
            assert_true(clock_ns() < deadline);
            usleep(1000); /* polls an event: the clients have no place to wake us from */
        }
    }
    load.stop = true;
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        pthread_join(threads[i], NULL);
    end(&f);
}

/* ---- A change while somebody always asks ---- */

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    uint32_t begun; /* calls */
    bool stop;
} relay = { .mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

/* In place of the plug-in's function: returns when the next call has begun, so there is always one. */
static TRITONSERVER_Error *relay_ready(TRITONBACKEND_ModelInstance *instance)
{
    (void)instance;
    pthread_mutex_lock(&relay.mutex);
    uint32_t own = ++relay.begun;
    pthread_cond_broadcast(&relay.cond);
    while (relay.begun == own && !relay.stop)
        pthread_cond_wait(&relay.cond, &relay.mutex);
    pthread_mutex_unlock(&relay.mutex);
    return NULL;
}

static void *relay_run(void *arg)
{
    bool stop = false;
    while (!stop) {
        assert_true(version_is_ready(arg));
        pthread_mutex_lock(&relay.mutex);
        stop = relay.stop;
        pthread_mutex_unlock(&relay.mutex);
    }
    return NULL;
}

struct changer {
    struct tis_version *version;
    sem_t done;
};

static void *changer_run(void *arg)
{
    static const char *const groups[] = { "instance_group { name: 'a' count: 2 }",
                                          "instance_group { name: 'b' }" };
    struct changer *c = arg;
    for (size_t i = 0; i < ARRAY_LEN(groups); i++) {
        struct model_config *config = configure("place", groups[i], 0);
        assert_null(version_set_groups(c->version, config));
        config_unref(config);
    }
    sem_post(&c->done);
    return NULL;
}

/* Questions whether the model is ready that follow each other without a gap hold up no change: it waits
 * for those that came before it. */
static void test_change_while_asked(void **state)
{
    (void)state;
    struct fixture f;
    struct changer changer;
    pthread_t askers[2], thread;
    create(&f, NULL, NULL, "instance_group { name: 'a' }", 0);
    f.version->backend->entries.instance_ready = relay_ready;
    changer.version = f.version;
    sem_init(&changer.done, 0, 0);
    for (size_t i = 0; i < ARRAY_LEN(askers); i++)
        assert_int_equal(pthread_create(&askers[i], NULL, relay_run, f.version), 0);
    pthread_mutex_lock(&relay.mutex);
    while (relay.begun == 0)
        pthread_cond_wait(&relay.cond, &relay.mutex);
    pthread_mutex_unlock(&relay.mutex);

    assert_int_equal(pthread_create(&thread, NULL, changer_run, &changer), 0);
    struct timespec at = give_up_at();
    int late = sem_timedwait(&changer.done, &at);
    pthread_mutex_lock(&relay.mutex);
    relay.stop = true;
    pthread_cond_broadcast(&relay.cond);
    pthread_mutex_unlock(&relay.mutex);
    for (size_t i = 0; i < ARRAY_LEN(askers); i++)
        pthread_join(askers[i], NULL);
    pthread_join(thread, NULL);
    assert_int_equal(late, 0);
    assert_threads(&f, "b_0_cpu");
    sem_destroy(&changer.done);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_thread_for_each_instance),
        cmocka_unit_test(test_device_blocking),
        cmocka_unit_test(test_preferred_group),
        cmocka_unit_test(test_change),
        cmocka_unit_test(test_change_of_groups_with_one_name),
        cmocka_unit_test(test_change_of_shared_threads),
        cmocka_unit_test(test_failed_change),
        cmocka_unit_test(test_open_requests),
        cmocka_unit_test(test_changes_under_load),
        cmocka_unit_test(test_change_while_asked),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
