"""The monitor at work: it probes on time, tells every change, hears the others, and reloads its file.

Invariants:

1. Probing never waits for NATS, and no probe waits for another but for a slot.
2. A bad file changes nothing; a good one keeps the state of every gateway that is still in it.
3. While the monitor's own connectivity is down it judges nobody, and lets the switches of NATS run out.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from prometheus_client import Histogram

from contracts.consumer import Delivery
from contracts.events import EventModel, GatewayStatusChange, Status, SystemHealth
from contracts.streams import Names, StreamsError
from producers.errors import PublishError
from producers.monitor import probes, silences
from producers.monitor.config import Check, MonitorConfig
from producers.monitor.config_file import ConfigError, load
from producers.monitor.follow import end_of, follow
from producers.monitor.health import Outcome
from producers.monitor.latest import Newest, author, last, newest_statuses, status_of
from producers.monitor.probe_settings import FreshnessProbe
from producers.monitor.telling import Telling
from producers.monitor.watch import MONITOR_SILENT, Silence, removed
from producers.monitor.watchdog import Watchdog
from producers.monitor.watched import Watched, spread
from producers.program import RETRY_WAIT, ensure_streams, say
from producers.publisher import Publisher

PROGRAM: Final = "monitor"
MAX_PROBES_AT_ONCE: Final = 512
"""Open probes; a bound on sockets that thousands of gateways with a long ``hold`` would need otherwise."""

STOP_GRACE: Final = 2.0
"""Seconds at the end for what is not yet acknowledged."""

HOUSEKEEPING: Final = 0.25
"""Seconds between two looks at sessions, silences, recoveries, switches and the file."""

LEAST_RENEWAL: Final = 0.4
"""Seconds between two renewals of a gateway's switch at least."""

JITTER: Final = 0.05
"""Share of an interval by which a look is put off or forward, so that no two monitors march in step."""


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
        reaches: False while its own connectivity is down.
        probed: looks at gateways.
        refused: times that a changed file was refused.
        latest_lag: seconds that the latest look was late, since the last event on its health.
        lag: of all looks.
        loop_lag: seconds that housekeeping was late the last time.
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
        self.reaches = True
        self.probed = 0
        self.refused = 0
        self.latest_lag = 0.0
        self.loop_lag = 0.0
        self.lag = Histogram(
            "tickertape_monitor_probe_lag_seconds",
            "How much later than due a look at a gateway began.",
            registry=None,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
        )
        self.telling = Telling(publisher, names, self._word, lambda line: say(PROGRAM, line))
        self._id = id
        self._path = path
        self._config = config
        self._publisher = publisher
        self._names = names
        self._health_interval = health_interval
        self._watched: dict[str, Watched] = {}
        self._silences: dict[str, Silence] = {}
        self._kit = probes.Kit()
        self._slots = asyncio.Semaphore(MAX_PROBES_AT_ONCE)
        self._group: asyncio.TaskGroup
        self._watchdog: Watchdog
        self._client: Client
        self._stamp = _stamp(path)
        self._reload = False
        self._complained = False

    def watches(self) -> Iterator[Watched]:
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
            say(PROGRAM, note)
        self._watchdog = Watchdog(client, names)
        if not self._watchdog.works:
            say(PROGRAM, "without message schedules nothing tells when all monitors are dead")
        events, newest, ends = await self._first_look(client)
        async with asyncio.TaskGroup() as group:
            self._group = group
            tasks = [
                group.create_task(self._silence_others(ends)),
                group.create_task(self._hear(events)),
                group.create_task(self.telling.run()),
            ]
            self._begin(newest)
            await self._subscribe()
            tasks += [
                group.create_task(self._keep_house()),
                group.create_task(self._report()),
                group.create_task(self._check_connectivity()),
            ]
            self.started = True
            say(PROGRAM, f"watching {len(self._watched)} gateways as {self._id!r}")
            await stop.wait()
            for task in tasks:
                task.cancel()
            for watched in self._watched.values():
                watched.stop()
        await self._hand_over()

    async def _first_look(self, client: Client) -> tuple[int, dict[str, Newest], int]:
        """Where the streams end, and what they hold: read in this order, nothing falls in between."""
        while True:
            reconnects = client.stats["reconnects"]
            try:
                events = await end_of(client, self._names.stream("EVENTS"))
                newest = await newest_statuses(client, self._names)
                ends = 0
                if self._watchdog.works:
                    ends = await end_of(client, self._names.stream("WATCHDOG"))
                    self._silences = await silences.read(client, self._names)
                return events, newest, ends
            except (StreamsError, NatsError) as error:
                if client.is_connected and client.stats["reconnects"] == reconnects:
                    what = f"the newest statuses cannot be read: {error}"
                    raise StreamsError(what, "look at the server's log and this user's permissions") from None
            await asyncio.sleep(RETRY_WAIT)

    # What is watched.

    def _begin(self, newest: dict[str, Newest]) -> None:
        now = time.time()
        for gateway in self._config.resolved():
            known = newest.get(gateway.subject)
            if known is not None:
                self.telling.heard(gateway.subject, known.sequence)
            self._watch(Watched(gateway, self._id, known, now), now)
        for subject, known in newest.items():
            own = known.monitor == self._id and known.status is not Status.REMOVED
            if own and subject not in self._watched:
                self.telling.heard(subject, known.sequence)
                self._remove(known, now)

    def _watch(self, watched: Watched, now: float) -> None:
        subject = watched.gateway.subject
        self._watched[subject] = watched
        self._tell(watched, watched.first(now))
        if (silence := self._silences.get(subject)) is not None:
            self._tell(watched, watched.quiet(silence, now))
        self._tell(watched, watched.keep_hours(now))
        for index, check in enumerate(watched.gateway.checks):
            watched.tasks.append(self._group.create_task(self._probe(watched, index, check)))

    def _remove(self, known: Newest, now: float) -> None:
        say(PROGRAM, f"{known.gateway_id} is no longer in the file: removed")
        self.telling.keep(removed(known, self._id, now))
        self._group.create_task(self._disarm(known))

    async def _disarm(self, known: Newest) -> None:
        try:
            await self._watchdog.disarm(known.gateway_type, known.gateway_id)
        except (StreamsError, NatsError) as error:
            say(PROGRAM, f"the switch of {known.gateway_id} may still fire once: {error}")

    async def _read_again(self) -> None:
        """Take a changed file over, or say why not."""
        try:
            config = await asyncio.to_thread(load, self._path)
        except ConfigError as error:
            self.refused += 1
            self._complained = True
            say(PROGRAM, f"the changed file is refused, the old one stays: {error}")
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
                self._watch(Watched(gateway, self._id, watched.newest(), now), now)
        for gateway in wanted.values():
            self._watch(Watched(gateway, self._id, None, now), now)
        await self._subscribe()
        say(PROGRAM, f"the file was read again: watching {len(self._watched)} gateways")

    # Probing.

    async def _probe(self, watched: Watched, index: int, check: Check) -> None:
        clock = asyncio.get_running_loop().time
        due = clock() + spread(f"{watched.gateway.id} {index}", check.interval)
        while True:
            await asyncio.sleep(max(0.0, due - clock()))
            if self.reaches and watched.status is not Status.OFF_SESSION:
                async with self._slots:
                    late = max(0.0, clock() - due)
                    self.lag.observe(late)
                    self.latest_lag = max(self.latest_lag, late)
                    began = time.time()
                    result = await probes.run(check, self._kit)
                self.probed += 1
                # Connectivity may have gone meanwhile, and then this says nothing about the gateway.
                if result is not None and (result.outcome is not Outcome.FAILED or self.reaches):
                    self._tell(watched, watched.after(index, result, time.time(), began))
            # A probe that took longer than its interval skips the turns that it missed.
            due += check.interval * max(1, -int((due - clock()) // check.interval))
            due += check.interval * random.uniform(-JITTER, JITTER)  # noqa: S311

    def _tell(self, watched: Watched, change: GatewayStatusChange | None) -> None:
        if change is not None:
            error = change.metadata.get("error")
            path = f"{change.previous_status} -> {change.current_status}"
            say(PROGRAM, f"{change.gateway_id}: {path}{f' ({error})' if error else ''}")
            self.telling.keep(change)
        self._see_to(watched)

    def _see_to(self, watched: Watched) -> None:
        event = watched.recovery_follows(time.time())
        if event is not None:
            self.telling.keep(event)

    async def _check_connectivity(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            checks = self._config.connectivity_checks()
            began = clock()
            results = await asyncio.gather(*(probes.run(check, self._kit) for check in checks))
            reaches = not checks or any(
                one is not None and one.outcome is not Outcome.FAILED for one in results
            )
            if reaches is not self.reaches:
                say(
                    PROGRAM,
                    "it reaches the world again" if reaches else "it reaches nothing: it judges nobody",
                )
            self.reaches = reaches
            for watched in self._watched.values() if not reaches else ():
                watched.blind()
            every = min((check.interval for check in checks), default=1.0)
            await asyncio.sleep(max(0.0, began + every - clock()))

    # Others' words.

    def _word(self, subject: str, sequence: int, body: bytes) -> bool:
        """Take over what stands on a subject, unless it is our own; True when it is another's."""
        newest = status_of(subject, body, sequence)
        silent = newest is not None and newest.reason == MONITOR_SILENT
        if author(body) == self._id and not silent:
            return False
        self.telling.drop(subject)
        watched = self._watched.get(subject)
        if watched is not None and newest is not None:
            self._tell(watched, watched.adopt(newest, time.time()))
        for one in self._watched.values() if subject.startswith("gateway.recovery.") else ():
            if one.recovery_subject == subject:
                one.leave_recovery()
        return True

    async def _hear(self, after: int) -> None:
        names = self._names

        def heard(delivery: Delivery) -> None:
            subject = names.bare(delivery.subject)
            if self.telling.heard(subject, delivery.seq):
                self._word(subject, delivery.seq, delivery.data)

        patterns = (names.subject("gateway.>"),)
        await follow(self._client, names.stream("EVENTS"), patterns, after, heard)

    async def _silence_others(self, after: int) -> None:
        if not self._watchdog.works:
            return
        names = self._names

        def heard(delivery: Delivery) -> None:
            subject = silences.status_subject(names.bare(delivery.subject))
            silence = silences.decode(delivery.data)
            if silence is None:
                return
            self._silences[subject] = silence
            if (watched := self._watched.get(subject)) is not None:
                self._tell(watched, watched.quiet(silence, time.time()))

        patterns = (names.subject(silences.PATTERN),)
        await follow(self._client, names.stream("WATCHDOG"), patterns, after, heard)

    async def _subscribe(self) -> None:
        """Listen to the subjects of the freshness probes, and know the last word on each recovery."""
        clock = asyncio.get_running_loop().time
        patterns = {
            check.probe.subject
            for watched in self._watched.values()
            for check in watched.gateway.checks
            if isinstance(check.probe, FreshnessProbe)
        }
        new = self._kit.freshness.patterns ^ patterns
        if new:
            self._kit.freshness.listen(patterns, clock())
            for subscription in self._kit.subscriptions:
                await subscription.unsubscribe()

            async def arrived(message: Msg) -> None:
                self._kit.freshness.saw(self._names.bare(message.subject), clock())

            self._kit.subscriptions = [
                await self._client.subscribe(self._names.subject(pattern), cb=arrived)
                for pattern in sorted(patterns)
            ]
        stream = self._names.stream("EVENTS")
        for watched in self._watched.values():
            subject = watched.recovery_subject
            if subject is None or self.telling.expects(subject):
                continue
            try:
                answer = await last(self._client, stream, self._names.subject(subject))
            except NatsError:
                continue  # it is read again when it turns out to be needed
            if answer is not None:
                self.telling.heard(subject, answer[0])

    # Housekeeping.

    async def _keep_house(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + HOUSEKEEPING
            await asyncio.sleep(HOUSEKEEPING)
            self.loop_lag = max(0.0, clock() - due)
            now = time.time()
            connected = self._client.is_connected
            if not connected:
                self._kit.freshness.deaf()
            elif self._kit.freshness.is_deaf:
                self._kit.freshness.listen(self._kit.freshness.patterns, clock())
            for watched in list(self._watched.values()):
                self._tell_if_due(watched, now)
                if self.reaches and connected and clock() >= watched.renew_at:
                    watched.renew_at = clock() + max(LEAST_RENEWAL, watched.gateway.interval)
                    await self._watchdog.renew(watched)
            stamp = _stamp(self._path)
            if self._reload or stamp != self._stamp:
                self._reload, self._stamp = False, stamp
                await self._read_again()

    def _tell_if_due(self, watched: Watched, now: float) -> None:
        change = watched.keep_hours(now) or watched.keep_silence(now)
        if change is not None:
            self._tell(watched, change)
        subject = watched.recovery_subject
        if subject is not None and not self.telling.waits(subject):
            event = watched.next_recovery(now)
            if event is not None:
                say(PROGRAM, f"{event.gateway_id}: recovery {event.phase} {event.attempt}")
                self.telling.keep(event)
                if event.phase == "attempt":
                    watched.tasks.append(self._group.create_task(self._attempt(watched, event)))

    async def _attempt(self, watched: Watched, event: EventModel) -> None:
        error = await watched.attempt(event)
        if error is not None:
            say(PROGRAM, f"{watched.gateway.id}: the attempt to recover it could not be made: {error}")

    async def _report(self) -> None:
        """Tell that this monitor lives, and how it does."""
        while True:
            late, self.latest_lag = self.latest_lag, 0.0
            event = SystemHealth(
                component="monitor",
                instance=self._id,
                status=Status.HEALTHY if self.reaches and not self._complained else Status.DEGRADED,
                checks={
                    "gateways": len(self._watched),
                    "statuses": dict(Counter(str(watched.status) for watched in self._watched.values())),
                    "probes_total": self.probed,
                    "latest_probe_lag_ms": round(late * 1000, 1),
                    "event_loop_lag_ms": round(self.loop_lag * 1000, 1),
                    "pending_changes": self.telling.pending,
                    "refused_files": self.refused,
                    "reaches": self.reaches,
                },
            )
            try:
                await self._publisher.publish(event)
            except PublishError as error:
                say(PROGRAM, f"its own health could not be told: {error}")
            await asyncio.sleep(self._health_interval)

    async def _hand_over(self) -> None:
        try:
            async with asyncio.timeout(STOP_GRACE):
                while self.telling.pending:
                    if not await self.telling.tell_once():
                        await asyncio.sleep(RETRY_WAIT)
        except TimeoutError:
            left = self.telling.pending
            say(PROGRAM, f"stopped with {left} changes that NATS has not acknowledged")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file does; None while it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
