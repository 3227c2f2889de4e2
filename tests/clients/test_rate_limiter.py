"""The rate limiter over the wire: instances that share a resource, turns by priority, flags, errors.

What ran at the same time is said by the plug-in itself (mode weighs_N of tests/backends/bad): each answer
is the most that ran beside it, in the sum of their N.
"""
import pathlib
import queue
import re
import threading
import time

import numpy as np
import pytest
import tritonclient.grpc as client_grpc

from server import (add_model, binary_body, binary_input, config, executable, identity, pairs,
                    parameter, run)

ON = "--rate-limit=execution_count"
PLUGINS = pathlib.Path(executable()).parent
BAD = PLUGINS / "tests" / "backends" / "bad" / "libtriton_bad.so"
needs_bad = pytest.mark.skipif(not BAD.exists(), reason=f"no {BAD}: build with -Dtests=true")
SECONDS_MAX = 60


def group(*resources, count=1, priority=0):
    """An instance group; resources are (name, count) or (name, count, True) for a global one."""
    needed = " ".join(f'resources {{ name: "{name}" count: {number} {"global: true" if more else ""} }}'
                      for name, number, *more in resources)
    return f"instance_group {{ count: {count} rate_limiter {{ {needed} priority: {priority} }} }}\n"


def weighs(weight, *groups):
    return config("bad", *pairs("INT32", [4]),
                  extra=parameter("mode", f"weighs_{weight}") + "".join(groups))


@pytest.fixture
def backends(tmp_path):
    for library in (BAD, PLUGINS / "backends" / "identity" / "libtriton_identity.so"):
        name = re.fullmatch(r"libtriton_(\w+)\.so", library.name)[1]
        (tmp_path / "backends" / name).mkdir(parents=True)
        (tmp_path / "backends" / name / library.name).symlink_to(library)
    return f"--backend-directory={tmp_path / 'backends'}"


def repository(tmp_path, models):
    for name, text in models.items():
        add_model(tmp_path / "models", name, text)
    return tmp_path / "models"


# ---- What runs at the same time ----

def ask_http(server, model):
    data = bytes(16)
    body, headers = binary_body({"inputs": [binary_input("INPUT0", "INT32", [4], 16)],
                                 "parameters": {"binary_data_output": True}}, data)
    answer = server.infer(model, body, headers)
    assert answer.status == 200, answer
    return np.frombuffer(answer.split()[1], np.int32)[0]


def grpc_input(count=4, datatype="INT32"):
    one = client_grpc.InferInput("INPUT0", [count], datatype)
    one.set_data_from_numpy(np.zeros(count, {"INT32": np.int32, "FP32": np.float32}[datatype]))
    return [one]


def ask_grpc(client, model):
    return client.infer(model, grpc_input()).as_numpy("OUTPUT0")[0]


def most_at_once(server, models, rounds=25, until=None):
    """Two threads of HTTP and two of gRPC ask all models; the most that ran at the same time. With
    `until` they go on until that was seen."""
    seen, failures = [], []
    deadline = time.monotonic() + SECONDS_MAX

    def is_enough(round_number):
        if until is None:
            return round_number == rounds
        assert time.monotonic() < deadline, f"never {until}, at most {max(seen)}"
        return max(seen, default=0) >= until

    def play(ask):
        try:
            round_number = 0
            while not is_enough(round_number) and not failures:
                round_number += 1
                for model in models:
                    seen.append(ask(model))
        except BaseException as error:  # the test fails with it
            failures.append(error)

    with client_grpc.InferenceServerClient(server.grpc_url) as client:
        asks = [lambda model: ask_http(server, model), lambda model: ask_grpc(client, model)]
        threads = [threading.Thread(target=play, args=(ask,)) for ask in 2 * asks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures
    return max(seen)


@needs_bad
def test_never_together(start, tmp_path, backends):
    """Two models with two instances each share one resource: one instance runs at a time. Without the limiter
    the same models do run together."""
    models = {name: weighs(1, group(("R", 1), count=2)) for name in ("a", "b")}
    folder = repository(tmp_path, models)
    limited = start(folder, backends, ON)
    assert most_at_once(limited, models) == 1
    for name in models:  # and each request was an execution of its own
        counts = limited.statistics(name)
        assert counts["execution_count"] == counts["inference_count"] == 100
    assert most_at_once(start(folder, backends), models, until=2) >= 2


@needs_bad
@pytest.mark.parametrize("amount", [2, 3])
def test_as_many_as_there_are(start, tmp_path, backends, amount):
    models = {name: weighs(1, group(("R", 1), count=3)) for name in ("a", "b")}
    flags = [backends, ON, f"--rate-limit-resource=R:{amount}"]
    server = start(repository(tmp_path, models), *flags)
    assert most_at_once(server, models, until=amount) == amount
    assert most_at_once(server, models) <= amount


@needs_bad
def test_default_amount(start, tmp_path, backends):
    """As much as the instance needs that needs most; a global resource beside counts as well."""
    models = {"one": weighs(1, group(("R", 1), ("G", 1, True), count=2)),
              "two": weighs(2, group(("R", 2), count=2, priority=2)),
              "four": weighs(4, group(("R", 4), count=2))}
    server = start(repository(tmp_path, models), backends, ON)
    assert most_at_once(server, models) == 4


@needs_bad
def test_without_resources(start, tmp_path, backends):
    """Models without resources run beside those that wait for some."""
    models = {"a": weighs(1, group(("R", 1))), "free": weighs(1, group(priority=5, count=2)),
              "plain": weighs(1)}
    server = start(repository(tmp_path, models), backends, ON)
    assert most_at_once(server, models, until=2) >= 2


# ---- Turns ----

@pytest.mark.parametrize("priorities", [(1, 1), (0, 2), (1, 4)])
def test_turns(start, tmp_path, priorities):
    """Two models with one resource and queues that do not run empty, because nothing runs before all
    wait: executions as 1 to priority. One model may begin before the other, so some are not counted."""
    models = {name: identity(delay_ms=4, extra=group(("R", 1), priority=priority))
              for name, priority in zip(("first", "second"), priorities)}
    ratio = max(priorities[1], 1) // max(priorities[0], 1)
    server = start(repository(tmp_path, models), ON, env={"TRTSERVER_DELAY_SCHEDULER": "80"})
    answers = queue.Queue()
    with client_grpc.InferenceServerClient(server.grpc_url) as client:
        for _ in range(80):
            for model in models:
                client.async_infer(model, grpc_input(1, "FP32"),
                                   lambda result, error, model=model: answers.put((model, error)))
        order = [answers.get(timeout=SECONDS_MAX) for _ in range(160)]
    assert all(error is None for _, error in order)
    names = [model for model, _ in order]
    last = len(names) - names[::-1].index("first")  # until then both waited
    seconds = names[20:last].count("second")
    firsts = names[20:last].count("first")
    assert abs(seconds - firsts / ratio) <= 3, names


# ---- What cannot be ----

@pytest.mark.parametrize("flag, text", [
    ("--rate-limit=on", "--rate-limit=on: expected off or execution_count"),
    ("--rate-limit=", "expected off or execution_count"),
    ("--rate-limit-resource=R", "--rate-limit-resource=R: expected NAME:COUNT[:DEVICE]"),
    ("--rate-limit-resource=R:x", "expected NAME:COUNT[:DEVICE]"),
    ("--rate-limit-resource=R:1:gpu", "expected NAME:COUNT[:DEVICE]"),
    ("--rate-limit-resource=R:-1", "expected NAME:COUNT[:DEVICE]"),
    ("--rate-limit-resource=R:1:0:2", "expected NAME:COUNT[:DEVICE]"),
    ("--rate-limit-resource=:1", "expected NAME:COUNT[:DEVICE]"),
    ("--rate-limit-resource=R:4294967296", "expected NAME:COUNT[:DEVICE]"),
])
def test_wrong_flags(tmp_path, flag, text):
    status, _, err = run(f"--model-store={tmp_path}", flag)
    assert status == 1 and text in err


def test_flag_twice(tmp_path):
    status, _, err = run(f"--model-store={tmp_path}", "--rate-limit-resource=R:1",
                         "--rate-limit-resource=R:1:0", "--rate-limit-resource=R:2")
    assert status == 1
    assert "--rate-limit-resource=R:2: given twice for the same device (found 1 before)" in err


REFUSED = [
    (["--rate-limit-resource=R:1"], group(("R", 4)),
     "model 'm' instance 'm_0_0_cpu': there is too little of resource 'R' of device 0 (found count: 4, "
     "available 1, expected at least --rate-limit-resource=R:4)"),
    (["--rate-limit-resource=R:10:10", "--rate-limit-resource=S:2"], group(("R", 4)), "available 0"),
    (["--rate-limit-resource=S:4"], group(("S", 4), ("R", 1)), "resource 'R' of device 0"),
    (["--rate-limit-resource=G:1:3"], group(("G", 2, True)), "resource 'G' (found count: 2, available 1"),
    ([], group(("R", 1)) + group(("R", 1, True)), "resource 'R' must be global for all instances"),
]


@pytest.mark.parametrize("flags, groups, reason", REFUSED)
def test_model_is_refused(start, tmp_path, flags, groups, reason):
    """The model is not served, and says why; the other one is served."""
    folder = repository(tmp_path, {"m": identity(extra=groups), "good": identity()})
    server = start(folder, ON, *flags, "--exit-on-error=false")
    found = {entry["name"]: entry for entry in server.index()}
    assert found["good"]["state"] == "READY"
    assert found["m"]["state"] == "UNAVAILABLE" and reason in found["m"]["reason"], found["m"]


def test_refused_at_start(tmp_path):
    folder = repository(tmp_path, {"m": identity(extra=group(("R", 4)))})
    status, _, err = run(f"--model-store={folder}", "--http-port=0", "--grpc-port=0",
                         "--http-address=127.0.0.1", "--grpc-address=127.0.0.1",
                         "--allow-metrics=false", ON, "--rate-limit-resource=R:3")
    assert status == 1 and "found count: 4, available 3" in err


@pytest.mark.parametrize("groups, reason", [
    (group(("R", 0)), "resource 'R': an instance that needs none of it must not name it (found count 0"),
    (group(("", 1)), "a resource needs a name (found '')"),
    (group(("R", 1), ("R", 2, True)), "resource 'R' is there twice (as resources[0])"),
    (group(*((f"R{i}", 1) for i in range(65))), "too many resources (found 65, expected at most 64)"),
])
@pytest.mark.parametrize("flag", [ON, "--rate-limit=off"])
def test_wrong_configuration(start, tmp_path, flag, groups, reason):
    folder = repository(tmp_path, {"m": identity(extra=groups)})
    server = start(folder, flag, "--exit-on-error=false")
    assert reason in server.index()[0]["reason"]


def test_off_ignores(start, tmp_path):
    """As in Triton, rate_limiter has no effect by default, not even when there is too little."""
    folder = repository(tmp_path, {"m": identity(extra=group(("R", 4)) + group(("R", 1, True)))})
    server = start(folder, "--rate-limit-resource=R:1")
    server.wait_log("--rate-limit-resource has no effect without --rate-limit=execution_count")
    assert server.index()[0]["state"] == "READY"
