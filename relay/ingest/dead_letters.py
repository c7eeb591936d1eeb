"""What breaks the contract is filed in REJECTED, for its maker to find.

Invariants: it never holds up the flow of events; what waits for NATS is bounded, and beyond that counted; a
subject is never longer than a server takes; whatever bytes came, a dead letter's subject and headers are
legal.
"""

import asyncio
import base64
import logging
from collections import deque
from typing import Final, NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.contracts import subjects
from tickertape.contracts.events import Rejection

from tickertape.names import Names
from tickertape.text import printable, truncate

log = logging.getLogger("tickertape.ingest")

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


class DeadLetter(NamedTuple):
    """A message that is to be filed.

    Attributes:
        cursor: epoch, time and sequence of its place, with dashes; the same at every relay.
        subject: without prefix; bytes that are not UTF-8 are lone surrogates.
        data: as it came; None when it could not be read.
        why: it is rejected.
        header_block: as it came; kept when the subject is illegal.
    """

    cursor: str
    subject: str
    data: bytes | None
    why: Rejection
    header_block: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes that it holds while it waits."""
        return len(self.data or b"") + len(self.header_block or b"")


class DeadLetters:
    """Events that are to be filed.

    Args:
        names: of subjects.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._waiting: deque[DeadLetter] = deque()
        self._bytes = 0
        self._more = asyncio.Event()
        self._overflow = 0

    def add(self, letter: DeadLetter) -> None:
        """File a message when NATS takes it; the same one, filed by several relays, is filed once."""
        if len(self._waiting) >= MAX_TO_FILE or self._bytes + letter.size > MAX_TO_FILE_BYTES:
            self._overflow += 1
            if self._overflow == 1:
                log.warning("more events are rejected than can be filed; the rest is only counted")
            return
        self._waiting.append(letter)
        self._bytes += letter.size
        self._more.set()

    async def run(self, nc: Client) -> None:
        """Put what was rejected where its maker can find it, beside the flow of events; until cancelled."""
        stream = nc.jetstream()
        while True:
            await self._more.wait()
            self._more.clear()
            while self._waiting:
                place, body, headers = addressed(self._waiting[0], self._names, nc.max_payload)
                try:
                    await stream.publish(place, body, timeout=2.0, headers=headers)
                # ValueError and KeyError: nats-py cannot read the acknowledgement.
                except (NatsError, OSError, TimeoutError, ValueError, KeyError) as error:
                    cursor = self._waiting[0].cursor
                    log.warning("event %s could not be filed as rejected yet: %s", cursor, error)
                    await asyncio.sleep(RETRY_DELAY)
                    if nc.is_connected and self._overflow:
                        self._filed()
                    continue
                self._filed()
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    # wait_for, in nats-py, forgets a cancellation that comes together with the answer.
                    raise asyncio.CancelledError
            if self._overflow:
                log.warning("%d rejected events were only counted", self._overflow)
                self._overflow = 0

    def _filed(self) -> None:
        """Let go of the oldest that waits to be filed."""
        self._bytes -= self._waiting.popleft().size


def addressed(letter: DeadLetter, names: Names, max_payload: int) -> tuple[str, bytes, dict[str, str]]:
    """Subject, body and headers of a dead letter, as the contract has them.

    Args:
        letter: what is filed.
        names: of subjects.
        max_payload: bytes that the server takes, headers included; the body goes before the raw headers.
    """
    headers = {
        "Tickertape-Reason": printable(str(letter.why))[:500],
        "Tickertape-Sequence": letter.cursor.rpartition("-")[2],
        "Nats-Msg-Id": letter.cursor,
    }
    subject, room = letter.subject, HEADER_ROOM
    illegal = subjects.find_subject_error(subject) is not None
    if illegal:
        raw = names.subject(subject).encode(errors="surrogateescape")
        headers["Tickertape-Raw-Subject"] = base64.b64encode(raw).decode()
        room += len(headers["Tickertape-Raw-Subject"])
        subject = subjects.escape_subject(subject)
    place = names.subject(f"rejected.{subject}")
    if len(place.encode()) > MAX_SUBJECT:
        if not illegal:
            headers["Tickertape-Subject"] = place
            room += len(place.encode())
        place = truncate(place, MAX_SUBJECT).rpartition(".")[0]
    if letter.data is None:
        headers["Tickertape-Body"] = "unavailable"
    data = letter.data or b""
    body = data[: max(0, max_payload - room)]
    if len(body) < len(data):
        headers["Tickertape-Size"] = str(len(data))
    if illegal and letter.header_block:
        kept = letter.header_block[: max(0, max_payload - room - len(body)) // 4 * 3]
        headers["Tickertape-Raw-Headers"] = base64.b64encode(kept).decode()
        if len(kept) < len(letter.header_block):
            headers["Tickertape-Raw-Headers-Size"] = str(len(letter.header_block))
    return place, body, headers
