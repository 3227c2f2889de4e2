"""Restricted operations: each category over HTTP, v2 and v1, with, without and with wrong headers."""
import pytest

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


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return add_model(tmp_path_factory.mktemp("restricted"), "copy", identity("INT32", [1]))


@pytest.fixture(scope="module")
def server(repository):
    """Every category has a key of its own."""
    flags = [f"--http-restricted-api={c}:key-{c}=value of {c}" for c in CATEGORIES]
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


@pytest.mark.parametrize("flag", ["--http-restricted-api", "--grpc-restricted-protocol"])
@pytest.mark.parametrize("value, text", [
    ("helth:k=secret", "unknown category 'helth', expected of health, metadata, inference"),
    ("health", "expected <category>[,<category>]...:<key>=<value>"),
    ("health,trace,health:k=secret", "category 'health' is restricted twice"),
])
def test_bad_flags(repository, flag, value, text):
    status, _, err = run(f"--model-repository={repository}", f"{flag}={value}")
    assert status == 1 and f"{flag}: {text}" in err and "secret" not in err
