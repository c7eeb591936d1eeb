"""Gateways that are configured by name, while the DNS server of some of them does not answer."""

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter
from tickertape.contracts.events import Status
from tickertape.producers.monitor.config.loader import load
from tickertape.producers.monitor.failures import Failures
from tickertape.producers.monitor.gateway.majority import View
from tickertape.producers.monitor.gateway.model import Check
from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway
from tickertape.producers.monitor.probe_scheduler import ProbeScheduler
from tickertape.producers.monitor.probes import Probe, ProbeContext, ProbeSettings, run

from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import eventually
from tests.support.programs.silent_resolver import silent_resolver
from tests.support.servers.name_service import NameService, name_service
from tickertape.net import outgoing, resolver
from tickertape.net.resolver import MAX_SUSPECTS, Resolver
from tickertape.process.event_loop import Loop

GATEWAYS, HANGING = 200, 120
"""Gateways, and those of them whose names hang: more than names that hang have threads."""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameService]:
    """Replace the name service of the machine."""
    monkeypatch.setattr(outgoing, "_resolver", Resolver())
    with name_service(monkeypatch) as service:
        yield service


@contextlib.asynccontextmanager
async def http_server() -> AsyncIterator[int]:
    """Run a server that answers each request with 200."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    async with server:
        yield server.sockets[0].getsockname()[1]


class Desk:
    """Monitored gateways, their probe loops, and what these report."""

    def __init__(self, file: Path, port: int) -> None:
        gateways = []
        for number in range(GATEWAYS):
            name = f"{'hangs' if number < HANGING else 'answers'}-{number}"
            probe = (
                {"kind": "http", "url": f"http://{name}.test:{port}/"}
                if number % 2
                else {"kind": "tcp", "address": f"{name}.test:{port}"}
            )
            gateways.append({"id": name, "type": "t", "probes": [probe]})
        # The time limit is generous, because only look-ups may fail here, however busy the machine is.
        defaults: dict[str, Any] = {"interval": "500ms", "timeout": f"{PATIENCE:.0f}s", "unhealthy_after": 1}
        file.write_text(yaml.safe_dump({"defaults": defaults, "gateways": gateways}))
        everything = [MonitoredGateway(gateway, "m", None, 0.0) for gateway in load(file).resolve_gateways()]
        self.answering = [item for item in everything if item.gateway.id.startswith("answers")]
        self.hanging = [item for item in everything if item.gateway.id.startswith("hangs")]
        self.changes: dict[str, list[View]] = defaultdict(list)
        self.reports: list[str] = []
        self._probed: Counter[str] = Counter()
        self._scheduler = ProbeScheduler(
            {item.gateway.subject: item for item in everything},
            Failures(self.reports.append),
            self._record,
            self.reports.append,
        )

    def _record(self, monitored: MonitoredGateway) -> None:
        self._probed[monitored.gateway.id] += 1
        if (view := monitored.own.take_new()) is not None:
            self.changes[monitored.gateway.id].append(view)

    def start(self, items: list[MonitoredGateway]) -> list[asyncio.Task[None]]:
        """Start the probe loops of gateways."""
        loop = self._scheduler.run_check
        return [asyncio.create_task(loop(item, 0, item.gateway.checks[0])) for item in items]

    async def until_probed(self, items: list[MonitoredGateway], times: int) -> None:
        """Wait until gateways have been probed a number of times more."""
        before = Counter(self._probed)
        while any(self._probed[item.gateway.id] - before[item.gateway.id] < times for item in items):
            await asyncio.sleep(0.01)


def test_names_that_hang_change_the_status_of_no_other_gateway(
    tmp_path: Path, names: NameService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the names that answer are known, any number of others may hang."""
    monkeypatch.setattr(resolver, "LOOKUP_TIMEOUT", 0.3)

    async def work() -> None:
        async with http_server() as port, asyncio.timeout(PATIENCE):
            desk = Desk(tmp_path / "gateways.yaml", port)
            for item in desk.answering:
                names.answer(f"{item.gateway.id}.test", "127.0.0.1")
            tasks = desk.start(desk.answering)
            await desk.until_probed(desk.answering, 1)
            tasks += desk.start(desk.hanging)
            while sum(item.own.status is Status.UNHEALTHY for item in desk.hanging) < MAX_SUSPECTS:
                await asyncio.sleep(0.01)
            while not desk.reports:
                await asyncio.sleep(0.01)
            await desk.until_probed(desk.answering, 3)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for item in desk.answering:
            assert [change.status for change in desk.changes[item.gateway.id]] == [Status.HEALTHY]
        failed = [item.gateway.id for item in desk.hanging if item.own.status is Status.UNHEALTHY]
        assert {str(change.details["error"]) for name in failed for change in desk.changes[name]} == {
            "name did not resolve within 0.3 s"
        }
        # The other names have no thread; that is reported, and says nothing about their gateways.
        assert len(failed) == MAX_SUSPECTS
        assert not any(
            desk.changes[item.gateway.id] for item in desk.hanging if item.gateway.id not in failed
        )
        assert desk.reports == [
            "gateways cannot be probed: name was not looked up: too many look-ups of other names hang; "
            "check the DNS servers"
        ]

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(work())


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("tcp", {"address": "name.test:1"}),
        ("tls", {"address": "name.test:1"}),
        ("http", {"url": "http://name.test/"}),
        ("http", {"url": "https://name.test/"}),
        ("websocket", {"url": "ws://name.test/"}),
        ("websocket", {"url": "wss://name.test/"}),
        ("fix", {"address": "name.test:1", "sender_comp_id": "a", "target_comp_id": "b"}),
    ],
)
def test_every_kind_names_the_look_up(
    kind: str, target: dict[str, str], names: NameService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason says that the name did not resolve, also if the probe's own timeout is shorter."""

    async def probe(timeout: float) -> Result | None:
        parsed: ProbeSettings = TypeAdapter[Any](Probe).validate_python({"kind": kind, **target})
        return await run(Check(parsed, 5.0, timeout, 3, 2), ProbeContext())

    with asyncio.Runner(loop_factory=Loop) as runner:
        short = runner.run(probe(0.02))
        monkeypatch.setattr(resolver, "LOOKUP_TIMEOUT", 0.01)
        long = runner.run(probe(PATIENCE))
    assert [result and result.error for result in (short, long)] == [
        "name did not resolve within 0.02 s",
        "name did not resolve within 0.01 s",
    ]
    # Both joined one look-up, whose thread may have yet to begin; those of a test before may begin, too.
    eventually(lambda: names.calls["name.test"] == 1, "the name is looked up")


PROGRAM = """
import asyncio, sys
from tickertape.net.outgoing import connect, describe_failure
from tickertape.process.event_loop import run_async

async def main():
    hanging = [asyncio.create_task(connect(f"name-{number}.invalid.example", 80)) for number in range(20)]
    await asyncio.sleep(0.5)
    sock = await connect("localhost", int(sys.argv[1]))
    errors = await asyncio.gather(*hanging, return_exceptions=True)
    print(sock.getpeername()[1], {describe_failure(error) for error in errors})
    return 0

sys.exit(run_async(main()))
"""


def test_a_silent_dns_server_delays_no_local_name(tmp_path: Path) -> None:
    """The name service of the machine is used, with its hosts file, and a program ends in time."""
    with (
        silent_resolver(tmp_path) as dns,
        contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server,
    ):
        port = server.getsockname()[1]
        command = [*dns.prefix, sys.executable, "-c", PROGRAM, str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout == f"{port} {{'name did not resolve within 2 s'}}\n"
