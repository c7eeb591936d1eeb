"""Limits of a relay with several workers apply to all of them together."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.clients import forge
from tests.support.clients.attacker import claims
from tests.support.clients.feed_client import follow, run
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay, eventually
from tests.support.programs.worker_desk import command_line, kill_worker, number, pids, slots
from tests.support.servers.nats_server import NatsServer

SECRET = forge.public_pem("HS256").decode()
ALL = 12
OF_ADDRESS = 5
RATE = 2.0
AT_ONCE = 20
"""Burst of the address rate: ten seconds' worth."""

HEALTH = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Run one server for the module."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="module")
def relay(nats: NatsServer) -> Iterator[Relay]:
    """Run three workers; only 127.0.0.1 is exempt from limits."""
    limits = ("--max-connections", f"{ALL}", "--max-address-connections", f"{OF_ADDRESS}")
    env = {"TICKERTAPE_JWT_ALGORITHM": "HS256", "TICKERTAPE_JWT_KEY": SECRET}
    options = ("--auth", "jwt", *limits, "--address-rate", f"{RATE}")
    with Relay(nats.url, "--workers", "3", *options, **env) as running:
        yield running


def answered(link: socket.socket) -> bool:
    """Send a request on a socket; return whether it is accepted."""
    link.sendall(HEALTH)
    data = b""
    while not data.endswith(b"}"):  # of the body, which may arrive after the head
        data += (piece := link.recv(4096))
        if not piece:
            return False
    return data.startswith(b"HTTP/1.1 200")


@contextlib.contextmanager
def sockets(relay: Relay, count: int, source: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    """Open a number of sockets and yield those that are accepted; all stay open within the context."""
    with contextlib.ExitStack() as stack:
        links = [
            stack.enter_context(
                socket.create_connection(relay.host_port, timeout=PATIENCE, source_address=(source, 0))
            )
            for _ in range(count)
        ]
        yield [link for link in links if answered(link)]


def nobody(relay: Relay) -> None:
    """Wait until all sockets are closed."""
    eventually(lambda: number(relay, "sockets") == 0, "all have left")


def test_connections_in_all(relay: Relay) -> None:
    """The connection limit is exact over all workers; connections of a dead worker no longer count."""
    nobody(relay)
    rejected = number(relay, "rejected_total", limit="connections")
    with sockets(relay, 40) as inside:
        assert len(inside) == ALL
        assert number(relay, "sockets") == ALL
        assert number(relay, "rejected_total", limit="connections") == rejected + 40 - ALL
        victim = next(slot["slot"] for slot in slots(relay) if slot["status"])
        kill_worker(relay, victim)
        left = int(number(relay, "sockets"))
        with sockets(relay, 40) as more:
            assert len(more) == ALL - left
    nobody(relay)
    with sockets(relay, 40) as again:
        assert len(again) == ALL


def test_connections_of_an_address(relay: Relay) -> None:
    """The limit of an address is not multiplied by the number of workers."""
    nobody(relay)
    with (
        sockets(relay, AT_ONCE // 2, "127.0.0.7") as some,
        sockets(relay, AT_ONCE // 2, "127.0.0.8") as others,
    ):
        assert len(some) == len(others) == OF_ADDRESS


def test_the_rate_of_an_address(relay: Relay) -> None:
    """The rate of an address is shared by all workers, not divided among them."""
    nobody(relay)
    source, began = "127.0.0.9", time.monotonic()
    with sockets(relay, 1, source) as links:
        # All requests are on one socket, and so at one worker: it may use more than its third.
        requested = sum(answered(links[0]) for _ in range(AT_ONCE - 4))
        assert requested == AT_ONCE - 4
        with sockets(relay, 12, source) as more:
            # At any worker, only what has been refilled meanwhile is left.
            back = RATE * (time.monotonic() - began)
            assert len(more) <= 2 + back
    assert number(relay, "rejected_total", limit="address_rate") >= 12 - 2 - back - 1


def test_sessions_of_a_subject(relay: Relay) -> None:
    """A token for one session is valid for one session over all workers."""
    nobody(relay)
    token = forge.token("HS256", claims(sub="one", tickertape={"subjects": ["log.>"], "connections": 1}))

    async def rejected() -> int | None:
        try:
            async with follow(relay.ws_url, token=token, live=False) as feed:
                return await feed.closed()
        except ConnectionClosed as error:
            return error.rcvd.code if error.rcvd else None

    async def check() -> None:
        for _ in range(2):
            async with follow(relay.ws_url, token=token):
                assert await asyncio.gather(*(rejected() for _ in range(10))) == [4429] * 10
            await asyncio.to_thread(nobody, relay)

    run(check())


def test_secrets_are_on_no_command_line(relay: Relay) -> None:
    """Workers receive secrets through a socket, wherever the supervisor got them from."""
    assert not any(SECRET in command_line(pid) for pid in pids(relay))


def test_the_rate_of_connections(nats: NatsServer) -> None:
    """Burst and rate of new connections apply to all workers together."""
    with Relay(nats.url, "--workers", "2", "--connection-rate", f"{RATE}") as relay:
        began = time.monotonic()
        with sockets(relay, 60) as inside:
            assert AT_ONCE <= len(inside) <= AT_ONCE + RATE * (time.monotonic() - began) + 1
