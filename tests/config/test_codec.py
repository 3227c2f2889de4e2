"""Our text and JSON codecs against google.protobuf: random messages through every reader and writer
in both directions, texts of every construct, and mutated texts, whose acceptance must agree.

Each run draws new cases; the seed is printed. TIS_SEED=<number> repeats a run.
"""
import json
import os
import random
import re
import struct

import pytest
from google.protobuf import json_format, text_format

import oracle

# What Python says about the wrong escapes among the cases.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

MESSAGE_COUNT = 5000
MUTATED_COUNT = 1000
FLOATS = re.compile(r"^(\s*(?:fp32_false_true|minimum_slot_utilization|value|buckets|load_ratio): )"
                    r"(-?[\d.e+-]+)$", re.M)


@pytest.fixture
def rng():
    seed = int(os.environ.get("TIS_SEED", random.SystemRandom().randrange(2**32)))
    print(f"TIS_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def messages(rng):
    """MESSAGE_COUNT pairs of name and message; configurations are half of them."""
    names = [oracle.MESSAGES[0]] * (len(oracle.MESSAGES) - 1) + oracle.MESSAGES[1:]
    return [(name, oracle.make(rng, name)) for name in rng.choices(names, k=MESSAGE_COUNT)]


def fewest_digits(text):
    """Python writes a float with any number of digits that suffices, C++ (as we do) with 6 or 9, and
    a double with 15 or 17: both are made one form."""
    def one(match):
        single = "fp32" in match[1] or "slot" in match[1] or " value" in match[1]
        value = float(match[2])
        return match[1] + repr(struct.unpack("<f", struct.pack("<f", value))[0] if single else value)
    return FLOATS.sub(one, text)


def without_map_defaults(text):
    """Python leaves an empty key or value of a map out, C++ (as we do) prints it."""
    return re.sub(r'^ *(key|value): (""|0)\n', "", text, flags=re.M)


def expected_lines(message):
    return fewest_digits(text_format.MessageToString(message, as_utf8=False))


def numbers_bare(value, f):
    """A message as MessageToDict gives it, with 64-bit integers as numbers, which is our form."""
    if f.type in (f.TYPE_INT64, f.TYPE_UINT64, f.TYPE_FIXED64):
        return int(value)
    return plain_dict(value, f.message_type) if f.message_type else value


def plain_dict(found, descriptor):
    out = {}
    for name, value in found.items():
        f = descriptor.fields_by_name[name]
        if f.message_type and f.message_type.GetOptions().map_entry:
            out[name] = {key: numbers_bare(v, f.message_type.fields_by_name["value"])
                         for key, v in value.items()}
        elif f.is_repeated:
            out[name] = [numbers_bare(v, f) for v in value]
        else:
            out[name] = numbers_bare(value, f)
    return out


def as_dict(message):
    return plain_dict(json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True),
        message.DESCRIPTOR)


def same_values(ours, theirs):
    """Equality of JSON values, with floats as float32 (theirs has fewer digits)."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same_values(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same_values, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float):
        return struct.pack("<f", ours) == struct.pack("<f", theirs)
    return ours == theirs and type(ours) is type(theirs)


def check(answer, name, message, source):
    """Our reading of `source` is `message`, and every form we write of it is right."""
    __tracebackhint__ = True
    assert answer.error is None, (answer.error, name, source)
    again = oracle.classes()[name].FromString(answer.wire)
    assert oracle.wire(again) == oracle.wire(message), (name, source)
    assert fewest_digits(without_map_defaults(answer.lines)) == expected_lines(message), (name, source)


def test_their_text_and_json_are_read(messages):
    """google.protobuf writes, we read: text in lines and on one line, JSON with both kinds of names.
    What we read has the same bytes on the wire, and we write the same text."""
    cases = []
    for i, (name, message) in enumerate(messages):
        text = text_format.MessageToString(message, as_one_line=i % 2 == 1, as_utf8=i % 3 == 0,
                                           pointy_brackets=i % 5 == 0, use_short_repeated_primitives=i % 4 == 0)
        cases.append(("t", name, text.encode()))
        text = json_format.MessageToJson(message, preserving_proto_field_name=i % 2 == 0,
                                         always_print_fields_with_no_presence=i % 3 == 0,
                                         use_integers_for_enums=i % 5 == 0)
        cases.append(("j", name, text.encode()))
    for i, answer in enumerate(oracle.ask(cases)):
        name, message = messages[i // 2]
        check(answer, name, message, cases[i][2].decode())


def test_our_text_and_json_are_read(messages):
    """We write, google.protobuf reads: both forms of text, and JSON, which also has exactly the keys
    and values of theirs with defaults printed."""
    answers = oracle.ask([("w", name, oracle.wire(message)) for name, message in messages])
    for i, (answer, (name, message)) in enumerate(zip(answers, messages)):
        assert answer.error is None, (answer.error, name)
        kind = oracle.classes()[name]
        expected = oracle.wire(message)
        text = answer.lines if i % 2 else answer.one_line
        assert oracle.wire(text_format.Parse(text, kind())) == expected, text
        assert oracle.wire(json_format.Parse(answer.json, kind())) == expected, answer.json
        assert same_values(json.loads(answer.json), as_dict(message)), answer.json


# ---- Texts of every construct ----

CONSTRUCTS = r"""

# a comment alone
name: "a" # behind a value
name:"a"max_batch_size:8
name: 'single' platform: "dou\"ble" backend: 'it\'s'
name: "a" "b"'c'
name: "\a\b\f\n\r\t\v\\\'\"\101\1\x41\xe4\xb8\xad\u00e9\U0001F600\0011"
name: "a", platform: "b"; backend: "c",
max_batch_size: 0x1F
max_batch_size: 017
max_batch_size: -0x10
max_batch_size: -2147483648
input { name: "a" data_type: TYPE_FP32 dims: [ 1, -1 ] }
input: { name: "a" data_type: 11 dims: 1 dims: 2 }
input < name: "a" data_type: TYPE_BF16 dims: [] >
input: < name: "a" dims: [3] dims: 4 dims: [5, 6] >
input [ { name: "a" } , { name: "b" } ]
input: [ < name: "a" > , { name: "b" } ]
input []
input { format: FORMAT_NHWC optional: true allow_ragged_batch: t is_shape_tensor: 1 }
input { optional: false allow_ragged_batch: f is_shape_tensor: 0 is_non_linear_format_io: False }
input { reshape { shape: [ ] } } output { reshape: { shape: [ 2, 3 ] } label_filename: "l.txt" }
input { data_type: 99 format: -1 }
version_policy { latest { num_versions: 2 } }
version_policy: { all {} }
version_policy { specific { versions: [ 1, 3, 9223372036854775807 ] } }
instance_group [ { count: 2 kind: KIND_CPU }, { kind: KIND_GPU gpus: [ 0, 1 ] name: "g" profile: "p" } ]
instance_group { rate_limiter { resources { name: "R" global: true count: 4 } priority: 2 } passive: true host_policy: "h" }
instance_group { secondary_devices { kind: KIND_NVDLA device_id: -1 } }
dynamic_batching {}
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 preserve_ordering: true }
dynamic_batching { priority_levels: 2 default_priority_level: 1 default_queue_policy { timeout_action: DELAY max_queue_size: 3 } }
dynamic_batching { priority_queue_policy { key: 1 value { allow_timeout_override: true } } priority_queue_policy: { key: 18446744073709551615 } }
priority_levels: 1
sequence_batching { direct { minimum_slot_utilization: 0.5 max_queue_delay_microseconds: 1 } max_sequence_idle_microseconds: 5000000 }
sequence_batching { oldest { max_candidate_sequences: 4 preferred_batch_size: 2 } iterative_sequence: true }
sequence_batching { control_input [ { name: "START" control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } ] } ] }
sequence_batching { control_input { control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } control { bool_false_true: [ false, true ] int32_false_true: [0,1] } } }
sequence_batching { state { input_name: "i" output_name: "o" dims: -1 initial_state { zero_data: true name: "z" dims: 1 } } }
sequence_batching { control_input { control { fp32_false_true: [ 1., .5, 1e3, 1E-3, 1.5f, 3F, inf, -inf, nan, -infinity, Inf, NaN ] } } }
sequence_batching { direct { minimum_slot_utilization: 1 } }
sequence_batching { direct { minimum_slot_utilization: 1e400 } }
sequence_batching { direct {} oldest {} }
ensemble_scheduling { step [ { model_name: "a" model_version: -1 input_map { key: "I" value: "x" } output_map: { key: "O", value: "y" } } ] }
optimization { graph { level: 1 } priority: PRIORITY_MAX cuda { graphs: true busy_wait_events: 1 } input_pinned_memory { enable: false } }
optimization { execution_accelerators { gpu_execution_accelerator : [ { name : "tensorrt" parameters { key: "precision_mode" value: "FP16" } } ] } }
optimization { cuda { graph_spec { batch_size: 1 input { key: "i" value { dim: [ 1, 2 ] } } graph_lower_bound { input { key: "i" value < dim: 1 > } } } } }
optimization { eager_batching: true gather_kernel_buffer_threshold: 4294967295 }
parameters: { key: "k" value: { string_value: "v" } }
parameters [ { key: "a" }, { value { string_value: "v" } key: "b" }, { key: "a" value {} } ]
parameters { key: "a" key: "b" }
metric_tags { key: "a" value: "b" } cc_model_filenames { key: "7.5" value: "m.plan" }
model_warmup [ { name: "w" batch_size: 1 inputs { key: "i" value { dims: [ 1 ] data_type: TYPE_FP32 zero_data: true } } count: 2 } ]
model_warmup { inputs { key: "i" value { zero_data: true random_data: true } } }
model_warmup { inputs { key: "i" value { input_data_file: "raw" } } }
batch_input [ { kind: BATCH_ITEM_SHAPE_FLATTEN target_name: [ "a", "b" ] data_type: TYPE_INT32 source_input: "i" } ]
batch_output { target_name: "o" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: 'i' "j" }
model_operations { op_library_filename: [ "a.so", "b.so" ] } model_transaction_policy { decoupled: True }
model_repository_agents { agents [ { name: "checksum" parameters { key: "MD5:m" value: "x" } } ] }
response_cache { enable: true } runtime: "x.so" model_metrics { metric_control { metric_identifier { family: "f" } histogram_options { buckets: [ 0.1, 1, 1e3 ] } } }
default_model_filename: "x" name: "x" platform: "p" backend: "b"
name: "a" name: "b"
max_batch_size: 0 max_batch_size: 0
dynamic_batching {} dynamic_batching {}
version_policy { latest {} all {} }
dynamic_batching {} sequence_batching {}
name
name:
name "a"
name: a
name: 1
name: "a
name: 'a"
name: "\q"
name: "\400"
name: "\x"
name: "\u12"
name: "\U00110000"
name: { }
max_batch_size: "1"
max_batch_size: 1.0
max_batch_size: 1e1
max_batch_size: 2147483648
max_batch_size: 08
max_batch_size: 0x
max_batch_size: --1
max_batch_size: true
max_batch_size: [ 1 ]
dims: 1
input { dims: [ 1, ] }
input { dims: [ , 1 ] }
input { dims: [ 1 2 ] }
input { dims: [ [ 1 ] ] }
input { data_type: FP32 }
input { data_type: type_fp32 }
input { data_type: "TYPE_FP32" }
input { optional: TRUE }
input { optional: 2 }
input { optional: yes }
input { optional: "true" }
input { name: "a" >
input < name: "a" }
input { name: "a"
input name: "a" }
input : : { }
input { } }
input [ { } { } ]
input [ { }, ]
input ( )
[a.b] { }
[type.googleapis.com/inference.ModelInput] { name: "a" }
4: 8
max_batch_size = 8
max-batch-size: 8
Name: "a"
// no comment
/* no comment */
,
;
name: "a",, platform: "b"
name: "a";; platform: "b"
, name: "a"
input { , }
instance_group { count: 1, kind: KIND_CPU; }
version_policy { unknown {} }
version_policy latest
parameters { "k": "v" }
model_transaction_policy: true
minimum: 1
""".split("\n")


def their_reading(name, text):
    """Their message, or None when they refuse the text."""
    try:
        return text_format.Parse(text, oracle.classes()[name]())
    except (text_format.ParseError, UnicodeError, ValueError, OverflowError):
        return None


# Where Python's reader differs from the C++ reader, which is the format's reference and ours: what
# it is, and whether a text is such a case (error: ours, None when we accept). The NUL byte alone is
# ours, as src/proto/text.h says.
DIFFERENCES = [
    ("Python keeps an escape that does not exist, such as \\q or \\X, as it is",
     lambda text, error: error and re.search(r"unknown escape|\\x needs", error)),
    ("Python takes 1_000, 0b1 and 0o17 for numbers",
     lambda text, error: error and re.search(r"\d_|\b0[oObB]", text) and "space is needed" in error),
    ("Python takes +5 for a number",
     lambda text, error: error and re.search(r"\+\w", text) and "has '+'" in error),
    ("C++ allows blanks and comments behind a minus sign",
     lambda text, error: not error and re.search(r"-[\s#]", text)),
    ("C++ reads octal numbers for enums and bools too",
     lambda text, error: not error and re.search(r"\b0[0-7]+\b", text)),
    ("a string cannot hold a NUL byte here",
     lambda text, error: error and "contains a NUL byte" in error),
]


def compare(cases):
    """cases: (name, text). Both readers must agree on acceptance, and on the message."""
    wrong = []
    for (name, text), answer in zip(cases, oracle.ask([("t", n, t.encode()) for n, t in cases])):
        theirs = their_reading(name, text)
        if (answer.error is None) != (theirs is not None):
            if not any(rule(text, answer.error) for _, rule in DIFFERENCES):
                wrong.append((text, answer.error or "accepted"))
        elif theirs is not None and oracle.wire(
                oracle.classes()[name].FromString(answer.wire)) != oracle.wire(theirs):
            wrong.append((text, "another message", answer.one_line))
    assert not wrong, "\n".join(map(repr, wrong[:20])) + f"\n{len(wrong)} of {len(cases)}"


def test_constructs():
    """Every construct of the text format and every field of a configuration, right and wrong, one
    by one."""
    compare([(oracle.MESSAGES[0], text) for text in CONSTRUCTS])


# ---- Mutated texts ----

TOKEN = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|#[^\n]*|[\w.]+|\s+|.")
EXTRA = ["{", "}", "<", ">", "[", "]", ":", ",", ";", "-", "#", '"', "'", "\\", "0", "1", "-1", "1.5", "0x1f",
         "017", "1e9", "1.5f", "08", "true", "inf", "nan", "TYPE_FP32", "name", "dims", "x", ".", "/",
         "\n", " ", "\t", "@", "é", '"a"', "'b'", "99999999999999999999", "input", "4294967296", "[ ]",
         "{ }", ": 1", "# c\n"]


def mutate(rng, text):
    """One to three changes of tokens or characters."""
    tokens = TOKEN.findall(text)
    for _ in range(rng.randint(1, 3)):
        if not tokens:
            return rng.choice(EXTRA)
        i = rng.randrange(len(tokens))
        change = rng.randrange(7)
        if change == 0:
            del tokens[i]
        elif change == 1:
            tokens.insert(i, tokens[i])
        elif change == 2:
            tokens[i] = rng.choice(EXTRA)
        elif change == 3:
            tokens.insert(i, rng.choice(EXTRA))
        elif change == 4:
            k = rng.randrange(len(tokens))
            tokens[i], tokens[k] = tokens[k], tokens[i]
        elif change == 5 and tokens[i]:
            at = rng.randrange(len(tokens[i]))
            tokens[i] = tokens[i][:at] + rng.choice(["", chr(rng.randint(32, 126))]) + tokens[i][at + 1:]
        else:
            del tokens[i:]
    return "".join(tokens)


def test_mutated_texts(rng):
    """Damaged texts: what google.protobuf accepts we accept, as the same message, and nothing else."""
    good = [text for text in CONSTRUCTS if their_reading(oracle.MESSAGES[0], text) is not None]
    cases = []
    for _ in range(MUTATED_COUNT):
        if rng.random() < 0.7:
            name, text = oracle.MESSAGES[0], "\n".join(rng.choices(good, k=rng.randint(1, 3)))
        else:
            name = rng.choice(oracle.MESSAGES)
            text = text_format.MessageToString(oracle.make(rng, name), as_one_line=rng.random() < 0.5)
        cases.append((name, mutate(rng, text)))
    compare(cases)
