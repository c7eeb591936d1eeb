"""CPU and memory of processes, and a histogram for latencies.

Invariants of the histogram:

1. Buckets are linear up to 128 us, then 64 per power of two, so a value is known to within 1.6 %.
2. A percentile is the upper end of its bucket, capped at the largest value: it never underestimates.
"""

import contextlib
import math
import os
import resource
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_LINEAR: Final = 128
_HALF: Final = _LINEAR // 2
_BITS: Final = 7
_OWN_DESCRIPTORS: Final = 200
"""Descriptors that a process needs for purposes other than clients; slightly more than the relay uses."""


def bucket_of(microseconds: int) -> int:
    """Return the index of the bucket of a value; a negative value counts as 0."""
    if microseconds < _LINEAR:
        return max(microseconds, 0)
    shift = microseconds.bit_length() - _BITS
    return shift * _HALF + (microseconds >> shift)


def bucket_end(index: int) -> int:
    """Return the largest value of a bucket, in microseconds."""
    if index < _LINEAR:
        return index
    shift = index // _HALF - 1
    mantissa = index - shift * _HALF
    return ((mantissa + 1) << shift) - 1


@dataclass(slots=True)
class Histogram:
    """Latencies in log-linear buckets.

    Attributes:
        counts: number of values per bucket; empty buckets are omitted.
        total: number of values.
        largest: largest value in microseconds, exact.
    """

    counts: dict[int, int] = field(default_factory=dict)
    total: int = 0
    largest: int = 0

    def record(self, microseconds: int) -> None:
        """Add one value."""
        index = bucket_of(microseconds)
        self.counts[index] = self.counts.get(index, 0) + 1
        self.total += 1
        if microseconds > self.largest:
            self.largest = microseconds

    def percentile(self, percent: float) -> float:
        """Return the milliseconds that this percentage of the values does not exceed; NaN if empty."""
        if not self.total:
            return math.nan
        rank = max(1, math.ceil(self.total * percent / 100))
        seen = 0
        for index in sorted(self.counts):
            seen += self.counts[index]
            if seen >= rank:
                return min(bucket_end(index), self.largest) / 1000
        return self.largest / 1000

    @property
    def max_ms(self) -> float:
        """Largest value in milliseconds; NaN if empty."""
        return self.largest / 1000 if self.total else math.nan


def _process_tree(pid: int) -> list[int]:
    """Return a process and its descendants, as far as they are alive."""
    found = [pid]
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found.extend(int(child) for child in task.read_text().split())
    return found


def parse_stat(text: str) -> int:
    """Return user plus system time, in ticks, from a line of ``/proc/<pid>/stat``."""
    # The second field is the program's name in parentheses, which may itself contain spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process and its descendants have used; 0 if it has ended."""
    ticks = 0
    for process in _process_tree(pid):
        with contextlib.suppress(OSError):
            ticks += parse_stat(Path(f"/proc/{process}/stat").read_text())
    return ticks / _TICKS


def parse_machine(text: str) -> int:
    """Return the machine's busy ticks (not idle, not stolen) from the first line of ``/proc/stat``."""
    user, nice, system, _, _, irq, softirq = (int(field) for field in text.split(maxsplit=8)[1:8])
    return user + nice + system + irq + softirq


def machine_seconds() -> float:
    """Return the CPU seconds used by all programs on this machine."""
    return parse_machine(Path("/proc/stat").read_text()) / _TICKS


def rss_bytes(pid: int) -> int:
    """Return the resident bytes of a process and its descendants."""
    pages = 0
    for process in _process_tree(pid):
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * _PAGE


def descriptors() -> int:
    """Return the number of clients one process can have: the hard limit on descriptors minus a reserve."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1 << 20 if hard == resource.RLIM_INFINITY else max(1, hard - _OWN_DESCRIPTORS)
