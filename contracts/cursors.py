"""Positions in the stream, as clients keep them and send them back."""

import re
from typing import Final, NamedTuple

CURSOR_PATTERN: Final = r"^[0-9a-z]{1,16}-(0|[1-9][0-9]{0,19})(-[1-9][0-9]{0,18})?$"

_CURSOR = re.compile(r"([0-9a-z]{1,16})-(0|[1-9][0-9]{0,19})(?:-([1-9][0-9]{0,18}))?", re.ASCII)
_MAX_SEQUENCE: Final = 2**64 - 1


class Cursor(NamedTuple):
    """A position in the stream; opaque to clients.

    Attributes:
        epoch: tells one stream from another that has taken its name.
        sequence: of the last message before the position.
        stored_ns: when the stream stored that message, UNIX nanoseconds. A server that lost its newest
            messages in a power failure gives their sequences to others; this tells which of them was meant.
            None where there is no message, where the time is not known, and in cursors of 0.1.0.
    """

    epoch: str
    sequence: int
    stored_ns: int | None = None

    def __str__(self) -> str:
        return format_cursor(*self)


def format_cursor(epoch: str, sequence: int, stored_ns: int | None = None) -> str:
    """Write a position in the stream: ``<epoch>-<sequence>[-<stored_ns>]``."""
    return f"{epoch}-{sequence}-{stored_ns}" if stored_ns else f"{epoch}-{sequence}"


def parse_cursor(text: str) -> Cursor:
    """Read a cursor.

    Raises:
        ValueError: it is malformed.
    """
    found = _CURSOR.fullmatch(text)
    if found is None or int(found[2]) > _MAX_SEQUENCE:
        raise ValueError(f"{text[:60]!r} is not a cursor; send back one that the relay gave")
    return Cursor(found[1], int(found[2]), int(found[3]) if found[3] else None)
