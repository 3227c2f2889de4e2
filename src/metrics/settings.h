/* metrics/settings.h - what of the optional families is shown (--metrics-config).
 *
 * Threads: main, before anything starts; then constant.
 */
#ifndef TIS_METRICS_SETTINGS_H
#define TIS_METRICS_SETTINGS_H

#include <stdbool.h>

#include "base/error.h"

struct metrics_settings {
    bool no_counter_latencies; /* hide nv_..._duration_us */
    bool histogram_latencies;  /* show nv_inference_first_response_histogram_ms */
};

/* Sets what text says, "<name>=<value>" of Triton. A zeroed struct has the defaults.
 * Errors: INVALID_ARG  an unknown name or a wrong value, a text to put behind the flag's name;
 *                      summaries, which this server does not have, with what there is instead. */
MUST_USE tis_error *metrics_settings_set(struct metrics_settings *s, const char *text);

#endif
