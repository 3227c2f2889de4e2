"""Plug-ins that break the rules (tests/backends/bad): each harms its own requests or model only.

One server has a model for each way of misbehaving and one good model. Those that kill or hang the
server have one of their own.
"""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients"))
from server import (BUILD, ROOT, Server, add_model, binary_body, binary_input, config,  # noqa: E402
                    executable, identity, infer_message, connect, pairs, parameter, run, wait_for)

BAD = pathlib.Path(executable()).parent / "tests" / "backends" / "bad"
RELEASE = pathlib.Path(os.environ.get("TIS_BUILD", BUILD)) / "trtserver"
CC = shutil.which("cc")
DATA = bytes(range(16))

pytestmark = pytest.mark.skipif(not (BAD / "libtriton_bad.so").exists(),
                                reason=f"no {BAD}: build with -Dtests=true")


def backend_folder(folder):
    """A backend directory: ours that are good, and the bad ones."""
    good = pathlib.Path(executable()).parent / "backends" / "identity" / "libtriton_identity.so"
    for library in [*BAD.glob("libtriton_*.so"), good]:
        name = re.fullmatch(r"libtriton_(\w+)\.so", library.name)[1]
        (folder / name).mkdir(parents=True)
        (folder / name / library.name).symlink_to(library)
    return folder


def bad(mode):
    return config("bad", *pairs("INT32", [4]), extra=parameter("mode", mode))


def other(backend):
    return config(backend, *pairs("INT32", [4]))


@pytest.fixture(scope="module")
def backends(tmp_path_factory):
    return backend_folder(tmp_path_factory.mktemp("backends"))


def serve(tmp_path, backends, models, *flags, **more):
    """A server of `models`, {name: text of config.pbtxt}, and the model 'good'."""
    for name, text in {**models, "good": identity("INT32", [4])}.items():
        add_model(tmp_path, name, text)
    return Server(tmp_path, f"--backend-directory={backends}", "--exit-on-error=false",
                  "--strict-readiness=false", *flags, **more)


def infer(server, model, binary=True):
    head = {"inputs": [binary_input("INPUT0", "INT32", [4], len(DATA))],
            "parameters": {"binary_data_output": binary}}
    return server.infer(model, *binary_body(head, DATA))


def assert_serves(server):
    answer = infer(server, "good")
    assert answer.status == 200 and answer.split()[1] == DATA, answer


# Mode -> what the server told the backend, in order.
TOLERATED = {
    "ok": [],
    "late": [],
    "late_after_release": [],
    "release_first": [],
    "two_responses": [],
    "send_twice": ["Invalid argument"] * 2,
    "release_twice": ["Invalid argument"] * 2,
    "reschedule": ["Invalid argument"],
    "send_after_final": ["Invalid argument"] * 2,
    "use_after_release": ["Invalid argument"] * 2,
    "factory_misuse": ["Invalid argument"] * 4,
    "output_twice": ["Already exists"],
    "error_execute_sent": [],
    "error_execute_answered": [],
}
# Mode -> HTTP status and words of the error.
REFUSED = {
    "no_response": (500, "ended the request without a response"),
    "wrong_name": (400, "model 'wrong_name' has no output 'NOT_THERE' in its configuration"),
    "no_buffer": (500, "sent output 'OUTPUT0' without memory"),
    "shape_too_large": (500, "output 'OUTPUT0' with 16 bytes, which its shape [9223372036854775807]"),
    "shape_negative": (500, "output 'OUTPUT0' with 16 bytes, which its shape [-1] of INT32"),
    "shape_other": (500, "output 'OUTPUT0' with 16 bytes, which its shape [5] of INT32"),
    "error_execute": (503, "execute fails"),
    "error_execute_cleared": (503, "execute fails"),
}
# Model -> configuration and words of the reason why it is not there.
UNAVAILABLE = {
    "error_model_initialize": (bad("error_model_initialize"), "this model shall not be"),
    "error_instance_initialize": (bad("error_instance_initialize"), "this instance shall not be"),
    "initialize_error": (other("initialize_error"), "no licence found"),
    "newer_api": (other("newer_api"), "interface version 1.19 is older than the 1.20 that is needed"),
    "no_execute": (other("no_execute"), "does not export TRITONBACKEND_ModelInstanceExecute"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory, backends):
    modes = [*TOLERATED, *REFUSED, "no_output", "bad_strings", "not_ready"]
    models = {**{mode: bad(mode) for mode in modes},
              **{name: text for name, (text, _) in UNAVAILABLE.items()}}
    with serve(tmp_path_factory.mktemp("models"), backends, models) as one:
        yield one
    # Here the server has ended well, by SIGTERM, with status 0 and no report of a sanitizer.


def statistics(server, model):
    found = server.statistics(model)["inference_stats"]
    assert found["success"]["ns"] < 60e9 and found["compute_infer"]["ns"] < 60e9, found
    return found["success"]["count"], found["fail"]["count"]


@pytest.mark.parametrize("mode", TOLERATED)
def test_answer_is_right_all_the_same(server, mode):
    for count in (1, 2, 3):
        answer = infer(server, mode)
        assert answer.status == 200, answer
        assert answer.split()[1] == DATA
        if not mode.startswith("error_"):
            assert statistics(server, mode) == (count, 0)
    if TOLERATED[mode]:
        # The last call may come after the client has its answer.
        wait_for(f"what {mode} was told", lambda: sum(
            f"bad {mode}: " in line for line in server.stderr_lines) == 3 * len(TOLERATED[mode]))
        told = [line.split(f"bad {mode}: ")[1] for line in list(server.stderr_lines)
                if f"bad {mode}: " in line]
        assert told == 3 * TOLERATED[mode]
    assert_serves(server)


@pytest.mark.parametrize("mode", REFUSED)
def test_client_gets_a_clear_error(server, mode):
    status, words = REFUSED[mode]
    for binary in (True, False):
        answer = infer(server, mode, binary)
        assert (answer.status, words in answer.error) == (status, True), answer
    if mode.startswith("error_"):
        assert statistics(server, mode) == (0, 2)
    assert_serves(server)


def test_strings_that_do_not_fit(server):
    """Binary bytes are the backend's business; as JSON they cannot be said."""
    answer = infer(server, "bad_strings", binary=False)
    assert answer.status == 500 and "strings whose lengths do not fit" in answer.error, answer
    assert_serves(server)


def test_no_output(server):
    answer = infer(server, "no_output")
    assert answer.status == 200 and answer.split()[0]["outputs"] == [], answer


def test_backend_says_not_ready(server):
    assert server.get("/v2/models/not_ready/ready").status != 200
    assert server.get("/v2/models/good/ready").status == 200


@pytest.mark.parametrize("name", UNAVAILABLE)
def test_model_that_cannot_load(server, name):
    """The reason stands in the index and in the log, the client hears that there is none."""
    words = UNAVAILABLE[name][1]
    entry = next(entry for entry in server.index() if entry["name"] == name)
    assert entry["state"] == "UNAVAILABLE" and words in entry["reason"], entry
    assert any(f"failed to load model={name}" in line and words in line
               for line in server.stderr_lines), server.log()
    answer = infer(server, name)
    assert answer.status in (400, 404, 503) and name in answer.error, answer
    assert_serves(server)


def test_failed_initialize_is_finalized(server):
    server.wait_log("initialize_error was finalized")


def test_many_at_once(server):
    """Late answers, double answers and errors of many clients at a time stay with their clients."""
    modes = ["late", "late_after_release", "ok", "good", "send_after_final", "error_execute"]
    wrong = []

    def client(mode):
        for _ in range(5):
            answer = infer(server, mode)
            good = answer.status == 503 if mode == "error_execute" else (
                answer.status == 200 and answer.split()[1] == DATA)
            if not good:
                wrong.append((mode, answer))
    threads = [threading.Thread(target=client, args=(mode,)) for mode in modes * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_client_that_leaves_before_the_late_answer(server):
    head = {"inputs": [binary_input("INPUT0", "INT32", [4], len(DATA))]}
    before = statistics(server, "late")[0]
    for _ in range(5):
        with connect(server.port) as s:
            s.sendall(infer_message("late", *binary_body(head, DATA)))
    # Each ran, or was cancelled while it waited.
    wait_for("five requests counted", lambda: sum(statistics(server, "late")) >= before + 5)
    assert_serves(server)


def test_never(tmp_path, backends):
    """A request that is never answered: the others go on, the exit waits for it and gives up."""
    server = serve(tmp_path, backends, {"never": bad("never")}, "--exit-timeout-secs=1")
    head = {"inputs": [binary_input("INPUT0", "INT32", [4], len(DATA))]}
    try:
        with connect(server.port) as s:
            s.sendall(infer_message("never", *binary_body(head, DATA)))
            wait_for("the request ran", lambda: statistics(server, "never")[0] == 1)
            assert_serves(server)
            server.stop(status=1)
        assert any("Exit timeout expired" in line for line in server.stderr_lines), server.log()
    finally:
        server.kill()


def test_exit_on_error_names_every_bad_model(tmp_path, backends):
    for name, (text, _) in UNAVAILABLE.items():
        add_model(tmp_path, name, text)
    status, _, err = run(f"--model-repository={tmp_path}", f"--backend-directory={backends}",
                         "--http-port=0", "--grpc-port=0", "--metrics-port=0")
    assert status == 1
    for name, (_, words) in UNAVAILABLE.items():
        assert re.search(rf"model '{name}'.*{re.escape(words)}", err), err


# ---- Crashes: the server is the release build, a sanitizer has reports of its own ----

def assert_crash_report(process, entry, model):
    _, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGSEGV
    found = re.search(r"^\*\*\* trtserver died of SIGSEGV inside backend '(\w+)', in (\w+) for model "
                      r"'(\w+)' version (\d+) \*\*\*$", err, re.M)
    assert found, err
    assert found.groups() == ("bad", entry, model, "1")
    assert "libtriton_bad.so" in err  # in the stack trace


def start_release(tmp_path, backends, model):
    if not RELEASE.exists():
        pytest.skip(f"no release build {RELEASE}")
    add_model(tmp_path, model, bad(model))
    return subprocess.Popen([RELEASE, f"--model-repository={tmp_path}", "--http-port=0", "--grpc-port=0", "--metrics-port=0",
                             "--http-address=127.0.0.1", f"--backend-directory={backends}"],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_crash_in_model_initialize(tmp_path, backends):
    process = start_release(tmp_path, backends, "crash_model_initialize")
    assert_crash_report(process, "TRITONBACKEND_ModelInitialize", "crash_model_initialize")


@pytest.mark.parametrize("mode", ["crash_execute", "overflow_execute"])
def test_crash_in_execute(tmp_path, backends, mode):
    process = start_release(tmp_path, backends, mode)
    try:
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        head = {"inputs": [binary_input("INPUT0", "INT32", [4], len(DATA))]}
        with connect(port) as s:
            s.sendall(infer_message(mode, *binary_body(head, DATA)))
            assert_crash_report(process, "TRITONBACKEND_ModelInstanceExecute", mode)
    finally:
        process.kill()
        process.wait()


# ---- A plug-in that names the server's library ----

@pytest.mark.skipif(not CC, reason="no compiler 'cc'")
def test_needed_libtritonserver(tmp_path):
    """The loader takes the running program for the library libtritonserver.so: no such file is
    there when the plug-in is loaded."""
    library = tmp_path / "backends" / "needs" / "libtriton_needs.so"
    library.parent.mkdir(parents=True)
    stub = tmp_path / "libtritonserver.so"
    subprocess.run([CC, "-shared", "-fPIC", "-x", "c", "/dev/null", "-o", stub,
                    "-Wl,-soname,libtritonserver.so"], check=True)
    subprocess.run([CC, "-shared", "-fPIC", f"-I{ROOT}/include", ROOT / "tests/backends/bad/bad.c",
                    "-o", library, "-Wl,--no-as-needed", stub, "-lpthread"], check=True)
    stub.unlink()
    needed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True)
    assert re.search(r"\(NEEDED\).*\[libtritonserver\.so\]", needed.stdout), needed.stdout
    add_model(tmp_path / "models", "m", config("needs", *pairs("INT32", [4]),
                                               extra=parameter("mode", "ok")))
    with Server(tmp_path / "models", f"--backend-directory={tmp_path / 'backends'}") as server:
        answer = infer(server, "m")
        assert answer.status == 200 and answer.split()[1] == DATA, answer
