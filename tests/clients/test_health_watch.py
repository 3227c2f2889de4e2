"""grpc.health.v1.Health/Watch: the state now, and each further one, until the client or the server ends.

The messages are one byte field: 1 is SERVING, 2 NOT_SERVING.
"""
import grpc
import pytest

from server import Server, add_model, free_port, identity

WATCH = "/grpc.health.v1.Health/Watch"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


def watch(channel, message=b"", **kwargs):
    return channel.unary_stream(WATCH, lambda m: m, lambda m: m)(message, timeout=60, **kwargs)


def test_start_and_end(start, tmp_path):
    """While models load, ready, during the exit delay, and the end with the server's."""
    add_model(tmp_path, "late", identity("FP32", [4], load_secs=6))
    server = start(tmp_path, "--exit-delay-secs=2", port=free_port(), wait=False)
    with grpc.insecure_channel(server.grpc_url) as channel:
        states = watch(channel)
        assert next(states) == NOT_SERVING
        assert next(states) == SERVING
        server.signal()
        assert next(states) == NOT_SERVING
        assert list(states) == []
        assert states.code() == grpc.StatusCode.OK
    assert server.wait_exit() == 0


def test_clients(tmp_path):
    """Many at once, for any service; those that go leave the others."""
    add_model(tmp_path, "copy", identity("FP32", [4]))
    with Server(tmp_path) as server, grpc.insecure_channel(server.grpc_url) as channel:
        all_states = [watch(channel, message) for message in (b"", b"\x0a\x01x") for _ in range(20)]
        for states in all_states:
            assert next(states) == SERVING
        for states in all_states[1:]:
            states.cancel()
        server.signal()
        assert list(all_states[0]) == [NOT_SERVING]
        assert server.wait_exit() == 0


def test_deadline(tmp_path):
    add_model(tmp_path, "copy", identity("FP32", [4]))
    with Server(tmp_path) as server, grpc.insecure_channel(server.grpc_url) as channel:
        states = channel.unary_stream(WATCH, lambda m: m, lambda m: m)(b"", timeout=1.5)
        assert next(states) == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            next(states)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_two_messages(tmp_path):
    """A client that breaks the rule of one message."""
    add_model(tmp_path, "copy", identity("FP32", [4]))
    with Server(tmp_path) as server, grpc.insecure_channel(server.grpc_url) as channel:
        call = channel.stream_stream(WATCH, lambda m: m, lambda m: m)
        states = call(iter([b"", b"", b""]), timeout=30)
        with pytest.raises(grpc.RpcError) as caught:
            list(states)
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        assert "more than one message" in caught.value.details()
