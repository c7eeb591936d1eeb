"""Looks at gateways when they are due, and at the monitor's own connectivity.

Invariants:

1. No look waits for another but for a slot, nor for NATS.
2. What fails while the monitor itself reaches nothing says nothing about a gateway.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from prometheus_client import Histogram
from tickertape.contracts.events import GatewayStatusChange, Status
from tickertape.producers.monitor import probes
from tickertape.producers.monitor.gateway.model import Check
from tickertape.producers.monitor.gateway.probe_health import Outcome
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway, spread
from tickertape.producers.monitor.probes import ProbeContext, ProbeSettings

from tickertape.names import Names

MAX_PROBES_AT_ONCE: Final = 512
"""Open probes; a bound on sockets that thousands of gateways with a long ``hold`` would need otherwise."""

JITTER: Final = 0.05
"""Share of an interval by which a look is put off or forward, so that no two monitors march in step."""


class Probing:
    """The looks at all gateways of a monitor.

    Args:
        watched: the gateways by subject, as they are now.
        tell: gets a gateway after a look, with the change that the look made.
        say: gets lines for the operator.

    Attributes:
        reaches: False while the monitor's own connectivity is down.
        probed: looks at gateways.
        lag: of all looks.
    """

    def __init__(
        self,
        watched: Mapping[str, MonitoredGateway],
        tell: Callable[[MonitoredGateway, GatewayStatusChange | None], None],
        say: Callable[[str], None],
    ) -> None:
        self.reaches = True
        self.probed = 0
        self._latest_lag = 0.0
        self.lag = Histogram(
            "tickertape_monitor_probe_lag_seconds",
            "How much later than due a look at a gateway began.",
            registry=None,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
        )
        self._watched = watched
        self._tell = tell
        self._say = say
        self._context = ProbeContext()
        self._subscriptions: list[Subscription] = []
        self._slots = asyncio.Semaphore(MAX_PROBES_AT_ONCE)

    async def probe(self, watched: MonitoredGateway, index: int, check: Check[ProbeSettings]) -> None:
        """Look at a gateway again and again, until cancelled."""
        clock = asyncio.get_running_loop().time
        due = clock() + spread(f"{watched.gateway.id} {index}", check.interval)
        while True:
            await asyncio.sleep(max(0.0, due - clock()))
            if self.reaches and watched.status is not Status.OFF_SESSION:
                async with self._slots:
                    late = max(0.0, clock() - due)
                    self.lag.observe(late)
                    self._latest_lag = max(self._latest_lag, late)
                    began = time.time()
                    result = await probes.run(check, self._context)
                self.probed += 1
                # Connectivity may have gone meanwhile, and then this says nothing about the gateway.
                if result is not None and (result.outcome is not Outcome.FAILED or self.reaches):
                    self._tell(watched, watched.after(index, result, time.time(), began))
            # A probe that took longer than its interval skips the turns that it missed.
            due += check.interval * max(1, -int((due - clock()) // check.interval))
            due += check.interval * random.uniform(-JITTER, JITTER)  # noqa: S311

    async def check_connectivity(self, current: Callable[[], Sequence[Check[ProbeSettings]]]) -> None:
        """Know whether the monitor reaches the world, until cancelled.

        Args:
            current: the checks that the file asks for now; without any it does.
        """
        clock = asyncio.get_running_loop().time
        while True:
            checks = current()
            began = clock()
            results = await asyncio.gather(*(probes.run(check, self._context) for check in checks))
            reaches = not checks or any(
                one is not None and one.outcome is not Outcome.FAILED for one in results
            )
            if reaches is not self.reaches:
                self._say("it reaches the world again" if reaches else "it reaches nothing: it judges nobody")
            self.reaches = reaches
            for watched in self._watched.values() if not reaches else ():
                watched.blind()
            every = min((check.interval for check in checks), default=1.0)
            await asyncio.sleep(max(0.0, began + every - clock()))

    def patterns(self) -> set[str]:
        """Return the subjects that the probes of now need, without the deployment's prefix."""
        return {
            pattern
            for watched in self._watched.values()
            for check in watched.gateway.checks
            if (pattern := check.probe.pattern) is not None
        }

    async def subscribe(self, client: Client, names: Names) -> None:
        """Listen to what the probes of now need."""
        clock = asyncio.get_running_loop().time
        patterns = self.patterns()
        new = self._context.freshness.patterns ^ patterns
        if new:
            self._context.freshness.listen(patterns, clock())
            for subscription in self._subscriptions:
                await subscription.unsubscribe()

            async def arrived(message: Msg) -> None:
                self._context.freshness.saw(names.strip_prefix(message.subject), clock())

            self._subscriptions = [
                await client.subscribe(names.subject(pattern), cb=arrived) for pattern in sorted(patterns)
            ]

    def take_latest_lag(self) -> float:
        """Return the seconds that the latest look was late since this was asked last."""
        late, self._latest_lag = self._latest_lag, 0.0
        return late

    def heed(self, connected: bool) -> None:
        """Take silence for staleness only while NATS is there to be heard."""
        freshness = self._context.freshness
        if not connected:
            freshness.deaf()
        elif freshness.is_deaf:
            freshness.listen(freshness.patterns, asyncio.get_running_loop().time())
