"""Uses metrics of its own and answers with what they say."""
import json

import numpy as np
import triton_python_backend_utils as pb_utils


def outcome(function, *args):
    try:
        return function(*args)
    except Exception as error:
        return "raised: " + str(error)


class TritonPythonModel:
    def execute(self, requests):
        family = pb_utils.MetricFamily
        counters = family(name="test_counter", description="a counter", kind=family.COUNTER)
        gauges = family(name="test_gauge", description="a gauge", kind=family.GAUGE)
        histograms = family(name="test_histogram", description="a histogram", kind=family.HISTOGRAM)
        counter = counters.Metric(labels={"a": "1"})
        gauge = gauges.Metric(labels={"a": "1", "b": "two"})
        histogram = histograms.Metric(labels={}, buckets=[0.1, 1.0, 2.5])
        counter.increment(2.5)
        gauge.set(7)
        gauge.increment(-3)
        histogram.observe(0.5)
        seen = {
            "counter": counter.value(), "gauge": gauge.value(),
            "decrement": outcome(counter.increment, -1), "set": outcome(counter.set, 1),
            "observe": outcome(gauge.observe, 1), "read": outcome(histogram.value),
            "after": counter.value(),
            "name": outcome(lambda: family(name="no name", description="", kind=family.GAUGE) and 1),
            "buckets": outcome(lambda: histograms.Metric(labels={}, buckets=[2.0, 1.0]) and 1),
        }
        del counter, gauge, histogram
        return [pb_utils.InferenceResponse(
            [pb_utils.Tensor("SEEN", np.array([json.dumps(seen)], np.object_))])] * len(requests)
