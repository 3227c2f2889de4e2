"""Back-pressure over gRPC: slow models, clients that do not read, and tensors of a GiB.

Memory and waits are those of the release build (TIS_BUILD): a sanitizer keeps freed memory. The bounds
are generous, for machines that do other things too; the figures are printed (pytest -s).
"""
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from server import Server, add_model, executable, identity, wait_for
from test_v2_stream import (CODE, REPEAT, SERVICE, Stream, ask, copy, number, numbers, repeat)
from triton import BACKENDS

RELEASE = BACKENDS.parent / "trtserver"
MIB = 1 << 20
# More than what one stream may hold (docs/protocols.md) and what else a server needs for it.
STREAM_MIB_MAX = 64


@pytest.fixture
def server(tmp_path):
    """One loop, so that whatever waits for a loop is seen."""
    add_model(tmp_path, "copy", identity("INT32"))
    add_model(tmp_path, "small", identity("INT32"))
    add_model(tmp_path, "slow", identity("INT32", delay_ms=5))
    add_model(tmp_path, "repeat", REPEAT)
    with Server(tmp_path, "--http-thread-count=1", "--max-inflight-bytes=4000000000",
                program=str(RELEASE) if RELEASE.exists() else executable()) as one:
        yield one


def memory_mib(server, what):
    """VmRSS: now; VmHWM: at most until now."""
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(what)).split()[1]) / 1024


PULSE = r"""
import json, socket, sys, threading, time
port, body = int(sys.argv[1]), sys.argv[2].encode()
s = socket.create_connection(("127.0.0.1", port), timeout=30)
message = b"POST /v2/models/small/infer HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (
    len(body), body)
waits, over = [], threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
while not over.is_set():
    started, answer = time.monotonic(), b""
    s.sendall(message)
    while not answer.endswith(b"}"):
        got = s.recv(65536)
        assert got, "closed"
        answer += got
    assert answer.startswith(b"HTTP/1.1 200"), answer
    waits.append(time.monotonic() - started)
    over.wait(0.002)
waits.sort()
print(json.dumps([len(waits), waits[len(waits) // 2] * 1e3, waits[len(waits) * 99 // 100] * 1e3,
                  waits[-1] * 1e3]))
"""


@contextlib.contextmanager
def small_calls(server, what):
    """Small inferences on another connection, by a process of its own, while the block runs."""
    body = json.dumps({"inputs": [{"name": "INPUT0", "datatype": "INT32", "shape": [1],
                                   "data": [1]}]})
    process = subprocess.Popen([sys.executable, "-c", PULSE, str(server.port), body],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    figures = {}
    try:
        yield figures
        out, _ = process.communicate(timeout=60)
        count, median, high, longest = json.loads(out)
        figures.update(count=count, median=median, high=high, longest=longest)
        print(f"\n{what}: {count} small calls, median {median:.2f} ms, 99 % {high:.2f} ms, "
              f"longest {longest:.2f} ms")
        assert count > 10 and median < 1000 and longest < 5000
    finally:
        process.kill()
        process.wait()


def megabyte(model, id=""):  # noqa: A002
    return copy(*np.zeros(MIB // 4, "i4"), model=model, id=id)


def test_flood_of_a_slow_model(server):
    """256 messages of 1 MiB to a model that takes 5 ms for each: the server holds a few of them."""
    message = megabyte("slow").SerializeToString()
    ask_small = copy(1)
    with grpc.insecure_channel(server.grpc_url) as channel:
        ask(channel, ask_small)
        before = memory_mib(server, "VmHWM")
        with small_calls(server, "a slow model's flood"):
            stream = Stream(channel, *[message] * 256)
            assert sum(len(r.infer_response.raw_output_contents[0]) == MIB
                       for r in stream.rest()) == 256
    grown = memory_mib(server, "VmHWM") - before
    print(f"256 MiB sent, memory grew by {grown:.0f} MiB")
    assert grown < STREAM_MIB_MAX


class Flood:
    """A stream whose requests are made when grpcio asks for them, and whose responses nobody reads."""

    def __init__(self, channel, message, count):
        self.count, self.taken, self.over = count, 0, threading.Event()
        self.call = channel.stream_stream(
            SERVICE + "ModelStreamInfer", lambda m: m, lambda m: m)(self.messages(message))

    def messages(self, message):
        while self.taken < self.count and not self.over.is_set():
            self.taken += 1
            yield message
        self.over.wait(120)


def wait_stable(what, value):
    """Until value() has been the same for two seconds."""
    seen = [(None, 0.0)]

    def is_stable():
        now = value()
        if seen[-1][0] != now:
            seen.append((now, time.monotonic()))
        return time.monotonic() - seen[-1][1] > 2
    wait_for(what, is_stable, 90)


@pytest.mark.parametrize("model", ["copy", "slow"])
def test_client_that_does_not_read(server, model):
    """It offers 1 GiB in messages of 1 MiB and reads no response: its window closes."""
    message = megabyte(model).SerializeToString()
    with grpc.insecure_channel(server.grpc_url) as channel:
        ask(channel, copy(1))
        before = memory_mib(server, "VmHWM")
        with small_calls(server, "a client that does not read"):
            flood = Flood(channel, message, 1024)
            wait_stable("the end of the client's window", lambda: flood.taken)
        grown = memory_mib(server, "VmHWM") - before
        print(f"{flood.taken} of 1024 MiB taken, memory grew by {grown:.0f} MiB")
        assert flood.taken < 128 and grown < STREAM_MIB_MAX
        flood.over.set()
        flood.call.cancel()
        assert len(ask(channel, copy(1))) == 1


def test_many_small_responses_that_nobody_reads(server):
    """One small request may cause responses without end: the stream ends when too many wait."""
    with grpc.insecure_channel(server.grpc_url) as channel:
        assert numbers(ask(channel, repeat([1]))) == [1]
        before = memory_mib(server, "VmHWM")
        stream = Stream(channel, repeat(range(4_000_000)))
        assert number(stream.next()) == 0
        with small_calls(server, "responses that nobody reads"):
            wait_stable("the end of the responses", lambda: memory_mib(server, "VmRSS"))
        grown = memory_mib(server, "VmHWM") - before
        print(f"memory grew by {grown:.0f} MiB")
        assert grown < 1000
        _, code, text = stream.fails()
        assert (code, "does not read" in text) == (CODE.RESOURCE_EXHAUSTED, True)
        assert numbers(ask(channel, repeat([1]))) == [1]


def big_call(server, mib):
    """A tensor of that size there and back; what the small calls beside it saw."""
    block = np.arange(MIB // 4, dtype="i4").tobytes()
    head = pb.ModelInferRequest(model_name="copy")
    head.inputs.add(name="INPUT0", datatype="INT32", shape=[mib * MIB // 4])
    size = mib * MIB
    tag = bytes([7 << 3 | 2]) + varint(size)
    message = b"".join([head.SerializeToString(), tag, *[block] * mib])
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.grpc_url, options=options) as channel, \
            small_calls(server, f"a tensor of {mib} MiB") as figures:
        started = time.monotonic()
        answer = channel.unary_unary(SERVICE + "ModelInfer", lambda m: m, lambda m: m)(
            message, timeout=110)
        took = time.monotonic() - started
    del message
    print(f"{mib} MiB there and back in {took:.1f} s")
    tensor = memoryview(answer)[-size:]
    assert answer[-size - len(tag) - 1:-size].endswith(varint(size))
    assert all(tensor[at:at + MIB] == block for at in range(0, size, MIB))
    return figures


def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*out, n])


@pytest.mark.parametrize("mib", [256, pytest.param(1024, marks=pytest.mark.skipif(
    os.environ.get("TIS_FULL") != "1", reason="a GiB: make test-full"))])
def test_big_tensor(server, mib):
    """Small calls of the same loop go on beside it."""
    assert big_call(server, mib)["high"] < 5000
