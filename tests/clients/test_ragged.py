"""Batches of requests of unlike shapes, through the onnxruntime backend.

Each case runs in this server and, with the same model, configuration and backend file, in NVIDIA's
tritonserver (tests/clients/triton.py; skipped where that is missing), over HTTP and over gRPC. The
requests of a case are sent at the same time and wait in the batcher until all are there.
"""
import concurrent.futures
import itertools
import os
import pathlib

import pytest

import triton
from server import ROOT, Server, onnx_models

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


@pytest.fixture(scope="module", params=["ours", "triton"])
def server(request, repository, tmp_path_factory):
    library = f"--backend-config=onnxruntime,library={ORT}"
    if request.param == "ours":
        with Server(repository, library) as one:
            yield one
        return
    reason = triton.missing("onnxruntime")
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("triton")
    backends = triton.add_backends(folder / "backends", "onnxruntime")
    with triton.Triton(repository, backends, folder, library) as one:
        yield one


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
    before = server.statistics(model)["execution_count"]
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        results = list(pool.map(lambda call: infer(server, protocol, model, *call), calls))
    return results, server.statistics(model)["execution_count"] - before


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
