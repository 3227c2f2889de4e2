"""Batches of several requests in the onnxruntime and identity backends, ragged ones above all.

Each case runs in this server and, with the same model, configuration and backend file, in NVIDIA's
tritonserver (tests/clients/triton.py; skipped where that is missing), over HTTP and over gRPC. The
requests of a case are sent at the same time and wait in the batcher until all are there.
"""
import concurrent.futures
import itertools
import os
import pathlib
import re

import pytest

import triton
from server import ROOT, Server, onnx_models, wait_for

np = pytest.importorskip("numpy")
http = pytest.importorskip("tritonclient.http")
grpc = pytest.importorskip("tritonclient.grpc")
client_utils = pytest.importorskip("tritonclient.utils")

ORT = pathlib.Path(os.environ.get(
    "TIS_ORT", ROOT / "third_party/fetched/onnxruntime/libonnxruntime.so.1.28.0"))
SEEN = ["INPUT0", *onnx_models.BATCH_INPUTS]


def batching(size):
    """Waits (within reason) until requests of this many rows together are there."""
    return (f"dynamic_batching {{ preferred_batch_size: [ {size} ] "
            "max_queue_delay_microseconds: 5000000 }\n"
            "instance_group { kind: KIND_CPU count: 1 }\n")


def example():
    """The configuration that docs/backends.md gives as the example of a ragged batch."""
    page = (ROOT / "docs/backends.md").read_text()
    found = re.search(r"Together:\n\n((?:    .*\n)+)", page)[1]
    assert "dynamic_batching { }" in found
    return 'backend: "onnxruntime"\n' + found.replace("dynamic_batching { }", batching(3))


WARMUP = """
model_warmup { name: "three rows" batch_size: 3 count: 2
    inputs { key: "INPUT0" value { data_type: TYPE_FP32 dims: [ 7 ] random_data: true } }
    inputs { key: "SIZE" value { data_type: TYPE_FP32 dims: [ 1 ] zero_data: true } } }
"""


def models():
    """{name: (config.pbtxt, model.onnx)}"""
    m = {}
    for element, rows in itertools.product(("INT32", "FP32"), (1, 3, 4)):
        name = f"ragged_{element}_{rows}"
        m[name] = (onnx_models.ragged_config(name, element, extra=batching(rows)),
                   onnx_models.ragged(element))
    m["ragged_square"] = (
        onnx_models.ragged_config("ragged_square", "INT32", "[ -1, -1 ]", batching(4)),
        onnx_models.ragged("INT32"))
    m["twins"] = (
        onnx_models.ragged_config("twins", "INT32", extra="""
dynamic_batching { max_queue_delay_microseconds: 2000 }
instance_group { kind: KIND_CPU count: 2 }
""" + WARMUP), onnx_models.ragged("INT32"))
    m["ragged_strings"] = (f"""backend: "onnxruntime"
max_batch_size: 8
input {{ name: "TEXT" data_type: TYPE_STRING dims: [ -1 ] allow_ragged_batch: true }}
output {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] }}
batch_output {{ kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "OUTPUT0" source_input: "TEXT" }}
{batching(3)}""", onnx_models.numbers())
    m["example"] = (example(), onnx_models.segment_sums())
    m["lookup"] = (f"""backend: "onnxruntime"
max_batch_size: 8
input {{ name: "INPUT0" data_type: TYPE_INT64 dims: [ 2 ] }}
output {{ name: "OUTPUT0" data_type: TYPE_INT64 dims: [ 2 ] }}
{batching(4)}""", onnx_models.lookup([None, 2]))
    m["copies"] = (f"""backend: "identity"
max_batch_size: 8
input {{ name: "INPUT0" data_type: TYPE_STRING dims: [ -1 ] }}
output {{ name: "OUTPUT0" data_type: TYPE_STRING dims: [ -1 ] }}
{batching(6)}""", b"")
    m["padded"] = (f"""backend: "onnxruntime"
max_batch_size: 8
input {{ name: "IDS" data_type: TYPE_INT64 dims: [ -1 ] }}
input {{ name: "MASK" data_type: TYPE_FP32 dims: [ -1 ] }}
output {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] }}
output {{ name: "WHOLE" data_type: TYPE_FP32 dims: [ -1 ] }}
parameters {{ key: "pad_batch" value {{ string_value: "0" }} }}
parameters {{ key: "pad_batch.IDS" value {{ string_value: "-7" }} }}
{batching(4)}""", onnx_models.masked())
    m["padded_too_much"] = (f"""backend: "onnxruntime"
max_batch_size: 8
input {{ name: "INPUT0" data_type: TYPE_FP32 dims: [ -1, -1 ] }}
output {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1, -1 ] }}
parameters {{ key: "pad_batch" value {{ string_value: "0" }} }}
{batching(2)}""", onnx_models.double([None, "height", "width"]))
    return m


# ---- The servers ----

@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    if not ORT.exists():
        pytest.skip(f"no {ORT}: run scripts/fetch")
    folder = tmp_path_factory.mktemp("ragged") / "models"
    for name, (text, onnx) in models().items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(text)
        (folder / name / "1" / "model.onnx").write_bytes(onnx)
    return folder


LIBRARY = f"--backend-config=onnxruntime,library={ORT}"


@pytest.fixture(scope="module")
def ours(repository):
    with Server(repository, LIBRARY) as one:
        yield one


@pytest.fixture(scope="module")
def peer(repository, tmp_path_factory):
    reason = triton.missing("identity", "onnxruntime")
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("triton")
    backends = triton.add_backends(folder / "backends", "identity", "onnxruntime")
    with triton.Triton(repository, backends, folder, LIBRARY) as one:
        yield one


@pytest.fixture(scope="module", params=["ours", "peer"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["http", "grpc"])
def protocol(request):
    return request.param


def infer(server, protocol, model, arrays, outputs=None):
    """Sends {input: array}; returns {output: array}, or the error."""
    module, url = (http, server.url) if protocol == "http" else (grpc, server.grpc_url)
    inputs = []
    for name, array in arrays.items():
        inputs.append(module.InferInput(name, list(array.shape),
                                        client_utils.np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    wanted = [module.InferRequestedOutput(name) for name in outputs] if outputs else None
    with module.InferenceServerClient(url) as client:
        try:
            result = client.infer(model, inputs, outputs=wanted)
        except client_utils.InferenceServerException as error:
            return error
    response = result.get_response()
    names = ([o["name"] for o in response["outputs"]] if protocol == "http"
             else [o.name for o in response.outputs])
    return {name: result.as_numpy(name) for name in names}


def infer_together(server, protocol, model, calls):
    """The results of calls, (arrays, outputs) each, and how many executions they took."""
    def ended(statistics):
        return sum(statistics["inference_stats"][kind]["count"] for kind in ("success", "fail"))

    before = server.statistics(model)
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        results = list(pool.map(lambda call: infer(server, protocol, model, *call), calls))
    # Triton counts what it has answered.
    wait_for("the statistics", lambda: ended(server.statistics(model)) == ended(before) + len(calls))
    return results, server.statistics(model)["execution_count"] - before["execution_count"]


# ---- Ragged inputs ----

def ragged_calls(shapes):
    """Requests whose INPUT0 have these shapes and numbers that no other of them has."""
    calls, first = [], 1
    for shape in shapes:
        size = int(np.prod(shape))
        calls.append({"INPUT0": np.arange(first, first + size, dtype="f4").reshape(shape),
                      "SIZE": np.zeros((shape[0], 1), "f4")})
        first += size
    return calls


def order_of(flat, calls):
    """The calls as they lie in the flat tensor of their batch."""
    place = {float(value): i for i, value in enumerate(flat)}
    return sorted(calls, key=lambda call: place[float(call["INPUT0"].flat[0])])


def check_ragged(server, protocol, model, shapes):
    calls = ragged_calls(shapes)
    results, executions = infer_together(server, protocol, model, [(call, None) for call in calls])
    assert executions == 1
    for call, got in zip(calls, results):
        assert not isinstance(got, Exception), got
        assert got["OUTPUT0"].shape == call["INPUT0"].shape
        assert (got["OUTPUT0"] == call["INPUT0"] * 2).all()
        batch = order_of(got["SEEN_INPUT0"][0], calls)
        want = onnx_models.ragged_seen([one["INPUT0"].shape for one in batch])
        want["INPUT0"] = np.concatenate([one["INPUT0"].ravel() for one in batch])
        rows = call["INPUT0"].shape[0]
        for name in SEEN:
            seen = got[f"SEEN_{name}"]
            assert seen.shape == (rows, len(want[name])), name
            assert (seen == np.array(want[name], "f4")).all(), name


@pytest.mark.parametrize("element", ["INT32", "FP32"])
def test_one_request_alone_is_flat_too(server, protocol, element):
    check_ragged(server, protocol, f"ragged_{element}_1", [(1, 5)])


@pytest.mark.parametrize("element", ["INT32", "FP32"])
def test_requests_of_unlike_lengths(server, protocol, element):
    check_ragged(server, protocol, f"ragged_{element}_3", [(1, 2), (1, 4), (1, 1)])


def test_requests_of_unlike_batches(server, protocol):
    check_ragged(server, protocol, "ragged_INT32_4", [(2, 3), (1, 2), (1, 7)])


def test_requests_of_unlike_rectangles(server, protocol):
    check_ragged(server, protocol, "ragged_square", [(1, 2, 3), (2, 1, 4), (1, 5, 1)])


def test_each_request_gets_the_outputs_it_asked_for(server, protocol):
    calls = ragged_calls([(1, 2), (1, 3), (1, 4), (1, 1)])
    outputs = [["OUTPUT0"], ["SEEN_ELEMENT_COUNT", "OUTPUT0"], None, ["SEEN_ITEM_SHAPE"]]
    results, executions = infer_together(server, protocol, "ragged_INT32_4",
                                         list(zip(calls, outputs)))
    assert executions == 1
    for call, wanted, got in zip(calls, outputs, results):
        assert sorted(got) == sorted(wanted or ["OUTPUT0", *(f"SEEN_{name}" for name in SEEN)])
        if "OUTPUT0" in got:
            assert (got["OUTPUT0"] == call["INPUT0"] * 2).all()


def test_statistics_count_requests_and_rows(server, protocol):
    before = server.statistics("ragged_INT32_4")
    infer_together(server, protocol, "ragged_INT32_4",
                   [(call, None) for call in ragged_calls([(3, 2), (1, 9)])])
    after = server.statistics("ragged_INT32_4")
    grown = {key: after[key] - before[key] for key in ("inference_count", "execution_count")}
    assert grown == {"inference_count": 4, "execution_count": 1}
    assert after["inference_stats"]["success"]["count"] - \
        before["inference_stats"]["success"]["count"] == 2


def test_ragged_strings(server, protocol):
    calls = [{"TEXT": np.array([words], np.object_)} for words in
             ([b"1", b"22.5"], [b"-3"], [b"4", b"55", b"666", b"7e3"])]
    results, executions = infer_together(server, protocol, "ragged_strings",
                                         [(call, None) for call in calls])
    assert executions == 1
    for call, got in zip(calls, results):
        assert (got["OUTPUT0"] == call["TEXT"].astype("f4")).all()


def test_example_of_the_documentation(server, protocol):
    calls = [{"VALUES": np.array([row], "f4")} for row in ([1, 2, 3], [10], [100, 200])]
    results, executions = infer_together(server, protocol, "example", [(c, None) for c in calls])
    assert executions == 1
    for call, got in zip(calls, results):
        assert (got["SUMS"] == [[call["VALUES"].sum()]]).all()
        assert (got["SCALED"] == call["VALUES"] * 2).all()


def test_many_requests_on_two_instances(server, protocol):
    calls = ragged_calls([(1 + i % 3, 1 + i * 7 % 50) for i in range(200)])
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda call: infer(server, protocol, "twins", call), calls))
    for call, got in zip(calls, results):
        assert not isinstance(got, Exception), got
        assert (got["OUTPUT0"] == call["INPUT0"] * 2).all()
        assert (got["SEEN_ELEMENT_COUNT"] == call["INPUT0"].size).any(axis=1).all()
        assert len(got["SEEN_INPUT0"][0]) == got["SEEN_ELEMENT_COUNT"][0].sum()


# ---- Requests of like shapes ----

def test_request_that_breaks_the_run_fails_alone(server, protocol):
    before = server.statistics("lookup")["inference_stats"]
    calls = [{"INPUT0": np.array([[i, 99 if i == 2 else 1]], "i8")} for i in range(4)]
    results, executions = infer_together(server, protocol, "lookup", [(c, None) for c in calls])
    assert "model 'lookup': onnxruntime:" in str(results[2])
    for i in (0, 1, 3):
        assert (results[i]["OUTPUT0"] == [[i * i, 1]]).all()
    assert executions == 3  # those that gave something: each request was run again alone
    after = server.statistics("lookup")["inference_stats"]
    assert [after[key]["count"] - before[key]["count"] for key in ("success", "fail")] == [3, 1]


def test_rows_of_requests_add_up(server, protocol):
    before = server.statistics("copies")["inference_count"]
    calls = [{"INPUT0": np.array([[b"%d" % (10 * i + k)] for k in range(i)], np.object_)}
             for i in (1, 2, 3)]
    results, executions = infer_together(server, protocol, "copies", [(c, None) for c in calls])
    for call, got in zip(calls, results):
        assert (got["OUTPUT0"] == call["INPUT0"]).all()
    assert executions == 1 and server.statistics("copies")["inference_count"] - before == 6


# ---- Padded inputs: an extension of our onnxruntime backend ----

def padded_call(first, rows, length, mask_length=None):
    ids = np.arange(first, first + rows * length, dtype="i8").reshape(rows, length)
    return {"IDS": ids, "MASK": np.full((rows, mask_length or length), 0.5, "f4")}


def test_padded_inputs_share_an_execution(server, protocol):
    calls = [padded_call(10, 1, 3), padded_call(20, 2, 5), padded_call(40, 1, 1)]
    results, executions = infer_together(server, protocol, "padded", [(call, None) for call in calls])
    assert executions == 1
    for call, got in zip(calls, results):
        rows, length = call["IDS"].shape
        assert got["OUTPUT0"].shape == (rows, length)
        assert (got["OUTPUT0"] == call["IDS"] * 0.5).all()
        padding = np.full((rows, 5 - length), -7)
        assert (got["WHOLE"] == np.concatenate([call["IDS"], padding], axis=1)).all()


def test_padding_does_not_hide_what_does_not_belong_together(server, protocol):
    calls = [padded_call(10, 1, 3), padded_call(20, 1, 3, 2), padded_call(30, 2, 2)]
    results, _ = infer_together(server, protocol, "padded", [(call, None) for call in calls])
    assert "input 'MASK' has size 2 in dimension 1, expected 3 as input 'IDS'" in str(results[1])
    for i in (0, 2):
        assert (results[i]["OUTPUT0"] == calls[i]["IDS"] * 0.5).all()


def test_large_requests_are_not_padded_for_each_other(server, protocol):
    calls = [{"INPUT0": np.ones(shape, "f4")} for shape in ((1, 2000, 1), (1, 1, 2000))]
    results, executions = infer_together(server, protocol, "padded_too_much",
                                         [(call, None) for call in calls])
    assert executions == 2
    for call, got in zip(calls, results):
        assert got["OUTPUT0"].shape == call["INPUT0"].shape and (got["OUTPUT0"] == 2).all()
