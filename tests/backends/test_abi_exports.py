"""What the executable shows to plug-ins: the functions of the interface and nothing else, under the
name that plug-ins ask the loader for."""
import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE = ROOT / "src/exec/abi_table.txt"
RELEASE = pathlib.Path(os.environ.get("TIS_BUILD", ROOT / "build")) / "trtserver"

pytestmark = pytest.mark.skipif(not RELEASE.exists(), reason=f"no release build {RELEASE}")


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def table():
    rows = [line.split(" | ") for line in TABLE.read_text().splitlines()
            if line.startswith("TRITON")]
    return {row[0]: row[-1] for row in rows}


def exported():
    """Functions defined in the dynamic symbol table, without those that every program has."""
    names = re.findall(r"^[0-9a-f]+ [A-Z] (\S+)$", output("nm", "-D", "--defined-only", RELEASE),
                       re.M)
    return {name for name in names if not name.startswith("_") and "@" not in name}


def test_exports_are_the_table():
    """The 158 functions that public plug-ins import; beyond them only real ones of the header."""
    names = table()
    assert len(names) >= 158
    assert set(names) - exported() == set()
    extra = exported() - set(names)
    header = "".join((ROOT / "include/tis" / name).read_text()
                     for name in ("server.h", "backend.h"))
    assert {name for name in extra if f"{name}(" not in header} == set()


def test_soname():
    dynamic = output("readelf", "-d", RELEASE)
    assert re.search(r"\(SONAME\).*\[libtritonserver\.so\]", dynamic), dynamic
    assert re.search(r"FLAGS_1.*PIE", dynamic), dynamic
    assert "(RPATH)" not in dynamic and "(RUNPATH)" not in dynamic, dynamic
