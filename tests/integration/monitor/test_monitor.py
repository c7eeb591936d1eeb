"""The gateway monitor with real gateways: TCP and HTTP servers that stop and restart."""

import asyncio
import contextlib
import gc
import os
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.producers.monitor import probes
from tickertape.producers.monitor.coordination import dead_mans_switch
from tickertape.producers.monitor.gateway.model import Check
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes import ProbeContext, ProbeSettings
from tickertape.producers.monitor.probes.http import HttpProbe
from tickertape.producers.monitor.probes.tcp import TcpProbe

from tests.support.patience import PATIENCE
from tests.support.programs.stop_signal import stopped_at_end
from tests.support.servers.nats_server import NatsServer, free_port
from tickertape.cli.monitor import MonitorSettings, run
from tickertape.names import Names
from tickertape.nats import connection, streams

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def no_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the dead man's switch, because on a busy machine a monitor may be silent for a second."""
    monkeypatch.setattr(dead_mans_switch, "MIN_TIMEOUT", 600.0)


@pytest.fixture
def nats_server(nats_server: NatsServer) -> Iterator[NatsServer]:
    """Run a server that is killed; collect the socket nats-py leaks in an interrupted reconnection."""
    yield nats_server
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Keep the connection open until the peer closes it."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(1024):
            pass
    writer.close()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection immediately, as a CTP front does outside of its session."""
    writer.close()


def answering(response: bytes, delay: float = 0.0) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(delay)
            writer.write(response)
            await writer.drain()
        writer.close()

    return handle


OK = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@contextlib.asynccontextmanager
async def serving(handler: Handler, port: int = 0) -> AsyncIterator[int]:
    """Run a server on a loopback port; close its connections at the end."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await handler(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


class Statuses:
    """Status events of the gateways, read from the stream in order."""

    def __init__(self, client: Client, prefix: str = "") -> None:
        self._client = client
        self._names = Names(prefix)
        self._next = 1
        self.events: list[dict[str, Any]] = []

    async def read(self) -> None:
        while True:
            request = {"seq": self._next, "next_by_subj": self._names.subject("gateway.status.>")}
            stream = self._names.stream("EVENTS")
            reply = await self._client.request(
                f"$JS.API.DIRECT.GET.{stream}", orjson.dumps(request), timeout=PATIENCE
            )
            assert reply.headers is not None
            if reply.headers.get("Status"):
                return
            self._next = int(reply.headers["Nats-Sequence"]) + 1
            self.events.append(orjson.loads(reply.data))

    def of(self, gateway: str) -> list[str]:
        return [event["current_status"] for event in self.events if event["gateway_id"] == gateway]

    def last(self, gateway: str) -> dict[str, Any]:
        return [event for event in self.events if event["gateway_id"] == gateway][-1]

    async def until(self, gateway: str, *statuses: str) -> None:
        """Wait until the latest statuses of a gateway are these."""
        async with asyncio.timeout(PATIENCE):
            while self.of(gateway)[-len(statuses) :] != list(statuses):
                await asyncio.sleep(0.03)
                # The server may be down and the request lost; the next iteration repeats it.
                with contextlib.suppress(NatsError, TimeoutError):
                    async with asyncio.timeout(5.0):
                        await self.read()


@contextlib.asynccontextmanager
async def listening(url: str, prefix: str = "") -> AsyncIterator[Statuses]:
    client = await connection.connect(url, name="test")
    await streams.provision(client, Names(prefix))
    try:
        yield Statuses(client, prefix)
    finally:
        await connection.close(client)


def configured(folder: Path, tcp: int | None, http: int | None) -> Path:
    text = "defaults: {interval: 50ms, timeout: 30s, unhealthy_after: 2, healthy_after: 2}\ngateways:\n"
    if tcp is not None:
        probe = f"{{kind: tcp, address: '127.0.0.1:{tcp}', hold: 30ms}}"
        text += f"  - {{id: tcp.main, type: ctp, probes: [{probe}]}}\n"
    if http is not None:
        text += (
            f"  - {{id: web, type: rest, probes: [{{kind: http, url: 'http://127.0.0.1:{http}/health'}}]}}\n"
        )
    path = folder / "gateways.yaml"
    path.write_text(text)
    os.utime(path, (0, 0))  # a monitor waits until a new file is complete
    return path


def test_gateways_go_down_and_come_back(
    nats_url: str, nats_prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A TCP and an HTTP server fail and recover, and each transition is an event with its reason."""

    async def main() -> None:
        tcp, http = free_port(), free_port()
        settings = MonitorSettings(
            nats_url=nats_url,
            subject_prefix=nats_prefix,
            gateways=configured(tmp_path, tcp, http),
            id="m1",
        )
        async with listening(nats_url, nats_prefix) as statuses:
            async with serving(hold, tcp), serving(OK, http), stopped_at_end(run(settings)):
                await statuses.until("tcp.main", "UNKNOWN", "HEALTHY")
                await statuses.until("web", "UNKNOWN", "HEALTHY")
            async with stopped_at_end(run(settings)):
                await statuses.until("tcp.main", "UNHEALTHY")
                await statuses.until("web", "UNHEALTHY")
                down = statuses.last("web")
                async with serving(hold, tcp), serving(OK, http):
                    await statuses.until("tcp.main", "UNHEALTHY", "RECOVERING", "HEALTHY")
                    await statuses.until("web", "UNHEALTHY", "RECOVERING", "HEALTHY")
                async with serving(hang_up, tcp):
                    await statuses.until("tcp.main", "HEALTHY", "UNHEALTHY")
        assert down["metadata"]["error"] == "connection refused"
        assert down["metadata"]["probe"].startswith("http http://127.0.0.1")
        assert down["previous_status"] == "HEALTHY"

    asyncio.run(main())
    log = capsys.readouterr().err
    assert "web: HEALTHY -> UNHEALTHY (connection refused)\n" in log


def test_a_restart_changes_nothing_and_removes_dropped_gateways(
    nats_url: str, nats_prefix: str, tmp_path: Path
) -> None:
    """A restart publishes nothing new; a gateway dropped from the file is removed only by its own monitor."""

    async def main() -> None:
        async with serving(hold) as tcp, serving(OK) as http, listening(nats_url, nats_prefix) as statuses:

            def settings(name: str, http_port: int | None) -> MonitorSettings:
                return MonitorSettings(
                    nats_url=nats_url,
                    subject_prefix=nats_prefix,
                    gateways=configured(tmp_path, tcp, http_port),
                    id=name,
                    health_interval=0.1,
                )

            async with stopped_at_end(run(settings("m1", http))):
                await statuses.until("web", "HEALTHY")
                await statuses.until("tcp.main", "HEALTHY")
            other = settings("m2", None)
            async with stopped_at_end(run(other)):
                await wait_for_probes(statuses, nats_prefix, "m2", probed=1)
            assert statuses.of("web") == ["UNKNOWN", "HEALTHY"]
            async with stopped_at_end(run(settings("m1", None))):
                await statuses.until("web", "HEALTHY", "REMOVED")
                await wait_for_probes(statuses, nats_prefix, "m1", probed=5)
            await statuses.read()
            assert statuses.of("tcp.main") == ["UNKNOWN", "HEALTHY"]

    asyncio.run(main())


async def wait_for_probes(statuses: Statuses, prefix: str, name: str, probed: int) -> None:
    """Wait for a health event, newer than the last event read, with at least ``probed`` probes."""
    names = Names(prefix)
    async with asyncio.timeout(PATIENCE):
        while True:
            subject = names.subject(f"system.health.monitor.{name}")
            reply = await statuses._client.request(
                f"$JS.API.DIRECT.GET.{names.stream('EVENTS')}.{subject}", timeout=PATIENCE
            )
            assert reply.headers is not None
            if int(reply.headers.get("Nats-Sequence", 0)) >= statuses._next:
                health = orjson.loads(reply.data)
                assert health["status"] == "HEALTHY"
                if health["checks"]["probes_total"] >= probed:
                    break
            await asyncio.sleep(0.03)
    await statuses.read()


async def wait_for_log(capsys: pytest.CaptureFixture[str], *texts: str) -> None:
    """Wait until the monitor has logged all texts since the previous call."""
    logged = ""
    async with asyncio.timeout(PATIENCE):
        while not all(text in logged for text in texts):
            await asyncio.sleep(0.02)
            logged += capsys.readouterr().err


def test_changes_during_an_outage_of_nats_are_published_after_it(
    nats_server: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Transitions during an outage of NATS are published after it, in order."""

    async def main() -> None:
        tcp = free_port()
        settings = MonitorSettings(
            nats_url=nats_server.url, gateways=configured(tmp_path, tcp, None), id="m1", health_interval=0.2
        )
        async with listening(nats_server.url) as statuses, stopped_at_end(run(settings)):
            async with serving(hold, tcp):
                await statuses.until("tcp.main", "HEALTHY")
                nats_server.kill()
            await wait_for_log(capsys, "tcp.main: HEALTHY -> UNHEALTHY")
            async with serving(hold, tcp):
                await wait_for_log(
                    capsys, "tcp.main: UNHEALTHY -> RECOVERING", "tcp.main: RECOVERING -> HEALTHY"
                )
                await asyncio.to_thread(nats_server.start)
                await statuses.until("tcp.main", "HEALTHY", "UNHEALTHY", "RECOVERING", "HEALTHY")
        before = [event["previous_status"] for event in statuses.events]
        assert before == ["UNKNOWN", "UNKNOWN", "HEALTHY", "UNHEALTHY", "RECOVERING"]

    asyncio.run(main())


def test_a_bad_file_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An invalid file is reported in one line with file, line and field, without connecting to NATS."""
    path = tmp_path / "gateways.yaml"
    path.write_text("gateways:\n  - {id: a, type: b, probes: [{kind: tcp, address: 'h:0'}]}\n")
    os.utime(path, (0, 0))  # a monitor waits until a new file is complete
    assert asyncio.run(run(MonitorSettings(gateways=path))) == 2
    log = capsys.readouterr().err
    assert f"{path}:2: gateways[0].probes[0].address: port '0' of 'h:0' is out of range" in log
    assert log.count("\n") == 1


def test_it_stops_while_it_waits_for_nats(
    nats_server: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM ends a monitor that never reached NATS with exit code 0."""
    nats_server.stop()

    async def main() -> None:
        settings = MonitorSettings(nats_url=nats_server.url, gateways=configured(tmp_path, 1, None), id="m1")
        async with stopped_at_end(run(settings)):
            await wait_for_log(capsys, f"NATS at {nats_server.url}")

    asyncio.run(main())


def check_of(probe: ProbeSettings, timeout: float = PATIENCE) -> Check[ProbeSettings]:
    return Check(probe, 1.0, timeout, 1, 1)


async def probe_once(check: Check[ProbeSettings]) -> Result:
    """Return the result of one probe."""
    result = await probes.run(check, ProbeContext())
    assert result is not None
    return result


def test_tcp_probes() -> None:
    """A held connection is ok; one closed within the hold, or refused, fails."""

    async def main() -> list[Result]:
        results = []
        for handler in (hold, hang_up):
            async with serving(handler) as port:
                probe = TcpProbe(kind="tcp", address=f"127.0.0.1:{port}", hold="100ms")
                results.append(await probe_once(check_of(probe)))
        results.append(await probe_once(check_of(TcpProbe(kind="tcp", address=f"127.0.0.1:{free_port()}"))))
        return results

    held, hung_up, rejected = asyncio.run(main())
    assert held.outcome is Outcome.OK
    assert held.latency is not None
    assert "peer closed the connection after 0.0 s; expected at least 0.1 s" in str(hung_up.error)
    assert rejected == Result(Outcome.FAILED, "connection refused")


@pytest.mark.parametrize(
    ("response", "delay", "outcome", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 0.0, Outcome.OK, "None"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nok", 0.0, Outcome.OK, "None"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0.2, Outcome.DEGRADED, "degraded above 150 ms"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", 0.0, Outcome.FAILED, "status is 503, expected 200"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", 0.0, Outcome.FAILED, "response is not HTTP"),
        (b"", 0.0, Outcome.FAILED, "without a response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", 0.0, Outcome.FAILED, "response is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200000, 0.0, Outcome.OK, "None"),
        (b"", 9.0, Outcome.FAILED, "no response within 0.4 s"),
    ],
)
def test_http_probes(response: bytes, delay: float, outcome: Outcome, error: str) -> None:
    """Every response, or its absence, gives one result with its reason."""
    slow = "150ms" if outcome is Outcome.DEGRADED else "60s"
    timeout = 0.4 if error.startswith("no response within") else PATIENCE

    async def main() -> Result:
        async with serving(answering(response, delay)) as port:
            probe = HttpProbe(kind="http", url=f"http://127.0.0.1:{port}/?a=1", degraded_above=slow)
            return await probe_once(check_of(probe, timeout=timeout))

    result = asyncio.run(main())
    assert result.outcome is outcome, result
    assert error in str(result.error)
