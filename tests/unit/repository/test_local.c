/* The local repository over real directories: what is a model, what is a version, which files can be
 * read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/bytes.h"
#include "repository/local.h"
#include "unit/folder.h"

static char root[] = "/tmp/test_local_XXXXXX";

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    return path;
}

static void make_directory(const char *name)
{
    assert_int_equal(mkdir(path_of(name), 0700), 0);
}

static void make_file(const char *name, const char *text, size_t len)
{
    FILE *f = fopen(path_of(name), "we");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    fclose(f);
}

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(root))
        return -1;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return folder_remove(root);
}

static void test_models(void **state)
{
    (void)state;
    char **names = NULL;
    size_t count = 0;
    make_directory("empty");
    assert_null(local_list_models(path_of("empty"), &names, &count));
    assert_int_equal(count, 0);
    local_free_names(names, count);

    make_directory("repo");
    make_directory("repo/zebra");
    make_directory("repo/ant");
    make_directory("repo/.git");
    make_directory("repo/ name with blank");
    make_file("repo/README", "", 0);
    assert_int_equal(symlink("zebra", path_of("repo/link")), 0);
    assert_int_equal(symlink("nowhere", path_of("repo/dangling")), 0);
    assert_null(local_list_models(path_of("repo"), &names, &count));
    static const char *const expected[] = { " name with blank", "ant", "link", "zebra" };
    assert_int_equal(count, ARRAY_LEN(expected));
    for (size_t i = 0; i < count; i++)
        assert_string_equal(names[i], expected[i]);
    local_free_names(names, count);

    tis_error *err = local_list_models(path_of("nowhere"), &names, &count);
    assert_int_equal(error_code(err), TRITONSERVER_ERROR_NOT_FOUND);
    error_free(err);
    err = local_list_models(path_of("repo/README"), &names, &count);
    assert_int_equal(error_code(err), TRITONSERVER_ERROR_NOT_FOUND);
    error_free(err);
}

static void test_versions(void **state)
{
    (void)state;
    static const char *const folders[] = {
        "m",
        "m/10",
        "m/2",
        "m/0",
        "m/02",
        "m/007", /* no version: only 7 would be */
        "m/-1",
        "m/-0",
        "m/+5",
        "m/1a",
        "m/ 4",
        "m/x",
        "m/9223372036854775807",
        "m/9223372036854775808",
        "m/99999999999999999999999",
    };
    static const int64_t expected[] = { 0, 2, 10, INT64_MAX };
    for (size_t i = 0; i < ARRAY_LEN(folders); i++)
        make_directory(folders[i]);
    make_file("m/3", "", 0); /* a file is no version */
    int64_t *versions = NULL;
    size_t count = 0;
    assert_null(local_list_versions(path_of("m"), &versions, &count));
    assert_int_equal(count, ARRAY_LEN(expected));
    for (size_t i = 0; i < count; i++)
        assert_int_equal(versions[i], expected[i]);
    free(versions);

    char **names = NULL;
    assert_null(local_list_files(path_of("m"), &names, &count));
    assert_int_equal(count, ARRAY_LEN(folders) - 1 + 1); /* all below m, and the file */
    assert_string_equal(names[0], " 4");
    local_free_names(names, count);

    make_directory("none");
    assert_null(local_list_versions(path_of("none"), &versions, &count));
    assert_int_equal(count, 0);
    free(versions);
}

static void test_files(void **state)
{
    (void)state;
    char *text = NULL;
    size_t len = 0;
    make_file("ten", "01234\00067890", 11);
    assert_null(local_read_file(path_of("ten"), 11, &text, &len));
    assert_int_equal(len, 11);
    assert_memory_equal(text, "01234\00067890", 12); /* with the NUL behind it */
    free(text);
    make_file("zero", "", 0);
    assert_null(local_read_file(path_of("zero"), 0, &text, &len));
    assert_string_equal(text, "");
    free(text);

    make_directory("folder");
    assert_int_equal(mkfifo(path_of("pipe"), 0600), 0);
    static const struct {
        const char *name;
        TRITONSERVER_Error_Code code;
    } bad[] = {
        { "missing", TRITONSERVER_ERROR_NOT_FOUND },
        { "ten/below", TRITONSERVER_ERROR_NOT_FOUND },
        { "ten", TRITONSERVER_ERROR_INVALID_ARG }, /* too large */
        { "folder", TRITONSERVER_ERROR_INVALID_ARG },
        { "pipe", TRITONSERVER_ERROR_INVALID_ARG }, /* and nobody waits for a writer */
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char *untouched = NULL;
        tis_error *err = local_read_file(path_of(bad[i].name), 10, &untouched, &len);
        assert_non_null(err);
        assert_int_equal(error_code(err), bad[i].code);
        assert_non_null(strstr(error_text(err), bad[i].name));
        assert_null(untouched);
        error_free(err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_models),
                                        cmocka_unit_test(test_versions),
                                        cmocka_unit_test(test_files) };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
