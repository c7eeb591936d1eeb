"""Messages that were read before the connection failed are delivered."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tickertape.relay.ingest import stream_reader

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
