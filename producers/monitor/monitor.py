"""Gateway monitor: the set of monitored gateways, their status changes, and reloads of the file.

``probe_scheduler.py`` probes the gateways; ``coordination/`` publishes statuses and receives those of peers.

Invariants:

1. Probing never waits for NATS, and a probe waits for others only while all slots that it may have are taken.
2. An invalid file changes nothing; a valid one keeps the state of every gateway that is still in it.
3. While the monitor is offline it ignores probe results, and does not renew the dead man's switches.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from nats.aio.client import Client
from tickertape.contracts.events import Status
from tickertape.producers.monitor.config.models import GatewaySettings, MonitorConfig
from tickertape.producers.monitor.config.watched_file import WatchedFile
from tickertape.producers.monitor.coordination.dead_mans_switch import DeadMansSwitch
from tickertape.producers.monitor.coordination.election import Election
from tickertape.producers.monitor.coordination.limits import Limits
from tickertape.producers.monitor.coordination.peer_updates import PeerUpdates
from tickertape.producers.monitor.coordination.recovery_events import RecoveryLoader
from tickertape.producers.monitor.coordination.status_publisher import StatusPublisher
from tickertape.producers.monitor.decisions import Decisions
from tickertape.producers.monitor.failures import Failures
from tickertape.producers.monitor.gateway.model import StoredStatus
from tickertape.producers.monitor.gateway.state import make_removal_event
from tickertape.producers.monitor.health_reporter import HealthReporter
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway
from tickertape.producers.monitor.probe_scheduler import ProbeScheduler
from tickertape.producers.monitor.probes.context import HourlyLimits
from tickertape.producers.monitor.recoveries import Recoveries
from tickertape.producers.sdk.publisher import Publisher

from tickertape.clock import SteppedClock
from tickertape.names import Names
from tickertape.nats.provisioning import ensure_streams
from tickertape.process.console import print_notice
from tickertape.process.tasks import Tasks
from tickertape.text import count

PROGRAM: Final = "monitor"

DISARM_GRACE: Final = 2.0
"""Seconds on shutdown to disarm the switches of removed gateways."""

HOUSEKEEPING_INTERVAL: Final = 0.25
"""Seconds between two checks of trading sessions, silences, recoveries, switches and the file."""

DECISION_INTERVAL: Final = 4
"""Housekeeping runs between two decisions on every gateway; a later vote or lease decides immediately."""


class Monitor:
    """Monitor of the gateways in a file.

    Args:
        id: name of this monitor, for the metadata of its events.
        path: path of the file.
        config: settings from the file.
        publisher: started publisher; the caller closes it.
        names: subject and stream names of the deployment.
        health_interval: seconds between two events on the monitor's own health.

    Attributes:
        started: whether the stored statuses are loaded and all tasks run.
        file: file of this monitor, which is loaded again when it changes.
        failures: unexpected failures of single gateways.
        status_publisher: queue of status changes.
        scheduler: probe loops of the gateways.
        decisions: votes on the gateways, and what follows from them.
        loop_lag: delay of the latest housekeeping run, in seconds.
        housekeeping_at: time of the latest housekeeping run, UNIX seconds; 0 before the first.
    """

    def __init__(
        self,
        id: str,
        path: Path,
        config: MonitorConfig,
        publisher: Publisher,
        names: Names,
        health_interval: float,
    ) -> None:
        self.started = False
        self.file = WatchedFile(path, _print_notice)
        self.failures = Failures(_print_notice)
        self.loop_lag = 0.0
        self.housekeeping_at = 0.0
        # A lambda, because the peer updates need this publisher and so are created after it.
        self.status_publisher = StatusPublisher(
            publisher, names, lambda *event: self._peer_updates.apply(*event), _print_notice,
            lambda: self.decisions.may_publish, self.failures.record,
        )  # fmt: skip
        self._id = id
        self._config = config
        self._publisher = publisher
        self._names = names
        self._monitored: dict[str, MonitoredGateway] = {}
        self._clock = SteppedClock(self._shift_clock)
        self._limits = HourlyLimits()
        self.decisions = Decisions(
            id, self._monitored, self.failures, self.status_publisher, self._publish_removal,
            self._adopt_stored, _print_notice, self._clock.now,
        )  # fmt: skip
        update = self.decisions.update
        self.scheduler = ProbeScheduler(
            self._monitored, self.failures, update, _print_notice, self._clock.now, self._limits
        )
        self._peer_updates = PeerUpdates(
            id, names, self._monitored, self.failures, self.status_publisher, update, _print_notice,
            lambda: self.decisions.election, self._clock.now,
        )  # fmt: skip
        self._recovery_loader = RecoveryLoader(
            names, self._monitored, self.failures, self.status_publisher, _print_notice
        )
        self._recoveries = Recoveries(
            self.status_publisher, self._limits, self.failures, lambda work: self._tasks.start(work),
            _print_notice, self._clock.now,
        )  # fmt: skip
        self._tasks: Tasks
        self._disarming: list[asyncio.Task[None]] = []
        self._switch: DeadMansSwitch
        self._client: Client
        self._health = HealthReporter(
            id, publisher, health_interval, self._status, self._checks, _print_notice
        )

    def gateways(self) -> Iterator[MonitoredGateway]:
        """Iterate over a copy of the monitored gateways."""
        yield from list(self._monitored.values())

    def request_reload(self) -> None:
        """Reload the file in the next housekeeping run."""
        self.file.request_reload()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set, then publish the pending changes.

        Raises:
            StreamsError: the streams cannot be created or read, or another monitor has the same id.
            OSError: the credentials cannot be read.
        """
        client = self._client = await self._publisher.connected()
        names = self._names
        for note in (await ensure_streams(client, names, PROGRAM)).notes:
            print_notice(PROGRAM, note)
        self._switch = DeadMansSwitch(client, names, _print_notice)
        if not self._switch.supported:
            print_notice(
                PROGRAM,
                "this NATS server has no message schedules; the loss of all monitors will not be reported",
            )
        decisions = self.decisions
        election = decisions.election = Election(
            client, names, self._id, lambda: self.scheduler.online, decisions.apply_vote,
            decisions.apply_peer_vote, decisions.apply_lease, _print_notice, supported=self._switch.supported,
            on_failure=self.failures.record,
        )  # fmt: skip
        await self._switch.clock.measure()
        stored = await self._peer_updates.load_initial_state(client, self._switch.supported)
        async with Tasks() as tasks:
            self._tasks = tasks
            tasks.start(self._peer_updates.follow_events(client), "events")
            tasks.start(self.status_publisher.run(), "publish")
            if self._switch.supported:
                tasks.start(self._peer_updates.follow_watchdog(client, election), "watchdog")
                tasks.start(election.run(), "lease")
                self._limits.source = Limits(client, names, _print_notice).take
                tasks.start(election.write_votes(), "votes")
            self._add_all(stored)
            if not election.is_supported:
                decisions.apply_lease()
            self.scheduler.subscribe(client, names, tasks.start)
            tasks.start(self._recovery_loader.run(client), "recoveries")
            self._recovery_loader.request()
            tasks.start(self._run_housekeeping(), "housekeeping")
            tasks.start(self._watch_file(), "file")
            tasks.start(self._switch.clock.run(), "server clock")
            tasks.start(self._health.run(), "health")
            tasks.start(
                self.scheduler.check_connectivity(lambda: self._config.connectivity_checks()), "connectivity"
            )
            tasks.start(self.scheduler.watch_suspensions(), "suspensions")
            self.started = True
            print_notice(PROGRAM, f"monitoring {count(len(self._monitored), 'gateway')} as {self._id!r}")
            await tasks.until(stop.wait())
            if self._disarming:
                await asyncio.wait(self._disarming, timeout=DISARM_GRACE)
        # All tasks are cancelled by now, so no probe adds further changes.
        await self.status_publisher.publish_remaining()
        await election.release()

    def _add_all(self, stored_statuses: dict[str, StoredStatus]) -> None:
        now = self._clock.now()
        for settings in self._config.gateways:
            stored = stored_statuses.get(settings.subject)
            if stored is not None:
                self.status_publisher.record_sequence(settings.subject, stored.sequence)
            self._add(settings, stored, now)
        # Gateways that were removed from the file while this monitor was not running.
        own = {key: stored for key, stored in stored_statuses.items() if self._peer_updates.is_own(stored)}
        missing = self._peer_updates.unconfirmed
        missing.update((subject, own[subject]) for subject in own.keys() - self._config.subjects)
        for subject, stored in missing.items():
            self.status_publisher.record_sequence(subject, stored.sequence)
        if self.file.may_remove(len(missing), len(own)):
            self._remove_missing()

    def _remove_missing(self) -> None:
        """Remove the gateways of an earlier run that are not in the file."""
        missing = self._peer_updates.unconfirmed
        for subject in missing.keys() - self._config.subjects:
            self.decisions.remove(missing[subject])
        missing.clear()

    def _add(self, settings: GatewaySettings, stored: StoredStatus | None, now: float) -> None:
        """Add a gateway, or replace one that has new settings; a failure leaves it as it was."""
        subject = settings.subject
        with self.failures.isolate(settings, "configuration"):
            gateway = self._config.resolve_gateway(settings)
            current = self._monitored.get(subject)
            # An unchanged gateway keeps its tasks, its counts and its recovery; so does one with a new label.
            if current is not None and gateway.recovery is None:
                self._recoveries.stop(current)
            if current is not None and current.has_same_probes(gateway):
                current.replace_settings(gateway)
                return
            if current is not None:
                stored = current.to_stored_status()
            monitored = MonitoredGateway(gateway, self._id, stored, now)
            if current is not None:
                current.hand_over(monitored)
                self.failures.forget(settings)
            self._monitored[subject] = monitored
            for index, check in enumerate(gateway.checks):
                monitored.tasks.append(self._tasks.start(self.scheduler.run_check(monitored, index, check)))
            self.decisions.removed.pop(subject, None)
            if (silence := self._peer_updates.silences.get(subject)) is not None:
                monitored.set_silence(silence, now)
            monitored.update_session(now)
            self.decisions.update(monitored)

    def _publish_removal(self, stored: StoredStatus) -> None:
        self.status_publisher.enqueue(make_removal_event(stored, self._id, self._clock.now()))
        disarm = self._switch.disarm(stored.gateway_type, stored.gateway_id)
        self._disarming.append(self._tasks.start(disarm))

    def _adopt_stored(self, subjects: list[str]) -> None:
        self._tasks.start(self._peer_updates.adopt_stored(self._client, subjects))

    def _apply(self, config: MonitorConfig) -> None:
        """Apply a changed file."""
        now = self._clock.now()
        self._config = config
        self._remove_missing()
        for subject, current in list(self._monitored.items()):
            if subject not in config.subjects:
                del self._monitored[subject]
                self.failures.forget(current.gateway, removed=True)
                with self.failures.isolate(current.gateway, "configuration"):
                    self._recoveries.stop(current)
                    current.stop()
                    self.decisions.remove(current.to_stored_status())
        for settings in config.gateways:
            self._add(settings, None, now)
        self.scheduler.subscribe(self._client, self._names, self._tasks.start)
        self._recovery_loader.request()
        print_notice(PROGRAM, f"file reloaded; monitoring {count(len(self._monitored), 'gateway')}")

    # Housekeeping.

    def _shift_clock(self, step: float) -> None:
        self._switch.clock.request_measurement()
        for monitored in self._monitored.values():
            with self.failures.isolate(monitored.gateway, "session"):
                monitored.shift_clock(step)

    async def _run_housekeeping(self) -> None:
        clock = asyncio.get_running_loop().time
        for run in itertools.count():
            due = clock() + HOUSEKEEPING_INTERVAL
            await asyncio.sleep(HOUSEKEEPING_INTERVAL)
            self.loop_lag = max(0.0, clock() - due)
            self.housekeeping_at = now = self._clock.now()
            connected = self._client.is_connected
            self.scheduler.update_connection(connected)
            decide = not run % DECISION_INTERVAL
            for subject, monitored in list(self._monitored.items()):
                is_current = self._monitored.get(subject) is monitored  # else removed during a renewal
                if not is_current or not (decide or monitored.is_due(now, clock())):
                    continue
                self._publish_if_due(monitored, now, decide=decide)
                with self.failures.isolate(monitored.gateway, "switch"):
                    # ``take_renewal`` comes last, because asking it counts as a renewal.
                    if self.scheduler.online and connected and monitored.take_renewal(clock()):
                        await self._switch.renew(monitored)
            self._health.update()

    async def _watch_file(self) -> None:
        """Apply the file when it has changed; separately, because reading a large one takes seconds."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_INTERVAL)
            known = self._monitored.keys() | self._peer_updates.unconfirmed.keys()
            if (config := await self.file.poll(known)) is not None:
                self._apply(config)

    def _publish_if_due(self, monitored: MonitoredGateway, now: float, *, decide: bool) -> None:
        with self.failures.isolate(monitored.gateway, "session"):
            decide |= monitored.update_session(now)
        with self.failures.isolate(monitored.gateway, "silence"):
            decide |= monitored.expire_silence(now)
        if decide:
            with self.failures.isolate(monitored.gateway, "status"):
                self.decisions.update(monitored)
        with self.failures.isolate(monitored.gateway, "recovery"):
            self._recoveries.proceed(monitored, now)

    def _status(self) -> Status:
        """Return the status of this monitor itself."""
        healthy = self.scheduler.online and self.file.accepted and not self.failures.current()
        healthy = healthy and not self.decisions.lacks_lease
        return Status.HEALTHY if healthy else Status.DEGRADED

    def _checks(self) -> dict[str, Any]:
        """Return the details of a health event."""
        return {
            "gateways": len(self._monitored),
            "statuses": dict(Counter(str(monitored.status) for monitored in self._monitored.values())),
            "probes_total": self.scheduler.probes_run,
            "latest_probe_lag_ms": round(self.scheduler.take_latest_lag() * 1000, 1),
            "event_loop_lag_ms": round(self.loop_lag * 1000, 1),
            "pending_transitions": self.status_publisher.pending,
            "config_errors": self.file.errors,
            "failures": self.failures.current(),
            "online": self.scheduler.online,
            "lease": self.decisions.holds_lease,
            "peers": self.decisions.peers,
        }


def _print_notice(line: str) -> None:
    print_notice(PROGRAM, line)
