"""Recovery policy: when to attempt recovery of a gateway, and when to leave it to operators.

The policy only decides; it does no I/O and reads no clock.

Invariants:

1. At most ``per_hour`` attempts are made in any hour, however often the gateway fails.
2. Each recovery begins with ``started`` and ends with ``succeeded`` or ``failed``, each published once.
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

from tickertape.rate_limit import SlidingWindow
from tickertape.text import count

MAX_BACKOFF: Final = 600.0
"""Maximum seconds between two attempts."""

HOUR: Final = 3600.0
"""Window of ``per_hour``, in seconds."""


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
        attempts: attempts on this gateway within the last hour, which outlive its settings.

    Attributes:
        active: whether a recovery is in progress, or has failed and the gateway has not been healthy since.
        attempt: number of the latest attempt.
    """

    def __init__(
        self,
        settings: RecoverySettings,
        gateway_type: str,
        gateway_id: str,
        metadata: Mapping[str, Any],
        attempts: SlidingWindow | None = None,
    ) -> None:
        self.active = False
        self.attempt = 0
        self._owned = True  # False while another monitor makes the attempts
        self._settings = settings
        self._gateway_type = gateway_type
        self._gateway_id = gateway_id
        self._metadata = metadata
        self._due: float | None = None
        self._attempts = attempts or SlidingWindow(HOUR)

    def __repr__(self) -> str:
        return f"Recovery({self._gateway_id}, attempt {self.attempt}, due {self._due})"

    def start(self, now: float) -> GatewayRecovery | None:
        """Start a recovery at ``now``, UNIX seconds; return None if one is active already."""
        if self.active:
            return None
        self.active, self.attempt = True, 0
        self._due = now + self._settings.after
        return self._make_event("started", now)

    def due(self) -> float | None:
        """Return the time of the next attempt or of the failure, UNIX seconds; None if nothing is due."""
        return self._due

    def next_event(self, now: float) -> GatewayRecovery | None:
        """Return the event that is due: an ``attempt`` to make, or ``failed``; None if none is due."""
        if self._due is None or now < self._due:
            return None
        if self.attempt >= self._settings.attempts:
            return self._end("failed", now, reason=f"not recovered after {count(self.attempt, 'attempt')}")
        # Counted over all recoveries, so that a gateway that keeps failing is not restarted without end.
        if not self._attempts.allow(self._settings.per_hour, now):
            return self._end(
                "failed", now, reason=f"limit of {count(self._settings.per_hour, 'attempt')} per hour reached"
            )
        self.attempt += 1
        self._due = None  # until the attempt has finished
        return self._make_event("attempt", now)

    def finish_attempt(self, now: float) -> None:
        """Schedule what follows an attempt, whether it worked or not; the probes decide if it helped."""
        if self.active and self._owned:
            self._due = now + min(MAX_BACKOFF, self._settings.backoff * 2 ** (self.attempt - 1))

    def succeed(self, now: float) -> GatewayRecovery | None:
        """End the recovery of a gateway that is up again; return None if there is no event to publish."""
        if not self.active:
            return None
        if self._owned:
            return self._end("succeeded", now)
        self.abandon()
        return None

    def cede(self) -> None:
        """Leave the recovery to the monitor that published its latest event."""
        self._owned, self._due = False, None

    def abandon(self) -> None:
        """Cancel the recovery without an event."""
        self.active, self._owned, self._due = False, True, None

    def _end(self, phase: str, now: float, **metadata: Any) -> GatewayRecovery:
        event = self._make_event(phase, now, **metadata)
        # A failed recovery stays active, so that a new one starts only after the gateway has been healthy.
        self.active, self._due = phase == "failed", None
        return event

    def _make_event(self, phase: str, now: float, **metadata: Any) -> GatewayRecovery:
        return GatewayRecovery.model_validate(
            {
                "timestamp": format_time(now),
                "gateway_id": self._gateway_id,
                "gateway_type": self._gateway_type,
                "phase": phase,
                "attempt": self.attempt,
                "metadata": {**self._metadata, **metadata},
            }
        )
