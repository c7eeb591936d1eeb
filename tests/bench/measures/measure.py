"""What is measured of a process (CPU, memory), and a histogram for latencies.

Invariants of the histogram:

1. Buckets are linear up to 128 us and then 64 per power of two, so a value is known to within 1.6 %.
2. A percentile is the upper end of its bucket and never above the largest value: it does not flatter.
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
"""How many a process keeps for other things than its clients; a few more than the relay needs."""


def bucket_of(microseconds: int) -> int:
    """Index of the bucket that a value falls into; a negative value counts as 0."""
    if microseconds < _LINEAR:
        return max(microseconds, 0)
    shift = microseconds.bit_length() - _BITS
    return shift * _HALF + (microseconds >> shift)


def bucket_end(index: int) -> int:
    """Largest value, in microseconds, of a bucket."""
    if index < _LINEAR:
        return index
    shift = index // _HALF - 1
    mantissa = index - shift * _HALF
    return ((mantissa + 1) << shift) - 1


@dataclass(slots=True)
class Histogram:
    """Latencies in log-linear buckets.

    Attributes:
        counts: values per bucket; only buckets that have any.
        total: values recorded.
        largest: in microseconds, exact.
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
        """Value, in milliseconds, that this share of the recorded values does not exceed; NaN when empty."""
        if not self.total:
            return math.nan
        wanted = max(1, math.ceil(self.total * percent / 100))
        seen = 0
        for index in sorted(self.counts):
            seen += self.counts[index]
            if seen >= wanted:
                return min(bucket_end(index), self.largest) / 1000
        return self.largest / 1000

    @property
    def max_ms(self) -> float:
        """Largest value in milliseconds; NaN when empty."""
        return self.largest / 1000 if self.total else math.nan


def _tree(pid: int) -> list[int]:
    """A process and what descends from it, as far as it is alive."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found.extend(int(child) for child in task.read_text().split())
    return found


def parse_stat(text: str) -> int:
    """User plus system time, in ticks, of a line of ``/proc/<pid>/stat``."""
    # The second field is the program's name in parentheses and may itself hold any of them.
    fields = text.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def cpu_seconds(pid: int) -> float:
    """CPU time that a process and its children have used; a process that has ended counts as 0."""
    ticks = 0
    for one in _tree(pid):
        with contextlib.suppress(OSError):
            ticks += parse_stat(Path(f"/proc/{one}/stat").read_text())
    return ticks / _TICKS


def parse_machine(text: str) -> int:
    """Ticks that the machine was busy, of the first line of ``/proc/stat``: neither idle, nor stolen."""
    user, nice, system, _, _, irq, softirq = (int(field) for field in text.split(maxsplit=8)[1:8])
    return user + nice + system + irq + softirq


def machine_seconds() -> float:
    """CPU time that everything on this machine has used."""
    return parse_machine(Path("/proc/stat").read_text()) / _TICKS


def rss_bytes(pid: int) -> int:
    """Resident memory of a process and its children."""
    pages = 0
    for one in _tree(pid):
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
    return pages * _PAGE


def descriptors() -> int:
    """How many clients one process may have here: the hard limit on descriptors, without its own."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1 << 20 if hard == resource.RLIM_INFINITY else max(1, hard - _OWN_DESCRIPTORS)
