"""The examples of docs/model-configuration.md (src/config/fields.txt) do what the tables say: a field
that is refused for now is refused with that reason, all others load with an identity model."""
import importlib.machinery
import importlib.util
import pathlib
import sys

import pytest
from google.protobuf import text_format

import oracle

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients"))
from server import add_model, onnx_models, run  # noqa: E402


def load_gen_docs():
    """scripts/gen_docs as a module: it knows how to read the table."""
    path = str(oracle.ROOT / "scripts" / "gen_docs")
    loader = importlib.machinery.SourceFileLoader("gen_docs", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("gen_docs", loader))
    loader.exec_module(module)
    return module


ROWS = {name: (state, example) for name, (state, _, example) in load_gen_docs().field_rows().items()
        if example}


@pytest.mark.parametrize("name", ROWS)
def test_example(tmp_path, name):
    state, example = ROWS[name]
    config = text_format.Parse(example, oracle.classes()["inference.ModelConfig"]())
    onnx = onnx_models.identity("FP32", [None, 4])
    if not config.platform and not config.backend:
        example += ' backend: "identity"'
        onnx = None
        if not config.input:
            example += ' input { name: "INPUT0" data_type: TYPE_FP32 dims: 4 }'
            example += ' output { name: "OUTPUT0" data_type: TYPE_FP32 dims: 4 }'
    model = config.name or "m"
    add_model(tmp_path, model, example, onnx=onnx)
    status, out, err = run(f"--print-model-config={tmp_path / model}")
    if state == "later":
        assert status == 1 and "not supported by this server yet" in err, (example, err)
    else:
        assert status == 0, (example, err)
        printed = text_format.Parse(out, oracle.classes()["inference.ModelConfig"]())
        assert {f.name for f, _ in config.ListFields()} <= {f.name for f, _ in printed.ListFields()}


def test_table_is_complete():
    """Every field of the .proto file has a line, and every line a field: gen_docs ends otherwise."""
    module = load_gen_docs()
    text = module.model_configuration(None)
    messages, _ = module.proto_messages()
    kind = oracle.classes()["inference.ModelConfig"].DESCRIPTOR
    assert text.startswith("### ModelConfig\n")
    for descriptor in kind.file.message_types_by_name.values():
        fields = [name for name, *_ in messages[descriptor.name][1]]
        assert sorted(fields) == sorted(descriptor.fields_by_name), descriptor.name
