"""WebSocket frames: each made once, and handed to every session that is written to alike.

A server's frame is not masked (RFC 6455, 5.1), so the same bytes serve all connections of one encoding. With
permessage-deflate (RFC 7692) no context is kept between messages, so that holds for compressed ones too.
"""

import zlib
from collections.abc import Sequence
from typing import Final

from tickertape.contracts.encode import MessageParts, Outgoing, encode_message
from tickertape.contracts.messages import MAX_MESSAGE_BYTES

DEFLATE_FROM: Final = 256
"""Bytes of a text from which compressing it pays."""

DEFLATE_LEVEL: Final = 6
"""A sixth fewer bytes than level 1 for twice the time, which is paid once for all members of a feed."""

_TEXT: Final = 0x81  # FIN and the opcode of a text message
_DEFLATED: Final = 0xC1  # the same with RSV1
_TAIL: Final = b"\x00\x00\xff\xff"  # ends a flushed deflate block; RFC 7692, 7.2.1 takes it off


class Frames:
    """Text messages in WebSocket frames.

    Args:
        deflate: whether they are compressed, where that pays.
    """

    def __init__(self, *, deflate: bool = False) -> None:
        self._deflate = deflate

    def __repr__(self) -> str:
        return f"Frames(deflate={self._deflate})"

    def encode(self, messages: Sequence[Outgoing]) -> bytes:
        """Return the frames of messages, in their order."""
        if len(messages) == 1:
            return self.frame(encode_message(messages[0]))
        return b"".join(self.frame(encode_message(message)) for message in messages)

    def frame(self, text: MessageParts) -> bytes:
        """Return one frame."""
        size = text.size
        assert size <= MAX_MESSAGE_BYTES
        head = _header(_TEXT, size) + text.head
        if not text.events:
            return head + text.tail  # for one session: to compress it would not pay
        if self._deflate and size >= DEFLATE_FROM:
            return _deflated([text.head, b",".join(text.events), text.tail])
        # Header and ends ride on the first and last event, so that one join copies each event once.
        events = text.events.copy()
        events[0] = head + events[0]
        events[-1] += text.tail
        return b",".join(events)


PLAIN: Final = Frames()
DEFLATED: Final = Frames(deflate=True)


def _header(first: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, size))
    if size < 65_536:
        return b"%c\x7e%b" % (first, size.to_bytes(2, "big"))
    return b"%c\x7f%b" % (first, size.to_bytes(8, "big"))


def _deflated(pieces: list[bytes]) -> bytes:
    squeeze = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    found = [squeeze.compress(piece) for piece in pieces]
    found.append(squeeze.flush(zlib.Z_SYNC_FLUSH).removesuffix(_TAIL))
    return _header(_DEFLATED, sum(map(len, found))) + b"".join(found)
