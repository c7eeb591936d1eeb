"""The majority of the monitors: a table, and any interleaving of views, leases and lost races."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tickertape.contracts.events import Status, format_time
from tickertape.producers.monitor.coordination.stored_status import parse_stored_status
from tickertape.producers.monitor.gateway import majority
from tickertape.producers.monitor.gateway.majority import Electorate, View, Vote, find_majority
from tickertape.producers.monitor.gateway.state import SETTLE_TIME, GatewayState

from tests.unit.producers.monitor.gateway.test_state import known_gateway, stored_status

GATEWAY = "gateway.status.ctp.main"
H, D, U, R = Status.HEALTHY, Status.DEGRADED, Status.UNHEALTHY, Status.RECOVERING
KNOWN = known_gateway().gateway
NONE, CLOSED = Status.UNKNOWN, Status.OFF_SESSION


@pytest.mark.parametrize(
    ("current", "views", "expected"),
    [
        (NONE, [], None),
        (NONE, [NONE], None),
        (NONE, [H], H),
        (H, [U], U),
        (H, [U, NONE], U),
        (H, [U, H], None),
        (NONE, [U, H], None),
        (H, [U, U], U),
        (H, [U, U, H], U),
        (H, [U, U, H, H], None),
        (H, [U, D, H], None),
        (H, [U, D, D], D),
        (U, [R, R, U], R),
        (H, [U, U, H, H, NONE], None),
        (H, [CLOSED], CLOSED),
        (H, [CLOSED, H], None),
        (H, [CLOSED, CLOSED, H], CLOSED),
        (NONE, [CLOSED, NONE, NONE], None),
        (CLOSED, [NONE], NONE),
        (CLOSED, [CLOSED, NONE], None),
        (CLOSED, [CLOSED, NONE, NONE], NONE),
        (CLOSED, [CLOSED, H, NONE], NONE),
        (CLOSED, [H, H, NONE], H),
    ],
)
def test_the_majority(current: Status, views: list[Status], expected: Status | None) -> None:
    """The views of the live monitors decide, whatever their order."""
    for _ in range(3):
        random.shuffle(views)
        assert find_majority(current, views) is expected


def test_votes_without_a_lease_do_not_count() -> None:
    """A vote counts while its monitor holds a lease, as the instance that voted."""
    electorate = Electorate()
    electorate.record_vote(GATEWAY, "m1", Vote("a", View(U, "")), 1)
    assert not electorate.votes(GATEWAY)
    assert electorate.record_lease("m1", "a", 2)
    assert set(electorate.votes(GATEWAY)) == {"m1"}
    assert not electorate.record_lease("m1", "a", 3)
    assert electorate.record_lease("m1", "restarted", 4)
    assert not electorate.votes(GATEWAY)
    electorate.record_vote(GATEWAY, "m1", Vote("restarted", View(U, "")), 5)
    assert set(electorate.votes(GATEWAY)) == {"m1"}
    assert electorate.record_lease("m1", None, 6)
    assert not electorate.votes(GATEWAY)


def test_a_monitor_that_stops_renewing_is_dead() -> None:
    """A monitor counts as dead when another one has renewed its lease often enough, and not before."""
    electorate = Electorate()
    electorate.record_lease("m1", "a", 1)
    electorate.record_lease("m2", "b", 2)
    for sequence in range(3, 2 + majority.MISSED_RENEWALS):
        assert not electorate.record_lease("m1", "a", sequence)
    assert set(electorate.live()) == {"m1", "m2"}
    assert electorate.record_lease("m1", "a", 99)
    assert set(electorate.live()) == {"m1"}


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases and votes of any number of monitors take a bounded amount of memory."""
    monkeypatch.setattr(majority, "MAX_MONITORS", 3)
    monkeypatch.setattr(majority, "MAX_VOTES", 3)
    electorate = Electorate()
    for sequence, name in enumerate("abcde"):
        electorate.record_lease(name, name, sequence)
        electorate.record_vote(GATEWAY, name, Vote(name, View(U, "")), sequence)
    assert set(electorate.live()) == set("abc")
    assert set(electorate.votes(GATEWAY)) == {"c"}


def test_a_stream_that_was_created_again_starts_over() -> None:
    """Sequences that start over belong to a new stream, in which no lease and no vote is stored yet."""
    electorate = Electorate()
    electorate.record_lease("m1", "a", 100)
    electorate.record_vote(GATEWAY, "m1", Vote("a", View(U, "")), 101)
    electorate.record_lease("m2", "b", 1)
    assert set(electorate.live()) == {"m2"}
    assert electorate.applied == 1
    assert not electorate.votes(GATEWAY)


@dataclass
class Streams:
    """WATCHDOG and EVENTS, of which each monitor has read a part."""

    watchdog: list[Callable[[Electorate], object]] = field(default_factory=list)
    statuses: list[tuple[bytes, bool]] = field(default_factory=list)

    def append(self, apply: Callable[[Electorate, int], object]) -> None:
        sequence = len(self.watchdog) + 1
        self.watchdog.append(lambda electorate: apply(electorate, sequence))


class SimulatedMonitor:
    """Monitor with its own view, which reads the streams with any delay."""

    def __init__(self, number: int, streams: Streams) -> None:
        self.name = f"m{number + 1}"
        self.electorate = Electorate()
        self.state = GatewayState(KNOWN, self.name, stored_status(H), 0.0)
        self._streams = streams
        self._read = [0, 0]

    def vote(self, status: Status) -> None:
        vote = View(status, format_time(0.0))
        self._streams.append(
            lambda electorate, sequence: electorate.record_vote(
                GATEWAY, self.name, Vote("i", vote, sequence), sequence
            )
        )

    def renew(self, instance: str | None = "i") -> None:
        self._streams.append(
            lambda electorate, sequence: electorate.record_lease(self.name, instance, sequence)
        )

    def read_watchdog(self, messages: int) -> None:
        begin = self._read[0]
        for apply in self._streams.watchdog[begin : begin + messages]:
            self._read[0] += 1
            apply(self.electorate)

    def read_statuses(self) -> None:
        for body, _ in self._streams.statuses[self._read[1] :]:
            self._read[1] += 1
            stored = parse_stored_status(GATEWAY, body, self._read[1])
            assert stored is not None
            self.state.adopt(stored, 0.0, self.electorate.applied)

    def publish(self, now: float = 0.0) -> None:
        """Publish what is due, if the status that it replaces is the latest; otherwise, adopt that one."""
        event = self.state.decide(self.electorate.votes(GATEWAY), self.electorate.applied, now)
        if event is None:
            return
        if self._read[1] == len(self._streams.statuses):
            transition = event.previous_status is not event.current_status
            self._streams.statuses.append((event.encode(), transition))
            self._read[1] += 1
        self.read_statuses()


STEPS = st.one_of(
    st.tuples(st.just("turn"), st.just(0), st.sampled_from([H, U])),
    st.tuples(st.just("vote"), st.integers(0, 2), st.sampled_from([H, U, D, NONE])),
    st.tuples(st.just("read"), st.integers(0, 2), st.integers(1, 4)),
    st.tuples(st.sampled_from(["catch up", "adopt", "publish"]), st.integers(0, 2), st.none()),
    st.tuples(st.sampled_from(["renew", "release"]), st.integers(0, 2), st.none()),
)
"""Steps of a simulation; when the gateway turns up or down, all monitors vote for that."""

LATE: list[tuple[str, int, Status | int | None]] = [
    ("catch up", 0, None), ("catch up", 1, None), ("turn", 0, U), ("catch up", 0, None), ("turn", 0, H),
    ("catch up", 0, None), ("read", 1, 2), ("adopt", 1, None), ("publish", 1, None), ("catch up", 0, None),
]  # fmt: skip
"""A monitor that knows only the votes for UNHEALTHY learns that the gateway went down and came up again."""


@settings(max_examples=3000 if os.environ.get("CHAOS") == "full" else 80)
@given(st.lists(STEPS, min_size=10, max_size=40), st.integers(2, 3))
@example(LATE, 2)
def test_any_interleaving_gives_one_transition_per_change_of_the_majority(
    steps: list[tuple[str, int, Status | int | None]], number: int
) -> None:
    """However votes, leases and statuses are delayed, no more is published than the majority has changed."""
    streams = Streams()
    monitors = [SimulatedMonitor(index, streams) for index in range(number)]
    for monitor in monitors:
        monitor.renew()
    for action, index, argument in steps:
        monitor = monitors[index % number]
        if isinstance(argument, Status):
            for voter in monitors if action == "turn" else [monitor]:
                voter.vote(argument)
        elif action in ("renew", "release"):
            monitor.renew("i" if action == "renew" else None)
        if action in ("read", "catch up"):
            monitor.read_watchdog(argument if isinstance(argument, int) else len(streams.watchdog))
        if action in ("adopt", "catch up"):
            monitor.read_statuses()
        if action in ("publish", "catch up"):
            monitor.publish()
    # In the end, every monitor has read everything, and what leases alone have changed has settled.
    for _ in range(2):
        for monitor in monitors:
            monitor.read_watchdog(len(streams.watchdog))
            monitor.read_statuses()
            monitor.publish(2 * SETTLE_TIME)
    for monitor in monitors:
        monitor.read_statuses()
    reference, status, changes = Electorate(), H, 0
    for apply in streams.watchdog:
        apply(reference)
        found = find_majority(status, (vote.view.status for vote in reference.votes(GATEWAY).values()))
        changes += found is not None and found is not status
        status = found or status
    assert sum(transition for _, transition in streams.statuses) <= changes
    votes = [vote.view.status for vote in monitors[0].electorate.votes(GATEWAY).values()]
    final = find_majority(monitors[0].state.status, votes)
    assert final is None or {monitor.state.status for monitor in monitors} == {final}
