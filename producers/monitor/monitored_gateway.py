"""A gateway under watch with all that goes with it: its hours, its silence, its recovery, its tasks."""

import asyncio
import hashlib
import time
from typing import Final

from tickertape.contracts.events import EventModel, GatewayRecovery, GatewayStatusChange, Status
from tickertape.producers.monitor import recovery_action as recover
from tickertape.producers.monitor.gateway.model import Gateway, Newest
from tickertape.producers.monitor.gateway.recovery_policy import Recovery
from tickertape.producers.monitor.gateway.state import Watch
from tickertape.producers.monitor.probes.settings import ProbeSettings

LEAST_RENEWAL: Final = 0.4
"""Seconds between two renewals of a gateway's switch at least."""


class MonitoredGateway(Watch[ProbeSettings]):
    """One of the monitor's gateways.

    Attributes:
        tasks: its probes, and attempts to recover it.
    """

    def __init__(
        self, gateway: Gateway[ProbeSettings], monitor: str, newest: Newest | None, now: float
    ) -> None:
        super().__init__(gateway, monitor, newest, now)
        self.tasks: list[asyncio.Task[None]] = []
        self._renew_at = 0.0
        settings = gateway.recovery
        self._recovery = (
            Recovery(settings, gateway.type, gateway.id, {"monitor": monitor, "labels": gateway.labels})
            if settings is not None
            else None
        )
        self._hours_change_at = 0.0

    def stop(self) -> None:
        """Probe it no more."""
        for task in self.tasks:
            task.cancel()

    def newest(self) -> Newest:
        """What the next watch of the same gateway needs to go on."""
        gateway = self.gateway
        return Newest(
            gateway.type,
            gateway.id,
            self.status,
            self.since,
            self.monitor,
            {
                check.probe.name: str(probe.status)
                for check, probe in zip(gateway.checks, self.probes, strict=True)
            },
            flapping=self.flaps,
            silenced=self.silence is not None,
        )

    def renews(self, clock: float) -> bool:
        """Tell whether its switch is to be renewed now: once in its interval. ``clock`` is monotonic."""
        if clock < self._renew_at:
            return False
        self._renew_at = clock + max(LEAST_RENEWAL, self.gateway.interval)
        return True

    # Its hours and its silence.

    def keep_hours(self, now: float) -> GatewayStatusChange | None:
        """Open or close with its exchange; ``now`` is in UNIX seconds."""
        sessions = self.gateway.sessions
        if sessions is None:
            # The file may have named one before.
            return self.open(now) if self.status is Status.OFF_SESSION and not self._hours_change_at else None
        if now < self._hours_change_at:
            return None
        self._hours_change_at = sessions.next_change(now)
        return self.open(now) if sessions.is_open(now) else self.close(now)

    def keep_silence(self, now: float) -> GatewayStatusChange | None:
        """End a silence that is over."""
        over = self.silence is not None and self.silence.until <= now
        return self.quiet(None, now) if over else None

    # Its recovery.

    @property
    def recovery_subject(self) -> str | None:
        """Where its recovery is told; None when nothing is to be tried."""
        if self._recovery is None:
            return None
        return GatewayRecovery.subject_of(gateway_type=self.gateway.type, gateway_id=self.gateway.id)

    def recovery_follows(self, now: float) -> GatewayRecovery | None:
        """Begin or end a course, as the status has it. A silenced gateway is in people's hands."""
        if self._recovery is None:
            return None
        if self.status is Status.UNHEALTHY and self.silence is None:
            return self._recovery.begin(now)
        if self.status in (Status.HEALTHY, Status.DEGRADED):
            return self._recovery.well(now)
        if self.status is not Status.RECOVERING and self.status is not Status.UNHEALTHY:
            self._recovery.abandon()
        return None

    def next_recovery(self, now: float) -> GatewayRecovery | None:
        """What is due of its recovery, once what was told before is acknowledged."""
        if self._recovery is None or self.status is Status.RECOVERING:
            return None
        return self._recovery.next(now)

    def leave_recovery(self) -> None:
        """Another monitor sees to it."""
        if self._recovery is not None:
            self._recovery.leave()

    async def attempt(self, event: EventModel) -> str | None:
        """Make an attempt; return why it could not be made, or None."""
        assert self._recovery is not None
        assert isinstance(event, GatewayRecovery)
        assert self.gateway.recovery is not None
        try:
            return await recover.attempt(self.gateway.recovery, event)
        finally:
            self._recovery.made(time.time())


def spread(name: str, interval: float) -> float:
    """Seconds before the first probe: the same at each start, and even over many names."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 * interval
