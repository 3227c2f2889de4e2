"""The python backend of PyPI's nvidia-pytriton, unmodified, for tests: its directory and a server.

It needs the stub's libpython3.11 (Debian's package libpython3.11) and numpy < 2 on the stub's own
search path, which begins with the backend's directory and knows no PYTHONPATH.

  TIS_VENV_TRITON   third_party/fetched/venv-triton
"""
import ctypes
import json
import os
import pathlib
import shutil
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))
from server import (ROOT, Server, add_model, config, executable, json_input,  # noqa: E402
                    parameter, tensor)

VENV = pathlib.Path(os.environ.get("TIS_VENV_TRITON", ROOT / "third_party/fetched/venv-triton"))
PACKAGES = VENV / "lib/python3.11/site-packages"
WHEEL = PACKAGES / "pytriton/tritonserver"
STUB = WHEEL / "python_backend_stubs/3.11/triton_python_backend_stub"
SHM = pathlib.Path("/dev/shm")


def missing():
    """Why the tests cannot run here, or ''."""
    if not STUB.exists():
        return f"no {STUB}: run scripts/venvs"
    try:
        ctypes.CDLL("libpython3.11.so.1.0")
    except OSError as error:
        return f"{error}: install Debian's libpython3.11"
    return ""


needs_python_backend = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


def make_backends(folder, ours=None):
    """A backend directory: the wheel's python, and as links those in the directory `ours`."""
    ours = ours or pathlib.Path(executable()).parent / "backends"
    python = folder / "python"
    python.mkdir(parents=True)
    for file in (WHEEL / "backends/python/libtriton_python.so",
                 WHEEL / "backends/python/triton_python_backend_utils.py", STUB):
        shutil.copy(file, python)
    for package in ("numpy", "numpy.libs"):
        (python / package).symlink_to(PACKAGES / package)
    for name in ("identity", "onnxruntime", "repeat"):
        (folder / name).symlink_to(ours / name)
    return folder


def start(models, backends, prefix, *flags, **more):
    """A server of the directory `models`. prefix: of the names of its shared memory."""
    return Server(models, f"--backend-directory={backends}", "--exit-on-error=false",
                  "--strict-readiness=false", f"--backend-config=python,shm-region-prefix-name={prefix}",
                  *flags, **more, env={
                      "LD_LIBRARY_PATH": str(PACKAGES / "nvidia_pytriton.libs"),
                      "LSAN_OPTIONS": f"suppressions={HERE}/python/lsan.txt:print_suppressions=0"})


def regions(prefix):
    return sorted(path.name for path in SHM.glob(f"{prefix}*"))


def stubs(server, model=""):
    """{pid: arguments} of the server's child processes, those of `model` alone if one is named."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = folder.joinpath("stat").read_text().rpartition(")")[2].split()[1]
            arguments = folder.joinpath("cmdline").read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == server.process.pid and (not model or f"/{model}/" in arguments[1]):
            found[int(folder.name)] = arguments
    return found


def add_python_model(repository, name, code, text=None):
    """code: the stem of a file in tests/backends/python."""
    add_model(repository, name, text,
              files={"1/model.py": (HERE / "python" / f"{code}.py").read_text()})


def text_of(inputs, outputs, batch=0, extra=""):
    """Text of a config.pbtxt; inputs and outputs are lists of (name, datatype, dims)."""
    return config("python", [tensor(*t) for t in inputs], [tensor(*t) for t in outputs], batch, extra)


SEEN = ("SEEN", "BYTES", [1])


def ask(server, model, call, **more):
    """What a model with the input CALL and the output SEEN answers to a JSON value."""
    answer = server.infer(model, {"inputs": [json_input("CALL", "BYTES", [1], [json.dumps(call)])],
                                  **more})
    assert answer.status == 200, answer
    return json.loads(answer.json()["outputs"][0]["data"][0])


__all__ = ["HERE", "SEEN", "SHM", "add_python_model", "ask", "make_backends", "missing",
           "needs_python_backend", "parameter", "regions", "start", "stubs", "text_of"]
