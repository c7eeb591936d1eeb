"""Signals that the server of the host application handles too."""

import signal
from collections.abc import Callable, Iterator

import pytest
from tickertape.relay.asgi import host_signals


@pytest.fixture
def host_calls() -> Iterator[list[str]]:
    """Yield the calls of the host's own handler of SIGTERM."""
    calls: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: calls.append("host"))
    yield calls
    signal.signal(signal.SIGTERM, before)


def test_the_host_handler_waits_for_the_relay(host_calls: list[str]) -> None:
    """The host's handler runs when the relay forwards the signal; a second signal runs it immediately."""
    forwards: list[Callable[[], None]] = []
    end = host_signals.intercept(forwards.append)
    try:
        signal.raise_signal(signal.SIGTERM)
        assert (len(forwards), host_calls) == (1, [])
        forwards[0]()
        assert host_calls == ["host"]
        signal.raise_signal(signal.SIGTERM)
        assert (len(forwards), host_calls) == (1, ["host", "host"])
    finally:
        end()
    signal.raise_signal(signal.SIGTERM)
    assert (len(forwards), host_calls) == (1, ["host"] * 3)
