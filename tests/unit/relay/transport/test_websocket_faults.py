"""An exception in what the transport or the clock calls ends one connection, and is reported once."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tickertape.relay.transport.connections import Connections
from tickertape.relay.transport.websocket import Connection, websocket_protocol

from tests.fuzz.inside import upgrade_lines
from tests.fuzz.transport import FakeTransport, StandingLoop
from tests.support.clients.fake_link import Stage


def upgrade_headers() -> list[tuple[str, str]]:
    """Headers of a handshake, as the HTTP protocol hands them over."""
    return [(name, value) for name, _, value in (line.partition(": ") for line in upgrade_lines()[1:])]


class InjectedError(Exception):
    """What the tests raise."""


def broken(*arguments: Any, **named: Any) -> None:
    raise InjectedError


def ping(gate: Connections, victim: FakeTransport, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(victim, "write", broken)
    for _ in range(20):
        gate.ping_some()


def given_up(gate: Connections, victim: FakeTransport, patch: pytest.MonkeyPatch) -> None:
    victim._protocol._missed = 99
    patch.setattr(gate, "closing", broken)
    for _ in range(20):
        gate.ping_some()


def input_of_a_client(gate: Connections, victim: FakeTransport, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Connection, "_too_many", broken)
    victim.receive(b"\x89\x80\x00\x00\x00\x00")
    patch.undo()


def end_of_input(gate: Connections, victim: FakeTransport, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("websockets.protocol.Protocol.receive_eof", broken)
    victim.end()
    patch.undo()


def full_socket(gate: Connections, victim: FakeTransport, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gate.hub.fanout, "pause", once(gate.hub.fanout.pause))
    victim.fill(full=True)


def loss(gate: Connections, victim: FakeTransport, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gate, "discard", once(gate.discard))
    victim.lose()


def once(real: Callable[..., None]) -> Callable[..., None]:
    """Raise the first time, after it was done."""
    left = [True]

    def first(*arguments: Any) -> None:
        real(*arguments)
        if left and left.pop():
            raise InjectedError

    return first


@pytest.mark.parametrize(
    "place",
    [ping, given_up, input_of_a_client, end_of_input, full_socket, loss],
    ids=lambda place: str(place.__name__),
)
def test_the_neighbour_is_served(
    place: Callable[[Connections, FakeTransport, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever raises, the other connection is pinged, and gets the next event."""

    async def part() -> None:
        reported: list[tuple[str, Exception]] = []
        stage = Stage(report=lambda *one: reported.append(one))
        gate = Connections(stage.hub, lambda: stage.now)
        loop = asyncio.get_running_loop()
        sockets = [FakeTransport(loop) for _ in range(2)]
        for one in sockets:
            connection = websocket_protocol(gate)()
            one.open(connection)
            connection.handshake("/ws", upgrade_headers())
            assert b'"subscribed"' in one.written
        victim, neighbour = sockets
        before = len(neighbour.written)
        place(gate, victim, monkeypatch)
        await asyncio.sleep(0)
        errors = stage.hub.stats.errors
        assert errors["session"] + errors["request"] == 1
        assert [type(error) for _, error in reported] == [InjectedError] * errors["session"]
        assert len(stage.hub.sessions) == 1
        gate.ping_some()
        stage.log(1)
        stage.settle()
        assert b"line 1" in neighbour.written[before:]
        for one in sockets:
            if not one.lost:
                one.lose()
        assert (len(gate), len(stage.hub.sessions)) == (0, 0)

    loop = StandingLoop()
    try:
        loop.run_until_complete(part())
    finally:
        loop.close()


@pytest.mark.parametrize("early", [b"", b"\x89\x80\x00\x00\x00\x00"])
def test_a_handshake_that_raises_is_answered(early: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 500 in JSON; what the client sent behind it is not read."""

    async def part() -> None:
        stage = Stage()
        gate = Connections(stage.hub, lambda: stage.now)
        monkeypatch.setattr(gate, "decide", broken)
        socket = FakeTransport(asyncio.get_running_loop())
        connection = websocket_protocol(gate)()
        socket.open(connection)
        connection.handshake("/ws", upgrade_headers())
        connection.data_received(early)
        assert bytes(socket.written).startswith(b"HTTP/1.1 500 ")
        assert b'{"code":"internal"' in socket.written
        assert socket.is_closing()
        assert stage.hub.stats.errors["request"] == 1

    loop = StandingLoop()
    try:
        loop.run_until_complete(part())
    finally:
        loop.close()
