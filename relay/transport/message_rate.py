"""Limits of what clients send: frames per second of one client, and bytes of incomplete messages of all.

``websocket/`` counts frames, ``relay/asgi/connection.py`` complete messages; the limit is the same. Bytes
are converted to frames.
"""

from collections.abc import Callable
from typing import Final

FRAME_BYTES: Final = 8 * 1024
"""Bytes that count as an additional frame: a message of the maximum size uses most of a second's rate."""

UNAUTHENTICATED_SHARE: Final = 0.1
"""Share of the rate for a client that has not authenticated; it needs a single frame, for its token."""

_MAX_UNCLAIMED: Final = 1024
"""Maximum bytes of an incomplete frame that one read can hold; see ``record_read``."""

MAX_INCOMPLETE: Final = 32 * 1024 * 1024
"""Maximum bytes of the incomplete messages of all clients of a process."""

LARGE: Final = 8 * 1024
"""Minimum bytes of an incomplete message that counts; the messages of most clients arrive complete."""


class IncompleteMessages:
    """Bytes of incomplete messages by client; beyond the limit, the client with most is disconnected.

    Args:
        limit: maximum bytes.
    """

    def __init__(self, limit: int = MAX_INCOMPLETE) -> None:
        self.bytes = 0
        self._limit = limit
        self._sizes: dict[Callable[[], None], int] = {}

    def __repr__(self) -> str:
        return f"IncompleteMessages({self.bytes} bytes of {len(self._sizes)} clients)"

    def record(self, end: Callable[[], None], size: int) -> None:
        """Record the bytes of a client's incomplete message.

        Args:
            end: closes the connection of the client, and identifies it.
            size: number of bytes; 0 if there is no such message.
        """
        self.bytes += size - self._sizes.pop(end, 0)
        if size:
            self._sizes[end] = size
        while self.bytes > self._limit:
            largest = max(self._sizes, key=self._sizes.__getitem__)
            self.record(largest, 0)
            largest()


class MessageRate:
    """Frames and bytes that a client has sent in the current second."""

    __slots__ = ("_bytes", "_frames", "_second", "_unclaimed")

    def __init__(self) -> None:
        self._second = 0
        self._frames = 0
        self._bytes = 0
        self._unclaimed = 0  # bytes already counted that belong to an incomplete frame

    def __repr__(self) -> str:
        return f"MessageRate({self.frames} frames)"

    @property
    def frames(self) -> int:
        """Frames of the current second, including bytes converted to frames."""
        return self._frames + self._bytes // FRAME_BYTES

    def record_read(self, now: float, size: int, frames: int, payload_bytes: int) -> None:
        """Count a read from the socket.

        A byte counts once: when it is received, not again when its frame is complete. Payload beyond the
        bytes received for its frame was compressed, and counts as well.

        Args:
            now: seconds.
            size: bytes received.
            frames: number of complete frames in the read, without large fragments.
            payload_bytes: decompressed payload bytes of all complete frames.
        """
        # Frame headers are never claimed by payload. The cap keeps them from adding up to a credit that would
        # hide the payload of a compressed message.
        received = self._unclaimed + size
        self._unclaimed = (
            min(max(0, received - payload_bytes), _MAX_UNCLAIMED) if payload_bytes or frames else received
        )
        self._add(now, frames, size + max(0, payload_bytes - received))

    def record_message(self, now: float, size: int) -> None:
        """Count a complete message.

        Args:
            now: seconds.
            size: bytes of the message.
        """
        self._add(now, 1, size)

    def _add(self, now: float, frames: int, size: int) -> None:
        # Whole seconds instead of a sliding window: a few integers per client and no timer, at the price that
        # twice the rate fits across a boundary.
        second = int(now)
        if second != self._second:
            self._second, self._frames, self._bytes = second, 0, 0
        self._frames += frames
        self._bytes += size


def max_frames(rate: int, *, authenticated: bool) -> int:
    """Return the number of frames per second that a client may send.

    Args:
        rate: limit for authenticated clients.
        authenticated: whether the client has authenticated, or needs no token.
    """
    return rate if authenticated else max(1, int(rate * UNAUTHENTICATED_SHARE))
