"""Peers of WebSocket probes that send as fast as they can: the monitor must go on with its other gateways."""

import time

import pytest
from tickertape.producers.monitor.gateway.model import Check
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes import ProbeContext, run
from tickertape.producers.monitor.probes.websocket import WebSocketProbe

from tests.support.patience import PATIENCE
from tests.support.servers.fast_peer import FLOOD, fast_peer
from tickertape.process.event_loop import Loop

TIMEOUT = 0.5
"""Seconds for a probe that is expected to time out."""


def probed(port: int, expect: str, timeout: float) -> Result | None:
    """Probe a server in the event loop of the monitor."""
    probe = WebSocketProbe(kind="websocket", url=f"ws://127.0.0.1:{port}/", expect=expect)
    loop = Loop()
    try:
        result: Result | None = loop.run_until_complete(run(Check(probe, 5.0, timeout, 3, 2), ProbeContext()))
        return result
    finally:
        loop.close()


@pytest.mark.parametrize("frame", [b"\x89\x00", b"\x8a\x00"], ids=["pings", "pongs"])
def test_a_fast_peer_does_not_block_the_monitor(frame: bytes) -> None:
    """A probe of a peer that floods it with frames ends by its timeout, not with the flood."""
    with fast_peer(frame * 30_000) as port:
        began = time.monotonic()
        result = probed(port, "never", TIMEOUT)
        assert time.monotonic() - began < FLOOD
    assert result is not None
    assert result.outcome is Outcome.FAILED


def test_a_large_message_arrives_complete() -> None:
    """A message that is parsed in many pieces is found."""
    text = b"x" * 300_000 + b"ready"
    with fast_peer(b"\x81\x7f" + len(text).to_bytes(8, "big") + text) as port:
        result = probed(port, "ready", PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.OK, result
