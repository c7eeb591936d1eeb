"""Messages of a stream, read one at a time with their original bytes, whatever those are.

``$JS.API.STREAM.MSG.GET`` would replace bytes that are not UTF-8. What is read from an answer is what the
server has added to it; a producer's headers, which stand before that, are not trusted.
"""

from typing import Any, Final, NamedTuple

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg

from contracts import subjects
from contracts.message_headers import Headers, added

TIMEOUT: Final = 5.0

MAX_ASKED: Final = 3_000
"""Bytes of a subject that can stand in a question: a server closes the connection over a longer line."""


class Stored(NamedTuple):
    """A message of a stream.

    Attributes:
        seq: its sequence.
        subject: as the client has it: bytes that are not UTF-8 are lone surrogates.
        data: the body.
        header_block: None when it has none; else without its last two bytes, which the server has cut.
    """

    seq: int
    subject: str
    data: bytes
    header_block: bytes | None


async def get(nc: Client, stream: str, **query: Any) -> Stored | None:
    """Read the message that a query names, such as ``seq=7``; None when there is none.

    Raises:
        NatsError: NATS is not there, or the stream allows no direct reads.
    """
    return stored(await nc.request(f"$JS.API.DIRECT.GET.{stream}", orjson.dumps(query), timeout=TIMEOUT))


async def last(nc: Client, stream: str, subject: str) -> Stored | None:
    """Read the last message of a subject; None when there is none.

    The subject stands in the question's own subject, so that a user's permissions can be for it alone.

    Raises:
        NatsError: as of ``get``.
    """
    return stored(await nc.request(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"", timeout=TIMEOUT))


def can_ask(subject: str) -> bool:
    """Tell whether a subject that a server has listed can stand in a question."""
    return subjects.fault(subject) is None and len(subject.encode()) <= MAX_ASKED


def stored(reply: Msg) -> Stored | None:
    """Read an answer; None for one that holds no message."""
    headers = reply.headers
    if not isinstance(headers, Headers) or not (seq := added(headers.raw, "Nats-Sequence")).isdigit():
        return None
    block = headers.raw.rpartition(b"Nats-Stream: ")[0]
    subject = headers.raw.rpartition(b"Nats-Subject: ")[2].partition(b"\r\n")[0]
    return Stored(
        int(seq),
        subject.decode(errors="surrogateescape"),
        bytes(reply.data),
        None if block == b"NATS/1.0\r\n" else block,
    )


__all__ = ["Stored", "can_ask", "get", "last", "stored"]
