"""State that probes keep between runs, created once per monitor.

Invariant: silence of a subject counts only for the time in which it was listened to without interruption.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from tickertape.errors import OperatorError
from tickertape.rate_limit import SlidingWindow

HOUR: Final = 3600.0
"""Window of the limits, in seconds."""

State = TypeVar("State")

MAX_BODY_BYTES: Final = 8 * 1024
"""Bytes of a message that are kept."""


@dataclass(slots=True)
class _Times:
    """Times of a pattern in monotonic seconds.

    Attributes:
        since: start of the current subscription; None if there is none.
        last_message: time of the last message.
        body: beginning of the last message.
    """

    since: float | None = None
    last_message: float | None = None
    body: bytes = b""


async def _confirm(seconds: float) -> bool:
    return True


class Freshness:
    """Times of the subject patterns that probes need, in monotonic seconds.

    Attributes:
        denied: errors of the patterns that NATS denies at the moment.
        confirm: waits for a number of seconds, and returns whether all messages that were sent have arrived.
    """

    def __init__(self) -> None:
        self.denied: Mapping[str, OperatorError] = {}
        self.confirm: Callable[[float], Awaitable[bool]] = _confirm
        self._times: dict[str, _Times] = {}
        self._connected_since: float | None = None

    def connect(self, now: float) -> None:
        """Record that messages can arrive, unless that is known already."""
        if self._connected_since is None:
            self._connected_since = now

    def disconnect(self) -> None:
        """Record that no message can arrive, because NATS is unreachable."""
        self._connected_since = None

    def start_over(self, now: float) -> None:
        """Forget all messages because time has passed that the monotonic clock may not have counted."""
        for times in self._times.values():
            times.last_message = None
            times.since = None if times.since is None else now
        self._connected_since = None if self._connected_since is None else now

    def listen(self, pattern: str, now: float) -> None:
        """Record the start of a subscription."""
        self._times.setdefault(pattern, _Times()).since = now

    def pause(self, pattern: str) -> None:
        """Record that there is no subscription."""
        if (times := self._times.get(pattern)) is not None:
            times.since = None

    def forget(self, pattern: str) -> None:
        """Forget a pattern that no probe needs."""
        self._times.pop(pattern, None)

    def set_denied(self, denied: Mapping[str, OperatorError], now: float) -> None:
        """Set the patterns that NATS denies; others are listened to again from now on."""
        for pattern in self.denied.keys() - denied.keys():
            if (times := self._times.get(pattern)) is not None and times.since is not None:
                times.since = now
        self.denied = denied

    def record_message(self, pattern: str, now: float, body: bytes = b"") -> None:
        """Record a message on a pattern, with which its subscription ends."""
        self.pause(pattern)
        if (times := self._times.get(pattern)) is not None:
            times.last_message, times.body = now, body[:MAX_BODY_BYTES]

    def last_body(self, pattern: str) -> bytes:
        """Return the beginning of the last message that arrived."""
        return self._times.get(pattern, _Times()).body

    def age(self, pattern: str, now: float) -> float | None:
        """Return the seconds since the last message that arrived; None without one."""
        last_message = self._times.get(pattern, _Times()).last_message
        return None if last_message is None else now - last_message

    def was_interrupted(self, pattern: str) -> bool:
        """Return whether a message may have been missed since the last one, as NATS was unreachable."""
        last_message = self._times.get(pattern, _Times()).last_message
        connected_since = self._connected_since
        return last_message is not None and (connected_since is None or connected_since > last_message)

    def silence(self, pattern: str, now: float) -> float | None:
        """Return the seconds in which no message arrived; None if none could arrive at the moment."""
        since = self._times.get(pattern, _Times()).since
        if since is None or self._connected_since is None or pattern in self.denied:
            return None
        return now - max(since, self._connected_since)


class HourlyLimits:
    """Limits per hour, such as that of logons.

    Attributes:
        source: takes a slot that all monitors share; without one, the limits hold in this process alone.
    """

    def __init__(self) -> None:
        self.source: Callable[[str, tuple[str, str], int], Awaitable[bool | None]] | None = None
        self._windows: dict[tuple[str, tuple[str, str]], SlidingWindow] = {}

    async def take(self, kind: str, owner: tuple[str, str], slots: int) -> bool | None:
        """Take a slot; return False if none is free, and None if that is unknown.

        Args:
            kind: what is limited, such as ``logon``.
            owner: two names that identify whom the limit concerns.
            slots: number of slots per hour.
        """
        if self.source is not None:
            return await self.source(kind, owner, slots)
        window = self._windows.setdefault((kind, owner), SlidingWindow(HOUR))
        return window.allow(slots, time.monotonic())


@dataclass(frozen=True)
class ProbeContext:
    """State of all probes of a monitor.

    Attributes:
        freshness: times of messages.
        limits: limits per hour.
        active_since: start of the trading session of the gateway that is probed, in monotonic seconds.
        monitor: id of the monitor.
        folder: folder for the state that outlives the monitor; None if there is none.
    """

    freshness: Freshness = field(default_factory=Freshness)
    limits: HourlyLimits = field(default_factory=HourlyLimits)
    active_since: float = float("-inf")
    monitor: str = ""
    folder: Path | None = None
    _states: dict[type, Any] = field(default_factory=dict)

    def within_session(self, active_since: float) -> "ProbeContext":
        """Return this state for a gateway whose session started at a time."""
        return self if active_since == self.active_since else replace(self, active_since=active_since)

    def state(self, state_type: type[State]) -> State:
        """Return the state of a kind of probe, of the given type; create it on first use."""
        state: State = self._states.setdefault(state_type, state_type())
        return state
