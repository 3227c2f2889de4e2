"""What the tests of the scheduler share: models of the backend gate, clients whose requests run in
the background, and what the server ran together.

A test holds an instance, queues requests one by one, and lets go: what runs together is then
decided by rules, not by time.
"""
import concurrent.futures
import contextlib
import itertools
import pathlib
import re

import numpy as np
import pytest
import tritonclient.grpc as client_grpc
import tritonclient.http as client_http
from tritonclient.utils import InferenceServerException

import triton
from server import (Server, config, connect, executable, message, pairs, read_answer, tensor,
                    wait_for)

BUILT = pathlib.Path(executable()).parent
SECONDS_MAX = 90
PROTOCOLS = ["http", "grpc"]
# Whom most tests ask, and how. What Triton decides does not depend on the protocol.
ASKED = [("ours", "http"), ("ours", "grpc"), ("triton", "grpc")]
ASKED_IDS = ["-".join(asked) for asked in ASKED]
# What tritonclient says of a refusal for lack of room or time.
UNAVAILABLE = {"http": "503", "grpc": "StatusCode.UNAVAILABLE"}
QUEUE_FULL = "[request id: 7] Exceeds maximum queue size"
QUEUE_TIMEOUT = "Request timeout expired"
BEGINS = re.compile(r"gate begins model=(\S+) instance=(\S+) batch=(\S*);")
PENDING = re.compile(r'^nv_inference_pending_request_count\{[^}]*model="([^"]*)"[^}]*\} (\S+)', re.M)
VALUES = itertools.count(1)


# ---- Models ----

def backend_folder(folder, *others):
    """A backend directory: gate, and ours by their names."""
    for name, file in [("gate", BUILT / "tests/backends/gate/libtriton_gate.so")] + [
            (name, BUILT / f"backends/{name}/libtriton_{name}.so") for name in others]:
        (folder / name).mkdir(parents=True)
        (folder / name / file.name).symlink_to(file)
    return folder


def instances(count=1):
    return f"instance_group [ {{ kind: KIND_CPU count: {count} }} ]\n"


def gate(batching="", batch=8, pair_count=1, count=1, dims=(-1,), optional=()):
    """Configuration of a model that answers INT32 with its inputs; `batching`: inside dynamic_batching."""
    inputs, outputs = pairs("INT32", list(dims), pair_count)
    inputs += [tensor(f"INPUT{name}", "INT32", list(dims), "optional: true") for name in optional]
    return config("gate", inputs, outputs, batch,
                  f"dynamic_batching {{ {batching} }}\n" + instances(count))


@contextlib.contextmanager
def running(kind, models, folder, *others):
    """A server of that kind, "ours" or "triton", with the backend gate and ours by their names."""
    backends = backend_folder(folder / "backends", *others)
    if kind == "ours":
        with Server(models, f"--backend-directory={backends}") as one:
            one.kind = kind
            yield one
        return
    reason = triton.missing()
    if reason:
        pytest.skip(reason)
    port, = triton.free_ports(1)
    one = triton.Triton(models, backends, folder, "--allow-metrics=true", f"--metrics-port={port}",
                        "--metrics-address=127.0.0.1")
    one.kind, one.metrics_port = kind, port
    try:
        yield one
    finally:
        one.kill()  # it need not end well


# ---- Requests ----

class Refused(Exception):
    """What tritonclient said: code and text."""

    def __init__(self, error):
        super().__init__(error.message())
        self.code, self.text = error.status(), error.message()


class Client:
    """Sends requests of one protocol in the background, by tritonclient."""

    def __init__(self, server, protocol):
        self.server, self.protocol = server, protocol
        self.pool = concurrent.futures.ThreadPoolExecutor(64)
        self.grpc = client_grpc.InferenceServerClient(server.grpc_url)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.pool.shutdown()
        self.grpc.close()

    def send(self, model, id="", size=1, width=1, inputs=("INPUT0",), outputs=None,  # noqa: A002
             **options):
        """A future of the answer: {output: its values}. Its outputs are checked to be the inputs of
        this request and no other, and to be those that were asked for.

        size: of the batch; width: elements of an entry. options: of tritonclient's infer()."""
        module = {"http": client_http, "grpc": client_grpc}[self.protocol]
        arrays, tensors = {}, []
        for name in inputs:
            first = next(VALUES) * 1000
            arrays[name] = np.arange(first, first + size * width, dtype=np.int32).reshape(size, width)
            tensors.append(module.InferInput(name, [size, width], "INT32"))
            tensors[-1].set_data_from_numpy(arrays[name])
        if outputs is not None:
            options["outputs"] = [module.InferRequestedOutput(name) for name in outputs]

        def check(result):
            found = {}
            for name, array in arrays.items():
                output = name.replace("INPUT", "OUTPUT")
                value = result.as_numpy(output)
                assert (value is not None) == (outputs is None or output in outputs), output
                assert value is None or value.tolist() == array.tolist(), (output, value, array)
                found[output] = value
            return found

        if self.protocol == "http":
            return self.pool.submit(self.call_http, model, tensors, check, request_id=id, **options)
        return self.call_grpc(model, tensors, check, request_id=id, **options)

    def call_http(self, model, tensors, check, **options):
        with client_http.InferenceServerClient(self.server.url, connection_timeout=SECONDS_MAX,
                                               network_timeout=SECONDS_MAX) as client:
            try:
                return check(client.infer(model, tensors, **options))
            except InferenceServerException as error:
                raise Refused(error) from None

    def call_grpc(self, model, tensors, check, **options):
        future = concurrent.futures.Future()

        def done(result, error):
            try:
                if error:
                    raise Refused(error)
                future.set_result(check(result))
            except BaseException as failure:
                future.set_exception(failure)
        future.context = self.grpc.async_infer(model, tensors, done,
                                               **{"client_timeout": SECONDS_MAX, **options})
        return future

    def queue(self, model, id="", **options):  # noqa: A002
        """send(), and returns when the request waits in the server's queue."""
        before = waiting(self.server, model)
        call = self.send(model, id, **options)
        wait_for(f"request '{id}' to wait",
                 lambda: call.done() or waiting(self.server, model) > before)
        assert not call.done(), call.exception()
        return call

    def hold(self, model, file, id="hold", **options):  # noqa: A002
        return Hold(self, model, file, id, **options)

    def refuses(self, text, model, **options):
        """Sends a request whose answer must be UNAVAILABLE with `text`."""
        refusal = self.send(model, "7", **options).exception(SECONDS_MAX)
        assert isinstance(refusal, Refused), refusal
        assert (refusal.code, refusal.text) == (UNAVAILABLE[self.protocol], text)


class Hold:
    """A request that keeps its instance busy until open(), or the end of the `with` block."""

    def __init__(self, client, model, file, id, **options):  # noqa: A002
        self.file = file
        self.call = client.send(model, id, parameters={"hold": str(file)}, **options)
        wait_for("the instance to be held",
                 lambda: self.call.done() or [id] in batches(client.server, model))
        assert not self.call.done(), self.call.exception()

    def open(self):
        self.file.touch()
        self.call.result(SECONDS_MAX)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.touch()
        concurrent.futures.wait([self.call], SECONDS_MAX)


# ---- What the server did ----

def executions(server, model):
    """[(instance, [(id, batch size), ...]), ...] in the order in which they began."""
    is_file = hasattr(server, "log_file")
    found = []
    for line in server.log_file.read_text().split("\n") if is_file else list(server.stderr_lines):
        match = BEGINS.search(line)
        if match and match[1] == model:
            batch = [entry.rpartition(":") for entry in match[3].split(",")]
            found.append((match[2], [(id, int(size)) for id, _, size in batch]))  # noqa: A001
    return found


def batches(server, model):
    """The ids of each execution, in the order in which they began."""
    return [[id for id, _ in batch] for _, batch in executions(server, model)]  # noqa: A001


def batches_once(server, model, count):
    """The same, when there are as many. (The log comes after the answers.)"""
    wait_for(f"{count} executions", lambda: len(batches(server, model)) >= count)
    return batches(server, model)


def ran(server, model, *expected):
    """These must be the ids of each execution."""
    assert batches_once(server, model, len(expected)) == list(expected)


def metrics_page(server):
    """None when it cannot be had now: that port takes few connections, and ten tests ask at once."""
    try:
        with connect(server.metrics_port) as s:
            s.sendall(message("GET", "/metrics"))
            return read_answer(s, "GET").body.decode()
    except (OSError, ValueError):
        return None


def waiting(server, model):
    """The number of requests in the model's queue."""
    page = wait_for("the metrics page", lambda: metrics_page(server))
    counts = {match[1]: match[2] for match in PENDING.finditer(page)}
    return int(float(counts.get(model, 0)))


def batch_counts(server, model):
    """{batch size: executions} of the v2 statistics."""
    return {row["batch_size"]: row["compute_infer"]["count"]
            for row in server.statistics(model)["batch_stats"]}
