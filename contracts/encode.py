"""JSON encoding of what the relay sends: an event once, on arrival, and each message from its model.

Messages that carry events are assembled from the JSON of those events, which is never parsed again. On the
wire they are the ``Events`` and ``Snapshot`` of ``messages.py``.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import orjson
from tickertape.contracts.messages import Gap, Message

_EVENTS: Final = b'{"type":"events","events":['
_SNAPSHOT: Final = b'{"type":"snapshot","events":['


class EncodedEvents(NamedTuple):
    """Message ``events`` whose events are JSON already.

    Attributes:
        events: JSON from ``encode_event``, in stream order; at least one.
        cursor: position after the last of them.
        conflated: events replaced by a newer one of the same subject; None outside of mode ``latest``.
    """

    events: list[bytes]
    cursor: str
    conflated: int | None = None


class EncodedSnapshot(NamedTuple):
    """Message ``snapshot`` whose events are JSON already.

    Attributes:
        events: JSON from ``encode_event``, in stream order.
        done: True in the last message of a snapshot.
        truncated: number of evicted states, by family; empty except in the last message.
    """

    events: list[bytes]
    done: bool
    truncated: Mapping[str, int] = MappingProxyType({})


Outgoing = Message | EncodedEvents | EncodedSnapshot


class MessageParts(NamedTuple):
    """JSON of a message in parts, so that a transport copies each event only once.

    Attributes:
        head: text before the events; the complete message if it carries none.
        events: JSON of the events, to be joined with commas.
        tail: text after the events.
    """

    head: bytes
    events: list[bytes]
    tail: bytes

    @property
    def size(self) -> int:
        """Size of the joined text in bytes."""
        commas = max(0, len(self.events) - 1)
        return len(self.head) + sum(map(len, self.events)) + commas + len(self.tail)

    def join(self) -> bytes:
        """Return the complete text."""
        return b"%b%b%b" % (self.head, b",".join(self.events), self.tail)


def encode_event_prefix(subject: str) -> bytes:
    """Return the JSON of an event up to its sequence, which all events of a subject share."""
    return b'{"subject":' + orjson.dumps(subject) + b',"seq":'


def encode_event(prefix: bytes, sequence: int, payload: bytes) -> bytes:
    """Return the JSON of an event with its subject and sequence, as clients receive it.

    Args:
        prefix: the result of ``encode_event_prefix`` for the subject.
        sequence: sequence in the stream.
        payload: JSON of the event, already checked against the contract.
    """
    return b'%b%d,"event":%b}' % (prefix, sequence, payload)


def encode_message(message: Outgoing) -> MessageParts:
    """Return the JSON of a message, in parts."""
    if isinstance(message, EncodedEvents):
        head = _EVENTS
        if message.conflated is not None:
            head = b'{"type":"events","conflated":%d,"events":[' % message.conflated
        return MessageParts(head, message.events, b'],"cursor":"%b"}' % message.cursor.encode())
    if isinstance(message, EncodedSnapshot):
        tail = b'],"done":true}' if message.done else b'],"done":false}'
        if message.truncated:
            tail = b'],"done":true,"truncated":%d,"truncated_by":%b}' % (
                sum(message.truncated.values()),
                orjson.dumps(dict(message.truncated)),
            )
        return MessageParts(_SNAPSHOT, message.events, tail)
    # A field that is optional in the protocol is left unset; one that is null in the protocol is set to None.
    text = message.__pydantic_serializer__.to_json(message, by_alias=True, exclude_unset=True)
    return MessageParts(text, [], b"")


def encode_history_page(events: list[bytes], cursor: str, *, more: bool, gap: Gap | None) -> bytes:
    """Return the JSON of a history page: ``events``, ``cursor``, ``more``, and ``gap`` if events are missing.

    Args:
        events: JSON from ``encode_event``, in stream order.
        cursor: position at which the next page starts.
        more: whether there is a next page.
        gap: events that are missing from the range of this page.
    """
    gap_field = b""
    if gap is not None:
        fields = gap.model_dump(by_alias=True, exclude={"type"})
        gap_field = b',"gap":' + orjson.dumps(fields)
    return b'{"events":[%b],"cursor":"%b","more":%b%b}' % (
        b",".join(events),
        cursor.encode(),
        b"true" if more else b"false",
        gap_field,
    )
