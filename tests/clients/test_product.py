"""Every data type, on every way into the server, with every kind of batch, on two backends.

`make test` takes two kinds of batch, `make test-full` all of them. A way sends a tensor to a model that
gives it back and returns the bytes that came, as v2 has them in binary; it is given the bytes to send.
"""
import os
import re
import struct

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from server import Server, add_model, binary_body, binary_input, config, identity, json_input, \
    onnx_models, pairs
from v1_messages import V1, call

# A letter of struct; 16-bit floats go as their bits.
NUMBERS = {"BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b",
           "INT16": "h", "INT32": "i", "INT64": "q", "FP16": "H", "BF16": "H", "FP32": "f",
           "FP64": "d"}
TYPES = [*NUMBERS, "BYTES"]
FIELDS = {"BOOL": "bool", "INT8": "int", "INT16": "int", "INT32": "int", "INT64": "int64",
          "UINT8": "uint", "UINT16": "uint", "UINT32": "uint", "UINT64": "uint64", "FP32": "fp32",
          "FP64": "fp64", "BYTES": "bytes"}
BACKENDS = ["identity", "onnxruntime"]
BATCHES = [None, 1, 2, 3, 7, 8] if os.environ.get("TIS_FULL") == "1" else [None, 3]
WIDTH = 5
STRINGS = [b"", b"plain", "größe 漢字".encode(), b'quote " back \\ \n', b"x" * 300]


def model_of(backend, datatype, batch):
    return f"{backend}_{datatype}_{'one' if batch is None else 'batch'}"


def values(datatype, count):
    """Over the type's whole range."""
    if datatype == "BYTES":
        return (STRINGS * count)[:count]
    if datatype == "BOOL":
        return [i % 3 == 0 for i in range(count)]
    if datatype in ("FP16", "BF16"):
        some = [0x0000, 0x8000, 0x3C00, 0xBF80, 0x4049]
    elif datatype in ("FP32", "FP64"):
        some = [0.0, -0.0, 1.5, -2.0**-100, 2.0**100]
    else:
        limits = np.iinfo(datatype.lower())
        some = [int(limits.min), int(limits.max), 0, 1, int(limits.max) // 3]
    return (some * count)[:count]


def to_bytes(datatype, data):
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(v)) + v for v in data)
    return struct.pack(f"<{len(data)}{NUMBERS[datatype]}", *data)


# ---- The ways ----

class Tensor:
    """What a way is given: the values, the same as bytes, and where to send them."""

    def __init__(self, backend, datatype, batch):
        self.datatype, self.batch = datatype, batch
        self.model = model_of(backend, datatype, batch)
        self.shape = [WIDTH] if batch is None else [batch, WIDTH]
        self.data = values(datatype, WIDTH * (batch or 1))
        self.raw = to_bytes(datatype, self.data)

    def request(self, raw=(), contents=None):
        r = pb.ModelInferRequest(model_name=self.model, raw_input_contents=raw)
        i = r.inputs.add(name="INPUT0", datatype=self.datatype, shape=self.shape)
        if contents:
            getattr(i.contents, f"{contents}_contents").extend(self.data)
        return r

    def check(self, output):
        assert (output.datatype, list(output.shape)) == (self.datatype, self.shape)


def http_json(server, channel, t):
    data = [v.decode() for v in t.data] if t.datatype == "BYTES" else t.data
    answer = server.infer(t.model, {"inputs": [json_input("INPUT0", t.datatype, t.shape, data)]})
    assert answer.status == 200, answer
    output = answer.json()["outputs"][0]
    assert (output["datatype"], output["shape"]) == (t.datatype, t.shape)
    found = output["data"]
    return to_bytes(t.datatype, [v.encode() for v in found] if t.datatype == "BYTES" else found)


def http_binary(server, channel, t):
    head = {"inputs": [binary_input("INPUT0", t.datatype, t.shape, len(t.raw))],
            "parameters": {"binary_data_output": True}}
    answer = server.infer(t.model, *binary_body(head, t.raw))
    assert answer.status == 200, answer
    return answer.split()[1]


def grpc_raw(server, channel, t):
    return grpc_call(channel, t, t.request(raw=[t.raw]))


def grpc_typed(server, channel, t):
    return grpc_call(channel, t, t.request(contents=FIELDS[t.datatype]))


def grpc_call(channel, t, request):
    method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer",
                                 pb.ModelInferRequest.SerializeToString,
                                 pb.ModelInferResponse.FromString)
    answer = method(request, timeout=30)
    t.check(answer.outputs[0])
    return answer.raw_output_contents[0]


def grpc_stream(server, channel, t):
    method = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer",
                                   pb.ModelInferRequest.SerializeToString,
                                   pb.ModelStreamInferResponse.FromString)
    answer, = method(iter([t.request(raw=[t.raw])]), timeout=30)
    assert not answer.error_message
    t.check(answer.infer_response.outputs[0])
    return answer.infer_response.raw_output_contents[0]


def v1_header(t):
    size = f" batch_byte_size: {len(t.raw)}" if t.datatype == "BYTES" else ""
    return (f'batch_size: {t.batch or 1} input {{ name: "INPUT0" dims: [ {WIDTH} ]{size} }} '
            'output { name: "OUTPUT0" }')


def v1_http(server, channel, t):
    answer = server.request("POST", f"/api/infer/{t.model}", t.raw,
                            {"NV-InferRequest": v1_header(t)})
    assert answer.status == 200, answer
    size = re.search(r"batch_byte_size: (\d+)", answer.headers["NV-InferResponse"])
    return answer.body[:int(size[1])]  # its header follows


def v1_grpc(server, channel, t):
    request = V1.InferRequest(model_name=t.model, model_version=-1, raw_input=[t.raw])
    request.meta_data.batch_size = t.batch or 1
    one = request.meta_data.input.add(name="INPUT0", dims=[WIDTH])
    if t.datatype == "BYTES":
        one.batch_byte_size = len(t.raw)
    request.meta_data.output.add(name="OUTPUT0")
    answer = call(channel, "Infer", request, V1.InferResponse)
    assert not answer.request_status.msg, answer
    return answer.raw_output[0]


WAYS = {
    http_json: [t for t in TYPES if t not in ("FP16", "BF16")],
    http_binary: TYPES,
    grpc_raw: TYPES,
    grpc_typed: FIELDS,
    grpc_stream: TYPES,
    v1_http: TYPES,
    v1_grpc: TYPES,
}


# ---- The product ----

@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = tmp_path_factory.mktemp("product")
    for t in TYPES:
        for batch, size in ((None, 0), (1, 8)):
            add_model(repository, model_of("identity", t, batch), identity(t, [WIDTH], batch=size))
            add_model(repository, model_of("onnxruntime", t, batch),
                      config("onnxruntime", *pairs(t, [WIDTH]), batch=size),
                      onnx=onnx_models.identity(t, [WIDTH] if batch is None else [None, WIDTH]))
    with Server(repository) as s:
        yield s


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc_url) as c:
        yield c


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("way,datatype", [
    pytest.param(way, t, id=f"{way.__name__}-{t}") for way, types in WAYS.items() for t in types])
def test_product(server, channel, way, datatype, backend, batch):
    tensor = Tensor(backend, datatype, batch)
    assert way(server, channel, tensor) == tensor.raw
