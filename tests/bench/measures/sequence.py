"""Cheap check that a client in mode ``complete`` received every event once, in order.

The client's filter must match all events of the stream, so that the expected sequences are contiguous. Of
each message, only the first and the last sequence and the number of events are read, with a few substring
searches; a client that is checked fully has each of its sequences read. Many clients receive identical bytes,
and comparing them with a message that was already read is cheaper than reading them again.
"""

import re
from typing import Final, NamedTuple

_EACH: Final = re.compile(rb'"seq":(\d+)')
_SEQ: Final = b'"seq":'
_SENT: Final = b'"sent":'
_EVENTS: Final = b'{"type":"events"'
_GAP: Final = b'{"type":"gap"'

_CACHE_SIZE: Final = 256


class _Summary(NamedTuple):
    """Summary of a message: first and last sequence, number of events, and send time of the last event."""

    message: bytes
    first: int
    last: int
    events: int
    sent: int


_cache: dict[tuple[int, int], _Summary] = {}
"""Cached summaries by first sequence and length of their messages."""


class SequenceChecker:
    """Record of the sequences that one client received.

    Attributes:
        next: next expected sequence.
        events: number of events received.
        lost: number of events skipped, with or without a gap message.
        repeated: number of events received again or out of order.
        gaps: number of gap messages.
    """

    __slots__ = ("_fully", "events", "gaps", "lost", "next", "repeated")

    def __init__(self, after: int, *, fully: bool = False) -> None:
        self.next = after + 1
        self.events = 0
        self.lost = 0
        self.repeated = 0
        self.gaps = 0
        self._fully = fully

    def check(self, message: bytes) -> int:
        """Check one message.

        Returns:
            The send time of its last event in nanoseconds; 0 if it contains no events.
        """
        if not message.startswith(_EVENTS):
            self.gaps += message.startswith(_GAP)
            return 0
        summary = _summarize(message)
        if not summary.events:
            return 0
        if self._fully:
            for found in _EACH.findall(message):
                self._count(int(found), int(found), 1)
        else:
            self._count(summary.first, summary.last, summary.events)
        self.events += summary.events
        return summary.sent

    def _count(self, first: int, last: int, count: int) -> None:
        if first > self.next:
            self.lost += first - self.next
        elif first < self.next:
            self.repeated += min(count, self.next - first)
        missing = last - first + 1 - count
        if missing > 0:
            self.lost += missing
        elif missing < 0:
            self.repeated -= missing
        self.next = max(self.next, last + 1)


def _summarize(message: bytes) -> _Summary:
    first = _number(message, message.find(_SEQ))
    key = (first, len(message))
    cached = _cache.get(key)
    if cached is not None and cached.message == message:
        return cached
    if len(_cache) >= _CACHE_SIZE:
        del _cache[next(iter(_cache))]
    last = _number(message, message.rfind(_SEQ))
    sent = _number(message, message.rfind(_SENT), len(_SENT))
    _cache[key] = summary = _Summary(message, first, last, message.count(_SEQ), sent)
    return summary


def _number(data: bytes, position: int, skip: int = len(_SEQ)) -> int:
    if position < 0:
        return 0
    end = begin = position + skip
    while data[end : end + 1].isdigit():
        end += 1
    return int(data[begin:end])
