"""Schedule of file streams: order, bounds, and waiting for the last line."""

import os
import time
from pathlib import Path
from typing import Any, cast

import pytest
from tickertape.producers.shipper import schedule as schedule_module
from tickertape.producers.shipper.files.batch import MAX_BATCH_BYTES
from tickertape.producers.shipper.parsing.parser import ParseSettings
from tickertape.producers.shipper.schedule import (
    MAX_CONCURRENT_STREAMS,
    MAX_HASTY_PAUSE,
    MIN_COALESCED,
    SETTLED_AFTER,
    Schedule,
    hasty_pause,
)
from tickertape.producers.shipper.sources.event_stream import EventStream
from tickertape.producers.shipper.timing import MULTILINE_TIMEOUT

from tests.support.shipper_desk import Desk


class Stream:
    """Stream with a given amount to read."""

    def __init__(
        self, lag: int = 10, flush_at: float = float("inf"), *, needs_attention: bool = False
    ) -> None:
        self.lag = lag
        self.flush_at = flush_at
        self.needs_attention = needs_attention


def streams(count: int, **fields: Any) -> list[EventStream]:
    """Return streams that only tell the schedule what it asks for."""
    return [cast(EventStream, Stream(**fields)) for _ in range(count)]


class Clock:
    """Monotonic clock of the schedule."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock of the schedule."""
    clock = Clock()
    monkeypatch.setattr(schedule_module, "time", clock)
    return clock


def test_streams_have_their_turn_in_order() -> None:
    """A stream with more to ship comes after those that have waited longer."""
    schedule = Schedule(lambda: None)
    one, two, three = streams(3)
    schedule.add(one)
    schedule.add(two)
    assert schedule.take() is one
    schedule.add(three)
    schedule.release(one)
    schedule.add(one)
    assert [schedule.take() for _ in range(4)] == [two, three, one, None]
    assert schedule.busy == {one, two, three}


def test_memory_is_bounded() -> None:
    """Few streams with much to read are shipped simultaneously, or many with little, and always one."""
    for lag, expected in ((100 * MAX_BATCH_BYTES, 8), (10, MAX_CONCURRENT_STREAMS)):
        schedule = Schedule(lambda: None)
        for stream in streams(MAX_CONCURRENT_STREAMS + 8, lag=lag):
            schedule.add(stream)
        running = []
        while (taken := schedule.take()) is not None:
            running.append(taken)
        assert len(running) == expected
        schedule.release(running[0])
        assert schedule.take() is not None


def test_what_is_due_is_looked_at_once(clock: Clock) -> None:
    """A stream is due at the time of its last request, and the owner is woken if that is early."""
    woken: list[float] = []
    schedule = Schedule(lambda: woken.append(clock.now))
    schedule.wake_at = clock.now + 5
    late, early = (
        streams(1, needs_attention=True)[0],
        streams(1, flush_at=clock.now + 0.2, needs_attention=True)[0],
    )
    schedule.attend(late, 10.0)
    assert not woken
    schedule.attend(early, 10.0)
    assert woken == [clock.now]
    assert schedule.next_due == clock.now + 0.2
    clock.now += 0.2
    assert schedule.take_due(clock.now) == [early]
    schedule.attend(late, 20.0)
    clock.now += 10
    assert schedule.take_due(clock.now) == []
    clock.now += 10
    assert schedule.take_due(clock.now) == [late]
    assert schedule.next_due == float("inf")


def test_many_changed_streams_wait_for_their_last_line(clock: Clock) -> None:
    """If many streams change, each is looked at after the time for which a parser holds its last line."""
    schedule = Schedule(lambda: None)
    few, many = set(streams(MIN_COALESCED - 1)), set(streams(MIN_COALESCED))
    assert schedule.coalesce(few) == few
    assert schedule.coalesce(many) == set()
    clock.now += MULTILINE_TIMEOUT - SETTLED_AFTER / 2
    again = next(iter(many))
    schedule.busy |= few
    assert schedule.coalesce({again}) == set(), "many have changed"
    clock.now += SETTLED_AFTER / 2
    assert set(schedule.take_due(clock.now)) == many, "further changes do not postpone it"
    assert [stream for stream in many if not schedule.take_settled(stream)] == [again]
    assert not schedule.take_settled(again), "each report counts once"


def test_a_stream_without_work_can_change_again(clock: Clock) -> None:
    """A stream whose change was no work is looked at after its next change as well."""
    schedule = Schedule(lambda: None)
    many = set(streams(MIN_COALESCED))
    for _ in range(2):
        schedule.coalesce(many)
        clock.now += MULTILINE_TIMEOUT
        due = schedule.take_due(clock.now)
        assert set(due) == many
        for stream in due:
            schedule.attend(stream, 1.0)


@pytest.mark.parametrize(("settled", "age", "expected"), [(True, 1.0, 3), (True, 0.1, 2), (False, 1.0, 2)])
def test_the_last_line_of_a_settled_file_is_shipped_with_the_others(
    settled: bool, age: float, expected: int, tmp_path: Path
) -> None:
    """No line is held that neither a report nor the time of the file shows to be recent."""
    desk = Desk(tmp_path, parsing=ParseSettings())
    desk.real_time = True
    desk.now = time.time()
    desk.write("app.log", "".join(f"2026-01-01T00:00:00Z INFO line {number}\n" for number in range(3)))
    desk.discovery.scan(desk.now)
    (stream,) = desk.discovery.streams.values()
    os.utime(tmp_path / "app.log", (desk.now - age, desk.now - age))
    stream.set_settled(settled=settled)
    batch = stream.next_batch(desk.now)
    assert batch is not None
    assert len(batch.events) == expected
    desk.close()


def test_new_files_do_not_wait_for_long_after_a_slow_scan() -> None:
    """The pause between scans grows with their duration up to a bound, while new files appear."""
    assert [hasty_pause(seconds, 1.0, 1.0) for seconds in (0.01, 0.5, 20.0)] == [1.0, 5.0, MAX_HASTY_PAUSE]


def test_a_scan_that_has_found_many_files_is_soon_followed_by_another() -> None:
    """Only the time that a scan spends on known files delays the next one."""
    assert [hasty_pause(0.8, 1.0, known) for known in (0.0, 0.5, 1.0)] == [1.0, 4.0, 8.0]
