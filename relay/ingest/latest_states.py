"""The newest states, from the stream that keeps one message for each of their subjects."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Event
from tickertape.relay.core.hub import Hub
from tickertape.relay.ingest import stream_reader as replay

from tickertape.names import Names
from tickertape.nats.headers import server_header
from tickertape.nats.streams import StreamsError, stream_info

log = logging.getLogger("tickertape.ingest")

LATEST_LAG_TIMEOUT: Final = 3.0
"""Seconds that the start waits for LATEST to have caught up with EVENTS."""

RELOAD_EVERY: Final = 2.0
"""Seconds between two looks for states among deleted events; every second event may be deleted."""


class LatestStates:
    """Loads the newest states into a hub.

    Args:
        hub: gets them.
        clock: UNIX seconds that never go back.
        names: of subjects and streams.
        patterns: what the relay takes in, as in NATS.
    """

    def __init__(self, hub: Hub, clock: Callable[[], float], names: Names, patterns: tuple[str, ...]) -> None:
        self._hub = hub
        self._clock = clock
        self._names = names
        self._patterns = patterns
        self._missed = asyncio.Event()

    def missed(self) -> None:
        """Note that states may have been among deleted events."""
        self._missed.set()

    async def load(self, nc: Client, *, ahead: bool = True) -> bool:
        """Load the newest states into the snapshot; True when one of them was not there.

        Args:
            nc: a connected client.
            ahead: whether to load those that lie after the log's head, too, and are not shown before it
                reaches them.
        """
        generation, changed = self._hub.generation, False
        latest = self._names.stream("LATEST")
        loop = asyncio.get_running_loop()
        until = loop.time() + LATEST_LAG_TIMEOUT
        there = await stream_info(nc, latest)
        while there and any(source.get("lag", 0) for source in there.get("sources") or ()):
            if loop.time() > until:
                log.warning(
                    "stream %s is behind %s; the first states may be old",
                    latest,
                    self._names.stream("EVENTS"),
                )
                break
            await asyncio.sleep(0.05)
            there = await stream_info(nc, latest)
        async for batch in replay.read(nc, latest, 1, subjects=self._patterns):
            for delivery in batch:
                # The server's own, also behind a producer's headers that break the format.
                origin = server_header(delivery.header_block, "Nats-Stream-Source").split(" ")
                if len(origin) < 2 or not origin[1].isdigit():
                    continue
                seq = int(origin[1])
                subject = self._names.strip_prefix(delivery.subject)
                event = decode(subject, delivery.data)
                if (
                    isinstance(event, Event)
                    and generation == self._hub.generation
                    and (ahead or seq <= self._hub.log.head)
                ):
                    changed |= self._hub.load_state(seq, subject, event, delivery.stored_ns)
        return changed

    async def reload(self, nc: Client) -> None:
        """After deleted events, bring the snapshot up to date, and tell all sessions; until cancelled.

        LATEST still has the newest states among them, which no later event need repeat.
        """
        while True:
            await self._missed.wait()
            self._missed.clear()
            try:
                if await self.load(nc, ahead=False):
                    self._hub.refresh_sessions(self._clock())
            except (StreamsError, NatsError, OSError, TimeoutError) as error:
                log.warning("states may be old, since they cannot be read yet: %s", error)
                self._missed.set()
            await asyncio.sleep(RELOAD_EVERY)
