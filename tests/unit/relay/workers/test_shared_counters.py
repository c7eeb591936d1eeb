"""Tests of the counts that workers share; two tallies on one table are two of them."""

import subprocess
import sys

import pytest
from tickertape.relay.core.limit_counters import ALL, BURST_SECONDS
from tickertape.relay.workers.shared_counters import SharedCounters, SharedLimitCounters

ROOM = 1_000


@pytest.fixture
def counters() -> SharedCounters:
    """For two workers."""
    return SharedCounters.create(2)


@pytest.fixture
def pair(counters: SharedCounters) -> tuple[SharedLimitCounters, SharedLimitCounters]:
    """Both workers."""
    return SharedLimitCounters(counters, 0, ROOM), SharedLimitCounters(counters, 1, ROOM)


def test_a_limit_is_one_for_all(pair: tuple[SharedLimitCounters, SharedLimitCounters]) -> None:
    """Whoever of them counts; and what one gives back another may take."""
    one, other = pair
    assert [one.acquire("@a", 3), other.acquire("@a", 3), other.acquire("@a", 3)] == [True] * 3
    assert not one.acquire("@a", 3)
    assert not other.acquire("@a", 3)
    assert one.acquire("@b", 3)
    other.release("@a")
    assert one.acquire("@a", 3)
    assert not other.acquire("@a", 3)


def test_a_worker_takes_no_more_than_it_has_room_for(counters: SharedCounters) -> None:
    """Its descriptors are its own, whatever the whole may have."""
    small, large = SharedLimitCounters(counters, 0, 2), SharedLimitCounters(counters, 1, ROOM)
    assert [small.acquire(ALL, 0) for _ in range(3)] == [True, True, False]
    assert large.acquire(ALL, 0)
    small.release(ALL)
    assert small.acquire(ALL, 0)


def test_a_dead_worker_is_counted_no_more(
    counters: SharedCounters, pair: tuple[SharedLimitCounters, SharedLimitCounters]
) -> None:
    """Its column is emptied; the other's stays."""
    one, other = pair
    assert one.acquire("@a", 2)
    assert other.acquire("@a", 2)
    counters.clear_slot(0)
    assert other.acquire("@a", 2)
    assert not SharedLimitCounters(counters, 0, ROOM).acquire("@a", 2)


def test_giving_back_what_was_never_taken(pair: tuple[SharedLimitCounters, SharedLimitCounters]) -> None:
    """Does not make room for more."""
    one, other = pair
    assert one.acquire("@a", 1)
    other.release("@a")
    assert not other.acquire("@a", 1)


def test_an_allowance_is_one_for_all(
    pair: tuple[SharedLimitCounters, SharedLimitCounters], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spent by whom it may be; it comes back at its rate, once, and what is owed is bounded."""
    now = [50.0]
    monkeypatch.setattr("tickertape.relay.workers.shared_counters.time.monotonic", lambda: now[0])
    one, other = pair
    burst = int(BURST_SECONDS)
    assert all(pair[turn % 2].spend("@a", 1.0, 1.0, 0.0) for turn in range(burst))
    assert not one.spend("@a", 1.0, 1.0, 0.0)
    now[0] += 2.0
    assert [other.spend("@a", 1.0, 1.0, 0.0) for _ in range(3)] == [True, True, False]
    assert one.spend("@a", 1.0, 1e9, 0.0, allow_debt=True)
    now[0] += BURST_SECONDS + 0.5
    assert not other.spend("@a", 1.0, 1.0, 0.0)
    now[0] += 1.0
    assert other.spend("@a", 1.0, 1.0, 0.0)


def test_rows_are_taken_from_those_who_are_counted_nowhere(
    counters: SharedCounters,
    pair: tuple[SharedLimitCounters, SharedLimitCounters],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The longest unheard of first; never from one that is counted."""
    monkeypatch.setattr("tickertape.relay.workers.shared_counters._BUCKET_BITS", 0)
    monkeypatch.setattr("tickertape.relay.workers.shared_counters._WAYS", 4)
    one, other = pair
    now = [1.0]
    monkeypatch.setattr("tickertape.relay.workers.shared_counters.time.monotonic", lambda: now[0])
    assert one.acquire("@counted", 1)
    for number in range(9):
        now[0] += 1.0
        assert one.spend(f"@{number}", 0.001, 0.01, 0.0)
    assert not other.acquire("@counted", 1)
    for number in range(3):
        assert one.acquire(f"@more {number}", 1)
    # No row is left: who comes now is not counted, and so has no limit.
    assert all(one.acquire("@unlucky", 1) and one.spend("@unlucky", 1.0, 1e9, 0.0) for _ in range(3))
    one.release("@unlucky")
    one.release("@counted")
    assert one.acquire("@late", 1)
    assert not other.acquire("@late", 1)


_FILL = """
import sys
from tickertape.relay.workers.shared_counters import SharedCounters, SharedLimitCounters
counters = SharedLimitCounters(SharedCounters(int(sys.argv[1]), 2), int(sys.argv[2]), 10**9)
print("up", flush=True)
sys.stdin.read(1)
print(sum(counters.acquire(f"@{number}", 1) for number in range(20_000)))
"""


def test_two_processes_at_once(counters: SharedCounters) -> None:
    """Never one too many, and none that would have fitted is refused."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _FILL, str(counters.descriptor), str(slot)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[counters.descriptor],
        )
        for slot in range(2)
    ]
    for worker in workers:
        assert worker.stdout
        worker.stdout.readline()
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("x")
        worker.stdin.flush()
    assert sum(int(worker.communicate()[0]) for worker in workers) == 20_000
