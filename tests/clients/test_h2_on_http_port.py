"""gRPC on the HTTP port: connections that begin with the preface of HTTP/2 by prior knowledge.

TLS and ALPN are test_tls.py's.
"""
import queue
import socket

import grpc
import numpy as np
import pytest
import tritonclient.grpc as client_grpc

from server import Server, add_model, connect, identity, message, read_answer, wait_for

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
HEALTH = "/grpc.health.v1.Health/Check"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    repository = tmp_path_factory.mktemp("h2")
    add_model(repository, "m", identity(batch=8, dims=[-1]))
    add_model(repository, "slow", identity("INT32", [1], delay_ms=1500))
    return repository


@pytest.fixture(scope="module")
def server(repository):
    with Server(repository, "--http-header-timeout-secs=2") as server:
        yield server


def infer(client, model, values, datatype):
    i = client_grpc.InferInput("INPUT0", list(values.shape), datatype)
    i.set_data_from_numpy(values)
    return client.infer(model, [i])


def frame_type(s):
    """The type of the first frame that comes; None at the end of the stream."""
    head = b""
    while len(head) < 9:
        data = s.recv(9 - len(head))
        if not data:
            return None
        head += data
    return head[3]


def test_both_on_one_port(server):
    """HTTP/1.1 and gRPC at the same time, many connections of each."""
    values = np.arange(4 << 20, dtype=np.float32).reshape(1, -1)
    clients = [client_grpc.InferenceServerClient(server.url) for _ in range(4)]
    for client in clients:
        assert client.is_server_ready()
        assert server.is_ready()
    np.testing.assert_array_equal(infer(clients[0], "m", values, "FP32").as_numpy("OUTPUT0"), values)
    for client in clients:
        client.close()
    with client_grpc.InferenceServerClient(server.grpc_url) as client:
        assert client.is_server_ready()


@pytest.mark.parametrize("size", [1, 3, 23])
def test_preface_in_pieces(start, repository, size):
    """However it is cut, and with the first frames behind it in the same piece."""
    server = start(repository)  # with its own time for a head: each piece is a round trip
    with connect(server.port) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = PREFACE + SETTINGS
        for at in range(0, len(data), size):
            s.sendall(data[at:at + size])
            server.is_live()  # the server's loops have seen the piece, or will
        assert frame_type(s) == 4  # SETTINGS


@pytest.mark.parametrize("text", [b"P", b"PR", b"PRI * HTTP/2.0\r\n"])
def test_begins_like_it(server, text):
    """Something that only begins like the preface: HTTP/1 when more comes, else the head's deadline."""
    with connect(server.port) as s:
        s.sendall(text)
        server.is_live()
        s.sendall(b"OST /v2/health/live HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        assert read_answer(s).status == (405 if text == b"P" else 400)
    with connect(server.port) as s:
        s.sendall(text)
        assert read_answer(s).status == 408
    with connect(server.port) as s:
        s.sendall(text)
        s.shutdown(socket.SHUT_WR)
        assert s.recv(1) == b""


def test_only_at_the_beginning(server):
    """After an HTTP/1 request the preface is nothing but a request of a version we do not know."""
    with connect(server.port) as s:
        s.sendall(message("GET", "/v2/health/live") + PREFACE)
        found = b""
        while data := s.recv(65536):
            found += data
        assert found.startswith(b"HTTP/1.1 200 OK") and b"HTTP/1.1 505 " in found


def test_without_grpc(start, repository):
    """--allow-grpc=false removes it here too."""
    server = start(repository, "--allow-grpc=false")
    with connect(server.port) as s:
        s.sendall(PREFACE + SETTINGS)
        assert read_answer(s, "GET").status == 505
    with grpc.insecure_channel(server.url) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary(HEALTH)(b"", timeout=5)


def test_drain(start, repository):
    """A call that came by the HTTP port is in the gRPC server's drain: served to its end."""
    server = start(repository)
    answers = queue.Queue()
    with client_grpc.InferenceServerClient(server.url) as client:
        i = client_grpc.InferInput("INPUT0", [1], "INT32")
        i.set_data_from_numpy(np.array([7], np.int32))
        client.async_infer("slow", [i], lambda result, error: answers.put((result, error)))
        assert client.is_server_ready()  # behind the call, on the same connection
        server.signal()
        result, error = answers.get(timeout=20)
        assert error is None and result.as_numpy("OUTPUT0")[0] == 7
        assert server.wait_exit() == 0


def test_limit_of_connections(start, repository):
    """Connections that went over count as gRPC's, and give their place back at their end."""
    server = start(repository, "--http-max-connections=2")
    for _ in range(5):
        with client_grpc.InferenceServerClient(server.url) as client:
            # The ones before may not have been seen to go.
            wait_for("a free place", lambda: is_ready(client))
    wait_for("a free place", lambda: is_served(server))


def is_ready(client):
    try:
        return client.is_server_ready()
    except client_grpc.InferenceServerException:
        return False


def is_served(server):
    try:
        return server.is_live()
    except (OSError, ValueError):
        return False
