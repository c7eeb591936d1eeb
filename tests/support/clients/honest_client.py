"""A well-behaved client beside an attack: it is connected before the attack and must not be affected.

It runs in a thread of its own, so that one client can watch all tests of a module.
"""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from nats.js import JetStreamContext
from tickertape.contracts.messages import Events, Heartbeat

from tests.support.clients.feed_client import PATIENCE, FeedClient, follow, jetstream, line, publish
from tests.support.programs.deployment import Deployment
from tests.support.programs.relay_process import Relay

SOURCE: Final = "honest"
"""Source of the lines that it publishes to itself; no attack uses it."""

T = TypeVar("T")


class Honest:
    """Client that follows a subject on which only it publishes; a context manager.

    Args:
        relay: relay under attack.
        token: a valid token, if the relay requires one.
        prefix: subject prefix of the relay, including its dot.
    """

    def __init__(self, relay: Relay | Deployment, token: str | None = None, prefix: str = "") -> None:
        self._relay = relay
        self._token = token
        self._prefix = prefix
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="honest", daemon=True)
        self._stack = AsyncExitStack()
        self._feed: FeedClient
        self._js: JetStreamContext

    def __repr__(self) -> str:
        return f"<Honest at {self._relay!r}>"

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait(self._connect())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def noticed_nothing(self) -> None:
        """Publish an event, and check that it is the next message of an undisturbed session.

        Raises:
            AssertionError: another message arrived.
            ConnectionClosed: the relay ended the session.
        """
        self._wait(self._next())

    async def _connect(self) -> None:
        self._feed = await self._stack.enter_async_context(
            follow(self._relay.ws_url, token=self._token, subjects=f"log.error.{SOURCE}")
        )
        self._js = await self._stack.enter_async_context(jetstream(self._relay.nats_url))
        self._feed.messages.clear()

    async def _next(self) -> None:
        feed = self._feed
        seq = await publish(self._js, line("still here", "ERROR", SOURCE), self._prefix)
        await feed.until(lambda: bool(feed.seqs()))
        assert feed.seqs() == [seq]
        assert all(isinstance(message, Events | Heartbeat) for message in feed.messages), feed.messages
        feed.messages.clear()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * PATIENCE)
