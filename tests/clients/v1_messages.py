"""The messages of the v1 protocol, as our .proto files give them, for grpcio's raw calls.

V1 and V0 hold the classes of 1.x and 0.9 by their names: V1.InferRequest. 0.9's come from
proto/v0/api.proto and, for the two messages around its headers, from the text below.
"""
import pathlib
import subprocess
import tempfile
import types

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = "nvidia.inferenceserver"
SERVICE = f"/{PACKAGE}.GRPCService/"

V0_CALLS = """
syntax = "proto3";
package nvidia.inferenceserver.v0;
import "v0/api.proto";
import "v1/request_status.proto";
message InferRequest {
  string model_name = 1;
  int32 version = 2;
  InferRequestHeader meta_data = 3;
  repeated bytes raw_input = 4;
}
message InferResponse {
  nvidia.inferenceserver.RequestStatus request_status = 1;
  InferResponseHeader meta_data = 2;
  repeated bytes raw_output = 3;
}
"""


def compile_files():
    """protoc-c, which the build needs too, writes descriptors like protoc."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "v0_calls.proto").write_text(V0_CALLS)
        subprocess.run(["protoc-c", "--include_imports", f"--descriptor_set_out={folder}/out",
                        f"--proto_path={ROOT / 'proto'}", f"--proto_path={folder}",
                        "v0_calls.proto", "v1/grpc_service.proto"], check=True)
        return descriptor_pb2.FileDescriptorSet.FromString((folder / "out").read_bytes())


def make_classes():
    pool = descriptor_pool.DescriptorPool()
    found = {PACKAGE: {}, f"{PACKAGE}.v0": {}}
    for file in compile_files().file:
        pool.Add(file)
        for message in file.message_type:
            found[file.package][message.name] = message_factory.GetMessageClass(
                pool.FindMessageTypeByName(f"{file.package}.{message.name}"))
    return (types.SimpleNamespace(**classes) for classes in found.values())


V1, V0 = make_classes()
CODES = V1.RequestStatus.DESCRIPTOR.fields_by_name["code"].enum_type.values_by_number


def call(channel, name, request, response_class, seconds=30):
    """A unary call; the answer must have gRPC's status OK. request may be bytes."""
    if not isinstance(request, bytes):
        request = request.SerializeToString()
    method = channel.unary_unary(SERVICE + name, lambda m: m, lambda m: m)
    return response_class.FromString(method(request, timeout=seconds))


def outcome(response):
    """(word of the code, text) of an answer; server_id is checked."""
    status = response.request_status
    assert status.server_id == "inference:0"
    return CODES[status.code].name, status.msg
