"""ModelStreamInfer and decoupled models, of our server and of Triton with the same backend files.

Most tests run twice, as [ours] and [triton]: what they say of the protocol is then measured. The rest
says why it does not. One server of each kind has all models; the raw calls of grpcio show what
tritonclient hides.
"""
import asyncio
import contextlib
import os
import pathlib
import queue
import sys
import threading
import time

import grpc
import numpy as np
import pytest
import tritonclient.grpc as client_grpc
import tritonclient.grpc.aio as client_aio
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "backends"))
import python_backend  # noqa: E402
import triton  # noqa: E402
from server import Server, add_model, config, identity, json_input, tensor, wait_for  # noqa: E402

SERVICE = "/inference.GRPCInferenceService/"
CODE = grpc.StatusCode
ONE_INSTANCE = "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
DECOUPLED = "model_transaction_policy { decoupled: true }\n" + ONE_INSTANCE
REPEAT = config("repeat", [tensor("IN", "INT32", [-1]), tensor("DELAY", "UINT32", [-1]),
                           tensor("WAIT", "UINT32", [1])],
                [tensor("OUT", "INT32", [1]), tensor("IDX", "UINT32", [1])], extra=DECOUPLED)
GRPC_ERROR = [("triton_grpc_error", "true")]


# ---- Servers ----

def write_models(folder):
    folder.mkdir()
    add_model(folder, "repeat", REPEAT)
    add_model(folder, "again", REPEAT)
    add_model(folder, "copy", identity("INT32", extra=ONE_INSTANCE))
    add_model(folder, "slow", identity("INT32", delay_ms=300, extra=ONE_INSTANCE))
    add_model(folder, "slower", identity("INT32", delay_ms=1200, extra=ONE_INSTANCE))
    return folder


@contextlib.contextmanager
def killed(one):
    """Triton need not end well: after streams it sometimes waits until its exit timeout."""
    try:
        yield one
    finally:
        one.kill()


@contextlib.contextmanager
def running(kind, folder):
    """A server of that kind with all models."""
    models = write_models(folder / "models")
    if kind == "ours":
        with Server(models) as one:
            yield one
        return
    reason = triton.missing("identity", "repeat")
    if reason:
        pytest.skip(reason)
    backends = triton.add_backends(folder / "backends", "identity", "repeat")
    with killed(triton.Triton(models, backends, folder)) as one:
        yield one


@pytest.fixture(scope="module", params=["ours", "triton"])
def server(request, tmp_path_factory):
    with running(request.param, tmp_path_factory.mktemp(request.param)) as one:
        one.kind = request.param
        yield one


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    with running("ours", tmp_path_factory.mktemp("only_ours")) as one:
        yield one


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.grpc_url) as c:
        yield c


# ---- Requests and streams ----

def copy(*values, model="copy", id="", **fields):  # noqa: A002
    r = pb.ModelInferRequest(model_name=model, id=id, **fields,
                             raw_input_contents=[np.array(values, "i4").tobytes()])
    r.inputs.add(name="INPUT0", datatype="INT32", shape=[len(values)])
    return r


def repeat(values, delays=None, wait=0, model="repeat", id="", empty_final=None):  # noqa: A002
    """delays: one for each value, or 0."""
    values = list(values)
    delays = [0] * len(values) if delays is None else delays
    r = pb.ModelInferRequest(model_name=model, id=id)
    for name, datatype, data in (("IN", "i4", values), ("DELAY", "u4", delays),
                                 ("WAIT", "u4", [wait])):
        r.inputs.add(name=name, datatype="INT32" if datatype == "i4" else "UINT32",
                     shape=[len(data)])
        r.raw_input_contents.append(np.array(data, datatype).tobytes())
    if empty_final is not None:
        r.parameters["triton_enable_empty_final_response"].bool_param = empty_final
    return r


def wrong_repeat(id=""):  # noqa: A002
    """The backend refuses it: two values, one delay."""
    return repeat([1, 2], [0], id=id)


WRONG_REPEAT = "input 'DELAY' has 1 elements, expected 2 as input 'IN'"


def to_bytes(message):
    return message if isinstance(message, bytes) else message.SerializeToString()


class Stream:
    """One call of ModelStreamInfer whose requests go out when send() is called."""

    def __init__(self, channel, *requests, seconds=60, metadata=None):
        self.requests = queue.SimpleQueue()
        self.call = channel.stream_stream(
            SERVICE + "ModelStreamInfer", to_bytes, pb.ModelStreamInferResponse.FromString)(
                iter(self.requests.get, None), timeout=seconds, metadata=metadata)
        self.send(*requests)

    def send(self, *requests):
        for r in requests:
            self.requests.put(r)

    def half_close(self):
        self.requests.put(None)

    def next(self):
        return next(self.call)

    def rest(self):
        """Everything until the server ends the stream, which must go well."""
        self.half_close()
        return list(self.call)

    def fails(self):
        """The responses before the end, its code and its text."""
        found = []
        try:
            for response in self.call:
                found.append(response)
        except grpc.RpcError as error:
            self.half_close()  # ends grpcio's thread
            return found, error.code(), error.details()
        raise AssertionError("the stream ended well")


def ask(channel, *requests, **kwargs):
    return Stream(channel, *requests, **kwargs).rest()


def number(response, name="OUT"):
    """The one element of an output."""
    r = response.infer_response
    names = [output.name for output in r.outputs]
    raw = r.raw_output_contents[names.index(name)]
    return int(np.frombuffer(raw, "u4" if name == "IDX" else "i4")[0])


def numbers(responses, id=None):  # noqa: A002
    return [number(r) for r in responses if id is None or r.infer_response.id == id]


def ids(responses):
    return [r.infer_response.id for r in responses]


def is_final(response):
    return response.infer_response.parameters["triton_final_response"].bool_param


def cancelled_count(server, model="repeat"):
    """Responses of CANCELLED that the backend sent: it saw its flag."""
    rows = server.statistics(model)["response_stats"].values()
    return sum(row["cancel"]["count"] for row in rows)


# ---- Responses ----

@pytest.mark.parametrize("values", [[], [7], [5, -6, 2147483647], list(range(300))],
                         ids=["none", "one", "three", "many"])
def test_responses(channel, values):
    """One a value, in their order, each with the request's id, none of them called final."""
    found = ask(channel, repeat(values, id="some id"))
    assert numbers(found) == values
    assert [number(r, "IDX") for r in found] == list(range(len(values)))
    for r in found:
        assert not r.error_message and not is_final(r)
        assert (r.infer_response.id, r.infer_response.model_name,
                r.infer_response.model_version) == ("some id", "repeat", "1")
        assert [(o.name, o.datatype, list(o.shape)) for o in r.infer_response.outputs] == [
            ("OUT", "INT32", [1]), ("IDX", "UINT32", [1])]


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("wanted", [False, True])
def test_empty_final_response(channel, count, wanted):
    """repeat sends its final flag alone. It becomes a response only where the request says so."""
    found = ask(channel, repeat(range(count), id="x", empty_final=wanted))
    assert [is_final(r) for r in found] == [False] * count + [True] * wanted
    if wanted:
        final = pb.ModelStreamInferResponse()
        final.infer_response.model_name, final.infer_response.id = "repeat", "x"
        final.infer_response.parameters["triton_final_response"].bool_param = True
        assert found[-1] == final


@pytest.mark.parametrize("wanted", [False, True])
def test_final_of_a_normal_model(channel, wanted):
    """One response, which is the final one, with and without the parameter."""
    request = copy(1, 2, id="x")
    request.parameters["triton_enable_empty_final_response"].bool_param = wanted
    found, = ask(channel, request)
    assert is_final(found) and found.infer_response.id == "x"
    assert found.infer_response.raw_output_contents[0] == np.array([1, 2], "i4").tobytes()


def test_outputs_asked_for(channel):
    request = repeat([5, 6])
    request.outputs.add(name="IDX")
    assert [[o.name for o in r.infer_response.outputs] for r in ask(channel, request)] == [["IDX"]] * 2


def test_requests_without_id(channel):
    assert [ids(ask(channel, r)) for r in (copy(1), repeat([1]))] == [[""], [""]]


def test_delays(channel):
    """The responses of two requests come in the order of their times: the instance is free at once."""
    found = ask(channel, repeat([1, 2], [200, 400], id="a"), repeat([3, 4], [300, 400], id="b"))
    assert numbers(found) == [1, 3, 2, 4]


def test_wait(channel):
    """WAIT keeps the instance busy, while responses are sent."""
    started = time.monotonic()
    found = ask(channel, repeat([1], wait=300, id="a"), repeat([2], id="b"))
    assert ids(found) == ["a", "b"] and time.monotonic() - started >= 0.3


def test_responses_come_while_the_stream_is_open(channel):
    stream = Stream(channel)
    for i in range(3):
        stream.send(repeat([i]))
        assert number(stream.next()) == i
    assert stream.rest() == []


def test_half_close(channel):
    """Responses that are outstanding when the client says its last come all the same."""
    assert numbers(ask(channel, repeat([1, 2, 3], [0, 200, 200]))) == [1, 2, 3]


def test_no_request(channel):
    assert ask(channel) == []


def test_normal_models_answer_in_order(channel):
    """The quick one behind the slow one has to wait, and so has the error between them."""
    found = ask(channel, copy(1, model="slow", id="1"), copy(1, model="nope", id="2"), copy(3, id="3"))
    assert ids(found) == ["1", "2", "3"]


def test_two_models_in_one_stream(channel):
    found = ask(channel, repeat([1, 2], [300, 900], id="a"),
                repeat([3, 4], [600, 900], model="again", id="b"))
    assert [(r.infer_response.model_name, number(r)) for r in found] == [
        ("repeat", 1), ("again", 3), ("repeat", 2), ("again", 4)]


def test_normal_and_decoupled_in_one_stream(ours):
    """Decoupled responses wait for nobody. (The same there, but Triton often crashes of the mixture.)"""
    with grpc.insecure_channel(ours.grpc_url) as channel:
        for _ in range(5):
            found = ask(channel, copy(1, model="slower", id="slow"), repeat([1, 2], [400, 2000], id="r"),
                        copy(2, id="copy"), wrong_repeat(id="wrong"))
            assert ids(found) == ["wrong", "r", "slow", "copy", "r"]


def test_thousand_requests_in_flight(channel):
    """All of them wait in the backend at the same time, and have their finals."""
    found = ask(channel, *(repeat([i, -i], [800, 0], id=str(i), empty_final=True)
                           for i in range(1000)))
    assert len(found) == 3000
    seen = {}
    for r in found:
        seen.setdefault(r.infer_response.id, []).append(None if is_final(r) else number(r))
    assert seen == {str(i): [i, -i, None] for i in range(1000)}


def test_streams_side_by_side(server):
    """Streams of one connection do not wait for each other."""
    with grpc.insecure_channel(server.grpc_url) as channel:
        streams = [Stream(channel, repeat([i, i], [0, 400])) for i in range(30)]
        for i, stream in enumerate(streams):
            assert number(stream.next()) == i
        assert [numbers(stream.rest()) for stream in streams] == [[i] for i in range(30)]


def test_statistics(server, channel):
    """Requests and executions, and the n-th responses by themselves."""
    before = server.statistics("again")
    ask(channel, repeat([1, 2, 3], model="again"), repeat([], model="again"))
    after = wait_for("the statistics of both", lambda: (
        lambda s: s["inference_count"] - before["inference_count"] == 2 and s)(
            server.statistics("again")))
    assert after["execution_count"] - before["execution_count"] == 2
    assert after["inference_stats"]["success"]["count"] - \
        before["inference_stats"]["success"]["count"] == 2

    def counts(statistics):
        return {(index, what): statistics["response_stats"].get(index, {}).get(what, {}).get("count", 0)
                for index in "0123" for what in ("success", "fail", "empty_response", "cancel")}
    change = {key: n - counts(before)[key] for key, n in counts(after).items()}
    assert {key: n for key, n in change.items() if n} == {
        ("0", "success"): 1, ("1", "success"): 1, ("2", "success"): 1, ("0", "empty_response"): 1,
        ("3", "empty_response"): 1}


# ---- Errors ----

BEFORE_SCHEDULING = {
    "model": (copy(1, model="nope", id="2"), CODE.NOT_FOUND,
              "Request for unknown model: 'nope' is not found"),
    "version": (copy(1, model_version="x", id="2"), CODE.INVALID_ARGUMENT,
                "failed to get model version from specified version string 'x'"),
    "output": (copy(1, id="2"), CODE.INVALID_ARGUMENT,
               "unexpected inference output 'X' for model 'copy'"),
}
BEFORE_SCHEDULING["output"][0].outputs.add(name="X")


@pytest.mark.parametrize("wrong,code,text", BEFORE_SCHEDULING.values(), ids=BEFORE_SCHEDULING)
def test_error_before_scheduling(channel, wrong, code, text):
    """The second of three: its response has text and id, the third is answered, the stream ends well."""
    first, second, third = ask(channel, copy(1, id="1"), wrong, copy(3, id="3"))
    assert (ids([first, third]), first.error_message, third.error_message) == (["1", "3"], "", "")
    assert text in second.error_message
    assert second.infer_response == pb.ModelInferResponse(id="2")


@pytest.mark.parametrize("wrong,code,text", BEFORE_SCHEDULING.values(), ids=BEFORE_SCHEDULING)
def test_grpc_error_before_scheduling(server, channel, wrong, code, text):
    """Ends the stream here. Triton 2.51 reports such errors inside of it all the same."""
    stream = Stream(channel, copy(1, id="1"), metadata=GRPC_ERROR)
    assert ids([stream.next()]) == ["1"]
    stream.send(wrong)
    if server.kind == "triton":
        found, = stream.rest()
        assert text in found.error_message
        return
    found, ended_with, details = stream.fails()
    assert (found, ended_with) == ([], code) and text in details


def test_error_without_id(channel):
    found, = ask(channel, copy(1, model="nope"))
    assert found.error_message and found.HasField("infer_response")
    assert found.infer_response == pb.ModelInferResponse()


def test_error_of_the_backend(channel):
    """Its response is final and names the model."""
    found = ask(channel, repeat([1], id="1"), wrong_repeat(id="2"), repeat([3], id="3"))
    first, second, third = sorted(found, key=lambda r: r.infer_response.id)
    assert numbers([first, third]) == [1, 3]
    expected = pb.ModelStreamInferResponse(error_message=WRONG_REPEAT)
    expected.infer_response.model_name, expected.infer_response.id = "repeat", "2"
    expected.infer_response.parameters["triton_final_response"].bool_param = True
    assert second == expected


@pytest.mark.parametrize("word", ["yes", "TRUE", "false", ""])
def test_grpc_error_must_say_true(channel, word):
    found, = ask(channel, wrong_repeat(), metadata=[("triton_grpc_error", word)])
    assert found.error_message == WRONG_REPEAT


@pytest.mark.parametrize("kind", ["ours", "triton"])
def test_grpc_error(kind, tmp_path):
    """The stream ends with the status of the first error of a backend. In a server of its own: Triton
    often crashes some time after that."""
    with running(kind, tmp_path) as one, grpc.insecure_channel(one.grpc_url) as channel:
        stream = Stream(channel, repeat([1], id="1"), metadata=GRPC_ERROR)
        assert number(stream.next()) == 1
        stream.send(wrong_repeat(id="2"))
        assert stream.fails() == ([], CODE.INVALID_ARGUMENT, WRONG_REPEAT)
        if kind == "triton":
            return
        # With requests in flight: they are cancelled, and other streams go on.
        before = cancelled_count(one)
        other = Stream(channel, repeat([1, 2], [0, 1000]))
        stream = Stream(channel, repeat([1, 2], [0, 60000]), metadata=GRPC_ERROR)
        assert number(stream.next()) == 1
        stream.send(wrong_repeat(), repeat([3]))
        found, code, text = stream.fails()
        assert (code, text) == (CODE.INVALID_ARGUMENT, WRONG_REPEAT)
        wait_for("the end of the request in flight", lambda: cancelled_count(one) - before == 1)
        assert numbers(other.rest()) == [1, 2]


def test_message_that_is_none(ours):
    """It fails alone. (Triton takes it for a half-close.)"""
    with grpc.insecure_channel(ours.grpc_url) as channel:
        first, second, third = ask(channel, copy(1, id="1"), b"\xff\xff\xff", copy(3, id="3"))
        assert ids([first, second, third]) == ["1", "", "3"]
        assert "failed to parse" in second.error_message


def test_empty_message(channel):
    found, = ask(channel, b"")
    assert found.error_message == "Request for unknown model: '' is not found"


def test_unary_call_of_a_decoupled_model(server, channel):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(SERVICE + "ModelInfer", to_bytes, lambda m: m)(repeat([1]), timeout=30)
    assert (caught.value.code(), caught.value.details()) == (
        CODE.UNIMPLEMENTED, "ModelInfer RPC doesn't support models with decoupled transaction policy")
    answer = server.infer("repeat", {"inputs": [
        json_input("IN", "INT32", [1], [1]), json_input("DELAY", "UINT32", [1], [0]),
        json_input("WAIT", "UINT32", [1], [0])]})
    assert answer.status == 501 and answer.json() == {
        "error": "HTTP end point doesn't support models with decoupled transaction policy"}


# ---- The end of a stream ----

def test_cancel(server, channel):
    """Cancelling a stream reaches every request in flight, in DELAY and in WAIT."""
    before = cancelled_count(server)
    stream = Stream(channel, *(repeat([1, 2], [0, 60000]) for _ in range(3)),
                    repeat([1, 2], [0, 60000], wait=60000))
    for _ in range(4):
        stream.next()
    stream.call.cancel()
    stream.half_close()
    wait_for("the end of the requests", lambda: cancelled_count(server) - before == 4)
    assert numbers(ask(channel, repeat([5]))) == [5]  # the instance is free again


def test_lost_connection(server):
    before = cancelled_count(server)
    with grpc.insecure_channel(server.grpc_url) as channel:
        stream = Stream(channel, repeat([1, 2], [0, 60000]))
        stream.next()
    stream.half_close()
    wait_for("the end of the request", lambda: cancelled_count(server) - before == 1)


def test_deadline(server, channel):
    """The deadline of the call is the stream's."""
    before = cancelled_count(server)
    started = time.monotonic()
    found, code, _ = Stream(channel, repeat([1, 2], [0, 60000]), seconds=3).fails()
    assert (numbers(found), code) == ([1], CODE.DEADLINE_EXCEEDED)
    assert 2.9 < time.monotonic() - started < 20
    wait_for("the end of the request", lambda: cancelled_count(server) - before == 1)


def test_stop_with_a_stream_in_flight(start, tmp_path):
    """Responses that are due within the exit timeout come."""
    server = start(write_models(tmp_path / "m"))
    with grpc.insecure_channel(server.grpc_url) as channel:
        stream = Stream(channel, repeat([1, 2], [0, 1000]))
        assert number(stream.next()) == 1
        server.signal()
        assert numbers(stream.rest()) == [2]
    assert server.wait_exit() == 0


# ---- tritonclient ----

def client_inputs(values, delays, wait=0):
    found = []
    for name, datatype, data in (("IN", "INT32", values), ("DELAY", "UINT32", delays),
                                 ("WAIT", "UINT32", [wait])):
        array = np.array(data, datatype.lower())
        found.append(client_grpc.InferInput(name, [len(data)], datatype))
        found[-1].set_data_from_numpy(array)
    return found


def is_final_result(result):
    return result.get_response().parameters["triton_final_response"].bool_param


def test_tritonclient(server):
    """start_stream, async_stream_infer, stop_stream: with finals, and an error by its exception."""
    found = queue.Queue()
    with client_grpc.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(lambda result, error: found.put((result, error)))
        client.async_stream_infer("repeat", client_inputs([4, 5, 6], [0, 100, 0]), request_id="7",
                                  enable_empty_final_response=True)
        results = []
        while not results or not is_final_result(results[-1]):
            result, error = found.get(timeout=30)
            assert error is None
            results.append(result)
        assert [r.as_numpy("OUT").tolist() for r in results[:-1]] == [[4], [5], [6]]
        assert [r.get_response().id for r in results] == ["7"] * 4
        client.async_stream_infer("nope", client_inputs([1], [0]), request_id="8")
        result, error = found.get(timeout=30)
        assert result is None and isinstance(error, InferenceServerException)
        assert "Request for unknown model: 'nope' is not found" in str(error)
        client.stop_stream()
        with pytest.raises(InferenceServerException, match="stream not available"):
            client.async_stream_infer("repeat", client_inputs([1], [0]))


def test_tritonclient_cancels(server):
    before = cancelled_count(server)
    found = queue.Queue()
    with client_grpc.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(lambda result, error: found.put((result, error)))
        client.async_stream_infer("repeat", client_inputs([1, 2], [0, 60000]))
        result, error = found.get(timeout=30)
        assert error is None and result.as_numpy("OUT").tolist() == [1]
        client.stop_stream(cancel_requests=True)
        wait_for("the end of the request", lambda: cancelled_count(server) - before == 1)


def test_tritonclient_deadline(server):
    before = cancelled_count(server)
    found = queue.Queue()
    with client_grpc.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(lambda result, error: found.put((result, error)), stream_timeout=3)
        client.async_stream_infer("repeat", client_inputs([1, 2], [0, 60000]))
        assert found.get(timeout=30)[1] is None
        result, error = found.get(timeout=30)
        assert result is None and "Deadline Exceeded" in str(error)
        client.stop_stream()
    wait_for("the end of the request", lambda: cancelled_count(server) - before == 1)


def test_tritonclient_asyncio(server):
    async def requests(count):
        for i in range(count):
            yield {"model_name": "repeat", "inputs": client_inputs([i, i], [0, 50]),
                   "request_id": str(i)}  # this client cannot ask for empty finals

    async def unknown():
        yield {"model_name": "nope", "inputs": client_inputs([1], [0])}

    async def run():
        seen = {}
        async with client_aio.InferenceServerClient(server.grpc_url) as client:
            async for result, error in client.stream_infer(requests(20)):
                assert error is None and not is_final_result(result)
                seen.setdefault(result.get_response().id, []).append(int(result.as_numpy("OUT")[0]))
            async for result, error in client.stream_infer(unknown()):
                assert result is None and "unknown model: 'nope'" in str(error)
        assert seen == {str(i): [i, i] for i in range(20)}
    asyncio.run(asyncio.wait_for(run(), 60))


# ---- grpcio's asyncio ----

def test_asyncio(server):
    """Several streams of one channel, written and read by turns."""
    async def one(channel, i):
        call = channel.stream_stream(SERVICE + "ModelStreamInfer", to_bytes,
                                     pb.ModelStreamInferResponse.FromString)(timeout=60)
        for k in range(5):
            await call.write(repeat([i, k], id=str(k)))
            assert number(await call.read()) == i
            assert number(await call.read()) == k
        await call.write(repeat([9], [200]))
        await call.done_writing()
        assert number(await call.read()) == 9
        assert await call.read() == grpc.aio.EOF and await call.code() == CODE.OK

    async def cancelled(channel):
        call = channel.stream_stream(SERVICE + "ModelStreamInfer", to_bytes,
                                     pb.ModelStreamInferResponse.FromString)(timeout=60)
        await call.write(repeat([1, 2], [0, 60000]))
        await call.read()
        call.cancel()
        assert await call.code() == CODE.CANCELLED

    async def run():
        async with grpc.aio.insecure_channel(server.grpc_url) as channel:
            await asyncio.gather(*(one(channel, i) for i in range(10)), cancelled(channel))
    before = cancelled_count(server)
    asyncio.run(asyncio.wait_for(run(), 60))
    wait_for("the end of the cancelled one", lambda: cancelled_count(server) - before == 1)


# ---- The python backend ----

@pytest.fixture(scope="module", params=["ours", "triton"])
def python_server(request, tmp_path_factory):
    """Triton's own python backend, with a decoupled model that answers from threads."""
    if python_backend.missing():
        pytest.skip(python_backend.missing())
    folder = tmp_path_factory.mktemp("python")
    models = write_models(folder / "models")
    python_backend.add_python_model(models, "count", "count", python_backend.text_of(
        [("COUNT", "INT32", [1])], [("NUMBER", "INT32", [1])], extra=DECOUPLED))
    prefix = f"tis_stream_{os.getpid()}_{request.param}_"
    if request.param == "ours":
        backends = python_backend.make_backends(folder / "backends")
        with python_backend.start(models, backends, prefix) as one:
            yield one
    else:
        backends = python_backend.make_backends(folder / "backends", triton.BACKENDS)
        with killed(triton.Triton(models, backends, folder,
                                  f"--backend-config=python,shm-region-prefix-name={prefix}")) as one:
            yield one
        for name in python_backend.regions(prefix):
            (python_backend.SHM / name).unlink()
    assert python_backend.regions(prefix) == []


def count(n, id=""):  # noqa: A002
    r = pb.ModelInferRequest(model_name="count", id=id,
                             raw_input_contents=[np.array([n], "i4").tobytes()])
    r.inputs.add(name="COUNT", datatype="INT32", shape=[1])
    r.parameters["triton_enable_empty_final_response"].bool_param = True
    return r


def test_python_backend(python_server):
    """0, 1 and many responses, of requests that are in flight together."""
    with grpc.insecure_channel(python_server.grpc_url) as channel:
        found = ask(channel, *(count(n, id=str(n)) for n in (0, 1, 50, 3)))
    seen = {}
    for r in found:
        seen.setdefault(r.infer_response.id, []).append(
            None if is_final(r) else number(r, "NUMBER"))
    assert seen == {str(n): [*range(n), None] for n in (0, 1, 50, 3)}


# ---- Threads of a client ----

def test_many_writers(channel):
    """Requests of many threads on one stream: each gets its own responses."""
    stream = Stream(channel)
    writers = [threading.Thread(target=stream.send, args=[repeat([i], id=f"{t} {i}")
                                                          for i in range(50)]) for t in range(8)]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    assert sorted(ids(stream.rest())) == sorted(f"{t} {i}" for t in range(8) for i in range(50))
