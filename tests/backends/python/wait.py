"""Waits until its request is cancelled, and says so in the log."""
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        deadline = time.monotonic() + 20
        pb_utils.Logger.log_info("waiting")
        for request in requests:
            while not request.is_cancelled() and time.monotonic() < deadline:
                time.sleep(0.01)
            pb_utils.Logger.log_info(f"cancelled: {request.is_cancelled()}")
        return [pb_utils.InferenceResponse(error=pb_utils.TritonError(
            "cancelled", pb_utils.TritonError.CANCELLED))] * len(requests)
