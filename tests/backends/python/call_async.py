"""Calls several models at once: CALL is a JSON list of what call.py takes."""
import asyncio
import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    async def execute(self, requests):
        responses = []
        for request in requests:
            calls = json.loads(pb_utils.get_input_tensor_by_name(request, "CALL").as_numpy().flat[0])
            made = [pb_utils.InferenceRequest(
                model_name=call["model"], requested_output_names=call["outputs"],
                inputs=[pb_utils.Tensor(name, np.array(values, np.int32))
                        for name, values in call["inputs"].items()]) for call in calls]
            seen = []
            for answer in await asyncio.gather(*(one.async_exec() for one in made)):
                seen.append({"error": answer.error().message()} if answer.has_error() else
                            {t.name(): t.as_numpy().tolist() for t in answer.output_tensors()})
            responses.append(pb_utils.InferenceResponse(
                [pb_utils.Tensor("SEEN", np.array([json.dumps(seen)], np.object_))]))
        return responses
