"""Clock of the NATS server, which decides when a scheduled message is published.

The clock of the monitor's host may differ from it, or be set while the monitor runs: a switch that is armed
by the wrong clock fires too early or too late. So the server is asked for its time regularly, and the
monotonic clock measures the time in between.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from tickertape.nats.errors import StreamsError
from tickertape.nats.jetstream_api import stream_info

INTERVAL: Final = 10.0
"""Seconds between two measurements, within which a change of the server's clock is noticed."""


class ServerClock:
    """Clock of the server of a stream.

    Args:
        client: connected NATS client.
        stream: name of the stream in NATS.
        wall: returns the time of this host, which is assumed until the server has been asked.
        monotonic: returns monotonic seconds.
    """

    def __init__(
        self,
        client: Client,
        stream: str,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._stream = stream
        self._monotonic = monotonic
        self._due = asyncio.Event()
        self._offset = wall() - monotonic()

    def __repr__(self) -> str:
        return f"ServerClock({self._stream}, {self._offset:.3f})"

    def now(self) -> float:
        """Return the time of the server, UNIX seconds."""
        return self._monotonic() + self._offset

    async def measure(self) -> None:
        """Request the time of the server; keep the previous measurement if it does not answer."""
        before = self._monotonic()
        try:
            info = await stream_info(self._client, self._stream)
        except (NatsError, StreamsError, OSError):
            return
        after = self._monotonic()
        # Servers before 2.10 do not send it.
        if info is not None and isinstance(info.get("ts"), str):
            self._offset = datetime.fromisoformat(info["ts"]).timestamp() - (before + after) / 2

    def request_measurement(self) -> None:
        """Measure the time soon, because the clock of this host was set and the server may be on it."""
        self._due.set()

    async def run(self) -> None:
        """Measure the time at each interval and on request, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await self._due.wait()
            self._due.clear()
            if self._client.is_connected:
                await self.measure()
