"""model_warmup: the requests that the server makes before a model is ready.

What a backend is called with, and when, is told by tests/backends/bad in its mode "trace" as lines of the
log, which are in the order of what happened.
"""
import pathlib
import re

import numpy as np
import pytest

from server import (Server, add_model, binary_body, binary_input, config, executable, identity,
                    onnx_models, pairs, parameter, run, tensor, wait_for)

BAD = pathlib.Path(executable()).parent / "tests" / "backends" / "bad"
IDENTITY = pathlib.Path(executable()).parent / "backends" / "identity" / "libtriton_identity.so"

traced = pytest.mark.skipif(not (BAD / "libtriton_bad.so").exists(),
                            reason=f"no {BAD}: build with -Dtests=true")


def warmup(name, inputs, batch=1, count=0):
    """inputs: {name: (type, dims, data)}, data such as "zero_data: true"."""
    text = "".join(f'inputs {{ key: "{key}" value {{ data_type: TYPE_{kind} dims: {list(dims)} {data} }} }}\n'
                   for key, (kind, dims, data) in inputs.items())
    return f'model_warmup {{ name: "{name}" batch_size: {batch} count: {count}\n{text} }}\n'


def zeros(dims, kind="FP32"):
    return {"INPUT0": (kind, dims, "zero_data: true")}


def instances(count):
    return f"instance_group [ {{ kind: KIND_CPU count: {count} }} ]\n"


@pytest.fixture(scope="module")
def backends(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backends")
    for name, library in (("bad", BAD / "libtriton_bad.so"), ("identity", IDENTITY)):
        (folder / name).mkdir()
        (folder / name / library.name).symlink_to(library)
    return folder


def bad(mode, batch=0, extra=""):
    return config("bad", *pairs("INT32", [4]), batch, parameter("mode", mode) + extra)


def serve(folder, backends, *flags, **more):
    return Server(folder, f"--backend-directory={backends}", "--exit-on-error=false",
                  "--strict-readiness=false", "--log-verbose=1", *flags, **more)


def matching(server, pattern):
    found = [re.search(pattern, line) for line in list(server.stderr_lines)]
    return [match for match in found if match]


def ran(server, model):
    """[(instance, sample, run, of, requests)] of a model's warm-up."""
    return [match.groups() for match in matching(
        server, rf'warm-up model={model} version=1 instance=(\S+) sample="(.*)" run=(\d+) of=(\d+) '
                r"requests=(\d+)")]


def warmed(server, model):
    """The same of a model that gets ready: then the log has all of it."""
    server.wait_log(f"model state model={model} version=1 from=LOADING to=READY")
    return ran(server, model)


def assert_counts_nothing(server, model):
    found = server.statistics(model)
    assert found["inference_count"] == found["execution_count"] == found["last_inference"] == 0, found
    assert all(part["count"] == part["ns"] == 0 for part in found["inference_stats"].values()), found
    assert not found.get("batch_stats") and not found.get("response_stats"), found


def reason(server, model):
    entry = next(entry for entry in server.index() if entry["name"] == model)
    assert entry["state"] == "UNAVAILABLE", entry
    return entry["reason"]


# ---- When and how often ----

@traced
def test_every_instance_runs_before_the_model_is_ready(tmp_path, backends):
    """Two samples, three instances, each on its own; READY comes after the last execution, and nothing of it
    is counted. The first request of a client is."""
    samples = warmup("one", zeros([4], "INT32")) + warmup("more", zeros([4], "INT32"), 3, 2)
    add_model(tmp_path, "m", bad("trace", 4, samples + instances(3)))
    with serve(tmp_path, backends) as server:
        server.wait_log("model state model=m version=1 from=LOADING to=READY")
        events = [match[1] for match in matching(
            server, r"(trace m_0_\d_cpu \w+ ?\S*|model state model=m .*to=READY)")]
        assert events.pop().startswith("model state")
        each = ["initialize begin", "initialize end", "execute -", "execute -,-,-", "execute -,-,-"]
        assert events == [f"trace m_0_{i}_cpu {what}" for i in range(3) for what in each]
        assert warmed(server, "m") == [(f"m_0_{i}_cpu", *row) for i in range(3) for row in (
            ("one", "1", "1", "1"), ("more", "1", "2", "3"), ("more", "2", "2", "3"))]
        assert_counts_nothing(server, "m")
        head = {"inputs": [binary_input("INPUT0", "INT32", [1, 4], 16)]}
        assert server.infer("m", *binary_body(head, bytes(16))).status == 200
        found = server.statistics("m")
        assert found["inference_count"] == found["execution_count"] == 1
        assert found["inference_stats"]["success"]["count"] == 1


def test_onnx_model_with_data_of_each_kind(tmp_path, start):
    """A real engine takes zeros, random numbers and a file, alone and in batches."""
    data = np.arange(16, dtype="f4").tobytes()
    samples = "".join(
        warmup(f"{name} {batch}", {"INPUT0": ("FP32", [16], kind), "INPUT1": ("FP32", [16], kind)},
               batch)
        for name, kind in (("zeros", "zero_data: true"), ("random", "random_data: true"),
                           ("file", 'input_data_file: "a/data"')) for batch in (1, 8))
    for name, text in (("m", config("onnxruntime", *pairs("FP32", [16], 2), 8, samples)),
                       ("derived", samples.replace("batch_size: 8", "batch_size: 4"))):
        add_model(tmp_path, name, text, onnx=onnx_models.add_sub("FP32", [None, 16]))
        (tmp_path / name / "warmup" / "a").mkdir(parents=True)
        (tmp_path / name / "warmup" / "a" / "data").write_bytes(data)
    with start(tmp_path, "--log-verbose=1") as server:
        for name in ("m", "derived"):
            assert [row[1] for row in warmed(server, name)] == [
                f"{kind} {batch}" for kind in ("zeros", "random", "file") for batch in (1, 8)]
            assert_counts_nothing(server, name)


# ---- What the requests hold ----

def test_random_integers_are_small_and_no_zeros(tmp_path, start):
    """A table with 128 rows has each of them, one with 10 has not."""
    for rows in (128, 10):
        add_model(tmp_path, f"rows_{rows}", config(
            "onnxruntime", [tensor("INPUT0", "INT64", [64])], [tensor("OUTPUT0", "INT64", [64])], 0,
            warmup("random", {"INPUT0": ("INT64", [64], "random_data: true")})),
            onnx=onnx_models.lookup([64], rows))
    with start(tmp_path, "--exit-on-error=false", "--strict-readiness=false") as server:
        assert server.get("/v2/models/rows_128/ready").status == 200
        assert "instance 'rows_10_0_cpu' warm-up sample 'random': " in reason(server, "rows_10")


@pytest.mark.parametrize("kind", ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32",
                                  "INT64", "FP16", "FP32", "FP64", "BF16", "STRING"])
def test_every_type(tmp_path, start, kind):
    samples = "".join(warmup(data, {"INPUT0": (kind, [3, 5], f"{data}: true")}, 2)
                      for data in ("zero_data", "random_data"))
    add_model(tmp_path, "m", identity("BYTES" if kind == "STRING" else kind, [-1, 5], 2, extra=samples))
    with start(tmp_path, "--log-verbose=1") as server:
        assert len(warmed(server, "m")) == 2
        assert_counts_nothing(server, "m")


def test_optional_inputs_and_no_elements(tmp_path, start):
    optional = tensor("INPUT1", "FP32", [2], "optional: true")
    add_model(tmp_path, "m", config("identity", [tensor("INPUT0", "FP32", [-1]), optional],
                                    [tensor("OUTPUT0", "FP32", [-1])], 0, warmup("none", zeros([0]))))
    with start(tmp_path, "--log-verbose=1") as server:
        assert len(warmed(server, "m")) == 1


def test_strings_from_a_file(tmp_path, start):
    add_model(tmp_path, "m", identity("BYTES", [2], extra=warmup(
        "w", {"INPUT0": ("STRING", [2], 'input_data_file: "words"')})))
    (tmp_path / "m" / "warmup").mkdir()
    (tmp_path / "m" / "warmup" / "words").write_bytes(b"\3\0\0\0abc\0\0\0\0")
    with start(tmp_path, "--log-verbose=1") as server:
        assert len(warmed(server, "m")) == 1


# ---- What goes wrong ----

FILES = {
    # file: (its bytes or None, type, words of the reason)
    "missing": (None, "FP32", "cannot open '{file}': No such file or directory"),
    "short": (15, "FP32", "'{file}' has 15 bytes, expected 16: one row of 4 elements of FP32"),
    "long": (17, "FP32", "'{file}' has 17 bytes, expected 16: one row of 4 elements of FP32"),
    "strings": (20, "STRING", "expected 4 string elements for inference input 'INPUT0' for model 'strings', got 5"),
}


def test_files_that_do_not_fit(tmp_path, start):
    for name, (size, kind, _) in FILES.items():
        add_model(tmp_path, name, identity("BYTES" if kind == "STRING" else kind, [4], extra=warmup(
            "the file", {"INPUT0": (kind, [4], 'input_data_file: "data"')})))
        if size is not None:
            (tmp_path / name / "warmup").mkdir()
            (tmp_path / name / "warmup" / "data").write_bytes(bytes(size))
    with start(tmp_path, "--exit-on-error=false", "--strict-readiness=false") as server:
        for name, (_, _, words) in FILES.items():
            words = words.format(file=tmp_path / name / "warmup" / "data")
            found = reason(server, name)
            assert f"model '{name}' instance '{name}_0_cpu' warm-up sample 'the file': " in found
            assert words in found


@traced
def test_failing_execution_fails_the_load(tmp_path, backends):
    """Execute's own error, and that of a response; the others of the server are fine, and a wrong output is
    not looked at."""
    extra = warmup("first", zeros([4], "INT32"))
    add_model(tmp_path, "error_execute", bad("error_execute", extra=extra))
    add_model(tmp_path, "shape_other", bad("shape_other", extra=extra))
    add_model(tmp_path, "good", identity("INT32", [4], extra=extra))
    for mode in ("late", "late_after_release", "two_responses", "no_response", "send_after_final"):
        add_model(tmp_path, mode, bad(mode, extra=extra))
    with serve(tmp_path, backends) as server:
        for name, words in (("error_execute", "execute fails"),
                            ("shape_other", "output 'OUTPUT0' with 16 bytes, which its shape [5]")):
            found = reason(server, name)
            assert f"model '{name}' instance '{name}_0_cpu' warm-up sample 'first': " in found
            assert words in found
        ready = {entry["name"] for entry in server.index() if entry["state"] == "READY"}
        assert ready == {"good", "late", "late_after_release", "two_responses", "no_response",
                         "send_after_final"}
        for name in ready:
            assert_counts_nothing(server, name)


@traced
def test_second_instance_fails(tmp_path, backends):
    """With several instances at once, too, all come back before the version goes."""
    extra = warmup("first", zeros([4], "INT32")) + instances(3)
    add_model(tmp_path, "m", bad("error_execute", extra=extra))
    for flag in ("false", "true"):
        with serve(tmp_path, backends, f"--backend-config=bad,parallel={flag}") as server:
            assert "execute fails" in reason(server, "m")


@traced
def test_never_answered(tmp_path, backends):
    """The model stays LOADING, the others serve, the log tells who waits, and the end of the server waits no
    longer than its exit timeout."""
    add_model(tmp_path, "never", bad("never", extra=warmup("lost", zeros([4], "INT32"))))
    add_model(tmp_path, "good", identity("INT32", [4]))
    server = serve(tmp_path, backends, "--exit-timeout-secs=1", wait=False)
    try:
        server.port = int(re.search(r"port=(\d+)", server.wait_log("http open"))[1])
        wait_for("the warm-up runs", lambda: ran(server, "never"))
        server.wait_log("model state model=good version=1 from=LOADING to=READY")
        states = {entry["name"]: entry["state"] for entry in server.index()}
        assert states == {"never": "LOADING", "good": "READY"}
        assert server.get("/v2/models/never/ready").status == 400
        line = server.wait_log("warm-up waits model=never instance=never_0_cpu sample=\"lost\"")
        assert "unanswered=1" in line
        server.stop(status=1)
        server.wait_log("Exit timeout expired")
    finally:
        server.kill()


@traced
def test_server_ends_during_many_runs(tmp_path, backends):
    """A warm-up of very many executions ends after the one that runs."""
    add_model(tmp_path, "m", bad("late", extra=warmup("long", zeros([4], "INT32"), count=1000000)))
    server = serve(tmp_path, backends, "--exit-timeout-secs=20", wait=False)
    try:
        server.wait_log('instance=m_0_cpu sample="long" run=2 of=1000000')
        server.stop()
        assert len(ran(server, "m")) < 1000
    finally:
        server.kill()


def test_configuration_that_cannot_be(tmp_path):
    """Told before anything is loaded, all in one go."""
    add_model(tmp_path, "m", identity("FP32", [-1, 2], 4, extra=(
        warmup("a", {"INPUT0": ("FP32", [-1, 2], "zero_data: true")}, 5) +
        warmup("b", {"X": ("FP32", [2], 'input_data_file: "../../x"')}, 0))))
    status, _, err = run(f"--model-repository={tmp_path}", "--http-port=0", "--grpc-port=0",
                         "--strict-model-config=true")
    assert status == 1
    for words in ("model_warmup[0] 'a': batch_size is out of range (found 5, expected 1 to 4)",
                  "model_warmup[0] 'a'.inputs['INPUT0']: warm-up needs a size for every dimension (found "
                  "[-1,2])",
                  "model_warmup[1] 'b': batch_size is out of range (found 0, expected 1 to 4)",
                  "model_warmup[1] 'b'.inputs['X']: the model has no such input (found 'X')",
                  "model_warmup[1] 'b'.inputs['X']: input_data_file must be a file below the model's "
                  "directory 'warmup' (found '../../x')",
                  "model_warmup[1] 'b': input 'INPUT0' is missing"):
        assert words in err, err


# ---- Instances that initialise at once ----

@traced
@pytest.mark.parametrize("parallel", ["false", "true"])
def test_instances_initialise_as_the_backend_allows(tmp_path, backends, parallel):
    """Each instance that initialises waits for a second one for a while. With the attribute
    ParallelModelInstanceLoading both have begun before one ends; without it they never meet."""
    add_model(tmp_path, "m", bad("trace", extra=instances(2)))
    with serve(tmp_path, backends, f"--backend-config=bad,parallel={parallel}") as server:
        events = [match[1] for match in matching(server, r"trace m_0_\d_cpu initialize (\w+)")]
        assert events == (["begin", "begin", "end", "end"] if parallel == "true" else
                          ["begin", "end", "begin", "end"])
