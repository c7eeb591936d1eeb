"""The benchmark's instruments: the histogram, and the kernel's process statistics."""

import math
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from tests.bench.measures.measure import (
    Histogram,
    bucket_end,
    bucket_of,
    parse_machine,
    parse_stat,
)
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE

_MICROSECONDS = st.integers(min_value=0, max_value=10**9)


@given(_MICROSECONDS)
def test_value_lies_in_its_bucket(value: int) -> None:
    """A value is at most its bucket's upper bound and above the previous one, within 1.6 %."""
    index = bucket_of(value)
    assert value <= bucket_end(index) <= value * 1.016 + 1
    assert index == 0 or bucket_end(index - 1) < value


@given(st.lists(_MICROSECONDS, min_size=1), st.floats(min_value=0.1, max_value=100))
def test_percentile_agrees_with_sorting(values: list[int], percent: float) -> None:
    """A percentile is the value found by sorting, rounded up to its bucket's upper bound."""
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    exact = sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]
    assert exact / 1000 <= histogram.percentile(percent) <= bucket_end(bucket_of(exact)) / 1000
    assert histogram.percentile(100) <= histogram.max_ms == max(values) / 1000


def test_percentile_of_nothing_is_not_a_number() -> None:
    """An empty histogram has no percentile."""
    assert math.isnan(Histogram().percentile(99))
    assert math.isnan(Histogram().max_ms)


def test_negative_latency_counts_as_none() -> None:
    """A negative value is counted in the first bucket."""
    histogram = Histogram()
    histogram.record(-5)
    assert histogram.percentile(50) == 0


def test_stat_is_read_behind_a_strange_name() -> None:
    """User and system ticks are found although the program's name contains spaces and parentheses."""
    assert parse_stat("7 (a) b) R 1 2 3 4 5 6 7 8 9 10 120 30 0 0 20 0 1 0 99") == 150


def test_machine_is_busy_when_it_does_not_wait() -> None:
    """Idle, I/O wait, stolen and guest time do not count as busy."""
    assert parse_machine("cpu  1 2 4 1000 1000 8 16 1000 1000 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n") == 31


def test_own_process_has_cpu_and_memory() -> None:
    """CPU time and memory of this process are measured."""
    # In a process without children: those of other tests would be counted, and end meanwhile.
    script = (
        "import os, time\n"
        "from tests.bench.measures.measure import cpu_seconds, rss_bytes\n"
        "before, deadline = cpu_seconds(os.getpid()), time.process_time() + 0.05\n"
        "while time.process_time() < deadline: pass\n"
        "assert cpu_seconds(os.getpid()) > before\n"
        "assert rss_bytes(os.getpid()) > 1_000_000\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=PATIENCE)
