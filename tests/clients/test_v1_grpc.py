"""The v1 protocol over gRPC in grpcio's raw calls: what tensorrtserver 1.11 (test_v1_client.py) does
not send, and the forms of 0.9. tests/wire/ plays the checks of requests, over HTTP and over this.
"""
import struct
import threading

import grpc
import pytest

from server import Server, add_model, config, identity, tensor
from v1_messages import SERVICE, V0, V1, call, outcome

ROWS = struct.pack("<4i", 1, -2, 3, -4)  # two batch entries of two


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = tmp_path_factory.mktemp("v1")
    add_model(repository, "id", identity("INT32", [2], 8))
    add_model(repository, "slow", identity("INT32", [2], 8, delay_ms=300))
    add_model(repository, "text", identity("BYTES", [2], 4))
    add_model(repository, "any", identity("FP32", [-1], 4))
    add_model(repository, "zero", identity("INT32", [2], 8, extra="version_policy { all { } }"),
              versions=[0, 2])
    add_model(repository, "labels", config(
        "identity", [tensor(f"INPUT{i}", "FP32", [3]) for i in (0, 1)],
        [tensor("OUTPUT0", "FP32", [3], 'label_filename: "names.txt"'),
         tensor("OUTPUT1", "FP32", [3])], 8), files={"names.txt": "zero\none\ntwo\n"})
    with Server(repository) as server:
        yield server


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc_url, options=[
            ("grpc.max_receive_message_length", -1)]) as channel:
        yield channel


def request(model="id", version=-1, inputs=(("INPUT0", [2]),), outputs=("OUTPUT0",),
            raw=(ROWS,), batch_size=2, **fields):
    """A request of 1.x."""
    r = V1.InferRequest(model_name=model, model_version=version, raw_input=raw)
    r.meta_data.CopyFrom(V1.InferRequestHeader(batch_size=batch_size, **fields))
    for name, dims in inputs:
        r.meta_data.input.add(name=name, dims=dims)
    for name in outputs:
        r.meta_data.output.add(name=name)
    return r


def request_v0(model="id", inputs=(("INPUT0", 8),), outputs=(("OUTPUT0", 8),), raw=(ROWS,),
               batch_size=2, version=-1):
    """The same of 0.9: sizes of one batch entry."""
    r = V0.InferRequest(model_name=model, version=version, raw_input=raw)
    r.meta_data.batch_size = batch_size
    for name, size in inputs:
        r.meta_data.input.add(name=name, byte_size=size)
    for name, size in outputs:
        r.meta_data.output.add(name=name, byte_size=size)
    return r


def infer(channel, r):
    """A request of either dialect, or bytes."""
    return call(channel, "Infer", r, V0.InferResponse if isinstance(r, V0.InferRequest)
                else V1.InferResponse)


def fails(channel, r, code, text):
    """The answer has nothing of a result. Returned for what it has of the question."""
    response = infer(channel, r)
    assert outcome(response) == (code, text)
    assert not response.raw_output and not response.meta_data.model_name
    return response


# ---- Inference ----

def test_infer(channel):
    response = infer(channel, request(id=2**63))
    assert outcome(response) == ("SUCCESS", "")
    assert response.request_status.request_id > 0
    assert list(response.raw_output) == [ROWS]
    header = response.meta_data
    assert (header.id, header.model_name, header.model_version, header.batch_size) == \
        (2**63, "id", 1, 2)
    output, = header.output
    assert (output.name, list(output.raw.dims), output.raw.batch_byte_size) == \
        ("OUTPUT0", [2], len(ROWS))


def test_infer_without_dims(channel):
    """The shape is the configuration's; no output named: all come."""
    response = infer(channel, request(inputs=[("INPUT0", [])], outputs=[]))
    assert list(response.raw_output) == [ROWS]
    assert response.meta_data.output[0].name == "OUTPUT0"


def test_unpacked_dims_in_pieces(channel):
    """dims may be packed in several pieces."""
    r = request(inputs=[], batch_size=1, model="any", raw=[b"\0" * 12])
    header = V1.InferRequestHeader(batch_size=1).SerializeToString()
    tensor_bytes = b"\x0a\x06INPUT0" + b"\x12\x00" + b"\x12\x01\x03"
    header += b"\x12" + bytes([len(tensor_bytes)]) + tensor_bytes
    message = V1.InferRequest(model_name="any", model_version=-1,
                              raw_input=r.raw_input).SerializeToString()
    message += b"\x1a" + bytes([len(header)]) + header
    response = infer(channel, message)
    assert outcome(response) == ("SUCCESS", "")
    assert list(response.meta_data.output[0].raw.dims) == [3]


def test_classes_keep_their_place(channel):
    """raw_output has an entry for every output, empty for classes, in the order of the request."""
    floats = struct.pack("<6f", 1, 3, 2, 0, 0, 9)
    r = request("labels", inputs=[("INPUT0", [3]), ("INPUT1", [3])], raw=[floats, floats],
                outputs=["OUTPUT0", "OUTPUT1"])
    r.meta_data.output[0].cls.count = 2
    response = infer(channel, r)
    assert outcome(response) == ("SUCCESS", "")
    assert list(response.raw_output) == [b"", floats]
    classes = [[(c.idx, c.value, c.label) for c in entry.cls]
               for entry in response.meta_data.output[0].batch_classes]
    assert classes == [[(1, 3, "one"), (2, 2, "two")], [(2, 9, "two"), (0, 0, "zero")]]
    assert not response.meta_data.output[0].HasField("raw")
    assert response.meta_data.output[1].raw.batch_byte_size == len(floats)


def test_version_is_a_number(channel):
    """Any negative one is the latest; not given is 0, a version like any other."""
    for version, want in ((-1, 2), (-7, 2), (2, 2), (0, 0)):
        response = infer(channel, request("zero", version))
        assert (outcome(response), response.meta_data.model_version) == (("SUCCESS", ""), want)
    for version in (0, 5, 2**62):
        fails(channel, request(version=version), "UNAVAILABLE",
              "Inference request for unknown model 'id'")


def test_large(channel):
    """32 MiB there and back, twice: nothing of one message is in the other."""
    for fill in (b"ab", b"cd"):
        data = fill * (16 << 20)
        response = infer(channel, request("any", inputs=[("INPUT0", [8 << 20])], batch_size=1,
                                          raw=[data]))
        assert outcome(response) == ("SUCCESS", "")
        assert response.raw_output[0] == data


# ---- 0.9 ----

def test_infer_v0(channel):
    """The answer has byte_size of one batch entry where 1.x has dims."""
    response = infer(channel, request_v0())
    assert outcome(response) == ("SUCCESS", "")
    assert list(response.raw_output) == [ROWS]
    header = response.meta_data
    assert (header.model_name, header.model_version, header.batch_size) == ("id", 1, 2)
    assert (header.output[0].name, header.output[0].raw.byte_size) == ("OUTPUT0", 8)


def test_v0_is_known_by_an_output(channel):
    """An input without a size is not enough to say: here the output is what 0.9 sends."""
    fails(channel, request_v0(inputs=[("INPUT0", 0)]), "INVALID_ARG",
          "unexpected size 0 for inference input 'INPUT0', expecting 8")


def test_classes_v0(channel):
    floats = struct.pack("<3f", 1, 3, 2)
    r = request_v0("labels", [("INPUT0", 12), ("INPUT1", 12)], [("OUTPUT0", 12), ("OUTPUT1", 12)],
                   [floats, floats], 1)
    r.meta_data.output[0].cls.count = 1
    response = infer(channel, r)
    assert list(response.raw_output) == [b"", floats]
    cls, = response.meta_data.output[0].batch_classes[0].cls
    assert (cls.idx, cls.value, cls.label) == (1, 3, "one")


def test_both_dialects_in_one_request(channel):
    r = V0.InferRequest.FromString(request().SerializeToString())
    assert not r.meta_data.input[0].byte_size  # its dims are of another type
    r.meta_data.input.add(name="INPUT0", byte_size=8)
    fails(channel, r.SerializeToString(), "INVALID_ARG", "unable to parse request for model 'id'")


# ---- Errors ----

SHORT = "expected tensor data for at least 0 inputs but got only 0 sets of data for model 'id'"


@pytest.mark.parametrize("raw, code, text", [
    ([], "INVALID_ARG", SHORT),
    ([ROWS[1:]], "INVALID_ARG", "unexpected size 15 for input 'INPUT0', expecting 16 for model "
                                "'id'"),
    ([b""], "INVALID_ARG", "unexpected size 0 for input 'INPUT0', expecting 16 for model 'id'"),
    ([ROWS + b"x"], "INVALID_ARG",
     "unexpected size 17 for input 'INPUT0', expecting 16 for model 'id'"),
    ([ROWS, b""], "INVALID_ARG", "unexpected additional input data for model 'id'"),
])
def test_raw_input(channel, raw, code, text):
    """The id comes back with an error, and nothing else of the answer."""
    response = fails(channel, request(raw=raw, id=7), code, text)
    assert response.meta_data == V1.InferResponseHeader(id=7)


@pytest.mark.parametrize("raw, code, text", [
    ([], "INTERNAL", "unexpected input index 0"),
    ([ROWS[1:]], "INTERNAL", "expected 16 of data for inference input 'INPUT0', got 15"),
    ([ROWS, b""], "INVALID_ARG", "unexpected additional input data for model 'id'"),
])
def test_raw_input_v0(channel, raw, code, text):
    response = fails(channel, request_v0(raw=raw), code, text)
    assert not response.HasField("meta_data")


def test_id_after_an_unknown_model(channel):
    response = fails(channel, request("nobody", id=9), "UNAVAILABLE",
                     "Inference request for unknown model 'nobody'")
    assert response.meta_data.id == 9
    assert response.request_status.request_id > 0


def test_not_a_message(channel):
    """Bytes that are no message; the call is handled all the same."""
    whole = request().SerializeToString()
    for bytes_sent in (b"\xff", b"\x0a\x05id", whole[:-1], b"\x0a\x02\xff\xfe", b"\x08\x01",
                       b"\x12\x00", whole + b"\x1a\x02\x12\x03", b"\x22\x80\x80\x80\x80\x10"):
        response = infer(channel, bytes_sent)
        assert outcome(response)[0] in ("INVALID_ARG", "UNAVAILABLE")
        assert not response.raw_output
    fails(channel, V1.InferRequest(), "UNAVAILABLE", "Inference request for unknown model ''")


def test_names(channel):
    fails(channel, request(outputs=["OUT\0PUT0"]), "INVALID_ARG",
          "the name of an output holds a NUL character")
    good = request().SerializeToString()
    fails(channel, good.replace(b"INPUT0", b"INPU\xff\xfe"), "INVALID_ARG",
          "the name of an input is not valid UTF-8")


def test_meta_data_has_a_limit(channel):
    fails(channel, request(outputs=["o" * 100] * 11000), "INVALID_ARG",
          f"the meta_data of the request for model 'id' has "
          f"{request(outputs=['o' * 100] * 11000).meta_data.ByteSize()} bytes, at most 1048576 are "
          "possible")


@pytest.mark.parametrize("kind", ["input", "output"])
def test_shared_memory_of_a_tensor(channel, kind):
    r = request()
    getattr(r.meta_data, kind)[0].shared_memory.name = "region"
    fails(channel, r, "UNSUPPORTED", f"{kind} '{kind.upper()}0': shared memory is not supported by "
          "this server")


def test_unknown_rpc(channel):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(SERVICE + "Other")(b"")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


# ---- StreamInfer ----

def stream(channel, requests, read=V1.InferResponse.FromString):
    """The call; requests: of either dialect, or bytes."""
    def write(r):
        return r if isinstance(r, bytes) else r.SerializeToString()
    return channel.stream_stream(SERVICE + "StreamInfer", write, read)(
        iter(requests), timeout=30)


def test_stream_in_order(channel):
    """A slow request before many quick ones: the answers come in the order of the requests, each
    with its own id and number, and the stream ends with OK."""
    def requests():
        yield request("slow", id=1)
        for i in range(2, 40):
            yield request(id=i, raw=[struct.pack("<4i", i, i, i, i)])

    responses = list(stream(channel, requests()))
    assert [r.meta_data.id for r in responses] == list(range(1, 40))
    assert {outcome(r) for r in responses} == {("SUCCESS", "")}
    for i, r in enumerate(responses[1:], 2):
        assert list(r.raw_output) == [struct.pack("<4i", i, i, i, i)]
    assert len({r.request_status.request_id for r in responses}) == len(responses)


def test_stream_answers_before_its_end(channel):
    """Each answer comes while the client's side is open."""
    answered = threading.Event()

    def requests():
        for _ in range(3):
            answered.clear()
            yield request()
            assert answered.wait(30)

    for response in stream(channel, requests()):
        assert outcome(response) == ("SUCCESS", "")
        answered.set()


def test_stream_errors(channel):
    """A request that fails, wherever it does, is answered like others; the stream goes on."""
    bad = [(request("nobody", id=2), "UNAVAILABLE"), (request(raw=[], id=3), "INVALID_ARG"),
           (b"\xff", "INVALID_ARG"), (b"", "UNAVAILABLE"), (request(batch_size=9), "INVALID_ARG")]
    good = request(id=1)
    sent = [good] + [r for pair in ((r, good) for r, _ in bad) for r in pair]
    responses = list(stream(channel, sent))
    assert [outcome(r)[0] for r in responses] == \
        ["SUCCESS"] + [c for pair in ((code, "SUCCESS") for _, code in bad) for c in pair]
    assert [r.meta_data.id for r in responses[:5]] == [1, 2, 1, 3, 1]


def test_stream_dialects_mixed(channel):
    """Each request is answered in its own dialect."""
    first, second = stream(channel, [request_v0(), request()], bytes)
    assert V0.InferResponse.FromString(first).meta_data.output[0].raw.byte_size == 8
    assert list(V1.InferResponse.FromString(second).meta_data.output[0].raw.dims) == [2]


def test_stream_large(channel):
    """Ten times 8 MiB there and back."""
    data = [bytes([i]) * (8 << 20) for i in range(10)]
    sent = (request("any", inputs=[("INPUT0", [2 << 20])], batch_size=1, raw=[d]) for d in data)
    for want, response in zip(data, stream(channel, sent), strict=True):
        assert outcome(response) == ("SUCCESS", "") and response.raw_output[0] == want


def test_stream_of_nothing(channel):
    call = stream(channel, [])
    assert not list(call)
    assert call.code() == grpc.StatusCode.OK


def test_stream_cancelled(channel, server):
    """The client gives up while a request runs; the next stream is served."""
    call = stream(channel, [request("slow"), request("slow")])
    call.cancel()
    with pytest.raises(grpc.RpcError):
        next(call)
    assert [outcome(r) for r in stream(channel, [request()])] == [("SUCCESS", "")]


# ---- The other calls ----

def test_health(channel):
    for mode in ("live", "ready"):
        response = call(channel, "Health", V1.HealthRequest(mode=mode), V1.HealthResponse)
        assert (outcome(response), response.health) == (("SUCCESS", ""), True)
    for mode in ("", "Live", "readyy"):
        response = call(channel, "Health", V1.HealthRequest(mode=mode), V1.HealthResponse)
        assert (outcome(response), response.health) == \
            (("UNKNOWN", f"unknown health mode '{mode}'"), False)
    response = call(channel, "Health", b"\x0a\xff", V1.HealthResponse)
    assert outcome(response) == ("INVALID_ARG", "failed to parse the request message")


def test_status(channel):
    everything = call(channel, "Status", V1.StatusRequest(), V1.StatusResponse)
    assert outcome(everything) == ("SUCCESS", "")
    assert set(everything.server_status.model_status) == {"any", "id", "labels", "slow", "text", "zero"}
    one = call(channel, "Status", V1.StatusRequest(model_name="zero"), V1.StatusResponse)
    assert set(one.server_status.model_status["zero"].version_status) == {0, 2}
    assert one.request_status.request_id > everything.request_status.request_id
    nobody = call(channel, "Status", V1.StatusRequest(model_name="nobody"), V1.StatusResponse)
    assert outcome(nobody) == ("INVALID_ARG", "no status available for unknown model 'nobody'")
    assert not nobody.HasField("server_status")


def test_numbers_are_the_servers(server, channel):
    """One count of requests for HTTP and gRPC."""
    first = call(channel, "Health", V1.HealthRequest(mode="live"), V1.HealthResponse)
    status = server.get("/api/health/live").headers["NV-Status"]
    assert status.endswith(f"request_id: {first.request_status.request_id + 1}")


def test_profile(channel):
    response = call(channel, "Profile", V1.ProfileRequest(cmd="start"), V1.ProfileResponse)
    assert outcome(response) == ("UNSUPPORTED", "Profile API not enabled")


def test_repository(channel):
    response = call(channel, "Repository", V1.RepositoryRequest(index=True),
                    V1.RepositoryResponse)
    assert outcome(response) == ("SUCCESS", "")
    assert [m.name for m in response.index.models] == ["any", "id", "labels", "slow", "text", "zero"]
    assert call(channel, "Repository", V1.RepositoryRequest(index=False),
                V1.RepositoryResponse).WhichOneof("response_type") == "index"
    response = call(channel, "Repository", V1.RepositoryRequest(), V1.RepositoryResponse)
    assert outcome(response) == ("UNKNOWN", "request type is not specified")


def test_control(channel):
    response = call(channel, "ModelControl", V1.ModelControlRequest(model_name="id", type=1),
                    V1.ModelControlResponse)
    assert outcome(response) == (
        "UNAVAILABLE", "explicit model load / unload is not allowed if polling is enabled")
    response = call(channel, "SharedMemoryControl", V1.SharedMemoryControlRequest(),
                    V1.SharedMemoryControlResponse)
    assert outcome(response) == ("UNSUPPORTED", "shared memory is not supported by this server")


def test_while_loading(tmp_path):
    """Refused before a number is given: request_id 0. Alive, not ready, and says so."""
    add_model(tmp_path, "id", identity("INT32", [2], 8, load_secs=4))
    with Server(tmp_path, "--allow-profiling", wait=False) as server:
        with grpc.insecure_channel(server.grpc_url) as channel:
            response = fails(channel, request(id=5), "UNAVAILABLE", "Server not ready")
            assert response.request_status.request_id == 0
            response = call(channel, "Profile", V1.ProfileRequest(cmd="start"),
                            V1.ProfileResponse)
            assert outcome(response) == ("UNAVAILABLE", "Server not ready")
            health = [call(channel, "Health", V1.HealthRequest(mode=mode), V1.HealthResponse)
                      for mode in ("live", "ready")]
            assert [h.health for h in health] == [True, False]
            assert {outcome(h) for h in health} == {("SUCCESS", "")}
            server.wait_loaded()
            for cmd, code in (("start", "SUCCESS"), ("stop", "SUCCESS"), ("go", "INVALID_ARG")):
                response = call(channel, "Profile", V1.ProfileRequest(cmd=cmd),
                                V1.ProfileResponse)
                assert outcome(response)[0] == code
