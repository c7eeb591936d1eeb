"""What a worker gets from its supervisor, where a relay alone stands on its own feet."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from starlette.types import ASGIApp
from tickertape.relay.core.connection_limits import Limits
from tickertape.relay.core.limit_counters import LimitCounters


class Server(Protocol):
    """What serves pages until it is told to end."""

    should_exit: bool

    @property
    def address(self) -> str:
        """Where; for the operator."""

    async def run_until_stopped(self) -> None:
        """Serve until ``should_exit`` is set."""


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """A worker's place among the others.

    Attributes:
        relay: name in ``welcome``: the host's, and the slot.
        workers: how many there are.
        limit_counters: counts with the others; gets for how many sockets this process has descriptors.
        ops: serves the pages of the ops port, and all numbers, to the supervisor.
        report_error: tells the supervisor in a line why no relay can run.
    """

    relay: str
    workers: int
    limit_counters: Callable[[int], LimitCounters]
    ops: Callable[[ASGIApp, Callable[[], Any]], Server]
    report_error: Callable[[str], None]

    def limits(self, whole: Limits) -> Limits:
        """This worker's limits: those of the whole are counted together, and sockets without a session are
        a part each, since the oldest of them has to be one's own to be cut."""
        return replace(whole, unauthenticated=-(-whole.unauthenticated // self.workers))
