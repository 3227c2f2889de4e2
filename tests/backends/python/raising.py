"""Raises where its parameter `where` says; in execute, does what the request's id says.

Returning None is not tried: nobody answers the request then, in Triton either."""
import json

import numpy as np
import triton_python_backend_utils as pb_utils


def parameter_of(config):
    return config["parameters"]["where"]["string_value"]


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        if parameter_of(config.as_dict()) == "auto_complete_config":
            raise ValueError("broken in auto_complete_config")
        return config

    def initialize(self, args):
        self.where = parameter_of(json.loads(args["model_config"]))
        if self.where == "initialize":
            raise ValueError("broken in initialize")

    def execute(self, requests):
        return [response for request in requests for response in self.answer(request.request_id())]

    def answer(self, where):
        good = pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", np.zeros(1, np.int32))])
        if where == "execute":
            raise ValueError("broken in execute")
        if where == "error":
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(
                "an orderly error", pb_utils.TritonError.UNAVAILABLE))]
        if where == "too_many":
            return [good, good]
        if where == "wrong_thing":
            return ["text"]
        if where == "wrong_output":
            return [pb_utils.InferenceResponse([pb_utils.Tensor("X", np.zeros(1, np.int32))])]
        if where == "wrong_type":
            return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", np.zeros(1, np.float32))])]
        if where == "missing_output":
            return [pb_utils.InferenceResponse([])]
        return [good]

    def finalize(self):
        if self.where == "finalize":
            raise ValueError("broken in finalize")
