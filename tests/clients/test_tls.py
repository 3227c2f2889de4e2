"""TLS and mutual TLS on both ports, with Python's ssl, curl, grpcio and tritonclient.

Certificates are made by the tests. What a test waits for is an event: an answer, a line of the log,
the end of a connection.
"""
import asyncio
import http.client
import queue
import signal
import socket
import ssl
import subprocess

import grpc
import numpy as np
import pytest
import tritonclient.grpc as client_grpc
import tritonclient.grpc.aio as client_grpc_aio
import tritonclient.http as client_http

from certificates import Authority
from server import (Server, add_model, binary_body, binary_input, connect, identity,
                    infer_message, json_input, message, read_answer, run)

BIG = 16 << 20
SLOW = infer_message("slow", {"inputs": [json_input("INPUT0", "FP32", [1], [7])]})


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    repository = tmp_path_factory.mktemp("tls")
    add_model(repository, "m", identity())
    add_model(repository, "slow", identity(delay_ms=1500))
    return repository


@pytest.fixture(scope="module")
def secure(authority, repository):
    """A server with TLS on both ports."""
    with Server(repository, *authority.flags("http", "grpc"), "--http-header-timeout-secs=2",
                "--log-verbose=1") as server:
        yield server


@pytest.fixture(scope="module")
def mutual(authority, repository):
    with Server(repository, *authority.flags("http", "grpc", mutual=True)) as server:
        yield server


def context(authority, pair=None):
    c = ssl.create_default_context(cafile=authority.root.certificate)
    if pair:
        c.load_cert_chain(pair.certificate, pair.key)
    return c


def dial(server, authority, pair=None, protocols=None):
    """A connection of Python's ssl; the handshake is over."""
    c = context(authority, pair)
    if protocols:
        c.set_alpn_protocols(protocols)
    return c.wrap_socket(connect(server.port), server_hostname="localhost")


def serial_of(s):
    return int(s.getpeercert()["serialNumber"], 16)


def answer_of(s, method="GET", path="/v2/health/live", body=b"", headers=None):
    s.sendall(message(method, path, body, headers))
    return read_answer(s, method)


def big_request(values):
    head = {"inputs": [binary_input("INPUT0", "FP32", [len(values)], values.nbytes)],
            "parameters": {"binary_data_output": True}}
    return binary_body(head, values.tobytes())


def grpc_credentials(authority, pair=None):
    return grpc.ssl_channel_credentials(
        authority.root.certificate.read_bytes(),
        pair.key.read_bytes() if pair else None,
        pair.certificate.read_bytes() if pair else None)


def grpc_client(url, authority, pair=None, module=client_grpc):
    return module.InferenceServerClient(
        url, ssl=True, root_certificates=str(authority.root.certificate),
        private_key=str(pair.key) if pair else None,
        certificate_chain=str(pair.certificate) if pair else None)


def infer_input(values):
    i = client_grpc.InferInput("INPUT0", list(values.shape), "FP32")
    i.set_data_from_numpy(values)
    return i


# ---- HTTP ----

def test_http(secure, authority):
    """Many requests on one connection, in one direction and the other; plain HTTP gets nothing."""
    with dial(secure, authority) as s:
        assert s.version() == "TLSv1.3"
        for _ in range(3):
            assert answer_of(s).status == 200
        # Pipelined: the second request lies decrypted while the first one is answered.
        s.sendall(message("GET", "/v2/health/live") * 20)
        found = b""
        while found.count(b"HTTP/1.1 200 OK") < 20:
            data = s.recv(65536)
            assert data, found
            found += data
    with connect(secure.port) as s:
        s.sendall(message("GET", "/v2/health/live"))
        assert b"HTTP" not in s.recv(100)
    line = secure.wait_log("tls handshake fails: http request")
    assert "peer=127.0.0.1" in line


def test_http_big(secure, authority):
    """16 MiB each way, whole and chunked."""
    values = np.arange(BIG // 4, dtype=np.float32)
    body, headers = big_request(values)
    with dial(secure, authority) as s:
        answer = answer_of(s, "POST", "/v2/models/m/infer", body, headers)
        assert answer.split()[1] == values.tobytes()
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in
                          (body[i:i + 100_000] for i in range(0, len(body), 100_000)))
        answer = answer_of(s, "POST", "/v2/models/m/infer", chunks + b"0\r\n\r\n",
                           {**headers, "Content-Length": None, "Transfer-Encoding": "chunked"})
        assert answer.split()[1] == values.tobytes()


def test_http_slow_reader(secure, authority):
    """An answer larger than the sockets hold waits for its reader."""
    values = np.arange(BIG // 4, dtype=np.float32)
    body, headers = big_request(values)
    with dial(secure, authority) as s:
        s.sendall(message("POST", "/v2/models/m/infer", body, headers))
        assert s.recv(1) == b"H"
        with dial(secure, authority) as other:
            assert answer_of(other).status == 200
        rest = b""
        while len(rest) < BIG:
            rest += s.recv(1 << 20)
        assert rest.endswith(values.tobytes()[-1000:])


class Memory:
    """A TLS client whose goodbye goes out when we say so: Python's sockets cannot read behind it."""

    def __init__(self, server, authority):
        self.socket = connect(server.port)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context(authority).wrap_bio(self.incoming, self.outgoing,
                                               server_hostname="localhost")
        self.until_done(self.tls.do_handshake)

    def flush(self):
        self.socket.sendall(self.outgoing.read())

    def until_done(self, operation):
        while True:
            try:
                return operation()
            except ssl.SSLWantReadError:
                self.flush()
                data = self.socket.recv(65536)
                self.incoming.write(data) if data else self.incoming.write_eof()

    def say_goodbye(self):
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()

    def read_all(self):
        """Everything up to the server's goodbye, which must come."""
        found = b""
        with pytest.raises(ssl.SSLZeroReturnError):
            while True:
                found += self.until_done(lambda: self.tls.read(65536))
        return found


def test_half_close(secure, authority):
    """The client says goodbye, gets what it had asked for before, and then the server's goodbye."""
    client = Memory(secure, authority)
    with client.socket:
        client.tls.write(message("GET", "/v2/health/live") * 3)
        client.say_goodbye()
        assert client.read_all().count(b"HTTP/1.1 200 OK") == 3


def test_connection_close(secure, authority):
    """The server's last answer ends with a goodbye, not with a cut."""
    with dial(secure, authority) as s:
        s.sendall(message("GET", "/v2", headers={"Connection": "close"}))
        assert read_answer(s, "GET").status == 200
        assert s.recv(1) == b""


def test_curl(secure, authority):
    url = f"https://localhost:{secure.port}/v2/health/ready"
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", url]
    found = subprocess.run([*command, "--cacert", authority.root.certificate], capture_output=True,
                           text=True)
    assert found.stdout == "200 1.1", found
    assert subprocess.run(command, capture_output=True).returncode == 60  # nobody it knows


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
def test_old_protocols(secure, authority):
    """TLS 1.2 is spoken, 1.1 is not."""
    c = context(authority)
    c.maximum_version = ssl.TLSVersion.TLSv1_2
    with c.wrap_socket(connect(secure.port), server_hostname="localhost") as s:
        assert s.version() == "TLSv1.2"
        assert answer_of(s).status == 200
    c.set_ciphers("DEFAULT@SECLEVEL=0")
    c.minimum_version = c.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        c.wrap_socket(connect(secure.port), server_hostname="localhost")


@pytest.mark.parametrize("offered, chosen", [
    (["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), (["h2"], "h2")])
def test_alpn(secure, authority, offered, chosen):
    with dial(secure, authority, protocols=offered) as s:
        assert s.selected_alpn_protocol() == chosen


def test_slow_handshake(secure):
    """Nothing, half a handshake, garbage: the connection is closed, the first two in time."""
    silent, half = connect(secure.port), connect(secure.port)
    half.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
    for s in (silent, half):
        with s:
            assert s.recv(1) == b""
    with connect(secure.port) as s:
        s.sendall(b"\xff" * 1000)
        while s.recv(100):  # an alert, perhaps
            pass


def test_many_at_once(secure, authority):
    """More handshakes than one round of the loop takes, and all are served."""
    sockets = [dial(secure, authority) for _ in range(40)]
    for s in sockets:
        s.sendall(message("GET", "/v2/health/live"))
    for s in sockets:
        with s:
            assert read_answer(s, "GET").status == 200


def test_http_client(secure, authority):
    """tritonclient.http with ssl=True."""
    with client_http.InferenceServerClient(
            f"localhost:{secure.port}", ssl=True,
            ssl_context_factory=lambda: context(authority)) as client:
        values = np.arange(1000, dtype=np.float32)
        i = client_http.InferInput("INPUT0", [1000], "FP32")
        i.set_data_from_numpy(values)
        np.testing.assert_array_equal(client.infer("m", [i]).as_numpy("OUTPUT0"), values)


# ---- gRPC ----

@pytest.mark.parametrize("count", [1, BIG // 4])
def test_grpc(secure, authority, count):
    values = np.arange(count, dtype=np.float32)
    with grpc_client(secure.grpc_url, authority) as client:
        found = client.infer("m", [infer_input(values)]).as_numpy("OUTPUT0")
        np.testing.assert_array_equal(found, values)


def test_grpc_many(secure, authority):
    """Many calls at once on one connection, small and large ones."""
    async def calls():
        async with grpc_client(secure.grpc_url, authority, module=client_grpc_aio) as client:
            arrays = [np.full(1 if i % 2 else 100_000, i, np.float32) for i in range(64)]
            answers = await asyncio.gather(*(client.infer("m", [infer_input(a)]) for a in arrays))
            for a, answer in zip(arrays, answers):
                np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), a)
    asyncio.run(calls())


def test_grpc_on_http_port(secure, authority):
    """ALPN offers h2 only, so the same port speaks gRPC."""
    with grpc_client(f"localhost:{secure.port}", authority) as client:
        assert client.is_server_ready()
        values = np.arange(BIG // 4, dtype=np.float32)
        found = client.infer("m", [infer_input(values)]).as_numpy("OUTPUT0")
        np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("port", ["grpc", "http"])
def test_grpc_stream(secure, authority, port):
    """One bidirectional stream, small and large messages in turn."""
    url = secure.grpc_url if port == "grpc" else f"localhost:{secure.port}"
    answers = queue.Queue()
    arrays = [np.full(1 if i % 3 else 200_000, i, np.float32) for i in range(30)]
    with grpc_client(url, authority) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for i, array in enumerate(arrays):
            client.async_stream_infer("m", [infer_input(array)], request_id=str(i))
        for _ in arrays:
            result, error = answers.get(timeout=30)
            assert error is None
            array = arrays[int(result.get_response().id)]
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)
        client.stop_stream()


def test_grpc_plain_client(secure):
    """A client without TLS gets no connection."""
    with grpc.insecure_channel(secure.grpc_url) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


# ---- Mutual TLS ----

def test_mutual_http(mutual, authority):
    with dial(mutual, authority, authority.client) as s:
        assert answer_of(s).status == 200
    for pair in (None, authority.stranger):
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.BadStatusLine)):
            with dial(mutual, authority, pair) as s:  # with TLS 1.3 it is the answer that fails
                answer_of(s)
                raise AssertionError("served")


@pytest.mark.parametrize("port", ["grpc", "http"])
def test_mutual_grpc(mutual, authority, port):
    url = mutual.grpc_url if port == "grpc" else f"localhost:{mutual.port}"
    with grpc_client(url, authority, authority.client) as client:
        assert client.is_server_live()
    for pair in (None, authority.stranger):
        with grpc.secure_channel(url, grpc_credentials(authority, pair)) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


# ---- Reload ----

def test_reload(start, repository, tmp_path):
    """SIGHUP: new connections see the new certificate, old ones go on; a bad file changes nothing."""
    own = Authority(tmp_path)
    server = start(repository, *own.flags("http", "grpc"))
    with dial(server, own) as old, grpc_client(server.grpc_url, own) as client:
        assert (serial_of(old), answer_of(old).status) == (11, 200)
        assert client.is_server_live()
        old.sendall(SLOW)

        own.renewed.copy_to(own.server)
        server.signal(signal.SIGHUP)
        assert 'subject="CN=renewed" expires=20' in server.wait_log("tls reloaded port=grpc")
        with dial(server, own) as new:
            assert (serial_of(new), answer_of(new).status) == (12, 200)
        assert read_answer(old).status == 200
        assert client.is_server_live()

        own.server.key.write_text("no key\n")
        server.signal(signal.SIGHUP)
        line = server.wait_log("tls reload fails port=grpc")
        assert "--grpc-server-key" in line and "keeping the certificate in use" in line
        with dial(server, own) as new:
            assert (serial_of(new), answer_of(new).status) == (12, 200)
        assert answer_of(old).status == 200


def test_drain(start, repository, authority):
    """A request in flight is answered over TLS; handshakes that have not begun hold nothing up."""
    server = start(repository, *authority.flags("http", "grpc"), "--http-header-timeout-secs=60",
                   "--http-thread-count=1")
    host, _, port = server.grpc_url.rpartition(":")
    with dial(server, authority) as s, connect(server.port), \
            socket.create_connection((host, int(port))):
        s.sendall(SLOW)
        with dial(server, authority) as other:  # one loop: what was sent first is read first
            assert answer_of(other).status == 200
        server.signal()
        assert read_answer(s).status == 200
        assert s.recv(1) == b""
        assert server.wait_exit() == 0


# ---- Command line ----

@pytest.mark.parametrize("flags, text", [
    (["--http-use-ssl"], "--http-use-ssl needs --http-server-cert=FILE"),
    (["--grpc-use-ssl", "--grpc-server-cert=a"], "--grpc-use-ssl needs --grpc-server-key=FILE"),
    (["--grpc-use-ssl-mutual", "--grpc-server-cert=a", "--grpc-server-key=b"],
     "--grpc-use-ssl-mutual needs --grpc-root-cert=FILE"),
    (["--http-use-ssl", "--http-server-cert=/no/such", "--http-server-key=b"],
     "--http-server-cert=/no/such: No such file or directory"),
])
def test_wrong_flags(tmp_path, flags, text):
    status, _, err = run(f"--model-store={tmp_path}", "--http-port=0", "--grpc-port=0", "--metrics-port=0", *flags)
    assert (status, text in err) == (1, True), err


def test_wrong_key(tmp_path, authority):
    status, _, err = run(f"--model-store={tmp_path}", "--http-port=0", "--grpc-port=0", "--metrics-port=0",
                         "--grpc-use-ssl", f"--grpc-server-cert={authority.server.certificate}",
                         f"--grpc-server-key={authority.client.key}")
    assert (status, "the key is not that of the certificate" in err) == (1, True), err


def test_unused_files(start, repository, authority):
    """As in Triton, files without the switch are no error; but the log says so."""
    server = start(repository, f"--http-server-cert={authority.server.certificate}")
    server.wait_log("--http-use-ssl is false")
    assert server.is_live()
