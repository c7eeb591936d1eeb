"""What probes remember from one look to the next, made once for each monitor.

Invariant: what never arrived is not stale before it had the time to arrive.
"""

from typing import Any, TypeVar

from tickertape.contracts.subjects import matches

Memory = TypeVar("Memory")


class Freshness:
    """When something last arrived on each pattern that a probe names; times are monotonic, in seconds."""

    def __init__(self) -> None:
        self.patterns: set[str] = set()
        self._seen: dict[str, float] = {}
        self._since: dict[str, float] = {}

    def listen(self, patterns: set[str], now: float) -> None:
        """Say which patterns are listened to from now on; called again after each time without NATS."""
        self.patterns = patterns
        self._since = dict.fromkeys(patterns, now)
        self._seen = {pattern: seen for pattern, seen in self._seen.items() if pattern in patterns}

    @property
    def is_deaf(self) -> bool:
        """True when nothing is listened to that should be."""
        return bool(self.patterns) and not self._since

    def deaf(self) -> None:
        """NATS is away: what does not arrive means nothing."""
        self._since.clear()

    def saw(self, subject: str, now: float) -> None:
        """Note a message on a subject, without the deployment's prefix."""
        for pattern in self._since:
            if matches(pattern, subject):
                self._seen[pattern] = now

    def age(self, pattern: str, now: float) -> tuple[float, bool] | None:
        """Seconds since the last message, or since it is listened to when there was none.

        Returns:
            the age, and whether there ever was one; None when nobody listens.
        """
        since = self._since.get(pattern)
        if since is None:
            return None
        seen = self._seen.get(pattern)
        # What came before a time without NATS does not prove that nothing came during it.
        return (now - since, False) if seen is None else (now - max(seen, since), True)


class ProbeContext:
    """All of it."""

    def __init__(self) -> None:
        self.freshness = Freshness()
        self._memories: dict[type, Any] = {}

    def memory(self, kind: type[Memory]) -> Memory:
        """The one memory of a kind of probe; made when it is asked for first."""
        memory: Memory = self._memories.setdefault(kind, kind())
        return memory
