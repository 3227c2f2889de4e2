/* base/park.h - where one thread sleeps until another wakes it.
 *
 * Cheaper than a condition variable: the waker need not hold the lock under which it found the
 * sleeper, so the sleeper does not wake only to wait for that lock.
 *
 *     sleeper, under its lock: park_prepare(), make itself findable; unlock; park_wait()
 *     waker, under that lock:  take the sleeper out of where it was found; unlock; park_wake()
 *
 * One park_wake() for each park_prepare(); it may come before the park_wait().
 * Threads: park_prepare() and park_wait(): the sleeper; park_wake(): any other.
 */
#ifndef TIS_BASE_PARK_H
#define TIS_BASE_PARK_H

#include <stdatomic.h>
#include <stdint.h>

struct park {
    _Atomic uint32_t parked; /* a futex: 1 from prepare to wake */
};

void park_prepare(struct park *p);
void park_wait(struct park *p);
void park_wake(struct park *p);

#endif
