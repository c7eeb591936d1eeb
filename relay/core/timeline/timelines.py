"""Timelines of all gateways, within bounds.

Invariants:

1. There are at most ``max_entries`` entries and steps; beyond that, the longest timelines lose their oldest.
   One timeline has at most ``MAX_TIMELINE`` of each; what it costs to read is bounded by that.
2. There are at most ``max_gateways`` gateways. Beyond that, a type with more than an eighth loses its least
   recently changed gateways; without such a type, the least recently changed of all go.
3. The texts of all entries take at most ``MAX_TEXT_BYTES``; beyond that, the oldest entries lose theirs. So
   do the oldest of more than ``MAX_SILENCES`` silences.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Final

from tickertape.contracts.subjects import escape
from tickertape.relay.core.timeline.changes import (
    RECOVERY_PREFIX,
    STATUS_PREFIX,
    GatewayKey,
    RecoveryStep,
    read_change,
    read_gateway,
)
from tickertape.relay.core.timeline.texts import Texts
from tickertape.relay.core.timeline.timeline import StoredSilence, Timeline

MAX_ENTRIES: Final = 1_000_000
"""Maximum number of entries and steps of all gateways, 13 MB."""

ENTRY_BYTES: Final = 13
"""Bytes of an entry; a step has 12."""

MAX_TIMELINE: Final = 20_000
"""Maximum number of entries, and of steps, of one gateway: 25 ms to read. A status every six minutes fills 90
days."""

MAX_GATEWAYS: Final = 100_000
"""Maximum number of gateways, 80 MB without their entries."""

MAX_SILENCES: Final = 50_000
"""Maximum number of entries with details of a silence, 12 MB."""

KEPT: Final = 7 / 8
"""Share of the entries or gateways that are kept when there are too many."""


class Timelines:
    """Timelines by gateway.

    Args:
        max_entries: maximum number of entries and steps.
        max_gateways: maximum number of gateways.
        texts: table of the texts of all entries.

    Attributes:
        texts: errors and reasons by their number.
        entries: number of entries and steps of all gateways.
        truncated: number of gateways that have lost their oldest entries or steps.
    """

    def __init__(
        self, max_entries: int = MAX_ENTRIES, max_gateways: int = MAX_GATEWAYS, texts: Texts | None = None
    ) -> None:
        self.texts = texts or Texts()
        self.entries = 0
        self.truncated = 0
        self._max_entries = max_entries
        self._max_gateways = max_gateways
        self._timelines: dict[GatewayKey, Timeline] = {}
        self._by_subject: dict[str, Timeline] = {}
        self._sorted: list[GatewayKey] = []
        self._unsorted: list[GatewayKey] = []
        self._silences = 0

    def __len__(self) -> int:
        return len(self._timelines)

    @property
    def size(self) -> int:
        """Approximate bytes of all entries and texts, without those of the gateways."""
        return self.entries * ENTRY_BYTES + self.texts.bytes

    def __repr__(self) -> str:
        return f"Timelines({len(self)} gateways, {self.entries} entries)"

    def get(self, gateway: GatewayKey) -> Timeline | None:
        """Return the timeline of a gateway; None if it is unknown."""
        return self._timelines.get(gateway)

    def after(self, gateway: GatewayKey | None) -> Iterator[Timeline]:
        """Yield the timelines of gateways after one, by type and id; None yields all."""
        if self._unsorted:
            # A new list, because another caller may read the old one. Sorting two sorted runs merges them.
            self._sorted = sorted([*self._sorted, *sorted(self._unsorted)])
            self._unsorted = []
        keys = self._sorted
        start = 0 if gateway is None else bisect_right(keys, gateway)
        for key in islice(keys, start, None):
            # A caller may pause, and gateways may be evicted meanwhile.
            timeline = self._timelines.get(key)
            if timeline is not None:
                yield timeline

    def add(self, subject: str, payload: bytes) -> bool:
        """Add an event; return whether it is a new one of a gateway.

        Args:
            subject: subject without the deployment's prefix.
            payload: payload of the message, which may violate the contract.
        """
        timeline = self._by_subject.get(subject)
        gateway = read_gateway(subject) if timeline is None else timeline.gateway
        if gateway is None:
            return False
        change = read_change(subject, gateway, payload)
        if change is None:
            return False
        if timeline is None:
            timeline = self._timeline(gateway)
            self._by_subject[subject] = timeline
        if isinstance(change, RecoveryStep):
            added = timeline.add_step(change)
        else:
            number, silence = self.texts.number(change.text), None
            if change.silenced is not None:
                until, reason, by = change.silenced
                silence = StoredSilence(until, self.texts.number(reason), self.texts.number(by))
            added = timeline.add(change.time, change.code, number, is_error=change.is_error, silence=silence)
            self._silences += added and silence is not None
        if added:
            self.entries += 1
            self._bound(timeline)
        return added

    def _timeline(self, gateway: GatewayKey) -> Timeline:
        timeline = self._timelines.get(gateway)
        if timeline is None:
            timeline = self._timelines[gateway] = Timeline(gateway)
            self._unsorted.append(gateway)
        return timeline

    def _bound(self, changed: Timeline) -> None:
        if len(changed.times) > MAX_TIMELINE or len(changed.step_times) > MAX_TIMELINE:
            self._trim(changed, int(MAX_TIMELINE * KEPT))
        if len(self._timelines) > self._max_gateways:
            self._evict_gateways()
        if self.entries > self._max_entries:
            self._trim_longest()
        if self._silences > MAX_SILENCES:
            self._forget_silences()
        if self.texts.is_full:
            self._forget_texts()

    def _evict_gateways(self) -> None:
        (largest, number), *_ = Counter(key.type for key in self._timelines).most_common(1)
        candidates = list(self._timelines.values())
        if number > len(candidates) * (1 - KEPT):
            candidates = [one for one in candidates if one.gateway.type == largest]
        candidates.sort(key=_changed_at)
        for timeline in candidates[: max(1, int(len(candidates) * (1 - KEPT)))]:
            del self._timelines[timeline.gateway]
            self.entries -= len(timeline)
            self._silences -= len(timeline.silences)
            self.truncated -= _is_truncated(timeline)
        self._sorted, self._unsorted = [], list(self._timelines)
        self._by_subject = {
            subject: one for subject, one in self._by_subject.items() if one.gateway in self._timelines
        }

    def _trim_longest(self) -> None:
        """Reduce the longest timelines to a common length, so that short ones lose nothing."""
        lengths = sorted(len(one) for one in self._timelines.values())
        room, left = int(self._max_entries * KEPT), len(lengths)
        for length in lengths:
            if length * left > room:
                break
            room -= length
            left -= 1
        # Half for each of the two kinds of entries.
        longest = max(2, room // max(1, left))
        for timeline in self._timelines.values():
            if len(timeline) > longest:
                self._trim(timeline, longest // 2)

    def _trim(self, timeline: Timeline, size: int) -> None:
        """Remove the oldest entries and steps of a timeline beyond a number of each."""
        self._silences -= len(timeline.silences)
        self.truncated -= _is_truncated(timeline)
        self.entries -= timeline.trim(size)
        self.truncated += _is_truncated(timeline)
        self._silences += len(timeline.silences)

    def _forget_silences(self) -> None:
        times = sorted(time for one in self._timelines.values() for time in one.silences)
        newest = times[len(times) // 2]
        for timeline in self._timelines.values():
            timeline.silences = {time: one for time, one in timeline.silences.items() if time > newest}
        self._silences = sum(len(one.silences) for one in self._timelines.values())

    def _forget_texts(self) -> None:
        newest: dict[int, int] = {}

        def use(time: int, number: int) -> None:
            if number and newest.get(number, time) <= time:
                newest[number] = time

        for timeline in self._timelines.values():
            for time, number in zip(timeline.times, timeline.texts, strict=True):
                use(time, number)
            for time, silence in timeline.silences.items():
                use(time, silence.reason)
                use(time, silence.by)
        renumbered = self.texts.keep(sorted(newest, key=newest.__getitem__, reverse=True))
        for timeline in self._timelines.values():
            for index, number in enumerate(timeline.texts):
                timeline.texts[index] = renumbered.get(number, 0)
            for time, (until, reason, by) in timeline.silences.items():
                timeline.silences[time] = StoredSilence(
                    until, renumbered.get(reason, 0), renumbered.get(by, 0)
                )


def _changed_at(timeline: Timeline) -> int:
    return timeline.times[-1] if timeline.times else timeline.step_times[-1]


def _is_truncated(timeline: Timeline) -> bool:
    return max(timeline.status_start, timeline.step_start) > -math.inf


def subjects_of(gateway: GatewayKey) -> tuple[str, str]:
    """Return the subjects of a gateway's statuses and recoveries."""
    tokens = f"{escape(gateway.type)}.{escape(gateway.id)}"
    return STATUS_PREFIX + tokens, RECOVERY_PREFIX + tokens
