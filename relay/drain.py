"""Graceful shutdown: stop signals, and a drain that spreads the reconnects of the clients over time.

The drain has four steps, in this order:

1. The relay reports "not ready" and accepts connections as before, for ``--drain-delay`` seconds. A load
   balancer notices this only at its next probe; clients that it routes here until then must not be rejected.
2. The relay stops accepting connections; a load balancer that tries finds the port closed and picks another
   relay.
3. The relay sends ``bye`` to the sessions in waves over most of ``--drain``, so that they reconnect elsewhere
   at an even rate.
4. Clients have the rest of that time to disconnect; then the relay aborts their connections.

A second signal ends the current step: the relay sends ``bye`` to all remaining sessions and aborts. The exit
code is 0 as after a complete drain, because clients continue from their cursors.
"""

import asyncio
import logging
import math
import signal
import time
from typing import Final

from tickertape.relay.transport.connections import RETRY_SPREAD_MS, Connections
from tickertape.relay.transport.http.server import HttpServer

from tickertape.process.signals import add_stop_handlers
from tickertape.process.tasks import race
from tickertape.text import count

log = logging.getLogger("tickertape")

WAVES_SHARE: Final = 0.8
"""Share of the drain over which ``bye`` is sent; the rest is left for clients to disconnect."""

WAVE_INTERVAL: Final = 0.1
"""Seconds between two waves of ``bye``."""

MIN_SPREAD_MS: Final = 1_000
"""Minimum difference in milliseconds between the reconnect delays of the first and the last client.

The difference is larger if the waves are short, so that reconnects spread over at least ``RETRY_SPREAD_MS``
whatever ``--drain`` is."""

END_GRACE: Final = 12.0
"""Seconds after the drain to close everything else; the embedded NATS server may take most of them."""

POLL_INTERVAL: Final = 0.02
"""Seconds between two checks that all clients have disconnected."""


class StopSignals:
    """Handler of stop signals: the first starts the drain, the second ends it.

    Args:
        drain_seconds: maximum duration of the drain, its delay included; ``END_GRACE`` seconds later the
            process exits in any case.

    Attributes:
        interrupted: whether the first signal was a Ctrl-C, in which case no load balancer has to notice.
    """

    def __init__(self, drain_seconds: float = 0.0) -> None:
        self.interrupted = False
        self._first = asyncio.Event()
        self._second = asyncio.Event()
        add_stop_handlers(self._receive, drain_seconds + END_GRACE)

    def _receive(self, number: signal.Signals) -> None:
        if self._first.is_set():
            self._second.set()
        else:
            self.interrupted = number is signal.SIGINT
            self._first.set()

    async def wait(self) -> None:
        """Wait for the first signal."""
        await self._first.wait()

    @property
    def repeated(self) -> bool:
        """Whether a second signal was received."""
        return self._second.is_set()

    async def sleep(self, seconds: float) -> None:
        """Sleep for a number of seconds, or until the second signal."""
        if not self.repeated:
            await race(self._second.wait(), seconds=seconds)


async def drain(
    connections: Connections, main: HttpServer, delay: float, seconds: float, stopping: StopSignals
) -> None:
    """Disconnect the clients of a relay, or of one of its workers.

    Args:
        connections: client connections.
        main: server of the main port, which stops accepting.
        delay: seconds from "not ready" to the first ``bye``; skipped after a Ctrl-C, and if the relay was
            never ready.
        seconds: seconds that clients then have to disconnect.
        stopping: reports a second signal.
    """
    started_at = time.monotonic()
    was_accepting = connections.accepting
    # Step 1: not ready, but accepting.
    connections.start_draining()
    if was_accepting and delay and not stopping.interrupted:
        log.info(
            "draining: reporting not ready, still accepting connections for %g s", delay,
            extra={"delay": delay, "connections": len(connections)},
        )  # fmt: skip
        await stopping.sleep(delay)
    # Step 2: the port is closed, so that handshakes on open sockets are the only ones left to reject.
    connections.stop_accepting()
    main.stop_accepting()
    total = len(connections)
    log.info(
        "shutting down: %g s for %s to disconnect", seconds, count(total, "client"),
        extra={"connections": total, "drain": seconds},
    )  # fmt: skip
    # Steps 3 and 4: ``bye`` in waves, then the rest of the time to disconnect.
    deadline = time.monotonic() + seconds
    await _send_bye(connections, seconds * WAVES_SHARE, stopping)
    while len(connections) and time.monotonic() < deadline and not stopping.repeated:
        await stopping.sleep(POLL_INTERVAL)
    await asyncio.sleep(0)  # pending writes are sent at the end of this loop iteration
    remaining = connections.all()
    for connection in remaining:
        connection.abort()
    took, left = time.monotonic() - started_at, total - len(remaining)
    log.info(
        "drained in %.1f s: %s disconnected, %s aborted",
        took, count(left, "client"), count(len(remaining), "connection"),
        extra={"seconds": round(took, 3), "disconnected": left, "aborted": len(remaining)},
    )  # fmt: skip


async def _send_bye(connections: Connections, seconds: float, stopping: StopSignals) -> None:
    """Send ``bye`` in waves; later sessions get longer delays, so that all reconnect at an even rate."""
    # Complete: handshakes are rejected by now, so no session is added after this.
    sessions = list(connections.hub.sessions)
    spread = max(MIN_SPREAD_MS, RETRY_SPREAD_MS - int(seconds * 1000))
    waves = max(1, min(len(sessions), math.floor(seconds / WAVE_INTERVAL)))
    started_at = time.monotonic()
    for wave in range(waves):
        indexes = range(len(sessions) * wave // waves, len(sessions) * (wave + 1) // waves)
        connections.send_bye(sessions, indexes, spread)
        if wave < waves - 1:
            # Waits until an absolute time, since sending a wave takes time too.
            # After a second signal it returns immediately, so that the remaining waves are sent without a
            # pause.
            await stopping.sleep(max(0.0, started_at + (wave + 1) * seconds / waves - time.monotonic()))
