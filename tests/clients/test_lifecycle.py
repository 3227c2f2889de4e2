"""From the command line to the exit status: flags, loading, readiness, drain, limits, clients that go.

Each test starts servers of its own. What a test waits for is an event with a deadline: a line, an
answer, an exit. Models are identity models, which can be told to load or to run slowly.
"""
import re
import signal
import socket
import struct
import subprocess
import time

import pytest

from server import (LINE, add_model, config, connect, executable, free_port, identity,
                    infer_message, json_input, message, onnx_models, pairs, read_answer, run,
                    tensor, wait_for)

ONE_LOOP = "--http-thread-count=1"  # what was sent first is read first
BODY = {"inputs": [json_input("INPUT0", "FP32", [1], [7])]}


def names(server):
    """{(model, version): state} of the index."""
    return {(e["name"], e.get("version")): e["state"] for e in server.index()}


def answers(server, model, version=None):
    at = "" if version is None else f"/versions/{version}"
    return server.post(f"/v2/models/{model}{at}/infer", BODY).status == 200


def send(server, model):
    """Sends a request and returns its socket. With ONE_LOOP, the server has read it then."""
    s = connect(server.port)
    s.sendall(infer_message(model, BODY))
    assert server.is_live()
    return s


def reset(s):
    """Closes so that the peer sees a reset."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


# ---- Command line ----

def test_help_and_version():
    """--help lists every flag with a text; --version is one line; both exit with 0."""
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    flags = re.findall(r"^  --([a-z0-9-]+)=", out, re.M)
    assert len(flags) > 25 and len(set(flags)) == len(flags)
    for name in ("model-repository", "model-store", "http-port", "exit-timeout-secs",
                 "strict-readiness", "backend-config", "max-inflight-bytes"):
        assert name in flags
    assert all(len(line) <= 100 for line in out.splitlines())
    status, out, err = run("--version")
    assert (status, err) == (0, "") and re.fullmatch(r"trtserver \S+\n", out)


@pytest.mark.parametrize("arguments,words", [
    (["--model-stor=x"], ["Unrecognized option: --model-stor=x", "did you mean --model-store?"]),
    (["--http-prot=1"], ["did you mean --http-port?"]),
    (["--strict_readiness=true"], ["did you mean --strict-readiness?"]),
    (["--qwertyuiop"], ["Unrecognized option: --qwertyuiop", "--help"]),
    (["models"], ["Unrecognized option: models"]),
    (["-h"], ["Unrecognized option: -h"]),
    ([], ["--model-store must be specified"]),
    (["--model-store"], ["--model-store needs a value"]),
    (["--model-store=x", "--http-port=70000"], ["--http-port=70000", "from 0 to 65535"]),
    (["--model-store=x", "--http-port=-1"], ["--http-port=-1", "from 0 to 65535"]),
    (["--model-store=x", "--http-port="], ["--http-port=", "from 0 to 65535"]),
    (["--model-store=x", "--strict-readiness=maybe"], ["expected true or false"]),
    (["--model-store=x", "--allow-http=false", "--allow-grpc=false"],
     ["--allow-http, --allow-grpc"]),
    (["--model-store=x", "--backend-config=x"], ["--backend-config=x", "NAME,KEY=VALUE"]),
    (["--model-store=x", "--grpc-port=70000"], ["--grpc-port=70000", "from 0 to 65535"]),
])
def test_wrong_flags(arguments, words):
    """One line says what is wrong, with the nearest name; exit status 1, nothing on stdout."""
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert err.startswith("trtserver: ")
    for word in words:
        assert word in err


def test_flag_forms(tmp_path, start):
    """--name=value, --name value, a boolean alone; the repository's both names together."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    add_model(tmp_path / "a", "first", identity())
    add_model(tmp_path / "b", "second", identity())
    server = start([tmp_path / "a"], "--model-store", str(tmp_path / "b"), "--strict-readiness",
                   "--id", "name", "--allow-grpc=false", "--allow-metrics", "false",
                   "--log-verbose", "1", "--http-thread-count=3")
    assert server.get("/v2").json()["name"] == "name"
    assert names(server) == {("first", "1"): "READY", ("second", "1"): "READY"}


def test_console(tmp_path, start):
    """stdout carries one line, the real port; the log goes to stderr in its form."""
    add_model(tmp_path, "m", identity())
    server = start(tmp_path)
    assert server.port != 0 and server.is_ready()
    server.stop()
    assert server.stdout_lines == [f"{LINE}{server.port}"]
    form = re.compile(r"[EWI]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ [a-z0-9_]+\.c:\d+\] ")
    assert server.stderr_lines and all(form.match(line) for line in server.stderr_lines), \
        server.log()


def test_port_taken(tmp_path, start):
    """A taken port is an error that names it; with --reuse-http-port on both it is shared."""
    add_model(tmp_path, "m", identity())
    first = start(tmp_path)
    status, out, err = run(f"--model-store={tmp_path}", "--http-address=127.0.0.1",
                           f"--http-port={first.port}", "--grpc-port=0", "--metrics-port=0")
    assert (status, out) == (1, "")
    assert "error: creating server: " in err and str(first.port) in err
    assert first.is_ready()
    port = free_port()
    start(tmp_path, "--reuse-http-port=true", port=port)
    assert start(tmp_path, "--reuse-http-port=true", port=port).is_ready()


@pytest.mark.parametrize("address", ["300.1.1.1", "no.such.host.invalid", "192.0.2.1"])
def test_address_wrong(tmp_path, address):
    """An address that is none, or not ours."""
    status, out, err = run(f"--model-store={tmp_path}", f"--http-address={address}",
                           "--http-port=0", "--grpc-port=0", "--metrics-port=0")
    assert (status, out) == (1, "")
    assert address in err


# ---- Loading and readiness ----

def test_ports_open_while_loading(tmp_path, start):
    """Live at once; a model that is loaded serves while another loads; ready when all are."""
    add_model(tmp_path, "fast", identity())
    add_model(tmp_path, "slow", identity(load_secs=6))
    server = start(tmp_path, port=free_port(), wait=False)
    assert server.is_live() and not server.is_ready()
    wait_for("the fast model", lambda: answers(server, "fast"))
    wait_for("an index of both", lambda: len(names(server)) == 2)
    assert names(server) == {("fast", "1"): "READY", ("slow", "1"): "LOADING"}
    assert not server.is_ready()
    assert server.get("/v2/models/slow/ready").status == 400
    answer = server.post("/v2/models/slow/versions/1/infer", BODY)
    assert (answer.status, answer.error) == (
        503, "Request for unknown model: 'slow' version 1 is not at ready state")
    answer = server.infer("slow", BODY)
    assert (answer.status, answer.error) == (
        404, "Request for unknown model: 'slow' has no available versions")
    assert server.index({"ready": True}) == [{"name": "fast", "version": "1", "state": "READY"}]
    assert server.stdout_lines == []
    server.wait_loaded()
    wait_for("readiness", server.is_ready)
    assert answers(server, "slow")


def test_models_load_in_parallel(tmp_path, start):
    """Six models of two seconds each are up before twelve seconds."""
    for i in range(6):
        add_model(tmp_path, f"m{i}", identity(load_secs=2))
    begin = time.monotonic()
    server = start(tmp_path, "--model-load-thread-count=6")
    assert time.monotonic() - begin < 11
    assert server.is_ready()


def bad_models(folder):
    """{name: words of its reason}; none of them loads."""
    add_model(folder, "bad_text", "name: \n }")
    add_model(folder, "bad_field", 'backend: "identity"\nmax_batch_sizes: 1\n')
    add_model(folder, "bad_backend", config("nope", *pairs("FP32", [1])))
    add_model(folder, "bad_name", 'name: "other"\n' + identity())
    add_model(folder, "bad_pair", config("identity", [tensor("INPUT0", "FP32", [1])],
                                         [tensor("OUTPUT1", "FP32", [1])]))
    add_model(folder, "no_config", None)
    add_model(folder, "no_version", identity(), versions=[])
    add_model(folder, "no_labels", config(
        "identity", [tensor("INPUT0", "FP32", [1])],
        [tensor("OUTPUT0", "FP32", [1], 'label_filename: "names.txt"')]))
    add_model(folder, "labels_outside", config(
        "identity", [tensor("INPUT0", "FP32", [1])],
        [tensor("OUTPUT0", "FP32", [1], 'label_filename: "../m/names.txt"')]))
    add_model(folder, "bad_onnx", config("onnxruntime", *pairs("FP32", [1])), onnx=b"no model")
    add_model(folder, "no_onnx", config("onnxruntime", *pairs("FP32", [1])))
    return {
        "bad_text": ["config.pbtxt"], "bad_field": ["max_batch_sizes", "max_batch_size"],
        "bad_backend": ["nope"], "bad_name": ["other"], "bad_pair": ["OUTPUT1"],
        "no_config": ["config.pbtxt"], "no_version": ["at least one version must be available"],
        "no_labels": ["names.txt"], "labels_outside": ["../m/names.txt"],
        "bad_onnx": ["onnx"], "no_onnx": ["onnx"],
    }


def test_exit_on_error(tmp_path):
    """The default: exit status 1 after every bad model was named with its reason."""
    reasons = bad_models(tmp_path)
    add_model(tmp_path, "good", identity())
    status, out, err = run(f"--model-store={tmp_path}", "--http-port=0", "--grpc-port=0", "--metrics-port=0")
    assert (status, out) == (1, "")
    end = err[err.index("error: creating server: "):]
    for name, words in reasons.items():
        lines = [line for line in end.splitlines() if line.startswith(f"model '{name}'")]
        assert len(lines) == 1, (name, end)
        assert all(word in lines[0] for word in words), lines
    assert "'good'" not in end


def test_no_exit_on_error(tmp_path, start):
    """--exit-on-error=false: the others serve; the reasons are in the log and in the index."""
    reasons = bad_models(tmp_path)
    add_model(tmp_path, "good", identity())
    server = start(tmp_path, "--exit-on-error=false")
    assert server.is_live() and not server.is_ready()
    assert answers(server, "good")
    entries = {e["name"]: e for e in server.index()}
    for name, words in reasons.items():
        assert entries[name]["state"] == "UNAVAILABLE"
        assert all(word in entries[name]["reason"] for word in words), entries[name]
        assert not answers(server, name)
        logged = [line for line in server.stderr_lines
                  if "failed to load" in line and f"model={name} " in line]
        assert len(logged) == 1 and all(word in logged[0] for word in words), server.log()
        assert logged[0][0] == "E"
    assert entries["good"] == {"name": "good", "version": "1", "state": "READY"}
    assert [e["name"] for e in server.index({"ready": True})] == ["good"]


def test_lax_readiness(tmp_path, start):
    """--strict-readiness=false: not ready while loading, then ready with what there is."""
    add_model(tmp_path, "bad", config("nope", *pairs("FP32", [1])))
    add_model(tmp_path, "slow", identity(load_secs=4))
    server = start(tmp_path, "--exit-on-error=false", "--strict-readiness=false",
                   port=free_port(), wait=False)
    assert server.is_live() and not server.is_ready()
    server.wait_loaded()
    wait_for("readiness", server.is_ready)


def test_missing_repository(tmp_path, start):
    """Exit status 1 with the path; with --exit-on-error=false it stays up, neither live nor ready."""
    missing = tmp_path / "nope"
    status, out, err = run(f"--model-store={missing}", "--http-port=0", "--grpc-port=0", "--metrics-port=0")
    assert (status, out) == (1, "") and f"'{missing}'" in err
    add_model(tmp_path / "there", "m", identity())
    server = start([tmp_path / "there", missing], "--exit-on-error=false", port=free_port(),
                   wait=False)
    server.wait_log("cannot initialize")
    assert not server.is_live() and not server.is_ready()
    assert server.get("/v2").status == 200
    assert server.infer("m", BODY).status == 404


def test_repository_is_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    status, out, err = run(f"--model-store={path}", "--http-port=0", "--grpc-port=0", "--metrics-port=0")
    assert (status, out) == (1, "") and f"'{path}'" in err


def test_empty_repository(tmp_path, start):
    """No models: ready. Files and hidden folders beside models are none."""
    (tmp_path / "README.md").write_text("x")
    (tmp_path / ".git").mkdir()
    server = start(tmp_path)
    assert server.is_ready() and server.index() == []


def test_model_in_two_repositories(tmp_path, start):
    """It is served from neither, and says so; the other models of both serve."""
    for folder, other in (("a", "left"), ("b", "right")):
        add_model(tmp_path / folder, "same", identity())
        add_model(tmp_path / folder, other, identity())
    server = start([tmp_path / "a", tmp_path / "b"], "--exit-on-error=false")
    assert answers(server, "left") and answers(server, "right") and not answers(server, "same")
    entry = next(e for e in server.index() if e["name"] == "same")
    assert entry["state"] == "UNAVAILABLE" and "more than one repository" in entry["reason"]
    assert not server.is_ready()


@pytest.mark.parametrize("policy,expected", [
    ("", [10]),
    ("version_policy { }", [10]),
    ("version_policy { latest { } }", [10]),
    ("version_policy { latest { num_versions: 2 } }", [3, 10]),
    ("version_policy { latest { num_versions: 9 } }", [0, 2, 3, 10]),
    ("version_policy { all { } }", [0, 2, 3, 10]),
    ("version_policy { specific { versions: [ 0, 3 ] } }", [0, 3]),
    ("version_policy { specific { versions: [ 2, 99 ] } }", [2]),
    ("version_policy { specific { versions: [ 99 ] } }", []),
])
def test_version_policy(tmp_path, start, policy, expected):
    """Versions count as numbers, from 0; folders that are none are left alone."""
    add_model(tmp_path, "m", identity(extra=policy), versions=[0, 2, 3, 10])
    for other in ("x", "4x", "-4", "1.5", " 5"):
        (tmp_path / "m" / other).mkdir()
    (tmp_path / "m" / "11").write_text("a file, not a version")
    server = start(tmp_path, "--exit-on-error=false")
    served = [v for v in (0, 1, 2, 3, 4, 5, 10, 11, 99) if answers(server, "m", v)]
    assert served == expected
    assert server.is_ready() == bool(expected)
    if not expected:
        assert server.infer("m", BODY).error == \
            "Request for unknown model: 'm' has no available versions"
        return
    assert server.infer("m", BODY).json()["model_version"] == str(expected[-1])
    assert server.get("/v2/models/m").json()["versions"] == [str(v) for v in expected]


def test_bad_version_among_good(tmp_path, start):
    """A version that does not load leaves the others of its model."""
    add_model(tmp_path, "m", config("onnxruntime", *pairs("FP32", [1]),
                                    extra="version_policy { all { } }"), versions=[1, 2])
    (tmp_path / "m" / "1" / "model.onnx").write_bytes(onnx_models.identity("FP32", [1]))
    (tmp_path / "m" / "2" / "model.onnx").write_bytes(b"no model")
    server = start(tmp_path, "--exit-on-error=false")
    assert answers(server, "m", 1) and not answers(server, "m", 2)
    assert server.infer("m", BODY).json()["model_version"] == "1"
    assert names(server) == {("m", "1"): "READY", ("m", "2"): "UNAVAILABLE"}


# ---- The end ----

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drain(tmp_path, start, number):
    """A signal closes the port, finishes what is in flight and queued, and exits with 0."""
    add_model(tmp_path, "slow", identity(delay_ms=400))
    server = start(tmp_path, ONE_LOOP)
    idle = connect(server.port)
    waiting = [send(server, "slow") for _ in range(3)]
    server.signal(number)
    server.wait_log(f"Interrupt signal ({int(number)}) received")
    found = [read_answer(s) for s in waiting]  # the first one may be there before the signal
    assert all(answer.status == 200 for answer in found)
    assert found[-1].headers["Connection"] == "close"
    assert idle.recv(1) == b""
    assert server.wait_exit() == 0
    with pytest.raises(OSError):
        connect(server.port, 1)


def test_drain_with_idle_connections(tmp_path, start):
    """Idle keep-alive connections do not delay the end."""
    add_model(tmp_path, "m", identity())
    server = start(tmp_path)
    connections = [connect(server.port) for _ in range(20)]
    for s in connections:
        s.sendall(infer_message("m", BODY))
        assert read_answer(s).status == 200
    begin = time.monotonic()
    server.stop()
    assert time.monotonic() - begin < 25  # --exit-timeout-secs is 30


def test_signal_while_loading(tmp_path, start):
    """A signal during the start ends it, with 0, when the loading models are done."""
    add_model(tmp_path, "slow", identity(load_secs=4))
    server = start(tmp_path, port=free_port(), wait=False)
    wait_for("loading", lambda: ("slow", "1") in names(server))
    server.stop()
    assert server.stdout_lines == []


def test_exit_timeout(tmp_path, start):
    """What is in flight longer than --exit-timeout-secs: exit status 1, and said so."""
    add_model(tmp_path, "slow", identity(delay_ms=30_000))
    server = start(tmp_path, ONE_LOOP, "--exit-timeout-secs=1")
    s = send(server, "slow")
    begin = time.monotonic()
    server.signal()
    assert server.wait_exit(15) == 1
    assert 0.9 < time.monotonic() - begin < 10
    assert any("Exit timeout expired. Exiting immediately." in line for line in server.stderr_lines)
    assert s.recv(1) == b""


def test_second_signal(tmp_path, start):
    """A second signal ends the server at once, with 1."""
    add_model(tmp_path, "slow", identity(delay_ms=30_000))
    server = start(tmp_path, ONE_LOOP)
    s = send(server, "slow")
    server.signal()
    server.wait_log("Waiting for in-flight inferences")
    begin = time.monotonic()
    server.signal(signal.SIGINT)
    assert server.wait_exit(15) == 1
    assert time.monotonic() - begin < 5
    s.close()


def test_exit_delay(tmp_path, start):
    """--exit-delay-secs: not ready at once, but live and serving; then the end, with 0."""
    add_model(tmp_path, "m", identity())
    server = start(tmp_path, "--exit-delay-secs=2")
    assert server.is_ready()
    begin = time.monotonic()
    server.signal()
    wait_for("not ready", lambda: not server.is_ready())
    assert server.is_live() and answers(server, "m")
    assert server.get("/v2/models/m/ready").status == 200
    assert server.wait_exit() == 0
    assert time.monotonic() - begin >= 2


def test_second_signal_in_exit_delay(tmp_path, start):
    add_model(tmp_path, "m", identity())
    server = start(tmp_path, "--exit-delay-secs=60")
    server.signal()
    wait_for("not ready", lambda: not server.is_ready())
    server.signal()
    assert server.wait_exit(15) == 1


def test_start_failure_with_port(tmp_path):
    """A server that ends because of a bad model has closed its port."""
    add_model(tmp_path, "bad", config("nope", *pairs("FP32", [1])))
    port = free_port()
    assert run(f"--model-store={tmp_path}", f"--http-port={port}", "--grpc-port=0", "--metrics-port=0")[0] == 1
    with socket.socket() as s:
        s.bind(("127.0.0.1", port))


# ---- Clients that go ----

def go_by_reset(s):
    reset(s)


def go_by_half_close(s):
    s.shutdown(socket.SHUT_WR)
    assert s.recv(1) == b""
    s.close()


@pytest.mark.parametrize("go", [go_by_reset, go_by_half_close])
def test_disconnect_while_queued(tmp_path, start, go):
    """The request of a client that has gone leaves the queue, counted as failed, never executed."""
    add_model(tmp_path, "slow", identity(delay_ms=2000))
    server = start(tmp_path, ONE_LOOP)
    running = send(server, "slow")
    queued = send(server, "slow")
    go(queued)
    wait_for("the failure", lambda: server.statistics("slow")["inference_stats"]["fail"]["count"])
    assert server.statistics("slow")["inference_count"] == 0  # the first one still runs
    assert read_answer(running).status == 200
    assert answers(server, "slow")
    found = server.statistics("slow")
    assert found["inference_stats"]["fail"]["count"] == 1
    assert found["inference_stats"]["success"]["count"] == found["execution_count"] == 2


def test_disconnect_while_running(tmp_path, start):
    """What runs already runs to its end; its answer is dropped, the server serves on."""
    add_model(tmp_path, "slow", identity(delay_ms=300))
    server = start(tmp_path, ONE_LOOP)
    reset(send(server, "slow"))
    assert answers(server, "slow")
    # The first one may have been faster than the instance that was to take it.
    wait_for("both ends", lambda: sum(
        server.statistics("slow")["inference_stats"][k]["count"] for k in ("success", "fail")) == 2)


def test_half_close_allowed(tmp_path, start):
    """--http-cancel-on-half-close=false: such a client gets its answer."""
    add_model(tmp_path, "slow", identity(delay_ms=200))
    server = start(tmp_path, ONE_LOOP, "--http-cancel-on-half-close=false")
    running, queued = send(server, "slow"), send(server, "slow")
    for s in (running, queued):
        s.shutdown(socket.SHUT_WR)
    assert read_answer(running).status == read_answer(queued).status == 200
    assert server.statistics("slow")["inference_stats"]["fail"]["count"] == 0


def test_half_close_behind_pipelined_requests(tmp_path, start):
    """Requests sent before the end of the stream are answered, but for the last when it waits."""
    add_model(tmp_path, "m", identity())
    server = start(tmp_path, ONE_LOOP)
    with connect(server.port) as s:
        s.sendall(message("GET", "/v2/health/live") * 3)
        s.shutdown(socket.SHUT_WR)
        found = b"".join(iter(lambda: s.recv(4096), b""))
    assert found.count(b"HTTP/1.1 200 OK\r\n") == 3


def test_many_go(tmp_path, start):
    """A crowd that leaves in all ways while a model is busy: every request is accounted for."""
    add_model(tmp_path, "slow", identity(delay_ms=1000))
    server = start(tmp_path, ONE_LOOP)
    running = send(server, "slow")
    crowd = []
    for i in range(60):
        s = connect(server.port)
        s.sendall(infer_message("slow", BODY)[:None if i % 3 else -3])
        crowd.append(s)
    assert server.is_live()
    for i, s in enumerate(crowd):
        (go_by_reset if i % 2 else go_by_half_close)(s)
    assert read_answer(running).status == 200
    # The last ones to be cancelled, then nothing is left to run.
    wait_for("an empty queue", lambda: sum(
        server.statistics("slow")["inference_stats"][k]["count"] for k in ("success", "fail")) == 41)


# ---- Limits ----

def test_inflight_bytes(tmp_path, start):
    """A spent byte budget: bodies wait, then get 503; health answers; freed, it serves again."""
    add_model(tmp_path, "byte", identity("UINT8", [-1]))
    server = start(tmp_path, ONE_LOOP, "--max-inflight-bytes=1000000")
    raw = {"Inference-Header-Content-Length": 0}
    holder = connect(server.port)
    holder.sendall(message("POST", "/v2/models/byte/infer", b"", {**raw, "Content-Length": 900_000}))
    with connect(server.port) as s:
        wait_for("the budget", lambda: server.is_live())
        s.sendall(message("POST", "/v2/models/byte/infer", bytes(500_000), raw))
        for _ in range(5):  # meanwhile
            assert server.is_live() and server.is_ready()
            assert server.get("/v2/models/byte/ready").status == 200
        answer = read_answer(s)
    assert answer.status == 503
    assert answer.error == ("too many request bytes are in flight. Use --max-inflight-bytes to "
                            "increase the limit.")
    small = server.infer("byte", b"small", raw)
    assert small.status == 200, small
    # One that waits goes on when the bytes come back.
    with connect(server.port) as s:
        s.sendall(message("POST", "/v2/models/byte/infer", bytes(500_000), raw))
        assert server.is_live()
        holder.close()
        assert read_answer(s).status == 200
    # A body that is larger than the whole budget may pass alone.
    assert server.infer("byte", bytes(2_000_000), raw).status == 200


def test_slow_head(tmp_path, start):
    """A head that does not end within --http-header-timeout-secs: 408, and the connection ends."""
    add_model(tmp_path, "m", identity())
    server = start(tmp_path, "--http-header-timeout-secs=1")
    with connect(server.port) as s:
        s.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost:")
        answer = read_answer(s, "GET")
        assert answer.status == 408 and answer.headers["Connection"] == "close" and answer.error
        assert s.recv(1) == b""
    # One byte at a time does not help.
    with connect(server.port) as s:
        begin = time.monotonic()
        s.settimeout(0.1)
        answered = b""
        while time.monotonic() - begin < 10 and not answered:
            s.sendall(b"x")
            try:
                answered = s.recv(1000)
            except TimeoutError:
                continue
        assert answered.startswith((b"HTTP/1.1 408", b"HTTP/1.1 400"))
    assert server.is_ready()


def test_slow_body(tmp_path, start):
    """A body that stops coming for --http-stall-timeout-secs: 408."""
    add_model(tmp_path, "m", identity())
    server = start(tmp_path, "--http-stall-timeout-secs=1")
    with connect(server.port) as s:
        s.sendall(infer_message("m", BODY)[:-5])
        answer = read_answer(s)
    assert answer.status == 408 and answer.error
    assert answers(server, "m")


def test_slow_reader(tmp_path, start):
    """A client that takes nothing of its answer is given up, and its memory comes back."""
    add_model(tmp_path, "byte", identity("UINT8", [-1]))
    server = start(tmp_path, "--http-stall-timeout-secs=1", "--max-inflight-bytes=40000000")
    raw = {"Inference-Header-Content-Length": 0}
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect(("127.0.0.1", server.port))
    s.settimeout(30)
    s.sendall(message("POST", "/v2/models/byte/infer", bytes(30_000_000), raw))
    wait_for("the run", lambda: server.statistics("byte")["execution_count"] == 1)
    # This body fits only when the other client's bytes are free again.
    wait_for("the budget", lambda: server.infer("byte", bytes(30_000_000), raw).status == 200)
    s.close()


def test_idle_timeout(tmp_path, start):
    """--http-idle-timeout-secs: closed without a word; by default an idle connection stays."""
    add_model(tmp_path, "m", identity())
    server = start(tmp_path, "--http-idle-timeout-secs=1")
    with connect(server.port) as fresh, connect(server.port) as used:
        used.sendall(infer_message("m", BODY))
        assert read_answer(used).status == 200
        begin = time.monotonic()
        assert fresh.recv(1) == b"" and used.recv(1) == b""
        assert time.monotonic() - begin < 10


def test_connection_limit(tmp_path, start):
    """--http-max-connections: a further one is closed; when one goes there is room again."""
    add_model(tmp_path, "m", identity())
    server = start(tmp_path, "--http-max-connections=2", ONE_LOOP)
    kept = [connect(server.port) for _ in range(2)]
    for s in kept:
        s.sendall(infer_message("m", BODY))
        assert read_answer(s).status == 200
    with connect(server.port) as refused:
        assert refused.recv(1) == b""
    kept.pop().close()

    def is_served():
        try:
            return server.is_live()
        except OSError:
            return False
    wait_for("room for one", is_served)
    kept.pop().close()


def test_header_limit(tmp_path, start):
    """--http-max-header-size in its text."""
    add_model(tmp_path, "m", identity())
    server = start(tmp_path, "--http-max-header-size=2048")
    answer = server.request("GET", "/v2", headers={"A": "x" * 4000})
    assert answer.status == 431
    assert "2048 bytes" in answer.error and "--http-max-header-size" in answer.error


# ---- Backends ----

def test_backend_directory(tmp_path, start):
    """--backend-directory is where backends come from; without them a model says what it misses."""
    (tmp_path / "backends").mkdir()
    add_model(tmp_path / "models", "m", identity())
    server = start(tmp_path / "models", f"--backend-directory={tmp_path}/backends",
                   "--exit-on-error=false")
    assert "identity" in server.index()[0]["reason"]


def test_backend_setting(tmp_path, start):
    """--backend-config reaches the backend: an engine library that is not there."""
    add_model(tmp_path, "m", config("onnxruntime", *pairs("FP32", [1])),
              onnx=onnx_models.identity("FP32", [1]))
    add_model(tmp_path, "other", identity())
    server = start(tmp_path, "--backend-config=onnxruntime,library=/no/such/lib.so",
                   "--exit-on-error=false")
    assert "/no/such/lib.so" in next(e for e in server.index() if e["name"] == "m")["reason"]
    assert answers(server, "other")


def test_relative_paths(tmp_path):
    """The repository may be a relative path; the current folder does not matter otherwise."""
    add_model(tmp_path / "models", "m", identity())
    process = subprocess.Popen([executable(), "--model-store=models", "--http-port=0",
                                "--grpc-port=0", "--metrics-port=0"],
                               cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout.readline().decode().startswith(LINE)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
