"""Instances of models as the operating system sees them: names, priorities and processors of their threads."""
import collections
import os
import pathlib
import shutil
import subprocess
import threading
import time

import pytest

from server import (Server, add_model, config, executable, identity, json_input, onnx_models,
                    pairs, parameter, run, wait_for)

NICE = os.nice(0)  # of this process and its servers
PROCESSORS = sorted(os.sched_getaffinity(0))
two_processors = pytest.mark.skipif(len(PROCESSORS) < 2, reason="needs two processors")
ENGINE_THREADS = 3

Thread = collections.namedtuple("Thread", "nice processors")


def threads(server):
    """{name of a thread: [Thread]} of a server. An engine's threads have the name of the one that made
    them."""
    found = collections.defaultdict(list)
    for task in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir():
        try:
            name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
            status = (task / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        processors = status.partition("Cpus_allowed_list:")[2].split()[0]
        found[name].append(Thread(int(rest.split()[16]), processors))
    return found


def onnx(extra):
    return config("onnxruntime", *pairs("FP32", [4]),
                  extra=extra + parameter("intra_op_thread_count", ENGINE_THREADS))


def add_onnx(repository, name, extra=""):
    return add_model(repository, name, onnx(extra), onnx=onnx_models.identity("FP32", [4]))


def check_answer(server, model):
    answer = server.infer(model, {"inputs": [json_input("INPUT0", "FP32", [4], [1, 2, 3, 4])]})
    assert answer.status == 200, answer
    assert answer.json()["outputs"][0]["data"] == [1, 2, 3, 4]


# ---- Priorities ----

NICES = {"most": ("optimization { priority: PRIORITY_MAX }", 0),
         "least": ("optimization { priority: PRIORITY_MIN }", 19),
         "named": ("optimization { priority: PRIORITY_DEFAULT }", 5),
         "other": ("optimization { graph { level: 1 } }", 5),
         "none": ("", 5)}


@pytest.mark.skipif(NICE > 0 and os.geteuid() != 0, reason="may not lower nice values")
def test_priorities(tmp_path):
    """The thread of an instance and those that its engine makes have the nice value of the model."""
    for name, (extra, _) in NICES.items():
        add_onnx(tmp_path, name, extra)
    with Server(tmp_path) as server:
        found = threads(server)
        for name, (_, nice) in NICES.items():
            mine = found[f"run:{name}_0_cpu"[:15]]
            # The session of the loading thread, which is at nice 0, serves a model at nice 0.
            count = ENGINE_THREADS if nice > 0 else 1
            assert [thread.nice for thread in mine] == [nice] * count, (name, found)
            check_answer(server, name)
            server.wait_log(f"Starting runner thread 0 at nice {nice}... model={name} version=1")
            server.wait_log(f"Creating instance {name}_0_cpu on CPU using model.onnx model={name} "
                            "version=1")
        assert {thread.nice for thread in found["loop:0"]} == {NICE}
        # A GPU backend takes the priority of its streams from the configuration.
        shown = server.get("/v2/models/least/config").json()
        assert shown["optimization"]["priority"] == "PRIORITY_MIN"
        shown = server.get("/v2/models/other/config").json()
        assert shown["optimization"]["priority"] == "PRIORITY_DEFAULT"


def without_privileges(*program):
    """The program, unable to lower nice values. None: cannot be had here."""
    if os.geteuid() != 0:
        return [*program]
    drop = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice"]
    if not shutil.which("setpriv") or subprocess.run([*drop, "true"]).returncode != 0:
        return None
    return [*drop, *program]


def test_refused_priority(tmp_path):
    """A server at nice 10 cannot give its models less; it says so once and serves them."""
    program = without_privileges("nice", "-n", str(max(0, 10 - NICE)), executable())
    if not program:
        pytest.skip("setpriv cannot take CAP_SYS_NICE away here")
    for name in ("most", "least", "none"):
        add_onnx(tmp_path, name, NICES[name][0])
    with Server(tmp_path, program=program) as server:
        found = threads(server)
        for name, nice in {"most": 10, "least": 19, "none": 10}.items():
            assert {thread.nice for thread in found[f"run:{name}_0_cpu"]} == {nice}, found
            server.wait_log(f"Starting runner thread 0 at nice {nice}... model={name} ")
            check_answer(server, name)
        refused = [line for line in server.stderr_lines if "cannot run a model at nice" in line]
        assert len(refused) == 1 and "it stays at 10" in refused[0], refused


# ---- Names ----

def describing(extra=""):
    """A model whose backend logs what it is told of its instances."""
    return config("bad", *pairs("INT32", [4]), extra=parameter("mode", "describe") + extra)


@pytest.fixture
def backends(tmp_path):
    """A folder with the backends under test and tests/backends/bad."""
    ours = pathlib.Path(executable()).parent / "backends"
    folder = tmp_path / "backends"
    folder.mkdir()
    for name in ("identity", "onnxruntime"):
        (folder / name).symlink_to(ours / name)
    (folder / "bad").mkdir()
    (folder / "bad" / "libtriton_bad.so").symlink_to(
        pathlib.Path(executable()).parent / "tests/backends/bad/libtriton_bad.so")
    return f"--backend-directory={folder}"


def described(server):
    return sorted(line.partition("bad describe: ")[2] for line in server.stderr_lines
                  if "bad describe: " in line)


def test_names(tmp_path, backends):
    models = tmp_path / "models"
    add_model(models, "plain", describing())
    add_model(models, "groups", describing(
        "instance_group [ { count: 2 }, { name: 'own' count: 2 kind: KIND_MODEL }, { } ]"))
    with Server(models, backends) as server:
        assert described(server) == [
            'groups_0_0_cpu CPU 0 {"cpu":{}}', 'groups_0_1_cpu CPU 0 {"cpu":{}}',
            'groups_2_0_cpu CPU 0 {"cpu":{}}', 'own_0_model MODEL 0 {"model":{}}',
            'own_1_model MODEL 0 {"model":{}}', 'plain_0_cpu CPU 0 {"cpu":{}}']
        groups = server.get("/v2/models/plain/config").json()["instance_group"]
        assert [(g["name"], g["count"], g["kind"]) for g in groups] == [("plain", 1, "KIND_CPU")]


def test_preferred_group(tmp_path, backends):
    """A backend's preference fills in what the configuration does not say, and is shown."""
    models = tmp_path / "models"
    add_model(models, "plain", describing())
    add_model(models, "given", describing("instance_group { name: 'own' }"))
    with Server(models, backends, "--backend-config=bad,prefers=model") as server:
        assert described(server) == ['own_0_cpu CPU 0 {"cpu":{}}'] + [
            f'plain_{i}_model MODEL 0 {{"model":{{}}}}' for i in range(3)]
        groups = server.get("/v2/models/plain/config").json()["instance_group"]
        assert [(g["name"], g["count"], g["kind"]) for g in groups] == [("plain", 3, "KIND_MODEL")]


# ---- Host policies ----

@two_processors
def test_host_policies(tmp_path, backends):
    """Threads of instances and engines run where the policy says, all others where they did."""
    first, last = PROCESSORS[0], PROCESSORS[-1]
    models = tmp_path / "models"
    add_onnx(models, "left")
    add_onnx(models, "right", "instance_group { host_policy: 'mine' }")
    add_onnx(models, "free", "instance_group { host_policy: 'nothing' }")
    add_onnx(models, "node", "instance_group { kind: KIND_MODEL }")
    add_model(models, "told", describing("instance_group { host_policy: 'mine' }"))
    with Server(models, backends, f"--host-policy=cpu,cpu-cores={first}",
                f"--host-policy=mine,cpu-cores={last}", "--host-policy=mine,numa-node=0",
                "--host-policy=model,numa-node=0") as server:
        found = threads(server)
        everywhere = found["trtserver"][0].processors
        for name, processors in {"left_0_cpu": first, "right_0_0_cpu": last,
                                 "free_0_0_cpu": everywhere, "node_0_0_model": everywhere}.items():
            mine = [thread.processors for thread in found[f"run:{name}"[:15]]]
            assert mine == [str(processors)] * ENGINE_THREADS, (name, found)
        assert found["loop:0"][0].processors == everywhere
        assert described(server) == [
            f'told_0_0_cpu CPU 0 {{"mine":{{"cpu-cores":"{last}","numa-node":"0"}}}}']
        server.wait_log(f"model=right version=1 cores={last} node=0")
        for name in ("left", "right", "free", "node"):
            check_answer(server, name)


@two_processors
def test_host_policy_within_the_allowed(tmp_path):
    """Processors that the server may not use are left out, and named."""
    first, last = PROCESSORS[0], PROCESSORS[-1]
    add_onnx(tmp_path, "m")
    program = ["taskset", "-c", str(first), executable()]
    if not shutil.which("taskset"):
        pytest.skip("no taskset")
    with Server(tmp_path, f"--host-policy=cpu,cpu-cores={first},{last}", program=program) as server:
        assert {thread.processors for thread in threads(server)["run:m_0_cpu"]} == {str(first)}
        server.wait_log(f"left out processors={last}, which this process may not use "
                        f"allowed={first}")
        assert set(threads(server)) >= {"loop:0"} and "loop:1" not in threads(server)


REFUSED = {
    "mine,cpu-cores=70000": "'70000' at byte 0 is no list of processors",
    "mine,cpu-cores=8000-8001": "this machine has no processor 8000-8001",
    "mine,cpu-cores=": "expected at least one processor",
    "mine,numa-node=900": "this machine has no such node",
    "mine,cores=1": "unknown setting 'cores' (expected cpu-cores or numa-node)",
    "mine": "expected NAME,KEY=VALUE",
    ",cpu-cores=0": "expected NAME,KEY=VALUE",
}


@pytest.mark.parametrize("value", REFUSED)
def test_refused_host_policy(tmp_path, value):
    status, _, err = run(f"--model-store={tmp_path}", f"--host-policy={value}", "--http-port=0",
                         "--grpc-port=0")
    assert status == 1
    assert REFUSED[value] in err and f"--host-policy={value}" in err, err


# ---- Changes while the server runs ----

POLL = "--repository-poll-secs=1"
SLOW = dict(datatype="INT32", dims=(4,), delay_ms=2)


def group(count, name="g", extra=""):
    return f"instance_group {{ name: '{name}' count: {count} kind: KIND_CPU {extra} }}"


def write(repository, name, text):
    """Replaces a configuration as an editor does, written some time ago: it need not settle."""
    path = pathlib.Path(repository) / name / "config.pbtxt"
    new = path.with_suffix(".new")
    new.write_text(text)
    os.utime(new, (time.time() - 60 + write.count, ) * 2)  # never the same time twice
    write.count += 1
    new.rename(path)


write.count = 0


def shown_groups(server, name):
    groups = server.get(f"/v2/models/{name}/config").json()["instance_group"]
    return [(g["name"], g["count"]) for g in groups]


def instance_threads(server, prefix):
    return sum(len(found) for name, found in threads(server).items()
               if name.startswith(f"run:{prefix}"))


class Load:
    """Clients that ask all the time; what they were answered is counted and failures are kept."""

    def __init__(self, server, model, count=4):
        self.server, self.model = server, model
        self.stopped = threading.Event()
        self.failures, self.answered = [], 0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run) for _ in range(count)]

    def run(self):
        body = {"inputs": [json_input("INPUT0", "INT32", [4], [1, 2, 3, 4])]}
        while not self.stopped.is_set():
            try:
                answer = self.server.infer(self.model, body)
                ok = answer.status == 200 and answer.json()["outputs"][0]["data"] == [1, 2, 3, 4]
            except OSError as error:
                answer, ok = error, False
            with self.lock:
                self.answered += 1
                if not ok:
                    self.failures.append(answer)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exception):
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def wait_answers(self, count=5):
        before = self.answered
        wait_for("answers with these instances",
                 lambda: self.answered >= before + count or self.failures)
        assert not self.failures


def follow_counts(server, repository, counts):
    """The number of instances follows the file under load; nothing fails and nothing is forgotten."""
    with Load(server, "slow") as load:
        for count in counts:
            write(repository, "slow", identity(**SLOW, extra=group(count)))
            wait_for(f"{count} instances",
                     lambda count=count: shown_groups(server, "slow") == [("g", count)]
                     and instance_threads(server, "g_") == count, 30)
            load.wait_answers()
    statistics = server.statistics("slow")
    assert statistics["inference_count"] == load.answered
    assert statistics["inference_stats"]["success"]["count"] == load.answered
    assert statistics["inference_stats"]["fail"]["count"] == 0


def test_counts_follow_the_file(tmp_path):
    add_model(tmp_path, "slow", identity(**SLOW, extra=group(2)))
    with Server(tmp_path, POLL) as server:
        follow_counts(server, tmp_path, [4, 1, 3, 2])
        assert len([line for line in server.stderr_lines if "instances changed model=slow" in line]) == 4
        # Loaded once, at start.
        assert len([line for line in server.stderr_lines
                    if "model state model=slow version=1 from=LOADING" in line]) == 1


def test_changes_under_thread_sanitizer(tmp_path):
    program = os.environ.get("TIS_TSAN_SERVER")
    if not program:
        pytest.skip("TIS_TSAN_SERVER names no server; scripts/test builds one")
    prefix = ["setarch", "-R"]
    if not shutil.which("setarch") or subprocess.run([*prefix, "true"]).returncode != 0:
        prefix = []
    add_model(tmp_path, "slow", identity(**SLOW, extra=group(2)))
    with Server(tmp_path, POLL, program=[*prefix, program],
                env={"TSAN_OPTIONS": "exitcode=66:second_deadlock_stack=1"}) as server:
        follow_counts(server, tmp_path, [4, 1, 3])


def test_groups_and_versions_follow(tmp_path):
    """Groups come and go in all versions; both protocols show them; what is the same stays."""
    every = "version_policy { all { } } "
    add_model(tmp_path, "m", identity("INT32", (4,), extra=every + group(1, "a")), versions=(1, 2))
    with Server(tmp_path, POLL) as server:
        stays = {task.name for task in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir()
                 if (task / "comm").read_text().startswith("run:a_0")}
        write(tmp_path, "m", identity("INT32", (4,), extra=every + group(1, "a") + group(2, "b")))
        for version in (1, 2):
            wait_for("the new group", lambda version=version: [
                g["name"] for g in server.get(f"/v2/models/m/versions/{version}/config").json()[
                    "instance_group"]] == ["a", "b"])
        assert instance_threads(server, "a_") == 2 and instance_threads(server, "b_") == 4
        assert all(pathlib.Path(f"/proc/{server.process.pid}/task/{t}").exists() for t in stays)
        status = server.get("/api/status/m?format=text").body.decode()
        assert status.count("instance_group") == 2 and 'name: "b"' in status
        # No group at all: the one of a model that names none.
        write(tmp_path, "m", identity("INT32", (4,), extra=every))
        wait_for("the default", lambda: shown_groups(server, "m") == [("m", 1)]
                 and instance_threads(server, "m_0_cpu") == 2)
        wait_for("the end of the others",
                 lambda: instance_threads(server, "a_") == instance_threads(server, "b_") == 0)


def test_what_does_not_follow(tmp_path, backends):
    """Other changes and broken files are logged once and change nothing; later ones are seen."""
    models = tmp_path / "models"
    ok = config("bad", *pairs("INT32", [4]), extra=parameter("mode", "ok"))
    add_model(models, "m", ok + group(1))
    with Server(models, backends, POLL, "--backend-config=bad,fails_from=3") as server:
        def logged(text):
            return [line for line in server.stderr_lines if text in line]

        write(models, "m", ok.replace("max_batch_size: 0", "max_batch_size: 8") + group(4))
        server.wait_log('config.pbtxt changed model=m fields="max_batch_size, instance_group": takes '
                        "effect at the next start")
        write(models, "m", ok + "instance_group {")
        server.wait_log("config.pbtxt changed model=m, keeping the configuration in use error=")
        write(models, "m", ok + group(9, extra="gpus: 5"))
        server.wait_log("instances not changed model=m version=1, keeping those it has error=")
        write(models, "m", ok + group(5))  # more than the backend will initialise
        wait_for("the refusal", lambda: logged("there are enough instances"))
        assert shown_groups(server, "m") == [("g", 1)]
        wait_for("one thread", lambda: instance_threads(server, "g_") == 1)
        write(models, "m", "# the same\n" + ok + group(1))
        write(models, "m", ok + group(1) + " ")
        assert not logged("instances changed")
        assert len(logged("takes effect at the next start")) == 1
        assert len(logged("keeping the configuration in use")) == 1
        assert len(logged("keeping those it has")) == 2


def test_models_that_are_not_served(tmp_path, backends):
    """A file that is mended, or changes, is logged once for each state; the same text again is no change."""
    models = tmp_path / "models"
    ok = config("bad", *pairs("INT32", [4]), extra=parameter("mode", "ok"))
    add_model(models, "broken", ok + "}{")
    add_model(models, "no_version", ok, versions=())
    fails = ok.replace('"ok"', '"error_model_initialize"')
    add_model(models, "fails", fails)
    with Server(models, backends, POLL, "--exit-on-error=false", "--strict-readiness=false") as server:
        def logged(name):
            text = f"config.pbtxt changed model={name}: takes effect at the next start"
            return len([line for line in server.stderr_lines if text in line])

        names = ("broken", "no_version", "fails")
        write(models, "fails", fails)
        write(models, "broken", ok + "}{")
        for state, extra in enumerate([group(2), group(3, "h")], start=1):
            for name in names:
                write(models, name, ok + extra)
            wait_for(f"state {state}", lambda state=state: all(logged(n) >= state for n in names))
            assert [logged(name) for name in names] == [state] * 3
        assert not [line for line in server.stderr_lines if "instances changed" in line]


def test_back_to_the_groups_before(tmp_path, backends):
    """One version takes the new groups, the other cannot: with the old file both have the old ones."""
    models = tmp_path / "models"
    ok = config("bad", *pairs("INT32", [4]), extra=parameter("mode", "ok"))
    ok += "version_policy { all { } } "
    add_model(models, "m", ok + group(1), versions=(1, 2))
    with Server(models, backends, POLL, "--backend-config=bad,fails_from=3") as server:
        write(models, "m", ok + group(2))
        server.wait_log("instances not changed model=m version=2, keeping those it has error=")
        wait_for("three threads", lambda: instance_threads(server, "g_") == 3)
        write(models, "m", ok + group(1))
        wait_for("the group before", lambda: instance_threads(server, "g_") == 2)


@pytest.mark.parametrize("flag", ["--repository-poll-secs=0", "--model-control-mode=none",
                                  "--allow-poll-model-repository=false"])
def test_nothing_follows_when_told(tmp_path, flag):
    """With another server that does follow, so that the wait is for an event."""
    add_model(tmp_path, "m", identity("INT32", (4,), extra=group(1)))
    with Server(tmp_path, flag, *([] if "secs" in flag else [POLL])) as still, \
            Server(tmp_path, POLL) as follows:
        write(tmp_path, "m", identity("INT32", (4,), extra=group(2)))
        wait_for("the change", lambda: shown_groups(follows, "m") == [("g", 2)])
        write(tmp_path, "m", identity("INT32", (4,), extra=group(3)))
        wait_for("the second change", lambda: shown_groups(follows, "m") == [("g", 3)])
        assert shown_groups(still, "m") == [("g", 1)]


def test_explicit_mode_is_refused(tmp_path):
    status, _, err = run(f"--model-store={tmp_path}", "--model-control-mode=explicit")
    assert status == 1 and "expected none or poll" in err
