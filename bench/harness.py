"""Servers, models and loads for scripts/bench: ours and Triton with the same backend files."""

import dataclasses
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FETCHED = ROOT / "third_party" / "fetched"
ORT = FETCHED / "onnxruntime" / "libonnxruntime.so.1.28.0"
sys.path.insert(0, str(ROOT / "tests" / "data"))
import onnx_models  # noqa: E402

CONNECTIONS = 16
ROUNDS = 3
CLOCK_TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")
VENV = FETCHED / "venv" / "bin" / "python"


def fail(text):
    sys.exit(f"bench: {text}")


# ---- Work ----

@dataclasses.dataclass
class Work:
    """One model and the request that is sent to it over and over."""
    name: str
    config: str
    onnx: bytes | None
    inputs: list   # (name, datatype, shape, bytes)
    outputs: list  # (name, bytes of the tensor)
    echo: bytes | None  # what the answer has to end with, if that is known
    connections: int = CONNECTIONS
    exact: bool = True  # the same bits in every answer: not so when batches differ in size

    def body(self):
        """(the request's body, bytes of JSON in front of it)"""
        header = json.dumps({
            "inputs": [{"name": n, "datatype": t, "shape": s,
                        "parameters": {"binary_data_size": len(b)}} for n, t, s, b in self.inputs],
            "outputs": [{"name": n, "parameters": {"binary_data": True}} for n, _ in self.outputs],
        }, separators=(",", ":")).encode()
        return header + b"".join(b for _, _, _, b in self.inputs), len(header)


def config(backend, tensors_in, tensors_out, batch):
    def text(tensors):
        return ", ".join(f'{{ name: "{n}" data_type: TYPE_{t} dims: [ {d} ] }}' for n, t, d in tensors)
    return (f'backend: "{backend}"\nmax_batch_size: {batch}\ninput [ {text(tensors_in)} ]\n'
            f'output [ {text(tensors_out)} ]\ninstance_group [ {{ kind: KIND_CPU count: 1 }} ]\n')


def identity(name, datatype, count):
    data = struct.pack(f"<{count}i", *(i % 1000 for i in range(count)))
    return Work(name, config("identity", [("INPUT0", datatype, count)], [("OUTPUT0", datatype, count)], 0),
                None, [("INPUT0", datatype, [count], data)], [("OUTPUT0", len(data))], data)


def onnx(name, model, inputs, outputs, dims_in, dims_out):
    data = struct.pack(f"<{dims_in}f", *(float(i % 50) for i in range(dims_in)))
    return Work(name, config("onnxruntime", [(n, "FP32", dims_in) for n in inputs],
                             [(n, "FP32", dims_out) for n in outputs], 1),
                model, [(n, "FP32", [1, dims_in], data) for n in inputs],
                [(n, 4 * dims_out) for n in outputs], None)


WORKS = {
    "identity": lambda: identity("identity", "INT32", 16),
    "megabyte": lambda: identity("megabyte", "FP32", 1 << 18),
    "mlp": lambda: onnx("mlp", onnx_models.mlp([256, 1024, 1024, 16]), ["INPUT0"], ["OUTPUT0"], 256, 16),
    "added": lambda: onnx("added", onnx_models.add_sub("FP32", [None, 16]), ["INPUT0", "INPUT1"],
                          ["OUTPUT0", "OUTPUT1"], 16, 16),
}


@dataclasses.dataclass
class Load:
    """What h2load does to a server: calls of one rpc, each with `messages` copies of a request."""
    work: Work
    connections: int
    streams: int  # at the same time on one connection
    rpc: str = "ModelInfer"
    messages: int = 1


LOADS = {
    "grpc-identity": lambda: Load(WORKS["identity"](), CONNECTIONS, 1),
    "grpc-streams": lambda: Load(WORKS["identity"](), 1, 64),
    "grpc-megabyte": lambda: Load(WORKS["megabyte"](), CONNECTIONS, 1),
    "grpc-mlp": lambda: Load(WORKS["mlp"](), CONNECTIONS, 1),
    "grpc-memory": lambda: Load(WORKS["megabyte"](), 1, 16),
    "grpc-messages": lambda: Load(WORKS["identity"](), 1, 1, "ModelStreamInfer", 1000),
}


# ---- Servers ----

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Bench:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.build = options.build.resolve()
        self.seconds = options.seconds or (1 if options.quick else 2)
        self.thread_counts = (1, 4) if options.quick else (1, 2, 4, 8)
        packages = list((FETCHED / "venv-triton").glob("lib/python3*/site-packages"))
        self.triton = packages[0] / "pytriton/tritonserver/bin/tritonserver" if packages else None
        if not self.triton or not self.triton.exists():
            fail("no tritonserver in third_party/fetched/venv-triton")
        self.triton_env = {**os.environ, "LD_LIBRARY_PATH": str(packages[0] / "nvidia_pytriton.libs")}
        # Copies, so that a build in between changes nothing.
        self.backends = folder / "backends"
        for name in ("identity", "onnxruntime"):
            (self.backends / name).mkdir(parents=True)
            shutil.copy(self.build / "backends" / name / f"libtriton_{name}.so", self.backends / name)
        self.server = folder / "trtserver"
        shutil.copy(self.build / "trtserver", self.server)
        self.helpers = {name: self.compile(name) for name in ("ready", "ort_direct", "open_loop")}
        self.answers = {}

    def compile(self, name):
        program = self.folder / name
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-o",
                        program, ROOT / "bench" / f"{name}.c", "-ldl"], check=True)
        return program

    def compile_host(self, counting=False):
        """Our onnxruntime backend in the tests' host: the border alone, without a server."""
        folder = self.folder / ("host-counting" if counting else "host")
        folder.mkdir()
        flags = ["-O2", "-g", "-std=gnu17", "-D_GNU_SOURCE", "-w", f"-I{ROOT}/include",
                 f"-I{ROOT}/backends", f"-I{ROOT}/tests/backends", f"-I{FETCHED}/yyjson"]
        host = ["-finstrument-functions"] if counting else []
        cc = os.environ.get("CC", "cc")
        subprocess.run([cc, *flags, *host, "-c", ROOT / "tests/backends/mini_host.c", "-o",
                        folder / "mini_host.o"], check=True)
        sources = [ROOT / "tests/backends/onnxruntime_batches.c", FETCHED / "yyjson/yyjson.c",
                   *sorted((ROOT / "backends/kit").glob("*.c")),
                   *sorted((ROOT / "backends/onnxruntime").glob("*.c")),
                   *([ROOT / "bench/count_calls.c"] if counting else [])]
        subprocess.run([cc, *flags, "-rdynamic", "-o", folder / "batches", folder / "mini_host.o",
                        *sources, "-ldl"], check=True)
        return folder / "batches"

    def repository(self, *works):
        """A model repository with these models."""
        path = self.folder / ("models-" + "-".join(w.name for w in works))
        for work in works:
            folder = path / work.name
            if folder.exists():
                continue
            (folder / "1").mkdir(parents=True)
            (folder / "config.pbtxt").write_text(work.config)
            if work.onnx:
                (folder / "1" / "model.onnx").write_bytes(work.onnx)
            body, header_bytes = work.body()
            (self.folder / f"{work.name}.body").write_bytes(body)
        return path

    def grpc_files(self, load):
        """(description for grpc_check.py, body of a call for h2load)"""
        work = load.work
        description = self.folder / f"{work.name}.grpc.json"
        body = self.folder / f"{work.name}.grpc-{load.messages}"
        if not body.exists():
            inputs = []
            for name, datatype, shape, data in work.inputs:
                path = self.folder / f"{work.name}.{name}"
                path.write_bytes(data)
                inputs.append([name, datatype, shape, str(path)])
            description.write_text(json.dumps({"model": work.name, "inputs": inputs,
                                               "outputs": work.outputs,
                                               "echo": work.echo is not None}))
            self.grpc_check("request", description, body, str(load.messages))
        return description, body

    def grpc_check(self, *arguments):
        done = subprocess.run([VENV, ROOT / "bench" / "grpc_check.py", *arguments],
                              capture_output=True, text=True)
        if done.returncode:
            fail(f"grpc_check.py {arguments[0]}: {done.stdout}{done.stderr}")
        return done.stdout.split()

    def command(self, which, models, port, threads=None, grpc_port=None):
        common = [f"--model-repository={models}", f"--backend-directory={self.backends}",
                  f"--backend-config=onnxruntime,library={ORT}",
                  "--http-address=127.0.0.1", f"--http-port={port}", "--allow-metrics=false"]
        if grpc_port:
            common += ["--grpc-address=127.0.0.1", f"--grpc-port={grpc_port}"]
        else:
            common += ["--allow-grpc=false"]
        if threads and grpc_port and which == "triton":
            common += [f"--grpc-infer-allocation-pool-size={8 * threads}"]
        elif threads:
            common += [f"--http-thread-count={threads}"]
        if which == "ours":
            return [str(self.server), *common]
        return [str(self.triton), *common, "--allow-gpu-metrics=false"]

    def env(self, which):
        return self.triton_env if which == "triton" else os.environ


class Server:
    """A server that is up with one model, for a `with` block. others: works of further models."""

    def __init__(self, bench, which, work, threads, grpc_port=None, others=()):
        self.bench, self.which, self.work = bench, which, work
        self.port = free_port()
        self.log = (bench.folder / f"{which}.log").open("w+b")
        self.process = subprocess.Popen(
            bench.command(which, bench.repository(work, *others), self.port, threads, grpc_port),
            env=bench.env(which), stdout=self.log, stderr=subprocess.STDOUT)

    def __enter__(self):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                link.request("GET", f"/v2/models/{self.work.name}/ready")
                if link.getresponse().status == 200:
                    return self
            except OSError:
                pass
            finally:
                link.close()
            time.sleep(0.02)
        self.log.seek(0)
        text = self.log.read().decode(errors="replace")
        self.__exit__()
        fail(f"{self.which} did not get ready with model {self.work.name}:\n{text[-3000:]}")

    def __exit__(self, *_):
        # Triton looks once a second whether it may end; nothing is lost with it.
        self.process.send_signal(signal.SIGKILL if self.which == "triton" else signal.SIGTERM)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def cpu_us(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = text[text.rindex(")") + 2:].split()
        return (int(fields[11]) + int(fields[12])) * CLOCK_TICK_US

    def statistics(self):
        """The model's entry of the v2 statistics."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        link.request("GET", f"/v2/models/{self.work.name}/stats")
        found = json.loads(link.getresponse().read())["model_stats"][0]
        link.close()
        return found

    def ask_once(self):
        """The whole answer to the request: (bytes with its head, body)."""
        body, header_bytes = self.work.body()
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as s:
            s.sendall(f"POST /v2/models/{self.work.name}/infer HTTP/1.1\r\nHost: localhost\r\n"
                      f"Content-Type: application/octet-stream\r\n"
                      f"Inference-Header-Content-Length: {header_bytes}\r\n"
                      f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            got = b""
            while b"\r\n\r\n" not in got:
                part = s.recv(65536)
                if not part:
                    fail(f"{self.which}, {self.work.name}: no answer")
                got += part
            head, _, rest = got.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            if not head.startswith(b"HTTP/1.1 200 ") or not length:
                fail(f"{self.which}, {self.work.name}: {got[:500]!r}")
            while len(rest) < int(length[1]):
                rest += s.recv(1 << 20)
        return len(head) + 4 + len(rest), rest

    def wrk_command(self, work, seconds, *extra):
        _, header_bytes = work.body()
        return ["wrk", "-t", "1", "-c", str(work.connections), "-d", f"{seconds}s",
                "-s", str(ROOT / "bench/request.lua"),
                f"http://127.0.0.1:{self.port}/v2/models/{work.name}/infer", "--",
                str(header_bytes), str(self.bench.folder / f"{work.name}.body"), *extra]

    def overload(self, work, seconds):
        """A load on another of the server's models, in the background."""
        return subprocess.Popen(self.wrk_command(work, seconds), stdout=subprocess.DEVNULL)

    def open_loop(self, rate, seconds):
        """(p50, p99, longest) in us of requests at a fixed rate. The client goes before everybody
        else, so that what it measures is the server."""
        _, header_bytes = self.work.body()
        output = subprocess.run(
            [self.bench.helpers["open_loop"], str(self.port), f"/v2/models/{self.work.name}/infer",
             str(header_bytes), self.bench.folder / f"{self.work.name}.body",
             str(self.work.connections), str(rate), str(seconds)],
            check=True, capture_output=True, text=True,
            preexec_fn=lambda: os.nice(-20) if os.geteuid() == 0 else None).stdout.split()
        sent, done, errors, *latencies = map(int, output)
        if sent != done or errors:
            fail(f"{self.which}, {self.work.name}: of {sent} requests {done} were answered, "
                 f"{errors} with an error")
        return latencies

    def wrk(self, seconds, *extra):
        output = subprocess.run(self.wrk_command(self.work, seconds, *extra), capture_output=True,
                                text=True)
        found = re.search(r"^RESULT (\{.*\})$", output.stdout, re.M)
        if output.returncode or not found:
            fail(f"wrk failed on {self.which}, {self.work.name}:\n{output.stdout}{output.stderr}")
        result = json.loads(found[1])
        if result["errors"] or result["bad_answers"] or not result["requests"]:
            fail(f"wrong answers from {self.which}, {self.work.name}: {found[1]}")
        return result

    def verify(self):
        """Compares the answers of a short run with the expected one; returns an answer's bytes."""
        whole, body = self.ask_once()
        tail = body[-sum(n for _, n in self.work.outputs):]
        if self.work.echo is not None and tail != self.work.echo:
            fail(f"{self.which}, {self.work.name}: the answer does not carry the input")
        # Both servers have to compute the same.
        if self.work.exact and self.bench.answers.setdefault(self.work.name, tail) != tail:
            fail(f"{self.which}, {self.work.name}: the two servers' tensors differ")
        path = self.bench.folder / f"{self.work.name}.tail"
        path.write_bytes(tail)
        self.wrk(1, "check", str(len(body)), str(path) if self.work.exact else "-")
        return whole

    def measure(self, seconds, answer_bytes):
        """(CPU us per request, requests per second)"""
        before = self.cpu_us()
        result = self.wrk(seconds)
        spent = self.cpu_us() - before
        requests = result["requests"]
        # What wrk has read of answers that were under way at its end is in `bytes` as well.
        over = result["bytes"] - requests * answer_bytes
        if not 0 <= over <= self.work.connections * answer_bytes:
            fail(f"{self.which}, {self.work.name}: {requests} answers of {answer_bytes} bytes, "
                 f"but {result['bytes']} bytes came")
        return spent / requests, requests / (result["us"] / 1e6)


class GrpcServer(Server):
    """The same over gRPC; its unit is the message."""

    def __init__(self, bench, which, load, threads):
        self.load = load
        self.grpc_port = free_port()
        self.description, self.body = bench.grpc_files(load)
        super().__init__(bench, which, load.work, threads, self.grpc_port)

    def h2load(self, seconds):
        """(calls answered, bytes of DATA received, calls per second)"""
        load = self.load
        output = subprocess.run(
            ["h2load", "-t", "1", "-c", str(load.connections), "-m", str(load.streams),
             "-D", str(seconds), "-d", self.body, "-H", "te: trailers",
             "-H", "content-type: application/grpc",
             f"http://127.0.0.1:{self.grpc_port}/inference.GRPCInferenceService/{load.rpc}"],
            capture_output=True, text=True).stdout
        rate = re.search(r"^finished in .*, ([\d.]+) req/s", output, re.M)
        counts = re.search(r"^requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored",
                           output, re.M)
        data = re.search(r"^traffic: .*\((\d+)\) data", output, re.M)
        if not (rate and counts and data):
            fail(f"h2load failed on {self.which}, {self.work.name}:\n{output}")
        done, succeeded, failed, errored = (int(n) for n in counts.groups())
        if not done or done != succeeded or failed or errored:
            fail(f"wrong answers from {self.which}, {self.work.name}:\n{output}")
        return done, int(data[1]), float(rate[1])

    def verify(self):
        """Compares what a client of gRPC decodes; returns the bytes of an answer with its prefix."""
        answer_bytes, path = self.bench.grpc_check("check", self.description,
                                                   f"127.0.0.1:{self.grpc_port}", self.load.rpc)
        tail = pathlib.Path(path).read_bytes()
        # Both servers have to compute the same.
        if self.bench.answers.setdefault(self.work.name, tail) != tail:
            fail(f"{self.which}, {self.work.name}: the two servers' tensors differ")
        return int(answer_bytes) + 5

    def measure(self, seconds, answer_bytes):
        """(CPU us per message, messages per second)"""
        before = self.cpu_us()
        calls, data_bytes, rate = self.h2load(seconds)
        spent = self.cpu_us() - before
        messages = self.load.messages
        # An answer that is an error has no DATA; those under way at the end are in data_bytes too.
        over = data_bytes - calls * messages * answer_bytes
        if not 0 <= over <= self.load.connections * self.load.streams * messages * answer_bytes:
            fail(f"{self.which}, {self.work.name}: {calls} calls of {messages} answers of "
                 f"{answer_bytes} bytes, but {data_bytes} bytes came")
        return spent / calls / messages, rate * messages

    def peak_mib(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"^VmHWM:\s*(\d+) kB", text, re.M)[1]) / 1024


def say(text):
    print(text, file=sys.stderr, flush=True)
