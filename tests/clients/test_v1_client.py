"""The real client of TRTIS 1.11 (PyPI tensorrtserver 1.11.0) over HTTP and gRPC against our server.

The client needs old libraries and lives in an environment of its own (scripts/venvs venv-v1), so
v1_client.py runs it as a child process, one for all tests. Never skipped: a missing environment is
a failure.
"""
import base64
import json
import os
import pathlib
import subprocess
import threading

import numpy as np
import pytest

from server import MODELS, ROOT, Server, add_model, config, identity, onnx_models, pairs, tensor

HERE = pathlib.Path(__file__).resolve().parent
VENV = ROOT / os.environ.get("TIS_VENV_V1", "third_party/fetched/venv-v1")
DEADLINE_S = 60
VERSION = "0.9.0 of the tests"

# Every type of the v1 protocol: numpy's, and values at its edges.
TYPES = {
    "BOOL": ("?", [True, False, True, True]),
    "UINT8": ("u1", [0, 1, 255, 7]), "UINT16": ("<u2", [0, 1, 65535, 7]),
    "UINT32": ("<u4", [0, 1, 2**32 - 1, 7]), "UINT64": ("<u8", [0, 1, 2**64 - 1, 7]),
    "INT8": ("i1", [-128, -1, 127, 7]), "INT16": ("<i2", [-2**15, -1, 2**15 - 1, 7]),
    "INT32": ("<i4", [-2**31, -1, 2**31 - 1, 7]), "INT64": ("<i8", [-2**63, -1, 2**63 - 1, 7]),
    "FP16": ("<f2", [-65504, 0.5, np.inf, 7]), "FP32": ("<f4", [-3.4e38, 0.5, np.inf, 7]),
    "FP64": ("<f8", [-1.7e308, 0.5, np.inf, 7]),
    "STRING": ("object", [b"", b"one", b"with \0 inside", "\u00e4".encode()]),
}
CLASS_TYPES = [t for t in TYPES if t not in ("BOOL", "FP16", "STRING")]


# ---- The client ----

class ClientError(Exception):
    """What tensorrtserver's InferenceServerException said."""

    def __init__(self, message, server_id, request_id):
        super().__init__(message)
        self.message, self.server_id, self.request_id = message, server_id, request_id


class Client:
    def __init__(self):
        python = VENV / "bin/python"
        assert python.exists(), f"{python} is missing: run scripts/venvs venv-v1"
        self.process = subprocess.Popen(
            [python, HERE / "v1_client.py"], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "LD_LIBRARY_PATH": str(VENV / "lib-openssl11")})

    def call(self, do, **arguments):
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        timer = threading.Timer(DEADLINE_S, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        assert line, f"the client ended or hung in {do}; its exit status is {self.process.wait()}"
        answer = json.loads(line)
        if "error" in answer:
            raise ClientError(**answer["error"])
        return answer["ok"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(DEADLINE_S)


@pytest.fixture(scope="module")
def client():
    client = Client()
    yield client
    client.close()


# ---- The server ----

def write_models(folder):
    """The examples, and a model for each thing that they do not have."""
    for name in ("simple", "simple_string", "simple_identity"):
        (folder / name).symlink_to((MODELS / name).resolve())
    for name in TYPES:
        add_model(folder, f"type_{name}", identity(name, [4], 8))
    add_model(folder, "variable", identity("FP32", [-1, 3], 4))
    add_model(folder, "batching", identity(
        "INT32", [2], 4, extra="dynamic_batching { preferred_batch_size: [ 4 ] "
                               "max_queue_delay_microseconds: 20000000 }"))
    add_model(folder, "single", identity("INT32", [2, 2]))
    add_model(folder, "scalar", config(
        "identity", [tensor("INPUT0", "INT64", [1], "reshape { shape: [] }")],
        [tensor("OUTPUT0", "INT64", [1], "reshape { shape: [] }")], 4))
    add_model(folder, "versions", config("onnxruntime", *pairs("INT32", [4], 2), 4,
                                         "version_policy { specific { versions: [ 1, 3 ] } }"),
              (1, 2, 3), onnx_models.add_sub("INT32", [None, 4]))
    add_model(folder, "squares", config("onnxruntime", *pairs("INT64", [2]), 4), (1,),
              onnx_models.lookup([None, 2]))
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORRT_SERVER_VERSION", VERSION)
        server = Server(write_models(tmp_path_factory.mktemp("models")))
    with server:
        yield server


@pytest.fixture(params=["http", "grpc", "stream"])
def call(request, client, server):
    """stream: over gRPC, and inference by StreamInfer."""
    protocol = "http" if request.param == "http" else "grpc"
    url = server.url if protocol == "http" else server.grpc_url

    def call(do, **arguments):
        if do == "infer":
            arguments["streaming"] = request.param == "stream"
        return client.call(do, url=url, protocol=protocol, **arguments)
    return call


# ---- Arrays ----

def encode(array):
    if array.dtype == object:
        return {"type": "object", "shape": array.shape,
                "data": [base64.b64encode(item).decode() for item in array.flatten()]}
    return {"type": array.dtype.str, "shape": array.shape,
            "data": base64.b64encode(array.tobytes()).decode()}


def decode(value):
    if value["type"] == "object":
        items = np.empty(len(value["data"]), dtype=object)
        items[:] = [base64.b64decode(item) for item in value["data"]]
        return items.reshape(value["shape"])
    data = np.frombuffer(base64.b64decode(value["data"]), dtype=value["type"])
    return data.reshape(value["shape"])


def batch_of(arrays):
    return [encode(array) for array in arrays]


def make(dtype, values):
    array = np.empty(len(values), dtype=dtype)
    array[:] = values
    return array


def equal(value, array):
    got = decode(value)
    return got.dtype == array.dtype and got.shape == array.shape and (got == array).all()


def failure(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call("infer", **arguments)
    assert caught.value.server_id == "inference:0"
    assert caught.value.request_id > 0
    return caught.value.message


ROW = encode(np.arange(16, dtype=np.int32))
TWO = {"INPUT0": [ROW], "INPUT1": [ROW]}
RAW = {"OUTPUT0": None}


# ---- Health and status ----

def test_health(call):
    assert call("health") == {"live": True, "ready": True}


def test_status_of_the_server(call):
    """id, version, state; uptime and the counters of questions grow."""
    first = call("status")
    call("health")
    second = call("status")
    assert first["id"] == "inference:0"
    assert first["version"] == VERSION
    assert first["ready_state"] == "SERVER_READY"
    assert int(second["uptime_ns"]) > int(first["uptime_ns"]) > 0
    assert second["request_id"] > first["request_id"] > 0

    def count(status, kind):
        return int(status[kind]["success"]["count"])
    assert count(second, "status_stats") == count(first, "status_stats") + 1
    assert count(second, "health_stats") == count(first, "health_stats") + 2


def test_status_of_all_models(call):
    """Every model is there, with the versions that its policy chooses, and ready. MODEL_UNKNOWN are
    versions that other tests have asked for in vain."""
    models = call("status")["model_status"]
    assert {"simple", "simple_string", "variable", *(f"type_{t}" for t in TYPES)} <= set(models)
    states = {name: {number: v["ready_state"] for number, v in model["version_status"].items()
                     if v["ready_state"] != "MODEL_UNKNOWN"} for name, model in models.items()}
    assert set(states["versions"]) == {"1", "3"}
    assert {state for model in states.values() for state in model.values()} == {"MODEL_READY"}


def test_status_of_one_model(call):
    """The configuration comes with what was left out filled in."""
    models = call("status", model="simple")["model_status"]
    assert list(models) == ["simple"]
    found = models["simple"]["config"]
    assert (found["name"], found["platform"]) == ("simple", "onnxruntime_onnx")
    assert found["max_batch_size"] == 8
    assert found["default_model_filename"] == "model.onnx"
    assert found["version_policy"] == {"latest": {"num_versions": 1}}
    assert [(i["name"], i["data_type"], i["dims"]) for i in found["input"]] == \
        [("INPUT0", "TYPE_INT32", ["16"]), ("INPUT1", "TYPE_INT32", ["16"])]
    assert [(o["name"], o["label_filename"]) for o in found["output"]] == \
        [("OUTPUT0", "output0_labels.txt"), ("OUTPUT1", "")]
    group, = found["instance_group"]
    assert group["name"] and group["count"] == 1 and group["kind"] == "KIND_CPU"


@pytest.mark.parametrize("element", TYPES)
def test_status_types(call, element):
    """Each type by its name of the old enumeration."""
    found = call("status", model=f"type_{element}")["model_status"][f"type_{element}"]["config"]
    assert found["input"][0]["data_type"] == found["output"][0]["data_type"] == f"TYPE_{element}"


def test_status_of_an_unknown_model(call):
    with pytest.raises(ClientError) as caught:
        call("status", model="nobody")
    assert caught.value.message == "no status available for unknown model 'nobody'"
    assert caught.value.server_id == "inference:0"
    assert caught.value.request_id > 0


def test_repository_index(call):
    """Every model by its name."""
    assert {"name": "simple"} in call("repository")["models"]
    assert len(call("repository")["models"]) == len(call("status")["model_status"])


@pytest.mark.parametrize("load", [True, False], ids=["load", "unload"])
def test_model_control(call, load):
    with pytest.raises(ClientError) as caught:
        call("control", model="simple", load=load)
    assert caught.value.message == \
        "explicit model load / unload is not allowed if polling is enabled"
    assert caught.value.server_id == "inference:0"
    assert caught.value.request_id > 0


def test_statistics(call):
    """Requests are counted under their batch size, batch entries and executions beside them, and
    what fails is counted as failed."""
    def read():
        model = call("status", model="type_INT8")["model_status"]["type_INT8"]
        return model["version_status"]["1"]

    row = encode(make("i1", [1, 2, 3, 4]))
    before = read()
    for size, count in ((1, 3), (5, 2)):
        call("infer", model="type_INT8", inputs={"INPUT0": [row] * size}, outputs=RAW,
             batch_size=size, count=count)
    failure(call, model="type_INT8", inputs={"INPUT0": [row] * 2}, outputs={"OUTPUT0": None},
            batch_size=2, version=7)
    after = read()

    assert int(after["model_inference_count"]) - int(before["model_inference_count"]) == 13
    assert int(after["model_execution_count"]) - int(before["model_execution_count"]) == 5
    assert int(after["last_inference_timestamp_milliseconds"]) > 1_600_000_000_000
    assert "2" not in after["infer_stats"]  # another version's
    for size, count in (("1", 3), ("5", 2)):
        stats = after["infer_stats"][size]
        seen = before["infer_stats"].get(size, {}).get("success", {}).get("count", 0)
        assert int(stats["success"]["count"]) == int(seen) + count
        assert int(stats["compute"]["count"]) == int(stats["queue"]["count"]) == int(seen) + count
        assert int(stats["failed"]["count"]) == 0
        assert int(stats["success"]["total_time_ns"]) >= int(stats["compute"]["total_time_ns"]) > 0


def test_statistics_of_absent_versions(call):
    """What asks for a version that is not there has failed under that version, which is unknown
    otherwise, and under its batch size."""
    def read(number):
        versions = call("status", model="type_UINT8")["model_status"]["type_UINT8"]["version_status"]
        found = versions.get(number, {})
        assert not found or found["ready_state"] == ("MODEL_READY" if number == "1"
                                                     else "MODEL_UNKNOWN")
        return {size: int(s["failed"]["count"]) for size, s in found.get("infer_stats", {}).items()}

    row = encode(make("u1", [1, 2, 3, 4]))
    before, ready = read("7"), read("1")
    for size in (1, 2, 2):
        failure(call, model="type_UINT8", inputs={"INPUT0": [row] * size}, outputs=RAW,
                batch_size=size, version=7)
    assert {size: n - before.get(size, 0) for size, n in read("7").items()} == {"1": 1, "2": 2}
    assert read("1") == ready


def test_statistics_of_a_batch(call):
    """Four requests that run together: each has its own times, under its own batch size, and the
    execution counts once."""
    def read():
        model = call("status", model="batching")["model_status"]["batching"]
        return model["version_status"]["1"]

    def count(status, part):
        return int(status["infer_stats"].get("1", {}).get(part, {}).get("count", 0))

    before = read()
    call("infer", model="batching", inputs={"INPUT0": [encode(make("i4", [1, 2]))]}, outputs=RAW,
         is_async=True, count=4)
    after = read()
    assert int(after["model_inference_count"]) - int(before["model_inference_count"]) == 4
    assert int(after["model_execution_count"]) - int(before["model_execution_count"]) == 1
    assert "4" not in after["infer_stats"]
    assert [count(after, part) - count(before, part)
            for part in ("success", "failed", "compute", "queue")] == [4, 0, 4, 4]


def test_statistics_of_failures(call):
    """A request that the engine fails, alone and in a batch."""
    def read():
        model = call("status", model="squares")["model_status"]["squares"]
        stats = model["version_status"]["1"]["infer_stats"]
        return [int(stats.get(size, {}).get(kind, {}).get("count", 0))
                for kind in ("failed", "success") for size in ("1", "3")]

    bad = encode(np.array([1, 99], dtype=np.int64))
    before = read()
    failure(call, model="squares", inputs={"INPUT0": [bad]}, outputs=RAW)
    with pytest.raises(ClientError):
        call("infer", model="squares", outputs=RAW, batch_size=3, inputs={
            "INPUT0": [encode(np.zeros(2, dtype=np.int64))] * 2 + [bad]})
    assert [b - a for a, b in zip(before, read(), strict=True)] == [1, 1, 0, 0]


# ---- Inference ----

@pytest.mark.parametrize("batch_size", range(1, 9))
def test_simple(call, batch_size):
    """Sum and difference, at every batch size that the model takes."""
    a = [np.arange(16, dtype=np.int32) * (k + 1) for k in range(batch_size)]
    b = [np.full(16, k - 3, dtype=np.int32) for k in range(batch_size)]
    got = call("infer", model="simple", batch_size=batch_size,
               inputs={"INPUT0": batch_of(a), "INPUT1": batch_of(b)},
               outputs={"OUTPUT0": None, "OUTPUT1": None})
    result, = got["results"]
    assert len(result["OUTPUT0"]) == len(result["OUTPUT1"]) == batch_size
    for k in range(batch_size):
        assert equal(result["OUTPUT0"][k], a[k] + b[k])
        assert equal(result["OUTPUT1"][k], a[k] - b[k])
    assert (got["model"], got["version"]) == ("simple", 1)
    assert got["request_id"] > 0


@pytest.mark.parametrize("batch_size", [1, 8])
def test_simple_string(call, batch_size):
    a = [[str(k + i).encode() for i in range(16)] for k in range(batch_size)]
    b = [[b"1"] * 16] * batch_size
    result, = call("infer", model="simple_string", batch_size=batch_size,
                   inputs={"INPUT0": [encode(make(object, row)) for row in a],
                           "INPUT1": [encode(make(object, row)) for row in b]},
                   outputs={"OUTPUT0": None, "OUTPUT1": None})["results"]
    for k in range(batch_size):
        assert equal(result["OUTPUT0"][k], make(object, [str(k + i + 1).encode()
                                                         for i in range(16)]))
        assert equal(result["OUTPUT1"][k], make(object, [str(k + i - 1).encode()
                                                         for i in range(16)]))


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("element", TYPES)
def test_types(call, element, batch_size):
    """What goes in comes out, whatever its type."""
    rows = [make(*TYPES[element]) for _ in range(batch_size)]
    for k, row in enumerate(rows):
        row[3] = row[k % 3]
    result, = call("infer", model=f"type_{element}", inputs={"INPUT0": batch_of(rows)},
                   outputs=RAW, batch_size=batch_size)["results"]
    assert all(equal(*both) for both in zip(result["OUTPUT0"], rows, strict=True))


@pytest.mark.parametrize("element", CLASS_TYPES)
def test_classes_of_types(call, element):
    """The k largest by the type's own order, values as floats, equal ones by index."""
    row = make(*TYPES[element])
    row[1] = row[3]
    order = sorted(range(4), key=lambda i: (-float(row[i]), i))
    result, = call("infer", model=f"type_{element}", inputs={"INPUT0": [encode(row)]},
                   outputs={"OUTPUT0": 3})["results"]
    assert [(i, v) for i, v, _ in result["OUTPUT0"][0]] == \
        [(i, float(np.float32(row[i]))) for i in order[:3]]
    assert not any(label for _, _, label in result["OUTPUT0"][0])


@pytest.mark.parametrize("element", ["BOOL", "FP16", "STRING"])
def test_types_without_classes(call, element):
    assert failure(call, model=f"type_{element}", outputs={"OUTPUT0": 1},
                   inputs={"INPUT0": [encode(make(*TYPES[element]))]}) == \
        f"class result not available for output 'OUTPUT0' due to unsupported type 'TYPE_{element}'"


def test_classes_with_labels(call):
    """A class output and a raw one in the same request, for each batch entry; k above the number of
    elements gives them all."""
    labels = (MODELS / "simple/output0_labels.txt").read_text().splitlines()
    a = [np.arange(16, dtype=np.int32), np.arange(16, 0, -1, dtype=np.int32)]
    inputs = {"INPUT0": batch_of(a), "INPUT1": [ROW, ROW]}
    result, = call("infer", model="simple", batch_size=2, inputs=inputs,
                   outputs={"OUTPUT0": 2, "OUTPUT1": None})["results"]
    assert result["OUTPUT0"] == [[[15, 30.0, labels[15]], [14, 28.0, labels[14]]],
                                 [[0, 16.0, labels[0]], [1, 16.0, labels[1]]]]
    assert equal(result["OUTPUT1"][1], a[1] - np.arange(16, dtype=np.int32))

    result, = call("infer", model="simple", batch_size=2, inputs=inputs,
                   outputs={"OUTPUT0": 100})["results"]
    assert [len(entry) for entry in result["OUTPUT0"]] == [16, 16]


@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_variable_dims(call, rows):
    """A dimension of -1 takes the size of the array, for all batch entries."""
    entries = [np.random.default_rng(k).random((rows, 3), dtype=np.float32) for k in range(2)]
    result, = call("infer", model="variable", inputs={"INPUT0": batch_of(entries)},
                   outputs=RAW, batch_size=2)["results"]
    assert all(equal(*both) for both in zip(result["OUTPUT0"], entries, strict=True))


def test_variable_strings(call):
    entries = [make(object, [b"a", b"bc"]), make(object, [b"", b"longer than the others"])]
    result, = call("infer", model="simple_identity", inputs={"INPUT0": batch_of(entries)},
                   outputs=RAW, batch_size=2)["results"]
    assert all(equal(*both) for both in zip(result["OUTPUT0"], entries, strict=True))


def test_no_batching(call):
    """max_batch_size 0: the array is the whole tensor."""
    array = np.array([[1, 2], [3, 4]], dtype=np.int32)
    result, = call("infer", model="single", inputs={"INPUT0": [encode(array)]},
                   outputs=RAW)["results"]
    assert equal(result["OUTPUT0"][0], array)


def test_reshape(call):
    """A batch of numbers whose dims [1] are [] for the model."""
    entries = [np.array([k], dtype=np.int64) for k in (7, 8, 9)]
    result, = call("infer", model="scalar", inputs={"INPUT0": batch_of(entries)}, outputs=RAW,
                   batch_size=3)["results"]
    assert all(equal(*both) for both in zip(result["OUTPUT0"], entries, strict=True))


def test_versions(call):
    """The latest when none is named; else the one that is."""
    row = encode(np.arange(4, dtype=np.int32))
    arguments = {"model": "versions", "inputs": {"INPUT0": [row], "INPUT1": [row]}, "outputs": RAW}
    for version, want in ((None, 3), (1, 1), (3, 3)):
        assert call("infer", **arguments, version=version)["version"] == want
    assert failure(call, **arguments, version=2) == \
        "Inference request for unknown model 'versions'"


def test_many_on_one_context(call):
    """A context keeps its connection; every result has a higher request number."""
    got = call("infer", model="simple", inputs=TWO, outputs=RAW, count=50)
    assert len(got["results"]) == got["completed"] == 50


def test_async(call):
    """Twenty at once, RAW and CLASS."""
    got = call("infer", model="simple", inputs=TWO, is_async=True, count=20,
               outputs={"OUTPUT0": None, "OUTPUT1": 1})
    assert len(got["results"]) == got["completed"] == 20
    for result in got["results"]:
        assert equal(result["OUTPUT0"][0], 2 * np.arange(16, dtype=np.int32))
        assert result["OUTPUT1"] == [[[0, 0.0, ""]]]


def test_correlation_id_and_flags(call):
    """Harmless for a model without sequences."""
    got = call("infer", model="simple", inputs=TWO, outputs=RAW, corr_id=42, flags=3)
    assert equal(got["results"][0]["OUTPUT0"][0], 2 * np.arange(16, dtype=np.int32))


def test_large_tensor(call):
    """12 MB there and back."""
    array = np.random.default_rng(1).random((1 << 20, 3), dtype=np.float32)
    result, = call("infer", model="variable", inputs={"INPUT0": [encode(array)]},
                   outputs=RAW)["results"]
    assert equal(result["OUTPUT0"][0], array)


# ---- Errors ----

def test_unknown_model(call):
    """The client asks for the model's status first, and that is where it fails."""
    assert failure(call, model="nobody", inputs=TWO, outputs=RAW) == \
        "no status available for unknown model 'nobody'"


def test_unknown_version(call):
    assert failure(call, model="simple", version=2, inputs=TWO, outputs=RAW) == \
        "Inference request for unknown model 'simple'"


def test_engine_failure(call):
    """The engine's own words, after its request was accepted."""
    assert "Gather" in failure(call, model="squares", outputs=RAW, inputs={
        "INPUT0": [encode(np.array([1, 10], dtype=np.int64))]})


# What the client refuses by itself, without asking the server: it read the configuration.
# (Without one of the inputs it crashes over gRPC.)
@pytest.mark.parametrize("text, arguments", [
    ("batch", {"batch_size": 9, "inputs": {name: [ROW] * 9 for name in TWO}}),
    ("OUTPUT9", {"outputs": {"OUTPUT9": None}}),
    ("INPUT9", {"inputs": {"INPUT9": [ROW]}}),
], ids=["batch", "output", "input"])
def test_client_side_errors(call, text, arguments):
    with pytest.raises(ClientError, match=text):
        call("infer", **{"model": "simple", "inputs": TWO, "outputs": RAW, **arguments})


def test_client_side_input_missing(client, server):
    with pytest.raises(ClientError, match="INPUT1"):
        client.call("infer", url=server.url, protocol="http", model="simple", outputs=RAW,
                    inputs={"INPUT0": [ROW]})


def test_wrong_shape(call):
    """17 elements instead of 16; the server's word reaches the user."""
    row = encode(np.arange(17, dtype=np.int32))
    with pytest.raises(ClientError, match="shape|size") as caught:
        call("infer", model="simple", inputs={"INPUT0": [row], "INPUT1": [row]}, outputs=RAW)
    assert "INPUT0" in caught.value.message
