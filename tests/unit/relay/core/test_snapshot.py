"""Snapshot of the newest event of each state subject."""

from collections.abc import Sequence

from tickertape.relay.core.event_log import Record
from tickertape.relay.core.filters import Filter, Route
from tickertape.relay.core.snapshot import Snapshot
from tickertape.relay.core.state_pool import Bounds

from tests.support.clients.feed_bench import states_of

ALL = Filter((">",))


def state(seq: int, gateway: str = "a", removed: bool = False) -> Record:
    """Build a gateway's state record."""
    return Record(seq, Route(f"gateway.status.ctp.{gateway}"), b"{}", True, removed, 0.0, 0.0, 0)


def filled(*records: Record) -> Snapshot:
    """Return a snapshot that contains records."""
    snapshot = Snapshot()
    for record in records:
        snapshot.put(record)
    return snapshot


def seqs(records: Sequence[Record]) -> list[int]:
    """Return the sequences of records."""
    return [record.seq for record in records]


def test_the_newest_of_a_subject_is_kept() -> None:
    """The newest record of a subject is kept, in whatever order records arrive."""
    snapshot = filled(state(3), state(5), state(4), state(2, "b"))
    assert seqs(states_of(snapshot, ALL, 9)) == [2, 5]
    assert len(snapshot) == 2


def test_states_after_the_position_are_omitted() -> None:
    """Subjects whose newest state is after the position are omitted; that state comes as an event."""
    snapshot = filled(state(3), state(7, "b"))
    assert seqs(states_of(snapshot, ALL, 6)) == [3]
    assert seqs(states_of(snapshot, ALL, 7)) == [3, 7]


def test_only_matching_states_are_shown() -> None:
    """Only states that match the filter are shown."""
    snapshot = filled(state(3), state(7, "b"))
    assert seqs(states_of(snapshot, Filter(("gateway.*.*.b",)), 9)) == [7]


def test_a_removed_state_is_not_brought_back() -> None:
    """A removed state is not brought back by an older record that arrives late, but by a newer one."""
    snapshot = filled(state(3), state(5, removed=True), state(4))
    assert states_of(snapshot, ALL, 9) == []
    assert len(snapshot) == 0
    assert seqs(snapshot.changed(ALL, 3, 9)) == [5], "clients that have the state must learn of its removal"
    snapshot.put(state(6))
    assert seqs(states_of(snapshot, ALL, 9)) == [6]


def test_changes_lie_between_two_positions() -> None:
    """``changed`` returns the states between two positions, including the second, in stream order."""
    snapshot = filled(state(9, "c"), state(3), state(5, "b"), state(12, "d"))
    assert seqs(snapshot.changed(ALL, 3, 9)) == [5, 9]


def test_is_newest() -> None:
    """A record is the newest until a later one of its subject is known."""
    snapshot = filled(state(3))
    assert snapshot.is_newest(state(3))
    assert snapshot.is_newest(state(4))
    assert not snapshot.is_newest(state(2))
    assert snapshot.is_newest(state(1, "never seen"))


def test_the_version_changes_with_the_content() -> None:
    """The version changes with the content, so encoded snapshots can be reused while it stays the same."""
    snapshot = filled(state(3))
    version = snapshot.version
    snapshot.put(state(2))
    assert snapshot.version == version
    snapshot.put(state(4))
    assert snapshot.version != version
    version = snapshot.version
    snapshot.clear()
    assert snapshot.version != version
    assert len(snapshot) == 0


def test_a_preloaded_state_changes_the_version_again() -> None:
    """A state loaded ahead of the stream changes the version again when the stream delivers it."""
    snapshot = filled(state(5))
    version = snapshot.version
    snapshot.put(state(5))
    assert snapshot.version != version


def test_each_family_is_bounded() -> None:
    """The number of states of a family is bounded, and the least recently changed is evicted."""
    snapshot = Snapshot({"gateway.status": Bounds(3, 1_000)})
    for seq in range(1, 6):
        snapshot.put(state(seq, f"g{seq}"))
    assert seqs(states_of(snapshot, ALL, 9)) == [3, 4, 5]
    snapshot.put(state(9, "g4"))
    assert seqs(states_of(snapshot, ALL, 9)) == [3, 5, 9], "an update of a known subject evicts none"
    assert snapshot.missing(ALL) == {"gateway.status": 2}


def test_repr() -> None:
    """The repr of a snapshot counts the subjects it shows."""
    assert repr(filled(state(1), state(2, "b", removed=True))) == "Snapshot(1 subjects)"


def test_changed_examines_only_its_range() -> None:
    """``changed`` examines only the states in its range, since catching up calls it once for each gap."""
    looked_at = []

    class Watched(Filter):
        def matches(self, subject: str) -> bool:
            looked_at.append(subject)
            return super().matches(subject)

    snapshot = filled(*(state(seq, f"g{seq}") for seq in range(1, 1_000)))
    assert seqs(snapshot.changed(Watched((">",)), 500, 502)) == [501, 502]
    snapshot.put(state(1_000, "g501"))
    assert seqs(snapshot.changed(Watched((">",)), 500, 502)) == [502]
    assert seqs(snapshot.changed(Watched((">",)), 999, 1_000)) == [1_000]
    assert len(looked_at) == 4
