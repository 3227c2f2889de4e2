"""What holds for a gRPC connection whatever is called: compression, keepalive, age, the byte budget.

The client is grpcio, whose channel options make it ping, compress, or answer no ping at all.
"""
import socket
import threading

import grpc
import numpy as np
import pytest
import tritonclient.grpc as client_grpc
from tritonclient.grpc import service_pb2 as pb

from server import Server, add_model, identity, wait_for

SERVICE = "/inference.GRPCInferenceService/"
CODE = grpc.StatusCode
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
             ("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
GZIP, DEFLATE = grpc.Compression.Gzip, grpc.Compression.Deflate


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    add_model(repository, "identity", identity("INT32", [-1]))
    add_model(repository, "slow", identity("INT32", [1], delay_ms=1500))
    return repository


def request(model, array):
    return pb.ModelInferRequest(
        model_name=model, raw_input_contents=[array.tobytes()],
        inputs=[pb.ModelInferRequest.InferInputTensor(name="INPUT0", datatype="INT32",
                                                      shape=array.shape)])


def infer(channel, **kwargs):
    return channel.unary_unary(
        SERVICE + "ModelInfer", request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString, **kwargs)


def stream(channel):
    return channel.stream_stream(
        SERVICE + "ModelStreamInfer", request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelStreamInferResponse.FromString)


def connect(server, *options, compression=None):
    return grpc.insecure_channel(server.grpc_url, UNLIMITED + list(options),
                                 compression=compression)


SMALL = np.arange(1, dtype=np.int32)
LARGE = np.arange(5 << 20, dtype=np.int32) // 1000  # 20 MiB


# ---- Compression ----

@pytest.mark.parametrize("level", ["none", "low", "medium", "high"])
@pytest.mark.parametrize("compression", [GZIP, DEFLATE, None])
def test_compression(models, level, compression):
    """Both directions, small and large, unary and in a stream; the answers' encoding is the level's."""
    with Server(models, f"--grpc-infer-response-compression-level={level}") as server, \
            connect(server, compression=compression) as channel:
        for array in (SMALL, np.zeros(1000, np.int32), LARGE):
            response, call = infer(channel).with_call(request("identity", array), timeout=60)
            assert response.raw_output_contents[0] == array.tobytes()
            # Which algorithm it was grpcio keeps to itself; see tests/unit/grpc/test_compress.c.
            assert call.code() == CODE.OK
        arrays = [LARGE[:n] for n in (1, 20_000, 10, 1 << 20, 100)]
        answers = stream(channel)((request("identity", a) for a in arrays), timeout=60)
        for array, answer in zip(arrays, answers, strict=True):
            assert not answer.error_message
            assert answer.infer_response.raw_output_contents[0] == array.tobytes()


def test_tritonclient_compression(models):
    with Server(models, "--grpc-infer-response-compression-level=high") as server, \
            client_grpc.InferenceServerClient(server.grpc_url) as client:
        for algorithm in ("gzip", "deflate", None):
            data = client_grpc.InferInput("INPUT0", [1000], "INT32")
            data.set_data_from_numpy(np.arange(1000, dtype=np.int32))
            result = client.infer("identity", [data], compression_algorithm=algorithm)
            assert (result.as_numpy("OUTPUT0") == np.arange(1000)).all()


def test_bomb(models):
    """What decompresses to more than the limit is refused without being made."""
    with Server(models, "--grpc-max-message-size=1000000") as server:
        for compression in (GZIP, DEFLATE):
            with connect(server, compression=compression) as channel:
                with pytest.raises(grpc.RpcError) as failed:
                    infer(channel)(request("identity", np.zeros(50 << 20, np.int32)), timeout=60)
                assert failed.value.code() == CODE.RESOURCE_EXHAUSTED
                assert "--grpc-max-message-size" in failed.value.details()
                infer(channel)(request("identity", SMALL), timeout=60)


# ---- Keepalive ----

def test_too_many_pings(models):
    """A client that pings more often than is allowed loses its connection; one that may does not."""
    eager = [("grpc.keepalive_time_ms", 1000), ("grpc.keepalive_timeout_ms", 20000),
             ("grpc.http2.max_pings_without_data", 0), ("grpc.keepalive_permit_without_calls", 1)]
    with Server(models, "--grpc-http2-max-ping-strikes=1") as server, \
            connect(server, *eager) as channel:
        open_stream = stream(channel)(iter_until(threading.Event()), timeout=30)
        with pytest.raises(grpc.RpcError) as failed:
            next(open_stream)
        assert failed.value.code() == CODE.UNAVAILABLE
        assert "too_many_pings" in str(failed.value.debug_error_string()) or \
            "Too many pings" in failed.value.details()


def iter_until(event):
    event.wait(60)
    yield from ()


def test_pings_permitted(models):
    done = threading.Event()
    eager = [("grpc.keepalive_time_ms", 200), ("grpc.http2.max_pings_without_data", 0),
             ("grpc.keepalive_permit_without_calls", 1)]
    with Server(models, "--grpc-http2-min-recv-ping-interval-without-data=0",
                "--grpc-keepalive-permit-without-calls=true") as server, \
            connect(server, *eager) as channel:
        open_stream = stream(channel)(iter_until(done), timeout=30)
        for _ in range(2):
            assert infer(channel)(request("slow", SMALL), timeout=30).raw_output_contents
        done.set()
        assert not list(open_stream)


def test_dead_client(models):
    """A client that says nothing any more, not even to a ping, is closed."""
    with Server(models, "--grpc-keepalive-time=200", "--grpc-keepalive-timeout=200",
                "--grpc-keepalive-permit-without-calls=true") as server:
        host, port = server.grpc_url.split(":")
        with socket.create_connection((host, int(port)), timeout=20) as s:
            s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            received = b""
            while data := s.recv(65536):
                received += data
            assert b"keepalive_timeout" in received


# ---- Age ----

def test_age(models):
    """Clients are asked to connect anew: a call in flight ends, and no call fails."""
    with Server(models, "--grpc-max-connection-age=300") as server, connect(server) as channel:
        call = infer(channel)
        slow = [call.future(request("slow", SMALL), timeout=30) for _ in range(2)]
        for _ in range(200):
            call(request("identity", SMALL), timeout=30, wait_for_ready=True)
        for future in slow:
            assert future.result().raw_output_contents


def test_age_grace(models):
    """After the grace what is left is cut off."""
    with Server(models, "--grpc-max-connection-age=200", "--grpc-max-connection-age-grace=200") \
            as server, connect(server) as channel:
        open_stream = stream(channel)(iter_until(threading.Event()), timeout=30)
        with pytest.raises(grpc.RpcError) as failed:
            next(open_stream)
        assert failed.value.code() == CODE.UNAVAILABLE


# ---- The byte budget ----

def test_budget(models):
    """More than fits waits its turn; health is not in the queue."""
    with Server(models, "--max-inflight-bytes=30000000") as server:
        channels = [connect(server) for _ in range(4)]
        futures = [infer(channel).future(request("identity", LARGE), timeout=60)
                   for channel in channels for _ in range(2)]
        with client_grpc.InferenceServerClient(server.grpc_url) as client:
            assert client.is_server_live()
        answered = 0
        for future in futures:
            try:
                assert future.result().raw_output_contents[0] == LARGE.tobytes()
                answered += 1
            except grpc.RpcError as error:
                assert error.code() == CODE.UNAVAILABLE
                assert "--max-inflight-bytes" in error.details()
        assert answered >= 1
        for channel in channels:
            channel.close()
        wait_for("the budget is whole again", lambda: server.is_live())


# ---- Bad heads ----

def test_metadata_too_large(models):
    with Server(models) as server, connect(server, ("grpc.max_metadata_size", 1 << 20)) as channel:
        with pytest.raises(grpc.RpcError) as failed:
            infer(channel)(request("identity", SMALL), timeout=30,
                           metadata=[(f"x{i}", "y" * 8000) for i in range(9)])
        assert failed.value.code() == CODE.RESOURCE_EXHAUSTED
        assert "metadata size exceeds" in failed.value.details()
        infer(channel)(request("identity", SMALL), timeout=30)
