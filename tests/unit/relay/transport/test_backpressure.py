"""Evidence that a client reads, and what a WebSocket connection does while its client does not."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

import orjson
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from tickertape.relay.core.session.session import Session
from tickertape.relay.transport.backpressure import KERNEL_BUFFER, MAX_MISSED, ReadProgress, accepted_bytes
from tickertape.relay.transport.connections import Connections
from tickertape.relay.transport.listener import bind
from tickertape.relay.transport.websocket.connection import Connection, websocket_protocol

from tests.fuzz.transport import FakeTransport, StandingLoop
from tests.support.clients.fake_link import Stage
from tests.support.patience import PATIENCE
from tests.unit.relay.transport.websocket.test_faults import upgrade_headers

PONG = b"\x8a\x80\0\0\0\0"
PING = b"\x89\x80\0\0\0\0"
CLOSE_4408 = (4408).to_bytes(2, "big")


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.booleans()), max_size=12))
def test_only_reading_counts(intervals: list[tuple[bool, int, bool]]) -> None:
    """A client expires after ``MAX_MISSED`` intervals without an answer and without room for what waited."""
    progress, accepted, waited, missed = ReadProgress(), 0, False, 0
    progress.end_interval(0, waiting=False)  # the first ping
    for answered, room, waiting in intervals:
        if answered:
            progress.record_read()
        accepted += room
        missed = 0 if answered or (waited and room) else missed + 1
        assert progress.end_interval(accepted, waiting=waiting) == (missed >= MAX_MISSED)
        waited = waiting


@pytest.mark.parametrize("kind", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("kernel", [True, False], ids=["with TCP_INFO", "without"])
def test_a_socket_tells_whether_its_client_reads(
    kind: Callable[[], asyncio.AbstractEventLoop], kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes wait while a client does not read, and their number moves only when it does."""
    if not kernel:
        monkeypatch.delattr(socket, "TCP_INFO")

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        made: asyncio.Future[asyncio.Transport] = loop.create_future()

        class Server(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made.set_result(cast(asyncio.Transport, transport))

        server = await loop.create_server(Server, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.setblocking(False)
            transport = await made
            assert accepted_bytes(transport)[1] is False
            transport.write(bytes(32 << 20))
            before = await steady(transport)
            assert before[1] is True
            left = 1 << 22
            while left > 0:
                left -= len(await loop.sock_recv(client, 1 << 20))
            assert (await steady(transport))[0] > before[0]
            transport.abort()
        server.close()

    async def steady(transport: asyncio.Transport) -> tuple[int, bool]:
        """Return the numbers once they no longer change."""
        found = None
        while found != (found := accepted_bytes(transport)):
            await asyncio.sleep(0.2)
        return found

    loop = kind()
    try:
        loop.run_until_complete(asyncio.wait_for(scenario(), PATIENCE))
    finally:
        loop.close()


def test_the_descriptor_of_a_transport_stays_open() -> None:
    """Asking the kernel about a socket neither closes nor copies it."""

    class Transport(FakeTransport):
        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return mine if name == "socket" else default

    loop = asyncio.new_event_loop()
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as mine,
    ):
        before = len(os.listdir("/proc/self/fd"))
        assert accepted_bytes(Transport(loop))[1] is False
        assert len(os.listdir("/proc/self/fd")) == before
        mine.sendall(b"still open")
    loop.close()


class Filling(FakeTransport):
    """Transport that is full after each write."""

    fills = False

    def write(self, data: Any) -> None:
        super().write(data)
        if self.fills:
            self.fill(full=True)


class Desk:
    """A connection on a transport without a socket."""

    def __init__(self, transport: type[FakeTransport] = FakeTransport) -> None:
        self.stage = Stage()
        self.connections = Connections(self.stage.hub, lambda: self.stage.now)
        self.socket = transport(asyncio.get_running_loop())
        self.connection: Connection = websocket_protocol(self.connections)()
        self.socket.open(self.connection)
        self.connection.handshake("/ws", upgrade_headers())
        (self.session,) = cast(list[Session], list(self.stage.hub.sessions))
        self.taken()

    def say(self, **message: Any) -> None:
        """Send a message of the client."""
        self.socket.receive(frame(**message))

    def taken(self) -> bytes:
        """Return what was written since the last call."""
        found = bytes(self.socket.written)
        self.socket.written.clear()
        return found


def frame(**message: Any) -> bytes:
    """Return a message of a client, masked with zeros."""
    text = orjson.dumps(message)
    assert len(text) < 126
    return bytes((0x81, 0x80 | len(text))) + bytes(4) + text


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    loop = StandingLoop()
    try:
        loop.run_until_complete(scenario())
    finally:
        loop.close()


def test_nothing_is_answered_while_the_socket_is_full() -> None:
    """Requests are not read or answered while the socket is full, then answered once each and in order."""

    async def scenario() -> None:
        desk = Desk()
        desk.socket.fill(full=True)
        assert not desk.socket.reading
        # What one read had received already: more than one chunk of the parser.
        desk.socket.receive(b"".join(frame(type="ping", id=n) + PING for n in range(60)))
        desk.say(type="subscribe", subjects=["log.>"])
        assert desk.taken() == b""
        desk.stage.log(1)
        desk.stage.settle()
        desk.stage.tick(60.0)
        assert desk.taken() == b""
        desk.socket.fill(full=False)
        assert desk.socket.reading
        written = desk.taken()
        assert [written.index(b'"id":%d}' % n) for n in range(60)] == sorted(
            written.index(b'"id":%d}' % n) for n in range(60)
        )
        assert (written.count(b'"type":"pong"'), written.count(b"\x8a\0")) == (60, 60)
        assert written.index(b'"subscribed"') > written.index(b'"id":59}')
        desk.stage.settle()
        assert b"line 1" in desk.taken()
        desk.socket.lose()

    run(scenario)


def test_a_socket_that_fills_up_again_stops_in_the_middle() -> None:
    """If an answer fills the socket, the next message of the same read is not handled."""

    async def scenario() -> None:
        desk = Desk(Filling)
        assert isinstance(desk.socket, Filling)
        desk.socket.fills = True
        desk.socket.receive(b"".join(frame(type="subscribe") for _ in range(100)))
        for _ in range(100):
            written = desk.taken()
            assert written.count(b'"subscribed"') <= 1
            desk.socket.fill(full=False)
        desk.socket.lose()

    run(scenario)


@pytest.mark.parametrize("full", [True, False])
def test_a_client_that_does_not_read_is_closed_whatever_it_sends(full: bool) -> None:
    """Without an answer to pings, a client is closed with 4408 after two intervals, however much it sends."""

    async def scenario() -> None:
        desk = Desk()
        if full:
            desk.socket.fill(full=True)
        for _ in range(MAX_MISSED):
            desk.connection.ping()
            desk.say(type="ping")
            desk.socket.receive(PING)
            assert CLOSE_4408 not in desk.taken()
        desk.connection.ping()
        assert CLOSE_4408 in desk.taken()
        assert list(desk.stage.hub.sessions) == []
        await asyncio.get_running_loop().pass_time(6.0)  # type: ignore[attr-defined]
        assert desk.socket.lost
        assert desk.connections.close_counts == {4408: 1}

    run(scenario)


def test_a_client_that_answers_pings_stays() -> None:
    """A client that answers pings stays connected."""

    async def scenario() -> None:
        desk = Desk()
        for _ in range(5):
            desk.connection.ping()
            desk.socket.receive(PONG)
        assert len(desk.stage.hub.sessions) == 1
        desk.socket.lose()

    run(scenario)


def test_a_slow_client_that_makes_room_stays() -> None:
    """A client whose socket stays full, but which reads a little in each interval, stays connected."""

    async def scenario() -> None:
        desk = Desk()
        desk.socket.fill(full=True)
        for step in range(6):
            desk.socket.get_write_buffer_size = lambda step=step: 100_000 - step  # type: ignore[method-assign, misc]
            desk.connection.ping()
        assert len(desk.stage.hub.sessions) == 1
        for _ in range(MAX_MISSED):
            desk.connection.ping()
        assert len(desk.stage.hub.sessions) == 0
        desk.socket.lose()

    run(scenario)


def test_a_close_of_the_relay_reads_the_answer() -> None:
    """A close while the socket is full reads on, so that the client's part of the handshake is noticed."""

    async def scenario() -> None:
        desk = Desk()
        desk.socket.fill(full=True)
        desk.say(type="ping", id=1)
        desk.stage.hub.sessions.close(desk.session, 1001, "")  # type: ignore[arg-type]
        assert desk.socket.reading
        assert b"pong" not in desk.taken()
        desk.socket.receive(b"\x88\x82\0\0\0\0\x03\xe9")
        await asyncio.sleep(0)
        assert desk.socket.lost

    run(scenario)


def test_a_listener_bounds_the_kernel() -> None:
    """Sockets of clients inherit a bound on what the kernel buffers for them."""
    listener = bind("127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", listener.port)):
        listener.sockets[0].setblocking(True)
        accepted, _ = listener.sockets[0].accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == KERNEL_BUFFER
    listener.close()
