"""The whole server under ThreadSanitizer: loops, instances and clients that come, cancel and go.

TIS_TSAN_SERVER is the server that scripts/test has built so; a report of the sanitizer fails the
server's stop(). Everything that is random comes from the seeds.
"""
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

from server import Server, add_model, config, identity, tensor

SERVER = os.environ.get("TIS_TSAN_SERVER")
ROUNDS = 6
TWO_INSTANCES = "instance_group [ { kind: KIND_CPU count: 2 } ]"
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


def test_clients_of_all_kinds(server):
    """Three threads of each kind of client at the same time, and of collectors."""
    failures = []

    def run(kind, seed):
        chance = random.Random(seed)
        try:
            for _ in range(ROUNDS):
                kind(server, chance)
        except BaseException as error:  # the test fails with it
            failures.append(error)

    threads = [threading.Thread(target=run, args=(kind, seed))
               for seed in range(3) for kind in (call_http, call_grpc, call_stream, scrape)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert server.is_ready()
