"""Timeline of one gateway: its statuses and recoveries, ordered by the timestamps of the events.

Invariants:

1. The order in which events arrive has no effect on statuses with different timestamps, and an event that
   arrives again has none at all. What was removed stays removed: no event before ``status_start`` or
   ``step_start`` is added.
2. An entry takes 13 bytes, and a step of a recovery 12.
"""

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from tickertape.contracts.events import Status
from tickertape.relay.core.timeline.changes import STATUSES, GatewayKey, RecoveryStep

DOWN, SILENCED, UP, CLOSED, UNKNOWN, REMOVED = range(6)
"""Kinds of a piece of time: not available, not available during a silence, available, outside of the trading
hours, not known, and not monitored. Kinds up to ``SILENCED`` are parts of an incident."""

_KIND_OF: Final = {
    Status.HEALTHY: UP,
    Status.DEGRADED: UP,
    Status.UNHEALTHY: DOWN,
    Status.RECOVERING: DOWN,
    Status.OFF_SESSION: CLOSED,
    Status.UNKNOWN: UNKNOWN,
    Status.REMOVED: REMOVED,
}

_STATUS_BITS: Final = 7
_SILENCED_BIT: Final = 8
_ERROR_BIT: Final = 16

_KINDS: Final = bytes(
    _KIND_OF[STATUSES[code & _STATUS_BITS]] if code & _STATUS_BITS < len(STATUSES) else UNKNOWN
    for code in range(32)
)
"""Kind by code, without regard to silences."""

_MAX_ATTEMPT: Final = (1 << 30) - 1


Piece: TypeAlias = tuple[int, int, int]
"""Piece of time in which the kind does not change: start and end (UNIX milliseconds), and kind.

It is a plain tuple, because a request makes hundreds of thousands."""


class StoredSilence(NamedTuple):
    """Silence of an entry.

    Attributes:
        until: end of the silence, UNIX milliseconds.
        reason: number of the reason's text.
        by: number of the user's text.
    """

    until: int
    reason: int
    by: int


class Entry(NamedTuple):
    """Entry of a timeline.

    Attributes:
        time: UNIX milliseconds.
        status: status from then on.
        text: number of the error or reason.
        is_error: whether the text is an error of a probe.
        silenced: whether the gateway was silenced.
        silence: details of the silence; None if they are unknown.
    """

    time: int
    status: Status
    text: int
    is_error: bool
    silenced: bool
    silence: StoredSilence | None


class Timeline:
    """Timeline of one gateway.

    Args:
        gateway: the gateway.

    Attributes:
        times: time of each entry in UNIX milliseconds, ascending.
        codes: status and flags of each entry.
        texts: number of the text of each entry; 0 for none.
        silences: silences of entries with one, by time.
        step_times: time of each step of a recovery, ascending.
        step_codes: phase and attempt of each step.
        status_start: time before which entries were removed, because there were too many; -inf for none.
        step_start: time before which steps were removed; -inf for none.
    """

    __slots__ = (
        *("codes", "gateway", "silences", "status_start"),
        *("step_codes", "step_start", "step_times", "texts", "times"),
    )

    def __init__(self, gateway: GatewayKey) -> None:
        self.gateway = gateway
        self.times = array("q")
        self.codes = array("B")
        self.texts = array("I")
        self.silences: dict[int, StoredSilence] = {}
        self.step_times = array("q")
        self.step_codes = array("I")
        self.status_start = -math.inf
        self.step_start = -math.inf

    def __len__(self) -> int:
        return len(self.times) + len(self.step_times)

    def __repr__(self) -> str:
        return f"Timeline({self.gateway.type}/{self.gateway.id}, {len(self.times)} entries)"

    def copy(self) -> "Timeline":
        """Return a copy of the entries, which does not change while it is read; it has no steps."""
        found = Timeline(self.gateway)
        found.times, found.codes, found.texts = self.times[:], self.codes[:], self.texts[:]
        found.silences, found.status_start = self.silences.copy(), self.status_start
        return found

    def add(self, time: int, code: int, text: int, *, is_error: bool, silence: StoredSilence | None) -> bool:
        """Add an entry; return False if it exists, or was removed."""
        if time < self.status_start:
            return False
        packed = code | (_SILENCED_BIT if silence is not None else 0) | (_ERROR_BIT if is_error else 0)
        times = self.times
        if not times or times[-1] < time:
            times.append(time)
            self.codes.append(packed)
            self.texts.append(text)
        else:
            index = bisect_right(times, time)
            for same in range(bisect_left(times, time), index):
                if (self.codes[same], self.texts[same]) == (packed, text):
                    return False
            times.insert(index, time)
            self.codes.insert(index, packed)
            self.texts.insert(index, text)
        if silence is not None:
            self.silences[time] = silence
        return True

    def add_step(self, step: RecoveryStep) -> bool:
        """Add a step of a recovery; return False if it exists, or was removed."""
        if step.time < self.step_start:
            return False
        code = min(step.attempt, _MAX_ATTEMPT) << 2 | step.phase
        index = bisect_right(self.step_times, step.time)
        same = bisect_left(self.step_times, step.time)
        if code in self.step_codes[same:index]:
            return False
        self.step_times.insert(index, step.time)
        self.step_codes.insert(index, code)
        return True

    def entry(self, index: int) -> Entry:
        """Return an entry by its index."""
        time, code = self.times[index], self.codes[index]
        silenced = bool(code & _SILENCED_BIT)
        return Entry(
            time,
            STATUSES[code & _STATUS_BITS],
            self.texts[index],
            bool(code & _ERROR_BIT),
            silenced,
            self.silences.get(time) if silenced else None,
        )

    def at(self, time: int) -> Entry | None:
        """Return the entry that is in effect at a time; None before the first one."""
        index = self.index_at(time)
        return None if index < 0 else self.entry(index)

    def index_at(self, time: int) -> int:
        """Return the index of the entry that is in effect at a time; -1 before the first one."""
        return bisect_right(self.times, time) - 1

    def kind(self, index: int) -> int:
        """Return the kind of an entry, without regard to silences."""
        return _KINDS[self.codes[index]]

    def status_since(self, index: int) -> int:
        """Return the time since which the gateway has had the status of an entry, without interruption."""
        codes, status = self.codes, self.codes[index] & _STATUS_BITS
        while index and codes[index - 1] & _STATUS_BITS == status:
            index -= 1
        return self.times[index]

    def first_error(self, start: int, end: int) -> int:
        """Return the number of the first error from the entry in effect at a time to that at another one.

        Without an error, it is that of the first reason; without either, 0.
        """
        reason = 0
        for index in range(max(0, self.index_at(start)), self.index_at(end) + 1):
            if (number := self.texts[index]) and self.codes[index] & _ERROR_BIT:
                return number
            reason = reason or number
        return reason

    def steps(self, start: int, end: int) -> Iterator[RecoveryStep]:
        """Yield the steps of recoveries with ``start <= time <= end``."""
        for index in range(bisect_left(self.step_times, start), bisect_right(self.step_times, end)):
            code = self.step_codes[index]
            yield RecoveryStep(self.step_times[index], code & 3, code >> 2)

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        """Yield the pieces of a range of time in order, without gaps."""
        times, codes, kinds = self.times, self.codes, _KINDS
        index = bisect_right(times, start) - 1
        last = bisect_left(times, end) - 1
        begin = start
        if index < 0 and begin < end:
            finish = min(times[0], end) if times else end
            yield begin, finish, UNKNOWN
            begin, index = finish, 0
        while begin < end:
            finish = times[index + 1] if index < last else end
            if finish > begin:
                code = codes[index]
                kind = kinds[code]
                if kind == DOWN and code & _SILENCED_BIT:
                    silence = self.silences.get(times[index])
                    until = min(finish, max(begin, silence.until)) if silence else finish
                    if until > begin:
                        yield begin, until, SILENCED
                    begin = until
                if finish > begin:
                    yield begin, finish, kind
                begin = finish
            index += 1

    def trim(self, size: int) -> int:
        """Remove the oldest entries and steps beyond a number of each, at least 1; return how many."""
        before = len(self)
        if len(self.times) > size:
            cut = len(self.times) - size
            del self.times[:cut], self.codes[:cut], self.texts[:cut]
            self.status_start = first = self.times[0]
            self.silences = {time: one for time, one in self.silences.items() if time >= first}
        if len(self.step_times) > size:
            cut = len(self.step_times) - size
            del self.step_times[:cut], self.step_codes[:cut]
            self.step_start = self.step_times[0]
        return before - len(self)
