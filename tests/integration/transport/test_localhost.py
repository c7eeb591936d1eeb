"""``--host localhost``: every listener accepts IPv4 and IPv6."""

import asyncio
import os
import socket
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry

from tests.support.clients.feed_client import PATIENCE, follow, run
from tests.support.programs.lost_listener import lose_listener
from tests.support.programs.relay_process import Relay
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.loopback import has_ipv6
from tests.support.servers.nats_server import NatsServer, free_port
from tickertape.net.listeners import ListenError
from tickertape.net.metrics_port import MetricsPort

pytestmark = pytest.mark.skipif(not has_ipv6(), reason="needs IPv6 on loopback")


def ask(url: str) -> int:
    """Return the status of a page."""
    with urlopen(url, timeout=PATIENCE) as page:
        page.read()
        return int(page.status)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_relay_is_reachable_on_all_addresses(workers: str, tmp_path: Path) -> None:
    """Feed, dashboard and ops port are reachable on one port each, by all their addresses."""

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


def test_metrics_of_a_producer_are_reachable_on_all_addresses() -> None:
    """Metrics of the monitor and the shipper are reachable by both addresses."""
    port = free_port()
    with closing(MetricsPort("localhost", port, CollectorRegistry())):
        for host in ("127.0.0.1", "[::1]"):
            assert ask(f"http://{host}:{port}/metrics") == 200
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ListenError, match="in use"):
            MetricsPort("localhost", taken.getsockname()[1], CollectorRegistry())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("which", ["main", "ops"])
def test_a_relay_that_loses_one_address_exits(nats_server: NatsServer, which: str, host: str) -> None:
    """A relay that loses one of its addresses exits with one line and code 1."""
    with Relay(nats_server.url, "--host", "localhost", "--ops-host", "localhost") as relay:
        address = (relay.url if which == "main" else relay.ops_url).rpartition("/")[2]
        lose_listener(relay.pid, int(address.rpartition(":")[2]), host)
        assert relay.wait() == 1
        assert f"no longer listening on {address}" in "".join(relay.log)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_metrics_that_lose_one_address_are_reported(host: str) -> None:
    """A metrics server that loses one of its addresses reports it, and the program exits."""
    port = free_port()
    # A thread whose listener is lost retries accepting without a pause.
    with closing(MetricsPort("localhost", port, CollectorRegistry())) as metrics:
        lose_listener(os.getpid(), port, host)
        with pytest.raises(ListenError, match=f"no longer listening on localhost:{port}"):
            asyncio.run(asyncio.wait_for(metrics.watch(), PATIENCE))


@pytest.mark.parametrize("taken", ["127.0.0.1", "::1"])
def test_metrics_are_served_on_all_addresses_or_none(taken: str) -> None:
    """If one address cannot be bound, the other is closed again."""
    family = socket.AF_INET6 if ":" in taken else socket.AF_INET
    with socket.socket(family) as holder:
        holder.bind((taken, 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(ListenError, match="in use"):
            MetricsPort("localhost", port, CollectorRegistry())
    MetricsPort("localhost", port, CollectorRegistry()).close()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("host", "ops_host"), [("localhost", "::1"), ("localhost", "127.0.0.1"), ("127.0.0.1", "localhost")]
)
def test_one_port_for_two_servers_is_an_error_on_each_address(host: str, ops_host: str, workers: str) -> None:
    """A conflict on only one of several addresses is an error as well."""
    port = str(free_port())
    received = run_command(
        "serve", "--host", host, "--ops-host", ops_host, "--port", port, "--ops-port", port,
        "--workers", workers, "--nats-url", "nats://127.0.0.1:1",
    )  # fmt: skip
    assert received.returncode == 1
    assert f"--port and --ops-port are both {port}; choose another --ops-port" in received.stderr
