"""Clients that ask for much and read nothing, or never end a message: bounded memory, and a close."""

import asyncio
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.transport.test_tls import issue, trusting
from tests.support.clients.attacker import count, masked, upgrade
from tests.support.clients.feed_client import PATIENCE, follow, jetstream, line, publish, run, status
from tests.support.programs.asgi_host import Host
from tests.support.programs.relay_process import Relay, eventually
from tests.support.servers.nats_server import NatsServer

ATTACKERS = 4
GATEWAYS = 1_000
RATE = 120
"""Messages per second of each attacker; a relay that answered all would write 40 MB/s to each."""

LIMIT = 100_000
"""Messages per second that the program accepts: after a delay it reads those of many seconds."""

CAPACITY = 60 * 1024 * 1024
"""Bytes by which the attack may increase the memory of the program."""

PROGRAM = "tests.support.programs.quick_pings"

MESSAGES = {
    "subscribe": {"type": "subscribe"},
    "other filters": {"type": "subscribe", "subjects": ["gateway.>", "log.>"], "mode": "complete"},
    "ping": {"type": "ping", "id": "x" * 100},
    "pings of the protocol": None,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Run a NATS server with many gateways."""

    async def fill(url: str) -> None:
        async with jetstream(url) as js:
            await asyncio.gather(*(publish(js, status(f"gateway-{n:04d}")) for n in range(GATEWAYS)))

    with NatsServer(tmp_path_factory.mktemp("nats")) as running:
        with Relay(running.url):
            pass  # creates the streams
        run(fill(running.url))
        yield running


@pytest.fixture(params=["plain", "tls", "mounted"])
def program(server: NatsServer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Relay | Host]:
    """Run a relay, or a host with a feed."""
    if request.param == "mounted":
        host = Host({"/feed": {"nats_url": server.url}})
        host.program = [PROGRAM, "host"]
        with host as running:
            running.until_ready()
            yield running
        return
    options = ["--message-rate", str(LIMIT)]
    if request.param == "tls":
        issue(tmp_path / "cert.pem", tmp_path / "key.pem")
        options += ["--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem")]
    relay = Relay(server.url, *options)
    relay.program = [sys.executable, "-m", PROGRAM, "relay"]
    with relay as running:
        yield running


@pytest.fixture(autouse=True)
def unharmed() -> None:
    """Leave the check to the test, whose program is not always a relay."""


def connect(program: Relay | Host, path: str) -> socket.socket:
    """Open a WebSocket, and read only the answer to its handshake."""
    address = program.host_port if isinstance(program, Relay) else (program.address, program.port)
    link = socket.create_connection(address, PATIENCE)
    if isinstance(program, Relay) and program.url.startswith("https"):
        link = trusting().wrap_socket(link, server_hostname="127.0.0.1")
    link.sendall(upgrade(path))
    assert link.recv(12) == b"HTTP/1.1 101"
    return link


def sessions(program: Relay | Host) -> int:
    """Return the number of sessions."""
    if isinstance(program, Relay):
        return count(program, "connections")
    return int(program.get("/feed/health")[1]["connections"])


def attack(program: Relay | Host, path: str, kind: str, over: threading.Event) -> None:
    """Send messages without reading until the connection is closed, or the attack is over.

    Raises:
        TimeoutError: it is not closed.
    """
    message = MESSAGES[kind]
    frame = masked(0x89, b"x" * 100) if message is None else masked(0x81, json.dumps(message).encode())
    deadline = time.monotonic() + PATIENCE
    with connect(program, path) as link:
        link.settimeout(1 / RATE)
        while time.monotonic() < deadline and not over.is_set():
            try:
                link.sendall(frame)
            except (TimeoutError, ssl.SSLWantWriteError):
                continue  # the program does not read either
            except OSError:
                return
            time.sleep(1 / RATE)
    if not over.is_set():
        raise TimeoutError(f"the connection that sends {kind!r} and does not read is still open")


def test_a_client_that_does_not_read_is_bounded_and_closed(program: Relay | Host, server: NatsServer) -> None:
    """Whatever such clients send, memory stays bounded, another client is served, and they are closed."""
    path = "/ws" if isinstance(program, Relay) else "/feed/ws"
    url = program.ws_url if isinstance(program, Relay) else program.ws()
    kinds = [kind for kind in MESSAGES for _ in range(ATTACKERS)]
    if not isinstance(program, Relay):
        # The pings of the host's server find a client that does not read although its socket is not full.
        kinds = [kind for kind in kinds if "ping" not in kind]
    context = trusting() if url.startswith("wss") else None

    async def watch(pool: ThreadPoolExecutor) -> int:
        """Run the attack beside a client that reads; return the peak of memory."""
        peak = 0
        async with jetstream(server.url) as js, follow(url, subjects="log.>", context=context) as feed:
            loop = asyncio.get_running_loop()
            attacks = [loop.run_in_executor(pool, attack, program, path, kind, over) for kind in kinds]
            await asyncio.to_thread(eventually, lambda: sessions(program) == len(kinds) + 1, "all are there")
            while not all(one.done() for one in attacks):
                seq = await publish(js, line("still here"))
                await feed.until(lambda seq=seq: seq in feed.seqs())  # type: ignore[misc]
                peak = max(peak, program.resident_bytes)
                if isinstance(program, Host) and sessions(program) == 1:
                    over.set()  # the host's server keeps the socket, but nothing waits in it any more
                await asyncio.sleep(0.05)
            for one in attacks:
                one.result()
        return peak

    before, over = program.resident_bytes, threading.Event()
    with ThreadPoolExecutor(len(kinds)) as pool:
        peak = run(watch(pool))
    assert peak - before < CAPACITY
    assert not any("internal error" in text for text in program.log)
    if isinstance(program, Relay):
        assert count(program, "disconnects_total", code="4408") == len(kinds)


@pytest.mark.parametrize("program", ["plain"], indirect=True)
@pytest.mark.parametrize("start", [b"\x01", b"\x81"], ids=["fragment", "frame"])
def test_messages_that_never_end_are_bounded_and_closed(
    program: Relay, start: bytes, server: NatsServer
) -> None:
    """Incomplete messages of all clients have one bound, and a time limit; another client is served."""
    size = 900_000
    # Either a complete first fragment, or a frame that announces more than it has.
    announced = size + (start == b"\x81")
    message = start + b"\xff" + announced.to_bytes(8, "big") + bytes(4) + b" " * size
    before = program.resident_bytes

    def send(links: list[socket.socket]) -> None:
        for link in links:
            link.sendall(message)

    async def watch(links: list[socket.socket]) -> int:
        peak = 0
        async with jetstream(server.url) as js, follow(program.ws_url, subjects="log.>") as feed:
            sending = asyncio.ensure_future(asyncio.to_thread(send, links))
            while sessions(program) > 1 or not sending.done():
                seq = await publish(js, line("still here"))
                await feed.until(lambda seq=seq: seq in feed.seqs())  # type: ignore[misc]
                peak = max(peak, program.resident_bytes)
                await asyncio.sleep(0.05)
            await sending
        return peak

    with ExitStack() as stack:
        links = [stack.enter_context(connect(program, "/ws?subjects=log.none")) for _ in range(160)]
        peak = run(watch(links))
    assert peak - before < 160 * size * 0.7  # without the bound, all of them would be in memory
    closed = {code: count(program, "disconnects_total", code=code) for code in ("4408", "4429")}
    assert closed["4408"] > 0, closed
    assert closed["4429"] > 0, closed
    assert not any("internal error" in text for text in program.log)
