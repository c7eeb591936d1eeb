"""Counts what one client sends within a second, in frames; bytes count as frames too.

``websocket.py`` sees frames, ``relay/asgi/connection.py`` whole messages; the limit is the same.
"""

from typing import Final

FRAME_BYTES: Final = 8 * 1024
"""Bytes that count as one frame more: a message of the largest size is good for a second."""

UNKNOWN_SHARE: Final = 0.1
"""Share of the frames that is for a client without a session; it needs a single one, for its token."""

_UNCLAIMED: Final = 1024
"""Most bytes of the next frame that one read can hold; see ``read``."""


class MessageRate:
    """What a client has sent in the current second."""

    __slots__ = ("_bytes", "_frames", "_second", "_unclaimed")

    def __init__(self) -> None:
        self._second = 0
        self._frames = 0
        self._bytes = 0
        self._unclaimed = 0  # bytes that were counted when they came, and belong to no whole frame yet

    def __repr__(self) -> str:
        return f"MessageRate({self.spent} frames)"

    @property
    def spent(self) -> int:
        """Frames of the current second, with bytes as frames."""
        return self._frames + self._bytes // FRAME_BYTES

    def read(self, now: float, size: int, frames: int, unpacked: int) -> None:
        """Count a read from the socket.

        A byte counts once: when it comes, not again when its frame is whole. What a frame holds beyond the
        bytes that came for it was compressed, and counts as well.

        Args:
            now: seconds.
            size: bytes that came.
            frames: whole frames among them that count as such.
            unpacked: bytes of payload of all whole frames.
        """
        came = self._unclaimed + size
        self._unclaimed = min(max(0, came - unpacked), _UNCLAIMED) if unpacked or frames else came
        self._add(now, frames, size + max(0, unpacked - came))

    def message(self, now: float, size: int) -> None:
        """Count a whole message.

        Args:
            now: seconds.
            size: its bytes.
        """
        self._add(now, 1, size)

    def _add(self, now: float, frames: int, size: int) -> None:
        second = int(now)
        if second != self._second:
            self._second, self._frames, self._bytes = second, 0, 0
        self._frames += frames
        self._bytes += size


def max_frames(rate: int, *, known: bool) -> int:
    """Return how many frames a client may send within a second.

    Args:
        rate: of a client that is known.
        known: whether it has shown its token, or needs none.
    """
    return rate if known else max(1, int(rate * UNKNOWN_SHARE))
