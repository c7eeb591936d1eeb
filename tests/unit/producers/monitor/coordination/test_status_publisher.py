"""Queue of status changes: what it remembers of other producers' subjects is bounded."""

from typing import Any

import pytest
from tickertape.producers.monitor.coordination import status_publisher
from tickertape.producers.monitor.coordination.status_publisher import StatusPublisher

from tickertape.names import Names


def test_remembered_sequences_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sequences of subjects that changed least recently are forgotten, which a conflict would restore."""
    monkeypatch.setattr(status_publisher, "MAX_SEQUENCES", 3)
    publisher: Any = None
    known = StatusPublisher(publisher, Names(), lambda *_: False, lambda _: None)
    for sequence, name in enumerate("abcad", 1):
        assert known.record_sequence(name, sequence)
    assert not known.record_sequence("a", 4)
    assert [known.last_sequence(name) for name in "abcd"] == [4, 0, 3, 5]
