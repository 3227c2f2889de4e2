"""Queue policies, priorities and the order of answers over the real wire.

The only instance of a model is held by a request (scheduling.Hold), others are queued one by one,
and what is refused must be refused while it is held. The order in which the rest runs is read from
the log. Most tests ask Triton too: what they say of the rules is then measured.
"""
import concurrent.futures
import pathlib
import signal
import sys
import time

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "backends"))
from scheduling import (ASKED, ASKED_IDS, QUEUE_FULL, QUEUE_TIMEOUT, SECONDS_MAX, Client,  # noqa: E402
                        Refused, backend_folder, batches, batches_once, gate, ran, running, waiting)
from server import add_model, connect, infer_message, json_input, wait_for  # noqa: E402
from test_v2_stream import Stream  # noqa: E402
from v1_messages import V1, call, outcome  # noqa: E402

TIMEOUT_S = 0.3
# How late a refusal may be on a machine that is busy with other things.
LATE_S = 5
POLICY = "default_queue_policy {{ {} }} ".format
LEVELS = "priority_levels: {} default_priority_level: {} ".format
SHORT = f"default_timeout_microseconds: {int(TIMEOUT_S * 1e6)} "
DAY = "default_timeout_microseconds: 86400000000 "
OVERRIDE = "allow_timeout_override: true "


def level_policy(level, policy):
    return f"priority_queue_policy {{ key: {level} value {{ {policy} }} }} "


# The inside of dynamic_batching, and max_batch_size: 1 where order matters.
MODELS = {
    "full": (POLICY("max_queue_size: 2"), 1),
    "full_levels": (LEVELS(3, 2) + POLICY("max_queue_size: 2") + level_policy(1, "max_queue_size: 1"), 8),
    "reject": (POLICY(SHORT), 8),
    "reject_level": (LEVELS(2, 1) + level_policy(2, SHORT), 8),
    "delay": (LEVELS(2, 1) + level_policy(1, "timeout_action: DELAY " + DAY + OVERRIDE)
              + level_policy(2, DAY + OVERRIDE), 1),
    "override": (POLICY(DAY + OVERRIDE), 8),
    "override_longer": (POLICY(SHORT + OVERRIDE), 8),
    "override_alone": (POLICY(OVERRIDE), 8),
    "no_override": (POLICY(DAY), 8),
    "levels": (LEVELS(4, 3), 1),
    "starve": (LEVELS(2, 1), 1),
    "cancel": (POLICY("max_queue_size: 1"), 8),
}


@pytest.fixture(scope="module", params=ASKED, ids=ASKED_IDS)
def client(request, tmp_path_factory):
    kind, protocol = request.param
    folder = tmp_path_factory.mktemp(kind)
    for name, (batching, batch) in MODELS.items():
        add_model(folder / "models", name, gate(batching, batch))
    for name, batching in (("order", "preserve_ordering: true"), ("no_order", "")):
        add_model(folder / "models", name, gate(batching, count=2, batch=1))
    with running(kind, folder / "models", folder) as server, Client(server, protocol) as one:
        yield one


@pytest.fixture
def server(client):
    return client.server


def ran_one_by_one(server, model, *expected):
    ran(server, model, *([id] for id in expected))  # noqa: A001


# ---- max_queue_size ----

def test_full_queue(server, client, tmp_path):
    """The answer comes at once; what waits is not touched, and there is room again afterwards."""
    model = "full"
    with client.hold(model, tmp_path / "open"):
        calls = [client.queue(model, id) for id in "ab"]  # noqa: A001
        for _ in range(3):
            client.refuses(QUEUE_FULL, model)
        assert waiting(server, model) == 2
    for one in calls:
        one.result(SECONDS_MAX)
    client.send(model, "c").result(SECONDS_MAX)
    ran(server, model, ["hold"], ["a"], ["b"], ["c"])
    failures = 3 if server.kind == "ours" else 0  # Triton does not count refusals
    wait_for("the statistics",
             lambda: server.statistics(model)["inference_stats"]["fail"]["count"] == failures)


def test_full_queue_in_each_dialect(start, tmp_path):
    """HTTP says when to come again; the dialects of v1 have their own words for everything."""
    model, text = "full", QUEUE_FULL.partition("] ")[2]
    add_model(tmp_path / "models", model, gate(POLICY("max_queue_size: 1")))
    one = start(tmp_path / "models", f"--backend-directory={backend_folder(tmp_path / 'backends')}")
    with Client(one, "http") as client, client.hold(model, tmp_path / "open"):
        waits = client.queue(model)
        row = json_input("INPUT0", "INT32", [1, 1], [1])
        answer = one.infer(model, {"id": "7", "inputs": [row]})
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert answer.error == QUEUE_FULL
        assert one.infer(model, {"inputs": [row]}).error == QUEUE_FULL.replace("7", "<id_unknown>")
        header = 'batch_size: 1 input { name: "INPUT0" dims: 1 } output { name: "OUTPUT0" }'
        answer = one.post(f"/api/infer/{model}", bytes(4), {"NV-InferRequest": header})
        assert answer.status == 400 and "Retry-After" not in answer.headers
        assert f'code: UNAVAILABLE msg: "{text}"' in answer.headers["NV-Status"]
        request = V1.InferRequest(model_name=model, model_version=-1, raw_input=[bytes(4)])
        request.meta_data.batch_size = 1
        request.meta_data.input.add(name="INPUT0", dims=[1])
        request.meta_data.output.add(name="OUTPUT0")
        with grpc.insecure_channel(one.grpc_url) as channel:
            found = call(channel, "Infer", request, V1.InferResponse)
        assert outcome(found) == ("UNAVAILABLE", text)
    waits.result(SECONDS_MAX)


def test_full_level(server, client, tmp_path):
    """Each level has its own room: of its policy, else of the default one."""
    model = "full_levels"
    with client.hold(model, tmp_path / "open"):
        calls = [client.queue(model, id, priority=priority)  # noqa: A001
                 for id, priority in [("high", 1), ("middle1", 2), ("middle2", 0), ("low1", 3)]]
        for priority in (1, 2, 0):
            client.refuses(QUEUE_FULL, model, priority=priority)
        calls.append(client.queue(model, "low2", priority=3))
        client.refuses(QUEUE_FULL, model, priority=3)
    for one in calls:
        one.result(SECONDS_MAX)
    ran(server, model, ["hold"], ["high", "middle1", "middle2", "low1", "low2"])


# ---- Time-outs ----

def refusal_seconds(client, model, seconds_min, **options):
    """Sends a request that must be refused for its time-out, neither early nor late."""
    started = time.monotonic()
    client.refuses(QUEUE_TIMEOUT, model, **options)
    assert seconds_min <= time.monotonic() - started < seconds_min + LATE_S


def test_reject(server, client, tmp_path):
    """On time, although the only instance is busy for much longer."""
    with client.hold("reject", tmp_path / "open"):
        refusal_seconds(client, "reject", TIMEOUT_S)
        assert waiting(server, "reject") == 0
    ran(server, "reject", ["hold"])


def test_reject_of_a_level(server, client, tmp_path):
    """The other level has no time-out."""
    model = "reject_level"
    with client.hold(model, tmp_path / "open"):
        kept = client.queue(model, "kept", priority=1)
        refusal_seconds(client, model, TIMEOUT_S, priority=2)
        assert waiting(server, model) == 1
    kept.result(SECONDS_MAX)
    client.send(model, "last").result(SECONDS_MAX)
    ran(server, model, ["hold"], ["kept"], ["last"])


def test_delay(server, client, tmp_path):
    """What waited too long runs after the fresh ones of its level, before the next level. Time-outs are acted
    on in their order, so the refusal at the lower level tells that the earlier ones have passed."""
    model = "delay"
    with client.hold(model, tmp_path / "open"):
        calls = [client.queue(model, id, timeout=1) for id in ("late1", "late2")]  # noqa: A001
        calls += [client.queue(model, id, priority=p)  # noqa: A001
                  for id, p in [("fresh1", 1), ("low", 2), ("fresh2", 1)]]
        client.refuses(QUEUE_TIMEOUT, model, priority=2, timeout=1)
    for one in calls:
        one.result(SECONDS_MAX)
    ran(server, model, ["hold"], ["fresh1"], ["fresh2"], ["late1"], ["late2"], ["low"])


@pytest.mark.parametrize("name,timeout_s", [
    ("override", TIMEOUT_S),        # shorter than the model's
    ("override_longer", 3600),      # longer: the model's counts
])
def test_timeout_of_the_request(server, client, tmp_path, name, timeout_s):
    with client.hold(name, tmp_path / "open"):
        refusal_seconds(client, name, TIMEOUT_S, timeout=int(timeout_s * 1e6))
    ran(server, name, ["hold"])


def test_timeout_of_the_request_alone(server, client, tmp_path):
    """The model has none. Triton then takes that of the request for longer."""
    with client.hold("override_alone", tmp_path / "open"):
        if server.kind == "ours":
            refusal_seconds(client, "override_alone", TIMEOUT_S, timeout=int(TIMEOUT_S * 1e6))
        else:
            kept = client.queue("override_alone", "kept", timeout=1)
            with client.hold("override", tmp_path / "other", id="other"):
                client.refuses(QUEUE_TIMEOUT, "override", timeout=1)
    if server.kind == "triton":
        kept.result(SECONDS_MAX)


def test_timeout_without_permission(server, client, tmp_path):
    """It has no effect. The other model's refusal of the same time-out tells that it has passed."""
    model, other = "no_override", "override"
    with client.hold(model, tmp_path / "open"), client.hold(other, tmp_path / "other", id="other"):
        kept = client.queue(model, "kept", timeout=1000)
        client.refuses(QUEUE_TIMEOUT, other, timeout=1000)
        assert waiting(server, model) == 1
    kept.result(SECONDS_MAX)
    ran(server, model, ["hold"], ["kept"])


# ---- Priorities ----

def test_priorities(server, client, tmp_path):
    """Level 1 first, each level in the order of arrival; none, and one that does not exist, is the default
    level 3."""
    model = "levels"
    sent = [("4a", 4), ("3a", 3), ("none", 0), ("2a", 2), ("unknown", 9), ("1a", 1), ("3b", 3), ("1b", 1),
            ("4b", 4), ("2b", 2)]
    with client.hold(model, tmp_path / "open"):
        calls = [client.queue(model, id, priority=priority) for id, priority in sent]  # noqa: A001
    for one in calls:
        one.result(SECONDS_MAX)
    ran_one_by_one(server, model, "hold", "1a", "1b", "2a", "2b", "3a", "none", "unknown", "3b", "4a",
                   "4b")


def test_starvation_is_bounded(server, client, tmp_path):
    """A low request runs although higher ones always wait: the oldest goes first when 15 executions have
    passed it over. Triton's waits until there is no other."""
    model = "starve"
    with client.hold(model, tmp_path / "open"):
        calls = [client.queue(model, "low", priority=2)]
        calls += [client.send(model, "high", priority=1) for _ in range(17)]
        wait_for("all to wait", lambda: waiting(server, model) == 18)
    for one in calls:
        one.result(SECONDS_MAX)
    before = 15 if server.kind == "ours" else 17
    ran_one_by_one(server, model, "hold", *["high"] * before, "low", *["high"] * (17 - before))


# ---- Waiting requests that end otherwise ----

def cancellable(client, model):
    """A request that waits, and the function by which its client goes away."""
    if client.protocol == "grpc":
        return client.queue(model, "cancelled").context.cancel
    s = connect(client.server.port)
    s.sendall(infer_message(model, {"inputs": [json_input("INPUT0", "INT32", [1, 1], [1])]}))
    wait_for("the request to wait", lambda: waiting(client.server, model) == 1)
    return s.close


def test_cancel(server, client, tmp_path):
    """A client that goes away gives its place to the next one. Triton keeps it until the batcher looks at
    the request again."""
    model = "cancel"
    with client.hold(model, tmp_path / "open"):
        cancel = cancellable(client, model)
        client.refuses(QUEUE_FULL, model)
        cancel()
        if server.kind == "triton":
            client.refuses(QUEUE_FULL, model)
            return
        wait_for("the place to be free", lambda: waiting(server, model) == 0)
        if client.protocol == "grpc":
            with pytest.raises(Refused, match="Deadline Exceeded"):
                client.queue(model, "deadline", client_timeout=3).result(SECONDS_MAX)
            wait_for("the place to be free", lambda: waiting(server, model) == 0)
        kept = client.queue(model, "kept")
        client.refuses(QUEUE_FULL, model)
    kept.result(SECONDS_MAX)
    ran(server, model, ["hold"], ["kept"])


def test_stop(tmp_path, start):
    """What waits when the server is told to end still runs; the server ends after it."""
    add_model(tmp_path / "models", "m", gate(batch=1))
    one = start(tmp_path / "models", f"--backend-directory={backend_folder(tmp_path / 'backends')}")
    with Client(one, "grpc") as client, Client(one, "http") as other:
        hold = client.hold("m", tmp_path / "open")
        calls = [sender.queue("m", id)  # noqa: A001
                 for sender, id in ((client, "a"), (other, "b"), (client, "c"))]
        one.signal(signal.SIGTERM)
        one.wait_log("Waiting for in-flight")
        hold.open()
        for waiting_call in calls:
            waiting_call.result(SECONDS_MAX)
    assert one.wait_exit() == 0
    ran(one, "m", ["hold"], ["a"], ["b"], ["c"])


@pytest.mark.parametrize("count", [None, "5"])
def test_stop_ends_delays(tmp_path, start, count):
    """Nobody waits any more for others to fill its batch, nor for TRTSERVER_DELAY_SCHEDULER."""
    add_model(tmp_path / "models", "m", gate("max_queue_delay_microseconds: 86400000000"))
    one = start(tmp_path / "models", f"--backend-directory={backend_folder(tmp_path / 'backends')}",
                env={"TRTSERVER_DELAY_SCHEDULER": count} if count else None)
    with Client(one, "grpc") as client, Client(one, "http") as other:
        calls = [client.queue("m", "a"), other.queue("m", "b")]
        one.signal(signal.SIGTERM)
        for waits in calls:
            waits.result(SECONDS_MAX)
    assert one.wait_exit() == 0
    ran(one, "m", ["a", "b"])


def test_stop_that_takes_too_long(tmp_path, start):
    """After the exit timeout the server ends, whatever still waits."""
    add_model(tmp_path / "models", "m", gate(batch=1))
    one = start(tmp_path / "models", f"--backend-directory={backend_folder(tmp_path / 'backends')}",
                "--exit-timeout-secs=1")
    with Client(one, "grpc") as client, client.hold("m", tmp_path / "open") as hold:
        calls = [hold.call, client.queue("m", "a"), client.queue("m", "b")]
        one.signal(signal.SIGTERM)
        assert one.wait_exit() == 1
        for lost in calls:
            with pytest.raises(Refused):
                lost.result(SECONDS_MAX)
    ran(one, "m", ["hold"])


# ---- preserve_ordering ----

@pytest.mark.parametrize("ordered", [True, False])
def test_preserve_ordering(server, client, tmp_path, ordered):
    """Two instances, one of them busy: the other one runs what came later, but its answers leave after the
    first one's. Each request is a call, or a connection, of its own."""
    model = "order" if ordered else "no_order"
    with client.hold(model, tmp_path / "open", id="first") as first:
        calls = []
        for id in ("second", "third", "last"):  # noqa: A001
            calls.append(client.send(model, id))
            wait_for("it to run", lambda: [id] in batches(server, model))  # noqa: B023
        if ordered:  # The second and the third have run to their end: the last one has their instance.
            assert not concurrent.futures.wait(calls, timeout=0.3).done
        for one in () if ordered else calls:
            one.result(SECONDS_MAX)
        assert not first.call.done()
        first.open()
        for one in calls:
            one.result(SECONDS_MAX)
    ran(server, model, ["first"], ["second"], ["third"], ["last"])


def test_preserve_ordering_of_refusals(server, client, tmp_path):
    """An error of the server's own has its turn too, as has what a client no longer wants."""
    model = "order"
    seen = len(batches(server, model))
    with client.hold(model, tmp_path / "open", id="again") as first:
        bad = client.send(model, "bad", parameters={"fail": True})
        wait_for("it to run", lambda: len(batches(server, model)) == seen + 2)
        good = client.send(model, "good")
        wait_for("it to run", lambda: len(batches(server, model)) == seen + 3)
        assert not bad.done() and not good.done()
        first.open()
        with pytest.raises(Refused, match="it has to fail"):
            bad.result(SECONDS_MAX)
        good.result(SECONDS_MAX)


def test_preserve_ordering_across_protocols(tmp_path, start):
    """The order is that of the model, whatever way the requests came."""
    add_model(tmp_path / "models", "m", gate("preserve_ordering: true", count=2, batch=1))
    one = start(tmp_path / "models", f"--backend-directory={backend_folder(tmp_path / 'backends')}")
    request = pb.ModelInferRequest(model_name="m", id="stream", raw_input_contents=[bytes(4)])
    request.inputs.add(name="INPUT0", datatype="INT32", shape=[1, 1])
    with Client(one, "http") as http, Client(one, "grpc") as unary, \
            grpc.insecure_channel(one.grpc_url) as channel, \
            concurrent.futures.ThreadPoolExecutor(1) as pool:
        with http.hold("m", tmp_path / "open"):
            stream = Stream(channel, request)
            calls = [pool.submit(stream.next)]
            wait_for("it to run", lambda: len(batches(one, "m")) == 2)
            for client in (unary, http):
                calls.append(client.send("m", client.protocol))
                wait_for("it to run", lambda: len(batches(one, "m")) == 1 + len(calls))
            assert not concurrent.futures.wait(calls, timeout=0.3).done
        assert calls[0].result(SECONDS_MAX).infer_response.id == "stream"
        for one_call in calls[1:]:
            one_call.result(SECONDS_MAX)
        assert stream.rest() == []
    ran(one, "m", ["hold"], ["stream"], ["grpc"], ["http"])
