"""The generated parts of docs/ are what today's server and table would give, and links lead
somewhere: both are what a reader meets first when they are wrong."""
import os
import pathlib
import re
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_generated_parts_are_up_to_date():
    server = os.environ.get("TIS_SERVER", ROOT / "build" / "trtserver")
    done = subprocess.run([sys.executable, ROOT / "scripts/gen_docs", "--check", "--server", server],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_links_paths_and_functions_exist():
    done = subprocess.run([sys.executable, ROOT / "scripts/lint", "docs"], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- Metrics ----

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
OURS = re.compile(r"\b(?:nv|trtserver|process)_[a-z0-9_]+\b")


def blocks(kind):
    """(page, text) of the fenced blocks of that kind."""
    return [(path.name, text) for path in sorted((ROOT / "docs").glob("*.md"))
            for found, text in BLOCK.findall(path.read_text()) if found == kind]


def families():
    table = (ROOT / "src/metrics/family.c").read_text().split("reserved[]")[0]
    return dict(re.findall(r'\{ "(\w+)",\s*METRIC_(\w+)', table))


def series():
    """Every name that can stand in a query."""
    return {name + ending for name, kind in families().items()
            for ending in (["_bucket", "_sum", "_count"] if kind == "HISTOGRAM" else [""])}


def test_every_family_is_described():
    page = (ROOT / "docs/metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.M)
    assert sorted((name, kind.upper()) for name, kind in rows) == sorted(families().items())


def test_queries_name_series_that_exist():
    queries = blocks("promql")
    assert len(queries) > 5
    for page, text in queries:
        names = set(OURS.findall(text))
        assert names and names <= series(), (page, text, names - series())


def test_yaml_examples():
    """They can be read; what is asked of Prometheus exists, and the autoscaler asks for what the adapter
    gives."""
    documents = {}
    for page, text in blocks("yaml"):
        document = yaml.safe_load(text)
        documents[document.get("kind") or next(iter(document))] = document
    assert set(documents) == {"scrape_configs", "PodMonitor", "Deployment", "rules",
                              "HorizontalPodAutoscaler"}
    given = set()
    for rule in documents["rules"]["rules"]:
        given.add(rule["name"]["as"])
        for text in (rule["seriesQuery"], rule["metricsQuery"]):
            assert set(OURS.findall(text)) <= series(), text
    asked = {m["pods"]["metric"]["name"] for m in documents["HorizontalPodAutoscaler"]["spec"]["metrics"]}
    assert asked == given
    spec = documents["Deployment"]["spec"]["template"]["spec"]
    ports = {p["name"]: p["containerPort"] for p in spec["containers"][0]["ports"]}
    endpoint = documents["PodMonitor"]["spec"]["podMetricsEndpoints"][0]
    assert ports[endpoint["port"]] == 8002 and endpoint["path"] == "/metrics"
    server = os.environ.get("TIS_SERVER", ROOT / "build" / "trtserver")
    known = subprocess.run([server, "--help"], capture_output=True, text=True).stdout
    for flag in spec["containers"][0]["args"]:
        assert f"  {flag.split('=')[0]}=" in known, flag
