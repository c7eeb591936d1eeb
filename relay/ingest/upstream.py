"""Connection of a relay to NATS, its outages, and its state for metrics."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError

from tickertape.nats import connection
from tickertape.nats.client import SafeClient
from tickertape.nats.connect_errors import ConnectFailure
from tickertape.nats.credentials import Access
from tickertape.nats.errors import DENIAL_REPORT_INTERVAL, PermissionDenied
from tickertape.rate_limit import RepeatFilter
from tickertape.urls import redact_url

log = logging.getLogger("tickertape.ingest")

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
            # After a failure, the time is unknown.
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                # ``flush`` sends a PING and waits for the PONG.
                await nc.flush(int(MEASURE_EVERY))
                seconds = self._clock() - started
        self.seconds = seconds


class Upstream:
    """Connection of a relay to NATS, and what is known about it.

    Args:
        url: URL of NATS.
        clock: returns UNIX seconds.
        access: credentials and certificates.
        on_up: called for each connection.
        on_down: called when a connection is lost or cannot be made.

    Attributes:
        round_trip: measurement of the round-trip time.
        stopping: whether the relay closes the connection itself, which is no outage.
    """

    def __init__(
        self,
        url: str,
        clock: Callable[[], float],
        access: Access | None,
        on_up: Callable[[], None],
        on_down: Callable[[], None],
    ) -> None:
        self.round_trip = RoundTrip(clock)
        self.stopping = False
        self._url = url
        self._clock = clock
        self._access = access
        self._on_up = on_up
        self._on_down = on_down
        self._connect_count = 0
        self._denials = RepeatFilter(DENIAL_REPORT_INTERVAL)
        self._outage_since: float | None = None

    @property
    def reconnects(self) -> int:
        """Number of connections after the first."""
        return max(0, self._connect_count - 1)

    async def connect(self) -> SafeClient:
        """Connect to NATS, for as long as it takes."""
        return await connection.connect(
            self._url,
            name="tickertape-relay",
            access=self._access,
            on_up=self._handle_connect,
            on_down=self._handle_disconnect,
            on_error=self._handle_error,
        )

    def begin_outage(self) -> None:
        """Record that no events are received from now on."""
        self._outage_since = self._outage_since or self._clock()

    def end_outage(self) -> None:
        """Record that events are received; log the duration of the outage, if there was one."""
        if self._outage_since is not None:
            outage, self._outage_since = self._clock() - self._outage_since, None
            log.info("receiving events again after %.1f s", outage, extra={"outage": round(outage, 3)})

    async def _handle_connect(self) -> None:
        self._connect_count += 1
        log.info("connected to NATS at %s", redact_url(self._url))
        self._on_up()

    async def _handle_disconnect(self, failure: ConnectFailure) -> None:
        if self.stopping:
            return
        self.begin_outage()
        level = logging.WARNING if failure.kind.is_transient else logging.ERROR
        log.log(level, "%s", failure.retry_message)
        self._on_down()

    async def _handle_error(self, error: Exception) -> None:
        # The operation that has failed reports a denied permission itself, if one waited.
        if not isinstance(error, PermissionDenied):
            log.warning("NATS: %s", error)
        elif not error.reported and self._denials.allow(str(error), self._clock()):
            log.error("%s", error)
