"""Scheduler of the probes of all gateways, and of the checks of the monitor's own connectivity.

Invariants:

1. A probe never waits for NATS; it waits for another probe only if all slots are taken.
2. A failure while the monitor itself is offline does not concern the gateway and is ignored.
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
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway, initial_delay
from tickertape.producers.monitor.probes import ProbeContext, ProbeSettings

from tickertape.names import Names

MAX_CONCURRENT_PROBES: Final = 512
"""Probe slots; they bound the number of sockets when thousands of gateways have a long ``hold``."""

JITTER: Final = 0.05
"""Maximum shift of a probe, as a share of its interval, so that monitors do not probe in lockstep."""

CONNECTIVITY_INTERVAL: Final = 1.0
"""Seconds between two rounds of connectivity checks while the file has none, as a reload may add them."""


class ProbeScheduler:
    """Probe loops of all gateways of a monitor.

    Args:
        gateways: the monitored gateways by status subject; a live view.
        publish_change: receives a gateway after a probe, with the change that the result causes, or None.
        report: receives lines for the operator.

    Attributes:
        online: False while the monitor's own connectivity checks fail.
        probes_run: number of probes run on gateways.
        lag: histogram of the delay of all probes.
    """

    def __init__(
        self,
        gateways: Mapping[str, MonitoredGateway],
        publish_change: Callable[[MonitoredGateway, GatewayStatusChange | None], None],
        report: Callable[[str], None],
    ) -> None:
        self.online = True
        self.probes_run = 0
        self._latest_lag = 0.0
        self.lag = Histogram(
            "tickertape_monitor_probe_lag_seconds",
            "Delay between the due time and the start of a gateway probe.",
            registry=None,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
        )
        self._monitored = gateways
        self._publish_change = publish_change
        self._report = report
        self._context = ProbeContext()
        self._subscriptions: list[Subscription] = []
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_PROBES)

    async def run_check(self, monitored: MonitoredGateway, index: int, check: Check[ProbeSettings]) -> None:
        """Probe a gateway at each interval of a check, until cancelled."""
        clock = asyncio.get_running_loop().time
        due = clock() + initial_delay(f"{monitored.gateway.id} {index}", check.interval)
        while True:
            await asyncio.sleep(max(0.0, due - clock()))
            if self.online and monitored.status is not Status.OFF_SESSION:
                async with self._slots:
                    # Measured after the wait for a slot, which is part of the lag.
                    lag = max(0.0, clock() - due)
                    self.lag.observe(lag)
                    self._latest_lag = max(self._latest_lag, lag)
                    started = time.time()
                    result = await probes.run(check, self._context)
                self.probes_run += 1
                # If the monitor went offline during the probe, its failure does not concern the gateway.
                if result is not None and (result.outcome is not Outcome.FAILED or self.online):
                    self._publish_change(
                        monitored, monitored.record_result(index, result, time.time(), started)
                    )
            # A probe that took longer than its interval skips the runs that it missed.
            due += check.interval * max(1, -int((due - clock()) // check.interval))
            due += check.interval * random.uniform(-JITTER, JITTER)  # noqa: S311

    async def check_connectivity(self, current: Callable[[], Sequence[Check[ProbeSettings]]]) -> None:
        """Update ``online`` from the connectivity checks, until cancelled.

        Args:
            current: returns the checks that the file currently has; without checks the monitor is online.
        """
        clock = asyncio.get_running_loop().time
        while True:
            checks = current()
            started = clock()
            results = await asyncio.gather(*(probes.run(check, self._context) for check in checks))
            online = not checks or any(
                result is not None and result.outcome is not Outcome.FAILED for result in results
            )
            if online is not self.online:
                self._report(
                    "monitor is online again" if online else "monitor is offline; probe results are ignored"
                )
            self.online = online
            for monitored in self._monitored.values() if not online else ():
                # They were obtained before or during the outage, and must not correct the dead man's switch.
                monitored.discard_results()
            interval = min((check.interval for check in checks), default=CONNECTIVITY_INTERVAL)
            await asyncio.sleep(max(0.0, started + interval - clock()))

    def patterns(self) -> set[str]:
        """Return the subject patterns that the current probes need, without the deployment's prefix."""
        return {
            pattern
            for monitored in self._monitored.values()
            for check in monitored.gateway.checks
            if (pattern := check.probe.pattern) is not None
        }

    async def subscribe(self, client: Client, names: Names) -> None:
        """Subscribe to the subject patterns that the current probes need."""
        clock = asyncio.get_running_loop().time
        patterns = self.patterns()
        if self._context.freshness.patterns != patterns:
            self._context.freshness.listen(patterns, clock())
            for subscription in self._subscriptions:
                await subscription.unsubscribe()

            async def receive(message: Msg) -> None:
                self._context.freshness.record_message(names.strip_prefix(message.subject), clock())

            self._subscriptions = [
                await client.subscribe(names.subject(pattern), cb=receive) for pattern in sorted(patterns)
            ]

    def take_latest_lag(self) -> float:
        """Return the maximum probe lag since the previous call, in seconds."""
        lag, self._latest_lag = self._latest_lag, 0.0
        return lag

    def update_connection(self, connected: bool) -> None:
        """Suspend freshness checks while NATS is unreachable, because no message can arrive then."""
        freshness = self._context.freshness
        if not connected:
            freshness.suspend()
        elif freshness.is_suspended:
            freshness.listen(freshness.patterns, asyncio.get_running_loop().time())
