"""State of a relay's connection to NATS, for metrics."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError

MEASURE_EVERY: Final = 5.0
"""Seconds between two measurements of the round-trip time, and the timeout of each."""


class UpstreamStatus(NamedTuple):
    """State of a relay's connection to NATS.

    Attributes:
        lag: number of events in the stream that the relay has not received yet.
        reconnects: number of connections after the first.
        round_trip: round-trip time in seconds; None while NATS does not respond.
        active_readers: number of replay chunks that are being read.
    """

    lag: int = 0
    reconnects: int = 0
    round_trip: float | None = None
    active_readers: int = 0


class RoundTrip:
    """Measurement of the round-trip time to NATS.

    Args:
        clock: returns seconds; uvloop's clock does not advance within an iteration of the event loop.

    Attributes:
        seconds: last measurement; None while NATS does not respond.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds: float | None = None
        self._clock = clock

    async def measure(self, nc: Client) -> None:
        """Measure the round-trip time every ``MEASURE_EVERY`` seconds, until cancelled."""
        while True:
            await self.measure_once(nc)
            await asyncio.sleep(MEASURE_EVERY)

    async def measure_once(self, nc: Client) -> None:
        """Measure the round-trip time, for up to ``MEASURE_EVERY`` seconds."""
        seconds, started = None, self._clock()
        # While the client reconnects, ``flush`` returns immediately, without a round trip.
        if nc.is_connected:
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                # ``flush`` sends a PING and waits for the PONG.
                await nc.flush(int(MEASURE_EVERY))
                seconds = self._clock() - started
        self.seconds = seconds
