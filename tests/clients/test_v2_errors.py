"""Requests of v2 that are wrong: status and text of each, and the server serves on.

Where Triton answers a client's mistake with 500 or text/plain, we answer 400 with the JSON error
(docs/differences.md lists each case). After every wrong request a right one is answered, on a new
connection and, where the old one was kept open, on that.
"""
import json
import re

import pytest

from server import (Answer, Server, add_model, binary_body, binary_input, connect, config, identity,
                    infer_message, json_input, message, pairs, read_answer, tensor, to_bytes)

LIMIT = 1 << 20
UNKNOWN = "[request id: <id_unknown>] "


@pytest.fixture(scope="module")
def v2(tmp_path_factory):
    repository = tmp_path_factory.mktemp("errors")
    add_model(repository, "addsub", config("identity", *pairs("FP32", [4], 2), batch=8))
    add_model(repository, "one", identity("FP32", [4]))
    add_model(repository, "any", identity("FP32", [-1, -1]))
    add_model(repository, "byte", identity("UINT8", [-1]))
    add_model(repository, "half", identity("FP16", [1]))
    add_model(repository, "flag", identity("BOOL", [1]))
    add_model(repository, "text", identity("BYTES", [2]))
    add_model(repository, "int", identity("INT8", [-1]))
    add_model(repository, "long", identity("UINT64", [1]))
    add_model(repository, "double", identity("FP64", [1]))
    add_model(repository, "broken", identity("FP32", [1], delay_ms=-1))
    with Server(repository, "--exit-on-error=false", f"--http-max-input-size={LIMIT}",
                "--strict-readiness=false") as server:
        yield server


GOOD = {"inputs": [json_input("INPUT0", "FP32", [4], [1, 2, 3, 4])]}


def assert_serves(v2):
    answer = v2.infer("one", GOOD)
    assert answer.status == 200, answer
    assert answer.json()["outputs"][0]["data"] == [1, 2, 3, 4]
    assert v2.is_live() and v2.is_ready()


def ask(v2, raw, seconds=60):
    """Sends bytes on one connection. When it stays open, a good request follows on it."""
    with connect(v2.port, seconds) as s:
        s.sendall(raw)
        answer = read_answer(s, raw.split(b" ", 1)[0].decode())
        if answer.headers.get("Connection") != "close":
            s.sendall(infer_message("one", GOOD))
            assert read_answer(s).status == 200
    return answer


def check(v2, raw, status, text):
    answer = ask(v2, raw)
    assert answer.status == status, answer
    if text.startswith("re:"):
        assert re.fullmatch(text[3:], answer.error), answer
    else:
        assert answer.error == text
    assert_serves(v2)


# ---- Bodies ----

def pair(a=None, b=None, **more):
    """A request for `addsub`; a and b replace keys of the two inputs (None drops one)."""
    def make(name, changes):
        one = {**json_input(name, "FP32", [1, 4], [1, 2, 3, 4]), **(changes or {})}
        return {k: v for k, v in one.items() if v is not None}
    return {"inputs": [make("INPUT0", a), make("INPUT1", b)], **more}


def one(**changes):
    made = {**json_input("INPUT0", "FP32", [4], [1, 2, 3, 4]), **changes}
    return {"inputs": [{k: v for k, v in made.items() if v is not None}]}


def of(datatype, shape, data):
    return {"inputs": [json_input("INPUT0", datatype, shape, data)]}


JSON = "failed to parse the request JSON buffer: "
ONE = "of input 'INPUT0'"
MISMATCH = f"Unable to parse 'data' {ONE}: Shape does not match true shape of 'data' field"
NOT_UNSIGNED = (f"Unable to parse 'shape' {ONE}: attempt to access JSON non-unsigned-integer as "
                "unsigned-integer")
DEEP = "[" * 200 + "]" * 200
NOTE = ("NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to "
        "be prepended to each input shape. If you want to specify the full shape including the "
        "batch dim in your input dims config, try setting max_batch_size to zero.")

# (name, model, body, text); the status is 400.
BODIES = [
    # The JSON itself.
    ("no_json", "one", b"hello", f"re:{JSON}.* at \\d+"),
    ("cut", "one", to_bytes(GOOD)[:-3], f"re:{JSON}.* at \\d+"),
    ("behind", "one", to_bytes(GOOD) + b"x", f"re:{JSON}.* at \\d+"),
    ("array", "one", b"[]", JSON + "expected an object, found array"),
    ("number", "one", b"1", JSON + "expected an object, found uint"),
    ("blank", "one", b"   ", f"re:{JSON}.*"),
    ("nul", "one", b"\0", f"re:{JSON}.*"),
    ("utf8", "text", b'{"inputs":[{"name":"INPUT0","datatype":"BYTES","shape":[2],'
                     b'"data":["\xff","\xc3\x28"]}]}', f"re:{JSON}.*UTF-8.*"),
    ("utf8_key", "one", b'{"\xed\xa0\x80":1}', f"re:{JSON}.*"),
    ("surrogate", "text", b'{"inputs":[{"name":"INPUT0","datatype":"BYTES","shape":[2],'
                          b'"data":["\\ud800","a"]}]}', f"re:{JSON}.*"),
    ("deep", "one", ('{"x":' + DEEP + "}").encode(), JSON + "nested deeper than 100"),
    ("deep_objects", "one", (b'{"a":' * 5000) + b"1" + b"}" * 5000, JSON + "nested deeper than 100"),
    ("deep_data", "one", to_bytes(one(data=[])).replace(b'"data": []', b'"data": ' + DEEP.encode()),
     f"Unable to parse 'data' {ONE}: nested deeper than 100"),
    ("very_deep", "one", b'{"x":' + b"[" * 500_000, f"re:{JSON}.*"),
    # Members of the request.
    ("nothing", "one", {}, "Unable to parse 'inputs': attempt to access non-existing object member "
                           "'inputs'"),
    ("inputs_object", "one", {"inputs": {}}, "Unable to parse 'inputs': expected an array"),
    ("inputs_null", "one", {"inputs": None}, "Unable to parse 'inputs': expected an array"),
    ("inputs_empty", "addsub", {"inputs": []},
     UNKNOWN + "expected 2 inputs but got 0 inputs for model 'addsub'. Got input(s) [], but missing "
               "required input(s) ['INPUT0','INPUT1']. Please provide all required input(s)."),
    ("input_missing", "addsub", {"id": "q", "inputs": pair()["inputs"][1:]},
     "[request id: q] expected 2 inputs but got 1 inputs for model 'addsub'. Got input(s) "
     "['INPUT1'], but missing required input(s) ['INPUT0']. Please provide all required input(s)."),
    ("input_number", "one", {"inputs": [7]},
     "Unable to parse 'name': every input is an object with a string 'name'"),
    ("id_number", "one", {"id": 7, **GOOD},
     "Unable to parse 'id' of the request: found uint, expected a string without NUL characters"),
    ("id_nul", "one", {"id": "a\0b", **GOOD},
     "Unable to parse 'id' of the request: found string, expected a string without NUL characters"),
    ("parameters_array", "one", {"parameters": [], **GOOD},
     "Unable to parse 'parameters' of the request: found array, expected an object"),
    ("outputs_object", "one", {"outputs": {}, **GOOD},
     "Unable to parse 'outputs' of the request: found object, expected an array"),
    ("output_string", "one", {"outputs": ["OUTPUT0"], **GOOD},
     "Unable to parse 'name': every output is an object with a string 'name'"),
    ("output_unknown", "one", {"outputs": [{"name": "XX"}], **GOOD},
     "unexpected inference output 'XX' for model 'one'"),
    ("output_nul", "one", {"outputs": [{"name": "OUTPUT0\0"}], **GOOD},
     "Unable to parse 'name': every output is an object with a string 'name'"),
    ("output_parameters", "one", {"outputs": [{"name": "OUTPUT0", "parameters": 1}], **GOOD},
     "Unable to parse 'parameters' of OUTPUT0: found uint, expected an object"),
    ("output_binary", "one",
     {"outputs": [{"name": "OUTPUT0", "parameters": {"binary_data": 1}}], **GOOD},
     "Unable to parse 'binary_data' of OUTPUT0: found uint, expected a boolean"),
    ("class_negative", "one",
     {"outputs": [{"name": "OUTPUT0", "parameters": {"classification": -1}}], **GOOD},
     "Unable to parse 'classification' of OUTPUT0: found sint, expected an unsigned integer"),
    ("class_type", "half",
     (lambda h: (binary_body(h, b"\0\0")))(
         {"inputs": [binary_input("INPUT0", "FP16", [1], 2)],
          "outputs": [{"name": "OUTPUT0", "parameters": {"classification": 1}}]}),
     "class result not available for output 'OUTPUT0' due to unsupported type 'TYPE_FP16'"),
    ("class_strings", "text",
     {**of("BYTES", [2], ["a", "b"]),
      "outputs": [{"name": "OUTPUT0", "parameters": {"classification": 1}}]},
     "class result not available for output 'OUTPUT0' due to unsupported type 'TYPE_STRING'"),
    # Parameters.
    ("triton", "one", {"parameters": {"triton_x": 1}, **GOOD},
     "parameter keys starting with 'triton_' are reserved for Triton usage and should not be "
     "specified."),
    ("headers", "one", {"parameters": {"headers": "x"}, **GOOD},
     "parameter 'headers' is reserved for forwarded headers and should not be specified"),
    ("parameter_null", "one", {"parameters": {"p": None}, **GOOD},
     "Unable to parse 'p' of the request's parameters: found null, expected a string, a number or "
     "a boolean"),
    ("parameter_object", "one", {"parameters": {"p": {}}, **GOOD},
     "Unable to parse 'p' of the request's parameters: found object, expected a string, a number "
     "or a boolean"),
    ("parameter_large", "one", {"parameters": {"p": 2**64 - 1}, **GOOD},
     "Unable to parse 'p' of the request's parameters: found uint, expected an integer of 64 bits"),
    ("parameter_nul", "one", {"parameters": {"p": "a\0b"}, **GOOD},
     "parameter 'p' of the request holds a NUL character"),
    ("priority", "one", {"parameters": {"priority": -1}, **GOOD},
     "Unable to parse 'priority' of the request's parameters: found sint, expected an unsigned "
     "integer"),
    ("timeout", "one", {"parameters": {"timeout": "1"}, **GOOD},
     "Unable to parse 'timeout' of the request's parameters: found string, expected an unsigned "
     "integer"),
    ("sequence_id", "one", {"parameters": {"sequence_id": 1.5}, **GOOD},
     "Unable to parse 'sequence_id' of the request's parameters: found real, expected an unsigned "
     "integer"),
    ("sequence_start", "one", {"parameters": {"sequence_start": 1}, **GOOD},
     "Unable to parse 'sequence_start' of the request's parameters: found uint, expected a "
     "boolean"),
    ("binary_data_output", "one", {"parameters": {"binary_data_output": "yes"}, **GOOD},
     "Unable to parse 'binary_data_output' of the request's parameters: found string, expected a "
     "boolean"),
    # Inputs.
    ("name_missing", "one", one(name=None),
     "Unable to parse 'name': every input is an object with a string 'name'"),
    ("name_unknown", "addsub", pair(a={"name": "INP"}),
     "unexpected inference input 'INP' for model 'addsub'"),
    ("name_nul", "one", one(name="INPUT0\0x"),
     "Unable to parse 'name': every input is an object with a string 'name'"),
    ("twice", "addsub", pair(b={"name": "INPUT0"}),
     UNKNOWN + "input 'INPUT0' already exists in request"),
    ("too_many", "one", {"inputs": GOOD["inputs"] * 3},
     UNKNOWN + "input 'INPUT0' already exists in request"),
    ("datatype_missing", "one", one(datatype=None),
     f"Unable to parse 'datatype' {ONE}: attempt to access non-existing object member 'datatype'"),
    ("datatype_number", "one", one(datatype=11), f"Unable to parse 'datatype' {ONE}: expected a "
                                                 "string"),
    ("datatype_unknown", "one", one(datatype="FP99"),
     "invalid datatype for input INPUT0: 'FP99'"),
    ("datatype_wrong", "addsub", pair(a={"datatype": "INT32"}, id="7"),
     "[request id: 7] inference input 'INPUT0' data-type is 'INT32', but model 'addsub' expects "
     "'FP32'"),
    ("parameters_of_input", "one", one(parameters=1),
     "Unable to parse 'parameters' of INPUT0: found uint, expected an object"),
    # Shapes.
    ("shape_missing", "one", one(shape=None),
     f"Unable to parse 'shape' {ONE}: attempt to access non-existing object member 'shape'"),
    ("shape_number", "one", one(shape=4), f"Unable to parse 'shape' {ONE}: expected an array"),
    ("shape_negative", "one", one(shape=[-1]), NOT_UNSIGNED),
    ("shape_real", "one", one(shape=[4.0]), NOT_UNSIGNED),
    ("shape_string", "one", one(shape=["4"]), NOT_UNSIGNED),
    ("shape_large", "one", one(shape=[2**63]), NOT_UNSIGNED),
    ("shape_larger", "one", one(shape=[2**70]), NOT_UNSIGNED),
    ("shape_long", "any", one(shape=[1] * 5000),
     f"re:Unable to parse 'shape' {ONE}: 5000 dimensions, at most \\d+ are possible"),
    ("shape_overflow", "any", one(shape=[2**62, 2**62], data=[]),
     f"Unable to parse 'shape' {ONE}: the number of elements overflows"),
    ("shape_overflow_bytes", "any", one(shape=[2**31, 2**31], data=[]),
     f"Unable to parse 'shape' {ONE}: the number of elements overflows"),
    ("shape_huge", "any", one(shape=[2**20, 2**20], data=[1]), MISMATCH),
    ("shape_wrong", "one", one(shape=[5], data=[1] * 5),
     UNKNOWN + "unexpected shape for input 'INPUT0' for model 'one'. Expected [4], got [5]. "),
    ("shape_rank", "addsub", pair(a={"shape": [1, 2, 2]}),
     UNKNOWN + "unexpected shape for input 'INPUT0' for model 'addsub'. Expected [-1,4], got "
               "[1,2,2]. " + NOTE),
    ("batch_missing", "addsub", pair(a={"shape": [], "data": [1]}),
     UNKNOWN + "input 'INPUT0' has no shape but model requires batch dimension for 'addsub'"),
    ("batch_mismatch", "addsub", pair(a={"shape": [4]}, id="7"),
     "[request id: 7] input 'INPUT1' batch size does not match other inputs for 'addsub'"),
    ("batch_zero", "addsub", pair(a={"shape": [0, 4], "data": []}, b={"shape": [0, 4], "data": []}),
     UNKNOWN + "inference request batch-size must be >= 1 for 'addsub'"),
    ("batch_large", "addsub", pair(a={"shape": [9, 4], "data": [1] * 36},
                                   b={"shape": [9, 4], "data": [1] * 36}),
     UNKNOWN + "inference request batch-size must be <= 8 for 'addsub'"),
    # JSON tensors.
    ("data_missing", "one", one(data=None),
     f"Unable to parse 'data' {ONE}: attempt to access non-existing object member 'data'"),
    ("data_number", "one", one(data=1),
     "Unable to parse 'data' of an input: found uint, expected an array"),
    ("data_few", "one", one(data=[1, 2, 3]), MISMATCH),
    ("data_many", "one", one(data=[1, 2, 3, 4, 5]), MISMATCH),
    ("data_none", "one", one(data=[]), MISMATCH),
    ("data_string", "one", one(data=["1", 2, 3, 4]),
     f"Unable to parse 'data' {ONE}: found string, expected values of type FP32"),
    ("data_null", "one", one(data=[None, 2, 3, 4]),
     f"Unable to parse 'data' {ONE}: found null, expected values of type FP32"),
    ("data_object", "one", one(data=[{}, 2, 3, 4]),
     f"Unable to parse 'data' {ONE}: found object, expected values of type FP32"),
    ("data_bool", "one", one(data=[True, 2, 3, 4]),
     f"Unable to parse 'data' {ONE}: found true, expected values of type FP32"),
    ("data_real_in_int", "int", of("INT8", [1], [1.5]),
     f"Unable to parse 'data' {ONE}: found real, expected values of type INT8"),
    ("data_nan_in_int", "int", b'{"inputs":[{"name":"INPUT0","datatype":"INT8","shape":[1],'
                               b'"data":[NaN]}]}',
     f"Unable to parse 'data' {ONE}: found real, expected values of type INT8"),
    ("data_above", "int", of("INT8", [1], [128]),
     f"Unable to parse 'data' {ONE}: a value is out of the range of INT8"),
    ("data_below", "int", of("INT8", [1], [-129]),
     f"Unable to parse 'data' {ONE}: a value is out of the range of INT8"),
    ("data_negative", "long", of("UINT64", [1], [-1]),
     f"Unable to parse 'data' {ONE}: a value is out of the range of UINT64"),
    ("data_larger", "long", of("UINT64", [1], [2**64]),
     f"Unable to parse 'data' {ONE}: found real, expected values of type UINT64"),
    ("data_bool_real", "flag", of("BOOL", [1], [0.5]),
     f"Unable to parse 'data' {ONE}: found real, expected values of type BOOL"),
    ("data_text_number", "text", of("BYTES", [2], ["a", 1]),
     f"Unable to parse 'data' {ONE}: found uint, expected values of type BYTES"),
    ("data_text_few", "text", of("BYTES", [2], ["a"]), MISMATCH),
    ("data_half", "half", of("FP16", [1], [1]),
     "receiving FP16 data via JSON is not supported. Please use the binary data format for input "
     "INPUT0"),
    ("data_half_output", "half", binary_body({"inputs": [binary_input("INPUT0", "FP16", [1], 2)]},
                                             b"\0\0"),
     "sending FP16 data via JSON is not supported. Please use the binary data format for output "
     "OUTPUT0"),
    # Binary tensors.
    ("binary_without_header", "one", {"inputs": [binary_input("INPUT0", "FP32", [4], 16)]},
     "must specify valid 'Infer-Header-Content-Length' in request header and 'binary_data_size' "
     "when passing inputs in binary data format"),
    ("binary_short", "one", binary_body({"inputs": [binary_input("INPUT0", "FP32", [4], 16)]},
                                        bytes(12)),
     "unexpected size for input 'INPUT0', expecting 4 additional bytes for model 'one'"),
    ("binary_none", "one", binary_body({"inputs": [binary_input("INPUT0", "FP32", [4], 16)]}),
     "unexpected size for input 'INPUT0', expecting 16 additional bytes for model 'one'"),
    ("binary_long", "one", binary_body({"inputs": [binary_input("INPUT0", "FP32", [4], 16)]},
                                       bytes(17)),
     "unexpected additional input data for model 'one'"),
    ("binary_behind_json", "one", binary_body(GOOD, b"x"),
     "unexpected additional input data for model 'one'"),
    ("binary_huge", "one", binary_body({"inputs": [binary_input("INPUT0", "FP32", [4], 2**64 - 1)]},
                                       bytes(16)),
     f"unexpected size for input 'INPUT0', expecting {2**64 - 17} additional bytes for model 'one'"),
    ("binary_negative", "one", binary_body({"inputs": [binary_input("INPUT0", "FP32", [4], -16)]},
                                           bytes(16)),
     "Unable to parse 'binary_data_size' of INPUT0: found sint, expected an unsigned integer"),
    ("binary_size", "one", binary_body({"inputs": [binary_input("INPUT0", "FP32", [4], 12)]},
                                       bytes(12)),
     UNKNOWN + "input byte size mismatch for input 'INPUT0' for model 'one'. Expected 16, got 12"),
    ("binary_overflow", "any",
     binary_body({"inputs": [binary_input("INPUT0", "FP32", [2**62, 2**62], 4)]}, bytes(4)),
     f"{UNKNOWN}invalid shape for input 'INPUT0' for model 'any': shape [{2**62},{2**62}] contains "
     "one or more invalid dimensions"),
    ("binary_shape_huge", "any",
     binary_body({"inputs": [binary_input("INPUT0", "FP32", [2**30, 2**30], 4)]}, bytes(4)),
     f"{UNKNOWN}input byte size mismatch for input 'INPUT0' for model 'any'. Expected {2**62}, "
     "got 4"),
    ("strings_few", "text", binary_body({"inputs": [binary_input("INPUT0", "BYTES", [2], 5)]},
                                        b"\1\0\0\0a"),
     UNKNOWN + "expected 2 string elements for inference input 'INPUT0' for model 'text', got 1"),
    ("strings_many", "text", binary_body({"inputs": [binary_input("INPUT0", "BYTES", [2], 12)]},
                                         bytes(12)),
     UNKNOWN + "expected 2 string elements for inference input 'INPUT0' for model 'text', got 3"),
    ("strings_length", "text", binary_body({"inputs": [binary_input("INPUT0", "BYTES", [2], 7)]},
                                           b"\0\0\0\0" + b"\0\0\0"),
     UNKNOWN + "incomplete string length indicator for inference input 'INPUT0' for model 'text', "
               "expecting 4 bytes but only 3 bytes available"),
    ("strings_data", "text", binary_body({"inputs": [binary_input("INPUT0", "BYTES", [2], 10)]},
                                         b"\0\0\0\0" + b"\xff\xff\xff\xffab"),
     UNKNOWN + "incomplete string data for inference input 'INPUT0' for model 'text', expecting "
               "string of length 4294967295 but only 2 bytes available"),
]


@pytest.mark.parametrize("model,body,text", [pytest.param(*row[1:], id=row[0]) for row in BODIES])
def test_bodies(v2, model, body, text):
    """Whatever is wrong with a body is the client's fault: 400, and a text that says what."""
    if isinstance(body, tuple):
        body, headers = body
    else:
        headers = {}
    check(v2, infer_message(model, body, headers), 400, text)


def test_shared_memory(v2):
    """Not in this release: 501 rather than data from nowhere."""
    region = {"shared_memory_region": "r", "shared_memory_byte_size": 16}
    check(v2, infer_message("one", one(data=None, parameters=region)), 501,
          "input 'INPUT0': shared memory is not supported by this server")
    check(v2, infer_message("one", {**GOOD, "outputs": [{"name": "OUTPUT0", "parameters": region}]}),
          501, "output 'OUTPUT0': shared memory is not supported by this server")


def test_floats_beyond_range(v2):
    """A JSON number that the type cannot hold becomes infinity, as everywhere in IEEE 754."""
    answer = v2.infer("double", b'{"inputs":[{"name":"INPUT0","datatype":"FP64","shape":[1],'
                                b'"data":[1e999]}]}')
    assert answer.status in (200, 400), answer
    assert_serves(v2)


# ---- Header ----

@pytest.mark.parametrize("value", ["5000", "-1", "abc", "1.5", "4 4", "0x10", "1e2", "",
                                   "99999999999999999999", "18446744073709551616"])
def test_header_length(v2, value):
    body = to_bytes(GOOD)
    answer = ask(v2, infer_message("one", body, {"Inference-Header-Content-Length": value}))
    assert answer.status == 400
    assert answer.error == (f"inference header size should be in range (0, {len(body)}), "
                            f"got: {value}")
    assert_serves(v2)


def test_header_length_inside(v2):
    """It cuts the JSON in two: what is in front is no JSON."""
    check(v2, infer_message("one", GOOD, {"Inference-Header-Content-Length": 5}), 400,
          f"re:{JSON}.*")


@pytest.mark.parametrize("coding", ["br", "gzip", "deflate", "zstd", "gzip, br", "identity, gzip"])
def test_content_encoding(v2, coding):
    """Compressed bodies are refused before anything is made of them."""
    check(v2, infer_message("one", GOOD, {"Content-Encoding": coding}), 501,
          "Unsupported compression type")


def test_content_encoding_identity(v2):
    assert v2.infer("one", GOOD, {"Content-Encoding": "identity"}).status == 200


# ---- Models, versions, paths, methods ----

MODEL_ERRORS = [
    ("POST", "/v2/models/nope/infer", 404, "Request for unknown model: 'nope' is not found"),
    ("POST", "/v2/models/one/versions/3/infer", 404,
     "Request for unknown model: 'one' version 3 is not found"),
    ("POST", "/v2/models/broken/infer", 404,
     "Request for unknown model: 'broken' has no available versions"),
    ("POST", "/v2/models/broken/versions/1/infer", 503,
     "Request for unknown model: 'broken' version 1 is not at ready state"),
    ("POST", f"/v2/models/one/versions/{2**63}/infer", 400,
     f"failed to get model version from specified version string '{2**63}', version should be an "
     "integral value > 0"),
    ("POST", f"/v2/models/one/versions/{10**30}/infer", 400,
     f"failed to get model version from specified version string '{10**30}', version should be an "
     "integral value > 0"),
    ("POST", "/v2/models/one/versions/0/infer", 404,
     "Request for unknown model: 'one' version 0 is not found"),
    ("GET", "/v2/models/nope", 404, "Request for unknown model: 'nope' is not found"),
    ("GET", "/v2/models/nope/config", 404, "Request for unknown model: 'nope' is not found"),
    ("GET", "/v2/models/nope/stats", 404, "Request for unknown model: 'nope' is not found"),
    ("GET", "/v2/models/one/versions/2", 404,
     "Request for unknown model: 'one' version 2 is not found"),
    ("GET", "/v2/models/one/versions/2/stats", 404,
     "Request for unknown model: 'one' version 2 is not found"),
    ("GET", "/v2/models/nope/ready", 400, "Model version not ready"),
    ("GET", "/v2/models/one/versions/2/ready", 400, "Model version not ready"),
    ("GET", "/v2/models/broken/ready", 400, "Model version not ready"),
    ("GET", "/v2/models/%00/config", 404, "Request for unknown model: '' is not found"),
    *(("GET", path, 404, "Not Found") for path in (
        "/", "/v2/", "/v3", "/v2/models", "/v2/models/", "/v2/models/one/", "/v2/models/one/nope",
        "/v2/models/one/versions/x", "/v2/models/one/versions/-1", "/v2/models/one/versions/1x",
        "/v2/models/one/versions//ready", "/v2/models//ready", "/v2/health", "/v2/health/live/",
        "/v2/systemsharedmemory/status", "/v2/trace/setting", "/metrics", "/v2%2Fhealth/live", "*")),
    *((method, path, 405, "Method Not Allowed") for method, path in (
        ("POST", "/v2"), ("GET", "/v2/models/one/infer"), ("PUT", "/v2/models/one/infer"),
        ("DELETE", "/v2/models/one"), ("POST", "/v2/health/live"), ("PATCH", "/v2/models/one"),
        ("GET", "/v2/repository/index"), ("OPTIONS", "/v2"), ("POST", "/v2/models/one/config"),
        ("GET", "/v2/models/nope/infer"))),
]


@pytest.mark.parametrize("method,path,status,text", MODEL_ERRORS)
def test_paths(v2, method, path, status, text):
    body = to_bytes(GOOD) if method == "POST" else b""
    check(v2, message(method, path, body), status, text)


def test_paths_with_query(v2):
    """A query changes nothing."""
    assert v2.get("/v2?x=1").status == 200
    assert v2.get("/v2/health/live?").status == 200
    assert v2.post("/v2/models/one/infer?a=b&c", GOOD).status == 200


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"ready":1}', b'"x"', b"\xff"])
def test_index_body(v2, body):
    check(v2, message("POST", "/v2/repository/index", body), 400,
          JSON + 'expected an object like {"ready":true}')


# ---- Sizes ----

def test_body_too_large(v2):
    """413 before the body is read, by Content-Length and by chunks."""
    text = (f"re:request body of (at least )?{LIMIT + 1} bytes is larger than the limit of {LIMIT} "
            "bytes. Use --http-max-input-size to increase the limit.")
    check(v2, message("POST", "/v2/models/one/infer", b"",
                      {"Content-Length": LIMIT + 1}), 413, text)
    check(v2, message("POST", "/v2/models/one/infer", b"",
                      {"Transfer-Encoding": "chunked"}) + b"%x\r\n" % (LIMIT + 1), 413, text)
    fits = v2.infer("byte", bytes(LIMIT), {"Inference-Header-Content-Length": 0})
    assert fits.status == 200, fits


def test_body_cut(v2):
    """A client that ends in the middle of its body gets no answer, and nothing is left behind."""
    whole = infer_message("one", GOOD)
    for cut in (1, 10, len(whole) // 2, len(whole) - 1):
        with connect(v2.port) as s:
            s.sendall(whole[:cut])
            s.shutdown(1)
            assert s.recv(1000) == b""
    assert_serves(v2)


def test_million_inputs(v2):
    """A million of anything is refused quickly; what it takes is bounded by the body."""
    item = b'{"name":"INPUT0"},'
    count = (LIMIT - 100) // len(item)
    for body, text in (
            (b'{"inputs":[' + item * count + b"{}]}", "Unable to parse 'datatype'"),
            (b'{"inputs":[' + b"1," * ((LIMIT - 100) // 2) + b"1]}", "Unable to parse 'name'"),
            (b'{"inputs":[],"outputs":[' + b"1," * ((LIMIT - 100) // 2) + b"1]}",
             "Unable to parse 'name'")):
        answer = ask(v2, infer_message("one", body))
        assert answer.status == 400 and text in answer.error, answer
        assert_serves(v2)


def test_many_outputs(v2):
    """The same output ten thousand times is one output."""
    body = {**GOOD, "outputs": [{"name": "OUTPUT0"}] * 10_000}
    answer = v2.infer("one", body)
    assert answer.status == 200 and len(answer.json()["outputs"]) == 1


def test_many_parameters(v2):
    """Thousands of parameters of a request pass."""
    body = {**GOOD, "parameters": {f"p{i}": i for i in range(10_000)}}
    assert v2.infer("one", body).status == 200


def test_long_strings_in_errors(v2):
    """Names of a megabyte are refused without trouble."""
    name = "x" * (LIMIT // 2)
    for body in (one(name=name), {**GOOD, "outputs": [{"name": name}]}, one(datatype=name)):
        answer = ask(v2, infer_message("one", body))
        assert answer.status == 400 and answer.error
    answer = v2.get("/v2/models/" + "m" * 20_000)
    assert answer.status == 404
    assert_serves(v2)


# ---- HTTP itself ----

@pytest.mark.parametrize("raw,status", [
    (b"hello\r\n\r\n", 400),
    (b"GET /v2 HTTP/2.0\r\n\r\n", 505),
    (b"GET /v2 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"POST /v2/models/one/infer HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
    (b"POST /v2/models/one/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n"
     b"\r\n", 400),
    (b"POST /v2/models/one/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
     b"Transfer-Encoding: chunked\r\n\r\n", 400),
    (b"GET /v2 HTTP/1.1\r\nHost: a\r\nA: " + b"x" * 70_000 + b"\r\n\r\n", 431),
    (b"GET /v2 HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
    (b"GET /v2 HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n", 417),
    (b"GET v2 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
])
def test_http(v2, raw, status):
    """What is no HTTP is refused in JSON too, and the connection ends."""
    with connect(v2.port) as s:
        s.sendall(raw)
        answer = read_answer(s, "GET")
        assert answer.status == status, answer
        assert answer.headers["Connection"] == "close" and answer.error
    assert_serves(v2)


def test_connection_survives(v2):
    """A hundred refusals on one connection, then a good answer on the same."""
    with connect(v2.port) as s:
        for i in range(100):
            s.sendall(infer_message("one", {"id": str(i), "inputs": []}))
            answer = read_answer(s)
            assert answer.status == 400 and f"[request id: {i}]" in answer.error
        s.sendall(infer_message("one", GOOD))
        assert read_answer(s).status == 200


def test_error_texts_are_json(v2):
    """Names with quotes, control characters and broken UTF-8 in them still make JSON."""
    for path in ('/v2/models/a%22b%0A%5C', "/v2/models/%ff%fe"):
        answer = v2.get(path)
        assert answer.status == 404
        assert isinstance(answer, Answer) and answer.error
    body = json.dumps(one(name='"\n\\\x01')).encode()
    assert v2.infer("one", body).error == \
        "unexpected inference input '\"\n\\\x01' for model 'one'"


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_model_control_is_refused(v2, verb):
    """Models are loaded at start: load and unload answer as Triton does without explicit mode."""
    answer = v2.post(f"/v2/repository/models/simple/{verb}", b"")
    assert answer.status == 503
    assert answer.error == ("explicit model load / unload is not allowed if polling is enabled")
