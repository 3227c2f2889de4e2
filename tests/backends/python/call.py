"""Calls other models as its input CALL says, a JSON object; SEEN tells what came back:

  {"model": name, "inputs": {name: numbers}, "outputs": [names], "how": "exec" or "decoupled",
   "more": arguments of InferenceRequest}
  {"ready": name}, {"load": name}, {"unload": name}
"""
import json

import numpy as np
import triton_python_backend_utils as pb_utils


def request_of(call):
    inputs = [pb_utils.Tensor(name, np.array(values, np.int32))
              for name, values in call["inputs"].items()]
    return pb_utils.InferenceRequest(model_name=call["model"], inputs=inputs,
                                     requested_output_names=call["outputs"],
                                     **call.get("more", {}))


def seen_of(response):
    if response.has_error():
        return {"error": response.error().message(), "code": int(response.error().code())}
    outputs = {}
    for tensor in response.output_tensors():
        array = tensor.as_numpy()
        outputs[tensor.name()] = ([v.decode() for v in array.flat] if array.dtype == np.object_
                                  else array.tolist())
    return {"outputs": outputs}


def run(call):
    if "ready" in call:
        return pb_utils.is_model_ready(model_name=call["ready"])
    if "load" in call:
        return pb_utils.load_model(model_name=call["load"])
    if "unload" in call:
        return pb_utils.unload_model(model_name=call["unload"])
    if call.get("how") == "decoupled":
        return [seen_of(response) for response in request_of(call).exec(decoupled=True)]
    return seen_of(request_of(call).exec())


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            call = json.loads(pb_utils.get_input_tensor_by_name(request, "CALL").as_numpy().flat[0])
            try:
                seen = run(call)
            except Exception as error:
                seen = {"raised": str(error)}
            responses.append(pb_utils.InferenceResponse(
                [pb_utils.Tensor("SEEN", np.array([json.dumps(seen)], np.object_))]))
        return responses
