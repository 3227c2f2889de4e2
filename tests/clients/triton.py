"""NVIDIA's tritonserver as a child process: what tests compare ours with, and load our backends in.

It comes with the nvidia-pytriton wheel. Paths, and the variables that replace them:
  TIS_VENV_TRITON   third_party/fetched/venv-triton
  TIS_BUILD         build, with our backends
"""
import os
import pathlib
import shutil
import socket
import subprocess
import time

from server import ROOT, STOP_SECONDS_MAX, HttpClient

VENV = pathlib.Path(os.environ.get("TIS_VENV_TRITON", ROOT / "third_party/fetched/venv-triton"))
PACKAGES = VENV / "lib/python3.11/site-packages"
BINARY = PACKAGES / "pytriton/tritonserver/bin/tritonserver"
BACKENDS = pathlib.Path(os.environ.get("TIS_BUILD", ROOT / "build")) / "backends"
START_SECONDS_MAX = 60


def missing(*backends):
    """Why it cannot run with these backends of ours, or ''."""
    if not BINARY.exists():
        return f"no {BINARY}: run scripts/venvs"
    for name in backends:
        file = BACKENDS / name / f"libtriton_{name}.so"
        if not file.exists():
            return f"no {file}: build first"
    return ""


def add_backends(folder, *names):
    """Copies backends of ours into a backend directory."""
    for name in names:
        (folder / name).mkdir(parents=True)
        shutil.copy(BACKENDS / name / f"libtriton_{name}.so", folder / name)
    return folder


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Triton(HttpClient):
    """One server. Use it in a `with` block, or end it with stop()."""

    def __init__(self, models, backends, folder, *flags):
        self.port, self.grpc_port = free_ports(2)
        self.log_file = pathlib.Path(folder) / "triton.log"
        command = [BINARY, f"--model-repository={models}", f"--backend-directory={backends}",
                   "--exit-on-error=false", "--strict-readiness=false", "--allow-gpu-metrics=false",
                   "--allow-metrics=false", "--http-address=127.0.0.1", f"--http-port={self.port}",
                   "--http-thread-count=16", "--grpc-address=127.0.0.1",
                   f"--grpc-port={self.grpc_port}", *flags]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                command, env={**os.environ, "LD_LIBRARY_PATH": str(PACKAGES / "nvidia_pytriton.libs")},
                stdout=log, stderr=subprocess.STDOUT)
        try:
            self.wait_open()
        except BaseException:
            self.kill()
            raise

    def wait_open(self):
        """Returns when the server answers; fails when it ends or takes too long."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            try:
                self.process.wait(timeout=0.05)
                break
            except subprocess.TimeoutExpired:
                pass
            try:
                if self.is_live():
                    return
            except OSError:
                pass  # not listening yet
        raise AssertionError(f"tritonserver did not come up:\n{self.log()}")

    def log(self):
        return self.log_file.read_text()[-6000:]

    @property
    def grpc_url(self):
        return f"127.0.0.1:{self.grpc_port}"

    def stop(self):
        self.process.terminate()
        assert self.process.wait(STOP_SECONDS_MAX) == 0, self.log()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        try:
            if kind is None:
                self.stop()
        finally:
            self.kill()
