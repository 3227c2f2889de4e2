/* Thousands of scenarios of one seed each, judged by an oracle that knows the rules in other words
 * than the scheduler; and faults that are planted on purpose, each of which has to be found.
 *
 *     TIS_SEED=N        plays scenario N alone and prints all that happens
 *     TIS_SCENARIOS=N   plays N of them */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "faults.h"

enum {
    SCENARIOS_DEFAULT = 5000,
    SCENARIOS_FAULT_MAX = 200, /* in which a planted fault has to be found */
};

static uint64_t number_from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

static void play(uint64_t seed, bool verbose, struct outcome *ret_outcome)
{
    simulation_play(seed, NULL, verbose, ret_outcome);
    if (ret_outcome->violation)
        fail_msg("%s: %s. Play it with TIS_SEED=%" PRIu64, violation_name(ret_outcome->violation),
                 ret_outcome->text, seed);
}

/* The scheduler keeps all of its rules in all scenarios. */
static void test_scenarios(void **state)
{
    (void)state;
    struct outcome outcome;
    if (getenv("TIS_SEED")) {
        play(number_from_environment("TIS_SEED", 0), true, &outcome);
        return;
    }
    uint64_t count = number_from_environment("TIS_SCENARIOS", SCENARIOS_DEFAULT);
    uint64_t executions = 0;
    uint64_t requests = 0;
    for (uint64_t seed = 1; seed <= count; seed++) {
        play(seed, false, &outcome);
        executions += outcome.executions;
        requests += outcome.requests;
    }
    printf("%" PRIu64 " scenarios, %" PRIu64 " requests in %" PRIu64 " executions\n", count,
           requests, executions);
    assert_true(requests > count * 10);
}

/* The same seed gives the same story to the last byte. */
static void test_is_repeatable(void **state)
{
    (void)state;
    struct outcome first, again, other;
    simulation_play(7, NULL, false, &first);
    simulation_play(8, NULL, false, &other);
    simulation_play(7, NULL, false, &again);
    assert_true(first.digest == again.digest);
    assert_true(first.digest != other.digest);
}

/* Each planted fault is found, and called by its name, whatever else the scenario holds. */
static void test_planted_faults(void **state)
{
    (void)state;
    uint32_t missed = 0;
    for (size_t i = 0; i < planted_fault_count; i++) {
        const struct fault *fault = &planted_faults[i];
        struct outcome outcome = { 0 };
        uint64_t seed = 0;
        while (!outcome.violation && seed < SCENARIOS_FAULT_MAX)
            simulation_play(++seed, fault, false, &outcome);
        if (outcome.violation != fault->found_as) {
            print_error("planted: %s. Found with seed %" PRIu64 ": %s (%s)\n", fault->name, seed,
                        violation_name(outcome.violation), outcome.text);
            missed++;
        }
    }
    assert_int_equal(missed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scenarios),
        cmocka_unit_test(test_is_repeatable),
        cmocka_unit_test(test_planted_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
