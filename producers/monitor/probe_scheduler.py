"""Scheduler of the probes of all gateways, and of the checks of the monitor's own connectivity.

Invariants:

1. A probe never waits for NATS; it waits for another probe only if all slots that it may have are taken.
2. A failure while the monitor itself is offline does not concern the gateway and is ignored.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from nats.aio.client import Client
from prometheus_client import Histogram
from tickertape.contracts.events import Status, parse_time
from tickertape.producers.monitor import probes
from tickertape.producers.monitor.failures import Failures, describe_exception
from tickertape.producers.monitor.gateway.model import Check
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway, initial_delay
from tickertape.producers.monitor.probe_slots import ProbeSlots, Standing
from tickertape.producers.monitor.probes import ProbeContext, ProbeSettings
from tickertape.producers.monitor.probes.context import HourlyLimits
from tickertape.producers.monitor.subject_listener import Start, SubjectListener

from tickertape.clock import uptime
from tickertape.names import Names
from tickertape.process.limits import raise_descriptor_limit
from tickertape.rate_limit import RepeatFilter

MAX_CONCURRENT_PROBES: Final = 512
"""Probe slots; they bound the number of sockets when thousands of gateways have a long ``hold``."""

DESCRIPTORS_PER_PROBE: Final = 4
"""Descriptors of a probe: a socket, or the two pipes of a command."""

SPARE_DESCRIPTORS: Final = 64
"""Descriptors that are reserved for everything but probes."""

REPORT_INTERVAL: Final = 60.0
"""Seconds after which it is reported again that gateways cannot be probed."""

NO_VERDICT_INTERVAL: Final = 3600.0
"""Seconds after which it is reported again that a probe has no verdict for the same reason."""

JITTER: Final = 0.05
"""Maximum shift of a probe, as a share of its interval, so that monitors do not probe in lockstep."""

SUSPENDED_AFTER: Final = 5.0
"""Seconds for which the event loop stood still after which results are out of date, as after an outage."""

TURN: Final = 0.02
"""Seconds to which the starts of probes are rounded: those of one turn share the wake-ups of the process,
which otherwise cost as much as a probe."""

CONNECTIVITY_INTERVAL: Final = 1.0
"""Seconds between two rounds of connectivity checks while the file has none, as a reload may add them."""


def probe_slots(descriptors: int) -> int:
    """Return how many probes may run concurrently with a number of file descriptors."""
    return max(1, min(MAX_CONCURRENT_PROBES, (descriptors - SPARE_DESCRIPTORS) // DESCRIPTORS_PER_PROBE))


class ProbeScheduler:
    """Probe loops of all gateways of a monitor.

    Args:
        gateways: the monitored gateways by status subject; a live view.
        failures: keeps an unexpected failure of a gateway's probe away from the others.
        update: receives a gateway after a probe whose result was recorded.
        report: receives lines for the operator.
        now: returns UNIX seconds.
        limits: limits per hour.

    Attributes:
        online: False while the monitor's own connectivity checks fail.
        probes_run: number of probes run on gateways.
        lag: histogram of the delay of all probes.
        context: state that probes keep between runs.
    """

    def __init__(
        self,
        gateways: Mapping[str, MonitoredGateway],
        failures: Failures,
        update: Callable[[MonitoredGateway], None],
        report: Callable[[str], None],
        now: Callable[[], float] = time.time,
        limits: HourlyLimits | None = None,
    ) -> None:
        self._now = now
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
        self._failures = failures
        self._update = update
        self._report = report
        self.context = ProbeContext(limits=limits or HourlyLimits())
        self._listener = SubjectListener(self.context.freshness, report)
        self._slots = ProbeSlots(probe_slots(raise_descriptor_limit()))
        self._exhausted = RepeatFilter(REPORT_INTERVAL)
        self._no_verdicts = RepeatFilter(NO_VERDICT_INTERVAL)

    async def run_check(self, monitored: MonitoredGateway, index: int, check: Check[ProbeSettings]) -> None:
        """Probe a gateway at each interval of a check, until cancelled."""
        for warning in filter(None, (check.probe.warning, check.probe.schedule_warning(check.interval))):
            self._report(f"gateway {monitored.gateway.id}: probe {check.probe.name}: {warning}")
        clock = asyncio.get_running_loop().time
        due = clock() + initial_delay(f"{monitored.gateway.id} {index}", check.interval)
        active_since: float | None = float("-inf")
        turn = min(TURN, check.interval / 20)
        while True:
            wait = round(due / turn) * turn - clock()
            # One that takes up a session, or a logon of a limited number, is never early.
            if check.probe.exclusive:
                is_early = False
                await asyncio.sleep(max(0.0, wait))
            else:
                is_early = await monitored.wait_until_due(wait)
            if monitored.own.status is Status.OFF_SESSION:
                active_since = None
            elif active_since is None:
                # Between two runs, with the change of the status.
                active_since = clock() - max(0.0, self._now() - parse_time(monitored.own.since).timestamp())
            if self.online and active_since is not None:
                context = self.context.within_session(active_since)
                with self._failures.isolate(monitored.gateway, "probe", check.probe.name):
                    await self._run_once(monitored, index, check, clock() if is_early else due, context)
            if is_early:
                continue
            # A probe that took longer than its interval skips the runs that it missed.
            due += check.interval * max(1, -int((due - clock()) // check.interval))
            due += check.interval * random.uniform(-JITTER, JITTER)  # noqa: S311

    async def _run_once(
        self,
        monitored: MonitoredGateway,
        index: int,
        check: Check[ProbeSettings],
        due: float,
        context: ProbeContext,
    ) -> None:
        """Run a probe that is due, and record its result."""
        async with self._slots.slot(_standing(monitored, index)):
            # Measured after the wait for a slot, which is part of the lag.
            lag = max(0.0, asyncio.get_running_loop().time() - due)
            self.lag.observe(lag)
            self._latest_lag = max(self._latest_lag, lag)
            started = self._now()
            self.probes_run += 1
            try:
                result = await self._run(check, context)
            except probes.CannotProbe:
                self._record_unprobed(monitored, index)
                return
            except Exception:
                self._record_unprobed(monitored, index)
                raise
            monitored.unprobed.discard(index)
        if result is not None and result.outcome is Outcome.UNKNOWN:
            # It keeps its result, whose reason is in events that are published for other reasons.
            self._add_unprobed(monitored, index)
            report = f"{monitored.gateway.id}: no verdict from {check.probe.name}: {result.error}"
            if self._no_verdicts.allow(report, asyncio.get_running_loop().time()):
                self._report(report)
        # If the monitor went offline during the probe, its failure does not concern the gateway.
        if result is not None and (result.outcome is not Outcome.FAILED or self.online):
            monitored.record_result(index, result, self._now(), started)
            self._update(monitored)

    def _record_unprobed(self, monitored: MonitoredGateway, index: int) -> None:
        """Record a probe that could not run on this host."""
        if self._add_unprobed(monitored, index):
            self._update(monitored)

    def _add_unprobed(self, monitored: MonitoredGateway, index: int) -> bool:
        """Add a probe that says nothing; if none says anything, withdraw the view, and return True."""
        monitored.unprobed.add(index)
        if len(monitored.unprobed) < len(monitored.gateway.checks):
            return False
        monitored.own.discard()
        return True

    async def _run(self, check: Check[ProbeSettings], context: ProbeContext) -> Result | None:
        """Run a probe, and report if this host cannot run it.

        Returns:
            the result; None if it is inconclusive.

        Raises:
            CannotProbe: this host lacks a resource, a secret or a file.
        """
        try:
            return await probes.run(check, context)
        except probes.CannotProbe as error:
            if self._exhausted.allow(str(error), asyncio.get_running_loop().time()):
                subject = "gateways" if isinstance(error, probes.ExhaustedError) else check.probe.name
                self._report(f"{subject} cannot be probed: {error}")
            raise

    async def watch_suspensions(self) -> None:
        """Discard all results whenever this process or its host was suspended, until cancelled."""
        while True:
            slept_from = uptime()
            await asyncio.sleep(CONNECTIVITY_INTERVAL)
            lag = uptime() - slept_from - CONNECTIVITY_INTERVAL
            if lag > SUSPENDED_AFTER:
                self._report(f"monitor was suspended for {lag:.0f} s; earlier probe results are discarded")
                self.context.freshness.start_over(asyncio.get_running_loop().time())
                for monitored in list(self._monitored.values()):
                    with self._failures.isolate(monitored.gateway, "status"):
                        monitored.own.start_over(self._now())
                        self._update(monitored)

    async def check_connectivity(self, current: Callable[[], Sequence[Check[ProbeSettings]]]) -> None:
        """Update ``online`` from the connectivity checks, until cancelled.

        Args:
            current: returns the checks that the file currently has; without checks the monitor is online.
        """
        clock = asyncio.get_running_loop().time
        while True:
            checks = current()
            started = clock()
            results = await asyncio.gather(
                *(self._run(check, self.context) for check in checks), return_exceptions=True
            )
            online = self._is_online(checks, results)
            if online is not self.online:
                self._report(
                    "monitor is online again" if online else "monitor is offline; probe results are ignored"
                )
            self.online = online
            for monitored in list(self._monitored.values()) if not online else ():
                # They were obtained before or during the outage, and must not correct the dead man's switch.
                with self._failures.isolate(monitored.gateway, "status"):
                    monitored.own.discard()
            interval = min((check.interval for check in checks), default=CONNECTIVITY_INTERVAL)
            await asyncio.sleep(max(0.0, started + interval - clock()))

    def _is_online(
        self, checks: Sequence[Check[ProbeSettings]], results: Sequence[Result | BaseException | None]
    ) -> bool:
        """Return whether the results of the connectivity checks show that this monitor is online."""
        broken = 0
        for check, result in zip(checks, results, strict=True):
            if isinstance(result, Result) and result.outcome in (Outcome.OK, Outcome.DEGRADED):
                return True
            if isinstance(result, BaseException) and not isinstance(result, probes.CannotProbe):
                broken += 1
                text = f"connectivity check {check.probe.name!r} failed: {describe_exception(result)}"
                if self._exhausted.allow(text, asyncio.get_running_loop().time()):
                    self._report(text)
        # An error in a check itself says nothing about the network.
        return self.online if checks and broken == len(checks) else not checks

    def patterns(self) -> dict[str, float]:
        """Return the subject patterns that the current probes need, without the deployment's prefix.

        Returns:
            the shortest age in seconds that a probe accepts, by pattern.
        """
        ages: dict[str, float] = {}
        for monitored in self._monitored.values():
            for check in monitored.gateway.checks:
                if (needed := check.probe.listens_to) is not None:
                    pattern, age = needed
                    ages[pattern] = min(age, ages.get(pattern, age))
        return ages

    def subscribe(self, client: Client, names: Names, start: Start) -> None:
        """Subscribe to the subject patterns that the current probes need; ``start`` starts a task."""
        self._listener.update(client, names, self.patterns(), start)

    def take_latest_lag(self) -> float:
        """Return the maximum probe lag since the previous call, in seconds."""
        lag, self._latest_lag = self._latest_lag, 0.0
        return lag

    def update_connection(self, connected: bool) -> None:
        """Suspend freshness checks while NATS is unreachable or denies them: no message can arrive then."""
        self._listener.update_connection(connected)


def _standing(monitored: MonitoredGateway, index: int) -> Standing:
    """Return the standing of a probe: its latest result, or its status before a restart or an outage."""
    result = monitored.own.results[index]
    if result is not None and result.outcome is not Outcome.UNKNOWN:
        return Standing.FAILED if result.outcome is Outcome.FAILED else Standing.ANSWERED
    status = monitored.own.probes[index].status
    if status is Status.UNKNOWN:
        return Standing.NEW
    return Standing.ANSWERED if status in (Status.HEALTHY, Status.DEGRADED) else Standing.FAILED
