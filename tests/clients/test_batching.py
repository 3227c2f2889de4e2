"""Dynamic batching over the real wire: the QA cases of TRTIS 0.9, and the rules that are ours.

Most tests run twice, as [ours] and [triton]: there the decisions of Triton 2.51 are the same.
What ran together is read from the log of the backend gate, how long requests waited from the statistics.
'At once' means: less than the delay in the queue; 'after the delay': not less. So no wall time is judged.
"""
import concurrent.futures
import os
import pathlib
import sys

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "backends"))
import python_backend  # noqa: E402
from scheduling import (ASKED, ASKED_IDS, PROTOCOLS, SECONDS_MAX, Client, Refused,  # noqa: E402
                        backend_folder, batch_counts, batches_once, executions, gate, instances, ran,
                        running, waiting)
from server import (add_model, connect, identity, infer_message, json_input,  # noqa: E402
                    read_answer, wait_for)
from test_v1_client import Client as V1Client  # noqa: E402
from test_v1_client import decode, encode  # noqa: E402
from v1_messages import V1  # noqa: E402

# Long enough for a busy machine to do within it what has to come before its end.
DELAY_S = 5
# How much later a batch may begin than its delay ends, on such a machine.
LATE_S = 10
PREFERRED = "preferred_batch_size: [ 2, 6 ] max_queue_delay_microseconds: {}"


@pytest.fixture(scope="module", params=ASKED, ids=ASKED_IDS)
def client(request, tmp_path_factory):
    kind, protocol = request.param
    folder = tmp_path_factory.mktemp(kind)
    models = {
        **dict.fromkeys(QA, gate(PREFERRED.format(DELAY_S * 1000000), pair_count=2)),
        "outputs": gate(pair_count=2),
        "shapes": gate(),
        "optional": gate(optional=["1"]),
        "fails": gate(),
        "fill": gate(PREFERRED.format(1000)),
        "two": gate(count=2),
        "nothing": gate().partition("dynamic_batching")[0] + instances(),
    }
    for name, text in models.items():
        add_model(folder / "models", name, text)
    with running(kind, folder / "models", folder) as server, Client(server, protocol) as one:
        yield one


@pytest.fixture
def server(client):
    return client.server


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """With the models of tests that Triton's rules do not pass, or that are of v1."""
    folder = tmp_path_factory.mktemp("only_ours")
    for protocol in PROTOCOLS:
        add_model(folder / "models", f"preferred_{protocol}", gate("preferred_batch_size: [ 4 ]"))
    add_model(folder / "models", "dialects", gate(dims=[1]))
    with running("ours", folder / "models", folder) as one:
        yield one


@pytest.fixture(params=PROTOCOLS)
def our_client(request, ours):
    with Client(ours, request.param) as one:
        yield one


# ---- The QA cases of 0.9: preferred sizes 2 and 6 of at most 8 ----

# name: (batch sizes one after the other, those of each execution, sizes that wait for the delay)
QA = {
    "1": ([1], [[1]], [1]),
    "2": ([2], [[2]], []),
    "3": ([3], [[3]], [3]),
    "6": ([6], [[6]], []),
    "7": ([7], [[7]], []),
    "1_then_3": ([1, 3], [[1, 3]], [1]),
    "3_then_7": ([3, 7], [[3], [7]], []),
    "3_then_4": ([3, 4], [[3], [4]], [4]),
    "1_then_1": ([1, 1], [[1, 1]], []),
    # 0.9 has no such cases. There, the first of these runs half full when the second comes.
    "3_then_3": ([3, 3], [[3, 3]], []),
    "3_then_1_then_2": ([3, 1, 2], [[3, 1, 2]], []),
    "3_then_1_then_6": ([3, 1, 6], [[3, 1], [6]], []),
    "1_then_4": ([1, 4], [[1, 4]], [1]),
    # One request wants both outputs, or each another one.
    "1_then_1_outputs": ([(1, ["OUTPUT0", "OUTPUT1"]), (1, ["OUTPUT1"])], [[1, 1]], []),
    "1_then_1_other_outputs": ([(1, ["OUTPUT1"]), (1, ["OUTPUT0"])], [[1, 1]], []),
}


def run_steps(client, model, steps):
    """Sends requests of these sizes, each when the one before it waits; returns when all are answered."""
    steps = [step if isinstance(step, tuple) else (step, None) for step in steps]
    calls = []
    for i, (size, outputs) in enumerate(steps):
        send = client.send if i == len(steps) - 1 else client.queue
        calls.append(send(model, str(i), size=size, inputs=["INPUT0", "INPUT1"], outputs=outputs))
    for call in calls:
        call.result(SECONDS_MAX)


@pytest.fixture(scope="module")
def qa(client):
    """All cases at the same time: most of them wait."""
    with concurrent.futures.ThreadPoolExecutor(len(QA)) as pool:
        return {name: pool.submit(run_steps, client, name, steps)
                for name, (steps, _, _) in QA.items()}


def statistics_of(server, model, requests):
    """Once they have all requests."""
    wait_for("the statistics", lambda: server.statistics(model)["inference_stats"]["success"]["count"]
             == requests)
    return server.statistics(model)


def check_case(server, model, steps, expected, late, delay_s):
    batches_once(server, model, len(expected))
    assert [[size for _, size in batch] for _, batch in executions(server, model)] == expected
    found = statistics_of(server, model, len(steps))
    totals = [sum(batch) for batch in expected]
    assert (found["execution_count"], found["inference_count"]) == (len(expected), sum(totals))
    assert batch_counts(server, model) == {size: totals.count(size) for size in totals}
    assert (found["inference_stats"]["queue"]["ns"] >= delay_s * 1e9) == bool(late), found


def check_v1_status(server, model, expected, late, delay_s):
    """The same figures, for each batch size of requests."""
    status = V1.ServerStatus.FromString(server.get(f"/api/status/{model}?format=binary").body)
    version = status.model_status[model].version_status[1]
    requests = [size for batch in expected for size in batch]
    assert (version.model_execution_count, version.model_inference_count) == (
        len(expected), sum(requests))
    assert {size: row.success.count for size, row in version.infer_stats.items()} == {
        size: requests.count(size) for size in requests}
    waited = {size: row.queue.total_time_ns for size, row in version.infer_stats.items()}
    found = {size for size, ns in waited.items() if ns >= delay_s * 1e9}
    # With the one whose delay passed runs what came soon after it.
    with_late = {size for batch in expected if batch[0] in late for size in batch}
    assert set(late) <= found <= with_late, waited
    assert max(waited.values()) < (delay_s + LATE_S) * 1e9, waited


@pytest.mark.parametrize("name", QA)
def test_qa(server, qa, name):
    qa[name].result(SECONDS_MAX)
    check_case(server, name, *QA[name], DELAY_S)
    if server.kind == "ours":
        check_v1_status(server, name, *QA[name][1:], DELAY_S)


@pytest.mark.parametrize("count,sizes,expected,late", [
    (6, [1] * 6, [[1] * 6], []),
    (3, [1] * 3, [[1, 1], [1]], [1]),
], ids=["biggest_preferred", "best_preferred"])
def test_qa_delayed_scheduler(tmp_path, start, count, sizes, expected, late):
    """TRTSERVER_DELAY_SCHEDULER: nothing runs before that many requests wait."""
    for protocol in PROTOCOLS:
        add_model(tmp_path / "models", protocol, gate(PREFERRED.format(DELAY_S * 1000000)))
    one = start(tmp_path / "models", f"--backend-directory={backend_folder(tmp_path / 'backends')}",
                env={"TRTSERVER_DELAY_SCHEDULER": str(count)})
    with Client(one, "http") as http, Client(one, "grpc") as grpc:
        calls = [client.send(client.protocol, size=size) for client in (http, grpc) for size in sizes]
        for call in calls:
            call.result(SECONDS_MAX)
    for protocol in PROTOCOLS:
        check_case(one, protocol, sizes, expected, late, DELAY_S)
        check_v1_status(one, protocol, expected, late, DELAY_S)


# ---- What is in one batch ----

def test_outputs_of_each(server, client, tmp_path):
    """Requests of one batch that ask for other outputs: each gets its own, of its own data."""
    model = "outputs"
    wanted = [["OUTPUT0"], ["OUTPUT1"], ["OUTPUT1", "OUTPUT0"], None]
    both = ["INPUT0", "INPUT1"]
    with client.hold(model, tmp_path / "open", inputs=both):
        calls = [client.queue(model, str(i), inputs=both, outputs=outputs, size=2)
                 for i, outputs in enumerate(wanted)]
    for call, outputs in zip(calls, wanted):
        found = call.result(SECONDS_MAX)  # checked against its inputs
        assert {k for k, v in found.items() if v is not None} == set(outputs or ["OUTPUT0", "OUTPUT1"])
    ran(server, model, ["hold"], ["0", "1", "2", "3"])


def test_unlike_shapes(server, client, tmp_path):
    """A request of another shape ends a batch, and none is skipped for it."""
    model = "shapes"
    with client.hold(model, tmp_path / "open"):
        calls = [client.queue(model, id, width=width)  # noqa: A001
                 for id, width in [("a", 2), ("b", 2), ("c", 3), ("d", 2), ("e", 2)]]
    for call in calls:
        call.result(SECONDS_MAX)
    ran(server, model, ["hold"], ["a", "b"], ["c"], ["d", "e"])


def test_optional_inputs(server, client, tmp_path):
    """So does one with other optional inputs."""
    model = "optional"
    some, both = ["INPUT0"], ["INPUT0", "INPUT1"]
    with client.hold(model, tmp_path / "open", outputs=["OUTPUT0"]):
        calls = [client.queue(model, id, inputs=inputs, outputs=["OUTPUT0"])  # noqa: A001
                 for id, inputs in [("a", some), ("b", both), ("c", both), ("d", some)]]
    for call in calls:
        call.result(SECONDS_MAX)
    ran(server, model, ["hold"], ["a"], ["b", "c"], ["d"])


def test_one_fails_alone(server, client, tmp_path):
    """An error in a batch is that of its request; a wrong request does not come into one."""
    model = "fails"
    with client.hold(model, tmp_path / "open"):
        first = client.queue(model, "first")
        bad = client.queue(model, "bad", parameters={"fail": True})
        with pytest.raises(Refused, match="unexpected inference input 'INPUT7'"):
            client.send(model, "wrong", inputs=["INPUT7"]).result(SECONDS_MAX)
        with pytest.raises(Refused, match="batch-size must be <= 8"):
            client.send(model, "large", size=9).result(SECONDS_MAX)
        last = client.queue(model, "last")
    first.result(SECONDS_MAX)
    last.result(SECONDS_MAX)
    with pytest.raises(Refused, match="it has to fail"):
        bad.result(SECONDS_MAX)
    ran(server, model, ["hold"], ["first", "bad", "last"])


def test_sizes_add_up(ours, our_client, tmp_path):
    """A batch ends before the request that does not fit; it never exceeds the preferred size."""
    model = f"preferred_{our_client.protocol}"
    with our_client.hold(model, tmp_path / "open"):
        calls = [our_client.queue(model, id, size=size)  # noqa: A001
                 for id, size in [("a", 1), ("b", 2), ("c", 1), ("d", 3), ("e", 2), ("f", 8)]]
    for call in calls:
        call.result(SECONDS_MAX)
    ran(ours, model, ["hold"], ["a", "b", "c"], ["d"], ["e"], ["f"])


def test_after_the_delay(server, client, tmp_path):
    """When it has passed, a batch may be larger than the preferred sizes."""
    model = "fill"
    with client.hold(model, tmp_path / "open"):
        calls = [client.queue(model, id, size=size)  # noqa: A001
                 for id, size in [("a", 3), ("b", 4), ("c", 2)]]
    for call in calls:
        call.result(SECONDS_MAX)
    ran(server, model, ["hold"], ["a", "b"], ["c"])


def test_without_dynamic_batching(server, client, tmp_path):
    model = "nothing"
    with client.hold(model, tmp_path / "open"):
        calls = [client.queue(model, id) for id in "abc"]  # noqa: A001
    for call in calls:
        call.result(SECONDS_MAX)
    ran(server, model, ["hold"], ["a"], ["b"], ["c"])


# ---- Load ----

def test_instances(server, client, tmp_path):
    """While one instance is busy the other one works; with both busy, requests wait for the first to end."""
    model = "two"
    with client.hold(model, tmp_path / "one", id="one") as one:
        for i in range(3):
            client.send(model, f"free{i}").result(SECONDS_MAX)
        with client.hold(model, tmp_path / "two", id="two"):
            calls = [client.queue(model, id) for id in "abc"]  # noqa: A001
            one.open()
            for call in calls:
                call.result(SECONDS_MAX)
    ran(server, model, ["one"], ["free0"], ["free1"], ["free2"], ["two"], ["a", "b", "c"])
    names = [name for name, _ in executions(server, model)]
    busy, free = names[0], names[1]
    assert busy != free and names == [busy, free, free, free, free, busy]


def ask_http(server, model, count):
    body = {"inputs": [json_input("INPUT0", "INT32", [1, 1], [1])]}
    with connect(server.port, SECONDS_MAX) as s:
        for _ in range(count):
            s.sendall(infer_message(model, body))
            assert read_answer(s).status == 200


def ask_grpc(server, model, count):
    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[bytes(4)])
    request.inputs.add(name="INPUT0", datatype="INT32", shape=[1, 1])
    with grpc.insecure_channel(server.grpc_url) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", bytes, bytes)
        for _ in range(count):
            infer(request.SerializeToString(), timeout=SECONDS_MAX)


@pytest.mark.parametrize("ask", [ask_http, ask_grpc])
def test_full_batches_under_load(tmp_path, start, ask):
    """64 clients that always have one request: but for the end, when they go one by one, and for what a
    busy machine makes of them, every batch is full. It begins when all of them wait."""
    clients, rounds = 64, 6
    add_model(tmp_path, "m", identity("INT32", batch=8, delay_ms=150,
                                      extra="dynamic_batching { }\n" + instances()))
    one = start(tmp_path, env={"TRTSERVER_DELAY_SCHEDULER": str(clients)})
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        for call in [pool.submit(ask, one, "m", rounds) for _ in range(clients)]:
            call.result(SECONDS_MAX)
    counts = batch_counts(one, "m")
    assert sum(size * count for size, count in counts.items()) == clients * rounds
    assert max(counts) == 8
    assert counts[8] >= 0.85 * sum(counts.values()), counts


# ---- Clients of other dialects, and models that call models ----

@pytest.fixture(scope="module")
def v1_client():
    client = V1Client()
    yield client
    client.close()


def infer_0_9(server, value):
    header = ('batch_size: 1 input { name: "INPUT0" byte_size: 4 } '
              'output { name: "OUTPUT0" byte_size: 4 }')
    answer = server.post("/api/infer/dialects", np.array([value], "<i4").tobytes(),
                         {"NV-InferRequest": header})
    assert answer.status == 200, answer
    return int(np.frombuffer(answer.body[:4], "<i4")[0])


def infer_1_x(server, v1_client, value):
    found = v1_client.call("infer", url=server.url, protocol="http", model="dialects",
                           inputs={"INPUT0": [encode(np.array([value], "<i4"))]},
                           outputs={"OUTPUT0": None})
    array, = found["results"][0]["OUTPUT0"]
    return decode(array).tolist()


def test_dialects(ours, v1_client, tmp_path):
    """Requests of all dialects and protocols run in one batch."""
    with Client(ours, "http") as http, Client(ours, "grpc") as grpc, \
            concurrent.futures.ThreadPoolExecutor(2) as pool:
        with grpc.hold("dialects", tmp_path / "open"):
            old = pool.submit(infer_0_9, ours, 9)
            middle = pool.submit(infer_1_x, ours, v1_client, 11)
            calls = [client.send("dialects", client.protocol) for client in (http, grpc)]
            wait_for("all to wait", lambda: waiting(ours, "dialects") == 4)
        assert old.result(SECONDS_MAX) == 9
        assert middle.result(SECONDS_MAX) == [11]
        for call in calls:
            call.result(SECONDS_MAX)
    _, together = batches_once(ours, "dialects", 2)
    assert len(together) == 4 and {"http", "grpc"} < set(together)
    assert batch_counts(ours, "dialects") == {1: 1, 4: 1}


@python_backend.needs_python_backend
def test_models_that_call_models(tmp_path):
    """What Triton's python backend sends from inside the server waits in the same queue."""
    models = tmp_path / "models"
    python_backend.add_python_model(models, "caller", "call", python_backend.text_of(
        [("CALL", "BYTES", [1])], [python_backend.SEEN], extra=instances(2)))
    add_model(models, "called", gate(dims=[1]))
    backends = python_backend.make_backends(tmp_path / "backends")
    (backends / "gate").symlink_to(backend_folder(tmp_path / "gate") / "gate")
    with python_backend.start(models, backends, f"tis_batching_{os.getpid()}_") as one, \
            Client(one, "grpc") as client, concurrent.futures.ThreadPoolExecutor(2) as pool:
        with client.hold("called", tmp_path / "open"):
            inner = [pool.submit(python_backend.ask, one, "caller", {
                "model": "called", "inputs": {"INPUT0": [[i]]}, "outputs": ["OUTPUT0"],
                "more": {"request_id": f"inner{i}"}}) for i in range(2)]
            outer = client.send("called", "outer")
            wait_for("all to wait", lambda: waiting(one, "called") == 3)
        outer.result(SECONDS_MAX)
        assert [call.result(SECONDS_MAX) for call in inner] == [
            {"outputs": {"OUTPUT0": [[i]]}} for i in range(2)]
        first, together = batches_once(one, "called", 2)
        assert first == ["hold"] and sorted(together) == ["inner0", "inner1", "outer"]
