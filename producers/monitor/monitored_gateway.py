"""Monitored gateway: its state, trading sessions, silence, recovery and tasks."""

import asyncio
import hashlib
import time
from typing import Final

from tickertape.contracts.events import EventModel, GatewayRecovery, GatewayStatusChange, Status
from tickertape.producers.monitor import recovery_action
from tickertape.producers.monitor.gateway.model import Gateway, StoredStatus
from tickertape.producers.monitor.gateway.recovery_policy import Recovery
from tickertape.producers.monitor.gateway.state import GatewayState
from tickertape.producers.monitor.probes.settings import ProbeSettings

from tickertape.rate_limit import SlidingWindow

MIN_RENEWAL_INTERVAL: Final = 0.4
"""Minimum seconds between two renewals of a gateway's dead man's switch."""


class MonitoredGateway(GatewayState[ProbeSettings]):
    """Gateway that this monitor probes, and recovers if configured.

    Attributes:
        tasks: tasks of its probes and of its recovery attempts.
    """

    def __init__(
        self,
        gateway: Gateway[ProbeSettings],
        monitor: str,
        stored: StoredStatus | None,
        now: float,
        attempts: SlidingWindow | None = None,
    ) -> None:
        super().__init__(gateway, monitor, stored, now)
        self.tasks: list[asyncio.Task[None]] = []
        self._next_renewal = 0.0
        settings = gateway.recovery
        self._recovery = (
            Recovery(
                settings, gateway.type, gateway.id, {"monitor": monitor, "labels": gateway.labels}, attempts
            )
            if settings is not None
            else None
        )
        # In the past, so that the first update compares the status with the calendar.
        self._next_session_change = 0.0

    def stop(self) -> None:
        """Cancel all probes and recovery attempts."""
        for task in self.tasks:
            task.cancel()

    def to_stored_status(self) -> StoredStatus:
        """Return the status from which a new instance for the same gateway continues."""
        gateway = self.gateway
        return StoredStatus(
            gateway.type,
            gateway.id,
            self.status,
            self.since,
            self.monitor,
            {
                check.probe.name: str(probe.status)
                for check, probe in zip(gateway.checks, self.probes, strict=True)
            },
            flapping=self.is_flapping,
            silenced=self.silence is not None,
        )

    def take_renewal(self, clock: float) -> bool:
        """Return True once per interval, if the dead man's switch is due at monotonic time ``clock``."""
        if clock < self._next_renewal:
            return False
        self._next_renewal = clock + max(MIN_RENEWAL_INTERVAL, self.gateway.interval)
        return True

    # Trading sessions and silence.

    def update_session(self, now: float) -> GatewayStatusChange | None:
        """Open or close the gateway with its exchange; ``now`` is in UNIX seconds."""
        sessions = self.gateway.sessions
        if sessions is None:
            # The status is from the time before a reload or restart, when the gateway still had an exchange.
            reopen = self.status is Status.OFF_SESSION and not self._next_session_change
            return self.open_session(now) if reopen else None
        if now < self._next_session_change:
            return None
        self._next_session_change = sessions.next_change(now)
        return self.open_session(now) if sessions.is_open(now) else self.close_session(now)

    def expire_silence(self, now: float) -> GatewayStatusChange | None:
        """End the silence if it has expired."""
        expired = self.silence is not None and self.silence.until <= now
        return self.set_silence(None, now) if expired else None

    # Recovery.

    @property
    def recovery_subject(self) -> str | None:
        """Subject of its recovery events; None if no recovery is configured."""
        if self._recovery is None:
            return None
        return GatewayRecovery.subject_of(gateway_type=self.gateway.type, gateway_id=self.gateway.id)

    def update_recovery(self, now: float) -> GatewayRecovery | None:
        """Start or end the recovery according to the status; a silenced gateway is left to the operators."""
        if self._recovery is None:
            return None
        if self.status is Status.UNHEALTHY and self.silence is None:
            return self._recovery.start(now)
        if self.status in (Status.HEALTHY, Status.DEGRADED):
            return self._recovery.succeed(now)
        if self.status is not Status.RECOVERING and self.status is not Status.UNHEALTHY:
            self._recovery.abandon()
        return None

    def next_recovery_event(self, now: float) -> GatewayRecovery | None:
        """Return the recovery event that is due; call only after the preceding one was acknowledged."""
        if self._recovery is None or self.status is Status.RECOVERING:
            return None
        return self._recovery.next_event(now)

    def cede_recovery(self) -> None:
        """Leave the recovery to another monitor."""
        if self._recovery is not None:
            self._recovery.cede()

    async def attempt_recovery(self, event: EventModel) -> str | None:
        """Make a recovery attempt; return the error, or None if it succeeded."""
        assert self._recovery is not None
        assert isinstance(event, GatewayRecovery)
        assert self.gateway.recovery is not None
        try:
            return await recovery_action.attempt(self.gateway.recovery, event)
        finally:
            self._recovery.finish_attempt(time.time())


def initial_delay(name: str, interval: float) -> float:
    """Return the seconds before the first probe, evenly spread over names and the same at every start."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 * interval
