/* Versions under the rate limiter, with real threads and a plug-in (tests/backends/bad/bad.c) whose executions
 * say how many ran beside them ("weighs_N"), or begin and end when the test says so ("gate"). Every wait
 * is for an event and has a deadline. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dlfcn.h>

#include "base/alarm.h"
#include "base/log.h"
#include "infer/reason.h"
#include "unit/exec/fixture.h"

static char root[] = "/tmp/test_resources_XXXXXX";
static struct backends *backends;
static struct alarms *alarms;
static struct limiter *limiter;
static sem_t *gate_reached, *gate_open;
static sem_t unused; /* a version */

static int set_up(void **state)
{
    (void)state;
    char path[256];
    if (!make_backends(root))
        return -1;
    log_set_enabled(LOG_LEVEL_INFO, false);
    log_set_enabled(LOG_LEVEL_WARNING, false);
    snprintf(path, sizeof(path), "%s/unit/libtriton_unit.so", root);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL); /* the same as the server's */
    gate_reached = dlsym(library, "bad_gate_reached");
    gate_open = dlsym(library, "bad_gate_open");
    assert_true(gate_reached && gate_open);
    assert_null(backends_create(&(struct backends_options){ .directory = root }, &backends));
    assert_null(alarms_create(&alarms));
    assert_null(limiter_create(NULL, 0, &limiter));
    sem_init(&unused, 0, 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    limiter_destroy(limiter); /* asserts that nothing is left in it */
    alarms_destroy(alarms);
    backends_destroy(backends);
    return folder_remove(root);
}

/* ---- Versions ---- */

static void on_unused(struct tis_version *v, void *arg)
{
    (void)v, (void)arg; /* the test destroys it */
    sem_post(&unused);
}

static struct model_config *configure(const char *name, const char *mode, const char *more)
{
    char text[1024];
    struct config_builder *builder = NULL;
    struct model_config *config = NULL;
    const struct config_context context = { .directory_name = name };
    snprintf(text, sizeof(text),
             "backend: 'unit' input { name: 'INPUT0' data_type: TYPE_INT32 dims: 4 } "
             "output { name: 'OUTPUT0' data_type: TYPE_INT32 dims: 4 } "
             "parameters { key: 'mode' value { string_value: '%s' } } %s",
             mode, more);
    assert_null(config_parse_text(text, strlen(text), "config.pbtxt", &builder));
    assert_null(config_normalize(builder, &context));
    assert_null(config_validate(builder, &context));
    assert_null(config_finish(&builder, &config));
    return config;
}

static tis_error *try_load(const char *name, const char *mode, const char *more,
                           struct tis_version **ret_version)
{
    struct model_config *config = configure(name, mode, more);
    tis_error *err = version_create(
        &(struct tis_version_options){
            .backends = backends,
            .alarms = alarms,
            .limiter = limiter,
            .model_name = name,
            .number = 1,
            .directory = root,
            .config = config,
            .on_unused = on_unused,
        },
        ret_version);
    config_unref(config);
    return err;
}

static struct tis_version *load(const char *name, const char *mode, const char *more)
{
    struct tis_version *v = NULL;
    tis_error *err = try_load(name, mode, more, &v);
    if (err)
        fail_msg("%s", error_text(err));
    return v;
}

static void unload(struct tis_version *v)
{
    version_unref(v);
    wait_for(&unused); /* its last request may be done and not let go of it yet */
    version_destroy(v);
}

/* ---- Requests ---- */

static void submit(struct ticket *t, struct tis_version *v)
{
    static const int32_t zeros[4] = { 0 };
    assert_null(ticket_try_submit(t, v, zeros));
}

/* Waits for the end: the first number of the answer, or minus the reason of the error. */
static int32_t finish(struct ticket *t)
{
    struct tis_response *r = ticket_wait(t);
    int32_t result;
    if (r->error)
        result = -(int32_t)error_reason(r->error);
    else
        memcpy(&result, response_find_output(r, "OUTPUT0")->buffer->base, sizeof(result));
    ticket_end(t);
    return result;
}

/* ---- Tests ---- */

#define NEEDS_R "instance_group { rate_limiter { resources { name: 'R' count: 1 } } } "

/* A request waits while another model's execution has the resource, then runs; a time-out does not wait for
 * it, nor does a cancel, nor the end of the model that waits. */
static void test_waiting(void **state)
{
    (void)state;
    struct tis_version *a = load("a", "gate", NEEDS_R);
    struct tis_version *b = load("b", "gate",
                                 "instance_group { count: 2 rate_limiter { resources { name: 'R' "
                                 "count: 1 } } } dynamic_batching { default_queue_policy { "
                                 "allow_timeout_override: true } }");
    struct tis_version *c = load("c", "gate", NEEDS_R);
    struct ticket in_a, in_b, late, cancelled, in_c;
    submit(&in_a, a);
    wait_for(gate_reached);

    submit(&in_b, b);
    submit(&late, b);
    version_cancel(b, late.request);
    assert_int_equal(finish(&late), -(int32_t)REASON_CANCELLED);
    assert_int_equal(b->scheduler->waiting, 1);

    submit(&cancelled, c);
    version_cancel(c, cancelled.request);
    assert_int_equal(finish(&cancelled), -(int32_t)REASON_CANCELLED);
    unload(c); /* its instance waits for what a holds */

    assert_int_equal(sem_trywait(gate_reached), -1);
    sem_post(gate_open);
    assert_int_equal(finish(&in_a), 0);
    wait_for(gate_reached); /* b's, once */
    submit(&in_a, a);
    sem_post(gate_open);
    assert_int_equal(finish(&in_b), 0);
    wait_for(gate_reached); /* a's */
    c = load("c", "gate", NEEDS_R);
    submit(&in_c, c);
    sem_post(gate_open);
    assert_int_equal(finish(&in_a), 0);
    wait_for(gate_reached);
    sem_post(gate_open);
    assert_int_equal(finish(&in_c), 0);
    unload(a);
    unload(b);
    unload(c);
}

/* A time-out in the queue fires while the instance waits for resources. */
static void test_timeout(void **state)
{
    (void)state;
    struct tis_version *a = load("a", "gate", NEEDS_R);
    struct tis_version *b = load("b", "gate",
                                 NEEDS_R "dynamic_batching { default_queue_policy { "
                                         "default_timeout_microseconds: 2000 } }");
    struct ticket in_a, in_b;
    submit(&in_a, a);
    wait_for(gate_reached);
    submit(&in_b, b);
    assert_int_equal(finish(&in_b), -(int32_t)REASON_QUEUE_TIMEOUT); /* a still runs */
    sem_post(gate_open);
    assert_int_equal(finish(&in_a), 0);
    for (int i = 0; i < 3; i++) { /* nothing was lost */
        submit(&in_a, a);
        wait_for(gate_reached);
        sem_post(gate_open);
        assert_int_equal(finish(&in_a), 0);
    }
    unload(a);
    unload(b);
}

/* Instances of one model on resources of two kinds: the one whose resources are free runs, whichever the other
 * models have. */
static void test_two_groups(void **state)
{
    (void)state;
    struct tis_version *r = load("r", "gate", NEEDS_R);
    struct tis_version *both = load("both", "gate",
                                    NEEDS_R "instance_group { rate_limiter { resources { name: 'S' "
                                            "count: 1 } } }");
    struct ticket in_r, first, second;
    submit(&in_r, r);
    wait_for(gate_reached);
    submit(&first, both);
    wait_for(gate_reached); /* on S, although R is taken */
    submit(&second, both);
    sem_post(gate_open);
    sem_post(gate_open);
    wait_for(gate_reached); /* on R or S */
    sem_post(gate_open);
    assert_int_equal(finish(&in_r), 0);
    assert_int_equal(finish(&first), 0);
    assert_int_equal(finish(&second), 0);
    unload(r);
    unload(both);
}

/* Instances that wait for resources can go and come: nothing is lost, and what needs nothing runs at once. */
static void test_changed_groups(void **state)
{
    (void)state;
    static const char *const groups[] = {
        "instance_group { count: 3 rate_limiter { resources { name: 'R' count: 1 } } }",
        "instance_group { count: 1 rate_limiter { resources { name: 'R' count: 1 } priority: 2 } }",
        "instance_group { count: 2 rate_limiter { resources { name: 'R' count: 1 } priority: 2 } }",
        "instance_group { count: 1 }",
    };
    struct tis_version *a = load("a", "gate", NEEDS_R);
    struct tis_version *b = load("b", "gate", NEEDS_R);
    struct ticket in_a, in_b;
    submit(&in_a, a);
    wait_for(gate_reached);
    submit(&in_b, b);
    for (size_t i = 0; i < ARRAY_LEN(groups); i++) {
        assert_int_equal(sem_trywait(gate_reached), -1);
        struct model_config *config = configure("b", "gate", groups[i]);
        assert_null(version_set_groups(b, config));
        config_unref(config);
    }
    wait_for(gate_reached); /* beside a */
    sem_post(gate_open);
    sem_post(gate_open);
    assert_int_equal(finish(&in_a), 0);
    assert_int_equal(finish(&in_b), 0);
    unload(a);
    unload(b);
}

/* The error names model, instance, resource, what was found and what there is; the model is gone. */
static void test_too_little(void **state)
{
    (void)state;
    static const struct limiter_amount amounts[] = { { "R", 2, LIMITER_EVERY_DEVICE } };
    struct limiter *usual = limiter;
    struct tis_version *v = NULL;
    assert_null(limiter_create(amounts, 1, &limiter));
    tis_error *err =
        try_load("big", "ok",
                 "instance_group { count: 2 rate_limiter { resources { name: 'R' "
                 "count: 2 } } } instance_group { rate_limiter { resources { name: 'R' "
                 "count: 3 } } }",
                 &v);
    assert_null(v);
    assert_string_equal(
        error_text(err),
        "model 'big' instance 'big_1_0_cpu': there is too little of resource 'R' of "
        "device 0 (found count: 3, available 2, expected at least "
        "--rate-limit-resource=R:3)");
    error_free(err);
    limiter_destroy(limiter);
    limiter = usual;
}

/* ---- Many at the same time ---- */

enum {
    CLIENTS = 4,
    ROUNDS = 150,
    AT_ONCE = 4,
    MODELS = 4,
};

struct client {
    struct tis_version *const *versions;
    uint32_t seed;
    int32_t most; /* that ran at the same time */
    uint32_t served, cancelled;
};

static void *client_run(void *arg)
{
    struct client *c = arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct ticket tickets[AT_ONCE];
        for (int k = 0; k < AT_ONCE; k++) {
            c->seed = c->seed * 1664525 + 1013904223;
            struct tis_version *v = c->versions[c->seed >> 20 & (MODELS - 1)];
            submit(&tickets[k], v);
            if (c->seed >> 29 == 0)
                version_cancel(v, tickets[k].request);
        }
        for (int k = 0; k < AT_ONCE; k++) {
            int32_t result = finish(&tickets[k]);
            if (result > c->most)
                c->most = result;
            c->served += result > 0;
            c->cancelled += result == -(int32_t)REASON_CANCELLED;
        }
    }
    return NULL;
}

/* Models that need 1, 2 and 4 of 4, two instances each, and one with another resource beside: all requests are
 * answered, and what runs at the same time never needs more than there is. */
static void test_never_too_many(void **state)
{
    (void)state;
    struct tis_version *versions[MODELS] = {
        load("one", "weighs_1",
             "instance_group { count: 2 rate_limiter { resources { name: 'R' count: 1 } } }"),
        load("two", "weighs_2",
             "instance_group { count: 2 rate_limiter { resources { name: 'R' count: 2 } "
             "priority: 3 } }"),
        load("four", "weighs_4",
             "instance_group { count: 2 rate_limiter { resources { name: 'R' count: 4 } "
             "priority: 2 } }"),
        load("beside", "weighs_2",
             "instance_group { count: 2 rate_limiter { resources [ { name: 'R' count: 2 }, { name: "
             "'S' global: true count: 1 } ] } }"),
    };
    struct client clients[CLIENTS];
    pthread_t threads[CLIENTS];
    uint32_t served = 0, cancelled = 0;
    int32_t most = 0;
    for (uint32_t i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){ .versions = versions, .seed = i + 1 };
        assert_int_equal(pthread_create(&threads[i], NULL, client_run, &clients[i]), 0);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        pthread_join(threads[i], NULL);
        served += clients[i].served;
        cancelled += clients[i].cancelled;
        if (clients[i].most > most)
            most = clients[i].most;
    }
    assert_int_equal(served + cancelled, CLIENTS * ROUNDS * AT_ONCE);
    assert_int_equal(most, 4); /* "four" alone makes it 4 */
    for (int i = 0; i < MODELS; i++)
        unload(versions[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_waiting),    cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_two_groups), cmocka_unit_test(test_changed_groups),
        cmocka_unit_test(test_too_little), cmocka_unit_test(test_never_too_many),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
