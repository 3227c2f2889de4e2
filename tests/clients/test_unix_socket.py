"""HTTP and gRPC on Unix domain sockets, with curl, http.client by hand, grpcio and tritonclient."""
import os
import signal
import socket
import stat
import subprocess

import numpy as np
import pytest
import tritonclient.grpc as client_grpc

from server import LINE, add_model, identity, message, read_answer, run

PORTLESS = LINE.removesuffix(":")


@pytest.fixture
def repository(tmp_path):
    return add_model(tmp_path / "models", "m", identity(dims=[-1]))


@pytest.fixture
def paths(tmp_path):
    return tmp_path / "http.sock", tmp_path / "grpc.sock"


def start_unix(start, repository, paths, *flags):
    http, grpc = paths
    server = start(repository, f"--http-address=unix:{http}", f"--grpc-address=unix:{grpc}", *flags,
                   wait=False)
    assert server.wait_line(server.stdout_lines, PORTLESS) == f"{PORTLESS}unix:{http}"
    return server


def dial(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(str(path))
    return s


def get(path, target="/v2/health/ready"):
    with dial(path) as s:
        s.sendall(message("GET", target))
        return read_answer(s, "GET")


def infer(url, count=1000):
    values = np.arange(count, dtype=np.float32)
    with client_grpc.InferenceServerClient(url) as client:
        i = client_grpc.InferInput("INPUT0", [count], "FP32")
        i.set_data_from_numpy(values)
        np.testing.assert_array_equal(client.infer("m", [i]).as_numpy("OUTPUT0"), values)


def test_both(start, repository, paths):
    """Both protocols, also gRPC on HTTP's socket; the files are ours alone and go at the end."""
    http, grpc = paths
    server = start_unix(start, repository, paths)
    for path in paths:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    assert get(http).status == 200
    found = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}",
                            "--unix-socket", http, "http://localhost/v2/health/ready"],
                           capture_output=True, text=True)
    assert found.stdout == "200"
    infer(f"unix:{grpc}")
    infer(f"unix:{grpc}", 4 << 20)
    infer(f"unix:{http}")
    server.stop()
    assert not http.exists() and not grpc.exists()


def test_with_tcp(start, repository, paths):
    """A list of addresses: TCP and Unix at the same time."""
    server = start(repository, f"--http-address=127.0.0.1,unix:{paths[0]}")
    assert server.is_ready()
    assert get(paths[0]).status == 200
    infer(server.grpc_url)


def test_slashes(start, repository, paths):
    start(repository, f"--http-address=unix://{paths[0]}", wait=False).wait_log("http open")
    assert get(paths[0], "/v2/health/live").status == 200


def test_stale_and_taken(start, repository, paths):
    """What a killed server left is replaced; what a living one uses is an error."""
    server = start_unix(start, repository, paths)
    server.signal(signal.SIGKILL)
    server.process.wait()
    assert paths[0].exists()

    start_unix(start, repository, paths)
    assert get(paths[0]).status == 200
    status, _, err = run(f"--model-store={repository}", f"--http-address=unix:{paths[0]}",
                         "--allow-grpc=false")
    assert (status, f"Unix socket '{paths[0]}': already in use" in err) == (1, True), err
    assert get(paths[0]).status == 200

    paths[0].unlink()
    paths[0].write_text("somebody's file")
    status, _, err = run(f"--model-store={repository}", f"--http-address=unix:{paths[0]}",
                         "--allow-grpc=false")
    assert (status, "is not a socket" in err) == (1, True), err
    assert paths[0].read_text() == "somebody's file"


def test_same_port_number(start, repository, paths):
    """Equal ports are an error; a Unix socket has none."""
    text = "The server cannot listen to HTTP requests and gRPC requests at the same port"
    status, _, err = run(f"--model-store={repository}", "--http-port=12345", "--grpc-port=12345")
    assert (status, text in err) == (1, True), err
    start_unix(start, repository, paths, "--http-port=12345", "--grpc-port=12345")
    assert get(paths[0]).status == 200


def test_allow(start, repository):
    """gRPC alone; neither of both is an error."""
    server = start(repository, "--allow-http=false")
    infer(server.grpc_url)
    assert server.grpc_url == f"127.0.0.1:{server.port}"
    status, _, err = run(f"--model-store={repository}", "--allow-http=false", "--allow-grpc=false")
    assert status == 1
    assert "At least one of the following options must be true: --allow-http, --allow-grpc" in err
