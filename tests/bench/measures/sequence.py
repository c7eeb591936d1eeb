"""Did a client of mode ``complete`` get every event, once, in order? Checked cheaply, frame by frame.

Needs a filter that takes everything in the stream, so that what is due is a run of sequence numbers without
holes. Each frame is looked at for its first and last number and how many it holds, which is a few searches
for a constant; a client that is checked fully has each of its numbers read. Many clients get the very same
bytes, and comparing them with what was looked at before is cheaper than looking again.
"""

import re
from typing import Final, NamedTuple

_EACH: Final = re.compile(rb'"seq":(\d+)')
_SEQ: Final = b'"seq":'
_SENT: Final = b'"sent":'
_EVENTS: Final = b'{"type":"events"'
_GAP: Final = b'{"type":"gap"'

_REMEMBERED: Final = 256


class _Facts(NamedTuple):
    """What a message holds: first and last sequence, how many, and when the last event was sent."""

    message: bytes
    first: int
    last: int
    events: int
    sent: int


_known: dict[tuple[int, int], _Facts] = {}
"""Messages that were looked at, by their first sequence and length."""


class Sequence:
    """What one client got.

    Attributes:
        next: the sequence that is due.
        events: how many came.
        lost: events that were passed over, whether a gap told so or not.
        repeated: events that came again, or out of order.
        told: gaps.
    """

    __slots__ = ("_fully", "events", "lost", "next", "repeated", "told")

    def __init__(self, after: int, *, fully: bool = False) -> None:
        self.next = after + 1
        self.events = 0
        self.lost = 0
        self.repeated = 0
        self.told = 0
        self._fully = fully

    def take(self, message: bytes) -> int:
        """Check one message.

        Returns:
            when its last event was sent, in nanoseconds; 0 when it holds no events.
        """
        if not message.startswith(_EVENTS):
            self.told += message.startswith(_GAP)
            return 0
        facts = _facts(message)
        if not facts.events:
            return 0
        if self._fully:
            for found in _EACH.findall(message):
                self._note(int(found), int(found), 1)
        else:
            self._note(facts.first, facts.last, facts.events)
        self.events += facts.events
        return facts.sent

    def _note(self, first: int, last: int, count: int) -> None:
        if first > self.next:
            self.lost += first - self.next
        elif first < self.next:
            self.repeated += min(count, self.next - first)
        odd = last - first + 1 - count
        if odd > 0:
            self.lost += odd
        elif odd < 0:
            self.repeated -= odd
        self.next = max(self.next, last + 1)


def _facts(message: bytes) -> _Facts:
    first = _number(message, message.find(_SEQ))
    key = (first, len(message))
    known = _known.get(key)
    if known is not None and known.message == message:
        return known
    if len(_known) >= _REMEMBERED:
        del _known[next(iter(_known))]
    last = _number(message, message.rfind(_SEQ))
    sent = _number(message, message.rfind(_SENT), len(_SENT))
    _known[key] = facts = _Facts(message, first, last, message.count(_SEQ), sent)
    return facts


def _number(data: bytes, place: int, skip: int = len(_SEQ)) -> int:
    if place < 0:
        return 0
    end = begin = place + skip
    while data[end : end + 1].isdigit():
        end += 1
    return int(data[begin:end])
