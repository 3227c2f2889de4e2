#include "base/park.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

static void futex(struct park *p, int operation, uint32_t value)
{
    syscall(SYS_futex, &p->parked, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

void park_prepare(struct park *p)
{
    atomic_store(&p->parked, 1);
}

void park_wait(struct park *p)
{
    /* Returns at once when the word is no longer 1; spurious wake-ups go round. */
    while (atomic_load(&p->parked) == 1)
        futex(p, FUTEX_WAIT, 1);
}

void park_wake(struct park *p)
{
    atomic_store(&p->parked, 0);
    futex(p, FUTEX_WAKE, 1);
}
