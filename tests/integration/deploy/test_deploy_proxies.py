"""The proxies of ``deploy/haproxy`` and ``deploy/nginx``, run in front of two real relays."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest
from tickertape.contracts.messages import HEARTBEAT_MS
from websockets.exceptions import InvalidStatus

from tests.support.browser.browser_desk import missing
from tests.support.clients.feed_client import PATIENCE, follow, jetstream, line, publish, run
from tests.support.paths import ROOT
from tests.support.programs.relay_process import Relay, eventually
from tests.support.servers.nats_server import NatsServer, free_port

HEARTBEAT = HEARTBEAT_MS // 1000
"""The relay's heartbeat interval in seconds."""

KINDS = ("haproxy", "nginx")
CONFIGS = {
    "haproxy": ROOT / "deploy" / "haproxy" / "haproxy.cfg",
    "nginx": ROOT / "deploy" / "nginx" / "nginx.conf",
}


@dataclass(frozen=True)
class Front:
    """A proxy and the relays behind it."""

    ws_url: str
    relays: tuple[Relay, Relay]
    nats_url: str

    def sessions(self) -> list[int]:
        """Return the number of clients of each relay."""
        return [_connections(relay) for relay in self.relays]


def _connections(relay: Relay) -> int:
    with urlopen(f"{relay.ops_url}/metrics", timeout=PATIENCE) as answer:
        found = re.search(r"^tickertape_connections (\d+)", answer.read().decode(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def _replaced(text: str, by: dict[str, str]) -> str:
    for old, new in by.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def configured(kind: str, folder: Path, port: int, relays: tuple[Relay, Relay]) -> list[str]:
    """Write the deployment's file with the ports of a test; return the command that runs it."""
    program = shutil.which(kind) or shutil.which(kind, path="/usr/sbin")
    if program is None:
        missing(f"needs {kind}; 'apt-get install {kind}' brings it")
    positions = {}
    for number, relay in enumerate(relays, 1):
        address = "{}:{}".format(*relay.host_port)
        if kind == "haproxy":
            ops = relay.ops_url.rpartition(":")[2]
            positions[f"relay-{number}:8080 port 9464"] = f"{address} port {ops}"
        else:
            positions[f"server relay-{number}:8080"] = f"server {address}"
    text = CONFIGS[kind].read_text(encoding="utf-8")
    if kind == "haproxy":
        text = _replaced(text, {**positions, "bind :8080": f"bind 127.0.0.1:{port}"})
    else:
        text = _replaced(text, {**positions, "listen 8080": f"listen 127.0.0.1:{port}"})
        text = text.replace(" /tmp/", f" {folder}/")
    file = folder / CONFIGS[kind].name
    file.write_text(text)
    if kind == "haproxy":
        return [program, "-db", "-f", str(file)]
    return [program, "-p", str(folder), "-e", "stderr", "-c", str(file), "-g", "daemon off;"]


@contextmanager
def proxy(kind: str, folder: Path, relays: tuple[Relay, Relay]) -> Iterator[int]:
    """Run a proxy in front of two relays; yield its port."""
    port = free_port()
    output = folder / "proxy.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            configured(kind, folder, port, relays), stdout=log, stderr=log, start_new_session=True
        )

    def answers() -> bool:
        assert process.poll() is None, output.read_text()
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=PATIENCE) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        eventually(answers, f"{kind} passes on to a relay")
        yield port
    finally:
        # Kill its workers too, because a graceful stop would wait for clients.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


@pytest.fixture(params=KINDS)
def front(request: pytest.FixtureRequest, tmp_path: Path, nats_server: NatsServer) -> Iterator[Front]:
    """Run two relays that accept one client per address, behind a proxy of each kind."""
    options = ("--trusted-proxies", "127.0.0.1", "--max-address-connections", "1")
    with (
        Relay(nats_server.url, *options) as one,
        Relay(nats_server.url, *options) as two,
        proxy(request.param, tmp_path, (one, two)) as port,
    ):
        yield Front(f"ws://127.0.0.1:{port}/ws", (one, two), nats_server.url)


def test_sessions_spread_and_are_known_by_their_own_addresses(front: Front) -> None:
    """Each relay accepts one client per address, and the limit applies to the client's address, not the
    proxy's.
    """

    async def visit() -> None:
        async with (
            follow(front.ws_url, source="127.0.0.2") as first,
            follow(front.ws_url, source="127.0.0.2") as second,
        ):
            assert front.sessions() == [1, 1]
            async with jetstream(front.nats_url) as js:
                await publish(js, line("through the proxy"))
            assert await first.texts(1) == await second.texts(1) == ["through the proxy"]
            with pytest.raises(InvalidStatus) as rejected:
                async with follow(front.ws_url, source="127.0.0.2", protocol=False, live=False):
                    pass
            assert rejected.value.response.status_code == 429
            async with follow(front.ws_url, source="127.0.0.3") as other:
                assert await asyncio.wait_for(other.socket.ping(), PATIENCE)

    run(visit())


def test_a_relay_that_stops_gets_no_more_clients(front: Front) -> None:
    """Clients of a stopping relay, and new clients, are directed to the other one."""
    one, two = front.relays

    async def visit() -> None:
        async with follow(front.ws_url, source="127.0.0.2") as first:
            leaving, staying = (one, two) if front.sessions() == [1, 0] else (two, one)
            stopping = asyncio.create_task(asyncio.to_thread(leaving.stop))
            assert await first.closed() == 1001
            assert await stopping == 0
        async with follow(front.ws_url, source="127.0.0.2"), follow(front.ws_url, source="127.0.0.3"):
            assert _connections(staying) == 2

    run(visit())


@pytest.mark.parametrize("kind", KINDS)
def test_a_quiet_link_is_not_cut(kind: str) -> None:
    """Every timeout on the session's path is at least twice the heartbeat interval."""
    text = CONFIGS[kind].read_text(encoding="utf-8")
    found = re.findall(
        r"^\s*(?:timeout (?:tunnel|client|server)|proxy_(?:read|send)_timeout) (\d+)s", text, re.M
    )
    assert len(found) == (3 if kind == "haproxy" else 2)
    assert all(int(seconds) >= 2 * HEARTBEAT for seconds in found)
