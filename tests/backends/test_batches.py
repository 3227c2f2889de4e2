"""Builds onnxruntime_batches.c, kit_batches.c and repeat_player.c with the backends' sources and the
sanitizers, and runs them.

TIS_ORT is the engine's library, by default the one that scripts/fetch brings.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FETCHED = ROOT / "third_party/fetched"
ORT = pathlib.Path(os.environ.get("TIS_ORT", FETCHED / "onnxruntime/libonnxruntime.so.1.28.0"))
CC = os.environ.get("CC", "cc")

sys.path.insert(0, str(ROOT / "tests/data"))
import onnx_models  # noqa: E402

pytestmark = pytest.mark.timeout(900)  # it compiles with what the machine has left

MODELS = {
    "add_sub": onnx_models.add_sub("FP32", [None, None]),
    "lookup": onnx_models.lookup([None, 2]),
    "strings": onnx_models.identity("BYTES", [None, 2]),
    "double": onnx_models.double([None, "height", "width"]),
    "masked": onnx_models.masked(),
    "ragged": onnx_models.ragged("INT32"),
}


SANITIZERS = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def build(folder, flags, sources):
    yyjson = folder / "yyjson.o"
    subprocess.run([CC, "-w", "-O1", "-c", FETCHED / "yyjson/yyjson.c", "-o", yyjson], check=True)
    subprocess.run([CC, "-std=gnu17", "-D_GNU_SOURCE", "-g", *flags, "-Wall", "-Wextra", "-Werror",
                    "-Wno-unused-parameter", f"-I{ROOT}/include", f"-I{ROOT}/backends",
                    f"-I{ROOT}/tests/backends", "-isystem", FETCHED / "yyjson",
                    ROOT / "tests/backends/mini_host.c", *sources,
                    *sorted((ROOT / "backends/kit").glob("*.c")), yyjson, "-o", folder / "batches",
                    "-ldl"], check=True)
    return folder / "batches"


@pytest.fixture(autouse=True)
def requirements():
    if not shutil.which(CC):
        pytest.skip(f"no compiler '{CC}'")
    for path in (ORT, FETCHED / "yyjson/yyjson.c"):
        if not path.exists():
            pytest.skip(f"no {path}: run scripts/fetch")


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and done.stdout == "ok\n", done.stdout + done.stderr


def test_batches_under_sanitizers(tmp_path):
    for name, data in MODELS.items():
        (tmp_path / "models" / name / "1").mkdir(parents=True)
        (tmp_path / "models" / name / "1" / "model.onnx").write_bytes(data)
    program = build(tmp_path, SANITIZERS, [ROOT / "tests/backends/onnxruntime_batches.c",
                                           *sorted((ROOT / "backends/onnxruntime").glob("*.c"))])
    run(program, tmp_path / "models", ORT)


def test_kit_batches_under_sanitizers(tmp_path):
    """With the backend of docs/writing-a-backend.md."""
    page = (ROOT / "docs/writing-a-backend.md").read_text()
    code = re.search(r"^`scale\.c`:\n\n```c\n(.*?)^```$", page, re.M | re.S)[1]
    (tmp_path / "scale.c").write_text(code)
    run(build(tmp_path, SANITIZERS, [ROOT / "tests/backends/kit_batches.c", tmp_path / "scale.c"]))


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_player_of_repeat_under_sanitizers(tmp_path, sanitizer):
    kit = [ROOT / "backends/kit" / name for name in ("error.c", "tensor.c")]
    wraps = [f"-Wl,--wrap={name}" for name in ("malloc", "calloc", "realloc")]
    program = tmp_path / "player"
    subprocess.run([CC, "-std=gnu17", "-D_GNU_SOURCE", "-g", "-O1", f"-fsanitize={sanitizer}",
                    "-fno-sanitize-recover=all", "-Wall", "-Wextra", "-Werror",
                    "-Wno-unused-parameter", f"-I{ROOT}/include", f"-I{ROOT}/backends",
                    ROOT / "tests/backends/repeat_player.c", ROOT / "backends/repeat/player.c", *kit,
                    *wraps, "-pthread", "-o", program], check=True)
    # The thread sanitizer of GCC 12 cannot live with the address randomization of newer kernels.
    fixed = ["setarch", "-R"] if sanitizer == "thread" and shutil.which("setarch") and \
        subprocess.run(["setarch", "-R", "true"], capture_output=True).returncode == 0 else []
    run(*fixed, program)
