"""The v2 protocol over gRPC: tritonclient.grpc and grpcio against a server with models of our own.

What goes wrong on the wire is made with grpcio's raw calls, where bytes are the messages.
"""
import concurrent.futures
import socket
import threading
import time

import grpc
import numpy as np
import pytest
import tritonclient.grpc as client_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

from server import Server, add_model, config, identity, pairs, tensor

SERVICE = "/inference.GRPCInferenceService/"
NUMBERS = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "INT8": "i1",
    "INT16": "i2", "INT32": "i4", "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
    "BF16": "f4",  # tritonclient takes and gives FP32 arrays
}
FIELDS = {"BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents",
          "INT32": "int_contents", "INT64": "int64_contents", "UINT8": "uint_contents",
          "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
          "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents"}
CODE = grpc.StatusCode


def values(datatype, count=6):
    if datatype == "BYTES":
        return np.array([b"", b"a\0b", "größe".encode(), b"x" * 70_000, b"1", b"2"][:count],
                        dtype=object)
    dtype = np.dtype(NUMBERS[datatype])
    if datatype == "BOOL":
        return np.arange(count) % 3 == 0
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.array([limits.min, limits.max, 0, 1, limits.max // 3, 7][:count], dtype=dtype)
    return np.array([0.0, -0.0, 1.5, -2.0, 448.0, 0.00390625][:count], dtype=dtype)


@pytest.fixture(scope="module")
def v2(tmp_path_factory):
    repository = tmp_path_factory.mktemp("v2")
    for t in [*NUMBERS, "BYTES"]:
        add_model(repository, f"identity_{t}", identity(t, [-1], batch=8))
    add_model(repository, "two", config("identity", *pairs("FP32", [4], 2), batch=8))
    add_model(repository, "labels",
              config("identity", [tensor("INPUT0", "FP32", [4])],
                     [tensor("OUTPUT0", "FP32", [4], 'label_filename: "names.txt"')], batch=8),
              files={"names.txt": "zero\none\ntwo\nthree\n"})
    add_model(repository, "slow", identity("INT32", [1], delay_ms=3000))
    add_model(repository, "versions", identity("INT32", [2], extra="version_policy { all { } }"),
              versions=[1, 3])
    add_model(repository, "broken", "backend: 12")
    with Server(repository, "--exit-on-error=false", "--strict-readiness=false",
                "--grpc-max-message-size=40000000") as server:
        yield server


@pytest.fixture(scope="module")
def client(v2):
    with client_grpc.InferenceServerClient(v2.grpc_url) as c:
        yield c


@pytest.fixture
def channel(v2):
    with grpc.insecure_channel(v2.grpc_url) as c:
        yield c


def call(channel, method, message, seconds=30, **kwargs):
    """A call whose messages are bytes; protobuf messages are written."""
    if not isinstance(message, bytes):
        message = message.SerializeToString()
    path = method if method.startswith("/") else SERVICE + method
    return channel.unary_unary(path, lambda m: m, lambda m: m)(message, timeout=seconds, **kwargs)


def fails(channel, method, message, code, text, **kwargs):
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, method, message, **kwargs)
    assert (caught.value.code(), text in caught.value.details()) == (code, True), caught.value


def infer_input(name, array, datatype):
    one = client_grpc.InferInput(name, list(array.shape), datatype)
    one.set_data_from_numpy(array)
    return one


def request(model, *inputs, raw=(), **fields):
    """inputs: (name, datatype, shape, {field of contents: values} or None)."""
    r = pb.ModelInferRequest(model_name=model, raw_input_contents=list(raw), **fields)
    for name, datatype, shape, contents in inputs:
        i = r.inputs.add(name=name, datatype=datatype, shape=shape)
        for field, data in (contents or {}).items():
            getattr(i.contents, field).extend(data)
    return r


def infer(channel, r):
    return pb.ModelInferResponse.FromString(call(channel, "ModelInfer", r))


# ---- Inference ----

@pytest.mark.parametrize("datatype", [*NUMBERS, "BYTES"])
def test_raw(client, datatype):
    """Every type there and back through tritonclient, in batches."""
    array = values(datatype).reshape(2, 3)
    result = client.infer(f"identity_{datatype}", [infer_input("INPUT0", array, datatype)],
                          request_id="some id")
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)
    response = result.get_response()
    assert (response.id, response.model_version) == ("some id", "1")
    assert response.outputs[0].datatype == datatype


@pytest.mark.parametrize("datatype", FIELDS)
def test_typed(channel, datatype):
    """The same in typed contents; the answer is raw all the same."""
    array = values(datatype)
    data = array.tolist()
    out = infer(channel, request(f"identity_{datatype}",
                                 ("INPUT0", datatype, [2, 3], {FIELDS[datatype]: data})))
    raw = b"".join(len(v).to_bytes(4, "little") + v for v in data) if datatype == "BYTES" \
        else array.tobytes()
    assert out.raw_output_contents[0] == raw
    assert list(out.outputs[0].shape) == [2, 3]


def test_sizes(client):
    """From nothing to tensors larger than any window, each several times."""
    for count in (0, 1, 1000, 9_000_000):
        array = np.arange(count, dtype=np.float32).reshape(1, count)
        for _ in range(2):
            result = client.infer("identity_FP32", [infer_input("INPUT0", array, "FP32")])
            assert np.array_equal(result.as_numpy("OUTPUT0"), array)


def test_long_typed(channel):
    """Contents long enough to be converted by a worker."""
    data = list(range(200_000))
    out = infer(channel, request("identity_INT32", ("INPUT0", "INT32", [1, len(data)],
                                                    {"int_contents": data})))
    assert out.raw_output_contents[0] == np.arange(200_000, dtype=np.int32).tobytes()


def test_two_tensors(client):
    """Several tensors, and outputs chosen by name."""
    a = np.arange(8, dtype=np.float32).reshape(2, 4)
    inputs = [infer_input("INPUT0", a, "FP32"), infer_input("INPUT1", a + 1, "FP32")]
    result = client.infer("two", inputs)
    assert np.array_equal(result.as_numpy("OUTPUT0"), a)
    assert np.array_equal(result.as_numpy("OUTPUT1"), a + 1)
    result = client.infer("two", inputs, outputs=[client_grpc.InferRequestedOutput("OUTPUT1")])
    assert result.as_numpy("OUTPUT0") is None
    assert np.array_equal(result.as_numpy("OUTPUT1"), a + 1)


def test_classification(client):
    array = np.array([[1, 4, 2, 3]], dtype=np.float32)
    result = client.infer("labels", [infer_input("INPUT0", array, "FP32")], outputs=[
        client_grpc.InferRequestedOutput("OUTPUT0", class_count=2)])
    assert result.as_numpy("OUTPUT0").tolist() == [[b"4.000000:1:one", b"3.000000:3:three"]]


def test_parameters(client, channel):
    array = np.array([[1]], dtype=np.int32)
    client.infer("identity_INT32", [infer_input("INPUT0", array, "INT32")], priority=1,
                 timeout=5_000_000, sequence_id="name", sequence_start=True,
                 parameters={"text": "a", "number": 3, "yes": True})
    r = request("identity_INT32", ("INPUT0", "INT32", [1, 1], None), raw=[bytes(4)])
    r.parameters["triton_x"].bool_param = True
    fails(channel, "ModelInfer", r, CODE.INVALID_ARGUMENT,
          "Only the following keys starting with 'triton_' are allowed")


def test_many_at_once(client, v2):
    """A hundred calls in flight on one connection."""
    def one(i):
        array = np.full((1, 64), i, dtype=np.int32)
        result = client.infer("identity_INT32", [infer_input("INPUT0", array, "INT32")])
        return np.array_equal(result.as_numpy("OUTPUT0"), array)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(100)))


# ---- Errors ----

FOUR = ("INPUT0", "FP32", [1, 4], None)
ERRORS = [
    (request("nope", FOUR, raw=[bytes(16)]), CODE.NOT_FOUND,
     "Request for unknown model: 'nope' is not found"),
    (request("labels", FOUR, raw=[bytes(16)], model_version="x"), CODE.INVALID_ARGUMENT,
     "failed to get model version from specified version string 'x'"),
    (request("labels", FOUR, raw=[bytes(16)], model_version="7"), CODE.NOT_FOUND,
     "'labels' version 7 is not"),
    (request("two", FOUR, ("INPUT1", "FP32", [1, 4], None), raw=[bytes(16)]),
     CODE.INVALID_ARGUMENT,
     "unable to find data for input tensor 'INPUT1' for model 'two' in request."),
    (request("labels", FOUR, raw=[bytes(4)], id="5"), CODE.INVALID_ARGUMENT,
     "[request id: 5] input byte size mismatch for input 'INPUT0' for model 'labels'. "
     "Expected 16, got 4"),
    (request("labels", ("INPUT0", "FP32", [1, 4], {"fp32_contents": [1, 2, 3, 4]}),
             raw=[bytes(16)]), CODE.INVALID_ARGUMENT,
     "contents field must not be specified when using raw_input_contents for 'INPUT0' for model "
     "'labels'"),
    (request("labels", FOUR), CODE.INVALID_ARGUMENT, "unable to find data for input tensor"),
    (request("labels", ("INPUT0", "FP32", [1, 4], {"int_contents": [1, 2, 3, 4]})),
     CODE.INVALID_ARGUMENT, "not of its type FP32"),
    (request("identity_INT8", ("INPUT0", "INT8", [1, 1], {"int_contents": [300]})),
     CODE.INVALID_ARGUMENT, "out of the range of INT8"),
    (request("identity_FP16", ("INPUT0", "FP16", [1, 1], {"fp32_contents": [1]})),
     CODE.INVALID_ARGUMENT, "raw_input_contents"),
    (request("labels", ("INPUT0", "WHAT", [1, 4], None), raw=[b""]), CODE.INVALID_ARGUMENT,
     "invalid datatype"),
    (request("labels", ("other", "FP32", [1, 4], None), raw=[bytes(16)]), CODE.INVALID_ARGUMENT,
     "other"),
    (b"\xff\xff\xff", CODE.INVALID_ARGUMENT, "failed to parse"),
    (b"\x0a\x06labels\x2a\x7f", CODE.INVALID_ARGUMENT, "failed to parse"),
]


@pytest.mark.parametrize("message,code,text", ERRORS, ids=[text[:40] for _, _, text in ERRORS])
def test_error(channel, message, code, text):
    fails(channel, "ModelInfer", message, code, text)


@pytest.mark.parametrize("place", ["model", "version", "id", "input", "output", "key", "string",
                                   "output key"])
def test_not_utf8(channel, place):
    """Strings of proto3 are UTF-8; what is not is refused wherever it stands, not passed on."""
    def text(name, usual):
        return "@@@@" if name == place else usual

    r = request(text("model", "labels"), (text("input", "INPUT0"), "FP32", [1, 4], None),
                raw=[bytes(16)], model_version=text("version", ""), id=text("id", "7"))
    r.parameters[text("key", "k")].string_param = text("string", "v")
    output = r.outputs.add(name=text("output", "OUTPUT0"))
    output.parameters[text("output key", "classification")].int64_param = 1
    message = r.SerializeToString()
    assert message.count(b"@@@@") == 1
    for bad in (b"a\xffbc", b"\xc0\x80ab", b"\xed\xa0\x80a", b"\xf5\x80\x80\x80", b"abc\xc3"):
        fails(channel, "ModelInfer", message.replace(b"@@@@", bad), CODE.INVALID_ARGUMENT,
              "failed to parse" if place in ("model", "version") else "is not valid UTF-8")
    if place == "id":
        good = call(channel, "ModelInfer", message.replace(b"@@@@", "ßab".encode()))
        assert pb.ModelInferResponse.FromString(good).id == "ßab"


def test_statuses_of_grpc(channel, v2):
    """Unknown methods, messages that are too large, also when decompressed."""
    fails(channel, "Nothing", b"", CODE.UNIMPLEMENTED, "")
    fails(channel, "/a.B/C", b"", CODE.UNIMPLEMENTED, "")
    fails(channel, "NoSuchRpc", b"", CODE.UNIMPLEMENTED, "")
    fails(channel, "ModelInfer", bytes(40_000_001), CODE.RESOURCE_EXHAUSTED,
          "Use --grpc-max-message-size")
    fails(channel, "ServerLive", bytes(100_000), CODE.RESOURCE_EXHAUSTED, "when decompressed",
          compression=grpc.Compression.Gzip)
    assert call(channel, "ServerLive", b"") == b"\x08\x01"


def test_deadline(channel, v2):
    """The deadline ends the call on time, and the server serves on."""
    r = request("slow", ("INPUT0", "INT32", [1], None), raw=[bytes(4)])
    started = time.monotonic()
    fails(channel, "ModelInfer", r, CODE.DEADLINE_EXCEEDED, "", seconds=0.3)
    assert time.monotonic() - started < 2.5
    assert v2.is_live()


def test_cancel(channel, v2):
    """Cancelling requests that wait takes them out of the queue."""
    r = request("slow", ("INPUT0", "INT32", [1], None), raw=[bytes(4)]).SerializeToString()
    stub = channel.unary_unary(SERVICE + "ModelInfer", lambda m: m, lambda m: m)
    before = v2.statistics("slow")["execution_count"]
    futures = [stub.future(r, timeout=60) for _ in range(8)]
    call(channel, "ServerLive", b"")
    for f in futures[1:]:
        f.cancel()
    futures[0].result()
    assert call(channel, "ServerLive", b"") == b"\x08\x01"
    assert v2.statistics("slow")["execution_count"] - before < 8


def test_not_grpc(v2):
    """Bytes that are no HTTP/2 end the connection and nothing else."""
    host, port = v2.grpc_url.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        while s.recv(4096):
            pass


# ---- The rest ----

def test_health(client, channel):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("two") and client.is_model_ready("versions", "3")
    assert not client.is_model_ready("nope") and not client.is_model_ready("versions", "2")
    assert not client.is_model_ready("broken")
    for service in (b"", b"\x0a\x01x"):
        answer = call(channel, "/grpc.health.v1.Health/Check", service)
        assert answer == b"\x08\x01"


def test_metadata(client, v2):
    over_http = v2.get("/v2").json()
    m = client.get_server_metadata()
    assert (m.name, m.version, list(m.extensions)) == \
        (over_http["name"], over_http["version"], over_http["extensions"])
    over_http = v2.get("/v2/models/two").json()
    assert client.get_model_metadata("two", as_json=True) == {
        **over_http, "inputs": [{**i, "shape": [str(d) for d in i["shape"]]}
                                for i in over_http["inputs"]],
        "outputs": [{**i, "shape": [str(d) for d in i["shape"]]} for i in over_http["outputs"]]}
    assert list(client.get_model_metadata("versions").versions) == ["1", "3"]
    with pytest.raises(InferenceServerException, match="unknown model: 'nope'"):
        client.get_model_metadata("nope")


def test_config(client):
    c = client.get_model_config("labels").config
    assert (c.name, c.backend, c.max_batch_size) == ("labels", "identity", 8)
    assert c.output[0].label_filename == "names.txt"


def test_statistics(client, channel):
    array = np.array([[1, 2]], dtype=np.uint8)
    client.infer("identity_UINT8", [infer_input("INPUT0", array, "UINT8")])
    found = client.get_inference_statistics("identity_UINT8").model_stats
    assert [s.version for s in found] == ["1"]
    assert found[0].inference_count >= 1 and found[0].inference_stats.success.ns > 0
    assert found[0].batch_stats[0].compute_infer.count >= 1
    assert len(client.get_inference_statistics().model_stats) > 10
    fails(channel, "ModelStatistics", pb.ModelStatisticsRequest(name="nope"),
          CODE.INVALID_ARGUMENT, "requested model 'nope' is not available")


def test_index_of_repository(channel):
    fails(channel, "RepositoryIndex", pb.RepositoryIndexRequest(repository_name="x"),
          CODE.UNIMPLEMENTED, "'repository_name' specification is not supported")


def test_index(client, v2):
    def key(entry):
        return entry["name"], entry.get("version", ""), entry["state"], entry.get("reason", "")
    found = client.get_model_repository_index(as_json=True)["models"]
    assert sorted(map(key, found)) == sorted(map(key, v2.index()))


def test_drain(start, tmp_path):
    """A call in flight at SIGTERM is answered; the channel then cannot connect any more."""
    add_model(tmp_path, "slow", identity("INT32", [1], delay_ms=1500))
    server = start(tmp_path)
    with grpc.insecure_channel(server.grpc_url) as channel:
        r = request("slow", ("INPUT0", "INT32", [1], None), raw=[b"abcd"]).SerializeToString()
        stub = channel.unary_unary(SERVICE + "ModelInfer", lambda m: m, lambda m: m)
        future = stub.future(r, timeout=30)
        while server.statistics("slow")["inference_stats"]["queue"]["count"] == 0 and \
                not future.done():
            if call(channel, "ServerLive", b"") and not future.done():
                break
        answered = threading.Event()
        future.add_done_callback(lambda _: answered.set())
        server.signal()
        assert answered.wait(30)
        assert pb.ModelInferResponse.FromString(future.result()).raw_output_contents == [b"abcd"]
        assert server.wait_exit() == 0


def test_not_allowed(start, tmp_path):
    """--allow-grpc=false opens no port."""
    server = start(tmp_path, "--allow-grpc=false")
    server.get("/v2")
    assert not any("grpc open" in line for line in server.stderr_lines)
