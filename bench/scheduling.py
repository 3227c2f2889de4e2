"""Rows of many requests at a time: batches, queues, models that compete."""

import dataclasses
import re
import statistics
import subprocess

from harness import ROOT, GrpcServer, Load, Server, WORKS, fail, say
from serving import compare
from table import Row, at_least, at_most, fraction

ROWS = ("batch-mlp", "batch-latency", "batch-streams", "isolation", "timer", "queue")
MANY = 64  # connections, or streams
BATCH_SIZE_MAX = 32


def batched(work, name, batching="dynamic_batching { }", batch_size_max=BATCH_SIZE_MAX):
    """The work with the settings of a batching model. 64 clients' requests meet in batches."""
    lines = [line if not line.startswith("max_batch_size") else f"max_batch_size: {batch_size_max}"
             for line in work.config.splitlines()]
    # Of a model that batches, the first dimension of a request is the batch.
    inputs = [(n, t, shape if work.onnx else [1, *shape], data) for n, t, shape, data in work.inputs]
    return dataclasses.replace(work, name=name, config="\n".join([*lines, batching, ""]),
                               inputs=inputs, connections=MANY, exact=work.echo is not None)


def mlp(name="mlp-batched", batching="dynamic_batching { }"):
    """With the priority that leaves the engine's thread at the nice value of everything else here: the load
    tool is on the same two cores. (Triton knows no other.)"""
    return batched(WORKS["mlp"](), name, batching + " optimization { priority: PRIORITY_MAX }")


def batch_mlp(bench, rows, notes):
    """Also the result for batch-latency: Triton's best throughput."""
    say("ONNX MLP in batches ...")
    result = compare(bench, mlp())
    ours, triton = result["ours"], result["triton"]
    what = f"ONNX MLP, dynamic batching up to {BATCH_SIZE_MAX}, 1 instance, {MANY} connections"
    rows.append(at_least(f"{what}: requests/s", 2, ours[1], triton[1]))
    row = at_most("the same: CPU per request", 1, ours[0], triton[0], "us")
    row.target, row.met = "-", None
    rows.append(row)
    notes.append(f"MLP in batches: PRIORITY_MAX; best front-end threads for CPU / for requests: ours {ours[2]} / "
                 f"{ours[3]}, Triton {triton[2]} / {triton[3]}")
    return result


def batch_latency(bench, result, rows, notes):
    rate = int(result["triton"][1])
    say(f"latency at {rate} requests/s, open loop ...")
    p99 = {"ours": [], "triton": []}
    for _ in range(3 if bench.options.quick else 5):
        for which, values in p99.items():
            with Server(bench, which, mlp(), result[which][3]) as server:
                server.open_loop(rate, 1)
                values.append(server.open_loop(rate, bench.seconds)[1] / 1000)
    ours, triton = (statistics.median(values) for values in p99.values())
    rows.append(at_most(f"the same: p99 at Triton's best throughput ({rate:,}/s, open loop)", 2, ours,
                        triton, "ms"))


def batch_streams(bench, rows, notes):
    say("identity in batches over gRPC ...")
    work = batched(WORKS["identity"](), "identity-batched")
    result = compare(bench, Load(work, 1, MANY), GrpcServer)
    ours, triton = result["ours"], result["triton"]
    rows.append(at_least(f"gRPC identity INT32[16], dynamic batching, {MANY} streams: requests/s", 3,
                         ours[1], triton[1]))


def isolation(bench, rows, notes):
    """A model at a fifth of what it can do alone on this server beside one that 64 clients overload. What
    the client sees; it has a processor whenever it wants one."""
    say("isolation ...")
    quiet, loud = mlp("mlp-quiet"), mlp("mlp-loud")
    runs = {}
    for _ in range(3 if bench.options.quick else 5):
        for which in ("ours", "triton"):
            with Server(bench, which, quiet, 2 if which == "ours" else 4, others=[loud]) as server:
                result = server.wrk(bench.seconds)
                rate = int(0.2 * result["requests"] / (result["us"] / 1e6))
                alone = server.open_loop(rate, bench.seconds)[1]
                load = server.overload(loud, bench.seconds + 1)
                beside = server.open_loop(rate, bench.seconds)[1]
                if load.wait() != 0:
                    fail("the overload ended early: no rows")
            runs.setdefault(which, []).append((alone / 1000, beside / 1000))
    medians = {which: [statistics.median(run[i] for run in some) for i in (0, 1)]
               for which, some in runs.items()}
    (ours_alone, ours), (triton_alone, triton) = medians["ours"], medians["triton"]
    rows.append(at_most("p99 of a model at 20 % load beside an overloaded one", 1, ours, triton, "ms"))
    rows.append(Row("the same: times its p99 alone", "at most 1.5x", f"{ours / ours_alone:.2f}x",
                    f"{triton / triton_alone:.2f}x", "", ours / ours_alone <= 1.5))


def timer(bench, rows, notes):
    """How late the batch of a lone client starts: the time in the queue, less the delay."""
    say("timer ...")
    delay_us = 2000
    work = batched(WORKS["identity"](), "identity-delay",
                   f"dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}")
    late = {"ours": [], "triton": []}
    for _ in range(3):
        for which, values in late.items():
            with Server(bench, which, work, 1) as server:
                server.open_loop(100, bench.seconds)
                queue = server.statistics()["inference_stats"]["queue"]
            values.append(queue["ns"] / queue["count"] / 1000 - delay_us)
    ours, triton = (statistics.median(values) for values in late.values())
    rows.append(Row(f"a lone request's batch after a delay of {delay_us / 1000:g} ms: late by (mean)",
                    "at most 200 us", f"{ours:.0f} us", f"{triton:.0f} us", fraction(ours / triton),
                    ours <= 200))


def queue(bench, rows, notes):
    """What put and take cost while others wait: the scheduler alone, bench/queue.c."""
    say("queue ...")
    subprocess.run(["ninja", "-C", bench.build, "bench/queue"], check=True, capture_output=True,
                   cwd=ROOT)
    text = subprocess.run([bench.build / "bench" / "queue"], check=True, capture_output=True,
                          text=True).stdout
    cases = {(int(waiting), int(levels)): float(put) + float(take) for waiting, levels, put, take in re.findall(
        r"^queue waiting=(\d+) levels=(\d+) timeouts=no put_ns=([\d.]+) take_ns=([\d.]+)", text, re.M)}
    few, many = cases[100, 10], cases[10000, 10]
    rows.append(Row("put and take of a request with 10,000 waiting at 10 priority levels",
                    "constant", f"{many:.0f} ns", f"{few:.0f} ns with 100 waiting",
                    f"{many / few:.2f}x", many / few <= 1.5))


def measure(bench, wanted):
    rows, notes = [], []
    result = None
    if "batch-mlp" in wanted or "batch-latency" in wanted:
        result = batch_mlp(bench, rows, notes)
    if "batch-latency" in wanted:
        batch_latency(bench, result, rows, notes)
    if "batch-streams" in wanted:
        batch_streams(bench, rows, notes)
    if "isolation" in wanted:
        isolation(bench, rows, notes)
    if "timer" in wanted:
        timer(bench, rows, notes)
    if "queue" in wanted:
        queue(bench, rows, notes)
    return rows, notes
