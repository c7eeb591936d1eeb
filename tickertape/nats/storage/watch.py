"""Watch of the store of NATS through its monitoring ports, for readiness, metrics and the log of a relay."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Collection
from typing import Final

from tickertape.nats.storage.health import MonitoringError, read_stores
from tickertape.nats.storage.problems import StoreProblem

log = logging.getLogger("tickertape.nats")

CHECK_INTERVAL: Final = 5.0
"""Seconds between two checks."""

MAX_FAILURES: Final = 2
"""Checks in a row without a response after which the state is unknown: a server that restarts misses one."""


class StoreWatch:
    """State of the store of NATS; unknown without a monitoring port.

    Args:
        urls: addresses of the monitoring ports, of each server of a cluster.
        streams: names of the streams that matter.
        tls: returns the TLS context for https; None trusts the authorities of the system.

    Attributes:
        problem: why events cannot be stored; None if they can, or if it is unknown.
        writable: whether events can be stored; None if unknown.
    """

    def __init__(
        self,
        urls: Collection[str] = (),
        streams: Collection[str] = (),
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self.problem: StoreProblem | None = None
        self.writable: bool | None = None
        self._urls = urls
        self._streams = streams
        self._tls = tls
        self._failures = 0

    def __repr__(self) -> str:
        return f"<StoreWatch of {len(self._urls)} servers: {self.state}>"

    @property
    def state(self) -> str:
        """State in one word, without names of files and accounts: ``ok``, ``unknown``, or the cause."""
        if self.problem is not None:
            return self.problem.cause.value
        return "unknown" if self.writable is None else "ok"

    async def run(self) -> None:
        """Check the store regularly, and log each change, until cancelled."""
        if not self._urls:
            await asyncio.Event().wait()
        while True:
            await self.check()
            await asyncio.sleep(CHECK_INTERVAL)

    async def read(self) -> StoreProblem | None:
        """Read why events cannot be stored; return None if they can.

        Raises:
            MonitoringError: a monitoring port does not respond.
            OSError: the certificates cannot be read.
        """
        return await read_stores(self._urls, self._streams, self._tls and self._tls())

    async def check(self) -> None:
        """Check the store once, and log a change."""
        try:
            problem = await self.read()
        except (MonitoringError, OSError) as error:
            self._failures += 1
            if self._failures == MAX_FAILURES:
                log.warning("whether NATS can store events is unknown: %s", error)
                self.problem = self.writable = None
            return
        self._failures = 0
        if problem is None and self.problem is not None:
            log.warning("nats-server stores events again")
        # Not the whole text, in which the name of a file changes.
        elif problem is not None and (self.problem is None or problem.cause is not self.problem.cause):
            log.error("%s", problem)
        self.problem, self.writable = problem, problem is None
