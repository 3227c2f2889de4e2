"""What repeat refuses: models when they load, requests when they run. Its answers are tried by
tests/clients/test_v2_stream.py, in Triton too."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients"))
from server import Server, add_model, config, tensor  # noqa: E402

INPUTS = [tensor("IN", "INT32", [-1]), tensor("DELAY", "UINT32", [-1]), tensor("WAIT", "UINT32", [1])]
OUTPUTS = [tensor("OUT", "INT32", [1]), tensor("IDX", "UINT32", [1])]
DECOUPLED = "model_transaction_policy { decoupled: true }"

BAD = {
    "one_to_one": (config("repeat", INPUTS, OUTPUTS), "is not decoupled"),
    "batching": (config("repeat", INPUTS, OUTPUTS, batch=4, extra=DECOUPLED),
                 "has max_batch_size 4, expected 0"),
    "name": (config("repeat", [*INPUTS[:2], tensor("WAITING", "UINT32", [1])], OUTPUTS,
                    extra=DECOUPLED), "unexpected input 'WAITING'"),
    "output": (config("repeat", INPUTS, [tensor("IN", "INT32", [1])], extra=DECOUPLED),
               "unexpected output 'IN'"),
    "type": (config("repeat", [tensor("IN", "INT64", [-1]), *INPUTS[1:]], OUTPUTS, extra=DECOUPLED),
             "'IN' has type INT64, expected INT32"),
    "rank": (config("repeat", [tensor("IN", "INT32", [-1, 2]), *INPUTS[1:]], OUTPUTS,
                    extra=DECOUPLED), "'IN' has shape [-1,2], expected one dimension"),
    "wait": (config("repeat", [*INPUTS[:2], tensor("WAIT", "UINT32", [2])], OUTPUTS,
                    extra=DECOUPLED), "'WAIT' has shape [2], expected [1]"),
    "few": (config("repeat", INPUTS[:2], OUTPUTS, extra=DECOUPLED), "has 2 inputs"),
}
GOOD = {
    "all": config("repeat", INPUTS, OUTPUTS, extra=DECOUPLED + "\ninstance_group { count: 3 }"),
    "one_output": config("repeat", INPUTS, OUTPUTS[:1], extra=DECOUPLED),
    "fixed": config("repeat", [tensor("IN", "INT32", [4]), tensor("DELAY", "UINT32", [4]), INPUTS[2]],
                    OUTPUTS, extra=DECOUPLED),
}


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    for name, text in {**GOOD, **{name: row[0] for name, row in BAD.items()}}.items():
        add_model(models, name, text)
    with Server(models, "--exit-on-error=false", "--strict-readiness=false") as server:
        yield {row["name"]: row for row in server.index()}


@pytest.mark.parametrize("name", BAD)
def test_bad_model_says_what_is_wrong(states, name):
    assert states[name]["state"] == "UNAVAILABLE"
    assert f"model '{name}'" in states[name]["reason"] and BAD[name][1] in states[name]["reason"]


@pytest.mark.parametrize("name", GOOD)
def test_good_model_loads(states, name):
    assert states[name]["state"] == "READY", states[name]
