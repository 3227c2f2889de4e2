/* The command line, by tables: forms, types, ranges, suggestions for unknown flags, lists. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/options.h"

enum {
    ARGUMENTS_MAX = 12
};

/* Parses the words of line behind "--model-store=/m"; they live in storage. */
static tis_error *parse(const char *line, char *storage, struct options *ret_options)
{
    char *argv[ARGUMENTS_MAX] = { "trtserver", "--model-store=/m" };
    int argc = 2;
    char *rest = NULL;
    snprintf(storage, 512, "%s", line);
    for (char *word = strtok_r(storage, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        assert_true(argc < ARGUMENTS_MAX);
        argv[argc++] = word;
    }
    return options_parse(argc, argv, ret_options);
}

static void test_defaults(void **state)
{
    (void)state;
    struct options o;
    char storage[512];
    assert_null(parse("", storage, &o));
    assert_int_equal(o.repository_count, 1);
    assert_string_equal(o.repositories[0], "/m");
    assert_int_equal(o.http_port, 8000);
    assert_int_equal(o.exit_timeout_secs, 30);
    assert_true(o.strict_readiness);
    assert_true(o.exit_on_error);
    assert_true(o.http_cancel_on_half_close);
    assert_false(o.strict_model_config);
    assert_false(o.help);
    assert_null(o.id);
    assert_null(o.backend_directory);
    assert_int_equal(o.backend_setting_count, 0);
    options_fini(&o);
    options_fini(&o);
}

static void test_bools(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        bool value;
    } cases[] = {
        { "--strict-model-config", true },
        { "--strict-model-config=true", true },
        { "--strict-model-config true", true },
        { "--strict-model-config=1", true },
        { "--strict-model-config on", true },
        { "--strict-model-config=TRUE", true },
        { "--strict-model-config=false", false },
        { "--strict-model-config false", false },
        { "--strict-model-config=0", false },
        { "--strict-model-config off", false },
        { "--strict-model-config --log-info", true }, /* the next flag is no value */
        { "--strict-model-config=true --strict-model-config=false", false }, /* the last counts */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct options o;
        char storage[512];
        assert_null(parse(cases[i].line, storage, &o));
        assert_int_equal(o.strict_model_config, cases[i].value);
        options_fini(&o);
    }
}

static void test_values(void **state)
{
    (void)state;
    struct options o;
    char storage[512];
    assert_null(
        parse("--http-port=0 --http-address 127.0.0.1 --id=a=b --log-verbose 3", storage, &o));
    assert_int_equal(o.http_port, 0);
    assert_string_equal(o.http_address, "127.0.0.1");
    assert_string_equal(o.id, "a=b"); /* only the first '=' divides */
    assert_int_equal(o.log_verbose, 3);
    options_fini(&o);
    assert_null(parse("--http-port 65535 --id=", storage, &o));
    assert_int_equal(o.http_port, 65535);
    assert_string_equal(o.id, "");
    options_fini(&o);
}

static void test_lists(void **state)
{
    (void)state;
    struct options o;
    char storage[512];
    assert_null(parse("--model-repository /a --model-store=/b --backend-config=onnxruntime,k=v "
                      "--backend-config ,x=y=z --backend-config=p,q=",
                      storage, &o));
    assert_int_equal(o.repository_count, 3);
    assert_string_equal(o.repositories[1], "/a");
    assert_string_equal(o.repositories[2], "/b");
    static const char *const expected[][3] = { { "onnxruntime", "k", "v" },
                                               { "", "x", "y=z" },
                                               { "p", "q", "" } };
    assert_int_equal(o.backend_setting_count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(o.backend_settings[i].backend, expected[i][0]);
        assert_string_equal(o.backend_settings[i].key, expected[i][1]);
        assert_string_equal(o.backend_settings[i].value, expected[i][2]);
    }
    options_fini(&o);
}

struct refused {
    const char *line;
    const char *text; /* in the error */
};

static void assert_refused(const struct refused *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct options o = { .http_port = 7 };
        char storage[512];
        tis_error *err = parse(cases[i].line, storage, &o);
        if (!err || !strstr(error_text(err), cases[i].text))
            fail_msg("%s: %s", cases[i].line, err ? error_text(err) : "accepted");
        assert_int_equal(error_code(err), TRITONSERVER_ERROR_INVALID_ARG);
        assert_int_equal(o.http_port, 7); /* untouched */
        error_free(err);
    }
}

static void test_resources(void **state)
{
    (void)state;
    struct options o;
    char storage[512];
    assert_null(
        parse("--rate-limit=execution_count --rate-limit-resource=R:4 --rate-limit-resource "
              "a.b:0:0 --rate-limit-resource=R:4294967295:2147483647",
              storage, &o));
    static const struct limiter_amount expected[] = { { "R", 4, LIMITER_EVERY_DEVICE },
                                                      { "a.b", 0, 0 },
                                                      { "R", UINT32_MAX, INT32_MAX } };
    assert_string_equal(o.rate_limit, "execution_count");
    assert_int_equal(o.rate_limit_resource_count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(o.rate_limit_resources[i].name, expected[i].name);
        assert_int_equal(o.rate_limit_resources[i].count, expected[i].count);
        assert_int_equal(o.rate_limit_resources[i].device, expected[i].device);
    }
    options_fini(&o);

    static const struct refused cases[] = {
        { "--rate-limit=on", "--rate-limit=on: expected off or execution_count" },
        { "--rate-limit-resource=R", "--rate-limit-resource=R: expected NAME:COUNT[:DEVICE]" },
        { "--rate-limit-resource=R:", "expected NAME:COUNT[:DEVICE]" },
        { "--rate-limit-resource=:1", "expected NAME:COUNT[:DEVICE]" },
        { "--rate-limit-resource=R:-1", "expected NAME:COUNT[:DEVICE]" },
        { "--rate-limit-resource=R:4294967296", "expected NAME:COUNT[:DEVICE]" },
        { "--rate-limit-resource=R:1:", "expected NAME:COUNT[:DEVICE]" },
        { "--rate-limit-resource=R:1:2147483648", "expected NAME:COUNT[:DEVICE]" },
        { "--rate-limit-resource=R:1:2:3", "expected NAME:COUNT[:DEVICE]" },
        { "--rate-limit-resource=R:1:0 --rate-limit-resource=R:1 --rate-limit-resource=R:2:0",
          "--rate-limit-resource=R:2:0: given twice for the same device (found 1 before)" },
    };
    assert_refused(cases, ARRAY_LEN(cases));
}

/* What may stand together. */
static void test_together(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "--allow-http=false",
        "--allow-grpc=false",
        "--http-port=0 --grpc-port=0",
        "--http-port=9 --grpc-port=9 --allow-grpc=false",
        "--http-port=9 --grpc-port=9 --grpc-address=unix:/a",
        "--http-port=9 --grpc-port=9 --http-address=unix:/a,unix:/b",
        "--http-server-cert=a --grpc-root-cert=b",
        "--grpc-use-ssl --allow-grpc=false",
        "--http-use-ssl --http-server-cert=a --http-server-key=b",
    };
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        struct options o;
        char storage[512];
        tis_error *err = parse(lines[i], storage, &o);
        if (err)
            fail_msg("%s: %s", lines[i], error_text(err));
        options_fini(&o);
    }

    struct options o;
    char storage[512];
    assert_null(parse("--grpc-use-ssl-mutual --grpc-server-cert=a --grpc-server-key=b "
                      "--grpc-root-cert=c",
                      storage, &o));
    assert_true(o.grpc_ssl.is_used && o.grpc_ssl.is_mutual && !o.http_ssl.is_used);
    options_fini(&o);
}

static void test_errors(void **state)
{
    (void)state;
    static const struct refused cases[] = {
        /* unknown, with the nearest */
        { "--http-prot=1", "Unrecognized option: --http-prot=1 (did you mean --http-port?)" },
        { "--model-repositry /x", "did you mean --model-repository?" },
        { "--exit-timeout-sec=1", "did you mean --exit-timeout-secs?" },
        { "--zzzzzzzzzzzz", "Unrecognized option: --zzzzzzzzzzzz" },
        { "-h", "options begin with --" },
        { "word", "Unrecognized option: word" },
        { "--", "Unrecognized option" },
        { "--=5", "Unrecognized option" },
        { "--HTTP-PORT=1", "Unrecognized option" },
        /* types and ranges */
        { "--http-port=65536", "--http-port=65536: expected a number from 0 to 65535" },
        { "--http-port=-1", "expected a number" },
        { "--http-port=", "expected a number" },
        { "--http-port=80x", "expected a number" },
        { "--http-port=99999999999999999999", "expected a number" },
        { "--model-load-thread-count=0", "from 1 to 256" },
        { "--model-load-thread-count=257", "from 1 to 256" },
        { "--log-info=maybe", "--log-info=maybe: expected true or false" },
        { "--log-info=", "expected true or false" },
        /* missing */
        { "--http-port", "--http-port needs a value: PORT" },
        { "--model-store", "needs a value" },
        { "--backend-config=onnxruntime", "expected NAME,KEY=VALUE" },
        { "--backend-config=onnxruntime,k", "expected NAME,KEY=VALUE" },
        { "--backend-config=onnxruntime,=v", "expected NAME,KEY=VALUE" },
        { "--metrics-config=summary_latencies=true", "this server has no summaries" },
        { "--metrics-config=summary_quantiles=0.5:0.05", "this server has no summaries" },
        { "--metrics-config=counter_latencies=maybe", "expected true or false" },
        { "--metrics-config=latencies=true", "unknown name 'latencies'" },
        { "--metrics-config=counter_latencies", "expected <name>=<value>" },
        { "--grpc-port=65536", "from 0 to 65535" },
        /* together */
        { "--allow-http=false --allow-grpc=false",
          "At least one of the following options must be true: --allow-http, --allow-grpc" },
        { "--http-port=9 --grpc-port=9",
          "The server cannot listen to HTTP requests and gRPC requests at the same port" },
        { "--http-port=9 --grpc-port=9 --http-address=unix:/a,127.0.0.1", "at the same port" },
        { "--metrics-port=8000", "cannot provide metrics on same port used for HTTP or gRPC" },
        { "--grpc-port=8002", "cannot provide metrics on same port used for HTTP or gRPC" },
        { "--http-use-ssl", "--http-use-ssl needs --http-server-cert=FILE" },
        { "--grpc-use-ssl --grpc-server-cert=a", "--grpc-use-ssl needs --grpc-server-key=FILE" },
        { "--http-use-ssl-mutual --http-server-cert=a --http-server-key=b",
          "--http-use-ssl-mutual needs --http-root-cert=FILE" },
    };
    assert_refused(cases, ARRAY_LEN(cases));
}

static void assert_metrics_address(const char *line, const char *expected)
{
    char storage[512];
    struct options o;
    assert_null(parse(line, storage, &o));
    char *address = options_metrics_address(&o);
    assert_string_equal(address, expected);
    free(address);
    options_fini(&o);
}

/* The metrics port: its defaults, where it listens, and ports that may be alike. */
static void test_metrics(void **state)
{
    (void)state;
    char storage[512];
    struct options o;
    assert_null(parse("--metrics-config=counter_latencies=FALSE "
                      "--metrics-config=histogram_latencies=true "
                      "--metrics-config=summary_latencies=false --metrics-config "
                      "counter_latencies=true",
                      storage, &o));
    assert_true(o.allow_metrics && o.metrics_port == 8002 && !o.metrics_on_http_port);
    assert_true(o.metrics.histogram_latencies && !o.metrics.no_counter_latencies);
    options_fini(&o);
    assert_null(parse("--metrics-port=8000 --allow-metrics=false", storage, &o));
    options_fini(&o);
    assert_null(parse("--metrics-port=8000 --allow-http=false", storage, &o));
    options_fini(&o);
    assert_null(parse("--metrics-port=8000 --metrics-address=unix:/x", storage, &o));
    options_fini(&o);

    assert_metrics_address("--id=x", "0.0.0.0");
    assert_metrics_address("--http-address=::1", "::1");
    assert_metrics_address("--http-address=unix:/x,10.0.0.1,unix:y,::1", "10.0.0.1,::1");
    assert_metrics_address("--http-address=unix:/x", "127.0.0.1");
    assert_metrics_address("--http-address=", "*");
    assert_metrics_address("--metrics-address=10.1.1.1 --http-address=::1", "10.1.1.1");
}

/* Without a repository only --help and --version go. */
static void test_no_repository(void **state)
{
    (void)state;
    struct options o;
    tis_error *err = options_parse(1, (char *[]){ "trtserver", NULL }, &o);
    assert_string_equal(error_text(err), "--model-store must be specified");
    error_free(err);
    assert_null(options_parse(2, (char *[]){ "trtserver", "--help", NULL }, &o));
    assert_true(o.help);
    options_fini(&o);
    assert_null(options_parse(2, (char *[]){ "trtserver", "--version", NULL }, &o));
    assert_true(o.version);
    options_fini(&o);
}

/* Every flag that is accepted stands in --help, and no line is longer than a terminal. */
static void test_help(void **state)
{
    (void)state;
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    options_print_help(f);
    fclose(f);
    static const char *const flags[] = { "--model-store=DIR", "--http-port=PORT  [8000]",
                                         "--backend-config=NAME,KEY=VALUE", "--help=" };
    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        assert_non_null(strstr(text, flags[i]));
    for (const char *line = text; *line;) {
        size_t line_len = strcspn(line, "\n");
        assert_true(line_len <= 100);
        line += line_len + 1;
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),  cmocka_unit_test(test_bools),
        cmocka_unit_test(test_values),    cmocka_unit_test(test_lists),
        cmocka_unit_test(test_resources), cmocka_unit_test(test_together),
        cmocka_unit_test(test_errors),    cmocka_unit_test(test_no_repository),
        cmocka_unit_test(test_help),      cmocka_unit_test(test_metrics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
