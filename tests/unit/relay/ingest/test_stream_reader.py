"""Messages that were read before the connection failed are delivered."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tickertape.relay.ingest import stream_reader
from tickertape.relay.ingest.stream_reader import BATCH_SIZE

from tests.support.patience import PATIENCE
from tickertape.nats.ordered_consumer import Delivery
from tickertape.nats.streams import StreamsError


class LostConsumer:
    """Consumer that delivers two messages and is lost before its reader runs."""

    pending = 5

    def __init__(
        self, nc: Any, stream: str, handle: Callable[[Delivery], None], lost: Callable[[str], None]
    ) -> None:
        self._handle = handle
        self._lost = lost

    async def start(self, first: int, subjects: tuple[str, ...]) -> None:
        for seq in (first, first + 1):
            self._handle(Delivery(seq, "log.info.x", b"{}", seq, 5, None))
        self._lost("the connection was cut")

    async def stop(self) -> None:
        """Do nothing, since there is nothing to stop."""


def test_messages_before_a_failure_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages before a failure are read; otherwise the first would be skipped as the failing one."""
    monkeypatch.setattr(stream_reader, "OrderedConsumer", LostConsumer)

    async def scenario() -> None:
        client: Any = None
        found: list[int] = []

        async def read() -> None:
            async for batch in stream_reader.read(client, "EVENTS", 3, 9):
                found.extend(delivery.seq for delivery in batch)

        with pytest.raises(StreamsError, match="the connection was cut"):
            await read()
        assert found == [3, 4]

    asyncio.run(scenario())


class FedConsumer:
    """Consumer whose messages a test delivers."""

    pending = 2_000
    handle: Callable[[Delivery], Awaitable[object] | None]

    def __init__(self, nc: Any, stream: str, handle: Any, lost: Callable[[str], None]) -> None:
        FedConsumer.handle = staticmethod(handle)

    async def start(self, first: int, subjects: tuple[str, ...]) -> None:
        """Start with a batch that arrives before the reply to the request, for which nothing may wait."""
        for seq in range(first, first + BATCH_SIZE):
            assert FedConsumer.handle(Delivery(seq, "log.info.x", b"{}", seq, 2_000)) is None

    async def stop(self) -> None:
        """Do nothing, since there is nothing to stop."""


@pytest.mark.parametrize("alone", [True, False])
def test_a_connection_is_read_no_faster_than_its_batches(
    monkeypatch: pytest.MonkeyPatch, *, alone: bool
) -> None:
    """The connection of a reader that is alone waits while a batch is in hand; a shared one never does."""
    monkeypatch.setattr(stream_reader, "OrderedConsumer", FedConsumer)

    async def scenario() -> None:
        client: Any = None
        batches = stream_reader.read(client, "EVENTS", 1, alone=alone)
        async with asyncio.timeout(PATIENCE):
            assert len(await anext(batches)) == BATCH_SIZE
            waits = [
                FedConsumer.handle(Delivery(seq, "log.info.x", b"{}", seq, 2_000))
                for seq in range(1_000, 1_512)
            ]
            assert [wait is None for wait in waits] == [True] * 511 + [not alone]
            waiting = asyncio.ensure_future(asyncio.gather(*(wait for wait in waits if wait is not None)))
            await asyncio.sleep(0)
            assert waiting.done() is not alone
            assert len(await anext(batches)) == BATCH_SIZE
            await waiting
            await batches.aclose()

    asyncio.run(scenario())
