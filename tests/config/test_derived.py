"""Configurations derived from ONNX models: without a config.pbtxt, and with one that leaves things
out; contradictions; --strict-model-config; and --print-model-config, which shows the same without a
server.

Each model is described by the text of its file (None: no file) and what its finished configuration
must be. One server serves all of them; the printed form of each must be read back as the same.
"""
import os
import pathlib
import sys

import pytest
from google.protobuf import json_format, text_format

import oracle

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients"))
from server import MODELS, Server, add_model, onnx_models, run  # noqa: E402

PAIR = onnx_models.add_sub("FP32", [None, 16])
SILERO = pathlib.Path(__file__).resolve().parents[2] / "third_party/fetched/silero_vad"
INSTANCES = 2 if len(os.sched_getaffinity(0)) >= 4 else 1
DEFAULTS = ('name: "{name}" platform: "onnxruntime_onnx" backend: "onnxruntime" '
            'default_model_filename: "model.onnx" version_policy {{ latest {{ num_versions: 1 }} }} '
            f'instance_group {{{{ name: "{{name}}" count: {INSTANCES} '
            'kind: KIND_CPU }} ')
BATCH_4 = "max_batch_size: 4 dynamic_batching { preferred_batch_size: 4 } "


def io(kind, element, dims, count=2, more=""):
    return "".join(f'{kind} {{ name: "{kind.upper()}{i}" data_type: TYPE_{element} dims: {dims} {more} }} '
                   for i in range(count))


def both(element, dims, count=2):
    return io("input", element, dims, count) + io("output", element, dims, count)


# {name: (config.pbtxt or None, model.onnx, configuration beyond DEFAULTS)}
CASES = {
    "no_file": (None, PAIR, BATCH_4 + both("FP32", [16])),
    "no_file.onnxruntime": (None, PAIR, BATCH_4 + both("FP32", [16])),
    "no_file.v2": (None, PAIR, BATCH_4 + both("FP32", [16])),
    "empty_file": ("", PAIR, BATCH_4 + both("FP32", [16])),
    "fixed": (None, onnx_models.add_sub("INT64", [2, 3]), both("INT64", [2, 3])),
    "strings": (None, onnx_models.identity("BYTES", [None, 2]), BATCH_4 + both("STRING", [2], 1)),
    "one_dim": (None, onnx_models.identity("BOOL", [None]), BATCH_4
                + io("input", "BOOL", [1], 1, "reshape { }") + io("output", "BOOL", [1], 1, "reshape { }")),
    "scalar": (None, onnx_models.total([None, 4]), 'input { name: "INPUT0" data_type: TYPE_FP32 dims: '
               '[-1, 4] } output { name: "OUTPUT0" data_type: TYPE_FP32 dims: 1 }'),
    "batch_given": ("max_batch_size: 16", PAIR, "max_batch_size: 16 " + both("FP32", [16])),
    "scheduler_given": ("dynamic_batching { max_queue_delay_microseconds: 7 }", PAIR,
                        "max_batch_size: 4 dynamic_batching { preferred_batch_size: 4 "
                        "max_queue_delay_microseconds: 7 } " + both("FP32", [16])),
    "inputs_given": (io("input", "FP32", [16]), PAIR, BATCH_4 + both("FP32", [16])),
    "inputs_whole": (io("input", "FP32", [-1, 16]), PAIR, both("FP32", [-1, 16])),
    "outputs_given": (io("output", "FP32", [16], 1), PAIR, BATCH_4
                      + io("input", "FP32", [16]) + io("output", "FP32", [16], 1)),
    "one_input": ('input { name: "INPUT1" dims: 16 }', PAIR, BATCH_4
                  + 'input { name: "INPUT1" data_type: TYPE_FP32 dims: 16 } '
                  'input { name: "INPUT0" data_type: TYPE_FP32 dims: 16 } ' + io("output", "FP32", [16])),
    "names_alone": ('input [ { name: "INPUT0" }, { name: "INPUT1" } ] output { name: "OUTPUT1" '
                    'label_filename: "l.txt" }', PAIR, BATCH_4 + io("input", "FP32", [16])
                    + 'output { name: "OUTPUT1" data_type: TYPE_FP32 dims: 16 label_filename: "l.txt" }'),
    "types_alone": ('max_batch_size: 2 input [ { name: "INPUT0" data_type: TYPE_FP32 }, '
                    '{ name: "INPUT1" data_type: TYPE_FP32 } ]', PAIR,
                    "max_batch_size: 2 " + both("FP32", [16])),
    "no_batch_size": (both("FP32", [16]), PAIR, BATCH_4 + both("FP32", [16])),
    "other_file": ('backend: "onnxruntime" default_model_filename: "other.onnx"', None,
                   BATCH_4 + both("FP32", [16])),
    "complete": ("max_batch_size: 8 " + both("FP32", [16]), PAIR, "max_batch_size: 8 " + both("FP32", [16])),
}
SILERO_IO = (
    'input { name: "input" data_type: TYPE_FP32 dims: [-1, -1] } '
    'input { name: "state" data_type: TYPE_FP32 dims: [2, -1, 128] } '
    'input { name: "sr" data_type: TYPE_INT64 dims: 1 } '
    'output { name: "output" data_type: TYPE_FP32 dims: [-1, 1] } '
    'output { name: "stateN" data_type: TYPE_FP32 dims: [-1, -1, -1] }')

# {name: (config.pbtxt, model.onnx, words that the reason must hold)}
REFUSED = {
    "wrong_type": (io("input", "INT32", [16]), PAIR,
                   ["'INPUT0' has type INT32, the model has FP32", "'INPUT1' has type INT32"]),
    "wrong_dims": ("max_batch_size: 4 " + both("FP32", [17]), PAIR,
                   ["'INPUT0' has shape [-1,17]", "'OUTPUT1' has shape [-1,17]", "the model has [-1,16]"]),
    "wrong_name": ('input { name: "INPUT" dims: 16 data_type: TYPE_FP32 }', PAIR,
                   ["input 'INPUT' is not in the model, which has 'INPUT0', 'INPUT1'",
                    "input 'INPUT0' of the model is not in the configuration"]),
    "unknown_partial": ('input { name: "X" }', PAIR, ["input[0] 'X'.dims", "must specify 'dims'",
                                                      "must specify 'data_type'"]),
    "no_batch": ("max_batch_size: 4", onnx_models.add_sub("FP32", [2, 16]),
                 ["'INPUT0' has shape [-1,16]", "the model has [2,16]"]),
    "not_a_model": (None, b"no model", ["onnxruntime:"]),
    "nothing": (None, None, ["no config.pbtxt", "must specify platform for model 'nothing'"]),
    "many": ('name: "other" max_batch_size: -1 input { name: "a" } sequence_batching { } '
             'instance_group { kind: KIND_CPU gpus: 1 }', PAIR,
             ["unexpected directory name 'many' for model 'other'", "'max_batch_size' must be non-negative",
              "must specify 'data_type'", "sequence batching is not supported by this server yet",
              "has kind KIND_CPU but specifies one or more GPUs"]),
    "field": ("max_batchsize: 4\ninput { dim: 4 }", PAIR,
              ["config.pbtxt:1:1:", "did you mean 'max_batch_size'?", "config.pbtxt:2:9:",
               "did you mean 'dims'?"]),
    "empty_versions": ('version_policy { specific { versions: 7 } }', PAIR,
                       ["at least one version must be available"]),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("derived")
    for name, (text, onnx, _) in {**CASES, **REFUSED}.items():
        add_model(folder, name, text, onnx=onnx)
    (folder / "other_file/1/other.onnx").write_bytes(PAIR)
    (folder / "names_alone/l.txt").write_text("a\nb\n")
    add_model(folder, "zeros", None, versions=["2", "02"], onnx=PAIR)
    (folder / "zeros/02/model.onnx").write_bytes(b"not looked at")
    if SILERO.exists():
        add_model(folder, "silero", None, onnx=next(SILERO.glob("**/*.onnx")).read_bytes())
    return folder


@pytest.fixture(scope="module")
def server(repository):
    with Server(repository, "--exit-on-error=false", "--strict-readiness=false") as one:
        yield one


def config_of(text):
    return text_format.Parse(text, oracle.classes()["inference.ModelConfig"]())


def expected(name):
    message = config_of(DEFAULTS.format(name=name) + CASES[name][2])
    if name == "other_file":
        message.default_model_filename = "other.onnx"
    return message


def served(server, name):
    answer = server.get(f"/v2/models/{name}/config")
    assert answer.status == 200, answer
    return json_format.Parse(answer.body, oracle.classes()["inference.ModelConfig"]())


def printed(repository, name, *flags):
    return run(f"--print-model-config={repository / name}", *flags)


@pytest.mark.parametrize("name", CASES)
def test_derived(server, name):
    assert served(server, name) == expected(name)
    metadata = server.get(f"/v2/models/{name}").json()
    config = expected(name)
    batch = [-1] if config.max_batch_size else []
    assert [(t["name"], t["shape"]) for t in metadata["inputs"]] == [
        (t.name, batch + list(t.dims)) for t in config.input]


def test_silero(server):
    if not SILERO.exists():
        pytest.skip("third_party/fetched/silero_vad is missing")
    assert served(server, "silero") == config_of(DEFAULTS.format(name="silero") + SILERO_IO)


def test_derived_model_answers(server):
    body = {"inputs": [{"name": f"INPUT{i}", "datatype": "FP32", "shape": [2, 16], "data": [i + 1] * 32}
                       for i in range(2)]}
    for name in ("no_file", "one_input", "types_alone"):
        answer = server.infer(name, body)
        assert answer.status == 200, answer
        assert {o["name"]: o["data"][0] for o in answer.json()["outputs"]} == {"OUTPUT0": 3, "OUTPUT1": -1}


def test_leading_zeros(server):
    """The directory 02 is no version, so 2 is not in doubt."""
    assert [m["version"] for m in server.index() if m["name"] == "zeros"] == ["2"]
    assert server.is_live() and server.get("/v2/models/zeros/versions/2/ready").status == 200


@pytest.mark.parametrize("name", REFUSED)
def test_refused(server, repository, name):
    """The same reason from the server and from --print-model-config."""
    reasons = " ".join(line for line in server.stderr_lines if f"failed to load model={name} " in line)
    status, out, err = printed(repository, name)
    assert (status, out) == (1, "")
    for words in REFUSED[name][2]:
        assert words in err
        assert words in reasons


@pytest.mark.parametrize("name", [*list(CASES)[:4], "one_input", "names_alone", "other_file"])
def test_printed_is_the_same(repository, name):
    status, out, err = printed(repository, name)
    assert status == 0, err
    assert config_of(out) == expected(name)


def test_printed_serves_strictly(repository, tmp_path):
    """What is printed, pasted as config.pbtxt, is complete, and printed again unchanged."""
    _, out, _ = printed(repository, "one_input")
    add_model(tmp_path, "one_input", out, onnx=PAIR)
    status, again, err = printed(tmp_path, "one_input", "--strict-model-config=true")
    assert status == 0, err
    assert config_of(again) == config_of(out)
    comments = [line for line in again.splitlines() if line.startswith("# ")][2:]
    assert set(comments) == {"# config.pbtxt"}


def test_printed_sources(repository):
    """Above each field stands where it comes from."""
    _, out, _ = printed(repository, "one_input")
    lines = out.splitlines()
    sources = {lines[i + 1].split()[0].rstrip(":"): line[2:] for i, line in enumerate(lines[:-1])
               if line.startswith("#") and not lines[i + 1].startswith("#") and lines[i + 1]}
    assert sources == {
        "name": "the directory's name",
        "platform": "default, by the backend or the model file",
        "version_policy": "default",
        "max_batch_size": "derived from the model by backend 'onnxruntime'",
        "input": "config.pbtxt, completed from the model by backend 'onnxruntime'",
        "output": "derived from the model by backend 'onnxruntime'",
        "instance_group": "default",
        "default_model_filename": "default, by the platform or the backend",
        "dynamic_batching": "derived from the model by backend 'onnxruntime'",
        "backend": "default, by the platform, the model file or the model's name",
    }


def test_default_batch_size(repository):
    for flag, found in (("9", 9), ("1", 1), ("0", 0)):
        status, out, err = printed(repository, "no_file", f"--backend-config=,default-max-batch-size={flag}")
        assert status == 0, err
        config = config_of(out)
        assert config.max_batch_size == found
        assert config.HasField("dynamic_batching") == (found > 1)
        assert list(config.input[0].dims) == ([16] if found else [-1, 16])


@pytest.mark.parametrize("flag", ["--strict-model-config", "--disable-auto-complete-config=true"])
def test_strict(repository, tmp_path, flag):
    """A complete file is demanded, and what it lacks is said."""
    for name, words in {
        "no_file": ["no config.pbtxt", "--strict-model-config"],
        "empty_file": ["must specify platform"],
        "names_alone": ["input[0] 'INPUT0'.data_type", "output[0] 'OUTPUT1'.dims"],
    }.items():
        status, out, err = printed(repository, name, flag)
        assert (status, out) == (1, ""), name
        for word in words:
            assert word in err, name
    add_model(tmp_path, "m", 'backend: "onnxruntime"', onnx=PAIR)
    status, _, err = printed(tmp_path, "m", flag)
    assert status == 1 and "contradicts" not in err
    for word in ("is incomplete", "input 'INPUT0' of type FP32 and shape [-1,16]", "output 'OUTPUT1'"):
        assert word in err
    add_model(tmp_path, "n", 'backend: "onnxruntime" ' + both("FP32", [16]), onnx=PAIR)
    status, _, err = printed(tmp_path, "n", flag)
    assert status == 1 and "is max_batch_size missing?" in err


def test_print_needs_a_directory(tmp_path):
    status, out, err = run(f"--print-model-config={tmp_path / 'nowhere'}")
    assert (status, out) == (1, "") and "No such file or directory" in err


def test_example_models():
    """Every example model is printed and read back."""
    for folder in sorted(p for p in MODELS.glob("*") if p.is_dir()):
        status, out, err = run(f"--print-model-config={folder}")
        assert status == 0, err
        assert config_of(out).name == folder.name
