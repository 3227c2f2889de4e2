"""Small ONNX models for tests, written without the onnx package.

Every function returns the bytes of a model file. A model is a handful of
protobuf messages, so the writer below is a handful of lines. Element types go by
their names in configurations ("FP32", "INT64", "BYTES" ...); dims are lists of
numbers, with None or -1 for any size, or a name for a size that tensors share.
"""
import itertools
import math
import random
import struct

# Element types of ONNX's TensorProto.
ELEMENTS = {
    "FP32": 1, "UINT8": 2, "INT8": 3, "UINT16": 4, "INT16": 5, "INT32": 6, "INT64": 7, "BYTES": 8,
    "BOOL": 9, "FP16": 10, "FP64": 11, "UINT32": 12, "UINT64": 13, "BF16": 16,
}
OPSET = 13
IR_VERSION = 8


# ---- Protobuf ----

def varint(value):
    value &= (1 << 64) - 1  # negative numbers take ten bytes
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number, value):
    """One field: an int as varint, everything else as counted bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


# ---- ONNX messages ----

def value_info(name, element, dims):
    """The type of a graph input or output."""
    named = [f"{name}_{i}" if dim in (None, -1) else dim for i, dim in enumerate(dims)]
    shape = b"".join(field(1, field(2 if isinstance(dim, str) else 1, dim)) for dim in named)
    tensor = field(1, ELEMENTS[element]) + field(2, shape)
    return field(1, name) + field(2, field(1, tensor))


def attribute(name, value):
    if isinstance(value, list):
        return field(1, name) + b"".join(field(8, item) for item in value) + field(20, 7)
    return field(1, name) + field(3, value) + field(20, 2)


def node(op, inputs, outputs, **attributes):
    return (b"".join(field(1, name) for name in inputs)
            + b"".join(field(2, name) for name in outputs)
            + field(3, "_".join([op, *outputs])) + field(4, op)
            + b"".join(field(5, attribute(*item)) for item in attributes.items()))


def constant(name, element, dims, raw):
    """An initializer; raw is little-endian."""
    return (b"".join(field(1, dim) for dim in dims) + field(2, ELEMENTS[element]) + field(8, name)
            + field(9, raw))


def model(nodes, inputs, outputs, constants=()):
    graph = (b"".join(field(1, item) for item in nodes) + field(2, "graph")
             + b"".join(field(5, item) for item in constants)
             + b"".join(field(11, value_info(*item)) for item in inputs)
             + b"".join(field(12, value_info(*item)) for item in outputs))
    return (field(1, IR_VERSION) + field(2, "tests/data/onnx_models.py") + field(7, graph)
            + field(8, field(2, OPSET)))


# ---- Models ----

def add_sub(element, dims):
    """OUTPUT0 = INPUT0 + INPUT1, OUTPUT1 = INPUT0 - INPUT1.

    BOOL: or and xor. BYTES: decimal numbers. Types that the engine cannot add are
    widened and narrowed again.
    """
    ops = ("Or", "Xor") if element == "BOOL" else ("Add", "Sub")
    wide = {"BYTES": "INT32", "FP16": "FP32", "BF16": "FP32", "INT8": "INT32", "INT16": "INT32",
            "UINT8": "INT32", "UINT16": "INT32", "UINT32": "INT64", "UINT64": "INT64"}.get(element)
    nodes = []
    operands = ["INPUT0", "INPUT1"]
    if wide:
        operands = ["wide0", "wide1"]
        nodes = [node("Cast", [f"INPUT{i}"], [f"wide{i}"], to=ELEMENTS[wide]) for i in (0, 1)]
    for i, op in enumerate(ops):
        result = f"result{i}" if wide else f"OUTPUT{i}"
        nodes.append(node(op, operands, [result]))
        if wide:
            nodes.append(node("Cast", [result], [f"OUTPUT{i}"], to=ELEMENTS[element]))
    return model(nodes, [(f"INPUT{i}", element, dims) for i in (0, 1)],
                 [(f"OUTPUT{i}", element, dims) for i in (0, 1)])


def identity(element, dims, count=1):
    """OUTPUTi = INPUTi for count tensors. Use it for strings and variable shapes too."""
    return model([node("Identity", [f"INPUT{i}"], [f"OUTPUT{i}"]) for i in range(count)],
                 [(f"INPUT{i}", element, dims) for i in range(count)],
                 [(f"OUTPUT{i}", element, dims) for i in range(count)])


def scale(dims):
    """OUTPUT0 = INPUT0 * SCALE: FP32 tensors, and an INT64 scalar of rank 0."""
    return model([node("Cast", ["SCALE"], ["factor"], to=ELEMENTS["FP32"]),
                  node("Mul", ["INPUT0", "factor"], ["OUTPUT0"])],
                 [("INPUT0", "FP32", dims), ("SCALE", "INT64", [])], [("OUTPUT0", "FP32", dims)])


def total(dims):
    """OUTPUT0 = the sum of all of INPUT0: FP32, an output of rank 0."""
    return model([node("ReduceSum", ["INPUT0"], ["OUTPUT0"], keepdims=0)],
                 [("INPUT0", "FP32", dims)], [("OUTPUT0", "FP32", [])])


def nonzero(dims):
    """OUTPUT0 = the indices of INPUT0's elements that are not 0: a shape known only after."""
    return model([node("NonZero", ["INPUT0"], ["OUTPUT0"])],
                 [("INPUT0", "FP32", dims)], [("OUTPUT0", "INT64", [len(dims), None])])


def lookup(dims, table_size=10):
    """OUTPUT0 = the squares of INPUT0 (INT64), by table: an index outside fails the run."""
    table = struct.pack(f"<{table_size}q", *(i * i for i in range(table_size)))
    return model([node("Gather", ["table", "INPUT0"], ["OUTPUT0"], axis=0)],
                 [("INPUT0", "INT64", dims)], [("OUTPUT0", "INT64", dims)],
                 [constant("table", "INT64", [table_size], table)])


def mlp(sizes, seed=0):
    """Layers of Gemm and Relu with random weights: INPUT0 [N,sizes[0]] to OUTPUT0 [N,sizes[-1]]."""
    rng = random.Random(seed)
    nodes, constants, last = [], [], "INPUT0"
    for i, (rows, columns) in enumerate(zip(sizes, sizes[1:])):
        final = i == len(sizes) - 2
        weights = [rng.gauss(0, rows ** -0.5) for _ in range(rows * columns)]
        constants.append(constant(f"w{i}", "FP32", [rows, columns],
                                  struct.pack(f"<{len(weights)}f", *weights)))
        constants.append(constant(f"b{i}", "FP32", [columns], bytes(4 * columns)))
        out = "OUTPUT0" if final else f"sum{i}"
        nodes.append(node("Gemm", [last, f"w{i}", f"b{i}"], [out]))
        if not final:
            last = f"layer{i}"
            nodes.append(node("Relu", [out], [last]))
    return model(nodes, [("INPUT0", "FP32", [None, sizes[0]])],
                 [("OUTPUT0", "FP32", [None, sizes[-1]])], constants)


def double(dims):
    """OUTPUT0 = INPUT0 * 2, FP32; names in dims are the same dimensions in both."""
    return model([node("Add", ["INPUT0", "INPUT0"], ["OUTPUT0"])], [("INPUT0", "FP32", dims)],
                 [("OUTPUT0", "FP32", dims)])


def masked():
    """OUTPUT0 [N,length] = IDS * MASK, and WHOLE [N,M], all of IDS, padding included, as FP32.

    IDS (INT64) and MASK (FP32) are [N,length] too: their sizes belong together, that of WHOLE does not.
    """
    return model([node("Cast", ["IDS"], ["WHOLE"], to=ELEMENTS["FP32"]),
                  node("Mul", ["WHOLE", "MASK"], ["OUTPUT0"])],
                 [("IDS", "INT64", [None, "length"]), ("MASK", "FP32", [None, "length"])],
                 [("OUTPUT0", "FP32", [None, "length"]), ("WHOLE", "FP32", [None, None])])


def numbers():
    """OUTPUT0 (FP32) = the decimal numbers in TEXT (BYTES), both flat."""
    return model([node("Cast", ["TEXT"], ["OUTPUT0"], to=ELEMENTS["FP32"])],
                 [("TEXT", "BYTES", [None])], [("OUTPUT0", "FP32", [None])])


def segment_sums():
    """SUMS [N,1] = the sum of each request's part of VALUES (FP32, flat), of which OFFSETS (INT32 [N+1])
    says where it begins and the one before ends; SCALED = VALUES * 2, flat."""
    def constants(element, code, **values):
        return [constant(name, element, [len(numbers)], struct.pack(f"<{len(numbers)}{code}", *numbers))
                for name, numbers in values.items()]

    return model([node("CumSum", ["VALUES", "axis"], ["so_far"]),
                  node("Concat", ["nothing", "so_far"], ["all"], axis=0),
                  node("Slice", ["OFFSETS", "zero", "last"], ["begins"]),
                  node("Slice", ["OFFSETS", "one", "end"], ["ends"]),
                  node("Gather", ["all", "begins"], ["before"], axis=0),
                  node("Gather", ["all", "ends"], ["after"], axis=0),
                  node("Sub", ["after", "before"], ["sums"]),
                  node("Unsqueeze", ["sums", "one"], ["SUMS"]),
                  node("Add", ["VALUES", "VALUES"], ["SCALED"])],
                 [("VALUES", "FP32", [None]), ("OFFSETS", "INT32", [None])],
                 [("SUMS", "FP32", [None, 1]), ("SCALED", "FP32", [None])],
                 [*constants("FP32", "f", nothing=[0.0]),
                  constant("axis", "INT64", [], struct.pack("<q", 0)),
                  *constants("INT64", "q", zero=[0], one=[1], last=[-1], end=[2 ** 62])])


# What a batch input says, by the end of its kind's name: the input of ragged() that takes it.
BATCH_INPUTS = {
    "ELEMENT_COUNT": [None],
    "ACCUMULATED_ELEMENT_COUNT": [None],
    "ACCUMULATED_ELEMENT_COUNT_WITH_ZERO": [None],
    "MAX_ELEMENT_COUNT_AS_SHAPE": [None],
    "ITEM_SHAPE": [None, None],
    "ITEM_SHAPE_FLATTEN": [None],
}


def ragged(element):
    """What a model of ragged batches is given.

    INPUT0 (FP32) is the flat ragged input, SIZE (FP32 [N,1]) only has a batch, and each of
    BATCH_INPUTS is a batch input of this element type. For each of them, and INPUT0, the output
    SEEN_name [N,M] tells every request the whole tensor, as FP32. OUTPUT0 = INPUT0 * 2, flat.
    """
    def int64s(name, *values):
        return constant(name, "INT64", [len(values)], struct.pack(f"<{len(values)}q", *values))

    nodes = [node("Add", ["INPUT0", "INPUT0"], ["OUTPUT0"]),
             node("Shape", ["SIZE"], ["size_shape"]),
             node("Gather", ["size_shape", "zero"], ["size"], axis=0),
             node("Concat", ["size", "one"], ["column"], axis=0)]
    for name in ["INPUT0", *BATCH_INPUTS]:
        nodes += [node("Cast", [name], [f"{name}_f"], to=ELEMENTS["FP32"]),
                  node("Reshape", [f"{name}_f", "one_row"], [f"{name}_row"]),
                  node("Expand", [f"{name}_row", "column"], [f"SEEN_{name}"])]
    return model(nodes, [("INPUT0", "FP32", [None]), ("SIZE", "FP32", [None, 1]),
                         *((name, element, dims) for name, dims in BATCH_INPUTS.items())],
                 [("OUTPUT0", "FP32", [None]),
                  *((f"SEEN_{name}", "FP32", [None, None]) for name in ["INPUT0", *BATCH_INPUTS])],
                 [int64s("zero", 0), int64s("one", 1), int64s("one_row", 1, -1)])


def ragged_config(name, element, dims="[ -1 ]", extra=""):
    """The config.pbtxt for ragged(): INPUT0 and OUTPUT0 have dims behind the batch."""
    seen = "".join(f'output {{ name: "SEEN_{one}" data_type: TYPE_FP32 dims: [ -1 ] }}\n'
                   for one in ["INPUT0", *BATCH_INPUTS])
    made = "".join(f'batch_input {{ kind: BATCH_{one} target_name: "{one}" data_type: TYPE_{element}'
                   f' source_input: "INPUT0" }}\n' for one in BATCH_INPUTS)
    return f"""name: "{name}"
backend: "onnxruntime"
max_batch_size: 8
input {{ name: "INPUT0" data_type: TYPE_FP32 dims: {dims} allow_ragged_batch: true }}
input {{ name: "SIZE" data_type: TYPE_FP32 dims: [ 1 ] }}
output {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: {dims} }}
{seen}{made}batch_output {{ kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "OUTPUT0"
    source_input: "INPUT0" }}
{extra}"""


def ragged_seen(shapes):
    """What the outputs SEEN_* of ragged() say when requests with these shapes share an execution."""
    counts = [math.prod(shape) for shape in shapes]
    items = [list(shape[1:]) for shape in shapes for _ in range(shape[0])]
    flat = [size for item in items for size in item]
    ends = list(itertools.accumulate(counts))
    return {"ELEMENT_COUNT": counts, "ACCUMULATED_ELEMENT_COUNT": ends,
            "ACCUMULATED_ELEMENT_COUNT_WITH_ZERO": [0, *ends],
            "MAX_ELEMENT_COUNT_AS_SHAPE": [0] * max(counts),
            "ITEM_SHAPE": flat, "ITEM_SHAPE_FLATTEN": flat}
