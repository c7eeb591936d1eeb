"""Direct reads (ADR-31) of single messages of a stream, with their original bytes.

``$JS.API.STREAM.MSG.GET`` would replace bytes that are not UTF-8. Only headers that the server appended to a
reply are used; the producer's headers, which precede them, are not trusted.
"""

import asyncio
import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from tickertape.contracts import subjects
from tickertape.nats.client import subscribe_raw
from tickertape.nats.jetstream_api import PermissionDenied, StreamsError, request, request_raw
from tickertape.nats.wire.headers import Headers, server_header
from tickertape.nats.wire.protocol_parser import Message

TIMEOUT: Final = 5.0
"""Seconds to wait for a reply."""

WINDOW: Final = 500
"""Requests of ``get_last_messages`` in flight."""

IDLE_TIMEOUT: Final = 2.0
"""Seconds without a reply after which the requests in flight count as lost."""

MAX_SUBJECT_BYTES: Final = 3_000
"""Maximum bytes of a subject in a request: the server closes the connection on longer control lines."""

_NOT_FOUND: Final = b"NATS/1.0 404"
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class StoredMessage(NamedTuple):
    """Message of a stream.

    Attributes:
        seq: sequence of the message.
        subject: subject of the message; bytes that are not UTF-8 are lone surrogates.
        data: body of the message.
        header_block: the header block without its last two bytes, which the server cuts off; None without
            headers.
        stored_ns: time at which the stream stored the message, in UNIX nanoseconds; None if unknown.
    """

    seq: int
    subject: str
    data: bytes
    header_block: bytes | None
    stored_ns: int | None = None


async def get_message(nc: Client, stream: str, **query: Any) -> StoredMessage | None:
    """Return the message that a query selects, such as ``seq=7``; None if there is none.

    Raises:
        NatsError: NATS is unreachable, or the stream does not allow direct reads.
    """
    return parse_reply(await nc.request(f"$JS.API.DIRECT.GET.{stream}", orjson.dumps(query), timeout=TIMEOUT))


async def get_last_message(nc: Client, stream: str, subject: str) -> StoredMessage | None:
    """Return the last message of a subject; None if there is none.

    The request's own subject contains the subject, so that permissions can be limited to it.

    Raises:
        NatsError: as for ``get_message``.
    """
    return parse_reply(await nc.request(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"", timeout=TIMEOUT))


async def get_last_messages(
    nc: Client, stream: str, wanted: Collection[str]
) -> dict[str, StoredMessage | None]:
    """Return the last message of each subject; None for a subject without one.

    Many requests are in flight; calls of ``get_last_message`` take several times as long.

    A subject whose reply does not arrive, because it was lost or the request is denied, is missing in the
    result; ``get_last_message`` tells the reason.

    Raises:
        NatsError: NATS is unreachable.
    """
    found: dict[str, StoredMessage | None] = {}
    slots = asyncio.Semaphore(WINDOW)
    names = list(wanted)
    inbox = nc.new_inbox()
    prefix = len(inbox) + 1

    def receive(message: Message) -> None:
        number = message.subject[prefix:]
        if not number.isdigit() or int(number) >= len(names) or names[int(number)] in found:
            return  # any client may publish to an inbox
        headers = message.headers
        if headers is None:
            return
        if headers.startswith(_NOT_FOUND):
            stored = None
        elif (stored := parse_reply(Msg(nc, "", "", message.data, Headers(headers)))) is None:
            return
        found[names[int(number)]] = stored
        slots.release()

    subscription = await subscribe_raw(nc, f"{inbox}.*", receive)
    try:
        for number, subject in enumerate(names):
            if not await _acquire(slots):
                break
            await nc.publish(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"", reply=f"{inbox}.{number}")
        for _ in range(WINDOW):
            if not await _acquire(slots):
                break
    finally:
        if not nc.is_closed and not nc.is_draining:
            await subscription.unsubscribe()
    return found


async def _acquire(slots: asyncio.Semaphore) -> bool:
    """Wait for a reply; return False if none arrives."""
    if not slots.locked():
        return await slots.acquire()
    try:
        async with asyncio.timeout(IDLE_TIMEOUT):
            return await slots.acquire()
    except TimeoutError:
        return False


async def list_subjects(nc: Client, stream: str, pattern: str) -> list[str]:
    """List the subjects of a stream that match a pattern and fit into a request.

    The server lists them in pages. It replaces bytes that are not UTF-8 with the same character, so a page
    may contain fewer subjects than it counts.

    Raises:
        StreamsError: JetStream does not reply, or the stream cannot be read.
    """
    found: dict[str, None] = {}
    offset = 0
    while True:
        response = await request(nc, f"STREAM.INFO.{stream}", {"subjects_filter": pattern, "offset": offset})
        if "error" in response:
            description = response["error"].get("description")
            raise StreamsError(f"stream {stream} cannot be read: {description}", "check the server log")
        page = response["state"].get("subjects") or {}
        found.update((subject, None) for subject in page if fits_request(subject))
        # If subjects with replaced bytes coincide, this is less than the server's count: the next page
        # repeats some subjects, but none is skipped.
        offset += len(page)
        if not page or offset >= response.get("total", 0):
            return list(found)


async def get_stored_ns(nc: Client, stream: str, seq: int) -> int | None:
    """Return the time at which a stream stored a message.

    Returns:
        UNIX nanoseconds; None if the message does not exist, or direct reads are not allowed.

    Raises:
        StreamsError: the stream does not reply.
    """
    try:
        found = parse_reply(
            await request_raw(nc, f"DIRECT.GET.{stream}", orjson.dumps({"seq": seq}), timeout_seconds=TIMEOUT)
        )
    # Unless a stream has ``allow_direct``, no server subscribes to the subject of this request.
    except (PermissionDenied, NoRespondersError):
        return None
    except (TimeoutError, NatsTimeoutError):
        raise StreamsError(
            f"stream {stream} did not reply to a direct read within {TIMEOUT:.0f} s",
            "check the server log",
            transient=True,
        ) from None
    return None if found is None else found.stored_ns


def parse_time_ns(text: str) -> int | None:
    """Parse an RFC 3339 time as nats-server writes it; return UNIX nanoseconds, or None if it is invalid."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    try:
        since = datetime.fromisoformat(found[1] + found[3]) - _EPOCH
    except (ValueError, OverflowError):
        return None
    # In integers, because a float resolves the current UNIX time only to 240 ns.
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + int((found[2] or "").ljust(9, "0"))


def fits_request(subject: str) -> bool:
    """Return whether a subject is valid and short enough for a request."""
    return subjects.find_subject_error(subject) is None and len(subject.encode()) <= MAX_SUBJECT_BYTES


def parse_reply(reply: Msg) -> StoredMessage | None:
    """Parse a reply; return None if it contains no message."""
    headers = reply.headers
    if not isinstance(headers, Headers) or not (seq := server_header(headers.raw, "Nats-Sequence")).isdigit():
        return None
    # The last occurrence of each name is the server's; its headers follow those of the producer.
    # ``Nats-Stream`` is the first header that the server appends, so the producer's block ends before it.
    block = headers.raw.rpartition(b"Nats-Stream: ")[0]
    subject = headers.raw.rpartition(b"Nats-Subject: ")[2].partition(b"\r\n")[0]
    return StoredMessage(
        int(seq),
        subject.decode(errors="surrogateescape"),
        bytes(reply.data),
        None if block == b"NATS/1.0\r\n" else block,
        parse_time_ns(server_header(headers.raw, "Nats-Time-Stamp")),
    )


__all__ = [
    "StoredMessage",
    "fits_request",
    "get_last_message",
    "get_last_messages",
    "get_message",
    "get_stored_ns",
    "list_subjects",
    "parse_reply",
    "parse_time_ns",
]
