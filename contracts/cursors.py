"""Cursors: positions in the stream, which clients store and send back to resume."""

import re
from typing import Final, NamedTuple

CURSOR_PATTERN: Final = r"^[0-9a-z]{1,16}-(0|[1-9][0-9]{0,19})(-[1-9][0-9]{0,18})?$"

# ``CURSOR_PATTERN``, which the schemas publish, with groups. Numbers have no leading zeros, so
# that a position has only one text.
_CURSOR = re.compile(r"([0-9a-z]{1,16})-(0|[1-9][0-9]{0,19})(?:-([1-9][0-9]{0,18}))?", re.ASCII)
_MAX_SEQUENCE: Final = 2**64 - 1


class Cursor(NamedTuple):
    """Position in the stream; opaque to clients.

    Attributes:
        epoch: identifies the stream; a stream that is deleted and recreated has another epoch.
        sequence: sequence of the last message before the position.
        stored_ns: time at which the stream stored that message, in UNIX nanoseconds. A server that lost its
            newest messages in a power failure assigns their sequences again; this distinguishes the messages.
            None if there is no such message, if the time is unknown, and in cursors of version 0.1.0.
    """

    epoch: str
    sequence: int
    stored_ns: int | None = None

    def __str__(self) -> str:
        return format_cursor(*self)


def format_cursor(epoch: str, sequence: int, stored_ns: int | None = None) -> str:
    """Return the text of a cursor: ``<epoch>-<sequence>[-<stored_ns>]``."""
    return f"{epoch}-{sequence}-{stored_ns}" if stored_ns else f"{epoch}-{sequence}"


def parse_cursor(text: str) -> Cursor:
    """Parse the text of a cursor.

    Raises:
        ValueError: it is malformed.
    """
    match = _CURSOR.fullmatch(text)
    if match is None or int(match[2]) > _MAX_SEQUENCE:
        raise ValueError(f"{text[:60]!r} is not a cursor; send back a cursor received from the relay")
    return Cursor(match[1], int(match[2]), int(match[3]) if match[3] else None)
