"""WebSocket frames, each encoded once and shared by all sessions with the same encoding.

Server frames are not masked (RFC 6455, 5.1), so the same bytes serve all connections of one encoding. This
also holds for permessage-deflate (RFC 7692), since no context is kept between messages.
"""

import zlib
from collections.abc import Sequence
from typing import Final

from tickertape.contracts.encode import MessageParts, Outgoing, encode_message
from tickertape.contracts.messages import MAX_MESSAGE_BYTES

DEFLATE_FROM: Final = 256
"""Minimum bytes of a text for which compression pays off."""

DEFLATE_LEVEL: Final = 6
"""A sixth fewer bytes than level 1 for twice the CPU time, which is spent once for all members of a feed."""

_TEXT: Final = 0x81  # FIN and the opcode of a text message
_DEFLATED: Final = 0xC1  # the same with RSV1
_TAIL: Final = b"\x00\x00\xff\xff"  # end of a flushed deflate block; removed as RFC 7692, 7.2.1 requires


class Frames:
    """Encoder of text messages as WebSocket frames.

    Args:
        deflate: compress messages where that pays off.
    """

    def __init__(self, *, deflate: bool = False) -> None:
        self._deflate = deflate

    def __repr__(self) -> str:
        return f"Frames(deflate={self._deflate})"

    def encode(self, messages: Sequence[Outgoing]) -> bytes:
        """Return the frames of messages, in order."""
        if len(messages) == 1:
            return self.frame(encode_message(messages[0]))
        return b"".join(self.frame(encode_message(message)) for message in messages)

    def frame(self, text: MessageParts) -> bytes:
        """Return the frame of one message."""
        size = text.size
        assert size <= MAX_MESSAGE_BYTES
        head = _header(_TEXT, size) + text.head
        if not text.events:
            return head + text.tail  # for a single session, where compression does not pay off
        if self._deflate and size >= DEFLATE_FROM:
            return _deflate_frame([text.head, b",".join(text.events), text.tail])
        # The header and the closing text are merged into the first and last event, so that the join copies
        # each event only once.
        events = text.events.copy()
        events[0] = head + events[0]
        events[-1] += text.tail
        return b",".join(events)


PLAIN: Final = Frames()
DEFLATED: Final = Frames(deflate=True)


def _header(first_byte: int, size: int) -> bytes:
    if size < 126:
        return bytes((first_byte, size))
    if size < 65_536:
        return b"%c\x7e%b" % (first_byte, size.to_bytes(2, "big"))
    return b"%c\x7f%b" % (first_byte, size.to_bytes(8, "big"))


def _deflate_frame(parts: list[bytes]) -> bytes:
    # A compressor per message, since a shared frame cannot refer to earlier messages, which differ by client.
    # Negative bits mean raw deflate, with the full window; clients with a smaller one get plain frames.
    compressor = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    blocks = [compressor.compress(part) for part in parts]
    blocks.append(compressor.flush(zlib.Z_SYNC_FLUSH).removesuffix(_TAIL))
    return _header(_DEFLATED, sum(map(len, blocks))) + b"".join(blocks)
