"""Answers with what it can see of its request and logs a line of each level."""
import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.args = args

    def execute(self, requests):
        responses = []
        for request in requests:
            seen = {
                "id": request.request_id(), "correlation_id": request.correlation_id(),
                "parameters": json.loads(request.parameters()), "timeout": request.timeout(),
                "flags": request.flags(), "outputs": list(request.requested_output_names()),
                "cancelled": request.is_cancelled(), "context": request.trace().get_context(),
                "args": {key: value for key, value in self.args.items() if key != "model_config"},
            }
            logger = pb_utils.Logger
            logger.log_info("info of " + seen["id"])
            logger.log_warn("warning of " + seen["id"])
            logger.log_error("error of " + seen["id"])
            logger.log_verbose("verbose of " + seen["id"])
            responses.append(pb_utils.InferenceResponse(
                [pb_utils.Tensor("SEEN", np.array([json.dumps(seen)], np.object_))]))
        return responses
