"""Updates from other programs: what a monitor remembers of them is bounded."""

import time
from typing import Any

import pytest
from tickertape.producers.monitor.coordination import silences
from tickertape.producers.monitor.coordination.peer_updates import PeerUpdates
from tickertape.producers.monitor.failures import Failures
from tickertape.producers.monitor.gateway.model import Silence

from tickertape.names import Names


def test_remembered_silences_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the maximum, the silence that was set first is forgotten; an invalid one takes no place."""
    monkeypatch.setattr(silences, "MAX_SILENCES", 3)
    publisher: Any = None
    updates = PeerUpdates("m", Names(), {}, Failures(print), publisher, lambda _: None, print, lambda: None)
    body = silences.encode(Silence(time.time() + 60, "test", "operator"))
    for gateway in "abcad":
        updates.apply_silence(f"watchdog.silenced.ctp.{gateway}", body)
        updates.apply_silence("watchdog.silenced.ctp.invalid", b'{"until":1}')
    assert list(updates.silences) == [f"gateway.status.ctp.{gateway}" for gateway in "cad"]
