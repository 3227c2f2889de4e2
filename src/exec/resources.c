#include "exec/resources.h"

#include "base/clock.h"

static struct limiter_member *next_member(struct tis_runner *r)
{
    return &r->instances[r->turn]->limits;
}

bool resources_get(struct tis_runner *r)
{
    struct tis_version *v = r->version;
    struct limiter_member *next = next_member(r);
    uint64_t now_ns = clock_ns();
    bool is_ready = v->scheduler->ops->ready_ns(v->scheduler, now_ns) <= now_ns;

    park_prepare(&r->park); /* it may be granted, and woken, before it sleeps */
    bool holds = limiter_step(v->limiter, r->asked, is_ready ? next : NULL, &r->granted);
    if (is_ready)
        r->asked = next;
    r->waits = is_ready && !holds;
    return holds;
}

void resources_use(struct tis_runner *r)
{
    struct tis_version *v = r->version;
    r->asked->has_run = true;
    if (v->scheduler->waiting > 0)
        return;
    for (uint32_t i = 0; i < v->runner_count; i++)
        resources_recall(v->runners[i], &r->granted);
}

void resources_give_back(struct tis_runner *r)
{
    limiter_step(r->version->limiter, r->asked, NULL, &r->granted);
}

/* Of those whose turn is the same, the last that went idle. */
static struct tis_runner **first_idle(struct tis_version *v)
{
    struct tis_runner **first = &v->idle;
    for (struct tis_runner **at = &v->idle; *at; at = &(*at)->idle_next) {
        if (limiter_is_before(next_member(*at), next_member(*first)))
            first = at;
    }
    return first;
}

struct tis_runner *resources_find_idle(struct tis_version *v)
{
    while (v->idle) {
        struct tis_runner **at = first_idle(v);
        struct tis_runner *r = *at;
        *at = r->idle_next;
        r->asked = next_member(r);
        r->waits = !limiter_step(v->limiter, NULL, r->asked, NULL);
        if (r->waits)
            continue;
        r->idle_next = v->idle;
        v->idle = r;
        return r;
    }
    return NULL;
}

void resources_recall(struct tis_runner *r, struct list *granted)
{
    struct tis_version *v = r->version;
    /* One that was granted in the meantime wakes and looks for itself. */
    if (!r->waits || !limiter_withdraw(v->limiter, r->asked, granted))
        return;
    r->waits = false;
    r->idle_next = v->idle;
    v->idle = r;
}

void resources_wake(struct list *granted)
{
    for (struct list *link; (link = list_pop(granted));) {
        struct tis_instance *i = LIST_ENTRY(link, struct tis_instance, limits.link);
        park_wake(&i->runner->park);
    }
}
