"""State that probes keep between runs, created once per monitor.

Invariant: a subject without any message is not stale until it has been subscribed to for long enough.
"""

from typing import Any, TypeVar

from tickertape.contracts.subjects import matches

State = TypeVar("State")


class Freshness:
    """Time of the last message on each subject pattern that a probe needs, in monotonic seconds."""

    def __init__(self) -> None:
        self.patterns: set[str] = set()
        self._last_message: dict[str, float] = {}
        self._since: dict[str, float] = {}

    def listen(self, patterns: set[str], now: float) -> None:
        """Start measuring message ages on these patterns; call again when the connection has recovered."""
        self.patterns = patterns
        self._since = dict.fromkeys(patterns, now)
        self._last_message = {
            pattern: time for pattern, time in self._last_message.items() if pattern in patterns
        }

    @property
    def is_suspended(self) -> bool:
        """Whether patterns are needed but measuring is suspended."""
        return bool(self.patterns) and not self._since

    def suspend(self) -> None:
        """Suspend measuring, because no message can arrive while NATS is unreachable."""
        self._since.clear()

    def record_message(self, subject: str, now: float) -> None:
        """Record a message on a subject, without the deployment's prefix."""
        for pattern in self._since:
            if matches(pattern, subject):
                self._last_message[pattern] = now

    def age(self, pattern: str, now: float) -> tuple[float, bool] | None:
        """Return the seconds since the last message on a pattern.

        Returns:
            the seconds since the last message, or since measuring started if there was none; and whether
            there was a message. None while measuring is suspended.
        """
        since = self._since.get(pattern)
        if since is None:
            return None
        last_message = self._last_message.get(pattern)
        # The age starts over after an outage of NATS: messages may have been missed during the outage.
        return (now - since, False) if last_message is None else (now - max(last_message, since), True)


class ProbeContext:
    """State of all probes of a monitor."""

    def __init__(self) -> None:
        self.freshness = Freshness()
        self._states: dict[type, Any] = {}

    def state(self, state_type: type[State]) -> State:
        """Return the state of a kind of probe, of the given type; create it on first use."""
        state: State = self._states.setdefault(state_type, state_type())
        return state
