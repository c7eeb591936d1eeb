"""A client of an HTTP stream whose host vanishes: no more packets, and no end of the connection."""

import subprocess
import sys

import pytest

from tests.support.clients.attacker import count
from tests.support.isolation import needs_namespaces, remote_host
from tests.support.programs.relay_process import PATIENCE, Relay, eventually
from tests.support.servers.nats_server import NatsServer

OWN, REMOTE = "10.213.57.1", "10.213.57.2"
CLIENT = """
import socket, sys
link = socket.create_connection((sys.argv[1], int(sys.argv[2])))
link.sendall(f"GET {sys.argv[3]} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())
while data := link.recv(4096):
    if b'"heartbeat"' in data:
        print("heartbeat", flush=True)
"""


@needs_namespaces
@pytest.mark.parametrize("path", ["/sse", "/stream"])
def test_a_vanished_client_is_disconnected(nats_server: NatsServer, path: str) -> None:
    """A quiet client that reads stays connected; one that has vanished is closed after two intervals."""
    relay = Relay(nats_server.url, "--host", OWN, "--insecure")
    relay.program = [sys.executable, "-m", "tests.support.programs.quick_pings", "relay"]
    with remote_host(REMOTE, OWN) as (line, pull_out), relay:
        client = subprocess.Popen(
            [*line, sys.executable, "-c", CLIENT, *map(str, relay.host_port), path], stdout=subprocess.PIPE
        )
        assert client.stdout is not None
        with client.stdout:
            # It is due after several intervals of pings.
            assert client.stdout.readline() == b"heartbeat\n"
            assert count(relay, "connections") == 1
            pull_out()
            eventually(lambda: count(relay, "disconnects_total", code="4408") == 1, "the client is closed")
            client.kill()
        client.wait(PATIENCE)
