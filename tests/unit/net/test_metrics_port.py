"""The metrics port of producers: host names, a bounded number of connections, and deadlines."""

import asyncio
import errno
import socket
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tests.support.clients.attacker import read_all
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import eventually
from tests.support.servers.nats_server import free_port
from tickertape.net import metrics_port
from tickertape.net.host_names import HostNames
from tickertape.net.listeners import ListenError
from tickertape.net.metrics_port import MAX_CONNECTIONS, MetricsPort

GET = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Large(Collector):
    """Metrics of several megabytes, more than sockets buffer."""

    def collect(self) -> Iterator[Metric]:
        """Yield one metric with many values."""
        metric = GaugeMetricFamily("large", "x", labels=["name"])
        for number in range(20_000):
            metric.add_metric([f"{number:0300d}"], 1.0)
        yield metric


class Broken(Collector):
    """Metrics that cannot be collected."""

    def collect(self) -> Iterator[Metric]:
        """Raise, except when the collector is registered."""
        raise RuntimeError("broken")

    def describe(self) -> list[Metric]:
        """Return no names, so that registering collects nothing."""
        return []


@pytest.fixture
def port() -> Iterator[int]:
    """Serve metrics."""
    number = free_port()
    with closing(MetricsPort("127.0.0.1", number, CollectorRegistry(), HostNames("m.example"))):
        yield number


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    """Open a connection."""
    return socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0))


def ask(port: int, request: bytes) -> bytes:
    """Send a request; return the response, empty if the connection is closed without one."""
    with connect(port) as link:
        link.sendall(request)
        return read_all(link)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GET, 200),
        (b"HEAD / HTTP/1.0\r\n\r\n", 200),
        (b"GET /metrics?name=x HTTP/1.1\r\nhost: [::1]:9465\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nHost: M.example:80\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nHost: monitor\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        (b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1.evil.example:9465\r\n\r\n", 403),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET http://a/metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    ],
)
def test_requests(port: int, request_: bytes, status: int) -> None:
    """Metrics are served to requests for addresses, local and listed names, and for nothing else."""
    assert ask(port, request_).startswith(b"HTTP/1.1 %d " % status)


def test_an_endless_head_is_bounded(port: int) -> None:
    """A head that is too long ends its connection without an answer."""
    assert ask(port, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 100_000) == b""


def test_a_head_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends no complete request is disconnected."""
    monkeypatch.setattr(metrics_port, "HEAD_TIMEOUT", 0.1)
    number = free_port()
    with closing(MetricsPort("127.0.0.1", number, CollectorRegistry())):
        for begin in (b"", GET[:-2]):
            assert ask(number, begin) == b""


def test_a_response_that_is_not_read_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not read is disconnected, and then finds an incomplete response."""
    monkeypatch.setattr(metrics_port, "RESPONSE_TIMEOUT", 0.1)
    number = free_port()
    with closing(MetricsPort("127.0.0.1", number, Large())) as metrics, socket.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.settimeout(PATIENCE)
        link.connect(("127.0.0.1", number))
        link.sendall(GET)
        assert link.recv(12) == b"HTTP/1.1 200"
        eventually(lambda: not metrics._connections, "it is disconnected")
        assert len(read_all(link)) < 20_000 * 300


def test_connections_are_bounded(port: int) -> None:
    """Clients that hold connections lose their oldest, and keep no other client out."""
    with ExitStack() as stack:
        held = [stack.enter_context(connect(port)) for _ in range(MAX_CONNECTIONS)]
        other = stack.enter_context(connect(port, "127.0.0.2"))
        assert read_all(held[0]) == b""
        held += [stack.enter_context(connect(port)) for _ in range(2 * MAX_CONNECTIONS)]
        assert [read_all(link) for link in held[: 2 * MAX_CONNECTIONS]] == [b""] * (2 * MAX_CONNECTIONS)
        other.sendall(GET)
        assert read_all(other).startswith(b"HTTP/1.1 200 ")


def test_metrics_that_cannot_be_collected_are_an_error_of_one_request() -> None:
    """An exception of a collector is answered with 500, again and again."""
    number = free_port()
    with closing(MetricsPort("127.0.0.1", number, Broken())):
        for _ in range(2):
            assert ask(number, GET).startswith(b"HTTP/1.1 500 ")


def test_a_thread_that_cannot_start_its_loop_is_a_lost_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a descriptor for its event loop, the port is reported as lost; the program does not hang."""

    def fail(work: Coroutine[Any, Any, None]) -> None:
        work.close()
        raise OSError(errno.EMFILE, "Too many open files")

    run = asyncio.run
    monkeypatch.setattr(asyncio, "run", fail)
    port = MetricsPort("127.0.0.1", free_port(), CollectorRegistry())
    port._thread.join(PATIENCE)
    with pytest.raises(ListenError):
        run(port.watch())
    port._close_sockets()
