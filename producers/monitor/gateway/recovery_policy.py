"""When to try to bring a gateway back, and when to leave it to people: decisions only, no I/O and no clock.

Invariants:

1. No more attempts are made in any hour than the file allows, however often the gateway fails.
2. Each course begins with ``started`` and ends with ``succeeded`` or ``failed``, each told once.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import model_validator
from tickertape.contracts.events import GatewayRecovery, format_time
from tickertape.producers.monitor.types import Command, Count, Duration, HttpUrl, PositiveDuration, Settings

from tickertape.rate_limit import SlidingWindow

MAX_BACKOFF: Final = 600.0
"""Seconds between two attempts at most."""

HOUR: Final = 3600.0


class RecoverySettings(Settings):
    """What to try when a gateway is UNHEALTHY: a command, or an HTTP call."""

    command: Command | None = None
    url: HttpUrl | None = None
    method: Literal["GET", "POST", "PUT"] = "POST"
    after: Duration = 0.0
    attempts: Count = 3
    backoff: PositiveDuration = 30.0
    per_hour: Count = 4
    timeout: PositiveDuration = 60.0

    @model_validator(mode="after")
    def _one_way(self) -> "RecoverySettings":
        if (self.command is None) == (self.url is None):
            raise ValueError("needs 'command' or 'url', and only one of them")
        return self


class Recovery:
    """One gateway's attempts.

    Args:
        settings: the gateway's own.
        metadata: of each event.
    """

    def __init__(
        self, settings: RecoverySettings, gateway_type: str, gateway_id: str, metadata: Mapping[str, Any]
    ) -> None:
        self.active = False
        self.attempt = 0
        self._ours = True  # False while another monitor makes the attempts
        self._settings = settings
        self._gateway_type = gateway_type
        self._gateway_id = gateway_id
        self._metadata = metadata
        self._due: float | None = None
        self._made = SlidingWindow(HOUR)

    def __repr__(self) -> str:
        return f"Recovery({self._gateway_id}, attempt {self.attempt}, due {self._due})"

    def begin(self, now: float) -> GatewayRecovery | None:
        """The gateway is UNHEALTHY; None when a course is under way already. ``now`` is in UNIX seconds."""
        if self.active:
            return None
        self.active, self.attempt = True, 0
        self._due = now + self._settings.after
        return self._event("started", now)

    def due(self) -> float | None:
        """When the next attempt, or the end of the course, is due; None while nothing is."""
        return self._due

    def next(self, now: float) -> GatewayRecovery | None:
        """What is due now: an ``attempt`` to be made, or ``failed``; None when it is not due yet."""
        if self._due is None or now < self._due:
            return None
        if self.attempt >= self._settings.attempts:
            return self._end("failed", now, reason=f"{self.attempt} attempts did not bring it back")
        if not self._made.allow(self._settings.per_hour, now):
            return self._end(
                "failed", now, reason=f"{self._settings.per_hour} attempts in an hour are the most"
            )
        self.attempt += 1
        self._due = None  # until it has been made
        return self._event("attempt", now)

    def made(self, now: float) -> None:
        """The attempt has been made, well or not; whether it helped, the probes tell."""
        if self.active and self._ours:
            self._due = now + min(MAX_BACKOFF, self._settings.backoff * 2 ** (self.attempt - 1))

    def well(self, now: float) -> GatewayRecovery | None:
        """The gateway is up again; None when no course was under way."""
        if not self.active:
            return None
        if self._ours:
            return self._end("succeeded", now)
        self.abandon()
        return None

    def leave(self) -> None:
        """Another monitor sees to it: the course goes on without us."""
        self._ours, self._due = False, None

    def abandon(self) -> None:
        """There is nothing more to be done about it."""
        self.active, self._ours, self._due = False, True, None

    def _end(self, phase: str, now: float, **more: Any) -> GatewayRecovery:
        event = self._event(phase, now, **more)
        # After 'failed' it stays active: it is begun again only once the gateway was well in between.
        self.active, self._due = phase == "failed", None
        return event

    def _event(self, phase: str, now: float, **more: Any) -> GatewayRecovery:
        return GatewayRecovery.model_validate(
            {
                "timestamp": format_time(now),
                "gateway_id": self._gateway_id,
                "gateway_type": self._gateway_type,
                "phase": phase,
                "attempt": self.attempt,
                "metadata": {**self._metadata, **more},
            }
        )
