/* exec/response_factory.h - makes responses of one request, also after its release.
 *
 * Memory is type-stable (base/slab): a plug-in that uses a deleted factory meets the alive check.
 *
 * Threads: any.
 */
#ifndef TIS_EXEC_RESPONSE_FACTORY_H
#define TIS_EXEC_RESPONSE_FACTORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "infer/sink.h"

struct tis_response_factory {
    _Atomic bool alive;
    _Atomic uint32_t responses_reported; /* to the statistics, which number them */
    uint32_t generation;
    struct sink *sink; /* a reference */
};

#endif
