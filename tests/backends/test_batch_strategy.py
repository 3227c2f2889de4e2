"""Batching strategies: examples/batch_strategy/volume.c as it stands, and one that breaks the rules
(tests/backends/bad/strategy.c).

Most models run with the backend of tests/backends/bad in its mode "trace", which tells the log the ids of
each execution and holds the first one until the test has queued everything else: which requests come
together is then certain. Requests go over one gRPC stream, which keeps their order.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

pb = pytest.importorskip("tritonclient.grpc").service_pb2
grpc = pytest.importorskip("grpc")

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients"))
import triton  # noqa: E402
from server import (BUILD, ROOT, Server, add_model, binary_body, binary_input, config,  # noqa: E402
                    executable, identity, pairs, parameter, tensor, wait_for)

EXAMPLE = ROOT / "examples" / "batch_strategy"
BAD = pathlib.Path(executable()).parent / "tests" / "backends" / "bad"
BATCHES = "dynamic_batching { }\ninstance_group [ { kind: KIND_CPU count: 1 } ]\n"

pytestmark = [
    pytest.mark.timeout(900),  # it compiles with what the machine has left
    pytest.mark.skipif(not shutil.which("cc"), reason="no compiler 'cc'"),
    pytest.mark.skipif(not (BAD / "strategy.so").exists(),
                       reason=f"no {BAD}: build with -Dtests=true"),
]


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """batchstrategy.so, built as examples/batch_strategy/README.md says."""
    folder = tmp_path_factory.mktemp("volume")
    code, = re.findall(r"```sh\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.S)
    shutil.copy(EXAMPLE / "volume.c", folder)
    done = subprocess.run(["bash", "-euc", code], cwd=folder, env={**os.environ, "TIS": str(ROOT)},
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return folder / "batchstrategy.so"


@pytest.fixture(scope="module")
def backends(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backends")
    for name, library in (("bad", BAD / "libtriton_bad.so"), ("identity", pathlib.Path(
            executable()).parent / "backends" / "identity" / "libtriton_identity.so")):
        (folder / name).mkdir()
        (folder / name / library.name).symlink_to(library)
    return folder


def traced(strategy, *parameters, extra=BATCHES):
    """A model of the traced backend; strategy: a path, or None."""
    ragged = "allow_ragged_batch: true"
    if strategy:
        parameters = (*parameters, ("TRITON_BATCH_STRATEGY_PATH", strategy))
    return config("bad", [tensor("INPUT0", "INT8", [-1], ragged)], [tensor("OUTPUT0", "INT8", [-1])],
                  8, extra + parameter("mode", "trace") + "".join(parameter(*p) for p in parameters))


def serve(folder, backends, models, *flags):
    for name, text in {**models, "copy": identity("INT8", [-1])}.items():
        add_model(folder, name, text)
    return Server(folder, f"--backend-directory={backends}", "--exit-on-error=false",
                  "--strict-readiness=false", "--log-verbose=1", *flags)


# ---- Requests ----

def message(model, name, size, rows=1):
    data = np.full((rows, size) if model != "copy" else (size,), hash(name) % 100, "i1")
    r = pb.ModelInferRequest(model_name=model, id=name, raw_input_contents=[data.tobytes()])
    r.inputs.add(name="INPUT0", datatype="INT8", shape=data.shape)
    return r


def executions(server, model):
    """[["a", "b"], ["c"]]: the ids of each execution so far."""
    found = [re.search(rf"trace {model}_0_\d+_cpu execute (.*)$", line)
             for line in list(server.stderr_lines)]
    return [match[1].split(",") for match in found if match]


def run_held(server, folder, model, sizes):
    """Queues requests r0, r1 ... of these sizes behind one that holds the instance; returns the executions
    they came in. Each must be answered with its own bytes."""
    sent = {"hold": message(model, "hold", 1)}
    sent |= {f"r{i}": message(model, f"r{i}", size) for i, size in enumerate(sizes)}
    answers = {}
    with grpc.insecure_channel(server.grpc_url) as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer",
                                  pb.ModelInferRequest.SerializeToString,
                                  pb.ModelInferResponse.FromString)

        def requests():
            yield sent["hold"]
            wait_for("the first request runs", lambda: ["hold"] in executions(server, model))
            yield from (r for name, r in sent.items() if name != "hold")
            # The last one is on the connection. What comes behind it is answered when it is queued.
            ask(message("copy", "mark", 1), timeout=30)
            (folder / model / "go").touch()

        for answer in channel.stream_stream(
                "/inference.GRPCInferenceService/ModelStreamInfer",
                pb.ModelInferRequest.SerializeToString,
                pb.ModelStreamInferResponse.FromString)(requests(), timeout=60):
            assert not answer.error_message, answer
            answers[answer.infer_response.id] = answer.infer_response.raw_output_contents[0]
    assert answers == {name: r.raw_input_contents[0] for name, r in sent.items()}
    wait_for("the log", lambda: sum(map(len, executions(server, model))) == len(sent))
    return executions(server, model)[1:]


def ids(*counts):
    """ids(2, 1): [["r0", "r1"], ["r2"]]"""
    names = [f"r{i}" for i in range(sum(counts))]
    return [[names.pop(0) for _ in range(count)] for count in counts]


# ---- The example ----

def test_volume(tmp_path, backends, volume):
    """Batches end before the bound is passed; what is larger runs alone; the order stays; the number of
    requests still counts (8). Found by its path, or by its name in each of the three places."""
    bound = ("MAX_BATCH_VOLUME_BYTES", 96)
    sizes = [40, 40, 40, 90, 7, 200, 96, 1, 95, 90] + 17 * [6]
    expected = ids(2, 1, 1, 1, 1, 1, 2, 2, 8, 8)
    models = {"by_path": traced(volume, bound), "in_version": traced(None, bound),
              "in_model": traced(None, bound)}
    for name in models:
        (tmp_path / name / "1").mkdir(parents=True)
    shutil.copy(volume, tmp_path / "in_version" / "1")
    shutil.copy(volume, tmp_path / "in_model")
    for name, text in models.items():
        (tmp_path / name / "config.pbtxt").write_text(text)
    with serve(tmp_path, backends, {}) as server:
        for name in models:
            server.wait_log(f"batching strategy model={name} version=1 file=")
            assert run_held(server, tmp_path, name, sizes) == expected


def test_volume_for_all_models_of_a_backend(tmp_path, backends, volume):
    (tmp_path / "backends" / "bad").mkdir(parents=True)
    for name in ("bad", "identity"):
        shutil.copytree(backends / name, tmp_path / "backends" / name, dirs_exist_ok=True)
    shutil.copy(volume, tmp_path / "backends" / "bad")
    models = {"m": traced(None, ("MAX_BATCH_VOLUME_BYTES", 10)), "without": traced(None)}
    with serve(tmp_path / "models", tmp_path / "backends", models) as server:
        assert run_held(server, tmp_path / "models", "m", [5, 5, 5]) == ids(2, 1)
        entry = next(e for e in server.index() if e["name"] == "without")
        assert "model 'without' has no parameter 'MAX_BATCH_VOLUME_BYTES'" in entry["reason"]


def test_without_a_strategy(tmp_path, backends):
    """The same requests fill their batches: what the other tests see comes from the strategy."""
    with serve(tmp_path, backends, {"m": traced(None)}) as server:
        assert run_held(server, tmp_path, "m", 11 * [40]) == ids(8, 3)


def test_volume_under_load(tmp_path, backends, volume):
    """Two instances, many clients, every size: none is lost or mixed up, no batch passes the bound, and the
    statistics count every request once."""
    two = BATCHES.replace("count: 1", "count: 2")
    model = traced(volume, ("MAX_BATCH_VOLUME_BYTES", 100), extra=two)
    wrong, clients, each = [], 16, 60

    def client(k):
        for i in range(each):
            size = 1 + (7 * k + 13 * i) % 120
            data = bytes([k]) * size
            head = {"id": f"{size}", "inputs": [binary_input("INPUT0", "INT8", [1, size], size)],
                    "parameters": {"binary_data_output": True}}
            answer = server.infer("m", *binary_body(head, data))
            if answer.status != 200 or answer.split()[1] != data:
                wrong.append(answer)

    with serve(tmp_path, backends, {"m": model}) as server:
        threads = [threading.Thread(target=client, args=(k,)) for k in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        found = server.statistics("m")
        assert found["inference_stats"]["success"]["count"] == clients * each
        assert found["inference_count"] == clients * each
        wait_for("the log", lambda: sum(map(len, executions(server, "m"))) == clients * each)
        batches = executions(server, "m")
        assert len(batches) == found["execution_count"] < clients * each
        for batch in batches:
            assert len(batch) == 1 or sum(map(int, batch)) <= 100, batch
        assert max(len(batch) for batch in batches) > 1


# ---- Strategies that misbehave ----

RULES = {
    # rule: (executions of six requests, lines in the log)
    "pairs": (ids(2, 2, 2), []),
    "all": (ids(6), []),
    "none": (ids(1, 1, 1, 1, 1, 1), []),
    "null": (ids(6), []),
    "touch": (ids(6), 3 * ["Invalid argument"]),
    "error_initialize": (ids(6), ["no batch today"]),
    "error_include": (ids(6), ["cannot say"]),
    "error_finalize": (ids(6), ["the end has no end"]),
}


@pytest.fixture(scope="module")
def ruled(tmp_path_factory, backends):
    folder = tmp_path_factory.mktemp("ruled")
    strategy = BAD / "strategy.so"
    models = {rule: traced(strategy, ("rule", rule)) for rule in [*RULES, "error_batcher"]}
    models["half"] = traced(BAD / "half_strategy.so")
    models["missing"] = traced(folder / "nowhere.so")
    models["no_library"] = traced(__file__)
    with serve(folder, backends, models) as server:
        yield server, folder
    finalized = [line for line in server.stderr_lines if re.search(r"strategy \w+: finalized", line)]
    assert len(finalized) == len(RULES) + 1, server.log()


@pytest.mark.parametrize("rule", RULES)
def test_rule(ruled, rule):
    server, folder = ruled
    expected, told = RULES[rule]
    assert run_held(server, folder, rule, 6 * [4]) == expected
    assert not any("two batches at a time" in line for line in server.stderr_lines)
    if rule == "touch":  # the requests of the first execution, too
        lines = [line.rpartition(": ")[2] for line in server.stderr_lines
                 if "strategy touch: " in line]
        assert lines == 7 * told
    elif told:
        line = server.wait_log(f"batching strategy failed model={rule} ")
        assert told[0] in line and "the batch runs as it is" in line
        loud = [line for line in server.stderr_lines
                if f"strategy failed model={rule} " in line and "runs as it is" in line]
        assert len(loud) == 1
    assert server.statistics(rule)["inference_stats"]["success"]["count"] == 7


@pytest.mark.parametrize("name, words", [
    ("error_batcher", "initializing batching strategy '{bad}/strategy.so': this strategy shall not be"),
    ("half", "half_strategy.so' does not export TRITONBACKEND_ModelBatchInitialize, "
             "TRITONBACKEND_ModelBatchIncludeRequest, TRITONBACKEND_ModelBatchFinalize: expected all five"),
    ("missing", "parameter 'TRITON_BATCH_STRATEGY_PATH' names '{folder}/nowhere.so', expected a file"),
    ("no_library", "batching strategy: "),
])
def test_strategy_that_cannot_be_used(ruled, name, words):
    server, folder = ruled
    entry = next(e for e in server.index() if e["name"] == name)
    assert entry["state"] == "UNAVAILABLE"
    assert words.format(bad=BAD, folder=folder) in entry["reason"], entry


# ---- Triton ----

@pytest.mark.parametrize("kind", ["ours", "triton"])
def test_the_same_file_in_triton(tmp_path, volume, kind):
    """Both servers load the same file. Requests of 32 bytes and a bound of 96: executions have three."""
    if kind == "triton" and triton.missing("identity"):
        pytest.skip(triton.missing("identity"))
    text = identity("INT8", [32], 8, delay_ms=20, extra=(
        "dynamic_batching { max_queue_delay_microseconds: 20000 }\n"
        "instance_group [ { kind: KIND_CPU count: 1 } ]\n" + parameter("MAX_BATCH_VOLUME_BYTES", 96) +
        parameter("TRITON_BATCH_STRATEGY_PATH", volume)))
    add_model(tmp_path / "models", "m", text)
    if kind == "ours":
        server = Server(tmp_path / "models")
    else:
        server = triton.Triton(tmp_path / "models", triton.add_backends(
            tmp_path / "backends", "identity"), tmp_path)
    wrong = []

    def client(k):
        for _ in range(4):
            data = bytes([k]) * 32
            head = {"inputs": [binary_input("INPUT0", "INT8", [1, 32], 32)],
                    "parameters": {"binary_data_output": True}}
            answer = server.infer("m", *binary_body(head, data))
            if answer.status != 200 or answer.split()[1] != data:
                wrong.append(answer)

    with server:
        threads = [threading.Thread(target=client, args=(k,)) for k in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        found = server.statistics("m")
        sizes = {row["batch_size"]: row["compute_infer"]["count"] for row in found["batch_stats"]}
        assert sum(size * count for size, count in sizes.items()) == 48
        assert sizes.get(3), sizes
        # Triton forgets the bound in some of its batches while requests wait for a free instance.
        assert kind == "triton" or max(sizes) == 3, sizes
