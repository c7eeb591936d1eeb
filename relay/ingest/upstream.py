"""How a relay stands with NATS, in numbers."""

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError

MEASURE_EVERY: Final = 5.0
"""Seconds between two measurements."""


class UpstreamStatus(NamedTuple):
    """How a relay stands with NATS.

    Attributes:
        lag: events that the stream holds and the relay has not taken in yet.
        reconnects: connections after the first.
        round_trip: seconds to NATS and back; None while it does not answer.
        reading: readers of the stream that are at work.
    """

    lag: int = 0
    reconnects: int = 0
    round_trip: float | None = None
    reading: int = 0


class RoundTrip:
    """The time to NATS and back.

    Args:
        clock: seconds; uvloop's own stands still for a turn of the loop.

    Attributes:
        seconds: as measured last; None while NATS does not answer.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds: float | None = None
        self._clock = clock

    async def measure(self, nc: Client) -> None:
        """Measure it every ``MEASURE_EVERY`` seconds, until cancelled."""
        while True:
            began = self._clock()
            try:
                await nc.flush(int(MEASURE_EVERY))
                self.seconds = self._clock() - began
            except (NatsError, OSError, TimeoutError):
                self.seconds = None
            await asyncio.sleep(MEASURE_EVERY)
