"""Where a backend's file is looked for, with our identity backend under other names."""
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients"))
from server import Server, add_model, config, executable, json_input, pairs  # noqa: E402

IDENTITY = pathlib.Path(executable()).parent / "backends/identity/libtriton_identity.so"


def text_of(backend, extra=""):
    return config(backend, *pairs("INT32", [-1]), extra=extra)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    models, backends = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("backends")
    wanted = {
        "in_model": ("own", "", "in_model/libtriton_own.so"),
        "in_version": ("own", "", "in_version/1/libtriton_own.so"),
        "in_backends": ("shared", "", None),
        "renamed": ("own", 'runtime: "libother.so"', "renamed/libother.so"),
        "absent": ("absent", "", None),
        "outside": ("own", 'runtime: "../in_model/libtriton_own.so"', None),
        "text": ("broken", "", None),
    }
    for name, (backend, extra, file) in wanted.items():
        add_model(models, name, text_of(backend, extra))
        if file:
            shutil.copy(IDENTITY, models / file)
    # The version's own file is taken, not the one for all.
    (models / "in_version" / "libtriton_own.so").write_text("no library")
    (models / "text" / "libtriton_broken.so").write_text("no library")
    (backends / "shared").mkdir()
    shutil.copy(IDENTITY, backends / "shared" / "libtriton_shared.so")
    with Server(models, f"--backend-directory={backends}", "--exit-on-error=false",
                "--strict-readiness=false") as one:
        yield one


@pytest.mark.parametrize("model", ["in_model", "in_version", "in_backends", "renamed"])
def test_file_is_found(server, model):
    answer = server.infer(model, {"inputs": [json_input("INPUT0", "INT32", [2], [1, 2])]})
    assert answer.status == 200 and answer.json()["outputs"][0]["data"] == [1, 2]


def test_each_file_is_a_backend_of_its_own(server):
    loaded = [line for line in server.stderr_lines if "backend loaded backend=own" in line]
    assert sorted(pathlib.Path(line.rpartition("file=")[2]).parent.name for line in loaded) == [
        "1", "in_model", "renamed"]


@pytest.mark.parametrize("model,words", [
    ("absent", ["unable to find backend library for backend 'absent'",
                "absent/1/libtriton_absent.so", "absent/libtriton_absent.so",
                "--backend-directory"]),
    ("outside", ["must be plain names"]),
    ("text", ["libtriton_broken.so' is not a shared object"]),
])
def test_reason_says_what_was_wrong(server, model, words):
    row = next(row for row in server.index() if row["name"] == model)
    assert row["state"] == "UNAVAILABLE"
    for word in words:
        assert word in row["reason"]
