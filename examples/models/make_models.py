#!/usr/bin/env python3
"""Prepares the example repository: make_models.py DIR

Copies each model's config.pbtxt and label files from the folders beside this script, writes the
small ONNX models itself, and takes the trained one from third_party/fetched. Nothing but Python's
standard library is needed: an ONNX file is a protobuf message, and the dozen fields used here are
written by hand below. A file that is already right is left alone.
"""

import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
FETCHED = HERE.parent.parent / "third_party" / "fetched"

# TensorProto.DataType
INT32, STRING = 6, 8
# AttributeProto.AttributeType
ATTRIBUTE_INT = 2


# --- protobuf: a message is a row of fields, each a tag and a value ------------------------------

def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number, value):
    """An int becomes a varint; text, bytes and messages go with their length before them."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


# --- ONNX: the messages of onnx.proto ------------------------------------------------------------

def value_info(name, data_type, dims):
    """A graph's input or output. A dimension is a number, or a name when its size may vary."""
    shape = b"".join(
        field(1, field(1, dim) if isinstance(dim, int) else field(2, dim)) for dim in dims)
    tensor = field(1, data_type) + field(2, shape)
    return field(1, name) + field(2, field(1, tensor))


def node(operator, inputs, outputs, **attributes):
    out = b"".join(field(1, name) for name in inputs)
    out += b"".join(field(2, name) for name in outputs)
    out += field(3, f"{operator}_{outputs[0]}") + field(4, operator)
    for name, value in attributes.items():
        out += field(5, field(1, name) + field(3, value) + field(20, ATTRIBUTE_INT))
    return out


def model(name, nodes, inputs, outputs):
    graph = b"".join(field(1, n) for n in nodes) + field(2, name)
    graph += b"".join(field(11, i) for i in inputs) + b"".join(field(12, o) for o in outputs)
    ir_version, opset = 8, 13
    return (field(1, ir_version) + field(2, "trtserver examples") + field(7, graph) +
            field(8, field(1, "") + field(2, opset)))


# --- the models ----------------------------------------------------------------------------------

def simple():
    """OUTPUT0 = INPUT0 + INPUT1, OUTPUT1 = INPUT0 - INPUT1."""
    pair = ["INPUT0", "INPUT1"]
    return model(
        "simple",
        [node("Add", pair, ["OUTPUT0"]), node("Sub", pair, ["OUTPUT1"])],
        [value_info(name, INT32, ["batch", 16]) for name in pair],
        [value_info(name, INT32, ["batch", 16]) for name in ("OUTPUT0", "OUTPUT1")])


def simple_string():
    """The same for decimal strings: parsed, computed, printed again."""
    return model(
        "simple_string",
        [node("Cast", ["INPUT0"], ["number0"], to=INT32),
         node("Cast", ["INPUT1"], ["number1"], to=INT32),
         node("Add", ["number0", "number1"], ["sum"]),
         node("Sub", ["number0", "number1"], ["difference"]),
         node("Cast", ["sum"], ["OUTPUT0"], to=STRING),
         node("Cast", ["difference"], ["OUTPUT1"], to=STRING)],
        [value_info(name, STRING, ["batch", 16]) for name in ("INPUT0", "INPUT1")],
        [value_info(name, STRING, ["batch", 16]) for name in ("OUTPUT0", "OUTPUT1")])


def silero_vad():
    path = FETCHED / "silero_vad" / "silero_vad.onnx"
    if not path.is_file():
        sys.exit("make_models: the voice detector is missing; run `make fetch` first")
    return path.read_bytes()


# Model -> what makes the model.onnx of its version 1; None: its backend needs no file.
MODELS = {
    "simple": simple,
    "simple_string": simple_string,
    "simple_identity": None,
    "simple_repeat": None,
    "silero_vad": silero_vad,
}


def write(path, data):
    """Replaces the file at once, so that a server that reads it meanwhile sees a whole one."""
    if path.is_file() and path.read_bytes() == data:
        return
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(data)
    os.replace(fresh, path)


def main(arguments):
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.exit(__doc__.strip())
    repository = pathlib.Path(arguments[0])
    for name, make in MODELS.items():
        version = repository / name / "1"
        version.mkdir(parents=True, exist_ok=True)
        # The model before its configuration: a repository that is watched is never half there.
        if make:
            write(version / "model.onnx", make())
        for source in sorted((HERE / name).iterdir()):
            write(repository / name / source.name, source.read_bytes())
    print(f"Example repository {repository}: {', '.join(MODELS)}")


if __name__ == "__main__":
    main(sys.argv[1:])
