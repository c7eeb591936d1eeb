"""Ids of Server-Sent Events: cursors, which a browser sends back in ``Last-Event-ID`` when it reconnects."""

from typing import Final, NamedTuple

from tickertape.contracts.cursors import Cursor, parse_cursor

_BEFORE_SNAPSHOT: Final = "~snapshot"
"""Suffix of the id of a position whose snapshot follows: a client that disconnects before its end needs the
snapshot again, and the events since."""

UNKNOWN: Final = Cursor("0", 0)
"""Position of an id that is not from a relay: in no stream, so that the client is told of a reset."""


class LastEventId(NamedTuple):
    """Position in ``Last-Event-ID``.

    Attributes:
        cursor: position to resume from.
        snapshot: whether the client lacks a snapshot as of that position.
    """

    cursor: Cursor
    snapshot: bool


def format_event_id(cursor: str, *, snapshot: bool = False) -> str:
    """Return the id of an event.

    Args:
        cursor: position that a client which has received the event resumes from.
        snapshot: whether a snapshot as of that position follows the event.
    """
    return cursor + _BEFORE_SNAPSHOT if snapshot else cursor


def parse_event_id(text: str) -> LastEventId:
    """Parse a ``Last-Event-ID``.

    An id that is not from a relay is accepted: a browser sends the last id that it has seen at this address,
    of whichever server, and would not reconnect after an error.
    """
    try:
        cursor = parse_cursor(text.removesuffix(_BEFORE_SNAPSHOT))
    except ValueError:
        return LastEventId(UNKNOWN, snapshot=False)
    return LastEventId(cursor, text.endswith(_BEFORE_SNAPSHOT))
