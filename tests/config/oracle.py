"""google.protobuf as the oracle of our text and JSON codecs: classes, random messages, and the
program tests/tools/text_tool.c that answers for our side.

The classes are made at run time from proto/*.proto by protoc --descriptor_set_out, so no generated
code has to fit the version of the protobuf package.
"""
import functools
import os
import pathlib
import struct
import subprocess
import tempfile

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor as F

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
# What text_tool knows. The v1 files stand in a package of their own folder.
MESSAGES = [
    "inference.ModelConfig",
    "nvidia.inferenceserver.ModelConfig",
    "nvidia.inferenceserver.InferRequestHeader",
    "nvidia.inferenceserver.InferResponseHeader",
    "nvidia.inferenceserver.RequestStatus",
    "nvidia.inferenceserver.ServerStatus",
    "nvidia.inferenceserver.v0.InferRequestHeader",
    "nvidia.inferenceserver.v0.InferResponseHeader",
]


@functools.cache
def classes():
    """{full name: class} for MESSAGES."""
    files = sorted(str(p.relative_to(PROTO)) for p in PROTO.glob("**/*.proto")
                   if p.parent.name in ("proto", "v0", "v1"))
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "set"
        subprocess.run(["protoc", f"--proto_path={PROTO}", f"--descriptor_set_out={out}", *files],
                       check=True)
        found = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    waiting = list(found.file)
    done = set()
    while waiting:  # a file after those it imports
        ready = [f for f in waiting if set(f.dependency) <= done]
        for f in ready:
            pool.Add(f)
            done.add(f.name)
        waiting = [f for f in waiting if f.name not in done]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
            for name in MESSAGES}


# ---- Random messages ----

INTEGERS = {
    F.TYPE_INT32: (-2**31, 2**31 - 1), F.TYPE_SINT32: (-2**31, 2**31 - 1),
    F.TYPE_UINT32: (0, 2**32 - 1), F.TYPE_INT64: (-2**63, 2**63 - 1),
    F.TYPE_UINT64: (0, 2**64 - 1), F.TYPE_FIXED64: (0, 2**64 - 1),
}
WORDS = ["m", "INPUT0", "a/b", "", "it's", 'a "b"', "back\\slash", "tab\there", "line\nbreak", "é",
         "\u4e2d", "\U0001f600", "\x01\x7f", "#no comment", "TYPE_FP32", "0", "cr\r", "\u2028", "{}<>"]
REALS = [0.0, -0.0, 1.0, -1.5, 0.1, 1e10, 1e-10, 3.14159274, 16777217.0, 1e38, 123456.7,
         float("inf"), float("-inf"), float("nan"), 1e-45, 0.30000001192092896]


def integer(rng, low, high):
    return rng.choice([lambda: rng.randint(max(low, -3), min(high, 20)), lambda: low, lambda: high,
                       lambda: rng.randint(low, high)])()


def scalar(rng, f):
    if f.type in INTEGERS:
        return integer(rng, *INTEGERS[f.type])
    if f.type == F.TYPE_STRING:
        if rng.random() < 0.7:
            return rng.choice(WORDS)
        return "".join(chr(rng.choice([rng.randint(1, 126), rng.randint(1, 0xD7FF)]))
                       for _ in range(rng.randint(0, 6)))
    if f.type == F.TYPE_BOOL:
        return rng.random() < 0.5
    if f.type in (F.TYPE_FLOAT, F.TYPE_DOUBLE):
        value = rng.choice(REALS + [rng.uniform(-1000, 1000)])
        if f.type == F.TYPE_FLOAT:
            value = struct.unpack("<f", struct.pack("<f", value))[0]
        return value
    assert f.type == F.TYPE_ENUM, f.full_name
    numbers = [v.number for v in f.enum_type.values]
    return rng.choice(numbers * 3 + [integer(rng, *INTEGERS[F.TYPE_INT32])])


def fill(rng, message, room=3):
    """Sets about half of the fields; `room` bounds the depth."""
    for f in message.DESCRIPTOR.fields:
        if rng.random() < 0.6 or (f.message_type and room == 0):
            continue
        if f.message_type and f.message_type.GetOptions().map_entry:
            key, value = f.message_type.fields_by_name["key"], f.message_type.fields_by_name["value"]
            for _ in range(rng.randint(0, 3)):
                if value.message_type:
                    fill(rng, getattr(message, f.name)[scalar(rng, key)], room - 1)
                else:
                    getattr(message, f.name)[scalar(rng, key)] = scalar(rng, value)
        elif f.is_repeated and f.message_type:
            for _ in range(rng.randint(0, 2)):
                fill(rng, getattr(message, f.name).add(), room - 1)
        elif f.is_repeated:
            getattr(message, f.name).extend(scalar(rng, f) for _ in range(rng.randint(0, 3)))
        elif f.message_type:
            getattr(message, f.name).SetInParent()
            fill(rng, getattr(message, f.name), room - 1)
        else:
            # protobuf-c takes a lone -0.0 for a default and leaves it out.
            setattr(message, f.name, scalar(rng, f) or f.default_value)
    return message


def make(rng, name):
    return fill(rng, classes()[name]())


def wire(message):
    return message.SerializeToString(deterministic=True)


# ---- Our side ----

class Answer:
    """What text_tool made of a case: either error, or the message in each form."""

    def __init__(self, error=None, wire=None, lines=None, one_line=None, json=None):
        self.error, self.wire, self.lines, self.one_line, self.json = error, wire, lines, one_line, json


def blob(data):
    return struct.pack("<I", len(data)) + data


def ask(cases):
    """cases: (form, message name, bytes); one run of the program for all of them."""
    tool = pathlib.Path(os.environ.get("TIS_SERVER", ROOT / "build/asan/trtserver")).parent \
        / "tests/text_tool"
    done = subprocess.run([tool], capture_output=True, timeout=100, input=b"".join(
        form.encode() + blob(name.encode()) + blob(data) for form, name, data in cases))
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
    out, at, answers = memoryview(done.stdout), 0, []

    def take():
        nonlocal at
        size, = struct.unpack_from("<I", out, at)
        at += 4 + size
        return bytes(out[at - size:at])
    for _ in cases:
        good, at = out[at], at + 1
        answers.append(Answer(None, take(), take().decode(), take().decode(), take().decode())
                       if good else Answer(take().decode(errors="replace")))
    assert at == len(out)
    return answers
