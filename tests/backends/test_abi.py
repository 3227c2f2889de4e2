"""The table of the backend interface, its generator, and the header agree."""
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE = ROOT / "src/exec/abi_table.txt"
CC = shutil.which("cc")

pytestmark = pytest.mark.skipif(not CC, reason="no compiler 'cc'")


def generate_and_compile(folder, table_text):
    (folder / "table.txt").write_text(table_text)
    done = subprocess.run([sys.executable, ROOT / "scripts/gen_abi.py", folder / "table.txt",
                           folder / "abi.c"], capture_output=True, text=True)
    if done.returncode:
        return done
    return subprocess.run([CC, "-std=c17", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}/include",
                           "-c", folder / "abi.c", "-o", folder / "abi.o"],
                          capture_output=True, text=True)


def test_table_holds_every_function_of_the_header():
    rows = [line.split(" | ")[0] for line in TABLE.read_text().splitlines() if "|" in line
            and not line.startswith("#")]
    header = "".join((ROOT / "include/tis" / name).read_text()
                     for name in ("server.h", "backend.h"))
    header = header[:header.index("What a backend defines")]
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    declared = set(re.findall(r"\b(TRITON(?:SERVER|BACKEND)_\w+)\(", header))
    assert len(rows) == 158 and set(rows) == declared


def test_generated_file_defines_the_stubs_alone(tmp_path):
    text = TABLE.read_text()
    done = generate_and_compile(tmp_path, text)
    assert done.returncode == 0, done.stderr
    symbols = subprocess.run(["nm", "--defined-only", tmp_path / "abi.o"], capture_output=True,
                             text=True, check=True).stdout
    defined = {line.split()[2] for line in symbols.splitlines() if " T " in line}
    stubs = {line.split(" | ")[0] for line in text.splitlines() if "| stub: " in line}
    assert defined == stubs


@pytest.mark.parametrize("right,wrong", [
    ("uint32_t *major, uint32_t *minor", "uint32_t *major"),
    ("DataTypeString | const char *", "DataTypeString | char *"),
    ("LogIsEnabled | bool", "LogIsEnabled | int"),
])
def test_wrong_prototype_does_not_compile(tmp_path, right, wrong):
    text = TABLE.read_text()
    assert right in text
    done = generate_and_compile(tmp_path, text.replace(right, wrong, 1))
    assert done.returncode != 0 and "include/tis and abi_table.txt differ" in done.stderr


@pytest.mark.parametrize("line,words", [
    ("TRITONSERVER_X | void | void | 1.0 | maybe", "state 'maybe', expected `real` or"),
    ("TRITONSERVER_X | void", "2 fields, expected 5"),
    ("TRITONSERVER_X | struct x | void | 1.0 | stub: why", "no safe value known"),
    ("TRITONBACKEND_ApiVersion | void | void | 1.0 | stub: why", "listed twice"),
])
def test_bad_table_is_refused(tmp_path, line, words):
    done = generate_and_compile(tmp_path, TABLE.read_text() + line + "\n")
    assert done.returncode != 0 and words in done.stderr
