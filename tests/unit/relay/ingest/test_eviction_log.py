"""Log lines on evicted states: one per episode, however long it lasts."""

import logging

import pytest
from tickertape.relay.core.event_log import Record
from tickertape.relay.core.filters import Route
from tickertape.relay.core.snapshot import Snapshot
from tickertape.relay.core.state_pool import Bounds
from tickertape.relay.ingest.eviction_log import QUIET, EvictionLog


def test_an_episode_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A flood with pauses leads to one line at its beginning, with the largest group, and one at its end."""
    snapshot = Snapshot({"gateway.status": Bounds(99, 999), "system.health": Bounds(80, 9_999)})
    now = 1_000.0
    reporter = EvictionLog(snapshot, lambda: now)
    caplog.set_level(logging.INFO)

    def flood(count: int) -> None:
        for _ in range(count):
            seq = next(sequences)
            snapshot.put(Record(seq, Route(f"system.health.web.{seq}"), b"{}", True, False, 0.0, 0.0, 0))

    sequences = iter(range(1, 1_000))
    flood(80)
    reporter.check()
    assert caplog.messages == []
    for _ in range(10):
        flood(10)
        now += QUIET / 2
        reporter.check()
    (line,) = caplog.messages
    assert line.startswith("more states of system.health than a relay can hold")
    assert "(10 so far)" in line
    assert "most are of system.health.web (80)" in line
    for _ in range(10):
        now += QUIET / 2
        reporter.check()
    assert caplog.messages[1:] == [
        "no more states of system.health are evicted; 100 were, and 100 are missing from snapshots"
    ]
    flood(1)
    reporter.check()
    assert len(caplog.messages) == 3
