"""Counters shared by workers; two instances on one table stand for two workers."""

import subprocess
import sys

import pytest
from tickertape.relay.core.limit_counters import ALL, BURST_SECONDS
from tickertape.relay.workers.shared_counters import SharedCounters, SharedLimitCounters

CAPACITY = 1_000


@pytest.fixture
def counters() -> SharedCounters:
    """Return shared counters for two workers."""
    return SharedCounters.create(2)


@pytest.fixture
def pair(counters: SharedCounters) -> tuple[SharedLimitCounters, SharedLimitCounters]:
    """Return the limit counters of both workers."""
    return SharedLimitCounters(counters, 0, CAPACITY), SharedLimitCounters(counters, 1, CAPACITY)


def test_a_limit_is_shared_by_all_workers(pair: tuple[SharedLimitCounters, SharedLimitCounters]) -> None:
    """A limit applies to all workers together, and capacity that one releases can be acquired by another."""
    first, second = pair
    assert [first.acquire("@a", 3), second.acquire("@a", 3), second.acquire("@a", 3)] == [True] * 3
    assert not first.acquire("@a", 3)
    assert not second.acquire("@a", 3)
    assert first.acquire("@b", 3)
    second.release("@a")
    assert first.acquire("@a", 3)
    assert not second.acquire("@a", 3)


def test_a_worker_does_not_exceed_its_own_capacity(counters: SharedCounters) -> None:
    """A worker is limited by its own file descriptors, whatever the shared limit is."""
    small, large = SharedLimitCounters(counters, 0, 2), SharedLimitCounters(counters, 1, CAPACITY)
    assert [small.acquire(ALL, 0) for _ in range(3)] == [True, True, False]
    assert large.acquire(ALL, 0)
    small.release(ALL)
    assert small.acquire(ALL, 0)


def test_a_dead_worker_is_no_longer_counted(
    counters: SharedCounters, pair: tuple[SharedLimitCounters, SharedLimitCounters]
) -> None:
    """The counts of a dead worker are cleared, and those of the other are kept."""
    first, second = pair
    assert first.acquire("@a", 2)
    assert second.acquire("@a", 2)
    counters.clear_slot(0)
    assert second.acquire("@a", 2)
    assert not SharedLimitCounters(counters, 0, CAPACITY).acquire("@a", 2)


def test_an_extra_release_adds_no_capacity(pair: tuple[SharedLimitCounters, SharedLimitCounters]) -> None:
    """Releasing a connection that was not acquired does not add capacity."""
    first, second = pair
    assert first.acquire("@a", 1)
    second.release("@a")
    assert not second.acquire("@a", 1)


def test_a_rate_is_shared_by_all_workers(
    pair: tuple[SharedLimitCounters, SharedLimitCounters], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens of all workers come from one bucket, refilled at its rate, and debt is bounded."""
    now = [50.0]
    monkeypatch.setattr("tickertape.relay.workers.shared_counters.time.monotonic", lambda: now[0])
    first, second = pair
    burst = int(BURST_SECONDS)
    assert all(pair[turn % 2].spend("@a", 1.0, 1.0, 0.0) for turn in range(burst))
    assert not first.spend("@a", 1.0, 1.0, 0.0)
    now[0] += 2.0
    assert [second.spend("@a", 1.0, 1.0, 0.0) for _ in range(3)] == [True, True, False]
    assert first.spend("@a", 1.0, 1e9, 0.0, allow_debt=True)
    now[0] += BURST_SECONDS + 0.5
    assert not second.spend("@a", 1.0, 1.0, 0.0)
    now[0] += 1.0
    assert second.spend("@a", 1.0, 1.0, 0.0)


def test_rows_without_connections_are_reused(
    counters: SharedCounters,
    pair: tuple[SharedLimitCounters, SharedLimitCounters],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new key replaces the least recently used one without connections, never one with connections."""
    monkeypatch.setattr("tickertape.relay.workers.shared_counters._BUCKET_BITS", 0)
    monkeypatch.setattr("tickertape.relay.workers.shared_counters._WAYS", 4)
    first, second = pair
    now = [1.0]
    monkeypatch.setattr("tickertape.relay.workers.shared_counters.time.monotonic", lambda: now[0])
    assert first.acquire("@counted", 1)
    for number in range(9):
        now[0] += 1.0
        assert first.spend(f"@{number}", 0.001, 0.01, 0.0)
    assert not second.acquire("@counted", 1)
    for number in range(3):
        assert first.acquire(f"@more {number}", 1)
    # No row is left, so a new key is not counted and has no limit.
    assert all(first.acquire("@unlucky", 1) and first.spend("@unlucky", 1.0, 1e9, 0.0) for _ in range(3))
    first.release("@unlucky")
    first.release("@counted")
    assert first.acquire("@late", 1)
    assert not second.acquire("@late", 1)


_FILL = """
import sys
from tickertape.relay.workers.shared_counters import SharedCounters, SharedLimitCounters
counters = SharedLimitCounters(SharedCounters(int(sys.argv[1]), 2), int(sys.argv[2]), 10**9)
print("up", flush=True)
sys.stdin.read(1)
print(sum(counters.acquire(f"@{number}", 1) for number in range(20_000)))
"""


def test_two_processes_share_a_limit(counters: SharedCounters) -> None:
    """Two processes that acquire simultaneously neither exceed a limit nor reject any connection below it."""
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
