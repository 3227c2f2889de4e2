"""Byte-exact requests and responses; README.md here explains the files.

Each folder below is one server; its cases run against it in the order of their names, every one on
a connection of its own. A case passes when the server's bytes are the file's, no more and no fewer.
Then the cases are played to further servers over gRPC (over_grpc.py), and say the same.
"""
import contextlib
import pathlib
import re
import socket
import struct
import sys

import grpc
import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))
from over_grpc import BridgeV1, BridgeV2  # noqa: E402
from server import Server, add_model, config, identity, onnx_models, tensor  # noqa: E402

DEADLINE_S = 30
PLACEHOLDERS = {"request_id": rb"[1-9][0-9]*", "number": rb"[1-9][0-9]*", "length": rb"([0-9]+)",
                "text": rb'(?:[^"\\\n]|\\.)+'}

# ---- Servers ----

SIMPLE = {"id": {"text": identity("INT32", [2], 8)}}
MODELS = {
    # The latest version is 3; three of the four elements have labels.
    "add": {
        "text": config("onnxruntime", [tensor(f"INPUT{i}", "INT32", [4]) for i in (0, 1)],
                       [tensor("OUTPUT0", "INT32", [4], 'label_filename: "labels.txt"'),
                        tensor("OUTPUT1", "INT32", [4])], 8, "version_policy { all {} }"),
        "versions": (1, 3), "onnx": onnx_models.add_sub("INT32", [None, 4]),
        "files": {"labels.txt": "zero\none\ntwo\n"}},
    "single": {"text": identity("INT32", [2, 2])},
    "any": {"text": identity("FP32", [-1, 2], 4)},
    "text": {"text": identity("BYTES", [2], 4)},
    "half": {"text": identity("FP16", [2], 4)},
    "truth": {"text": identity("BOOL", [2], 4)},
    # A batch entry is one number: the engine sees [batch].
    "scalar": {"text": config("identity",
                              [tensor("INPUT0", "INT64", [1], "reshape { shape: [] }")],
                              [tensor("OUTPUT0", "INT64", [1], "reshape { shape: [] }")], 4)},
    # A table of ten squares: any other index makes the engine fail.
    "squares": {"text": config("onnxruntime", [tensor("INPUT0", "INT64", [2])],
                               [tensor("OUTPUT0", "INT64", [2])], 4),
                "onnx": onnx_models.lookup([None, 2])},
}
BROKEN = {**SIMPLE, "empty": {"text": config("onnxruntime", [tensor("INPUT0", "FP32", [2])],
                                             [tensor("OUTPUT0", "FP32", [2])], 4)}}
STAY = "--exit-on-error=false"
# Folder -> models, flags, and what the log says when it is as far as the cases want it (None: the
# models are loaded). A folder `none` is a repository that does not exist.
SERVERS = {
    "v1_ready": (MODELS, [], None),
    "v2_ready": (MODELS, [], None),
    "v1_profiling": (SIMPLE, ["--allow-profiling", "--id=front/7"], None),
    "v1_statistics": (SIMPLE, [], None),
    "v1_loading": ({"id": {"text": identity("INT32", [2], 8, load_secs=4)}}, [], "http open"),
    "v1_limits": (SIMPLE, ["--http-max-input-size=64", "--http-max-header-size=1024"], None),
    "v1_init_failed": (SIMPLE, [STAY, "--model-repository={folder}/none"], "staying up"),
    "v1_init_failed_lenient": (SIMPLE, [STAY, "--strict-readiness=false",
                                        "--model-repository={folder}/none"], "staying up"),
    "v1_model_failed": (BROKEN, [STAY], None),
    "v1_model_failed_lenient": (BROKEN, [STAY, "--strict-readiness=false"], None),
}


def start_server(folder, tmp):
    models, flags, until = SERVERS[folder]
    for name, model in models.items():
        add_model(tmp / "models", name, **model)
    flags = [flag.format(folder=tmp) for flag in flags]
    server = Server(tmp / "models", *flags, wait=until is None)
    if until:
        server.port = int(re.search(r"port=(\d+)", server.wait_log("http open")).group(1))
        server.wait_log(until)
    return server


@contextlib.contextmanager
def servers_in_turn(tmp_path_factory):
    """Starts a folder's server when its first case asks; the one before has ended by then."""
    running = {}

    def stop():
        for folder in list(running):
            running.pop(folder).stop()

    def get(folder):
        if folder not in running:
            stop()
            running[folder] = start_server(folder, tmp_path_factory.mktemp(folder))
        return running[folder]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORRT_SERVER_VERSION", "0.9.0")
        yield get
        stop()


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with servers_in_turn(tmp_path_factory) as get:
        yield get


@pytest.fixture(scope="module")
def bridges(tmp_path_factory):
    """Servers of their own: the cases of a folder count what was asked before."""
    channels = {}
    with servers_in_turn(tmp_path_factory) as get, contextlib.ExitStack() as stack:
        def bridge(folder):
            url = get(folder).grpc_url
            if url not in channels:
                channels[url] = stack.enter_context(grpc.insecure_channel(url))
            return (BridgeV2 if folder.startswith("v2") else BridgeV1)(channels[url])
        yield bridge


# ---- Files ----

def body_item(line):
    """The bytes of one line below the blank line."""
    kind, _, rest = line.partition(" ")
    if kind == "line":
        return rest.replace("\\r", "\r").encode() + b"\n"
    if kind == "text":
        return rest.encode()
    if kind == "hex":
        return bytes.fromhex(rest)
    if kind == "string":
        return struct.pack("<I", len(rest.encode())) + rest.encode()
    formats = {"i32": "i", "i64": "q", "f32": "f", "f16": "e", "bool": "?"}
    values = [float(v) if kind[0] == "f" else int(v) for v in rest.split()]
    return struct.pack(f"<{len(values)}{formats[kind]}", *values)


def read_case(path):
    """Head and body of a file, still with placeholders."""
    lines = path.read_text().splitlines()
    while lines[0].startswith("#"):
        lines.pop(0)
    blank = lines.index("")
    head = "".join(f"{line}\r\n" for line in lines[:blank]) + "\r\n"
    return head.encode(), b"".join(body_item(line) for line in lines[blank + 1:]
                                   if not line.startswith("#"))


def request_bytes(path):
    head, body = read_case(path)
    return head.replace(b"{length}", str(len(body)).encode()) + body


def expression(template):
    """The regular expression of a response's bytes."""
    parts = re.split(rb"\{(%s)\}" % "|".join(PLACEHOLDERS).encode(), template)
    return b"".join(PLACEHOLDERS[part.decode()] if i % 2 else re.escape(part)
                    for i, part in enumerate(parts))


def converse(port, request):
    """All the server says to the request. The client half-closes only when it has the answer: a
    half-close before it would cancel the request."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as connection:
        connection.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            assert more, f"closed after {data!r}"
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)\r\nContent-Length: *(\d+)", head).group(1))
        while len(body) < length:
            more = connection.recv(65536)
            assert more, f"closed after {head!r} {body!r}"
            body += more
        connection.shutdown(socket.SHUT_WR)
        while True:
            more = connection.recv(65536)
            if not more:
                return head + b"\r\n\r\n", body
            body += more


def shown(data):
    return data.decode("latin-1").replace("\r\n", "\n")


def test_status_in_binary(servers):
    """The message's length varies with its times; tests/clients/ read it with the real client."""
    head, body = converse(servers("v1_limits").port,
                          b"GET /api/status?format=binary HTTP/1.1\r\nHost: test\r\n\r\n")
    assert re.fullmatch(rb'HTTP/1.1 200 OK\r\nNV-Status: code: SUCCESS server_id: "inference:0" '
                        rb"request_id: \d+\r\nContent-Type: application/octet-stream\r\n"
                        rb"Content-Length: %d\r\n\r\n" % len(body), head)
    assert body.startswith(b"\x0a\x0binference:0\x12\x050.9.0\x18")


CASES = sorted(HERE.glob("*/*.request"))


def test_every_case_has_its_files():
    assert len(CASES) > 80
    for path in CASES:
        assert path.with_suffix(".response").is_file() and path.parent.name in SERVERS
    for kind in ("response", "grpc"):
        assert {p.with_suffix("") for p in HERE.glob(f"*/*.{kind}")} <= \
            {p.with_suffix("") for p in CASES}
    assert len(GRPC_CASES) > 80


def check(path, head, body):
    want_head, want_body = read_case(path)
    match = re.fullmatch(expression(want_head), head)
    if not match or not re.fullmatch(expression(want_body), body):
        assert shown(head + body) == shown(want_head + want_body)  # pytest shows the difference
    for length in match.groups():
        assert int(length) == len(body)


@pytest.mark.parametrize("path", CASES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_bytes(servers, path):
    head, body = converse(servers(path.parent.name).port, request_bytes(path))
    check(path.with_suffix(".response"), head, body)


def has_operation(path):
    """v1_limits are those of HTTP; what v1 answers without NV-Status is no operation."""
    folder = path.parent.name
    return folder.startswith("v2") or \
        folder != "v1_limits" and "\nNV-Status" in path.with_suffix(".response").read_text()


GRPC_CASES = [path for path in CASES if has_operation(path)]
# Headers and versions that no message can hold, and forms of the body.
HTTP_ONLY = {"error_header_bad", "error_header_missing", "error_header_both_dialects",
             "error_09_version_huge", "infer_chunked_body", "status_json", "status_json_accept",
             "status_json_accept_format", "infer_json_bad"}


@pytest.mark.parametrize("path", GRPC_CASES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_the_same_over_grpc(bridges, path):
    """NAME.grpc is the answer where gRPC's differs, see README.md."""
    answer = bridges(path.parent.name).play(request_bytes(path))
    assert (answer is None) == (path.stem in HTTP_ONLY)
    if answer:
        different = path.with_suffix(".grpc")
        check(different if different.exists() else path.with_suffix(".response"), *answer)
