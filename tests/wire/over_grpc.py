"""Plays an HTTP case over gRPC: the request is said in gRPC's messages, and the answer is written
down as HTTP would say it, so that one file is what both must answer.

A bridge is made for a server and a protocol; it returns head and body of the answer, or None for a request that has
no like over gRPC: other paths and methods, headers that no message can hold.
"""
import http
import json
import re
import struct
import urllib.parse

import grpc
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from v1_messages import CODES, V0, V1, call

ELEMENT_BYTES = {"BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1,
                 "INT16": 2, "INT32": 4, "INT64": 8, "FP16": 2, "FP32": 4, "FP64": 8}
INT64_MAX = 2**63 - 1


class Request:
    """What stands in a case's request."""

    def __init__(self, data):
        head, _, self.body = data.partition(b"\r\n\r\n")
        line, *headers = head.decode().split("\r\n")
        self.method, target, _ = line.split(" ")
        path, _, query = target.partition("?")
        self.path = urllib.parse.unquote(path)
        self.query = dict(urllib.parse.parse_qsl(query))
        self.headers = {name.lower(): value.strip() for name, _, value in
                        (header.partition(":") for header in headers)}


def response(status, headers, body=b""):
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", *headers, f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), body


# ---- v1 ----

def text_of(message, **options):
    """As the servers of that time print it: floats without a needless fraction."""
    text = text_format.MessageToString(message, as_utf8=False, **options)
    return re.sub(r"(\bvalue: -?\d+)\.0\b", r"\1", text)


def line_of(message):
    return text_of(message, as_one_line=True).strip()


def status_line(status):
    return f"NV-Status: {line_of(status)}"


def is_success(status):
    return CODES[status.code].name == "SUCCESS"


def read_header(text):
    """The infer header in the dialect that can read it, and its request's class; or None."""
    for package in (V1, V0):
        try:
            return package, text_format.Parse(text, package.InferRequestHeader())
        except text_format.ParseError:
            pass
    return None


class BridgeV1:
    def __init__(self, channel):
        self.channel = channel
        self.v2 = service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def input_configs(self, model):
        """By name; asked of v2, which does not count in what v1's status says."""
        try:
            answer = self.v2.ModelConfig(service_pb2.ModelConfigRequest(name=model))
        except grpc.RpcError:
            return {}
        return {i.name: i for i in answer.config.input}

    def play(self, data):
        request = Request(data)
        for method, pattern, play in (
                ("GET", r"/api/health(?:/(|live|ready))?", self.health),
                ("GET", r"/api/status(?:/(.*))?", self.status),
                ("GET", r"/api/profile/?", self.profile),
                ("GET", r"/api/repository/index", self.repository),
                ("POST", r"/api/modelcontrol/(load|unload)/(.+)", self.control),
                ("POST", r"/api/infer/([^/]+)(?:/(\d+))?", self.infer)):
            match = re.fullmatch(pattern, request.path)
            if match and request.method == method:
                return play(request, *(part or "" for part in match.groups()))
        return None

    def health(self, _, mode):
        answer = call(self.channel, "Health", V1.HealthRequest(mode=mode), V1.HealthResponse)
        return response(200 if answer.health else 400, [status_line(answer.request_status)])

    def profile(self, request):
        answer = call(self.channel, "Profile", V1.ProfileRequest(cmd=request.query.get("cmd", "")),
                      V1.ProfileResponse)
        return response(200 if is_success(answer.request_status) else 400,
                        [status_line(answer.request_status)])

    def control(self, _, word, model):
        answer = call(self.channel, "ModelControl", V1.ModelControlRequest(
            model_name=model, type=word.upper()), V1.ModelControlResponse)
        return response(200 if is_success(answer.request_status) else 400,
                        [status_line(answer.request_status)])

    def status(self, request, model):
        answer = call(self.channel, "Status", V1.StatusRequest(model_name=model),
                      V1.StatusResponse)
        return self.message(request, answer.request_status, answer.server_status)

    def repository(self, request):
        answer = call(self.channel, "Repository", V1.RepositoryRequest(index=True),
                      V1.RepositoryResponse)
        return self.message(request, answer.request_status, answer.index)

    def message(self, request, status, message):
        if not is_success(status):
            return response(400, [status_line(status)])
        kind = request.query.get("format", "text")
        if kind == "json" or "accept" in request.headers:
            return None  # that form is HTTP's
        kind, body = ("application/octet-stream", message.SerializeToString()) \
            if kind == "binary" else ("text/plain", text_of(message).encode())
        return response(200, [status_line(status), f"Content-Type: {kind}"], body)

    def raw_input(self, package, header, model, body):
        """The body cut into inputs; what is left over is a further entry."""
        config = self.input_configs(model) if package is V1 else {}
        raw = []
        for i in header.input:
            if package is V0:
                size = i.byte_size * header.batch_size
            else:
                size = i.batch_byte_size
                if not size and i.name in config:
                    name = model_config_pb2.DataType.Name(config[i.name].data_type)
                    size = header.batch_size * ELEMENT_BYTES.get(name.removeprefix("TYPE_"), 0)
                    for dim in i.dims or config[i.name].dims:
                        size *= max(dim, 0)
            raw.append(body[:size])
            body = body[size:]
        return raw + [body] * (body != b"")

    def infer(self, request, model, version):
        found = read_header(request.headers.get("nv-inferrequest", "?"))
        version = int(version) if version else -1
        if not found or version > INT64_MAX or "transfer-encoding" in request.headers:
            return None
        package, header = found
        message = package.InferRequest(
            model_name=model, meta_data=header,
            raw_input=self.raw_input(package, header, model, request.body))
        setattr(message, "version" if package is V0 else "model_version", version)
        answer = call(self.channel, "Infer", message, package.InferResponse)
        status, meta_data = answer.request_status, answer.meta_data
        kind = "Content-Type: application/octet-stream"
        if not is_success(status):
            # Nothing of an answer but the id, which is what HTTP says too.
            assert not answer.raw_output
            return response(400, [status_line(status), f"NV-InferResponse: {line_of(meta_data)}",
                                  kind])
        self.check_order(message, answer)
        is_binary = request.query.get("format") == "binary"
        trailer = meta_data.SerializeToString() if is_binary else text_of(meta_data).encode()
        also = [] if package is V0 else [f"NV-InferResponse: {line_of(meta_data)}"]
        return response(200, [status_line(status), *also, kind],
                        b"".join(answer.raw_output) + trailer)

    def check_order(self, message, answer):
        """What HTTP's body cannot show: an entry for each output, empty for classes."""
        assert len(answer.raw_output) == len(answer.meta_data.output)
        for output, raw in zip(answer.meta_data.output, answer.raw_output, strict=True):
            assert raw == b"" or not output.batch_classes
        wanted = [output.name for output in message.meta_data.output]
        assert not wanted or [o.name for o in answer.meta_data.output] == wanted


# ---- v2 ----

STATUS = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "UNAVAILABLE": 503, "UNIMPLEMENTED": 501,
          "INTERNAL": 500}
# Type: field of contents, format of an element.
CONTENTS = {"BOOL": ("bool_contents", "?"), "INT8": ("int_contents", "b"),
            "INT32": ("int_contents", "i"), "INT64": ("int64_contents", "q"),
            "FP32": ("fp32_contents", "f"), "FP16": (None, "e"), "BYTES": ("bytes_contents", None)}


def flat(values):
    return [x for v in values for x in flat(v)] if isinstance(values, list) else [values]


def json_response(value):
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return response(200, ["Content-Type: application/json"], body)


def decode_tensor(datatype, raw):
    """The values that stand in JSON."""
    if datatype != "BYTES":
        return [v[0] for v in struct.iter_unpack("<" + CONTENTS[datatype][1], raw)]
    values, at = [], 0
    while at < len(raw):
        length, = struct.unpack_from("<I", raw, at)
        values.append(raw[at + 4:at + 4 + length].decode())
        at += 4 + length
    return values


class BridgeV2:
    def __init__(self, channel):
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def play(self, data):
        request = Request(data)
        model = r"/v2/models/([^/]+)(?:/versions/([^/]+))?"
        for method, pattern, play in (
                ("GET", r"/v2/health/(live|ready)", self.health),
                ("GET", r"/v2", self.server_metadata),
                ("GET", model, self.model_metadata),
                ("GET", model + "/ready", self.model_ready),
                ("POST", r"/v2/repository/index", self.index),
                ("POST", model + "/infer", self.infer)):
            match = re.fullmatch(pattern, request.path)
            if match and request.method == method:
                try:
                    return play(request, *(part or "" for part in match.groups()))
                except grpc.RpcError as error:
                    return self.error(error)
        return None

    def error(self, error):
        body = json.dumps({"error": error.details()}, separators=(",", ":"), ensure_ascii=False)
        return response(STATUS[error.code().name], ["Content-Type: application/json"],
                        body.encode())

    def health(self, _, mode):
        yes = self.stub.ServerLive(service_pb2.ServerLiveRequest()).live if mode == "live" \
            else self.stub.ServerReady(service_pb2.ServerReadyRequest()).ready
        return response(200 if yes else 400, [])

    def server_metadata(self, _):
        m = self.stub.ServerMetadata(service_pb2.ServerMetadataRequest())
        return json_response({"name": m.name, "version": m.version,
                              "extensions": list(m.extensions)})

    def model_metadata(self, _, name, version):
        m = self.stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=name, version=version))
        tensors = [[{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in ts]
                   for ts in (m.inputs, m.outputs)]
        return json_response({"name": m.name, "versions": list(m.versions), "platform": m.platform,
                              "inputs": tensors[0], "outputs": tensors[1]})

    def model_ready(self, _, name, version):
        m = self.stub.ModelReady(service_pb2.ModelReadyRequest(name=name, version=version))
        return response(200, []) if m.ready else None  # HTTP says more of a no

    def index(self, request):
        ready = bool(request.body) and json.loads(request.body).get("ready", False)
        answer = self.stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=ready))
        return json_response([{k: v for k, v in (
            ("name", m.name), ("version", m.version), ("state", m.state), ("reason", m.reason)) if v}
            for m in answer.models])

    def infer(self, request, model, version):
        length = int(request.headers.get("inference-header-content-length", len(request.body)))
        try:
            head, tail = json.loads(request.body[:length]), request.body[length:]
        except json.JSONDecodeError:
            return None
        m = service_pb2.ModelInferRequest(model_name=model, model_version=version,
                                          id=head.get("id", ""))
        for i in head["inputs"]:
            tensor = m.inputs.add(name=i["name"], datatype=i["datatype"], shape=i["shape"])
            size = i.get("parameters", {}).get("binary_data_size")
            if size is not None:
                m.raw_input_contents.append(tail[:size])
                tail = tail[size:]
                continue
            values = [v.encode() if isinstance(v, str) else v for v in flat(i["data"])]
            getattr(tensor.contents, CONTENTS[i["datatype"]][0]).extend(values)
        for o in head.get("outputs", []):
            tensor = m.outputs.add(name=o["name"])
            if "classification" in o.get("parameters", {}):
                tensor.parameters["classification"].int64_param = o["parameters"]["classification"]
        return self.answer(self.stub.ModelInfer(m), head)

    def answer(self, answer, head):
        asked = {o["name"]: o.get("parameters", {}) for o in head.get("outputs", [])}
        default = head.get("parameters", {}).get("binary_data_output", False)
        outputs, tail, has_binary = [], b"", False
        for o, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
            output = {"name": o.name, "datatype": o.datatype, "shape": list(o.shape)}
            if asked.get(o.name, {}).get("binary_data", default):
                output["parameters"] = {"binary_data_size": len(raw)}
                tail += raw
                has_binary = True
            else:
                output["data"] = decode_tensor(o.datatype, raw)
            outputs.append(output)
        message = {"model_name": answer.model_name, "model_version": answer.model_version,
                   "outputs": outputs}
        if answer.id:
            message = {"id": answer.id, **message}
        if not has_binary:
            return json_response(message)
        text = json.dumps(message, separators=(",", ":")).encode()
        return response(200, ["Content-Type: application/octet-stream",
                              f"Inference-Header-Content-Length: {len(text)}"], text + tail)
