"""The parameters of the onnxruntime backend, each with a model that needs or shows it: in our server,
with the real engine."""
import os
import pathlib
import struct
import sys

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).parent.parent / "clients"),
                str(pathlib.Path(__file__).parent.parent / "data")]
import onnx_models
from server import Server, add_model, config, json_input, parameter, tensor

FP32 = ([tensor("INPUT0", "FP32", [4])], [tensor("OUTPUT0", "FP32", [4])])


def add_one(repository, name, extra="", onnx=None):
    onnx = onnx or onnx_models.identity("FP32", [4])
    return add_model(repository, name, config("onnxruntime", *FP32, extra=extra), onnx=onnx)


def answer(server, model, values=(1.0, 2.0, 3.0, 4.0)):
    found = server.infer(model, {"inputs": [json_input("INPUT0", "FP32", [4], list(values))]})
    assert found.status == 200, found
    return found.json()["outputs"][0]["data"]


# Parameters whose effect does not show in an answer: the model must load and answer with them.
ACCEPTED = {
    "intra": parameter("intra_op_thread_count", 2),
    "inter": parameter("inter_op_thread_count", 2) + parameter("execution_mode", 1),
    "sequential": parameter("execution_mode", 0),
    "arena_off": parameter("enable_mem_arena", 0),
    "arena_on": parameter("enable_mem_arena", 1) + parameter("enable_mem_pattern", 1),
    "pattern_off": parameter("enable_mem_pattern", 0),
    "shrink": parameter("memory.enable_memory_arena_shrinkage", "cpu:0"),
    "session": parameter("session.set_denormal_as_zero", 1),
    "no_graph_work": "optimization { graph { level: -1 } }",
    "some_graph_work": "optimization { graph { level: 1 } }",
}


def test_accepted(tmp_path):
    for name, extra in ACCEPTED.items():
        add_one(tmp_path, name, extra)
    with Server(tmp_path) as server:
        for name in ACCEPTED:
            assert answer(server, name) == [1.0, 2.0, 3.0, 4.0], name


# ---- Threads of the engine ----

def threads_of(server):
    """(nice value, processors) of each of the server's threads."""
    found = []
    for task in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir():
        nice = int((task / "stat").read_text().rpartition(")")[2].split()[16])
        processors = next(line.split()[1] for line in (task / "status").read_text().splitlines()
                          if line.startswith("Cpus_allowed_list:"))
        found.append((nice, processors))
    return found


def test_threads_have_the_priority_of_their_instance(tmp_path):
    """Two instances of three threads each: theirs, and two that the engine makes."""
    add_one(tmp_path, "low", parameter("intra_op_thread_count", 3) +
            "optimization { priority: PRIORITY_MIN } instance_group { kind: KIND_CPU count: 2 }")
    with Server(tmp_path) as server:
        assert answer(server, "low") == [1.0, 2.0, 3.0, 4.0]
        assert [nice for nice, _ in threads_of(server)].count(19) == 6


def test_threads_have_the_processors_of_their_instance(tmp_path):
    one = min(os.sched_getaffinity(0))
    add_one(tmp_path, "bound", parameter("intra_op_thread_count", 3) +
            'instance_group { kind: KIND_CPU count: 1 host_policy: "narrow" }')
    with Server(tmp_path, f"--host-policy=narrow,cpu-cores={one}-{one}") as server:
        assert answer(server, "bound") == [1.0, 2.0, 3.0, 4.0]
        bound = [processors for _, processors in threads_of(server)].count(str(one))
        if len(os.sched_getaffinity(0)) > 1:
            assert bound == 3


def test_instances_without_threads_add_none(tmp_path):
    add_one(tmp_path, "four", "instance_group { kind: KIND_CPU count: 4 }")
    add_one(tmp_path, "three", "optimization { priority: PRIORITY_MIN } "
                               "instance_group { kind: KIND_CPU count: 3 }")
    with Server(tmp_path) as server:
        assert answer(server, "four") == answer(server, "three") == [1.0, 2.0, 3.0, 4.0]
        assert [nice for nice, _ in threads_of(server)].count(19) == 3


# A wrong value is refused at load, with the parameter and what would be right.
REFUSED = {
    "intra_word": (parameter("intra_op_thread_count", "many"), "intra_op_thread_count"),
    "inter_negative": (parameter("inter_op_thread_count", -1), "inter_op_thread_count"),
    "mode_7": (parameter("execution_mode", 7), "execution_mode"),
    "arena_2": (parameter("enable_mem_arena", 2), "enable_mem_arena"),
    "pattern_word": (parameter("enable_mem_pattern", "yes"), "enable_mem_pattern"),
}


def test_refused(tmp_path):
    for name, (extra, _) in REFUSED.items():
        add_one(tmp_path, name, extra)
    with Server(tmp_path, "--exit-on-error=false") as server:
        reasons = {entry["name"]: entry.get("reason", "") for entry in server.index()}
    for name, (_, word) in REFUSED.items():
        assert word in reasons[name] and "expected" in reasons[name], reasons[name]


def thread_count(repository, *flags):
    with Server(repository, *flags) as server:
        return len(os.listdir(f"/proc/{server.process.pid}/task"))


def test_threads_of_a_session(tmp_path):
    """intra_op_thread_count N: the session has N - 1 threads besides the caller's."""
    one = thread_count(add_one(tmp_path / "a", "m", parameter("intra_op_thread_count", 1)))
    four = thread_count(add_one(tmp_path / "b", "m", parameter("intra_op_thread_count", 4)))
    assert four - one == 3


def test_global_pool(tmp_path):
    """With the global pool two models share the threads that otherwise each would have."""
    for name in ("m", "n"):
        add_one(tmp_path / "two", name, parameter("intra_op_thread_count", 4))
    add_one(tmp_path / "one", "m", parameter("intra_op_thread_count", 4))
    pool = ("--backend-config=onnxruntime,enable-global-threadpool=1",
            "--backend-config=onnxruntime,intra_op_thread_count=4")
    instance = 1  # the second model's own thread
    assert thread_count(tmp_path / "two") - thread_count(tmp_path / "one") == instance + 3
    assert thread_count(tmp_path / "two", *pool) - thread_count(tmp_path / "one", *pool) == instance


def external(name, element, dims, location):
    """An initializer whose bytes lie in a file beside the model."""
    entry = onnx_models.field
    where = entry(1, "location") + entry(2, location)
    return (b"".join(entry(1, dim) for dim in dims) + entry(2, onnx_models.ELEMENTS[element])
            + entry(8, name) + entry(13, where) + entry(14, 1))


def add_bias(bias):
    """OUTPUT0 = INPUT0 + BIAS."""
    return onnx_models.model([onnx_models.node("Add", ["INPUT0", "BIAS"], ["OUTPUT0"])],
                             [("INPUT0", "FP32", [4])], [("OUTPUT0", "FP32", [4])], [bias])


def test_external_data(tmp_path):
    add_one(tmp_path, "beside", onnx=add_bias(external("BIAS", "FP32", [4], "weights.bin")))
    (tmp_path / "beside/1/weights.bin").write_bytes(struct.pack("<4f", 10, 20, 30, 40))
    with Server(tmp_path) as server:
        assert answer(server, "beside") == [11.0, 22.0, 33.0, 44.0]


def test_model_in_a_directory(tmp_path):
    """model.onnx may be a directory that holds model.onnx and the files that it names."""
    add_model(tmp_path, "inside", config("onnxruntime", *FP32))
    folder = tmp_path / "inside/1/model.onnx"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(add_bias(external("BIAS", "FP32", [4], "weights.bin")))
    (folder / "weights.bin").write_bytes(struct.pack("<4f", 1, 1, 1, 1))
    with Server(tmp_path) as server:
        assert answer(server, "inside") == [2.0, 3.0, 4.0, 5.0]


def test_external_data_missing(tmp_path):
    add_one(tmp_path, "beside", onnx=add_bias(external("BIAS", "FP32", [4], "weights.bin")))
    with Server(tmp_path, "--exit-on-error=false") as server:
        assert "weights.bin" in server.index()[0]["reason"]


@pytest.fixture
def with_default(tmp_path):
    """A model whose second input has a value in the file: the client may leave it out."""
    onnx = onnx_models.model(
        [onnx_models.node("Add", ["INPUT0", "BIAS"], ["OUTPUT0"])],
        [("INPUT0", "FP32", [4]), ("BIAS", "FP32", [4])], [("OUTPUT0", "FP32", [4])],
        [onnx_models.constant("BIAS", "FP32", [4], struct.pack("<4f", 5, 5, 5, 5))])
    inputs = [tensor("INPUT0", "FP32", [4]), tensor("BIAS", "FP32", [4], "optional: true")]
    add_model(tmp_path, "m", config("onnxruntime", inputs, FP32[1]), onnx=onnx)
    with Server(tmp_path) as server:
        yield server


def test_optional_input(with_default):
    assert answer(with_default, "m") == [6.0, 7.0, 8.0, 9.0]
    given = with_default.infer("m", {"inputs": [json_input("INPUT0", "FP32", [4], [1, 2, 3, 4]),
                                                json_input("BIAS", "FP32", [4], [0, 0, 0, 1])]})
    assert given.json()["outputs"][0]["data"] == [1.0, 2.0, 3.0, 5.0]
