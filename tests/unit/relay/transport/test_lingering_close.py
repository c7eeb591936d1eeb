"""The bounds of a lingering close, and that nothing is written behind the end of a connection."""

import asyncio
from collections.abc import Iterator

import pytest
from tickertape.relay.transport.connections import CLOSE_TIMEOUT, Connections
from tickertape.relay.transport.lingering_close import (
    DELIVERY_TIME,
    LINGER_BYTES,
    LINGER_TIME,
    LingeringTransport,
)
from tickertape.relay.transport.websocket import websocket_protocol

from tests.fuzz.inside import upgrade_lines
from tests.fuzz.transport import FakeTransport, StandingLoop
from tests.support.clients.fake_link import Stage


class Recorder(asyncio.Protocol):
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)

    def eof_received(self) -> None:
        self.heard.append("eof")

    def pause_writing(self) -> None:
        self.heard.append("pause")

    def resume_writing(self) -> None:
        self.heard.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.append("lost")


@pytest.fixture
def loop() -> Iterator[StandingLoop]:
    """An event loop whose clock is set by hand."""
    made = StandingLoop()
    yield made
    made.close()


def closing(loop: StandingLoop) -> tuple[LingeringTransport, FakeTransport, Recorder]:
    """A transport, the socket below, and its protocol; a goodbye is written, and the end has begun."""
    socket, protocol = FakeTransport(loop), Recorder()
    socket.open(protocol)
    transport = LingeringTransport(socket, socket)
    socket.pause_reading()
    transport.write(b"goodbye")
    transport.close()
    return transport, socket, protocol


def test_nothing_is_written_or_heard_behind_the_end(loop: StandingLoop) -> None:
    """Its client's input is read, also where reading was paused, and dropped."""

    async def part() -> None:
        transport, socket, protocol = closing(loop)
        assert transport.is_closing()
        assert not socket.is_closing()
        assert socket.reading
        transport.write(b"more")
        transport.close()
        socket.receive(b"input")
        assert bytes(socket.written) == b"goodbye"
        assert protocol.heard == []
        socket.end()
        await asyncio.sleep(0)
        assert protocol.heard == ["lost"]
        assert loop.timers() == 0
        transport.write(b"more")
        transport.close()

    loop.run_until_complete(part())


def test_a_client_has_so_many_seconds(loop: StandingLoop) -> None:
    """Whatever it sends."""

    async def part() -> None:
        _, socket, protocol = closing(loop)
        await loop.pass_time(LINGER_TIME - 0.1)
        socket.receive(b"input")
        assert not socket.is_closing()
        await loop.pass_time(0.2)
        assert protocol.heard == ["lost"]

    loop.run_until_complete(part())


def test_a_client_has_so_many_bytes(loop: StandingLoop) -> None:
    """One more, and it is cut."""

    async def part() -> None:
        _, socket, protocol = closing(loop)
        for _ in range(16):
            socket.receive(bytes(LINGER_BYTES // 16))
        assert not socket.is_closing()
        socket.receive(b"x")
        await asyncio.sleep(0)
        assert protocol.heard == ["lost"]

    loop.run_until_complete(part())


@pytest.mark.parametrize("reads_after", [None, 2 * LINGER_TIME])
def test_an_answer_is_delivered_to_a_slow_reader(loop: StandingLoop, reads_after: float | None) -> None:
    """For a minute at most; its protocol hears that there is room, as before."""

    async def part() -> None:
        _, socket, protocol = closing(loop)
        socket.fill(full=True)
        passed = 0.0
        while not socket.lost:
            if passed == reads_after:
                socket.fill(full=False)
            await loop.pass_time(1.0)
            passed += 1.0
        if reads_after is None:
            assert passed == DELIVERY_TIME
            assert protocol.heard == ["pause", "lost"]
        else:
            assert reads_after < passed <= reads_after + LINGER_TIME + 1
            assert protocol.heard == ["pause", "resume", "lost"]

    loop.run_until_complete(part())


def test_an_abort_does_not_wait(loop: StandingLoop) -> None:
    """Nor does what makes room for others."""

    async def part() -> None:
        transport, _, protocol = closing(loop)
        transport.abort()
        await asyncio.sleep(0)
        assert protocol.heard == ["lost"]
        assert loop.timers() == 0

    loop.run_until_complete(part())


MISTAKES = {
    "broken frame": b"\x81\x02hi",
    "binary": b"\x82\x81\0\0\0\0x",
    "close": b"\x88\x82\0\0\0\0\x03\xe8",
    "flood": b"\x89\x80\0\0\0\0" * 600,
    "flood and a broken frame": b"\x89\x80\0\0\0\0" * 60 + b"\xff\xff" * 600,
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_session_is_not_written_to_behind_its_end(loop: StandingLoop, name: str) -> None:
    """By whatever still knows it: a ping, an event, a heartbeat, a farewell that was begun before."""

    async def part() -> None:
        stage = Stage()
        connections = Connections(stage.hub, lambda: stage.now)
        socket = FakeTransport(loop)
        transport = LingeringTransport(socket, socket)
        connection = websocket_protocol(connections)()
        socket.open(Recorder())
        connection.connection_made(transport)
        connection.handshake("/ws", [one.split(": ") for one in upgrade_lines()[1:]])  # type: ignore[misc]
        sessions = list(stage.hub.sessions)
        assert len(sessions) == 1
        socket.receive(MISTAKES[name])
        if not transport.is_closing():
            connection.close(1000, "")
        written = bytes(socket.written)
        assert b"\x88" in written
        socket.receive(b"\x89\x80\0\0\0\0" * 10)
        connections.send_bye(sessions)
        for _ in range(20):
            connections.ping_batch()
        stage.log(1)
        stage.settle()
        stage.hub.tick(stage.now + 100)
        connection.ping()
        connection.pause_writing()
        connection.resume_writing()
        assert bytes(socket.written) == written
        assert stage.hub.stats.errors == {"session": 0, "request": 0}
        await loop.pass_time(CLOSE_TIMEOUT)
        assert socket.lost
        assert (len(connections), loop.timers()) == (0, 0)

    loop.run_until_complete(part())
