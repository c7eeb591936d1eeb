"""Dead letters: events that violate the contract, stored in REJECTED for the developers of their producers.

Invariants:

1. Storing dead letters never delays events.
2. The queue of dead letters is bounded, in total and for each source; those beyond a bound are only counted.
3. The subject and the headers of a dead letter are legal, whatever bytes were received, and its subject is
   never longer than the server accepts.
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
from tickertape.nats.errors import DENIAL_REPORT_INTERVAL
from tickertape.nats.jetstream_api import describe_publish_error
from tickertape.rate_limit import RepeatFilter
from tickertape.text import printable, truncate

log = logging.getLogger("tickertape.ingest")

RETRY_DELAY: Final = 0.5
"""Seconds before a dead letter that NATS did not accept is published again."""

MAX_QUEUED: Final = 1_000
"""Maximum number of queued dead letters; further ones are only counted."""

MAX_QUEUED_BYTES: Final = 16 * 1024 * 1024
"""Maximum bytes of queued dead letters."""

SHARES: Final = 4
"""The dead letters of one source take at most this fraction of the queue, so that it has room for others."""

MAX_SUBJECT: Final = 3_800
"""Maximum bytes of the subject of a dead letter. A server closes the connection when a control line exceeds
4 096 bytes, including the reply subject. A longer subject is truncated, and a header has the original."""

HEADER_BYTES: Final = 4 * 1024
"""Bytes reserved for the headers of a dead letter. NATS closes the connection of a client whose message, with
headers, exceeds the maximum payload, and an event without headers may be that large."""


class DeadLetter(NamedTuple):
    """Rejected message to store in REJECTED.

    Attributes:
        cursor: epoch, storage time (if known) and sequence of the message, joined by dashes; the same in
            every relay.
        subject: subject without the prefix; bytes that are not UTF-8 are lone surrogates.
        data: body as received; None if it could not be read.
        rejection: reason for the rejection.
        header_block: headers as received; stored only if the subject is illegal.
    """

    cursor: str
    subject: str
    data: bytes | None
    rejection: Rejection
    header_block: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes that the dead letter occupies in the queue."""
        return len(self.data or b"") + len(self.header_block or b"")

    @property
    def source(self) -> str:
        """First three tokens of the subject, such as the level and the source of a log event."""
        return ".".join(self.subject.split(".", 3)[:3])


class DeadLetters:
    """Queue of dead letters, published in the background.

    Args:
        names: names of subjects.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._queue: deque[DeadLetter] = deque()
        self._bytes = 0
        self._queued: dict[str, tuple[int, int]] = {}  # number and bytes in the queue, by source
        self._added = asyncio.Event()
        self._overflow = 0

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, letter: DeadLetter) -> None:
        """Queue a dead letter; if several relays publish the same one, it is stored once."""
        number, size = self._queued.get(letter.source, (0, 0))
        number, size = number + 1, size + letter.size
        if (
            len(self._queue) >= MAX_QUEUED
            or self._bytes + letter.size > MAX_QUEUED_BYTES
            or number * SHARES > MAX_QUEUED
            or size * SHARES > MAX_QUEUED_BYTES
        ):
            self._overflow += 1
            if self._overflow == 1:
                log.warning(
                    "dead letter queue is full, most recently with those of %s; further rejected events are "
                    "only counted",
                    printable(letter.source)[:200],
                )
            return
        self._queue.append(letter)
        self._bytes += letter.size
        self._queued[letter.source] = number, size
        self._added.set()

    async def run(self, nc: Client) -> None:
        """Publish queued dead letters until cancelled."""
        jetstream = nc.jetstream()
        now = asyncio.get_running_loop().time
        reports = RepeatFilter(DENIAL_REPORT_INTERVAL)
        while True:
            await self._added.wait()
            self._added.clear()
            while self._queue:
                # Encoded at each attempt, because the payload limit may differ after a reconnect. Meanwhile
                # ``add`` only appends, so the first dead letter stays the same until it is removed below.
                subject, body, headers = encode_dead_letter(self._queue[0], self._names, nc.max_payload)
                try:
                    await jetstream.publish(subject, body, timeout=2.0, headers=headers)
                # nats-py raises ValueError and KeyError for an acknowledgement that it cannot parse.
                except (NatsError, OSError, TimeoutError, ValueError, KeyError) as error:
                    failure = describe_publish_error(error)
                    if reports.allow(failure, now()):
                        cursor = self._queue[0].cursor
                        log.warning("cannot store dead letter of event %s, retrying: %s", cursor, failure)
                    await asyncio.sleep(RETRY_DELAY)
                    if nc.is_connected and self._overflow:
                        # NATS is reachable but rejects this one, and the queue has overflowed: drop it.
                        self.remove_oldest()
                    continue
                self.remove_oldest()
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    # wait_for in nats-py swallows a cancellation that arrives together with the response.
                    raise asyncio.CancelledError
            if self._overflow:
                log.warning("%d rejected events were counted but not stored as dead letters", self._overflow)
                self._overflow = 0

    def remove_oldest(self) -> None:
        """Remove the oldest dead letter from the queue."""
        letter = self._queue.popleft()
        self._bytes -= letter.size
        number, size = self._queued.pop(letter.source)
        if number > 1:
            self._queued[letter.source] = number - 1, size - letter.size


def encode_dead_letter(
    letter: DeadLetter, names: Names, max_payload: int
) -> tuple[str, bytes, dict[str, str]]:
    """Return the subject, body and headers of a dead letter, as the contract defines them.

    Args:
        letter: dead letter to encode.
        names: names of subjects.
        max_payload: maximum bytes of a message, headers included; the body has precedence over raw headers.
    """
    headers = {
        "Tickertape-Reason": printable(str(letter.rejection))[:500],
        "Tickertape-Sequence": letter.cursor.rpartition("-")[2],
        "Nats-Msg-Id": letter.cursor,
    }
    original, header_bytes = letter.subject, HEADER_BYTES
    illegal = subjects.find_subject_error(original) is not None
    if illegal:
        raw = names.subject(original).encode(errors="surrogateescape")
        headers["Tickertape-Raw-Subject"] = base64.b64encode(raw).decode()
        header_bytes += len(headers["Tickertape-Raw-Subject"])
        original = subjects.escape_subject(original)
    subject = names.subject(f"rejected.{original}")
    if len(subject.encode()) > MAX_SUBJECT:
        if not illegal:
            headers["Tickertape-Subject"] = subject
            header_bytes += len(subject.encode())
        # Cut at the end of a token, so that no escape ``=XX`` is split.
        subject = truncate(subject, MAX_SUBJECT).rpartition(".")[0]
    if letter.data is None:
        headers["Tickertape-Body"] = "unavailable"
    data = letter.data or b""
    body = data[: max(0, max_payload - header_bytes)]
    if len(body) < len(data):
        headers["Tickertape-Size"] = str(len(data))
    if illegal and letter.header_block:
        # Base64 makes four bytes of three.
        kept = letter.header_block[: max(0, max_payload - header_bytes - len(body)) // 4 * 3]
        headers["Tickertape-Raw-Headers"] = base64.b64encode(kept).decode()
        if len(kept) < len(letter.header_block):
            headers["Tickertape-Raw-Headers-Size"] = str(len(letter.header_block))
    return subject, body, headers
