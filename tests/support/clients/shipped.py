"""Log events of the stream as a test of the shipper reads them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson
from nats.aio.client import Client
from nats.errors import Error as NatsError

from tests.support.patience import PATIENCE
from tickertape.names import Names
from tickertape.nats import connection, streams

BATCH: Final = 500
"""Events of one request."""

RETRY_SECONDS: Final = 5.0
"""Seconds after which a lost request is repeated."""


class Shipped:
    """Log events of the stream, in order."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._names = Names(prefix)
        self._next = 1
        self.events: list[dict[str, Any]] = []

    async def read(self) -> None:
        """Read the events stored since the previous call, in batches."""
        inbox = self._client.new_inbox()
        replies = await self._client.subscribe(inbox)
        subject = f"$JS.API.DIRECT.GET.{self._names.stream('EVENTS')}"
        try:
            found = True
            while found:
                found = False
                request = {"seq": self._next, "next_by_subj": self._names.subject("log.>"), "batch": BATCH}
                await self._client.publish(subject, orjson.dumps(request), reply=inbox)
                while (reply := await replies.next_msg(PATIENCE)).data:
                    assert reply.headers is not None
                    self._next = int(reply.headers["Nats-Sequence"]) + 1
                    self.events.append(orjson.loads(reply.data))
                    found = True
        finally:
            await replies.unsubscribe()

    @property
    def messages(self) -> list[str]:
        """Their messages."""
        return [event["message"] for event in self.events]

    async def until(self, count: int) -> None:
        """Read until there are a number of events."""
        async with asyncio.timeout(PATIENCE):
            while len(self.events) < count:
                await asyncio.sleep(0.03)
                # The server may be down and the request lost.
                with contextlib.suppress(NatsError, TimeoutError):
                    async with asyncio.timeout(RETRY_SECONDS):
                        await self.read()


@contextlib.asynccontextmanager
async def listening(url: str, prefix: str = "") -> AsyncIterator[Shipped]:
    """Create the streams of a deployment; yield its log events."""
    client = await connection.connect(url, name="test")
    await streams.provision(client, Names(prefix))
    try:
        yield Shipped(client, prefix)
    finally:
        await connection.close(client)
