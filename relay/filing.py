"""What breaks the contract is filed in REJECTED, for its maker to find.

Invariants: it never holds up the flow of events; what waits for NATS is bounded, and beyond that counted; a
subject is never longer than a server takes.
"""

import asyncio
import logging
from collections import deque
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from contracts.events import Rejected
from contracts.streams import Names

log = logging.getLogger("tickertape.intake")

RETRY_DELAY: Final = 0.5
"""Seconds before what NATS did not take is given to it again."""

MAX_TO_FILE: Final = 1_000
"""Rejected events that wait to be filed; past it they are only counted."""

MAX_TO_FILE_BYTES: Final = 16 * 1024 * 1024
"""Bytes of them, likewise."""

MAX_SUBJECT: Final = 3_800
"""Bytes of a subject that an event is filed under: a server closes the connection over a control line of more
than 4 096, which names the place of the answer too. The whole of a longer one is in a header."""

HEADER_ROOM: Final = 4 * 1024
"""Bytes of a message that the headers of a rejected event may take. NATS ends the connection of whoever sends
more than it takes, headers included, and an event may be as large as it takes without them."""


class Filing:
    """Events that are to be filed.

    Args:
        names: of subjects.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._waiting: deque[tuple[str, str, bytes, Rejected]] = deque()
        self._bytes = 0
        self._more = asyncio.Event()
        self._overflow = 0

    def add(self, cursor: str, subject: str, data: bytes, why: Rejected) -> None:
        """File an event when NATS takes it; the same one, filed by several relays, is filed once.

        Args:
            cursor: epoch, time and sequence of its place, with dashes; the same at every relay.
            subject: without prefix.
            data: as it came.
            why: it is rejected.
        """
        if len(self._waiting) >= MAX_TO_FILE or self._bytes + len(data) > MAX_TO_FILE_BYTES:
            self._overflow += 1
            if self._overflow == 1:
                log.warning("more events are rejected than can be filed; the rest is only counted")
            return
        self._waiting.append((cursor, subject, data, why))
        self._bytes += len(data)
        self._more.set()

    async def run(self, nc: Client) -> None:
        """Put what was rejected where its maker can find it, beside the flow of events; until cancelled."""
        stream = nc.jetstream()
        while True:
            await self._more.wait()
            self._more.clear()
            while self._waiting:
                cursor, subject, data, why = self._waiting[0]
                headers = {
                    "Tickertape-Reason": "".join(c if c.isprintable() else "?" for c in str(why))[:500],
                    "Tickertape-Sequence": cursor.rpartition("-")[2],
                    "Nats-Msg-Id": cursor,
                }
                place, room = self._names.subject(f"rejected.{subject}"), HEADER_ROOM
                if len(place.encode()) > MAX_SUBJECT:
                    headers["Tickertape-Subject"] = place
                    room += len(place.encode())
                    place = place.encode()[:MAX_SUBJECT].decode(errors="ignore").rpartition(".")[0]
                body = data[: nc.max_payload - room]
                if len(body) < len(data):
                    headers["Tickertape-Size"] = str(len(data))
                try:
                    await stream.publish(place, body, timeout=2.0, headers=headers)
                except (NatsError, OSError, TimeoutError) as error:
                    log.warning("event %s could not be filed as rejected yet: %s", cursor, error)
                    await asyncio.sleep(RETRY_DELAY)
                    if nc.is_connected and self._overflow:
                        self._filed()
                    continue
                self._filed()
            if self._overflow:
                log.warning("%d rejected events were only counted", self._overflow)
                self._overflow = 0

    def _filed(self) -> None:
        """Let go of the oldest that waits to be filed."""
        _, _, data, _ = self._waiting.popleft()
        self._bytes -= len(data)
