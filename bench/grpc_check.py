#!/usr/bin/env python3
"""Requests for h2load, and the check of answers by a client that decodes them (scripts/bench).

    grpc_check.py request WORK FILE COUNT    writes the body of one call: COUNT messages, framed
    grpc_check.py check WORK ADDRESS RPC     asks, looks at each answer, prints `BYTES TENSORS_FILE`

WORK is a JSON file: model, inputs ([name, datatype, shape, file of the bytes]), outputs ([name,
bytes]) and echo (whether the only output has to be the only input). `check` sends CHECKS requests
by RPC, sixteen at a time or in one stream, and compares each answer's model, id, output names and
bytes; all of them have to carry the same tensors. It writes those to TENSORS_FILE, so that two
servers can be compared, and BYTES is the length of the answer to the request that `request` writes.
"""

import concurrent.futures
import json
import pathlib
import struct
import sys

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

CHECKS = 400
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def request(work, request_id=""):
    message = service_pb2.ModelInferRequest(model_name=work["model"], id=request_id)
    for name, datatype, shape, path in work["inputs"]:
        message.inputs.add(name=name, datatype=datatype, shape=shape)
        message.raw_input_contents.append(pathlib.Path(path).read_bytes())
    return message


def write_request(work, path, count):
    message = request(work).SerializeToString()
    framed = b"\0" + struct.pack(">I", len(message)) + message
    pathlib.Path(path).write_bytes(framed * count)


def tensors(work, answer, request_id):
    """The answer's tensors; ends the program when they are not what was asked for."""
    found = {o.name: raw for o, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)}
    expected = dict(map(tuple, work["outputs"]))
    if {name: len(raw) for name, raw in found.items()} != expected:
        sys.exit(f"outputs {({n: len(r) for n, r in found.items()})}, expected {expected}")
    if (answer.model_name, answer.id) != (work["model"], request_id):
        sys.exit(f"answer of model '{answer.model_name}', id '{answer.id}', "
                 f"expected '{work['model']}', '{request_id}'")
    joined = b"".join(found[name] for name in expected)
    if work["echo"] and joined != pathlib.Path(work["inputs"][0][3]).read_bytes():
        sys.exit("the answer does not carry the input")
    return joined


def ask_unary(stub, work, ids):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda i: stub.ModelInfer(request(work, i), timeout=30), ids))


def ask_stream(stub, work, ids):
    """The responses in the order of ids, whatever the order in which they came."""
    responses = {}
    for one in stub.ModelStreamInfer((request(work, i) for i in ids), timeout=30):
        if one.error_message:
            sys.exit(f"the stream carries the error '{one.error_message}'")
        responses[one.infer_response.id] = one
    if set(responses) != set(ids):
        sys.exit(f"{len(responses)} answers to {len(ids)} messages")
    return [responses[i] for i in ids]


def check(work, address, rpc):
    ask = {"ModelInfer": ask_unary, "ModelStreamInfer": ask_stream}[rpc]
    count = CHECKS if max(n for _, n in work["outputs"]) < 1 << 16 else 16
    ids = [str(i) for i in range(count)]
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        responses = ask(stub, work, ids)
        plain = ask(stub, work, [""])[0]

    def answer(response):
        return response.infer_response if rpc == "ModelStreamInfer" else response

    seen = {tensors(work, answer(r), i) for i, r in zip(ids, responses, strict=True)}
    seen.add(tensors(work, answer(plain), ""))
    if len(seen) != 1:
        sys.exit(f"{len(seen)} different answers to the same request")
    path = pathlib.Path(work["inputs"][0][3]).with_suffix(".answer")
    path.write_bytes(seen.pop())
    print(plain.ByteSize(), path)


def main():
    verb, path, *rest = sys.argv[1:]
    work = json.loads(pathlib.Path(path).read_text())
    if verb == "request":
        write_request(work, rest[0], int(rest[1]))
    else:
        check(work, rest[0], rest[1])


if __name__ == "__main__":
    main()
