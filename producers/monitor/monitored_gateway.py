"""Monitored gateway: its state, trading sessions, silence, recovery and tasks."""

import asyncio
import contextlib
import hashlib
from typing import Final

from tickertape.contracts.events import GatewayRecovery, Status
from tickertape.producers.monitor.gateway.model import Gateway, StoredStatus
from tickertape.producers.monitor.gateway.recovery_policy import SILENCED, Recovery
from tickertape.producers.monitor.gateway.state import GatewayState
from tickertape.producers.monitor.probes.settings import ProbeSettings

MIN_RENEWAL_INTERVAL: Final = 0.4
"""Minimum seconds between two renewals of a gateway's dead man's switch."""


class MonitoredGateway(GatewayState[ProbeSettings]):
    """Gateway that this monitor probes, and recovers if configured.

    Attributes:
        tasks: tasks of its probes.
        recovery: its recovery; None if none is configured.
        recovery_is_known: whether the latest event of its recovery has been read.
        attempt: task of the latest recovery attempt.
        unprobed: indices of the probes whose latest run failed on this host, and says nothing about it.
    """

    def __init__(
        self,
        gateway: Gateway[ProbeSettings],
        monitor: str,
        stored: StoredStatus | None,
        now: float,
    ) -> None:
        super().__init__(gateway, monitor, stored, now)
        self.tasks: list[asyncio.Task[None]] = []
        self.unprobed: set[int] = set()
        self._next_renewal = 0.0
        self.recovery: Recovery | None = None
        self.recovery_is_known = False
        self.attempt: asyncio.Task[None] | None = None
        self._early = asyncio.Event()
        self._early_at = float("-inf")
        self._set_recovery(gateway)
        # In the past, so that the first update compares the status with the calendar.
        self._next_session_change = 0.0

    def stop(self) -> None:
        """Cancel all probes, and the recovery attempt."""
        for task in self.tasks:
            task.cancel()
        if self.attempt is not None:
            self.attempt.cancel()

    def hand_over(self, successor: "MonitoredGateway") -> None:
        """Cancel all probes, and leave the rest to an instance with new probes."""
        successor.unpublished |= self.unpublished
        successor._previous = self._previous
        # Without a verdict, a vote on one is already out of date, although it may not be withdrawn yet.
        no_verdict = self.own.status in (Status.UNKNOWN, Status.OFF_SESSION)
        successor.own.has_run |= self.own.has_run and no_verdict
        if self.recovery is not None and successor.recovery is not None:
            successor.recovery, self.recovery = self.recovery, None
            successor.recovery_is_known = self.recovery_is_known
            successor.attempt, self.attempt = self.attempt, None
            successor._set_recovery(successor.gateway)
        self.stop()

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
                for check, probe in zip(gateway.checks, self.own.probes, strict=True)
            },
            self._reason,
            flapping=self.is_flapping,
            silenced=self.silence is not None,
            disputed=self._published[2],
        )

    def has_same_probes(self, gateway: Gateway[ProbeSettings]) -> bool:
        """Return whether new settings of the gateway leave its probes as they are."""
        return (gateway.checks, gateway.flapping) == (self.gateway.checks, self.gateway.flapping)

    def replace_settings(self, gateway: Gateway[ProbeSettings]) -> None:
        """Apply new settings that leave the probes as they are, such as labels."""
        self.gateway = gateway
        self._next_session_change = 0.0  # the calendar may be another one
        self._set_recovery(gateway)

    def _set_recovery(self, gateway: Gateway[ProbeSettings]) -> None:
        metadata = {"monitor": self.monitor, "labels": gateway.labels}
        if gateway.recovery is None:
            # Other monitors may recover it until it has a recovery again.
            self.recovery, self.recovery_is_known = None, False
        elif self.recovery is None:
            self.recovery = Recovery(gateway.recovery, gateway.type, gateway.id, metadata)
        else:
            self.recovery.settings, self.recovery.metadata = gateway.recovery, metadata

    # Early probes.

    def probe_early(self) -> None:
        """Run the next probes now, as another monitor has a different view; at most twice per interval."""
        now = asyncio.get_running_loop().time()
        if now - self._early_at >= self.gateway.interval / 2:
            self._early_at = now
            early, self._early = self._early, asyncio.Event()
            early.set()

    async def wait_until_due(self, seconds: float) -> bool:
        """Wait for the next run of a probe; return whether it is early."""
        early = self._early
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await early.wait()
                return True
        return False

    def take_renewal(self, clock: float) -> bool:
        """Return True once per interval, if the dead man's switch is due at monotonic time ``clock``."""
        # Nothing shows that it is still up, so its switch fires unless another monitor probes it.
        if len(self.unprobed) == len(self.gateway.checks) or clock < self._next_renewal:
            return False
        self._next_renewal = clock + max(MIN_RENEWAL_INTERVAL, self.gateway.interval)
        return True

    def shift_clock(self, step: float) -> None:
        """Shift the times of pauses and waits because the system clock was set by ``step`` seconds."""
        super().shift_clock(step)
        self._next_session_change = 0.0  # compare the status with the calendar again
        if self.recovery is not None:
            self.recovery.shift_clock(step)

    def is_due(self, now: float, clock: float) -> bool:
        """Return whether its session, silence, recovery or dead man's switch needs attention.

        Args:
            now: UNIX seconds.
            clock: monotonic seconds.
        """
        return (
            clock >= self._next_renewal
            or now >= self._next_session_change
            or self.recovery is not None
            or (self.silence is not None and self.silence.until <= now)
        )

    # Trading sessions and silence.

    def update_session(self, now: float) -> bool:
        """Open or close the gateway with its exchange; return whether that may have changed the own view.

        Args:
            now: UNIX seconds.
        """
        if now < self._next_session_change:
            return False
        sessions = self.gateway.sessions
        self._next_session_change = sessions.next_change(now) if sessions is not None else float("inf")
        # Without an exchange, the status may be from the time when the gateway still had one.
        if sessions is None or sessions.is_open(now):
            self.open_session(now)
        else:
            self.close_session(now)
        return True

    def expire_silence(self, now: float) -> bool:
        """End the silence if it has expired; return whether it has."""
        expired = self.silence is not None and self.silence.until <= now
        if expired:
            self.set_silence(None, now)
        return expired

    # Recovery.

    @property
    def recovery_subject(self) -> str | None:
        """Subject of its recovery events; None if no recovery is configured."""
        if self.recovery is None:
            return None
        return GatewayRecovery.subject_of(gateway_type=self.gateway.type, gateway_id=self.gateway.id)

    @property
    def may_be_recovered(self) -> bool:
        """Whether attempts may be made: a silenced gateway is left to the operators."""
        return self.status is Status.UNHEALTHY and self.silence is None

    def update_recovery(self, now: float) -> GatewayRecovery | None:
        """Start or end the recovery according to the status and the silence; return the event to publish."""
        recovery = self.recovery
        if recovery is None or not self.recovery_is_known:
            return None
        if self.silence is not None and recovery.active:
            if self.attempt is not None:
                self.attempt.cancel()
            return recovery.stop(now, SILENCED)
        if self.may_be_recovered:
            return recovery.start(now)
        if self.status in (Status.HEALTHY, Status.DEGRADED):
            return recovery.succeed(now)
        if self.status is not Status.RECOVERING and self.status is not Status.UNHEALTHY:
            recovery.abandon()
        return None

    def next_recovery_event(self, now: float, *, allowed: bool = True) -> GatewayRecovery | None:
        """Return the recovery event that is due; call only after the preceding one was acknowledged."""
        if self.recovery is None or not self.may_be_recovered:
            return None
        return self.recovery.next_event(now, allowed=allowed)


def initial_delay(name: str, interval: float) -> float:
    """Return the seconds before the first probe, evenly spread over names and the same at every start."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 * interval
