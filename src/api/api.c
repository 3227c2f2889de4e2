#include "api/api.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

void api_init(struct api *api, const struct api_options *options, struct registry *registry,
              struct pool *workers)
{
    memset(api, 0, sizeof(*api));
    api->options = *options;
    api->registry = registry;
    api->workers = workers;
    atomic_init(&api->state, SERVER_INVALID);
    lock_init(&api->lock, LOCK_STATISTICS);
    process_metrics_init(&api->process, options->metrics_interval_ns, options->metrics_of_machine);
}

void api_set_ports(struct api *api, const struct api_ports *ports)
{
    api->ports = *ports;
}

void api_fini(struct api *api)
{
    for (uint32_t i = 0; i < api->absent_count; i++)
        free(api->absent[i].model);
    free(api->absent);
    process_metrics_fini(&api->process);
    lock_fini(&api->lock);
}

void api_set_state(struct api *api, enum server_state state)
{
    atomic_store(&api->state, state);
}

enum server_state api_state(const struct api *api)
{
    return atomic_load(&api->state);
}

bool api_is_live(const struct api *api)
{
    enum server_state state = api_state(api);
    return state == SERVER_INITIALIZING || state == SERVER_READY;
}

void api_set_draining(struct api *api)
{
    atomic_store(&api->draining, true);
}

bool api_is_ready(const struct api *api)
{
    return !atomic_load(&api->draining) && api_state(api) == SERVER_READY &&
           registry_is_ready(api->registry);
}

void api_count(struct api *api, enum api_counter counter, uint64_t start_ns)
{
    uint64_t now = clock_ns();
    lock_take(&api->lock);
    api->counters[counter].count++;
    api->counters[counter].ns += now - start_ns;
    lock_release(&api->lock);
}
