"""The metrics page: accepted by prometheus_client's parsers in both forms, with numbers that are the
clients' own, while the server starts and ends, and on the ports where it belongs."""
import http.client
import os
import pathlib
import re
import socket
import sys
import threading
import time

import numpy as np
import prometheus_client.openmetrics.parser as parser_open
import prometheus_client.parser as parser_text
import pytest
import tritonclient.grpc as client_grpc

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "backends"))
import test_bad_backends  # noqa: E402
import triton  # noqa: E402
from server import (Server, add_model, binary_body, binary_input, config, connect,  # noqa: E402
                    free_port, identity, infer_message, json_input, message, pairs, parameter, read_answer, run,
                    tensor, wait_for)

OPEN = "application/openmetrics-text; version=1.0.0"
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPEN_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
REASONS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
COUNTERS = ["nv_inference_request_success", "nv_inference_count", "nv_inference_exec_count"]
DURATIONS = [f"nv_inference_{part}_duration_us" for part in (
    "request", "queue", "compute", "compute_input", "compute_infer", "compute_output")]
GAUGES = ["nv_inference_pending_request_count", "nv_model_load_duration_secs",
          "trtserver_model_ready"]
HISTOGRAMS = ["nv_inference_load_ratio", *(f"trtserver_{part}_duration_seconds" for part in (
    "request", "queue", "compute", "first_response")), "trtserver_batch_size"]
OF_SERVER = ["trtserver_ready", "trtserver_uptime_seconds", "trtserver_inflight_requests",
             "trtserver_inflight_bytes", "trtserver_inflight_limit_bytes",
             "process_cpu_seconds_total", "process_resident_memory_bytes",
             "process_virtual_memory_bytes", "process_open_fds", "process_max_fds",
             "process_threads", "process_start_time_seconds", "nv_cpu_utilization",
             "nv_cpu_memory_total_bytes", "nv_cpu_memory_used_bytes"]
DECOUPLED = "model_transaction_policy { decoupled: true }\n"


class Page:
    """A parsed page; series are found by name and some of their labels."""

    def __init__(self, answer):
        assert answer.status == 200, answer
        self.text = answer.body.decode()
        self.type = answer.headers["Content-Type"]
        parser = {TEXT_TYPE: parser_text, OPEN_TYPE: parser_open}[self.type]
        self.families = list(parser.text_string_to_metric_families(self.text))
        names = [f.name for f in self.families]
        assert len(names) == len(set(names)), "a family is there twice"
        self.types = {f.name: f.type for f in self.families}
        # The parser of the text format calls all series of counters NAME_total.
        # Once a family: the page of a thousand models is long.
        plain = {f.name for f in self.families
                 if self.type == TEXT_TYPE and f"# TYPE {f.name} counter\n" in self.text}
        self.samples = [s._replace(name=f.name) if f.name in plain else s
                        for f in self.families for s in f.samples]
        keys = [(s.name, frozenset(s.labels.items())) for s in self.samples]
        assert len(keys) == len(set(keys)), "a series is there twice"

    def find(self, name, **labels):
        return [s for s in self.samples if s.name == name and labels.items() <= s.labels.items()]

    def value(self, name, **labels):
        found = self.find(name, **labels)
        assert len(found) == 1, (name, labels, found)
        return found[0].value


def page(server, accept=None):
    return Page(server.metrics(accept))


def infer(server, model, batch=1, port=None):
    answer = server.infer(model, {"inputs": [json_input(
        "INPUT0", "FP32", [batch, 1], [1.0] * batch)]})
    assert answer.status == 200, answer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    add_model(folder, "copy", identity("FP32", [-1], batch=8))
    add_model(folder, "never", identity("FP32", [-1], batch=8))
    add_model(folder, "tagged", identity("FP32", [-1], batch=8, extra='''
        metric_tags { key: "team" value: "vision" }
        metric_tags { key: "cost-centre" value: "quote \\" backslash \\\\ newline \\n" }
        metric_tags { key: "cost.centre" value: "gr\\303\\266\\303\\237e" }
        metric_tags { key: "__x" value: "" }'''))
    with Server(folder, "--metrics-interval-ms=0") as one:
        yield one


# ---- The page in both forms ----

def test_both_forms_have_the_same_series(server):
    infer(server, "copy")
    text, opened = page(server), page(server, OPEN)
    assert (text.type, opened.type) == (TEXT_TYPE, OPEN_TYPE)
    assert opened.text.endswith("\n# EOF\n") and "EOF" not in text.text
    names = [{(s.name, frozenset(s.labels.items())) for s in p.samples} for p in (text, opened)]
    assert names[0] == names[1]
    for name in [*COUNTERS, *DURATIONS, "nv_inference_request_failure"]:
        assert f"# TYPE {name} counter\n" in text.text
        assert opened.types[name] == "unknown"
    for name in HISTOGRAMS:
        assert text.types[name] == opened.types[name] == "histogram"
    for name in ("process_cpu_seconds", "trtserver_connections_accepted"):
        assert opened.types[name] == "counter"
    for name in [*GAUGES, *(n for n in OF_SERVER if n != "process_cpu_seconds_total")]:
        assert text.types[name] == opened.types[name] == "gauge"
    assert next(f for f in opened.families if f.name == HISTOGRAMS[1]).unit == "seconds"


def test_a_form_is_chosen_by_accept(server):
    """What Prometheus sends, and what curl does."""
    prometheus = ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
                  "application/openmetrics-text;version=0.0.1;q=0.4,"
                  "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
                  "text/plain;version=0.0.4;q=0.2,*/*;q=0.1")
    for accept, expected in ((prometheus, OPEN_TYPE), ("*/*", TEXT_TYPE), ("text/html", TEXT_TYPE),
                             ("application/openmetrics-text;q=0", TEXT_TYPE)):
        assert page(server, accept).type == expected, accept


def test_series_of_a_model_that_never_ran(server):
    """Counters, at zero, exist from loading on; histograms from the first observation on."""
    got = page(server, OPEN)
    for name in [*COUNTERS, *DURATIONS, "nv_inference_pending_request_count"]:
        assert got.value(name, model="never", version="1") == 0, name
    for reason in REASONS:
        assert got.value("nv_inference_request_failure", model="never", reason=reason) == 0
    assert len(got.find("nv_inference_request_failure", model="never")) == len(REASONS)
    assert got.value("trtserver_model_ready", model="never", version="1") == 1
    assert 0 < got.value("nv_model_load_duration_secs", model="never") < 60
    for name in HISTOGRAMS:
        assert not got.find(name + "_count", model="never"), name
    assert all(set(s.labels) == {"model", "version"} for s in got.find(COUNTERS[0], model="never"))


def test_labels_of_tags(server):
    """`_<key>` of each tag, a legal name of its own, with its value whatever that holds."""
    infer(server, "tagged")
    expected = {"model": "tagged", "version": "1", "_team": "vision",
                "_cost_centre": 'quote " backslash \\ newline \n', "_cost_centre_2": "größe",
                "_x": ""}
    for got in (page(server), page(server, OPEN)):
        for name in [*GAUGES, "trtserver_batch_size_count", "nv_inference_load_ratio_sum"]:
            found = got.find(name, model="tagged")
            assert [s.labels for s in found] == [expected], name


def test_figures_of_server_and_process(server):
    got = page(server, OPEN)
    for name in OF_SERVER:
        assert len(got.find(name)) == 1, name
    pid = server.process.pid
    assert got.value("process_threads") == len(os.listdir(f"/proc/{pid}/task"))
    start = got.value("process_start_time_seconds")
    assert time.time() - 600 < start < time.time() + 2
    assert 0 < got.value("trtserver_uptime_seconds") < time.time() - start + 5
    assert got.value("process_open_fds") > 5
    assert 0 <= got.value("nv_cpu_utilization") <= 1
    total = got.value("nv_cpu_memory_total_bytes")
    assert total == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert got.value("process_resident_memory_bytes") < total
    assert got.value("trtserver_inflight_limit_bytes") == 1 << 30
    assert got.value("trtserver_ready") == 1
    info = got.find("trtserver_build_info")
    assert len(info) == 1 and info[0].labels["id"] == "triton" and info[0].value == 1


def test_gpus_and_caches_that_do_not_exist_have_no_series(server):
    got = page(server)
    assert not [s.name for s in got.samples if s.name.startswith(("nv_gpu", "nv_cache", "nv_energy"))]


# ---- Numbers ----

def histogram(got, name, **labels):
    """(count, sum, {bound: cumulative}); checks that it is one."""
    buckets = {s.labels["le"]: s.value for s in got.find(name + "_bucket", **labels)}
    bounds = sorted(buckets, key=float)
    values = [buckets[b] for b in bounds]
    assert values == sorted(values) and bounds[-1] == "+Inf"
    count = got.value(name + "_count", **labels)
    assert buckets["+Inf"] == count
    return count, got.value(name + "_sum", **labels), buckets


def test_counts_are_the_clients_own(tmp_path, start):
    """Known traffic over HTTP and gRPC at the same time: every figure is what was sent."""
    add_model(tmp_path, "copy", identity("FP32", [-1], batch=8))
    add_model(tmp_path, "other", identity("FP32", [-1], batch=8))
    server = start(tmp_path)
    batches = [1, 3, 2, 8, 1, 5]
    rounds = 20

    def over_http():
        for _ in range(rounds):
            for batch in batches:
                infer(server, "copy", batch)

    def over_grpc():
        with client_grpc.InferenceServerClient(server.grpc_url) as client:
            for _ in range(rounds):
                for batch in batches:
                    one = client_grpc.InferInput("INPUT0", [batch, 1], "FP32")
                    one.set_data_from_numpy(np.ones([batch, 1], np.float32))
                    client.infer("copy", [one])

    threads = [threading.Thread(target=t) for t in (over_http, over_grpc)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for _ in range(7):  # one dimension too many
        assert server.infer("copy", {"inputs": [json_input(
            "INPUT0", "FP32", [1, 1, 1], [1.0])]}).status == 400

    requests = 2 * rounds * len(batches)
    for got in (page(server), page(server, OPEN)):
        one = {"model": "copy", "version": "1"}
        assert got.value("nv_inference_request_success", **one) == requests
        assert got.value("nv_inference_count", **one) == 2 * rounds * sum(batches)
        assert got.value("nv_inference_exec_count", **one) == requests
        failures = [got.value("nv_inference_request_failure", reason=r, **one) for r in REASONS]
        statistics = server.statistics("copy")
        assert sum(failures) == statistics["inference_stats"]["fail"]["count"]
        for name in DURATIONS[:2]:
            key = {"request": "success", "queue": "queue"}[name.split("_")[2]]
            assert got.value(name, **one) == statistics["inference_stats"][key]["ns"] // 1000
        parts = [got.value(name, **one) for name in DURATIONS[2:]]
        assert 0 <= parts[0] - sum(parts[1:]) <= 2  # each is rounded down

        for name in HISTOGRAMS[:-1]:
            count, total, _ = histogram(got, name, **one)
            assert count == requests and total > 0, name
        count, total, buckets = histogram(got, "trtserver_batch_size", **one)
        assert (count, total) == (requests, 2 * rounds * sum(batches))
        per_round = requests // len(batches)
        expected = {"1.0": 2, "2.0": 3, "4.0": 4, "8.0": 6, "+Inf": 6}
        assert {le: buckets[le] / per_round for le in expected} == expected
        seconds = got.value("trtserver_request_duration_seconds_sum", **one)
        assert abs(seconds * 1e6 - got.value("nv_inference_request_duration_us", **one)) <= 1
        assert got.value("nv_inference_request_success", model="other") == 0


def test_pending_requests(tmp_path, start):
    """One runs, three wait."""
    add_model(tmp_path, "slow", identity("FP32", [-1], batch=8, delay_ms=30000,
                                         extra="instance_group { count: 1 kind: KIND_CPU }"))
    server = start(tmp_path, "--exit-timeout-secs=1")
    body = {"inputs": [json_input("INPUT0", "FP32", [1, 1], [1.0])]}
    sockets = [connect(server.port) for _ in range(4)]
    try:
        for i, s in enumerate(sockets):
            s.sendall(infer_message("slow", body))
            if i == 0:
                wait_for("it runs", lambda: page(server).value("trtserver_inflight_requests") == 1 and
                         page(server).value("nv_inference_pending_request_count", model="slow") == 0)
        wait_for("three wait", lambda: page(server).value(
            "nv_inference_pending_request_count", model="slow") == 3)
        got = page(server)
        assert got.value("trtserver_inflight_requests") == 4
        assert got.value("trtserver_connections", protocol="http") == 4
        sockets.pop().close()  # a client goes away
        wait_for("two wait", lambda: page(server).value(
            "nv_inference_pending_request_count", model="slow") == 2)
        wait_for("the cancel", lambda: page(server).value(
            "nv_inference_request_failure", model="slow", reason="CANCELED") == 1)
    finally:
        for s in sockets:
            s.close()
        server.kill()


def test_connections(server):
    """Open ones by what they speak, accepted ones by the port they came to."""
    before = page(server)
    accepted = {port: before.value("trtserver_connections_accepted_total", port=port)
                for port in ("http", "grpc", "metrics")}
    sockets = [connect(server.port) for _ in range(3)]
    for s in sockets:  # answered: it is open for certain
        s.sendall(message("GET", "/v2/health/live"))
        read_answer(s, "GET")
    with client_grpc.InferenceServerClient(server.grpc_url) as client, \
            client_grpc.InferenceServerClient(server.url) as on_http_port:
        assert client.is_server_live() and on_http_port.is_server_live()
        wait_for("the end of others'", lambda: page(server).value(
            "trtserver_connections", protocol="http") == 3)
        accepted["metrics"] = page(server).value("trtserver_connections_accepted_total", port="metrics")
        got = page(server)
        assert got.value("trtserver_connections", protocol="http") == 3
        assert got.value("trtserver_connections", protocol="grpc") == 2
        assert got.value("trtserver_connections", protocol="metrics") == 1
        for port, more in (("http", 4), ("grpc", 1), ("metrics", 1)):
            assert got.value("trtserver_connections_accepted_total", port=port) == \
                accepted[port] + more, port
    for s in sockets:
        s.close()
    wait_for("they are gone", lambda: page(server).value(
        "trtserver_connections", protocol="http") == 0)


@test_bad_backends.pytestmark
def test_backends_own_metrics(tmp_path, start):
    """Two models that make the same metrics share them; a name of the server's is refused."""
    backends = test_bad_backends.backend_folder(tmp_path / "backends")
    for name in ("one", "two"):
        add_model(tmp_path / "models", name, test_bad_backends.bad("metrics"))
    server = start(tmp_path / "models", f"--backend-directory={backends}")
    server.wait_log("bad metrics: Already exists")
    for name in ("one", "two", "two"):
        body, headers = binary_body(
            {"inputs": [binary_input("INPUT0", "INT32", [4], 16)]}, bytes(16))
        assert server.infer(name, body, headers).status == 200
    for got in (page(server), page(server, OPEN)):
        labels = {"what": 'a "test"'}
        assert [s.labels for s in got.find("bad_requests_total")] == [labels]
        assert got.value("bad_requests_total", **labels) == 3
        assert got.value("bad_level", **labels) == -0.25
        count, total, buckets = histogram(got, "bad_seconds", **labels)
        assert (count, total, buckets) == (3, 6, {"1.0": 0, "2.5": 3, "+Inf": 3})
        assert got.value("nv_inference_count", model="two") == 2


@test_bad_backends.pytestmark
def test_memory_that_backends_report(tmp_path, start):
    """The same as in the statistics, and nothing for models that say nothing."""
    backends = test_bad_backends.backend_folder(tmp_path / "backends")
    for mode in ("memory", "ok"):
        add_model(tmp_path / "models", mode, test_bad_backends.bad(mode))
    server = start(tmp_path / "models", f"--backend-directory={backends}")
    told = server.statistics("memory")["memory_usage"]
    got = page(server, OPEN)
    assert told and sorted((s.labels["memory"], s.labels["id"], s.value) for s in got.find(
        "trtserver_model_memory_bytes")) == sorted(
            (one["type"], str(one["id"]), one["byte_size"]) for one in told)


# ---- Settings ----

def test_counter_latencies_can_be_hidden(tmp_path, start):
    add_model(tmp_path, "copy", identity("FP32", [-1], batch=8))
    server = start(tmp_path, "--metrics-config=counter_latencies=false", "--allow-cpu-metrics=false",
                   "--metrics-config", "summary_latencies=false", "--allow-gpu-metrics=false")
    infer(server, "copy")
    got = page(server)
    assert not [s.name for s in got.samples if s.name.endswith("_us") or s.name.startswith("nv_cpu")]
    assert got.value("nv_inference_request_success", model="copy") == 1
    assert got.value("trtserver_request_duration_seconds_count", model="copy") == 1


@pytest.mark.parametrize("buckets", [None, [5, 250.5, 3000]])
def test_first_response_histogram(tmp_path, start, buckets):
    """Triton's, for decoupled models, with its bounds or those of the configuration."""
    control = "" if not buckets else (
        'model_metrics { metric_control { metric_identifier { family: '
        f'"nv_inference_first_response_histogram_ms" }} histogram_options {{ buckets: {buckets} }} }} }}')
    repeat = config("repeat", [tensor("IN", "INT32", [-1]), tensor("DELAY", "UINT32", [-1]),
                               tensor("WAIT", "UINT32", [1])],
                    [tensor("OUT", "INT32", [1]), tensor("IDX", "UINT32", [1])],
                    extra=DECOUPLED + control)
    add_model(tmp_path, "repeat", repeat)
    add_model(tmp_path, "copy", identity("FP32", [-1], batch=8))
    server = start(tmp_path, "--metrics-config=histogram_latencies=true")
    name = "nv_inference_first_response_histogram_ms"
    expected = [f"{float(b)}" for b in buckets or [100, 500, 2000, 5000]] + ["+Inf"]
    count, total, found = histogram(page(server), name, model="repeat")
    assert (count, total, list(found)) == (0, 0, expected)

    answers = []
    with client_grpc.InferenceServerClient(server.grpc_url) as client:
        done = threading.Event()

        def answered(result, error):
            answers.append((result, error))
            if len(answers) == 3:
                done.set()
        client.start_stream(answered)
        inputs = []
        for tensor_name, data in (("IN", np.array([1, 2, 3], np.int32)),
                                  ("DELAY", np.array([20, 300, 0], np.uint32)),
                                  ("WAIT", np.array([0], np.uint32))):
            one = client_grpc.InferInput(tensor_name, list(data.shape),
                                         "INT32" if data.dtype == np.int32 else "UINT32")
            one.set_data_from_numpy(data)
            inputs.append(one)
        client.async_stream_infer("repeat", inputs)
        assert done.wait(20) and not [e for _, e in answers if e]
        client.stop_stream()
    infer(server, "copy")
    got = page(server, OPEN)
    count, total, found = histogram(got, name, model="repeat")
    assert count == 1 and 20 <= total < 5000 and found[expected[0]] == (total <= float(expected[0]))
    seconds = got.value("trtserver_first_response_duration_seconds_sum", model="repeat")
    assert abs(seconds * 1000 - total) < 1e-3
    assert not got.find(name + "_count", model="copy")  # not decoupled
    assert got.value("trtserver_first_response_duration_seconds_count", model="copy") == 1


def test_summaries_are_refused():
    for value in ("summary_latencies=true", "summary_quantiles=0.5:0.05"):
        status, _, err = run("--model-store=x", f"--metrics-config={value}")
        assert status == 1 and "this server has no summaries" in err and "histogram_quantile" in err


# ---- Triton ----

def test_every_series_of_tritons(tmp_path, start):
    """What Triton shows of the same models after the same requests is here, with the same labels and
    counts; but for pools of memory that this server does not have."""
    reason = triton.missing("identity")
    if reason:
        pytest.skip(reason)
    models = tmp_path / "models"
    for name in ("copy", "never"):
        add_model(models, name, identity("FP32", [-1], batch=8, extra='''
            metric_tags { key: "team" value: "a \\"b\\"" }
            instance_group { count: 1 kind: KIND_CPU }'''))
    server = start(models)
    port = free_port()
    backends = triton.add_backends(tmp_path / "backends", "identity")
    with triton.Triton(models, backends, tmp_path, "--allow-metrics=true",
                       "--metrics-address=127.0.0.1", f"--metrics-port={port}") as peer:
        for one in (server, peer):
            for batch in (1, 4, 3):
                infer(one, "copy", batch)
            assert one.infer("copy", {"inputs": []}).status >= 400
        ours = page(server)
        with connect(port) as s:
            s.sendall(message("GET", "/metrics"))
            answer = read_answer(s, "GET")
        answer.headers.replace_header("Content-Type", TEXT_TYPE)
        theirs = Page(answer)
    seen = set()
    for sample in theirs.samples:
        if sample.name.startswith("nv_pinned_memory_pool"):
            continue
        found = ours.find(sample.name, **sample.labels)
        assert [s.labels for s in found] == [sample.labels], sample
        seen.add(sample.name)
        if sample.name in COUNTERS:
            assert found[0].value == sample.value, sample
    assert {*COUNTERS, *DURATIONS} - {"nv_inference_compute_duration_us"} < seen


# ---- The port ----

def test_paths_and_methods_of_the_port(server):
    for path in ("/metrics", "/metrics/", "/metrics?x=1"):
        assert page(server).text and server.metrics(path=path).status == 200, path
    for path in ("/", "/metric", "/metrics/x", "/v2/health/live", "/api/health/live", "/v2"):
        answer = server.metrics(path=path)
        assert (answer.status, b"/metrics" in answer.body) == (404, True), path
    head, get = server.metrics(method="HEAD"), server.metrics()
    assert head.status == 200 and head.body == b"" and head.headers["Content-Type"] == TEXT_TYPE
    assert abs(int(head.headers["Content-Length"]) - len(get.body)) < 100
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = server.metrics(method=method)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD"), method
    with connect(server.metrics_port) as s:
        s.sendall(message("GET", "/metrics", b"body"))
        answer = read_answer(s, "GET")
    assert answer.status == 413 and b"a body of 4 bytes" in answer.body and b"--" not in answer.body


def test_no_grpc_on_the_metrics_port(server):
    with connect(server.metrics_port) as s:
        s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert read_answer(s, "GET").status == 505


def test_a_page_that_nobody_reads_counts(tmp_path, start):
    """For --max-inflight-bytes, and never refused, though it is more than that allows."""
    tags = "".join(f'metric_tags {{ key: "k{i}" value: "{"v" * 1000}" }}\n' for i in range(64))
    for i in range(8):  # 16 series each, with 64 kB of labels
        add_model(tmp_path, f"model_{i}", identity("FP32", [-1], batch=8, extra=tags))
    server = start(tmp_path, "--max-inflight-bytes=1000000")

    def held():
        return int(re.search(rb"^trtserver_inflight_bytes (\d+)$", server.metrics().body, re.M)[1])

    assert held() == 0
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", server.metrics_port))
        s.sendall(message("GET", "/metrics"))
        wait_for("it is held", lambda: held() > 1_000_000)
        assert len(server.metrics().body) > 8_000_000
    wait_for("it is given back", lambda: held() == 0)


def test_keep_alive(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.metrics_port, timeout=30)
    sizes = set()
    for _ in range(5):
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        sizes.add(answer.status)
        answer.read()
    assert sizes == {200}
    connection.close()


def test_log_lines(server):
    server.wait_log(f"Reporting prometheus metrics on port {server.metrics_port}")


def test_metrics_can_be_off(tmp_path, start):
    add_model(tmp_path, "copy", identity("FP32", [-1], batch=8))
    server = start(tmp_path, "--allow-metrics=false")
    assert "metrics open" not in server.log() and "prometheus" not in server.log()
    assert server.get("/metrics").status == 404
    assert server.get("/metrics").json()  # v2's error


def test_on_the_http_port(tmp_path, start):
    """By flag also there, also alone, within the restrictions of that port."""
    add_model(tmp_path, "copy", identity("FP32", [-1], batch=8))
    server = start(tmp_path, "--metrics-on-http-port", "--allow-metrics=false",
                   "--http-restricted-api=statistics:key=secret")
    assert server.get("/metrics").status == 403
    headers = {"key": "secret"}
    got = Page(server.request("GET", "/metrics", headers=headers))
    assert got.value("trtserver_ready") == 1
    assert not got.find("trtserver_connections", protocol="metrics")
    assert Page(server.request("GET", "/metrics/", headers={**headers, "Accept": OPEN})).type == OPEN_TYPE
    assert server.request("HEAD", "/metrics", headers=headers).body == b""
    assert server.request("POST", "/metrics", headers=headers).status == 405


def test_restrictions_are_not_the_metrics_ports(tmp_path, start):
    add_model(tmp_path, "copy", identity("FP32", [-1], batch=8))
    server = start(tmp_path, "--http-restricted-api=statistics,metadata:key=secret")
    assert page(server).value("trtserver_ready") == 1


def test_ports_must_differ():
    text = "The server cannot provide metrics on same port used for HTTP or gRPC requests"
    for flags in (["--metrics-port=8000"], ["--metrics-port=8001"], ["--http-port=8002"]):
        status, _, err = run("--model-store=x", *flags)
        assert status == 1 and text in err, err


def test_port_taken(tmp_path, start, server):
    add_model(tmp_path, "copy", identity("FP32", [-1], batch=8))
    status, _, err = run(f"--model-store={tmp_path}", "--http-address=127.0.0.1", "--http-port=0",
                         "--grpc-port=0", f"--metrics-port={server.metrics_port}")
    assert status == 1 and str(server.metrics_port) in err and "error: creating server" in err


# ---- Start and end ----

def test_while_models_load_and_after_a_failure(tmp_path, start):
    """The page is there from the start, and says what is loading and what failed."""
    add_model(tmp_path, "slow", identity("FP32", [-1], load_secs=8))
    add_model(tmp_path, "fast", identity("FP32", [-1]))
    add_model(tmp_path, "broken", identity("FP32", [-1], extra=parameter("execute_delay_ms", -1)))
    server = start(tmp_path, "--exit-on-error=false", wait=False)
    server.wait_log("metrics open")
    ready = "trtserver_model_ready"
    wait_for("the fast model", lambda: page(server).find(ready, model="fast") and
             page(server).value(ready, model="fast") == 1)
    wait_for("the broken model", lambda: page(server).find(ready, model="broken"))
    got = page(server, OPEN)
    assert got.value(ready, model="slow") == 0 and got.value("trtserver_ready") == 0
    assert not got.find("nv_inference_count", model="slow")
    server.wait_loaded()
    got = page(server, OPEN)
    assert got.value(ready, model="slow") == 1 and got.value(ready, model="broken") == 0
    assert got.value("nv_model_load_duration_secs", model="slow") >= 8
    assert not got.find("nv_inference_count", model="broken")


def test_while_the_server_ends(tmp_path, start):
    """The port answers until the last request is done."""
    add_model(tmp_path, "slow", identity("FP32", [-1], batch=8, delay_ms=5000))
    server = start(tmp_path)
    with connect(server.port) as s:
        s.sendall(infer_message("slow", {"inputs": [json_input("INPUT0", "FP32", [1, 1], [1.0])]}))
        wait_for("it runs", lambda: page(server).value("trtserver_inflight_requests") == 1)
        server.signal()
        server.wait_log("Waiting for in-flight inferences")
        got = page(server, OPEN)
        assert got.value("trtserver_ready") == 0
        assert got.value("trtserver_inflight_requests") == 1
        assert read_answer(s).status == 200
    assert server.wait_exit() == 0


# ---- Many models ----

def test_a_page_of_many_models(tmp_path, start):
    """Its size is bounded by the models, and it costs little: 1,000 of them with TIS_FULL=1. The bound
    is for a build with sanitizers on a busy machine; docs/metrics.md has the figure of a release."""
    count = 1000 if os.environ.get("TIS_FULL") == "1" else 100
    for i in range(count):
        add_model(tmp_path, f"model_{i:04}", identity("FP32", [-1], batch=8))
    server = start(tmp_path, "--model-load-thread-count=8")
    first = page(server)
    series = len([s for s in first.samples if "model" in s.labels])
    assert series == 16 * count
    assert len(first.text) < 2000 * count
    for i in range(count):
        infer(server, f"model_{i:04}")
    got = page(server, OPEN)
    assert len([s for s in got.samples if "model" in s.labels]) <= 120 * count
    assert got.value("nv_inference_count", model=f"model_{count - 1:04}") == 1
    cpu = page(server).value("trtserver_metrics_page_cpu_seconds")
    assert 0 < cpu < 0.005 * count, cpu
