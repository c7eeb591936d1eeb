"""What the relay writes, as JSON: an event once, when it comes in, and a message from its model.

Messages that carry events are joined from the JSON of the events, which is never parsed again; a client finds
what ``Events`` and ``Snapshot`` in ``messages.py`` describe.
"""

from typing import Final, NamedTuple

import orjson
from tickertape.contracts.messages import Gap, Message

_EVENTS: Final = b'{"type":"events","events":['
_SNAPSHOT: Final = b'{"type":"snapshot","events":['


class EncodedEvents(NamedTuple):
    """A message ``events``.

    Attributes:
        events: each as ``event`` makes it, in stream order; at least one.
        cursor: position reached after all of them.
        conflated: events that newer ones of their subject replaced; None outside of mode ``latest``.
    """

    events: list[bytes]
    cursor: str
    conflated: int | None = None


class EncodedSnapshot(NamedTuple):
    """A message ``snapshot``.

    Attributes:
        events: each as ``event`` makes it, in stream order.
        done: True for the last message of a snapshot.
    """

    events: list[bytes]
    done: bool


Outgoing = Message | EncodedEvents | EncodedSnapshot


class Parts(NamedTuple):
    """The JSON of a message in pieces, so that a transport copies each event once.

    Attributes:
        begin: what stands before the events; all of a message that carries none.
        events: to be joined by commas.
        end: what stands behind them.
    """

    begin: bytes
    events: list[bytes]
    end: bytes

    @property
    def size(self) -> int:
        """Bytes of the whole text."""
        commas = max(0, len(self.events) - 1)
        return len(self.begin) + sum(map(len, self.events)) + commas + len(self.end)

    def text(self) -> bytes:
        """Join them."""
        return b"%b%b%b" % (self.begin, b",".join(self.events), self.end)


def subject_prefix(subject: str) -> bytes:
    """Return the JSON of an event with its position, up to its sequence; the same for all of a subject."""
    return b'{"subject":' + orjson.dumps(subject) + b',"seq":'


def event(prefix: bytes, sequence: int, payload: bytes) -> bytes:
    """Return the JSON of an event with its position.

    Args:
        prefix: of its subject, as ``subject_prefix`` makes it.
        sequence: in the stream.
        payload: the event's own JSON, checked.
    """
    return b'%b%d,"event":%b}' % (prefix, sequence, payload)


def parts(message: Outgoing) -> Parts:
    """Return the JSON of a message."""
    if isinstance(message, EncodedEvents):
        begin = _EVENTS
        if message.conflated is not None:
            begin = b'{"type":"events","conflated":%d,"events":[' % message.conflated
        return Parts(begin, message.events, b'],"cursor":"%b"}' % message.cursor.encode())
    if isinstance(message, EncodedSnapshot):
        return Parts(_SNAPSHOT, message.events, b'],"done":true}' if message.done else b'],"done":false}')
    return Parts(message.__pydantic_serializer__.to_json(message, by_alias=True, exclude_unset=True), [], b"")


def page(events: list[bytes], cursor: str, *, more: bool, gap: Gap | None) -> bytes:
    """Return the JSON of a page of history: ``events``, ``cursor``, ``more``, and ``gap`` where there is one.

    Args:
        events: each as ``event`` makes it, in stream order.
        cursor: where the next page begins.
        more: whether there is one.
        gap: what the page's range has lost.
    """
    lost = b""
    if gap is not None:
        fields = gap.model_dump(by_alias=True, exclude={"type"})
        lost = b',"gap":' + orjson.dumps(fields)
    return b'{"events":[%b],"cursor":"%b","more":%b%b}' % (
        b",".join(events),
        cursor.encode(),
        b"true" if more else b"false",
        lost,
    )
