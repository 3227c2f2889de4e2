"""The whole server under ThreadSanitizer: loops, instances and clients that come, cancel and go.

TIS_TSAN_SERVER is the server that scripts/test has built so; a report of the sanitizer fails the
server's stop(). Everything that is random comes from the seeds.
"""
import contextlib
import os
import queue
import random
import shutil
import subprocess
import threading

import numpy as np
import pytest
import tritonclient.grpc as client_grpc
import tritonclient.http as client_http
from tritonclient.utils import InferenceServerException

from scheduling import waiting
from server import (Server, add_model, config, connect, identity, infer_message, json_input,
                    parameter, tensor, wait_for)

SERVER = os.environ.get("TIS_TSAN_SERVER")
ROUNDS = 6
TWO_INSTANCES = "instance_group [ { kind: KIND_CPU count: 2 } ]"
# Everything that the scheduler can do at once: levels that refuse, delay and bound what waits.
BATCHED = """
dynamic_batching {
  preferred_batch_size: [ 2, 6 ] max_queue_delay_microseconds: 2000
  priority_levels: 3 default_priority_level: 2
  default_queue_policy { default_timeout_microseconds: 4000 allow_timeout_override: true }
  priority_queue_policy { key: 1 value { max_queue_size: 4 } }
  priority_queue_policy { key: 3 value { timeout_action: DELAY default_timeout_microseconds: 1000 } }
}
"""
ORDERED = """
dynamic_batching {
  preserve_ordering: true max_queue_delay_microseconds: 500
  default_queue_policy { max_queue_size: 12 default_timeout_microseconds: 4000 }
}
"""
THREE_INSTANCES = "instance_group [ { kind: KIND_CPU count: 3 } ]"
SLOWER = parameter("instance_wise_delay_multiplier", 3)  # the second instance than the first
REPEAT = config("repeat", [tensor("IN", "INT32", [-1]), tensor("DELAY", "UINT32", [-1]),
                           tensor("WAIT", "UINT32", [1])],
                [tensor("OUT", "INT32", [1]), tensor("IDX", "UINT32", [1])],
                extra="model_transaction_policy { decoupled: true }\n")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not SERVER:
        pytest.skip("TIS_TSAN_SERVER names no server; scripts/test builds one")
    repository = tmp_path_factory.mktemp("repository")
    add_model(repository, "identity", identity("INT32", (16,), batch=8, extra=TWO_INSTANCES))
    add_model(repository, "repeat", REPEAT)
    for name, batching in (("batched", BATCHED), ("ordered", ORDERED)):
        add_model(repository, name, identity("INT32", (-1,), batch=8, delay_ms=1,
                                             extra=batching + THREE_INSTANCES + SLOWER))
    # ThreadSanitizer of GCC 12 cannot live with the address randomization of newer kernels.
    program = ["setarch", "-R", SERVER]
    if not shutil.which("setarch") or subprocess.run([*program[:2], "true"]).returncode != 0:
        program = [SERVER]
    environment = {"TSAN_OPTIONS": "exitcode=66:second_deadlock_stack=1"}
    with Server([repository], "--http-thread-count=3", program=program,
                env=environment) as server:
        yield server


def values(module, name, array):
    one = module.InferInput(name, list(array.shape), {"int32": "INT32", "uint32": "UINT32"}[
        str(array.dtype)])
    one.set_data_from_numpy(array)
    return one


def numbers(module):
    return [values(module, "INPUT0", np.arange(16, dtype=np.int32).reshape(1, 16))]


def repetitions(count, delay_ms):
    return [values(client_grpc, "IN", np.arange(count, dtype=np.int32)),
            values(client_grpc, "DELAY", np.full(count, delay_ms, dtype=np.uint32)),
            values(client_grpc, "WAIT", np.zeros(1, dtype=np.uint32))]


def call_http(server, chance):
    with client_http.InferenceServerClient(server.url) as client:
        for _ in range(20):
            answer = client.infer("identity", numbers(client_http)).as_numpy("OUTPUT0")
            assert answer.tolist() == [list(range(16))]


def call_grpc(server, chance):
    """Some calls have a deadline that may pass at any point of their way."""
    with client_grpc.InferenceServerClient(server.grpc_url) as client:
        for _ in range(20):
            timeout = chance.choice([None, 0.001, 0.003])
            try:
                client.infer("identity", numbers(client_grpc), client_timeout=timeout)
            except InferenceServerException as error:
                assert timeout and "Deadline" in str(error), error


def call_stream(server, chance):
    """Two models in one stream, read to its end or cancelled in the middle."""
    answers = queue.Queue()
    with client_grpc.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(lambda result, error: answers.put(error))
        expected = 0
        for _ in range(40):
            if chance.random() < 0.5:
                client.async_stream_infer("identity", numbers(client_grpc))
                expected += 1
            else:
                client.async_stream_infer("repeat", repetitions(3, chance.randrange(2)),
                                          enable_empty_final_response=True)
                expected += 4
        is_cut = chance.random() < 0.5
        for _ in range(expected // 3 if is_cut else expected):
            assert answers.get(timeout=60) is None
        client.stop_stream(cancel_requests=is_cut)


def scrape(server, chance):
    """The metrics page counts while the others make it move."""
    for _ in range(10):
        answer = server.metrics(chance.choice([None, "application/openmetrics-text"]))
        assert answer.status == 200 and b'nv_inference_count{model="identity"' in answer.body


# ---- The scheduler ----

def queued_infer(module, chance):
    """Arguments of an inference that may meet any rule of the scheduler."""
    shape = (chance.randrange(1, 4), chance.choice([1, 1, 1, 2]))
    array = np.full(shape, chance.randrange(2**31), dtype=np.int32)
    more = {"priority": chance.randrange(5), "timeout": chance.choice([None, 500, 10**6])}
    return array, [chance.choice(["batched", "ordered"]), [values(module, "INPUT0", array)]], more


def check_queued(array, result, error):
    """It has its own data, or was refused by a rule."""
    if error is None:
        assert np.array_equal(result.as_numpy("OUTPUT0"), array)
    else:
        assert any(text in str(error) for text in (
            "Exceeds maximum queue size", "Request timeout expired", "ancelled")), error


def queue_http(server, chance):
    with client_http.InferenceServerClient(server.url) as client:
        for _ in range(15):
            array, arguments, more = queued_infer(client_http, chance)
            try:
                check_queued(array, client.infer(*arguments, **more), None)
            except InferenceServerException as error:
                check_queued(array, None, error)


def queue_and_leave(server, chance):
    """HTTP connections that close while their request waits or runs."""
    body = {"inputs": [json_input("INPUT0", "INT32", [1, 1], [1])]}
    for _ in range(15):
        with connect(server.port) as s:
            s.sendall(infer_message(chance.choice(["batched", "ordered"]), body))
            s.settimeout(chance.choice([0.0001, 0.002, 0.01]))
            with contextlib.suppress(TimeoutError):
                s.recv(1)


def queue_grpc(server, chance):
    """Many in flight on one connection, a part of them cancelled; each has one end."""
    ends = queue.Queue()
    with client_grpc.InferenceServerClient(server.grpc_url) as client:
        for _ in range(30):
            array, arguments, more = queued_infer(client_grpc, chance)
            call = client.async_infer(
                *arguments, lambda result, error, array=array: ends.put((array, result, error)), **more)
            if chance.random() < 0.2:
                call.cancel()
        for _ in range(30):
            check_queued(*ends.get(timeout=60))


def watch(server, chance):
    """Reads what is counted meanwhile."""
    for _ in range(5):
        assert server.statistics("batched")["version"] == "1"
        assert server.get("/api/status/ordered").status == 200


# ---- All at the same time ----

def run_together(server, kinds):
    """Three threads of each kind."""
    failures = []

    def run(kind, seed):
        chance = random.Random(seed)
        try:
            for _ in range(ROUNDS):
                kind(server, chance)
        except BaseException as error:  # the test fails with it
            failures.append(error)

    threads = [threading.Thread(target=run, args=(kind, seed))
               for seed in range(3) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert server.is_ready()


def test_clients_of_all_kinds(server):
    run_together(server, (call_http, call_grpc, call_stream, scrape))


def test_scheduler(server):
    """Batches, priorities, time-outs, full queues, cancels and several instances; nothing is left over."""
    run_together(server, (queue_http, queue_and_leave, queue_grpc, watch, scrape))
    for model in ("batched", "ordered"):
        wait_for("the queue to be empty", lambda: waiting(server, model) == 0)  # noqa: B023
        found = server.statistics(model)
        assert found["inference_stats"]["success"]["count"] > 0
        assert found["inference_stats"]["fail"]["count"] > 0
        assert found["execution_count"] < found["inference_stats"]["success"]["count"]
        assert max(row["batch_size"] for row in found["batch_stats"]) > 3
