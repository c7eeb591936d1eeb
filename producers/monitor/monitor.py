"""Gateway monitor: the set of monitored gateways, their status changes, and reloads of the file.

``probe_scheduler.py`` probes the gateways; ``coordination/`` publishes statuses and receives those of peers.

Invariants:

1. Probing never waits for NATS, and a probe waits for another one only if all slots are taken.
2. An invalid file changes nothing; a valid one keeps the state of every gateway that is still in it.
3. While the monitor is offline it ignores probe results, and does not renew the dead man's switches.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.contracts.events import EventModel, GatewayStatusChange, Status, SystemHealth
from tickertape.producers.monitor.config.loader import MonitorFileError, file_version, load
from tickertape.producers.monitor.config.models import MonitorConfig
from tickertape.producers.monitor.coordination.dead_mans_switch import DeadMansSwitch
from tickertape.producers.monitor.coordination.peer_updates import PeerUpdates
from tickertape.producers.monitor.coordination.status_publisher import StatusPublisher
from tickertape.producers.monitor.gateway.model import Gateway, StoredStatus
from tickertape.producers.monitor.gateway.recovery_policy import HOUR
from tickertape.producers.monitor.gateway.state import make_removal_event
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway
from tickertape.producers.monitor.probe_scheduler import ProbeScheduler
from tickertape.producers.monitor.probes.settings import ProbeSettings
from tickertape.producers.sdk.errors import PublishError
from tickertape.producers.sdk.publisher import Publisher

from tickertape.names import Names
from tickertape.nats.provisioning import RETRY_DELAY, ensure_streams
from tickertape.nats.streams import StreamsError
from tickertape.process.console import print_notice
from tickertape.process.tasks import Tasks
from tickertape.rate_limit import SlidingWindow
from tickertape.text import count

PROGRAM: Final = "monitor"

STOP_GRACE: Final = 2.0
"""Seconds on shutdown to publish pending changes."""

DISARM_GRACE: Final = 2.0
"""Seconds on shutdown to disarm the switches of removed gateways."""

HOUSEKEEPING_INTERVAL: Final = 0.25
"""Seconds between two checks of trading sessions, silences, recoveries, switches and the file."""


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
        config_errors: number of invalid files rejected on reload.
        status_publisher: queue of status changes.
        scheduler: probe loops of the gateways.
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
        self.config_errors = 0
        self.loop_lag = 0.0
        self.housekeeping_at = 0.0
        # A lambda, because the peer updates need this publisher and so are created after it.
        self.status_publisher = StatusPublisher(
            publisher, names, lambda *event: self._peer_updates.apply(*event), _print_notice
        )
        self._id = id
        self._path = path
        self._config = config
        self._publisher = publisher
        self._names = names
        self._health_interval = health_interval
        self._monitored: dict[str, MonitoredGateway] = {}
        # They outlive the settings of a gateway, or each reload would allow ``per_hour`` further attempts.
        self._recovery_attempts: dict[str, SlidingWindow] = {}
        self.scheduler = ProbeScheduler(self._monitored, self._publish_change, _print_notice)
        self._peer_updates = PeerUpdates(
            id, names, self._monitored, self.status_publisher, self._publish_change
        )
        self._tasks: Tasks
        self._disarming: list[asyncio.Task[None]] = []
        self._switch: DeadMansSwitch
        self._client: Client
        self._file_version = file_version(path)
        self._reload_requested = False
        self._file_rejected = False

    def gateways(self) -> Iterator[MonitoredGateway]:
        """Iterate over a copy of the monitored gateways."""
        yield from list(self._monitored.values())

    def request_reload(self) -> None:
        """Reload the file in the next housekeeping run."""
        self._reload_requested = True

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set, then publish the pending changes.

        Raises:
            StreamsError: the streams cannot be created or read.
            OSError: the credentials cannot be read.
        """
        client = self._client = await self._publisher.connected()
        names = self._names
        for note in (await ensure_streams(client, names, PROGRAM)).notes:
            print_notice(PROGRAM, note)
        self._switch = DeadMansSwitch(client, names)
        if not self._switch.supported:
            print_notice(
                PROGRAM,
                "this NATS server has no message schedules; the loss of all monitors will not be reported",
            )
        stored = await self._peer_updates.load_initial_state(client, self._switch.supported)
        async with Tasks() as tasks:
            self._tasks = tasks
            tasks.start(self._peer_updates.follow_events(client), "events")
            tasks.start(self.status_publisher.run(), "publish")
            if self._switch.supported:
                tasks.start(self._peer_updates.follow_silences(client), "silences")
            self._add_all(stored)
            await self._subscribe()
            tasks.start(self._run_housekeeping(), "housekeeping")
            tasks.start(self._report_health(), "health")
            tasks.start(
                self.scheduler.check_connectivity(lambda: self._config.connectivity_checks()), "connectivity"
            )
            self.started = True
            print_notice(PROGRAM, f"monitoring {count(len(self._monitored), 'gateway')} as {self._id!r}")
            await tasks.until(stop.wait())
            if self._disarming:
                await asyncio.wait(self._disarming, timeout=DISARM_GRACE)
        # All tasks are cancelled by now, so no probe adds further changes.
        await self._publish_remaining()

    # Monitored gateways.

    def _add_all(self, stored_statuses: dict[str, StoredStatus]) -> None:
        now = time.time()
        for gateway in self._config.resolve_gateways():
            stored = stored_statuses.get(gateway.subject)
            if stored is not None:
                self.status_publisher.record_sequence(gateway.subject, stored.sequence)
            self._add(self._monitored_gateway(gateway, stored, now), now)
        # Gateways that were removed from the file while this monitor was not running.
        for subject, stored in stored_statuses.items():
            # Only those whose status this monitor published last: the others may be in the file of another
            # one.
            own = stored.monitor == self._id and stored.status is not Status.REMOVED
            if own and subject not in self._monitored:
                self.status_publisher.record_sequence(subject, stored.sequence)
                self._remove(stored, now)

    def _monitored_gateway(
        self, gateway: Gateway[ProbeSettings], stored: StoredStatus | None, now: float
    ) -> MonitoredGateway:
        attempts = self._recovery_attempts.setdefault(gateway.subject, SlidingWindow(HOUR))
        return MonitoredGateway(gateway, self._id, stored, now, attempts)

    def _add(self, monitored: MonitoredGateway, now: float) -> None:
        subject = monitored.gateway.subject
        self._monitored[subject] = monitored
        self._publish_change(monitored, monitored.initial_event(now))
        if (silence := self._peer_updates.silences.get(subject)) is not None:
            self._publish_change(monitored, monitored.set_silence(silence, now))
        self._publish_change(monitored, monitored.update_session(now))
        for index, check in enumerate(monitored.gateway.checks):
            monitored.tasks.append(self._tasks.start(self.scheduler.run_check(monitored, index, check)))

    def _remove(self, stored: StoredStatus, now: float) -> None:
        print_notice(PROGRAM, f"{stored.gateway_id} is no longer in the file: removed")
        self.status_publisher.enqueue(make_removal_event(stored, self._id, now))
        self._disarming.append(self._tasks.start(self._disarm(stored)))

    async def _disarm(self, stored: StoredStatus) -> None:
        try:
            await self._switch.disarm(stored.gateway_type, stored.gateway_id)
        except (StreamsError, NatsError) as error:
            print_notice(
                PROGRAM, f"the dead man's switch of {stored.gateway_id} may still fire once: {error}"
            )

    async def _reload_file(self) -> None:
        """Apply the changed file, or report why it is rejected."""
        try:
            # In a thread, so that probes keep their schedule while a large file is parsed.
            config = await asyncio.to_thread(load, self._path)
        except MonitorFileError as error:
            self.config_errors += 1
            self._file_rejected = True
            print_notice(PROGRAM, f"the changed file is rejected; the previous one stays in effect: {error}")
            return
        self._file_rejected = False
        now = time.time()
        self._config = config
        configured = {gateway.subject: gateway for gateway in config.resolve_gateways()}
        for subject, current in list(self._monitored.items()):
            gateway = configured.pop(subject, None)
            # An unchanged gateway keeps its tasks, its counts and its recovery.
            if gateway == current.gateway:
                continue
            current.stop()
            del self._monitored[subject]
            if gateway is None:
                self._remove(current.to_stored_status(), now)
            else:
                self._add(self._monitored_gateway(gateway, current.to_stored_status(), now), now)
        for gateway in configured.values():
            self._add(self._monitored_gateway(gateway, None, now), now)
        await self._subscribe()
        print_notice(PROGRAM, f"file reloaded; monitoring {count(len(self._monitored), 'gateway')}")

    async def _subscribe(self) -> None:
        """Subscribe to what the current gateways need."""
        await self.scheduler.subscribe(self._client, self._names)
        await self._peer_updates.load_recovery_sequences(self._client)

    # Published events.

    def _publish_change(self, monitored: MonitoredGateway, change: GatewayStatusChange | None) -> None:
        if change is not None:
            error = change.metadata.get("error")
            path = f"{change.previous_status} -> {change.current_status}"
            print_notice(PROGRAM, f"{change.gateway_id}: {path}{f' ({error})' if error else ''}")
            self.status_publisher.enqueue(change)
        # Also without a change: the end of a silence and a peer's status start or end a recovery, too.
        event = monitored.update_recovery(time.time())
        if event is not None:
            self.status_publisher.enqueue(event)

    # Housekeeping.

    async def _run_housekeeping(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + HOUSEKEEPING_INTERVAL
            await asyncio.sleep(HOUSEKEEPING_INTERVAL)
            self.loop_lag = max(0.0, clock() - due)
            self.housekeeping_at = now = time.time()
            connected = self._client.is_connected
            self.scheduler.update_connection(connected)
            for monitored in list(self._monitored.values()):
                self._publish_if_due(monitored, now)
                # ``take_renewal`` comes last, because asking it counts as a renewal.
                if self.scheduler.online and connected and monitored.take_renewal(clock()):
                    await self._switch.renew(monitored)
            version = file_version(self._path)
            if self._reload_requested or version != self._file_version:
                # The version from before the reload: a change while the file is read causes another reload.
                self._reload_requested, self._file_version = False, version
                await self._reload_file()

    def _publish_if_due(self, monitored: MonitoredGateway, now: float) -> None:
        change = monitored.update_session(now) or monitored.expire_silence(now)
        if change is not None:
            self._publish_change(monitored, change)
        subject = monitored.recovery_subject
        # The preceding recovery event must be acknowledged first: its publish decides which monitor makes the
        # attempts.
        if subject is not None and not self.status_publisher.is_pending(subject):
            event = monitored.next_recovery_event(now)
            if event is not None:
                print_notice(PROGRAM, f"{event.gateway_id}: recovery {event.phase} {event.attempt}")
                self.status_publisher.enqueue(event)
                if event.phase == "attempt":
                    monitored.tasks.append(self._tasks.start(self._attempt_recovery(monitored, event)))

    async def _attempt_recovery(self, monitored: MonitoredGateway, event: EventModel) -> None:
        error = await monitored.attempt_recovery(event)
        if error is not None:
            print_notice(PROGRAM, f"{monitored.gateway.id}: recovery attempt failed: {error}")

    async def _report_health(self) -> None:
        """Publish the monitor's own health at each interval."""
        while True:
            lag = self.scheduler.take_latest_lag()
            event = SystemHealth(
                component="monitor",
                instance=self._id,
                status=Status.HEALTHY
                if self.scheduler.online and not self._file_rejected
                else Status.DEGRADED,
                checks={
                    "gateways": len(self._monitored),
                    "statuses": dict(
                        Counter(str(monitored.status) for monitored in self._monitored.values())
                    ),
                    "probes_total": self.scheduler.probes_run,
                    "latest_probe_lag_ms": round(lag * 1000, 1),
                    "event_loop_lag_ms": round(self.loop_lag * 1000, 1),
                    "pending_transitions": self.status_publisher.pending,
                    "config_errors": self.config_errors,
                    "online": self.scheduler.online,
                },
            )
            try:
                await self._publisher.publish(event)
            except PublishError as error:
                print_notice(PROGRAM, f"health event not published: {error}")
            await asyncio.sleep(self._health_interval)

    async def _publish_remaining(self) -> None:
        try:
            async with asyncio.timeout(STOP_GRACE):
                while self.status_publisher.pending:
                    if not await self.status_publisher.publish_pending():
                        await asyncio.sleep(RETRY_DELAY)
        except TimeoutError:
            pending = self.status_publisher.pending
            print_notice(PROGRAM, f"stopped with {pending} changes that NATS has not acknowledged")


def _print_notice(line: str) -> None:
    print_notice(PROGRAM, line)
