"""The monitor at work: what is watched, when it is told, and the file that says so.

``probe_scheduler.py`` probes gateways, ``coordination/`` publishes statuses and hears other monitors.

Invariants:

1. Probing never waits for NATS, and no probe waits for another but for a slot.
2. A bad file changes nothing; a good one keeps the state of every gateway that is still in it.
3. While the monitor's own connectivity is down it judges nobody, and lets the switches of NATS run out.
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
from tickertape.producers.monitor.config.loader import MonitorFileError, load, stamp
from tickertape.producers.monitor.config.models import MonitorConfig
from tickertape.producers.monitor.coordination.dead_man_switch import Watchdog
from tickertape.producers.monitor.coordination.peer_updates import PeerUpdates
from tickertape.producers.monitor.coordination.status_publisher import StatusPublisher
from tickertape.producers.monitor.gateway.model import Newest
from tickertape.producers.monitor.gateway.state import removed
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway
from tickertape.producers.monitor.probe_scheduler import Probing
from tickertape.producers.sdk.errors import PublishError
from tickertape.producers.sdk.publisher import Publisher

from tickertape.names import Names
from tickertape.nats.provisioning import RETRY_DELAY, ensure_streams
from tickertape.nats.streams import StreamsError
from tickertape.process.console import print_notice
from tickertape.process.tasks import Tasks

PROGRAM: Final = "monitor"

STOP_GRACE: Final = 2.0
"""Seconds at the end for what is not yet acknowledged."""

DISARM_GRACE: Final = 2.0
"""Seconds at the end for switches of gateways that are no longer watched."""

HOUSEKEEPING: Final = 0.25
"""Seconds between two looks at sessions, silences, recoveries, switches and the file."""


class Monitor:
    """The gateways of a file, and what is to be told of them.

    Args:
        id: name of this monitor, kept in its events.
        path: of the file.
        config: what the file says.
        publisher: entered; the caller closes it.
        names: the deployment.
        health_interval: seconds between two events on its own health.

    Attributes:
        refused: times that a changed file was refused.
        telling: what is still to be told.
        probing: the looks at gateways.
        loop_lag: seconds that housekeeping was late the last time.
        turned: when that was, UNIX seconds; 0 before the first time.
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
        self.refused = 0
        self.loop_lag = 0.0
        self.turned = 0.0
        self.telling = StatusPublisher(publisher, names, lambda *word: self._hearing.word(*word), _say)
        self._id = id
        self._path = path
        self._config = config
        self._publisher = publisher
        self._names = names
        self._health_interval = health_interval
        self._watched: dict[str, MonitoredGateway] = {}
        self.probing = Probing(self._watched, self._tell, _say)
        self._hearing = PeerUpdates(id, names, self._watched, self.telling, self._tell)
        self._tasks: Tasks
        self._disarming: list[asyncio.Task[None]] = []
        self._watchdog: Watchdog
        self._client: Client
        self._stamp = stamp(path)
        self._reload = False
        self._complained = False

    def watches(self) -> Iterator[MonitoredGateway]:
        """The gateways under watch."""
        yield from list(self._watched.values())

    def reload_soon(self) -> None:
        """Read the file again at the next turn of housekeeping."""
        self._reload = True

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then hand over what is left.

        Raises:
            StreamsError: JetStream cannot serve.
            OSError: the credentials cannot be read.
        """
        client = self._client = await self._publisher.connected()
        names = self._names
        for note in (await ensure_streams(client, names, PROGRAM)).notes:
            print_notice(PROGRAM, note)
        self._watchdog = Watchdog(client, names)
        if not self._watchdog.works:
            print_notice(PROGRAM, "without message schedules nothing tells when all monitors are dead")
        newest = await self._hearing.first_look(client, self._watchdog.works)
        async with Tasks() as tasks:
            self._tasks = tasks
            tasks.start(self._hearing.events(client), "events")
            tasks.start(self.telling.run(), "publish")
            if self._watchdog.works:
                tasks.start(self._hearing.quiet(client), "quiet")
            self._begin(newest)
            await self._subscribe()
            tasks.start(self._keep_house(), "house")
            tasks.start(self._report(), "report")
            tasks.start(
                self.probing.check_connectivity(lambda: self._config.connectivity_checks()), "connectivity"
            )
            self.started = True
            print_notice(PROGRAM, f"watching {len(self._watched)} gateways as {self._id!r}")
            await tasks.until(stop.wait())
            if self._disarming:
                await asyncio.wait(self._disarming, timeout=DISARM_GRACE)
        await self._hand_over()

    # What is watched.

    def _begin(self, newest: dict[str, Newest]) -> None:
        now = time.time()
        for gateway in self._config.resolved():
            known = newest.get(gateway.subject)
            if known is not None:
                self.telling.heard(gateway.subject, known.sequence)
            self._watch(MonitoredGateway(gateway, self._id, known, now), now)
        for subject, known in newest.items():
            own = known.monitor == self._id and known.status is not Status.REMOVED
            if own and subject not in self._watched:
                self.telling.heard(subject, known.sequence)
                self._remove(known, now)

    def _watch(self, watched: MonitoredGateway, now: float) -> None:
        subject = watched.gateway.subject
        self._watched[subject] = watched
        self._tell(watched, watched.first(now))
        if (silence := self._hearing.silences.get(subject)) is not None:
            self._tell(watched, watched.quiet(silence, now))
        self._tell(watched, watched.keep_hours(now))
        for index, check in enumerate(watched.gateway.checks):
            watched.tasks.append(self._tasks.start(self.probing.probe(watched, index, check)))

    def _remove(self, known: Newest, now: float) -> None:
        print_notice(PROGRAM, f"{known.gateway_id} is no longer in the file: removed")
        self.telling.keep(removed(known, self._id, now))
        self._disarming.append(self._tasks.start(self._disarm(known)))

    async def _disarm(self, known: Newest) -> None:
        try:
            await self._watchdog.disarm(known.gateway_type, known.gateway_id)
        except (StreamsError, NatsError) as error:
            print_notice(PROGRAM, f"the switch of {known.gateway_id} may still fire once: {error}")

    async def _read_again(self) -> None:
        """Take a changed file over, or say why not."""
        try:
            config = await asyncio.to_thread(load, self._path)
        except MonitorFileError as error:
            self.refused += 1
            self._complained = True
            print_notice(PROGRAM, f"the changed file is refused, the old one stays: {error}")
            return
        now = time.time()
        self._config = config
        wanted = {gateway.subject: gateway for gateway in config.resolved()}
        for subject, watched in list(self._watched.items()):
            gateway = wanted.pop(subject, None)
            if gateway == watched.gateway:
                continue
            watched.stop()
            del self._watched[subject]
            if gateway is None:
                self._remove(watched.newest(), now)
            else:
                self._watch(MonitoredGateway(gateway, self._id, watched.newest(), now), now)
        for gateway in wanted.values():
            self._watch(MonitoredGateway(gateway, self._id, None, now), now)
        await self._subscribe()
        print_notice(PROGRAM, f"the file was read again: watching {len(self._watched)} gateways")

    async def _subscribe(self) -> None:
        """Hear what the gateways that are watched now need."""
        await self.probing.subscribe(self._client, self._names)
        await self._hearing.recoveries(self._client)

    # What is told.

    def _tell(self, watched: MonitoredGateway, change: GatewayStatusChange | None) -> None:
        if change is not None:
            error = change.metadata.get("error")
            path = f"{change.previous_status} -> {change.current_status}"
            print_notice(PROGRAM, f"{change.gateway_id}: {path}{f' ({error})' if error else ''}")
            self.telling.keep(change)
        event = watched.recovery_follows(time.time())
        if event is not None:
            self.telling.keep(event)

    # Housekeeping.

    async def _keep_house(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + HOUSEKEEPING
            await asyncio.sleep(HOUSEKEEPING)
            self.loop_lag = max(0.0, clock() - due)
            self.turned = now = time.time()
            connected = self._client.is_connected
            self.probing.heed(connected)
            for watched in list(self._watched.values()):
                self._tell_if_due(watched, now)
                if self.probing.reaches and connected and watched.renews(clock()):
                    await self._watchdog.renew(watched)
            there = stamp(self._path)
            if self._reload or there != self._stamp:
                self._reload, self._stamp = False, there
                await self._read_again()

    def _tell_if_due(self, watched: MonitoredGateway, now: float) -> None:
        change = watched.keep_hours(now) or watched.keep_silence(now)
        if change is not None:
            self._tell(watched, change)
        subject = watched.recovery_subject
        if subject is not None and not self.telling.waits(subject):
            event = watched.next_recovery(now)
            if event is not None:
                print_notice(PROGRAM, f"{event.gateway_id}: recovery {event.phase} {event.attempt}")
                self.telling.keep(event)
                if event.phase == "attempt":
                    watched.tasks.append(self._tasks.start(self._attempt(watched, event)))

    async def _attempt(self, watched: MonitoredGateway, event: EventModel) -> None:
        error = await watched.attempt(event)
        if error is not None:
            print_notice(
                PROGRAM, f"{watched.gateway.id}: the attempt to recover it could not be made: {error}"
            )

    async def _report(self) -> None:
        """Tell that this monitor lives, and how it does."""
        while True:
            late = self.probing.take_latest_lag()
            event = SystemHealth(
                component="monitor",
                instance=self._id,
                status=Status.HEALTHY if self.probing.reaches and not self._complained else Status.DEGRADED,
                checks={
                    "gateways": len(self._watched),
                    "statuses": dict(Counter(str(watched.status) for watched in self._watched.values())),
                    "probes_total": self.probing.probed,
                    "latest_probe_lag_ms": round(late * 1000, 1),
                    "event_loop_lag_ms": round(self.loop_lag * 1000, 1),
                    "pending_changes": self.telling.pending,
                    "refused_files": self.refused,
                    "reaches": self.probing.reaches,
                },
            )
            try:
                await self._publisher.publish(event)
            except PublishError as error:
                print_notice(PROGRAM, f"its own health could not be told: {error}")
            await asyncio.sleep(self._health_interval)

    async def _hand_over(self) -> None:
        try:
            async with asyncio.timeout(STOP_GRACE):
                while self.telling.pending:
                    if not await self.telling.tell_once():
                        await asyncio.sleep(RETRY_DELAY)
        except TimeoutError:
            left = self.telling.pending
            print_notice(PROGRAM, f"stopped with {left} changes that NATS has not acknowledged")


def _say(line: str) -> None:
    print_notice(PROGRAM, line)
