"""Fixtures of the client tests; server.py holds what they are made of."""
import pytest

from server import Server


@pytest.fixture
def start():
    """start(repositories, *flags, ...) -> a Server; the test's servers end with it.

    A server that still runs then must end well on SIGTERM.
    """
    servers = []

    def start_one(*args, **kwargs):
        servers.append(Server(*args, **kwargs))
        return servers[-1]

    yield start_one
    try:
        for server in servers:
            if server.process.poll() is None:
                server.stop()
    finally:
        for server in servers:
            server.kill()
