/* The scheduler that a configuration asks for. */
#include <stdlib.h>

#include "sched/batcher.h"
#include "sched/scheduler.h"

static struct queue_policy policy_of(const Inference__ModelQueuePolicy *from)
{
    if (!from)
        return (struct queue_policy){ 0 };
    return (struct queue_policy){
        .action = from->timeout_action == INFERENCE__MODEL_QUEUE_POLICY__TIMEOUT_ACTION__DELAY
                      ? TIMEOUT_DELAY
                      : TIMEOUT_REJECT,
        .timeout_ns = from->default_timeout_microseconds * 1000,
        .timeout_override = from->allow_timeout_override,
        .requests_max = from->max_queue_size,
    };
}

static tis_error *dynamic_create(const struct model_config *config,
                                 const Inference__ModelDynamicBatching *d,
                                 struct scheduler **ret_scheduler)
{
    uint32_t level_count = d->priority_levels ? (uint32_t)d->priority_levels : 1;
    struct queue_policy *policies = calloc(level_count, sizeof(*policies));
    if (!policies)
        return error_no_memory();
    for (uint32_t i = 0; i < level_count; i++)
        policies[i] = policy_of(d->default_queue_policy);
    for (size_t i = 0; i < d->n_priority_queue_policy; i++)
        policies[d->priority_queue_policy[i]->key - 1] =
            policy_of(d->priority_queue_policy[i]->value);

    /* dynamic_batching of a model without a batch dimension is its queue policy alone. */
    bool batches = config->max_batch_size > 0;
    tis_error *err = batcher_create(
        &(struct batcher_options){
            .policies = policies,
            .level_count = level_count,
            .level_default = d->priority_levels ? (uint32_t)d->default_priority_level - 1 : 0,
            .requests_max = batches ? (uint32_t)config->max_batch_size : 1,
            .batch_size_max = batches ? (uint32_t)config->max_batch_size : 1,
            .preferred = d->preferred_batch_size,
            .preferred_count = batches ? d->n_preferred_batch_size : 0,
            .delay_ns = batches ? d->max_queue_delay_microseconds * 1000 : 0,
            .compares_inputs = config->has_unlike_requests,
        },
        ret_scheduler);
    free(policies);
    return err;
}

tis_error *scheduler_create(const struct model_config *config, struct scheduler **ret_scheduler)
{
    const Inference__ModelConfig *pb = config->message;
    if (pb->scheduling_choice_case == INFERENCE__MODEL_CONFIG__SCHEDULING_CHOICE_DYNAMIC_BATCHING)
        return dynamic_create(config, pb->dynamic_batching, ret_scheduler);

    /* One request an execution, first in, first out. */
    static const struct queue_policy no_policy = { 0 };
    return batcher_create(
        &(struct batcher_options){
            .policies = &no_policy,
            .level_count = 1,
            .requests_max = 1,
            .batch_size_max = config->max_batch_size > 0 ? (uint32_t)config->max_batch_size : 1,
        },
        ret_scheduler);
}
