"""Conditions in use: one for each distinct expression, which all sessions with this expression share.

Invariants:

1. A condition is evaluated at most once for each event in memory, however many sessions and feeds use it.
2. The number of conditions, and the cost of those of one client, are bounded.
3. The bits of a condition that is no longer used are cleared in all events before another one gets them.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.core.where.condition import Condition, Conditional

MAX_CONDITIONS: Final = 4_096
"""Maximum number of distinct conditions of a relay; each takes two bits of every event that it examined."""

MAX_CLIENT_COST: Final = 4_000
"""Maximum cost of the distinct conditions of one token subject, in operators: about 0.2 ms for each event."""

MAX_STALE: Final = 256
"""Number of conditions that are no longer used, before all events in memory are rid of their bits."""


class Conditions:
    """Conditions of all sessions of a hub.

    Args:
        events: returns all events in memory that may have verdicts.
    """

    def __init__(self, events: Callable[[], Iterable[Conditional]]) -> None:
        self._events = events
        self._shared: dict[str, Condition] = {}
        self._users: Counter[str] = Counter()  # number of sessions by expression
        self._clients: dict[str, Counter[str]] = {}  # the same for each token subject
        self._free = list(range(MAX_CONDITIONS))
        self._stale: list[int] = []

    def __len__(self) -> int:
        return len(self._shared)

    def __repr__(self) -> str:
        return f"Conditions({len(self)} distinct, {self._users.total()} used)"

    def use(self, condition: Condition, client: str) -> Condition:
        """Return the shared condition of an expression; call ``release`` when its session no longer uses it.

        Args:
            condition: condition of a request.
            client: subject of the client's token; empty without one, which is not limited by itself.

        Raises:
            ProtocolError: there are too many conditions, or those of this client cost too much.
        """
        source = condition.source
        shared = self._shared.get(source)
        if client and source not in (own := self._clients.get(client, Counter())):
            cost = condition.cost + sum(self._shared[other].cost for other in own)
            if cost > MAX_CLIENT_COST:
                raise ProtocolError(
                    ErrorCode.TOO_MANY,
                    f"where: the conditions of {client[:80]!r} cost {cost}, more than {MAX_CLIENT_COST}; "
                    "simplify them, or close a connection",
                )
        if shared is None:
            if len(self._shared) + len(self._stale) >= MAX_CONDITIONS:
                self._sweep()
            if not self._free:
                raise ProtocolError(
                    ErrorCode.TOO_MANY,
                    f"where: the relay has {MAX_CONDITIONS} different conditions already; retry later",
                )
            shared = self._shared[source] = condition
            shared.keep_results(heapq.heappop(self._free))  # the lowest: verdicts are as long as the highest
        self._users[source] += 1
        if client:
            self._clients.setdefault(client, Counter())[source] += 1
        return shared

    def release(self, condition: Condition, client: str) -> None:
        """Record that a session no longer uses a condition; ``client`` is that of ``use``."""
        source = condition.source
        own = self._clients.get(client)
        if own is not None:
            _decrement(own, source)
            if not own:
                del self._clients[client]
        if _decrement(self._users, source):
            return
        shared = self._shared.pop(source)
        assert shared.slot is not None
        self._stale.append(shared.slot)
        if len(self._stale) >= MAX_STALE:
            self._sweep()

    def _sweep(self) -> None:
        """Clear the bits of conditions that are no longer used."""
        keep = ~sum(3 << 2 * slot for slot in self._stale)
        for event in self._events():
            if event.verdicts:
                event.verdicts &= keep
        for slot in self._stale:
            heapq.heappush(self._free, slot)
        self._stale.clear()


def _decrement(counter: Counter[str], key: str) -> int:
    """Count one less, and return what is left; nothing is left of a key that is zero."""
    counter[key] -= 1
    left = counter[key]
    if not left:
        del counter[key]
    return left
