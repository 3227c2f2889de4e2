"""Server reflection by grpcio-reflection: everything is listed and described, and calls are made from
what the server says alone, without any generated code."""
import re
import threading

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import \
    ProtoReflectionDescriptorDatabase

from server import ROOT, Server, add_model, identity, wait_for

PROTO = ROOT / "proto"
PATHS = {version: f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
         for version in ("v1", "v1alpha")}
CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = add_model(tmp_path_factory.mktemp("reflection"), "copy", identity("FP32", [4]))
    with Server(repository) as one:
        yield one


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.grpc_url) as c:
        yield c


def ask(channel, *requests, version="v1"):
    """The responses to requests of one stream. The messages of v1 and v1alpha are the same."""
    call = channel.stream_stream(PATHS[version], pb.ServerReflectionRequest.SerializeToString,
                                 pb.ServerReflectionResponse.FromString)
    return list(call(iter(requests), timeout=30))


def files_of(response):
    return [descriptor_pb2.FileDescriptorProto.FromString(one)
            for one in response.file_descriptor_response.file_descriptor_proto]


def services_in_files():
    """What our own message files define."""
    found = set()
    for path in PROTO.rglob("*.proto"):
        text = path.read_text()
        package = re.search(r"^package ([\w.]+);", text, re.M)[1]
        found |= {f"{package}.{name}" for name in re.findall(r"^service (\w+)", text, re.M)}
    return found


@pytest.fixture
def pool(channel):
    """Descriptors that come from the server alone. The client speaks v1alpha."""
    return descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))


def test_services(channel):
    """All services, over both versions, and each in its order behind other questions."""
    request = pb.ServerReflectionRequest(list_services="*", host="here")
    for version in PATHS:
        response, again = ask(channel, request, request, version=version)
        names = [one.name for one in response.list_services_response.service]
        assert set(names) == services_in_files() and len(names) == len(set(names))
        assert response == again
        assert (response.valid_host, response.original_request) == ("here", request)


def test_everything_is_described(channel, pool):
    """Every message and method of every service, through the client's own resolver of imports."""
    database = ProtoReflectionDescriptorDatabase(channel)
    for name in database.get_services():
        service = pool.FindServiceByName(name)
        assert service.methods
        for method in service.methods:
            for message in (method.input_type, method.output_type):
                assert pool.FindMessageTypeByName(message.full_name).full_name == message.full_name
    assert pool.FindEnumTypeByName("inference.DataType").values_by_name["TYPE_FP32"].number == 11


def test_calls(channel, pool):
    """Calls with messages that are built from the descriptions."""
    def call(service, method, **fields):
        found = pool.FindServiceByName(service).methods_by_name[method]
        request = message_factory.GetMessageClass(found.input_type)
        response = message_factory.GetMessageClass(found.output_type)
        rpc = channel.unary_unary(f"/{service}/{method}", request.SerializeToString,
                                  response.FromString)
        return rpc(json_format.ParseDict(fields, request()), timeout=30)

    v2 = "inference.GRPCInferenceService"
    assert call(v2, "ServerLive").live and call(v2, "ServerReady").ready
    assert call(v2, "ModelMetadata", name="copy").inputs[0].name == "INPUT0"
    assert call(v2, "ModelConfig", name="copy").config.backend == "identity"
    assert call(v2, "RepositoryIndex").models[0].state == "READY"
    result = call(v2, "ModelInfer", model_name="copy", inputs=[
        {"name": "INPUT0", "datatype": "FP32", "shape": [4],
         "contents": {"fp32_contents": [1, 2, 3, 4]}}])
    assert result.outputs[0].shape == [4] and len(result.raw_output_contents[0]) == 16
    assert call("grpc.health.v1.Health", "Check").status == 1


def test_files(channel):
    """A file comes with what it imports, by name, by symbol and by method."""
    names = {"grpc_service.proto", "model_config.proto"}
    responses = ask(channel, *(pb.ServerReflectionRequest(**fields) for fields in (
        {"file_by_filename": "grpc_service.proto"},
        {"file_containing_symbol": "inference.GRPCInferenceService"},
        {"file_containing_symbol": "inference.GRPCInferenceService.ModelStreamInfer"})))
    for response in responses:
        files = files_of(response)
        assert {f.name for f in files} == names and files[0].name == "grpc_service.proto"


@pytest.mark.parametrize("fields", [
    {"file_by_filename": "nothing.proto"},
    {"file_containing_symbol": "inference.Nothing"},
    {"all_extension_numbers_of_type": "inference.Nothing"},
    {"file_containing_extension": pb.ExtensionRequest(containing_type="inference.ModelConfig",
                                                      extension_number=1)},
])
def test_not_found(channel, fields):
    """An error inside the stream, which goes on."""
    bad, good = ask(channel, pb.ServerReflectionRequest(**fields),
                    pb.ServerReflectionRequest(all_extension_numbers_of_type="inference.ModelConfig"))
    assert bad.error_response.error_code == CODE.NOT_FOUND.value[0]
    assert "not found" in bad.error_response.error_message
    assert good.all_extension_numbers_response == pb.ExtensionNumberResponse(
        base_type_name="inference.ModelConfig")


def test_one_at_a_time(channel):
    """A client that asks, reads and asks again gets its answers while the stream is open."""
    go_on = threading.Semaphore(0)

    def requests():
        for _ in range(3):
            yield pb.ServerReflectionRequest(list_services="")
            assert go_on.acquire(timeout=20)

    call = channel.stream_stream(PATHS["v1"], pb.ServerReflectionRequest.SerializeToString,
                                 pb.ServerReflectionResponse.FromString)
    count = 0
    for _ in call(requests(), timeout=60):
        count += 1
        go_on.release()
    assert count == 3


def test_bad_message(channel):
    call = channel.stream_stream(PATHS["v1"], lambda m: m, lambda m: m)
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([b"\x22\x05ab"]), timeout=30))
    assert caught.value.code() == CODE.INVALID_ARGUMENT


def test_unread_answers(tmp_path):
    """Answers are a hundred times as long as questions: unread ones keep further questions out."""
    question = pb.ServerReflectionRequest(file_containing_symbol="inference.ModelInferRequest")
    add_model(tmp_path, "copy", identity("FP32", [4]))
    own = [("grpc.use_local_subchannel_pool", 1)]
    with Server(tmp_path, "--max-inflight-bytes=1000000") as server, \
            grpc.insecure_channel(server.grpc_url, own) as deaf, \
            grpc.insecure_channel(server.grpc_url, own) as other:
        unread = deaf.stream_stream(PATHS["v1"], pb.ServerReflectionRequest.SerializeToString,
                                    pb.ServerReflectionResponse.FromString)(
                                        iter([question] * 20000), timeout=60)

        def held():
            page = server.metrics().body.decode()
            return float(re.search(r"^trtserver_inflight_bytes (\S+)", page, re.M)[1])

        wait_for("a full budget", lambda: held() > 900_000)
        wait_for("the end of the deaf client", lambda: held() < 100_000)
        assert len(ask(other, question)) == 1
        with pytest.raises(grpc.RpcError) as caught:
            list(unread)
        assert caught.value.code() == CODE.UNAVAILABLE
        assert "too many request bytes are in flight" in caught.value.details()
