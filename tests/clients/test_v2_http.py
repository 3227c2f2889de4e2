"""The v2 protocol over HTTP: tritonclient (sync and asyncio), curl, and requests by hand.

One server holds the example models and the ones below; the tests ask it for everything that v2
offers and compare with what numpy says.
"""
import asyncio
import concurrent.futures
import itertools
import json
import math
import subprocess
import threading

import numpy as np
import pytest
import tritonclient.http as sync_http
import tritonclient.http.aio as async_http
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

import server as srv
from server import (ROOT, MODELS, Server, add_model, binary_body, binary_input, config, identity,
                    json_input, onnx_models, pairs, tensor)

NUMBERS = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "INT8": "i1",
    "INT16": "i2", "INT32": "i4", "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
    "BF16": "f4",  # tritonclient takes and gives FP32 arrays
}
TYPES = [*NUMBERS, "BYTES"]
JSON_TYPES = [t for t in TYPES if t not in ("FP16", "BF16")]
STRINGS = [b"", b"plain", b"nul\0in\0side", b"\0", "größe 漢字 \U0001f600".encode(),
           b'quote " back \\ slash / \b\f\n\r\t \x01\x1f\x7f', b"x" * 70_000]
LABELS = "cat\ndog\n\nbird with a space\n"


def values(datatype, count):
    """Values that use the type's whole range, as an array."""
    if datatype == "BYTES":
        return np.array((STRINGS * count)[:count], dtype=object)
    dtype = np.dtype(NUMBERS[datatype])
    if datatype == "BOOL":
        return np.arange(count) % 3 == 0
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        some = [limits.min, limits.max, 0, 1, limits.max // 3, limits.min // 3]
    elif datatype in ("FP16", "BF16"):
        some = [0.0, -0.0, 1.5, -2.0, 448.0, 0.00390625]
    else:
        some = [0.0, -0.0, 0.1, -1e-38, 3.4e38, 1.0, 123456.789]
    return np.array((some * count)[:count], dtype=dtype)


@pytest.fixture(scope="module")
def v2(tmp_path_factory):
    repository = tmp_path_factory.mktemp("v2")
    for t in TYPES:
        add_model(repository, f"identity_{t}", identity(t, [-1], batch=8))
        add_model(repository, f"onnx_{t}", config("onnxruntime", *pairs(t, [-1, 2])),
                  onnx=onnx_models.identity(t, [None, 2]))
        add_model(repository, f"add_sub_{t}",
                  config("onnxruntime", *pairs(t, [4], 2), batch=8),
                  onnx=onnx_models.add_sub(t, [None, 4]))
    add_model(repository, "three", config("identity", *pairs("FP32", [-1, -1], 3)))
    add_model(repository, "three_one", config("identity", *pairs("FP32", [-1, -1])))
    add_model(repository, "labels",
              config("identity", [tensor("INPUT0", "FP32", [6]), tensor("INPUT1", "INT64", [-1])],
                     [tensor("OUTPUT0", "FP32", [6], 'label_filename: "names.txt"'),
                      tensor("OUTPUT1", "INT64", [-1])], batch=8),
              files={"names.txt": LABELS})
    add_model(repository, "labels_one",
              config("identity", [tensor("INPUT0", "FP32", [2, 2])],
                     [tensor("OUTPUT0", "FP32", [2, 2], 'label_filename: "names.txt"')]),
              files={"names.txt": LABELS})
    add_model(repository, "scale",
              config("onnxruntime", [tensor("INPUT0", "FP32", [2]),
                                     tensor("SCALE", "INT64", [1], "reshape { shape: [ ] }")],
                     [tensor("OUTPUT0", "FP32", [2])], batch=8),
              onnx=onnx_models.scale([None, 2]))
    add_model(repository, "scale_one",
              config("onnxruntime", [tensor("INPUT0", "FP32", [-1]), tensor("SCALE", "INT64", [1])],
                     [tensor("OUTPUT0", "FP32", [-1])]), onnx=onnx_models.scale([None]))
    add_model(repository, "total", config("onnxruntime", [tensor("INPUT0", "FP32", [-1])],
                                          [tensor("OUTPUT0", "FP32", [1])]),
              onnx=onnx_models.total([None]))
    add_model(repository, "nonzero", config("onnxruntime", [tensor("INPUT0", "FP32", [-1, -1])],
                                            [tensor("OUTPUT0", "INT64", [2, -1])]),
              onnx=onnx_models.nonzero([None, None]))
    add_model(repository, "reshaped",
              config("identity", [tensor("INPUT0", "INT32", [4], "reshape { shape: [ 2, 2 ] }")],
                     [tensor("OUTPUT0", "INT32", [4], "reshape { shape: [ 2, 2 ] }")], batch=2))
    add_model(repository, "counted", identity("INT32", [16], batch=8,
                                              extra="instance_group [ { count: 2 } ]"))
    add_model(repository, "counted_once", identity("INT32", [16], batch=8))
    add_model(repository, "versions", identity("INT32", [2], extra="version_policy { all { } }"),
              versions=[1, 3, 12])
    add_model(repository, "näme with blank", identity("INT32", [1]))
    with Server([MODELS, repository], "--id=my server") as server:
        yield server


@pytest.fixture(scope="module")
def client(v2):
    with sync_http.InferenceServerClient(v2.url, concurrency=4) as c:
        yield c


def make_inputs(arrays, datatypes, binary=True, module=sync_http):
    """Inputs for tritonclient; binary: one choice, or one for each input."""
    choices = binary if isinstance(binary, (list, tuple)) else [binary] * len(arrays)
    inputs = []
    for (name, array), datatype, choice in zip(arrays.items(), datatypes, choices):
        one = module.InferInput(name, list(array.shape), datatype)
        one.set_data_from_numpy(array, binary_data=choice)
        inputs.append(one)
    return inputs


def infer(client, model, arrays, datatypes, binary=True, binary_out=None, outputs=None, **kwargs):
    """Sends arrays {name: array} and returns the result."""
    if outputs is None and binary_out is not None:
        outputs = [sync_http.InferRequestedOutput(f"OUTPUT{i}", binary_data=binary_out)
                   for i in range(len(arrays))]
    return client.infer(model, make_inputs(arrays, datatypes, binary), outputs=outputs, **kwargs)


def same(found, expected):
    assert found.shape == expected.shape
    if expected.dtype == object:
        as_bytes = [v if isinstance(v, bytes) else v.encode() for v in found.flatten()]
        assert as_bytes == list(expected.flatten())
    else:
        np.testing.assert_array_equal(found, expected)
        if expected.dtype.kind == "f":  # -0.0 and 0.0 are different values
            np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


# ---- Data types ----

@pytest.mark.parametrize("datatype", TYPES)
def test_types_binary(client, datatype):
    """Binary in and out, batches 1 to the largest, on both backends."""
    for batch in range(1, 9):
        array = values(datatype, batch * 7).reshape(batch, 7)
        result = infer(client, f"identity_{datatype}", {"INPUT0": array}, [datatype])
        assert result.get_output("OUTPUT0")["datatype"] == datatype
        same(result.as_numpy("OUTPUT0"), array)
    array = values(datatype, 14).reshape(7, 2)
    result = infer(client, f"onnx_{datatype}", {"INPUT0": array}, [datatype])
    same(result.as_numpy("OUTPUT0"), array)


@pytest.mark.parametrize("datatype", JSON_TYPES)
def test_types_json(client, datatype):
    """Every mix of JSON and binary, in and out."""
    array = values(datatype, 28).reshape(4, 7)
    for binary, binary_out in itertools.product([False, True], repeat=2):
        result = infer(client, f"identity_{datatype}", {"INPUT0": array}, [datatype],
                       binary=binary, binary_out=binary_out)
        same(result.as_numpy("OUTPUT0"), array)


@pytest.mark.parametrize("datatype", TYPES)
def test_add_sub(client, datatype):
    """A model that computes: one input in JSON and one in binary where JSON can."""
    a = np.array([[9, 8, 7, 6], [5, 4, 3, 2]])
    b = np.array([[1, 2, 3, 3], [0, 1, 2, 2]])
    total, difference = a + b, a - b
    if datatype == "BYTES":
        to = np.vectorize(lambda v: str(v).encode(), otypes=[object])
    elif datatype == "BOOL":
        a, b = a > 5, b > 2
        total, difference = a | b, a ^ b

        def to(v):
            return v
    else:
        def to(v):
            return v.astype(NUMBERS[datatype])
    mixes = [(True, True)]
    if datatype in JSON_TYPES:
        mixes = list(itertools.product([False, True], repeat=2))
    for mix in mixes:
        result = infer(client, f"add_sub_{datatype}", {"INPUT0": to(a), "INPUT1": to(b)},
                       [datatype] * 2, binary=mix)
        same(result.as_numpy("OUTPUT0"), to(total))
        same(result.as_numpy("OUTPUT1"), to(difference))


@pytest.mark.parametrize("datatype", TYPES)
def test_asyncio(v2, datatype):
    """The asyncio client, many requests at once over few connections."""
    array = values(datatype, 21).reshape(3, 7)

    async def one(client, number):
        inputs = make_inputs({"INPUT0": array}, [datatype], module=async_http)
        result = await client.infer(f"identity_{datatype}", inputs, request_id=str(number))
        assert result.get_response()["id"] == str(number)
        same(result.as_numpy("OUTPUT0"), array)

    async def main():
        async with async_http.InferenceServerClient(v2.url, conn_limit=4) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready(f"identity_{datatype}")
            await asyncio.gather(*(one(client, n) for n in range(16)))

    asyncio.run(main())


def test_async_infer(client):
    """tritonclient's async_infer: four at a time over the connection pool."""
    arrays = [np.arange(i, i + 4, dtype="i4").reshape(1, 4) for i in range(32)]
    waiting = [client.async_infer("identity_INT32", make_inputs({"INPUT0": a}, ["INT32"]))
               for a in arrays]
    for a, w in zip(arrays, waiting):
        same(w.get_result().as_numpy("OUTPUT0"), a)


def test_json_numbers(v2):
    """What JSON may say for each type, nested or flat, and how answers are written."""
    def ask(datatype, shape, data):
        answer = v2.infer(f"identity_{datatype}",
                          {"inputs": [json_input("INPUT0", datatype, shape, data)]})
        assert answer.status == 200, answer
        assert answer.headers["Content-Type"] == "application/json"
        return answer

    assert ask("BOOL", [1, 5], [True, False, 1, 0, 7]).json()["outputs"][0]["data"] == [
        True, False, True, False, True]
    assert ask("FP32", [2, 2], [[1, 2.5], [-0.0, 1e10]]).json()["outputs"][0]["data"] == [
        1.0, 2.5, -0.0, 1e10]
    assert b'"data":[2.0,0.1]' in ask("FP32", [1, 2], [2, 0.1]).body
    assert b'"data":[2.0,0.1]' in ask("FP64", [1, 2], [2, 0.1]).body
    assert b'"data":[-9223372036854775808,9223372036854775807]' in ask(
        "INT64", [1, 2], [-2**63, 2**63 - 1]).body
    assert b'"data":[18446744073709551615]' in ask("UINT64", [1, 1], [2**64 - 1]).body
    assert ask("INT8", [1, 2, ], [[-128, 127]]).json()["outputs"][0]["data"] == [-128, 127]
    # Odd nesting is the same tensor: row by row.
    assert ask("INT32", [2, 3], [1, [2, [3]], [[4, 5], 6]]).json()["outputs"][0]["data"] == [
        1, 2, 3, 4, 5, 6]


def test_json_not_a_number(v2):
    """NaN and the infinities, which are no JSON, go both ways as bare words."""
    for datatype in ("FP32", "FP64"):
        body = (b'{"inputs":[{"name":"INPUT0","datatype":"%s","shape":[1,4],'
                b'"data":[NaN,Infinity,-Infinity,1]}]}' % datatype.encode())
        answer = v2.infer(f"identity_{datatype}", body)
        assert b'"data":[NaN,Infinity,-Infinity,1.0]' in answer.body
        found = answer.json()["outputs"][0]["data"]
        assert math.isnan(found[0]) and found[1:] == [math.inf, -math.inf, 1]


def test_answer_form(v2):
    """The order of keys, no blanks, and headers as Triton writes them."""
    head = {"id": "7", "inputs": [binary_input("INPUT0", "INT32", [1, 2], 8)]}
    tail = b"\1\0\0\0\2\0\0\0"
    answer = v2.infer("identity_INT32", *binary_body(head, tail))
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.body == (
        b'{"id":"7","model_name":"identity_INT32","model_version":"1","outputs":'
        b'[{"name":"OUTPUT0","datatype":"INT32","shape":[1,2],"data":[1,2]}]}')
    head["parameters"] = {"binary_data_output": True}
    answer = v2.infer("identity_INT32", *binary_body(head, tail))
    assert answer.headers["Content-Type"] == "application/octet-stream"
    text = (b'{"id":"7","model_name":"identity_INT32","model_version":"1","outputs":'
            b'[{"name":"OUTPUT0","datatype":"INT32","shape":[1,2],'
            b'"parameters":{"binary_data_size":8}}]}')
    assert answer.headers["Inference-Header-Content-Length"] == str(len(text))
    assert answer.headers["Content-Length"] == str(len(text) + 8)
    assert answer.body == text + tail


# ---- Shapes ----

def test_shapes_without_batching(client):
    """max_batch_size 0: three tensors of different variable shapes, zero-size ones among them."""
    shapes = [(2, 3), (1, 1), (0, 5)]
    arrays = {f"INPUT{i}": np.random.default_rng(i).random(s, dtype="f4")
              for i, s in enumerate(shapes)}
    for mix in itertools.product([True, False], repeat=3):
        result = infer(client, "three", arrays, ["FP32"] * 3, binary=mix, binary_out=True)
        for i in range(3):
            same(result.as_numpy(f"OUTPUT{i}"), arrays[f"INPUT{i}"])


@pytest.mark.parametrize("model,shape", [("identity_FP32", (3, 0)), ("onnx_FP32", (0, 2)),
                                         ("onnx_BYTES", (0, 2)), ("identity_BYTES", (8, 0))])
def test_zero_size(v2, model, shape):
    """A tensor without elements, in JSON and in binary."""
    datatype = model.split("_")[1]
    answer = v2.infer(model, {"inputs": [json_input("INPUT0", datatype, shape, [])]})
    assert answer.json()["outputs"][0] == {"name": "OUTPUT0", "datatype": datatype,
                                           "shape": list(shape), "data": []}
    head = {"inputs": [binary_input("INPUT0", datatype, shape, 0)],
            "parameters": {"binary_data_output": True}}
    found, tail = v2.infer(model, *binary_body(head)).split()
    assert found["outputs"][0]["shape"] == list(shape)
    assert found["outputs"][0]["parameters"] == {"binary_data_size": 0}
    assert tail == b""


def test_scalars(client):
    """A tensor of rank 0 inside the model: dims [1], or reshape to [] behind the batch dimension."""
    result = infer(client, "scale_one", {"INPUT0": np.array([1, 2, 3], "f4"),
                                         "SCALE": np.array([5], "i8")}, ["FP32", "INT64"])
    same(result.as_numpy("OUTPUT0"), np.array([5, 10, 15], "f4"))
    result = infer(client, "total", {"INPUT0": np.arange(10, dtype="f4")}, ["FP32"])
    same(result.as_numpy("OUTPUT0"), np.array([45], "f4"))
    array = np.arange(8, dtype="i4").reshape(2, 4)
    same(infer(client, "reshaped", {"INPUT0": array}, ["INT32"]).as_numpy("OUTPUT0"), array)


def test_shape_known_only_after(client):
    """An output whose shape depends on the values."""
    array = np.array([[0, 1, 0], [2, 0, 3]], "f4")
    result = infer(client, "nonzero", {"INPUT0": array}, ["FP32"])
    same(result.as_numpy("OUTPUT0"), np.array(np.nonzero(array)))


def test_large(client):
    """Tensors larger than any buffer on the way, binary and JSON."""
    array = np.random.default_rng(1).integers(-2**31, 2**31, (8, 500_000), dtype="i4")
    same(infer(client, "identity_INT32", {"INPUT0": array}, ["INT32"]).as_numpy("OUTPUT0"), array)
    some = array[:, :100_000]
    same(infer(client, "identity_INT32", {"INPUT0": some}, ["INT32"], binary=False,
               binary_out=False).as_numpy("OUTPUT0"), some)


def test_large_json(v2):
    """A JSON body near the limit on bodies: millions of short numbers."""
    count = 12_000_000
    body = b'{"inputs":[{"name":"INPUT0","datatype":"UINT8","shape":[1,%d],"data":[%s]}],' \
           b'"parameters":{"binary_data_output":true}}' % (count, b",".join([b"7"] * count))
    answer = v2.infer("identity_UINT8", body)
    assert answer.status == 200, answer
    assert answer.split()[1] == b"\7" * count


# ---- Strings ----

def test_strings(v2):
    """Strings keep every byte: NUL, UTF-8, control characters; escapes of JSON are understood."""
    escaped = r'["\u0000", "\ud83d\ude00", "a\/b", "\u00e4"]'
    body = ('{"inputs":[{"name":"INPUT0","datatype":"BYTES","shape":[1,4],"data":%s}]}'
            % escaped).encode()
    assert v2.infer("identity_BYTES", body).json()["outputs"][0]["data"] == [
        "\0", "\U0001f600", "a/b", "ä"]
    assert v2.infer("onnx_BYTES", body.replace(b"[1,4]", b"[2,2]")).json()[
        "outputs"][0]["data"] == ["\0", "\U0001f600", "a/b", "ä"]


def test_strings_not_utf8(v2):
    """Bytes that are no UTF-8 pass in binary."""
    tensor_bytes = serialize_byte_tensor(np.array([b"\xff\xfe\0", b"ok"], dtype=object)).item()
    head = {"inputs": [binary_input("INPUT0", "BYTES", [1, 2], len(tensor_bytes))],
            "parameters": {"binary_data_output": True}}
    assert v2.infer("identity_BYTES", *binary_body(head, tensor_bytes)).split()[1] == tensor_bytes


def test_string_models(client):
    """The example models on strings."""
    a = np.array([[str(i).encode() for i in range(16)]], dtype=object)
    b = np.array([[b"1"] * 16], dtype=object)
    result = infer(client, "simple_string", {"INPUT0": a, "INPUT1": b}, ["BYTES"] * 2)
    assert [int(v) for v in result.as_numpy("OUTPUT0")[0]] == [i + 1 for i in range(16)]
    assert [int(v) for v in result.as_numpy("OUTPUT1")[0]] == [i - 1 for i in range(16)]
    array = np.array([STRINGS], dtype=object)
    same(infer(client, "simple_identity", {"INPUT0": array}, ["BYTES"]).as_numpy("OUTPUT0"), array)


def test_silero(client):
    """The trained model of the examples: silence is no speech, and the state comes back."""
    arrays = {"input": np.zeros((1, 576), "f4"), "state": np.zeros((2, 1, 128), "f4"),
              "sr": np.array([16000], "i8")}
    result = client.infer("silero_vad", make_inputs(arrays, ["FP32", "FP32", "INT64"]))
    assert result.as_numpy("output").shape == (1, 1)
    assert 0 <= result.as_numpy("output")[0, 0] < 0.5
    assert result.as_numpy("stateN").shape == (2, 1, 128)


# ---- Raw requests ----

RAW = {"Inference-Header-Content-Length": 0}


def test_raw(v2):
    """The body alone is the tensor; its shape comes from the configuration and its length."""
    data = np.arange(6, dtype="i4").tobytes()
    found, tail = v2.infer("identity_INT32", data, RAW).split()
    assert found["outputs"][0] == {"name": "OUTPUT0", "datatype": "INT32", "shape": [1, 6],
                                   "parameters": {"binary_data_size": 24}}
    assert tail == data
    found, tail = v2.infer("reshaped", data[:16], RAW).split()
    assert found["outputs"][0]["shape"] == [1, 4] and tail == data[:16]
    # A body without the header, and none at all, are the same request without data.
    for headers in (RAW, {}):
        found, tail = v2.infer("identity_INT32", b"", headers).split()
        assert found["outputs"][0]["shape"] == [1, 0] and tail == b""


def test_raw_string(v2):
    """A raw string is one element without its length."""
    for text in (b"hello\0world", b"", "ä".encode()):
        found, tail = v2.infer("identity_BYTES", text, RAW).split()
        assert found["outputs"][0]["shape"] == [1, 1]
        assert tail == len(text).to_bytes(4, "little") + text


@pytest.mark.parametrize("model,body,text", [
    ("simple", b"x", "Raw request must only have 1 input (found 1) to be deduced but got 2 inputs "
                     "in 'simple' model configuration"),
    ("identity_INT32", b"123", "3 bytes are not a multiple of 4"),
    ("three_one", b"1234", "more than one variable-sized dimension"),
    ("onnx_BYTES", b"x", "unexpected shape for input 'INPUT0' for model 'onnx_BYTES'. Expected "
                         "[-1,2], got [1,1]"),
])
def test_raw_refused(v2, model, body, text):
    """A body that cannot be one tensor of the model."""
    answer = v2.infer(model, body, RAW)
    assert answer.status == 400
    assert text in answer.error


# ---- Classification ----

def classes(v2, model, shape, data, k, name="0", datatype="FP32", binary=False, extra=()):
    body = {"inputs": [json_input(f"INPUT{name}", datatype, shape, data), *extra],
            "outputs": [{"name": f"OUTPUT{name}",
                         "parameters": {"classification": k, "binary_data": binary}}]}
    answer = v2.infer(model, body)
    assert answer.status == 200, answer
    found, tail = answer.split()
    output = found["outputs"][0]
    assert output["datatype"] == "BYTES"
    return output["shape"], tail if binary else output["data"]


OTHER = json_input("INPUT1", "INT64", [1, 1], [0])


def test_classification(v2):
    """Best first, the lowest index first among equals, labels where the file has one."""
    shape, found = classes(v2, "labels", [1, 6], [1, 5, 5, 0, 9.25, -1], 6, extra=[OTHER])
    assert shape == [1, 6]
    assert found == ["9.250000:4", "5.000000:1:dog", "5.000000:2", "1.000000:0:cat",
                     "0.000000:3:bird with a space", "-1.000000:5"]
    assert classes(v2, "labels", [1, 6], [1, 5, 5, 0, 9, -1], 2, extra=[OTHER]) == (
        [1, 2], ["9.000000:4", "5.000000:1:dog"])
    # More than there are: all.
    shape, found = classes(v2, "labels", [1, 6], [0] * 6, 1000, extra=[OTHER])
    assert shape == [1, 6]
    assert [s.split(":")[1] for s in found] == ["0", "1", "2", "3", "4", "5"]


def test_classification_batch(v2):
    """Each batch entry has its own best."""
    two = json_input("INPUT1", "INT64", [3, 1], [0, 0, 0])
    data = [[0, 1, 0, 0, 0, 0], [3, 2, 1, 0, 0, 0], [0, 0, 0, 0, 0, 7]]
    shape, found = classes(v2, "labels", [3, 6], data, 1, extra=[two])
    assert shape == [3, 1] and found == ["1.000000:1:dog", "3.000000:0:cat", "7.000000:5"]
    shape, found = classes(v2, "labels", [3, 6], data, 1, binary=True, extra=[two])
    expected = np.array([b"1.000000:1:dog", b"3.000000:0:cat", b"7.000000:5"], dtype=object)
    assert found == serialize_byte_tensor(expected).item()


def test_classification_without_batching(v2):
    """max_batch_size 0: the whole tensor is one list, the answer has one dimension."""
    assert classes(v2, "labels_one", [2, 2], [[1, 2], [4, 3]], 3) == (
        [3], ["4.000000:2", "3.000000:3:bird with a space", "2.000000:1:dog"])


@pytest.mark.parametrize("datatype", ["UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16",
                                      "INT32", "INT64", "FP32", "FP64"])
def test_classification_types(v2, datatype):
    """All types that have an order; integers without decimals."""
    data = [1, 3, 2] if datatype[0] == "U" else [-1, 3, 2]
    form = "{:.6f}" if datatype.startswith("FP") else "{}"
    shape, found = classes(v2, f"identity_{datatype}", [1, 3], data, 3, datatype=datatype)
    assert shape == [1, 3]
    assert found == [form.format(3) + ":1", form.format(2) + ":2", form.format(data[0]) + ":0"]


def test_classification_large_integers(v2):
    """64-bit integers that a double cannot tell apart."""
    _, found = classes(v2, "identity_INT64", [1, 3], [2**62, 2**62 + 1, 2**62 - 1], 3,
                       datatype="INT64")
    assert found == [f"{2**62 + 1}:1", f"{2**62}:0", f"{2**62 - 1}:2"]


def test_classification_client(client):
    """tritonclient's class_count on `simple`."""
    arrays = {"INPUT0": np.arange(16, dtype="i4").reshape(1, 16), "INPUT1": np.ones((1, 16), "i4")}
    outputs = [sync_http.InferRequestedOutput("OUTPUT0", class_count=3),
               sync_http.InferRequestedOutput("OUTPUT1")]
    result = infer(client, "simple", arrays, ["INT32"] * 2, outputs=outputs)
    assert list(result.as_numpy("OUTPUT0")[0]) == [b"16:15:sum 15", b"15:14:sum 14", b"14:13:sum 13"]
    same(result.as_numpy("OUTPUT1"), arrays["INPUT0"] - 1)


# ---- Ids, parameters, outputs ----

@pytest.mark.parametrize("text", ["1", "x" * 5000, "ä \" \\ \n \U0001f600"])
def test_request_id(v2, text):
    body = {"id": text, "inputs": [json_input("INPUT0", "INT32", [1, 1], [1])]}
    assert v2.infer("identity_INT32", body).json()["id"] == text


def test_request_id_absent(v2):
    """No id in, none out; an empty one counts as none."""
    body = {"inputs": [json_input("INPUT0", "INT32", [1, 1], [1])]}
    assert "id" not in v2.infer("identity_INT32", body).json()
    assert "id" not in v2.infer("identity_INT32", {"id": "", **body}).json()


def test_parameters(client, v2):
    """Reserved parameters have their types; free ones of every kind pass."""
    array = {"INPUT0": np.ones((1, 1), "i4")}
    infer(client, "identity_INT32", array, ["INT32"], sequence_id=7, sequence_start=True,
          sequence_end=True, priority=1, timeout=1_000_000,
          parameters={"text": "t", "number": -3, "flag": True, "real": 1.5})
    infer(client, "identity_INT32", array, ["INT32"], sequence_id="seven")
    body = {"inputs": [json_input("INPUT0", "INT32", [1, 1], [1])],
            "parameters": {"triton_enable_empty_final_response": True}}
    assert v2.infer("identity_INT32", body).status == 200


def three(outputs=None, **more):
    body = {"inputs": [json_input(f"INPUT{i}", "FP32", [1, 1], [i]) for i in range(3)], **more}
    if outputs is not None:
        body["outputs"] = outputs
    return body


@pytest.mark.parametrize("asked,expected", [
    (None, ["OUTPUT0", "OUTPUT1", "OUTPUT2"]),
    ([], ["OUTPUT0", "OUTPUT1", "OUTPUT2"]),
    (["OUTPUT1"], ["OUTPUT1"]),
    (["OUTPUT2", "OUTPUT0"], ["OUTPUT0", "OUTPUT2"]),
    (["OUTPUT1", "OUTPUT1", "OUTPUT1"], ["OUTPUT1"]),
])
def test_outputs(v2, asked, expected):
    """All, some, or the same one again and again; an answer names each once."""
    body = three(None if asked is None else [{"name": n} for n in asked])
    answer = v2.infer("three", body)
    assert answer.status == 200, answer
    found = {o["name"]: o["data"] for o in answer.json()["outputs"]}
    assert sorted(found) == expected
    assert all(found[n] == [float(n[-1])] for n in expected)


def test_outputs_onnx(client):
    """One of two outputs of an ONNX model."""
    arrays = {"INPUT0": np.ones((1, 16), "i4"), "INPUT1": np.ones((1, 16), "i4")}
    result = infer(client, "simple", arrays, ["INT32"] * 2,
                   outputs=[sync_http.InferRequestedOutput("OUTPUT1")])
    assert result.as_numpy("OUTPUT0") is None
    same(result.as_numpy("OUTPUT1"), np.zeros((1, 16), "i4"))


def test_binary_data_output(v2):
    """The request's default, and an output's own setting, which wins; order of the tensors."""
    outputs = [{"name": "OUTPUT0"}, {"name": "OUTPUT1", "parameters": {"binary_data": False}},
               {"name": "OUTPUT2", "parameters": {"binary_data": True}}]
    found, tail = v2.infer("three", three(outputs, parameters={"binary_data_output": True})).split()
    forms = {o["name"]: "data" in o for o in found["outputs"]}
    assert forms == {"OUTPUT0": False, "OUTPUT1": True, "OUTPUT2": False}
    assert tail == np.array([0, 2], "f4").tobytes()
    found, tail = v2.infer("three", three(outputs)).split()
    forms = {o["name"]: "data" in o for o in found["outputs"]}
    assert forms == {"OUTPUT0": True, "OUTPUT1": True, "OUTPUT2": False}
    assert tail == np.array([2], "f4").tobytes()


def test_many_parts(v2, client):
    """Headers of other letters, chunked coding, and binary tensors at odd offsets."""
    data = np.arange(5, dtype="f8").tobytes()
    for blanks in range(9):  # the JSON's length decides where the tensor lies
        head = json.dumps({"inputs": [binary_input("INPUT0", "FP64", [1, 5], 40)],
                           "parameters": {"binary_data_output": True}}).encode() + b" " * blanks
        answer = v2.infer("identity_FP64", head + data,
                          {"inference-header-content-length": len(head)})
        assert answer.split()[1] == data
    head, headers = binary_body({"inputs": [binary_input("INPUT0", "FP64", [1, 5], 40)],
                                 "parameters": {"binary_data_output": True}}, data)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(head[i:i + 7]), head[i:i + 7])
                      for i in range(0, len(head), 7)) + b"0\r\n\r\n"
    answer = v2.infer("identity_FP64", chunks, {**headers, "Content-Length": None,
                                                "Transfer-Encoding": "chunked"})
    assert answer.split()[1] == data


def test_keep_alive_and_pipelining(v2):
    """Many requests on one connection, sent at once, answered in order."""
    with srv.connect(v2.port) as s:
        s.sendall(b"".join(srv.infer_message(
            "identity_INT32", {"id": str(i), "inputs": [json_input("INPUT0", "INT32", [1, 1], [i])]})
            for i in range(50)))
        stream = s.makefile("rb")
        for i in range(50):
            status = stream.readline()
            assert status == b"HTTP/1.1 200 OK\r\n"
            headers = dict(line.decode().rstrip().split(": ", 1)
                           for line in iter(stream.readline, b"\r\n"))
            found = json.loads(stream.read(int(headers["Content-Length"])))
            assert found["id"] == str(i) and found["outputs"][0]["data"] == [i]


# ---- Metadata, configuration, health ----

def test_health(client, v2):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("simple") and client.is_model_ready("simple", "1")
    assert not client.is_model_ready("simple", "2") and not client.is_model_ready("nope")
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/simple/ready",
                 "/v2/models/simple/versions/1/ready"):
        answer = v2.get(path)
        assert (answer.status, answer.body) == (200, b"")


def test_head(v2):
    """HEAD is GET without the body, with its length."""
    for path in ("/v2", "/v2/health/live", "/v2/models/simple", "/v2/models/simple/config"):
        got, head = v2.get(path), v2.request("HEAD", path)
        assert head.status == 200 and head.body == b""
        assert head.headers["Content-Length"] == str(len(got.body))
    assert v2.request("HEAD", "/v2/nope").status == 404
    assert v2.request("HEAD", "/v2/models/simple/infer").status == 405


def test_server_metadata(client):
    found = client.get_server_metadata()
    assert list(found) == ["name", "version", "extensions"]
    assert found["name"] == "my server"
    assert found["version"]
    assert found["extensions"] == ["classification", "model_repository", "model_configuration",
                                   "binary_tensor_data", "parameters", "statistics", "logging"]


def test_model_metadata(client):
    assert client.get_model_metadata("simple") == {
        "name": "simple", "versions": ["1"], "platform": "onnxruntime_onnx",
        "inputs": [{"name": f"INPUT{i}", "datatype": "INT32", "shape": [-1, 16]} for i in (0, 1)],
        "outputs": [{"name": f"OUTPUT{i}", "datatype": "INT32", "shape": [-1, 16]}
                    for i in (0, 1)]}
    assert client.get_model_metadata("three", "1") == {
        "name": "three", "versions": ["1"], "platform": "identity",
        "inputs": [{"name": f"INPUT{i}", "datatype": "FP32", "shape": [-1, -1]} for i in range(3)],
        "outputs": [{"name": f"OUTPUT{i}", "datatype": "FP32", "shape": [-1, -1]}
                    for i in range(3)]}
    assert client.get_model_metadata("identity_BYTES")["inputs"][0]["datatype"] == "BYTES"
    assert client.get_model_metadata("versions")["versions"] == ["1", "3", "12"]
    for name, version in (("nope", ""), ("simple", "2")):
        with pytest.raises(InferenceServerException) as caught:
            client.get_model_metadata(name, version)
        assert caught.value.status() == "404"


def test_model_names(client):
    """A name that must be percent-encoded in a path."""
    name = "näme with blank"
    assert client.is_model_ready(name)
    assert client.get_model_metadata(name)["name"] == name
    array = np.array([4], "i4")
    same(infer(client, name, {"INPUT0": array}, ["INT32"]).as_numpy("OUTPUT0"), array)
    assert client.get_inference_statistics(name)["model_stats"][0]["name"] == name


def test_versions(client, v2):
    """The highest version without a number, any other with it."""
    body = {"inputs": [json_input("INPUT0", "INT32", [2], [1, 2])]}
    assert v2.infer("versions", body).json()["model_version"] == "12"
    for version in ("1", "3", "12", "003"):
        answer = v2.post(f"/v2/models/versions/versions/{version}/infer", body)
        assert answer.json()["model_version"] == str(int(version))
    array = np.array([1, 2], "i4")
    result = infer(client, "versions", {"INPUT0": array}, ["INT32"], model_version="3")
    assert result.get_response()["model_version"] == "3"


def test_config(client, v2):
    """The whole configuration with every default, 64-bit numbers as numbers."""
    found = client.get_model_config("simple")
    assert found == json.loads((ROOT / "tests" / "data" / "simple_config.json").read_text())
    assert client.get_model_config("simple", "1") == found
    assert client.get_model_config("versions")["version_policy"] == {"all": {}}
    assert client.get_model_config("counted")["instance_group"][0]["count"] == 2
    assert v2.get("/v2/models/nope/config").status == 404
    assert v2.get("/v2/models/simple/versions/9/config").status == 404


def test_config_of_every_model(client):
    """Backends read it as JSON: no configuration is anything else."""
    for entry in client.get_model_repository_index():
        found = client.get_model_config(entry["name"])
        assert found["name"] == entry["name"]
        assert isinstance(found["max_batch_size"], int)
        assert all(isinstance(d, int) for t in found["input"] for d in t["dims"])


def test_repository_index(client, v2):
    found = {(e["name"], e["version"]): e["state"] for e in client.get_model_repository_index()}
    assert set(found.values()) == {"READY"}
    assert ("simple", "1") in found and ("versions", "12") in found
    assert {"name": "simple", "version": "1", "state": "READY"} in v2.index()
    assert v2.index({"ready": True}) == v2.index() == v2.index({"ready": False})


# ---- Statistics ----

def send_counted(v2, model, count, threads, batch=1):
    """`count` requests from several threads, each with a client of its own."""
    array = np.arange(batch * 16, dtype="i4").reshape(batch, 16)
    left = itertools.count()

    def work(_):
        with sync_http.InferenceServerClient(v2.url) as client:
            while next(left) < count:
                same(infer(client, model, {"INPUT0": array}, ["INT32"]).as_numpy("OUTPUT0"), array)

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))


@pytest.mark.parametrize("model", ["counted", "counted_once"])
def test_statistics_are_exact(client, v2, model):
    """Right after 1,000 answers from several threads every counter says 1,000."""
    before = client.get_inference_statistics(model)["model_stats"][0]
    assert before["inference_count"] == before["execution_count"] == before["last_inference"] == 0
    assert before["batch_stats"] == []
    send_counted(v2, model, 1000, 5)
    found = client.get_inference_statistics(model, "1")["model_stats"]
    assert len(found) == 1
    s = found[0]
    assert list(s) == ["name", "version", "last_inference", "inference_count", "execution_count",
                       "inference_stats", "response_stats", "batch_stats", "memory_usage"]
    assert (s["name"], s["version"]) == (model, "1")
    assert s["inference_count"] == s["execution_count"] == 1000
    stats = s["inference_stats"]
    assert list(stats) == ["success", "fail", "queue", "compute_input", "compute_infer",
                           "compute_output", "cache_hit", "cache_miss"]
    assert stats["success"]["count"] == 1000 and stats["fail"] == {"count": 0, "ns": 0}
    for part in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert stats[part]["count"] == 1000
    assert stats["queue"]["ns"] > 0 and stats["compute_infer"]["ns"] > 0
    parts = sum(stats[p]["ns"] for p in ("queue", "compute_input", "compute_infer",
                                         "compute_output"))
    assert stats["success"]["ns"] >= parts > 0
    assert [b["batch_size"] for b in s["batch_stats"]] == [1]
    assert s["batch_stats"][0]["compute_infer"]["count"] == 1000

    send_counted(v2, model, 10, 2, batch=4)
    after = v2.statistics(model)
    assert after["inference_count"] == 1040 and after["execution_count"] == 1010
    assert after["inference_stats"]["success"]["count"] == 1010
    assert {b["batch_size"]: b["compute_infer"]["count"] for b in after["batch_stats"]} == {
        1: 1000, 4: 10}
    assert after["last_inference"] >= s["last_inference"] > 1_600_000_000_000


def test_statistics_of_failures(v2):
    """A run that fails counts as failed; a request that is refused never reached the model."""
    before = v2.statistics("add_sub_BYTES")
    words = {"inputs": [json_input(f"INPUT{i}", "BYTES", [1, 4], ["no number"] * 4)
                        for i in (0, 1)]}
    answer = v2.infer("add_sub_BYTES", words)
    assert answer.status >= 400 and answer.error
    assert v2.infer("add_sub_BYTES", {"inputs": []}).status == 400
    after = v2.statistics("add_sub_BYTES")
    assert after["inference_stats"]["fail"]["count"] == before["inference_stats"]["fail"]["count"] + 1
    assert after["inference_count"] == before["inference_count"]


def test_statistics_of_all(client, v2):
    names = [m["name"] for m in client.get_inference_statistics()["model_stats"]]
    assert names.count("versions") == 3 and names.count("simple") == 1
    found = client.get_inference_statistics("versions")["model_stats"]
    assert [m["version"] for m in found] == ["1", "3", "12"]
    assert [m["version"] for m in client.get_inference_statistics("versions", "3")["model_stats"]] \
        == ["3"]
    assert v2.get("/v2/models/versions/versions/2/stats").status == 404
    assert v2.get("/v2/models/nope/stats").error == \
        "Request for unknown model: 'nope' is not found"


# ---- Many at once; curl ----

def test_many_clients_at_once(v2):
    """Different models and encodings from many threads; nobody gets another's answer."""
    failures = []

    def work(number):
        rng = np.random.default_rng(number)
        with sync_http.InferenceServerClient(v2.url) as client:
            for i in range(25):
                array = rng.integers(0, 100, (rng.integers(1, 9), rng.integers(1, 200)), dtype="i4")
                binary = bool(i % 2)
                found = infer(client, "identity_INT32", {"INPUT0": array}, ["INT32"], binary=binary,
                              binary_out=not binary, request_id=f"{number}-{i}")
                if found.get_response()["id"] != f"{number}-{i}" or \
                        not np.array_equal(found.as_numpy("OUTPUT0"), array):
                    failures.append((number, i))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failures == []


def curl(*arguments):
    return subprocess.run(["curl", "-sS", "--max-time", "20", *arguments], check=True,
                          capture_output=True).stdout


def test_curl(v2, tmp_path):
    """The lines of the documentation, and a binary request from a file."""
    assert curl("-o", "/dev/null", "-w", "%{http_code}", f"{v2.url}/v2/health/ready") == b"200"
    assert json.loads(curl(f"{v2.url}/v2/models/simple"))["name"] == "simple"
    assert json.loads(curl("-X", "POST", f"{v2.url}/v2/repository/index"))
    body, headers = binary_body({"inputs": [binary_input("INPUT0", "INT32", [1, 2], 8)]},
                                b"\5\0\0\0\6\0\0\0")
    (tmp_path / "body").write_bytes(body)
    found = curl("-H", f"Inference-Header-Content-Length: "
                       f"{headers['Inference-Header-Content-Length']}",
                 "--data-binary", f"@{tmp_path}/body", f"{v2.url}/v2/models/identity_INT32/infer")
    assert json.loads(found)["outputs"][0]["data"] == [5, 6]
    # A body this large makes curl ask first (Expect: 100-continue).
    (tmp_path / "large").write_bytes(bytes(4 << 20))
    found = curl("-H", "Inference-Header-Content-Length: 0", "--data-binary",
                 f"@{tmp_path}/large", f"{v2.url}/v2/models/identity_UINT8/infer")
    assert found.endswith(bytes(4 << 20))


@pytest.mark.parametrize("script,expected", [
    ("simple.sh", b'"data":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]'),
    ("classify.sh", b"16:15:sum 15"),
    ("status.sh", b"ready: HTTP 200"),
])
def test_example_scripts(v2, script, expected):
    found = subprocess.run([ROOT / "examples" / "curl" / script, v2.url], check=True,
                           capture_output=True, timeout=30).stdout
    assert expected in found
