/* The heap gives the smallest key, whatever was inserted and removed between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/heap.h"

enum {
    NODES = 257
};

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static const struct heap_node *smallest(const struct heap_node *nodes)
{
    const struct heap_node *found = NULL;
    for (int i = 0; i < NODES; i++) {
        if (nodes[i].is_in_heap && (!found || nodes[i].key < found->key))
            found = &nodes[i];
    }
    return found;
}

static void test_against_a_search(void **state)
{
    (void)state;
    static struct heap_node nodes[NODES];
    struct heap heap = { 0 };
    uint64_t seed = 20181218;
    uint32_t count = 0;
    for (int step = 0; step < 50000; step++) {
        struct heap_node *n = &nodes[next_random(&seed) % NODES];
        if (n->is_in_heap) {
            heap_remove(&heap, n);
            count--;
        } else {
            n->key = next_random(&seed) % 100;
            heap_insert(&heap, n);
            count++;
        }
        heap_remove(&heap, &(struct heap_node){ 0 }); /* in no heap: nothing happens */
        const struct heap_node *expected = smallest(nodes);
        assert_int_equal(heap.count, count);
        assert_int_equal(expected == NULL, heap_first(&heap) == NULL);
        if (expected)
            assert_int_equal(heap_first(&heap)->key, expected->key);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_against_a_search) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
