"""Decoupled: for COUNT = n it answers 0, 1, ... n - 1, one response each, from a thread of its own.

An error among them is not tried: this release's caller then never ends, in Triton either."""
import threading

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.threads = []

    def execute(self, requests):
        for request in requests:
            count = int(pb_utils.get_input_tensor_by_name(request, "COUNT").as_numpy().flat[0])
            thread = threading.Thread(target=self.answer,
                                      args=(request.get_response_sender(), count))
            self.threads.append(thread)
            thread.start()
        return None

    def answer(self, sender, count):
        assert not sender.is_cancelled()
        for i in range(count):
            sender.send(pb_utils.InferenceResponse(
                [pb_utils.Tensor("NUMBER", np.array([i], np.int32))]))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def finalize(self):
        for thread in self.threads:
            thread.join()
