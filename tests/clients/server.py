"""trtserver as a child process, model repositories, and plain HTTP: what the client tests share.

Paths come from scripts/test; without it the sanitizer build is used when it exists:
  TIS_SERVER   the server                 build/asan/trtserver, else build/trtserver
  TIS_MODELS   the example models         build/models
"""
import contextlib
import http.client
import json
import os
import pathlib
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "data"))
import onnx_models  # noqa: E402,F401  (for the tests)

BUILD = ROOT / "build"
MODELS = pathlib.Path(os.environ.get("TIS_MODELS", BUILD / "models"))
LINE = "Starting server listening on :"
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 40
# What a sanitizer writes when it has found something.
REPORTS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:",
           "WARNING: ThreadSanitizer", "Assertion", "*** trtserver died")


def executable():
    if "TIS_SERVER" in os.environ:
        return os.environ["TIS_SERVER"]
    asan = BUILD / "asan" / "trtserver"
    return str(asan if asan.exists() else BUILD / "trtserver")


def environment():
    return {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:detect_stack_use_after_return=1",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1", **os.environ}


def wait_for(what, condition, seconds=60.0):
    """Polls until condition() is true and returns what it gave; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# ---- Plain requests ----

class HttpClient:
    """Plain requests to 127.0.0.1:self.port."""

    @property
    def url(self):
        return f"127.0.0.1:{self.port}"

    def request(self, method, path, body=b"", headers=None, seconds=30):
        with connect(self.port, seconds) as s:
            s.sendall(message(method, path, body, headers))
            return read_answer(s, method)

    def get(self, path):
        return self.request("GET", path)

    def post(self, path, body, headers=None):
        """`body` may be bytes, or an object that is sent as JSON."""
        return self.request("POST", path, to_bytes(body), headers)

    def infer(self, model, body, headers=None):
        return self.post(f"/v2/models/{model}/infer", body, headers)

    def statistics(self, model):
        answer = self.get(f"/v2/models/{model}/stats")
        assert answer.status == 200, answer
        return answer.json()["model_stats"][0]

    def is_live(self):
        return self.get("/v2/health/live").status == 200

    def is_ready(self):
        return self.get("/v2/health/ready").status == 200

    def index(self, body=b""):
        answer = self.post("/v2/repository/index", body)
        assert answer.status == 200, answer
        return answer.json()


# ---- The server ----

def read_available(pipe, rest):
    """Appends to rest[pipe] what there is. True at the end, where a line may lack its newline."""
    while True:
        try:
            data = os.read(pipe.fileno(), 65536)
        except BlockingIOError:
            return False
        rest[pipe] += data
        if not data:
            rest[pipe] += b"\n" if rest[pipe] else b""
            return True


class Server(HttpClient):
    """One server. Use it in a `with` block, or end it with stop(); both check how it ended.

    The port is the one of the line on stdout; give `port` to talk to it before that line. `env`
    adds to its environment. `program`: instead of executable(); a list begins with what runs it.
    """

    def __init__(self, repositories, *flags, port=0, wait=True, env=None, program=None):
        if isinstance(repositories, (str, os.PathLike)):
            repositories = [repositories]
        self.port = port
        program = [program or executable()] if not isinstance(program, list) else program
        self.command = [*program, "--http-address=127.0.0.1", f"--http-port={port}",
                        "--grpc-address=127.0.0.1", "--grpc-port=0", "--metrics-port=0",
                        *(f"--model-repository={r}" for r in repositories), *flags]
        self.changed = threading.Condition()
        self.stdout_lines, self.stderr_lines = [], []
        self.open_streams = 2
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env={**environment(), **(env or {})})
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        if wait:
            self.wait_loaded()
        elif port:
            self.wait_open()

    def read(self):
        """One thread for both: when a line of stdout is there, so is what was logged before it."""
        lines = {self.process.stderr: self.stderr_lines, self.process.stdout: self.stdout_lines}
        rest = dict.fromkeys(lines, b"")
        with selectors.DefaultSelector() as selector:
            for pipe in lines:
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                selector.select()
                for pipe in reversed(lines):  # stdout is read first, and shown last
                    if pipe in selector.get_map() and read_available(pipe, rest):
                        selector.unregister(pipe)
                with self.changed:
                    for pipe, found in lines.items():
                        *whole, rest[pipe] = rest[pipe].split(b"\n")
                        found += [line.decode(errors="replace") for line in whole]
                    self.open_streams = len(selector.get_map())
                    self.changed.notify_all()

    def wait_line(self, lines, text, seconds=START_SECONDS_MAX):
        """The first line of `lines` that holds `text`; fails when the server ends without it."""
        def find():
            return next((line for line in lines if text in line), None)
        with self.changed:
            self.changed.wait_for(lambda: find() or self.open_streams == 0, seconds)
            found = find()
        assert found, f"'{text}' did not appear.\n{self.log()}"
        return found

    def wait_log(self, text, seconds=START_SECONDS_MAX):
        return self.wait_line(self.stderr_lines, text, seconds)

    def wait_loaded(self):
        self.port = int(self.wait_line(self.stdout_lines, LINE).removeprefix(LINE))

    def wait_open(self):
        self.wait_log("http open")

    def log(self):
        with self.changed:
            return "\n".join([" ".join(self.command), "--- stdout", *self.stdout_lines,
                              "--- stderr", *self.stderr_lines[-200:]])

    @property
    def grpc_url(self):
        return "127.0.0.1:" + self.wait_log("grpc open").rpartition("port=")[2]

    @property
    def metrics_port(self):
        return int(self.wait_log("metrics open").rpartition("port=")[2])

    def metrics(self, accept=None, method="GET", path="/metrics"):
        """The answer of the metrics port."""
        headers = {"Accept": accept} if accept else {}
        with connect(self.metrics_port) as s:
            s.sendall(message(method, path, headers=headers))
            return read_answer(s, method)

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait_exit(self, seconds=STOP_SECONDS_MAX):
        """The exit status; the log is complete afterwards."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not end within {seconds} s\n{self.log()}") from None
        self.reader.join(STOP_SECONDS_MAX)
        for report in REPORTS:
            assert not any(report in line for line in self.stderr_lines), self.log()
        return status

    def stop(self, status=0):
        """Ends the server by SIGTERM; it must exit with `status` and without a report."""
        self.signal()
        assert self.wait_exit() == status, self.log()

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if kind is not None:
            if self.process.poll() is not None:
                print(self.log())
            self.kill()
        elif self.process.poll() is None:
            self.stop()


def run(*arguments, seconds=60):
    """Runs the server to its end: (exit status, stdout, stderr)."""
    result = subprocess.run([executable(), *arguments], stdin=subprocess.DEVNULL,
                            capture_output=True, timeout=seconds, env=environment())
    out, err = result.stdout.decode(), result.stderr.decode()
    for report in REPORTS:
        assert report not in err, err
    return result.returncode, out, err


# ---- HTTP by hand ----

def connect(port, seconds=30):
    return socket.create_connection(("127.0.0.1", port), timeout=seconds)


def to_bytes(body):
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def message(method, path, body=b"", headers=None):
    """A request; `headers` may replace Content-Length or drop it (None)."""
    lines = {"Host": "test", **({"Content-Length": len(body)} if body else {}), **(headers or {})}
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(
        f"{key}: {value}\r\n" for key, value in lines.items() if value is not None)
    return head.encode("latin-1") + b"\r\n" + body


def infer_message(model, body, headers=None):
    return message("POST", f"/v2/models/{model}/infer", to_bytes(body), headers)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """The text of a v2 error, whose form is checked."""
        assert self.headers["Content-Type"] == "application/json", self
        found = self.json()
        assert list(found) == ["error"], self
        return found["error"]

    def split(self):
        """A v2 answer: its JSON, and the bytes behind it."""
        length = self.headers.get("Inference-Header-Content-Length")
        if length is None:
            return self.json(), b""
        return json.loads(self.body[:int(length)]), self.body[int(length):]

    def __repr__(self):
        return f"{self.status} {dict(self.headers)} {self.body[:2000]!r}"


def read_answer(s, method="POST"):
    response = http.client.HTTPResponse(s, method=method)
    response.begin()
    return Answer(response.status, response.headers, response.read())


# ---- Requests ----

def json_input(name, datatype, shape, data):
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def binary_input(name, datatype, shape, size):
    return {"name": name, "datatype": datatype, "shape": shape,
            "parameters": {"binary_data_size": size}}


def binary_body(head, *tensors):
    """Body and headers of a request with binary tensors."""
    text = to_bytes(head)
    return text + b"".join(tensors), {"Inference-Header-Content-Length": len(text)}


# ---- Repositories ----

def tensor(name, datatype, dims, extra=""):
    datatype = "STRING" if datatype == "BYTES" else datatype
    return f'{{ name: "{name}" data_type: TYPE_{datatype} dims: {dims} {extra} }}'


def parameter(key, value):
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


def config(backend, inputs, outputs, batch=0, extra=""):
    """Text of a config.pbtxt; inputs and outputs are lists of tensor()."""
    return (f'backend: "{backend}"\nmax_batch_size: {batch}\n'
            f'input [ {", ".join(inputs)} ]\noutput [ {", ".join(outputs)} ]\n{extra}\n')


def pairs(datatype, dims, count=1):
    """Tensors INPUT0.. and OUTPUT0.. of one type and shape."""
    return ([tensor(f"INPUT{i}", datatype, dims) for i in range(count)],
            [tensor(f"OUTPUT{i}", datatype, dims) for i in range(count)])


def identity(datatype="FP32", dims=(-1,), batch=0, delay_ms=0, load_secs=0, extra=""):
    """Configuration of a model that answers with its input."""
    if delay_ms:
        extra += "\n" + parameter("execute_delay_ms", delay_ms)
    if load_secs:
        extra += "\n" + parameter("creation_delay_sec", load_secs)
    return config("identity", *pairs(datatype, list(dims)), batch, extra)


def add_model(repository, name, text, versions=(1,), onnx=None, files=None):
    """Writes a model; files: {path below the model's directory: text}."""
    folder = pathlib.Path(repository) / name
    folder.mkdir(parents=True, exist_ok=True)
    if text is not None:
        (folder / "config.pbtxt").write_text(text)
    for version in versions:
        (folder / str(version)).mkdir()
        if onnx is not None:
            (folder / str(version) / "model.onnx").write_bytes(onnx)
    for path, content in (files or {}).items():
        (folder / path).write_text(content)
    return repository
