"""Peers of probes that send as fast as they can: the monitor must go on with its other gateways."""

import asyncio
import time

import pytest
from tickertape.producers.monitor.gateway.model import Check
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes import ProbeContext, run
from tickertape.producers.monitor.probes.fix.messages import PIECE, MessageReader, encode_message
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


def test_the_event_loop_turns_while_a_fix_probe_parses() -> None:
    """Small FIX messages, as many as a socket may deliver in one piece, are parsed in many turns."""
    message = encode_message("FIX.4.4", [(35, "0")])
    number, turns = 5_000, 0

    async def main() -> None:
        nonlocal turns
        reader = asyncio.StreamReader()
        reader.feed_data(message * number)
        messages = MessageReader(reader)

        async def parse() -> None:
            for _ in range(number):
                assert (await messages.read())[35] == "0"

        parsing = asyncio.create_task(parse())
        while not parsing.done():
            turns += 1
            await asyncio.sleep(0)
        await parsing

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert turns >= number * len(message) // PIECE


def test_a_large_message_arrives_complete() -> None:
    """A message that is parsed in many pieces is found."""
    text = b"x" * 300_000 + b"ready"
    with fast_peer(b"\x81\x7f" + len(text).to_bytes(8, "big") + text) as port:
        result = probed(port, "ready", PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.OK, result
