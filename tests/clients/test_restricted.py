"""Restricted operations: each category over HTTP, v2 and v1, and over gRPC, with, without and with wrong
headers."""
import grpc
import numpy as np
import pytest
import tritonclient.grpc as client_grpc
import tritonclient.http as client_http
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import \
    ProtoReflectionDescriptorDatabase
from tritonclient.utils import InferenceServerException

from server import Server, add_model, identity, json_input, run

CATEGORIES = ["health", "metadata", "inference", "shared-memory", "model-config",
              "model-repository", "statistics", "trace", "logging"]
INFER = {"inputs": [json_input("INPUT0", "INT32", [1], [7])]}
# v2: method, path, category
HTTP = [
    ("GET", "/v2", "metadata"),
    ("GET", "/v2/health/live", "health"),
    ("GET", "/v2/health/ready", "health"),
    ("GET", "/v2/models/copy/ready", "health"),
    ("GET", "/v2/models/copy", "metadata"),
    ("GET", "/v2/models/copy/versions/1", "metadata"),
    ("GET", "/v2/models/copy/config", "model-config"),
    ("GET", "/v2/models/stats", "statistics"),
    ("GET", "/v2/models/copy/stats", "statistics"),
    ("POST", "/v2/repository/index", "model-repository"),
    ("POST", "/v2/repository/models/copy/unload", "model-repository"),
    ("POST", "/v2/models/copy/infer", "inference"),
    ("GET", "/v2/logging", "logging"),
    ("POST", "/v2/logging", "logging"),
]
# v1: with all the categories that the answer shows
V1 = [
    ("GET", "/api/health/live", ["health"]),
    ("GET", "/api/health/ready", ["health"]),
    ("GET", "/api/status/copy", ["metadata", "model-config", "statistics"]),
    ("GET", "/api/profile?cmd=start", ["trace"]),
    ("GET", "/api/repository/index", ["model-repository"]),
    ("POST", "/api/modelcontrol/unload/copy", ["model-repository"]),
    ("POST", "/api/infer/copy", ["inference"]),
]
V1_RPC = "/nvidia.inferenceserver.GRPCService/"
V2 = "/inference.GRPCInferenceService/"
GRPC = [
    (V2 + "ServerLive", "health"),
    (V2 + "ServerReady", "health"),
    (V2 + "ModelReady", "health"),
    (V2 + "ServerMetadata", "metadata"),
    (V2 + "ModelMetadata", "metadata"),
    (V2 + "ModelInfer", "inference"),
    (V2 + "ModelStreamInfer", "inference"),
    (V2 + "ModelConfig", "model-config"),
    (V2 + "ModelStatistics", "statistics"),
    (V2 + "RepositoryIndex", "model-repository"),
    (V2 + "RepositoryModelLoad", "model-repository"),
    (V2 + "RepositoryModelUnload", "model-repository"),
    (V2 + "SystemSharedMemoryStatus", "shared-memory"),
    (V2 + "SystemSharedMemoryRegister", "shared-memory"),
    (V2 + "SystemSharedMemoryUnregister", "shared-memory"),
    (V2 + "CudaSharedMemoryStatus", "shared-memory"),
    (V2 + "CudaSharedMemoryRegister", "shared-memory"),
    (V2 + "CudaSharedMemoryUnregister", "shared-memory"),
    (V2 + "TraceSetting", "trace"),
    (V2 + "LogSettings", "logging"),
    (V1_RPC + "Health", "health"),
    (V1_RPC + "Profile", "trace"),
    (V1_RPC + "Infer", "inference"),
    (V1_RPC + "StreamInfer", "inference"),
    (V1_RPC + "ModelControl", "model-repository"),
    (V1_RPC + "SharedMemoryControl", "shared-memory"),
    (V1_RPC + "Repository", "model-repository"),
    ("/grpc.health.v1.Health/Check", "health"),
    ("/grpc.health.v1.Health/Watch", "health"),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "metadata"),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "metadata"),
]
PREFIX = "triton-grpc-protocol-"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return add_model(tmp_path_factory.mktemp("restricted"), "copy", identity("INT32", [1]))


@pytest.fixture(scope="module")
def server(repository):
    """Every category has a key of its own."""
    flags = [f"--{flag}={c}:key-{c}=value of {c}" for c in CATEGORIES
             for flag in ("http-restricted-api", "grpc-restricted-protocol")]
    with Server(repository, *flags) as one:
        yield one


def send(server, method, path, headers=None):
    return server.request(method, path, b"{}" if method == "POST" else b"", headers)


def key(category):
    return {f"Key-{category}": f"value of {category}"}


@pytest.mark.parametrize("method, path, category", HTTP)
def test_v2(server, method, path, category):
    """403 without the key, with a wrong value and with another category's key; else as ever."""
    text = f"This API is restricted, expecting header 'key-{category}'"
    other = next(c for c in CATEGORIES if c != category)
    for headers in ({}, {f"key-{category}": "wrong"}, {f"key-{category}": ""}, key(other)):
        answer = send(server, method, path, headers)
        assert (answer.status, answer.error) == (403, text)
    assert send(server, method, path, key(category)).status != 403


@pytest.mark.parametrize("method, path, categories", V1)
def test_v1(server, method, path, categories):
    """400 with NV-Status, as v1 refuses; the status needs the keys of all that it shows."""
    headers = {}
    for category in categories:
        answer = send(server, method, path, headers)
        # The value is a message in text form, which escapes quotes.
        status = answer.headers["NV-Status"].replace("\\", "")
        assert (answer.status, status.partition(" server_id")[0]) == (
            400, "code: UNAVAILABLE msg: \"This API is restricted, expecting header "
                 f"'key-{category}'\"")
        headers |= key(category)
    assert "restricted" not in send(server, method, path, headers).headers["NV-Status"]


def test_infer(server):
    """With the key an inference works, and a connection goes on after a refused body."""
    answer = server.infer("copy", INFER, key("inference"))
    assert answer.json()["outputs"][0]["data"] == [7]
    assert server.infer("copy", INFER).status == 403


def test_open(repository):
    """What is not restricted stays open, and one key may open several categories."""
    with Server(repository, "--http-restricted-api=model-repository,statistics:admin=1") as server:
        assert server.infer("copy", INFER).status == 200
        assert server.is_ready()
        assert server.get("/v2").status == 200
        for path in ("/v2/models/stats", "/api/status"):
            assert server.get(path).status == (403 if path.startswith("/v2") else 400)
            assert server.request("GET", path, headers={"admin": "1"}).status == 200


def fails(channel, path, metadata=None):
    """Code and text of a call with an empty message; None when it is answered."""
    answers = channel.stream_stream(path, lambda m: m, lambda m: m)(
        iter([b""]), timeout=30, metadata=metadata)
    try:
        next(answers, None)
        answers.cancel()
    except grpc.RpcError as error:
        return error.code(), error.details()
    return None


@pytest.mark.parametrize("path, category", GRPC)
def test_grpc(server, path, category):
    """UNAVAILABLE without the key, with a wrong value, without the prefix, and with HTTP's key."""
    name, value = f"key-{category}", f"value of {category}"
    refused = (grpc.StatusCode.UNAVAILABLE,
               f"This protocol is restricted, expecting header '{PREFIX}{name}'")
    with grpc.insecure_channel(server.grpc_url) as channel:
        for metadata in ((), ((PREFIX + name, "wrong"),), ((name, value),)):
            assert fails(channel, path, metadata) == refused
        assert fails(channel, path, ((PREFIX + name, value),)) != refused


def test_grpc_on_the_http_port(server):
    """What restricts is the operation and its protocol, not the port: HTTP's key opens nothing there."""
    value = "value of inference"
    with grpc.insecure_channel(server.url) as channel:
        assert fails(channel, V2 + "ModelInfer", (("key-inference", value),)) == (
            grpc.StatusCode.UNAVAILABLE,
            f"This protocol is restricted, expecting header '{PREFIX}key-inference'")
        assert "restricted" not in fails(channel, V2 + "ModelInfer",
                                         ((f"{PREFIX}key-inference", value),))[1]


def test_grpc_v1_status(server):
    """As over HTTP, it needs the keys of all that it shows."""
    metadata = ()
    with grpc.insecure_channel(server.grpc_url) as channel:
        for category in ("metadata", "model-config", "statistics"):
            assert f"'{PREFIX}key-{category}'" in fails(channel, V1_RPC + "Status", metadata)[1]
            metadata += ((f"{PREFIX}key-{category}", f"value of {category}"),)
        assert fails(channel, V1_RPC + "Status", metadata) is None


def test_every_method(server):
    """The list above is complete: the server describes no other method that exists here."""
    key = (PREFIX + "key-metadata", "value of metadata")

    class AddKey(grpc.StreamStreamClientInterceptor):
        def intercept_stream_stream(self, continuation, details, requests):
            return continuation(details._replace(metadata=(key,)), requests)

    with grpc.insecure_channel(server.grpc_url) as plain:
        channel = grpc.intercept_channel(plain, AddKey())
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = descriptor_pool.DescriptorPool(database)
        known = {path for path, _ in GRPC} | {V1_RPC + "Status"}
        for service in database.get_services():
            for method in pool.FindServiceByName(service).methods:
                path = f"/{service}/{method.name}"
                assert path in known or fails(plain, path)[0] == grpc.StatusCode.UNIMPLEMENTED, path


@pytest.mark.parametrize("module, prefix", [(client_http, ""), (client_grpc, PREFIX)])
def test_tritonclient(server, module, prefix):
    url = server.url if module is client_http else server.grpc_url
    one = module.InferInput("INPUT0", [1], "INT32")
    one.set_data_from_numpy(np.array([7], np.int32))
    with module.InferenceServerClient(url) as client:
        with pytest.raises(InferenceServerException, match="is restricted, expecting header"):
            client.infer("copy", [one])
        headers = {f"{prefix}key-inference": "value of inference"}
        assert client.infer("copy", [one], headers=headers).as_numpy("OUTPUT0") == [7]
        with pytest.raises(InferenceServerException, match="key-model-repository"):
            client.get_model_repository_index(headers=headers)


@pytest.mark.parametrize("flag", ["--http-restricted-api", "--grpc-restricted-protocol"])
@pytest.mark.parametrize("value, text", [
    ("helth:k=secret", "unknown category 'helth', expected of health, metadata, inference"),
    ("health", "expected <category>[,<category>]...:<key>=<value>"),
    ("health,trace,health:k=secret", "category 'health' is restricted twice"),
])
def test_bad_flags(repository, flag, value, text):
    status, _, err = run(f"--model-repository={repository}", f"{flag}={value}")
    assert status == 1 and f"{flag}: {text}" in err and "secret" not in err
