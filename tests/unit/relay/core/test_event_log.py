"""The bounded event log, compared with an unbounded list."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tickertape.relay.core.event_log import EventLog, MissingRange, Record
from tickertape.relay.core.filters import Filter, Route

ROUTES = tuple(Route(subject) for subject in ("log.info.x", "log.error.x", "gateway.status.ctp.a"))
ALL = Filter((">",))
FILTERS = (ALL, Filter(("log.>",), "ERROR"), Filter(("gateway.>",)), Filter(("system.>",)))


def record(seq: int, size: int = 10, route: Route = ROUTES[0], stored: float | None = None) -> Record:
    """Build a record with a size in bytes."""
    at = float(seq) if stored is None else stored
    return Record(seq, route, b"x" * size, False, False, at, at, int(at * 1e9))


def sequences(log: EventLog) -> list[int]:
    """Return the sequences in the log, oldest first."""
    return [record.seq for record in log]


def filled(*seqs: int, max_events: int = 100, max_bytes: int = 10_000, at: int = 0) -> EventLog:
    """Return a log that starts at a position and contains records."""
    log = EventLog(max_events, max_bytes)
    log.reset(at)
    for seq in seqs:
        log.append(record(seq))
    return log


def test_a_new_log_is_empty() -> None:
    """A new log is empty, and its floor and head are at its start."""
    log = filled(at=41)
    assert (len(log), log.bytes, log.floor, log.head) == (0, 0, 41, 41)
    assert log.select(ALL, 41, 41, 10, 10) == ([], 41)
    assert log.position_at(0.0) == 41


@given(
    st.lists(st.integers(1, 30), unique=True, max_size=12).map(sorted),
    st.sampled_from(FILTERS),
    st.integers(0, 30),
    st.integers(0, 30),
    st.integers(1, 5),
    st.sampled_from([5, 25, 1_000]),
)
def test_select_last_agrees_with_select(
    seqs: list[int], required: Filter, after: int, upto: int, max_events: int, max_bytes: int
) -> None:
    """``select_last`` returns the newest matching records in bounds and the end of the unread range."""
    log = EventLog(100, 10_000)
    for seq in seqs:
        log.append(record(seq, route=ROUTES[seq % 3]))
    matching, _ = log.select(required, after, upto, 100, 10_000)
    found, position = log.select_last(required, after, upto, max_events, max_bytes)
    assert found == matching[len(matching) - len(found) :]
    assert len(found) == min(len(matching), max_events, max(1, max_bytes // 10))
    rest, _ = log.select(required, after, min(position, upto), 100, 10_000)
    assert rest == matching[: len(matching) - len(found)]
    assert position >= after


def test_a_reset_clears_everything() -> None:
    """A reset clears records, bytes and missing ranges."""
    log = filled(1, 2)
    log.append_missing(9)
    log.reset(70)
    assert (len(log), log.bytes, log.floor, log.head, log.missing_ranges) == (0, 0, 70, 70, [])


def test_the_oldest_is_evicted_at_the_record_limit() -> None:
    """The oldest records are evicted at the record limit, and the floor is the newest evicted sequence."""
    log = filled(1, 2, 5, 6, max_events=2)
    assert sequences(log) == [5, 6]
    assert (log.floor, log.head, log.bytes) == (2, 6, 20)


def test_the_oldest_is_evicted_at_the_byte_limit() -> None:
    """As many of the oldest records are evicted as the byte limit requires."""
    log = filled(1, 2, 3, max_bytes=35)
    log.append(record(4, size=25))
    assert sequences(log) == [3, 4]
    assert (log.floor, log.bytes) == (2, 35)


def test_a_record_larger_than_the_log_is_evicted_immediately() -> None:
    """A record larger than the log is evicted immediately, but the head still advances."""
    log = filled(1, max_bytes=35)
    log.append(record(2, size=36))
    assert (len(log), log.bytes, log.floor, log.head) == (0, 0, 2, 2)
    log.append(record(3))
    assert sequences(log) == [3]


def test_the_head_never_goes_back() -> None:
    """Advancing to an older sequence does not move the head back."""
    log = filled(7)
    log.advance(3)
    assert log.head == 7
    log.advance(9)
    assert log.head == 9


def test_a_missing_range_lies_between_the_head_and_its_end() -> None:
    """A missing range is found from positions before and inside it, but not from its end."""
    log = filled(1, 2)
    assert log.append_missing(6) == MissingRange(2, 6)
    log.append(record(7))
    assert log.next_missing_range(0, 7) == MissingRange(2, 6)
    assert log.next_missing_range(5, 7) == MissingRange(2, 6)
    assert log.next_missing_range(6, 7) is None
    assert log.next_missing_range(0, 2) is None


def test_a_missing_range_is_forgotten_below_the_floor() -> None:
    """A missing range is forgotten when the floor has passed it."""
    log = filled(1, max_events=2)
    log.append_missing(6)
    log.append(record(7))
    assert log.missing_ranges
    log.append(record(8))
    assert log.missing_ranges, "the floor is 1, so the missing range is still above it"
    log.append(record(9))
    assert log.floor == 7
    assert log.missing_ranges == []


def test_prepend_keeps_the_newest_that_fit() -> None:
    """Prepending keeps the newest records that fit, and the others raise the floor."""
    log = filled(10, 11, max_events=4, at=9)
    assert log.prepend([record(seq) for seq in (5, 6, 8)], 4) == 2
    assert sequences(log) == [6, 8, 10, 11]
    assert (log.floor, log.bytes) == (5, 40)


def test_prepend_observes_the_byte_limit() -> None:
    """Prepending observes the byte limit."""
    log = filled(10, max_bytes=35, at=9)
    assert log.prepend([record(1), record(2, size=20), record(3)], 0) == 1
    assert sequences(log) == [3, 10]
    assert (log.floor, log.bytes) == (2, 20)


def test_prepend_lowers_the_floor_when_all_fit() -> None:
    """When all prepended records fit, the floor also covers the sequences skipped before them."""
    log = filled(at=9)
    assert log.prepend([record(5)], 2) == 1
    assert (log.floor, log.head) == (2, 9)
    assert filled(at=9).prepend([], 3) == 0


@pytest.mark.parametrize(
    ("moment", "cursor"), [(0.0, 0), (1.0, 0), (1.5, 1), (2.0, 1), (2.5, 4), (4.0, 4), (5.0, 4), (5.1, 5)]
)
def test_a_time_maps_to_a_position(moment: float, cursor: int) -> None:
    """A time maps to the position before the first event that was stored at or after it."""
    log = EventLog(10, 1000)
    for seq, stored in ((1, 1.0), (3, 2.0), (4, 2.0), (5, 5.0)):
        log.append(record(seq, stored=stored))
    assert log.position_at(moment) == cursor


@pytest.mark.parametrize(("moment", "reaches"), [(2.5, False), (3.0, False), (3.1, True), (99.0, True)])
def test_covers_times_after_the_oldest_event(moment: float, reaches: bool) -> None:
    """The log covers times after its oldest event's, since an event of that same time may be evicted."""
    assert filled(1, 2, 3, 4, max_events=2).covers(moment) is reaches
    assert not filled().covers(moment), "an empty log covers no time"


def test_a_record_is_returned_even_if_it_is_too_large() -> None:
    """A record larger than the byte limit is still returned, since a reader could not pass it otherwise."""
    log = filled(1, 2)
    found, reached = log.select(ALL, 0, 2, 10, 5)
    assert [one.seq for one in found] == [1]
    assert reached == 1


def test_eviction_is_not_paid_for_each_event() -> None:
    """A full log compacts its list rarely, and stays within its record limit all the time."""
    log = EventLog(10_000, 10**9)
    for seq in range(1, 30_001):
        log.append(record(seq, size=1))
        assert len(log) <= 10_000
    assert len(log._records) <= 10_000 + 4_097
    assert sequences(log)[0] == log.floor + 1 == 20_001


def test_repr() -> None:
    """The repr of a log shows its bounds and its size."""
    assert repr(filled(3, 4, at=2)) == "EventLog(2 < 2 records <= 4, 20 bytes)"
    assert repr(record(3)) == "Record(seq=3, subject='log.info.x')"


@dataclass
class Model:
    """Reference model: a list of records and the simplest form of the rules."""

    max_events: int
    max_bytes: int
    records: list[Record] = field(default_factory=list)
    floor: int = 0
    head: int = 0

    def trim(self) -> None:
        while (
            len(self.records) > self.max_events or sum(len(r.encoded) for r in self.records) > self.max_bytes
        ):
            self.floor = self.records.pop(0).seq


class LogMachine(RuleBasedStateMachine):
    """State machine that calls the log in any order and compares it with the model after each step."""

    @initialize(max_events=st.integers(1, 12), max_bytes=st.integers(20, 200), at=st.sampled_from([0, 100]))
    def begin(self, max_events: int, max_bytes: int, at: int) -> None:
        self.log = EventLog(max_events, max_bytes)
        self.log.reset(at)
        self.model = Model(max_events, max_bytes, floor=at, head=at)
        self.older = at  # lowest position that a warm start could reach
        self.warm = at > 0

    @rule(step=st.integers(1, 3), size=st.integers(1, 30), route=st.sampled_from(ROUTES))
    def append(self, step: int, size: int, route: Route) -> None:
        """Append an event some sequences after the head."""
        one = record(self.model.head + step, size, route)
        self.log.append(one)
        self.model.records.append(one)
        self.model.head = one.seq
        self.model.trim()

    @rule(step=st.integers(-2, 3))
    def advance(self, step: int) -> None:
        """Advance the head over an event that is not kept."""
        seq = self.model.head + step
        self.log.advance(seq)
        self.model.head = max(seq, self.model.head)

    @rule(step=st.integers(1, 4))
    def missing_range(self, step: int) -> None:
        """Append a range of events that were deleted before they arrived."""
        missing_range = self.log.append_missing(self.model.head + step)
        assert missing_range == (self.model.head, self.model.head + step)
        self.model.head += step

    @precondition(lambda self: self.warm and self.model.floor == self.older)
    @rule(sizes=st.lists(st.integers(1, 30), max_size=15))
    def prepend(self, sizes: list[int]) -> None:
        """Prepend older records, once."""
        self.warm = False
        floor = self.older - 2 * len(sizes)
        past = [record(floor + 2 * index + 2, size) for index, size in enumerate(sizes)]
        kept = self.log.prepend(past, floor)
        before = len(self.model.records)
        self.model.records[:0] = past
        self.model.floor = floor
        self.model.trim()
        # A warm start evicts none of the records that the log had before.
        assert len(self.model.records) - before == kept

    @rule(
        after=st.integers(-3, 60),
        span=st.integers(0, 60),
        required=st.sampled_from(FILTERS),
        max_events=st.integers(1, 6),
        max_bytes=st.integers(1, 80),
    )
    def select(self, after: int, span: int, required: Filter, max_events: int, max_bytes: int) -> None:
        """Check that a reader gets the model's records and the position it has reached."""
        after += self.model.floor
        upto = after + span
        matching = [
            r for r in self.model.records if after < r.seq <= upto and required.matches(r.route.subject)
        ]
        expected: list[Record] = []
        for one in matching:
            if expected and sum(len(r.encoded) for r in expected) + len(one.encoded) > max_bytes:
                break
            if len(expected) == max_events:
                break
            expected.append(one)
        found, reached = self.log.select(required, after, upto, max_events, max_bytes)
        assert found == expected
        if len(expected) < len(matching):
            assert reached == expected[-1].seq
        else:
            assert reached == (upto if len(expected) < max_events else expected[-1].seq)
        if reached == upto:
            assert found == matching
        assert self.log.count_after(after) == sum(r.seq > after for r in self.model.records)

    @rule(moment=st.integers(-3, 80))
    def after_time(self, moment: int) -> None:
        """Check that reading from a time's position returns exactly the events stored since."""
        at = float(self.model.floor + moment)
        position = self.log.position_at(at)
        assert self.model.floor <= position <= self.model.head
        assert [r for r in self.model.records if r.seq > position] == [
            r for r in self.model.records if r.stored_ns >= at * 1e9
        ]

    @invariant()
    def agree(self) -> None:
        """Check that records, bounds and bytes are those of the model."""
        if not hasattr(self, "log"):
            return
        assert list(self.log) == self.model.records
        assert (self.log.floor, self.log.head) == (self.model.floor, self.model.head)
        assert len(self.log) == len(self.model.records) <= self.log.max_events
        assert self.log.bytes == sum(len(r.encoded) for r in self.model.records) <= self.log.max_bytes
        assert all(missing_range.end > self.log.floor for missing_range in self.log.missing_ranges)


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=30), st.integers(0, 100), st.integers(0, 100))
def test_a_missing_range_is_found_from_every_position_before_its_end(
    steps: list[int], after: int, span: int
) -> None:
    """A reader between two positions is given the first missing range that overlaps them."""
    log = EventLog(1000, 10**6)
    missing_ranges: list[MissingRange] = []
    for index, step in enumerate(steps):
        if index % 2:
            missing_ranges.append(log.append_missing(log.head + step))
        else:
            log.append(record(log.head + step))
    upto = after + span
    meets = [
        missing_range
        for missing_range in missing_ranges
        if missing_range.end > after and missing_range.start < upto
    ]
    assert log.next_missing_range(after, upto) == (meets[0] if meets else None)


def test_a_filled_log_keeps_its_missing_ranges() -> None:
    """A replayed chunk keeps its missing ranges between the events around them."""
    log = EventLog(10, 1_000_000)
    log.reset(3)
    log.fill([record(4), record(7), record(9)], [(5, 6), (10, 11)])
    assert [one.seq for one in log] == [4, 7, 9]
    assert log.missing_ranges == [MissingRange(4, 6), MissingRange(9, 11)]
    assert log.head == 11


def test_timestamps_of_messages_that_are_not_kept_are_known() -> None:
    """The log knows the timestamps of as many messages that it does not keep as it may keep events."""
    log = filled(1, max_events=3)
    for seq in range(2, 7):
        log.advance(seq, seq * 10)
    log.advance(7)
    log.append(record(8))
    assert [log.stored_at(seq) for seq in range(1, 9)] == [10**9, None, None, 40, 50, 60, None, 8 * 10**9]
    log.reset(9)
    assert [log.stored_at(seq) for seq in (5, 8, 9)] == [None, None, None]
