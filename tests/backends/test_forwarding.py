"""Forwarded headers, as a Python model sees them: by tritonclient, over HTTP v2 and v1 and over gRPC."""
import json
import os
import queue

import pytest

np = pytest.importorskip("numpy")

import tritonclient.grpc as client_grpc  # noqa: E402
import tritonclient.http as client_http  # noqa: E402

from python_backend import (SEEN, add_python_model, make_backends, needs_python_backend,  # noqa: E402
                            start, text_of)
from server import add_model, identity, json_input, run  # noqa: E402

PREFIX = f"tis_forward_{os.getpid()}_"
BODY = {"inputs": [json_input("X", "INT32", [1], [1])], "parameters": {"own": 3}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    add_python_model(models, "describe", "describe", text_of([("X", "INT32", [1])], [SEEN]))
    with start(models, make_backends(tmp_path_factory.mktemp("backends")), PREFIX,
               "--http-header-forward-pattern=^(x-|prio|triton)",
               "--grpc-header-forward-pattern=^x-(?!secret)") as one:
        yield one


pytestmark = needs_python_backend


def seen(text):
    return json.loads(text)["parameters"]


def test_http(server):
    """Matching names, with and without regard to case, behind the request's own parameters."""
    one = client_http.InferInput("X", [1], "INT32")
    one.set_data_from_numpy(np.array([1], np.int32))
    with client_http.InferenceServerClient(server.url) as client:
        result = client.infer("describe", [one], parameters={"own": 3}, headers={
            "X-One": "1", "x-two": "größe".encode().decode("latin-1"), "Other": "no"})
    assert seen(result.as_numpy("SEEN")[0]) == {"own": 3, "X-One": "1", "x-two": "größe"}


def test_without(server):
    """A request without such a header is as ever."""
    answer = server.infer("describe", BODY)
    assert seen(answer.json()["outputs"][0]["data"][0]) == {"own": 3}


def test_v1(server):
    answer = server.post("/api/infer/describe", b"\1\0\0\0", {
        "NV-InferRequest": 'batch_size: 1 input { name: "X" } output { name: "SEEN" }',
        "X-One": "1"})
    assert answer.status == 200, answer
    assert b'"X-One": "1"' in answer.body


@pytest.mark.parametrize("name", ["priority", "triton_x"])
def test_reserved(server, name):
    answer = server.infer("describe", BODY, {name: "1"})
    assert (answer.status, answer.error) == (
        400, f"Header '{name}' is reserved for Triton usage and cannot be forwarded.")


@pytest.fixture
def client(server):
    with client_grpc.InferenceServerClient(server.grpc_url) as c:
        yield c


def infer_x():
    one = client_grpc.InferInput("X", [1], "INT32")
    one.set_data_from_numpy(np.array([1], np.int32))
    return [one]


def test_grpc(client):
    """Metadata, decoded when its name says that it is binary; what is no text is left out."""
    result = client.infer("describe", infer_x(), parameters={"own": 3}, headers={
        "x-one": "1", "x-text-bin": "größe".encode(), "x-bytes-bin": b"\xff\0", "x-secret": "s",
        "other": "no"})
    assert seen(result.as_numpy("SEEN")[0]) == {"own": 3, "x-one": "1", "x-text-bin": "größe"}


def test_grpc_stream(client):
    """A stream's metadata reach each of its requests."""
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers={"x-one": "1"})
    for _ in range(2):
        client.async_stream_infer("describe", infer_x())
    for _ in range(2):
        result, error = answers.get(timeout=30)
        assert error is None and seen(result.as_numpy("SEEN")[0]) == {"x-one": "1"}
    client.stop_stream()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_bad_pattern(tmp_path, protocol):
    add_model(tmp_path, "copy", identity("INT32", [1]))
    status, _, err = run(f"--model-repository={tmp_path}", "--http-port=0", "--grpc-port=0", "--metrics-port=0",
                         f"--{protocol}-header-forward-pattern=x(")
    assert status == 1 and (f"--{protocol}-header-forward-pattern=x(: the pattern is wrong at "
                            "character 3: missing closing parenthesis") in err
