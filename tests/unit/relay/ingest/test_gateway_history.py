"""``GatewayHistory``: what it reads from HISTORY, and when that is complete."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Final, cast

import pytest
from nats.aio.client import Client
from tickertape.contracts.events import GatewayStatusChange, Status
from tickertape.relay.core.hub import Hub, HubSettings
from tickertape.relay.core.timeline.changes import GatewayKey
from tickertape.relay.ingest import gateway_history, stream_reader
from tickertape.relay.ingest.gateway_history import MAX_SHARED, GatewayHistory

from tests.support.patience import PATIENCE
from tickertape.names import Names
from tickertape.nats import connection, stream_differences
from tickertape.nats.ordered_consumer import Delivery
from tickertape.nats.streams import StreamsError
from tickertape.process.tasks import cancel_and_wait

EVENT: Final = GatewayStatusChange(
    gateway_id="a", gateway_type="ctp", previous_status=Status.UNKNOWN, current_status=Status.HEALTHY
)


class FakeHistory:
    """Stream HISTORY whose source is as a test wants it."""

    is_connected = True

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sources = [{"lag": 0, "active": 0}]
        self.readers: list[tuple[object, bool]] = []
        self.messages = [Delivery(1, EVENT.subject, EVENT.encode(), 0, 0, None)]
        for module in (gateway_history, stream_differences):
            monkeypatch.setattr(module, "stream_info", self._info)
        monkeypatch.setattr(stream_reader, "read", self._read)
        for name in ("CATCH_UP_TIMEOUT", "RETRY_DELAY", "SECOND_READ_DELAY"):
            monkeypatch.setattr(gateway_history, name, 0.001)

    async def _info(self, nc: Client, stream: str) -> dict[str, Any]:
        return {"created": "then", "state": {"last_seq": len(self.messages)}, "sources": self.sources}

    async def _read(
        self, nc: Client, stream: str, first: int, subjects: tuple[str, ...] = (), *, alone: bool = False
    ) -> AsyncGenerator[list[Delivery], None]:
        self.readers.append((nc, alone))
        if batch := self.messages[first - 1 :]:
            yield batch


@pytest.mark.parametrize(
    "source",
    [{"lag": 3, "active": 0}, {"lag": 0, "active": -1}, {"lag": 0, "active": 10_000_000_000}],
    ids=["lags", "has received nothing", "has stalled"],
)
def test_a_history_is_loaded_once_it_has_all_events(
    monkeypatch: pytest.MonkeyPatch, source: dict[str, int]
) -> None:
    """While HISTORY may lack events, pages are not available; then what it has received is read."""
    stream = FakeHistory(monkeypatch)
    history = GatewayHistory(Hub(HubSettings(), lambda: None), Names(), (">",))

    async def until(condition: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.001)

    async def check() -> None:
        running = asyncio.create_task(history.run(cast(Client, stream)))
        stream.sources = [{"lag": 0, "active": 0}, source]
        await until(lambda: history.problem)
        assert not history.loaded
        assert history.problem == "stream HISTORY lags behind EVENTS; wait until it has caught up"
        assert history.timelines.entries == 1
        later = EVENT.model_copy(update={"current_status": Status.UNHEALTHY})
        stream.messages.append(Delivery(2, later.subject, later.encode(), 0, 0, None))
        stream.sources = [{"lag": 0, "active": 0}]
        await until(lambda: history.loaded)
        assert history.problem == ""
        assert history.timelines.entries == 2
        running.cancel()

    asyncio.run(check())


def test_no_silence_is_kept_for_the_next_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """While NATS is unreachable, a silence is an error; nats-py would publish it after the outage."""
    published: list[str] = []

    class Connection(FakeHistory):
        """Connection that keeps what is published, as nats-py does while it reconnects."""

        def jetstream(self) -> "Connection":
            return self

        async def publish(self, subject: str, payload: bytes, **_: Any) -> None:
            published.append(subject)

    async def check() -> None:
        connection = Connection(monkeypatch)
        history = GatewayHistory(Hub(HubSettings(), lambda: None), Names(), (">",))
        running = asyncio.create_task(history.run(cast(Client, connection)))
        await asyncio.sleep(0)
        connection.is_connected = False
        with pytest.raises(StreamsError, match="unreachable"):
            await history.silence(GatewayKey("ctp", "a"), 1.0, "moving", "alice")
        assert published == []
        connection.is_connected = True
        await history.silence(GatewayKey("ctp", "a"), 1.0, "moving", "alice")
        assert published == ["watchdog.silenced.ctp.a"]
        running.cancel()

    asyncio.run(check())


@pytest.mark.parametrize(("messages", "own"), [(MAX_SHARED, False), (MAX_SHARED + 1, True)])
def test_a_long_history_is_read_over_its_own_connection(
    monkeypatch: pytest.MonkeyPatch, messages: int, *, own: bool
) -> None:
    """Live events do not wait for what NATS hands out of HISTORY; the connection is closed afterwards."""
    stream = FakeHistory(monkeypatch)
    stream.messages *= messages
    history = GatewayHistory(Hub(HubSettings(), lambda: None), Names(), (">",))
    closed: list[object] = []

    async def connect_like(nc: object, *, name: str, reconnects: bool) -> str:
        assert (nc, reconnects) == (stream, True)
        return name

    async def close(client: object) -> None:
        closed.append(client)

    monkeypatch.setattr(connection, "connect_like", connect_like)
    monkeypatch.setattr(connection, "close", close)

    async def check() -> None:
        running = asyncio.create_task(history.run(cast(Client, stream)))
        async with asyncio.timeout(PATIENCE):
            while not history.loaded:
                await asyncio.sleep(0.001)
        await cancel_and_wait(running)

    asyncio.run(check())
    assert stream.readers[0] == (("tickertape-relay-history", True) if own else (stream, False))
    assert closed == (["tickertape-relay-history"] if own else [])
    assert history.timelines.entries == 1
