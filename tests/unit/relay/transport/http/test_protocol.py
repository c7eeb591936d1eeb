"""Deadlines of HTTP responses that a client does not read."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from starlette.types import Message
from tickertape.relay.transport.http import responses
from tickertape.relay.transport.http.protocol import RESPONSE_TIMEOUT
from tickertape.relay.transport.http.responses import StreamedResponse

from tests.fuzz.inside import Inside
from tests.fuzz.transport import FakeTransport, StandingLoop

REQUEST = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def run(scenario: Callable[[Inside, StandingLoop], Any]) -> None:
    """Run a scenario with a relay without sockets."""

    async def main() -> None:
        inside = Inside()
        try:
            await scenario(inside, cast(StandingLoop, asyncio.get_running_loop()))
        finally:
            inside.close()

    loop = StandingLoop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


async def pending(inside: Inside, loop: StandingLoop) -> FakeTransport:
    """Return a connection whose first response waits for a client that does not read."""
    transport = inside.open()
    transport.receive(REQUEST)
    await loop.pass_time(0.0)
    transport.fill(full=True)
    transport.receive(REQUEST)
    await loop.pass_time(0.0)
    return transport


def test_a_response_that_is_not_read_is_aborted() -> None:
    """A connection is closed ``RESPONSE_TIMEOUT`` after the head whose response is not read."""

    async def scenario(inside: Inside, loop: StandingLoop) -> None:
        transport = await pending(inside, loop)
        await loop.pass_time(RESPONSE_TIMEOUT - 1)
        assert not transport.lost
        await loop.pass_time(2.0)
        assert transport.lost

    run(scenario)


def test_further_requests_give_no_more_time() -> None:
    """Requests that are pipelined behind a response that is not read do not delay its deadline."""

    async def scenario(inside: Inside, loop: StandingLoop) -> None:
        transport = await pending(inside, loop)
        for _ in range(3):
            await loop.pass_time(RESPONSE_TIMEOUT / 3 - 1)
            assert not transport.lost
            transport.receive(REQUEST)
            await loop.pass_time(0.0)
        await loop.pass_time(4.0)
        assert transport.lost

    run(scenario)


def test_a_large_response_ends_without_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host's server that waits for a client forever does not keep a page in memory."""
    monkeypatch.setattr(responses, "SEND_TIMEOUT", 0.01)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) > 2:
            await asyncio.Event().wait()

    async def receive() -> Message:
        raise AssertionError("nothing is received")

    asyncio.run(StreamedResponse(bytes(1 << 20))({"type": "http"}, receive, send))
    assert len(sent) == 3
