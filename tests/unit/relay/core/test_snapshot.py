"""The newest event of each state subject."""

import pytest
from tickertape.relay.core import snapshot as snapshot_module
from tickertape.relay.core.event_log import Record
from tickertape.relay.core.filters import Filter, Route
from tickertape.relay.core.snapshot import Snapshot

ALL = Filter((">",))


def state(seq: int, gateway: str = "a", removed: bool = False) -> Record:
    """A gateway's state."""
    return Record(seq, Route(f"gateway.status.ctp.{gateway}"), b"{}", True, removed, 0.0, 0.0, 0)


def filled(*records: Record) -> Snapshot:
    """A snapshot that has seen records."""
    made = Snapshot()
    for record in records:
        made.put(record)
    return made


def seqs(records: list[Record]) -> list[int]:
    """Sequences of records."""
    return [record.seq for record in records]


def test_the_newest_of_a_subject_counts() -> None:
    """In whatever order they come."""
    made = filled(state(3), state(5), state(4), state(2, "b"))
    assert seqs(made.select(ALL, 9)) == [2, 5]
    assert len(made) == 2


def test_it_shows_nothing_after_a_place() -> None:
    """A subject whose newest state lies behind the place comes with the events."""
    made = filled(state(3), state(7, "b"))
    assert seqs(made.select(ALL, 6)) == [3]
    assert seqs(made.select(ALL, 7)) == [3, 7]


def test_a_filter_decides() -> None:
    """Only what it matches is shown."""
    made = filled(state(3), state(7, "b"))
    assert seqs(made.select(Filter(("gateway.*.*.b",)), 9)) == [7]


def test_what_is_removed_leaves_and_stays_away() -> None:
    """Older news that arrive late do not bring it back; newer do."""
    made = filled(state(3), state(5, removed=True), state(4))
    assert made.select(ALL, 9) == []
    assert len(made) == 0
    assert seqs(made.changed(ALL, 3, 9)) == [5], "whoever has it must learn that it is gone"
    made.put(state(6))
    assert seqs(made.select(ALL, 9)) == [6]


def test_changes_lie_between_two_places() -> None:
    """After the first, up to and with the second, in stream order."""
    made = filled(state(9, "c"), state(3), state(5, "b"), state(12, "d"))
    assert seqs(made.changed(ALL, 3, 9)) == [5, 9]


def test_it_knows_what_is_newest() -> None:
    """A record is newest until a later one of its subject is known."""
    made = filled(state(3))
    assert made.is_newest(state(3))
    assert made.is_newest(state(4))
    assert not made.is_newest(state(2))
    assert made.is_newest(state(1, "never seen"))


def test_its_version_tells_of_changes() -> None:
    """Frames made from it are good as long as it stays the same."""
    made = filled(state(3))
    version = made.version
    made.put(state(2))
    assert made.version == version
    made.put(state(4))
    assert made.version != version
    version = made.version
    made.clear()
    assert made.version != version
    assert len(made) == 0


def test_a_state_that_comes_with_the_stream_too_is_news() -> None:
    """It was loaded ahead of the stream; from its own place on, frames that were made before lack it."""
    made = filled(state(5))
    version = made.version
    made.put(state(5))
    assert made.version != version


def test_subjects_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound the subject that was seen first leaves."""
    monkeypatch.setattr(snapshot_module, "MAX_SUBJECTS", 3)
    made = filled(*(state(seq, f"g{seq}") for seq in range(1, 6)))
    assert seqs(made.select(ALL, 9)) == [3, 4, 5]
    made.put(state(9, "g4"))
    assert seqs(made.select(ALL, 9)) == [3, 5, 9], "news of a known subject push nothing out"


def test_it_says_what_it_is() -> None:
    """The text counts what is shown."""
    assert repr(filled(state(1), state(2, "b", removed=True))) == "Snapshot(1 subjects)"


def test_a_gap_costs_what_lies_in_it() -> None:
    """A member that catches up asks once for each gap; only the states between its ends are looked at."""
    looked_at = []

    class Watched(Filter):
        def matches(self, subject: str) -> bool:
            looked_at.append(subject)
            return super().matches(subject)

    made = filled(*(state(seq, f"g{seq}") for seq in range(1, 1_000)))
    assert seqs(made.changed(Watched((">",)), 500, 502)) == [501, 502]
    made.put(state(1_000, "g501"))
    assert seqs(made.changed(Watched((">",)), 500, 502)) == [502]
    assert seqs(made.changed(Watched((">",)), 999, 1_000)) == [1_000]
    assert len(looked_at) == 4
