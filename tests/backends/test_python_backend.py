"""Triton's python backend, unmodified, in our server: everything a Python model can do.

The models are the files of tests/backends/python; python_backend.py here says what is needed. One
server has all the models that live together; those that are broken at loading, and those whose
process is killed, have servers of their own.
"""
import contextlib
import http.client
import json
import os
import signal

import pytest

np = pytest.importorskip("numpy")

from python_backend import (HERE, SEEN, SHM, add_python_model, ask, make_backends,  # noqa: E402
                            needs_python_backend, parameter, regions, start, stubs,
                            text_of)
from server import (STOP_SECONDS_MAX, add_model, config, connect, identity,  # noqa: E402
                    infer_message, json_input, onnx_models, pairs, tensor,
                    wait_for)

pytestmark = needs_python_backend

NUMBERS = {"UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "INT8": "i1",
           "INT16": "i2", "INT32": "i4", "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8"}
TYPES = ["BOOL", *NUMBERS, "BYTES"]
CALL = [("CALL", "BYTES", [1])]
PREFIX = f"tis_test_{os.getpid()}_"


def raising(where):
    return config("python", *pairs("INT32", [1]), extra=parameter("where", where))


@pytest.fixture(scope="module")
def backends(tmp_path_factory):
    return make_backends(tmp_path_factory.mktemp("backends"))


def stop_all(one, models, prefix):
    """Ends the server. After requests that failed in Python the library sometimes forgets to delete the
    response factory of one that is answered, and so keeps the model, in Triton too."""
    one.signal()
    status = one.wait_exit()
    if status == 0:
        one.wait_log("broken in finalize")
        return
    unloaded = {line.partition("successfully unloaded model=")[2].split()[0]
                for line in one.stderr_lines if "successfully unloaded model=" in line}
    loaded = {entry.name for entry in models.iterdir()}
    assert (status, loaded - unloaded) == (1, {"raising"}), one.log()
    for name in regions(prefix):
        (SHM / name).unlink()
    pytest.skip("libtriton_python.so kept a response factory of an answered request, as in Triton")


@pytest.fixture(scope="module")
def server(tmp_path_factory, backends):
    models = tmp_path_factory.mktemp("models")
    add_python_model(models, "every_type", "every_type", text_of(
        [(f"IN_{t}", t, [-1]) for t in TYPES], [(f"OUT_{t}", t, [-1]) for t in TYPES], batch=4))
    add_python_model(models, "complete_all", "complete")  # no config.pbtxt at all
    add_python_model(models, "complete_part", "complete", 'backend: "python"\ninput '
                     '[ { name: "A" data_type: TYPE_FP32 dims: [ -1 ] } ]\n')
    add_python_model(models, "count", "count", text_of(
        [("COUNT", "INT32", [1])], [("NUMBER", "INT32", [1])],
        extra="model_transaction_policy { decoupled: true }"))
    add_python_model(models, "describe", "describe", text_of(
        [("X", "INT32", [1])], [SEEN, ("UNUSED", "INT32", [1])]))
    add_python_model(models, "caller", "call",
                     text_of(CALL, [SEEN], extra="instance_group { count: 2 }"))
    add_python_model(models, "caller_async", "call_async", text_of(CALL, [SEEN]))
    add_python_model(models, "wait", "wait", text_of([("X", "INT32", [1])], [SEEN]))
    add_python_model(models, "raising", "raising", raising("finalize"))
    add_model(models, "copy", identity("INT32", [-1]))
    add_model(models, "add", config("onnxruntime", *pairs("INT32", [2], 2), batch=8),
              onnx=onnx_models.add_sub("INT32", [None, 2]))
    prefix = PREFIX + "main_"
    with start(models, backends, prefix) as one:
        yield one
        processes = stubs(one)
        assert processes
        stop_all(one, models, prefix)
    assert regions(prefix) == []
    # A child that the server left behind would live on under another parent.
    assert [pid for pid in processes if os.path.exists(f"/proc/{pid}")] == []


def infer_x(server, model, **more):
    return server.infer(model, {"inputs": [json_input("X", "INT32", [1], [1])], **more})


# ---- Numpy models ----

def array_of(datatype, rows, columns):
    if datatype == "BYTES":
        words = [b"", b"a\0b", "\u00e4\u00f6".encode(), b"\xff\xfe", b"x" * 300]
        flat = [words[i % len(words)] for i in range(rows * columns)]
        return np.array(flat, np.object_).reshape(rows, columns)
    flat = np.arange(rows * columns)
    return (flat % 3 == 0 if datatype == "BOOL" else flat % 50).astype(
        NUMBERS.get(datatype, "?")).reshape(rows, columns)


def changed(array):
    if array.dtype == np.object_:
        return np.array([text[::-1] for text in array.flat], np.object_).reshape(array.shape)
    return ~array if array.dtype == np.bool_ else array + array


@pytest.mark.parametrize("rows,columns", [(1, 1), (4, 5), (2, 3000), (2, 0)])
def test_every_type_goes_in_and_out(server, rows, columns):
    client_module = pytest.importorskip("tritonclient.http")
    sent = {t: array_of(t, rows, columns) for t in TYPES}
    inputs = []
    for datatype, array in sent.items():
        inputs.append(client_module.InferInput(f"IN_{datatype}", [rows, columns], datatype))
        inputs[-1].set_data_from_numpy(array)
    with client_module.InferenceServerClient(server.url) as client:
        result = client.infer("every_type", inputs)
    for datatype, array in sent.items():
        got = result.as_numpy(f"OUT_{datatype}")
        assert got.shape == array.shape and np.array_equal(got, changed(array)), datatype


def test_batch_beyond_the_limit_is_refused(server):
    answer = server.infer("complete_all", {"inputs": [
        json_input(name, "FP32", [5, 1], [0] * 5) for name in "AB"]})
    assert answer.status == 400 and "batch" in answer.error


# ---- auto_complete_config ----

@pytest.mark.parametrize("name", ["complete_all", "complete_part"])
def test_model_completes_its_configuration(server, name):
    answer = server.get(f"/v2/models/{name}/config")
    assert answer.status == 200, answer
    found = answer.json()
    assert (found["max_batch_size"], "dynamic_batching" in found) == (4, True)
    assert [(t["name"], t["data_type"], [int(d) for d in t["dims"]])
            for t in found["input"] + found["output"]] == [
                ("A", "TYPE_FP32", [-1]), ("B", "TYPE_FP32", [-1]), ("SUM", "TYPE_FP32", [-1])]
    answer = server.infer(name, {"inputs": [
        json_input("A", "FP32", [2, 2], [1, 2, 3, 4]), json_input("B", "FP32", [2, 2], [1, 1, 1, 1])]})
    assert answer.json()["outputs"][0]["data"] == [2, 3, 4, 5]


# ---- What a model sees and says ----

def test_model_sees_its_request(server):
    answer = infer_x(server, "describe", id="r7", outputs=[{"name": "SEEN"}], parameters={
        "sequence_id": 42, "timeout": 5000000, "word": "w", "count": 3, "on": True, "share": 0.5})
    assert answer.status == 200, answer
    seen = json.loads(answer.json()["outputs"][0]["data"][0])
    assert (seen["id"], seen["correlation_id"], seen["timeout"]) == ("r7", 42, 5000000)
    assert (seen["outputs"], seen["cancelled"], seen["context"]) == (["SEEN"], False, None)
    assert {"word": "w", "count": 3, "on": True, "share": 0.5}.items() <= seen["parameters"].items()
    assert seen["args"]["model_name"] == "describe" and seen["args"]["model_version"] == "1"
    assert seen["args"]["model_instance_kind"] == "CPU"
    assert seen["args"]["model_repository"].endswith("/describe")


def test_correlation_id_may_be_text(server):
    answer = infer_x(server, "describe", outputs=[{"name": "SEEN"}],
                     parameters={"sequence_id": "green"})
    assert json.loads(answer.json()["outputs"][0]["data"][0])["correlation_id"] == "green"


def test_model_logs_through_the_server(server):
    infer_x(server, "describe", id="r9", outputs=[{"name": "SEEN"}])
    for letter, word in zip("IWE", ("info", "warning", "error")):
        line = server.wait_log(f"{word} of r9")
        assert line[0] == letter and "model.py" in line, line


def test_model_notices_a_cancelled_request(server):
    message = infer_message("wait", {"inputs": [json_input("X", "INT32", [1], [1])]})
    with connect(server.port) as s:
        s.sendall(message)
        server.wait_log("waiting")
    server.wait_log("cancelled: True")


# ---- Decoupled ----

def test_decoupled_model_is_not_for_plain_inference(server):
    answer = server.infer("count", {"inputs": [json_input("COUNT", "INT32", [1], [3])]})
    assert answer.status == 501
    assert answer.error == "HTTP end point doesn't support models with decoupled transaction policy"


def numbers(server, count):
    return ask(server, "caller", {"model": "count", "how": "decoupled", "inputs": {"COUNT": [count]},
                                  "outputs": ["NUMBER"]})


@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_decoupled_responses_arrive_in_order(server, count):
    got = [answer["outputs"] for answer in numbers(server, count)]
    assert got == [*({"NUMBER": [i]} for i in range(count)), {}]  # the end is a response of its own


def test_decoupled_model_called_for_one_response(server):
    seen = ask(server, "caller", {"model": "count", "inputs": {"COUNT": [1]}, "outputs": ["NUMBER"]})
    assert "using the decoupled transaction policy" in seen["error"]


# ---- Calling other models ----

def test_call_of_an_onnx_model(server):
    seen = ask(server, "caller", {"model": "add", "outputs": ["OUTPUT0"], "inputs": {
        "INPUT0": [[1, 2], [3, 4]], "INPUT1": [[1, 1], [1, 1]]}})
    assert seen == {"outputs": {"OUTPUT0": [[2, 3], [4, 5]]}}


@pytest.mark.parametrize("size", [1, 100000])
def test_call_of_our_identity(server, size):
    seen = ask(server, "caller", {"model": "copy", "outputs": ["OUTPUT0"],
                                  "inputs": {"INPUT0": [7] * size}})
    assert seen["outputs"] == {"OUTPUT0": [7] * size}


def test_call_of_a_python_model_with_all_its_details(server):
    seen = ask(server, "caller", {
        "model": "describe", "outputs": ["SEEN"], "inputs": {"X": [1]},
        "more": {"request_id": "inner", "correlation_id": "blue", "timeout": 9000000,
                 "parameters": {"word": "w", "count": 3, "on": True}}})
    inner = json.loads(seen["outputs"]["SEEN"][0])
    assert (inner["id"], inner["correlation_id"]) == ("inner", "blue")
    assert inner["timeout"] == 9000000
    assert {"word": "w", "count": 3, "on": True}.items() <= inner["parameters"].items()


def test_model_calls_itself(server):
    """On its second instance: the first waits for it."""
    inner = {"model": "copy", "outputs": ["OUTPUT0"], "inputs": {"INPUT0": [1]}}
    assert ask(server, "caller", inner)["outputs"] == {"OUTPUT0": [1]}


def test_calls_side_by_side(server):
    calls = [{"model": "copy", "outputs": ["OUTPUT0"], "inputs": {"INPUT0": [i]}} for i in range(20)]
    calls.append({"model": "nobody", "outputs": ["OUTPUT0"], "inputs": {"INPUT0": [1]}})
    seen = ask(server, "caller_async", calls)
    assert seen[:20] == [{"OUTPUT0": [i]} for i in range(20)]
    assert "nobody" in seen[20]["error"]


@pytest.mark.parametrize("change,words", [
    ({"model": "nobody"}, "Model 'nobody' is not ready"),
    ({"inputs": {"INPUT7": [1]}}, "INPUT7"),
    ({"inputs": {"INPUT0": [[1], [2]]}}, "shape"),
    ({"outputs": ["OUTPUT7"]}, "OUTPUT7"),
    ({"more": {"model_version": 9}}, "not ready"),
])
def test_call_that_is_wrong_gets_an_error(server, change, words):
    good = {"model": "copy", "outputs": ["OUTPUT0"], "inputs": {"INPUT0": [1]}}
    seen = ask(server, "caller", {**good, **change})
    assert words in seen.get("error", "") + seen.get("raised", ""), seen
    assert ask(server, "caller", good)["outputs"] == {"OUTPUT0": [1]}


def test_error_of_the_called_model_arrives(server):
    seen = ask(server, "caller", {"model": "raising", "outputs": ["OUTPUT0"],
                                  "inputs": {"INPUT0": [1]}, "more": {"request_id": "error"}})
    assert seen == {"error": "an orderly error", "code": 1}


def test_model_asks_for_readiness(server):
    assert ask(server, "caller", {"ready": "copy"}) is True
    assert ask(server, "caller", {"ready": "nobody"}) is False


# ---- What often makes the library abort ----

@contextlib.contextmanager
def fragile(models, backends, suffix):
    """A server that may die; it leaves nothing behind."""
    one = start(models, backends, PREFIX + suffix)
    try:
        yield one
    finally:
        one.kill()
        for name in regions(PREFIX + suffix):
            (SHM / name).unlink()


def ask_fragile(one, model, call):
    """Like ask(). The library aborts the process in about every second answer of these, in Triton
    too: it returns from a wait on a mutex in memory that the model's process has freed."""
    try:
        return ask(one, model, call)
    except (ConnectionError, http.client.RemoteDisconnected):
        one.process.wait(STOP_SECONDS_MAX)
        one.wait_log("boost::interprocess::lock_exception")
        pytest.skip("libtriton_python.so aborted by its own race, as it does in Triton")


def test_metrics_of_a_model(tmp_path, backends):
    add_python_model(tmp_path, "meter", "meter", text_of(CALL, [SEEN]))
    with fragile(tmp_path, backends, "meter_") as one:
        seen = ask_fragile(one, "meter", {})
        assert (seen["counter"], seen["gauge"], seen["after"]) == (2.5, 4, 2.5)
        for wrong in ("decrement", "set", "observe", "read", "name", "buckets"):
            assert str(seen[wrong]).startswith("raised: "), (wrong, seen)
        assert "a counter: it cannot change by -1" in seen["decrement"]
        one.stop()


def test_model_cannot_load_others_yet(tmp_path, backends):
    add_python_model(tmp_path, "caller", "call", text_of(CALL, [SEEN]))
    with fragile(tmp_path, backends, "load_") as one:
        for what in ("load", "unload"):
            assert "not supported" in ask_fragile(one, "caller", {what: "copy"})["raised"]
        one.stop()


# ---- Broken models ----

def infer_raising(server, where):
    return server.infer("raising", {"inputs": [json_input("INPUT0", "INT32", [1], [1])], "id": where})


@pytest.mark.parametrize("where,status,words", [
    ("execute", 500, "ValueError: broken in execute"),
    ("error", 503, "an orderly error"),
    ("too_many", 500, "Number of InferenceResponse objects do not match"),
    ("wrong_thing", 500, "Expected an 'InferenceResponse' object"),
])
def test_execute_that_fails_answers_the_error(server, where, status, words):
    for _ in range(2):  # and the model goes on
        answer = infer_raising(server, where)
        assert answer.status == status and words in answer.error, answer
    assert server.is_live()


@pytest.mark.parametrize("where,types", [
    ("wrong_output", []), ("wrong_type", ["FP32"]), ("missing_output", []),
])
def test_wrong_outputs_are_what_the_client_gets(server, where, types):
    """As in Triton: the backend drops what nobody asked for, and says what it has."""
    answer = infer_raising(server, where)
    assert answer.status == 200
    assert [output["datatype"] for output in answer.json()["outputs"]] == types


def test_model_that_cannot_load_says_why(tmp_path, backends):
    broken = {
        "in_initialize": ("raising", raising("initialize"), "broken in initialize"),
        "in_complete": ("raising", raising("auto_complete_config"), "broken in auto_complete_config"),
        "other_shape": ("complete", 'backend: "python"\ninput '
                        '[ { name: "A" data_type: TYPE_INT32 dims: [ 3 ] } ]\n', "'A'"),
    }
    for name, (code, text, _) in broken.items():
        add_python_model(tmp_path, name, code, text)
    add_model(tmp_path, "syntax", raising("x"), files={"1/model.py": "def broken(:\n"})
    add_model(tmp_path, "no_class", raising("x"), files={"1/model.py": "x = 1\n"})
    add_model(tmp_path, "copy", identity("INT32", [-1]))
    broken.update(syntax=(0, 0, "SyntaxError"), no_class=(0, 0, "TritonPythonModel"))
    with start(tmp_path, backends, PREFIX + "bad_") as one:
        state = {row["name"]: row for row in one.index()}
        for name, (_, _, words) in broken.items():
            assert state[name]["state"] == "UNAVAILABLE" and words in state[name]["reason"], state[name]
        assert one.infer("copy", {"inputs": [json_input("INPUT0", "INT32", [1], [5])]}).status == 200
    assert regions(PREFIX + "bad_") == []


# ---- Backends written in Python ----

def test_backend_is_a_python_file(tmp_path, backends):
    """Two such backends and a plain model share the library; each finds its own code."""
    for name, code in (("adding", "complete"), ("telling", "describe")):
        (backends / name).mkdir()
        (backends / name / "model.py").write_text((HERE / "python" / f"{code}.py").read_text())
    for name in ("one", "two"):
        add_model(tmp_path, name, 'backend: "adding"')
    add_model(tmp_path, "three", config("telling", [tensor("X", "INT32", [1])], [tensor(*SEEN)]))
    add_python_model(tmp_path, "plain", "raising", raising("nowhere"))
    prefix = PREFIX + "based_"
    with start(tmp_path, backends, prefix) as one:
        for name in ("one", "two"):
            answer = one.infer(name, {"inputs": [
                json_input(tensor_name, "FP32", [1, 2], [1, 2]) for tensor_name in "AB"]})
            assert answer.json()["outputs"][0]["data"] == [2, 4]
        seen = json.loads(infer_x(one, "three").json()["outputs"][0]["data"][0])
        assert seen["args"]["model_repository"] == str(tmp_path / "three")
        assert one.infer("plain", {"inputs": [json_input("INPUT0", "INT32", [1], [1])]}).status == 200
        for name in ("adding", "telling", "python"):
            one.wait_log(f"backend loaded backend={name} ")
        assert len(regions(prefix)) == 4  # the settings of `python` are theirs too
    assert regions(prefix) == []


# ---- Processes ----

def test_killed_process_harms_its_model_only(tmp_path, backends):
    """Its model answers errors. The library waits for the dead one when it is to end, in Triton too,
    so the server ends by its exit timeout and leaves the dead one's memory behind."""
    add_python_model(tmp_path, "complete", "complete", 'backend: "python"')
    add_python_model(tmp_path, "caller", "call", text_of(CALL, [SEEN]))
    prefix = PREFIX + "killed_"
    body = {"inputs": [json_input(name, "FP32", [1, 1], [1]) for name in "AB"]}
    one = start(tmp_path, backends, prefix, "--exit-timeout-secs=3")
    try:
        assert one.infer("complete", body).status == 200
        victim, = stubs(one, "complete")
        os.kill(victim, signal.SIGKILL)
        for _ in range(2):
            answer = one.infer("complete", body)
            assert answer.status == 500
            assert answer.error == "Stub process 'complete_0_cpu' is not healthy."
        assert ask(one, "caller", {"ready": "caller"}) is True
        others = set(stubs(one)) - {victim}
        one.stop(status=1)
        one.wait_log("Exit timeout expired")
        wait_for("the end of the processes",
                 lambda: not any(os.path.exists(f"/proc/{pid}") for pid in others))
    finally:
        one.kill()
        for name in regions(prefix):
            (SHM / name).unlink()


def test_killed_server_takes_its_processes_along(tmp_path, backends):
    add_python_model(tmp_path, "complete", "complete", 'backend: "python"')
    prefix = PREFIX + "alone_"
    one = start(tmp_path, backends, prefix)
    orphans = stubs(one)
    one.kill()
    assert len(orphans) == 1
    wait_for("the end of the model's process",
             lambda: not any(os.path.exists(f"/proc/{pid}") for pid in orphans))
    wait_for("the end of its shared memory", lambda: regions(prefix) == [])
