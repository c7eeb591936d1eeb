"""Context that a worker receives from its supervisor; a relay in a single process has none."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from starlette.types import ASGIApp
from tickertape.relay.core.connection_limits import Limits
from tickertape.relay.core.limit_counters import LimitCounters


class Server(Protocol):
    """HTTP server that runs until ``should_exit`` is set."""

    should_exit: bool

    @property
    def address(self) -> str:
        """Address that the server listens on, for messages to the operator."""

    async def run_until_stopped(self) -> None:
        """Serve until ``should_exit`` is set."""


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """Context of a worker that shares its port with others.

    Attributes:
        relay: relay name in ``welcome``: host name and slot.
        workers: number of workers.
        limit_counters: makes the limit counters that all workers share, given the number of connections that
            this process has descriptors for.
        ops: makes the server through which the supervisor reaches the ops endpoints and the metrics.
        report_error: reports to the supervisor, in one line, why the worker cannot run.
    """

    relay: str
    workers: int
    limit_counters: Callable[[int], LimitCounters]
    ops: Callable[[ASGIApp, Callable[[], Any]], Server]
    report_error: Callable[[str], None]

    def limits(self, total: Limits) -> Limits:
        """Return the limits of this worker, given the limits of the relay.

        Shared counters enforce them across workers. Connections without a session are divided among the
        workers instead, since a worker can abort only its own connections.
        """
        return replace(total, unauthenticated=-(-total.unauthenticated // self.workers))
