"""FIX messages: fields and checksums, and their framing on a connection.

Invariants:

1. A peer costs at most ``MAX_MESSAGE_BYTES`` of memory, and the event loop turns after ``PIECE`` bytes.
2. The end of a message is found by its length: a field with data may contain another message.
"""

import asyncio
import re
from typing import Final

from tickertape.errors import TickertapeError

MAX_MESSAGE_BYTES: Final = 256 * 1024
"""Maximum size of a message, such as the definitions of a venue; a larger one is an error of the peer."""

MAX_PARSED_BYTES: Final = 8 * 1024
"""Bytes of a message whose fields are parsed: those of the session layer are short."""

MAX_HEAD_BYTES: Final = 40
"""Maximum size of the version and the length, with which a message begins."""

MAX_TAG_DIGITS: Final = 9

TRAILER_BYTES: Final = len("10=000|")

PIECE: Final = 2 * 1024
"""Bytes that are parsed in one turn of the event loop: they may contain a hundred messages."""

_SOH: Final = b"\x01"
_HEAD: Final = re.compile(rb"8=FIX[^\x01]{0,16}\x019=(\d{1,9})\x01")


class FixError(TickertapeError):
    """Violation of the FIX session layer by the peer, or a rejected logon."""


class PeerClosed(FixError):
    """End of a connection by the peer."""


def encode_message(begin_string: str, fields: list[tuple[int, str]]) -> bytes:
    """Encode a FIX message: begin string, length, fields and checksum."""
    body = b"".join(b"%d=%b\x01" % (tag, value.encode()) for tag, value in fields)
    head = b"8=%b\x019=%d\x01" % (begin_string.encode(), len(body))
    return head + body + b"10=%03d\x01" % (sum(head + body) % 256)


def parse_fields(message: bytes) -> dict[int, str]:
    """Parse the fields at the beginning of a complete message; of a repeated field, the first value counts.

    A field with data may contain anything, such as another message. What follows its first separator there is
    no field, and comes after the fields of the header.

    Raises:
        FixError: the length or the checksum is wrong.
    """
    body, trailer = message[:-TRAILER_BYTES], message[-TRAILER_BYTES:]
    if not (trailer.startswith(b"10=") and trailer.endswith(_SOH)):
        raise FixError("response has a wrong length")
    if trailer[3:-1] != b"%03d" % (sum(body) % 256):
        raise FixError("response has a wrong checksum")
    fields: dict[int, str] = {}
    for part in body[:MAX_PARSED_BYTES].split(_SOH):
        tag, equals, value = part.partition(b"=")
        if equals and tag.isdigit() and len(tag) <= MAX_TAG_DIGITS:
            fields.setdefault(int(tag), value.decode(errors="replace"))
    return fields


class MessageReader:
    """Reader of the messages that a peer sends."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._buffer = bytearray()

    async def read(self) -> dict[int, str]:
        """Return the fields of the next message.

        Raises:
            FixError: the peer closed the connection, or sent something else.
        """
        while (end := self._message_end()) is None or len(self._buffer) < end:
            data = await self._reader.read(PIECE)
            await asyncio.sleep(0)  # the read itself does not suspend while bytes are buffered
            if not data:
                raise PeerClosed("peer closed the connection")
            self._buffer += data
        message = bytes(self._buffer[:end])
        del self._buffer[:end]
        return parse_fields(message)

    def _message_end(self) -> int | None:
        """Return the end of the first message, according to its length; None before that has arrived.

        Raises:
            FixError: it is no message, or too large.
        """
        head = _HEAD.match(self._buffer)
        if head is None:
            # A peer with another protocol is recognized by its first bytes, not by a timeout.
            begins = self._buffer.startswith(b"8=FIX"[: len(self._buffer)])
            if not begins or len(self._buffer) > MAX_HEAD_BYTES:
                raise FixError(f"response is not FIX: {bytes(self._buffer[:40])!r}")
            return None
        end = head.end() + int(head[1]) + TRAILER_BYTES
        if end > MAX_MESSAGE_BYTES:
            raise FixError(f"message larger than {MAX_MESSAGE_BYTES} bytes")
        return end
