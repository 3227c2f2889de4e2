"""Runs the client of TRTIS 1.11 for test_v1_client.py: a JSON object a line in, one a line out.

It needs the interpreter of third_party/fetched/venv-v1 and its OpenSSL 1.1 on LD_LIBRARY_PATH. An
operation is {"do": NAME, ...}, see the functions below; the answer is {"ok": result} or {"error":
{"message", "server_id", "request_id"}}. An array is {"type", "shape", "data"}, the data in base64;
strings are an array of type "object" whose data is a list.
"""
import base64
import json
import sys
import threading

import numpy as np
from google.protobuf.json_format import MessageToDict
from tensorrtserver.api import (InferContext, InferenceServerException, ModelControlContext,
                                ModelRepositoryContext, ProtocolType, ServerHealthContext,
                                ServerStatusContext, SharedMemoryControlContext,
                                server_status_pb2)

DEADLINE_S = 60


def read_bytes(parse):
    """The C library's memory comes as a memoryview of a format that protobuf 3.20 on Python 3.11
    does not take; bytes are fine. Nothing else of the client is touched."""
    return lambda self, data: parse(self, bytes(data))


for message in (server_status_pb2.ServerStatus, server_status_pb2.ModelRepositoryIndex,
                server_status_pb2.SharedMemoryStatus):
    message.ParseFromString = read_bytes(message.ParseFromString)


def decode(array):
    if array["type"] == "object":
        values = np.empty(len(array["data"]), dtype=object)
        # str: of bytes in an array of objects the client sends their repr()
        values[:] = [base64.b64decode(item).decode() for item in array["data"]]
        return values.reshape(array["shape"])
    data = np.frombuffer(base64.b64decode(array["data"]), dtype=array["type"])
    return data.reshape(array["shape"])


def encode(value):
    """One batch entry of a result: an array, or [index, value, label] triples."""
    if not isinstance(value, np.ndarray):
        return [[i, v, label.decode() if isinstance(label, bytes) else label]
                for i, v, label in value]
    if value.dtype == object:
        return {"type": "object", "shape": value.shape,
                "data": [base64.b64encode(item).decode() for item in value.flatten()]}
    return {"type": value.dtype.str, "shape": value.shape,
            "data": base64.b64encode(value.tobytes()).decode()}


def health(url, protocol):
    with ServerHealthContext(url, ProtocolType.from_str(protocol)) as context:
        return {"ready": context.is_ready(), "live": context.is_live()}


def dictionary(message):
    return MessageToDict(message, preserving_proto_field_name=True,
                         including_default_value_fields=True)


def status(url, protocol, model=None):
    with ServerStatusContext(url, ProtocolType.from_str(protocol), model) as context:
        message = context.get_server_status()
        return {**dictionary(message), "request_id": context.get_last_request_id()}


def repository(url, protocol):
    with ModelRepositoryContext(url, ProtocolType.from_str(protocol)) as context:
        return dictionary(context.get_model_repository_index())


def control(url, protocol, model, load):
    with ModelControlContext(url, ProtocolType.from_str(protocol)) as context:
        (context.load if load else context.unload)(model)


def shared_memory(url, protocol):
    with SharedMemoryControlContext(url, ProtocolType.from_str(protocol)) as context:
        return dictionary(context.get_shared_memory_status())


def infer(url, protocol, model, inputs, outputs, batch_size=1, version=None, flags=0, corr_id=0,
          count=1, is_async=False, streaming=False):
    """count: how often, one after the other, or all at once when is_async. A list of results."""
    inputs = {name: [decode(entry) for entry in entries] for name, entries in inputs.items()}
    formats = {name: InferContext.ResultFormat.RAW if k is None
               else (InferContext.ResultFormat.CLASS, k) for name, k in outputs.items()}
    with InferContext(url, ProtocolType.from_str(protocol), model, version,
                      streaming=streaming) as context:
        if is_async:
            results = run_async(context, inputs, formats, batch_size, count, flags, corr_id)
        else:
            results = [context.run(inputs, formats, batch_size, flags, corr_id)
                       for _ in range(count)]
        return {"results": [{name: [encode(entry) for entry in entries]
                             for name, entries in result.items()} for result in results],
                "model": context.get_last_request_model_name(),
                "version": context.get_last_request_model_version(),
                "request_id": context.get_last_request_id(),
                "completed": context.get_stat()["completed_request_count"]}


def run_async(context, inputs, formats, batch_size, count, flags, corr_id):
    done = threading.Condition()
    ended = []

    def callback(_, request_id):
        with done:
            ended.append(request_id)
            done.notify()

    for _ in range(count):
        context.async_run(callback, inputs, formats, batch_size, flags, corr_id)
    with done:
        if not done.wait_for(lambda: len(ended) == count, DEADLINE_S):
            raise TimeoutError(f"{len(ended)} of {count} requests came back")
    return [context.get_async_run_results(request_id) for request_id in ended]


OPERATIONS = {"health": health, "status": status, "repository": repository, "control": control,
              "shared_memory": shared_memory, "infer": infer}


def main():
    for line in sys.stdin:
        arguments = json.loads(line)
        try:
            answer = {"ok": OPERATIONS[arguments.pop("do")](**arguments)}
        except InferenceServerException as error:
            server_id = error.server_id()
            answer = {"error": {
                "message": error.message(), "request_id": error.request_id(),
                "server_id": server_id.decode() if isinstance(server_id, bytes) else server_id}}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
