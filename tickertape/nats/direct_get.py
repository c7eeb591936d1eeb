"""Messages of a stream, read one at a time with their original bytes, whatever those are.

``$JS.API.STREAM.MSG.GET`` would replace bytes that are not UTF-8. What is read from an answer is what the
server has added to it; a producer's headers, which stand before that, are not trusted.
"""

import re
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from tickertape.contracts import subjects
from tickertape.nats.headers import Headers, server_header
from tickertape.nats.jetstream_api import PermissionDenied, StreamsError, request, request_raw

TIMEOUT: Final = 5.0

MAX_SUBJECT_BYTES: Final = 3_000
"""Bytes of a subject that can stand in a question: a server closes the connection over a longer line."""


_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class StoredMessage(NamedTuple):
    """A message of a stream.

    Attributes:
        seq: its sequence.
        subject: as the client has it: bytes that are not UTF-8 are lone surrogates.
        data: the body.
        header_block: None when it has none; else without its last two bytes, which the server has cut.
        stored_ns: when the stream stored it, UNIX nanoseconds; None when the server does not say.
    """

    seq: int
    subject: str
    data: bytes
    header_block: bytes | None
    stored_ns: int | None = None


async def get_message(nc: Client, stream: str, **query: Any) -> StoredMessage | None:
    """Read the message that a query names, such as ``seq=7``; None when there is none.

    Raises:
        NatsError: NATS is not there, or the stream allows no direct reads.
    """
    return parse_reply(await nc.request(f"$JS.API.DIRECT.GET.{stream}", orjson.dumps(query), timeout=TIMEOUT))


async def get_last_message(nc: Client, stream: str, subject: str) -> StoredMessage | None:
    """Read the last message of a subject; None when there is none.

    The subject stands in the question's own subject, so that a user's permissions can be for it alone.

    Raises:
        NatsError: as of ``get``.
    """
    return parse_reply(await nc.request(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"", timeout=TIMEOUT))


async def list_subjects(nc: Client, stream: str, pattern: str) -> list[str]:
    """List the subjects of a stream that match a pattern and can be asked for.

    The server lists them in pages. Those that are not UTF-8 are listed with the same replacement in place of
    different bytes, so a page can hold fewer than it counts.

    Raises:
        StreamsError: JetStream does not answer, or the stream cannot be read.
    """
    found: dict[str, None] = {}
    seen = 0
    while True:
        answer = await request(nc, f"STREAM.INFO.{stream}", {"subjects_filter": pattern, "offset": seen})
        if "error" in answer:
            description = answer["error"].get("description")
            raise StreamsError(f"stream {stream} cannot be read: {description}", "look at the server's log")
        page = answer["state"].get("subjects") or {}
        found.update((subject, None) for subject in page if fits_request(subject))
        seen += len(page)
        if not page or seen >= answer.get("total", 0):
            return list(found)


async def get_stored_ns(nc: Client, stream: str, seq: int) -> int | None:
    """Ask a stream when it stored a message.

    Returns:
        UNIX nanoseconds; None when the message is not there, or direct reads are not allowed.

    Raises:
        StreamsError: the stream does not answer.
    """
    try:
        found = parse_reply(
            await request_raw(nc, f"DIRECT.GET.{stream}", orjson.dumps({"seq": seq}), timeout_seconds=TIMEOUT)
        )
    except (PermissionDenied, NoRespondersError):
        return None
    except (TimeoutError, NatsTimeoutError):
        raise StreamsError(
            f"stream {stream} did not answer a direct read within {TIMEOUT:.0f} s",
            "look at the server's log",
            transient=True,
        ) from None
    return None if found is None else found.stored_ns


def parse_time_ns(text: str) -> int | None:
    """Read a time as nats-server writes it (RFC 3339) into UNIX nanoseconds; None when it is none."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    try:
        since = datetime.fromisoformat(found[1] + found[3]) - _EPOCH
    except (ValueError, OverflowError):
        return None
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + int((found[2] or "").ljust(9, "0"))


def fits_request(subject: str) -> bool:
    """Tell whether a subject that a server has listed can stand in a question."""
    return subjects.find_subject_error(subject) is None and len(subject.encode()) <= MAX_SUBJECT_BYTES


def parse_reply(reply: Msg) -> StoredMessage | None:
    """Read an answer; None for one that holds no message."""
    headers = reply.headers
    if not isinstance(headers, Headers) or not (seq := server_header(headers.raw, "Nats-Sequence")).isdigit():
        return None
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
    "get_message",
    "get_stored_ns",
    "list_subjects",
    "parse_reply",
    "parse_time_ns",
]
