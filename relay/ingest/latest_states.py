"""Newest states, read from LATEST and HEALTH, the streams that keep one message per subject."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Event
from tickertape.relay.core.hub import Hub
from tickertape.relay.ingest import stream_reader

from tickertape.names import Names
from tickertape.nats.streams import PermissionDenied, StreamsError, stream_info
from tickertape.nats.wire.headers import server_header

log = logging.getLogger("tickertape.ingest")

LATEST_LAG_TIMEOUT: Final = 3.0
"""Seconds to wait at startup until a stream of states has caught up with EVENTS."""

RELOAD_INTERVAL: Final = 2.0
"""Minimum seconds between two reloads; with short TTLs, every other event could request a reload."""


class LatestStates:
    """Loader of the newest states into a hub.

    Args:
        hub: hub to load into.
        clock: UNIX seconds that never decrease.
        names: names of subjects and streams.
        patterns: subject patterns of the relay, as in NATS.
    """

    def __init__(self, hub: Hub, clock: Callable[[], float], names: Names, patterns: tuple[str, ...]) -> None:
        self._hub = hub
        self._clock = clock
        self._names = names
        self._patterns = patterns
        self._reload_requested = asyncio.Event()

    def request_reload(self) -> None:
        """Request a reload, because deleted events may have included states."""
        self._reload_requested.set()

    async def load(self, nc: Client, *, ahead: bool = True) -> bool:
        """Load the newest states into the snapshot; return whether any of them was new.

        Args:
            nc: connected client.
            ahead: whether to load states after the log's head, too; they are hidden until it reaches them.
        """
        changed = await self._load(nc, self._names.stream("LATEST"), ahead)
        health = self._names.stream("HEALTH")
        # In the layout of an earlier version, LATEST has the states of components as well.
        if await stream_info(nc, health) is not None:
            try:
                changed |= await self._load(nc, health, ahead)
            # Permissions of an earlier version: gateways are more important than components.
            except PermissionDenied as error:
                log.warning("cannot load the states of components: %s", error)
        return changed

    async def _load(self, nc: Client, stream: str, ahead: bool) -> bool:
        """Load the states of one stream."""
        generation, changed = self._hub.generation, False
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LATEST_LAG_TIMEOUT
        info = await stream_info(nc, stream)
        # It copies from EVENTS asynchronously. Without this wait, states up to the head could be missing from
        # the snapshot, and the consumer, which starts after the head, would not deliver them.
        while info and any(source.get("lag", 0) for source in info.get("sources") or ()):
            if loop.time() > deadline:
                log.warning(
                    "stream %s lags behind %s; the first states may be stale",
                    stream,
                    self._names.stream("EVENTS"),
                )
                break
            await asyncio.sleep(0.05)
            info = await stream_info(nc, stream)
        async for batch in stream_reader.read(nc, stream, 1, subjects=self._patterns):
            for delivery in batch:
                # Only the header that the server added counts; a producer may have sent malformed headers.
                origin = server_header(delivery.header_block, "Nats-Stream-Source").split(" ")
                if len(origin) < 2 or not origin[1].isdigit():
                    continue
                seq = int(origin[1])
                subject = self._names.strip_prefix(delivery.subject)
                event = decode(subject, delivery.data)
                if (
                    isinstance(event, Event)
                    # EVENTS may be replaced while a copy is read; its old states are then invalid.
                    and generation == self._hub.generation
                    and (ahead or seq <= self._hub.log.head)
                ):
                    changed |= self._hub.load_state(seq, subject, event, delivery.stored_ns)
        return changed

    async def reload(self, nc: Client) -> None:
        """Reload states after deleted events and send them to all sessions, until cancelled.

        LATEST and HEALTH still have the newest states among the deleted events, and no later event need
        repeat them.
        """
        while True:
            await self._reload_requested.wait()
            # Cleared before reading, so that a request in the meantime leads to another reload.
            self._reload_requested.clear()
            try:
                if await self.load(nc, ahead=False):
                    self._hub.refresh_sessions(self._clock())
            except (StreamsError, NatsError, OSError, TimeoutError) as error:
                log.warning("cannot reload states, which may be stale, retrying: %s", error)
                self._reload_requested.set()
            await asyncio.sleep(RELOAD_INTERVAL)
