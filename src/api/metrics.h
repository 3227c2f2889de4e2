/* api/metrics.h - the metrics page.
 *
 * The page tells of every version of every model, the server, the process, the machine and what
 * backends count; docs/metrics.md has all of it. It is put together on a worker thread from the
 * counters as they are at that moment, and nothing of it is kept.
 *
 * Threads: a loop; the page itself on a worker.
 */
#ifndef TIS_API_METRICS_H
#define TIS_API_METRICS_H

#include "api/call.h"

/* GET /metrics: the form that the client accepts. */
void metrics_page(struct call *call);

#endif
