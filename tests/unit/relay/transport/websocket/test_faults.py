"""An exception in a callback of the transport or a timer ends one connection and is reported once."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tickertape.relay.transport import handshake
from tickertape.relay.transport.accounting import Accounting
from tickertape.relay.transport.connections import Connections
from tickertape.relay.transport.websocket.connection import websocket_protocol
from tickertape.relay.transport.websocket.frame_reader import FrameReader

from tests.fuzz.inside import upgrade_lines
from tests.fuzz.transport import FakeTransport, StandingLoop
from tests.support.clients.fake_link import Stage


def upgrade_headers() -> list[tuple[str, str]]:
    """Return the headers of a handshake as the HTTP protocol passes them."""
    return [(name, value) for name, _, value in (line.partition(": ") for line in upgrade_lines()[1:])]


class InjectedError(Exception):
    """Exception raised by the tests."""


def broken(*arguments: Any, **named: Any) -> None:
    raise InjectedError


def ping(connections: Connections, victim: FakeTransport, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(victim, "write", broken)
    for _ in range(20):
        connections.ping_batch()


def given_up(connections: Connections, victim: FakeTransport, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Accounting, "record_close", broken)
    for _ in range(3):
        victim._protocol.ping()


def input_of_a_client(connections: Connections, victim: FakeTransport, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FrameReader, "parse", broken)
    victim.receive(b"\x89\x80\x00\x00\x00\x00")
    patch.undo()


def end_of_input(connections: Connections, victim: FakeTransport, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("websockets.protocol.Protocol.receive_eof", broken)
    victim.end()
    patch.undo()


def full_socket(connections: Connections, victim: FakeTransport, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(connections.hub.fanout, "pause", raise_once(connections.hub.fanout.pause))
    victim.fill(full=True)


def loss(connections: Connections, victim: FakeTransport, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(connections, "discard", raise_once(connections.discard))
    victim.lose()


def raise_once(real: Callable[..., None]) -> Callable[..., None]:
    """Return a function that calls another and raises after its first call."""
    left = [True]

    def wrapper(*arguments: Any) -> None:
        real(*arguments)
        if left and left.pop():
            raise InjectedError

    return wrapper


@pytest.mark.parametrize(
    "cause",
    [ping, given_up, input_of_a_client, end_of_input, full_socket, loss],
    ids=lambda cause: str(cause.__name__),
)
def test_other_connections_are_not_affected(
    cause: Callable[[Connections, FakeTransport, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an exception in one connection, the other is still pinged and receives the next event."""

    async def scenario() -> None:
        reported: list[tuple[str, Exception]] = []
        stage = Stage(report=lambda *report: reported.append(report))
        connections = Connections(stage.hub, lambda: stage.now)
        loop = asyncio.get_running_loop()
        sockets = [FakeTransport(loop) for _ in range(2)]
        for socket in sockets:
            connection = websocket_protocol(connections)()
            socket.open(connection)
            connection.handshake("/ws", upgrade_headers())
            assert b'"subscribed"' in socket.written
        victim, neighbour = sockets
        before = len(neighbour.written)
        cause(connections, victim, monkeypatch)
        await asyncio.sleep(0)
        errors = stage.hub.stats.errors
        assert errors["session"] + errors["request"] == 1
        assert [type(error) for _, error in reported] == [InjectedError] * errors["session"]
        assert len(stage.hub.sessions) == 1
        connections.ping_batch()
        stage.log(1)
        stage.settle()
        assert b"line 1" in neighbour.written[before:]
        for socket in sockets:
            if not socket.lost:
                socket.lose()
        assert (len(connections), len(stage.hub.sessions)) == (0, 0)

    loop = StandingLoop()
    try:
        loop.run_until_complete(scenario())
    finally:
        loop.close()


@pytest.mark.parametrize("early", [b"", b"\x89\x80\x00\x00\x00\x00"])
def test_a_handshake_that_raises_is_answered(early: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handshake that raises is answered with 500 in JSON, and further input of the client is not read."""

    async def scenario() -> None:
        stage = Stage()
        connections = Connections(stage.hub, lambda: stage.now)
        monkeypatch.setattr(handshake, "decide", broken)
        socket = FakeTransport(asyncio.get_running_loop())
        connection = websocket_protocol(connections)()
        socket.open(connection)
        connection.handshake("/ws", upgrade_headers())
        connection.data_received(early)
        assert bytes(socket.written).startswith(b"HTTP/1.1 500 ")
        assert b'{"code":"internal"' in socket.written
        assert socket.is_closing()
        assert stage.hub.stats.errors["request"] == 1

    loop = StandingLoop()
    try:
        loop.run_until_complete(scenario())
    finally:
        loop.close()
