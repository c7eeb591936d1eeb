"""Signals that a host's server handles, too."""

import signal
from collections.abc import Callable, Iterator

import pytest
from tickertape.relay.asgi import host_signals


@pytest.fixture
def done() -> Iterator[list[str]]:
    """What a host's own handler of SIGTERM has done."""
    found: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: found.append("host"))
    yield found
    signal.signal(signal.SIGTERM, before)


def test_the_host_waits_until_goodbye_is_said(done: list[str]) -> None:
    """Its handler runs when it is told to; at a second signal it waits for nothing."""
    told: list[Callable[[], None]] = []
    end = host_signals.intercept(told.append)
    try:
        signal.raise_signal(signal.SIGTERM)
        assert (len(told), done) == (1, [])
        told[0]()
        assert done == ["host"]
        signal.raise_signal(signal.SIGTERM)
        assert (len(told), done) == (1, ["host", "host"])
    finally:
        end()
    signal.raise_signal(signal.SIGTERM)
    assert (len(told), done) == (1, ["host"] * 3)
