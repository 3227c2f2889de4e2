/* Errors: text, code, context, copies, reasons with their arguments, out of memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"

static void test_text(void **state)
{
    (void)state;
    tis_error *err = error_new(TRITONSERVER_ERROR_NOT_FOUND, "no '%s' %d", "x", 3);
    assert_int_equal(error_code(err), TRITONSERVER_ERROR_NOT_FOUND);
    assert_string_equal(error_text(err), "no 'x' 3");
    assert_int_equal(error_reason(err), ERROR_REASON_NONE);
    err = error_wrap(err, "loading '%s'", "m");
    assert_int_equal(error_code(err), TRITONSERVER_ERROR_NOT_FOUND);
    assert_string_equal(error_text(err), "loading 'm': no 'x' 3");
    tis_error *copy = error_copy(err);
    error_free(err);
    assert_string_equal(error_text(copy), "loading 'm': no 'x' 3");
    error_free(copy);
    assert_null(error_wrap(NULL, "nothing"));
    assert_null(error_copy(NULL));
    error_free(NULL);
}

/* The arguments are copied, survive a copy, and are cut at ERROR_ARGS_MAX. */
static void test_reason(void **state)
{
    (void)state;
    char model[] = "m";
    const char *args[] = { model, "", "3", "4", "5", "6", "7", "8" };
    tis_error *err = error_new_reason(TRITONSERVER_ERROR_INVALID_ARG, 9, "sentence", args, 8);
    model[0] = '?';
    tis_error *copy = error_copy(err);
    error_free(err);
    assert_int_equal(error_reason(copy), 9);
    assert_string_equal(error_text(copy), "sentence");
    assert_string_equal(error_arg(copy, 0), "m");
    assert_string_equal(error_arg(copy, 1), "");
    assert_string_equal(error_arg(copy, ERROR_ARGS_MAX - 1), "6");
    assert_string_equal(error_arg(copy, ERROR_ARGS_MAX), "");
    assert_string_equal(error_arg(copy, UINT32_MAX), "");
    copy = error_wrap(copy, "context");
    assert_int_equal(error_reason(copy), ERROR_REASON_NONE);
    error_free(copy);
}

/* One object that everybody may free and nobody changes. */
static void test_no_memory(void **state)
{
    (void)state;
    tis_error *err = error_no_memory();
    assert_int_equal(error_code(err), TRITONSERVER_ERROR_UNAVAILABLE);
    assert_ptr_equal(error_copy(err), err);
    assert_ptr_equal(error_wrap(err, "context"), err);
    error_free(err);
    error_free(err);
    assert_string_equal(error_text(error_no_memory()), "out of memory");
}

/* A lent error outlives what its borrower does, and ends with its owner. */
static void test_lent(void **state)
{
    (void)state;
    tis_error *err = error_lend(error_new(TRITONSERVER_ERROR_INTERNAL, "text"));
    error_free(err);
    error_free(err);
    assert_string_equal(error_text(err), "text");
    error_free_lent(err);
    error_free_lent(error_new(TRITONSERVER_ERROR_INTERNAL, "never lent"));
    error_free_lent(NULL);
    assert_null(error_lend(NULL));
    assert_ptr_equal(error_lend(error_no_memory()), error_no_memory());
    error_free_lent(error_no_memory());
}

static void test_code_names(void **state)
{
    (void)state;
    assert_string_equal(error_code_name(TRITONSERVER_ERROR_UNKNOWN), "Unknown");
    assert_string_equal(error_code_name(TRITONSERVER_ERROR_CANCELLED), "Cancelled");
    assert_string_equal(error_code_name((TRITONSERVER_Error_Code)8), "<invalid code>");
    assert_string_equal(error_code_name((TRITONSERVER_Error_Code)-1), "<invalid code>");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),       cmocka_unit_test(test_reason),
        cmocka_unit_test(test_no_memory),  cmocka_unit_test(test_lent),
        cmocka_unit_test(test_code_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
