"""How a relay ends: what asks it to, and how its clients are let go without all coming back at once.

In this order, each step only after the one before:

1. Not ready, and all else as before, for ``--drain-delay`` seconds: a load balancer learns of it only when
   it asks the next time, and until then it sends clients here, who must not be refused.
2. Nobody is accepted any more; a balancer that tries finds the port closed and takes another relay.
3. ``bye`` to everybody, in turn over most of ``--drain``; a relay nearby gets them at an even rate.
4. The rest of that time is for those who have not gone; then they are cut.

A second signal ends whichever step it is at: all are told goodbye at once, and cut.
"""

import asyncio
import logging
import math
import signal
import time
from typing import Final

from tickertape.relay.transport.connections import RETRY_SPREAD_MS, Connections
from tickertape.relay.transport.http_server import HttpServer

from tickertape.process.signals import STOP_SIGNALS, add_signal_handlers
from tickertape.process.tasks import race

log = logging.getLogger("tickertape")

WAVES_SHARE: Final = 0.8
"""Part of the drain over which clients are told goodbye; the rest is for their answers."""

WAVE_EVERY: Final = 0.1
"""Seconds between two waves of them."""

LEAST_SPREAD_MS: Final = 1_000
"""Who is told last waits so much longer than who is told first, at least; more where the waves are short, so
that all come back over ``RETRY_SPREAD_MS`` or more whatever ``--drain`` is."""

LOOK_EVERY: Final = 0.02


class StopSignals:
    """Counter of the signals that ask to stop: the first drains, the second ends the drain.

    Attributes:
        by_hand: whether the first was somebody's Ctrl-C, which no balancer has to learn of.
    """

    def __init__(self) -> None:
        self.by_hand = False
        self._first = asyncio.Event()
        self._second = asyncio.Event()
        add_signal_handlers(self._heard, *STOP_SIGNALS)

    def _heard(self, number: signal.Signals) -> None:
        if self._first.is_set():
            self._second.set()
        else:
            self.by_hand = number is signal.SIGINT
            self._first.set()

    async def wait(self) -> None:
        """Wait for the first."""
        await self._first.wait()

    @property
    def twice(self) -> bool:
        """True once the second came."""
        return self._second.is_set()

    async def rest(self, seconds: float) -> None:
        """Let time pass, but not beyond the second."""
        if not self.twice:
            await race(self._second.wait(), seconds=seconds)


async def drain(
    connections: Connections, main: HttpServer, notice: float, seconds: float, stopping: StopSignals
) -> None:
    """Let the clients of one relay, or of one of its workers, go.

    Args:
        connections: who is there.
        main: where they come from.
        notice: seconds from "not ready" to the first goodbye; nothing is waited for after a Ctrl-C, nor by a
            relay that was never ready.
        seconds: that clients have to leave after that.
        stopping: tells of a second signal.
    """
    began = time.monotonic()
    served = connections.accepting
    connections.start_draining()
    if served and notice and not stopping.by_hand:
        log.info(
            "not ready any more; clients are let in for %g s yet, until balancers have noticed", notice,
            extra={"notice": notice, "connections": len(connections)},
        )  # fmt: skip
        await stopping.rest(notice)
    connections.stop_accepting()
    main.stop_accepting()
    there = len(connections)
    log.info(
        "shutting down: %d clients have %g s to leave", there, seconds,
        extra={"connections": there, "drain": seconds},
    )  # fmt: skip
    deadline = time.monotonic() + seconds
    await _say_goodbye(connections, seconds * WAVES_SHARE, stopping)
    while len(connections) and time.monotonic() < deadline and not stopping.twice:
        await stopping.rest(LOOK_EVERY)
    await asyncio.sleep(0)  # what was just written is sent at the end of the loop's turn
    cut = connections.all()
    for connection in cut:
        connection.abort()
    took, left = time.monotonic() - began, there - len(cut)
    log.info(
        "drained in %.1f s: %d clients left, %d were cut", took, left, len(cut),
        extra={"seconds": round(took, 3), "left": left, "cut": len(cut)},
    )  # fmt: skip


async def _say_goodbye(connections: Connections, seconds: float, stopping: StopSignals) -> None:
    """Say ``bye`` in waves; whoever is told later waits longer, so that all come back at one even rate."""
    sessions = list(connections.hub.sessions)
    spread = max(LEAST_SPREAD_MS, RETRY_SPREAD_MS - int(seconds * 1000))
    waves = max(1, min(len(sessions), math.floor(seconds / WAVE_EVERY)))
    began = time.monotonic()
    for wave in range(waves):
        part = range(len(sessions) * wave // waves, len(sessions) * (wave + 1) // waves)
        connections.send_bye(sessions, part, spread)
        if wave < waves - 1:
            # By the clock, since a wave takes its time too.
            await stopping.rest(max(0.0, began + (wave + 1) * seconds / waves - time.monotonic()))
