"""Recovery policy: when to attempt recovery of a gateway, and when to leave it to operators.

The policy only decides; it does no I/O and reads no clock.

Invariants:

1. Each recovery begins with ``started`` and ends with ``succeeded`` or ``failed``, each published once.
2. One monitor makes the attempts; if it dies, another one continues.
3. Nothing follows ``started`` before NATS has stored it, which decides who makes the attempts.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import Field, model_validator
from tickertape.contracts.events import GatewayRecovery, format_time
from tickertape.producers.monitor.types import (
    Command,
    Count,
    Duration,
    Environment,
    HttpUrl,
    PositiveDuration,
    Settings,
)

from tickertape.text import count

MAX_BACKOFF: Final = 600.0
"""Maximum seconds between two attempts."""

POSTPONEMENT: Final = 5.0
"""Seconds after which an attempt is due again while NATS is unreachable, or a recovery that it rejected."""

SILENCED: Final = "silenced"
NOT_CONFIGURED: Final = "no longer configured"

STOPPED: Final = (SILENCED, NOT_CONFIGURED)
"""Reasons of a ``failed`` recovery after which any monitor may start another one."""


class RecoverySettings(Settings):
    """Recovery action for an UNHEALTHY gateway, a command or an HTTP request, and its schedule."""

    command: Command | None = None
    url: HttpUrl | None = None
    method: Literal["GET", "POST", "PUT"] = "POST"
    environment: Environment = Field(default={}, repr=False)
    """Environment variables of the command, in addition to PATH, HOME, TMPDIR, TZ and the locale."""
    after: Duration = 0.0
    attempts: Count = 3
    backoff: PositiveDuration = 30.0
    per_hour: Count = 4
    timeout: PositiveDuration = 60.0

    @model_validator(mode="after")
    def _check_one_action(self) -> "RecoverySettings":
        if (self.command is None) == (self.url is None):
            raise ValueError("needs exactly one of 'command' and 'url'")
        if self.environment and self.command is None:
            raise ValueError("'environment' is for a 'command'; remove it")
        return self


class Recovery:
    """Recovery of one gateway.

    Args:
        settings: recovery settings of the gateway.
        metadata: metadata of each recovery event.

    Attributes:
        settings: recovery settings, which may be replaced.
        metadata: metadata of each event, which may be replaced.
        active: whether a recovery is in progress, or has failed and the gateway has not been healthy since.
        attempt: number of the latest attempt.
        owner: monitor that makes the attempts; None if it is this one.
    """

    def __init__(
        self,
        settings: RecoverySettings,
        gateway_type: str,
        gateway_id: str,
        metadata: Mapping[str, Any],
    ) -> None:
        self.settings = settings
        self.metadata = metadata
        self.active = False
        self.attempt = 0
        self.owner: str | None = None
        self._gateway_type = gateway_type
        self._gateway_id = gateway_id
        self._has_failed = False
        self._due: float | None = None
        self._unannounced: GatewayRecovery | None = None
        self._not_before = float("-inf")

    def __repr__(self) -> str:
        return f"Recovery({self._gateway_id}, attempt {self.attempt}, due {self._due})"

    @property
    def in_progress(self) -> bool:
        """Whether attempts are made, by this monitor or another one."""
        return self.active and not self._has_failed

    def start(self, now: float) -> GatewayRecovery | None:
        """Start a recovery at ``now``, UNIX seconds; return None if one is active already."""
        if self.active or now < self._not_before:
            return None
        self.active, self.attempt = True, 0
        self._due = now + self.settings.after
        self._unannounced = self._make_event("started", now)
        return self._unannounced

    def settle_start(self, started: GatewayRecovery, now: float, *, stored: bool) -> None:
        """Continue a recovery whose ``started`` event is stored; otherwise start another one later."""
        if started is not self._unannounced:
            return
        self._unannounced = None
        if not stored:
            self.abandon()
            self._not_before = now + POSTPONEMENT

    def due(self) -> float | None:
        """Return the time of the next attempt or of the failure, UNIX seconds; None if nothing is due."""
        return self._due

    def is_attempt_due(self, now: float) -> bool:
        """Return whether the next event is an attempt, which the limit per hour has to allow."""
        return self._is_due(now) and self.attempt < self.settings.attempts

    def next_event(self, now: float, *, allowed: bool = True) -> GatewayRecovery | None:
        """Return the event that is due: an ``attempt`` to make, or ``failed``; None if none is due.

        Args:
            now: UNIX seconds.
            allowed: whether the limit per hour allows the attempt.
        """
        if not self._is_due(now):
            return None
        if self.attempt >= self.settings.attempts:
            return self._end("failed", now, reason=f"not recovered after {count(self.attempt, 'attempt')}")
        # Counted over all recoveries, so that a gateway that keeps failing is not restarted without end.
        if not allowed:
            limit = count(self.settings.per_hour, "attempt")
            return self._end("failed", now, reason=f"limit of {limit} per hour reached")
        self.attempt += 1
        self._due = None  # until the attempt has finished
        return self._make_event("attempt", now)

    def postpone(self, now: float) -> None:
        """Postpone the attempt that is due, because it is unknown whether the limit per hour allows it."""
        if self._due is not None:
            self._due = now + POSTPONEMENT

    def finish_attempt(self, now: float) -> None:
        """Schedule what follows an attempt, whether it worked or not; the probes decide if it helped."""
        if self.in_progress and self.owner is None:
            self._due = now + self._backoff()

    def succeed(self, now: float) -> GatewayRecovery | None:
        """End the recovery of a gateway that is up again; return None if there is no event to publish."""
        if not self.active:
            return None
        if self.owner is None:
            return self._end("succeeded", now)
        self.abandon()
        return None

    def stop(self, now: float, reason: str) -> GatewayRecovery | None:
        """Stop the recovery, so that a later one starts over; return None if there is no event to publish."""
        event = self._end("failed", now, reason=reason) if self.in_progress and self.owner is None else None
        self.abandon()
        return event

    def shift_clock(self, step: float) -> None:
        """Shift the time of the next event because the system clock was set by ``step`` seconds."""
        self._not_before += step
        if self._due is not None:
            self._due += step

    def adopt(self, phase: str, attempt: int, owner: str | None, reason: str = "") -> None:
        """Leave the recovery to the monitor that published its latest event.

        Args:
            phase: phase of that event.
            attempt: number of the attempt in it.
            owner: name of the monitor; None for another producer.
            reason: reason why the recovery failed.
        """
        self._unannounced = None
        if phase == "succeeded" or (phase == "failed" and reason in STOPPED):
            self.abandon()
            return
        self.active, self._has_failed = True, phase == "failed"
        self.attempt, self.owner, self._due = attempt, owner or "", None

    def take_over(self, now: float, delay: float = 0.0) -> None:
        """Continue the recovery of a monitor that died, after the time that it would have waited.

        Args:
            now: UNIX seconds.
            delay: further seconds, within which another monitor may do so.
        """
        self.owner = None
        if self.in_progress:
            self._due = now + delay + (self._backoff() if self.attempt else self.settings.after)

    def abandon(self) -> None:
        """Cancel the recovery without an event."""
        self.active, self._has_failed, self.owner, self._due = False, False, None, None
        self._unannounced = None

    def _is_due(self, now: float) -> bool:
        return self._due is not None and now >= self._due and self._unannounced is None

    def _backoff(self) -> float:
        return min(MAX_BACKOFF, self.settings.backoff * 2.0 ** (self.attempt - 1))

    def _end(self, phase: str, now: float, **metadata: Any) -> GatewayRecovery:
        event = self._make_event(phase, now, **metadata)
        # A failed recovery stays active, so that a new one starts only after the gateway has been healthy.
        self.active = self._has_failed = phase == "failed"
        self._due = self._unannounced = None
        return event

    def _make_event(self, phase: str, now: float, **metadata: Any) -> GatewayRecovery:
        return GatewayRecovery.model_validate(
            {
                "timestamp": format_time(now),
                "gateway_id": self._gateway_id,
                "gateway_type": self._gateway_type,
                "phase": phase,
                "attempt": self.attempt,
                "metadata": {**self.metadata, **metadata},
            }
        )
