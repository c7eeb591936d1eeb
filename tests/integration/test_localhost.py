"""``--host localhost``: every listener answers on IPv4 and on IPv6."""

import socket
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry

from producers.metrics_server import serve_metrics
from tests.feed_client import PATIENCE, follow, run
from tests.nats_server import NatsServer, free_port
from tests.relay_process import Relay


def has_ipv6() -> bool:
    """Tell whether this machine has the loopback address of IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="needs IPv6 on loopback")


def ask(url: str) -> int:
    """Status of a page."""
    with urlopen(url, timeout=PATIENCE) as page:
        page.read()
        return int(page.status)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_relay_is_reached_both_ways(workers: str, tmp_path: Path) -> None:
    """The feed, the page and the ops port, at one port each, by all names that they have."""

    async def part(port: str) -> None:
        for host in ("127.0.0.1", "[::1]", "localhost"):
            async with follow(f"ws://{host}:{port}/ws"):
                pass

    options = ("--host", "localhost", "--ops-host", "localhost", "--workers", workers)
    with NatsServer(tmp_path) as server, Relay(server.url, *options) as relay:
        assert relay.url.startswith("http://localhost:")
        assert relay.ops_url.startswith("http://localhost:")
        port, ops = (url.rpartition(":")[2] for url in (relay.url, relay.ops_url))
        run(part(port))
        for host in ("127.0.0.1", "[::1]", "localhost"):
            assert ask(f"http://{host}:{port}/health") == 200
            assert ask(f"http://{host}:{ops}/readyz") == 200
        assert relay.stop() == 0


def test_metrics_of_a_producer_are_reached_both_ways() -> None:
    """The monitor's and the shipper's."""
    port = free_port()
    serve_metrics("localhost", port, CollectorRegistry())
    for host in ("127.0.0.1", "[::1]"):
        assert ask(f"http://{host}:{port}/metrics") == 200
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            serve_metrics("localhost", taken.getsockname()[1], CollectorRegistry())
