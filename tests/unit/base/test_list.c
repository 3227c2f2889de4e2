/* The intrusive list: order, membership, removing twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/list.h"

struct item {
    int number;
    struct list link;
};

static void test_order(void **state)
{
    (void)state;
    struct list head;
    struct item items[5];
    list_init(&head);
    assert_true(list_is_empty(&head));
    assert_null(list_pop(&head));
    for (int i = 0; i < 5; i++) {
        items[i].number = i;
        list_init(&items[i].link);
        assert_false(list_is_linked(&items[i].link));
        list_append(&head, &items[i].link);
        assert_true(list_is_linked(&items[i].link));
    }
    int expected = 0;
    LIST_FOREACH(it, &head)
    assert_int_equal(LIST_ENTRY(it, struct item, link)->number, expected++);
    assert_int_equal(expected, 5);

    list_remove(&items[2].link);
    list_remove(&items[2].link); /* does no harm */
    assert_false(list_is_linked(&items[2].link));
    static const int left[] = { 0, 1, 3, 4 };
    for (size_t i = 0; i < ARRAY_LEN(left); i++) {
        struct list *first = list_pop(&head);
        assert_int_equal(LIST_ENTRY(first, struct item, link)->number, left[i]);
        assert_false(list_is_linked(first));
    }
    assert_true(list_is_empty(&head));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_order) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
