/* Failed requests for versions of known models that are not there. A version's own statistics go with
 * the version; these have none, but the v1 status shows them under the version that was asked for. */
#include <stdlib.h>
#include <string.h>

#include "api/v1/v1.h"
#include "base/clock.h"

enum {
    ABSENT_ROWS_MAX = 256 /* clients choose versions and batch sizes */
};

/* Under the lock. NULL when there are too many, or when out of memory. */
static struct absent_failures *find_row(struct api *api, struct part model, int64_t version,
                                        uint32_t batch_size)
{
    for (uint32_t i = 0; i < api->absent_count; i++) {
        struct absent_failures *row = &api->absent[i];
        if (row->version == version && row->batch_size == batch_size &&
            strlen(row->model) == model.len && memcmp(row->model, model.at, model.len) == 0)
            return row;
    }
    if (api->absent_count == ABSENT_ROWS_MAX)
        return NULL;
    if (!api->absent)
        api->absent = calloc(ABSENT_ROWS_MAX, sizeof(*api->absent));
    char *name = api->absent ? strndup(model.at, model.len) : NULL;
    if (!name)
        return NULL;
    struct absent_failures *row = &api->absent[api->absent_count++];
    *row = (struct absent_failures){ name, version, batch_size, { 0 } };
    return row;
}

void v1_count_absent(struct call *call, int64_t version, uint32_t batch_size)
{
    struct api *api = call->api;
    int64_t shown = version < 0 ? UINT32_MAX : version; /* 0.9's versions have 32 bits */
    lock_take(&api->lock);
    struct absent_failures *row = find_row(api, call->model, shown, batch_size);
    if (row) {
        row->failed.count++;
        row->failed.ns += clock_ns() - call->start_ns;
    }
    lock_release(&api->lock);
}

bool v1_get_absent(struct api *api, const char *model, struct arena *a,
                   struct absent_failures **ret_rows, uint32_t *ret_count)
{
    uint32_t count = 0;
    lock_take(&api->lock);
    struct absent_failures *rows = arena_calloc(a, api->absent_count, sizeof(*rows));
    for (uint32_t i = 0; i < api->absent_count && rows; i++) {
        if (strcmp(api->absent[i].model, model) == 0)
            rows[count++] = api->absent[i];
    }
    lock_release(&api->lock);
    *ret_rows = rows;
    *ret_count = count;
    return rows != NULL;
}
