"""Rows of one request at a time: HTTP and gRPC, the engine alone, the plug-in border, the start."""

import dataclasses
import re
import statistics
import subprocess

import onnx_models
from harness import LOADS, ORT, ROUNDS, GrpcServer, Server, WORKS, free_port, say
from table import Row, at_least, at_most, fraction

ROWS = ("identity", "megabyte", "mlp", "added", "border", "start", "grpc-identity", "grpc-streams",
        "grpc-megabyte", "grpc-mlp", "grpc-memory", "grpc-messages")


def compare(bench, work, server_class=Server):
    """{which: (CPU us, requests/s, threads for CPU, threads for requests)}: best medians. `work` is
    the Load of a GrpcServer."""
    name = getattr(work, "work", work).name
    runs = {}
    answer_bytes = {}
    for _ in range(ROUNDS):
        for threads in bench.thread_counts:
            for which in ("ours", "triton"):
                with server_class(bench, which, work, threads) as server:
                    if which not in answer_bytes:
                        answer_bytes[which] = server.verify()
                    run = server.measure(bench.seconds, answer_bytes[which])
                runs.setdefault(which, {}).setdefault(threads, []).append(run)

    results = {}
    for which, by_threads in runs.items():
        medians = {threads: [statistics.median(run[i] for run in some) for i in (0, 1)]
                   for threads, some in by_threads.items()}
        say(f"  {name}, {which}: " + "; ".join(
            f"{t} threads {cpu:.1f} us, {rps:.0f}/s" for t, (cpu, rps) in medians.items()))
        for_cpu = min(medians, key=lambda t: medians[t][0])
        for_rps = max(medians, key=lambda t: medians[t][1])
        results[which] = (medians[for_cpu][0], medians[for_rps][1], for_cpu, for_rps)
    return results


def peak_memory(bench, load):
    """{which: MiB}: the median peak after runs with grpc_check's requests before them."""
    runs = {"ours": [], "triton": []}
    for _ in range(ROUNDS):
        for which, results in runs.items():
            with GrpcServer(bench, which, load, None) as server:
                server.measure(bench.seconds, server.verify())
                results.append(server.peak_mib())
    return {which: statistics.median(results) for which, results in runs.items()}


def engine_alone(bench, work, milliseconds):
    """The engine called directly on one thread: (CPU us per run, ms to load it and the model)."""
    model = bench.repository(work) / work.name / "1" / "model.onnx"
    output = subprocess.run(
        [bench.helpers["ort_direct"], ORT, model, ",".join(n for n, *_ in work.inputs),
         ",".join(n for n, _ in work.outputs), str(work.inputs[0][2][1]), str(milliseconds)],
        check=True, capture_output=True, text=True).stdout.split()
    runs, _, cpu, start_us = (int(v) for v in output)
    return cpu / runs, start_us / 1000


def compare_with_engine(bench, work, milliseconds):
    """What compare() says, and the CPU us of a direct run: the median of three, before and after."""
    alone = [engine_alone(bench, work, milliseconds)]
    result = compare(bench, work)
    alone += [engine_alone(bench, work, milliseconds) for _ in range(2)]
    return result, statistics.median(run for run, _ in alone)


def border(bench):
    """(CPU us of a direct run, CPU us per Execute, calls over the border per Execute) for a model of
    two nodes: three interleaved runs, medians."""
    work = dataclasses.replace(WORKS["added"](), name="border",
                               onnx=onnx_models.add_sub("FP32", [None, None]))
    models = bench.folder / "border"
    (models / "add_sub" / "1").mkdir(parents=True)
    (models / "add_sub" / "1" / "model.onnx").write_bytes(work.onnx)

    def execute(program, count):
        done = subprocess.run([program, models, ORT, str(count)], check=True, capture_output=True,
                              text=True)
        return float(done.stdout.split()[0]), done.stderr

    host, direct, through = bench.compile_host(), [], []
    for _ in range(3):
        direct.append(engine_alone(bench, work, 500)[0])
        through.append(execute(host, 100000)[0])
    counting = bench.compile_host(counting=True)
    calls = [int(re.search(r"border calls: (\d+)", execute(counting, n)[1])[1]) for n in (100, 1100)]
    return statistics.median(direct), statistics.median(through), (calls[1] - calls[0]) / 1000


def start(bench, work, path, count):
    """{which: (milliseconds to ready, RSS in MiB)}, medians of `count` starts, interleaved."""
    models = bench.repository(work)
    runs = {"ours": [], "triton": []}
    for _ in range(count):
        for which, results in runs.items():
            port = free_port()
            output = subprocess.run(
                [bench.helpers["ready"], str(port), path, *bench.command(which, models, port)],
                env=bench.env(which), check=True, capture_output=True, text=True).stdout.split()
            results.append((float(output[0]), int(output[1]) / 1024))
    return {which: tuple(statistics.median(r[i] for r in results) for i in (0, 1))
            for which, results in runs.items()}


# name: (text, target of the CPU, target of the messages per second, their noun); None: not aimed at
GRPC_ROWS = {
    "grpc-identity": ("gRPC identity INT32[16], 16 connections", 4, 2.5, "requests/s"),
    "grpc-streams": ("gRPC identity INT32[16], 1 connection, 64 streams", None, 3, "requests/s"),
    "grpc-megabyte": ("gRPC identity FP32 1 MiB, 16 connections", 2, None, "requests/s"),
    "grpc-mlp": ("gRPC ONNX MLP, 16 connections", None, 1.3, "requests/s"),
    "grpc-messages": ("gRPC identity INT32[16], one ModelStreamInfer", None, 2, "messages/s"),
}


def measure_grpc(bench, wanted):
    rows, notes = [], []
    for name in wanted:
        say(f"{name} ...")
        if name == "grpc-memory":
            peak = peak_memory(bench, LOADS[name]())
            rows.append(at_most("gRPC identity FP32 1 MiB, 16 streams: peak memory", 3,
                                peak["ours"], peak["triton"], "MiB"))
            continue
        text, cpu_target, rps_target, noun = GRPC_ROWS[name]
        result = compare(bench, LOADS[name](), GrpcServer)
        ours, triton = result["ours"], result["triton"]
        cpu = at_most(f"{text}: CPU per {noun.removesuffix('s/s')}", cpu_target or 1, ours[0], triton[0], "us")
        rate = at_least(f"{text}: {noun}", rps_target or 1, ours[1], triton[1])
        for row, target in ((cpu, cpu_target), (rate, rps_target)):
            if target is None:
                row.target, row.met = "-", None
            rows.append(row)
        notes.append(f"{text}: best for CPU / for {noun}: ours {ours[2]} / {ours[3]} threads, Triton "
                     f"{8 * triton[2]} / {8 * triton[3]} prepared calls")
    return rows, notes


def measure(bench, wanted):
    rows = []
    notes = []

    def threads_note(name, result):
        ours, triton = result["ours"], result["triton"]
        notes.append(f"{name}: best front-end threads for CPU / for requests: ours {ours[2]} / "
                     f"{ours[3]}, Triton {triton[2]} / {triton[3]}")

    for name, text, cpu_target, rps_target in (
            ("identity", "identity INT32[16]", 4, 2.5), ("megabyte", "identity FP32 1 MiB", 3, None)):
        if name not in wanted:
            continue
        say(f"{text} ...")
        result = compare(bench, WORKS[name]())
        ours, triton = result["ours"], result["triton"]
        rows.append(at_most(f"{text}: CPU per request", cpu_target, ours[0], triton[0], "us"))
        row = at_least(f"{text}: requests/s", rps_target or 1, ours[1], triton[1])
        if rps_target is None:
            row.target, row.met = "-", None
        rows.append(row)
        threads_note(text, result)

    if "mlp" in wanted:
        say("ONNX MLP ...")
        work = WORKS["mlp"]()
        result, cpu = compare_with_engine(bench, work, 500)
        ours, triton = result["ours"], result["triton"]
        rows.append(at_least("ONNX MLP 256-1024-1024-16: requests/s", 1.3, ours[1], triton[1]))
        rows.append(Row("the same: CPU per request", "-", f"{ours[0]:.1f} us", f"{triton[0]:.1f} us",
                        fraction(ours[0] / triton[0]), None))
        rows.append(Row("the same: the engine alone, one core", "-", f"{1e6 / cpu:,.0f}/s",
                        f"{cpu:.1f} us CPU", "", None))
        threads_note("MLP", result)

    if "added" in wanted:
        say("CPU added to a direct call ...")
        work = WORKS["added"]()
        result, cpu = compare_with_engine(bench, work, 300)
        added = {which: r[0] - cpu for which, r in result.items()}
        rows.append(Row(f"CPU added to a direct engine call of {cpu:.1f} us", "at most 15 us",
                        f"{added['ours']:.1f} us", f"{added['triton']:.1f} us",
                        fraction(added["ours"] / added["triton"]), added["ours"] <= 15))
        threads_note("added CPU", result)

    if wanted_grpc := [name for name in wanted if name in LOADS]:
        grpc_rows, grpc_notes = measure_grpc(bench, wanted_grpc)
        rows += grpc_rows
        notes += grpc_notes

    if "border" in wanted:
        say("border ...")
        direct, through, calls = border(bench)
        rows.append(Row("onnxruntime backend: CPU added to a direct run of 2 nodes",
                        "at most 1 us added", f"{through - direct:.2f} us", "2.2 us, earlier",
                        f"1/{2.2 / (through - direct):.1f}" if through > direct else "",
                        through - direct <= 1))
        rows.append(Row("the same: calls over the plug-in border per request", "-", f"{calls:.0f}",
                        "", "", None))

    if "start" in wanted:
        say("start ...")
        count = 5 if bench.options.quick else 9
        small = WORKS["added"]()
        ready = start(bench, small, f"/v2/models/{small.name}/ready", count)
        rows.append(at_most("start to ready, one small ONNX model", 3, ready["ours"][0],
                            ready["triton"][0], "ms"))
        alone = statistics.median(engine_alone(bench, small, 1)[1] for _ in range(count))
        rows.append(Row("the same: the engine's own part", "-", f"{alone:.1f} ms", f"{alone:.1f} ms",
                        "", None))
        memory = start(bench, WORKS["identity"](), "/v2/health/ready", count)
        rows.append(at_most("RSS when ready, identity only", 3, memory["ours"][1],
                            memory["triton"][1], "MiB"))
        rows.append(Row("start to ready, identity only", "-", f"{memory['ours'][0]:.1f} ms",
                        f"{memory['triton'][0]:.1f} ms",
                        fraction(memory["ours"][0] / memory["triton"][0]), None))
    return rows, notes
