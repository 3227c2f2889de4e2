"""Statistics after known traffic: each count of v2 over HTTP and gRPC, and of the v1 status.

The v2 tests run twice, as [ours] and [triton], so that what a count means is measured. Each case has a
model of its own, whose counts begin at zero. Where the servers are meant to differ a case names both
(docs/differences.md).
"""
import contextlib
import os
import pathlib
import sys

import grpc
import numpy as np
import pytest
import tritonclient.grpc as client_grpc
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import service_pb2 as pb

import triton
from server import (ROOT, Server, add_model, config, executable, identity, json_input, onnx_models,
                    pairs, parameter, tensor, wait_for)

SERVICE = "/inference.GRPCInferenceService/"
ORT = pathlib.Path(os.environ.get(
    "TIS_ORT", ROOT / "third_party/fetched/onnxruntime/libonnxruntime.so.1.28.0"))
BAD = pathlib.Path(executable()).parent / "tests/backends/bad/libtriton_bad.so"
SLOW_MS = 1000
ONE_INSTANCE = "instance_group [ { count: 1 kind: KIND_CPU } ]\n"
PARTS = ["success", "fail", "queue", "compute_input", "compute_infer", "compute_output",
         "cache_hit", "cache_miss"]
RESPONSE_PARTS = ["compute_infer", "compute_output", "success", "fail", "empty_response", "cancel"]


# ---- The servers ----

def slow(extra=""):
    return identity("INT32", batch=4, delay_ms=SLOW_MS, extra=ONE_INSTANCE + extra)


def bad(mode):
    return config("bad", *pairs("INT32", [-1]), 4, parameter("mode", mode) + ONE_INSTANCE)


REPEAT = config("repeat", [tensor("IN", "INT32", [-1]), tensor("DELAY", "UINT32", [-1]),
                           tensor("WAIT", "UINT32", [1])],
                [tensor("OUT", "INT32", [1]), tensor("IDX", "UINT32", [1])],
                extra="model_transaction_policy { decoupled: true }\n" + ONE_INSTANCE)
# A batch of four rows, which is full, or whatever there is after a minute.
BATCHING = ("dynamic_batching { preferred_batch_size: [ 4 ] "
            "max_queue_delay_microseconds: 60000000 }")
POLICY = "dynamic_batching {{ default_queue_policy {{ {} }} }}"

MODELS = {
    "never": slow(), "requests": identity("INT32", batch=8), "refused": identity("INT32", batch=4),
    "alone": identity("INT32"), "batched": slow(BATCHING), "rows": slow(BATCHING),
    "waits": slow(), "cancelled_waiting": slow(), "cancelled_running": slow(),
    "full": slow(POLICY.format("max_queue_size: 1")),
    "expired": slow(POLICY.format("default_timeout_microseconds: 300000")),
    "execute_error": bad("error_execute"), "error_response": bad("wrong_name"),
    "memory": bad("memory").replace("count: 1", "count: 2"),
    "many": REPEAT, "none": REPEAT, "cancelled_stream": REPEAT,
}


def write_models(folder):
    for name, text in MODELS.items():
        add_model(folder, name, text)
    add_model(folder, "versions", identity("INT32", batch=4, extra="version_policy { all { } }"),
              (1, 3))
    add_model(folder, "engine_error", config("onnxruntime", *pairs("INT64", [2]), 8, ONE_INSTANCE),
              (1,), onnx_models.lookup([None, 2]))
    return folder


@contextlib.contextmanager
def running(kind, folder):
    if not BAD.exists():
        pytest.skip(f"no {BAD}: build with -Dtests=true")
    models = write_models(folder / "models")
    names = ("identity", "repeat", "onnxruntime")
    library = f"--backend-config=onnxruntime,library={ORT}"
    backends = folder / "backends"
    if kind == "ours":
        own = pathlib.Path(executable()).parent / "backends"
        for name, path in [*((n, own / n / f"libtriton_{n}.so") for n in names), ("bad", BAD)]:
            (backends / name).mkdir(parents=True)
            (backends / name / path.name).symlink_to(path)
        with Server(models, f"--backend-directory={backends}", library) as one:
            yield one
        return
    reason = triton.missing(*names)
    if reason:
        pytest.skip(reason)
    triton.add_backends(backends, *names)
    (backends / "bad").mkdir()
    (backends / "bad" / BAD.name).symlink_to(BAD)
    one = triton.Triton(models, backends, folder, library)
    try:
        yield one
    finally:
        one.kill()  # after streams it sometimes waits until its exit timeout


@pytest.fixture(scope="module", params=["ours", "triton"])
def server(request, tmp_path_factory):
    with running(request.param, tmp_path_factory.mktemp(request.param)) as one:
        one.kind = request.param
        with grpc.insecure_channel(one.grpc_url) as channel:
            one.channel = channel
            yield one


# ---- Traffic ----

def message(model, rows=1, version=""):
    r = pb.ModelInferRequest(model_name=model, model_version=version,
                             raw_input_contents=[bytes(4 * rows)])
    r.inputs.add(name="INPUT0", datatype="INT32", shape=[rows, 1])
    return r


def start(server, *messages, seconds=60):
    """Sends inference requests one after the other without waiting for answers; the server has them all
    when this returns."""
    stub = server.channel.unary_unary(SERVICE + "ModelInfer", pb.ModelInferRequest.SerializeToString,
                                      pb.ModelInferResponse.FromString)
    futures = [stub.future(m, timeout=seconds) for m in messages]
    live = server.channel.unary_unary(SERVICE + "ServerLive", lambda m: m, lambda m: m)
    live(b"", timeout=60)
    return futures


def codes(futures):
    return [f.code().name for f in futures]


def send(server, *messages):
    return codes(start(server, *messages))


def post(server, model, *inputs):
    return server.infer(model, {"inputs": list(inputs)}).status


def send_lookup(server, *rows):
    """Rows of two indices of a table with ten entries."""
    values = [i for row in rows for i in row]
    return post(server, "engine_error", json_input("INPUT0", "INT64", [len(rows), 2], values))


def stream(server, model, values, delays=None):
    """Starts a request to a decoupled model; its responses can be iterated."""
    r = pb.ModelInferRequest(model_name=model)
    for name, datatype, data in (("IN", "INT32", values), ("DELAY", "UINT32", delays or
                                                           [0] * len(values)),
                                 ("WAIT", "UINT32", [0])):
        r.inputs.add(name=name, datatype=datatype, shape=[len(data)])
        r.raw_input_contents.append(np.array(data, "i4").tobytes())
    call = server.channel.stream_stream(
        SERVICE + "ModelStreamInfer", pb.ModelInferRequest.SerializeToString,
        pb.ModelStreamInferResponse.FromString)
    return call(iter([r]), timeout=60)


def do_nothing(_):
    pass


def do_requests(server):
    for rows in (1, 4, 1, 8, 4, 1):
        assert send(server, message("requests", rows)) == ["OK"]


def do_alone(server):
    for _ in range(3):
        assert post(server, "alone", json_input("INPUT0", "INT32", [5], [1] * 5)) == 200


def do_refused(server):
    """None of these reaches the model."""
    good = json_input("INPUT0", "INT32", [1, 1], [1])
    for inputs in ([json_input("INPUT0", "INT32", [5, 1], [1] * 5)], [{**good, "name": "X"}],
                   [{**good, "datatype": "INT64"}], [good, good], []):
        assert post(server, "refused", *inputs) == 400
    assert server.infer("refused", b"{").status in (400, 500)
    assert send(server, message("refused", version="9"))[0] in ("NOT_FOUND", "INVALID_ARGUMENT")


def do_batched(server):
    assert send(server, *[message("batched")] * 4) == ["OK"] * 4


def do_rows(server):
    """A request of more rows than one, and two executions."""
    assert send(server, *[message("rows", n) for n in (1, 3, 2, 2)]) == ["OK"] * 4


def do_waits(server):
    assert send(server, *[message("waits")] * 2) == ["OK"] * 2


def do_cancelled_waiting(server):
    first, *others = start(server, *[message("cancelled_waiting")] * 3)
    for f in others:
        f.cancel()
    first.result()


def do_cancelled_running(server):
    """It runs on, and went well."""
    futures = start(server, message("cancelled_running"), seconds=SLOW_MS / 2000)
    assert codes(futures) == ["DEADLINE_EXCEEDED"]


def do_expired(server):
    """Those behind the first, which has the instance. Each fills a batch by itself."""
    first, = start(server, message("expired", 4))
    assert send(server, *[message("expired", 4)] * 2) == ["UNAVAILABLE"] * 2
    assert codes([first]) == ["OK"]


def do_execute_error(server):
    assert send(server, *[message("execute_error", 2)] * 2) == ["UNAVAILABLE"] * 2


def do_error_response(server):
    """The backend says that it went well; that the answer is an error is another matter."""
    assert send(server, message("error_response"))[0] != "OK"


def do_engine_error(server):
    assert send_lookup(server, [1, 9]) == 200
    assert send_lookup(server, [1, 99]) >= 400
    assert send_lookup(server, [1, 2], [3, 4], [5, 99]) >= 400


def do_many(server):
    for values in ([1, 2, 3], [4]):
        list(stream(server, "many", values))


def do_none(server):
    list(stream(server, "none", []))


def do_cancelled_stream(server):
    call = stream(server, "cancelled_stream", [1, 2, 3], [0, 20000, 0])
    next(call)
    call.cancel()


# ---- What they count ----

def counts(inferences, executions, batches=None, responses=None, success=None, fail=0):
    """success: requests. batches: {size: executions}. responses: {index: {part: count}}."""
    success = inferences if success is None else success
    return {"inference_count": inferences, "execution_count": executions, "success": success,
            "fail": fail, "batches": batches or {}, "responses": responses or {}}


SENT = {"compute_infer": 1, "compute_output": 1, "success": 1}
TWICE = {part: 2 for part in SENT}
EMPTY = {"compute_infer": 1, "empty_response": 1}
ALL_RUN = counts(3, 3, {1: 3})
CASES = {
    "never": (do_nothing, counts(0, 0)),
    "requests": (do_requests, counts(19, 6, {1: 3, 4: 2, 8: 1}, success=6)),
    "alone": (do_alone, counts(3, 3, {1: 3})),
    "refused": (do_refused, counts(0, 0)),
    "batched": (do_batched, counts(4, 1, {4: 1})),
    "rows": (do_rows, counts(8, 2, {4: 2}, success=4)),
    "waits": (do_waits, counts(2, 2, {1: 2})),
    "cancelled_waiting": (do_cancelled_waiting,
                          {"ours": counts(1, 1, {1: 1}, fail=2), "triton": ALL_RUN}),
    "cancelled_running": (do_cancelled_running, counts(1, 1, {1: 1})),
    "expired": (do_expired, counts(4, 1, {4: 1}, success=1, fail=2)),
    "execute_error": (do_execute_error, counts(0, 0, fail=2)),
    "error_response": (do_error_response, counts(1, 1, {1: 1})),
    "engine_error": (do_engine_error, counts(1, 1, {1: 1}, fail=2)),
    "many": (do_many, counts(2, 2, {1: 2}, {
        "0": TWICE, "1": {**SENT, "compute_infer": 2, "empty_response": 1}, "2": SENT, "3": EMPTY})),
    "none": (do_none, counts(1, 1, {1: 1}, {"0": EMPTY})),
    "cancelled_stream": (do_cancelled_stream,
                         counts(1, 1, {1: 1}, {"0": SENT, "1": {"cancel": 1}})),
}


def found_counts(stats):
    """The counts of a model's statistics in the form above; what must hold of any is checked."""
    assert list(stats) == ["name", "version", "last_inference", "inference_count",
                           "execution_count", "inference_stats", "response_stats", "batch_stats",
                           "memory_usage"]
    requests = {part: d["count"] for part, d in stats["inference_stats"].items()}
    assert list(requests) == PARTS
    assert {requests[part] for part in PARTS[2:6]} == {requests["success"]}
    assert requests["cache_hit"] == requests["cache_miss"] == 0
    assert (stats["last_inference"] > 0) == (requests["success"] > 0)
    for batch in stats["batch_stats"]:
        assert list(batch) == ["batch_size", *PARTS[3:6]]
        assert len({batch[part]["count"] for part in PARTS[3:6]}) == 1
    responses = {}
    for index, response in stats["response_stats"].items():
        assert sorted(response) == sorted(RESPONSE_PARTS)
        responses[index] = {part: d["count"] for part, d in response.items() if d["count"]}
    assert [b["batch_size"] for b in stats["batch_stats"]] == \
        sorted({b["batch_size"] for b in stats["batch_stats"]})
    for d in [*stats["inference_stats"].values(),
              *(b[part] for b in stats["batch_stats"] for part in PARTS[3:6])]:
        assert d["count"] > 0 or d["ns"] == 0
    return {"inference_count": stats["inference_count"],
            "execution_count": stats["execution_count"], "success": requests["success"],
            "fail": requests["fail"],
            "batches": {b["batch_size"]: b["compute_infer"]["count"] for b in stats["batch_stats"]},
            "responses": responses}


def expected_counts(server, case):
    expected = CASES[case][1]
    return expected.get(server.kind, expected)


@pytest.mark.parametrize("case", CASES)
def test_counts(server, case):
    """Every count, once all of the traffic has been counted."""
    assert found_counts(server.statistics(case)) == counts(0, 0)
    CASES[case][0](server)
    expected = expected_counts(server, case)
    wait_for(f"{expected}", lambda: found_counts(server.statistics(case)) == expected)


def test_full(server):
    """A request that finds the queue full has failed here; Triton does not count it at all."""
    answers = send(server, *[message("full")] * 6)
    done, refused = answers.count("OK"), answers.count("UNAVAILABLE")
    assert done + refused == 6 and done > 0 and refused > 0
    # Triton counts what it has answered.
    wait_for("the statistics", lambda: found_counts(server.statistics("full"))["success"] == done)
    found = found_counts(server.statistics("full"))
    assert found["success"] == found["execution_count"] == done
    assert found["fail"] == (refused if server.kind == "ours" else 0)


def test_versions(server):
    """The latest, one that is named, and one that does not exist: each counts for itself."""
    for version in ("", "3", "1", "7"):
        start(server, message("versions", version=version))[0].exception()
    def all_found():
        return server.get("/v2/models/versions/stats").json()["model_stats"]

    wait_for("the statistics", lambda: sum(found_counts(s)["success"] for s in all_found()) == 3)
    found = all_found()
    assert {s["version"]: found_counts(s)["success"] for s in found} == {"1": 1, "3": 2}
    one, = server.get("/v2/models/versions/versions/1/stats").json()["model_stats"]
    assert one == found[0]


def numbers(message):
    """A StatisticDuration has numbers, also where they are zero."""
    if isinstance(message, dict):
        return {key: numbers(value) for key, value in message.items()}
    if isinstance(message, list):
        return [numbers(value) for value in message]
    return int(message) if isinstance(message, str) and message.isdigit() else message


def test_grpc(server):
    """ModelStatistics tells exactly what HTTP tells, for all models at once."""
    with client_grpc.InferenceServerClient(server.grpc_url) as client:
        message = client.get_inference_statistics()
        over_grpc = MessageToDict(message, preserving_proto_field_name=True,
                                  always_print_fields_with_no_presence=True)["model_stats"]
    over_http = server.get("/v2/models/stats").json()["model_stats"]
    assert len(over_http) == len(MODELS) + 3
    assert numbers(over_grpc) == numbers(over_http)


def test_memory_usage(server):
    """What the model and its two instances say: reports replace each other, instances add up."""
    assert server.statistics("memory")["memory_usage"] == [
        {"type": kind, "id": number, "byte_size": size} for kind, number, size in (
            ("CPU", 0, 24 + 2 * 300), ("CPU_PINNED", 0, 2 * 60), ("GPU", 0, 7), ("GPU", 1, 5000))]
    assert server.statistics("never")["memory_usage"] == []


def test_times(server):
    """Two requests, of which one waits for the other: its wait is queue, the rest is compute."""
    if server.statistics("waits")["execution_count"] == 0:
        do_waits(server)
    stats = server.statistics("waits")["inference_stats"]
    low, high = SLOW_MS * 1e6 * 0.8, SLOW_MS * 1e6 * 20  # a wrong unit is further off
    assert low < stats["queue"]["ns"] < high
    assert 2 * low < stats["compute_infer"]["ns"] < 2 * high
    parts = sum(stats[part]["ns"] for part in PARTS[2:6])
    assert parts <= stats["success"]["ns"] < parts + high
