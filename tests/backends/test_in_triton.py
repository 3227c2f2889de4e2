"""Our backends in a server that is not ours.

Starts NVIDIA's tritonserver (from the nvidia-pytriton wheel) with the identity
and onnxruntime files of the build and asks it for real inferences. This shows
that the files keep to the interface, not just to our own server's idea of it.

Skipped when the wheel or the backends are missing; tests/clients/triton.py holds the server.
repeat is tried there by tests/clients/test_v2_stream.py.
  TIS_ORT           third_party/fetched/onnxruntime/libonnxruntime.so.1.28.0
"""
import concurrent.futures
import os
import pathlib
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ORT = pathlib.Path(os.environ.get(
    "TIS_ORT", ROOT / "third_party/fetched/onnxruntime/libonnxruntime.so.1.28.0"))
SILERO = ROOT / "third_party/fetched/silero_vad/silero_vad.onnx"

np = pytest.importorskip("numpy")
http = pytest.importorskip("tritonclient.http")
client_utils = pytest.importorskip("tritonclient.utils")
sys.path[:0] = [str(ROOT / "tests/data"), str(ROOT / "tests/clients")]
import onnx_models  # noqa: E402
import triton  # noqa: E402


def bf16_dtype():
    """What the client sends as BF16: newer ones bfloat16 arrays, older ones FP32 arrays, cut."""
    try:
        import ml_dtypes
    except ImportError:
        return "f4"
    dtype = np.dtype(ml_dtypes.bfloat16)
    return dtype if client_utils.np_to_triton_dtype(dtype) == "BF16" else "f4"


NUMBERS = {
    "BOOL": bool, "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "INT8": "i1",
    "INT16": "i2", "INT32": "i4", "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
    "BF16": bf16_dtype(),
}
ALL_TYPES = [*NUMBERS, "BYTES"]


# ---- The repository ----

def tensor(name, datatype, dims, extra=""):
    datatype = "STRING" if datatype == "BYTES" else datatype
    return f'{{ name: "{name}" data_type: TYPE_{datatype} dims: {dims} {extra} }}'


def config(backend, inputs, outputs, batch=0, extra=""):
    """Text of a config.pbtxt; inputs and outputs are lists of tensor()."""
    return (f'backend: "{backend}"\nmax_batch_size: {batch}\n'
            f'input [ {", ".join(inputs)} ]\noutput [ {", ".join(outputs)} ]\n'
            f'instance_group [ {{ kind: KIND_CPU count: 1 }} ]\n{extra}\n')


def pairs(datatype, dims, count):
    """Tensors INPUT0.. and OUTPUT0.. of one type and shape."""
    return ([tensor(f"INPUT{i}", datatype, dims) for i in range(count)],
            [tensor(f"OUTPUT{i}", datatype, dims) for i in range(count)])


BATCHING = "dynamic_batching { max_queue_delay_microseconds: 300000 preferred_batch_size: [ 8 ] }"


def models():
    """{name: (text of config.pbtxt, bytes of model.onnx or None)}; all of these load."""
    m = {}
    for t in ALL_TYPES:
        m[f"identity_{t}"] = (config("identity", *pairs(t, [-1], 1), batch=8), None)
        m[f"onnx_identity_{t}"] = (config("onnxruntime", *pairs(t, [-1, 2], 1)),
                                   onnx_models.identity(t, [None, 2]))
        m[f"onnx_add_sub_{t}"] = (config("onnxruntime", *pairs(t, [16], 2), batch=8),
                                  onnx_models.add_sub(t, [None, 16]))
    m["identity_pairs"] = (config("identity", *pairs("FP32", [-1, -1], 3)), None)
    m["identity_slow"] = (config(
        "identity", *pairs("FP32", [1], 1),
        extra='parameters { key: "execute_delay_ms" value { string_value: "200" } }'), None)
    m["onnx_batch"] = (config("onnxruntime", *pairs("FP32", [-1], 2), batch=8, extra=BATCHING),
                       onnx_models.add_sub("FP32", [None, None]))
    m["onnx_batch_strings"] = (
        config("onnxruntime", *pairs("BYTES", [2], 1), batch=8, extra=BATCHING),
        onnx_models.identity("BYTES", [None, 2]))
    m["onnx_batch_lookup"] = (
        config("onnxruntime", *pairs("INT64", [2], 1), batch=8, extra=BATCHING),
        onnx_models.lookup([None, 2]))
    m["onnx_scale"] = (config(
        "onnxruntime", [tensor("INPUT0", "FP32", [-1]), tensor("SCALE", "INT64", [1])],
        [tensor("OUTPUT0", "FP32", [-1])]), onnx_models.scale([None]))
    m["onnx_scale_batch"] = (config(
        "onnxruntime", [tensor("INPUT0", "FP32", [2]),
                        tensor("SCALE", "INT64", [1], "reshape { shape: [ ] }")],
        [tensor("OUTPUT0", "FP32", [2])], batch=8), onnx_models.scale([None, 2]))
    m["onnx_total"] = (config("onnxruntime", [tensor("INPUT0", "FP32", [-1])],
                              [tensor("OUTPUT0", "FP32", [1])]), onnx_models.total([None]))
    m["onnx_nonzero"] = (config("onnxruntime", [tensor("INPUT0", "FP32", [-1, -1])],
                                [tensor("OUTPUT0", "INT64", [2, -1])]),
                         onnx_models.nonzero([None, None]))
    m["onnx_mlp"] = (config("onnxruntime", [tensor("INPUT0", "FP32", [64])],
                            [tensor("OUTPUT0", "FP32", [10])], batch=8,
                            extra='parameters { key: "intra_op_thread_count" '
                                  'value { string_value: "2" } }\n'
                                  "optimization { graph { level: 1 } }"),
                     onnx_models.mlp([64, 32, 10]))
    m["onnx_derived"] = ('backend: "onnxruntime"\n', onnx_models.add_sub("INT32", [None, 4]))
    m["onnx_lying_shape"] = (config("onnxruntime", [tensor("INPUT0", "FP32", [4])],
                                    [tensor("OUTPUT0", "FP32", [3])]),
                             onnx_models.identity("FP32", [None]))
    if SILERO.exists():
        m["silero_vad"] = ('backend: "onnxruntime"\n', SILERO.read_bytes())
    return m


def bad_models():
    """{name: (config.pbtxt, model.onnx, words that the reason must hold)}; none of these load."""
    floats = onnx_models.add_sub("FP32", [None, 16])
    return {
        "bad_types": (config("onnxruntime", *pairs("INT32", [16], 2), batch=8), floats,
                      ["'INPUT0' has type INT32, the model has FP32",
                       "'OUTPUT1' has type INT32, the model has FP32"]),
        "bad_dims": (config("onnxruntime", *pairs("FP32", [17], 2), batch=8), floats,
                     ["'INPUT1' has shape [-1,17]", "the model has [-1,16]"]),
        "bad_names": (config("onnxruntime", [tensor("X", "FP32", [16])],
                             [tensor("OUTPUT0", "FP32", [16])], batch=8), floats,
                      ["input 'X' is not in the model, which has 'INPUT0', 'INPUT1'",
                       "input 'INPUT1' of the model is not in the configuration"]),
        "bad_file": (config("onnxruntime", *pairs("FP32", [16], 2)), b"no model",
                     ["model 'bad_file' version 1", "onnxruntime:"]),
        "bad_threads": (config("onnxruntime", *pairs("FP32", [16], 2), batch=8,
                               extra='parameters { key: "intra_op_thread_count" '
                                     'value { string_value: "many" } }'), floats,
                        ["parameter 'intra_op_thread_count'", "'many'"]),
        "bad_ragged": (config("onnxruntime",
                              [tensor("INPUT0", "FP32", [16], "allow_ragged_batch: true"),
                               tensor("INPUT1", "FP32", [16])],
                              [tensor("OUTPUT0", "FP32", [16])], batch=8), floats,
                       ["'INPUT0' has allow_ragged_batch, for which the model's shape [-1,16] "
                        "must be [-1]"]),
        "bad_batch_input": (
            onnx_models.ragged_config("bad_batch_input", "FP32").replace("BATCH_ITEM_SHAPE ",
                                                                         "BATCH_ELEMENT_COUNT ")
            .replace('target_name: "ELEMENT_COUNT"', 'target_name: "NOWHERE"'),
            onnx_models.ragged("INT32"),
            ["batch_input 'NOWHERE' is not in the model",
             "batch_input 'ITEM_SHAPE' has shape [-1], the model has [-1,-1]",
             "batch_input 'ITEM_SHAPE_FLATTEN' has type FP32, the model has INT32"]),
        "bad_batch_output": (
            onnx_models.ragged_config("bad_batch_output", "FP32").replace(
                'output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] }',
                'output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1, -1 ] }'),
            onnx_models.ragged("FP32"),
            ["output 'OUTPUT0' would take the size of its dims entry 1 from input 'INPUT0'"]),
        "bad_pair": (config("identity", [tensor("INPUT0", "FP32", [1])],
                            [tensor("OUTPUT1", "FP32", [1])]), None,
                     ["output 'OUTPUT1' has no input to copy"]),
        "bad_delay": (config("identity", *pairs("FP32", [1], 1),
                             extra='parameters { key: "execute_delay_ms" '
                                   'value { string_value: "-1" } }'), None,
                      ["parameter 'execute_delay_ms'", "'-1'"]),
    }


def write_models(folder):
    everything = {**models(), **{name: row[:2] for name, row in bad_models().items()}}
    for name, (text, onnx) in everything.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(text)
        if onnx is not None:
            (folder / name / "1" / "model.onnx").write_bytes(onnx)


# ---- The server ----

@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a running tritonserver with all models."""
    reason = triton.missing("identity", "onnxruntime") or ("" if ORT.exists() else f"no {ORT}")
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("triton")
    write_models(folder / "models")
    backends = triton.add_backends(folder / "backends", "identity", "onnxruntime")
    with triton.Triton(folder / "models", backends, folder,
                       f"--backend-config=onnxruntime,library={ORT}", "--allow-grpc=false") as one:
        yield one.url


@pytest.fixture(scope="module")
def client(server):
    with http.InferenceServerClient(server, concurrency=16, network_timeout=60) as c:
        yield c


def infer(client, model, outputs=None, datatype=None, **arrays):
    """Sends arrays as inputs, of their own type or of datatype; returns {output: array}."""
    inputs = []
    for name, array in arrays.items():
        sent_as = datatype or client_utils.np_to_triton_dtype(array.dtype)
        inputs.append(http.InferInput(name, list(array.shape), sent_as))
        inputs[-1].set_data_from_numpy(array)
    wanted = [http.InferRequestedOutput(name) for name in outputs] if outputs else None
    result = client.infer(model, inputs, outputs=wanted)
    return {o["name"]: result.as_numpy(o["name"]) for o in result.get_response()["outputs"]}


def sample(datatype, shape):
    """An array of this type and shape with varied values."""
    count = int(np.prod(shape))
    if datatype == "BYTES":
        words = [b"", b"a\0b\0", "\u00e4\u00f6".encode(), b"\xff\xfe", b"x" * 300]
        return np.array([words[i % 5] for i in range(count)], dtype=np.object_).reshape(shape)
    if datatype == "BOOL":
        return (np.arange(count) % 3 == 0).reshape(shape)
    return (np.arange(count) % 50).astype(NUMBERS[datatype]).reshape(shape)


def same(a, b):
    return a.shape == b.shape and bool(np.all(a == b))


# ---- Loading ----

def test_good_models_are_ready(client):
    assert {name: client.is_model_ready(name) for name in models()} == dict.fromkeys(models(), True)


@pytest.mark.parametrize("name", bad_models())
def test_bad_model_says_what_is_wrong(client, name):
    reasons = {row["name"]: row.get("reason", "") for row in client.get_model_repository_index()}
    for words in bad_models()[name][2]:
        assert words in reasons[name]


def test_missing_configuration_is_derived_from_the_model(client):
    got = client.get_model_config("onnx_derived")
    assert got["max_batch_size"] == 4 and "dynamic_batching" in got
    assert [(t["name"], t["data_type"], t["dims"]) for t in got["input"] + got["output"]] == [
        (name, "TYPE_INT32", ["4"] if isinstance(got["input"][0]["dims"][0], str) else [4])
        for name in ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")]
    a = np.arange(8, dtype="i4").reshape(2, 4)
    assert same(infer(client, "onnx_derived", INPUT0=a, INPUT1=a)["OUTPUT0"], a + a)


# ---- identity ----

@pytest.mark.parametrize("datatype", ALL_TYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (8, 1000)])
def test_identity_returns_what_it_got(client, datatype, shape):
    a = sample(datatype, shape)
    got = infer(client, f"identity_{datatype}", datatype=datatype, INPUT0=a)
    assert same(got["OUTPUT0"], a)


def test_identity_has_several_pairs_and_gives_those_asked_for(client):
    a, b, c = (np.full((2, n), n, "f4") for n in (1, 5, 3))
    got = infer(client, "identity_pairs", INPUT2=c, INPUT0=a, INPUT1=b)
    assert same(got["OUTPUT0"], a) and same(got["OUTPUT1"], b) and same(got["OUTPUT2"], c)
    got = infer(client, "identity_pairs", ["OUTPUT1"], INPUT0=a, INPUT1=b, INPUT2=c)
    assert list(got) == ["OUTPUT1"] and same(got["OUTPUT1"], b)


def test_identity_takes_as_long_as_told(client):
    start = time.monotonic()
    infer(client, "identity_slow", INPUT0=np.ones(1, "f4"))
    assert time.monotonic() - start >= 0.2


# ---- onnxruntime, one request ----

@pytest.mark.parametrize("datatype", ALL_TYPES)
@pytest.mark.parametrize("rows", [1, 5, 0])
def test_onnx_identity_of_each_type_and_of_nothing(client, datatype, rows):
    a = sample(datatype, (rows, 2))
    got = infer(client, f"onnx_identity_{datatype}", datatype=datatype, INPUT0=a)
    assert got["OUTPUT0"].shape == a.shape and (rows == 0 or same(got["OUTPUT0"], a))


@pytest.mark.parametrize("datatype", ALL_TYPES)
@pytest.mark.parametrize("rows", [1, 8])
def test_onnx_computes_in_each_type(client, datatype, rows):
    if datatype == "BYTES":
        a = np.array([str(i).encode() for i in range(rows * 16)], np.object_).reshape(rows, 16)
        b = np.array([b"2"] * rows * 16, np.object_).reshape(rows, 16)
        want = np.array([str(i + 2).encode() for i in range(rows * 16)], np.object_)
        want = want.reshape(rows, 16)
    else:
        a, b = sample(datatype, (rows, 16)), np.ones_like(sample(datatype, (rows, 16)))
        want = a | b if datatype == "BOOL" else a + b
    got = infer(client, f"onnx_add_sub_{datatype}", datatype=datatype, INPUT0=a, INPUT1=b)
    assert same(got["OUTPUT0"], want)
    assert sorted(got) == ["OUTPUT0", "OUTPUT1"]


def test_onnx_gives_only_the_output_asked_for(client):
    a = np.ones((1, 16), "f4")
    assert list(infer(client, "onnx_add_sub_FP32", ["OUTPUT1"], INPUT0=a, INPUT1=a)) == ["OUTPUT1"]


def test_onnx_scalar_input(client):
    a = np.arange(5, dtype="f4")
    assert same(infer(client, "onnx_scale", INPUT0=a, SCALE=np.array([3], "i8"))["OUTPUT0"], a * 3)


def test_onnx_scalar_input_of_a_batch_is_one_value(client):
    a = np.arange(4, dtype="f4").reshape(2, 2)
    got = infer(client, "onnx_scale_batch", INPUT0=a, SCALE=np.array([[3], [3]], "i8"))
    assert same(got["OUTPUT0"], a * 3)
    with pytest.raises(client_utils.InferenceServerException, match="different values"):
        infer(client, "onnx_scale_batch", INPUT0=a, SCALE=np.array([[3], [4]], "i8"))


def test_onnx_scalar_output(client):
    got = infer(client, "onnx_total", INPUT0=np.arange(5, dtype="f4"))
    assert same(got["OUTPUT0"], np.array([10], "f4"))


def test_onnx_output_of_unknown_shape(client):
    got = infer(client, "onnx_nonzero", INPUT0=np.array([[0, 1], [1, 1]], "f4"))
    assert same(got["OUTPUT0"], np.array([[0, 1, 1], [1, 0, 1]]))
    assert infer(client, "onnx_nonzero", INPUT0=np.zeros((2, 2), "f4"))["OUTPUT0"].shape == (2, 0)


def test_onnx_mlp_rows_do_not_depend_on_the_batch(client):
    a = np.random.default_rng(1).standard_normal((8, 64), "f4")
    whole = infer(client, "onnx_mlp", INPUT0=a)["OUTPUT0"]
    assert whole.shape == (8, 10) and np.any(whole)
    for i in range(8):
        one = infer(client, "onnx_mlp", INPUT0=a[i:i + 1])["OUTPUT0"]
        assert np.allclose(whole[i:i + 1], one, atol=1e-5)


def test_onnx_error_of_the_engine_reaches_the_client(client):
    for _ in range(2):  # and leaves the model working
        with pytest.raises(client_utils.InferenceServerException, match="onnx_batch_lookup"):
            infer(client, "onnx_batch_lookup", INPUT0=np.array([[1, 99]], "i8"))
    got = infer(client, "onnx_batch_lookup", INPUT0=np.array([[3, 9]], "i8"))
    assert same(got["OUTPUT0"], np.array([[9, 81]]))


def test_onnx_configuration_that_promises_another_output_shape(client):
    with pytest.raises(client_utils.InferenceServerException, match="onnx_lying_shape"):
        infer(client, "onnx_lying_shape", INPUT0=np.ones(4, "f4"))


@pytest.mark.skipif(not SILERO.exists(), reason=f"no {SILERO}: run scripts/fetch")
def test_onnx_speech_model_needs_no_configuration(client):
    assert client.get_model_config("silero_vad")["max_batch_size"] == 0
    got = infer(client, "silero_vad", input=np.zeros((1, 576), "f4"),
                state=np.zeros((2, 1, 128), "f4"), sr=np.array([16000], "i8"))
    assert got["output"].shape == (1, 1) and 0 <= got["output"][0, 0] < 0.5  # silence
    assert got["stateN"].shape == (2, 1, 128)


# ---- onnxruntime, batches of several requests ----

def executions(client, model):
    return client.get_inference_statistics(model)["model_stats"][0]["execution_count"]


def run_together(address, model, calls):
    """Runs all calls at once; returns the outputs or the error of each."""
    def one(arrays):
        with http.InferenceServerClient(address, network_timeout=60) as own:  # not thread-safe
            try:
                return infer(own, model, **arrays)
            except client_utils.InferenceServerException as error:
                return error

    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


def test_batch_gives_each_request_its_own_rows(server, client):
    calls = [{"INPUT0": np.full((1 + i % 2, 3), i, "f4"), "INPUT1": np.ones((1 + i % 2, 3), "f4")}
             for i in range(5)]
    before = executions(client, "onnx_batch")
    results = run_together(server, "onnx_batch", calls)
    for call, got in zip(calls, results):
        assert same(got["OUTPUT0"], call["INPUT0"] + 1) and same(got["OUTPUT1"], call["INPUT0"] - 1)
    assert executions(client, "onnx_batch") - before < len(calls)


def test_batch_of_different_shapes(server):
    calls = [{"INPUT0": np.full((1, 1 + i % 3), i, "f4"), "INPUT1": np.ones((1, 1 + i % 3), "f4")}
             for i in range(8)]
    for call, got in zip(calls, run_together(server, "onnx_batch", calls)):
        assert same(got["OUTPUT0"], call["INPUT0"] + 1)


def test_batch_of_strings(server, client):
    calls = [{"INPUT0": np.array([[b"n%d" % i, b"\0" * i]], np.object_)} for i in range(8)]
    before = executions(client, "onnx_batch_strings")
    for call, got in zip(calls, run_together(server, "onnx_batch_strings", calls)):
        assert same(got["OUTPUT0"], call["INPUT0"])
    assert executions(client, "onnx_batch_strings") - before < len(calls)


def test_bad_request_in_a_batch_fails_alone(server):
    calls = [{"INPUT0": np.array([[i, 99 if i == 3 else 1]], "i8")} for i in range(8)]
    results = run_together(server, "onnx_batch_lookup", calls)
    for i, got in enumerate(results):
        if i == 3:
            assert "onnx_batch_lookup" in str(got)
        else:
            assert same(got["OUTPUT0"], np.array([[i * i, 1]]))


def test_same_model_from_many_threads(server):
    calls = [{"INPUT0": np.full((1, 16), i, "f4"), "INPUT1": np.full((1, 16), 1, "f4")}
             for i in range(64)]
    for i, got in enumerate(run_together(server, "onnx_add_sub_FP32", calls)):
        assert same(got["OUTPUT0"], np.full((1, 16), i + 1, "f4"))
