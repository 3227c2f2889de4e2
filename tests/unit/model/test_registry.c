/* The registry over real directories and a real plug-in (tests/backends/bad/bad.c, whose models
 * choose by a parameter how they behave): loading, states and reasons, looking up, requests that race
 * with cancelling and unloading. Every wait is for an event and has a deadline. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>

#include "base/alarm.h"
#include "base/log.h"
#include "infer/reason.h"
#include "model/registry.h"
#include "unit/exec/fixture.h"

#define DEADLINE_NS (SECONDS_MAX * NS_PER_SEC)

/* ---- A repository in a temporary directory ---- */

static char root[] = "/tmp/test_registry_XXXXXX";

static const char *path_of(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static const char *path_of(const char *fmt, ...)
{
    static _Thread_local char path[512];
    int len = snprintf(path, sizeof(path), "%s/", root);
    va_list args;
    va_start(args, fmt);
    vsnprintf(path + len, sizeof(path) - (size_t)len, fmt, args);
    va_end(args);
    return path;
}

static void make_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* A model with the versions 1 .. version_count, all served. */
static void add_model(const char *repository, const char *name, const char *mode, int version_count,
                      const char *more)
{
    char text[1024];
    mkdir(path_of("%s", repository), 0700);
    assert_int_equal(mkdir(path_of("%s/%s", repository, name), 0700), 0);
    for (int i = 1; i <= version_count; i++)
        assert_int_equal(mkdir(path_of("%s/%s/%d", repository, name, i), 0700), 0);
    snprintf(text, sizeof(text),
             "backend: 'unit' max_batch_size: 0 version_policy { all { } } "
             "input { name: 'INPUT0' data_type: TYPE_INT32 dims: 4 } "
             "output { name: 'OUTPUT0' data_type: TYPE_INT32 dims: 4 } "
             "parameters { key: 'mode' value { string_value: '%s' } } %s",
             mode, more);
    make_file(path_of("%s/%s/config.pbtxt", repository, name), text);
}

static int set_up(void **state)
{
    (void)state;
    if (!make_backends(root))
        return -1;
    log_set_enabled(LOG_LEVEL_INFO, false);
    log_set_enabled(LOG_LEVEL_WARNING, false);
    log_set_enabled(LOG_LEVEL_ERROR, false);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return folder_remove(root);
}

/* ---- A registry over it ---- */

struct fixture {
    struct backends *backends;
    struct alarms *alarms;
    struct registry *registry;
    char repositories[2][512];
    const char *repository_list[2];
    _Atomic int loaded;
};

static void on_loaded(void *arg)
{
    ((struct fixture *)arg)->loaded++;
}

static void create(struct fixture *f, bool strict, const char *repository, const char *second)
{
    *f = (struct fixture){ 0 };
    snprintf(f->repositories[0], sizeof(f->repositories[0]), "%s", path_of("%s", repository));
    if (second)
        snprintf(f->repositories[1], sizeof(f->repositories[1]), "%s", path_of("%s", second));
    f->repository_list[0] = f->repositories[0];
    f->repository_list[1] = f->repositories[1];
    assert_null(backends_create(&(struct backends_options){ .directory = root }, &f->backends));
    assert_null(alarms_create(&f->alarms));
    assert_null(registry_create(
        &(struct registry_options){
            .repositories = f->repository_list,
            .repository_count = second ? 2 : 1,
            .backends = f->backends,
            .alarms = f->alarms,
            .load_thread_count = 3,
            .strict_readiness = strict,
            .on_loaded = on_loaded,
            .on_loaded_arg = f,
        },
        &f->registry));
}

static void wait_loaded(struct fixture *f)
{
    uint64_t deadline = clock_ns() + DEADLINE_NS;
    while (f->loaded == 0) {
        assert_true(clock_ns() < deadline);
        usleep(1000); /* polls an event: the callback has no place to wake us from */
    }
}

static void end(struct fixture *f)
{
    assert_true(registry_stop(f->registry, clock_ns() + DEADLINE_NS));
    assert_int_equal(registry_live_versions(f->registry), 0);
    registry_destroy(f->registry);
    alarms_destroy(f->alarms);
    backends_destroy(f->backends);
}

/* ---- Requests ---- */

static const int32_t numbers[4] = { 1, -2, 3, INT32_MAX };

static tis_error *try_submit(struct ticket *t, struct tis_version *v)
{
    return ticket_try_submit(t, v, numbers);
}

static void submit(struct ticket *t, struct tis_version *v)
{
    assert_null(try_submit(t, v));
}

/* Waits for the end; the code of the response's error, or -1 when it holds the right numbers. */
static int finish(struct ticket *t)
{
    struct tis_response *r = ticket_wait(t);
    int result = -1;
    if (r->error)
        result = (int)error_code(r->error);
    else
        assert_memory_equal(response_find_output(r, "OUTPUT0")->buffer->base, numbers,
                            sizeof(numbers));
    ticket_end(t);
    return result;
}

static struct tis_version *acquire(struct registry *r, const char *name, int64_t number)
{
    struct tis_version *v = NULL;
    assert_null(registry_acquire(r, name, strlen(name), number, &v));
    return v;
}

static void assert_refused(struct registry *r, const char *name, int64_t number, enum reason reason)
{
    struct tis_version *v = NULL;
    tis_error *err = registry_acquire(r, name, strlen(name), number, &v);
    assert_non_null(err);
    assert_int_equal(error_reason(err), reason);
    assert_null(v);
    error_free(err);
}

/* ---- Tests ---- */

static void add_mixed_models(void)
{
    add_model("mixed", "good", "ok", 3, "");
    add_model("mixed", "latest", "ok", 3, "");
    add_model("mixed", "no_model", "error_model_initialize", 2, "");
    add_model("mixed", "no_instance", "error_instance_initialize", 1, "");
    add_model("mixed", "no_version", "ok", 0, "");
    add_model("mixed", "bad_rule", "ok", 1, "default_model_filename: 'a/b' output { }");
    add_model("mixed", "bad_text", "ok", 1, "}{");
    add_model("mixed", "twice", "ok", 1, "");
    add_model("other", "twice", "ok", 1, "");
    make_file(path_of("mixed/latest/config.pbtxt"),
              "backend: 'unit' input { name: 'INPUT0' data_type: TYPE_INT32 dims: 4 } "
              "output { name: 'OUTPUT0' data_type: TYPE_INT32 dims: 4 } "
              "parameters { key: 'mode' value { string_value: 'ok' } }");
    assert_int_equal(mkdir(path_of("mixed/no_config"), 0700), 0);
    assert_int_equal(mkdir(path_of("mixed/no_backend"), 0700), 0);
    assert_int_equal(mkdir(path_of("mixed/no_backend/1"), 0700), 0);
    make_file(path_of("mixed/no_backend/config.pbtxt"),
              "backend: 'nowhere' input { name: 'i' data_type: TYPE_INT32 dims: 1 } "
              "output { name: 'o' data_type: TYPE_INT32 dims: 1 }");
}

static const struct {
    const char *name;
    uint32_t versions;
    enum version_state state;
    const char *reason; /* in the model's or the version's */
} expected[] = {
    { "bad_rule", 0, VERSION_UNKNOWN, "model 'bad_rule'" },
    { "bad_text", 0, VERSION_UNKNOWN, "config.pbtxt" },
    { "good", 3, VERSION_READY, "" },
    { "latest", 1, VERSION_READY, "" },
    { "no_backend", 1, VERSION_UNAVAILABLE, "/nowhere/libtriton_nowhere.so" },
    { "no_config", 0, VERSION_UNKNOWN, "has no config.pbtxt" },
    { "no_instance", 1, VERSION_UNAVAILABLE, "this instance shall not be" },
    { "no_model", 2, VERSION_UNAVAILABLE, "this model shall not be" },
    { "no_version", 0, VERSION_UNKNOWN, "at least one version" },
    { "twice", 0, VERSION_UNKNOWN, "more than one repository" },
};

static void check_information(struct registry *r)
{
    struct model_info *models = NULL;
    uint32_t count = 0;
    assert_null(registry_info(r, NULL, 0, &models, &count));
    assert_int_equal(count, ARRAY_LEN(expected));
    struct bytes failures = { 0 };
    registry_describe_failures(r, &failures);
    for (uint32_t i = 0; i < count; i++) {
        assert_string_equal(models[i].name, expected[i].name); /* sorted */
        assert_int_equal(models[i].version_count, expected[i].versions);
        const char *reason = models[i].reason;
        for (uint32_t k = 0; k < models[i].version_count; k++) {
            assert_int_equal(models[i].versions[k].state, expected[i].state);
            assert_int_equal(models[i].versions[k].version != NULL,
                             expected[i].state == VERSION_READY);
            reason = models[i].versions[k].reason;
        }
        if (!strstr(reason, expected[i].reason))
            fail_msg("%s: %s", models[i].name, reason);
        char quoted[64];
        snprintf(quoted, sizeof(quoted), "model '%s'", models[i].name);
        assert_int_equal(strstr(bytes_str(&failures), quoted) != NULL, *expected[i].reason != 0);
    }
    bytes_fini(&failures);
    assert_int_equal(models[3].versions[0].number, 3);
    registry_info_free(models, count);
}

static void check_lookups(struct registry *r)
{
    struct model_info *models = NULL;
    uint32_t count = 0;
    assert_false(registry_is_ready(r)); /* strict: some should be served and are not */
    assert_refused(r, "goo", -1, REASON_MODEL_UNKNOWN);
    assert_refused(r, "", -1, REASON_MODEL_UNKNOWN);
    assert_refused(r, "no_config", -1, REASON_MODEL_NO_VERSION);
    assert_refused(r, "no_model", -1, REASON_MODEL_NO_VERSION);
    assert_refused(r, "no_model", 1, REASON_VERSION_NOT_READY);
    assert_refused(r, "good", 9, REASON_VERSION_UNKNOWN);
    assert_refused(r, "latest", 2, REASON_VERSION_UNKNOWN);
    struct tis_version *v = acquire(r, "good", -1);
    assert_int_equal(v->number, 3); /* the highest */
    assert_true(version_is_ready(v));
    version_unref(v);
    v = acquire(r, "good", 2);
    assert_int_equal(v->number, 2);
    version_unref(v);
    assert_null(registry_info(r, "good!", 4, &models, &count));
    assert_int_equal(count, 1);
    registry_info_free(models, count);
    tis_error *err = registry_info(r, "nobody", 6, &models, &count);
    assert_int_equal(error_reason(err), REASON_MODEL_UNKNOWN);
    error_free(err);
}

/* One good model among bad ones of every kind: it serves, they say why not. */
static void test_load(void **state)
{
    (void)state;
    add_mixed_models();
    struct fixture f;
    create(&f, true, "mixed", "other");
    assert_refused(f.registry, "good", -1, REASON_MODEL_UNKNOWN);
    assert_null(registry_load_all(f.registry));
    wait_loaded(&f);
    assert_int_equal(f.loaded, 1);

    check_information(f.registry);
    check_lookups(f.registry);
    end(&f);
}

static void test_readiness(void **state)
{
    (void)state;
    add_model("well", "a", "ok", 1, "");
    add_model("half", "a", "ok", 1, "");
    add_model("half", "b", "error_model_initialize", 1, "");
    static const struct {
        const char *repository;
        bool strict;
        bool ready;
    } cases[] = { { "well", true, true }, { "half", true, false }, { "half", false, true } };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture f;
        create(&f, cases[i].strict, cases[i].repository, NULL);
        assert_false(registry_is_ready(f.registry));
        assert_null(registry_load_all(f.registry));
        wait_loaded(&f);
        assert_int_equal(registry_is_ready(f.registry), cases[i].ready);
        assert_true(registry_stop(f.registry, clock_ns() + DEADLINE_NS));
        assert_false(registry_is_ready(f.registry));
        end(&f); /* stopping twice does no harm */
    }
}

static void test_repository_missing(void **state)
{
    (void)state;
    struct fixture f;
    create(&f, true, "nowhere", NULL);
    tis_error *err = registry_load_all(f.registry);
    assert_int_equal(error_code(err), TRITONSERVER_ERROR_NOT_FOUND);
    assert_non_null(strstr(error_text(err), "nowhere"));
    error_free(err);
    end(&f);
}

/* Requests through the plug-in: every way in which it answers, legal or not. */
static void test_requests(void **state)
{
    (void)state;
    static const struct {
        const char *mode;
        int result; /* as of finish() */
        uint32_t success, fail;
    } cases[] = {
        { "ok", -1, 1, 0 },
        { "late", -1, 1, 0 },
        { "late_after_release", -1, 1, 0 },
        { "send_twice", -1, 1, 0 },
        { "release_twice", -1, 1, 0 },
        { "reschedule", -1, 1, 0 },
        { "send_after_final", -1, 1, 0 },
        { "two_responses", -1, 1, 0 },
        { "release_first", -1, 1, 0 },
        { "use_after_release", -1, 1, 0 },
        { "factory_misuse", -1, 1, 0 },
        { "output_twice", -1, 1, 0 },
        { "wrong_name", TRITONSERVER_ERROR_INVALID_ARG, 1, 0 },
        { "shape_too_large", TRITONSERVER_ERROR_INTERNAL, 1, 0 },
        { "shape_negative", TRITONSERVER_ERROR_INTERNAL, 1, 0 },
        { "shape_other", TRITONSERVER_ERROR_INTERNAL, 1, 0 },
        { "error_execute", TRITONSERVER_ERROR_UNAVAILABLE, 0, 1 },
        { "error_execute_cleared", TRITONSERVER_ERROR_UNAVAILABLE, 0, 1 },
        { "error_execute_sent", -1, 0, 1 },
        { "error_execute_answered", -1, 0, 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        add_model("ways", cases[i].mode, cases[i].mode, 1, "");
    struct fixture f;
    create(&f, true, "ways", NULL);
    assert_null(registry_load_all(f.registry));
    wait_loaded(&f);
    assert_true(registry_is_ready(f.registry));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct tis_version *v = acquire(f.registry, cases[i].mode, 1);
        struct ticket t;
        struct statistics_snapshot got;
        submit(&t, v);
        int result = finish(&t);
        if (result != cases[i].result)
            fail_msg("%s: %d", cases[i].mode, result);
        statistics_get(&v->statistics, &got);
        assert_int_equal(got.totals.success.count, cases[i].success);
        assert_int_equal(got.totals.fail.count, cases[i].fail);
        assert_int_equal(got.totals.failures[FAILURE_BACKEND], cases[i].fail);
        assert_true(got.totals.compute_infer.ns < NS_PER_SEC); /* times out of order */
        statistics_snapshot_fini(&got);
        version_unref(v);
    }
    end(&f);
}

/* The first response of a decoupled request counts when it goes out, unless it is an error; the request
 * itself is another matter. Those of "late" come after 200 ms. */
static void test_first_responses(void **state)
{
    (void)state;
    static const struct {
        const char *mode;
        uint32_t first; /* responses */
        bool is_late;
    } cases[] = {
        { "ok", 1, false },
        { "two_responses", 1, false },
        { "wrong_name", 0, false },
        { "late_after_release", 1, true },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        add_model("first", cases[i].mode, cases[i].mode, 1,
                  "model_transaction_policy { decoupled: true }");
    struct fixture f;
    create(&f, true, "first", NULL);
    assert_null(registry_load_all(f.registry));
    wait_loaded(&f);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct tis_version *v = acquire(f.registry, cases[i].mode, 1);
        struct ticket t;
        struct statistics_totals got;
        submit(&t, v);
        finish(&t);
        statistics_get_totals(&v->statistics, &got);
        const struct histogram *h = got.histograms;
        assert_int_equal(h[HISTOGRAM_REQUEST].count, 1);
        assert_int_equal(h[HISTOGRAM_FIRST_RESPONSE].count, cases[i].first);
        if (cases[i].is_late)
            assert_true(h[HISTOGRAM_FIRST_RESPONSE].sum > h[HISTOGRAM_REQUEST].sum + 0.1);
        version_unref(v);
    }
    end(&f);
}

/* A request that waits for others to fill a batch is cancelled; one that finds the queue full, and one
 * that waits too long, are rejected. */
static void test_failure_reasons(void **state)
{
    (void)state;
    static const char config[] =
        "backend: 'unit' max_batch_size: 4 "
        "input { name: 'INPUT0' data_type: TYPE_INT32 dims: 4 } "
        "output { name: 'OUTPUT0' data_type: TYPE_INT32 dims: 4 } "
        "parameters { key: 'mode' value { string_value: 'ok' } } dynamic_batching { "
        "preferred_batch_size: 4 max_queue_delay_microseconds: 60000000 default_queue_policy { %s } }";
    static const struct {
        const char *name, *policy;
    } models[] = {
        { "full", "max_queue_size: 1" },
        { "expires", "default_timeout_microseconds: 1000" },
    };
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        char text[700];
        snprintf(text, sizeof(text), config, models[i].policy);
        add_model("reasons", models[i].name, "ok", 1, "");
        make_file(path_of("reasons/%s/config.pbtxt", models[i].name), text);
    }
    struct fixture f;
    create(&f, true, "reasons", NULL);
    assert_null(registry_load_all(f.registry));
    wait_loaded(&f);

    struct statistics_totals got;
    struct ticket waiting, refused;
    struct tis_version *v = acquire(f.registry, "full", 1);
    submit(&waiting, v);
    tis_error *err = try_submit(&refused, v);
    assert_int_equal(error_reason(err), REASON_QUEUE_FULL);
    error_free(err);
    version_cancel(v, waiting.request);
    assert_int_equal(finish(&waiting), TRITONSERVER_ERROR_CANCELLED);
    statistics_get_totals(&v->statistics, &got);
    assert_int_equal(got.fail.count, 2);
    assert_int_equal(got.failures[FAILURE_REJECTED], 1);
    assert_int_equal(got.failures[FAILURE_CANCELED], 1);
    version_unref(v);

    v = acquire(f.registry, "expires", 1);
    submit(&waiting, v);
    assert_int_equal(finish(&waiting), TRITONSERVER_ERROR_UNAVAILABLE);
    statistics_get_totals(&v->statistics, &got);
    assert_int_equal(got.fail.count, 1);
    assert_int_equal(got.failures[FAILURE_REJECTED], 1);
    assert_true(got.fail.ns >= NS_PER_MS);
    version_unref(v);
    end(&f);
}

/* Unloading waits for what is in flight, and hands out nothing meanwhile. */
static void test_unload_in_flight(void **state)
{
    (void)state;
    add_model("flight", "m", "late_after_release", 1, "instance_group { count: 2 }");
    struct fixture f;
    create(&f, true, "flight", NULL);
    assert_null(registry_load_all(f.registry));
    wait_loaded(&f);
    enum {
        COUNT = 8
    };
    struct ticket tickets[COUNT];
    struct tis_version *v = acquire(f.registry, "m", -1);
    for (int i = 0; i < COUNT; i++)
        submit(&tickets[i], v);
    version_unref(v);
    assert_false(registry_stop(f.registry, clock_ns())); /* no time: they still run */
    assert_refused(f.registry, "m", -1, REASON_MODEL_NO_VERSION);
    assert_int_equal(registry_live_versions(f.registry), 1);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(finish(&tickets[i]), -1);
    end(&f);
}

/* ---- Races ---- */

enum {
    THREADS = 3,
    ROUNDS = 300
};

struct client {
    struct fixture *f;
    uint32_t seed;
    int served, refused, cancelled;
};

/* Looks the model up, sends a request, cancels some of them, until the model is gone. */
static void *client_run(void *arg)
{
    struct client *c = arg;
    uint64_t deadline = clock_ns() + DEADLINE_NS;
    while (clock_ns() < deadline) {
        struct tis_version *v = NULL;
        struct model_info *models = NULL;
        uint32_t count = 0;
        registry_is_ready(c->f->registry);
        assert_null(registry_info(c->f->registry, NULL, 0, &models, &count));
        registry_info_free(models, count);
        tis_error *err = registry_acquire(c->f->registry, "m", 1, -1, &v);
        if (err) {
            error_free(err);
            if (c->served + c->cancelled > 0)
                return NULL; /* unloaded */
            c->refused++;
            continue;
        }
        struct ticket t;
        submit(&t, v);
        c->seed = c->seed * 1664525 + 1013904223;
        if (c->seed >> 30 == 0)
            version_cancel(v, t.request);
        if (c->seed >> 29 & 1) {
            version_unref(v); /* before the request is done: its sink holds the version */
            v = NULL;
        }
        int result = finish(&t);
        if (result == TRITONSERVER_ERROR_CANCELLED)
            c->cancelled++;
        else
            c->served += result == -1;
        version_unref(v);
    }
    return NULL;
}

/* Clients come before loading has begun and stay until the model was unloaded. */
static void test_races(void **state)
{
    (void)state;
    add_model("races", "m", "ok", 2, "instance_group { count: 2 }");
    for (int i = 0; i < 50; i++) {
        char name[16];
        snprintf(name, sizeof(name), "x%d", i);
        add_model("races", name, i % 2 ? "ok" : "error_model_initialize", 1, "");
    }
    struct fixture f;
    struct client clients[THREADS];
    pthread_t threads[THREADS];
    create(&f, true, "races", NULL);
    for (uint32_t i = 0; i < THREADS; i++) {
        clients[i] = (struct client){ .f = &f, .seed = i };
        assert_int_equal(pthread_create(&threads[i], NULL, client_run, &clients[i]), 0);
    }
    assert_null(registry_load_all(f.registry));
    wait_loaded(&f);

    struct tis_version *v = acquire(f.registry, "m", 2);
    for (int i = 0; i < ROUNDS; i++) {
        struct ticket t;
        submit(&t, v);
        if (i % 3 == 0)
            version_cancel(v, t.request);
        int result = finish(&t);
        assert_true(result == -1 || result == TRITONSERVER_ERROR_CANCELLED);
    }
    version_unref(v);
    assert_true(registry_stop(f.registry, clock_ns() + DEADLINE_NS));
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(clients[i].served > 0);
    }
    end(&f);
}

/* The end may come while models load: what waits is not loaded any more. */
static void test_stop_while_loading(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++) {
        char name[16];
        snprintf(name, sizeof(name), "m%d", i);
        add_model("many", name, "ok", 1, "");
    }
    struct fixture f;
    create(&f, true, "many", NULL);
    assert_null(registry_load_all(f.registry));
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_readiness),
        cmocka_unit_test(test_repository_missing),
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_first_responses),
        cmocka_unit_test(test_failure_reasons),
        cmocka_unit_test(test_unload_in_flight),
        cmocka_unit_test(test_races),
        cmocka_unit_test(test_stop_while_loading),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
