"""The bounds of a lingering close, during which nothing more is written to the connection."""

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
from tickertape.relay.transport.websocket.connection import websocket_protocol

from tests.fuzz.inside import upgrade_lines
from tests.fuzz.transport import FakeTransport, StandingLoop
from tests.support.clients.fake_link import Stage


class Recorder(asyncio.Protocol):
    """Protocol that records the calls of its transport."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def data_received(self, data: bytes) -> None:
        self.calls.append(data)

    def eof_received(self) -> None:
        self.calls.append("eof")

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")


@pytest.fixture
def loop() -> Iterator[StandingLoop]:
    """Yield an event loop whose clock is set by hand."""
    fake_loop = StandingLoop()
    yield fake_loop
    fake_loop.close()


def closing(loop: StandingLoop) -> tuple[LingeringTransport, FakeTransport, Recorder]:
    """Return a transport that closes after a write, the socket below it, and its protocol."""
    socket, protocol = FakeTransport(loop), Recorder()
    socket.open(protocol)
    transport = LingeringTransport(socket, socket)
    socket.pause_reading()
    transport.write(b"bye")
    transport.close()
    return transport, socket, protocol


def test_nothing_is_written_or_delivered_after_a_close(loop: StandingLoop) -> None:
    """After a close, input is read (even if reading was paused) and discarded, and writes are ignored."""

    async def scenario() -> None:
        transport, socket, protocol = closing(loop)
        assert transport.is_closing()
        assert not socket.is_closing()
        assert socket.reading
        transport.write(b"more")
        transport.close()
        socket.receive(b"input")
        assert bytes(socket.written) == b"bye"
        assert protocol.calls == []
        socket.end()
        await asyncio.sleep(0)
        assert protocol.calls == ["lost"]
        assert loop.timers() == 0
        transport.write(b"more")
        transport.close()

    loop.run_until_complete(scenario())


def test_a_client_is_cut_after_the_linger_time(loop: StandingLoop) -> None:
    """A client is disconnected `LINGER_TIME` after the close, even while it keeps sending."""

    async def scenario() -> None:
        _, socket, protocol = closing(loop)
        await loop.pass_time(LINGER_TIME - 0.1)
        socket.receive(b"input")
        assert not socket.is_closing()
        await loop.pass_time(0.2)
        assert protocol.calls == ["lost"]

    loop.run_until_complete(scenario())


def test_a_client_is_cut_after_the_linger_bytes(loop: StandingLoop) -> None:
    """A client that sends more than `LINGER_BYTES` after the close is disconnected."""

    async def scenario() -> None:
        _, socket, protocol = closing(loop)
        for _ in range(16):
            socket.receive(bytes(LINGER_BYTES // 16))
        assert not socket.is_closing()
        socket.receive(b"x")
        await asyncio.sleep(0)
        assert protocol.calls == ["lost"]

    loop.run_until_complete(scenario())


@pytest.mark.parametrize("reads_after", [None, 2 * LINGER_TIME])
def test_a_response_is_delivered_to_a_slow_reader(loop: StandingLoop, reads_after: float | None) -> None:
    """A slow reader has `DELIVERY_TIME` to read a response; its protocol is still paused and resumed."""

    async def scenario() -> None:
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
            assert protocol.calls == ["pause", "lost"]
        else:
            assert reads_after < passed <= reads_after + LINGER_TIME + 1
            assert protocol.calls == ["pause", "resume", "lost"]

    loop.run_until_complete(scenario())


def test_an_abort_does_not_linger(loop: StandingLoop) -> None:
    """An abort, which also frees capacity for other clients, closes the connection without lingering."""

    async def scenario() -> None:
        transport, _, protocol = closing(loop)
        transport.abort()
        await asyncio.sleep(0)
        assert protocol.calls == ["lost"]
        assert loop.timers() == 0

    loop.run_until_complete(scenario())


MISTAKES = {
    "broken frame": b"\x81\x02hi",
    "binary": b"\x82\x81\0\0\0\0x",
    "close": b"\x88\x82\0\0\0\0\x03\xe8",
    "flood": b"\x89\x80\0\0\0\0" * 600,
    "flood and a broken frame": b"\x89\x80\0\0\0\0" * 60 + b"\xff\xff" * 600,
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_session_is_not_written_to_after_its_close(loop: StandingLoop, name: str) -> None:
    """A ping, an event, a heartbeat or a bye message is not written to a session after its close frame."""

    async def scenario() -> None:
        stage = Stage()
        connections = Connections(stage.hub, lambda: stage.now)
        socket = FakeTransport(loop)
        transport = LingeringTransport(socket, socket)
        connection = websocket_protocol(connections)()
        socket.open(Recorder())
        connection.connection_made(transport)
        connection.handshake("/ws", [line.split(": ") for line in upgrade_lines()[1:]])  # type: ignore[misc]
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

    loop.run_until_complete(scenario())
