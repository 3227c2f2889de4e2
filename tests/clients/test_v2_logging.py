"""The log's settings over HTTP and gRPC: one operation, which tritonclient reads and changes."""
import re

import grpc
import pytest
import tritonclient.grpc as client_grpc
import tritonclient.http as client_http
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

from server import Server, add_model, identity, run

START = {"log_file": "", "log_info": True, "log_warning": True, "log_error": True,
         "log_verbose_level": 0, "log_format": "default"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = add_model(tmp_path_factory.mktemp("logging"), "copy", identity("FP32", [4]))
    with Server(repository) as one:
        yield one


@pytest.fixture(params=[client_http, client_grpc], ids=["http", "grpc"])
def client(request, server):
    """A client of each protocol; the settings are put back afterwards."""
    url = server.url if request.param is client_http else server.grpc_url
    with request.param.InferenceServerClient(url) as one:
        yield one
    answer = server.post("/v2/logging", {k: v for k, v in START.items() if k != "log_file"})
    assert answer.json() == START


def read(answer):
    """Over gRPC tritonclient gives the message."""
    if isinstance(answer, dict):
        return answer
    return {key: getattr(value, value.WhichOneof("parameter_choice"))
            for key, value in answer.settings.items()}


def test_read_and_change(client):
    assert read(client.get_log_settings()) == START
    wanted = {"log_info": False, "log_warning": False, "log_error": False, "log_verbose_level": 3,
              "log_format": "ISO8601"}
    assert read(client.update_log_settings(wanted)) == {**START, **wanted}
    assert read(client.update_log_settings({"log_info": True})) == {**START, **wanted,
                                                                    "log_info": True}


@pytest.mark.parametrize("settings, text", [
    ({"log_file": "/tmp/x"}, "log file location can not be updated through network protocol"),
    ({"log_verbose_level": 1 << 31}, "'log_verbose_level' is 2147483648, expected at most"),
    ({"log_format": "xml"}, "invalid argument for log_format, got: xml"),
    ({"log_infos": True}, "unknown log setting 'log_infos', expected log_info, "),
])
def test_refused(client, settings, text):
    """Nothing is changed by a request that is wrong in one setting."""
    with pytest.raises(InferenceServerException, match=re.escape(text)):
        client.update_log_settings({"log_error": False, **settings})
    assert read(client.get_log_settings()) == START


@pytest.mark.parametrize("name, value, field, text", [
    ("log_info", "yes", "string_param", "expect boolean for 'log_info'"),
    ("log_verbose_level", True, "bool_param", "expect unsigned integer for 'log_verbose_level'"),
    ("log_format", 1, "uint32_param", "expect string for 'log_format'"),
])
def test_types(server, name, value, field, text):
    answer = server.post("/v2/logging", {"log_error": False, name: value})
    assert (answer.status, answer.error) == (400, text)
    request = pb.LogSettingsRequest()
    request.settings["log_error"].bool_param = False
    setattr(request.settings[name], field, value)
    with pytest.raises(grpc.RpcError) as caught:
        log_settings(server, request.SerializeToString())
    assert caught.value.details() == text
    assert server.get("/v2/logging").json() == START


def log_settings(server, message):
    with grpc.insecure_channel(server.grpc_url) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/LogSettings", lambda m: m,
                                   pb.LogSettingsResponse.FromString)
        return call(message, timeout=30)


def test_null(client):
    """A setting without a value stays as it is."""
    assert read(client.update_log_settings({"log_info": None, "log_file": None})) == START


def test_json(server):
    """An empty body changes nothing; what is no object is an error."""
    for body in (b"", b"{}"):
        answer = server.request("POST", "/v2/logging", body)
        assert answer.status == 200 and answer.json() == START
    assert list(server.get("/v2/logging").json()) == list(START)
    for body in (b"[]", b"{", b'{"log_verbose_level":-1}', b'{"log_info":{}}'):
        assert server.post("/v2/logging", body).status == 400


def test_bad_messages(server):
    cases = [b"\x0a\x05x", b"\x08\x01", b"\x0a\x03\x0a\x01\xff", b"\x0a\x02\x10\x01",
             b"\x0a\x06\x0a\x00\x12\x02\x0a\x00"]
    for message in cases:
        with pytest.raises(grpc.RpcError) as caught:
            log_settings(server, message)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, message


def test_start(tmp_path):
    """--log-format chooses the form of the first lines, and is checked."""
    add_model(tmp_path, "copy", identity("FP32", [4]))
    with Server(tmp_path, "--log-format=ISO8601") as one:
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ I \d+ \S+:\d+\] http open",
                        one.wait_log("http open"))
        assert one.get("/v2/logging").json()["log_format"] == "ISO8601"
    status, _, err = run(f"--model-repository={tmp_path}", "--log-format=xml")
    assert status == 1 and "--log-format=xml: expected default or ISO8601" in err


@pytest.mark.parametrize("method, request_type, text", [
    ("TraceSetting", pb.TraceSettingRequest, "tracing is not supported by this server"),
    *((f"{kind}SharedMemory{verb}", getattr(pb, f"{kind}SharedMemory{verb}Request"),
       "shared memory is not supported by this server")
      for kind in ("System", "Cuda") for verb in ("Status", "Register", "Unregister")),
])
def test_what_there_is_not(server, method, request_type, text):
    """Methods of the protocol whose feature is missing say which."""
    with grpc.insecure_channel(server.grpc_url) as channel:
        call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}",
                                   request_type.SerializeToString, lambda m: m)
        with pytest.raises(grpc.RpcError) as caught:
            call(request_type(), timeout=30)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNIMPLEMENTED, text)


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_model_control(server, method):
    """As POST /v2/repository/models/M/load."""
    over_http = server.post("/v2/repository/models/copy/load", {})
    with grpc.insecure_channel(server.grpc_url) as channel:
        call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}",
                                   lambda m: m, lambda m: m)
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=30)
    assert (over_http.status, over_http.error) == (503, caught.value.details())
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
